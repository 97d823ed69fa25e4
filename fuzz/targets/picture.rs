//! Encoded pictures: the first byte says which image processor takes it, the others are the file. What comes out has as many values as the
//! model takes, all of them numbers, and twice the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use soup_eval::Budget;
use soup_eval::preprocess::{ImageSize, Preprocessor};

/// What decoding may take.
const BUDGET_BYTES: u64 = 32 << 20;
/// What the model takes.
const OUTPUT: ImageSize = ImageSize { height: 5, width: 5 };
/// What is said beside a picture, and how many channels the model has.
const PROCESSORS: [(&str, &str, usize); 6] = [
    (r#"{"image_processor_type": "ViTImageProcessor", "size": 5}"#, "{}", 3),
    (r#"{"image_processor_type": "ViTImageProcessorFast", "size": {"height": 5, "width": 5}}"#, "{}", 1),
    (
        r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 7}, "crop_size": 5}"#,
        r#"{"transformers_version": "5.24.0"}"#,
        3,
    ),
    (
        r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 7}, "crop_size": 5}"#,
        r#"{"transformers_version": "4.57.6"}"#,
        1,
    ),
    (
        r#"{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 5}, "crop_size": 5, "resample": 0}"#,
        "{}",
        3,
    ),
    (r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 5}}"#, "{}", 3),
];

fuzz_target!(|input: &[u8]| {
    let Some((which, picture)) = input.split_first() else { return };
    let (processor, config, channels) = PROCESSORS[usize::from(*which) % PROCESSORS.len()];
    let made = Preprocessor::of_any_size_beside(config, processor, OUTPUT, channels);
    let preprocessor = made.expect("what is said beside the picture is understood");
    let budget = Budget::new(BUDGET_BYTES);
    let mut values = Vec::new();
    if preprocessor.apply(picture, &budget, &mut values).is_ok() {
        assert_eq!(values.len(), preprocessor.values());
        assert!(values.iter().all(|value| value.is_finite()));
        let mut again = Vec::new();
        preprocessor.apply(picture, &budget, &mut again).expect("what was decoded once is decoded twice");
        assert_eq!(again, values);
    }
});
