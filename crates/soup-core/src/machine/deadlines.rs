//! Deadlines of attempts: a worker that is heard, and does nothing, must not hold a run up.
//!
//! Nobody knows beforehand how long a load or a slice takes; what such work took so far in this run tells it. So an attempt has a
//! multiple of the slowest of its kind, scaled to its size, and much more where nothing of its kind is known yet: judges compile, load
//! libraries, and decode what they see first. When that is over, the attempt is taken back, and the work goes to another worker. Where
//! there is none, the same one is asked again and has twice as long, so that whoever is slow and nothing else gets done in the end.
//!
//! Time is what events say. What is known of paces is this machine's own: a later one learns them anew.

use super::tasks::Overdue;
use super::troubles::Trouble;
use super::{Action, BTreeMap, BTreeSet, Error, Machine, Millis, Plan, TaskKey, Work, WorkerId};

/// An attempt may take so many times what the slowest one took.
const TIMES: u64 = 8;
/// Milliseconds that every attempt may take.
const LEAST_MS: Millis = 20_000;
/// Milliseconds that the first of a kind may take, and the first that a worker judges.
const FIRST_MS: Millis = 600_000;
/// The same of slices, which nobody waits for: idle workers are given those of others long before.
const FIRST_SLICE_MS: Millis = 3_600_000;
/// Longest deadline in milliseconds that follows from others' pace, as long as that is more than twice as long as the slowest took.
const MOST_MS: Millis = 6 * 3_600_000;
/// Bytes in a millisecond that any disk, store or network can move, where nothing is known yet.
const BYTES_PER_MS: u64 = 10_000;
/// A deadline doubles so often at most.
const DOUBLINGS_MAX: u32 = 16;

/// Works whose times are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Load,
    Survey,
    Evaluate,
    Prove,
    Write,
    ReadBack,
    Reread,
    Digest,
    Differentiate,
    Dot,
    Gram,
    Compare,
    Pass,
}

impl Kind {
    fn of(work: &Work) -> Kind {
        match work {
            Work::Load(_) => Kind::Load,
            Work::Survey => Kind::Survey,
            Work::Evaluate(..) => Kind::Evaluate,
            Work::Prove(..) => Kind::Prove,
            Work::Write(..) => Kind::Write,
            Work::ReadBack(_) => Kind::ReadBack,
            Work::Reread(..) => Kind::Reread,
            Work::Digest(_) => Kind::Digest,
            Work::Differentiate(_) => Kind::Differentiate,
            Work::Dot(_) => Kind::Dot,
            Work::Gram(_) => Kind::Gram,
            Work::Compare(_) => Kind::Compare,
            Work::Pass(_) => Kind::Pass,
        }
    }

    /// Whether judges do it, which are slow at first, each of them.
    fn is_judged(self) -> bool {
        matches!(self, Kind::Survey | Kind::Evaluate | Kind::Prove | Kind::Differentiate | Kind::Compare)
    }
}

/// How long works of one kind took.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    slowest_ms: Millis,
    /// Time and size of the one that took longest for its size.
    steepest: (Millis, u64),
}

impl Pace {
    fn took(&mut self, ms: Millis, size: u64) {
        self.slowest_ms = self.slowest_ms.max(ms);
        let (of_ms, of_size) = self.steepest;
        if of_size == 0 || u128::from(ms) * u128::from(of_size) > u128::from(of_ms) * u128::from(size) {
            self.steepest = (ms, size.max(1));
        }
    }

