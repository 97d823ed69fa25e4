//! Workers that are in trouble, told apart from work that cannot be done and from stores that fail for all.
//!
//! A worker is *doubted* from when an attempt was taken back from it, or somebody was asked after it and answered before it, until
//! it finishes anything. As long as others are there, it gets nothing that would hold the run up, and no shard: only slices, for which
//! others may be asked too.
//! It is *left out* of the run once it has had trouble again and again while others got on, if they can do without it: they may judge, and
//! have room for its shards. What it does then is of no use, so it is asked for nothing; where the others are lost too, it is
//! asked again.
//!
//! A worker that its peers cannot fetch from (a wrong address, a port that is closed to them) does all of its own work well; its peers
//! fail. They say of whom they could not fetch, and so the one is told from the others: whom several cannot reach, or the only other, is
//! to blame; else whoever is alone in not reaching somebody.

use super::tasks::{WorkerState, may};
use super::{Action, BTreeMap, BTreeSet, Error, Machine, Millis, NewWorker, TaskKey, Work, WorkerId};

/// Troubles without an answer between them after which a worker is left out.
const TROUBLES_MAX: u32 = 3;
/// Milliseconds for which they have to have gone on, where they may pass.
const TROUBLED_MS: Millis = 30_000;
/// Fetches from one worker that have to have failed, all those of one peer, and for so many milliseconds.
const UNREACHED_MIN: u32 = 3;
const UNREACHED_MS: Millis = 10_000;

/// What happened to a worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// It failed at something, in a way that may pass.
    Passing,
    /// It failed at something for good.
    Lasting,
    /// It was not done in time with what it was given then; whether that is for its owner alone to do, so that others can only wait.
    Late { since: Millis, awaited: bool },
}

/// What happened to a worker since it last finished anything.
#[derive(Clone, Copy, Debug)]
struct Streak {
    since: Millis,
    troubles: u32,
    lasting: u32,
}

/// Fetches of one worker from another that failed since one succeeded.
#[derive(Clone, Copy, Debug)]
struct Unreached {
    first: Millis,
    last: Millis,
    times: u32,
}

impl Unreached {
    fn lasts(&self) -> bool {
        self.times >= UNREACHED_MIN && self.last.saturating_sub(self.first) >= UNREACHED_MS
    }
}

/// What is known of workers' troubles.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    streaks: BTreeMap<WorkerId, Streak>,
    /// Those who are doubted.
    doubted: BTreeSet<WorkerId>,
    /// When each last finished anything, and anything that needs all shards.
    finished: BTreeMap<WorkerId, Millis>,
    fetched: BTreeMap<WorkerId, Millis>,
    /// By the source, and who could not fetch from it.
    unreached: BTreeMap<(WorkerId, WorkerId), Unreached>,
    /// On whose word whom the run went on without. Nobody's is taken twice.
    settled: BTreeSet<(WorkerId, WorkerId)>,
    /// The attempt that is about to fail since another worker could not be reached.
    blamed: Option<(WorkerId, TaskKey)>,
    /// Who is left out, as it joined.
    left_out: BTreeMap<WorkerId, NewWorker>,
}

impl Troubles {
    /// `worker` has finished `work`.
    pub(super) fn finished(&mut self, worker: WorkerId, work: &Work, now: Millis) {
        self.streaks.remove(&worker);
        self.doubted.remove(&worker);
        self.finished.insert(worker, now);
        let fetches =
            matches!(work, Work::Evaluate(..) | Work::Write(..) | Work::Digest(_) | Work::Differentiate(_));
        if fetches {
            self.fetched.insert(worker, now);
            self.unreached.retain(|(_, by), _| *by != worker);
        }
    }

    /// Whether a worker is doubted.
    pub(super) fn doubts(&self, worker: WorkerId) -> bool {
        self.doubted.contains(&worker)
    }

    /// A worker is about to go: it is not asked again.
    pub(super) fn leaves(&mut self, worker: WorkerId) {
        self.left_out.remove(&worker);
    }

