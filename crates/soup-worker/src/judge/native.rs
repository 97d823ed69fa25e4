//! The judge in this process: soup-eval on the worker's compute threads.

mod processing;
mod recomputing;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use soup_core::devices::DeviceKind;
use soup_core::machine::PartFigures;
use soup_core::run::DatasetSpec;
use soup_core::schema::Schema;
use soup_core::survey::{Ability, Survey};
use soup_core::tally;
use soup_core::weights::Weights;
use soup_core::{Error, Result};
use soup_eval::{Dataset, Evaluator, EvaluatorSpec, LossSpec, Model, Precision, Prepared, evaluator};

use self::processing::processing;
pub(crate) use self::processing::tokenizer_url;
use super::samples::{Samples, SamplesMemory};
use super::statistics::Statistics;
use super::{Gradient, Judge, Judged, Loaded, Loss, Purpose, Vessel};
use crate::compute::{Compute, Waiting};
use crate::survey::Surveyed;
use crate::task::Cancelled;

/// Position of the validation set.
const VALIDATION: u32 = 0;
/// What are few samples of a block: one in so many at most.
const FEW_OF_A_BLOCK: u64 = 2;

/// Blocks that were decoded together with one that was asked for, for as long as a call lasts: by their first samples.
type Ahead = BTreeMap<u64, Arc<Prepared>>;

/// What a native judge judges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// Text of `config.json`.
    pub(crate) model_json: String,
    /// Text of `preprocessor_config.json`, or a [`TextProcessing`] where the model is one of texts, or a [`PromptProcessing`] where it compares images
    /// with them; empty where there is none.
    pub(crate) preprocessor_json: String,
    /// Samples in one forward pass, and in a block of decoded samples.
    pub(crate) batch_size: u32,
    /// Whether predictions are taken among the classes of a dataset.
    pub(crate) class_subset: bool,
    /// The datasets, in the run's order.
    pub(crate) datasets: Vec<DatasetSpec>,
    /// Position of the one on which running statistics are recomputed, where they are.
    pub(crate) calibration: Option<u32>,
    /// What they were when the run was submitted, one a dataset; empty where there is nothing to compare with.
    pub(crate) fingerprints: Vec<String>,
}

impl Setting {
    /// What a dataset was when the run was submitted.
    pub(crate) fn fingerprint(&self, dataset: usize) -> Option<&str> {
        self.fingerprints.get(dataset).map(String::as_str).filter(|pin| !pin.is_empty())
    }
}

/// Where models are judged, and in which arithmetic; by default by the processor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) device: DeviceKind,
    pub(crate) precision: Precision,
    /// Bytes of samples that may be kept there for all models.
    pub(crate) samples_bytes: u64,
}

/// See the module.
pub(crate) struct Native(Arc<Inner>);

struct Inner {
    setting: Setting,
    schema: Arc<Schema>,
    samples: Samples,
    compute: Compute,
    place: Place,
    /// Made on first use: why there is none is told to whoever asks for it.
    evaluator: Mutex<Option<Arc<dyn Evaluator>>>,
}

impl Native {
    /// The judge of `setting` over the tensors of `schema`, whose samples take what `memory` says.
    pub(crate) fn new(
        setting: Setting,
        schema: Arc<Schema>,
        compute: Compute,
        memory: SamplesMemory,
        place: Place,
    ) -> Native {
        Native(Arc::new(Inner {
            samples: Samples::new(setting.datasets.len(), setting.batch_size, memory),
            setting,
            schema,
            compute,
            place,
            evaluator: Mutex::new(None),
        }))
    }
}

