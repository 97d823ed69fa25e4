//! Taking over the runs that an earlier coordinator left.
//!
//! All are opened at the same time, since what one waits for (a store that does not answer) is nothing to the others. They keep their
//! order: as long as some are still being opened, and not for too long, nobody else has a turn. Whoever asks for one of them waits for
//! it, and for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;

use futures::{FutureExt as _, StreamExt as _, stream};
use soup_core::machine::Millis;
use soup_core::{Error, Result};

use super::{Hub, Message};
use crate::opening::{Keeper, Opened};

/// Runs that are opened at the same time.
const AT_ONCE: usize = 64;
/// So long the oldest runs are waited for, so that they have their turns first.
const PATIENCE_MS: Millis = 10_000;

/// How far the recovery has come.
#[derive(Debug)]
pub(super) enum Recovery {
    /// The runs are not known yet.
    Listing,
    /// Of those that are known, some are not opened.
    Opening {
        /// When that began.
        since: Millis,
        /// All of them, by age.
        ranks: BTreeMap<String, usize>,
        /// Those that are not opened.
        open: BTreeSet<String>,
    },
    /// There is nothing to recover, or all of it is.
    Over,
}

impl Recovery {
    /// Whether it is not known whether `run` is one of those that an earlier coordinator left, or it is and is not opened.
    pub(super) fn waits_for(&self, run: &str) -> bool {
        match self {
            Recovery::Listing => true,
            Recovery::Opening { open, .. } => open.contains(run),
            Recovery::Over => false,
        }
    }

    /// Whether it is not known yet what there is.
    pub(super) fn is_listing(&self) -> bool {
        matches!(self, Recovery::Listing)
    }

    /// Whether nobody has a turn, since an older run may still come.
    pub(super) fn holds_turns(&self, now: Millis) -> bool {
        match self {
            Recovery::Listing => true,
            Recovery::Opening { since, open, .. } => !open.is_empty() && now < since + PATIENCE_MS,
            Recovery::Over => false,
        }
    }

    /// Where in a queue of `runs` this one goes: recovered ones first, in their order.
    pub(super) fn place<'a>(&self, run: &str, runs: impl Iterator<Item = &'a str>) -> usize {
        let runs: Vec<&str> = runs.collect();
        let Recovery::Opening { ranks, .. } = self else { return runs.len() };
        let Some(rank) = ranks.get(run) else { return runs.len() };
        let before = |other: &&str| ranks.get(*other).is_some_and(|theirs| theirs < rank);
        runs.iter().take_while(|other| before(other)).count()
    }
}

/// Opens one run. What is wrong with it, a defect included, is its own.
async fn open(keeper: &Keeper, run: &str) -> Result<Option<Opened>> {
    let opened = AssertUnwindSafe(keeper.recover(run)).catch_unwind().await;
    let opened = opened.unwrap_or_else(|_| {
        Err(Error::internal("a defect of this program keeps it from being taken over: see the log"))
    });
    Ok(opened?.map(|owned| Opened::Owned(Box::new(owned))))
}

impl Hub {
    /// Opens the runs that an earlier coordinator left.
    pub(super) fn recover(&mut self) {
        self.recovery = Recovery::Listing;
        let (keeper, inbox) = (self.keeper.clone(), self.inbox.clone());
        tokio::spawn(async move {
            let listed = AssertUnwindSafe(keeper.unfinished()).catch_unwind().await;
            let listed = listed.unwrap_or_else(|_| Err(Error::internal("a defect of this program")));
            let unfinished = listed.unwrap_or_else(|e| {
                tracing::error!(error = e.chain(), "the runs of an earlier coordinator cannot be listed");
                Vec::new()
            });
            // Where the hub is gone, the next coordinator recovers them; here and below.
            let _ = inbox.send(Message::Unfinished(unfinished.clone())).await;
            let one = async |run: String| {
                let message = match open(&keeper, &run).await.transpose() {
                    Some(opened) => Message::Opened(run, Box::new(opened)),
                    None => Message::Recovered(run),
                };
                let _ = inbox.send(message).await;
            };
            stream::iter(unfinished).for_each_concurrent(AT_ONCE, one).await;
        });
    }

    /// It is known which runs are to be recovered.
    pub(super) fn unfinished(&mut self, runs: Vec<String>) {
        self.recovery = match runs.is_empty() {
            true => Recovery::Over,
            false => Recovery::Opening {
                since: self.now(),
                open: runs.iter().cloned().collect(),
                ranks: runs.into_iter().zip(0..).collect(),
            },
        };
        self.ask_postponed();
    }

    /// One of them is opened, or is none to be opened, or cannot be.
    pub(super) fn recovered(&mut self, run: &str) {
        let Recovery::Opening { open, .. } = &mut self.recovery else { return };
        if !open.remove(run) {
            return;
        }
        if open.is_empty() {
            self.recovery = Recovery::Over;
        }
        self.ask_postponed();
    }

    /// Asks again for runs that had to wait.
    fn ask_postponed(&mut self) {
        for (prepared, asked) in std::mem::take(&mut self.postponed) {
            self.asked(Ok(prepared), asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(runs: &[&str], open: &[&str]) -> Recovery {
        Recovery::Opening {
            since: 100,
            ranks: runs.iter().map(|r| (*r).to_owned()).zip(0..).collect(),
            open: open.iter().map(|r| (*r).to_owned()).collect(),
        }
    }

    #[test]
    fn who_is_waited_for_and_for_how_long() {
        let some = opening(&["a", "b"], &["b"]);
        assert!(some.waits_for("b") && !some.waits_for("a") && !some.waits_for("c"));
        assert!(Recovery::Listing.waits_for("c") && !Recovery::Over.waits_for("a"));
        assert!(some.holds_turns(100) && some.holds_turns(100 + PATIENCE_MS - 1));
        assert!(!some.holds_turns(100 + PATIENCE_MS) && !opening(&["a"], &[]).holds_turns(100));
    }

    #[test]
    fn recovered_runs_keep_their_order_before_all_others() {
        let some = opening(&["a", "b", "c"], &["b", "c"]);
        let place = |run, queue: &[&str]| some.place(run, queue.iter().copied());
        assert_eq!(place("b", &["a", "c", "new"]), 1);
        assert_eq!(place("a", &["b", "new"]), 0);
        assert_eq!(place("c", &["a", "b", "new"]), 2);
        assert_eq!(place("newer", &["a", "b", "new"]), 3);
        assert_eq!(Recovery::Over.place("a", ["x"].into_iter()), 1);
    }
}
