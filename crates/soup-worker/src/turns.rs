//! Turns of those who fetch from this worker: each has so many fetches in work at a time, and its others wait for those. Who asks for very much
//! then waits for itself, and not everybody for it.
//!
//! Workers may all have one certificate, so the server's own shares tell hosts from each other and no more. The ticket that a fetch comes with
//! says which worker it is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::{Error, Result};
use soup_trust::{Identity, Peer};
use tokio::time::{Instant, timeout_at};

use crate::room::{Place, Room};

/// Fetches of one asker that are in work at a time: those of a few soups, of a written file, and of a step.
pub(crate) const IN_WORK_MAX: u64 = 32;
/// Fetches of one asker that may be open, those included that wait for their turn.
const OPEN_MAX: usize = 1024;

/// What the open fetches from one address ask with, in bytes, as far as that is large: soups of many weights, which are kept while they wait.
const ASKED_BYTES_MAX: usize = 256 << 20;
const LARGE_BYTES: usize = 32 << 10;

/// Who fetches, as far as its connection and its ticket tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    member: Option<Identity>,
    address: Option<IpAddr>,
    worker: Option<u64>,
}

impl Asker {
    /// Whoever is at the other end of a connection, with the ticket of a worker. Numbers of workers that are not `known` count as one: who has
    /// a ticket can make others, with any number.
    pub(crate) fn new(peer: Option<&Peer>, worker: u64, known: bool) -> Asker {
        Asker {
            member: peer.and_then(|peer| peer.member.clone()),
            address: peer.map(|peer| peer.address.ip()),
            worker: known.then_some(worker),
        }
    }
}

/// The turns of all who fetch.
#[derive(Default)]
pub(crate) struct Turns {
    askers: Mutex<HashMap<Asker, Own>>,
    /// What those from each address ask with, in bytes.
    asked: Mutex<HashMap<IpAddr, usize>>,
}

/// What one of them has.
#[derive(Default)]
struct Own {
    open: usize,
    in_work: Arc<Room>,
}

/// A fetch whose turn has come, until its reply was read or given up.
pub(crate) struct Turn {
    _place: Place,
    _open: Open,
}

/// What a fetch asks with, for as long as it is kept.
pub(crate) struct Asks {
    turns: Arc<Turns>,
    address: IpAddr,
    bytes: usize,
}

/// A fetch that is open.
struct Open {
    turns: Arc<Turns>,
    asker: Asker,
}

impl Turns {
    /// Waits for the turn of a fetch of `asker`, who may have `max` in work, and no longer than `until`.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it has very many open, or its turn does not come in time.
    pub(crate) async fn turn(self: &Arc<Self>, asker: Asker, max: u64, until: Instant) -> Result<Turn> {
        let (open, in_work) = self.open(asker)?;
        let place = timeout_at(until, in_work.enter(max)).await.map_err(|_| {
            Error::try_again(format!(
                "{max} fetches of the worker that asks are in work here, and none of them ended in time: try again later"
            ))
        })?;
        Ok(Turn { _place: place, _open: open })
    }

    /// Room for what a fetch asks with, of so many bytes; what is small needs none, nor who is in this process.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where other fetches from the same address take it all.
    pub(crate) fn asks(self: &Arc<Self>, from: Option<IpAddr>, bytes: usize) -> Result<Option<Asks>> {
        let Some(address) = from.filter(|_| bytes > LARGE_BYTES) else { return Ok(None) };
        let address = address.to_canonical();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let own = asked.get(&address).copied().unwrap_or_default().saturating_add(bytes);
        if own > ASKED_BYTES_MAX {
            tracing::warn!(%address, "denied: fetches from one address ask with as much as they may");
            return Err(Error::try_again(format!(
                "the fetches from {address} that are open here ask with more than {} MiB: try again later",
                ASKED_BYTES_MAX >> 20
            )));
        }
        asked.insert(address, own);
        Ok(Some(Asks { turns: self.clone(), address, bytes }))
    }

