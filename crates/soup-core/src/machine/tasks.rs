//! Tasks and their attempts, and what becomes of them.

use super::{
    Action, BTreeMap, BTreeSet, Error, ErrorKind, Machine, Millis, NewWorker, Report, Score, Survey, TaskKey,
    TaskResult, Work, WorkerId, slices,
};

/// What the machine knows of a worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerState {
    pub(super) slots: u32,
    pub(super) capacity_bytes: u64,
    /// Attempts it has been given and not answered.
    pub(super) running: u32,
    /// Whether it knows the current placement.
    pub(super) placed: bool,
}

/// A numbered work.
#[derive(Debug)]
pub(super) struct Task {
    id: u64,
    attempt: u32,
    state: TaskState,
    transient_failures: u32,
    /// Workers that failed at it for a lasting reason.
    failed_on: BTreeSet<WorkerId>,
    /// The last such reason.
    reason: Option<(ErrorKind, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum TaskState {
    /// To be given out, not before this time.
    Open { not_before: Millis },
    /// With this worker.
    Running(WorkerId),
}

/// All tasks that are not done.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    by_work: BTreeMap<Work, Task>,
    by_id: BTreeMap<u64, Work>,
    next_id: u64,
}

impl Tasks {
    pub(super) fn is_empty(&self) -> bool {
        self.next_id == 0
    }

    /// Whether `work` may be given to `worker` now.
    pub(super) fn is_open(&self, work: &Work, now: Millis) -> bool {
        match self.by_work.get(work).map(|t| t.state) {
            None => true,
            Some(TaskState::Open { not_before }) => not_before <= now,
            Some(TaskState::Running(_)) => false,
        }
    }

    /// Whether `worker` has failed at `work` for a lasting reason.
    pub(super) fn failed_on(&self, work: &Work, worker: WorkerId) -> bool {
        self.by_work.get(work).is_some_and(|t| t.failed_on.contains(&worker))
    }

    /// Begins the next attempt at `work` on `worker`.
    pub(super) fn begin(&mut self, work: &Work, worker: WorkerId) -> TaskKey {
        if !self.by_work.contains_key(work) {
            self.next_id += 1;
            self.by_id.insert(self.next_id, work.clone());
            let state = TaskState::Open { not_before: 0 };
            let id = self.next_id;
            let (failed_on, reason) = (BTreeSet::new(), None);
            let task = Task { id, attempt: 0, state, transient_failures: 0, failed_on, reason };
            self.by_work.insert(work.clone(), task);
        }
        let task = self.by_work.get_mut(work).expect("inserted above");
        task.attempt += 1;
        task.state = TaskState::Running(worker);
        TaskKey { task: task.id, attempt: task.attempt }
    }

    /// The work of an attempt, if that attempt is the current one and with `worker`.
    fn current(&self, worker: WorkerId, key: TaskKey) -> Option<Work> {
        let work = self.by_id.get(&key.task)?;
        let task = self.by_work.get(work)?;
        (task.attempt == key.attempt && task.state == TaskState::Running(worker)).then(|| work.clone())
    }

    /// Forgets a work; returns who is at it.
    pub(super) fn forget(&mut self, work: &Work) -> Option<(WorkerId, TaskKey)> {
        let task = self.by_work.remove(work)?;
        self.by_id.remove(&task.id);
        match task.state {
            TaskState::Running(worker) => Some((worker, TaskKey { task: task.id, attempt: task.attempt })),
            TaskState::Open { .. } => None,
        }
    }

    /// All works that were given out and are not done.
    pub(super) fn works(&self) -> impl Iterator<Item = &Work> {
        self.by_work.keys()
    }

    /// Attempts that are with workers now.
    pub(super) fn running(&self) -> Vec<(WorkerId, TaskKey)> {
        let of = |t: &Task| match t.state {
            TaskState::Running(worker) => Some((worker, TaskKey { task: t.id, attempt: t.attempt })),
            TaskState::Open { .. } => None,
        };
        self.by_work.values().filter_map(of).collect()
    }

