//! The place that keeps runs, and the journal of each.
//!
//! ```text
//! <state>/runs/<run>/plan.json                       what the run is; written once
//! <state>/runs/<run>/secret                          what its coordinators seal with; written once
//! <state>/runs/<run>/log/00000000000000000042.json   its journal, one record an object (see soup_core::journal)
//! <state>/scores/<context>/<key>.json                what soups scored (see crate::scores)
//! <state>/outcomes/<SHA-256>                         what happened to every sample (see crate::outcomes)
//! <state>/coordinators/00000000000000000007.json     who serves the state: whoever wrote the last one
//! ```
//!
//! Everything here is *created if absent* and never changed. That is all that is asked of a store, and [`State::probe`]
//! asks whether the store does it: some accept such a request and overwrite all the same.
//!
//! An append creates the object after the last one known, the *slot*. [`soup_core::journal::append`] says what the store's
//! answer means; in any doubt the slot is read back. Everything is tried again for as long as there is *patience* while the
//! store fails in a way that may pass. Whoever finds somebody else's record in its slot is *fenced*: it has lost
//! the run and must not touch anything any more.

mod journal;
mod log;
mod owner;
mod seat;
pub(crate) mod slot;
mod summary;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use soup_core::journal::{Claim, Fold, Record, sha256_hex};
use soup_core::{Error, ErrorKind, Result};

use crate::fresh;
use crate::location::Location;
use crate::outcomes::Outcomes;
use crate::read;
use crate::scores::Scores;
use crate::signing::{PublicKey, SigningKey, Subject};

use journal::Signer;
pub use journal::{AppendError, Journal};
pub use seat::Seat;
use slot::{Created, Patience};
pub use summary::RunSummary;

/// Claims that one coordinator tries to make of a run, while its owner takes the slot.
const CLAIMS_MAX: u32 = 1_000;
/// Records of one run.
pub const RECORDS_MAX: usize = 100_000;
/// Largest record or plan.
pub(crate) const RECORD_BYTES_MAX: u64 = 256 << 20;
/// Plans looked for at the same time.
const PLANS_IN_FLIGHT: usize = 16;
/// How long an operation keeps trying, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
const PLAN_FILE: &str = "plan.json";
/// Other users of the host are not let read it.
pub(crate) const SECRET_FILE: &str = "secret";
/// Digits of a secret: 256 bits, in hexadecimal; and bytes that are read of what may be one.
const SECRET_DIGITS: usize = 64;
const SECRET_BYTES_MAX: u64 = 256;

/// What says the time that records bear.
pub type Clock = Arc<dyn Fn() -> String + Send + Sync>;

