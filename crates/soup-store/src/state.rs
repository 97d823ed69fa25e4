//! The place that keeps runs, and the journal of each.
//!
//! ```text
//! <state>/runs/<run>/plan.json                       what the run is; written once
//! <state>/runs/<run>/log/00000000000000000042.json   its journal, one record an object (see soup_core::journal)
//! <state>/scores/<context>/<key>.json                what soups scored (see crate::scores)
//! ```
//!
//! Everything here is *created if absent* and never changed. That is all that is asked of a store, and [`State::probe`]
//! asks whether the store does it: some accept such a request and overwrite all the same.
//!
//! An append creates the object after the last one known. [`soup_core::journal::append`] says what the store's answer
//! means; in any doubt the slot is read back. Whoever finds somebody else's record in its slot is *fenced*: it has lost
//! the run and must not touch anything any more.

mod journal;
mod summary;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutPayload};
use soup_core::journal::{Claim, Fold, Record};
use soup_core::{Error, Result};

use crate::location::Location;
use crate::read;
use crate::scores::Scores;

pub use journal::{AppendError, Journal};
pub use summary::RunSummary;

/// Records of one run.
pub const RECORDS_MAX: usize = 100_000;
/// Largest record or plan.
pub(crate) const RECORD_BYTES_MAX: u64 = 256 << 20;
/// Records read at the same time.
const READS_IN_FLIGHT: usize = 16;
/// How long an append keeps trying, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
const PLAN_FILE: &str = "plan.json";

/// What says the time that records bear.
pub type Clock = Arc<dyn Fn() -> String + Send + Sync>;

/// The place that keeps runs.
#[derive(Clone)]
pub struct State {
    root: Location,
    clock: Clock,
    patience: Duration,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state at {}", self.root)
    }
}

/// The time of day, in UTC.
fn wall_clock() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

impl State {
    /// The state at `url`. Nothing is read or written yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for text that names no place,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for one that cannot be written to.
    pub fn open(url: &str) -> Result<State> {
        let root = Location::parse(url)?;
        if root.is_http() {
            return Err(Error::configuration(format!(
                "state {root}: plain HTTP servers cannot be written to"
            )));
        }
        Ok(State { root: root.durable(), clock: Arc::new(wall_clock), patience: PATIENCE })
    }

    /// The folder beside the output `url` in which a run's state is kept unless told otherwise.
    ///
    /// # Errors
    /// As for [`open`](State::open).
    pub fn beside(output: &str) -> Result<String> {
        let output = Location::parse(output)?;
        let parent =
            output.parent().ok_or_else(|| Error::usage(format!("output {output} is the root of a store")))?;
        Ok(parent.join(".soup-state")?.to_string())
    }

