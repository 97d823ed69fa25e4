//! Creating and reading one object while the store fails, or does not say what happened.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStore, PutMode, PutOptions};
use soup_core::journal::append::{Next, Put, after_put, after_read};
use soup_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::location::Location;
use crate::read;

/// The first pause between two attempts; each one after it is twice as long, up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A request without an answer for so long is given up and tried again.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long an operation goes on while the store fails or does not say what happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(pub(crate) Duration);

/// What is in a slot after an attempt to create it.
pub(crate) enum Created {
    /// What we put there, byte for byte.
    Ours,
    /// Something else.
    Other(Bytes),
}

/// Whether `error` may go away by itself.
fn is_transient(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

/// One operation's attempts.
struct Attempts {
    started: Instant,
    patience: Duration,
    pause: Duration,
}

impl Patience {
    fn attempts(self) -> Attempts {
        Attempts { started: Instant::now(), patience: self.0, pause: PAUSE_FIRST }
    }

    /// Creates `slot` with `bytes`, or finds out what is there. Once created it is durable.
    ///
    /// Ours is told from anybody else's by the whole content, which holds whatever tells one write from another.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] after all patience; the slot may then be created or not, and may still be. Of other kinds
    /// where the store refuses and the slot is empty, or holds more than `bytes_max` bytes ([`ErrorKind::Data`]).
    pub(crate) async fn create(self, slot: &Location, bytes: &Bytes, bytes_max: u64) -> Result<Created> {
        let mut attempts = self.attempts();
        let mut next = Next::Retry;
        let mut last = None;
        let mut found = None;
        loop {
            next = match next {
                Next::Retry => match attempts.answer(put(slot, bytes)).await {
                    Ok(put) => after_put(put),
                    Err(e) => {
                        last = Some(e);
                        after_put(Put::Unknown)
                    }
                },
                Next::Read => match attempts.answer(read::read_small_if_exists(slot, bytes_max)).await {
                    Ok(there) => {
                        found = there;
                        let next = after_read(&bytes[..], found.as_deref());
                        if next == Next::Retry {
                            // The slot is empty: a refusal is one.
                            last = last
                                .map_or(Ok(None), |e| if is_transient(&e) { Ok(Some(e)) } else { Err(e) })?;
                            last = Some(attempts.pause(slot, last).await?);
                        }
                        next
                    }
                    Err(e) if is_transient(&e) => {
                        last = Some(attempts.pause(slot, Some(e)).await?);
                        Next::Read
                    }
                    Err(e) => return Err(e),
                },
                Next::Durable => return Ok(Created::Ours),
                Next::Fenced => return Ok(Created::Other(found.unwrap_or_default())),
            };
        }
    }

    /// What `request`, which may be made twice, answers; attempted again while it fails in a way that may pass.
    ///
    /// # Errors
    /// What it fails with last, or at once where that cannot pass.
    pub(crate) async fn read<T, F: Future<Output = Result<T>>>(self, request: impl Fn() -> F) -> Result<T> {
        let mut attempts = self.attempts();
        loop {
            match attempts.answer(request()).await {
                Err(e) if is_transient(&e) => {
                    if !attempts.sleep().await {
                        return Err(e);
                    }
                }
                answer => return answer,
            }
        }
    }
}

impl Attempts {
    /// The answer of `request`; none within [`ANSWER_MAX`] (or what is left of the patience) is an error.
    async fn answer<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let left = self.patience.saturating_sub(self.started.elapsed()).max(PAUSE_FIRST);
        let allowed = left.min(ANSWER_MAX);
        let late = |_| {
            Err(Error::unavailable(format!("the store did not answer within {} ms", allowed.as_millis())))
        };
        timeout(allowed, request).await.unwrap_or_else(late)
    }

    /// Waits before the next attempt. Whether there is time for one.
    async fn sleep(&mut self) -> bool {
        if self.started.elapsed() + self.pause > self.patience {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }

    /// Waits before the next attempt to create `slot`; `error` is why the last one failed, and is handed back.
    async fn pause(&mut self, slot: &Location, error: Option<Error>) -> Result<Error> {
        let error = error.unwrap_or_else(|| {
            Error::unavailable("the store says that it exists, but there is nothing to read")
        });
        if self.sleep().await {
            tracing::debug!(%slot, error = %error.chain(), "creating an object is tried again");
            return Ok(error);
        }
        let text =
            format!("cannot create {slot}: the store failed for {} s", self.started.elapsed().as_secs());
        Err(Error::unavailable(text).with_source(error))
    }
}

/// Creates `slot` if it is absent.
async fn put(slot: &Location, bytes: &Bytes) -> Result<Put> {
    let options = PutOptions::from(PutMode::Create);
    match slot.store().put_opts(slot.path(), bytes.clone().into(), options).await {
        Ok(_) => Ok(Put::Created),
        Err(StoreError::AlreadyExists { .. }) => Ok(Put::Exists),
        Err(e @ StoreError::NotFound { .. }) => {
            let text = format!("cannot create {slot}: its bucket, container or folder does not exist");
            Err(Error::new(ErrorKind::Configuration, text).with_source(crate::cause::one_line(e)))
        }
        Err(e) => Err(slot.error("create", e)),
    }
}