impl Inner {
    /// Runs `work` on a compute thread.
    async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Inner, &Waiting) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (waiting, of) = (self.compute.waiting(), self.clone());
        self.compute.run(move || work(&of, &waiting)).await
    }

    fn evaluator(&self, waiting: &Waiting) -> Result<Arc<dyn Evaluator>> {
        let mut slot = self.evaluator.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(evaluator) = &*slot {
            return Ok(evaluator.clone());
        }
        let made: Arc<dyn Evaluator> = evaluator(&EvaluatorSpec {
            config_json: self.setting.model_json.clone(),
            batch_size: self.setting.batch_size,
            device: self.place.device,
            precision: self.place.precision,
            device_samples_bytes: self.place.samples_bytes,
            budget: self.samples.decoding().clone(),
            ..processing(&self.setting, waiting)?
        })?
        .into();
        *slot = Some(made.clone());
        Ok(made)
    }

    /// The block of decoded samples that begins at `first`; what lies beyond the dataset's end is left out.
    fn block(&self, dataset: u32, first: u64, waiting: &Waiting) -> Result<Arc<Prepared>> {
        let named = self.naming(dataset)?;
        self.samples.block((dataset, first), |length| {
            let (evaluator, opened) = (self.evaluator(waiting)?, self.opened(dataset, waiting)?);
            let end = first.saturating_add(length).min(opened.len());
            evaluator.prepare(&opened, first.min(end)..end).map_err(named)
        })
    }

    /// How many samples dataset `index` has. Blocks; call on a compute thread.
    fn samples_of(&self, index: u32, waiting: &Waiting) -> Result<u64> {
        Ok(self.opened(index, waiting)?.len())
    }

    /// Dataset `index`. Blocks; call on a compute thread.
    fn opened(&self, index: u32, waiting: &Waiting) -> Result<Arc<Dataset>> {
        // Refuses what the run has not.
        let named = self.naming(index)?;
        let opened = self.samples.dataset(index as usize, &self.setting, &*self.evaluator(waiting)?, waiting);
        opened.map_err(named)
    }

    /// Says of an error which dataset it is about.
    fn naming(&self, index: u32) -> Result<impl Fn(Error) -> Error + '_> {
        let spec = self.setting.datasets.get(index as usize);
        let spec = spec.ok_or_else(|| Error::internal(format!("the run has no dataset {index}")))?;
        Ok(|e: Error| e.context(format!("dataset {:?}", spec.name)))
    }

    /// Looks at the datasets. Blocks; call on a compute thread.
    fn survey(&self, waiting: &Waiting) -> Result<Surveyed> {
        let evaluator = self.evaluator(waiting)?;
        evaluator.check_schema(&self.schema)?;
        let (mut samples, mut notes) = (Vec::new(), evaluator.notes(&self.schema)?);
        for (index, spec) in self.setting.datasets.iter().enumerate() {
            let (named, dataset) = (self.naming(index as u32)?, self.opened(index as u32, waiting)?);
            if dataset.is_empty() {
                return Err(named(Error::data(format!("{} has no samples", dataset.describe()))));
            }
            // What keeps all images from being judged mostly shows in the first one.
            evaluator.prepare(&dataset, 0..1).map_err(&named)?;
            let looked_over = evaluator.look_over(&dataset).map_err(&named)?;
            let all = dataset.notes().iter().chain(&looked_over);
            notes.extend(all.map(|note| format!("dataset {:?} {note}", spec.name)));
            samples.push(dataset.len());
        }
        let mut survey = match evaluator.class_names().is_empty() {
            false => Survey::of_classes(samples, evaluator.predictions()),
            true => Survey::of_values(samples),
        };
        if !evaluator.has_gradients() {
            survey.abilities.remove(&Ability::Gradients);
        }
        if self.can_recompute(&*evaluator)? {
            survey.abilities.insert(Ability::Statistics);
        }
        Ok(Surveyed { survey, notes })
    }

    /// Decodes the block of the first of `positions`, and with it those that are asked for right after it, unless there are none.
    fn look_ahead(
        &self,
        dataset: u32,
        positions: &[u64],
        waiting: &Waiting,
        ahead: &mut Ahead,
    ) -> Result<()> {
        let run = self.samples.missing(dataset, positions, self.blocks_ahead(waiting)?);
        let alone = run.end - run.start <= self.samples.block_len();
        if alone || ahead.contains_key(&run.start) {
            return Ok(());
        }
        let len = self.opened(dataset, waiting)?.len();
        // Those before them are used up.
        ahead.clear();
        *ahead = self.blocks(dataset, run.start.min(len)..run.end.min(len), waiting)?;
        Ok(())
    }

    /// How many blocks a thread decodes at a time.
    fn blocks_ahead(&self, waiting: &Waiting) -> Result<u64> {
        let block_bytes = self.evaluator(waiting)?.sample_bytes().saturating_mul(self.samples.block_len());
        Ok(self.samples.ahead_bytes() / block_bytes.max(1))
    }

    /// The blocks of the samples `run`, which begin with one and are in the dataset: decoded together, and kept as far as there is room.
    fn blocks(&self, dataset: u32, run: Range<u64>, waiting: &Waiting) -> Result<Ahead> {
        let (evaluator, opened) = (self.evaluator(waiting)?, self.opened(dataset, waiting)?);
        let all = evaluator.prepare(&opened, run.clone()).map_err(self.naming(dataset)?)?;
        let block = |(first, within)| {
            let block = Arc::new(all.pick(within)?);
            self.samples.keep((dataset, first), &block);
            Ok((first, block))
        };
        self.samples.blocks_of(run).map(block).collect()
    }

    /// Decodes the blocks of the validation set that begin at `first`, as many as are decoded at a time, if there is room to keep them. Gives
    /// where the next ones begin; `first`, where there are none.
    fn decode_ahead(&self, first: u64, waiting: &Waiting) -> Result<u64> {
        let at_a_time = self.samples.block_len().saturating_mul(self.blocks_ahead(waiting)?.max(1));
        let run = first..first.saturating_add(at_a_time).min(self.opened(VALIDATION, waiting)?.len());
        let bytes =
            |samples: u64| Ok::<_, Error>(self.evaluator(waiting)?.sample_bytes().saturating_mul(samples));
        if run.is_empty() || !self.samples.has_room(bytes(run.end - run.start)?) {
            return Ok(first);
        }
        self.blocks(VALIDATION, run.clone(), waiting)?;
        Ok(run.end)
    }

    /// The samples at `positions`, decoded: as they are kept, where they are all of a block or consecutive in it.
    fn gather(&self, dataset: u32, positions: &[u64], waiting: &Waiting) -> Result<Batch> {
        self.gather_with(dataset, positions, waiting, &Ahead::new())
    }

    /// The same, where some blocks are here already.
    fn gather_with(
        &self,
        dataset: u32,
        positions: &[u64],
        waiting: &Waiting,
        ahead: &Ahead,
    ) -> Result<Batch> {
        let mut blocks = self.samples.by_block(positions);
        let Some((first, within)) = blocks.next() else { return Ok(Batch::default()) };
        if blocks.len() == 0 && within.windows(2).all(|w| w[0] + 1 == w[1]) {
            let range = within[0]..within[0] + within.len();
            let samples = self.block_with(dataset, first, &within, waiting, ahead)?;
            return Ok(Batch { samples, range });
        }
        let mut all = self.some_with(dataset, first, within, waiting, ahead)?;
        for (first, within) in blocks {
            all.append(self.some_with(dataset, first, within, waiting, ahead)?)?;
        }
        Ok(Batch { range: 0..all.len(), samples: Arc::new(all) })
    }

    /// The samples at the positions `within` the block that begins at `first`. The others are decoded too where there is room to keep the
    /// block; where there is none they would be decoded in vain, every time that samples are asked for in another order than their own.
    fn some_with(
        &self,
        dataset: u32,
        first: u64,
        within: Vec<usize>,
        waiting: &Waiting,
        ahead: &Ahead,
    ) -> Result<Prepared> {
        let block_len = self.samples.block_len();
        let few = within.len() as u64 * FEW_OF_A_BLOCK <= block_len;
        if few && !ahead.contains_key(&first) && !self.samples.has((dataset, first)) {
            let evaluator = self.evaluator(waiting)?;
            if !self.samples.has_room(evaluator.sample_bytes().saturating_mul(block_len)) {
                let some = evaluator.prepare_some(&*self.opened(dataset, waiting)?, first, &within);
                return some.map_err(self.naming(dataset)?);
            }
        }
        self.block_with(dataset, first, &within, waiting, ahead)?.pick(within)
    }

    /// The block that begins at `first`, which has to have samples at the positions `within` it.
    fn block_with(
        &self,
        dataset: u32,
        first: u64,
        within: &[usize],
        waiting: &Waiting,
        ahead: &Ahead,
    ) -> Result<Arc<Prepared>> {
        let block = match ahead.get(&first) {
            Some(block) => block.clone(),
            None => self.block(dataset, first, waiting)?,
        };
        match within.iter().find(|&&at| at >= block.len()) {
            None => Ok(block),
            Some(at) => Err(Error::internal(format!(
                "sample {} is not in the dataset",
                first.saturating_add(*at as u64)
            ))),
        }
    }
}

