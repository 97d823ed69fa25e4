//! Whether workers reach each other: all are asked to connect to all others, and whoever wants to know is told once all have answered or
//! that has taken too long. One such probe is under way at a time; whoever asks meanwhile is told the same.

use std::collections::BTreeMap;

use soup_core::machine::{Millis, WorkerId};
use soup_core::reach::{Reach, WorkerReach};
use tokio::sync::oneshot;

use super::Hub;
use crate::exchange::{Peer, Reached, Told};

/// How long workers may take to answer.
const PATIENCE_MS: Millis = 15_000;
/// Who may wait for one probe.
const WAITING_MAX: usize = 64;
/// Longest text of what went wrong that is kept, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// A probe that is under way.
pub(super) struct Probe {
    number: u64,
    since: Millis,
    /// Who was asked, and what they answered.
    asked: BTreeMap<WorkerId, Option<Vec<Reach>>>,
    waits: Vec<oneshot::Sender<Vec<WorkerReach>>>,
}

impl Hub {
    /// Somebody wants to know who reaches whom. Who asks while too many do gets no answer.
    pub(super) fn probe(&mut self, reply: oneshot::Sender<Vec<WorkerReach>>) {
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
        let peers = self.roster.peers();
        let known = |reached: Reached| {
            let peer = peers.iter().find(|peer| peer.worker == reached.worker)?;
            Some(Reach {
                worker: self.roster.name(peer.worker).to_owned(),
                address: peer.address.clone(),
                milliseconds: reached.milliseconds,
                error: reached.error.map(|text| text.chars().take(ERROR_CHARS_MAX).collect()),
            })
        };
        let reaches = reached.into_iter().take(peers.len()).filter_map(known).collect();
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.number == number)
            && let Some(answer @ None) = probe.asked.get_mut(&worker)
        {
            *answer = Some(reaches);
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
        let workers = self.roster.reach(|worker| asked.remove(&worker).flatten());
        for waiting in waits {
            // A caller that went away does not want the answer.
            let _ = waiting.send(workers.clone());
        }
    }
}
