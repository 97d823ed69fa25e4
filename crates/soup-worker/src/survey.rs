//! The survey: what can be found out about a run without a single parameter. It opens every dataset, compares classes, decodes the
//! first sample and checks that the model's architecture fits the pool's tensors; so what would keep soups from being scored is
//! found before anything is loaded, by a worker of the run and by `soupctl plan` alike.

use std::path::PathBuf;
use std::sync::Arc;

use soup_core::judge::JudgeId;
use soup_core::run::DatasetSpec;
use soup_core::schema::Schema;
use soup_core::{Error, Result};
use soup_eval::Budget;

use crate::JudgeConfig;
use crate::compute::Compute;
use crate::judge::Judge as _;
use crate::judge::external::{self, External};
use crate::judge::native::{Native, Place, Setting};
use crate::judge::samples::SamplesMemory;

/// What decoding the first samples may take: what a worker with 10 GiB has, since how much those of the run have is not known.
const DECODING_BYTES: u64 = 1 << 30;

/// What is surveyed.
#[derive(Clone)]
pub struct Survey {
    /// Text of `config.json`.
    pub model_json: String,
    /// Text of `preprocessor_config.json`, or a [`TextProcessing`](soup_core::texts::TextProcessing) or [`PromptProcessing`](soup_core::texts::PromptProcessing)
    /// where the model looks at texts.
    pub preprocessor_json: String,
    /// Samples in one forward pass.
    pub batch_size: u32,
    /// Whether predictions are taken among the classes of a dataset.
    pub class_subset: bool,
    /// The tensors of every ingredient.
    pub schema: Schema,
    /// The datasets, in the run's order.
    pub datasets: Vec<DatasetSpec>,
    /// Position of the one on which running statistics are recomputed, where they are.
    pub calibration: Option<u32>,
    /// Who is asked, and the folder through which it would be handed soups; by default the native judge.
    pub judge: Option<(JudgeConfig, Option<PathBuf>)>,
}

/// What a survey found, and who was asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Who.
    pub judge: JudgeId,
    /// What.
    pub surveyed: Surveyed,
}

/// What a survey found.
#[derive(Clone, Debug, PartialEq)]
pub struct Surveyed {
    /// What the judge tells.
    pub survey: soup_core::survey::Survey,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Survey {
    /// Makes the survey, on a thread of its own or in a judge that is started for it.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for what is not understood or does not fit, by its name; otherwise what the
    /// stores or the judge say.
    pub async fn run(self) -> Result<Found> {
        let Survey {
            model_json,
            preprocessor_json,
            batch_size,
            class_subset,
            schema,
            datasets,
            calibration,
            judge,
        } = self;
        let setting = Setting {
            model_json,
            preprocessor_json,
            batch_size,
            class_subset,
            datasets,
            calibration,
            // Nothing was submitted that they could differ from.
            fingerprints: Vec::new(),
        };
        let (schema, compute) = (Arc::new(schema), Compute::threads(1));
        let Some((config, folder)) = judge else {
            let memory = SamplesMemory { kept_bytes: 0, threads: 1, decoding: Budget::new(DECODING_BYTES) };
            let surveyed = Native::new(setting, schema, compute, memory, Place::default()).survey().await?;
            return Ok(Found { judge: JudgeId::native(), surveyed });
        };
        let hosts = external::start(&[config], folder.as_deref()).await?;
        let host = hosts.into_values().next().ok_or_else(|| Error::internal("a judge was not started"))?;
        let judge = host.about().offer.id.clone();
        let surveyed = External::new(host, setting, schema, compute).survey().await?;
        Ok(Found { judge, surveyed })
    }
}
