//! A cluster in a loop: workers that answer in any order, fail, vanish and come late; the run must always end the same.

use std::collections::VecDeque;

use proptest::prelude::*;

mod auditing;
mod comparing;
mod proving;
mod reading_back;
mod statistics;
mod troubles;
mod trying;

use super::*;
use crate::diagnosis::boosting::{Hits, samme};
use crate::diagnosis::ensemble::{Alternatives, Newton};
use crate::journal::{Claim, Compared, Entry, Fold, Record, Rejected, Scored};
use crate::metric::{Metric, MetricName};
use crate::recipe::learned::{Granularity, Init, LearnSpec, Optimizer, Schedule, WeightRule};
use crate::recipe::{Accept, Decision, Order, RecipeKind, Step, Verdict};
use crate::shard::Shard;
use crate::soup::{Ingredient, Weight};
use crate::survey::Survey;
use crate::tally::packed::unpack;
use crate::tally::{Counts, Outcome};

/// Of the validation set, a test set, and the set to learn from.
const SAMPLES: [u64; 3] = [230, 90, 70];
const LEARN: LearnSpec = LearnSpec {
    granularity: Granularity::Tensor,
    weights: WeightRule::Softmax,
    optimizer: Optimizer::Adamw,
    lr: 0.1,
    schedule: Schedule::Constant,
    warmup: 0.0,
    clip: None,
    epochs: 2,
    batch_size: 30,
    parts: 3,
    shuffle: true,
    label_smoothing: 0.0,
    init: Init::Greedy,
    fold_beta: true,
};

fn plan(kind: RecipeKind, ingredients: u32, files: u32) -> Plan {
    let learns = kind == RecipeKind::Learned;
    Plan {
        ingredients,
        shard_bytes: vec![100; 5],
        pool_bytes: 500,
        given: None,
        ranking: None,
        groups: Arc::new(Groups {
            names: vec!["a".into(), "b".into()],
            of: vec![Some(0), None, Some(1)],
            classifier: vec![false, false, true],
        }),
        diagnosis: DiagnosisPlan {
            layers: Some(Arc::new(Layers {
                names: vec!["a".into(), "b".into()],
                of: vec![Some(0), None, Some(1)],
                matrix: vec![true, false, false],
            })),
            ..DiagnosisPlan::default()
        },
        train: learns.then_some(Dataset(2)),
        calibration: None,
        answers: false,
        judge: Some(JudgeId::native()),
        datasets: if learns { 3 } else { 2 },
        batch_size: 10,
        files,
        recipe: RecipeSpec {
            kind,
            order: Order::Sorted,
            accept: Accept::AtLeast,
            alpha: None,
            seed: 1,
            max_ingredients: None,
            passes: 2,
            metric: MetricName::default(),
            learn: learns.then_some(LEARN),
        },
        streams: false,
        baselines: true,
        early: true,
        lookahead: Some(1),
        workers_min: 1,
        recall: false,
        audit: AuditPlan::default(),
        limits: Limits::default(),
    }
}

/// Whether a soup gets a sample right: any function of (soup, sample) will do, as long as it is one.
fn outcome(evaluation: &Evaluation, sample: u64) -> Outcome {
    let mut h = 0xcbf2_9ce4_8422_2325_u64
        ^ sample.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ u64::from(evaluation.dataset.0);
    for m in evaluation.soup.members() {
        h = (h ^ u64::from(m.0 + 1)).wrapping_mul(0x0100_0000_01b3);
        h ^= h >> 29;
    }
    let right = h % 100 < 70 + u64::from(evaluation.soup.members()[0].0);
    let label = (sample % 10) as u32;
    Outcome { label, prediction: if right { label } else { (label + 1) % 10 }, loss: (h % 1000) as f64 / 7.0 }
}

/// A number from -0.5 to 0.5: any function of what it is given.
fn number(of: &impl std::hash::Hash) -> f64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64 - 0.5
}

fn proof(of: &Evaluation, slice: &Slice, plan: &Plan) -> Proof {
    Proof {
        judged: Judged::Outcomes((slice.start..slice.end).map(|i| outcome(of, i)).collect()),
        again: true,
        tolerance: 0.0,
        survey: Survey::of_classes(SAMPLES[..plan.datasets as usize].to_vec(), 10),
        statistics: None,
    }
}

/// What a worker answers, of a slice in the dataset's own order.
fn answer(work: &Work, plan: &Plan) -> TaskResult {
    answer_in(work, plan, None)
}

/// What a worker answers; `samples`: the positions of a slice's samples, where these are in another order.
fn answer_in(work: &Work, plan: &Plan, samples: Option<&[u32]>) -> TaskResult {
    let ingredients = plan.ingredients;
    let digest = FileDigest { data_sha256: [7; 32], file_sha256: [8; 32], bytes: 9 };
    match work {
        Work::Load(shard) => {
            let known = if plan.streams { 0 } else { ingredients as usize };
            TaskResult::Loaded { digests: vec![[shard.0 as u8; 32]; known], notes: vec![] }
        }
        Work::Pass(shard) => {
            let TaskResult::Measured(grams) = answer(&Work::Gram(*shard), plan) else { unreachable!() };
            let digests = vec![[shard.0 as u8; 32]; ingredients as usize];
            TaskResult::Passed { digests, grams, notes: vec!["a note of a pass".into()] }
        }
        Work::Survey => TaskResult::Surveyed {
            survey: Survey::of_classes(SAMPLES[..plan.datasets as usize].to_vec(), 10),
            notes: vec!["a note".into()],
        },
        Work::Evaluate(e, slice) => {
            let natural: Vec<u64> = (slice.start..slice.end).collect();
            let positions = samples.map_or(natural, |samples| samples.iter().map(|&at| at.into()).collect());
            TaskResult::Evaluated(Judged::Outcomes(positions.into_iter().map(|i| outcome(e, i)).collect()))
        }
        Work::Prove(_, e, slice) => TaskResult::Proved(Box::new(proof(e, slice, plan))),
        Work::Write(..) => TaskResult::Written(digest),
        Work::Reread(shard, soup) => {
            let blend = soup.as_ref().map(|_| [7; 32]);
            let digests = vec![[shard.0 as u8; 32]; ingredients as usize];
            TaskResult::Reread(Reread { digests, blend, served: blend })
        }
        Work::ReadBack(_) => TaskResult::ReadBack { bytes: digest.bytes, sha256: digest.file_sha256 },
        Work::Digest(_) => TaskResult::Digested([7; 32]),
        Work::Differentiate(part) => TaskResult::Differentiated(PartFigures {
            loss: number(part),
            d_beta: number(&(part, "beta")),
            correct: 1,
            total: part.samples.len() as u64,
        }),
        Work::Gram(shard) => {
            // Every ingredient is one of the axes, the origin zero: all are orthogonal.
            let k = ingredients as usize;
            let pairs = (0..=k).flat_map(|i| (i..=k).map(move |j| f64::from(u8::from(i == j && i < k))));
            let packed: Vec<f64> = pairs.collect();
            TaskResult::Measured(vec![LayerGram { layer: shard.0 % 2, matrix: true, packed }])
        }
        Work::Compare(of) => {
            let samples = of.slice.start..of.slice.end;
            let score: Counts = samples
                .map(|s| outcome(&Evaluation { dataset: of.dataset, soup: Soup::single(Ingredient(0)) }, s))
                .collect::<Vec<_>>()
                .iter()
                .collect();
            let stacked = Counts { loss_sum: number(&(&of.weights, of.dataset, of.slice)), ..score.clone() };
            let mut newton = Newton::zeros(ingredients as usize);
            newton.gradient[0] = number(&(of.slice, "gradient"));
            TaskResult::Compared(Box::new(Alternatives {
                logits: score.clone(),
                boosted: (!of.votes.is_empty()).then(|| score.clone()),
                vote: score,
                stacked,
                newton,
                hits: of.hits.then(|| hits(of, ingredients)),
            }))
        }
        Work::Dot(dot) => {
            let dots =
                |t: u32| (0..ingredients).map(|i| number(&(dot.step, dot.part, dot.shard, t, i))).collect();
            TaskResult::Dotted((0..3).map(|tensor| SegmentDots { tensor, dots: dots(tensor) }).collect())
        }
    }
}

