//! Appending to the log of one run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use soup_core::journal::append::next_epoch;
use soup_core::journal::{Claim, Entry, Fold, Record, Tail, sha256_hex};
use soup_core::tally::packed::Packed;
use soup_core::{Error, ErrorKind};

use super::slot::{Created, Patience};
use super::{Clock, RECORD_BYTES_MAX, RECORDS_MAX, log};
use crate::location::Location;
use crate::outcomes::Outcomes;
use crate::read;
use crate::signing::{SigningKey, Subject};

/// How long somebody who removes a state may take from its folders to its records.
const REMOVING: Duration = Duration::from_secs(1);

/// Why an append was not made.
#[derive(Debug)]
pub enum AppendError {
    /// Somebody else owns the run ([`ErrorKind::TryAgain`]). Nothing of the run must be touched any more.
    Fenced(Error),
    /// The store failed for longer than is waited for, or the log is broken.
    Store(Error),
}

impl AppendError {
    /// The error in it.
    pub fn into_error(self) -> Error {
        match self {
            AppendError::Fenced(error) | AppendError::Store(error) => error,
        }
    }
}

/// The end of a run's log, for the incarnation that claimed it.
pub struct Journal {
    run: String,
    writer: String,
    log: Location,
    epoch: u64,
    tail: Tail,
    clock: Clock,
    patience: Patience,
    signer: Option<Signer>,
    standing: Standing,
}

/// What records are signed with.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) key: Arc<SigningKey>,
    /// Of the run's plan.
    pub(super) plan_sha256: String,
}

/// Whether appends are possible.
enum Standing {
    /// As far as is known.
    Owner,
    /// An append began and did not end well, so where the log ends is not known.
    InDoubt,
    /// Somebody else owns the run, as this text says.
    Fenced(String),
}

impl Journal {
    pub(super) fn new(
        run: &str,
        writer: &str,
        log: Location,
        tail: Tail,
        clock: Clock,
        patience: Patience,
    ) -> Journal {
        let (run, writer) = (run.to_owned(), writer.to_owned());
        Journal { run, writer, log, epoch: 0, tail, clock, patience, signer: None, standing: Standing::Owner }
    }

    /// The same, with records that are signed.
    pub(super) fn signing(self, signer: Option<Signer>) -> Journal {
        Journal { signer, ..self }
    }

    /// The run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The incarnation that writes.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The epoch that this incarnation claimed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where the next record goes, after which one.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What records are signed with.
    pub fn signing_key(&self) -> Option<&Arc<SigningKey>> {
        self.signer.as_ref().map(|signer| &signer.key)
    }

    /// The number of the next record.
    pub fn seq(&self) -> u64 {
        self.tail.seq
    }

    /// Claims the next epoch of the log that `fold` is of.
    pub(super) async fn claim(&mut self, fold: &mut Fold, claim: Claim) -> Result<(), AppendError> {
        self.epoch = next_epoch(fold.epoch);
        let seq = self.tail.seq;
        let bytes = self.put(Entry::EpochClaim(claim)).await?;
        fold.push(seq, &bytes).map_err(AppendError::Store).map(|_| ())
    }

    /// Appends one record; it is durable when this returns.
    ///
    /// # Errors
    /// See [`AppendError`]. After any of them nothing more can be appended.
    pub async fn append(&mut self, entry: Entry) -> Result<(), AppendError> {
        self.put(entry).await.map(|_| ())
    }

    /// Looks whether somebody else has taken the run. Appending finds that out too; this is for owners that have nothing to
    /// append for a while. A store that does not answer says nothing.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] if somebody has; [`AppendError::Store`] where the log is not there any more.
    pub async fn look(&mut self) -> Result<(), AppendError> {
        if !matches!(self.standing, Standing::Owner) {
            return Ok(());
        }
        let place = log::slot(&self.log, self.tail.seq).map_err(AppendError::Store)?;
        match read::read_small_if_exists(&place, RECORD_BYTES_MAX).await {
            Ok(Some(found)) => Err(self.fenced(&place, &found)),
            Ok(None) => match self.check_there().await {
                Err(error) if matches!(self.standing, Standing::InDoubt) => Err(AppendError::Store(error)),
                _ => Ok(()),
            },
            Err(error) => {
                tracing::debug!(
                    run = self.run,
                    error = error.chain(),
                    "the journal's end cannot be looked at"
                );
                Ok(())
            }
        }
    }

