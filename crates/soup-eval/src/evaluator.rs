//! Architectures behind one interface: parameters and samples in, outcomes out.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use soup_core::batch_norm::is_statistic;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::weights::Weights;
use soup_core::{Error, Result};

use crate::architecture::Architecture;
use crate::budget::is_too_much;
use crate::classes::Classes;
use crate::config::ImageClassifier;
use crate::convolution::norm::{Norms, Observed, Observer, Statistics, by_layer};
use crate::dataset::{Dataset, Input, Sample, Target};
use crate::device::uploads::Uploads;
use crate::device::{self, Differentiable, Precision, Site, With};
use crate::gradient::sink::Sink;
use crate::gradient::{Gradient, Graph, LossSpec};
use crate::kernels::{self, Kernels};
use crate::models;
use crate::parameters::Parameters;
use crate::parameters::visitor::{Listing, Loaded};
use crate::prepared::Prepared;
use crate::preprocess::Preprocessor;
use soup_core::devices::DeviceKind;

/// Samples a forward pass unless told otherwise: large enough for the matrix products, small enough for the cache.
pub const BATCH_SIZE_DEFAULT: u32 = 32;
/// Largest batch size that is accepted.
const BATCH_SIZE_MAX: u32 = 1 << 16;

/// What an evaluator is made of. By default on the processor, and of no config.
#[derive(Clone, Debug)]
pub struct EvaluatorSpec {
    /// Text of the model's `config.json`.
    pub config_json: String,
    /// Text of its `preprocessor_config.json`, where there is one.
    pub preprocessor_json: Option<String>,
    /// Samples a forward pass.
    pub batch_size: u32,
    /// Where models are evaluated.
    pub device: DeviceKind,
    /// In which arithmetic.
    pub precision: Precision,
    /// Memory of a device that samples may be kept in, in bytes, so that they are sent there once and not once a model. The
    /// processor needs none.
    pub device_samples_bytes: u64,
}

impl Default for EvaluatorSpec {
    fn default() -> EvaluatorSpec {
        EvaluatorSpec {
            config_json: String::new(),
            preprocessor_json: None,
            batch_size: BATCH_SIZE_DEFAULT,
            device: DeviceKind::default(),
            precision: Precision::default(),
            device_samples_bytes: 0,
        }
    }
}

/// One architecture with its preprocessing. One per worker and run, shared by its compute threads.
pub trait Evaluator: Send + Sync {
    /// Number of classes of the classifier.
    fn classes(&self) -> u32;

    /// The classes, for [`Dataset::align`].
    fn class_names(&self) -> &Classes;

    /// The class of its arithmetic, as [`numerics`](crate::numerics) gives it: within one, the same samples and weights give the same bits.
    fn numerics(&self) -> &str;

    /// The names of the running statistics that its models have, which are those that [`Model::observe`] gives.
    ///
    /// # Errors
    /// None for an architecture whose schema can be checked.
    fn statistics(&self) -> Result<Vec<String>>;

    /// Checks that a schema has what the architecture needs; tensors that it does not use are ignored.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first tensor that is missing or has another shape.
    fn check_schema(&self, schema: &Schema) -> Result<()>;

    /// Builds a model from `weights`; f16, bf16 and f64 values become f32. Each tensor goes as soon as the model has it, so that
    /// both together need little more memory than one of them.
    ///
    /// # Errors
    /// As [`check_schema`](Evaluator::check_schema), and [`Internal`](soup_core::ErrorKind::Internal) where the weights
    /// are not of the schema's sizes.
    fn load(&self, schema: &Schema, weights: Weights) -> Result<Box<dyn Model>>;

