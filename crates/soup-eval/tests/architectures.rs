//! Tiny models of every architecture against transformers: logits and gradients.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is how a test fails; the differences are worth printing

mod pool;

use std::path::PathBuf;

use soup_core::ErrorKind;
use soup_core::devices::DeviceKind;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::weights::Weights;
use soup_eval::{Evaluator, EvaluatorSpec, LossSpec, Observed, Prepared, Prompts, TokenizerFiles, evaluator};

const NEVER: &dyn Fn() -> bool = &|| false;
/// The folders of `golden/models`, which `golden/models.py`, `golden/timm_models.py` and `golden/open_clip_models.py` make: of models of
/// images,
const IMAGES: [&str; 37] = [
    "vit",
    "vit_odd",
    "deit",
    "deit_odd",
    "deit_teacher",
    "dinov2",
    "dinov2_odd",
    "dinov2_swiglu",
    "dinov2_smaller",
    "dinov2_larger",
    "dinov2_oblong",
    "resnet",
    "resnet_odd",
    "resnet_bottleneck",
    "resnet_bottleneck_first",
    "efficientnet",
    "efficientnet_odd",
    "efficientnet_even",
    "registers",
    "registers_smaller",
    "registers_oblong",
    "registers_larger",
    "clip",
    "clip_odd",
    "clip_whole",
    "timm",
    "timm_registers",
    "timm_gap",
    "timm_clip",
    "timm_gated",
    "clip_zero_shot",
    "clip_zero_shot_early",
    "align",
    "align_odd",
    "align_unpadded",
    "open_clip",
    "open_clip_odd",
];
/// and of texts.
const TEXTS: [&str; 13] = [
    "bert",
    "bert_odd",
    "bert_unpadded",
    "bert_shallow",
    "roberta",
    "roberta_odd",
    "distilbert",
    "distilbert_odd",
    "t5",
    "t5_odd",
    "t5_gated",
    "t5_narrow",
    "t5_far",
];

fn cases() -> impl Iterator<Item = &'static str> {
    IMAGES.into_iter().chain(TEXTS)
}

/// Whether a case has running statistics.
fn is_convolutional(case: &str) -> bool {
    ["resnet", "efficientnet", "align"].iter().any(|family| case.starts_with(family))
}

/// Every case on every device that this build has.
fn everywhere() -> impl Iterator<Item = (DeviceKind, &'static str)> {
    pool::DEVICES.iter().flat_map(|&device| cases().map(move |case| (device, case)))
}

/// Whether classes are what prompts say.
fn is_zero_shot(case: &str) -> bool {
    ["clip_zero_shot", "align", "open_clip"].iter().any(|family| case.starts_with(family))
}

/// Whether nothing looks at a tensor in evaluation.
fn is_unused(case: &str, tensor: &str) -> bool {
    let parts = match is_zero_shot(case) {
        true => &["text_model.pooler.", "num_batches_tracked"][..],
        false => &["mask_token", ".post_layernorm.", "text_model.", "num_batches_tracked"],
    };
    parts.iter().any(|part| tensor.contains(part))
}

/// Whether a tensor is a running statistic, by which there is no gradient.
fn is_statistic(tensor: &str) -> bool {
    tensor.ends_with("running_mean") || tensor.ends_with("running_var")
}

/// The prompts of a case, and the tokenizer that they need.
fn prompts(case: &str) -> (Option<Prompts>, Option<TokenizerFiles>) {
    if !is_zero_shot(case) {
        return (None, None);
    }
    let prompts = std::fs::read_to_string(path(case, "prompts.json")).unwrap();
    let prompts = Prompts::from_json(&prompts).unwrap();
    let tokenizer_json = std::fs::read(path(case, "tokenizer.json")).unwrap().into();
    (Some(prompts), Some(TokenizerFiles { tokenizer_json, config_json: None }))
}

fn path(case: &str, file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(case).join(file)
}

fn config(case: &str) -> String {
    let file = if case.starts_with("open_clip") { "open_clip_config.json" } else { "config.json" };
    std::fs::read_to_string(path(case, file)).unwrap()
}

/// Preprocessing that makes images as large as the model's own.
const SQUARES: &str = r#"{"image_processor_type": "ViTImageProcessor"}"#;

/// Where images have another size than `image_size`, the preprocessing says so.
fn preprocessor(case: &str) -> String {
    std::fs::read_to_string(path(case, "preprocessor_config.json")).unwrap_or(SQUARES.to_owned())
}

