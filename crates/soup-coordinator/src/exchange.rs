//! What workers say to the hub, and what the hub tells them: plain types. Streams of workers translate between them and the
//! wire ([`messages`](crate::messages)), on tasks of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use soup_core::judge::Offer;
use soup_core::ledger::{Evaluation, Slice};
use soup_core::machine::{Space, TaskKey, TaskResult, Tier, Work, WorkerId};
use soup_core::shard::Shard;
use soup_core::tally::Judged;
use soup_core::{Error, Result};

use crate::prepare::PreparedRun;

/// Which run, and which of its coordinators is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) run: String,
    pub(crate) epoch: u64,
}

/// With which the workers of an incarnation prove to each other that they take part.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PeerKey(pub(crate) [u8; soup_trust::ticket::KEY_BYTES]);

impl std::fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerKey(…)")
    }
}

/// Which attempt of which task of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) of: Incarnation,
    pub(crate) key: TaskKey,
}

/// A worker, as it introduces itself.
#[derive(Debug)]
pub(crate) struct Newcomer {
    /// What it calls itself.
    pub(crate) name: String,
    /// The name in the certificate that it has shown, where it had to show one.
    pub(crate) certificate: Option<String>,
    /// Where peers reach it. All are told of all others: there is one of each.
    pub(crate) address: Arc<str>,
    pub(crate) slots: u32,
    pub(crate) space: Space,
    /// Who can judge there.
    pub(crate) judges: Vec<Offer>,
    /// Shards it has, by run, and where.
    pub(crate) held: BTreeMap<String, Vec<(Shard, Tier)>>,
}

impl Newcomer {
    /// Who it is, as far as that is known: what it calls itself, of those who have its certificate. With another one it would be somebody else,
    /// whatever it calls itself.
    pub(crate) fn who(&self) -> String {
        match &self.certificate {
            // No name in a certificate has a slash, so no two of them come to the same.
            Some(certificate) => format!("{certificate}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// What a worker says. All of it says that the worker is alive.
#[derive(Debug)]
pub(crate) enum Said {
    /// It finished an attempt.
    Done(Attempt, Answer),
    /// It failed at an attempt; where that is because another worker could not be reached, that one.
    Failed(Attempt, Error, Option<WorkerId>),
    /// It hands in what it did for an earlier coordinator.
    HandedIn(Incarnation, HandedIn),
    /// It has passed over so many shards of a run, which are not kept.
    Passed(Incarnation, u32),
    /// Whom it reaches, of those whom it was to try.
    Probed(u64, Vec<Reached>),
    /// It is about to go.
    Leaving,
    /// Nothing else.
    Alive,
}

/// What a worker found when it connected to another one.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) worker: WorkerId,
    pub(crate) milliseconds: u32,
    pub(crate) error: Option<String>,
}

/// A slice that was finished for an earlier coordinator. Its index is not looked at.
#[derive(Clone, Debug)]
pub(crate) struct HandedIn {
    pub(crate) evaluation: Evaluation,
    pub(crate) slice: Slice,
    pub(crate) judged: Judged,
    /// What it was given with.
    pub(crate) seal: Vec<u8>,
}

/// What a worker brings back of an attempt.
#[derive(Debug)]
pub(crate) struct Answer {
    /// An error where it was malformed.
    pub(crate) result: Result<TaskResult>,
    /// What was read of the pool for it.
    pub(crate) bytes_read: u64,
    /// SHA-256 of the running statistics that a judge recomputed for it.
    pub(crate) statistics: Option<[u8; 32]>,
}

/// What a worker is told.
pub(crate) enum Told {
    /// Its number, and how often it is to be heard.
    Welcome { worker: WorkerId, heartbeat_ms: u32 },
    /// A run that it has a part in.
    Begin(Incarnation, Arc<PreparedRun>, PeerKey),
    /// Who owns each shard, and where everybody is.
    Place { of: Incarnation, owners: Vec<WorkerId>, peers: Vec<Peer> },
    /// An attempt of a task.
    Assign(Assignment),
    /// An attempt that is not wanted any more.
    Cancel(Attempt),
    /// Soups that it has assembled may have wrong blends.
    Forget(Incarnation),
    /// A gradient that nobody needs any more.
    Release { of: Incarnation, step: u32, part: u32 },
    /// The run is over.
    End { run: String },
    /// There will be no more work.
    Over,
    /// Whom it is to connect to, to see whether it reaches them.
    Probe { number: u64, peers: Vec<Peer> },
}

/// A worker, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) worker: WorkerId,
    pub(crate) address: Arc<str>,
}

/// An attempt of a task, with all that is needed to describe it to a worker.
pub(crate) struct Assignment {
    pub(crate) attempt: Attempt,
    pub(crate) work: Work,
    /// Samples of a slice by their positions, where these are not consecutive.
    pub(crate) samples: Vec<u32>,
    /// Where the shard is kept that is to be loaded.
    pub(crate) tier: Tier,
    /// The seal of a slice.
    pub(crate) seal: Vec<u8>,
    /// Where it belongs in a trace, if there is one.
    pub(crate) traceparent: String,
    pub(crate) prepared: Arc<PreparedRun>,
}