    /// What the slowest would have taken for this size. Never less than it took: much of what is done does not depend on size.
    fn slowest_for(&self, size: u64) -> Millis {
        let (ms, of_size) = self.steepest;
        let scaled = u128::from(ms) * u128::from(size) / u128::from(of_size.max(1));
        self.slowest_ms.max(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

/// What is known of how long works take.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    paces: BTreeMap<Kind, Pace>,
    /// Who has judged anything.
    warm: BTreeSet<WorkerId>,
    /// The longest that any attempt took: another may have waited behind it.
    longest_ms: Millis,
}

impl Deadlines {
    /// `worker` has done `work` in so many milliseconds.
    pub(super) fn took(&mut self, plan: &Plan, worker: WorkerId, work: &Work, ms: Millis) {
        let kind = Kind::of(work);
        self.paces.entry(kind).or_default().took(ms, size(plan, work));
        self.longest_ms = self.longest_ms.max(ms);
        if kind.is_judged() && kind != Kind::Survey {
            self.warm.insert(worker);
        }
    }

    /// A worker is gone.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.warm.remove(&worker);
    }

    /// How long an attempt at `work` may be with `worker`, after so many that were taken back; `awaited`: whether others wait for it.
    pub(super) fn of(
        &self,
        plan: &Plan,
        (worker, work): (WorkerId, &Work),
        taken_back: u32,
        awaited: bool,
    ) -> Millis {
        let kind = Kind::of(work);
        let cold = kind.is_judged() && !self.warm.contains(&worker);
        // A load reads as much.
        let like = if kind == Kind::Reread && !plan.streams { Kind::Load } else { kind };
        let pace = self.paces.get(&kind).or_else(|| self.paces.get(&like));
        let by_pace = pace.map(|pace| {
            let slowest = pace.slowest_for(size(plan, work));
            slowest.saturating_mul(TIMES).min(MOST_MS).max(slowest.saturating_mul(2)).max(LEAST_MS)
        });
        let first_ms = if kind == Kind::Evaluate && !awaited { FIRST_SLICE_MS } else { FIRST_MS };
        let at_first = || first_ms.saturating_add(bytes(plan, work) / BYTES_PER_MS);
        let alone = match by_pace {
            Some(by_pace) if cold => by_pace.max(at_first()),
            Some(by_pace) => by_pace,
            None => at_first(),
        };
        alone.saturating_add(self.longest_ms).saturating_mul(1 << taken_back.min(DOUBLINGS_MAX))
    }
}

/// By what the time that a work takes grows: samples where something is judged, else bytes.
fn size(plan: &Plan, work: &Work) -> u64 {
    match work {
        Work::Evaluate(_, slice) | Work::Prove(_, _, slice) => slice.end - slice.start,
        Work::Compare(of) => of.slice.end - of.slice.start,
        Work::Differentiate(part) => part.samples.len() as u64,
        Work::Survey => 1,
        other => bytes(plan, other),
    }
    .max(1)
}

/// Bytes that a work reads, fetches or writes.
fn bytes(plan: &Plan, work: &Work) -> u64 {
    let shard = |shard: u32| plan.shard_bytes.get(shard as usize).copied().unwrap_or(0);
    match work {
        // What is not kept is not read by a load, but by whoever wants its blend.
        Work::Load(_) if plan.streams => 0,
        Work::Reread(..) if plan.streams => plan.pool_bytes / (plan.shard_bytes.len() as u64).max(1),
        Work::Pass(_) => plan.pool_bytes / (plan.shard_bytes.len() as u64).max(1),
        Work::Load(s) | Work::Gram(s) | Work::Reread(s, _) => shard(s.0),
        Work::Dot(dot) => shard(dot.shard.0),
        Work::Survey => 0,
        Work::Write(..) | Work::Digest(_) if plan.streams => plan.pool_bytes,
        Work::Write(..)
        | Work::ReadBack(_)
        | Work::Digest(_)
        | Work::Evaluate(..)
        | Work::Prove(..)
        | Work::Differentiate(_)
        | Work::Compare(_) => plan.pool_bytes / u64::from(plan.ingredients.max(1)),
    }
}

/// What people call a work.
pub(super) fn told(work: &Work) -> String {
    match work {
        Work::Load(shard) => format!("loading shard {}", shard.0),
        Work::Survey => "surveying the datasets".to_owned(),
        Work::Evaluate(e, slice) => {
            format!("judging samples {} to {} of dataset {}", slice.start, slice.end, e.dataset.0)
        }
        Work::Prove(..) => "proving its judge".to_owned(),
        Work::Write(_, file) => format!("writing file {file}"),
        Work::ReadBack(file) => format!("reading file {file} back"),
        Work::Digest(_) => "digesting the soup".to_owned(),
        Work::Differentiate(part) => format!("differentiating part {} of step {}", part.part, part.step),
        Work::Dot(dot) => format!("multiplying a gradient with shard {}", dot.shard.0),
        Work::Reread(shard, _) => format!("reading shard {} again", shard.0),
        Work::Gram(shard) => format!("multiplying shard {}", shard.0),
        Work::Compare(of) => {
            format!("comparing samples {} to {} of dataset {}", of.slice.start, of.slice.end, of.dataset.0)
        }
        Work::Pass(shard) => format!("telling what it found in shard {}", shard.0),
    }
}

impl Machine {
    /// Takes back the attempts whose time is over.
    pub(super) fn take_back_overdue(&mut self, now: Millis, out: &mut Vec<Action>) {
        let overdue = self.tasks.overdue(now, |worker, work, taken_back| {
            // Who has answered for an audited slice cannot be asked again.
            let awaited = self.auditing.awaits(work);
            self.deadlines.of(&self.plan, (worker, work), taken_back, awaited)
        });
        let mut late: BTreeMap<WorkerId, (Millis, bool)> = BTreeMap::new();
        for Overdue { worker, key, work, since } in overdue {
            if !self.progress.is_open() {
                return;
            }
            let owners = matches!(work, Work::Gram(_) | Work::Dot(_) | Work::Pass(_));
            let waited_for = owners || matches!(work, Work::Reread(..)) || self.auditing.awaits(&work);
            let (first, awaited) = late.entry(worker).or_insert((since, false));
            (*first, *awaited) = (since.min(*first), *awaited || waited_for);
            self.take_back(now.saturating_sub(since), (worker, key), &work, out);
        }
        for (worker, (since, awaited)) in late {
            self.doubt(worker, out);
            let text = "its heartbeats come, and what it is asked for does not get done";
            self.trouble(now, worker, Trouble::Late { since, awaited }, &Error::unavailable(text), out);
        }
    }

    fn take_back(
        &mut self,
        after_ms: Millis,
        (worker, key): (WorkerId, TaskKey),
        work: &Work,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Cancel(worker, key));
        self.ask_again_beside(worker, out);
        let taken_back = self.tasks.take_back(work, worker, key);
        let text = format!("worker {} is not done with {} after {} s", worker.0, told(work), after_ms / 1000);
        if taken_back >= self.plan.limits.transient_failures_max {
            let text = format!("{text}, and this was attempt {taken_back}");
            return self.finish(Err(Error::unavailable(text)), out);
        }
        if matches!(work, Work::Prove(..)) && self.another_answered(worker) {
            return self.exclude(worker, Error::unavailable(text), out);
        }
        if let Work::Load(shard) = work {
            self.move_load(*shard, worker);
        }
        self.note(format!("trying again: {text}"), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_scaled_up_and_never_down() {
        let mut pace = Pace::default();
        pace.took(100, 10);
        assert_eq!([1, 10, 20, 1000].map(|size| pace.slowest_for(size)), [100, 100, 200, 10_000]);
        // Faster for its size, and slower as a whole.
        pace.took(200, 100);
        assert_eq!([1, 10, 20, 1000].map(|size| pace.slowest_for(size)), [200, 200, 200, 10_000]);
        assert_eq!(pace.slowest_for(u64::MAX), u64::MAX);
    }
}
