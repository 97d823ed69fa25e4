//! Architectures behind one interface: parameters and samples in, outcomes out.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use soup_core::batch_norm::is_statistic;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::texts::Decoding;
use soup_core::weights::Weights;
use soup_core::{Error, Result};

use crate::architecture::Architecture;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::convolution::norm::{Norms, Observed, Observer, Statistics, by_layer};
use crate::dataset::{Dataset, InputKind, Sample, Target};
use crate::device::uploads::Uploads;
use crate::device::{self, Differentiable, Precision, Site, With};
use crate::gradient::sink::Sink;
use crate::gradient::{Gradient, Graph, LossSpec};
use crate::kernels::{self, Kernels};
use crate::kind::Kind;
use crate::models;
use crate::parameters::Parameters;
use crate::parameters::visitor::{Listing, Loaded};
use crate::prepared::{Inputs, Predictions, Prepared, Targets};
use crate::prompts::Prompts;
use crate::tokenizer::TokenizerFiles;
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
    /// Its tokenizer, where there is one.
    pub tokenizer: Option<TokenizerFiles>,
    /// What reading that may take.
    pub budget: Budget,
    /// What the classes are, of a model that compares images with texts.
    pub prompts: Option<Prompts>,
    /// The tokens of each class's label, its end included, in the order of the classes: for models that answer in words. Others have
    /// no use for them. Where there are none, the tokenizer makes them of the names of the classes.
    pub label_tokens: Vec<Vec<u32>>,
    /// Which class such a model is taken to answer.
    pub decoding: Decoding,
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
            tokenizer: None,
            budget: Budget::default(),
            prompts: None,
            label_tokens: Vec::new(),
            decoding: Decoding::default(),
            batch_size: BATCH_SIZE_DEFAULT,
            device: DeviceKind::default(),
            precision: Precision::default(),
            device_samples_bytes: 0,
        }
    }
}

/// One architecture with its preprocessing. One per worker and run, shared by its compute threads.
pub trait Evaluator: Send + Sync {
    /// Number of classes of the classifier; 0 where its models predict a number.
    fn classes(&self) -> u32;

    /// How many classes a prediction is one of: those of the classifier, and after them, where it [answers](Decoding::Greedy) in words, one
    /// for all answers that are no label.
    fn predictions(&self) -> u32;

    /// The classes, for [`Dataset::align`]; none where its models predict a number.
    fn class_names(&self) -> &Classes;

    /// What its models look at, for [`Dataset::open`].
    fn input(&self) -> InputKind;

    /// The class of its arithmetic, as [`numerics`](crate::numerics) gives it: within one, the same samples and weights give the same bits.
    fn numerics(&self) -> &str;

    /// Whether there are [gradients](Evaluator::differentiate): an answer has none, nor has every arithmetic.
    fn has_gradients(&self) -> bool;

    /// The names of the running statistics that its models have, which are those that [`Model::observe`] gives.
    ///
    /// # Errors
    /// None for an architecture whose schema can be checked.
    fn statistics(&self) -> Result<Vec<String>>;

    /// Checks that a schema has what the architecture needs; tensors that it does not use are [noted](Evaluator::notes).
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first tensor that is missing, has another shape, or is left out by `config.json`
    /// alone.
    fn check_schema(&self, schema: &Schema) -> Result<()>;

    /// What people should know about how samples become what its models take, whatever the dataset, and about tensors that it does not use.
    ///
    /// # Errors
    /// None for a schema that can be checked.
    fn notes(&self, schema: &Schema) -> Result<Vec<String>>;

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

    /// Memory of one prepared sample, in bytes: at most, where samples differ.
    fn sample_bytes(&self) -> u64;

    /// What people should know about how the samples of `dataset` become what its models take: texts that are cut. Those are all read
    /// for that; of images nothing is.
    ///
    /// # Errors
    /// Those of [`prepare`](Evaluator::prepare), for any sample.
    fn look_over(&self, dataset: &Dataset) -> Result<Vec<String>>;

    /// Reads, decodes and preprocesses the samples `range` of `dataset`, as many at a time as the dataset's budget has room for; blocks
    /// until it has. Keep the result: it serves every model.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) naming dataset and row where an image cannot be decoded or a label is not
    /// one of the model's classes, or where a sample takes more than the budget has; the errors of reading.
    fn prepare(&self, dataset: &Dataset, range: Range<u64>) -> Result<Prepared>;

    /// Of the samples from `first` on those at the positions `within`, in their order; what lies between them is read, and not decoded.
    ///
    /// # Errors
    /// As [`prepare`](Evaluator::prepare), of those samples alone.
    fn prepare_some(&self, dataset: &Dataset, first: u64, within: &[usize]) -> Result<Prepared>;
}

