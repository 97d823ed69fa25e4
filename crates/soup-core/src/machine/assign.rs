//! Handing out work: which worker gets what next.
//!
//! A worker is given one task more than it has slots, so that it never waits for the coordinator's answer. The survey comes
//! first, since it finds without a single parameter what would keep soups from being scored. Loading belongs to the
//! owners; everything else goes to whoever is free, slices preferably to the worker that has their samples decoded. A
//! worker that nothing is left for gets a slice that another one is slow at, and so it is with the survey.
//!
//! Every event ends in a [`dispatch`](Machine::dispatch), and of a thousand workers most may have nothing to do. So what
//! does not depend on who asks is found out once a dispatch, when somebody asks for it ([`Openings`]).

use super::progress::Progress;
use super::tasks::Late;
use super::{Action, BTreeMap, Evaluation, Machine, Millis, Slice, TaskKey, Work, WorkerId};
use crate::shard::Shard;

/// What is left to be given out in a dispatch.
struct Openings {
    now: Millis,
    /// Whether all shards are resident.
    ready: bool,
    /// Shards by owner, where that matters.
    owned: BTreeMap<WorkerId, Vec<Shard>>,
    /// The first goals: so many as somebody asked for.
    goals: Vec<OpenGoal>,
    writing: Vec<Work>,
    /// Slices that somebody is slow at, if somebody asked.
    late: Option<Vec<Late>>,
}

/// What is left of a goal.
struct OpenGoal {
    /// Slices that may be given out, in order.
    slices: Vec<OpenSlice>,
    /// Whether somebody is at one that was.
    begun: bool,
}

/// A slice of a goal that may be given out.
struct OpenSlice {
    slice: Slice,
    /// Who has it decoded.
    home: Option<WorkerId>,
    /// Whether somebody was at it before, and may have failed.
    tried: bool,
    /// Whether it is likely to be needed.
    soon: bool,
}

impl OpenSlice {
    /// One that `worker` has decoded before, else one that nobody has, else anybody's.
    fn preference(&self, worker: WorkerId) -> u32 {
        match self.home {
            Some(home) if home == worker => 0,
            None => 1,
            Some(_) => 2,
        }
    }
}

impl Openings {
    /// Somebody was given `work`.
    fn close(&mut self, work: &Work, goals: &[Evaluation]) {
        match work {
            Work::Evaluate(evaluation, slice) => {
                let of_goal = goals.iter().zip(&mut self.goals).filter(|(goal, _)| *goal == evaluation);
                for (_, open) in of_goal {
                    open.slices.retain(|o| o.slice != *slice);
                    open.begun = true;
                }
                // Where there is no patience at all, what was given out just now is late.
                self.late = None;
            }
            Work::Write(..) | Work::ReadBack(_) | Work::Digest(_) => self.writing.retain(|w| w != work),
            _ => {}
        }
    }
}

impl Machine {
    /// Gives tasks to free workers, one each in turn, until nothing fits any more.
    pub(super) fn dispatch(&mut self, now: Millis, out: &mut Vec<Action>) {
        let mut workers: Vec<WorkerId> = self.workers.keys().copied().filter(|w| self.is_free(*w)).collect();
        let mut openings = self.openings(now);
        let ready = openings.ready;
        let mut exhausted = false;
        while !workers.is_empty() && !exhausted {
            workers.retain(|&worker| {
                if exhausted || !self.is_free(worker) {
                    return false;
                }
                let Some(work) = self.pick(worker, &mut openings) else {
                    exhausted = self.exhausted(&openings);
                    return false;
                };
                if ready {
                    self.announce(worker, out);
                }
                let key = self.tasks.begin(&work, worker, now);
                if let Work::Evaluate(goal, _) = &work {
                    self.trying.assembles(worker, &goal.soup);
                }
                openings.close(&work, self.goals.wanted());
                out.push(Action::Assign(worker, key, work));
                true
            });
        }
        if ready {
            // Owners serve their shards even when they have no task, so all have to know the run's epoch and peers.
            let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
            workers.into_iter().for_each(|w| self.announce(w, out));
        }
    }

    /// What a worker is at in an attempt, if that is with it now: what it says of any other is of no use.
    pub fn at(&self, worker: WorkerId, key: TaskKey) -> Option<Work> {
        self.tasks.current(worker, key)
    }

    /// Whether a worker is to be given something: one task more than it has slots.
    fn is_free(&self, worker: WorkerId) -> bool {
        let state = self.workers.get(&worker);
        state.is_some_and(|state| !state.leaving && self.tasks.running_with(worker) <= state.slots)
    }

    fn openings(&self, now: Millis) -> Openings {
        let ready = self.placement.all_resident();
        let matters = !ready || !self.only_slices_left();
        let owned = if matters { self.placement.by_owner() } else { BTreeMap::new() };
        let mut writing = self.writing_works();
        writing.retain(|work| self.tasks.is_open(work, now));
        Openings { now, ready, owned, goals: Vec::new(), writing, late: None }
    }

    /// Whether nothing is left that belongs to the owners of shards, or that is not known before somebody asks for it.
    fn only_slices_left(&self) -> bool {
        let known = self.surveyed_enough() && self.measured_enough() && self.all_proved();
        let known = known && !self.plan.audit.any();
        let comparing = matches!(self.progress, Progress::Comparing(_));
        known && !self.learning.in_work() && !comparing && !self.plan.streams
    }

    /// Whether nothing is left for any worker, as far as somebody has asked already.
    fn exhausted(&self, openings: &Openings) -> bool {
        let asked = openings.goals.len() == self.goals.wanted().len()
            && openings.goals.iter().all(|g| g.slices.is_empty());
        let nobody_late = openings.late.as_ref().is_some_and(Vec::is_empty);
        openings.ready && self.only_slices_left() && asked && openings.writing.is_empty() && nobody_late
    }