/// Which of so many ingredients are right on a slice.
fn hits(of: &Compare, ingredients: u32) -> Hits {
    let mut hits = Hits::new(ingredients as usize);
    for sample in of.slice.start..of.slice.end {
        hits.push((0..ingredients).map(|i| {
            let one = Evaluation { dataset: of.dataset, soup: Soup::single(Ingredient(i)) };
            let outcome = outcome(&one, sample);
            outcome.label == outcome.prediction
        }));
    }
    hits
}

/// Appends to a log as a store would.
fn append(log: &mut Fold, entry: Entry) -> Record {
    let tail = log.tail().clone();
    let claims = matches!(entry, Entry::EpochClaim(_));
    let epoch = log.epoch + u64::from(claims);
    let record = Record {
        v: entry.version(),
        seq: tail.seq,
        epoch,
        writer: format!("c{epoch}"),
        put_id: format!("c{epoch}-{}", tail.seq),
        prev_sha256: tail.prev_sha256,
        at: String::new(),
        entry,
        signature: None,
    };
    log.push(record.seq, &serde_json::to_vec(&record).unwrap()).unwrap()
}

/// Runs a machine against simulated workers until it ends. `faults` draws what goes wrong.
struct Cluster {
    machine: Machine,
    now: Millis,
    inbox: VecDeque<(WorkerId, TaskKey, Work)>,
    alive: Vec<WorkerId>,
    next_worker: u64,
    result: Option<Result<()>>,
    trials: Vec<(Soup, bool)>,
    scored: BTreeMap<Evaluation, u32>,
    /// What is told of what takes long.
    underway: Vec<(Underway, u32, u32)>,
    placements: u32,
    events: u32,
    log: Fold,
    records: Vec<Record>,
    /// The entry that is on its way to the log.
    entry: Option<Entry>,
    /// Outcomes in the state.
    kept: BTreeMap<[u8; 32], Vec<u8>>,
    /// Scores of earlier runs.
    earlier: BTreeMap<Evaluation, Tally>,
    /// Slices that workers were given, and those that they finished.
    evaluated: BTreeMap<Work, u32>,
    /// Gradients that workers hold: worker, step, part.
    gradients: BTreeSet<(WorkerId, u32, u32)>,
}

/// What a worker without a device may keep.
fn space(memory: u64, disk: u64) -> Space {
    Space { device: 0, memory, disk }
}

impl Cluster {
    fn new(plan: Plan) -> Cluster {
        let mut log = Fold::default();
        let records = vec![append(&mut log, Entry::EpochClaim(Claim::default()))];
        Cluster {
            machine: Machine::new(plan, 0).unwrap(),
            log,
            records,
            entry: None,
            kept: BTreeMap::new(),
            earlier: BTreeMap::new(),
            evaluated: BTreeMap::new(),
            gradients: BTreeSet::new(),
            now: 0,
            inbox: VecDeque::new(),
            alive: vec![],
            next_worker: 0,
            result: None,
            trials: vec![],
            scored: BTreeMap::new(),
            underway: vec![],
            placements: 0,
            events: 0,
        }
    }

    fn event(&mut self, event: Event) {
        let mut recalled = Vec::new();
        self.now += 1;
        self.events += 1;
        assert!(self.events < 100_000, "the run does not end: {:?}", self.machine.notes);
        for action in self.machine.handle(self.now, event) {
            assert!(self.result.is_none(), "{action:?} after the end");
            match action {
                Action::Record(entry, packed) => {
                    self.kept.extend(packed.map(|packed| (packed.sha256, packed.bytes)));
                    assert!(self.entry.replace(entry).is_none(), "one entry at a time");
                }
                Action::Recall(evaluation) => {
                    let score = self.earlier.get(&evaluation).cloned();
                    recalled.push(Event::Recalled(evaluation, score.map(|score| (score, None))));
                }
                Action::Recollect(evaluation, sha256) => {
                    let kept = self.kept.get(&sha256).map(|bytes| unpack(bytes, SAMPLES[0]).unwrap());
                    recalled.push(Event::Recollected(evaluation, kept));
                }
                Action::Assign(worker, key, work) => {
                    assert!(self.alive.contains(&worker), "a task for a worker that is gone");
                    self.inbox.push_back((worker, key, work));
                }
                Action::Cancel(worker, key) => self.inbox.retain(|(w, k, _)| (*w, *k) != (worker, key)),
                Action::Release(worker, step, part) => assert!(self.gradients.remove(&(worker, step, part))),
                Action::Report(Report::Decided(n, d)) => {
                    self.trials.push((d.soup.clone(), d.verdict == Verdict::Accepted));
                    assert_eq!(n as usize, self.trials.len());
                }
                Action::Report(Report::Underway { what, done, of }) => self.underway.push((what, done, of)),
                Action::Report(Report::Scored(e, _)) => *self.scored.entry(e).or_default() += 1,
                Action::Place(_, owners) => {
                    self.placements += 1;
                    assert!(
                        owners.iter().all(|o| self.alive.contains(o)),
                        "a placement names a worker that is gone"
                    );
                }
                Action::Publish => {
                    self.inbox.push_back((WorkerId(0), TaskKey { task: 0, attempt: 0 }, Work::Survey))
                }
                Action::Finish(result) => self.result = Some(result),
                Action::Report(Report::Retracted { trials, .. }) => self.trials.truncate(trials as usize),
                Action::Begin(_) | Action::Forget(_) | Action::Quarantine(_) | Action::Report(_) => {}
            }
        }
        self.check_log();
        recalled.into_iter().for_each(|event| self.event(event));
    }

