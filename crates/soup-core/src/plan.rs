//! What a cook would do, as data: what `soupctl plan -o json` prints.
//!
//! The shape is stable: fields may be added, none is renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recipe::RecipeSpec;

/// What a cook would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's options.
    pub options: RecipeSpec,
    /// Names, in pool order.
    pub ingredients: Vec<String>,
    /// Of one ingredient.
    pub parameters: u64,
    /// How much of it there is of each dtype.
    pub dtypes: BTreeMap<String, DtypeInfo>,
    /// Its size.
    pub bytes_per_ingredient: u64,
    /// How the pool is cut.
    pub shards: Shards,
    /// What lies where.
    pub memory: Memory,
    /// How often models are evaluated.
    pub evaluations: Evaluations,
    /// The datasets, the validation set first.
    pub datasets: Vec<DatasetPlan>,
    /// Bytes of parameters that all workers together read.
    pub bytes_read: u64,
    /// Whether nothing of them is kept, since nothing is judged.
    pub streams: bool,
    /// Where the soup goes.
    pub output: String,
    /// Its files.
    pub files: Vec<FilePlan>,
    /// What people should know.
    pub notes: Vec<String>,
    /// What would keep the cook from beginning.
    pub warnings: Vec<String>,
}

/// How the pool is cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shards {
    /// How many there are.
    pub count: u32,
    /// Bytes of each in each ingredient, the last one may have fewer.
    pub bytes: u64,
}

/// What lies where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Workers.
    pub workers: u32,
    /// Most bytes of ingredients that one worker keeps in its host's memory.
    pub resident_bytes_per_worker: u64,
    /// Most bytes of ingredients that one worker keeps in the memory of its device.
    #[serde(default)]
    pub device_bytes_per_worker: u64,
    /// Bytes it offers for that, where it has a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_offered_bytes_per_worker: Option<u64>,
    /// Bytes it may use in all, where this is known.
    pub memory_bytes_per_worker: Option<u64>,
    /// Bytes it offers for ingredients, where this is known.
    pub offered_bytes_per_worker: Option<u64>,
    /// What the memory is a share of, where it was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_of: Option<String>,
    /// What each worker's threads are a share of, where that was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads_of: Option<String>,
    /// Most bytes of ingredients that one worker keeps in its disk cache.
    pub disk_bytes_per_worker: u64,
    /// Bytes it offers for that, where this is known.
    pub disk_offered_bytes_per_worker: Option<u64>,
    /// A soup that is assembled to be judged: as many as fit into what the ingredients leave, and always one.
    pub model_bytes: u64,
    /// How many a worker has at a time.
    pub soups_per_worker: u64,
    /// All of them.
    pub models_bytes_per_worker: u64,
    /// Blends of its own shards that a worker keeps at most.
    pub blends_bytes_per_worker: u64,
    /// Decoded samples that a worker keeps at most, where its offer is known.
    pub samples_bytes_per_worker: Option<u64>,
}

/// How often models are evaluated, at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluations {
    /// Soups scored before the first trial: the ranking, and where the recipe starts.
    pub ranked: u64,
    /// Trials at most.
    pub trials_max: u64,
    /// Soups scored on the validation set in all, baselines included.
    pub validation_max: u64,
    /// Soups scored on every test set.
    pub tests_max: u64,
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetPlan {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Its size; of one of a judge's own nobody else knows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Where this program can look into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
}

/// A file of the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilePlan {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// How much there is of one dtype.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DtypeInfo {
    /// Tensors.
    pub tensors: u64,
    /// Parameters in them.
    pub parameters: u64,
}
