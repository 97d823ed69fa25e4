//! What a run is asked to do: the specification that travels from the command line to the coordinator.
//!
//! It is data (URLs and numbers) and nothing else: no part of it is ever executed.

mod overlap;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::agree::{Missing, Terms};
use crate::batch_norm::BatchNorm;
use crate::digest::DigestKind;
use crate::error::{Error, Result};
use crate::judge::JudgeId;
use crate::ledger::Dataset;
use crate::metric::{Metric, check_word, is_in_words};
use crate::recipe::given::{self, WeightTable};
use crate::recipe::ranking::{self, ScoreTable};
use crate::recipe::{Order, RecipeKind, RecipeSpec};
use crate::schema::Dtype;
use crate::texts::Decoding;

/// Most samples in one forward pass.
pub const BATCH_SIZE_MAX: u32 = 65_536;
/// Most datasets in one run, the validation set included.
pub const DATASETS_MAX: usize = 64;
/// Largest configuration that is named, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Most trials evaluated ahead of their turn.
pub const LOOKAHEAD_MAX: u32 = 64;

/// The whole specification of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Checkpoint files, checkpoint folders, folders of checkpoints or globs.
    pub pool: Vec<String>,
    /// How to choose.
    pub recipe: RecipeSpec,
    /// The set on which the recipe decides; none for recipes that decide nothing, whose soup is then not scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<DatasetSpec>,
    /// Sets on which only the results are reported.
    pub tests: Vec<DatasetSpec>,
    /// The set that a recipe learns from, for recipes that learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<DatasetSpec>,
    /// What is found out about the pool itself.
    #[serde(default, skip_serializing_if = "DiagnosisSpec::is_default")]
    pub diagnosis: DiagnosisSpec,
    /// Folder that receives the soup.
    pub output: String,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Samples per forward pass; fixed, so that predictions cannot depend on batch mates.
    pub batch_size: u32,
    /// Accept NaN and infinite parameters.
    pub allow_nan: bool,
    /// Also score the best single ingredient and the uniform soup.
    pub baselines: bool,
    /// By which algorithm the content of ingredients is told apart.
    #[serde(default, skip_serializing_if = "DigestKind::is_default")]
    pub digest: DigestKind,
    /// When a trial ends.
    #[serde(default, skip_serializing_if = "Evaluate::is_early")]
    pub evaluate: Evaluate,
    /// Trials evaluated ahead of their turn; `None`: as many as keep the workers busy.
    #[serde(default)]
    pub lookahead: Option<u32>,
    /// The run starts once so many workers have joined.
    pub workers_min: u32,
    /// Share of the work that is done again by another worker, in millionths.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audit_ppm: u32,
    /// The `config.json`, if not that beside the ingredients.
    pub model_config: Option<NamedConfig>,
    /// The `preprocessor_config.json`, if not that beside the ingredients.
    pub preprocessor_config: Option<NamedConfig>,
    /// Settings in which the files beside the ingredients may differ: see [`Ignored`](crate::companion::Ignored).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_config: Vec<String>,
    /// Take predictions among the classes that a dataset has, where those are not all of the model's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub class_subset: bool,
    /// The weights of the ingredients, for the recipe that takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingredient_weights: Option<WeightTable>,
    /// The scores by which ingredients are ranked, for recipes that rank them, which then do not score them for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranked_by: Option<ScoreTable>,
    /// What becomes of tensors that only some ingredients have, in a soup that is not judged.
    #[serde(default, skip_serializing_if = "is_refuse")]
    pub missing: Missing,
    /// The dtype of the floating-point tensors of a soup that is not judged; else theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_dtype: Option<Dtype>,
    /// Who judges, by the name that workers give it; the native judge if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// The class of arithmetic by which the native judge judges, or how its name begins; by default the processor's. Which class that is among
    /// the workers is asked when a run is submitted, and is part of the judge's identity from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// What becomes of running statistics of normalisation layers; a pool that has some is refused where this is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<BatchNorm>,
    /// The set on which they are computed anew, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<DatasetSpec>,
    /// Which class a model that answers in words is taken to say.
    #[serde(default, skip_serializing_if = "Decoding::is_labels")]
    pub decoding: Decoding,
}