    /// The gradient of a loss, summed over the samples `range` of `prepared`, with respect to the flattened parameters
    /// (canonical order of `schema`, little-endian). `cancel` is asked before every micro-batch of the evaluator's batch size;
    /// the way the samples are cut shows in the rounding only, and the same call gives the same bits.
    ///
    /// Holds, besides `parameters`: the model and the gradient, in f32, and the activations of one micro-batch.
    ///
    /// # Errors
    /// As [`load`](Evaluator::load) and [`logits`](Model::logits), and
    /// [`Usage`](soup_core::ErrorKind::Usage) for a label smoothing that is not between 0 and 1.
    fn differentiate(
        &self,
        schema: &Schema,
        parameters: &[u8],
        prepared: &Prepared,
        range: Range<usize>,
        loss: &LossSpec,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Gradient>;

    /// Memory of one prepared sample, in bytes.
    fn sample_bytes(&self) -> u64;

    /// Reads, decodes and preprocesses the samples `range` of `dataset`, as many at a time as the dataset's budget has room for; blocks
    /// until it has. Keep the result: it serves every model.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) naming dataset and row where an image cannot be decoded or a label is not
    /// one of the model's classes, or where a sample takes more than the budget has; the errors of reading.
    fn prepare(&self, dataset: &Dataset, range: Range<u64>) -> Result<Prepared>;
}

/// A model with parameters in it. Evaluations may run on several threads at once.
pub trait Model: Send + Sync {
    /// The logits of the samples `range` of `prepared`: `range.len()` rows of one logit a class, for
    /// [`Prepared::outcomes`]. A row depends on its sample alone. `cancel` is asked before every batch.
    ///
    /// # Errors
    /// [`Cancelled`](soup_core::ErrorKind::Cancelled) when `cancel` says so;
    /// [`Data`](soup_core::ErrorKind::Data) for samples of another kind or shape than the model takes;
    /// [`Internal`](soup_core::ErrorKind::Internal) where `range` is not in `prepared`.
    fn logits(&self, prepared: &Prepared, range: Range<usize>, cancel: &dyn Fn() -> bool)
    -> Result<Vec<f32>>;

    /// The running statistics that the samples `range` of `prepared` have as one block, in which every normalisation is by the block's
    /// own: two tensors a layer, in the order of the layers. Blocks are put together by [`add_block`](crate::add_block) and
    /// [`averaged`](crate::averaged).
    ///
    /// # Errors
    /// As [`logits`](Model::logits); [`Data`](soup_core::ErrorKind::Data) where a layer sees one value a channel only.
    fn observe(&self, prepared: &Prepared, range: Range<usize>) -> Result<Vec<Observed>>;

    /// Normalises by these statistics from now on: by the names of their tensors, two a layer.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where one of a layer's is missing.
    fn normalise_by(&mut self, statistics: &[(String, Vec<f32>)]) -> Result<()>;
}

/// The evaluator of the architecture that `config.json` names.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) for an unknown architecture or a config that is not understood;
/// [`Usage`](soup_core::ErrorKind::Usage) for a batch size out of range; those of [`numerics`](crate::numerics).
pub fn evaluator(spec: &EvaluatorSpec) -> Result<Box<dyn Evaluator>> {
    if !(1..=BATCH_SIZE_MAX).contains(&spec.batch_size) {
        return Err(Error::usage(format!(
            "batch size {} is out of range: 1 to {BATCH_SIZE_MAX}",
            spec.batch_size
        )));
    }
    models::evaluator(spec)
}

/// The evaluator of the architecture `A`.
pub(crate) fn evaluator_of<A: Architecture>(spec: &EvaluatorSpec) -> Result<Box<dyn Evaluator>> {
    let architecture = A::from_json(&spec.config_json)?;
    let ImageClassifier { image, channels, .. } = *architecture.classifier();
    let preprocessor = match &spec.preprocessor_json {
        Some(json) if A::ANY_SIZE => Preprocessor::of_any_size(json, image, channels)?,
        Some(json) => Preprocessor::from_json(json, image, channels)?,
        None => {
            return Err(Error::data(
                "how images become pixels is not known: there is no preprocessor_config.json: name one with --preprocessor-config",
            ));
        }
    };
    let architecture = architecture.resized(preprocessor.output())?;
    if A::CONVOLVES && spec.device != DeviceKind::Cpu {
        return Err(Error::configuration(format!(
            "{} is evaluated on the processor (cpu) alone so far, not on {}",
            A::NAME,
            spec.device
        )));
    }
    device::open(spec.device, spec.precision, Parts { architecture, preprocessor, spec })
}

/// What an evaluator is made of, but for a backend.
struct Parts<'a, A> {
    architecture: A,
    preprocessor: Preprocessor,
    spec: &'a EvaluatorSpec,
}

impl<A: Architecture> With for Parts<'_, A> {
    type Out = Box<dyn Evaluator>;

    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out {
        // What would be sent to a processor is there.
        let samples_bytes =
            if self.spec.device == DeviceKind::Cpu { 0 } else { self.spec.device_samples_bytes };
        Box::new(ArchitectureEvaluator::<A, B> {
            architecture: Arc::new(self.architecture),
            preprocessor: self.preprocessor,
            batch_size: self.spec.batch_size as usize,
            site,
            uploads: Arc::new(Uploads::new(samples_bytes)),
        })
    }
}

