//! Checked conversions. `From` where nothing can go wrong, `TryFrom` (error: a [`soup_core::Error`]) from the wire.

use std::collections::BTreeMap;

use soup_core::agree::Missing;
use soup_core::digest::DigestKind;
use soup_core::error::{TEXT_BYTES_MAX, brief};
use soup_core::judge::{JudgeId, Offer};
use soup_core::ledger::{Dataset, Evaluation};
use soup_core::machine::{FileDigest, Proof, Report, TaskKey, Tier, Underway};
use soup_core::metric::Metric;
use soup_core::recipe::given::{GivenWeight, WeightTable};
use soup_core::recipe::learned::{Granularity, Init, LearnSpec, Optimizer, Schedule, WeightRule};
use soup_core::recipe::ranking::ScoreTable;
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec, Verdict};
use soup_core::run::{
    DatasetOptions, DatasetSpec, DiagnosisLevel, DiagnosisSpec, Evaluate, NamedConfig, RunSpec, Split,
    check_judge_name,
};
use soup_core::significance::McNemar;
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_core::survey::Ability;
use soup_core::tally::Tally;
use soup_core::{Error, ErrorKind, Result};

use crate::v1;

mod measures;
mod schema;
mod tallies;

pub use schema::tensors_of;

fn malformed(what: &str) -> Error {
    Error::usage(format!("malformed message: {what}"))
}

fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| malformed(&format!("{name} is missing")))
}

/// Both directions of an enumeration with the same names on both sides.
macro_rules! enumeration {
    ($core:ty, $wire:ty, $what:literal, $($variant:ident),+) => {
        impl From<$core> for $wire {
            fn from(value: $core) -> Self {
                match value { $(<$core>::$variant => <$wire>::$variant),+ }
            }
        }
        impl TryFrom<$wire> for $core {
            type Error = Error;
            fn try_from(value: $wire) -> Result<Self> {
                match value {
                    $(<$wire>::$variant => Ok(<$core>::$variant),)+
                    <$wire>::Unspecified => Err(malformed(concat!($what, " is missing or unknown"))),
                }
            }
        }
    };
}

enumeration!(
    RecipeKind,
    v1::recipe::Kind,
    "recipe kind",
    Uniform,
    BestSingle,
    Greedy,
    Pruned,
    Learned,
    Weighted
);
enumeration!(Tier, v1::Tier, "where a shard is kept", Device, Memory, Disk);
enumeration!(DigestKind, v1::DigestKind, "algorithm of digests", Sha256, Blake3);
enumeration!(Evaluate, v1::Evaluate, "when trials end", Early, Full);
enumeration!(Missing, v1::Missing, "what becomes of missing tensors", Refuse, Skip, First);
enumeration!(Granularity, v1::learn::Granularity, "granularity", Model, Layer, Tensor);
enumeration!(WeightRule, v1::learn::WeightRule, "weight rule", Softmax, Free, SumToOne);
enumeration!(Optimizer, v1::learn::Optimizer, "optimizer", Adamw);
enumeration!(Schedule, v1::learn::Schedule, "schedule", Constant, Cosine);
enumeration!(DiagnosisLevel, v1::diagnosis::Level, "diagnosis level", None, Geometry, Full);
enumeration!(Init, v1::learn::Init, "init", Uniform, Greedy);
enumeration!(Order, v1::recipe::Order, "recipe order", Sorted, Random, Pool);
enumeration!(Accept, v1::recipe::Accept, "recipe accept", AtLeast, Better, Significant);
enumeration!(
    ErrorKind,
    v1::failure::Kind,
    "failure kind",
    Usage,
    Gate,
    Data,
    Unavailable,
    TryAgain,
    Configuration,
    Cancelled,
    Internal
);

impl From<RecipeSpec> for v1::Recipe {
    fn from(r: RecipeSpec) -> Self {
        v1::Recipe {
            kind: v1::recipe::Kind::from(r.kind).into(),
            order: v1::recipe::Order::from(r.order).into(),
            accept: v1::recipe::Accept::from(r.accept).into(),
            seed: r.seed,
            max_ingredients: r.max_ingredients,
            passes: r.passes,
            metric: r.metric.into(),
            learn: r.learn.map(Into::into),
            alpha: r.alpha,
        }
    }
}

