//! What a run is: the document whose SHA-256 is its identity, and the keys under which its scores are kept.
//!
//! The document holds everything that the result depends on: the specification, the ingredients and the datasets with the
//! sizes and ETags that their store gives them, the model's configuration. The same request over the same files is the
//! same run, and so goes on where it stopped; one ingredient more is another one.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use soup_core::batch_norm::BatchNorm;
use soup_core::journal::{Operation, SoupRecord, sha256_hex};
use soup_core::judge::JudgeId;
use soup_core::run::{DatasetSpec, RunSpec};
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;

/// Version of the document. A new one makes every run a new one.
const VERSION: u32 = 1;
/// Digits of the identity in a run's id.
const ID_DIGITS: usize = 12;
/// Most changes that a message lists.
const CHANGES_SHOWN: usize = 6;

/// The document.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanDocument {
    version: u32,
    /// Makes a run that was to begin anew another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fresh: Option<String>,
    pub(crate) spec: RunSpec,
    ingredients: Vec<IngredientStamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<IngredientStamp>,
    /// Fingerprints of the datasets, in order.
    datasets: Vec<String>,
    model_config_sha256: String,
    preprocessor_config_sha256: Option<String>,
    /// Who judges; nobody where there is no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) judge: Option<JudgeId>,
}

impl PlanDocument {
    /// The document of `run`.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for one of a newer version of this program, of which nothing is believed to be
    /// understood; [`Data`](soup_core::ErrorKind::Data) for one that cannot be read.
    pub(crate) fn read(run: &str, bytes: &[u8]) -> Result<PlanDocument> {
        let unreadable = |e| Error::data(format!("the plan of run {run:?} cannot be read")).with_source(e);
        let Versioned { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if version > VERSION {
            return Err(Error::configuration(format!(
                "run {run:?} was submitted to a newer version of soupctl: its plan has version {version}, this program knows \
                 {VERSION}; use that version"
            )));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// What makes this another run than that of `before`, in words.
    pub(crate) fn changes_since(&self, before: &PlanDocument) -> String {
        let mut changes = self.ingredients_since(before);
        let same_base = match (&before.base, &self.base) {
            (Some(before), Some(now)) => before.files == now.files,
            (before, now) => before.is_none() && now.is_none(),
        };
        let names: Vec<&str> = self.spec.datasets().map(|set| set.name.as_str()).collect();
        let sets = before.datasets.iter().zip(&self.datasets).zip(names);
        changes.extend(
            sets.filter(|((was, is), _)| was != is)
                .map(|(_, name)| format!("dataset {name:?} has other files")),
        );
        let others = [
            (same_base, "the base has other files"),
            (before.model_config_sha256 == self.model_config_sha256, "the model's configuration is another"),
            (
                before.preprocessor_config_sha256 == self.preprocessor_config_sha256,
                "the preprocessing is another",
            ),
            (before.spec == self.spec, "something else is asked for"),
        ];
        changes.extend(others.into_iter().filter(|(same, _)| !same).map(|(_, what)| what.to_owned()));
        let judge =
            |id: &Option<JudgeId>| id.as_ref().map_or_else(|| "nobody".to_owned(), JudgeId::to_string);
        if before.judge != self.judge {
            changes.push(format!("{} judges, it was {}", judge(&self.judge), judge(&before.judge)));
        }
        let more = changes.len().saturating_sub(CHANGES_SHOWN);
        changes.truncate(CHANGES_SHOWN);
        if more > 0 {
            changes.push(format!("and {more} more"));
        }
        match changes.is_empty() {
            true => "its plan was written by another version of soupctl".to_owned(),
            false => changes.join(", "),
        }
    }

    /// The ingredient of this name.
    fn ingredient(&self, name: &str) -> Option<&IngredientStamp> {
        self.ingredients.iter().find(|one| one.name == name)
    }

    /// What became of the ingredients of `before`.
    fn ingredients_since(&self, before: &PlanDocument) -> Vec<String> {
        let mut changes = Vec::new();
        for was in &before.ingredients {
            match self.ingredient(&was.name) {
                None => changes.push(format!("ingredient {:?} is gone", was.name)),
                Some(is) if is.files != was.files => {
                    changes.push(format!("ingredient {:?} has other files", was.name));
                }
                Some(_) => {}
            }
        }
        let new = self.ingredients.iter().filter(|is| before.ingredient(&is.name).is_none());
        changes.extend(new.map(|is| format!("ingredient {:?} is new", is.name)));
        changes
    }
}

/// What documents of all versions have.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct IngredientStamp {
    name: String,
    files: Vec<FileStamp>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    url: String,
    bytes: u64,
    etag: Option<String>,
}

/// What an identity is made of.
pub(crate) struct Inputs<'a> {
    pub(crate) spec: &'a RunSpec,
    pub(crate) fresh: Option<&'a str>,
    pub(crate) checkpoints: &'a [Checkpoint],
    /// The pretrained model, where it was named.
    pub(crate) base: Option<&'a Checkpoint>,
    /// One per dataset.
    pub(crate) fingerprints: &'a [String],
    pub(crate) model_config: &'a str,
    pub(crate) preprocessor_config: Option<&'a str>,
    /// `None` where nothing is judged.
    pub(crate) judge: Option<&'a JudgeId>,
}

impl Inputs<'_> {
    /// The document, and the id of the run.
    pub(crate) fn document(&self) -> Result<(String, Vec<u8>)> {
        let mut spec = self.spec.clone();
        set_operation(&mut spec, &Operation { workers_min: 1, lookahead: Some(0), ..Operation::default() });
        let files = |c: &Checkpoint| {
            let stamp = |f: &soup_store::checkpoint::FileStamp| FileStamp {
                url: f.location.to_string(),
                bytes: f.size_bytes,
                etag: f.etag.clone(),
            };
            c.files.iter().map(stamp).collect()
        };
        let ingredient = |c: &Checkpoint| IngredientStamp { name: c.name.clone(), files: files(c) };
        let document = PlanDocument {
            version: VERSION,
            fresh: self.fresh.map(str::to_owned),
            ingredients: self.checkpoints.iter().map(ingredient).collect(),
            base: self.base.map(ingredient),
            datasets: self.fingerprints.to_vec(),
            model_config_sha256: sha256_hex(self.model_config.as_bytes()),
            preprocessor_config_sha256: self.preprocessor_config.map(|c| sha256_hex(c.as_bytes())),
            judge: self.judge.cloned(),
            spec,
        };
        let bytes = serde_json::to_vec_pretty(&document).map_err(unprintable)?;
        let digest = sha256_hex(&bytes);
        Ok((format!("{}-{}", self.spec.recipe.kind.name(), &digest[..ID_DIGITS]), bytes))
    }

