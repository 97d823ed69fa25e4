//! The survey: what can be found out about a run without a single parameter. It opens every dataset, compares classes, decodes the
//! first sample and checks that the model's architecture fits the pool's tensors; so what would keep soups from being scored is
//! found before anything is loaded, by a worker of the run and by `soupctl plan` alike.

use std::sync::Arc;

use soup_core::Result;
use soup_core::run::DatasetSpec;
use soup_core::schema::Schema;

use crate::compute::Compute;
use crate::judge::Judge as _;
use crate::judge::native::{Native, Setting};

/// What is surveyed.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Text of `config.json`.
    pub model_json: String,
    /// Text of `preprocessor_config.json`.
    pub preprocessor_json: String,
    /// Samples in one forward pass.
    pub batch_size: u32,
    /// Whether predictions are taken among the classes of a dataset.
    pub class_subset: bool,
    /// The tensors of every ingredient.
    pub schema: Schema,
    /// The datasets, in the run's order.
    pub datasets: Vec<DatasetSpec>,
}

/// What a survey found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// What the judge tells.
    pub survey: soup_core::survey::Survey,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Survey {
    /// Makes the survey, on a thread of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for what is not understood or does not fit, by its name; otherwise what the
    /// stores say.
    pub async fn run(self) -> Result<Surveyed> {
        let Survey { model_json, preprocessor_json, batch_size, class_subset, schema, datasets } = self;
        let setting = Setting { model_json, preprocessor_json, batch_size, class_subset, datasets };
        Native::new(setting, Arc::new(schema), Compute::threads(1), 0).survey().await
    }
}
