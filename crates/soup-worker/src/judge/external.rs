//! A judge in a program of its own: any framework, any model, over `proto/soup/judge/v1`.
//!
//! # Words
//!
//! - A [`Host`] is a judge that the worker has, for as long as the worker lives; an [`External`] is what a run asks of it.
//! - A *generation* is a soup that was handed to it: a file in the judges' [`Folder`]. It survives the judge: one that was started
//!   again is handed the same file again.
//!
//! # Flow
//!
//! Whatever is asked takes the host's [`Seat`](host::Seat), opens the run's session if this incarnation of the judge has not, loads the
//! generation if it has not, and asks. Every answer is checked ([`answers`]) before it is believed. What is wrong with one is a fault: the
//! judge is given up, and the task fails with the text. Which part of a dataset is judged (its limit, its split) is this side's: the
//! judge is asked by positions in the whole.

mod answers;
mod folder;
mod host;
mod process;
mod soup;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use soup_core::batch_norm::is_statistic;
use soup_core::run::{DatasetSpec, judges_own};
use soup_core::schema::Schema;
use soup_core::{Error, Result};
use soup_proto::judge_v1::{self, OpenRequest, open_response};
use soup_store::{data, fresh, header};
use tokio::time::Instant;

pub(crate) use self::folder::{Folder, Handed};
pub(crate) use self::host::Host;
use self::host::Seat;
pub use self::host::{JudgeConfig, Source};
use self::soup::FileVessel;
use super::native::Setting;
use super::{Judge, Purpose, Vessel};
use crate::compute::Compute;
use crate::survey::Surveyed;

/// How often datasets are looked at that a judge reads by itself, while soups are handed over.
const PINS_EVERY: Duration = Duration::from_secs(60);
/// Generations that a judge has at most: the one in work and the next one.
pub(crate) const SOUPS_MAX: u64 = 2;

/// See the module.
pub(crate) struct External(Arc<Inner>);

struct Inner {
    host: Arc<Host>,
    setting: Setting,
    schema: Arc<Schema>,
    compute: Compute,
    /// Whose files and sessions these are.
    id: String,
    /// Header of the files that soups are handed over in.
    header: Vec<u8>,
    /// What it surveyed first; it must not change.
    known: OnceLock<Known>,
    /// When the datasets were looked at last.
    pins_checked: Mutex<Option<Instant>>,
    /// The file of a soup that the judge has let go: the next one is written over it.
    spare: Mutex<Option<Handed>>,
}

/// What a judge told of a run.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    surveyed: Surveyed,
    /// Names of the figures in the judge's order.
    figures: Vec<String>,
}

impl External {
    /// What a run asks of the judge at `host`.
    pub(crate) fn new(host: Arc<Host>, setting: Setting, schema: Arc<Schema>, compute: Compute) -> External {
        External(Arc::new(Inner {
            host,
            setting,
            header: header::write_header(&schema, 0..schema.tensors().len()),
            schema,
            compute,
            id: fresh::name(),
            known: OnceLock::new(),
            pins_checked: Mutex::default(),
            spare: Mutex::default(),
        }))
    }
}

