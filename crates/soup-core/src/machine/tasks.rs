//! Tasks and their attempts, and what becomes of them.

use super::space::{Space, Tier};
use super::troubles::Trouble;
use super::{
    Action, BTreeMap, BTreeSet, Error, ErrorKind, Evaluation, Machine, Millis, NewWorker, Report, Slice,
    TaskKey, TaskResult, Work, WorkerId,
};
use crate::sequence::SequenceId;
use crate::shard::Shard;

/// What the machine knows of a worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerState {
    name: String,
    pub(super) slots: u32,
    pub(super) space: Space,
    /// Whether it may judge: it has the run's judge, and nothing speaks against that.
    pub(super) judges: bool,
    /// Shards it has from under an earlier coordinator, and where.
    pub(super) held: BTreeMap<Shard, Tier>,
    /// Whether it is about to go.
    pub(super) leaving: bool,
}

impl WorkerState {
    /// The worker that it is the state of, as it joins once more.
    pub(super) fn again(self, worker: WorkerId) -> NewWorker {
        let WorkerState { name, slots, space, judges, .. } = self;
        NewWorker { worker, name, slots, space, judges, held: Vec::new() }
    }
}

/// A numbered work.
#[derive(Debug)]
pub(super) struct Task {
    id: u64,
    /// Number of the last attempt.
    attempt: u32,
    /// Not to be given out before this time.
    not_before: Millis,
    /// The attempts that are with workers, by number, and since when. More than one only for stragglers.
    running: BTreeMap<u32, (WorkerId, Millis)>,
    transient_failures: u32,
    /// Workers that failed at it for a lasting reason.
    failed_on: BTreeSet<WorkerId>,
    /// The last such reason.
    reason: Option<(ErrorKind, String)>,
    /// How often it was taken back from a worker whose time was over.
    taken_back: u32,
    /// Workers that were slow at it, or failed in a way that may pass: others are asked first.
    late_on: BTreeSet<WorkerId>,
}

/// An attempt whose time is over.
#[derive(Debug)]
pub(super) struct Overdue {
    pub(super) worker: WorkerId,
    pub(super) key: TaskKey,
    pub(super) work: Work,
    pub(super) since: Millis,
}

/// A slice that has been with one worker for too long.
#[derive(Debug)]
pub(super) struct Late {
    since: Millis,
    pub(super) with: WorkerId,
    pub(super) work: Work,
}

impl Task {
    fn is_open(&self, now: Millis) -> bool {
        self.running.is_empty() && self.not_before <= now
    }

    fn attempts(&self) -> impl Iterator<Item = (WorkerId, TaskKey)> {
        self.running.iter().map(|(&attempt, &(worker, _))| (worker, TaskKey { task: self.id, attempt }))
    }
}

/// Milliseconds after which an idle worker is asked to survey too.
const SURVEY_MS: Millis = 5_000;

/// Whether a worker can do a work at all; `recomputes`: whether what is written comes from judges too.
pub(super) fn may(work: &Work, worker: &WorkerState, recomputes: bool) -> bool {
    let judged = match work {
        Work::Survey | Work::Evaluate(..) | Work::Prove(..) | Work::Differentiate(_) | Work::Compare(_) => {
            true
        }
        Work::Write(..) | Work::Digest(_) => recomputes,
        Work::Load(_)
        | Work::Dot(_)
        | Work::Gram(_)
        | Work::Pass(_)
        | Work::ReadBack(_)
        | Work::Reread(..) => false,
    };
    worker.judges || !judged
}

/// Whether an error is about what was asked for, or read, which is the same for all workers: if it is true.
fn is_wrong_everywhere(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Data | ErrorKind::Usage)
}

/// All tasks that are not done.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    by_work: BTreeMap<Work, Task>,
    by_id: BTreeMap<u64, Work>,
    next_id: u64,
    /// How many attempts are with each worker.
    running: BTreeMap<WorkerId, u32>,
    /// Owners that failed for good at what belongs to them. Unlike the tasks they are kept when a shard changes its owner.
    owners_failed: BTreeMap<Work, u32>,
    /// Slices that were scored, and how long they were with their workers, all together.
    slices: u64,
    slices_ms: Millis,
}