fn spec(
    config_json: String,
    preprocessor_json: String,
    (device, batch_size): (DeviceKind, u32),
) -> EvaluatorSpec {
    let preprocessor_json = Some(preprocessor_json);
    EvaluatorSpec { config_json, preprocessor_json, batch_size, device, ..EvaluatorSpec::default() }
}

fn evaluator_with(
    config_json: String,
    preprocessor_json: String,
    label_tokens: Vec<Vec<u32>>,
    on: (DeviceKind, u32),
) -> Result<Box<dyn Evaluator>, soup_core::Error> {
    evaluator(&EvaluatorSpec { label_tokens, ..spec(config_json, preprocessor_json, on) })
}

fn evaluator_of(case: &str, batch_size: u32) -> Box<dyn Evaluator> {
    evaluator_on(DeviceKind::Cpu, case, batch_size)
}

fn evaluator_on(device: DeviceKind, case: &str, batch_size: u32) -> Box<dyn Evaluator> {
    let (prompts, tokenizer) = prompts(case);
    let spec = EvaluatorSpec {
        prompts,
        tokenizer,
        label_tokens: labels(case),
        ..spec(config(case), preprocessor(case), (device, batch_size))
    };
    evaluator(&spec).unwrap()
}

fn golden(case: &str, name: &str) -> Vec<f64> {
    pool::golden_in(&path(case, "golden.safetensors"), name)
}

fn integers<T>(case: &str, name: &str, convert: impl Fn(f64) -> T) -> Vec<T> {
    golden(case, name).into_iter().map(convert).collect()
}

/// What answers in words has for its classes, none for others.
fn labels(case: &str) -> Vec<Vec<u32>> {
    if !case.starts_with("t5") {
        return Vec::new();
    }
    let mut ids = integers(case, "label_ids", |id| id as u32).into_iter();
    let lengths = integers(case, "label_lengths", |length| length as usize);
    lengths.into_iter().map(|length| ids.by_ref().take(length).collect()).collect()
}

fn samples(case: &str) -> Prepared {
    let labels = integers(case, "labels", |l| l as u32);
    if !TEXTS.contains(&case) {
        let pixels = golden(case, "pixel_values").into_iter().map(|v| v as f32).collect();
        return Prepared::from_pixels(pixels, labels).unwrap();
    }
    let (ids, types) = (integers(case, "ids", |id| id as u32), integers(case, "types", |of| of as u8));
    let mut first = 0;
    let texts = golden(case, "lengths").into_iter().map(|length| {
        let text = first..first + length as usize;
        first = text.end;
        (&ids[text.clone()], &types[text])
    });
    Prepared::from_pairs(&texts.collect::<Vec<_>>(), labels).unwrap()
}

fn model(case: &str) -> (Schema, Vec<u8>) {
    pool::parameters_in(&path(case, "model.safetensors"))
}

fn logits(device: DeviceKind, case: &str, batch_size: u32) -> Vec<f32> {
    let (schema, bytes) = model(case);
    let (prepared, evaluator) = (samples(case), evaluator_on(device, case, batch_size));
    evaluator
        .load(&schema, Weights::copied_from(&schema, &bytes).unwrap())
        .unwrap()
        .logits(&prepared, 0..prepared.len(), NEVER)
        .unwrap()
}

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max)
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// Logits are a few units large, and PyTorch's own f32 is off by up to 3e-6 of its f64. Position embeddings are interpolated in f32 by
/// both, also in PyTorch's f64: sums of 16 products, which add no more than that. With another interpolation (linear, with aligned
/// corners, with antialiasing) PyTorch's own logits differ by 5e-2 or more.
#[test]
fn logits_agree_with_transformers() {
    for (device, case) in everywhere() {
        let got = logits(device, case, 4);
        let f32 = largest_difference(&got, &golden(case, "logits"));
        let f64 = largest_difference(&got, &golden(case, "logits_f64"));
        println!("{device}, {case}: largest difference {f32:.1e} from f32, {f64:.1e} from f64");
        assert!(f32 <= 1e-4 && f64 <= 1e-4, "{device}, {case}: {f32} from f32, {f64} from f64");
    }
}