    /// Under which contexts the scores of this run are kept: one per dataset. They depend on the judge and on the
    /// data, and on nothing else of the run.
    pub(crate) fn contexts(&self) -> Result<Vec<String>> {
        #[derive(Serialize)]
        struct Context<'a> {
            judge: Option<&'a JudgeId>,
            model_config: &'a str,
            preprocessor_config: Option<&'a str>,
            batch_size: u32,
            dataset: DatasetSpec,
            fingerprint: &'a str,
            /// Predictions among fewer classes are other predictions.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            class_subset: bool,
            /// So are those of a model with other statistics.
            #[serde(skip_serializing_if = "Option::is_none")]
            batch_norm: Option<BatchNorm>,
            #[serde(skip_serializing_if = "Option::is_none")]
            calibration: Option<(DatasetSpec, &'a str)>,
            /// What nobody has audited, or less of, is no answer to a run that audits: its scores are believed unseen.
            #[serde(skip_serializing_if = "Option::is_none")]
            audit_ppm: Option<NonZeroU32>,
        }
        // A dataset is its content, whatever it is called.
        let nameless = |set: &DatasetSpec| DatasetSpec { name: String::new(), ..set.clone() };
        let calibration = self.spec.calibration.as_ref().zip(self.fingerprints.last());
        let context = |(dataset, fingerprint): (&DatasetSpec, &String)| {
            let context = Context {
                judge: self.judge,
                model_config: self.model_config,
                preprocessor_config: self.preprocessor_config,
                batch_size: self.spec.batch_size,
                dataset: nameless(dataset),
                fingerprint,
                class_subset: self.spec.class_subset,
                batch_norm: self.spec.batch_norm,
                calibration: calibration.map(|(set, fingerprint)| (nameless(set), fingerprint.as_str())),
                audit_ppm: NonZeroU32::new(self.spec.audit_ppm),
            };
            serde_json::to_vec(&context).map(|bytes| sha256_hex(&bytes)).map_err(unprintable)
        };
        self.spec.datasets().zip(self.fingerprints).map(context).collect()
    }
}

fn unprintable(e: serde_json::Error) -> Error {
    Error::internal("a plan could not be written as JSON").with_source(e)
}

/// The settings of a specification that are no part of its identity, and who asks for it.
pub(crate) fn operation(spec: &RunSpec, client: Option<String>) -> Operation {
    let RunSpec { overwrite, lookahead, workers_min, audit_ppm, .. } = *spec;
    Operation { overwrite, lookahead, workers_min, audit_ppm, client }
}

