//! The families of models that are evaluated here, a file each.
//!
//! To add one: a file with its config, the description of its parameters and its forward pass, and a line in [`KNOWN`]. Nothing
//! outside this folder knows a family by name.

mod align;
mod bert;
mod clip;
mod deit;
mod dinov2;
mod distilbert;
mod efficientnet;
mod resnet;
mod roberta;
mod t5;
mod timm;
mod vit;
mod zero_shot;

use serde_json::Value;
use soup_core::companion::{is_open_clip, is_timm};
use soup_core::{Error, Result};

use crate::architecture::Architecture;
use crate::evaluator::{Evaluator, EvaluatorSpec, evaluator_of};
use crate::models::align::Align;
use crate::models::bert::Bert;
use crate::models::clip::{Clip, ClipZeroShot, OpenClip};
use crate::models::deit::{Deit, DeitWithTeacher};
use crate::models::dinov2::{Dinov2, Dinov2WithRegisters};
use crate::models::distilbert::DistilBert;
use crate::models::efficientnet::EfficientNet;
use crate::models::resnet::Resnet;
use crate::models::roberta::Roberta;
use crate::models::t5::T5;
use crate::models::timm::TimmVit;
use crate::models::vit::Vit;

/// An architecture that is evaluated here.
struct Known {
    name: &'static str,
    model_type: &'static str,
    evaluator: fn(&EvaluatorSpec) -> Result<Box<dyn Evaluator>>,
}

const fn known<A: Architecture>() -> Known {
    Known { name: A::NAME, model_type: A::MODEL_TYPE, evaluator: evaluator_of::<A> }
}

/// All of them. Where a config names none, its model type means the first that has it.
const KNOWN: [Known; 14] = [
    known::<Vit>(),
    known::<Deit>(),
    known::<DeitWithTeacher>(),
    known::<Dinov2>(),
    known::<Dinov2WithRegisters>(),
    known::<Clip>(),
    known::<ClipZeroShot>(),
    known::<Align>(),
    known::<Bert>(),
    known::<Roberta>(),
    known::<DistilBert>(),
    known::<T5>(),
    known::<Resnet>(),
    known::<EfficientNet>(),
];

/// Those of timm, and of open_clip, whose configs have another form.
const TIMM: Known = known::<TimmVit>();
const OPEN_CLIP: Known = known::<OpenClip>();

/// The evaluator of the architecture that the config names.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is none of those here; those of making it.
pub(crate) fn evaluator(spec: &EvaluatorSpec) -> Result<Box<dyn Evaluator>> {
    (find(&spec.config_json)?.evaluator)(spec)
}

fn find(config_json: &str) -> Result<&'static Known> {
    let config: Value = serde_json::from_str(config_json)
        .map_err(|e| Error::data("config.json is not valid JSON").with_source(e))?;
    if is_timm(&config) {
        return Ok(&TIMM);
    }
    if is_open_clip(&config) {
        return Ok(&OPEN_CLIP);
    }
    let name = config["architectures"].get(0).and_then(Value::as_str);
    let model_type = config["model_type"].as_str();
    let found = KNOWN.iter().find(|known| match name {
        Some(name) => name == known.name,
        None => model_type == Some(known.model_type),
    });
    let Some(known) = found else {
        let names: Vec<String> =
            KNOWN.iter().map(|k| format!("{} (model_type {:?})", k.name, k.model_type)).collect();
        return Err(Error::data(format!(
            "unknown architecture {:?}: supported are {}",
            name.or(model_type).unwrap_or_default(),
            names.join(", ")
        )));
    };
    match model_type {
        Some(other) if other != known.model_type => Err(Error::data(format!(
            "config.json: model_type is {other:?}, but that of {} is {:?}",
            known.name, known.model_type
        ))),
        _ => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::ImageSize;

    fn check(config_json: &str, expect: Result<&str, &str>) {
        match (find(config_json).map(|k| k.name).map_err(|e| e.chain()), expect) {
            (Err(got), Err(text)) => assert!(got.starts_with(text), "{config_json}: {got}"),
            (got, expect) => assert_eq!(got, expect.map_err(str::to_owned), "{config_json}"),
        }
    }

    #[test]
    fn images_of_other_sizes_are_refused_by_name() {
        let resized = |side| Vit::from_json("{}").unwrap().resized(ImageSize { height: side, width: 32 });
        let error = resized(48).err().unwrap();
        assert!(
            error.chain().starts_with("ViTForImageClassification takes images of image_size"),
            "{error:?}"
        );
        assert!(error.chain().ends_with("32 x 48 pixels"), "{error:?}");
    }

    #[test]
    fn only_known_architectures_are_evaluated() {
        let vit = Ok("ViTForImageClassification");
        check(r#"{"model_type": "vit"}"#, vit);
        check(r#"{"model_type": "vit", "architectures": ["ViTForImageClassification"]}"#, vit);
        check(r#"{"model_type": "vit", "architectures": []}"#, vit);
        check(r#"{"architectures": ["ViTForImageClassification"]}"#, vit);
        check(r#"{"model_type": "bart"}"#, Err("unknown architecture \"bart\": supported are ViTForImageCl"));
        check(
            r#"{"model_type": "vit", "architectures": ["ViTModel"]}"#,
            Err("unknown architecture \"ViTModel\""),
        );
        check(
            r#"{"model_type": "beit", "architectures": ["ViTForImageClassification"]}"#,
            Err("config.json: model_type is \"beit\", but that of ViTForImageClassification is \"vit\""),
        );
        check("{}", Err("unknown architecture \"\""));
        check("{", Err("config.json is not valid JSON"));
    }
}
