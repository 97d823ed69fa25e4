//! Workers at one address: so many register there, and so much of what they are told lies unread.
//!
//! Every worker is told where all others are, and of everything that a run is: a small registration has the coordinator say a lot, time and
//! again. Members of a cluster may all have one certificate, so it is their address that tells those of one host from the others, as it
//! does for connections and requests. Every worker that comes and goes is told to whoever watches, and a run knows its name from then on, so
//! that many come in a minute and not more. Whoever has a host's certificate and does not read so costs a bounded amount of memory, and makes
//! workers of that host wait, for as long as unread replies are looked on at.
//!
//! The other way round, a message that has come is in memory until the hub takes it, one for each worker, and the hub takes a few large ones
//! at a time. Who says more than that is cut off, and comes again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use soup_core::{Error, Result};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::backlog::Backlog;

/// Workers that are registered from one address: as many as have connections from there to each other.
const WORKERS_MAX: usize = 512;
/// Workers that may come from one address within so long: all of them four times.
const CAME_MAX: usize = 4 * WORKERS_MAX;
const WITHIN: Duration = Duration::from_secs(60);
/// What all of them are told and have not read, in bytes, as far as messages are large.
const UNREAD_BYTES_MAX: usize = 256 << 20;
/// What all of them say and nobody has taken yet, likewise: eight of the largest messages, which may take several times that in memory. Honest
/// workers of one host that all answer at once come nowhere near it.
const UNHEARD_BYTES_MAX: usize = 512 << 20;
const LARGE_BYTES: usize = 32 << 10;

/// See the module.
#[derive(Default)]
pub(crate) struct Addresses(Mutex<HashMap<IpAddr, There>>);

/// What there is at one of them.
struct There {
    workers: usize,
    /// How many came, since when.
    came: usize,
    since: Instant,
    waiting: Waiting,
}

impl There {
    fn new() -> There {
        There { workers: 0, came: 0, since: Instant::now(), waiting: Waiting::new() }
    }

    /// One more came.
    fn count(&mut self) -> usize {
        if self.since.elapsed() >= WITHIN {
            (self.came, self.since) = (0, Instant::now());
        }
        self.came += 1;
        self.came
    }
}

/// What waits between the workers of one of them and the hub.
#[derive(Clone)]
pub(crate) struct Waiting {
    unread: Backlog,
    unheard: Backlog,
}

/// A worker's place at its address, until this is dropped.
pub(crate) struct Place {
    /// None in this process.
    at: Option<(Arc<Addresses>, IpAddr)>,
    waiting: Waiting,
}

impl Addresses {
    /// A place for a worker that comes from an address; those in this process have none, and are not counted.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where as many are there as may be.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place> {
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return Ok(Place { at: None, waiting: Waiting::new() });
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has gone is remembered for as long as those who came are counted.
        if !all.contains_key(&address) {
            all.retain(|_, there| there.workers > 0 || there.since.elapsed() < WITHIN);
        }
        let there = all.entry(address).or_insert_with(There::new);
        if there.workers >= WORKERS_MAX {
            tracing::warn!(%address, "denied: as many workers as may be at one address");
            return Err(Error::try_again(format!(
                "{WORKERS_MAX} workers are registered from {address}, and no more may be: give one worker more of its host, or try again later"
            )));
        }
        if there.count() > CAME_MAX {
            tracing::warn!(%address, "denied: as many workers as may come from one address in a while");
            return Err(Error::try_again(format!(
                "{CAME_MAX} workers came from {address} within {} s, and no more may: try again later",
                WITHIN.as_secs()
            )));
        }
        there.workers += 1;
        Ok(Place { at: Some((self.clone(), address)), waiting: there.waiting.clone() })
    }
}