    /// What the machine acts on is what the log says, at every moment.
    fn check_log(&self) {
        assert!(
            self.log.scores.iter().all(|(e, s)| self.machine.ledger.score(e.dataset, &e.soup) == Some(s))
        );
        assert_eq!(self.machine.ledger.count(), self.log.scores.len());
        assert_eq!(self.machine.ledger.steps(), self.log.steps);
        assert!(self.trials.len() <= self.log.decisions as usize);
    }

    /// The entry on its way is durable.
    fn durable(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.records.push(append(&mut self.log, entry));
            self.event(Event::Recorded);
        }
    }

    /// The coordinator dies, perhaps before it hears that its last entry is durable; another one takes over, and the
    /// workers come back with what they hold. All answers on their way are lost.
    fn restart(&mut self, durable: bool) {
        if let Some(entry) = self.entry.take().filter(|_| durable) {
            self.records.push(append(&mut self.log, entry));
        }
        self.records.push(append(&mut self.log, Entry::EpochClaim(Claim::default())));
        let held = |w: WorkerId| {
            let mine = |(shard, owner, tier)| (owner == w).then_some((shard, tier));
            self.machine.placement.resident().filter_map(mine).collect()
        };
        let offer = |&worker: &WorkerId| NewWorker {
            worker,
            name: worker.0.to_string(),
            slots: 2,
            space: space(10_000, 0),
            judges: true,
            held: held(worker),
        };
        let workers: Vec<NewWorker> = self.alive.iter().map(offer).collect();
        self.machine = Machine::resume(self.machine.plan.clone(), self.now, &self.log).unwrap();
        self.inbox.clear();
        self.gradients.clear();
        self.trials.clear();
        self.event(Event::WorkersJoined(workers));
    }

    fn join(&mut self) {
        self.next_worker += 1;
        let worker = WorkerId(self.next_worker);
        self.alive.push(worker);
        self.event(Event::WorkersJoined(vec![NewWorker {
            worker,
            name: worker.0.to_string(),
            slots: 2,
            space: space(10_000, 0),
            judges: true,
            held: vec![],
        }]));
    }

    fn lose(&mut self, at: usize) {
        let worker = self.alive.remove(at);
        self.inbox.retain(|(w, _, _)| *w != worker);
        self.gradients.retain(|(w, ..)| *w != worker);
        self.event(Event::WorkerLost(worker));
    }

    /// What an honest worker answers.
    fn truth(&self, work: &Work) -> TaskResult {
        let samples = match work {
            Work::Evaluate(_, slice) => self.machine.samples_in(slice),
            _ => None,
        };
        answer_in(work, &self.machine.plan, samples)
    }

    fn answer(&mut self, at: usize) {
        let Some((worker, key, work)) = self.inbox.remove(at) else { return };
        if key.task == 0 {
            return self.event(Event::Published(Ok(())));
        }
        let result = self.truth(&work);
        match &work {
            Work::Differentiate(of) => {
                self.gradients.insert((worker, of.step, of.part));
                // One a slot, and one that is being fetched.
                assert!(self.gradients.iter().filter(|(w, ..)| *w == worker).count() <= 3);
            }
            Work::Dot(of) => {
                assert!(self.gradients.contains(&(of.source, of.step, of.part)), "no such gradient")
            }
            _ => {}
        }
        *self.evaluated.entry(work).or_default() += 1;
        self.event(Event::Done(worker, key, result));
    }

    /// The next thing that happens by itself.
    fn step(&mut self) {
        if self.entry.is_some() { self.durable() } else { self.answer(0) }
    }

    fn run_quietly(&mut self) {
        while self.result.is_none() {
            if self.entry.is_some() {
                self.durable();
            } else if self.inbox.is_empty() {
                self.now += 1000;
                self.event(Event::Tick);
            } else {
                self.answer(0);
            }
        }
    }

    fn outcome(&self) -> (Soup, Vec<Decision>, Vec<Option<Tally>>) {
        assert!(matches!(self.result, Some(Ok(()))), "{:?}", self.result);
        let soup = self.machine.chosen().unwrap().clone();
        let scores = [0, 1].map(|d| self.machine.ledger().score(Dataset(d), &soup).cloned());
        let decisions = self.machine.replay().decisions;
        let told = decisions.iter().map(|d| (d.soup.clone(), d.verdict == Verdict::Accepted));
        assert_eq!(told.collect::<Vec<_>>(), self.trials);
        (soup, decisions, scores.to_vec())
    }
}

/// Whether the decisions of these records are those of the cluster's recipe.
fn verified_by(cluster: &Cluster, records: &[Record]) -> Result<crate::journal::Verified> {
    let plan = &cluster.machine.plan;
    let setting = Setting { ranking: plan.ranking.clone(), ..Setting::of(plan.ingredients) };
    crate::journal::verify(&plan.recipe, &setting, cluster.machine.ledger.deciding_set(), records)
}

fn reference(plan: &Plan) -> (Soup, Vec<Decision>, Vec<Option<Tally>>) {
    let mut cluster = Cluster::new(plan.clone());
    cluster.join();
    cluster.run_quietly();
    cluster.outcome()
}

#[test]
fn every_recipe_ends_on_one_worker() {
    for kind in [RecipeKind::Uniform, RecipeKind::BestSingle, RecipeKind::Greedy, RecipeKind::Pruned] {
        let plan = plan(kind, 6, 1);
        let (soup, trials, scores) = reference(&plan);
        // The trials are the recipe's own, replayed by hand.
        let recipe = plan.recipe.build(6).unwrap();
        let mut ledger = Ledger::new(6);
        ledger.surveyed(SAMPLES.to_vec(), Metric::of_classes(&plan.recipe.metric, 10).unwrap());
        let done = loop {
            match recipe.next(&ledger) {
                Step::Done(soup) => break soup,
                other @ (Step::Compare(_) | Step::Differentiate(_) | Step::Waiting) => panic!("{other:?}"),
                Step::Try(open) => {
                    for t in open {
                        let e = Evaluation { dataset: Dataset::VALIDATION, soup: t.soup };
                        let score = (0..SAMPLES[0]).map(|i| outcome(&e, i)).collect::<Vec<_>>();
                        ledger.record(Dataset::VALIDATION, e.soup, Tally::Classes(score.iter().collect()));
                    }
                }
            }
        };
        assert_eq!(soup, done);
        assert_eq!(trials.len(), recipe.replay(&ledger, 0).decisions.len());
        assert!(scores.iter().all(Option::is_some));
    }
}