impl Tasks {
    pub(super) fn is_empty(&self) -> bool {
        self.next_id == 0
    }

    /// Whether `work` may be given out now.
    pub(super) fn is_open(&self, work: &Work, now: Millis) -> bool {
        self.by_work.get(work).is_none_or(|t| t.is_open(now))
    }

    /// Whether `worker` has failed at `work` for a lasting reason.
    pub(super) fn failed_on(&self, work: &Work, worker: WorkerId) -> bool {
        self.by_work.get(work).is_some_and(|t| t.failed_on.contains(&worker))
    }

    /// Whether `worker` was slow at `work`, or failed in a way that may pass.
    pub(super) fn was_late(&self, work: &Work, worker: WorkerId) -> bool {
        self.by_work.get(work).is_some_and(|t| t.late_on.contains(&worker))
    }

    /// The attempts whose time is over, which `allowed` tells of a worker, a work and how often that was taken back.
    pub(super) fn overdue(
        &self,
        now: Millis,
        allowed: impl Fn(WorkerId, &Work, u32) -> Millis,
    ) -> Vec<Overdue> {
        let of = |(work, task): (&Work, &Task)| {
            let late = |(&attempt, &(worker, since)): (&u32, &(WorkerId, Millis))| {
                let over = now.saturating_sub(since) >= allowed(worker, work, task.taken_back);
                let key = TaskKey { task: task.id, attempt };
                over.then(|| Overdue { worker, key, work: work.clone(), since })
            };
            task.running.iter().filter_map(late).collect::<Vec<_>>()
        };
        self.by_work.iter().flat_map(of).collect()
    }

    /// Takes an attempt back from a worker whose time is over; how often that was done with this work.
    pub(super) fn take_back(&mut self, work: &Work, worker: WorkerId, key: TaskKey) -> u32 {
        self.end_attempt(work, key);
        let Some(task) = self.by_work.get_mut(work) else { return 0 };
        task.late_on.insert(worker);
        task.taken_back += 1;
        task.taken_back
    }

    /// Takes all attempts at a work back, which is given to others; returns who was at it.
    pub(super) fn reopen(&mut self, work: &Work) -> Vec<(WorkerId, TaskKey)> {
        let Some(task) = self.by_work.get_mut(work) else { return Vec::new() };
        let attempts: Vec<_> = task.attempts().collect();
        task.running.clear();
        task.not_before = 0;
        attempts.iter().for_each(|(worker, _)| self.release(*worker));
        attempts
    }

    /// What failed so far in a way that may pass is held against no work any more.
    pub(super) fn excuse(&mut self) {
        for task in self.by_work.values_mut() {
            (task.transient_failures, task.not_before) = (0, 0);
            task.late_on.clear();
        }
    }

    /// Whether any worker has.
    pub(super) fn has_failed(&self, work: &Work) -> bool {
        self.by_work.get(work).is_some_and(|t| !t.failed_on.is_empty())
    }

    /// Begins the next attempt at `work` on `worker`.
    pub(super) fn begin(&mut self, work: &Work, worker: WorkerId, now: Millis) -> TaskKey {
        if !self.by_work.contains_key(work) {
            self.next_id += 1;
            self.by_id.insert(self.next_id, work.clone());
        }
        let task = self.by_work.entry(work.clone()).or_insert_with(|| Task {
            id: self.next_id,
            attempt: 0,
            not_before: 0,
            running: BTreeMap::new(),
            transient_failures: 0,
            failed_on: BTreeSet::new(),
            reason: None,
            taken_back: 0,
            late_on: BTreeSet::new(),
        });
        task.attempt += 1;
        *self.running.entry(worker).or_default() += 1;
        task.running.insert(task.attempt, (worker, now));
        TaskKey { task: task.id, attempt: task.attempt }
    }