/// Over a backend that differentiates; models are evaluated on the one beneath it.
struct ArchitectureEvaluator<A, B: Differentiable> {
    architecture: Arc<A>,
    preprocessor: Preprocessor,
    batch_size: usize,
    site: Site<B>,
    uploads: Arc<Uploads<B::InnerBackend>>,
}

impl<A: Architecture, B: Differentiable> ArchitectureEvaluator<A, B> {
    /// Channels, height, width of a sample.
    fn input(&self) -> [usize; 3] {
        let ImageClassifier { image, channels, .. } = *self.architecture.classifier();
        [channels, image.height, image.width]
    }
}

impl<A: Architecture, B: Differentiable> Evaluator for ArchitectureEvaluator<A, B> {
    fn classes(&self) -> u32 {
        self.class_names().count()
    }

    fn class_names(&self) -> &Classes {
        &self.architecture.classifier().classes
    }

    fn numerics(&self) -> &str {
        &self.site.numerics
    }

    fn statistics(&self) -> Result<Vec<String>> {
        let mut listing = Listing::default();
        self.architecture.parameters(&mut listing)?;
        let all = listing.tensors.into_iter().map(|(name, shape)| TensorSpec::new(name, Dtype::F32, shape));
        Ok(all.filter(is_statistic).map(|tensor| tensor.name).collect())
    }

    fn check_schema(&self, schema: &Schema) -> Result<()> {
        self.architecture.check_schema(schema)
    }

    fn load(&self, schema: &Schema, weights: Weights) -> Result<Box<dyn Model>> {
        let parameters = Parameters::owned(schema, weights)?;
        Ok(Box::new(ArchitectureModel::<A, B::InnerBackend> {
            model: self.architecture.load(&parameters, None, (&self.site.device, self.site.precision))?,
            architecture: self.architecture.clone(),
            batch_size: self.batch_size,
            input: self.input(),
            classes: self.architecture.classifier().outputs(),
            device: self.site.device.clone(),
            precision: self.site.precision,
            uploads: self.uploads.clone(),
            statistics: None,
        }))
    }