    /// A worker is gone.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.streaks.remove(&worker);
        self.doubted.remove(&worker);
        self.finished.remove(&worker);
        self.fetched.remove(&worker);
        self.unreached.retain(|(source, by), _| *source != worker && *by != worker);
        self.left_out.remove(&worker);
    }
}

impl Machine {
    /// Whether `worker` is not to be given `work`: it has failed at it, or there is somebody to rather give it to.
    pub(super) fn is_barred(&self, work: &Work, worker: WorkerId) -> bool {
        let doubted = self.troubles.doubts(worker) && !matches!(work, Work::Evaluate(..));
        let slow = doubted || self.tasks.was_late(work, worker);
        // Nobody else can prove its judge.
        let its_own = matches!(work, Work::Prove(..));
        self.has_said(work, worker)
            || self.tasks.failed_on(work, worker)
            || slow && !its_own && self.another_may(work, worker)
    }

    /// Whether anybody but `worker` can be given `work`, who is not known to be slow at it.
    pub(super) fn another_may(&self, work: &Work, worker: WorkerId) -> bool {
        let good = |(other, state): (&WorkerId, &WorkerState)| {
            *other != worker
                && !state.leaving
                && may(work, state, self.recomputes())
                && !self.has_said(work, *other)
                && !self.tasks.failed_on(work, *other)
                && !self.tasks.was_late(work, *other)
                && !self.troubles.doubts(*other)
        };
        self.workers.iter().any(good)
    }

    /// Others get on and `worker` does not: shards that it has not loaded yet go to them, as far as they have room.
    pub(super) fn doubt(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if !self.workers.contains_key(&worker) || !self.troubles.doubted.insert(worker) {
            return;
        }
        for shard in self.placement.loading_of(worker) {
            if !self.move_load(shard, worker) {
                continue;
            }
            let attempts = self.tasks.reopen(&Work::Load(shard));
            out.extend(attempts.into_iter().map(|(worker, key)| Action::Cancel(worker, key)));
        }
    }