#[test]
fn ingredients_that_share_no_initialisation_are_told_or_refused() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 4, 1));
    (0..2).for_each(|_| cluster.join());
    cluster.run_quietly();
    cluster.outcome();
    assert!(cluster.machine.notes().any(|n| n.contains("do not share an initialisation")));
    // Whoever shows a note says that it is one.
    assert!(cluster.machine.notes().all(|n| !["note: ", "warning: "].iter().any(|head| n.starts_with(head))));

    let mut strict = plan(RecipeKind::Uniform, 4, 1);
    strict.diagnosis.require_shared_init = true;
    let mut cluster = Cluster::new(strict);
    cluster.join();
    cluster.run_quietly();
    assert!(cluster.scored.is_empty(), "nothing is scored before");
    let error = cluster.result.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gate);
    assert!(error.chain().contains("Averaging will destroy them"), "{}", error.chain());
}

#[test]
fn a_full_diagnosis_scores_what_lies_between_and_compares() {
    let mut full = plan(RecipeKind::Greedy, 5, 0);
    full.diagnosis.full = true;
    let mut cluster = Cluster::new(full);
    (0..3).for_each(|_| cluster.join());
    cluster.run_quietly();
    cluster.outcome();
    let machine = &cluster.machine;
    let order = machine.ranking().unwrap();
    let known = |dataset: u32, soup: &Soup| machine.ledger().score(Dataset(dataset), soup).is_some();
    assert!(order.iter().all(|i| known(0, &Soup::single(*i)) && known(1, &Soup::single(*i))));
    assert!(crate::diagnosis::path::prefixes(&order).all(|s| known(0, &s)));
    assert_eq!(machine.grid(&order).unwrap().soups().filter(|s| known(0, s)).count(), 49);
    assert_eq!(machine.lines(&order).len(), 2);
    let compared = machine.compared().unwrap();
    assert_eq!(compared.keys().map(|d| d.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(compared[&Dataset(1)].logits.total, SAMPLES[1]);
    // The votes are those of all samples in order, whoever looked at which, and counted on every set.
    let slice = Slice { index: 0, start: 0, end: SAMPLES[0], sequence: Default::default() };
    let whole = Compare { dataset: Dataset(0), step: 0, slice, weights: vec![], votes: vec![], hits: true };
    assert_eq!(machine.votes(), samme(&hits(&whole, 5), 10));
    assert!(machine.votes().iter().any(|vote| *vote > 0.0));
    for (dataset, found) in compared {
        assert_eq!(found.boosted.as_ref().unwrap().total, SAMPLES[dataset.index()]);
        assert_eq!(found.hits, None, "they are not kept");
    }
    // Nothing is written: there are no files.
    assert!(machine.data_sha256().is_none());
    // Of all of this people hear how far it is, in one direction and to its end.
    for what in [Underway::Products, Underway::Scores, Underway::Uses] {
        let told: Vec<(u32, u32)> =
            cluster.underway.iter().filter(|told| told.0 == what).map(|told| (told.1, told.2)).collect();
        assert!(told.is_sorted_by(|a, b| a.0 < b.0) && told.len() > 1, "{what:?}: {told:?}");
        assert!(told.iter().all(|(done, of)| done <= of), "{what:?}: {told:?}");
        assert!(told.last().is_some_and(|(done, of)| done == of), "{what:?}: {told:?}");
    }
}

#[test]
fn a_learned_soup_takes_all_its_steps() {
    let mut cluster = Cluster::new(plan(RecipeKind::Learned, 4, 1));
    (0..3).for_each(|_| cluster.join());
    cluster.run_quietly();
    let (soup, ..) = cluster.outcome();
    let learned = cluster.machine.learned().unwrap();
    // 70 samples in mini-batches of 30, twice.
    assert_eq!((learned.steps.len(), learned.steps_total), (6, 6));
    assert_eq!(learned.weights.len(), 2);
    let sum = |row: &[Weight]| row.iter().map(|w| w.get()).sum::<f64>();
    // The classifier's rows are multiplied by beta; a tensor that is copied has any row.
    assert!((sum(soup.row(0).unwrap()) - 1.0).abs() < 1e-12);
    assert!((sum(soup.row(2).unwrap()) - learned.beta).abs() < 1e-12);
    assert!((learned.beta - 1.0).abs() > 1e-3);
    // The greedy soup that learning starts from is found on the set that is learned from, which is not reported on.
    assert!(cluster.scored.keys().any(|e| e.dataset == Dataset(2)));
    assert!(cluster.machine.ledger().score(Dataset(2), &soup).is_none());
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_run() {
    let mut cluster = Cluster::new(plan(RecipeKind::Learned, 4, 1));
    cluster.join();
    while !matches!(cluster.inbox.front(), Some((_, _, Work::Differentiate(_)))) {
        cluster.step();
    }
    let (worker, key, work) = cluster.inbox.pop_front().unwrap();
    let Work::Differentiate(part) = &work else { panic!("{work:?}") };
    let total = part.samples.len() as u64;
    cluster.gradients.insert((worker, part.step, part.part));
    let figures = PartFigures { loss: f64::NAN, d_beta: 0.0, correct: 0, total };
    cluster.event(Event::Done(worker, key, TaskResult::Differentiated(figures)));
    cluster.run_quietly();
    let error = cluster.result.unwrap().unwrap_err();
    assert!(
        error.chain().contains("step 1 has a loss or a gradient that is not finite"),
        "{}",
        error.chain()
    );
}

#[test]
fn several_files_are_digested_in_a_pass_of_its_own() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 4));
    cluster.join();
    cluster.run_quietly();
    cluster.outcome();
    assert_eq!(cluster.machine.files().unwrap().len(), 4);
    assert_eq!(cluster.machine.data_sha256(), Some([7; 32]));
}

#[test]
fn without_datasets_nothing_is_surveyed_or_scored() {
    let mut unjudged = plan(RecipeKind::Uniform, 3, 2);
    (unjudged.datasets, unjudged.baselines) = (0, false);
    let mut cluster = Cluster::new(unjudged);
    (0..2).for_each(|_| cluster.join());
    while cluster.log.surveyed.is_none() {
        assert!(!cluster.inbox.iter().any(|(.., work)| *work == Work::Survey));
        cluster.step();
    }
    // What the log knows of the pool outlives the coordinator.
    cluster.restart(true);
    cluster.run_quietly();
    let (soup, ..) = cluster.outcome();
    assert_eq!(Some(soup), Soup::uniform(3));
    assert_eq!((cluster.scored.len(), cluster.machine.files().unwrap().len()), (0, 2));
    assert!(cluster.machine.measured().is_some(), "geometry needs no data");
}

/// A run of 3 ingredients in shards that are not kept.
fn streaming(files: u32) -> Plan {
    let mut plan = plan(RecipeKind::Uniform, 3, files);
    (plan.datasets, plan.baselines, plan.streams) = (0, false, true);
    plan.shard_bytes.fill(1);
    plan
}