/// Samples that are judged together; by default none.
#[derive(Default)]
struct Batch {
    samples: Arc<Prepared>,
    range: Range<usize>,
}

#[tonic::async_trait]
impl Judge for Native {
    async fn survey(&self) -> Result<Surveyed> {
        self.0.compute(Inner::survey).await
    }

    /// Decodes the validation set, so that shards are read and samples decoded at the same time.
    async fn make_ready(&self, cancelled: Cancelled) {
        let mut first = 0;
        while !cancelled.get() {
            match self.0.compute(move |of, waiting| of.decode_ahead(first, waiting)).await {
                Ok(next) if next > first => first = next,
                Ok(_) => return,
                Err(error) => return tracing::debug!(%error, "samples are not decoded ahead"),
            }
        }
    }

    async fn vessel(&self, purpose: Purpose) -> Result<Box<dyn Vessel>> {
        let of = self.0.clone();
        Ok(match purpose {
            Purpose::Judging => Box::new(ByTensor { weights: Weights::zeros(&of.schema), of }),
            Purpose::Learning => Box::new(Flat { parameters: vec![0; of.schema.bytes() as usize], of }),
        })
    }
}

/// The parameters of a soup that is to be judged: each tensor goes as soon as the model has it.
struct ByTensor {
    of: Arc<Inner>,
    weights: Weights,
}