fn is_zero(ppm: &u32) -> bool {
    *ppm == 0
}

fn is_refuse(missing: &Missing) -> bool {
    *missing == Missing::Refuse
}

/// When a trial ends. The soup is the same; what is known of trials that were rejected is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluate {
    /// As soon as its verdict is certain: a trial that is rejected needs only some of the samples.
    #[default]
    Early,
    /// When all of its samples are judged.
    Full,
}

impl Evaluate {
    /// Whether a verdict may come before all samples are judged.
    pub fn is_early(&self) -> bool {
        *self == Evaluate::Early
    }
}

/// A file of configuration that was named instead of the one beside the ingredients. Whoever submits a run reads it, with their own rights: a
/// coordinator opens no file because a client names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenConfig")]
pub struct NamedConfig {
    /// Where it was read, for people.
    pub url: String,
    /// Its text; empty as long as nobody has read it.
    pub text: String,
}

/// How plans have it: those of old with its URL alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenConfig {
    Url(String),
    Read { url: String, text: String },
}

impl From<WrittenConfig> for NamedConfig {
    fn from(written: WrittenConfig) -> NamedConfig {
        match written {
            WrittenConfig::Url(url) => NamedConfig { url, text: String::new() },
            WrittenConfig::Read { url, text } => NamedConfig { url, text },
        }
    }
}

/// What is found out about the pool itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosisSpec {
    /// How much.
    pub level: DiagnosisLevel,
    /// The pretrained model, a checkpoint like the ingredients; without one, the pool's mean is the origin.
    pub base: Option<String>,
    /// Refuse a pool whose ingredients do not share an initialisation.
    pub require_shared_init: bool,
    /// Write no model, only the report.
    pub report_only: bool,
}

impl DiagnosisSpec {
    fn is_default(&self) -> bool {
        *self == DiagnosisSpec::default()
    }
}

/// How much is found out about the pool itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiagnosisLevel {
    /// Nothing.
    None,
    /// Lengths and angles: one pass over the resident shards.
    #[default]
    Geometry,
    /// Also soups between ingredients, and other uses of them: many evaluations.
    Full,
}

/// A labelled dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// Name in reports.
    pub name: String,
    /// A Parquet file, a folder of them, a folder of images by class, or tar files of images; of texts also JSON lines or tab-separated values.
    pub url: String,
    /// How it is read.
    #[serde(flatten)]
    pub options: DatasetOptions,
}

/// How a dataset is read. By default all of it, from its usual columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetOptions {
    /// Column of the images, by default `image` or `img`; in tar files what their names end in. Tables and tar files only.
    pub image_column: Option<String>,
    /// Column of the labels, by default `label`, `labels` or `fine_label`; in tar files what their names end in, or a key. Tables and tar
    /// files only.
    pub label_column: Option<String>,
    /// Use the first samples only.
    pub limit: Option<u64>,
    /// Of those, use one part only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Use the files of this split only, where they are of several: `train`, `validation`, `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_split: Option<String>,
    /// What the judge is told besides, by its own names. The native one knows [`TEXT_COLUMN`] and [`PAIR_COLUMN`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
}

/// The option of a dataset that names the column of its texts; without it, they are looked for under their usual names.
pub const TEXT_COLUMN: &str = "text-column";
/// The option that names the column of the second texts, where there are pairs.
pub const PAIR_COLUMN: &str = "text-pair-column";

/// Most of those, and their longest text.
const OPTIONS_MAX: usize = 64;
const OPTION_BYTES_MAX: usize = 4096;

/// One of the two parts that a dataset is split into: to learn from, and to hold out. Samples of both are spread evenly over
/// the dataset, so that both are like it even where it is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Whether this is the part to learn from.
    pub train: bool,
    /// Share of the samples to learn from, in millionths.
    pub train_ppm: u32,
}

/// One, in millionths.
pub const PPM: u32 = 1_000_000;

impl Split {
    /// Samples of this part, of a dataset of `samples`.
    pub fn len(&self, samples: u64) -> u64 {
        let train = (u128::from(samples) * u128::from(self.train_ppm.min(PPM)) / u128::from(PPM)) as u64;
        if self.train { train } else { samples - train }
    }

