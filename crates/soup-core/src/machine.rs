//! The state machine of one run: it takes an event and returns actions, and never performs them.
//!
//! # Words
//!
//! - A *work* is something that has to be done ([`Work`]); a *task* is a work that was numbered; each time a task is
//!   given to a worker is an *attempt*, with its own number. Answers of any attempt but the current one are dropped.
//! - A *goal* is a score that is wanted now. Goals come from the recipe, and at its end from the report.
//! - A shard is *resident* once its owner has loaded it. The *placement* says who owns what.
//!
//! # Flow
//!
//! Workers join and shards are placed on them; one worker surveys the datasets; shards are loaded; then the recipe's goals are cut
//! into slices and handed out, the most urgent goal first; scores go to the ledger, and the ledger back to the recipe.
//! When the recipe is done, the report's goals follow, then the output's files are written and [read back](reading_back), then
//! [`Action::Publish`].
//! Where nothing is judged, shards [stream](streaming): they are read as the files are written, and what was found in them is
//! asked for in the end.
//! A worker that is lost leaves its shards and tasks to the others at any point of this; one that is there and does not get done with
//! what it is given leaves that to others too ([deadlines]), and in the end the run ([troubles]).
//! A share of all is [audited](auditing): asked of another worker too. Who turns out not to be believed leaves the run for good, and what it
//! had a part in is done again ([quarantine]).
//!
//! What is decided becomes an entry of the journal first ([`Action::Record`]) and takes effect once that is durable
//! ([`Event::Recorded`]), so that what a machine knows is always the fold of its run's log, and a new one made from that
//! fold ([`Machine::resume`]) goes on where the old one was.

mod answers;
mod assign;
mod auditing;
mod comparing;
mod deadlines;
mod diagnosing;
mod exchange;
mod gathering;
mod goals;
mod judging;
mod learning;
mod placement;
mod progress;
mod proving;
mod quarantine;
mod reading_back;
mod record;
mod rereading;
mod space;
mod statistics;
mod streaming;
mod surveying;
mod tasks;
mod troubles;
mod trying;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, TEXT_BYTES_MAX, brief};
use crate::journal::Fold;
use crate::judge::JudgeId;
use crate::layer::Layers;
use crate::ledger::{Dataset, Ledger};
pub use crate::ledger::{Evaluation, SLICES_MAX, Slice, slices};
use crate::recipe::learned::{Groups, Learned};
use crate::recipe::{Recipe, RecipeSpec, Replay, Setting};
use crate::soup::Soup;
use crate::survey::Survey;
use crate::tally::{Judged, Tally};

pub use auditing::AuditPlan;
use auditing::Auditing;
use comparing::Comparing;
use deadlines::Deadlines;
use diagnosing::Diagnosing;
pub use diagnosing::{LINE_SEGMENTS, Measured, PLANE_SIDE};
pub use exchange::{
    Action, Compare, Differentiate, Dot, Event, FileDigest, LayerGram, NewWorker, PartFigures, Proof, Report,
    Reread, SegmentDots, TaskKey, TaskResult, Underway, Work, WorkerId,
};
use gathering::Gathering;
use goals::Goals;
use judging::Judging;
use learning::Learning;
use placement::Placement;
use progress::Progress;
use proving::Proving;
use quarantine::Deeds;
use reading_back::ReadingBack;
use record::Recorder;
use rereading::Rereading;
pub use space::{Room, Space, Tier, choose_room};
use statistics::Statistics;
use surveying::Known;
use tasks::{Tasks, WorkerState};
use troubles::Troubles;
use trying::Trying;
use writing::Writing;

/// A point in time in milliseconds, from any origin; the caller's clock.
pub type Millis = u64;

