//! Who may ask for a run: preparing one reads its pool, so few are prepared at a time, some wait for that, and all others are told to come
//! again. What runs that wait in the queue keep is bounded too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Runs that are prepared at a time.
const PREPARING_MAX: usize = 4;
/// Requests that are being answered, those that are prepared included: in all, and of one client. Where clients are not told apart, all
/// are one.
const ASKED_MAX: usize = 64;
const ASKED_PER_CLIENT_MAX: usize = 32;
/// What all runs that are not done keep: their specifications, tables of tensors, configurations and tokenizers.
const KEPT_BYTES_MAX: u64 = 2 << 30;
/// Room for it is taken in steps of so many bytes.
const UNIT_BYTES: u64 = 4 << 10;

/// See the module.
pub(crate) struct Admission {
    /// Requests that are being answered, by client.
    asked: Mutex<BTreeMap<Option<String>, usize>>,
    preparing: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// A request that is being answered, until this is dropped.
pub(crate) struct Admitted {
    of: Arc<Admission>,
    client: Option<String>,
}

/// Room for what a run keeps, until this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(crate) fn new() -> Arc<Admission> {
        Arc::new(Admission {
            asked: Mutex::default(),
            preparing: Arc::new(Semaphore::new(PREPARING_MAX)),
            kept: Arc::new(Semaphore::new((KEPT_BYTES_MAX / UNIT_BYTES) as usize)),
        })
    }

    /// Takes a request of `client` in.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where there are as many already as may be.
    pub(crate) fn enter(self: &Arc<Self>, client: Option<&str>) -> Result<Admitted> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = client.map(str::to_owned);
        let (all, own) = (asked.values().sum::<usize>(), asked.get(&key).copied().unwrap_or(0));
        if all >= ASKED_MAX || client.is_some() && own >= ASKED_PER_CLIENT_MAX {
            let (count, whose) = if all >= ASKED_MAX { (all, "") } else { (own, "of yours ") };
            tracing::warn!(client, all, own, "denied: as many requests for runs as are answered at a time");
            return Err(Error::try_again(format!(
                "{count} requests for runs {whose}are being prepared or wait for that: try again when some are answered"
            )));
        }
        *asked.entry(key.clone()).or_default() += 1;
        Ok(Admitted { of: self.clone(), client: key })
    }

    /// Takes room for a run that keeps so many bytes.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where those that are not done leave none.
    pub(crate) fn keep(&self, bytes: u64) -> Result<Room> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = self.kept.clone().try_acquire_many_owned(units);
        room.map(|permit| Room { _permit: permit }).map_err(|_| {
            let (mine, free) = (bytes >> 20, (self.kept.available_permits() as u64 * UNIT_BYTES) >> 20);
            Error::try_again(format!(
                "what the coordinator has to keep of this run takes {mine} MiB, and the runs that are queued or in progress leave {free} MiB: \
                 try again when one is done"
            ))
        })
    }
}

impl Admitted {
    /// Waits for the turn to prepare a run, which lasts until the permit is dropped.
    ///
    /// # Errors
    /// [`Unavailable`](soup_core::ErrorKind::Unavailable) where the coordinator is stopping.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turn = self.of.preparing.clone().acquire_owned().await;
        turn.map_err(|e| Error::unavailable("the coordinator is stopping").with_source(e))
    }

    /// Whose request it is.
    pub(crate) fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// [`Admission::keep`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn keep(&self, bytes: u64) -> Result<Room> {
        self.of.keep(bytes)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut asked = self.of.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = asked.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                asked.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn few_are_prepared_at_a_time_and_some_wait() {
        let admission = Admission::new();
        let admitted: Vec<Admitted> =
            (0..PREPARING_MAX + 1).map(|_| admission.enter(None).unwrap()).collect();
        let mut turns = Vec::new();
        for one in &admitted[..PREPARING_MAX] {
            turns.push(one.turn().await.unwrap());
        }
        let mut next = std::pin::pin!(admitted[PREPARING_MAX].turn());
        assert!(next.as_mut().now_or_never().is_none());
        turns.pop();
        drop(next.await.unwrap());
    }

    #[test]
    fn requests_beyond_what_waits_are_sent_away() {
        let admission = Admission::new();
        let mut ada: Vec<Admitted> =
            (0..ASKED_PER_CLIENT_MAX).map(|_| admission.enter(Some("ada")).unwrap()).collect();
        let error = admission.enter(Some("ada")).err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::TryAgain);
        assert!(error.chain().starts_with("32 requests for runs of yours are"), "{}", error.chain());
        let _others: Vec<Admitted> =
            (ASKED_PER_CLIENT_MAX..ASKED_MAX).map(|_| admission.enter(None).unwrap()).collect();
        let error = admission.enter(Some("bob")).err().unwrap();
        assert!(error.chain().starts_with("64 requests for runs are"), "{}", error.chain());
        ada.pop();
        admission.enter(Some("bob")).unwrap();
    }

    #[test]
    fn what_runs_keep_is_bounded_together() {
        let admission = Admission::new();
        let first = admission.keep(KEPT_BYTES_MAX - UNIT_BYTES).unwrap();
        let error = admission.keep(3 << 20).unwrap_err();
        assert!(error.chain().contains("takes 3 MiB, and the runs that"), "{}", error.chain());
        assert!(admission.keep(u64::MAX).is_err());
        drop(first);
        admission.keep(3 << 20).unwrap();
    }
}