    /// The work of an attempt, if that attempt is with `worker` now.
    pub(super) fn current(&self, worker: WorkerId, key: TaskKey) -> Option<Work> {
        let work = self.by_id.get(&key.task)?;
        let &(with, _) = self.by_work.get(work)?.running.get(&key.attempt)?;
        (with == worker).then(|| work.clone())
    }

    /// Forgets a work; returns who is at it.
    pub(super) fn forget(&mut self, work: &Work) -> Vec<(WorkerId, TaskKey)> {
        let Some(task) = self.by_work.remove(work) else { return Vec::new() };
        self.by_id.remove(&task.id);
        let attempts: Vec<_> = task.attempts().collect();
        attempts.iter().for_each(|(worker, _)| self.release(*worker));
        attempts
    }

    /// An attempt was answered, and the work is not done.
    fn end_attempt(&mut self, work: &Work, key: TaskKey) {
        let attempt = self.by_work.get_mut(work).and_then(|task| task.running.remove(&key.attempt));
        if let Some((worker, _)) = attempt {
            self.release(worker);
        }
    }

    fn release(&mut self, worker: WorkerId) {
        self.running.entry(worker).and_modify(|n| *n = n.saturating_sub(1));
    }

    /// Attempts that are with `worker`.
    pub(super) fn running_with(&self, worker: WorkerId) -> u32 {
        self.running.get(&worker).copied().unwrap_or(0)
    }

    /// How many attempts at works that `is` accepts are with `worker`.
    pub(super) fn count_of(&self, worker: WorkerId, is: impl Fn(&Work) -> bool) -> u32 {
        let with = |task: &Task| task.running.values().any(|(with, _)| *with == worker);
        self.by_work.iter().filter(|(work, task)| is(work) && with(task)).count() as u32
    }

    /// All works that were given out and are not done.
    pub(super) fn works(&self) -> impl Iterator<Item = &Work> {
        self.by_work.keys()
    }

    /// Attempts that are with workers now.
    pub(super) fn running(&self) -> Vec<(WorkerId, TaskKey)> {
        self.by_work.values().flat_map(Task::attempts).collect()
    }

    /// Reopens everything that is with `worker` alone.
    pub(super) fn reopen_all_of(&mut self, worker: WorkerId) {
        self.running.remove(&worker);
        for task in self.by_work.values_mut() {
            let before = task.running.len();
            task.running.retain(|_, (with, _)| *with != worker);
            if task.running.is_empty() && before > 0 {
                task.not_before = 0;
            }
        }
    }

    /// Notes how long something took that is done now.
    fn clock(&mut self, work: &Work, key: TaskKey, now: Millis) -> Millis {
        let since = self.by_work.get(work).and_then(|t| t.running.get(&key.attempt)).map_or(now, |&(_, s)| s);
        let took_ms = now.saturating_sub(since);
        if matches!(work, Work::Evaluate(..)) {
            self.slices += 1;
            self.slices_ms = self.slices_ms.saturating_add(took_ms);
        }
        took_ms
    }

    /// The tasks at slices of `evaluation`, in the order of the slices, and whether each may be given out now.
    pub(super) fn slices_of(
        &self,
        evaluation: &Evaluation,
        now: Millis,
    ) -> impl Iterator<Item = (Slice, bool)> {
        let at = |index, bound| {
            let slice = Slice { index, start: bound, end: bound, sequence: SequenceId(bound) };
            Work::Evaluate(evaluation.clone(), slice)
        };
        let tasks = self.by_work.range(at(0, 0)..=at(u32::MAX, u64::MAX));
        tasks.filter_map(move |(work, task)| match work {
            Work::Evaluate(_, slice) => Some((*slice, task.is_open(now))),
            _ => None,
        })
    }

