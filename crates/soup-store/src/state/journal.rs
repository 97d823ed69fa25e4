//! Appending to the log of one run.

use std::time::Duration;

use bytes::Bytes;
use object_store::Error as StoreError;
use soup_core::journal::append::{self, Next, Put};
use soup_core::journal::{Claim, Entry, Fold, Record, Tail, VERSION, sha256_hex};
use soup_core::{Error, ErrorKind};
use tokio::time::Instant;

use super::{Clock, RECORD_BYTES_MAX, create, record_file};
use crate::failpoint;
use crate::location::Location;
use crate::read;

/// Pause between two tries of an append: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
    patience: Duration,
    /// Once an append has failed, where the log ends is not known any more.
    lost: bool,
}

impl Journal {
    pub(super) fn new(
        run: &str,
        writer: &str,
        log: Location,
        tail: Tail,
        clock: Clock,
        patience: Duration,
    ) -> Journal {
        let (run, writer) = (run.to_owned(), writer.to_owned());
        Journal { run, writer, log, epoch: 0, tail, clock, patience, lost: false }
    }

    /// The epoch that this incarnation claimed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the next record.
    pub fn seq(&self) -> u64 {
        self.tail.seq
    }

    /// Claims the next epoch of the log that `fold` is of.
    pub(super) async fn claim(&mut self, fold: &mut Fold, claim: Claim) -> Result<(), AppendError> {
        self.epoch = append::next_epoch(fold.epoch);
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

    async fn put(&mut self, entry: Entry) -> Result<Bytes, AppendError> {
        if std::mem::replace(&mut self.lost, true) {
            let text = format!("the journal of run {:?} was lost before", self.run);
            return Err(AppendError::Store(Error::internal(text)));
        }
        let record = Record {
            v: VERSION,
            seq: self.tail.seq,
            epoch: self.epoch,
            writer: self.writer.clone(),
            // A writer writes each number once, so this is unique, and the same for every try.
            put_id: format!("{}-{}", self.writer, self.tail.seq),
            prev_sha256: self.tail.prev_sha256.clone(),
            at: (self.clock)(),
            entry,
        };
        let bytes = serde_json::to_vec(&record).map(Bytes::from).map_err(|e| {
            AppendError::Store(Error::internal("a record could not be written as JSON").with_source(e))
        })?;
        failpoint::reach("append");
        self.create(&record, &bytes).await?;
        failpoint::reach("appended");
        self.tail = Tail { seq: record.seq + 1, prev_sha256: sha256_hex(&bytes) };
        self.lost = false;
        Ok(bytes)
    }

    /// Tries until the record is there, or somebody else's is.
    async fn create(&self, record: &Record, bytes: &Bytes) -> Result<(), AppendError> {
        let place = self.log.join(&record_file(record.seq)).map_err(AppendError::Store)?;
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let (put, error) = match create(&place, bytes.clone()).await {
                Ok(()) => (Put::Created, None),
                Err(e @ StoreError::AlreadyExists { .. }) => (Put::Exists, Some(e)),
                Err(e) => (Put::Unknown, Some(e)),
            };
            let next = match append::after_put(put) {
                Next::Read => self.read_back(record, &place).await,
                next => Ok((next, None)),
            };
            let error = error.map(|e| place.error("write", e));
            let why = match next {
                Ok((Next::Durable, _)) => return Ok(()),
                Ok((Next::Fenced, other)) => return Err(AppendError::Fenced(self.fenced(other))),
                Ok(_) => error,
                Err(unreadable) => error.or(Some(unreadable)),
            };
            // A store that will never take it, such as a full or read-only disk, is no matter of patience.
            let hopeless = why.as_ref().is_some_and(|e| e.kind() == ErrorKind::Configuration);
            if hopeless || begun.elapsed() >= self.patience {
                let why = why.unwrap_or_else(|| Error::unavailable("the store answered nothing of use"));
                let text =
                    format!("run {:?}: record {} of its journal cannot be written", self.run, record.seq);
                return Err(AppendError::Store(why.context(text)));
            }
            tracing::warn!(run = self.run, seq = record.seq, why = why.map(|e| e.chain()), "append in doubt");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Who is in the slot.
    async fn read_back(&self, ours: &Record, place: &Location) -> Result<(Next, Option<Record>), Error> {
        let found = read::read_small_if_exists(place, RECORD_BYTES_MAX).await?;
        let found: Option<Record> = match found {
            // What cannot be read is not ours: ours can.
            Some(bytes) => Some(
                serde_json::from_slice(&bytes)
                    .map_err(|e| Error::data(format!("{place} is no record of a journal")).with_source(e))?,
            ),
            None => None,
        };
        let next = append::after_read(ours.put_id.as_str(), found.as_ref().map(|r| r.put_id.as_str()));
        Ok((next, found))
    }

    fn fenced(&self, other: Option<Record>) -> Error {
        let by = match other {
            Some(Record { epoch, entry: Entry::EpochClaim(claim), .. }) => {
                format!("the coordinator on {} (process {}), epoch {epoch}", claim.host, claim.pid)
            }
            Some(record) => format!("coordinator {}, epoch {}", record.writer, record.epoch),
            None => "another coordinator".to_owned(),
        };
        Error::try_again(format!("run {:?} was taken over by {by}: this one leaves it alone", self.run))
    }
}