    /// Position in the dataset of sample `index` of this part.
    pub fn row(&self, index: u64) -> u64 {
        let (index, one) = (u128::from(index), u128::from(PPM));
        let train = u128::from(self.train_ppm.min(PPM));
        // Row r is to learn from where floor((r + 1) share) is larger than floor(r share). A part that is empty has no rows.
        let row = match self.train {
            true => ((index + 1) * one).div_ceil(train.max(1)) - 1,
            false => index * one / (one - train).max(1),
        };
        row.min(u128::from(u64::MAX)) as u64
    }
}

impl RunSpec {
    /// The datasets in their order: the validation set, the test sets, the set that is learned from, the calibration set.
    pub fn datasets(&self) -> impl Iterator<Item = &DatasetSpec> {
        self.validation.iter().chain(&self.tests).chain(&self.train).chain(&self.calibration)
    }

    /// Those of them that results are reported on, which come first.
    pub fn reported(&self) -> impl Iterator<Item = &DatasetSpec> {
        self.validation.iter().chain(&self.tests)
    }

    /// Whether nothing is judged: then every shard of the ingredients is needed once, and nothing of them is kept.
    pub fn streams(&self) -> bool {
        self.datasets().next().is_none()
    }

    /// What the pool may differ in.
    pub fn terms(&self) -> Terms {
        Terms { missing: self.missing, out_dtype: self.out_dtype }
    }

    /// The position of the set that is learned from, if there is one.
    pub fn train_set(&self) -> Option<Dataset> {
        self.train.as_ref().map(|_| Dataset(1 + self.tests.len() as u32))
    }

    /// The position of the calibration set, if there is one: the last.
    pub fn calibration_set(&self) -> Option<Dataset> {
        self.calibration.as_ref().map(|_| Dataset((self.datasets().count() - 1) as u32))
    }

    /// The set on which the recipe decides: where it learns, the one that it learns from.
    pub fn deciding_set(&self) -> Dataset {
        self.train_set().unwrap_or(Dataset::VALIDATION)
    }

    /// Checks everything that can be checked without reading anything.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) naming the option.
    pub fn validate(&self) -> Result<()> {
        sizes::check(self)?;
        if self.pool.is_empty() || self.pool.iter().any(String::is_empty) {
            return Err(Error::usage("no pool given: name a folder of checkpoints with --pool"));
        }
        if self.output.is_empty() {
            return Err(Error::usage("no output given: name a folder with --output"));
        }
        let bounds = [
            ("batch-size", self.batch_size, 1, BATCH_SIZE_MAX),
            ("lookahead", self.lookahead.unwrap_or(0), 0, LOOKAHEAD_MAX),
            ("min-workers", self.workers_min, 1, u32::MAX),
            ("audit", self.audit_ppm, 0, PPM),
        ];
        for (name, value, min, max) in bounds {
            if value < min || value > max {
                return Err(Error::usage(format!("--{name} is {value}, must be {min} to {max}")));
            }
        }
        self.recipe.build(1)?;
        match &self.judge {
            // What the native judge does not know is found out before anything is read for it.
            None => Metric::check_native(&self.recipe.metric)?,
            Some(name) => check_judge_name(name)?,
        }
        match (&self.judge, &self.numerics) {
            (Some(judge), Some(class)) => {
                return Err(Error::usage(format!(
                    "--numerics {class} is about the native judge, and the run is judged by {judge}: leave it out"
                )));
            }
            (None, Some(class)) => check_class(class)?,
            (_, None) => {}
        }
        self.check_judging()?;
        self.check_decoding()?;
        self.check_ranking()?;
        self.check_calibration()?;
        if (self.recipe.kind == RecipeKind::Learned) != self.train.is_some() {
            return Err(Error::usage(
                "a set to learn from belongs to the learned recipe, and to no other: see --train",
            ));
        }
        if self.diagnosis.level == DiagnosisLevel::None
            && (self.diagnosis.base.is_some() || self.diagnosis.require_shared_init)
        {
            return Err(Error::usage(
                "--base and --require-shared-init need a diagnosis: leave out --diagnose none",
            ));
        }
        if self.class_subset
            && (self.recipe.kind == RecipeKind::Learned || self.diagnosis.level == DiagnosisLevel::Full)
        {
            return Err(Error::usage(
                "--class-subset is about predictions; the learned recipe and a full diagnosis work with logits of all classes",
            ));
        }
        self.check_datasets()
    }
}