#[test]
fn what_streams_is_known_after_it_was_written() {
    for files in [1, 3] {
        let mut cluster = Cluster::new(streaming(files));
        (0..2).for_each(|_| cluster.join());
        let mut kinds = BTreeSet::new();
        while cluster.result.is_none() {
            let written = cluster.machine.files().is_some();
            for (.., work) in cluster.inbox.iter().filter(|(_, key, _)| key.task != 0) {
                let (kind, late) = match work {
                    Work::Load(_) => ("load", false),
                    Work::Write(..) => ("write", false),
                    Work::ReadBack(_) => ("read back", false),
                    Work::Digest(_) => ("digest", true),
                    Work::Pass(_) => ("pass", true),
                    other => panic!("{other:?} of a run without data"),
                };
                kinds.insert(kind);
                assert!(!late || written, "{work:?} before the files are written");
            }
            cluster.step();
        }
        assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
        assert_eq!(kinds.len(), if files == 1 { 4 } else { 5 }, "{kinds:?}");
        assert!(cluster.machine.measured().is_some());
        assert_eq!(cluster.log.surveyed.as_ref().unwrap().ingredients_sha256.len(), 3);
        assert!(cluster.machine.notes().any(|n| n == "a note of a pass"));
    }
}

#[test]
fn what_a_lost_owner_found_is_found_again() {
    let mut cluster = Cluster::new(streaming(1));
    (0..2).for_each(|_| cluster.join());
    while !cluster.inbox.iter().any(|(.., work)| matches!(work, Work::Pass(_))) {
        cluster.step();
    }
    let lost = cluster.alive.remove(0);
    cluster.inbox.retain(|(worker, ..)| *worker != lost);
    cluster.event(Event::WorkerLost(lost));
    cluster.run_quietly();
    assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
    // A coordinator that dies after all is known makes its successor ask again.
    let mut cluster = Cluster::new(streaming(2));
    cluster.join();
    while cluster.log.surveyed.is_none() {
        cluster.step();
    }
    cluster.restart(true);
    cluster.run_quietly();
    assert_eq!(cluster.outcome().0, Soup::uniform(3).unwrap());
}

#[test]
fn a_weighted_soup_is_never_replaced_by_another() {
    let weights = [0.25, 0.75].map(|w| Weight::new(w).unwrap()).to_vec();
    let soup = Soup::weighted(vec![Ingredient(0), Ingredient(2)], vec![weights]).unwrap();
    let mut given = plan(RecipeKind::Weighted, 3, 1);
    given.given = Some(soup.clone());
    let mut cluster = Cluster::new(given.clone());
    cluster.join();
    cluster.run_quietly();
    assert_eq!(cluster.outcome().0, soup);
    // Without its weights there is no soup, rather than the mean.
    given.given = None;
    let mut lost = Cluster::new(given);
    lost.join();
    lost.run_quietly();
    assert_eq!(lost.result.unwrap().unwrap_err().kind(), ErrorKind::Internal);
}

/// Shards that were read.
fn digested(machine: &Machine) -> usize {
    (0..machine.placement.shards() as u32).filter(|&s| machine.placement.is_digested(Shard(s))).count()
}

#[test]
fn late_and_repeated_answers_are_dropped() {
    let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 4, 1));
    cluster.join();
    // The survey.
    cluster.answer(0);
    let (worker, key, work) = cluster.inbox[0].clone();
    assert_eq!(cluster.machine.at(worker, key), Some(work.clone()));
    let others = [(worker, TaskKey { attempt: key.attempt + 1, ..key }), (WorkerId(99), key)];
    assert!(others.iter().all(|(worker, key)| cluster.machine.at(*worker, *key).is_none()));
    let stale = |k: TaskKey| Event::Done(worker, k, answer(&work, &plan(RecipeKind::Greedy, 4, 1)));
    cluster.event(stale(TaskKey { attempt: key.attempt + 1, ..key }));
    cluster.event(Event::Done(WorkerId(99), key, answer(&work, &plan(RecipeKind::Greedy, 4, 1))));
    assert_eq!(digested(&cluster.machine), 0);
    cluster.answer(0);
    assert_eq!(cluster.machine.at(worker, key), None);
    cluster.event(stale(key));
    assert_eq!(digested(&cluster.machine), 1);
}

#[test]
fn lasting_failures_on_two_workers_end_the_run_and_passing_ones_after_ten() {
    let fail = |kind: ErrorKind, times: usize| {
        let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 4, 1));
        (0..3).for_each(|_| cluster.join());
        while !cluster.machine.surveyed_enough() || !cluster.machine.placement.all_resident() {
            cluster.answer(0);
        }
        while !matches!(cluster.inbox.front(), Some((_, _, Work::Evaluate(..)))) {
            cluster.step();
        }
        let poisoned = cluster.inbox[0].2.clone();
        for _ in 0..times {
            while !cluster.inbox.iter().any(|(_, _, w)| *w == poisoned) {
                cluster.now += 20_000;
                if cluster.inbox.is_empty() { cluster.event(Event::Tick) } else { cluster.step() }
            }
            let at = cluster.inbox.iter().position(|(_, _, w)| *w == poisoned).unwrap();
            let (worker, key, _) = cluster.inbox.remove(at).unwrap();
            assert!(cluster.result.is_none());
            cluster.event(Event::Failed(worker, key, Error::new(kind, "no good")));
        }
        cluster
    };
    for kind in [ErrorKind::Data, ErrorKind::Internal] {
        assert!(fail(kind, 1).result.is_none());
        assert_eq!(fail(kind, 2).result.unwrap().unwrap_err().kind(), kind);
    }
    let mut transient = fail(ErrorKind::Unavailable, 5);
    transient.run_quietly();
    transient.outcome();
    assert_eq!(fail(ErrorKind::Unavailable, 10).result.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_pool_that_does_not_fit_is_refused_with_numbers() {
    let mut small = plan(RecipeKind::Uniform, 3, 1);
    small.shard_bytes = vec![3 << 20; 4];
    let mut cluster = Cluster::new(small);
    cluster.join();
    let error = cluster.result.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.chain().contains("12 MiB"), "{}", error.chain());
}