    /// Reopens everything that is with `worker`.
    pub(super) fn reopen_all_of(&mut self, worker: WorkerId) {
        for task in self.by_work.values_mut() {
            if task.state == TaskState::Running(worker) {
                task.state = TaskState::Open { not_before: 0 };
            }
        }
    }
}

impl Machine {
    /// An attempt succeeded: keeps its result, if it is the current attempt.
    pub(super) fn done(&mut self, worker: WorkerId, key: TaskKey, result: TaskResult, out: &mut Vec<Action>) {
        let Some(work) = self.tasks.current(worker, key) else { return };
        self.release(worker);
        self.tasks.forget(&work);
        match (work, result) {
            (Work::Load(shard), TaskResult::Loaded { sha256, notes }) => {
                self.loaded(worker, shard, sha256, out);
                notes.into_iter().for_each(|n| self.note(n, out));
            }
            (Work::Survey, TaskResult::Surveyed { samples, classes, notes }) => {
                notes.into_iter().for_each(|n| self.note(n, out));
                self.surveyed(&samples, classes, out);
            }
            (Work::Evaluate(evaluation, slice), TaskResult::Evaluated(outcomes)) => {
                self.homes.insert((evaluation.dataset, slice.index), worker);
                let got = outcomes.len() as u64;
                let expected = slice.end - slice.start;
                if got == expected {
                    self.scored(evaluation, slice.index, Score::from_iter(&outcomes), out);
                } else {
                    let text = format!("a worker returned {got} outcomes for {expected} samples");
                    self.finish(Err(Error::internal(text)), out);
                }
            }
            (Work::Write(_, file), TaskResult::Written(digest)) => self.written(file, digest, out),
            (Work::Digest(_), TaskResult::Digested(sha256)) => self.data_sha256 = Some(sha256),
            (work, result) => {
                let text = format!("a worker answered {work:?} with {result:?}");
                self.finish(Err(Error::internal(text)), out);
            }
        }
    }

    fn surveyed(&mut self, samples: &[u64], classes: u32, out: &mut Vec<Action>) {
        if samples.len() != self.plan.datasets as usize || samples.contains(&0) {
            let text = format!("a survey found datasets of {samples:?} samples; each needs at least one");
            return self.finish(Err(Error::data(text)), out);
        }
        let cut = |&n: &u64| slices(n, self.plan.batch_size);
        self.survey = Some(Survey { slices: samples.iter().map(cut).collect(), classes });
    }

    /// An attempt failed. A transient failure is tried again after a wait; wrong data fails the run at once, since it is
    /// wrong everywhere; any other failure is tried on another worker, and fails the run when that fails too.
    pub(super) fn failed(
        &mut self,
        now: Millis,
        worker: WorkerId,
        key: TaskKey,
        error: Error,
        out: &mut Vec<Action>,
    ) {
        let Some(work) = self.tasks.current(worker, key) else { return };
        self.release(worker);
        let limits = self.plan.limits;
        let task = self.tasks.by_work.get_mut(&work).expect("current() found it");
        let fatal = match error.kind() {
            kind if kind.is_transient() => {
                task.transient_failures += 1;
                task.transient_failures >= limits.transient_failures_max
            }
            ErrorKind::Data | ErrorKind::Usage => true,
            kind => {
                task.failed_on.insert(worker);
                task.reason = Some((kind, error.chain()));
                // Loading belongs to the owner.
                task.failed_on.len() as u32 >= limits.failed_workers_max
                    || matches!(work, Work::Load(_))
                    || self.workers.keys().all(|w| task.failed_on.contains(w))
            }
        };
        if fatal {
            return self.finish(Err(error), out);
        }
        let doublings = task.transient_failures.saturating_sub(1).min(16);
        let wait_ms = limits.backoff_ms.saturating_mul(1 << doublings).min(limits.backoff_ms_max);
        task.state = TaskState::Open { not_before: now.saturating_add(wait_ms) };
        self.note(format!("trying again: {}", error.chain()), out);
    }

    fn release(&mut self, worker: WorkerId) {
        if let Some(state) = self.workers.get_mut(&worker) {
            state.running = state.running.saturating_sub(1);
        }
    }

    pub(super) fn join(&mut self, new: NewWorker, out: &mut Vec<Action>) {
        let NewWorker { worker, slots, capacity_bytes } = new;
        let state = WorkerState { slots: slots.max(1), capacity_bytes, running: 0, placed: false };
        if self.workers.insert(worker, state).is_none() {
            out.push(Action::Begin(worker));
            out.push(self.workers_report(worker, true));
        }
    }

    pub(super) fn lose(&mut self, worker: WorkerId, out: &mut Vec<Action>) {
        if self.workers.remove(&worker).is_none() {
            return;
        }
        out.push(self.workers_report(worker, false));
        self.tasks.reopen_all_of(worker);
        self.homes.retain(|_, home| *home != worker);
        self.abandon_shards_of(worker);
        if let Some(error) = self.hopeless() {
            self.finish(Err(error), out);
        }
    }

    /// The reason why a task cannot be done any more: every worker that is left has failed at it.
    fn hopeless(&self) -> Option<Error> {
        let failed_everywhere =
            |t: &&Task| !t.failed_on.is_empty() && self.workers.keys().all(|w| t.failed_on.contains(w));
        let task =
            self.tasks.by_work.values().find(failed_everywhere).filter(|_| !self.workers.is_empty())?;
        task.reason.clone().map(|(kind, text)| Error::new(kind, text))
    }

    fn workers_report(&self, worker: WorkerId, joined: bool) -> Action {
        Action::Report(Report::Workers { count: self.workers.len() as u32, worker, joined })
    }
}