    /// Slices that have been with one worker for far longer than slices take, or the survey, those that have been so longest first.
    /// Giving one to an idle worker too costs nothing, since both get the same answer and the first one counts.
    pub(super) fn late(&self, now: Millis, at_least_ms: Millis) -> Vec<Late> {
        let late_ms = at_least_ms.max(3 * self.slices_ms.checked_div(self.slices).unwrap_or(0));
        let alone = |(work, task): (&Work, &Task)| {
            let (&(with, since), 1) = (task.running.values().next()?, task.running.len()) else {
                return None;
            };
            let patience_ms = match work {
                Work::Evaluate(..) => late_ms,
                // Nothing else can be done before.
                Work::Survey => at_least_ms.max(SURVEY_MS),
                _ => return None,
            };
            let late = now.saturating_sub(since) >= patience_ms;
            late.then(|| Late { since, with, work: work.clone() })
        };
        let mut late: Vec<Late> = self.by_work.iter().filter_map(alone).collect();
        late.sort_by_key(|l| l.since);
        late
    }
}

impl Machine {
    /// An attempt succeeded: keeps its result, if it is the current attempt.
    pub(super) fn done(
        &mut self,
        now: Millis,
        worker: WorkerId,
        key: TaskKey,
        result: TaskResult,
        out: &mut Vec<Action>,
    ) {
        let Some(work) = self.tasks.current(worker, key) else { return };
        let said = self.check_recomputed(worker, key, &work);
        if let Err(error) = said.and_then(|()| self.check_answer(&work, &result)) {
            return self.failed(now, worker, key, error, out);
        }
        let took_ms = self.tasks.clock(&work, key, now);
        self.deadlines.took(&self.plan, worker, &work, took_ms);
        self.troubles.finished(worker, &work, now);
        for (other, running) in self.tasks.forget(&work) {
            if running == key {
                continue;
            }
            out.push(Action::Cancel(other, running));
            if running.attempt < key.attempt {
                self.doubt(other, out);
            }
        }
        match (work, result) {
            (Work::Load(shard), TaskResult::Loaded { digests, notes }) => {
                self.loaded(worker, shard, digests, out);
                notes.into_iter().for_each(|n| self.note(n, out));
            }
            (Work::Survey, TaskResult::Surveyed { survey, notes }) => {
                notes.into_iter().for_each(|n| self.note(n, out));
                if self.deeds.doubts_survey() {
                    return self.surveyed_again(worker, &survey, out);
                }
                self.deeds.surveyed(worker);
                if let Err(error) = self.know(survey) {
                    self.finish(Err(error), out);
                }
            }
            (Work::Evaluate(evaluation, slice), TaskResult::Evaluated(judged)) => {
                if let Err(error) = self.evaluated(worker, evaluation, slice, judged, out) {
                    self.finish(Err(error), out);
                }
            }
            (Work::Prove(..), TaskResult::Proved(proof)) => self.proved(worker, *proof, out),
            (Work::Write(_, file), TaskResult::Written(digest)) => self.written(worker, file, digest, out),
            (Work::ReadBack(file), TaskResult::ReadBack { bytes, sha256 }) => {
                self.read_back(worker, file, (bytes, sha256), out);
            }
            (Work::Digest(_), TaskResult::Digested(sha256)) => self.writing.digested(sha256),
            (Work::Differentiate(work), TaskResult::Differentiated(figures)) => {
                self.differentiated(worker, &work, figures);
            }
            (Work::Dot(work), TaskResult::Dotted(segments)) => self.dotted(worker, &work, segments, out),
            (Work::Gram(shard), TaskResult::Measured(grams)) => {
                self.deeds.measured(worker);
                self.gram_done(shard, grams, out);
            }
            (Work::Reread(shard, soup), TaskResult::Reread(found)) => {
                self.reread(worker, shard, soup.as_deref(), found, out);
            }
            (Work::Compare(work), TaskResult::Compared(found)) => self.compare_done(&work, *found, out),
            (Work::Pass(shard), TaskResult::Passed { digests, grams, notes }) => {
                self.passed(worker, shard, digests, grams, notes, out);
            }
            // Checked before.
            _ => {}
        }
    }

