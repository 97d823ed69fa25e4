//! Handing out work: which worker gets what next.
//!
//! A worker is given one task more than it has slots, so that it never waits for the coordinator's answer. Loading
//! belongs to the owners; everything else goes to whoever is free, slices preferably to the worker that has their
//! samples decoded. A worker that nothing is left for gets a slice that another one is slow at.

use super::{Action, Evaluation, Machine, Millis, Slice, Work, WorkerId};
use crate::machine::placement::Holding;
use crate::shard::Shard;

impl Machine {
    /// Gives tasks to free workers, one each in turn, until nothing fits any more.
    pub(super) fn dispatch(&mut self, now: Millis, out: &mut Vec<Action>) {
        let mut workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        let writing = self.writing_works();
        let ready = self.all_resident();
        while !workers.is_empty() {
            workers.retain(|&worker| {
                let state = &self.workers[&worker];
                if state.leaving || state.running > state.slots {
                    return false;
                }
                let Some(work) = self.pick(worker, now, ready, &writing) else { return false };
                if ready {
                    self.announce(worker, out);
                }
                let key = self.tasks.begin(&work, worker, now);
                self.workers.entry(worker).and_modify(|w| w.running += 1);
                out.push(Action::Assign(worker, key, work));
                true
            });
        }
        if ready {
            // Owners serve their shards even when they have no task, so all have to know the run's epoch and peers.
            let all: Vec<WorkerId> = self.workers.keys().copied().collect();
            all.into_iter().for_each(|w| self.announce(w, out));
        }
    }

    fn pick(&self, worker: WorkerId, now: Millis, ready: bool, writing: &[Work]) -> Option<Work> {
        if let Some(load) = self.pick_load(worker, now) {
            return Some(load);
        }
        let may = |work: &Work| self.tasks.is_open(work, now) && !self.tasks.failed_on(work, worker);
        if self.survey.is_none() {
            return Some(Work::Survey).filter(may);
        }
        if !ready {
            return None;
        }
        self.pick_gram(worker, now)
            .or_else(|| self.pick_learning(worker, now))
            .or_else(|| self.goals.iter().find_map(|goal| self.pick_slice(goal, worker, &may)))
            .or_else(|| self.pick_compare(worker, &may))
            .or_else(|| writing.iter().find(|w| may(w)).cloned())
            .or_else(|| {
                let idle = self.workers[&worker].running == 0;
                let at_least_ms = self.plan.limits.straggler_ms;
                idle.then(|| self.tasks.straggler(worker, now, at_least_ms)).flatten()
            })
    }

    fn pick_load(&self, worker: WorkerId, now: Millis) -> Option<Work> {
        self.shards
            .iter()
            .enumerate()
            .filter(|(_, h)| **h == Holding::Loading(worker))
            .map(|(index, _)| Work::Load(Shard(index as u32)))
            .find(|work| self.tasks.is_open(work, now))
    }

    /// A slice of `goal` for `worker`: one it has decoded before, else one that nobody has, else anybody's.
    fn pick_slice(&self, goal: &Evaluation, worker: WorkerId, may: &dyn Fn(&Work) -> bool) -> Option<Work> {
        let work = |slice: &Slice| Work::Evaluate(goal.clone(), *slice);
        let preference = |slice: &Slice| match self.homes.get(&(goal.dataset, slice.index)) {
            Some(home) if *home == worker => 0,
            None => 1,
            Some(_) => 2,
        };
        self.slices_of(goal.dataset)
            .iter()
            .filter(|s| !self.slice_done(goal, s.index) && may(&work(s)))
            .min_by_key(|s| (preference(s), s.index))
            .map(work)
    }
}
