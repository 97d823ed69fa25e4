//! The journal of the run in progress: entries go in, and the hub is told when each is durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use soup_core::journal::{Entry, Tail};
use soup_core::tally::packed::Packed;
use soup_metrics::metrics;
use soup_store::outcomes::Outcomes;
use soup_store::signing::SigningKey;
use soup_store::state::Journal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::hub::Message;

/// The machine has one entry on its way at a time.
const ENTRIES_MAX: usize = 2;

/// An owner that has nothing to append looks so often whether the run is still its own.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A journal that appends beside the hub.
pub(crate) struct Journaling {
    entries: mpsc::Sender<(Entry, Option<Packed>)>,
    tail: watch::Receiver<Tail>,
    key: Option<Arc<SigningKey>>,
    task: JoinHandle<Option<Journal>>,
}

/// What the journal has come to: an output that is made of it names this.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// Where the next record goes, and after which one.
    pub(crate) tail: Tail,
    /// What records are signed with.
    pub(crate) key: Option<Arc<SigningKey>>,
}

impl Journaling {
    pub(crate) fn start(
        run: String,
        mut journal: Journal,
        outcomes: Outcomes,
        inbox: mpsc::Sender<Message>,
    ) -> Journaling {
        let (entries, mut queue) = mpsc::channel::<(Entry, Option<Packed>)>(ENTRIES_MAX);
        let (now_at, tail) = watch::channel(journal.tail().clone());
        let key = journal.signing_key().cloned();
        let task = tokio::spawn(async move {
            loop {
                let (entry, packed) = match tokio::time::timeout(LOOK_EVERY, queue.recv()).await {
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
                let (kind, begun) = (entry.kind(), Instant::now());
                // What a record names is there before the record is.
                let kept = match packed {
                    Some(packed) => journal.keep(&outcomes, packed).await,
                    None => Ok(()),
                };
                let appended = match kept {
                    Ok(()) => journal.append(entry).await,
                    Err(error) => Err(error),
                };
                match appended {
                    Ok(()) => {
                        let of = &metrics().coordinator;
                        of.records.inc();
                        of.append.observe(begun.elapsed().as_secs_f64());
                        tracing::debug!(run, seq = journal.seq(), kind, "durable");
                        soup_store::failpoint::reach("after-append");
                        now_at.send_replace(journal.tail().clone());
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
        Journaling { entries, tail, key, task }
    }

    /// What has become durable so far.
    pub(crate) fn head(&self) -> Head {
        Head { tail: self.tail.borrow().clone(), key: self.key.clone() }
    }

    /// Appends an entry, after the outcomes that it names; the hub hears of it.
    pub(crate) fn append(&self, entry: Entry, packed: Option<Packed>) {
        if self.entries.try_send((entry, packed)).is_err() {
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
