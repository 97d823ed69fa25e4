//! What the coordinator decides in, with many workers: `cargo bench -p soup-core [-- WORKERS...]`
//!
//! A machine follows the greedy recipe for simulated workers, which answer after as many simulated milliseconds as their
//! tasks take: no network, no tensors, no journal, so that all time that is measured is the machine's own, in processor time. The same run
//! with fewer workers says what their number costs. A decision is a verdict on a trial; its time is that of all events
//! since the one before it. Workers are lost and others join on the way.
//!
//! Trials end as those of the paper's CLIP pool did, whose log is public: of 71 the 1st, 10th, 16th and 17th were accepted. How long the run
//! takes in simulated time, and what its trials take of their samples, is printed beside the same run on all samples.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soup_core::diagnosis::geometry::packed_len;
use soup_core::judge::JudgeId;
use soup_core::layer::Layers;
use soup_core::ledger::Dataset;
use soup_core::machine::{
    Action, AuditPlan, DiagnosisPlan, Evaluation, Event, FileDigest, LayerGram, Limits, Machine, Millis,
    NewWorker, Plan, Report, Space, TaskKey, TaskResult, Work, WorkerId,
};
use soup_core::metric::MetricName;
use soup_core::recipe::learned::Groups;
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec};
use soup_core::soup::Soup;
use soup_core::survey::Survey;
use soup_core::tally::{Judged, Outcome};

/// What the paper's CLIP pool has.
const INGREDIENTS: u32 = 72;
/// Trials that are accepted there.
const ACCEPTED: [u32; 4] = [1, 10, 16, 17];
/// Those of 64 MiB in a model of 70 billion parameters.
const SHARDS: usize = 2_087;
/// Resident bytes of a shard, all ingredients together.
const SHARD_BYTES: u64 = (64 << 20) * INGREDIENTS as u64;
/// Validation samples, as many as ImageNet has held out of its training set for such pools: 64 slices.
const SAMPLES: u64 = 10_000;
const SLOTS: u32 = 2;
/// How long tasks take: so long, and up to as much again.
const LOAD_MS: Millis = 2_000;
const SLICE_MS: Millis = 1_000;
/// How long an entry takes to become durable.
const RECORD_MS: Millis = 30;
/// Time passes in steps of this, as the coordinator's does.
const TICK_MS: Millis = 500;
/// How long a worker lives on average, before it is lost and another one joins.
const LIFE_MS: Millis = 24 * 3_600_000;

fn main() {
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for workers in if asked.is_empty() { vec![1, 8, 64, 1_000] } else { asked } {
        let (ran, full) = (Cluster::new(workers, true).run(), Cluster::new(workers, false).run());
        println!(
            "{workers} workers: trials take {:.0} s and {} slices, of all samples {:.0} s and {} slices; {} soups are assembled, {} for all",
            ran.tried_ms as f64 / 1e3,
            ran.slices,
            full.tried_ms as f64 / 1e3,
            full.slices,
            ran.assembled.len(),
            full.assembled.len(),
        );
        let all = ran.times.iter().sum::<Duration>();
        println!(
            "  {} decisions, mean {:.3} ms, worst {:.3} ms; {:.0} ms before the first",
            ran.decisions.len(),
            milliseconds(ran.decisions.iter().sum::<Duration>()) / ran.decisions.len() as f64,
            milliseconds(ran.decisions.iter().copied().max().unwrap_or_default()),
            milliseconds(ran.preparing),
        );
        println!(
            "  {} events: mean {:.1} us, worst {:.1} ms ({}); all of the run {:.0} ms",
            ran.times.len(),
            milliseconds(all) * 1e3 / ran.times.len() as f64,
            milliseconds(ran.worst.0),
            ran.worst.1,
            milliseconds(all),
        );
    }
}

/// Processor time of this thread, because machines are shared; plain time where the system does not say.
struct Clock {
    statistics: Option<File>,
    start: Instant,
}

impl Clock {
    fn new() -> Clock {
        Clock { statistics: File::open("/proc/thread-self/schedstat").ok(), start: Instant::now() }
    }

