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
}