    /// An attempt failed. A transient failure is tried again after a wait. Any other is tried on another worker, and fails the run when
    /// that fails too: what is wrong with the data is so everywhere, but a worker may have another copy of it, or none. What concerns
    /// a shard belongs to its owner: one that cannot do it (its disk cache is full, it does not reach the store) is left out of the run, as
    /// long as there are others.
    pub(super) fn failed(
        &mut self,
        now: Millis,
        worker: WorkerId,
        key: TaskKey,
        error: Error,
        out: &mut Vec<Action>,
    ) {
        let Some(work) = self.tasks.current(worker, key) else { return };
        self.tasks.end_attempt(&work, key);
        self.auditing.look_again();
        self.ask_again_beside(worker, out);
        let blamed = self.is_blamed_on_another(worker, key);
        let here_only = matches!(work, Work::Prove(..));
        let truth = self.truth_is_known();
        let moves = matches!(work, Work::Load(_)) && is_wrong_everywhere(&error);
        let transient = error.kind().is_transient();
        let fatal = self.is_fatal(worker, &work, &error);
        // Wrong data is wrong everywhere, unless another worker has judged it already.
        let wrong_here = error.kind() != ErrorKind::Data || truth;
        let lasting = fatal || !transient;
        if here_only && lasting && wrong_here {
            return self.exclude(worker, error, out);
        }
        let owners = matches!(work, Work::Load(_) | Work::Dot(_) | Work::Gram(_) | Work::Pass(_));
        let others = self.workers.iter().any(|(other, state)| *other != worker && !state.leaving);
        if owners && others && lasting && !moves {
            let failed = self.tasks.owners_failed.entry(work.clone()).or_default();
            *failed += 1;
            return match *failed < self.plan.limits.failed_workers_max {
                true => self.leave_out(worker, &error, out),
                false => self.finish(Err(error), out),
            };
        }
        if fatal {
            return self.finish(Err(error), out);
        }
        self.postpone(now, worker, &work);
        self.note(format!("trying again: {}", error.chain()), out);
        if let Work::Load(shard) = work
            && lasting
        {
            self.move_load(shard, worker);
        }
        match (transient, blamed) {
            (true, true) => {}
            (true, false) => self.trouble(now, worker, Trouble::Passing, &error, out),
            (false, _) => self.trouble(now, worker, Trouble::Lasting, &error, out),
        }
    }

    /// Notes a failure with its task; whether that ends the run, as far as other tasks do not matter.
    fn is_fatal(&mut self, worker: WorkerId, work: &Work, error: &Error) -> bool {
        let limits = self.plan.limits;
        let others = self.workers.iter().any(|(other, state)| *other != worker && !state.leaving);
        let recomputes = self.recomputes();
        // What is wrong with a shard is asked of one more worker where that has room for it.
        let another = match work {
            Work::Load(shard) => self.has_room_elsewhere(*shard, worker),
            _ => true,
        };
        let Some(task) = self.tasks.by_work.get_mut(work) else { return false };
        if error.kind().is_transient() {
            task.transient_failures += 1;
            task.late_on.insert(worker);
            return task.transient_failures >= limits.transient_failures_max;
        }
        task.failed_on.insert(worker);
        task.reason = Some((error.kind(), error.chain()));
        let left = |(w, state): (&WorkerId, &WorkerState)| {
            may(work, state, recomputes) && !task.failed_on.contains(w)
        };
        let nobody = match work {
            Work::Load(_) if is_wrong_everywhere(error) => !another,
            Work::Prove(..) if is_wrong_everywhere(error) => true,
            Work::Load(_) | Work::Dot(_) | Work::Gram(_) | Work::Pass(_) => !others,
            _ => false,
        };
        task.failed_on.len() as u32 >= limits.failed_workers_max || nobody || !self.workers.iter().any(left)
    }

    /// Does not give `work` out for a while, longer each time.
    fn postpone(&mut self, now: Millis, worker: WorkerId, work: &Work) {
        let limits = self.plan.limits;
        // Who failed for good is not asked again: another one need not wait.
        let waits = !self.tasks.failed_on(work, worker);
        let Some(task) = self.tasks.by_work.get_mut(work) else { return };
        let doublings = task.transient_failures.saturating_sub(1).min(16);
        let wait_ms = limits.backoff_ms.saturating_mul(1 << doublings).min(limits.backoff_ms_max);
        let wait_ms = if waits { wait_ms } else { limits.backoff_ms };
        task.not_before = now.saturating_add(wait_ms);
    }

