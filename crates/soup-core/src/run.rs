//! What a run is asked to do: the specification that travels from the command line to the coordinator.
//!
//! It is data (URLs and numbers) and nothing else: no part of it is ever executed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::RecipeSpec;

/// Most samples in one forward pass.
pub const BATCH_SIZE_MAX: u32 = 65_536;
/// Most datasets in one run, the validation set included.
pub const DATASETS_MAX: usize = 64;
/// Most trials evaluated ahead of their turn.
pub const LOOKAHEAD_MAX: u32 = 64;

/// The whole specification of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Checkpoint files, checkpoint folders, folders of checkpoints or globs.
    pub pool: Vec<String>,
    /// How to choose.
    pub recipe: RecipeSpec,
    /// The set on which the recipe decides.
    pub validation: DatasetSpec,
    /// Sets on which only the results are reported.
    pub tests: Vec<DatasetSpec>,
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
    /// Trials evaluated ahead of their turn.
    pub lookahead: u32,
    /// The run starts once so many workers have joined.
    pub workers_min: u32,
    /// Where `config.json` is, if not beside the ingredients.
    pub model_config: Option<String>,
    /// Where `preprocessor_config.json` is, if not beside the ingredients.
    pub preprocessor_config: Option<String>,
}

/// A labelled dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// Name in reports.
    pub name: String,
    /// A Parquet file, a folder of them, or a folder of images by class.
    pub url: String,
    /// Image column of a Parquet file, if not the usual one.
    pub image_column: Option<String>,
    /// Label column of a Parquet file, if not the usual one.
    pub label_column: Option<String>,
    /// Use the first samples only.
    pub limit: Option<u64>,
}

impl RunSpec {
    /// The datasets in their order: the validation set, then the test sets.
    pub fn datasets(&self) -> impl Iterator<Item = &DatasetSpec> {
        std::iter::once(&self.validation).chain(&self.tests)
    }

    /// Checks everything that can be checked without reading anything.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) naming the option.
    pub fn validate(&self) -> Result<()> {
        if self.pool.is_empty() || self.pool.iter().any(String::is_empty) {
            return Err(Error::usage("no pool given: name a folder of checkpoints with --pool"));
        }
        if self.output.is_empty() {
            return Err(Error::usage("no output given: name a folder with --output"));
        }
        let bounds = [
            ("batch-size", self.batch_size, 1, BATCH_SIZE_MAX),
            ("lookahead", self.lookahead, 0, LOOKAHEAD_MAX),
            ("min-workers", self.workers_min, 1, u32::MAX),
        ];
        for (name, value, min, max) in bounds {
            if value < min || value > max {
                return Err(Error::usage(format!("--{name} is {value}, must be {min} to {max}")));
            }
        }
        self.recipe.build(1)?;
        let mut names = BTreeSet::new();
        for set in self.datasets() {
            if set.url.is_empty() {
                return Err(Error::usage(format!("dataset {:?} has no URL", set.name)));
            }
            if set.limit == Some(0) {
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
}
