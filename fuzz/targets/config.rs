//! Small files beside checkpoints, a line each: two of settings, which are compared, and one of preprocessing. Settings agree with
//! themselves, and what is understood of a picture's way to a model leads there or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use soup_core::companion::{CONFIG, Companion, Content, Ignored, PREPROCESSOR, agree};
use soup_eval::preprocess::{ImageSize, Preprocessor};
use soup_eval::{Budget, EvaluatorSpec, evaluator};

/// Larger inputs are left out: resizing takes longer than reading does, and has bounds of its own.
const SIDE_MAX: usize = 256;
/// What decoding may take.
const BUDGET_BYTES: u64 = 64 << 20;
/// A grey picture of two by two pixels.
const PICTURE: &[u8] = include_bytes!("../seeds/picture.png");

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let [first, second, preprocessing] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    for file in [CONFIG, PREPROCESSOR] {
        let of = |name: &str, text: &str| match serde_json::from_str(text) {
            Ok(Value::Object(settings)) => {
                Some(Companion { ingredient: name.into(), content: Content::Settings(settings) })
            }
            _ => None,
        };
        if let (Some(a), Some(b)) = (of("a", first), of("b", second)) {
            let same = Companion { ingredient: "c".into(), ..a.clone() };
            agree(file, &[a.clone(), same], &mut Ignored::default()).expect("settings agree with themselves");
            let _ = agree(file, &[a, b], &mut Ignored::new(&["hidden_act".into()]));
        }
    }
    let spec = EvaluatorSpec {
        config_json: first.into(),
        preprocessor_json: Some(preprocessing.into()).filter(|text: &String| !text.is_empty()),
        batch_size: 1,
        ..EvaluatorSpec::default()
    };
    if let Ok(evaluator) = evaluator(&spec) {
        assert!(evaluator.classes() >= 2);
        assert_eq!(evaluator.class_names().count(), evaluator.classes());
    }
    let output = ImageSize { height: 4, width: 4 };
    let beside = r#"{"transformers_version": "5.24.0"}"#;
    let read = [
        Preprocessor::from_json(preprocessing, output, 3),
        Preprocessor::of_any_size(preprocessing, output, 3),
        Preprocessor::of_any_size_beside(beside, preprocessing, output, 3),
    ];
    for preprocessor in read.into_iter().flatten() {
        let ImageSize { height, width } = preprocessor.output();
        if height.max(width) > SIDE_MAX {
            continue;
        }
        let mut values = Vec::new();
        if preprocessor.apply(PICTURE, &Budget::new(BUDGET_BYTES), &mut values).is_ok() {
            assert_eq!(values.len(), preprocessor.values());
        }
    }
});
