//! What a cook is asked to do, from either of its two sources: flags and the cook file.
//!
//! Both fill the same [`CookOptions`], so every flag is a key of the file under the same name, and the doc comments
//! here are the flags' help and the JSON schema's descriptions. Paths are made absolute as soon as their source is
//! known: those of the file are relative to it, those of flags to the current folder. Then flags win, key by key.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use schemars::JsonSchema;
use serde::Deserialize;
use soup_core::recipe::given::WeightTable;
use soup_core::run::{check_judge_name, judges_own};
use soup_core::{Error, Result};
use soup_store::{local, location};

use crate::choices::{
    AcceptRule, BatchNormName, CandidateOrder, DecodingName, DigestName, DtypeName, EvaluateName,
    MissingName, RecipeName,
};
use crate::choices::{DiagnosisName, GranularityName, InitName, OptimizerName, ScheduleName, WeightRuleName};
use crate::datasets::{DatasetEntry, TestSets};
use crate::gates::Gate;
use crate::judges::JudgeFlag;
use crate::metric::MetricFlag;
use crate::quantity::{Bytes, Lookahead, Millis, Share};

/// Largest cook file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

const INPUT: &str = "What to cook";
const RECIPE: &str = "Recipe";
const LEARNED: &str = "Learned recipe";
const OUTPUT: &str = "Output";
const DIAGNOSIS: &str = "Diagnosis";
const EVALUATION: &str = "Evaluation";
const CLUSTER: &str = "Cluster";