/// Notes kept and reported in a run.
pub const NOTES_MAX: usize = 200;
/// What the machine has to know of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Ingredients in the pool.
    pub ingredients: u32,
    /// Resident bytes of each shard, all ingredients together; the number of shards is its length.
    pub shard_bytes: Vec<u64>,
    /// Bytes of all ingredients together.
    pub pool_bytes: u64,
    /// Whether shards are read as the output is written, and not kept. Then they only have owners, what was found in reading
    /// them is known last, and `shard_bytes` says how they are shared.
    pub streams: bool,
    /// Who judges; nobody where nothing is judged.
    pub judge: Option<JudgeId>,
    /// Datasets, the validation set included; none where nothing is judged.
    pub datasets: u32,
    /// Samples per forward pass; slices are multiples of it.
    pub batch_size: u32,
    /// Output files.
    pub files: u32,
    /// The recipe.
    pub recipe: RecipeSpec,
    /// What has weights of its own, for a recipe that learns.
    pub groups: Arc<Groups>,
    /// The soup of the weights that are given, for the recipe that takes them.
    pub given: Option<Soup>,
    /// The scores by which ingredients are ranked, in pool order, where these are given.
    pub ranking: Option<Arc<[f64]>>,
    /// The dataset that is learned from, for a recipe that learns.
    pub train: Option<Dataset>,
    /// The dataset on which the judge recomputes every soup's running statistics, where it does.
    pub calibration: Option<Dataset>,
    /// Whether the judge tells of a class more than the model has, of answers that are no label.
    pub answers: bool,
    /// What is found out about the pool itself.
    pub diagnosis: DiagnosisPlan,
    /// Whether the best single ingredient and the uniform soup are scored too.
    pub baselines: bool,
    /// Whether a trial ends as soon as its verdict is certain.
    pub early: bool,
    /// Trials evaluated ahead of their turn; `None`: as many as keep the workers busy.
    pub lookahead: Option<u32>,
    /// Start once so many workers have joined.
    pub workers_min: u32,
    /// Whether earlier runs may have left scores worth looking for.
    pub recall: bool,
    /// What is done again by another worker.
    pub audit: AuditPlan,
    /// Patience.
    pub limits: Limits,
}

/// What is found out about the pool itself.
#[derive(Clone, Debug, Default)]
pub struct DiagnosisPlan {
    /// The layers by which inner products are told apart; `None` where none are wanted.
    pub layers: Option<Arc<Layers>>,
    /// Whether a pool whose ingredients do not share an initialisation is refused.
    pub require_shared_init: bool,
    /// Whether soups between ingredients and other uses of them are scored too.
    pub full: bool,
}

/// Bounds on retries and waiting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transient failures of one task after which the run fails.
    pub transient_failures_max: u32,
    /// Workers that may fail at one task for a lasting reason before the run fails with that reason.
    pub failed_workers_max: u32,
    /// Wait after the first transient failure; doubles with each.
    pub backoff_ms: Millis,
    /// Longest such wait.
    pub backoff_ms_max: Millis,
    /// How long to wait for workers, at the start and when too few are left.
    pub start_timeout_ms: Millis,
    /// How long a resumed run waits for the workers it had, which may hold its shards.
    pub settle_ms: Millis,
    /// How long to wait for one more worker where two say different things and nobody can tell who is right.
    pub dispute_ms: Millis,
    /// A slice that has been with its worker for so long, and for three times the average, is also given to an idle one.
    pub straggler_ms: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            transient_failures_max: 10,
            failed_workers_max: 2,
            backoff_ms: 100,
            backoff_ms_max: 10_000,
            start_timeout_ms: 600_000,
            settle_ms: 3_000,
            dispute_ms: 60_000,
            straggler_ms: 2_000,
        }
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for workers.
    Gathering,
    /// Surveying datasets, then loading shards.
    Loading,
    /// Following the recipe.
    Cooking,
    /// Scoring what the report needs.
    Testing,
    /// Writing the output.
    Writing,
}

impl Phase {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Gathering => "gather",
            Phase::Loading => "load",
            Phase::Cooking => "cook",
            Phase::Testing => "test",
            Phase::Writing => "write",
        }
    }
}

/// The state of one run. What belongs to one aspect of it is known to that aspect's module alone.
pub struct Machine {
    plan: Plan,
    recipe: Box<dyn Recipe + Send + Sync>,
    ledger: Ledger,
    progress: Progress,
    workers: BTreeMap<WorkerId, WorkerState>,
    gathering: Gathering,
    placement: Placement,
    known: Option<Known>,
    tasks: Tasks,
    deadlines: Deadlines,
    troubles: Troubles,
    auditing: Auditing,
    rereading: Rereading,
    deeds: Deeds,
    goals: Goals,
    judging: Judging,
    trying: Trying,
    comparing: Comparing,
    proving: Proving,
    statistics: Statistics,
    diagnosing: Diagnosing,
    learning: Learning,
    writing: Writing,
    reading_back: ReadingBack,
    recorder: Recorder,
    notes: BTreeSet<String>,
}

