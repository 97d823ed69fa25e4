//! What an architecture is.
//!
//! An architecture is one type: what its `config.json` says. It names its parameters once ([`Architecture::parameters`]),
//! and from that one description come the check of a schema, a model with values in it, and where the gradient of each
//! parameter goes. Which ones there are: `models`.

use burn::tensor::Tensor;
use soup_core::schema::Schema;
use soup_core::texts::Decoding;
use soup_core::{Error, Result};

use crate::convolution::norm::Norms;
use crate::device::Precision;
use crate::evaluator::EvaluatorSpec;
use crate::gradient::sink::Sink;
use crate::kernels::Kernels;
use crate::kind::Kind;
use crate::parameters::unused::Unused;
use crate::parameters::visitor::{Form, Listing, Loaded, Loader, Visitor};
use crate::parameters::{self, Parameters};
use crate::preprocess::{ImageSize, Preprocessor};

/// What `config.json` says about a model that tells classes apart, of images or of texts.
pub(crate) trait Architecture: Sized + Send + Sync + 'static {
    /// Its name, as in `architectures` of `config.json`.
    const NAME: &str;
    /// Its `model_type`.
    const MODEL_TYPE: &str;

    /// What it looks at.
    type Kind: Kind;

    /// Whether images may have another size than `image_size`.
    const ANY_SIZE: bool = false;
    /// The setting of its configuration for how many layers there are.
    const DEPTH: &str = "num_hidden_layers";
    /// Whether it answers in words: its classes are told apart by the tokens of their labels.
    const ANSWERS: bool = false;

    /// A model, with one form or another of its parameters in it.
    type Model<F: Form>: Send + Sync;

    /// Reads the text of a `config.json`. Only options that change the forward pass in evaluation are read; an option of
    /// such kind with a value that is not understood is an error, never a guess.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is not JSON, where a value is out of range, or where it describes
    /// something that cannot classify.
    fn from_json(text: &str) -> Result<Self>;

    /// The same of what an evaluator is made of, where there is more to it than a `config.json`.
    ///
    /// # Errors
    /// As [`from_json`](Architecture::from_json).
    fn from_spec(spec: &EvaluatorSpec) -> Result<Self> {
        Self::from_json(&spec.config_json)
    }

    /// The same for images of `size`, another one than `image_size`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it cannot take such.
    fn resized(self, size: ImageSize) -> Result<Self> {
        Err(Error::data(format!(
            "{} takes images of image_size in config.json alone, not of {} x {} pixels",
            Self::NAME,
            size.width,
            size.height
        )))
    }

    /// The same for classes whose labels have these tokens, in the order of the classes; none where no tokens are known. `decoding`: which
    /// of them it is taken to answer; others than those that [answer](Architecture::ANSWERS) are not asked.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it has no use for them, or cannot do without, or they are no labels of its classes.
    fn with_labels(self, labels: &[Vec<u32>], decoding: Decoding) -> Result<Self> {
        let _ = decoding;
        match labels.is_empty() {
            true => Ok(self),
            false => Err(Error::data(format!("{} has no use for the texts of labels", Self::NAME))),
        }
    }

    /// What goes into it, and what comes out.
    fn classifier(&self) -> &<Self::Kind as Kind>::Classifier;

    /// Whether rows have one value more than there are classes, which says what the answer is: a class, or their number for an answer
    /// that is none of their labels.
    fn says_answers(&self) -> bool {
        false
    }

    /// How images become pixels where no `preprocessor_config.json` says so, of an architecture whose `config.json` does.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not understood.
    fn preprocessor(&self) -> Result<Option<Preprocessor>> {
        Ok(None)
    }

    /// Has `visitor` visit every parameter that the forward pass needs, and puts what it gives in their places.
    ///
    /// # Errors
    /// Those of the visitor.
    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<Self::Model<V::Form>>;

    /// Logits `[batch, classes]` of a batch: of images, normalised pixels `[batch, channels, height, width]`.
    fn forward<B: Kernels>(
        &self,
        model: &Self::Model<Loaded<B>>,
        batch: <Self::Kind as Kind>::Batch<B>,
    ) -> Tensor<B, 2>;

    /// The same, with running statistics as `norms` says, where it has some.
    fn forward_by<B: Kernels>(
        &self,
        model: &Self::Model<Loaded<B>>,
        batch: <Self::Kind as Kind>::Batch<B>,
        norms: &mut Norms<'_, B>,
    ) -> Tensor<B, 2> {
        let _ = norms;
        self.forward(model, batch)
    }

    /// The tensors of a checkpoint of `schema` that the forward pass needs: names and shapes.
    ///
    /// # Errors
    /// None of a listing.
    fn tensors(&self, schema: &Schema) -> Result<Vec<(String, Vec<u64>)>> {
        let _ = schema;
        let mut listing = Listing::default();
        self.parameters(&mut listing)?;
        Ok(listing.tensors)
    }

    /// Whether `tensor` is another name of one of those, or one that its checkpoints have and evaluation never reads.
    fn is_known(&self, tensor: &str) -> bool {
        let _ = tensor;
        false
    }

    /// Checks that a pool of `schema` can be evaluated; tensors that the forward pass does not use are ignored, unless it would if the
    /// configuration did not leave them out.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first tensor that is missing, has another shape, or is left out.
    fn check_schema(&self, schema: &Schema) -> Result<()> {
        let tensors = self.tensors(schema)?;
        parameters::check_schema(schema, &tensors, Self::NAME)?;
        Unused::of(schema, &tensors, |name| self.is_known(name)).check(Self::DEPTH)
    }

    /// What people should know about tensors of `schema` that are ignored.
    ///
    /// # Errors
    /// As [`tensors`](Architecture::tensors).
    fn ignored(&self, schema: &Schema) -> Result<Option<String>> {
        let tensors = self.tensors(schema)?;
        Ok(Unused::of(schema, &tensors, |name| self.is_known(name)).note(Self::NAME))
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