impl RunSpec {
    /// Checks the datasets' names, and how they are read.
    fn check_datasets(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for set in self.datasets() {
            if set.url.is_empty() {
                return Err(Error::usage(format!("dataset {:?} has no URL", set.name)));
            }
            if set.options.split.is_some_and(|s| s.train_ppm == 0 || s.train_ppm >= PPM) {
                return Err(Error::usage(format!(
                    "dataset {:?} is split with nothing on one side",
                    set.name
                )));
            }
            let others = &set.options.others;
            let unknown = others.keys().find(|key| ![TEXT_COLUMN, PAIR_COLUMN].contains(&key.as_str()));
            if let (None, Some(option)) = (&self.judge, unknown) {
                return Err(Error::usage(format!(
                    "dataset {:?} has the option {option:?}, which the native judge does not know ({TEXT_COLUMN} and {PAIR_COLUMN} it \
                     does): name the judge that does",
                    set.name
                )));
            }
            let long = |(key, value): (&String, &String)| key.len().max(value.len()) > OPTION_BYTES_MAX;
            if others.len() > OPTIONS_MAX || others.iter().any(long) {
                return Err(Error::usage(format!(
                    "dataset {:?} has more than {OPTIONS_MAX} options, or one of more than {OPTION_BYTES_MAX} bytes",
                    set.name
                )));
            }
            if set.options.limit == Some(0) {
                return Err(Error::usage(format!("dataset {:?} is limited to 0 samples", set.name)));
            }
            if set.name.is_empty() || !names.insert(&set.name) {
                return Err(Error::usage(format!("dataset name {:?} is empty or used twice", set.name)));
            }
        }
        if names.len() > DATASETS_MAX {
            return Err(Error::usage(format!(
                "{} datasets given, at most {DATASETS_MAX} are possible",
                names.len()
            )));
        }
        Ok(())
    }

    /// Checks what is asked for beside answers that may be of no class.
    fn check_decoding(&self) -> Result<()> {
        let refused = |why: &str| Err(Error::usage(format!("--decoding {} {why}", self.decoding.name())));
        match self.decoding {
            Decoding::Labels => Ok(()),
            Decoding::Greedy if self.judge.is_some() => {
                refused("is about the native judge, and the run is judged by another: leave it out")
            }
            Decoding::Greedy if self.validation.is_none() => {
                refused("is about predictions: name held-out labelled data with --validation")
            }
            Decoding::Greedy if self.class_subset => refused(
                "and --class-subset contradict each other: a model writes what it writes, whatever classes a dataset has",
            ),
            Decoding::Greedy
                if self.recipe.kind == RecipeKind::Learned
                    || self.diagnosis.level == DiagnosisLevel::Full =>
            {
                refused(
                    "is about predictions; the learned recipe and a full diagnosis work with the probabilities of all labels",
                )
            }
            Decoding::Greedy => Ok(()),
        }
    }

    /// Checks what ingredients are ranked by.
    fn check_ranking(&self) -> Result<()> {
        let Some(table) = &self.ranked_by else { return Ok(()) };
        if !self.recipe.ranks() {
            return Err(Error::usage(format!(
                "--ranked-by gives an order to the greedy and the pruned recipe, and the {} recipe takes none: leave it out",
                self.recipe.kind.name()
            )));
        }
        if self.recipe.order != Order::Sorted {
            return Err(Error::usage(
                "--ranked-by says in which order ingredients are taken, and so does --order: give one of them",
            ));
        }
        ranking::check(table)
    }

    /// Checks what running statistics are recomputed on.
    fn check_calibration(&self) -> Result<()> {
        let recomputed = self.batch_norm == Some(BatchNorm::Recompute);
        let refused = |text: &str| Err(Error::usage(text));
        match &self.calibration {
            Some(_) if !recomputed => {
                refused("--calibration is what --batch-norm recompute computes on: give both, or neither")
            }
            None if recomputed => refused(
                "--batch-norm recompute needs data to compute on: name some, best of what the ingredients were trained on, with \
                 --calibration",
            ),
            _ if recomputed && self.validation.is_none() => refused(
                "--batch-norm recompute needs a judge, and nothing is judged without --validation: give one, or take average or first",
            ),
            _ if recomputed && self.recipe.kind == RecipeKind::Learned => refused(
                "the learned recipe does not know how a loss changes with recomputed statistics: take --batch-norm average or first",
            ),
            _ => Ok(()),
        }
    }