impl Machine {
    /// A run that has not begun, at time `now`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where the recipe's options make no sense for the pool.
    pub fn new(plan: Plan, now: Millis) -> Result<Machine> {
        let train = plan.train.unwrap_or(Dataset::VALIDATION);
        let setting = Setting {
            ingredients: plan.ingredients,
            groups: plan.groups.clone(),
            train,
            given: plan.given.clone(),
            ranking: plan.ranking.clone(),
        };
        Ok(Machine {
            recipe: plan.recipe.build_for(&setting)?,
            ledger: Ledger::new(plan.ingredients).deciding_on(train),
            progress: Progress::Cooking,
            workers: BTreeMap::new(),
            gathering: Gathering::new(now),
            placement: Placement::of(plan.shard_bytes.len()),
            // Of no datasets everything is known.
            known: (plan.datasets == 0).then(Known::default),
            tasks: Tasks::default(),
            deadlines: Deadlines::default(),
            troubles: Troubles::default(),
            auditing: Auditing::default(),
            rereading: Rereading::default(),
            deeds: Deeds::default(),
            goals: Goals::default(),
            judging: Judging::default(),
            trying: Trying::default(),
            comparing: Comparing::default(),
            proving: Proving::default(),
            statistics: Statistics::default(),
            diagnosing: Diagnosing::default(),
            learning: Learning::default(),
            writing: Writing::of(plan.files),
            reading_back: ReadingBack::default(),
            recorder: Recorder::default(),
            notes: BTreeSet::new(),
            plan,
        })
    }

    /// A run that goes on where its log ends.
    ///
    /// # Errors
    /// As for [`new`](Machine::new); [`ErrorKind::Data`] for a log that does not fit the plan.
    pub fn resume(plan: Plan, now: Millis, log: &Fold) -> Result<Machine> {
        let mut machine = Machine::new(plan, now)?;
        machine.adopt(now, log)?;
        Ok(machine)
    }

    /// Takes one event at time `now` and says what to do about it.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.ended() {
            return out;
        }
        match event {
            Event::WorkersJoined(workers) => workers.into_iter().for_each(|w| self.join(w, &mut out)),
            Event::WorkerLost(worker) => self.lose(worker, &mut out),
            Event::WorkerLeaving(worker) => {
                self.workers.entry(worker).and_modify(|w| w.leaving = true);
                self.auditing.look_again();
                self.troubles.leaves(worker);
            }
            Event::Recomputed(worker, key, sha256) => self.recomputed(worker, key, sha256, &mut out),
            Event::Done(worker, key, result) => self.done(now, worker, key, result, &mut out),
            Event::Failed(worker, key, error) => self.failed(now, worker, key, error, &mut out),
            Event::Unreached(by, key, source) => self.unreached(now, (by, key), source, &mut out),
            Event::Tick => self.take_back_overdue(now, &mut out),
            // What is being published cannot be taken back half-way: the publisher's answer decides.
            Event::Cancel if self.publishing() => {}
            Event::Cancel => self.finish(Err(Error::cancelled("the run was cancelled")), &mut out),
            Event::Recorded => self.recorded(&mut out),
            Event::Recalled(evaluation, score) => self.recalled(evaluation, score),
            Event::Recollected(evaluation, outcomes) => {
                if let Err(error) = self.recollected_to_compare(&evaluation, outcomes.as_deref()) {
                    self.finish(Err(error), &mut out);
                }
                self.recollected(evaluation, outcomes);
            }
            Event::HandedIn(worker, evaluation, slice, judged) => {
                self.handed_in(worker, evaluation, slice, judged, &mut out);
            }
            Event::Published(result) => self.finish(result, &mut out),
        }
        self.advance(now, &mut out);
        out
    }

    /// All scores so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The recipe's decisions so far.
    pub fn replay(&self) -> Replay {
        self.recipe.replay(&self.ledger, 0)
    }

    /// What a recipe that learns has learned so far.
    pub fn learned(&self) -> Option<Learned> {
        self.recipe.learned(&self.ledger)
    }

    /// What people should know, in a stable order.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    fn advance(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.settle_audits(out);
        self.wait_for_another(now, out);
        // While publishing, nothing is left for workers to do, and nothing they do may end the run.
        let may = self.progress.is_open() && self.enough_workers(now, out) && self.all_placed(now, out);
        if may {
            self.refresh_goals(out);
        }
        // What workers have handed in is kept, even while there are none.
        self.record_next(out);
        self.withdraw_concluded(out);
        // The recipe's answer may have ended the run.
        if may && self.progress.is_open() {
            self.dispatch(now, out);
        }
    }

    fn note(&mut self, text: String, out: &mut Vec<Action>) {
        let text = brief(text, TEXT_BYTES_MAX);
        if self.notes.len() < NOTES_MAX && self.notes.insert(text.clone()) {
            out.push(Action::Report(Report::Note(text)));
        }
    }

    fn finish(&mut self, result: Result<()>, out: &mut Vec<Action>) {
        if !self.progress.end() {
            return;
        }
        for (worker, key) in self.tasks.running() {
            out.push(Action::Cancel(worker, key));
        }
        out.push(Action::Finish(result));
    }
}

#[cfg(test)]
mod tests;
