//! The workers that are connected, and until when each is believed to be alive.

use std::collections::BTreeMap;

use soup_core::judge::{JudgeId, WorkerJudges};
use soup_core::machine::{Millis, NewWorker, WorkerId};
use soup_core::reach::{Reach, WorkerReach};
use soup_core::{Error, Result};
use tokio::sync::mpsc;

use crate::exchange::{Newcomer, Peer, Told};
use crate::hub::judges::Wanted;
use crate::live::WorkerView;
use crate::prepare::PreparedRun;

/// Messages that may wait for one worker. A worker that lets them pile up is as good as lost.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 1024;

/// Where messages to one worker go.
pub(crate) type Outbox = mpsc::Sender<Told>;

struct Member {
    is: Newcomer,
    leaving: bool,
    heard: Millis,
    outbox: Outbox,
}

/// The workers that are connected.
#[derive(Default)]
pub(crate) struct Roster {
    members: BTreeMap<WorkerId, Member>,
    next: u64,
}

impl Roster {
    pub(crate) fn join(&mut self, is: Newcomer, outbox: Outbox, now: Millis) -> WorkerId {
        self.next += 1;
        let worker = WorkerId(self.next);
        self.members.insert(worker, Member { is, leaving: false, heard: now, outbox });
        worker
    }

    /// Ends a worker's stream and forgets it; false if it was not there.
    pub(crate) fn leave(&mut self, worker: WorkerId) -> bool {
        self.members.remove(&worker).is_some()
    }

    pub(crate) fn heard(&mut self, worker: WorkerId, now: Millis) {
        self.members.entry(worker).and_modify(|m| m.heard = now);
    }

    /// Workers that have not been heard for `lease_ms`.
    pub(crate) fn expired(&self, now: Millis, lease_ms: Millis) -> Vec<WorkerId> {
        let late = |m: &Member| now.saturating_sub(m.heard) > lease_ms;
        self.members.iter().filter(|(_, m)| late(m)).map(|(&w, _)| w).collect()
    }

    /// Sends to one worker; false if it does not take messages any more.
    pub(crate) fn send(&self, worker: WorkerId, told: Told) -> bool {
        self.members.get(&worker).is_some_and(|m| m.outbox.try_send(told).is_ok())
    }

    /// A worker is about to go: no run gets it any more.
    pub(crate) fn leaving(&mut self, worker: WorkerId) {
        self.members.entry(worker).and_modify(|m| m.leaving = true);
    }

    /// Whether a worker has said that it is about to go.
    pub(crate) fn is_leaving(&self, worker: WorkerId) -> bool {
        self.members.get(&worker).is_some_and(|m| m.leaving)
    }

    /// What a worker offers to a run.
    fn offer(to: &PreparedRun, worker: WorkerId, m: &Member) -> Option<NewWorker> {
        let held = m.is.held.get(&to.run).cloned().unwrap_or_default();
        let Newcomer { slots, space, ref judges, .. } = m.is;
        let judges = to.judge.as_ref().is_some_and(|wanted| judges.iter().any(|offer| offer.id == *wanted));
        let name = m.is.who();
        (!m.leaving).then_some(NewWorker { worker, name, slots, space, judges, held })
    }

    /// One worker, as it joins a run.
    pub(crate) fn get(&self, to: &PreparedRun, worker: WorkerId) -> Option<NewWorker> {
        self.members.get(&worker).and_then(|m| Self::offer(to, worker, m))
    }

    /// All workers, as they join a run.
    pub(crate) fn offers(&self, to: &PreparedRun) -> Vec<NewWorker> {
        self.members.iter().filter_map(|(&w, m)| Self::offer(to, w, m)).collect()
    }

    /// How many workers there are that stay.
    pub(crate) fn len(&self) -> usize {
        self.members.values().filter(|m| !m.leaving).count()
    }

    /// Who can judge where.
    pub(crate) fn judges(&self) -> Vec<WorkerJudges> {
        let of = |m: &Member| WorkerJudges { worker: m.is.name.clone(), judges: m.is.judges.clone() };
        self.members.values().map(of).collect()
    }