/// Of the first label alone the same model has the same logit, and takes it for a number.
#[test]
fn models_with_one_label_predict_a_number() {
    let cases = [
        ("bert", "classifier"),
        ("roberta", "classifier.out_proj"),
        ("distilbert", "classifier"),
        ("vit", "classifier"),
        ("deit", "classifier"),
        ("dinov2", "classifier"),
        ("clip", "classifier"),
        ("resnet", "classifier.1"),
        ("efficientnet", "classifier"),
    ];
    for (case, head) in cases {
        let (schema, bytes) = model(case);
        let (mut specs, mut flat, mut classes) = (schema.tensors().to_vec(), Vec::new(), 0);
        for (index, spec) in specs.iter_mut().enumerate() {
            let range = schema.range(index);
            let mut tensor = &bytes[range.start as usize..range.end as usize];
            if spec.name.strip_prefix(head).is_some_and(|leaf| leaf == ".weight" || leaf == ".bias") {
                classes = spec.shape[0] as usize;
                tensor = &tensor[..tensor.len() / classes];
                spec.shape[0] = 1;
            }
            flat.extend_from_slice(tensor);
        }
        let one = Schema::new(specs).unwrap();
        let said = serde_json::json!({ "id2label": { "0": "LABEL_0" }, "label2id": { "LABEL_0": 0 }, "problem_type": "regression" });
        let evaluator =
            evaluator_with(changed(case, said), preprocessor(case), Vec::new(), (DeviceKind::Cpu, 4));
        let (evaluator, prepared) = (evaluator.unwrap(), samples(case));
        assert!(evaluator.class_names().is_empty() && evaluator.check_schema(&schema).is_err(), "{case}");
        let loaded = evaluator.load(&one, Weights::copied_from(&one, &flat).unwrap()).unwrap();
        let got = loaded.logits(&prepared, 0..prepared.len(), NEVER).unwrap();
        let want: Vec<f64> = golden(case, "logits").into_iter().step_by(classes).collect();
        assert!(largest_difference(&got, &want) <= 1e-4, "{case}");
    }
}

#[test]
fn logits_depend_on_their_sample_alone() {
    for (device, case) in everywhere() {
        let all = logits(device, case, 32);
        for batch_size in [1, 4] {
            assert_eq!(logits(device, case, batch_size), all, "{device}, {case}, batch size {batch_size}");
        }
    }
}

/// Of each tensor by the root mean square of its own gradient. One that is swapped, transposed or scaled wrongly differs
/// by about 1.
#[test]
fn gradients_agree_with_pytorch() {
    for (device, case) in everywhere() {
        let ((schema, bytes), prepared) = (model(case), samples(case));
        let spec = LossSpec { beta: 1.3, label_smoothing: 0.1, scale: 1.0 / prepared.len() as f64 };
        let got = evaluator_on(device, case, 4)
            .differentiate(&schema, &bytes, &prepared, 0..prepared.len(), &spec, NEVER)
            .unwrap();
        let wants: Vec<Vec<f64>> =
            schema.tensors().iter().map(|t| golden(case, &format!("gradient/{}", t.name))).collect();
        let rms_of_all = rms(&wants.concat());
        let (mut worst, mut at) = (0f64, 0);
        for (tensor, want) in schema.tensors().iter().zip(&wants) {
            let got = &got.values[at..at + want.len()];
            at += want.len();
            // A key's bias moves no attention: its gradient is 0 but for rounding, which is compared with the others'.
            let off = largest_difference(got, want) / rms(want).max(0.1 * rms_of_all);
            if want.iter().all(|&v| v == 0.0) {
                assert!(got.iter().all(|&v| v == 0.0), "{case}: {} is no parameter", tensor.name);
            }
            assert!(off < 1e-4, "{device}, {case}: {} is off by {off}", tensor.name);
            worst = worst.max(off);
            if is_unused(case, &tensor.name) || is_statistic(&tensor.name) {
                assert!(got.iter().all(|&v| v == 0.0), "{case}: nothing looks at {}", tensor.name);
            }
        }
        assert_eq!(at, got.values.len());
        let scalar = largest_difference(&[got.loss as f32, got.d_beta as f32], &golden(case, "scalars"));
        println!("{device}, {case}: gradient {worst:.1e}, loss and its derivative {scalar:.1e}");
        assert!(scalar < 1e-5, "{device}, {case}: {scalar}");
    }
}