#[test]
fn shards_go_to_the_disk_when_no_memory_is_left_and_stay_where_they_are() {
    let offer = |worker, memory, disk, held: &[(Shard, Tier)]| NewWorker {
        worker: WorkerId(worker),
        name: worker.to_string(),
        slots: 2,
        space: space(memory, disk),
        judges: true,
        held: held.to_vec(),
    };
    let tiers = |cluster: &Cluster| {
        (0..5).map(|s| cluster.machine.tier(Shard(s))).filter(|t| *t == Tier::Disk).count()
    };
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.alive = vec![WorkerId(1), WorkerId(2)];
    cluster.event(Event::WorkersJoined(vec![offer(1, 250, 0, &[]), offer(2, 150, 250, &[])]));
    assert_eq!(tiers(&cluster), 2);
    assert!(cluster.machine.notes().any(|n| n.contains("disk caches")));
    cluster.run_quietly();
    cluster.outcome();
    // Under a later coordinator one that has a shard on its disk keeps it, though another one has memory for it.
    let mut log = cluster.log.clone();
    append(&mut log, Entry::EpochClaim(Claim::default()));
    let mut machine = Machine::resume(cluster.machine.plan.clone(), 0, &log).unwrap();
    let held = [(Shard(3), Tier::Disk)];
    machine.handle(10_000, Event::WorkersJoined(vec![offer(3, 1000, 0, &[]), offer(4, 0, 100, &held)]));
    assert_eq!((machine.tier(Shard(3)), machine.tier(Shard(2))), (Tier::Disk, Tier::Memory));
    assert_eq!(machine.placement.by_owner()[&WorkerId(4)], [Shard(3)]);
}

#[test]
fn shards_go_to_devices_as_long_as_any_worker_has_room_there() {
    let offer = |worker, space, held: &[(Shard, Tier)]| NewWorker {
        worker: WorkerId(worker),
        name: worker.to_string(),
        slots: 2,
        space,
        judges: true,
        held: held.to_vec(),
    };
    let on = |cluster: &Cluster, tier| {
        (0..5).map(|s| cluster.machine.tier(Shard(s))).filter(|t| *t == tier).count()
    };
    let gpu = Space { device: 250, memory: 100, disk: 0 };
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.alive = vec![WorkerId(1), WorkerId(2)];
    cluster.event(Event::WorkersJoined(vec![offer(1, gpu, &[]), offer(2, space(1000, 0), &[])]));
    assert_eq!([Tier::Device, Tier::Memory, Tier::Disk].map(|tier| on(&cluster, tier)), [2, 3, 0]);
    assert!(cluster.machine.notes().any(|n| n.contains("memory of the workers' devices")));
    cluster.run_quietly();
    cluster.outcome();
    // Where there is room for all nothing is said, and where a shard is it stays.
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.alive = vec![WorkerId(1), WorkerId(2)];
    let all = Space { device: 500, ..Space::default() };
    let held = [(Shard(2), Tier::Memory)];
    cluster.event(Event::WorkersJoined(vec![offer(1, all, &[]), offer(2, space(1000, 0), &held)]));
    assert_eq!((on(&cluster, Tier::Device), cluster.machine.tier(Shard(2))), (4, Tier::Memory));
    // One that does not fit is told all that there is.
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.machine.plan.shard_bytes = vec![3 << 20; 5];
    cluster.alive = vec![WorkerId(1)];
    let small = Space { device: 6 << 20, memory: 4 << 20, disk: 0 };
    cluster.event(Event::WorkersJoined(vec![offer(1, small, &[])]));
    let error = cluster.result.unwrap().unwrap_err().chain();
    assert!(error.contains("the one worker offers 6 MiB of device memory and 4 MiB: add workers"), "{error}");
}

#[test]
fn a_pool_that_does_not_fit_on_disks_either_is_refused_with_both() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.machine.plan.shard_bytes = vec![3 << 20; 5];
    cluster.alive.push(WorkerId(1));
    cluster.event(Event::WorkersJoined(vec![NewWorker {
        worker: WorkerId(1),
        name: 1.to_string(),
        slots: 2,
        space: space(6 << 20, 4 << 20),
        judges: true,
        held: vec![],
    }]));
    let error = cluster.result.unwrap().unwrap_err().chain();
    assert!(
        error.contains("15 MiB resident, and the one worker offers 6 MiB of memory and 4 MiB of disk"),
        "{error}"
    );
}

#[test]
fn workers_that_are_there_from_the_start_share_the_shards() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.alive = vec![WorkerId(1), WorkerId(2)];
    let new = |worker: &WorkerId| NewWorker {
        worker: *worker,
        name: worker.0.to_string(),
        slots: 9,
        space: space(300, 0),
        judges: true,
        held: vec![],
    };
    let workers = cluster.alive.iter().map(new).collect();
    cluster.event(Event::WorkersJoined(workers));
    cluster.answer(0);
    let loads =
        |w: u64| cluster.inbox.iter().filter(|(o, _, k)| o.0 == w && matches!(k, Work::Load(_))).count();
    assert_eq!((loads(1), loads(2)), (3, 2));
}

#[test]
fn no_shard_is_loaded_before_the_survey_is_there() {
    let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 4, 1));
    cluster.join();
    cluster.join();
    let works: Vec<&Work> = cluster.inbox.iter().map(|(_, _, work)| work).collect();
    assert!(matches!(works[..], [Work::Survey]), "{works:?}");
    // What it finds wrong, and another one too, ends the run with nothing read.
    for _ in 0..2 {
        let (worker, key, _) = cluster.inbox.remove(0).unwrap();
        assert!(cluster.result.is_none());
        cluster.event(Event::Failed(worker, key, Error::data("the labels are text")));
        cluster.now += 1000;
        cluster.event(Event::Tick);
    }
    assert_eq!(cluster.result.take().unwrap().unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn a_run_that_lost_room_waits_for_another_worker() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    let join = |cluster: &mut Cluster, worker: u64| {
        let worker = WorkerId(worker);
        cluster.alive.push(worker);
        cluster.event(Event::WorkersJoined(vec![NewWorker {
            worker,
            name: worker.0.to_string(),
            slots: 1,
            space: space(500, 0),
            judges: true,
            held: vec![],
        }]));
    };
    join(&mut cluster, 1);
    cluster.answer(0);
    join(&mut cluster, 2);
    cluster.lose(0);
    // The second worker has room for all; now one that has room for none is left.
    let small = NewWorker {
        worker: WorkerId(3),
        name: 3.to_string(),
        slots: 1,
        space: space(10, 0),
        judges: true,
        held: vec![],
    };
    cluster.alive.push(WorkerId(3));
    cluster.event(Event::WorkersJoined(vec![small]));
    cluster.lose(0);
    assert!(cluster.result.is_none());
    join(&mut cluster, 4);
    cluster.run_quietly();
    cluster.outcome();
}

#[test]
fn a_resumed_run_waits_for_the_workers_that_have_not_come_back() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.join();
    while cluster.log.surveyed.is_none() {
        cluster.step();
    }
    cluster.alive.clear();
    cluster.restart(true);
    cluster.now += 10_000;
    let small = NewWorker {
        worker: WorkerId(9),
        name: 9.to_string(),
        slots: 1,
        space: space(10, 0),
        judges: true,
        held: vec![],
    };
    cluster.alive.push(WorkerId(9));
    cluster.event(Event::WorkersJoined(vec![small]));
    assert!(cluster.result.is_none());
    assert!(cluster.machine.notes().any(|n| n.contains("offers 1 MiB")), "says what it waits for");
    cluster.join();
    cluster.run_quietly();
    cluster.outcome();
}