    /// Checks what needs data, and what comes with weights.
    fn check_judging(&self) -> Result<()> {
        match (&self.ingredient_weights, self.recipe.kind == RecipeKind::Weighted) {
            (None, true) => {
                return Err(Error::usage("the weighted recipe needs weights: name them with --weights-file"));
            }
            (Some(_), false) => {
                return Err(Error::usage(
                    "weights of ingredients belong to the weighted recipe, and to no other",
                ));
            }
            (Some(table), true) => given::check(table)?,
            (None, false) => {}
        }
        if self.out_dtype.is_some_and(|d| !d.is_float()) {
            return Err(Error::usage("--out-dtype has to be a floating-point dtype: f64, f32, f16 or bf16"));
        }
        if self.validation.is_some() {
            let judged = |flag: &str| {
                Err(Error::usage(format!(
                    "{flag} is for soups that nobody judges: judged ones are the model that the ingredients are; leave out \
                     {flag} or --validation"
                )))
            };
            return match (self.missing, self.out_dtype) {
                (Missing::Refuse, None) => Ok(()),
                (Missing::Refuse, Some(_)) => judged("--out-dtype"),
                _ => judged("--missing"),
            };
        }
        let refused = |what: String| {
            Err(Error::usage(format!("{what}: name held-out labelled data with --validation")))
        };
        if self.recipe.kind.judges() {
            return refused(format!(
                "no validation set given, and the {} recipe decides by scores",
                self.recipe.kind.name()
            ));
        }
        if !self.tests.is_empty() || self.baselines {
            return refused("test sets and baselines are scored beside a validation set".to_owned());
        }
        if self.diagnosis.level == DiagnosisLevel::Full {
            return refused("a full diagnosis scores soups".to_owned());
        }
        if self.class_subset {
            return refused("--class-subset is about predictions".to_owned());
        }
        if self.judge.is_some() || self.numerics.is_some() {
            return refused("a judge scores soups".to_owned());
        }
        Ok(())
    }

    /// The name by which `set` is known to the run's judge, where it is one of the judge's own (`JUDGE:NAME`); others are places.
    pub fn judges_own<'a>(&self, set: &'a DatasetSpec) -> Option<&'a str> {
        judges_own(self.judge.as_deref()?, &set.url)
    }
}

/// The name by which the dataset at `url` is known to the judge called `judge`, where it is one of that judge's own (`JUDGE:NAME`).
pub fn judges_own<'a>(judge: &str, url: &'a str) -> Option<&'a str> {
    let rest = url.strip_prefix(judge)?.strip_prefix(':')?;
    // A URL is one, whatever a judge is called.
    (!rest.starts_with("//")).then_some(rest)
}

/// Checks how a class of numerics is named. Those of devices name driver and card, and are long.
fn check_class(class: &str) -> Result<()> {
    if !class.is_empty() && class.bytes().all(is_in_words) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--numerics {class:?} is none: classes have the characters a-z, 0-9, '-', '_' and '.'"
    )))
}