/// The place that keeps runs.
#[derive(Clone)]
pub struct State {
    root: Location,
    clock: Clock,
    patience: Patience,
    key: Option<Arc<SigningKey>>,
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
        State::at(Location::parse(url)?)
    }

    pub(crate) fn at(root: Location) -> Result<State> {
        if root.is_http() {
            return Err(Error::configuration(format!(
                "state {root}: plain HTTP servers cannot be written to"
            )));
        }
        let root = root.owned();
        Ok(State { root, clock: Arc::new(wall_clock), patience: Patience(PATIENCE), key: None })
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

    /// Appends, and all else, keep trying for `patience` while the store fails or is in doubt.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> State {
        State { patience: Patience(patience), ..self }
    }

    /// Whoever claims a run signs its records with `key`.
    #[must_use]
    pub fn with_signing_key(self, key: SigningKey) -> State {
        State { key: Some(Arc::new(key)), ..self }
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
        let place = self.root.join(&format!("probe-{}", fresh::name()))?;
        let probed = self.probe_slot(&place).await;
        if !matches!(&probed, Err(e) if e.kind() == ErrorKind::Unavailable) {
            let delete =
                || async { place.store().delete(place.path()).await.map_err(|e| place.error("delete", e)) };
            // A probe that stays behind harms nobody, and nothing else here needs the right to delete.
            if let Err(error) = self.patience.read(delete).await {
                tracing::debug!(%place, error = %error.chain(), "a probe of the state's store could not be removed");
            }
        }
        probed
    }

    async fn probe_slot(&self, place: &Location) -> Result<()> {
        let overwrites = || {
            Error::configuration(format!(
                "state {}: this store overwrites where it is asked to create only if absent (If-None-Match: *), so it \
                 cannot keep two coordinators apart: keep the state on another store with --state-url",
                self.root
            ))
        };
        let failed = |e| unusable(&self.root, e);
        let (first, second) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
        // In doubt the slot is read back, so that a lost answer is no broken promise.
        for (bytes, expected) in [(&first, true), (&second, false)] {
            let created = self.patience.create(place, bytes, RECORD_BYTES_MAX).await.map_err(failed)?;
            if matches!(created, Created::Ours) != expected {
                return Err(overwrites());
            }
        }
        let content = self.patience.read(|| read::read_small(place, RECORD_BYTES_MAX)).await;
        if content.map_err(failed)? != first { Err(overwrites()) } else { Ok(()) }
    }

    /// Keeps the plan of a run. The same plan may be there already.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if another plan is there; otherwise what the store says.
    pub async fn create_plan(&self, run: &str, plan: Bytes) -> Result<()> {
        let place = self.run(run)?.join(PLAN_FILE)?;
        match self.patience.create(&place, &plan, RECORD_BYTES_MAX).await? {
            Created::Ours => Ok(()),
            Created::Other(_) => Err(Error::data(format!("{place} is the plan of another run"))),
        }
    }

    /// The plan of a run, if there is such a run.
    ///
    /// # Errors
    /// What the store says.
    pub async fn plan(&self, run: &str) -> Result<Option<Bytes>> {
        let place = self.run(run)?.join(PLAN_FILE)?;
        self.patience.read(|| read::read_small_if_exists(&place, RECORD_BYTES_MAX)).await
    }

    /// The secret of a run, by which its coordinators know again what they handed out: random, the same for all of them, and for nobody
    /// else's eyes.
    ///
    /// # Errors
    /// What the store says; [`ErrorKind::Data`](soup_core::ErrorKind::Data) where something else is in its place.
    pub async fn secret(&self, run: &str) -> Result<Bytes> {
        let place = self.run(run)?.join(SECRET_FILE)?;
        let read = || read::read_small_if_exists(&place, SECRET_BYTES_MAX);
        let secret = match self.patience.read(read).await? {
            Some(secret) => secret,
            None => {
                let new = Bytes::from(format!("{}{}", fresh::name(), fresh::name()));
                match self.patience.create(&place, &new, SECRET_BYTES_MAX).await? {
                    Created::Ours => new,
                    Created::Other(secret) => secret,
                }
            }
        };
        match secret.len() == SECRET_DIGITS {
            true => Ok(secret),
            false => Err(Error::data(format!("{place} is not the secret of a run: remove it"))),
        }
    }

    /// The runs that are kept here, by name.
    ///
    /// # Errors
    /// What the store says.
    pub async fn runs(&self) -> Result<Vec<String>> {
        let folder = self.root.join("runs")?;
        let entries = self.patience.read(|| read::list(&folder)).await?;
        let folders = entries.into_iter().filter(|e| e.stamp.is_none() && is_run(&e.name));
        // On a disk there may be a folder without a plan, of a creation that was cut off: it is no run.
        let planned = stream::iter(folders).map(|folder| async move {
            let plan = folder.location.join(PLAN_FILE)?;
            let there = match self.patience.read(|| read::stat_if_exists(&plan)).await {
                // A plan that is no file, or may not be read, makes a broken run, which stops no listing of the others.
                Err(e) if matches!(e.kind(), ErrorKind::Data | ErrorKind::Configuration) => true,
                other => other?.is_some(),
            };
            Ok::<_, Error>(there.then_some(folder.name))
        });
        planned.buffered(PLANS_IN_FLIGHT).try_filter_map(|run| async { Ok(run) }).try_collect().await
    }

    /// What the log of a run adds up to, and its records.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if there is no such run,
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if its log is broken; otherwise what the store says.
    pub async fn read(&self, run: &str) -> Result<(Fold, Vec<Record>)> {
        self.read_checked(run, |_, _| Ok(())).await
    }

    /// [`read`](State::read), of a log in which every record is signed with `key`.
    ///
    /// # Errors
    /// As for [`read`](State::read); [`ErrorKind::Data`](soup_core::ErrorKind::Data) naming the first record that is not.
    pub async fn read_signed(&self, run: &str, key: &PublicKey) -> Result<(Fold, Vec<Record>)> {
        let plan_sha256 = self.plan_sha256(run).await?;
        self.read_checked(run, |record, bytes| {
            let subject = Subject::Record { run, plan_sha256: &plan_sha256 };
            let about =
                || format!("record {} of the log ({}) cannot be trusted", record.seq, record.entry.kind());
            key.check(subject, bytes).map_err(|e| e.context(about()))
        })
        .await
    }

    async fn plan_sha256(&self, run: &str) -> Result<String> {
        let plan = self.plan(run).await?;
        let plan = plan.ok_or_else(|| Error::usage(format!("there is no run {run:?} in {}", self.root)))?;
        Ok(sha256_hex(&plan))
    }

    async fn read_checked(
        &self,
        run: &str,
        check: impl Fn(&Record, &Bytes) -> Result<()>,
    ) -> Result<(Fold, Vec<Record>)> {
        let mut records = Vec::new();
        let fold = self.fold(run, |record, bytes| check(&record, bytes).map(|()| records.push(record)));
        // A record that this program trips over is broken like one that it cannot read, and other runs are well.
        let fold = std::panic::AssertUnwindSafe(fold).catch_unwind().await;
        let tripped = |_| {
            Err(Error::data(format!("the log of run {run:?} stops its reader: a defect of this program")))
        };
        let fold = fold.unwrap_or_else(tripped)?;
        Ok((fold, records))
    }

    async fn fold(&self, run: &str, visit: impl FnMut(Record, &Bytes) -> Result<()>) -> Result<Fold> {
        let log = self.run(run)?.join("log")?;
        let fold = log::fold(&log, self.patience, visit).await;
        let fold = fold.map_err(|e| e.context(format!("run {run:?} in {}", self.root)))?;
        if fold.tail().seq == 0 && self.plan(run).await?.is_none() {
            return Err(Error::usage(format!("there is no run {run:?} in {}", self.root)));
        }
        Ok(fold)
    }

    /// Takes a run: from now on the incarnation `writer` owns it, and every earlier owner is fenced at its next append. No
    /// other incarnation may ever have the same name.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] if another one claims it at the same time.
    pub async fn claim(&self, run: &str, writer: &str, claim: Claim) -> Result<(Journal, Fold), AppendError> {
        let log = self.run(run).and_then(|r| r.join("log")).map_err(AppendError::Store)?;
        let mut fold = self.fold(run, |_, _| Ok(())).await.map_err(AppendError::Store)?;
        let signer = self.signer(run).await.map_err(AppendError::Store)?;
        let epoch = fold.epoch;
        let mut lost = None;
        for attempt in 0..CLAIMS_MAX {
            // A name of its own for each claim, so that the records of one are never taken for those of another.
            let writer = if attempt == 0 { writer.to_owned() } else { format!("{writer}-{attempt}") };
            let (place, tail) = (log.clone(), fold.tail().clone());
            let journal = Journal::new(run, &writer, place, tail, self.clock.clone(), self.patience);
            let mut journal = journal.signing(signer.clone());
            match journal.claim(&mut fold, claim.clone()).await {
                Ok(()) => return Ok((journal, fold)),
                // The owner is still writing, or the last record of a dead one arrived late.
                Err(AppendError::Fenced(error)) => lost = Some(error),
                Err(error) => return Err(error),
            }
            while let Some(bytes) = self.record(&log, fold.tail().seq).await.map_err(AppendError::Store)? {
                fold.push(fold.tail().seq, &bytes).map_err(AppendError::Store)?;
            }
            // Another claim came in between: the run is somebody's who has just taken it.
            if fold.epoch != epoch {
                break;
            }
        }
        let lost = lost.unwrap_or_else(|| Error::try_again(format!("run {run:?} cannot be claimed")));
        Err(AppendError::Fenced(lost))
    }

    async fn signer(&self, run: &str) -> Result<Option<Signer>> {
        let Some(key) = self.key.clone() else { return Ok(None) };
        Ok(Some(Signer { key, plan_sha256: self.plan_sha256(run).await? }))
    }

    async fn record(&self, log: &Location, seq: u64) -> Result<Option<Bytes>> {
        let slot = log::slot(log, seq)?;
        self.patience.read(|| read::read_small_if_exists(&slot, RECORD_BYTES_MAX)).await
    }

    /// Scores of soups that were evaluated in `context`, lower-case hexadecimal.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for anything else.
    pub fn scores(&self, context: &str) -> Result<Scores> {
        Scores::new(&self.root, context, self.patience)
    }

    /// What happened to every sample of soups that were scored.
    ///
    /// # Errors
    /// None that happens.
    pub fn outcomes(&self) -> Result<Outcomes> {
        Outcomes::new(&self.root, self.patience)
    }

    fn run(&self, run: &str) -> Result<Location> {
        if !is_run(run) {
            return Err(Error::usage(format!("{run:?} cannot be the id of a run")));
        }
        self.root.join("runs")?.join(run)
    }
}

fn unusable(root: &Location, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable => error.context(format!("state {root} cannot be used")),
        _ => Error::configuration(format!("state {root} cannot be used")).with_source(error),
    }
}

fn is_run(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.len() <= 128 && name.chars().all(plain)
}

#[cfg(test)]
mod tests;