#[test]
fn a_task_that_failed_on_all_workers_left_ends_the_run() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    (0..2).for_each(|_| cluster.join());
    while !matches!(cluster.inbox.front(), Some((_, _, Work::Evaluate(..)))) {
        cluster.step();
    }
    let (worker, key, _) = cluster.inbox.remove(0).unwrap();
    cluster.event(Event::Failed(worker, key, Error::internal("no good")));
    assert!(cluster.result.is_none());
    let other = cluster.alive.iter().position(|w| *w != worker).unwrap();
    cluster.lose(other);
    assert!(cluster.result.unwrap().unwrap_err().chain().contains("no good"));
}

/// What belongs to an owner fails there: another one takes its shards, if there is one and it can.
#[test]
fn a_worker_that_cannot_keep_its_shards_is_left_out() {
    let full = || Error::configuration("the disk cache is full");
    let fails_at = |cluster: &mut Cluster, of: &dyn Fn(&Work, WorkerId) -> bool| {
        while cluster.result.is_none() {
            let Some(at) = cluster.inbox.iter().position(|(w, _, work)| of(work, *w)) else {
                match cluster.inbox.is_empty() && cluster.entry.is_none() {
                    true => cluster.event(Event::Tick),
                    false => cluster.step(),
                }
                continue;
            };
            let (worker, key, _) = cluster.inbox.remove(at).unwrap();
            cluster.event(Event::Failed(worker, key, full()));
        }
        cluster.result.take().unwrap()
    };
    let loads = |work: &Work| matches!(work, Work::Load(_) | Work::Gram(_));
    for kind in [RecipeKind::Greedy, RecipeKind::Uniform] {
        let mut calm = Cluster::new(plan(kind, 4, 1));
        (0..2).for_each(|_| calm.join());
        fails_at(&mut calm, &|_, _| false).unwrap();
        let mut cluster = Cluster::new(plan(kind, 4, 1));
        (0..3).for_each(|_| cluster.join());
        // The first one has all shards.
        let odd = cluster.alive[0];
        fails_at(&mut cluster, &|work, worker| loads(work) && worker == odd).unwrap();
        assert_eq!(cluster.machine.chosen(), calm.machine.chosen());
        assert!(
            cluster.machine.notes().any(|n| n.contains("worker 1 is left out of the run: the disk cache"))
        );
        // Where nobody can, the reason is the run's.
        let mut cluster = Cluster::new(plan(kind, 4, 1));
        (0..3).for_each(|_| cluster.join());
        let error = fails_at(&mut cluster, &|work, _| loads(work)).unwrap_err();
        assert_eq!(error.chain(), "the disk cache is full");
        assert_eq!(cluster.machine.workers.len(), 2, "the second one that cannot ends it");
        let mut alone = Cluster::new(plan(kind, 4, 1));
        alone.join();
        assert!(fails_at(&mut alone, &|work, _| loads(work)).is_err());
    }
}

#[test]
fn without_workers_the_run_waits_and_then_says_so() {
    let mut waiting = plan(RecipeKind::Uniform, 3, 1);
    waiting.workers_min = 2;
    let mut cluster = Cluster::new(waiting);
    cluster.join();
    assert!(cluster.inbox.is_empty());
    cluster.now += 600_000;
    cluster.event(Event::Tick);
    assert!(cluster.result.unwrap().unwrap_err().chain().contains("1 of 2"));
}

#[test]
fn a_run_can_be_cancelled_until_it_publishes() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 2, 1));
    cluster.join();
    cluster.answer(0);
    cluster.event(Event::Cancel);
    assert_eq!(cluster.result.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);

    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 2, 1));
    cluster.join();
    while !cluster.machine.publishing() {
        cluster.step();
    }
    cluster.event(Event::Cancel);
    assert!(cluster.result.is_none());
    cluster.run_quietly();
    cluster.outcome();
}