    fn now(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.statistics.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let on_processor = std::str::from_utf8(&text[..read]).unwrap_or_default().split(' ').next();
        let nanoseconds = on_processor.and_then(|n| n.parse().ok());
        nanoseconds.map_or_else(|| self.start.elapsed(), Duration::from_nanos)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What a run took.
struct Ran {
    /// Of every event.
    times: Vec<Duration>,
    /// The event that took longest.
    worst: (Duration, &'static str),
    /// Until the first trial: loading, measuring, ranking.
    preparing: Duration,
    /// Of every decision.
    decisions: Vec<Duration>,
    /// Simulated time from the first trial to the last.
    tried_ms: Millis,
    /// Slices that were given out for trials.
    slices: usize,
    /// Which worker needed which soup for a trial.
    assembled: BTreeSet<(WorkerId, Soup)>,
}

/// What happens at some time.
enum Happens {
    Answer(WorkerId, TaskKey, Work),
    Recorded,
    Tick,
    Loss,
}

struct Cluster {
    machine: Machine,
    clock: Clock,
    now: Millis,
    /// What is going to happen, by time, then in the order it was caused.
    agenda: BinaryHeap<Reverse<(Millis, usize)>>,
    happens: Vec<Option<Happens>>,
    alive: Vec<WorkerId>,
    joined: u64,
    state: u64,
    since_decision: Duration,
    /// When the first trial began.
    trying_since: Option<Millis>,
    ran: Ran,
}

impl Cluster {
    fn new(workers: u32, early: bool) -> Cluster {
        Cluster {
            machine: Machine::new(Plan { early, ..plan(workers) }, 0).unwrap(),
            clock: Clock::new(),
            now: 0,
            agenda: BinaryHeap::new(),
            happens: Vec::new(),
            alive: (1..=u64::from(workers)).map(WorkerId).collect(),
            joined: u64::from(workers),
            state: 1,
            since_decision: Duration::ZERO,
            ran: Ran {
                times: Vec::new(),
                worst: (Duration::ZERO, ""),
                preparing: Duration::ZERO,
                decisions: Vec::new(),
                tried_ms: 0,
                slices: 0,
                assembled: BTreeSet::new(),
            },
            trying_since: None,
        }
    }

    fn run(mut self) -> Ran {
        let workers = self.alive.iter().map(|&w| new_worker(w)).collect();
        self.handle("workers join", Event::WorkersJoined(workers));
        self.later(TICK_MS, Happens::Tick);
        self.later(LIFE_MS / self.alive.len() as Millis, Happens::Loss);
        while !self.machine.ended() {
            let Reverse((at, index)) = self.agenda.pop().unwrap();
            self.now = at;
            match self.happens[index].take().unwrap() {
                Happens::Answer(worker, key, work) => {
                    // What was taken back meanwhile is nobody's.
                    let samples = match &work {
                        Work::Evaluate(_, slice) => match self.machine.samples_in(slice) {
                            Some(samples) => samples.iter().map(|&at| at.into()).collect(),
                            None => (slice.start..slice.end).collect(),
                        },
                        _ => Vec::new(),
                    };
                    let (name, result) = answer(&work, &samples);
                    self.handle(name, Event::Done(worker, key, result));
                }
                Happens::Recorded => self.handle("recorded", Event::Recorded),
                Happens::Tick => {
                    self.handle("tick", Event::Tick);
                    self.later(TICK_MS, Happens::Tick);
                }
                Happens::Loss => self.lose_and_join(),
            }
        }
        self.ran
    }

    fn lose_and_join(&mut self) {
        let lost = self.random(self.alive.len() as u64) as usize;
        let lost = self.alive.swap_remove(lost);
        self.handle("worker lost", Event::WorkerLost(lost));
        self.joined += 1;
        let worker = WorkerId(self.joined);
        self.alive.push(worker);
        self.handle("worker joins", Event::WorkersJoined(vec![new_worker(worker)]));
        self.later(LIFE_MS / self.alive.len() as Millis, Happens::Loss);
    }

    /// Lets the machine take an event, and notes how long that took.
    fn handle(&mut self, name: &'static str, event: Event) {
        let start = self.clock.now();
        let actions = self.machine.handle(self.now, event);
        let took = self.clock.now().saturating_sub(start);
        self.ran.times.push(took);
        self.ran.worst = self.ran.worst.max((took, name));
        self.since_decision += took;
        actions.into_iter().for_each(|action| self.perform(action));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Assign(worker, key, work) => {
                if let Work::Evaluate(evaluation, _) = &work
                    && evaluation.soup.members().len() > 1
                    && evaluation.soup.members().len() < INGREDIENTS as usize
                {
                    self.trying_since.get_or_insert(self.now);
                    self.ran.slices += 1;
                    self.ran.assembled.insert((worker, evaluation.soup.clone()));
                }
                let least = if matches!(work, Work::Load(_)) { LOAD_MS } else { SLICE_MS };
                let takes = least + self.random(least);
                self.later(takes, Happens::Answer(worker, key, work));
            }
            Action::Record(..) => self.later(RECORD_MS, Happens::Recorded),
            Action::Recollect(evaluation, _) => {
                self.handle("recollected", Event::Recollected(evaluation, None))
            }
            // The ranking's scores belong to no decision.
            Action::Report(Report::Scored(evaluation, _))
                if self.ran.decisions.is_empty() && evaluation.soup.members().len() == 1 =>
            {
                self.ran.preparing += std::mem::take(&mut self.since_decision);
            }
            Action::Report(Report::Decided(..)) => {
                self.ran.tried_ms = self.now - self.trying_since.unwrap_or(self.now);
                self.ran.decisions.push(std::mem::take(&mut self.since_decision));
            }
            Action::Publish => self.handle("published", Event::Published(Ok(()))),
            Action::Finish(result) => result.unwrap(),
            _ => {}
        }
    }

    fn later(&mut self, after: Millis, happens: Happens) {
        self.agenda.push(Reverse((self.now + after, self.happens.len())));
        self.happens.push(Some(happens));
    }

    /// A number below `below`, from one seed.
    fn random(&mut self, below: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }
}

fn plan(workers: u32) -> Plan {
    let layers = Layers { names: vec!["all".to_owned()], of: vec![Some(0)], matrix: vec![true] };
    Plan {
        ingredients: INGREDIENTS,
        shard_bytes: vec![SHARD_BYTES; SHARDS],
        pool_bytes: SHARD_BYTES * SHARDS as u64,
        streams: false,
        groups: Arc::new(Groups { names: Vec::new(), of: Vec::new(), classifier: Vec::new() }),
        given: None,
        ranking: None,
        diagnosis: DiagnosisPlan { layers: Some(Arc::new(layers)), ..DiagnosisPlan::default() },
        train: None,
        calibration: None,
        answers: false,
        judge: Some(JudgeId::native()),
        datasets: 1,
        batch_size: 32,
        files: 30,
        recipe: RecipeSpec {
            kind: RecipeKind::Greedy,
            order: Order::Sorted,
            accept: Accept::AtLeast,
            alpha: None,
            seed: 1,
            max_ingredients: None,
            passes: 1,
            metric: MetricName::default(),
            learn: None,
        },
        baselines: true,
        early: true,
        lookahead: None,
        workers_min: workers,
        recall: false,
        audit: AuditPlan::default(),
        limits: Limits::default(),
    }
}

fn new_worker(worker: WorkerId) -> NewWorker {
    NewWorker {
        worker,
        name: worker.0.to_string(),
        slots: SLOTS,
        space: Space { memory: u64::MAX, ..Space::default() },
        judges: true,
        held: Vec::new(),
    }
}

/// What a worker answers, and its name; `samples`: those of a slice.
fn answer(work: &Work, samples: &[u64]) -> (&'static str, TaskResult) {
    match work {
        Work::Load(shard) => {
            let digests = vec![[shard.0 as u8; 32]; INGREDIENTS as usize];
            ("loaded", TaskResult::Loaded { digests, notes: Vec::new() })
        }
        Work::Survey => {
            let survey = Survey::of_classes(vec![SAMPLES], 10);
            ("surveyed", TaskResult::Surveyed { survey, notes: Vec::new() })
        }
        Work::Evaluate(evaluation, _) => {
            let outcomes = samples.iter().map(|&sample| outcome(evaluation, sample)).collect();
            ("evaluated", TaskResult::Evaluated(Judged::Outcomes(outcomes)))
        }
        Work::Write(_, file) => {
            let digest = FileDigest { data_sha256: [*file as u8; 32], file_sha256: [8; 32], bytes: 9 };
            ("written", TaskResult::Written(digest))
        }
        Work::ReadBack(_) => ("read back", TaskResult::ReadBack { bytes: 9, sha256: [8; 32] }),
        Work::Digest(_) => ("digested", TaskResult::Digested([7; 32])),
        Work::Gram(_) => {
            let packed = vec![1.0; packed_len(INGREDIENTS as usize)];
            ("measured", TaskResult::Measured(vec![LayerGram { layer: 0, matrix: true, packed }]))
        }
        other => unreachable!("a greedy run has no {other:?}"),
    }
}

/// What a soup makes of a sample: the harder ones are wrong, and which of those near the edge are differs from soup to soup. Ingredients get
/// worse in pool order, so that they are tried in that; those that are accepted add to a soup, the others take from it.
fn outcome(evaluation: &Evaluation, sample: u64) -> Outcome {
    assert_eq!(evaluation.dataset, Dataset::VALIDATION);
    let share = |hash: u64| (hash >> 11) as f64 / (1u64 << 53) as f64;
    let hardness = share(sample.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let members = evaluation.soup.members();
    let (mut hash, mut level) = (sample.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0.8);
    for member in members {
        hash = (hash ^ u64::from(member.0 + 1)).wrapping_mul(0x0100_0000_01b3);
        hash ^= hash >> 29;
        level += match member.0 {
            place if members.len() == 1 => -2e-4 * f64::from(place),
            0 => 0.0,
            place if ACCEPTED.contains(&place) => 4e-3,
            _ => -4e-3,
        };
    }
    let margin = level + 0.06 * (share(hash.wrapping_mul(0x2545_f491_4f6c_dd1d)) - 0.5) - hardness;
    let label = (sample % 10) as u32;
    let prediction = if margin > 0.0 { label } else { (label + 1) % 10 };
    Outcome { label, prediction, loss: (1.0 + (-20.0 * margin).exp()).ln() }
}