/// Sets them.
pub(crate) fn set_operation(spec: &mut RunSpec, operation: &Operation) {
    let Operation { overwrite, lookahead, workers_min, audit_ppm, client: _ } = *operation;
    (spec.overwrite, spec.lookahead, spec.workers_min, spec.audit_ppm) =
        (overwrite, lookahead, workers_min, audit_ppm);
}

/// The key of a soup's score: the content of its ingredients, in the order in which they are summed, and its weights.
pub(crate) fn soup_key(soup: &Soup, ingredients_sha256: &[String]) -> Option<String> {
    let record = SoupRecord::from(soup);
    let member = |&m: &u32| ingredients_sha256.get(m as usize);
    let members: Vec<&String> = record.members.iter().map(member).collect::<Option<_>>()?;
    serde_json::to_vec(&(members, record.weights)).ok().map(|bytes| sha256_hex(&bytes))
}

#[cfg(test)]
mod tests {
    use soup_core::soup::Ingredient;

    use super::*;

    #[test]
    fn scores_of_another_judge_are_other_scores_and_runs_other_runs() {
        let spec = serde_json::json!({
            "pool": ["/p"], "recipe": {
                "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
                "metric": "accuracy"
            },
            "validation": { "name": "v", "url": "/v", "image_column": null, "label_column": null, "limit": null },
            "tests": [], "output": "/o", "overwrite": false, "batch_size": 1, "allow_nan": false, "baselines": false,
            "lookahead": 0, "workers_min": 1, "model_config": null, "preprocessor_config": null
        });
        let spec: RunSpec = serde_json::from_value(spec).unwrap();
        let of_spec = |spec: &RunSpec, judge: Option<&JudgeId>| {
            let inputs = Inputs {
                spec,
                fresh: None,
                checkpoints: &[],
                base: None,
                fingerprints: &["f".to_owned()],
                model_config: "{}",
                preprocessor_config: None,
                judge,
            };
            (inputs.document().unwrap().0, inputs.contexts().unwrap())
        };
        let of = |judge| of_spec(&spec, judge);
        let native = JudgeId::native();
        let other = JudgeId { numerics: "cuda-sm90-tf32".to_owned(), ..JudgeId::native() };
        let (native, again, other) = (of(Some(&native)), of(Some(&native)), of(Some(&other)));
        assert_eq!(native, again);
        assert_ne!(native.0, other.0);
        assert_ne!(native.1, other.1);
        // What does not change a result is no part of what a run is.
        let audited = RunSpec { audit_ppm: 20_000, workers_min: 3, ..spec.clone() };
        let of_audited = of_spec(&audited, Some(&JudgeId::native()));
        assert_eq!(of_audited.0, native.0);
        // But whoever audits does not believe scores of those who did not, or less.
        let more = RunSpec { audit_ppm: 1_000_000, ..audited.clone() };
        let of_more = of_spec(&more, Some(&JudgeId::native()));
        assert!(of_audited.1 != native.1 && of_more.1 != native.1 && of_more.1 != of_audited.1);
        assert_eq!(
            of_spec(&RunSpec { workers_min: 1, ..audited.clone() }, Some(&JudgeId::native())),
            of_audited
        );
        let mut again = spec.clone();
        set_operation(&mut again, &operation(&audited, None));
        assert_eq!(again, audited);
    }

