//! Whether workers reach each other: all are asked to connect to all others, and whoever wants to know is told once all have answered or
//! that has taken too long. One such probe is under way at a time; whoever asks meanwhile is told the same. What workers answer is kept as
//! short as they say it: names and addresses of all for all are put in in the end, if that is no more than a reply may have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use soup_core::machine::{Millis, WorkerId};
use soup_core::reach::{Reach, WorkerReach};
use soup_core::{Error, Result};
use soup_proto::CONTROL_BYTES_MAX;
use tokio::sync::oneshot;

use super::Hub;
use crate::exchange::{Peer, Reached, Told};

/// How long workers may take to answer.
const PATIENCE_MS: Millis = 15_000;
/// Who may wait for one probe.
const WAITING_MAX: usize = 64;
/// Longest text of what went wrong that is kept, in characters.
const ERROR_CHARS_MAX: usize = 500;
/// What a worker that is reached takes in a reply besides its texts, in bytes.
const REACH_BYTES: usize = 64;

/// What whoever waits for a probe is told.
pub(super) type Probed = Result<Arc<[WorkerReach]>>;

/// A probe that is under way.
pub(super) struct Probe {
    number: u64,
    since: Millis,
    /// Who was asked, and what they answered.
    asked: BTreeMap<WorkerId, Option<Vec<Reached>>>,
    waits: Vec<oneshot::Sender<Probed>>,
}

impl Hub {
    /// Somebody wants to know who reaches whom. Who asks while too many do gets no answer.
    pub(super) fn probe(&mut self, reply: oneshot::Sender<Probed>) {
        if let Some(probe) = &mut self.probe {
            probe.waits.retain(|waiting| !waiting.is_closed());
            if probe.waits.len() < WAITING_MAX {
                probe.waits.push(reply);
            }
            return;
        }
        self.probes += 1;
        let (number, peers) = (self.probes, self.roster.peers());
        let others = |me: WorkerId| peers.iter().filter(|peer| peer.worker != me).cloned().collect();
        let asked = self.roster.all().into_iter().filter(|&worker| {
            let peers: Vec<Peer> = others(worker);
            self.roster.send(worker, Told::Probe { number, peers })
        });
        let asked = asked.map(|worker| (worker, None)).collect();
        self.probe = Some(Probe { number, since: self.now(), asked, waits: vec![reply] });
        self.tell_probe();
    }

    /// A worker says whom it reaches. What was not asked is not listened to.
    pub(super) fn probed(&mut self, worker: WorkerId, number: u64, reached: Vec<Reached>) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number)
            && let Some(answer @ None) = probe.asked.get_mut(&worker)
        {
            let others = self.roster.all().into_iter().filter(|other| *other != worker);
            *answer = Some(asked_for(reached, others.collect()));
        }
        self.tell_probe();
    }

    /// Answers whoever waits, if there is nothing more to wait for.
    pub(super) fn tell_probe(&mut self) {
        let now = self.now();
        let over = |probe: &Probe| {
            let open =
                |(worker, answer): (&WorkerId, &Option<_>)| answer.is_none() && self.roster.has(*worker);
            now.saturating_sub(probe.since) >= PATIENCE_MS || !probe.asked.iter().any(open)
        };
        if !self.probe.as_ref().is_some_and(over) {
            return;
        }
        let Some(Probe { mut asked, waits, .. }) = self.probe.take() else { return };
        let size = |reached: &Reached| {
            let (name, address) = self.roster.called(reached.worker).unwrap_or_default();
            let error = reached.error.as_ref().map_or(0, String::len);
            name.len() + address.len() + error + REACH_BYTES
        };
        let bytes: usize = asked.values().flatten().flatten().map(size).sum();
        let named = |Reached { worker, milliseconds, error }: Reached| {
            let (name, address) = self.roster.called(worker)?;
            Some(Reach { worker: name.to_owned(), address: address.to_owned(), milliseconds, error })
        };
        let reaches = |worker: WorkerId| -> Option<Vec<Reach>> {
            Some(asked.remove(&worker).flatten()?.into_iter().filter_map(named).collect())
        };
        let workers: Option<Arc<[WorkerReach]>> =
            (bytes <= CONTROL_BYTES_MAX).then(|| self.roster.reach(reaches).into());
        for waiting in waits {
            // A caller that went away does not want the answer.
            let _ = waiting.send(workers.clone().ok_or_else(|| too_much(bytes)));
        }
    }
}

/// What a worker says of others, once of each; what else it says nobody asked for.
fn asked_for(reached: Vec<Reached>, mut others: BTreeSet<WorkerId>) -> Vec<Reached> {
    let cut = |text: String| text.chars().take(ERROR_CHARS_MAX).collect();
    reached
        .into_iter()
        .filter(|reached| others.remove(&reached.worker))
        .map(|reached| Reached { error: reached.error.map(cut), ..reached })
        .collect()
}

fn too_much(bytes: usize) -> Error {
    Error::configuration(format!(
        "what workers say of each other has {bytes} bytes, and a reply at most {CONTROL_BYTES_MAX}: there are too many of them"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_listened_to_once_about_each_of_the_others() {
        let reached =
            |worker, error: Option<String>| Reached { worker: WorkerId(worker), milliseconds: 1, error };
        let long = Some("x".repeat(10 * ERROR_CHARS_MAX));
        let said = [(2, long), (1, None), (2, None), (9, None), (3, None), (3, None)];
        let said = said.into_iter().map(|(worker, error)| reached(worker, error)).collect();
        let heard = asked_for(said, [2, 3, 4].map(WorkerId).into());
        assert_eq!(heard.iter().map(|reached| reached.worker.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(heard[0].error.as_ref().map(String::len), Some(ERROR_CHARS_MAX));
    }
}
