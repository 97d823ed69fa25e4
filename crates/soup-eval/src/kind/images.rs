//! Images: pixels, all of one shape.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use soup_core::{Error, Result};

use super::Kind;
use crate::architecture::Architecture;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::config::ImageClassifier;
use crate::dataset::{Dataset, Input, InputKind};
use crate::evaluator::EvaluatorSpec;
use crate::kernels;
use crate::prepared::{Inputs, Prepared};
use crate::preprocess::Preprocessor;

/// See the module.
pub(crate) struct Images {
    preprocessor: Preprocessor,
    /// Channels, height, width of a sample.
    shape: [usize; 3],
    /// What people should know.
    notes: Vec<String>,
}

impl Images {
    /// Values of one sample.
    fn stride(&self) -> usize {
        self.shape.iter().product()
    }
}

fn not_known() -> Error {
    Error::data(
        "how images become pixels is not known: there is no preprocessor_config.json: name one with --preprocessor-config",
    )
}

impl Kind for Images {
    const INPUT: InputKind = InputKind::Images;

    type Classifier = ImageClassifier;

    /// Normalised pixels, `[batch, channels, height, width]`.
    type Batch<B: Backend> = Tensor<B, 4>;

    fn open<A: Architecture<Kind = Self>>(architecture: A, spec: &EvaluatorSpec) -> Result<(A, Self)> {
        let ImageClassifier { image, channels, .. } = *architecture.classifier();
        let (preprocessor, note) = match &spec.preprocessor_json {
            Some(json) => {
                let size = (image, A::ANY_SIZE);
                Preprocessor::of_model(&spec.config_json, json, size, channels, A::MODEL_TYPE)?
            }
            None => (architecture.preprocessor()?.ok_or_else(not_known)?, None),
        };
        let size = preprocessor.output();
        let architecture = if size == image { architecture } else { architecture.resized(size)? };
        let ImageClassifier { image, channels, .. } = *architecture.classifier();
        let (shape, notes) = ([channels, image.height, image.width], note.into_iter().collect());
        Ok((architecture, Images { preprocessor, shape, notes }))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn classes(classifier: &ImageClassifier) -> &Classes {
        &classifier.classes
    }

    fn sample_bytes(&self) -> u64 {
        (self.preprocessor.values() * size_of::<f32>() + size_of::<u32>()) as u64
    }

    fn look_over(&self, _: &Dataset) -> Result<Vec<String>> {
        Ok(self.preprocessor.notes().to_vec())
    }

    fn none(&self, samples: usize) -> Inputs {
        let stride = self.preprocessor.values();
        Inputs::Pixels { values: Vec::with_capacity(samples * stride), stride }
    }

    fn add(&self, input: &Input, budget: &Budget, to: &mut Inputs) -> Result<()> {
        match (input, to) {
            (Input::Image(image), Inputs::Pixels { values, .. }) => {
                self.preprocessor.apply(image, budget, values)
            }
            _ => Err(Error::internal("a text was handed to a model of images")),
        }
    }

    fn check(&self, prepared: &Prepared, range: Range<usize>, model: &str) -> Result<()> {
        prepared.pixels_of(range, self.stride(), model).map(drop)
    }

    fn batch<B: Backend>(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        of: Option<usize>,
        device: &B::Device,
    ) -> Result<Tensor<B, 4>> {
        let rows = of.unwrap_or(range.len());
        let ([channels, height, width], values) = (self.shape, rows * self.stride());
        let mut padded = Vec::with_capacity(values);
        padded.extend_from_slice(prepared.pixels_of(range, self.stride(), "the model")?);
        padded.resize(values, 0.0);
        Ok(kernels::tensor(padded, [rows, channels, height, width], device))
    }

    fn batch_bytes<B: Backend>(&self, rows: usize) -> u64 {
        (rows * self.stride() * size_of::<B::FloatElem>()) as u64
    }
}