    async fn put(&mut self, entry: Entry) -> Result<Bytes, AppendError> {
        match &self.standing {
            Standing::Owner => {}
            Standing::InDoubt => {
                let text = format!(
                    "the journal of run {:?} cannot go on: an append failed or was cut off",
                    self.run
                );
                return Err(AppendError::Store(Error::unavailable(text)));
            }
            Standing::Fenced(text) => return Err(AppendError::Fenced(Error::try_again(text.clone()))),
        }
        let record = Record {
            v: entry.version(),
            seq: self.tail.seq,
            epoch: self.epoch,
            writer: self.writer.clone(),
            // A writer writes each number once, so this is unique, and the same for every try.
            put_id: format!("{}-{}", self.writer, self.tail.seq),
            prev_sha256: self.tail.prev_sha256.clone(),
            at: (self.clock)(),
            entry,
            signature: None,
        };
        let bytes = serde_json::to_vec(&record).map_err(|e| {
            AppendError::Store(Error::internal("a record could not be written as JSON").with_source(e))
        })?;
        let bytes = Bytes::from(self.signed(bytes).map_err(AppendError::Store)?);
        self.check_bounds(&record, &bytes).map_err(AppendError::Store)?;
        self.check_there().await.map_err(AppendError::Store)?;
        self.standing = Standing::InDoubt;
        if let Err(error) = self.create(&record, &bytes).await {
            return Err(match error {
                AppendError::Store(error) => AppendError::Store(self.unless_removed(error).await),
                fenced => fenced,
            });
        }
        self.tail = Tail { seq: record.seq + 1, prev_sha256: sha256_hex(&bytes) };
        self.standing = Standing::Owner;
        Ok(bytes)
    }

    /// Keeps what the next record is to name, unless somebody removed the state, into whose place nothing is put.
    ///
    /// # Errors
    /// [`AppendError::Store`].
    pub async fn keep(&mut self, outcomes: &Outcomes, packed: Packed) -> Result<(), AppendError> {
        self.check_there().await.map_err(AppendError::Store)?;
        match outcomes.put(packed).await {
            Ok(()) => Ok(()),
            Err(error) => Err(AppendError::Store(self.unless_removed(error).await)),
        }
    }

    /// `error`, of something that could not be written; or that the state was on its way out, where that is why.
    async fn unless_removed(&mut self, error: Error) -> Error {
        if error.kind() != ErrorKind::Configuration {
            return error;
        }
        tokio::time::sleep(REMOVING).await;
        self.check_there().await.err().unwrap_or(error)
    }

    /// Requires the record before the next one to be there: where somebody removed the state, a log that begins in the middle is not put
    /// into its place.
    async fn check_there(&mut self) -> Result<(), Error> {
        let Some(before) = self.tail.seq.checked_sub(1) else { return Ok(()) };
        let place = log::slot(&self.log, before)?;
        match self.patience.read(|| read::stat_if_exists(&place)).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                self.standing = Standing::InDoubt;
                Err(Error::unavailable(format!(
                    "run {:?}: {place} was there and is gone: somebody removed the state, and nothing more is written to it; submit the \
                     run again",
                    self.run
                )))
            }
            Err(error) => {
                let text = format!("run {:?}: the end of its journal cannot be looked at", self.run);
                Err(error.context(text))
            }
        }
    }

    fn signed(&self, record: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Some(Signer { key, plan_sha256 }) = &self.signer else { return Ok(record) };
        key.seal(Subject::Record { run: &self.run, plan_sha256 }, &record)
    }

    /// Creates the record, or finds out who is in its place.
    async fn create(&mut self, record: &Record, bytes: &Bytes) -> Result<(), AppendError> {
        let place = log::slot(&self.log, record.seq).map_err(AppendError::Store)?;
        let found = match self.patience.create(&place, bytes, RECORD_BYTES_MAX).await {
            Ok(Created::Ours) => return Ok(()),
            Ok(Created::Other(found)) => found,
            // Something is there that no record can be.
            Err(e) if e.kind() == ErrorKind::Data => Bytes::new(),
            Err(e) => {
                let text =
                    format!("run {:?}: record {} of its journal cannot be written", self.run, record.seq);
                return Err(AppendError::Store(e.context(text)));
            }
        };
        Err(self.fenced(&place, &found))
    }

    /// Somebody else's record is where this one's next would be.
    fn fenced(&mut self, place: &Location, found: &[u8]) -> AppendError {
        let by = match serde_json::from_slice::<Record>(found) {
            Ok(Record { epoch, entry: Entry::EpochClaim(claim), .. }) => {
                format!("the coordinator on {} (process {}), epoch {epoch}", claim.host, claim.pid)
            }
            Ok(record) => format!("coordinator {}, epoch {}", record.writer, record.epoch),
            Err(_) => format!("somebody who wrote {place}, which is no record of a journal"),
        };
        let text = format!("run {:?} was taken over by {by}: this one leaves it alone", self.run);
        self.standing = Standing::Fenced(text.clone());
        AppendError::Fenced(Error::try_again(text))
    }

    /// What a reader would refuse is not written.
    fn check_bounds(&self, record: &Record, bytes: &Bytes) -> Result<(), Error> {
        let kind = record.entry.kind();
        if bytes.len() as u64 > RECORD_BYTES_MAX || record.seq >= RECORDS_MAX as u64 {
            return Err(Error::internal(format!(
                "run {:?}: record {} of its journal ({kind}, {} bytes) is beyond the bounds: {RECORDS_MAX} records of \
                 {RECORD_BYTES_MAX} bytes",
                self.run,
                record.seq,
                bytes.len()
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "journal of run {:?}, {:?} in epoch {} at {}",
            self.run, self.writer, self.epoch, self.tail.seq
        )
    }
}