impl From<LearnSpec> for v1::Learn {
    fn from(l: LearnSpec) -> Self {
        v1::Learn {
            granularity: v1::learn::Granularity::from(l.granularity).into(),
            weights: v1::learn::WeightRule::from(l.weights).into(),
            optimizer: v1::learn::Optimizer::from(l.optimizer).into(),
            lr: l.lr,
            schedule: v1::learn::Schedule::from(l.schedule).into(),
            warmup: l.warmup,
            clip: l.clip,
            epochs: l.epochs,
            batch_size: l.batch_size,
            parts: l.parts,
            shuffle: l.shuffle,
            label_smoothing: l.label_smoothing,
            init: v1::learn::Init::from(l.init).into(),
            fold_beta: l.fold_beta,
        }
    }
}

impl TryFrom<v1::Learn> for LearnSpec {
    type Error = Error;
    fn try_from(l: v1::Learn) -> Result<Self> {
        Ok(LearnSpec {
            granularity: l.granularity().try_into()?,
            weights: l.weights().try_into()?,
            optimizer: l.optimizer().try_into()?,
            lr: l.lr,
            schedule: l.schedule().try_into()?,
            warmup: l.warmup,
            clip: l.clip,
            epochs: l.epochs,
            batch_size: l.batch_size,
            parts: l.parts,
            shuffle: l.shuffle,
            label_smoothing: l.label_smoothing,
            init: l.init().try_into()?,
            fold_beta: l.fold_beta,
        })
    }
}

impl TryFrom<v1::Recipe> for RecipeSpec {
    type Error = Error;
    fn try_from(r: v1::Recipe) -> Result<Self> {
        Ok(RecipeSpec {
            kind: r.kind().try_into()?,
            order: r.order().try_into()?,
            accept: r.accept().try_into()?,
            seed: r.seed,
            max_ingredients: r.max_ingredients,
            passes: r.passes,
            metric: r.metric.parse()?,
            learn: r.learn.map(TryInto::try_into).transpose()?,
            alpha: r.alpha,
        })
    }
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|t| !t.is_empty())
}

impl From<DatasetSpec> for v1::DatasetSpec {
    fn from(d: DatasetSpec) -> Self {
        let DatasetOptions { image_column, label_column, limit, split, named_split, others } = d.options;
        v1::DatasetSpec {
            name: d.name,
            url: d.url,
            image_column: image_column.unwrap_or_default(),
            label_column: label_column.unwrap_or_default(),
            limit,
            split: split.map(|s| v1::Split { train: s.train, train_ppm: s.train_ppm }),
            named_split: named_split.unwrap_or_default(),
            options: others.into_iter().collect(),
        }
    }
}

impl From<v1::DatasetSpec> for DatasetSpec {
    fn from(d: v1::DatasetSpec) -> Self {
        DatasetSpec {
            name: d.name,
            url: d.url,
            options: DatasetOptions {
                image_column: non_empty(d.image_column),
                label_column: non_empty(d.label_column),
                limit: d.limit,
                split: d.split.map(|s| Split { train: s.train, train_ppm: s.train_ppm }),
                named_split: non_empty(d.named_split),
                others: d.options.into_iter().collect(),
            },
        }
    }
}

impl From<DiagnosisSpec> for v1::Diagnosis {
    fn from(d: DiagnosisSpec) -> Self {
        v1::Diagnosis {
            level: v1::diagnosis::Level::from(d.level).into(),
            base: d.base.unwrap_or_default(),
            require_shared_init: d.require_shared_init,
            report_only: d.report_only,
        }
    }
}

impl TryFrom<v1::Diagnosis> for DiagnosisSpec {
    type Error = Error;
    fn try_from(d: v1::Diagnosis) -> Result<Self> {
        Ok(DiagnosisSpec {
            level: d.level().try_into()?,
            base: non_empty(d.base),
            require_shared_init: d.require_shared_init,
            report_only: d.report_only,
        })
    }
}