    /// Takes the time from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> State {
        State { clock, ..self }
    }

    /// Appends keep trying for `patience` while the store fails or is in doubt.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> State {
        State { patience, ..self }
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.root
    }

    /// Whether the store creates only what is absent, which everything here stands on.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) if it does not, or cannot be written to.
    pub async fn probe(&self) -> Result<()> {
        let name = format!("probe-{}-{}", std::process::id(), (self.clock)().replace([':', '.'], "-"));
        let place = self.root.join(&name)?;
        create(&place, Bytes::from_static(b"1"))
            .await
            .map_err(|e| unusable(&self.root, place.error("write", e)))?;
        let second = create(&place, Bytes::from_static(b"2")).await;
        let content = read::read_small(&place, RECORD_BYTES_MAX).await;
        // A probe that stays behind harms nobody.
        let _ = place.store().delete(place.path()).await;
        let content = content.map_err(|e| unusable(&self.root, e))?;
        if second.is_ok() || &content[..] != b"1" {
            return Err(Error::configuration(format!(
                "state {}: this store overwrites where it is asked to create only if absent (If-None-Match: *), so it \
                 cannot keep two coordinators apart: keep the state on another store with --state-url",
                self.root
            )));
        }
        Ok(())
    }

    /// Keeps the plan of a run. The same plan may be there already.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if another plan is there; otherwise what the store says.
    pub async fn create_plan(&self, run: &str, plan: Bytes) -> Result<()> {
        let place = self.run(run)?.join(PLAN_FILE)?;
        let Err(error) = create(&place, plan.clone()).await else { return Ok(()) };
        match read::read_small_if_exists(&place, RECORD_BYTES_MAX).await? {
            Some(there) if there == plan => Ok(()),
            Some(_) => Err(Error::data(format!("{place} is the plan of another run"))),
            None => Err(place.error("write", error)),
        }
    }

    /// The plan of a run, if there is such a run.
    ///
    /// # Errors
    /// What the store says.
    pub async fn plan(&self, run: &str) -> Result<Option<Bytes>> {
        read::read_small_if_exists(&self.run(run)?.join(PLAN_FILE)?, RECORD_BYTES_MAX).await
    }

    /// The runs that are kept here, by name.
    ///
    /// # Errors
    /// What the store says.
    pub async fn runs(&self) -> Result<Vec<String>> {
        let entries = read::list(&self.root.join("runs")?).await?;
        Ok(entries.into_iter().filter(|e| e.stamp.is_none()).map(|e| e.name).collect())
    }

    /// What the log of a run adds up to, and its records.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if there is no such run,
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if its log is broken; otherwise what the store says.
    pub async fn read(&self, run: &str) -> Result<(Fold, Vec<Record>)> {
        let named = |e: Error| e.context(format!("run {run:?} in {}", self.root));
        let log = self.run(run)?.join("log")?;
        let numbers = self.numbers(&log).await.map_err(named)?;
        if numbers.is_empty() && self.plan(run).await?.is_none() {
            return Err(Error::usage(format!("there is no run {run:?} in {}", self.root)));
        }
        let reads = numbers.into_iter().map(|seq| {
            let place = log.join(&record_file(seq));
            async move { Ok::<_, Error>((seq, read::read_small(&place?, RECORD_BYTES_MAX).await?)) }
        });
        let mut contents = stream::iter(reads).buffered(READS_IN_FLIGHT);
        let (mut fold, mut records) = (Fold::default(), Vec::new());
        while let Some((seq, bytes)) = contents.try_next().await.map_err(named)? {
            records.push(fold.push(seq, &bytes).map_err(named)?);
        }
        Ok((fold, records))
    }

    /// The numbers of the records that are there, ascending.
    async fn numbers(&self, log: &Location) -> Result<Vec<u64>> {
        let mut listed = log.store().list(Some(log.path()));
        let mut numbers = Vec::new();
        while let Some(meta) = listed.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                // A folder that is not there yet.
                Err(StoreError::NotFound { .. }) => break,
                Err(e) => return Err(log.error("list", e)),
            };
            let number = meta.location.filename().and_then(|f| f.strip_suffix(".json")?.parse::<u64>().ok());
            numbers.extend(number);
            if numbers.len() > RECORDS_MAX {
                return Err(Error::data(format!("{log} has more than {RECORDS_MAX} records")));
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Takes a run: from now on the incarnation `writer` owns it, and every earlier owner is fenced at its next append.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] if another one claims it at the same time.
    pub async fn claim(&self, run: &str, writer: &str, claim: Claim) -> Result<(Journal, Fold), AppendError> {
        let (mut fold, _) = self.read(run).await.map_err(AppendError::Store)?;
        let log = self.run(run).and_then(|r| r.join("log")).map_err(AppendError::Store)?;
        let mut journal =
            Journal::new(run, writer, log, fold.tail().clone(), self.clock.clone(), self.patience);
        journal.claim(&mut fold, claim).await?;
        Ok((journal, fold))
    }

    /// Scores of soups that were evaluated in `context`, lower-case hexadecimal.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for anything else.
    pub fn scores(&self, context: &str) -> Result<Scores> {
        Scores::new(&self.root, context)
    }

    fn run(&self, run: &str) -> Result<Location> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if run.is_empty() || run.len() > 128 || !run.chars().all(plain) {
            return Err(Error::usage(format!("{run:?} cannot be the id of a run")));
        }
        self.root.join("runs")?.join(run)
    }
}

fn unusable(root: &Location, error: Error) -> Error {
    match error.kind() {
        soup_core::ErrorKind::Unavailable => error.context(format!("state {root} cannot be used")),
        _ => Error::configuration(format!("state {root} cannot be used")).with_source(error),
    }
}

/// The name of record `seq`; names sort as numbers do.
pub(crate) fn record_file(seq: u64) -> String {
    format!("{seq:020}.json")
}

/// Creates an object where none is.
pub(crate) async fn create(place: &Location, bytes: Bytes) -> Result<(), StoreError> {
    place.store().put_opts(place.path(), PutPayload::from(bytes), PutMode::Create.into()).await.map(|_| ())
}

#[cfg(test)]
mod tests;