impl Inner {
    fn spare(&self) -> MutexGuard<'_, Option<Handed>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the file that a soup is handed over in.
    fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.schema.bytes()
    }

    /// What the judge told of the run, and the session in which it has it open; it is asked again where it has forgotten.
    async fn open(&self, seat: &mut Seat<'_>) -> Result<(&Known, String)> {
        if let (Some(session), Some(known)) = (seat.session_of(&self.id), self.known.get()) {
            return Ok((known, session));
        }
        // Every time another one, so that the judge never mixes up two of them.
        let session = fresh::name();
        seat.opened(None);
        let known = self.ask_to_open(seat, &session).await?;
        let before = self.known.get_or_init(|| known.clone());
        if before.surveyed.survey != known.surveyed.survey || before.figures != known.figures {
            return Err(Error::data(
                "it tells something else of the same datasets since it was started again",
            ));
        }
        seat.opened(Some((self.id.clone(), session.clone())));
        Ok((before, session))
    }

    async fn ask_to_open(&self, seat: &Seat<'_>, session: &str) -> Result<Known> {
        let tensors = self.schema.tensors().iter().map(|t| judge_v1::Tensor {
            name: t.name.clone(),
            dtype: t.dtype.name().to_owned(),
            shape: t.shape.clone(),
            recomputed: self.setting.calibration.is_some() && is_statistic(t),
        });
        let request = OpenRequest {
            session: session.to_owned(),
            tensors: tensors.collect(),
            datasets: self.setting.datasets.iter().map(|d| dataset(self.host.name(), d)).collect(),
            model_config_json: self.setting.model_json.clone(),
            preprocessor_config_json: self.setting.preprocessor_json.clone(),
            batch_size: self.setting.batch_size,
            class_subset: self.setting.class_subset,
        };
        // What it reads it reads by itself: so it is looked at before, and again afterwards.
        self.check_pins().await?;
        let mut client = seat.client()?;
        let mut answer = seat.begun("open the datasets", client.open(request)).await?;
        let split = |m: judge_v1::OpenResponse| match m.message {
            Some(open_response::Message::Survey(survey)) => Ok(Some(survey)),
            Some(open_response::Message::Progress(progress)) => Err(progress),
            None => Ok(None),
        };
        let survey = seat.next("open the datasets", &mut answer, split).await?.flatten();
        let survey = survey.ok_or_else(|| answers::wrong("ended without a survey"))?;
        self.check_pins().await?;
        let figures = match &survey.tallies {
            Some(judge_v1::survey::Tallies::Figures(figures)) => figures.names.clone(),
            _ => Vec::new(),
        };
        let abilities = &self.host.about().offer.abilities;
        let mut surveyed = answers::surveyed(survey, abilities, self.setting.datasets.len())?;
        for (samples, spec) in surveyed.survey.samples.iter_mut().zip(&self.setting.datasets) {
            let options = &spec.options;
            let used = (*samples).min(options.limit.unwrap_or(u64::MAX));
            *samples = options.split.map_or(used, |split| split.len(used));
        }
        Ok(Known { surveyed, figures })
    }

    /// The same now and then: a judge may read samples whenever it likes.
    async fn check_pins_again(&self) -> Result<()> {
        let last = *self.pins_checked.lock().unwrap_or_else(PoisonError::into_inner);
        match last.is_some_and(|last| last.elapsed() < PINS_EVERY) {
            true => Ok(()),
            false => self.check_pins().await,
        }
    }

    /// Refuses datasets that are others than when the run was submitted.
    async fn check_pins(&self) -> Result<()> {
        *self.pins_checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        for (at, spec) in self.setting.datasets.iter().enumerate() {
            if let Some(pin) = self.setting.fingerprint(at) {
                data::check_pin(&spec.url, &data::files(&spec.url).await?, Some(pin))?;
            }
        }
        Ok(())
    }

    /// Positions in the whole of a dataset.
    fn rows(&self, dataset: u32, positions: &[u64]) -> Result<Vec<u64>> {
        let spec = self.setting.datasets.get(dataset as usize);
        let spec = spec.ok_or_else(|| Error::internal(format!("the run has no dataset {dataset}")))?;
        let row = |&position: &u64| spec.options.split.map_or(position, |split| split.row(position));
        Ok(positions.iter().map(row).collect())
    }
}

/// A dataset as a judge is told of it: one of its own is called `JUDGE:NAME`, others are handed over as they were written.
fn dataset(judge: &str, spec: &DatasetSpec) -> judge_v1::Dataset {
    let options = &spec.options;
    let given = [
        ("image-column", &options.image_column),
        ("label-column", &options.label_column),
        ("split", &options.named_split),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    let others = options.others.clone().into_iter();
    judge_v1::Dataset {
        name: spec.name.clone(),
        source: judges_own(judge, &spec.url).unwrap_or(&spec.url).to_owned(),
        options: others.chain(given).collect(),
    }
}

#[tonic::async_trait]
impl Judge for External {
    async fn survey(&self) -> Result<Surveyed> {
        // Later there are soups in it.
        if self.0.known.get().is_none() {
            self.0.host.folder.check_room(self.0.file_bytes())?;
        }
        let mut seat = self.0.host.seat().await?;
        let known = self.0.open(&mut seat).await.map(|(known, _)| known.clone());
        Ok(seat.settle(known).await?.surveyed)
    }

    /// A generation serves both purposes.
    async fn vessel(&self, _: Purpose) -> Result<Box<dyn Vessel>> {
        Ok(Box::new(FileVessel::new(self.0.clone()).await?))
    }

    fn soups_max(&self) -> u64 {
        SOUPS_MAX
    }

    fn tolerance(&self) -> f64 {
        self.0.host.about().tolerance
    }
}

/// The judges of a worker, by name.
pub(crate) type Hosts = BTreeMap<String, Arc<Host>>;

/// Reaches all judges that a worker is to have.
///
/// # Errors
/// Where one does not come up, or two have one name.
pub(crate) async fn start(judges: &[JudgeConfig], folder: Option<&std::path::Path>) -> Result<Hosts> {
    let mut hosts = Hosts::new();
    if judges.is_empty() {
        return Ok(hosts);
    }
    let folder = Arc::new(Folder::create(folder)?);
    for (nth, config) in judges.iter().enumerate() {
        tracing::info!(judge = config.name, "waiting for the judge");
        let host = Arc::new(Host::start(config.clone(), folder.clone(), nth).await?);
        tracing::info!(judge = %host.about().offer.id, "the judge is there");
        if hosts.insert(config.name.clone(), host).is_some() {
            return Err(Error::usage(format!(
                "two judges are called {:?}: give each a name of its own",
                config.name
            )));
        }
    }
    Ok(hosts)
}