/// Checks a name that workers give a judge.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) saying what it can be.
pub fn check_judge_name(name: &str) -> Result<()> {
    if name == JudgeId::native().name {
        return Err(Error::usage("the judge that is built in is called native: give others another name"));
    }
    check_word(name).map_err(|why| Error::usage(format!("a judge is called {name:?}, which {why}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_of_a_split_are_the_dataset(samples in 0u64..3000, train_ppm in 1..PPM) {
            let rows = |train| {
                let split = Split { train, train_ppm };
                (0..split.len(samples)).map(|i| split.row(i)).collect::<Vec<_>>()
            };
            let (train, held_out) = (rows(true), rows(false));
            prop_assert!(train.is_sorted() && held_out.is_sorted());
            let mut all = [train, held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples).collect::<Vec<_>>());
        }
    }

    #[test]
    fn options_of_other_judges_are_not_for_the_native_one() {
        let spec = |judge: Option<&str>| -> RunSpec {
            let mut spec: RunSpec = serde_json::from_value(serde_json::json!({
                "pool": ["/p"], "recipe": {
                    "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                    "passes": 1, "metric": "accuracy"
                },
                "validation": { "name": "v", "url": "lm:dev", "others": { "max-length": "64" } },
                "tests": [], "output": "/o", "overwrite": false, "batch_size": 1, "allow_nan": false, "baselines": false,
                "lookahead": 0, "workers_min": 1, "model_config": null, "preprocessor_config": null
            }))
            .unwrap();
            spec.judge = judge.map(str::to_owned);
            spec
        };
        let refused = spec(None).validate().unwrap_err().chain();
        assert!(refused.contains("the option \"max-length\""), "{refused}");
        let mut own = spec(None);
        if let Some(set) = &mut own.validation {
            set.options.others =
                [TEXT_COLUMN, PAIR_COLUMN].map(|key| (key.to_owned(), "s".to_owned())).into();
        }
        own.validate().unwrap();
        let known = spec(Some("lm"));
        known.validate().unwrap();
        assert_eq!(known.judges_own(known.validation.as_ref().unwrap()), Some("dev"));
        assert_eq!(spec(Some("l")).judges_own(known.validation.as_ref().unwrap()), None);
        assert!(spec(Some("native")).validate().is_err() && spec(Some("a b")).validate().is_err());
    }

    #[test]
    fn greedy_decoding_is_for_predictions_of_the_native_judge() {
        let spec = |change: &dyn Fn(&mut RunSpec)| {
            let mut spec: RunSpec = serde_json::from_value(serde_json::json!({
                "pool": ["/p"], "recipe": {
                    "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                    "passes": 1, "metric": "accuracy"
                },
                "validation": { "name": "v", "url": "/v" }, "tests": [], "output": "/o", "overwrite": false,
                "batch_size": 1, "allow_nan": false, "baselines": false, "workers_min": 1, "decoding": "greedy",
                "model_config": null, "preprocessor_config": null
            }))
            .unwrap();
            change(&mut spec);
            spec.validate().map_err(|e| e.chain())
        };
        spec(&|_| {}).unwrap();
        let refused = |change: &dyn Fn(&mut RunSpec), part: &str| {
            let error = spec(change).unwrap_err();
            assert!(error.starts_with("--decoding greedy ") && error.contains(part), "{error}");
        };
        refused(&|s| s.judge = Some("lm".to_owned()), "about the native judge");
        refused(&|s| s.class_subset = true, "--class-subset");
        refused(&|s| s.diagnosis.level = DiagnosisLevel::Full, "a full diagnosis");
        refused(
            &|s| {
                s.validation = None;
                s.recipe.kind = RecipeKind::Uniform;
            },
            "--validation",
        );
    }

    #[test]
    fn halves_take_turns() {
        let rows = |train| (0..3).map(|i| Split { train, train_ppm: PPM / 2 }.row(i)).collect::<Vec<_>>();
        assert_eq!((rows(true), rows(false)), (vec![1, 3, 5], vec![0, 2, 4]));
    }

    /// Journals and the identity of runs are made of it.
    #[test]
    fn a_dataset_is_one_flat_object() {
        let plain = r#"{"name":"v","url":"/v","image_column":null,"label_column":null,"limit":null}"#;
        let dataset = DatasetSpec { name: "v".into(), url: "/v".into(), options: DatasetOptions::default() };
        assert_eq!(serde_json::to_string(&dataset).unwrap(), plain);
        for text in [plain, r#"{"name":"v","url":"/v"}"#] {
            assert_eq!(serde_json::from_str::<DatasetSpec>(text).unwrap(), dataset);
        }
        let all = r#"{"name":"v","url":"/v","image_column":"i","label_column":"l","limit":18446744073709551615,"split":{"train":true,"train_ppm":7},"named_split":"test"}"#;
        let dataset: DatasetSpec = serde_json::from_str(all).unwrap();
        assert_eq!(dataset.options.limit, Some(u64::MAX));
        assert_eq!(serde_json::to_string(&dataset).unwrap(), all);
    }
}