    /// Whether a worker is connected.
    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.members.contains_key(&worker)
    }

    /// All workers, with how many shards each owns by `shards`.
    pub(crate) fn view(&self, shards: impl Fn(WorkerId) -> u32) -> Vec<WorkerView> {
        let of = |(&worker, m): (&WorkerId, &Member)| WorkerView {
            name: m.is.name.clone(),
            address: m.is.address.to_string(),
            slots: m.is.slots,
            device_bytes: m.is.space.device,
            capacity_bytes: m.is.space.memory,
            leaving: m.leaving,
            shards: shards(worker),
        };
        self.members.iter().map(of).collect()
    }

    /// All workers, with whom each reaches by `reaches`.
    pub(crate) fn reach(&self, mut reaches: impl FnMut(WorkerId) -> Option<Vec<Reach>>) -> Vec<WorkerReach> {
        let of = |(&worker, m): (&WorkerId, &Member)| WorkerReach {
            worker: m.is.name.clone(),
            address: m.is.address.to_string(),
            slots: m.is.slots,
            device_bytes: m.is.space.device,
            capacity_bytes: m.is.space.memory,
            disk_bytes: m.is.space.disk,
            reaches: reaches(worker),
        };
        self.members.iter().map(of).collect()
    }

    /// The judge that is wanted; `None` where no worker has it.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) where they have several of which each could be.
    pub(crate) fn judge(&self, wanted: &Wanted) -> Result<Option<JudgeId>> {
        let all = self
            .members
            .values()
            .filter(|m| !m.leaving)
            .flat_map(|m| m.is.judges.iter().map(move |offer| (m, &offer.id)));
        let mut called: Vec<(&Member, &JudgeId)> = all.filter(|(_, id)| wanted.is(id)).collect();
        called.dedup_by_key(|(_, id)| *id);
        match &called[..] {
            [] => Ok(None),
            [(_, only)] => Ok(Some((*only).clone())),
            [(a, first), (b, other), ..] if std::ptr::eq(*a, *b) => Err(Error::configuration(format!(
                "worker {:?} has judges {first} and {other}, and scores of different ones are never compared: say which with --numerics",
                a.is.name
            ))),
            [(a, first), (b, other), ..] => Err(Error::configuration(format!(
                "worker {:?} has judge {first} and worker {:?} has {other}: scores of different judges are never compared, so \
                 give them the same code and configuration of it (that is its digest) on the same kind of machine, or other names, or say \
                 which with --numerics",
                a.is.name, b.is.name
            ))),
        }
    }

    /// All workers.
    pub(crate) fn all(&self) -> Vec<WorkerId> {
        self.members.keys().copied().collect()
    }

    /// What a worker calls itself.
    pub(crate) fn name(&self, worker: WorkerId) -> &str {
        self.members.get(&worker).map_or("?", |m| &m.is.name)
    }

    /// Who a worker is: whom what it does is put down to.
    pub(crate) fn who(&self, worker: WorkerId) -> String {
        self.members.get(&worker).map_or_else(|| "?".to_owned(), |m| m.is.who())
    }

    /// What a worker is called, and where it is.
    pub(crate) fn called(&self, worker: WorkerId) -> Option<(&str, &str)> {
        self.members.get(&worker).map(|m| (m.is.name.as_str(), &*m.is.address))
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        let peer = |(w, m): (&WorkerId, &Member)| Peer { worker: *w, address: m.is.address.clone() };
        self.members.iter().map(peer).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.members.clear();
    }
}

#[cfg(test)]
mod tests {
    use soup_core::judge::Offer;
    use soup_core::machine::Space;

    use super::*;

    fn newcomer(name: &str, certificate: Option<&str>) -> Newcomer {
        Newcomer {
            name: name.to_owned(),
            certificate: certificate.map(str::to_owned),
            address: format!("http://{name}").into(),
            slots: 1,
            space: Space::default(),
            judges: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    #[test]
    fn nobody_is_another_by_calling_itself_so() {
        let mut roster = Roster::default();
        let mut who = |name: &str, certificate: Option<&str>| {
            let worker = roster.join(newcomer(name, certificate), mpsc::channel(1).0, 0);
            roster.who(worker)
        };
        let ada = who("gpu-0", Some("ada"));
        // What is put down to the one is not put down to the other, and who comes back is who it was.
        assert_ne!(who("gpu-0", Some("eve")), ada);
        assert_eq!(who("gpu-0", Some("ada")), ada);
        // Of one certificate there may be many.
        assert_ne!(who("gpu-1", Some("ada")), ada);
        assert_ne!(who("b/c", Some("a")), who("c", Some("a.b")));
        assert_eq!(who("gpu-0", None), "gpu-0");
    }

    /// Which native judge is meant by a class of numerics, among workers that have those of these classes.
    fn judge(workers: &[(&str, &[&str])], class: &str) -> Result<Option<String>, String> {
        let mut roster = Roster::default();
        for (name, classes) in workers {
            let offer = |numerics: &&str| {
                let mut offer = Offer::native();
                offer.id.numerics = (*numerics).to_owned();
                offer
            };
            let is = Newcomer { judges: classes.iter().map(offer).collect(), ..newcomer(name, None) };
            roster.join(is, mpsc::channel(1).0, 0);
        }
        let wanted = Wanted { name: "native".to_owned(), numerics: Some(class.to_owned()) };
        roster.judge(&wanted).map(|judge| judge.map(|judge| judge.numerics)).map_err(|e| e.chain())
    }

    #[test]
    fn of_several_judges_it_is_to_be_said_which() {
        let both: &[&str] = &["flex-f32", "flex-bf16"];
        let workers = [("a", both), ("b", both)];
        assert_eq!(judge(&workers, "flex-bf16"), Ok(Some("flex-bf16".to_owned())));
        assert_eq!(judge(&workers, "vulkan"), Ok(None));
        // Both are one worker's own: no other code or machine helps.
        let error = judge(&workers, "flex").unwrap_err();
        assert!(error.starts_with("worker \"a\" has judges native"), "{error}");
        assert!(error.ends_with("are never compared: say which with --numerics"), "{error}");
        let error = judge(&[("a", &both[..1]), ("b", &both[1..])], "flex").unwrap_err();
        assert!(error.contains(" and worker \"b\" has native"), "{error}");
    }
}