impl From<RunSpec> for v1::RunSpec {
    fn from(s: RunSpec) -> Self {
        v1::RunSpec {
            pool: s.pool,
            recipe: Some(s.recipe.into()),
            validation: s.validation.map(Into::into),
            tests: s.tests.into_iter().map(Into::into).collect(),
            train: s.train.map(Into::into),
            diagnosis: Some(s.diagnosis.into()),
            output: s.output,
            overwrite: s.overwrite,
            batch_size: s.batch_size,
            allow_nan: s.allow_nan,
            baselines: s.baselines,
            lookahead: s.lookahead,
            workers_min: s.workers_min,
            model_config: s.model_config.map(Into::into),
            preprocessor_config: s.preprocessor_config.map(Into::into),
            ignore_config: s.ignore_config,
            class_subset: s.class_subset,
            ingredient_weights: s.ingredient_weights.map(weights_to_wire).unwrap_or_default(),
            missing: v1::Missing::from(s.missing).into(),
            out_dtype: s.out_dtype.map_or_else(String::new, |d| d.name().to_owned()),
            judge: s.judge.unwrap_or_default(),
            numerics: s.numerics.unwrap_or_default(),
            batch_norm: s.batch_norm.map_or_else(String::new, |b| b.name().to_owned()),
            calibration: s.calibration.map(Into::into),
            audit_ppm: s.audit_ppm,
            evaluate: v1::Evaluate::from(s.evaluate).into(),
            digest: v1::DigestKind::from(s.digest).into(),
            ranked_by: s.ranked_by.map(|table| table.into_iter().collect()).unwrap_or_default(),
            decoding: schema::decoding_to_wire(s.decoding),
        }
    }
}

impl TryFrom<v1::RunSpec> for RunSpec {
    type Error = Error;
    fn try_from(s: v1::RunSpec) -> Result<Self> {
        let missing = s.missing().try_into()?;
        let evaluate = s.evaluate().try_into()?;
        let digest = s.digest().try_into()?;
        let spec = RunSpec {
            pool: s.pool,
            recipe: required(s.recipe, "recipe")?.try_into()?,
            validation: s.validation.map(Into::into),
            tests: s.tests.into_iter().map(Into::into).collect(),
            train: s.train.map(Into::into),
            diagnosis: s.diagnosis.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            output: s.output,
            overwrite: s.overwrite,
            batch_size: s.batch_size,
            allow_nan: s.allow_nan,
            baselines: s.baselines,
            lookahead: s.lookahead,
            workers_min: s.workers_min,
            model_config: s.model_config.map(TryInto::try_into).transpose()?,
            preprocessor_config: s.preprocessor_config.map(TryInto::try_into).transpose()?,
            ignore_config: s.ignore_config,
            class_subset: s.class_subset,
            judge: non_empty(s.judge),
            numerics: non_empty(s.numerics),
            ingredient_weights: weights_from_wire(s.ingredient_weights)?,
            missing,
            out_dtype: non_empty(s.out_dtype).map(|d| schema::dtype(&d)).transpose()?,
            batch_norm: schema::batch_norm(s.batch_norm)?,
            calibration: s.calibration.map(Into::into),
            audit_ppm: s.audit_ppm,
            evaluate,
            digest,
            ranked_by: Some(s.ranked_by.into_iter().collect()).filter(|table: &ScoreTable| !table.is_empty()),
            decoding: schema::decoding(s.decoding)?,
        };
        spec.validate()?;
        Ok(spec)
    }
}

impl From<NamedConfig> for v1::NamedConfig {
    fn from(NamedConfig { url, text }: NamedConfig) -> Self {
        v1::NamedConfig { url, text }
    }
}

impl TryFrom<v1::NamedConfig> for NamedConfig {
    type Error = Error;
    fn try_from(v1::NamedConfig { url, text }: v1::NamedConfig) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::usage(format!("configuration {url:?} comes without its text")));
        }
        Ok(NamedConfig { url, text })
    }
}

fn weights_to_wire(table: WeightTable) -> Vec<v1::IngredientWeight> {
    let part = |(part, weight): (String, f64)| v1::PartWeight { part, weight };
    let one = |(ingredient, given): (String, GivenWeight)| match given {
        GivenWeight::Model(weight) => {
            v1::IngredientWeight { ingredient, model: Some(weight), parts: Vec::new() }
        }
        GivenWeight::Parts(parts) => {
            v1::IngredientWeight { ingredient, model: None, parts: parts.into_iter().map(part).collect() }
        }
    };
    table.into_iter().map(one).collect()
}