    #[test]
    fn what_makes_a_run_another_one_is_named() {
        let document = |change: &dyn Fn(&mut serde_json::Value)| {
            let stamp = |name: &str| {
                let file = serde_json::json!({ "url": format!("/p/{name}"), "bytes": 8, "etag": name });
                serde_json::json!({ "name": name, "files": [file] })
            };
            let set = serde_json::json!({ "name": "validation", "url": "/v", "limit": null });
            let spec = serde_json::json!({
                "pool": ["/p"], "recipe": {
                    "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                    "passes": 1, "metric": "accuracy"
                },
                "validation": set, "tests": [], "output": "/o", "overwrite": false, "batch_size": 1, "allow_nan": false,
                "baselines": false, "lookahead": 0, "workers_min": 1, "model_config": null, "preprocessor_config": null
            });
            let mut plan = serde_json::json!({
                "version": VERSION, "spec": spec, "ingredients": [stamp("a"), stamp("b")], "datasets": ["f"],
                "model_config_sha256": "m", "preprocessor_config_sha256": "p", "judge": JudgeId::native()
            });
            change(&mut plan);
            PlanDocument::read("r", plan.to_string().as_bytes()).unwrap()
        };
        let before = document(&|_| {});
        let check = |change: &dyn Fn(&mut serde_json::Value), expect: &str| {
            assert_eq!(document(change).changes_since(&before), expect);
        };
        check(&|p| p["ingredients"][1]["files"][0]["etag"] = "x".into(), "ingredient \"b\" has other files");
        check(
            &|p| p["ingredients"][1]["name"] = "c".into(),
            "ingredient \"b\" is gone, ingredient \"c\" is new",
        );
        check(&|p| p["datasets"][0] = "g".into(), "dataset \"validation\" has other files");
        check(&|p| p["base"] = p["ingredients"][0].clone(), "the base has other files");
        check(&|p| p["model_config_sha256"] = "n".into(), "the model's configuration is another");
        check(&|p| p["preprocessor_config_sha256"] = "q".into(), "the preprocessing is another");
        check(&|p| p["spec"]["batch_size"] = 2.into(), "something else is asked for");
        check(
            &|p| p["judge"]["numerics"] = "cuda".into(),
            &format!(
                "{} judges, it was {}",
                JudgeId { numerics: "cuda".to_owned(), ..JudgeId::native() },
                JudgeId::native()
            ),
        );
        check(&|_| {}, "its plan was written by another version of soupctl");
        let many = document(&|p| p["ingredients"] = serde_json::json!([]));
        let nine: Vec<serde_json::Value> =
            (0..9).map(|n| serde_json::json!({ "name": format!("{n}"), "files": [] })).collect();
        let nine = document(&|p| p["ingredients"] = nine.clone().into());
        assert!(nine.changes_since(&many).ends_with("ingredient \"5\" is new, and 3 more"));
    }

    #[test]
    fn a_plan_of_a_newer_version_is_said_to_be_newer() {
        let error = PlanDocument::read("r", br#"{"version":2,"spec":"of another shape"}"#).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
        assert!(error.chain().contains("newer version of soupctl"), "{}", error.chain());
        let error = PlanDocument::read("r", br#"{"version":1}"#).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
    }

    #[test]
    fn scores_with_other_statistics_are_other_scores() {
        let of = |batch_norm: Option<BatchNorm>, calibration: Option<(&str, u64)>, fingerprint: &str| {
            let dataset = |url: &str| serde_json::json!({ "name": url, "url": url, "limit": null });
            let spec = serde_json::json!({
                "pool": ["/p"], "recipe": {
                    "kind": "uniform", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                    "passes": 1, "metric": "accuracy"
                },
                "validation": dataset("/v"), "tests": [], "output": "/o", "overwrite": false, "batch_size": 1,
                "allow_nan": false, "baselines": false, "lookahead": 0, "workers_min": 1, "model_config": null,
                "preprocessor_config": null
            });
            let mut spec: RunSpec = serde_json::from_value(spec).unwrap();
            spec.batch_norm = batch_norm;
            spec.calibration = calibration.map(|(url, limit)| {
                let mut set: DatasetSpec = serde_json::from_value(dataset(url)).unwrap();
                set.options.limit = Some(limit);
                set
            });
            let inputs = Inputs {
                spec: &spec,
                fresh: None,
                checkpoints: &[],
                base: None,
                fingerprints: &["f".to_owned(), fingerprint.to_owned()][..spec.datasets().count()],
                model_config: "{}",
                preprocessor_config: None,
                judge: None,
            };
            (inputs.document().unwrap().0, inputs.contexts().unwrap()[0].clone())
        };
        let recompute = Some(BatchNorm::Recompute);
        let all = [
            of(None, None, ""),
            of(Some(BatchNorm::Average), None, ""),
            of(Some(BatchNorm::First), None, ""),
            of(recompute, Some(("/c", 9)), "c"),
            of(recompute, Some(("/c", 9)), "changed"),
            of(recompute, Some(("/c", 8)), "c"),
            of(recompute, Some(("/d", 9)), "c"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other.0 != one.0 && other.1 != one.1), "{at}");
        }
    }

    #[test]
    fn a_soup_is_its_content_and_not_its_place_in_the_pool() {
        let digests = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (two, three) = (digests(&["a", "c"]), digests(&["a", "b", "c"]));
        let pair = |i, j| Soup::mean([Ingredient(i), Ingredient(j)]).unwrap();
        assert_eq!(soup_key(&pair(0, 1), &two), soup_key(&pair(0, 2), &three));
        assert_ne!(soup_key(&pair(0, 1), &two), soup_key(&pair(0, 1), &three));
        // Sums are made in pool order, so another order is another soup.
        assert_ne!(soup_key(&pair(0, 1), &two), soup_key(&pair(0, 1), &digests(&["c", "a"])));
        assert_eq!(soup_key(&pair(0, 2), &two), None);
    }
}
