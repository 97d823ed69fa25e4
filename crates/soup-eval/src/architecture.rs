//! What an architecture is, and which ones there are.
//!
//! An architecture is one type: what its `config.json` says. It names its parameters once ([`Architecture::parameters`]),
//! and from that one description come the check of a schema, a model with values in it, and where the gradient of each
//! parameter goes. To add one: a file with its config, that description and its forward pass, and a line in [`KNOWN`].

use burn::tensor::Tensor;
use serde_json::Value;
use soup_core::schema::Schema;
use soup_core::{Error, Result};

use crate::config::ImageClassifier;
use crate::deit::{Deit, DeitWithTeacher};
use crate::device::Precision;
use crate::dinov2::Dinov2;
use crate::evaluator::{Evaluator, EvaluatorSpec, evaluator_of};
use crate::gradient::sink::Sink;
use crate::kernels::Kernels;
use crate::parameters::visitor::{Form, Listing, Loaded, Loader, Visitor};
use crate::parameters::{self, Parameters};
use crate::preprocess::ImageSize;
use crate::vit::Vit;

/// What `config.json` says about a model that tells classes of images apart.
pub(crate) trait Architecture: Sized + Send + Sync + 'static {
    /// Its name, as in `architectures` of `config.json`.
    const NAME: &str;
    /// Its `model_type`.
    const MODEL_TYPE: &str;

    /// Whether images may have another size than `image_size`.
    const ANY_SIZE: bool = false;

    /// A model, with one form or another of its parameters in it.
    type Model<F: Form>: Send + Sync;

    /// Reads the text of a `config.json`. Only options that change the forward pass in evaluation are read; an option of
    /// such kind with a value that is not understood is an error, never a guess.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is not JSON, where a value is out of range, or where it describes
    /// something that cannot classify.
    fn from_json(text: &str) -> Result<Self>;

    /// The same for images of `size`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it cannot take such.
    fn resized(self, size: ImageSize) -> Result<Self> {
        if size == self.classifier().image {
            return Ok(self);
        }
        Err(Error::data(format!(
            "{} takes images of image_size in config.json alone, not of {} x {} pixels",
            Self::NAME,
            size.width,
            size.height
        )))
    }

    /// What goes into it, and what comes out.
    fn classifier(&self) -> &ImageClassifier;

    /// Has `visitor` visit every parameter that the forward pass needs, and puts what it gives in their places.
    ///
    /// # Errors
    /// Those of the visitor.
    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<Self::Model<V::Form>>;

    /// Logits `[batch, classes]` of normalised pixels `[batch, channels, height, width]`.
    fn forward<B: Kernels>(&self, model: &Self::Model<Loaded<B>>, pixels: Tensor<B, 4>) -> Tensor<B, 2>;

    /// Checks that a pool of `schema` can be evaluated; tensors that the forward pass does not use are ignored.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first tensor that is missing or has another shape.
    fn check_schema(&self, schema: &Schema) -> Result<()> {
        let mut listing = Listing::default();
        self.parameters(&mut listing)?;
        parameters::check_schema(schema, &listing.tensors, Self::NAME)
    }

    /// A model with values in it; on a backend that differentiates, a backward pass from its logits adds the gradient of
    /// every parameter to `sink`.
    ///
    /// # Errors
    /// As [`check_schema`](Architecture::check_schema).
    fn load<B: Kernels>(
        &self,
        parameters: &Parameters<'_>,
        sink: Option<&Sink>,
        (device, precision): (&B::Device, Precision),
    ) -> Result<Self::Model<Loaded<B>>> {
        self.check_schema(parameters.schema())?;
        self.parameters(&mut Loader::<B> { parameters, sink, device, precision })
    }
}

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
const KNOWN: [Known; 4] = [known::<Vit>(), known::<Deit>(), known::<DeitWithTeacher>(), known::<Dinov2>()];

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
        let vit = Vit::from_json("{}").unwrap();
        let own = vit.classifier().image;
        assert!(vit.resized(own).is_ok());
    }

    #[test]
    fn only_known_architectures_are_evaluated() {
        let vit = Ok("ViTForImageClassification");
        check(r#"{"model_type": "vit"}"#, vit);
        check(r#"{"model_type": "vit", "architectures": ["ViTForImageClassification"]}"#, vit);
        check(r#"{"model_type": "vit", "architectures": []}"#, vit);
        check(r#"{"architectures": ["ViTForImageClassification"]}"#, vit);
        check(r#"{"model_type": "bert"}"#, Err("unknown architecture \"bert\": supported are ViTForImageCl"));
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