impl Place {
    /// Room for what its worker is told, and for what it says.
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((of, address)) = &self.at else { return };
        let mut all = of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get_mut(address) {
            there.workers -= 1;
        }
    }
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { unread: Backlog::new(UNREAD_BYTES_MAX), unheard: Backlog::new(UNHEARD_BYTES_MAX) }
    }

    /// Room for a message of so many bytes to a worker, for as long as it is not read; a small one takes none.
    pub(crate) async fn unread(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= LARGE_BYTES {
            return None;
        }
        self.unread.room(bytes).await
    }

    /// Room for a message of so many bytes of a worker's, which is here already, for as long as nobody takes it; none where others from there have
    /// all.
    pub(crate) fn unheard(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.unheard.try_room(bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::backlog::UNIT_BYTES;

    fn refused(place: Result<Place>, begins: &str) {
        let error = place.err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::TryAgain);
        assert!(error.chain().starts_with(begins), "{}", error.chain());
    }

    #[test]
    fn so_many_workers_are_at_one_address_and_not_more() {
        let addresses = Arc::new(Addresses::default());
        let [here, there] = [1, 2].map(|host| Some(IpAddr::from([10, 0, 0, host])));
        let mut all: Vec<Place> = (0..WORKERS_MAX).map(|_| addresses.take(here).unwrap()).collect();
        // An address is the same however it is written.
        for again in [here, Some("::ffff:10.0.0.1".parse().unwrap())] {
            refused(addresses.take(again), "512 workers are registered from 10.0.0.1");
        }
        let others = [addresses.take(there).unwrap(), addresses.take(None).unwrap()];
        all.pop();
        all.push(addresses.take(here).unwrap());
        drop((all, others));
        assert!(addresses.0.lock().unwrap().values().all(|there| there.workers == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_workers_come_within_a_minute_and_not_more() {
        let addresses = Arc::new(Addresses::default());
        let [here, there] = [1, 2].map(|host| Some(IpAddr::from([10, 0, 0, host])));
        (0..CAME_MAX).for_each(|_| drop(addresses.take(here).unwrap()));
        refused(addresses.take(here), "2048 workers came from 10.0.0.1 within 60 s");
        drop(addresses.take(there).unwrap());
        tokio::time::advance(WITHIN).await;
        drop(addresses.take(here).unwrap());
        // Nobody is there, or was of late.
        tokio::time::advance(WITHIN).await;
        drop(addresses.take(Some(IpAddr::from([10, 0, 0, 3]))).unwrap());
        assert_eq!(addresses.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_not_read_at_one_address_takes_nothing_at_another() {
        let addresses = Arc::new(Addresses::default());
        let places = [1, 1, 2].map(|host| addresses.take(Some(IpAddr::from([10, 0, 0, host]))).unwrap());
        let [eve, ada, bob] = places.each_ref().map(Place::waiting);
        // More than there is takes all there is.
        let large = eve.unread(usize::MAX).await.unwrap();
        assert!(ada.unread(LARGE_BYTES + 1).now_or_never().is_none());
        assert!(ada.unread(LARGE_BYTES).now_or_never().unwrap().is_none());
        assert!(bob.unread(LARGE_BYTES + 1).now_or_never().unwrap().is_some());
        drop(large);
        assert!(ada.unread(LARGE_BYTES + 1).now_or_never().unwrap().is_some());
    }

    #[test]
    fn what_nobody_has_heard_yet_is_bounded_at_each_address() {
        let addresses = Arc::new(Addresses::default());
        let [here, there] = [1, 2].map(|host| Some(IpAddr::from([10, 0, 0, host])));
        let places = [here, here, there, None].map(|address| addresses.take(address).unwrap());
        let [eve, ada, bob, own] = places.each_ref().map(Place::waiting);
        let waits = eve.unheard(UNHEARD_BYTES_MAX - UNIT_BYTES).unwrap();
        assert!(ada.unheard(2 * UNIT_BYTES).is_none());
        assert!(bob.unheard(usize::MAX).is_some() && own.unheard(2 * UNIT_BYTES).is_some());
        drop(waits);
        assert!(ada.unheard(2 * UNIT_BYTES).is_some());
    }
}