fn weights_from_wire(weights: Vec<v1::IngredientWeight>) -> Result<Option<WeightTable>> {
    let count = weights.len();
    let one = |w: v1::IngredientWeight| {
        let (ingredient, count) = (w.ingredient, w.parts.len());
        let parts: BTreeMap<String, f64> = w.parts.into_iter().map(|p| (p.part, p.weight)).collect();
        let given = match w.model {
            Some(weight) if count == 0 => GivenWeight::Model(weight),
            None if parts.len() == count => GivenWeight::Parts(parts),
            _ => return Err(malformed(&format!("a part of ingredient {ingredient:?} has two weights"))),
        };
        Ok((ingredient, given))
    };
    let table = weights.into_iter().map(one).collect::<Result<WeightTable>>()?;
    match table.len() == count {
        true => Ok(Some(table).filter(|t| !t.is_empty())),
        false => Err(malformed("an ingredient has two weights")),
    }
}

impl From<&Soup> for v1::Soup {
    fn from(soup: &Soup) -> Self {
        let row = |row: &Vec<Weight>| v1::WeightRow { weights: row.iter().map(|w| w.get()).collect() };
        v1::Soup {
            members: soup.members().iter().map(|m| m.0).collect(),
            rows: soup.rows().unwrap_or_default().iter().map(row).collect(),
        }
    }
}

impl TryFrom<v1::Soup> for Soup {
    type Error = Error;
    fn try_from(soup: v1::Soup) -> Result<Self> {
        let members: Vec<Ingredient> = soup.members.into_iter().map(Ingredient).collect();
        if soup.rows.is_empty() {
            return Soup::mean(members).ok_or_else(|| malformed("a soup has no members"));
        }
        let weight = |w: f64| Weight::new(w).ok_or_else(|| malformed("a weight is not finite"));
        let row = |r: v1::WeightRow| r.weights.into_iter().map(weight).collect();
        Soup::weighted(members, soup.rows.into_iter().map(row).collect::<Result<_>>()?)
    }
}

impl From<&Error> for v1::Failure {
    fn from(e: &Error) -> Self {
        let message = brief(e.chain(), TEXT_BYTES_MAX);
        v1::Failure { kind: v1::failure::Kind::from(e.kind()).into(), message }
    }
}

impl From<v1::Failure> for Error {
    fn from(f: v1::Failure) -> Self {
        let kind = ErrorKind::try_from(f.kind()).unwrap_or(ErrorKind::Internal);
        Error::new(kind, brief(f.message, TEXT_BYTES_MAX))
    }
}

impl From<&JudgeId> for v1::Judge {
    fn from(judge: &JudgeId) -> Self {
        let JudgeId { name, version, digest, numerics } = judge.clone();
        v1::Judge { name, version, digest: digest.unwrap_or_default(), numerics }
    }
}

impl From<v1::Judge> for JudgeId {
    fn from(judge: v1::Judge) -> Self {
        let v1::Judge { name, version, digest, numerics } = judge;
        JudgeId { name, version, digest: non_empty(digest), numerics }
    }
}

/// Longest text in what a worker says of its judges, and most datasets that one names.
const JUDGE_TEXT_MAX: usize = 1024;
const JUDGE_DATASETS_MAX: usize = 1000;

impl From<Offer> for v1::OfferedJudge {
    fn from(offer: Offer) -> Self {
        let Offer { id, abilities, datasets } = offer;
        let abilities = abilities.into_iter().map(|a| a.name().to_owned()).collect();
        v1::OfferedJudge { judge: Some((&id).into()), abilities, datasets }
    }
}

impl TryFrom<v1::OfferedJudge> for Offer {
    type Error = Error;
    fn try_from(offer: v1::OfferedJudge) -> Result<Self> {
        let v1::OfferedJudge { judge, abilities, datasets } = offer;
        let id: JudgeId = required(judge, "a judge's identity")?.into();
        if id.name != JudgeId::native().name {
            check_judge_name(&id.name)?;
        }
        let texts = [&id.name, &id.version, &id.numerics].into_iter().chain(&id.digest).chain(&datasets);
        let odd = |text: &&String| text.len() > JUDGE_TEXT_MAX || text.chars().any(char::is_control);
        if datasets.len() > JUDGE_DATASETS_MAX || texts.into_iter().any(|text| odd(&text)) {
            return Err(malformed("what is said of a judge is too much, or no plain text"));
        }
        Ok(Offer { id, abilities: Ability::known(&abilities), datasets })
    }
}

/// The SHA-256 of recomputed statistics; `None` where there are none.
///
/// # Errors
/// Where it is none.
pub fn statistics(bytes: &[u8]) -> Result<Option<[u8; 32]>> {
    (!bytes.is_empty()).then(|| sha256(bytes)).transpose()
}