    fn pick(&self, worker: WorkerId, openings: &mut Openings) -> Option<Work> {
        let now = openings.now;
        let own = openings.owned.get(&worker).map_or(&[][..], Vec::as_slice);
        let may = |work: &Work| self.tasks.is_open(work, now) && !self.is_barred(work, worker);
        let judges = self.workers.get(&worker).is_some_and(|state| state.judges);
        if !self.surveyed_enough() {
            let survey = Some(Work::Survey).filter(|work| may(work));
            return survey.or_else(|| self.pick_late(worker, openings)).filter(|_| judges);
        }
        if !openings.ready {
            return self.pick_load(worker, own, now).or_else(|| self.pick_reread(worker, false, now));
        }
        let judging = judges && self.is_proved(worker);
        self.pick_gram(worker, own, now)
            .or_else(|| self.pick_proof(worker).filter(|work| judges && may(work)))
            .or_else(|| self.pick_survey_again(&may).filter(|_| judges))
            .or_else(|| self.pick_reread(worker, true, now))
            .or_else(|| self.pick_learning(worker, own, judging, now))
            .or_else(|| self.pick_pass(worker, own, now))
            .or_else(|| self.pick_slice(worker, openings).filter(|_| judging))
            .or_else(|| self.pick_compare(worker, &may).filter(|_| judging))
            .or_else(|| self.pick_writing(worker, openings, judging))
            .or_else(|| self.pick_late(worker, openings).filter(|_| judging))
    }

    fn pick_writing(&self, worker: WorkerId, openings: &Openings, judging: bool) -> Option<Work> {
        // What is written may come from judges too.
        let writes = judging || !self.recomputes();
        let may = |work: &&Work| {
            (writes || matches!(work, Work::ReadBack(_)))
                && !self.is_barred(work, worker)
                && self.suits(work, worker)
        };
        openings.writing.iter().find(may).cloned()
    }

    /// The survey, where somebody surveyed the datasets who is not believed.
    fn pick_survey_again(&self, may: &dyn Fn(&Work) -> bool) -> Option<Work> {
        self.deeds.doubts_survey().then_some(Work::Survey).filter(may)
    }

    fn pick_load(&self, worker: WorkerId, own: &[Shard], now: Millis) -> Option<Work> {
        let loading = |shard: &&Shard| {
            self.placement.is_loading(**shard, worker) && !self.rereading.awaits(**shard, worker)
        };
        own.iter().filter(loading).map(|&s| Work::Load(s)).find(|work| self.tasks.is_open(work, now))
    }

    /// A slice of the most urgent goal that has one for `worker`: first of those that are likely to be needed, then of all. Of several goals
    /// that others are at, the one whose soup it has assembled.
    fn pick_slice(&self, worker: WorkerId, openings: &mut Openings) -> Option<Work> {
        let goals = self.goals.wanted();
        let pick = |goal: &Evaluation, open: &OpenGoal, soon: bool| {
            let work = |o: &OpenSlice| Work::Evaluate(goal.clone(), o.slice);
            let likely = open.slices.iter().filter(|o| o.soon || !soon);
            likely
                .filter(|o| !o.tried || !self.is_barred(&work(o), worker))
                .min_by_key(|o| (o.preference(worker), o.slice.index))
                .map(work)
        };
        let mut first = None;
        let mut under_way = true;
        for (index, goal) in goals.iter().enumerate() {
            if index == openings.goals.len() {
                openings.goals.push(self.open_goal(goal, openings.now));
            }
            let open = &openings.goals[index];
            under_way &= open.begun;
            let picked = pick(goal, open, true);
            if under_way && picked.is_some() && self.trying.has_assembled(worker, &goal.soup) {
                return picked;
            }
            first = first.or(picked);
            if !under_way && first.is_some() {
                return first;
            }
        }
        first.or_else(|| goals.iter().zip(&openings.goals).find_map(|(goal, open)| pick(goal, open, false)))
    }

    /// What is left of `goal`.
    fn open_goal(&self, goal: &Evaluation, now: Millis) -> OpenGoal {
        let mut begun = false;
        let mut given = self.tasks.slices_of(goal, now).peekable();
        let blends_settled = self.blends_settled(&goal.soup);
        let soon = self.needed_soon(goal);
        let open = |slice: Slice| {
            let given = given.next_if(|(s, _)| *s == slice);
            begun |= given.is_some_and(|(_, open)| !open);
            // What two have said waits for the blends that it is made of.
            let waits = !blends_settled && self.auditing.claims_of(goal, slice.index) >= 2;
            let may = given.is_none_or(|(_, open)| open) && !waits && !self.slice_done(goal, &slice);
            let home = self.judging.home(goal.dataset, &slice);
            let tried = given.is_some() || self.auditing.claims_of(goal, slice.index) > 0;
            may.then_some(OpenSlice { slice, home, tried, soon: slice.index < soon })
        };
        let slices = self.slices_for(goal).filter_map(open).collect();
        OpenGoal { slices, begun }
    }

    /// A slice that has been with one other worker for far longer than slices take, if `worker` is idle.
    fn pick_late(&self, worker: WorkerId, openings: &mut Openings) -> Option<Work> {
        if self.tasks.running_with(worker) > 0 {
            return None;
        }
        let now = openings.now;
        let late = openings.late.get_or_insert_with(|| self.tasks.late(now, self.plan.limits.straggler_ms));
        late.iter().find(|l| l.with != worker && !self.is_barred(&l.work, worker)).map(|l| l.work.clone())
    }
}