/// The statistics of all samples as one block, those of each layer by the root mean square of its own. What few values are normalised by
/// multiplies the rounding of f32 from layer to layer.
#[test]
fn statistics_of_a_block_are_those_of_pytorch_in_training() {
    for (device, case) in everywhere() {
        let (schema, bytes) = model(case);
        let (prepared, evaluator) = (samples(case), evaluator_on(device, case, 2));
        let mut model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let observed = model.observe(&prepared, 0..prepared.len()).unwrap();
        let statistics = schema.tensors().iter().filter(|t| is_statistic(&t.name)).count();
        assert_eq!((observed.len(), statistics > 0), (statistics, is_convolutional(case)), "{case}");
        let names: Vec<_> = observed.iter().map(|o| o.name.clone()).collect();
        assert_eq!(evaluator.statistics().unwrap().len(), statistics, "{case}");
        assert!(evaluator.statistics().unwrap().iter().all(|name| names.contains(name)), "{case}");
        let mut worst = 0f64;
        for Observed { name, values } in &observed {
            let want = golden(case, &format!("block/{name}"));
            let off = values.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max) / rms(&want);
            assert!(off < 1e-4, "{device}, {case}: {name} is off by {off}");
            worst = worst.max(off);
        }
        println!("{device}, {case}: {statistics} statistics, off by {worst:.1e}");
        // A model that is given them is another one, and one that is given its own is itself.
        let before = model.logits(&prepared, 0..prepared.len(), NEVER).unwrap();
        let own = |name: &str| {
            let range = schema.range(schema.index_of(name).unwrap());
            pool::values_of(&bytes[range.start as usize..range.end as usize])
        };
        let given: Vec<_> = observed.iter().map(|o| (o.name.clone(), own(&o.name))).collect();
        model.normalise_by(&given).unwrap();
        assert_eq!(model.logits(&prepared, 0..prepared.len(), NEVER).unwrap(), before);
        let given = |o: &Observed| (o.name.clone(), o.values.iter().map(|&v| v as f32).collect::<Vec<_>>());
        model.normalise_by(&observed.iter().map(given).collect::<Vec<_>>()).unwrap();
        let after = model.logits(&prepared, 0..prepared.len(), NEVER).unwrap();
        assert_eq!(after != before, is_convolutional(case), "{device}, {case}");
    }
}

#[test]
fn a_classifier_of_images_refuses_texts() {
    let spec = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
    for case in IMAGES {
        let ((schema, bytes), evaluator) = (model(case), evaluator_of(case, 2));
        let texts = Prepared::from_tokens(&[&[7, 8], &[9]], vec![0, 1]).unwrap();
        let loaded = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let judged = loaded.logits(&texts, 0..2, NEVER).unwrap_err();
        let differentiated =
            evaluator.differentiate(&schema, &bytes, &texts, 0..2, &spec, NEVER).unwrap_err();
        for error in [judged, differentiated] {
            assert_eq!(error.kind(), ErrorKind::Data);
            let text = error.chain();
            assert!(text.starts_with("the samples are tokens of texts, "), "{case}: {text}");
            let names = [
                "ForImageClassification",
                "timm's VisionTransformer",
                "CLIPModel",
                "AlignModel",
                "open_clip's CLIP",
            ];
            assert!(names.iter().any(|name| text.contains(name)), "{case}: {text}");
        }
    }
}

/// What a text comes out as has nothing to do with those before and after it.
#[test]
fn texts_are_judged_as_if_each_were_alone() {
    for (device, case) in everywhere().filter(|(_, case)| TEXTS.contains(case)) {
        let ((schema, bytes), all) = (model(case), samples(case));
        let evaluator = evaluator_on(device, case, 32);
        let loaded = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let together = loaded.logits(&all, 0..all.len(), NEVER).unwrap();
        let (classes, what) = (together.len() / all.len(), format!("{device}, {case}"));
        for at in 0..all.len() {
            let want = &together[at * classes..][..classes];
            assert_eq!(loaded.logits(&all, at..at + 1, NEVER).unwrap(), want, "{what}, text {at}");
            let beside = all.pick([at, 0, at, 1]).unwrap();
            let got = loaded.logits(&beside, 0..4, NEVER).unwrap();
            assert_eq!((&got[..classes], &got[2 * classes..][..classes]), (want, want), "{what}, text {at}");
        }
    }
}

