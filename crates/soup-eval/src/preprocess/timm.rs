//! The transform for evaluation of timm, as the `pretrained_cfg` of its `config.json` says: for images whose sides become those of the
//! model's, not those that timm recommends for tests (`test_input_size`, `test_crop_pct`).
//!
//! Differs from the processors of transformers in how the size before the crop is made, in which half of an odd margin is the larger
//! one ([`Margins::HalfEven`]), and in the arithmetic of normalisation.

use serde_json::{Map, Value};
use soup_core::{Error, Result};

use super::resize::{Filter, SIDE_MAX};
use super::{ImageSize, Margins, Preprocessor, Target};

/// What timm takes where the file does not say: the statistics of ImageNet.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
const CROP_PCT: f64 = 0.875;

fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("config.json: pretrained_cfg: {text}"))
}

/// See [`Preprocessor::of_timm`].
pub(super) fn of(config: &Map<String, Value>, output: ImageSize, channels: usize) -> Result<Preprocessor> {
    let get = |key: &str| config.get(key).filter(|value| !value.is_null());
    let text = |key: &str, default: &str| match get(key) {
        None => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(format!("{key} is {other}, expected a name"))),
    };
    let per_channel = |key: &str, default: [f64; 3]| match get(key) {
        None => of_channels(key, &default, channels),
        Some(value) => {
            let bad = || wrong(format!("{key} is {value}, expected numbers"));
            let numbers = value.as_array().ok_or_else(bad)?.iter().map(Value::as_f64);
            of_channels(key, &numbers.collect::<Option<Vec<_>>>().ok_or_else(bad)?, channels)
        }
    };
    let filter = filter(&text("interpolation", "bicubic")?)?;
    let (mean, std) = (per_channel("mean", MEAN)?, per_channel("std", STD)?);
    if let Some(bad) = std.iter().find(|&&s| s <= 0.0) {
        return Err(wrong(format!("std has {bad}, expected positive numbers")));
    }
    let pct = match get("crop_pct") {
        None => CROP_PCT,
        Some(value) => match value.as_f64() {
            // So Python reads a 0, too.
            Some(0.0) => CROP_PCT,
            Some(pct) => pct,
            None => return Err(wrong(format!("crop_pct is {value}, expected a number"))),
        },
    };
    let scaled = ImageSize { height: scaled(output.height, pct)?, width: scaled(output.width, pct)? };
    let target = match &text("crop_mode", "center")?[..] {
        "squash" => Target::Exact(scaled),
        "center" if scaled.height == scaled.width => Target::ShortestEdge(scaled.height),
        "center" => Target::Cover(scaled),
        other => {
            return Err(wrong(format!("crop_mode is {other:?}: supported are \"center\" and \"squash\"")));
        }
    };
    Ok(Preprocessor {
        resize: Some((target, filter)),
        tensors: false,
        on_white: false,
        crop: Some(output),
        margins: Margins::HalfEven,
        output,
        assumed: false,
        channels,
        levels: mean.iter().zip(&std).map(|(&mean, &std)| levels(mean as f32, std as f32)).collect(),
        notes: Vec::new(),
    })
}

/// The side of images before the crop, of which `pct` is left.
fn scaled(side: usize, pct: f64) -> Result<usize> {
    let scaled = (side as f64 / pct).floor();
    match (1.0..=SIDE_MAX as f64).contains(&scaled) {
        true => Ok(scaled as usize),
        false => Err(wrong(format!("crop_pct is {pct}: images of {side} pixels would be made of {scaled}"))),
    }
}

fn of_channels(key: &str, numbers: &[f64], channels: usize) -> Result<Vec<f64>> {
    match numbers.len() {
        1 => Ok(vec![numbers[0]; channels]),
        n if n == channels => Ok(numbers.to_vec()),
        n => Err(wrong(format!("{key} has {n} values, expected 1 or {channels} (in_chans)"))),
    }
}

fn filter(name: &str) -> Result<Filter> {
    Ok(match name {
        "nearest" => Filter::Nearest,
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        "box" => Filter::Box,
        "hamming" => Filter::Hamming,
        "lanczos" => Filter::Lanczos,
        _ => return Err(wrong(format!("interpolation is {name:?}, expected one of Pillow's filters"))),
    })
}

/// The values of the 256 levels: all in f32, as torchvision does.
fn levels(mean: f32, std: f32) -> [f32; 256] {
    std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, channels: usize) -> Result<Preprocessor> {
        of(&serde_json::from_str(json).unwrap(), ImageSize { height: 20, width: 30 }, channels)
    }

    #[test]
    fn an_empty_config_is_timms_default() {
        let got = read("{}", 3).unwrap();
        let scaled = ImageSize { height: 22, width: 34 };
        assert_eq!(got.resize, Some((Target::Cover(scaled), Filter::Bicubic)));
        assert_eq!(got.levels[0][0], -0.485 / 0.229);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let error = |json: &str, channels| read(json, channels).unwrap_err().chain();
        assert!(error("{}", 1).contains("mean has 3 values, expected 1 or 1 (in_chans)"));
        assert!(read(r#"{"mean": [0.5], "std": [0.5]}"#, 1).is_ok());
        assert!(error(r#"{"std": [1, 0, 1]}"#, 3).contains("std has 0, expected positive"));
        assert!(error(r#"{"mean": 0.5}"#, 3).contains("mean is 0.5, expected numbers"));
        assert!(error(r#"{"crop_mode": "border"}"#, 3).contains("crop_mode is \"border\": supported are"));
        assert!(error(r#"{"interpolation": "random"}"#, 3).contains("interpolation is \"random\""));
        assert!(error(r#"{"crop_pct": 1e-9}"#, 3).contains("crop_pct is 0.000000001: images of 20 pixels"));
        assert!(error(r#"{"crop_pct": -1}"#, 3).contains("crop_pct is -1"));
        assert!(error(r#"{"crop_pct": "all"}"#, 3).contains("crop_pct is \"all\", expected a number"));
    }
}