/// A cook: what goes in, how to choose, where the soup goes, and who does the work.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct CookOptions {
    /// Checkpoints to choose from: a folder of checkpoints, a checkpoint, or a glob in quotes; repeatable
    ///
    /// A checkpoint is a .safetensors file, or a Hugging Face folder with one (or with an index and its shards). A
    /// folder may keep its checkpoints in a subfolder "ingredients". Plain paths and URLs (file://, s3://, gs://,
    /// az://, http(s)://, as built in).
    #[arg(long = "pool", value_name = "URL", help_heading = INPUT)]
    #[serde(deserialize_with = "crate::datasets::one_or_many")]
    #[schemars(with = "crate::datasets::OneOrMany")]
    pub(crate) pool: Vec<String>,
    /// Held-out labelled data on which the recipe decides: Parquet, a folder of images by class, or images in tar files; with a --judge whatever
    /// that reads.
    /// Not needed by the uniform and the weighted recipe, whose soup is then not scored
    ///
    /// Of a folder with several splits one is named: URL#validation. In a cook file also a map {url, split, image-column,
    /// label-column, limit}, as for test sets.
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub(crate) validation: Option<DatasetEntry>,
    /// Data on which the results are reported, and nothing is decided; repeatable
    #[arg(long = "test", value_name = "NAME=URL", value_parser = TestSets::parse_one, help_heading = INPUT)]
    #[serde(deserialize_with = "TestSets::deserialize_map")]
    #[schemars(with = "std::collections::BTreeMap<String, DatasetEntry>")]
    pub(crate) test: Vec<(String, DatasetEntry)>,
    /// The model's config.json, if it is not beside the ingredients
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub(crate) model_config: Option<String>,
    /// The preprocessor_config.json, if it is not beside the ingredients
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub(crate) preprocessor_config: Option<String>,
    /// Let the ingredients' small files differ in a key (hidden_act), a path (vision_config.hidden_act) or a file; repeatable
    ///
    /// What gives tensors their meaning (id2label, activations, epsilons, preprocessing, vocabularies) has to agree like the
    /// tensors do. For those who know that a difference does not matter; it is noted.
    #[arg(long, value_name = "KEY", help_heading = INPUT)]
    #[serde(deserialize_with = "crate::datasets::one_or_many")]
    #[schemars(with = "crate::datasets::OneOrMany")]
    pub(crate) ignore_config: Vec<String>,
    /// Where a dataset has some of the model's classes, take predictions among those, as the reference code does for ImageNet-A,
    /// -R and ObjectNet; else among all
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = INPUT)]
    pub(crate) class_subset: Option<bool>,
    /// Accept NaN and infinite parameters instead of refusing the pool
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = INPUT)]
    pub(crate) allow_nan: Option<bool>,
    /// By which algorithm workers digest what they read of ingredients, which takes longer than reading where that is fast [default: sha256]
    ///
    /// The digests are compared when a shard is read again, are part of what a soup's scores are kept under, and stand in soup.json. Files that
    /// are written have SHA-256 in any case.
    #[arg(long, value_enum, help_heading = INPUT)]
    pub(crate) digest: Option<DigestName>,
    /// What becomes of tensors that only some ingredients have (poolers, other heads), in a soup that is not judged [default: refuse]
    #[arg(long, value_enum, help_heading = INPUT)]
    pub(crate) missing: Option<MissingName>,
    /// What becomes of running statistics of normalisation layers (BatchNorm), where the pool has some; those of an averaged model are
    /// not the average of its ingredients', so such a pool is refused where this is not said
    #[arg(long, value_enum, help_heading = INPUT)]
    pub(crate) batch_norm: Option<BatchNormName>,
    /// Data on which --batch-norm recompute computes, best some of what the ingredients were trained on; its labels are not looked at
    ///
    /// In a cook file also a map, as for the validation set, whose limit says how many samples are used.
    #[arg(long, value_name = "URL", help_heading = INPUT)]
    pub(crate) calibration: Option<DatasetEntry>,

    /// How to choose the ingredients [default: greedy]
    #[arg(long, value_enum, help_heading = RECIPE)]
    pub(crate) recipe: Option<RecipeName>,
    /// The weights of the weighted recipe: a JSON file {"ingredient": weight, ...}
    ///
    /// Instead of a number also a map by layer or tensor, with "*" for all others: {"a": 0.5, "b": {"*": 0.5, "classifier": 0}}.
    /// Every ingredient has to be named, with 0 where it is left out. In a cook file the same as a map: ingredient-weights.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = RECIPE)]
    pub(crate) weights_file: Option<String>,
    /// The weights of the weighted recipe by ingredient, as in --weights-file
    #[arg(skip)]
    #[serde(deserialize_with = "soup_core::recipe::given::deserialize")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, serde_json::Value>>")]
    pub(crate) ingredient_weights: Option<WeightTable>,
    /// In which order candidates are tried [default: sorted]
    #[arg(long, value_enum, help_heading = RECIPE)]
    pub(crate) order: Option<CandidateOrder>,
    /// Rank the ingredients by scores that are known already, instead of judging each of them first: a JSON file {"ingredient": score, ...}
    /// or a CSV file with a name and a score in each line
    ///
    /// Every ingredient has to be named. Scores are taken to be of --metric: of the loss the lower is better. They decide the order in which
    /// candidates are tried and which ingredient is the best single one, and are compared with nothing else. In a cook file a path too.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = RECIPE)]
    pub(crate) ranked_by: Option<String>,
    /// When a trial is accepted [default: at-least]
    #[arg(long, value_enum, help_heading = RECIPE)]
    pub(crate) accept: Option<AcceptRule>,
    /// How often --accept significant may take luck for skill: p of a one-sided exact McNemar test, for each trial [default: 0.05]
    #[arg(long, value_name = "P", help_heading = RECIPE)]
    pub(crate) alpha: Option<f64>,
    /// Seed of the random order, and of random mini-batches [default: 0]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub(crate) seed: Option<u64>,
    /// Greedy stops at so many ingredients [default: no limit]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub(crate) max_ingredients: Option<u32>,
    /// Passes over the candidates; one that changes nothing is the last [default: 1, pruned: 2]
    #[arg(long, value_name = "N", help_heading = RECIPE)]
    pub(crate) passes: Option<u32>,
    /// The figure that decides, or several whose mean does: accuracy+binary-f1 [default: accuracy]
    ///
    /// accuracy: share of samples that are predicted right; macro-f1: mean of the F1 of all classes of the model; binary-f1: F1 of class 1 of two;
    /// matthews: Matthews correlation coefficient; loss: mean cross-entropy, of which the lower is better. Other judges may have
    /// others.
    #[arg(long, value_name = "NAME", help_heading = RECIPE)]
    pub(crate) metric: Option<MetricFlag>,

    /// Data that the learned recipe learns from [default: a part of the validation set, which then is the rest of it]
    ///
    /// In a cook file also a map, as for the validation set. Naming the validation set itself trains and reports on the same
    /// data, as the authors' script does.
    #[arg(long, value_name = "URL", help_heading = LEARNED)]
    pub(crate) train: Option<DatasetEntry>,
    /// Share of the validation set to learn from, where --train names no other data [default: 0.5]
    #[arg(long, value_name = "SHARE", help_heading = LEARNED)]
    pub(crate) train_share: Option<f64>,
    /// What has weights of its own [default: tensor]
    #[arg(long, value_enum, help_heading = LEARNED)]
    pub(crate) granularity: Option<GranularityName>,
    /// What weights may be [default: softmax]
    #[arg(long, value_enum, help_heading = LEARNED)]
    pub(crate) weights: Option<WeightRuleName>,
    /// How weights are stepped [default: adamw]
    #[arg(long, value_enum, help_heading = LEARNED)]
    pub(crate) optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.05]
    #[arg(long, value_name = "RATE", help_heading = LEARNED)]
    pub(crate) lr: Option<f64>,
    /// How the learning rate goes on after the warm-up [default: constant]
    #[arg(long, value_enum, help_heading = LEARNED)]
    pub(crate) schedule: Option<ScheduleName>,
    /// Share of all steps over which the learning rate rises [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LEARNED)]
    pub(crate) warmup: Option<f64>,
    /// Largest norm of the gradient; longer ones are scaled down [default: any]
    #[arg(long, value_name = "NORM", help_heading = LEARNED)]
    pub(crate) clip: Option<f64>,
    /// Passes over the data [default: 5]
    #[arg(long, value_name = "N", help_heading = LEARNED)]
    pub(crate) epochs: Option<u32>,
    /// Samples of a mini-batch [default: 256]
    #[arg(long, value_name = "N", help_heading = LEARNED)]
    pub(crate) mini_batch: Option<u32>,
    /// Parts of a mini-batch that workers share; changes the result by rounding only [default: 8]
    #[arg(long, value_name = "N", help_heading = LEARNED)]
    pub(crate) parts: Option<u32>,
    /// Draw mini-batches at random, by --seed; else samples are taken in their order [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = LEARNED)]
    pub(crate) shuffle: Option<bool>,
    /// Share of the label's probability that is spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LEARNED)]
    pub(crate) label_smoothing: Option<f64>,
    /// Where learning starts [default: uniform]
    #[arg(long, value_enum, help_heading = LEARNED)]
    pub(crate) init: Option<InitName>,
    /// Multiply the learned temperature into the classifier's parameters; else it is only reported
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = LEARNED)]
    pub(crate) fold_beta: Option<bool>,

    /// Folder that receives the soup [default: ./soups/<pool>-<recipe>]
    #[arg(long, value_name = "URL", help_heading = OUTPUT)]
    pub(crate) output: Option<String>,
    /// The dtype of the soup's floating-point tensors, if it is not judged; ingredients may then have others, also different ones
    /// [default: theirs]
    #[arg(long, value_enum, help_heading = OUTPUT)]
    pub(crate) out_dtype: Option<DtypeName>,
    /// Replace an existing output
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = OUTPUT)]
    pub(crate) overwrite: Option<bool>,

    /// Where runs are kept, so that a stopped one goes on: a folder or an object store [default: .soup-state beside the output]
    #[arg(long, value_name = "URL", env = "SOUP_STATE_URL", help_heading = OUTPUT)]
    pub(crate) state_url: Option<String>,
    /// Sign the run's records and soup.json with this key, in an embedded cluster; soupctl keys new makes one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    pub(crate) signing_key: Option<String>,
    /// Begin a run of its own: neither go on with an earlier one nor use the scores of others
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = OUTPUT)]
    pub(crate) fresh: Option<bool>,

    /// What is found out about the pool itself [default: geometry, taste: full]
    #[arg(long, value_enum, help_heading = DIAGNOSIS)]
    pub(crate) diagnose: Option<DiagnosisName>,
    /// The pretrained model that the ingredients come from: a checkpoint; lengths and angles are then measured from it
    #[arg(long, value_name = "URL", help_heading = DIAGNOSIS)]
    pub(crate) base: Option<String>,
    /// Refuse a pool whose ingredients do not share an initialisation (exit code 3)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = DIAGNOSIS)]
    pub(crate) require_shared_init: Option<bool>,

    /// Who judges: a judge by its name; native if not said
    ///
    /// Workers of a cluster have judges by their --judge; `soupctl judges` lists them. For an embedded cluster, on the command line
    /// only, also where it is: NAME=unix:/path/of/socket, or NAME='cmd:COMMAND' to start it. Datasets may then also be
    /// NAME:ANYTHING, which the judge knows.
    #[arg(long, value_name = "NAME", help_heading = EVALUATION)]
    pub(crate) judge: Option<JudgeFlag>,
    /// Arithmetic of the native judge: f32, tf32 (CUDA) or bf16 (cpu and CUDA) [default: f32]
    #[arg(long, value_name = "PRECISION", help_heading = CLUSTER)]
    pub(crate) precision: Option<String>,
    /// The class of arithmetic by which the native judge judges, or how its name begins, such as cuda: workers with a GPU have one of its own,
    /// `soupctl devices` names it. Scores of different classes are never mixed [default: the processor's, or that of --device]
    #[arg(long, value_name = "CLASS", help_heading = EVALUATION)]
    pub(crate) numerics: Option<String>,
    /// Folder through which the judge of an embedded cluster is handed soups [default: one in /dev/shm, for this cook alone]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = EVALUATION)]
    pub(crate) judge_dir: Option<String>,
    /// A judge of an embedded cluster that says nothing for so long while it is asked is started again [default: 60s]
    #[arg(long, value_name = "DURATION", help_heading = EVALUATION)]
    pub(crate) judge_timeout: Option<Millis>,
    /// Samples in one forward pass [default: 32]
    #[arg(long, value_name = "N", help_heading = EVALUATION)]
    pub(crate) batch_size: Option<u32>,
    /// Do not score the best single ingredient and the uniform soup for comparison
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
          help_heading = EVALUATION)]
    pub(crate) no_baselines: Option<bool>,
    /// What the soup has to score, or the cook ends with exit code 3: DATASET>=VALUE or DATASET<=VALUE, where VALUE is a number, a share (85%) or
    /// best-single or uniform with a distance (test>=best-single-0.2pt); repeatable
    ///
    /// The figure is that of --metric. The soup is written all the same.
    #[arg(long, value_name = "GATE", help_heading = EVALUATION)]
    #[serde(deserialize_with = "crate::gates::one_or_many")]
    #[schemars(with = "crate::datasets::OneOrMany")]
    pub(crate) gate: Vec<Gate>,
    /// When a trial ends: as soon as its verdict is certain, which takes a trial that is rejected some of the samples, or when all of its
    /// samples are judged. The soup is the same [default: early]
    #[arg(long, value_name = "WHEN", help_heading = EVALUATION)]
    pub(crate) evaluate: Option<EvaluateName>,
    /// Which class a model that answers in words (T5) is taken to say [default: labels]
    #[arg(long, value_enum, help_heading = EVALUATION)]
    pub(crate) decoding: Option<DecodingName>,
    /// Trials evaluated ahead of their turn, as if the open ones were rejected: a number, or as many as keep the workers busy by how many
    /// trials were accepted so far and what they took [default: auto]
    #[arg(long, value_name = "N", help_heading = EVALUATION)]
    pub(crate) lookahead: Option<Lookahead>,
    /// Share of blends, slices and loads that another worker does again: one that differs is left out, and what it did since its last
    /// audit is done again. The soup is the same [default: 0%]
    #[arg(long, value_name = "SHARE", help_heading = EVALUATION)]
    pub(crate) audit: Option<Share>,

    /// Workers of the embedded cluster [default: 2; 1 with a device or a judge of its own, which takes what there is]
    #[arg(long, value_name = "N", help_heading = CLUSTER)]
    pub(crate) workers: Option<u32>,
    /// Memory of each embedded worker, such as 8GiB: four fifths for shards, soups and blends, one for decoded samples; a single soup
    /// may come on top [default: its part of 75 % of what is available]
    #[arg(long, value_name = "SIZE", help_heading = CLUSTER)]
    pub(crate) memory: Option<Bytes>,
    /// Folder on a local disk for shards that have no room in the memory of embedded workers
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath, help_heading = CLUSTER)]
    pub(crate) disk_cache: Option<String>,
    /// Space of each embedded worker in --disk-cache, such as 200GiB [default: its part of 90 % of what is free]
    #[arg(long, value_name = "SIZE", help_heading = CLUSTER)]
    pub(crate) disk: Option<Bytes>,
    /// Threads of each embedded worker [default: its part of the cores]
    #[arg(long, value_name = "N", help_heading = CLUSTER)]
    pub(crate) threads: Option<u32>,
    /// Where embedded workers compute: cpu, cuda:N or vulkan:N (in builds that have them, see soupctl devices), or auto [default: cpu]
    #[arg(long, value_name = "DEVICE", help_heading = CLUSTER)]
    pub(crate) device: Option<String>,
    /// Memory of the device that each embedded worker may use, such as 80GiB: four fifths for shards, the rest for soups in work, samples
    /// and what is under way [default: its part of 90 % of what is free]
    #[arg(long, value_name = "SIZE", help_heading = CLUSTER)]
    pub(crate) device_memory: Option<Bytes>,
    /// Submit to the cluster of this coordinator instead of starting an embedded one, which opens no port
    #[arg(long, value_name = "URL", env = "SOUP_COORDINATOR", help_heading = CLUSTER)]
    pub(crate) coordinator: Option<String>,
    /// Be the coordinator of this one cook for workers that join here, instead of starting an embedded cluster: they are told when it is over
    #[arg(long, value_name = "HOST:PORT", help_heading = CLUSTER)]
    pub(crate) listen: Option<String>,
    /// Start once so many workers have joined [default: 1, embedded: all]
    #[arg(long, value_name = "N", help_heading = CLUSTER)]
    pub(crate) min_workers: Option<u32>,
}