/// A model with parameters in it. Evaluations may run on several threads at once.
pub trait Model: Send + Sync {
    /// The logits of the samples `range` of `prepared`: `range.len()` rows of one logit a class, and of the answer where that is asked
    /// for, or of the number that is predicted, for [`Prepared::judged`]. A row depends on its sample alone. `cancel` is asked before every
    /// batch.
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
    if !A::ANSWERS && !spec.decoding.is_labels() {
        return Err(Error::data(format!(
            "{} does not answer in words: there is no {} decoding of it",
            A::NAME,
            spec.decoding.name()
        )));
    }
    let (architecture, kind) = A::Kind::open(A::from_spec(spec)?, spec)?;
    device::open(spec.device, spec.precision, Parts { architecture, kind, spec })
}

/// What an evaluator is made of, but for a backend.
struct Parts<'a, A: Architecture> {
    architecture: A,
    kind: A::Kind,
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
            kind: Arc::new(self.kind),
            batch_size: self.spec.batch_size as usize,
            site,
            uploads: Arc::new(Uploads::new(samples_bytes)),
        })
    }
}

/// A batch as the architecture `A` takes it on the backend `B`.
type Batch<A, B> = <<A as Architecture>::Kind as Kind>::Batch<B>;

/// Over a backend that differentiates; models are evaluated on the one beneath it.
struct ArchitectureEvaluator<A: Architecture, B: Differentiable> {
    architecture: Arc<A>,
    kind: Arc<A::Kind>,
    batch_size: usize,
    site: Site<B>,
    uploads: Arc<Uploads<Batch<A, B::InnerBackend>>>,
}

impl<A: Architecture, B: Differentiable> Evaluator for ArchitectureEvaluator<A, B> {
    fn classes(&self) -> u32 {
        self.class_names().count()
    }

    fn predictions(&self) -> u32 {
        self.classes() + u32::from(self.architecture.says_answers())
    }

    fn class_names(&self) -> &Classes {
        A::Kind::classes(self.architecture.classifier())
    }

    fn input(&self) -> InputKind {
        A::Kind::INPUT
    }

    fn numerics(&self) -> &str {
        &self.site.numerics
    }

