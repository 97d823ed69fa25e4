//! The survey: what can be found out about a run without a single parameter. It opens every dataset, compares classes, decodes the
//! first sample and checks that the model's architecture fits the pool's tensors; so what would keep soups from being scored is
//! found before anything is loaded, by a worker of the run and by `soupctl plan` alike.

use soup_core::run::DatasetSpec;
use soup_core::schema::Schema;
use soup_core::{Error, Result};
use soup_eval::{Evaluator, EvaluatorSpec, evaluator};
use soup_proto::v1;

use crate::compute::{Compute, Waiting};
use crate::samples::Samples;

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
    /// Samples of every dataset, in the run's order.
    pub samples: Vec<u64>,
    /// Classes of the model.
    pub classes: u32,
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
        let compute = Compute::threads(1);
        let waiting = compute.waiting();
        let look = move || {
            let evaluator = evaluator(&EvaluatorSpec {
                config_json: self.model_json,
                preprocessor_json: Some(self.preprocessor_json),
                batch_size: self.batch_size,
            })?;
            let datasets: Vec<v1::DatasetSpec> = self.datasets.into_iter().map(Into::into).collect();
            let samples = Samples::new(datasets.len(), 0);
            look(&*evaluator, &self.schema, &datasets, self.class_subset, &samples, &waiting)
        };
        compute.run(look).await
    }
}

/// Looks at the datasets, which `samples` opens and keeps. Blocks; call on a compute thread.
pub(crate) fn look(
    evaluator: &dyn Evaluator,
    schema: &Schema,
    datasets: &[v1::DatasetSpec],
    class_subset: bool,
    samples: &Samples,
    waiting: &Waiting,
) -> Result<Surveyed> {
    evaluator.check_schema(schema)?;
    let mut found = Surveyed {
        samples: Vec::with_capacity(datasets.len()),
        classes: evaluator.classes(),
        notes: Vec::new(),
    };
    for (index, spec) in datasets.iter().enumerate() {
        let named = |e: Error| e.context(format!("dataset {:?}", spec.name));
        let dataset = samples.dataset(index, spec, class_subset, evaluator, waiting).map_err(named)?;
        if dataset.is_empty() {
            return Err(named(Error::data(format!("{} has no samples", dataset.describe()))));
        }
        // What keeps all images from being judged mostly shows in the first one.
        evaluator.prepare(&dataset, 0..1).map_err(named)?;
        found.notes.extend(dataset.notes().iter().map(|note| format!("dataset {:?} {note}", spec.name)));
        found.samples.push(dataset.len());
    }
    Ok(found)
}