impl CookOptions {
    /// Reads a cook file. Its paths come back absolute.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) naming the file, and the key where one is wrong.
    ///
    /// `judge` is the one that flags name, whose datasets are no paths.
    pub(crate) fn read(path: &Path, judge: Option<&JudgeFlag>) -> Result<CookOptions> {
        let text = CookOptions::text(path)?;
        let file = std::fs::canonicalize(path).map_err(|e| unreadable(path, e))?;
        let mut options = CookOptions::parse(&text).map_err(|e| e.context(about(path)))?;
        let judge = judge.cloned().or_else(|| options.judge.clone());
        options.resolve(file.parent().unwrap_or(Path::new("/")), judge.as_ref())?;
        Ok(options)
    }

    /// The text of a cook file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) naming the file.
    pub(crate) fn text(path: &Path) -> Result<String> {
        let bytes = local::read_small(path, FILE_BYTES_MAX).map_err(|e| unreadable(path, e))?;
        String::from_utf8(bytes)
            .map_err(|e| Error::usage(format!("{}: is not UTF-8", about(path))).with_source(e))
    }

    /// Options from the text of a cook file, with its paths as written.
    pub(crate) fn parse(text: &str) -> Result<CookOptions> {
        if text.lines().all(|l| l.trim_start().is_empty() || l.trim_start().starts_with('#')) {
            return Err(Error::usage("is empty"));
        }
        // Without the quoted source: an error is one line.
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| Error::usage(e.to_string()))
    }

    /// Makes every path absolute, taking relative ones as relative to `folder`. Datasets of the `judge`'s own are none.
    pub(crate) fn resolve(&mut self, folder: &Path, judge: Option<&JudgeFlag>) -> Result<()> {
        let CookOptions {
            pool,
            validation,
            train,
            test,
            model_config,
            preprocessor_config,
            base,
            output,
            state_url,
            disk_cache,
            judge_dir,
            weights_file,
            ranked_by,
            signing_key,
            calibration,
            ..
        } = self;
        let datasets = validation
            .iter_mut()
            .chain(train)
            .chain(calibration)
            .chain(test.iter_mut().map(|(_, set)| set))
            .map(|set| &mut set.url)
            .filter(|url| !is_own(judge, url));
        let datasets = datasets.collect::<Vec<_>>();
        if let (None, Some((name, url))) =
            (judge, datasets.iter().find_map(|url| Some((no_path(folder, url)?, url))))
        {
            return Err(Error::usage(format!(
                "dataset {url:?} is no path that there is: if it is one that judge {name:?} knows, name that with --judge"
            )));
        }
        let places = [model_config, preprocessor_config, base, output, state_url, disk_cache, judge_dir];
        let others = places.into_iter().chain([weights_file, ranked_by, signing_key]).flatten();
        for url in pool.iter_mut().chain(datasets).chain(others) {
            *url = absolute(folder, url)?;
        }
        Ok(())
    }

    /// These options without what they say of the workers of an embedded cluster.
    #[must_use]
    pub(crate) fn without_workers(self) -> CookOptions {
        CookOptions {
            workers: None,
            memory: None,
            disk_cache: None,
            disk: None,
            threads: None,
            device: None,
            device_memory: None,
            precision: None,
            ..self
        }
    }

    /// These options, and those of `file` where these say nothing. Lists are not joined: one flag replaces the list.
    #[must_use]
    pub(crate) fn or(self, file: CookOptions) -> CookOptions {
        macro_rules! first {
            (lists: $($list:ident)*; others: $($field:ident)*) => {
                CookOptions {
                    $($list: if self.$list.is_empty() { file.$list } else { self.$list },)*
                    $($field: self.$field.or(file.$field),)*
                }
            };
        }
        first! {
            lists: pool test ignore_config gate;
            others: weights_file ingredient_weights validation model_config preprocessor_config class_subset allow_nan missing batch_norm calibration out_dtype recipe order ranked_by accept alpha seed max_ingredients passes
                metric output overwrite state_url signing_key fresh batch_size no_baselines evaluate decoding digest lookahead audit workers memory disk_cache disk threads device device_memory precision numerics coordinator listen
                judge judge_dir judge_timeout min_workers train train_share granularity weights optimizer lr schedule warmup clip epochs mini_batch parts
                shuffle label_smoothing init fold_beta diagnose base require_shared_init
        }
    }
}