#[tonic::async_trait]
impl Vessel for ByTensor {
    async fn fill(&mut self, start: u64, bytes: Bytes) -> Result<()> {
        self.weights.fill(&self.of.schema, start, &bytes)
    }

    async fn load(self: Box<Self>) -> Result<Arc<dyn Loaded>> {
        let ByTensor { of, weights } = *self;
        let model = of.compute(move |of, waiting| of.evaluator(waiting)?.load(&of.schema, weights)).await?;
        let mut soup = NativeSoup { of, model: model.into(), statistics: None };
        if let Some(dataset) = soup.of.setting.calibration {
            soup.recompute(dataset).await?;
        }
        Ok(Arc::new(soup))
    }
}

/// The parameters that a step is differentiated at: every part makes a graph of them.
struct Flat {
    of: Arc<Inner>,
    parameters: Vec<u8>,
}

#[tonic::async_trait]
impl Vessel for Flat {
    fn flat(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.parameters)
    }

    async fn fill(&mut self, start: u64, bytes: Bytes) -> Result<()> {
        let start = start as usize;
        let place = start.checked_add(bytes.len()).and_then(|end| self.parameters.get_mut(start..end));
        let misfit = || Error::internal(format!("{} bytes do not fit parameters at {start}", bytes.len()));
        place.ok_or_else(misfit)?.copy_from_slice(&bytes);
        Ok(())
    }

    async fn load(self: Box<Self>) -> Result<Arc<dyn Loaded>> {
        let Flat { of, parameters } = *self;
        Ok(Arc::new(NativeStep { of, parameters: Arc::new(parameters) }))
    }
}

/// A soup in memory.
struct NativeSoup {
    of: Arc<Inner>,
    model: Arc<dyn Model>,
    /// What was recomputed of it.
    statistics: Option<Statistics>,
}

/// The parameters of a step.
struct NativeStep {
    of: Arc<Inner>,
    parameters: Arc<Vec<u8>>,
}

/// A soup was asked for what it was not assembled for.
fn other_purpose<T>() -> Result<T> {
    Err(Error::internal("a soup was assembled for something else"))
}

#[tonic::async_trait]
impl Loaded for NativeStep {
    async fn judge(&self, _: u32, _: Vec<u64>, _: bool, _: Cancelled) -> Result<Judged> {
        other_purpose()
    }

    async fn differentiate(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        loss: Loss,
        cancelled: Cancelled,
    ) -> Result<Gradient> {
        let parameters = self.parameters.clone();
        let work = move |inner: &Inner, waiting: &Waiting| {
            let Batch { samples, range } = inner.gather(dataset, &positions, waiting)?;
            let Loss { beta, label_smoothing, scale } = loss;
            let loss = LossSpec { beta, label_smoothing, scale };
            let cancel = || cancelled.get();
            let evaluator = inner.evaluator(waiting)?;
            let gradient =
                evaluator.differentiate(&inner.schema, &parameters, &samples, range, &loss, &cancel)?;
            let soup_eval::Gradient { values, loss, d_beta, correct, total } = gradient;
            Ok(Gradient { figures: PartFigures { loss, d_beta, correct, total }, values })
        };
        self.of.compute(work).await
    }
}

#[tonic::async_trait]
impl Loaded for NativeSoup {
    async fn judge(
        &self,
        dataset: u32,
        positions: Vec<u64>,
        logits: bool,
        cancelled: Cancelled,
    ) -> Result<Judged> {
        let model = self.model.clone();
        let work = move |inner: &Inner, waiting: &Waiting| {
            let mut said: Option<tally::Judged> = None;
            let mut kept = logits.then(Vec::new);
            // As many as a block at a time: that is one forward pass, and where they are a block nothing is copied.
            let (at_a_time, mut ahead) = (inner.setting.batch_size.max(1) as usize, Ahead::new());
            for (nth, some) in positions.chunks(at_a_time).enumerate() {
                inner.look_ahead(dataset, &positions[nth * at_a_time..], waiting, &mut ahead)?;
                let Batch { samples, range } = inner.gather_with(dataset, some, waiting, &ahead)?;
                let rows = model.logits(&samples, range.clone(), &|| cancelled.get())?;
                tally::Judged::add(&mut said, samples.judged(range, &rows)?)?;
                if let Some(kept) = &mut kept {
                    kept.extend(rows);
                }
            }
            let none = || tally::Judged::Outcomes(Vec::new());
            Ok(Judged { said: said.unwrap_or_else(none), logits: kept })
        };
        self.of.compute(work).await
    }

    fn statistics(&self) -> Option<&Statistics> {
        self.statistics.as_ref()
    }

    async fn differentiate(&self, _: u32, _: Vec<u64>, _: Loss, _: Cancelled) -> Result<Gradient> {
        other_purpose()
    }
}

#[cfg(test)]
mod tests;
