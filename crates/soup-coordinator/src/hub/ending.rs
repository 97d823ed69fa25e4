//! How a run ends for this coordinator, wherever it is: queued, staged or in progress.
//!
//! There is one way:
//!
//! 1. It is known how it ends ([`End`]). The hub lets go of the run ([`Ending`] has all that is left of it), so that the next one
//!    has its turn, and workers are told to let go of it too.
//! 2. Beside the hub, entries that are on their way to its journal arrive, and scores that later runs may want.
//! 3. Its last record is appended. A run that turns out to be somebody else's by now is left as it is.
//! 4. What was staged is removed, or left to others ([`Staged`]). Only after the record is it this coordinator's to remove.
//! 5. Those who watch are told. Whoever asks later is too, for a while ([`ENDED_RUNS_MAX`]).
//!
//! A run that is *suspended* goes on with another coordinator: it takes the same way, but nobody is told that it has ended.

use std::sync::Arc;

use soup_core::journal::Entry;
use soup_core::{Error, ErrorKind, Result};
use soup_metrics::{count, metrics};
use soup_store::location::Location;
use soup_store::output::Staging;
use soup_store::state::{AppendError, Journal};
use tokio::sync::mpsc;

use super::{Current, Hub, Message};
use crate::event_log::EventLog;
use crate::exchange::Told;
use crate::journaling::Journaling;
use crate::opening::{Owned, Started};
use crate::recall::Recall;

/// Ended runs whose events are kept.
const ENDED_RUNS_MAX: usize = 64;

/// How a run ends.
pub(crate) enum End {
    /// Its output is visible; this is its report, as JSON.
    Published(String),
    Failed(Error),
    /// Another coordinator goes on with it.
    Suspended,
}

impl End {
    /// Of a run that somebody has ended.
    pub(super) fn cancelled() -> End {
        End::Failed(Error::cancelled("the run was cancelled"))
    }

    /// Of a run that has this result.
    pub(crate) fn of(result: Result<String>) -> End {
        result.map_or_else(End::Failed, End::Published)
    }

    /// In one word, for counting.
    fn outcome(&self) -> &'static str {
        match self {
            End::Published(_) => "published",
            End::Failed(error) if error.kind() == ErrorKind::Cancelled => "cancelled",
            End::Failed(_) => "failed",
            End::Suspended => "suspended",
        }
    }

    fn last_entry(&self) -> Entry {
        match self {
            End::Published(json) => {
                Entry::Published { report: serde_json::from_str(json).unwrap_or_default() }
            }
            End::Failed(error) if error.kind() == ErrorKind::Cancelled => Entry::Cancelled {},
            End::Failed(error) => Entry::failed(error),
            End::Suspended => Entry::Suspended {},
        }
    }
}

/// What becomes of what was staged.
pub(crate) enum Staged {
    /// There is nothing, or it is visible.
    Nothing,
    /// It is removed: the run has ended without an output.
    Discard(Arc<Staging>),
    /// Another coordinator of the run goes on with it, or is about to publish it.
    Leave(Arc<Staging>),
}

impl Staged {
    /// For a run that ends so. Where an earlier coordinator was about to publish, it may still do so; and a run that may be tried
    /// again mostly is, at once, while this coordinator would still be removing what the next one writes.
    pub(crate) fn of(end: &End, staging: Arc<Staging>, publishing_before: bool) -> Staged {
        match end {
            End::Published(_) => Staged::Nothing,
            End::Failed(error) if !publishing_before && !error.kind().is_transient() => {
                Staged::Discard(staging)
            }
            End::Failed(_) | End::Suspended => Staged::Leave(staging),
        }
    }

    /// For a run that ends so before its turn: what earlier coordinators may have left at the output.
    fn before(end: &End, owned: &Owned) -> Staged {
        let target = Location::parse(&owned.prepared.spec.output);
        let staging = target.and_then(|t| Staging::resume(&t, &owned.prepared.run, owned.journal.epoch()));
        match staging {
            Ok(staging) => Staged::of(end, Arc::new(staging), owned.fold.publishing),
            // Then it cannot have been written to either.
            Err(_) => Staged::Nothing,
        }
    }

    /// Gives what people should know of it: that it could not be removed.
    async fn end(self) -> Option<String> {
        let ended = match self {
            Staged::Nothing => Ok(()),
            Staged::Discard(staging) => staging.discard().await,
            Staged::Leave(staging) => staging.leave().await,
        };
        let error = ended.err()?.chain();
        tracing::warn!(error, "staged output could not be removed");
        Some(format!("what was staged for the output could not be removed: {error}"))
    }

    /// Of a run that nobody ends here.
    fn lost(&self, error: AppendError) -> AppendError {
        match self {
            Staged::Nothing => error,
            Staged::Discard(staging) | Staged::Leave(staging) => leaving(error, staging),
        }
    }
}

/// Why a journal was lost, with what stays behind of the run: nobody has recorded its end, so nothing of it is removed here. Where the run is
/// somebody else's, so is what was staged.
pub(crate) fn leaving(error: AppendError, staging: &Staging) -> AppendError {
    match (error, staging.left()) {
        (AppendError::Store(error), Some(left)) => {
            AppendError::Store(Error::new(error.kind(), format!("{}; {left}", error.chain())))
        }
        (error, _) => error,
    }
}

/// The journal of a run that ends.
pub(crate) enum Writing {
    /// Nothing is on its way to it.
    Nothing(Journal),
    /// Entries may be.
    Entries(Journaling),
}

