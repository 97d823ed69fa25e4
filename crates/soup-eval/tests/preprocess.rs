//! Preprocessing against Pillow: the same bytes, case by case (`golden/make.py` made them).
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sha2::{Digest, Sha256};
use soup_eval::Budget;
use soup_eval::preprocess::ImageSize;
use soup_eval::preprocess::Preprocessor;
use soup_eval::preprocess::resize::Filter;

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("golden/golden.json")).unwrap()
}

fn image(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/golden/images/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The 8-bit pixels, channels last, that a preprocessor which only resizes gives.
fn pixels(name: &str, mode: &str, size: ImageSize, options: &str) -> Vec<u8> {
    let channels = if mode == "L" { 1 } else { 3 };
    let json = format!("{{{options}, \"do_rescale\": false, \"do_normalize\": false}}");
    let preprocessor = Preprocessor::from_json(&json, size, channels).unwrap();
    let mut planes = Vec::new();
    preprocessor.apply(&image(name), &Budget::default(), &mut planes).unwrap();
    let area = size.height * size.width;
    (0..area).flat_map(|i| (0..channels).map(move |c| c * area + i)).map(|i| planes[i] as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn conversions_are_pillows() {
    let cases = golden()["convert"].as_array().unwrap().clone();
    assert!(cases.len() >= 14);
    for case in cases {
        let (name, mode) = (case["image"].as_str().unwrap(), case["mode"].as_str().unwrap());
        let got = pixels(name, mode, ImageSize { height: 17, width: 23 }, "\"do_resize\": false");
        assert_eq!(sha256(&got), case["sha256"].as_str().unwrap(), "{name} as {mode}");
    }
}

#[test]
fn resizing_is_pillows() {
    let cases = golden()["resize"].as_array().unwrap().clone();
    assert!(cases.len() >= 120);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (width, height, code) = (number("width"), number("height"), number("filter"));
        let mode = case["mode"].as_str().unwrap();
        let options = format!("\"resample\": {code}, \"size\": {{\"height\": {height}, \"width\": {width}}}");
        let got = pixels("photo.png", mode, ImageSize { height, width }, &options);
        let filter = Filter::from_code(code as u64).unwrap();
        if let Some(want) = case["pixels"].as_array() {
            let want: Vec<u8> = want.iter().map(|v| v.as_u64().unwrap() as u8).collect();
            assert_eq!(got, want, "{filter:?} {mode} {width} x {height}");
        }
        assert_eq!(sha256(&got), case["sha256"].as_str().unwrap(), "{filter:?} {mode} {width} x {height}");
    }
}

/// What timm's transform for evaluation makes of images, bit by bit (`golden/timm_models.py`).
#[test]
fn transforms_are_timms() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("golden/timm.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let config = case["pretrained_cfg"].as_object().unwrap();
        let side = |at: usize| config["input_size"][at].as_u64().unwrap() as usize;
        let size = ImageSize { height: side(1), width: side(2) };
        let preprocessor = Preprocessor::of_timm(config, size, side(0)).unwrap();
        let mut values = Vec::new();
        preprocessor.apply(&image(case["image"].as_str().unwrap()), &Budget::default(), &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn values_are_those_of_transformers() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("golden/processors.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 30);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let size = ImageSize { height: number("height"), width: number("width") };
        let config = case["config"].to_string();
        // Of models that take images of any size, the file alone says which.
        let usual = ImageSize { height: 1, width: 1 };
        let preprocessor = Preprocessor::of_any_size(&config, usual, 3).unwrap();
        assert_eq!(preprocessor.output(), size, "{config}");
        let (name, mut values) = (case["image"].as_str().unwrap(), Vec::new());
        preprocessor.apply(&image(name), &Budget::default(), &mut values).unwrap();
        let first: Vec<f32> =
            case["first"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(values[..4], first, "{name}: {config}");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), case["sha256"].as_str().unwrap(), "{name}: {config}");
    }
}

/// What processors that work on tensors make of images, and those of transformers 5 that work on PIL images, bit by bit (`golden/tensors.py`).
#[test]
fn values_are_those_of_the_version_that_is_said() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("golden/tensors.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 270);
    for case in cases {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let beside = serde_json::json!({ "transformers_version": case["transformers_version"] }).to_string();
        let (config, usual) = (case["config"].to_string(), ImageSize { height: 224, width: 224 });
        let preprocessor = Preprocessor::of_any_size_beside(&beside, &config, usual, 3).unwrap();
        let size = ImageSize { height: number("height"), width: number("width") };
        assert_eq!(preprocessor.output(), size, "{config}");
        let (name, mut values) = (case["image"].as_str().unwrap(), Vec::new());
        preprocessor.apply(&image(name), &Budget::default(), &mut values).unwrap();
        let first: Vec<f32> =
            case["first"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(values[..4], first, "{name}: {beside} {config}");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), case["sha256"].as_str().unwrap(), "{name}: {beside} {config}");
    }
}

#[test]
fn an_image_of_another_size_is_refused() {
    let output = ImageSize { height: 28, width: 28 };
    let preprocessor = Preprocessor::from_json(r#"{"do_resize": false}"#, output, 3).unwrap();
    let error = preprocessor.apply(&image("rgb.png"), &Budget::default(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.chain(), "image has 23 x 17 pixels after preprocessing, the model takes 28 x 28");
}