/// A cook file, as errors name it.
pub(crate) fn about(path: &Path) -> String {
    format!("cook file {:?}", path.display().to_string())
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::usage(format!("{}: cannot be read", about(path))).with_source(error)
}

/// The folder that relative paths of flags are in.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the system does not say.
pub(crate) fn current_folder() -> Result<PathBuf> {
    std::env::current_dir()
        .map_err(|e| Error::configuration("the current folder cannot be determined").with_source(e))
}

/// Whether a dataset is one that `judge` knows by a name.
pub(crate) fn is_own(judge: Option<&JudgeFlag>, url: &str) -> bool {
    judge.is_some_and(|judge| judges_own(&judge.name, url).is_some())
}

/// The judge in what may be `JUDGE:NAME`, and is no file or folder in `folder`.
fn no_path<'a>(folder: &Path, url: &'a str) -> Option<&'a str> {
    let (judge, _) = url.split_once(':').filter(|(judge, _)| check_judge_name(judge).is_ok())?;
    (!is_url(url) && !folder.join(url).exists()).then_some(judge)
}

/// Whether `text` is a URL with a scheme, rather than a path.
pub(crate) fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// `text` as an absolute path without `.` and `..`, or as it is where it is a URL.
///
/// # Errors
/// Those of [`location::absolute`], and [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a path that is not UTF-8.
pub(crate) fn absolute(base: &Path, text: &str) -> Result<String> {
    if text.is_empty() || is_url(text) {
        return Ok(text.to_owned());
    }
    let path = location::absolute(base, text)?;
    path.into_os_string()
        .into_string()
        .map_err(|path| Error::usage(format!("path {:?} is not UTF-8", path.to_string_lossy())))
}

#[cfg(test)]
mod tests;