impl Writing {
    /// Waits for what is on its way, and gives the journal unless it was lost.
    async fn end(self) -> Option<Journal> {
        match self {
            Writing::Nothing(journal) => Some(journal),
            Writing::Entries(journaling) => journaling.end().await,
        }
    }
}

/// A run that ends: all that is left of it.
pub(crate) struct Ending {
    pub(crate) run: String,
    pub(crate) end: End,
    pub(crate) journal: Writing,
    /// Scores that are being kept for later runs.
    pub(crate) recall: Option<Recall>,
    pub(crate) staged: Staged,
}

impl Ending {
    /// Of a run whose turn has not come.
    pub(super) fn of_queued(owned: Owned, end: End) -> Ending {
        let staged = Staged::before(&end, &owned);
        Ending::of_owned(owned, end, staged)
    }

    /// Of a run whose output could not be staged.
    pub(super) fn of_unstaged(owned: Owned, error: Error) -> Ending {
        Ending::of_owned(owned, End::Failed(error), Staged::Nothing)
    }

    /// Of a run that has staged its output and done nothing else.
    pub(super) fn of_started(started: Started, end: End) -> Ending {
        let staged = Staged::of(&end, started.staging, started.owned.fold.publishing);
        Ending::of_owned(started.owned, end, staged)
    }

    fn of_owned(owned: Owned, end: End, staged: Staged) -> Ending {
        let (run, journal) = (owned.prepared.run.clone(), Writing::Nothing(owned.journal));
        Ending { run, end, journal, recall: None, staged }
    }

    /// What happens beside the hub.
    async fn perform(self, log: Arc<EventLog>, inbox: mpsc::Sender<Message>) {
        let Ending { run, end, journal, mut recall, staged } = self;
        let journal = journal.end().await;
        // Whoever hears that a run has ended finds its scores. Nobody waits for those of one that is suspended.
        if !matches!(end, End::Suspended)
            && let Some(recall) = recall.take()
        {
            recall.close().await;
        }
        // Without its journal the run is somebody else's by now, or the hub knows why not.
        if let Some(mut journal) = journal {
            match journal.append(end.last_entry()).await {
                Ok(()) => {
                    if let Some(note) = staged.end().await {
                        log.note(&note);
                    }
                    match end {
                        End::Published(json) => log.finished(json),
                        End::Failed(error) => log.failed(&error),
                        End::Suspended => log.close(),
                    }
                }
                Err(error) => {
                    let error = staged.lost(error);
                    let _ = inbox.send(Message::JournalLost(run, error)).await;
                }
            }
        }
        if let Some(recall) = recall {
            recall.close().await;
        }
    }
}

impl Hub {
    /// Ends the run in progress, of which workers are told.
    pub(super) fn end_current(&mut self, end: End) {
        let Current::Running(running) = std::mem::replace(&mut self.current, Current::None) else { return };
        for worker in self.roster.all() {
            // One that does not take it forgets the run with the next one.
            self.roster.send(worker, Told::End { run: running.run().to_owned() });
        }
        self.end(running.into_ending(end));
    }

    /// Ends a run that the hub has let go of.
    pub(super) fn end(&mut self, ending: Ending) {
        let run = ending.run.clone();
        let Some(log) = self.logs.get(&run).cloned() else { return };
        match &ending.end {
            End::Published(_) => tracing::info!(run, "run finished"),
            End::Failed(error) => tracing::info!(run, error = error.chain(), "run failed"),
            End::Suspended => {}
        }
        count(&metrics().coordinator.runs, ("outcome", ending.end.outcome()));
        // It reports its own failure, by message.
        self.endings.spawn(ending.perform(log, self.inbox.clone()));
        self.retire(run);
    }

    /// A run was done before somebody asked for it again: there is nothing to end but the wait for it.
    pub(super) fn done_before(&mut self, run: &str, client: Option<String>, output: &str, report: String) {
        tracing::info!(run, "run is done already");
        let log = EventLog::new(client);
        log.note(&format!("run {run} is done: this is its report, and {output} is as it was"));
        log.finished(report);
        self.logs.insert(run.to_owned(), log);
        self.retire(run.to_owned());
    }

    /// Keeps the events of an ended run for a while.
    fn retire(&mut self, run: String) {
        self.ended.retain(|r| *r != run);
        self.ended.push_back(run);
        if self.ended.len() > ENDED_RUNS_MAX
            && let Some(oldest) = self.ended.pop_front()
            && self.logs.get(&oldest).is_some_and(|log| log.ended())
            && let Some(log) = self.logs.remove(&oldest)
        {
            log.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_journal_that_is_lost_leaves_what_was_staged_and_says_so() {
        let target = Location::parse("memory:///ending/out").unwrap();
        let staging = Staging::begin(&target, "r", 1, false).await.unwrap();
        let text = |error: AppendError| error.into_error().chain();
        let staged = Staged::Leave(Arc::new(staging));
        let lost = staged.lost(AppendError::Store(Error::unavailable("the disk is full")));
        let AppendError::Store(error) = &lost else { panic!("{lost:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let lost = text(lost);
        assert!(lost.starts_with("the disk is full; what was staged for output memory:"), "{lost}");
        assert!(lost.contains("cook the same again with the same state, or delete"), "{lost}");
        // Whoever took the run over has to do with it.
        let fenced = staged.lost(AppendError::Fenced(Error::try_again("somebody else's")));
        assert_eq!(text(fenced), "somebody else's");
        let nothing = Staged::Nothing.lost(AppendError::Store(Error::unavailable("the disk is full")));
        assert_eq!(text(nothing), "the disk is full");
    }
}