    fn open(self: &Arc<Self>, asker: Asker) -> Result<(Open, Arc<Room>)> {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = askers.entry(asker.clone()).or_default();
        if own.open >= OPEN_MAX {
            tracing::warn!(?asker, "denied: as many fetches are open as one worker may have");
            return Err(Error::try_again(format!(
                "{OPEN_MAX} fetches of one worker are open here, and no more may be: try again later"
            )));
        }
        own.open += 1;
        let in_work = own.in_work.clone();
        Ok((Open { turns: self.clone(), asker }, in_work))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut askers = self.turns.askers.lock().unwrap_or_else(PoisonError::into_inner);
        match askers.get_mut(&self.asker) {
            Some(own) if own.open > 1 => own.open -= 1,
            _ => drop(askers.remove(&self.asker)),
        }
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        let mut asked = self.turns.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get_mut(&self.address) {
            Some(own) if *own > self.bytes => *own -= self.bytes,
            _ => drop(asked.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(45)
    }

    #[tokio::test]
    async fn who_asks_for_much_waits_for_itself_and_nobody_else_does() {
        let turns = Arc::new(Turns::default());
        let (eve, ada) = (Asker::new(None, 1, true), Asker::new(None, 2, true));
        let turn = |of: &Asker| {
            let (turns, of) = (turns.clone(), of.clone());
            async move { turns.turn(of, 3, later()).await }
        };
        let mut eves: Vec<Turn> = Vec::new();
        for _ in 0..3 {
            eves.push(turn(&eve).await.unwrap());
        }
        let mut waiting = Box::pin(turn(&eve));
        assert!(waiting.as_mut().now_or_never().is_none());
        let adas = turn(&ada).now_or_never().unwrap().unwrap();
        eves.pop();
        eves.push(waiting.now_or_never().unwrap().unwrap());
        // Where more may be in work, nothing has to end for that.
        assert!(turns.turn(eve.clone(), 4, later()).now_or_never().unwrap().is_ok());
        drop((eves, adas));
        assert!(turns.askers.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_is_told_that_in_time() {
        let turns = Arc::new(Turns::default());
        let (asker, until) = (Asker::new(None, 1, true), later());
        let first = turns.turn(asker.clone(), 1, until).await.unwrap();
        let error = turns.turn(asker, 1, until).await.err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::TryAgain);
        assert!(error.chain().starts_with("1 fetches of the worker that asks"), "{}", error.chain());
        let late = Instant::now().duration_since(until);
        assert!(late < Duration::from_secs(1), "{late:?}");
        drop(first);
        assert!(turns.askers.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn fetches_that_wait_are_bounded_and_numbers_that_are_nobodys_are_one() {
        let turns = Arc::new(Turns::default());
        let stranger = |number| Asker::new(None, number, false);
        assert_eq!(stranger(7), stranger(8));
        let turn = |number| {
            Box::pin({
                let turns = turns.clone();
                async move { turns.turn(stranger(number), 1, later()).await }
            })
        };
        let first = turn(0).await.unwrap();
        let mut waiting: Vec<_> = (1..OPEN_MAX as u64).map(turn).collect();
        waiting.iter_mut().for_each(|turn| assert!(turn.as_mut().now_or_never().is_none()));
        let error = turn(9999).await.err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::TryAgain);
        assert!(error.chain().starts_with("1024 fetches of one worker"), "{}", error.chain());
        // One of the run's own, whatever others say.
        assert!(turns.turn(Asker::new(None, 7, true), 1, later()).now_or_never().unwrap().is_ok());
        // Whoever does not wait any more leaves its place.
        waiting.pop();
        assert!(turn(0).now_or_never().is_none());
        drop((first, waiting));
        assert!(turns.askers.lock().unwrap().is_empty());
    }

    #[test]
    fn what_fetches_from_one_address_ask_with_is_bounded() {
        let turns = Arc::new(Turns::default());
        let [here, there] = [1, 2].map(|host| Some(IpAddr::from([10, 0, 0, host])));
        let large = ASKED_BYTES_MAX / 2;
        let asks = |from, bytes| turns.asks(from, bytes);
        let mut all = vec![asks(here, large).unwrap(), asks(here, large).unwrap()];
        let error = asks(Some("::ffff:10.0.0.1".parse().unwrap()), LARGE_BYTES + 1).err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::TryAgain);
        assert!(error.chain().starts_with("the fetches from 10.0.0.1 that"), "{}", error.chain());
        // Small ones, others, and who is in this process.
        assert!(asks(here, LARGE_BYTES).unwrap().is_none() && asks(None, large).unwrap().is_none());
        all.push(asks(there, large).unwrap());
        all.remove(0);
        all.push(asks(here, large).unwrap());
        drop(all);
        assert!(turns.asked.lock().unwrap().is_empty());
    }
}