#[test]
fn texts_that_a_model_cannot_take_are_refused() {
    let evaluator = evaluator_of("bert", 4);
    let (schema, bytes) = model("bert");
    let loaded = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
    let spec = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
    let long = vec![5; 41];
    for (ids, types, part) in [
        (&[7, 61][..], &[0, 0][..], "token 61 is not one of the 61 of BertForSequenceClassification"),
        (&[7, 8], &[0, 2], "a token of type 2, and BertForSequenceClassification has 2 of them"),
        (&[], &[], "a text of 0 tokens"),
        (&long, &[0; 41], "a text of 41 tokens, BertForSequenceClassification takes 1 to 40"),
    ] {
        let texts = Prepared::from_pairs(&[(&[3], &[0]), (ids, types)], vec![0, 1]).unwrap();
        let judged = loaded.logits(&texts, 0..2, NEVER).unwrap_err();
        let differentiated =
            evaluator.differentiate(&schema, &bytes, &texts, 0..2, &spec, NEVER).unwrap_err();
        for error in [judged, differentiated] {
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.chain().starts_with(part), "{}", error.chain());
        }
    }
    let images = Prepared::from_pixels(vec![0.0; 4], vec![0, 1]).unwrap();
    let error = loaded.logits(&images, 0..2, NEVER).unwrap_err().chain();
    assert!(error.starts_with("the samples are pixels of images, BertForSeq"), "{error}");
}

/// Every tensor that a model uses is missed by its name, and so is its shape.
#[test]
fn every_parameter_is_checked() {
    for case in cases() {
        let (evaluator, (schema, _)) = (evaluator_of(case, 1), model(case));
        assert!(evaluator.check_schema(&schema).is_ok(), "{case}");
        for tensor in schema.tensors() {
            let (mut missing, mut reshaped) = (schema.tensors().to_vec(), schema.tensors().to_vec());
            missing.retain(|t| t.name != tensor.name);
            reshaped.iter_mut().filter(|t| t.name == tensor.name).for_each(|t| t.shape.push(1));
            for specs in [missing, reshaped] {
                let checked = evaluator.check_schema(&Schema::new(specs).unwrap());
                if is_unused(case, &tensor.name) {
                    assert!(checked.is_ok(), "{case}: nothing looks at {}", tensor.name);
                    continue;
                }
                let error = checked.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
                assert!(error.chain().starts_with(&format!("tensor {:?} ", tensor.name)), "{error:?}");
            }
        }
        let integers = schema.tensors().iter().map(|t| TensorSpec::new(&t.name, Dtype::I32, t.shape.clone()));
        let error = evaluator.check_schema(&Schema::new(integers.collect()).unwrap()).unwrap_err();
        assert!(error.chain().contains("is I32, expected a floating-point type"), "{error:?}");
    }
}