    fn differentiate(
        &self,
        schema: &Schema,
        parameters: &[u8],
        prepared: &Prepared,
        range: Range<usize>,
        loss: &LossSpec,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Gradient> {
        let parameters = Parameters::new(schema, parameters)?;
        let sink = Sink::zeros(schema);
        let graph = Graph::<A, B> {
            model: self.architecture.load(
                &parameters,
                Some(&sink),
                (&self.site.device, self.site.precision),
            )?,
            architecture: &self.architecture,
            sink,
            batch_size: self.batch_size,
            input: self.input(),
            classes: self.architecture.classifier().outputs(),
            device: self.site.device.clone(),
            precision: self.site.precision,
        };
        graph.differentiate(prepared, range, loss, cancel)
    }

    fn sample_bytes(&self) -> u64 {
        (self.preprocessor.values() * size_of::<f32>() + size_of::<u32>()) as u64
    }

    fn prepare(&self, dataset: &Dataset, range: Range<u64>) -> Result<Prepared> {
        let samples = (range.end.saturating_sub(range.start)) as usize;
        let mut pixels = Vec::with_capacity(samples * self.preprocessor.values());
        let mut labels = Vec::with_capacity(samples);
        let (mut first, mut at_a_time) = (range.start, samples.max(1) as u64);
        while first < range.end {
            let end = range.end.min(first.saturating_add(at_a_time));
            match dataset.read(first..end) {
                Ok(samples) => {
                    self.decode(dataset, first, &samples, (&mut pixels, &mut labels))?;
                    first = end;
                }
                // Fewer of them may fit.
                Err(error) if is_too_much(&error) && end - first > 1 => at_a_time = (end - first) / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(Prepared::from_pixels(pixels, labels)?.among(dataset.subset()))
    }
}

impl<A: Architecture, B: Differentiable> ArchitectureEvaluator<A, B> {
    /// Appends the pixels and labels of `samples`, of which `first` is the first one's number.
    fn decode(
        &self,
        dataset: &Dataset,
        first: u64,
        samples: &[Sample],
        (pixels, labels): (&mut Vec<f32>, &mut Vec<u32>),
    ) -> Result<()> {
        let classes = self.architecture.classifier().classes.count();
        for (index, sample) in samples.iter().enumerate() {
            let at = || dataset.place(first + index as u64);
            let Target::Class(label) = sample.target;
            if label >= classes {
                return Err(Error::data(format!(
                    "{}: label {label} is not one of the model's {classes} classes (0 to {})",
                    at(),
                    classes - 1
                )));
            }
            let Input::Image(image) = &sample.input;
            let decoded = self.preprocessor.apply(image, dataset.budget(), pixels);
            decoded.map_err(|e| e.context(at()))?;
            labels.push(label);
        }
        Ok(())
    }
}

struct ArchitectureModel<A: Architecture, B: Backend> {
    architecture: Arc<A>,
    model: A::Model<Loaded<B>>,
    batch_size: usize,
    /// Channels, height, width.
    input: [usize; 3],
    classes: usize,
    device: B::Device,
    precision: Precision,
    uploads: Arc<Uploads<B>>,
    /// Running statistics instead of those that the model was loaded with.
    statistics: Option<Statistics<B>>,
}

impl<A: Architecture, B: Kernels> ArchitectureModel<A, B> {
    /// Values of one sample.
    fn stride(&self) -> usize {
        self.input.iter().product()
    }

    /// The logits of one batch, which begins with sample `first` of `prepared`. What a sample comes out as cannot depend on how many
    /// others there are: either no kernel lets it ([`Kernels::ANY_BATCH`]), or the forward pass always has the same shape; rows that are
    /// missing are then zeros, and their logits are dropped.
    fn batch(&self, prepared: &Prepared, first: usize, pixels: &[f32]) -> Result<Vec<f32>> {
        let rows = pixels.len() / self.stride();
        let padded = if B::ANY_BATCH { rows } else { self.batch_size };
        B::on(&self.device, self.precision, || {
            let bytes = (padded * self.stride() * size_of::<B::FloatElem>()) as u64;
            let of = (prepared.identity(), first, rows);
            let pixels = self.uploads.batch(of, bytes, || Ok(self.upload(pixels, padded)))?;
            let mut norms = self.statistics.as_ref().map_or(Norms::Stored, Norms::Given);
            let logits = self.architecture.forward_by(&self.model, pixels, &mut norms);
            let mut values = kernels::values(logits, "logits")?;
            if values.len() != padded * self.classes {
                return Err(Error::internal(format!("{} logits of {padded} samples", values.len())));
            }
            values.truncate(rows * self.classes);
            Ok(values)
        })
    }

    /// Pixels as so many samples.
    fn upload(&self, pixels: &[f32], samples: usize) -> Tensor<B, 4> {
        let [channels, height, width] = self.input;
        let mut padded = Vec::with_capacity(samples * self.stride());
        padded.extend_from_slice(pixels);
        padded.resize(samples * self.stride(), 0.0);
        kernels::tensor(padded, [samples, channels, height, width], &self.device)
    }
}

impl<A: Architecture, B: Kernels> Model for ArchitectureModel<A, B> {
    fn logits(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>> {
        let stride = self.stride();
        let pixels = prepared.pixels_of(range.clone(), stride, A::NAME)?;
        let mut out = Vec::with_capacity(range.len() * self.classes);
        let firsts = range.step_by(self.batch_size);
        for (first, batch) in firsts.zip(pixels.chunks(self.batch_size * stride)) {
            if cancel() {
                return Err(Error::cancelled("evaluation was cancelled"));
            }
            out.extend(self.batch(prepared, first, batch)?);
        }
        Ok(out)
    }

    fn observe(&self, prepared: &Prepared, range: Range<usize>) -> Result<Vec<Observed>> {
        let (samples, stride) = (range.len(), self.stride());
        let pixels = prepared.pixels_of(range, stride, A::NAME)?;
        B::on(&self.device, self.precision, || {
            let mut observer = Observer::default();
            let pixels = self.upload(pixels, samples);
            self.architecture.forward_by(&self.model, pixels, &mut Norms::Seen(&mut observer));
            observer.take()
        })
    }

    fn normalise_by(&mut self, statistics: &[(String, Vec<f32>)]) -> Result<()> {
        self.statistics = Some(by_layer(statistics, &self.device)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preprocessing_is_never_assumed() {
        let spec = EvaluatorSpec {
            config_json: r#"{"model_type": "vit"}"#.into(),
            preprocessor_json: None,
            batch_size: 1,
            ..EvaluatorSpec::default()
        };
        let error = evaluator(&spec).err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        assert!(error.chain().contains("--preprocessor-config"), "{error:?}");
    }

    #[test]
    fn the_batch_size_is_bounded() {
        for batch_size in [0, BATCH_SIZE_MAX + 1] {
            let spec = EvaluatorSpec {
                config_json: r#"{"model_type": "vit"}"#.into(),
                preprocessor_json: None,
                batch_size,
                ..EvaluatorSpec::default()
            };
            assert_eq!(evaluator(&spec).err().map(|e| e.kind()), Some(soup_core::ErrorKind::Usage));
        }
    }
}