    fn has_gradients(&self) -> bool {
        !self.architecture.says_answers() && self.site.has_gradients()
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

    fn notes(&self, schema: &Schema) -> Result<Vec<String>> {
        Ok(self.kind.notes().iter().cloned().chain(self.architecture.ignored(schema)?).collect())
    }

    fn load(&self, schema: &Schema, weights: Weights) -> Result<Box<dyn Model>> {
        let parameters = Parameters::owned(schema, weights)?;
        Ok(Box::new(ArchitectureModel::<A, B::InnerBackend> {
            model: self.architecture.load(&parameters, None, (&self.site.device, self.site.precision))?,
            architecture: self.architecture.clone(),
            kind: self.kind.clone(),
            batch_size: self.batch_size,
            row: (self.predictions() as usize).max(1),
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
        if self.architecture.says_answers() {
            return Err(Error::usage("an answer has no gradient: only the probabilities of labels do"));
        }
        self.site.try_gradients()?;
        let parameters = Parameters::new(schema, parameters)?;
        let sink = Sink::zeros(schema);
        let graph = Graph::<A, B> {
            model: self.architecture.load(
                &parameters,
                Some(&sink),
                (&self.site.device, self.site.precision),
            )?,
            architecture: &self.architecture,
            kind: &self.kind,
            sink,
            batch_size: self.batch_size,
            outputs: self.class_names().outputs(),
            device: self.site.device.clone(),
            precision: self.site.precision,
        };
        graph.differentiate(prepared, range, loss, cancel)
    }

    fn sample_bytes(&self) -> u64 {
        self.kind.sample_bytes()
    }

    fn look_over(&self, dataset: &Dataset) -> Result<Vec<String>> {
        let mut notes = self.kind.look_over(dataset)?;
        if self.architecture.says_answers() {
            notes.push(format!(
                "is judged by what the model writes: answers that are no class's label are class {}, which no sample has (and which macro-f1 \
                 counts as one)",
                self.classes()
            ));
        }
        Ok(notes)
    }

    fn prepare(&self, dataset: &Dataset, range: Range<u64>) -> Result<Prepared> {
        let samples = range.end.saturating_sub(range.start) as usize;
        self.prepare_where(dataset, range, samples, &|_| true)
    }

    fn prepare_some(&self, dataset: &Dataset, first: u64, within: &[usize]) -> Result<Prepared> {
        let mut sorted = within.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else {
            return Ok(Prepared::default());
        };
        let at = |within: usize| first.saturating_add(within as u64);
        let wanted = |sample: u64| sorted.binary_search(&((sample - first) as usize)).is_ok();
        let some =
            self.prepare_where(dataset, at(least)..at(most).saturating_add(1), sorted.len(), &wanted)?;
        some.pick(within.iter().map(|position| sorted.partition_point(|other| other < position)))
    }
}

impl<A: Architecture, B: Differentiable> ArchitectureEvaluator<A, B> {
    /// Reads the samples `range`, and prepares those of them that are `wanted`, of which there are `count`.
    fn prepare_where(
        &self,
        dataset: &Dataset,
        range: Range<u64>,
        count: usize,
        wanted: &dyn Fn(u64) -> bool,
    ) -> Result<Prepared> {
        let mut inputs = self.kind.none(count);
        let mut targets = Targets::none(self.class_names(), count);
        dataset.read_in_parts(range, u64::MAX, |first, samples| {
            let samples = (first..).zip(samples).filter(|(at, _)| wanted(*at));
            self.add(dataset, samples, (&mut inputs, &mut targets))
        })?;
        let predictions = match dataset.subset() {
            _ if self.architecture.says_answers() => Predictions::Answers,
            Some(classes) => Predictions::Among(classes.into()),
            None => Predictions::Largest,
        };
        Ok(Prepared::new(inputs, targets)?.predicting(predictions))
    }

    /// Appends what the model takes of `samples`, which come with their positions, and what it should say.
    fn add<'a>(
        &self,
        dataset: &Dataset,
        samples: impl Iterator<Item = (u64, &'a Sample)>,
        (inputs, targets): (&mut Inputs, &mut Targets),
    ) -> Result<()> {
        for (number, sample) in samples {
            let at = || dataset.place(number);
            check_target(sample.target, self.class_names(), at)?;
            self.kind.add(&sample.input, dataset.budget(), inputs).map_err(|e| e.context(at()))?;
            if !targets.push(sample.target) {
                return Err(Error::internal("samples have classes and numbers"));
            }
        }
        Ok(())
    }
}

/// Whether a model of these classes can say what it should to a sample `at` somewhere.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is none of its classes.
pub(crate) fn check_target(target: Target, classes: &Classes, at: impl Fn() -> String) -> Result<()> {
    match (target, classes.count()) {
        (Target::Number(_), 0) => Ok(()),
        (Target::Number(number), _) => {
            Err(Error::data(format!("{}: {number} is no class, and the model tells classes apart", at())))
        }
        (Target::Class(label), 0) => {
            Err(Error::data(format!("{}: {label} is a class, and the model predicts a number", at())))
        }
        (Target::Class(label), count) if label < count => Ok(()),
        (Target::Class(label), count) => Err(Error::data(format!(
            "{}: label {label} is not one of the model's {count} classes (0 to {})",
            at(),
            count - 1
        ))),
    }
}

struct ArchitectureModel<A: Architecture, B: Backend> {
    architecture: Arc<A>,
    kind: Arc<A::Kind>,
    model: A::Model<Loaded<B>>,
    batch_size: usize,
    /// Values that a sample comes out as.
    row: usize,
    device: B::Device,
    precision: Precision,
    uploads: Arc<Uploads<Batch<A, B>>>,
    /// Running statistics instead of those that the model was loaded with.
    statistics: Option<Statistics<B>>,
}

impl<A: Architecture, B: Kernels> ArchitectureModel<A, B> {
    /// The logits of one batch: the samples `range` of `prepared`. What a sample comes out as cannot depend on how many
    /// others there are: either no kernel lets it ([`Kernels::ANY_BATCH`]), or the forward pass has the same shape whatever they are; samples
    /// that are missing are then zeros or texts of one token, and their logits are dropped.
    fn batch(&self, prepared: &Prepared, range: Range<usize>) -> Result<Vec<f32>> {
        let rows = range.len();
        let of = (!B::ANY_BATCH).then_some(self.batch_size);
        let padded = of.unwrap_or(rows);
        B::on(&self.device, self.precision, || {
            let bytes = self.kind.batch_bytes::<B>(padded);
            let samples = (prepared.identity(), range.start, rows);
            let upload = || self.kind.batch::<B>(prepared, range.clone(), of, &self.device);
            let batch = self.uploads.batch(samples, bytes, upload)?;
            let mut norms = self.statistics.as_ref().map_or(Norms::Stored, Norms::Given);
            let logits = self.architecture.forward_by(&self.model, batch, &mut norms);
            let mut values = kernels::values(logits, "logits")?;
            if values.len() != padded * self.row {
                return Err(Error::internal(format!("{} logits of {padded} samples", values.len())));
            }
            values.truncate(rows * self.row);
            Ok(values)
        })
    }
}

impl<A: Architecture, B: Kernels> Model for ArchitectureModel<A, B> {
    fn logits(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>> {
        self.kind.check(prepared, range.clone(), A::NAME)?;
        let mut out = Vec::with_capacity(range.len() * self.row);
        let mut rest = range;
        while !rest.is_empty() {
            if cancel() {
                return Err(Error::cancelled("evaluation was cancelled"));
            }
            let count = match B::ANY_BATCH {
                true => rest.len().min(self.batch_size),
                false => self.kind.fitting(prepared, rest.clone(), self.batch_size)?,
            };
            let batch = rest.start..rest.start + count.max(1);
            rest.start = batch.end;
            out.extend(self.batch(prepared, batch)?);
        }
        Ok(out)
    }

    fn observe(&self, prepared: &Prepared, range: Range<usize>) -> Result<Vec<Observed>> {
        self.kind.check(prepared, range.clone(), A::NAME)?;
        B::on(&self.device, self.precision, || {
            let mut observer = Observer::default();
            let batch = self.kind.batch::<B>(prepared, range, None, &self.device)?;
            self.architecture.forward_by(&self.model, batch, &mut Norms::Seen(&mut observer));
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