/// The config of a case with some settings changed.
fn changed(case: &str, changes: serde_json::Value) -> String {
    let mut config: serde_json::Value = serde_json::from_str(&config(case)).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

/// Position embeddings are interpolated where transformers does, and nowhere else.
#[test]
fn only_dinov2_takes_images_of_another_size() {
    let of = |case: &str, crop: usize| {
        let crop = format!(r#"{{"image_processor_type": "BitImageProcessor", "crop_size": {crop}}}"#);
        evaluator_with(config(case), crop, Vec::new(), (DeviceKind::Cpu, 1))
            .map(|_| ())
            .map_err(|e| (e.kind(), e.chain()))
    };
    assert_eq!(of("dinov2", 24), Ok(()));
    assert_eq!(of("registers", 24), Ok(()));
    for case in ["vit", "deit", "deit_teacher", "clip", "timm"] {
        assert_eq!(of(case, 16), Ok(()));
        let (kind, text) = of(case, 24).unwrap_err();
        assert_eq!(kind, ErrorKind::Data);
        assert!(text.contains("images become 24 x 24 pixels, the model takes 16 x 16"), "{case}: {text}");
    }
    let (kind, text) = of("dinov2", 3).unwrap_err();
    assert_eq!(kind, ErrorKind::Data);
    assert!(text.contains("patch_size is larger than the images, which become 3 x 3 pixels"), "{text}");
}

/// As transformers has it: an image's logits are cosines times a scale, e to the power of 1.7 here, or by a temperature of 0.2.
#[test]
fn classes_are_what_prompts_say() {
    let evaluator = evaluator_of("clip_zero_shot", 4);
    assert_eq!(evaluator.class_names().names(), ["w11", "w12 w13", "w14", "w15 w11 w16", "w17"]);
    for case in IMAGES.into_iter().filter(|case| is_zero_shot(case)) {
        let scale = if case.starts_with("align") { 5.0 } else { 1.7f32.exp() };
        assert!(logits(DeviceKind::Cpu, case, 4).iter().all(|logit| logit.abs() <= scale * 1.0001), "{case}");
    }
    let (prompts, tokenizer) = prompts("clip_zero_shot");
    let spec = spec(config("clip_zero_shot"), SQUARES.to_owned(), (DeviceKind::Cpu, 4));
    let error = |spec: &EvaluatorSpec| soup_eval::evaluator(spec).err().unwrap().chain();
    assert!(
        error(&EvaluatorSpec { tokenizer, ..spec.clone() })
            .starts_with("CLIPModel compares images with texts")
    );
    assert!(error(&EvaluatorSpec { prompts, ..spec.clone() }).contains("there is no tokenizer.json"));
    let (_, tokenizer) = self::prompts("clip_zero_shot");
    let long =
        Prompts::new(vec![("a".to_owned(), vec!["w1 ".repeat(11)]), ("b".to_owned(), vec!["w2".to_owned()])]);
    let long = EvaluatorSpec { prompts: Some(long.unwrap()), tokenizer, ..spec };
    assert!(error(&long).contains("is too long: it would be cut to 12 tokens"), "{}", error(&long));
}

/// The configurations of timm and open_clip say how images become pixels; a `preprocessor_config.json` comes first.
#[test]
fn some_say_themselves_how_images_become_pixels() {
    let of = |case: &str, preprocessor_json: Option<&str>| {
        evaluator(&EvaluatorSpec {
            config_json: config(case),
            preprocessor_json: preprocessor_json.map(str::to_owned),
            ..EvaluatorSpec::default()
        })
        .map(drop)
        .map_err(|e| e.chain())
    };
    assert_eq!(of("timm", None), Ok(()));
    const OTHER: &str = r#"{"image_processor_type": "ViTImageProcessor", "size": 17}"#;
    assert!(of("timm", Some(OTHER)).unwrap_err().contains("images become 17 x 17 pixels"));
    // Of one channel.
    assert!(of("timm_gap", None).is_ok());
    assert!(of("vit", None).unwrap_err().contains("--preprocessor-config"));
    let (prompts, tokenizer) = prompts("open_clip_odd");
    let config_json = config("open_clip_odd");
    let own = EvaluatorSpec { config_json, prompts, tokenizer, ..EvaluatorSpec::default() };
    assert!(evaluator(&own).is_ok());
    let other = EvaluatorSpec { preprocessor_json: Some(OTHER.to_owned()), ..own };
    assert!(evaluator(&other).err().unwrap().chain().contains("images become 17 x 17 pixels"));
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn options_that_are_not_understood_are_refused_by_name() {
    for (case, changes, text) in [
        ("deit", serde_json::json!({ "hidden_act": "geglu" }), "unknown hidden_act \"geglu\""),
        ("deit", serde_json::json!({ "intermediate_size": 0 }), "intermediate_size is 0"),
        ("deit", serde_json::json!({ "head_dim": 4 }), "head_dim is 4"),
        ("deit", serde_json::json!({ "model_type": "vit" }), "model_type is \"vit\", but that of DeiTFor"),
        (
            "deit",
            serde_json::json!({ "architectures": ["DeiTForMaskedImageModeling"] }),
            "unknown architecture \"DeiTForMaskedImageModeling\"",
        ),
        ("dinov2", serde_json::json!({ "num_register_tokens": 4 }), "num_register_tokens is 4"),
        ("dinov2", serde_json::json!({ "image_size": [16, 20] }), "image_size is [16, 20]"),
        ("dinov2", serde_json::json!({ "mlp_ratio": 0 }), "mlp_ratio is 0"),
        ("bert", serde_json::json!({ "hidden_act": "mish" }), "unknown hidden_act \"mish\""),
        (
            "bert",
            serde_json::json!({ "position_embedding_type": "relative_key" }),
            "position_embedding_type is",
        ),
        ("roberta", serde_json::json!({ "is_decoder": true }), "is_decoder is true"),
        ("distilbert", serde_json::json!({ "problem_type": "regression" }), "problem_type is \"regression\""),
        ("roberta", serde_json::json!({ "model_type": "xlm-roberta" }), "model_type is \"xlm-roberta\", but"),
        (
            "bert",
            serde_json::json!({ "architectures": ["BertForMaskedLM"] }),
            "unknown architecture \"BertForMaskedLM\"",
        ),
        (
            "dinov2",
            serde_json::json!({ "architectures": null, "model_type": "dinov3_vit" }),
            "unknown architecture \"dinov3_vit\"",
        ),
        ("t5", serde_json::json!({ "num_labels": 4, "id2label": null }), "3 texts of labels for 4 classes"),
        ("t5", serde_json::json!({ "scalable_attention": true }), "scalable_attention is true"),
        ("t5", serde_json::json!({ "model_type": "mt5" }), "model_type is \"mt5\", but that of T5For"),
        ("resnet", serde_json::json!({ "layer_type": "preact" }), "unknown layer_type \"preact\""),
        ("resnet", serde_json::json!({ "hidden_act": "selu" }), "unknown hidden_act \"selu\""),
        ("efficientnet", serde_json::json!({ "pooling_type": "sum" }), "unknown pooling_type \"sum\""),
        ("efficientnet", serde_json::json!({ "hidden_dim": 1280 }), "hidden_dim is 1280, expected 320"),
        (
            "registers",
            serde_json::json!({ "num_register_tokens": 0 }),
            "num_register_tokens is 0, expected 1",
        ),
        ("registers", serde_json::json!({ "image_size": [16, 20] }), "image_size is [16, 20]"),
        (
            "clip",
            serde_json::json!({ "vision_config": { "hidden_act": "mish" } }),
            "unknown hidden_act \"mish\"",
        ),
        (
            "timm",
            serde_json::json!({ "architecture": "resnet50" }),
            "unknown architecture \"resnet50\" of timm",
        ),
        (
            "timm",
            serde_json::json!({ "model_args": { "qk_norm": true } }),
            "qk_norm is true: only false is supp",
        ),
        (
            "clip",
            serde_json::json!({ "architectures": ["CLIPModel"] }),
            "CLIPModel compares images with texts",
        ),
        ("align", serde_json::json!({}), "AlignModel compares images with texts"),
        ("open_clip", serde_json::json!({}), "open_clip's CLIP compares images with texts"),
    ] {
        let error =
            evaluator_with(changed(case, changes), preprocessor(case), labels(case), (DeviceKind::Cpu, 1))
                .err()
                .unwrap();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains(text), "{text}: {error:?}");
    }
}

/// Without labels nothing is guessed, and a classifier with a head of its own has no use for any.
#[test]
fn labels_are_for_models_that_answer_in_words() {
    let of = |case: &str, labels: Vec<Vec<u32>>| {
        let made = evaluator_with(config(case), preprocessor(case), labels, (DeviceKind::Cpu, 1));
        let error = made.err().unwrap();
        (error.kind(), error.chain())
    };
    let (kind, text) = of("t5", Vec::new());
    assert_eq!(kind, ErrorKind::Data);
    assert!(
        text.starts_with("T5ForConditionalGeneration: classes are told apart by the texts of "),
        "{text}"
    );
    let (kind, text) = of("bert", labels("t5"));
    assert_eq!(kind, ErrorKind::Data);
    assert_eq!(text, "BertForSequenceClassification has no use for the texts of labels");
}

/// Checkpoints have the embeddings by one to four names.
#[test]
fn embeddings_are_read_by_any_of_their_names() {
    let (schema, bytes) = model("t5");
    let values = |name: &str| {
        let range = schema.range(schema.index_of(name).unwrap());
        bytes[range.start as usize..range.end as usize].to_vec()
    };
    // The same checkpoint with the embeddings by other names.
    let by = |names: &[&str], change: bool| {
        let shared = schema.index_of("shared.weight").unwrap();
        let mut tensors: Vec<_> = schema.tensors().iter().map(|t| (t.clone(), values(&t.name))).collect();
        let (spec, embeddings) = tensors.remove(shared);
        for (nth, &name) in names.iter().enumerate() {
            let mut embeddings = embeddings.clone();
            if change && nth == 1 {
                embeddings[2] ^= 1;
            }
            tensors.push((TensorSpec::new(name, spec.dtype, spec.shape.clone()), embeddings));
        }
        let renamed = Schema::new(tensors.iter().map(|(spec, _)| spec.clone()).collect()).unwrap();
        let of = |name: &str| tensors.iter().find(|(spec, _)| spec.name == name).unwrap().1.clone();
        let flat = renamed.tensors().iter().flat_map(|t| of(&t.name)).collect::<Vec<u8>>();
        (renamed, flat)
    };
    let (evaluator, prepared) = (evaluator_of("t5", 4), samples("t5"));
    let spec = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 };
    let range = 0..prepared.len();
    let want = logits(DeviceKind::Cpu, "t5", 4);
    let of_embeddings = |(schema, bytes): &(Schema, Vec<u8>), name: &str| {
        let gradient =
            evaluator.differentiate(schema, bytes, &prepared, range.clone(), &spec, NEVER).unwrap();
        let at = schema.range(schema.index_of(name).unwrap());
        gradient.values[at.start as usize / 4..at.end as usize / 4].to_vec()
    };
    let gradient = of_embeddings(&(schema.clone(), bytes.clone()), "shared.weight");
    let names =
        ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
    for names in [&names[..], &names[1..], &names[2..], &names[1..2], &names[3..]] {
        let renamed = by(names, false);
        let loaded =
            evaluator.load(&renamed.0, Weights::copied_from(&renamed.0, &renamed.1).unwrap()).unwrap();
        assert_eq!(loaded.logits(&prepared, range.clone(), NEVER).unwrap(), want, "{names:?}");
        assert_eq!(of_embeddings(&renamed, names[0]), gradient, "{names:?}");
        // What is a copy moves nothing by itself.
        assert!(names[1..].iter().all(|name| of_embeddings(&renamed, name).iter().all(|&g| g == 0.0)));
        if let [read, other, ..] = names {
            let (renamed, flat) = by(names, true);
            let loaded = evaluator.load(&renamed, Weights::copied_from(&renamed, &flat).unwrap());
            let differentiated =
                evaluator.differentiate(&renamed, &flat, &prepared, range.clone(), &spec, NEVER);
            for error in [loaded.err().unwrap(), differentiated.unwrap_err()] {
                let text = format!("tensors {read:?} and {other:?} differ");
                assert!(error.chain().starts_with(&text), "{error:?}");
            }
        }
    }
}

/// transformers 5 says of every T5 that it is tied, whatever its checkpoint has, and of T5 1.1 that it does not scale.
#[test]
fn heads_are_told_as_transformers_5_tells_them() {
    let of = |case: &str, config: String, tensors: &[(&str, &str)], factor: f32| {
        let (schema, bytes) = model(case);
        let values = |name: &str| {
            let range = schema.range(schema.index_of(name).unwrap());
            bytes[range.start as usize..range.end as usize].to_vec()
        };
        let mut all: Vec<_> = schema.tensors().iter().map(|t| (t.clone(), values(&t.name))).collect();
        for &(name, like) in tensors {
            let like = &schema.tensors()[schema.index_of(like).unwrap()];
            let floats = values(&like.name);
            let scaled = floats
                .chunks_exact(4)
                .flat_map(|four| (f32::from_le_bytes(four.try_into().unwrap()) * factor).to_le_bytes());
            all.retain(|(spec, _)| spec.name != name);
            all.push((TensorSpec::new(name, like.dtype, like.shape.clone()), scaled.collect()));
        }
        let schema = Schema::new(all.iter().map(|(spec, _)| spec.clone()).collect()).unwrap();
        let of = |name: &str| all.iter().find(|(spec, _)| spec.name == name).unwrap().1.clone();
        let bytes = schema.tensors().iter().flat_map(|t| of(&t.name)).collect::<Vec<u8>>();
        let prepared = samples(case);
        let made = evaluator_with(config, preprocessor(case), labels(case), (DeviceKind::Cpu, 4)).unwrap();
        let loaded = made.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        loaded.logits(&prepared, 0..prepared.len(), NEVER).unwrap()
    };
    let five = |case: &str, scales: bool| {
        changed(case, serde_json::json!({ "tie_word_embeddings": true, "scale_decoder_outputs": scales }))
    };
    let plain = |case: &str| logits(DeviceKind::Cpu, case, 4);
    assert_eq!(of("t5", five("t5", true), &[], 1.0), plain("t5"));
    assert_eq!(of("t5_gated", five("t5_gated", false), &[], 1.0), plain("t5_gated"));
    let near = |what: &str, got: &[f32], want: &[f32]| {
        let want: Vec<f64> = want.iter().map(|&value| value.into()).collect();
        assert!(largest_difference(got, &want) <= 1e-4, "{what}: {got:?}, not {want:?}");
    };
    // A head that is a copy of the embeddings is the same as none, scaled or not.
    let copied = [("lm_head.weight", "shared.weight")];
    near("a copy", &of("t5", five("t5", true), &copied, 1.0), &plain("t5"));
    let untied = changed("t5", serde_json::json!({ "tie_word_embeddings": false }));
    near("not scaled", &of("t5", five("t5", false), &[], 1.0), &of("t5", untied, &copied, 1.0));
    // A head of its own that is scaled is one whose numbers are.
    let hidden = 24f32;
    let scaled = of("t5_gated", five("t5_gated", true), &[], 1.0);
    let numbers = [("lm_head.weight", "lm_head.weight")];
    near("scaled", &scaled, &of("t5_gated", five("t5_gated", false), &numbers, hidden.powf(-0.5)));
    assert_ne!(of("t5", five("t5", true), &copied, 2.0), plain("t5"), "it is read");
}