    /// Something went wrong at `worker`: it is left out where that goes on, and others can do without it.
    pub(super) fn trouble(
        &mut self,
        now: Millis,
        worker: WorkerId,
        what: Trouble,
        why: &Error,
        out: &mut Vec<Action>,
    ) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        let begun = if let Trouble::Late { since, .. } = what { since } else { now };
        let streak = self.troubles.streaks.entry(worker);
        let streak = streak.or_insert(Streak { since: begun, troubles: 0, lasting: 0 });
        streak.troubles += 1;
        streak.lasting += u32::from(matches!(what, Trouble::Lasting));
        let streak = *streak;
        let long = streak.troubles >= TROUBLES_MAX && now.saturating_sub(streak.since) >= TROUBLED_MS;
        if !long && streak.lasting < TROUBLES_MAX {
            return;
        }
        // Where nobody gets on, it is nobody's fault.
        let get_on = |(other, when): (&WorkerId, &Millis)| *other != worker && *when >= streak.since;
        // Or wait for it.
        let awaited = matches!(what, Trouble::Late { awaited: true, .. });
        let waits = |other: &WorkerId| {
            *other != worker
                && self.tasks.running_with(*other) == 0
                && !self.troubles.streaks.contains_key(other)
        };
        let others = self.troubles.finished.iter().any(get_on) || awaited && self.workers.keys().any(waits);
        if others && self.can_do_without(worker) {
            self.leave_out(worker, why, out);
        }
    }

    /// Whether the others may judge, have room for the shards of `worker`, and can do what there is to do.
    pub(super) fn can_do_without(&self, worker: WorkerId) -> bool {
        let others = || self.workers.iter().filter(|(other, state)| **other != worker && !state.leaving);
        let judged = !self.is_judging() || others().any(|(_, state)| state.judges);
        others().next().is_some()
            && judged
            && self.fits_without(worker)
            && self.hopeless(Some(worker)).is_none()
    }

    /// Goes on without a worker that is there.
    pub(super) fn leave_out(&mut self, worker: WorkerId, why: &Error, out: &mut Vec<Action>) {
        let text = format!("worker {} is left out of the run: {}", worker.0, why.chain());
        self.placement.left_out(&text);
        self.note(text, out);
        let its = self.tasks.running().into_iter().filter(|(with, _)| *with == worker);
        out.extend(its.map(|(worker, key)| Action::Cancel(worker, key)));
        let state = self.workers.get(&worker).cloned();
        self.lose(worker, out);
        if let Some(state) = state.filter(|state| !state.leaving) {
            self.troubles.left_out.insert(worker, state.again(worker));
        }
    }

    /// Takes back whom the run left out; false where there is nobody.
    pub(super) fn ask_again(&mut self, out: &mut Vec<Action>) -> bool {
        let left_out = std::mem::take(&mut self.troubles.left_out);
        let any = !left_out.is_empty();
        for worker in left_out.into_values() {
            self.note(format!("worker {} is asked again: there are too few others", worker.worker.0), out);
            self.join(worker, out);
        }
        any
    }

    /// Takes them back where `worker` is the only one, and in trouble.
    pub(super) fn ask_again_beside(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if !self.workers.iter().any(|(other, state)| *other != worker && !state.leaving) {
            self.ask_again(out);
        }
    }

    /// The attempt of a worker failed since it could not fetch from another one.
    pub(super) fn unreached(
        &mut self,
        now: Millis,
        (by, key): (WorkerId, TaskKey),
        source: WorkerId,
        out: &mut Vec<Action>,
    ) {
        if self.tasks.current(by, key).is_none() || by == source || !self.workers.contains_key(&source) {
            return;
        }
        self.troubles.blamed = Some((by, key));
        let new = Unreached { first: now, last: now, times: 0 };
        let unreached = self.troubles.unreached.entry((source, by)).or_insert(new);
        unreached.times += 1;
        unreached.last = now;
        let unreached = *unreached;
        if !unreached.lasts() {
            return;
        }
        let settled = self.troubles.settled.contains(&(source, by));
        let accuses = |by: &WorkerId| {
            self.troubles.unreached.get(&(source, *by)).is_some_and(Unreached::lasts)
                && !self.troubles.settled.contains(&(source, *by))
        };
        let others: Vec<WorkerId> = self.workers.keys().copied().filter(|other| *other != source).collect();
        let accusers: Vec<WorkerId> = others.iter().copied().filter(accuses).collect();
        let (all, many) = (others.len(), accusers.len());
        let text = |whom: String| Error::unavailable(format!("{whom} for {} s", UNREACHED_MS / 1000));
        if (many >= 2 || many == all) && self.can_do_without(source) {
            let why = text(format!(
                "{many} of {all} other workers could not fetch from it (is the address that it advertises right?)"
            ));
            self.troubles.settled.extend(accusers.iter().map(|by| (source, *by)));
            return self.excused(|machine| machine.leave_out(source, &why, out));
        }
        let reach =
            |(other, when): (&WorkerId, &Millis)| ![by, source].contains(other) && *when >= unreached.first;
        let alone = self.troubles.fetched.iter().any(reach) || many == all || settled;
        if alone && self.can_do_without(by) {
            let why = text(format!("it could not fetch from worker {}", source.0));
            self.excused(|machine| machine.leave_out(by, &why, out));
        }
    }

    /// Goes on without whoever made others fail, which is held against nothing any more.
    fn excused(&mut self, go_on: impl FnOnce(&mut Machine)) {
        go_on(self);
        self.tasks.excuse();
    }

    /// Whether this failure was put down to another worker.
    pub(super) fn is_blamed_on_another(&mut self, worker: WorkerId, key: TaskKey) -> bool {
        self.troubles.blamed.take() == Some((worker, key))
    }
}