impl TryFrom<v1::Proved> for Proof {
    type Error = Error;
    fn try_from(proved: v1::Proved) -> Result<Self> {
        let v1::Proved { evaluated, again, tolerance, surveyed, statistics_sha256 } = proved;
        let (survey, _) = required(surveyed, "what was surveyed")?.survey()?;
        if !(0.0..=1.0).contains(&tolerance) {
            return Err(malformed("a tolerance is not between 0 and 1"));
        }
        let judged = required(evaluated, "what was judged")?.try_into()?;
        Ok(Proof { judged, again, tolerance, survey, statistics: statistics(&statistics_sha256)? })
    }
}

impl v1::TaskKey {
    /// The key of an attempt in `run` under `epoch`.
    pub fn new(run: &str, epoch: u64, key: TaskKey) -> Self {
        v1::TaskKey { run: run.to_owned(), epoch, task: key.task, attempt: key.attempt }
    }

    /// The attempt, without run and epoch.
    pub fn attempt_key(&self) -> TaskKey {
        TaskKey { task: self.task, attempt: self.attempt }
    }
}

/// 32 bytes from the wire.
///
/// # Errors
/// Where there are more or fewer.
pub fn sha256(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| malformed("a SHA-256 does not have 32 bytes"))
}

impl TryFrom<v1::Digest> for FileDigest {
    type Error = Error;
    fn try_from(d: v1::Digest) -> Result<Self> {
        Ok(FileDigest {
            data_sha256: sha256(&d.sha256)?,
            file_sha256: sha256(&d.file_sha256)?,
            bytes: d.bytes,
        })
    }
}

/// A report as the event that watchers see, if they see it. `datasets` are the names, `metric` the run's.
pub fn report_event(report: &Report, datasets: &[String], metric: Option<&Metric>) -> Option<v1::RunEvent> {
    use v1::run_event::Event;
    let value = |score: &Tally| metric.map_or(f64::NAN, |metric| metric.value(score));
    let event = match report {
        // Its decision follows.
        Report::Rejected(..) => return None,
        Report::Workers { count, worker, joined } => Event::Workers(v1::WorkersChanged {
            workers: *count,
            what: format!("worker {} {}", worker.0, if *joined { "joined" } else { "was lost" }),
        }),
        Report::Loading { resident, shards } => {
            Event::Loading(v1::Loading { shards_resident: *resident, shards: *shards })
        }
        Report::Scored(Evaluation { dataset: Dataset(d), soup }, score) => Event::Scored(v1::Scored {
            dataset: datasets.get(*d as usize).cloned().unwrap_or_default(),
            soup: Some(soup.into()),
            score: Some(v1::Tally::in_short(score)),
            value: value(score),
        }),
        Report::Decided(trial, d) => Event::Decided(v1::Decided {
            trial: *trial,
            soup: Some((&d.soup).into()),
            candidate: d.candidate.0,
            pass: d.pass,
            score: Some(v1::Tally::in_short(&d.score)),
            bar: Some(v1::Tally::in_short(&d.bar)),
            value: metric.map_or(f64::NAN, |metric| d.value(metric)),
            bar_value: value(&d.bar),
            accepted: d.verdict == Verdict::Accepted,
            early: d.early,
            p: d.compared.map(|counts| McNemar::of(counts).better),
        }),
        Report::Writing { written, files } => {
            Event::Writing(v1::Writing { files_written: *written, files: *files })
        }
        Report::Stepped { step, steps, loss, beta } => {
            Event::Stepped(v1::Stepped { step: *step, steps: *steps, loss: *loss, beta: *beta })
        }
        Report::Underway { what, done, of } => {
            let what = match what {
                Underway::Products => v1::underway::What::Products,
                Underway::Scores => v1::underway::What::Scores,
                Underway::Uses => v1::underway::What::Uses,
                Underway::ReadingBack => v1::underway::What::ReadingBack,
            };
            Event::Underway(v1::Underway { what: what.into(), done: *done, of: *of })
        }
        Report::Retracted { scores, trials, steps } => {
            Event::Retracted(v1::Retracted { scores: *scores, trials: *trials, steps: *steps })
        }
        Report::Note(text) => Event::Note(text.clone()),
    };
    Some(v1::RunEvent { event: Some(event) })
}

#[cfg(test)]
mod tests;
