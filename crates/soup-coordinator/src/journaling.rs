//! The journal of the run in progress: entries go in, and the hub is told when each is durable.

use std::sync::Arc;
use std::time::Duration;

use soup_core::journal::Entry;
use soup_core::{Error, Result};
use soup_store::output::Staging;
use soup_store::state::Journal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event_log::EventLog;
use crate::hub::Message;

/// The machine has one entry on its way at a time.
const ENTRIES_MAX: usize = 2;

/// An owner that has nothing to append looks so often whether the run is still its own.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A journal that appends beside the hub.
pub(crate) struct Journaling {
    entries: mpsc::Sender<Entry>,
    task: JoinHandle<Option<Journal>>,
}

impl Journaling {
    pub(crate) fn start(run: String, mut journal: Journal, inbox: mpsc::Sender<Message>) -> Journaling {
        let (entries, mut queue) = mpsc::channel::<Entry>(ENTRIES_MAX);
        let task = tokio::spawn(async move {
            loop {
                let entry = match tokio::time::timeout(LOOK_EVERY, queue.recv()).await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    // Without workers there may be nothing to append for long, and whoever watches waits in vain if the run
                    // is somebody else's.
                    Err(_) => match journal.look().await {
                        Ok(()) => continue,
                        Err(error) => {
                            let _ = inbox.send(Message::JournalLost(run, error)).await;
                            return None;
                        }
                    },
                };
                soup_store::failpoint::reach("before-append");
                let kind = entry.kind();
                match journal.append(entry).await {
                    Ok(()) => {
                        tracing::debug!(run, seq = journal.seq(), kind, "durable");
                        soup_store::failpoint::reach("after-append");
                        // Where the hub is gone, nothing follows from it.
                        let _ = inbox.send(Message::Recorded(run.clone(), journal.epoch())).await;
                    }
                    Err(error) => {
                        let _ = inbox.send(Message::JournalLost(run, error)).await;
                        return None;
                    }
                }
            }
            Some(journal)
        });
        Journaling { entries, task }
    }

    /// Appends an entry; the hub hears of it.
    pub(crate) fn append(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            // The journal is lost, of which the hub hears too.
            tracing::debug!("an entry came after the journal was lost");
        }
    }

    /// Waits for what is on its way, and gives the journal back unless it was lost.
    pub(crate) async fn end(self) -> Option<Journal> {
        drop(self.entries);
        self.task.await.ok().flatten()
    }
}

/// What becomes of what was staged, when this coordinator ends its work on a run.
pub(crate) enum Staged {
    /// There is nothing, or it is visible.
    Nothing,
    /// It is removed: the run has ended without an output.
    Discard(Arc<Staging>),
    /// Another coordinator of the run goes on with it, or is about to publish it.
    Leave(Arc<Staging>),
}

impl Staged {
    /// For a run that ends in `error`. Where an earlier coordinator was about to publish, it may still do so; and a run that
    /// may be tried again mostly is, at once, while this coordinator would still be removing what the next one writes.
    pub(crate) fn of_failed(staging: Arc<Staging>, publishing_before: bool, error: &Error) -> Staged {
        match publishing_before || error.kind().is_transient() {
            true => Staged::Leave(staging),
            false => Staged::Discard(staging),
        }
    }

    async fn end(self) {
        let ended = match self {
            Staged::Nothing => Ok(()),
            Staged::Discard(staging) => staging.discard().await,
            Staged::Leave(staging) => staging.leave().await,
        };
        if let Err(e) = ended {
            tracing::warn!(error = e.chain(), "staged output could not be removed");
        }
    }
}

/// Appends the last entry of a run, and tells its watchers the result once that is durable. Without one they are told nothing:
/// the run goes on elsewhere. Only after the entry is what was staged this coordinator's to remove.
pub(crate) async fn close(
    run: String,
    mut journal: Journal,
    last: Entry,
    staged: Staged,
    log: Arc<EventLog>,
    result: Option<Result<String>>,
    inbox: mpsc::Sender<Message>,
) {
    if let Err(error) = journal.append(last).await {
        let _ = inbox.send(Message::JournalLost(run, error)).await;
        return;
    }
    staged.end().await;
    match result {
        Some(Ok(json)) => log.finished(json),
        Some(Err(error)) => log.failed(&error),
        None => log.close(),
    }
}