#[test]
fn an_ingredient_that_changes_between_two_loads_is_refused() {
    let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 2, 1));
    cluster.join();
    while !cluster.machine.placement.all_resident() {
        cluster.answer(0);
    }
    cluster.join();
    cluster.lose(0);
    let at = cluster.inbox.iter().position(|(_, _, w)| matches!(w, Work::Load(_))).unwrap();
    let (worker, key, _) = cluster.inbox.remove(at).unwrap();
    let other = TaskResult::Loaded { digests: vec![[99; 32]; 2], notes: vec![] };
    cluster.event(Event::Done(worker, key, other));
    assert_eq!(cluster.result.unwrap().unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn slices_cover_every_sample_once() {
    for samples in [1, 9, 10, 11, 639, 640, 641, 50_000] {
        for batch in [1, 10, 64] {
            let cut = slices(samples, batch);
            assert!(cut.len() as u64 <= SLICES_MAX);
            assert_eq!((cut[0].start, cut[cut.len() - 1].end), (0, samples));
            assert!(cut.windows(2).all(|w| w[0].end == w[1].start && w[0].start % u64::from(batch) == 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens along the way, the soup, the decisions and the scores (to the bit of their losses) are those of
    /// an undisturbed run on one worker, and no evaluation counts twice.
    #[test]
    fn faults_change_nothing(
        kind in prop_oneof![
            Just(RecipeKind::Greedy), Just(RecipeKind::Pruned), Just(RecipeKind::BestSingle), Just(RecipeKind::Learned)
        ],
        lookahead in 0..4u32,
        alpha in prop_oneof![Just(None), Just(Some(0.3))],
        steps in prop::collection::vec((0..100u32, any::<prop::sample::Index>()), 0..400),
    ) {
        let mut plan = plan(kind, 5, 2);
        plan.lookahead = lookahead.checked_sub(1);
        plan.recipe.alpha = alpha;
        plan.recipe.accept = alpha.map_or(Accept::AtLeast, |_| Accept::Significant);
        let expected = reference(&plan);
        let mut cluster = Cluster::new(plan);
        cluster.join();
        for (what, index) in steps {
            if cluster.result.is_some() {
                break;
            }
            match what {
                _ if cluster.entry.is_some() && what % 3 != 0 => cluster.durable(),
                0..4 => cluster.join(),
                4..8 if cluster.alive.len() > 1 => cluster.lose(index.index(cluster.alive.len())),
                8..12 if !cluster.inbox.is_empty() => {
                    let (worker, key, _) = cluster.inbox[index.index(cluster.inbox.len())].clone();
                    if key.task != 0 {
                        cluster.inbox.retain(|(w, k, _)| (*w, *k) != (worker, key));
                        cluster.event(Event::Failed(worker, key, Error::unavailable("a peer is gone")));
                    }
                }
                12..20 => { cluster.now += 5000; cluster.event(Event::Tick) }
                20..24 if !cluster.machine.publishing() => cluster.restart(what % 2 == 0),
                _ if cluster.inbox.is_empty() => { cluster.now += 5000; cluster.event(Event::Tick) }
                _ => cluster.answer(index.index(cluster.inbox.len())),
            }
        }
        cluster.run_quietly();
        prop_assert_eq!(cluster.outcome(), expected);
        let mut records = cluster.records.clone();
        let verified = verified_by(&cluster, &records).unwrap();
        prop_assert_eq!(verified.decisions as usize, cluster.trials.len());
        // A decision that the scores do not make is found.
        for record in &mut records {
            let decisions = match &mut record.entry {
                Entry::Scored(Scored { decisions, .. })
                | Entry::Rejected(Rejected { decisions, .. })
                | Entry::Compared(Compared { decisions, .. }) => decisions,
                _ => continue,
            };
            if let Some(decided) = decisions.first_mut() {
                decided.candidate += 1;
                break;
            }
        }
        let lie = verified_by(&cluster, &records);
        prop_assert_eq!(lie.is_err(), verified.decisions > 0);
        prop_assert!(cluster.placements > 0);
    }
}

#[test]
fn ingredients_are_named_by_position() {
    // The best single of equals is the first in the pool.
    let mut cluster = Cluster::new(plan(RecipeKind::BestSingle, 3, 1));
    cluster.join();
    cluster.run_quietly();
    let (soup, ..) = cluster.outcome();
    let best = cluster.machine.best_single().unwrap();
    assert_eq!(soup, best);
    assert!(best.members()[0] <= Ingredient(2));
}

#[test]
fn a_coordinator_that_dies_after_every_entry_loses_no_slice() {
    for kind in [RecipeKind::Uniform, RecipeKind::Greedy, RecipeKind::Pruned] {
        let plan = plan(kind, 4, 1);
        let expected = reference(&plan);
        let mut cluster = Cluster::new(plan);
        (0..3).for_each(|_| cluster.join());
        while cluster.result.is_none() {
            if cluster.entry.is_some() {
                let publishing = matches!(cluster.entry, Some(Entry::Publishing { .. }));
                if publishing {
                    cluster.durable()
                } else {
                    cluster.restart(true)
                }
                cluster.now += 10_000;
                cluster.event(Event::Tick);
            } else if cluster.inbox.is_empty() {
                cluster.now += 1000;
                cluster.event(Event::Tick);
            } else {
                cluster.answer(0);
            }
        }
        assert_eq!(cluster.outcome(), expected);
        let slices = cluster.evaluated.iter().filter(|(work, _)| matches!(work, Work::Evaluate(..)));
        assert!(slices.clone().count() > 20);
        assert!(slices.clone().all(|(_, &n)| n == 1), "a slice in the log is never evaluated again");
        let loads = cluster.evaluated.iter().filter(|(work, _)| matches!(work, Work::Load(_)));
        assert_eq!(cluster.log.decisions as usize, cluster.trials.len());
        assert!(loads.count() > 0);
    }
}

#[test]
fn scores_of_earlier_runs_are_not_evaluated_again() {
    let mut plan = Plan { early: false, ..plan(RecipeKind::Greedy, 5, 1) };
    let mut first = Cluster::new(plan.clone());
    first.join();
    first.run_quietly();
    let expected = first.outcome();

    plan.recall = true;
    let mut again = Cluster::new(plan.clone());
    again.earlier = first.log.scores.iter().cloned().collect();
    let forgotten = again.earlier.pop_last().unwrap().0;
    again.join();
    again.run_quietly();
    assert_eq!(again.outcome(), expected);
    let evaluated: BTreeSet<&Evaluation> = again
        .evaluated
        .keys()
        .filter_map(|w| if let Work::Evaluate(e, _) = w { Some(e) } else { None })
        .collect();
    assert_eq!(evaluated.into_iter().collect::<Vec<_>>(), [&forgotten]);
}

#[test]
fn a_worker_hands_in_what_it_finished_for_a_dead_coordinator() {
    let mut cluster = Cluster::new(plan(RecipeKind::Greedy, 3, 1));
    cluster.join();
    while !matches!(cluster.inbox.front(), Some((_, _, Work::Evaluate(..)))) {
        cluster.step();
    }
    let (_, _, work) = cluster.inbox[0].clone();
    let Work::Evaluate(evaluation, slice) = &work else { unreachable!() };
    let judged = Judged::Outcomes((slice.start..slice.end).map(|i| outcome(evaluation, i)).collect());
    cluster.restart(false);
    cluster.event(Event::HandedIn(WorkerId(1), evaluation.clone(), *slice, judged.clone()));
    // What does not fit is dropped, and so is what is known already.
    cluster.event(Event::HandedIn(
        WorkerId(1),
        evaluation.clone(),
        Slice { end: slice.end + 1, ..*slice },
        judged.clone(),
    ));
    cluster.event(Event::HandedIn(WorkerId(1), evaluation.clone(), *slice, judged));
    cluster.now += 10_000;
    cluster.run_quietly();
    cluster.outcome();
    assert_eq!(cluster.evaluated.get(&work), None);
}

#[test]
fn a_straggler_is_given_to_an_idle_worker_and_the_first_answer_counts() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    (0..2).for_each(|_| cluster.join());
    // Worker 1 answers everything at once, worker 2 nothing any more once slices are handed out.
    while !matches!(cluster.inbox.front(), Some((_, _, Work::Evaluate(..)))) {
        cluster.step();
    }
    let slow = cluster.alive[1];
    let mut duplicated = None;
    for _ in 0..500 {
        if cluster.entry.is_some() {
            cluster.durable();
        } else if let Some(at) = cluster.inbox.iter().position(|(w, ..)| *w != slow) {
            let work = cluster.inbox[at].2.clone();
            if cluster.inbox.iter().any(|(w, _, other)| *w == slow && *other == work) {
                duplicated = Some(work);
            }
            cluster.answer(at);
            if let Some(work) = &duplicated {
                assert!(!cluster.inbox.iter().any(|(_, _, w)| w == work), "the slow one is told to stop");
                break;
            }
        } else {
            cluster.now += 1000;
            cluster.event(Event::Tick);
        }
    }
    assert!(duplicated.is_some());
    cluster.run_quietly();
    cluster.outcome();
}

#[test]
fn a_log_of_another_run_is_refused() {
    let mut cluster = Cluster::new(plan(RecipeKind::Uniform, 3, 1));
    cluster.join();
    while cluster.log.surveyed.is_none() {
        cluster.step();
    }
    let other = plan(RecipeKind::Uniform, 4, 1);
    assert_eq!(Machine::resume(other, 0, &cluster.log).map(|_| ()).unwrap_err().kind(), ErrorKind::Data);
}