    /// Who could be given `work`, as far as is known.
    pub(super) fn able_to(&self, work: &Work) -> impl Iterator<Item = WorkerId> {
        let recomputes = self.recomputes();
        let able = move |(worker, state): &(&WorkerId, &WorkerState)| {
            !state.leaving && may(work, state, recomputes) && !self.is_barred(work, **worker)
        };
        self.workers.iter().filter(able).map(|(worker, _)| *worker)
    }

    /// Forgets a work, and takes its attempts back from their workers.
    pub(super) fn withdraw(&mut self, work: &Work, out: &mut Vec<Action>) {
        let attempts = self.tasks.forget(work).into_iter();
        out.extend(attempts.map(|(worker, key)| Action::Cancel(worker, key)));
    }

    /// Withdraws all works that `which` accepts.
    pub(super) fn withdraw_where(&mut self, which: impl Fn(&Work) -> bool, out: &mut Vec<Action>) {
        let works: Vec<Work> = self.tasks.works().filter(|work| which(work)).cloned().collect();
        works.iter().for_each(|work| self.withdraw(work, out));
    }

    pub(super) fn join(&mut self, new: NewWorker, out: &mut Vec<Action>) {
        let NewWorker { worker, name, slots, space, judges, held } = new;
        let (slots, held) = (slots.max(1), held.into_iter().collect());
        let state = WorkerState { name: name.clone(), slots, space, judges, held, leaving: false };
        if self.workers.insert(worker, state).is_none() {
            out.push(Action::Begin(worker));
            out.push(self.workers_report(worker, true));
            self.is_called(worker, name);
            self.auditing.look_again();
        }
    }

    pub(super) fn lose(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        self.troubles.lose(worker);
        if self.workers.remove(&worker).is_none() {
            return;
        }
        out.push(self.workers_report(worker, false));
        self.deadlines.lose(worker);
        self.auditing.look_again();
        self.tasks.reopen_all_of(worker);
        self.judging.lose(worker);
        self.trying.lose(worker);
        self.lose_proof(worker, out);
        self.lose_gradients(worker, out);
        self.abandon_shards_of(worker);
        self.end_where_hopeless(out);
    }

    /// Ends the run where there is work that nobody can do any more, not even those whom it left out. Whether it did.
    pub(super) fn end_where_hopeless(&mut self, out: &mut Vec<Action>) -> bool {
        if self.hopeless(None).is_some() {
            self.ask_again(out);
        }
        let Some(error) = self.hopeless(None) else { return false };
        self.finish(Err(error), out);
        true
    }

    /// The reason why a task cannot be done any more: every worker that is left, but for one, has failed at it.
    pub(super) fn hopeless(&self, but: Option<WorkerId>) -> Option<Error> {
        let left = || self.workers.iter().filter(move |(worker, _)| Some(**worker) != but);
        let failed_everywhere = |(work, t): &(&Work, &Task)| {
            // Of what is audited, what was said before is enough where nobody else can say anything.
            let audits = matches!(work, Work::Reread(..)) || self.auditing.awaits(work);
            let can = |(w, state): (&WorkerId, &WorkerState)| {
                may(work, state, self.recomputes()) && !t.failed_on.contains(w)
            };
            !audits && !t.failed_on.is_empty() && !left().any(can)
        };
        let (_, task) =
            self.tasks.by_work.iter().find(failed_everywhere).filter(|_| left().next().is_some())?;
        task.reason.clone().map(|(kind, text)| Error::new(kind, text))
    }

    fn workers_report(&self, worker: WorkerId, joined: bool) -> Action {
        Action::Report(Report::Workers { count: self.workers.len() as u32, worker, joined })
    }
}
