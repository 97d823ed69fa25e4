//! A run in progress: its machine, and the performing of the machine's actions.

mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use soup_core::layer::Layers;
use soup_core::ledger::{Dataset, Evaluation};
use soup_core::machine::{
    Action, AuditPlan, DiagnosisPlan, Event, Limits, Machine, Millis, Phase, Plan, Report, TaskKey, Tier,
    Work, WorkerId,
};
use soup_core::recipe::Verdict;
use soup_core::report::RunReport;
use soup_core::run::DiagnosisLevel;
use soup_core::tally::Tally;
use soup_core::{Error, Result};
use soup_metrics::{count, metrics, observe};
use soup_store::outcomes::Outcomes;
use soup_store::output::Staging;
use soup_store::scores::KeptScore;
use soup_store::state::AppendError;
use tokio::sync::mpsc;

use crate::CoordinatorConfig;
use crate::event_log::EventLog;
use crate::exchange::{Assignment, Attempt, Incarnation, PeerKey, Told};
use crate::hub::Message;
use crate::hub::ending::{self, End, Ending, Staged, Writing};
use crate::journaling::Journaling;
use crate::messages;
use crate::opening::{Owned, Started};
use crate::prepare::PreparedRun;
use crate::publish::{self, Written};
use crate::recall::Recall;
use crate::roster::Roster;
use crate::seal::Seals;
use crate::significance;
use crate::streaming::Progress;
use crate::trace::Trace;

/// What people should know of a run on a cluster that speaks plain text.
const INSECURE: &str = "the cluster spoke plain text beyond one host: who took part in this run, and who read along, is not known";

/// The run in progress.
pub(crate) struct Running {
    of: Incarnation,
    key: PeerKey,
    prepared: Arc<PreparedRun>,
    staging: Arc<Staging>,
    /// Whether an earlier coordinator was about to publish.
    publishing_before: bool,
    machine: Machine,
    log: Arc<EventLog>,
    journal: Journaling,
    recall: Recall,
    /// What happened to every sample, of soups that have a score.
    outcomes: Outcomes,
    seals: Seals,
    trace: Trace,
    /// Workers that are not believed, by [who](Roster::who) they are. Who comes back as one takes no part.
    quarantined: BTreeSet<String>,
    inbox: mpsc::Sender<Message>,
    /// What people should know, besides the machine's notes.
    notes: Vec<String>,
    /// The phase that time is being counted for, and since when.
    phase: (Phase, Millis),
    spent_ms: BTreeMap<Phase, Millis>,
    /// How much of that operators have been shown.
    shown_ms: BTreeMap<Phase, Millis>,
    /// What this coordinator's workers have read of the pool, in bytes.
    pool_bytes_read: u64,
    /// How far it has come, where shards are not kept.
    progress: Progress,
    /// The publisher's answer, until the machine has it.
    published: Option<Result<String>>,
    finished_json: Option<String>,
    /// How the machine says that it has ended, until that is done.
    result: Option<Result<()>>,
}

impl Running {
    /// Begins a run whose turn has come.
    ///
    /// # Errors
    /// Where the run cannot be driven, with what it has; then it has to be closed.
    pub(crate) fn begin(
        started: Started,
        log: Arc<EventLog>,
        config: &CoordinatorConfig,
        now: Millis,
        inbox: mpsc::Sender<Message>,
    ) -> Result<Running, (Box<Started>, Error)> {
        let prepared = &started.owned.prepared;
        let of = started.owned.incarnation();
        let shards = prepared.shards.count();
        let audit = AuditPlan::new(prepared.spec.audit_ppm, started.seals.audits());
        let plan = Plan { audit, ..plan(prepared, started.recall.looks(), limits(config)) };
        let sized = messages::check_size(&of, prepared);
        // A log that the machine trips over is this run's trouble alone.
        let resume = || Machine::resume(plan, now, &started.owned.fold);
        let defect =
            |_| Err(Error::internal("a defect of this program keeps the run from going on: report it"));
        let guarded = |()| catch_unwind(AssertUnwindSafe(resume)).unwrap_or_else(defect);
        let (machine, key) =
            match sized.and_then(guarded).and_then(|m| Ok((m, soup_trust::ticket::new_key()?))) {
                Ok((machine, key)) => (machine, PeerKey(key)),
                Err(error) => return Err((Box::new(started), error)),
            };
        let Started { owned, staging, recall, outcomes, seals, .. } = started;
        log.planned(&owned.prepared);
        let mut notes = owned.prepared.notes.clone();
        notes.extend(config.insecure.then(|| INSECURE.to_owned()));
        let resumed = resumed(&owned);
        for note in notes.iter().chain(&resumed) {
            log.note(note);
        }
        Ok(Running {
            notes,
            journal: Journaling::start(of.run.clone(), owned.journal, outcomes.clone(), inbox.clone()),
            recall,
            outcomes,
            seals,
            trace: Trace::of(&owned.prepared, &of),
            quarantined: BTreeSet::new(),
            publishing_before: owned.fold.publishing,
            prepared: owned.prepared,
            of,
            key,
            staging,
            machine,
            log,
            inbox,
            phase: (Phase::Gathering, now),
            spent_ms: BTreeMap::new(),
            shown_ms: BTreeMap::new(),
            pool_bytes_read: 0,
            progress: Progress::of(shards),
            published: None,
            finished_json: None,
            result: None,
        })
    }

    pub(crate) fn run(&self) -> &str {
        &self.of.run
    }

    /// What is known of it.
    pub(crate) fn prepared(&self) -> &PreparedRun {
        &self.prepared
    }

    /// What tells the slices that its workers were given.
    pub(crate) fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Whether that worker is not believed.
    pub(crate) fn is_quarantined(&self, who: &str) -> bool {
        self.quarantined.contains(who)
    }

    /// Whether a message is for this run and this coordinator.
    pub(crate) fn is(&self, run: &str, epoch: u64) -> bool {
        self.of.run == run && self.of.epoch == epoch
    }

    /// What a worker is at in an attempt, if that is with it now.
    pub(crate) fn at(&self, worker: WorkerId, key: TaskKey) -> Option<Work> {
        self.machine.at(worker, key)
    }

    /// How far it is, in one word.
    pub(crate) fn phase_name(&self) -> &'static str {
        self.phase.0.name()
    }

    /// How many shards each worker owns.
    pub(crate) fn shards_of(&self) -> BTreeMap<WorkerId, u32> {
        self.machine.shards_of()
    }

    /// Whether the output is being made visible, which is not interrupted.
    pub(crate) fn publishing(&self) -> bool {
        self.machine.publishing()
    }

    /// Notes what was read of the pool for an answer, even if nobody needs the answer any more.
    pub(crate) fn count_read(&mut self, bytes: u64) {
        metrics().coordinator.pool_read.inc_by(bytes);
        self.pool_bytes_read = self.pool_bytes_read.saturating_add(bytes);
    }

    /// A worker has passed over so many shards, which are not kept.
    pub(crate) fn has_passed(&mut self, worker: WorkerId, shards: u32) {
        if let Some((resident, shards)) = self.progress.says(worker, shards) {
            self.push(&Report::Loading { resident, shards });
        }
    }

    /// The publisher's answer; takes effect with the next event.
    pub(crate) fn published(&mut self, result: Result<String>) {
        self.published = Some(result);
    }

    /// How it ends, once the machine has said so; the answer is given once.
    pub(crate) fn end(&mut self) -> Option<End> {
        let result = self.result.take()?;
        let json = self.finished_json.take();
        let missing = || Error::internal("the run ended without a report");
        Some(End::of(result.and_then(|()| json.ok_or_else(missing))))
    }

    /// Why its journal was lost, with what stays behind.
    pub(crate) fn leaving(&self, error: AppendError) -> AppendError {
        ending::leaving(error, &self.staging)
    }

    /// What is left of the run, where it ends so.
    pub(crate) fn into_ending(mut self, end: End) -> Ending {
        self.show_phase(self.phase.0);
        let staged = Staged::of(&end, self.staging, self.publishing_before);
        let journal = Writing::Entries(self.journal);
        Ending { run: self.of.run, end, journal, recall: Some(self.recall), staged }
    }

    /// Feeds one event to the machine and performs what it asks for.
    pub(crate) fn drive(&mut self, now: Millis, event: Event, roster: &mut Roster) {
        if let Event::WorkerLost(worker) = &event {
            self.progress.lost(*worker);
        }
        let mut events = VecDeque::from([event]);
        if let Some(published) = self.published.take() {
            events.push_back(Event::Published(published.map(|json| self.finished_json = Some(json))));
        }
        while let Some(event) = events.pop_front() {
            soup_store::failpoint::trip("defect-in-run");
            let actions = self.machine.handle(now, event);
            self.count_time(now);
            for action in actions {
                if let Some(worker) = self.perform(action, roster, &mut events)
                    && roster.leave(worker)
                {
                    // What was meant for it is lost, so it has to be too: its stream ends and it starts afresh.
                    tracing::warn!(run = self.of.run, worker = worker.0, "worker does not take messages");
                    count(&metrics().coordinator.lost, ("reason", "outbox"));
                    events.push_back(Event::WorkerLost(worker));
                }
            }
        }
    }

    /// Performs an action; gives the worker that did not take its message, if one did not.
    fn perform(&mut self, action: Action, roster: &Roster, events: &mut VecDeque<Event>) -> Option<WorkerId> {
        let of = self.of.clone();
        let (worker, told) = match action {
            Action::Begin(worker) => (worker, Told::Begin(of, self.prepared.clone(), self.key.clone())),
            Action::Place(worker, owners) => (worker, Told::Place { of, owners, peers: roster.peers() }),
            Action::Assign(worker, key, work) => {
                let (task, attempt) = (key.task, key.attempt);
                tracing::debug!(run = of.run, worker = worker.0, task, attempt, ?work, "assign");
                let tier = match &work {
                    Work::Load(shard) => self.machine.tier(*shard),
                    _ => Tier::Memory,
                };
                let seal = match &work {
                    Work::Evaluate(evaluation, slice) => {
                        self.seals.seal(&roster.who(worker), evaluation, slice)
                    }
                    _ => Vec::new(),
                };
                let samples = match &work {
                    Work::Evaluate(_, slice) => self.machine.samples_in(slice).unwrap_or_default().to_vec(),
                    _ => Vec::new(),
                };
                let (attempt, prepared) = (Attempt { of, key }, self.prepared.clone());
                let traceparent = self.trace.parent(&work);
                (
                    worker,
                    Told::Assign(Assignment { attempt, work, samples, tier, seal, traceparent, prepared }),
                )
            }
            Action::Cancel(worker, key) => (worker, Told::Cancel(Attempt { of, key })),
            Action::Quarantine(worker) => {
                tracing::warn!(
                    run = of.run,
                    worker = worker.0,
                    name = roster.who(worker),
                    "worker quarantined"
                );
                metrics().coordinator.quarantined.inc();
                self.quarantined.insert(roster.who(worker));
                return None;
            }
            Action::Forget(worker) => (worker, Told::Forget(of)),
            Action::Release(worker, step, part) => (worker, Told::Release { of, step, part }),
            other => {
                self.perform_here(other, events);
                return None;
            }
        };
        (!roster.send(worker, told)).then_some(worker)
    }

    /// Performs an action that no worker is told of.
    fn perform_here(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Record(entry, packed) => self.journal.append(entry, packed),
            Action::Recollect(evaluation, sha256) => self.recollect(evaluation, sha256),
            Action::Recall(evaluation) => self.look_up(evaluation, events),
            Action::Report(report) => self.tell(&report),
            Action::Publish => self.publish(),
            Action::Finish(result) => self.result = Some(result),
            Action::Begin(_)
            | Action::Place(..)
            | Action::Assign(..)
            | Action::Cancel(..)
            | Action::Quarantine(_)
            | Action::Forget(_)
            | Action::Release(..) => {}
        }
    }

    /// Looks for a score of an earlier run: at once where there is none, else beside the hub.
    fn look_up(&self, evaluation: Evaluation, events: &mut VecDeque<Event>) {
        let ingredients = self.machine.surveyed().map_or(&[][..], |s| &s.ingredients_sha256);
        let found = self.recall.find(&evaluation, ingredients);
        let Some((scores, key)) = found else {
            return events.push_back(Event::Recalled(evaluation, None));
        };
        let (run, epoch, inbox) = (self.of.run.clone(), self.of.epoch, self.inbox.clone());
        tokio::spawn(async move {
            let score = scores.get(&key).await.unwrap_or_else(|e| {
                tracing::warn!(error = e.chain(), "a kept score cannot be read; the soup is scored again");
                None
            });
            // Where the hub is gone, nobody wants it.
            let score = score.map(|KeptScore { score, outcomes_sha256 }| (score, outcomes_sha256));
            let _ = inbox.send(Message::ForRun(run, epoch, Event::Recalled(evaluation, score))).await;
        });
    }

    /// Looks for the outcomes that a score adds up, beside the hub.
    fn recollect(&self, evaluation: Evaluation, sha256: [u8; 32]) {
        let (run, epoch, inbox) = (self.of.run.clone(), self.of.epoch, self.inbox.clone());
        let (outcomes, samples_max) =
            (self.outcomes.clone(), self.machine.ledger().samples(evaluation.dataset).unwrap_or(0));
        tokio::spawn(async move {
            let found = outcomes.get(&sha256, samples_max).await.unwrap_or_else(|e| {
                tracing::warn!(
                    error = e.chain(),
                    "kept outcomes cannot be read; samples are judged in their own order"
                );
                None
            });
            // Where the hub is gone, nobody wants them.
            let _ = inbox.send(Message::ForRun(run, epoch, Event::Recollected(evaluation, found))).await;
        });
    }

    fn keep(&mut self, evaluation: &Evaluation, score: &Tally) {
        let ingredients = self.machine.surveyed().map_or(&[][..], |s| &s.ingredients_sha256);
        self.recall.keep(evaluation, self.kept(evaluation, score), ingredients);
    }

    /// A score as it is kept, with the name of its outcomes.
    fn kept(&self, evaluation: &Evaluation, score: &Tally) -> KeptScore {
        KeptScore { score: score.clone(), outcomes_sha256: self.machine.outcomes_sha256(evaluation) }
    }

    /// Keeps all scores, now that none is taken back any more.
    fn keep_all(&mut self) {
        let ingredients = self.machine.surveyed().map_or(&[][..], |s| &s.ingredients_sha256);
        for (dataset, soup, score) in self.machine.ledger().scores() {
            let evaluation = Evaluation { dataset, soup: soup.clone() };
            self.recall.keep(&evaluation, self.kept(&evaluation, score), ingredients);
        }
    }

    /// Tells watchers, and the log where it is worth a line.
    fn tell(&mut self, report: &Report) {
        if let Report::Scored(evaluation, _) | Report::Rejected(evaluation, _) = report {
            self.trace.scored(evaluation);
        }
        if !matches!(report, Report::Loading { resident, .. } if self.progress.is_told(*resident)) {
            self.push(report);
        }
        match report {
            Report::Decided(trial, d) => {
                let value = self.machine.metric().map_or(f64::NAN, |metric| d.value(metric));
                let (samples, early) = (d.score.samples(), d.early);
                tracing::info!(run = self.of.run, trial, value, samples, early, verdict = ?d.verdict, "trial decided");
                count(&metrics().coordinator.trials, ("verdict", verdict(d.verdict)));
            }
            // What is audited may be taken back until the run is done.
            Report::Scored(evaluation, score) if self.prepared.spec.audit_ppm == 0 => {
                self.keep(evaluation, score)
            }
            Report::Loading { resident, shards } if resident == shards => self.note_duplicates(),
            _ => {}
        }
    }

    /// Notes ingredients that are equal to the bit, once all digests are known. They weigh a mean towards themselves.
    fn note_duplicates(&mut self) {
        let mut first: BTreeMap<Vec<[u8; 32]>, &String> = BTreeMap::new();
        let mut notes = Vec::new();
        for (index, name) in self.prepared.names.iter().enumerate() {
            let Some(digests) = self.machine.ingredient_digests(index) else { return };
            match first.entry(digests) {
                btree_map::Entry::Vacant(slot) => {
                    slot.insert(name);
                }
                btree_map::Entry::Occupied(same) => {
                    notes.push(format!("ingredient {name:?} equals ingredient {:?}", same.get()))
                }
            }
        }
        self.say(notes);
    }

    /// Notes the classes without a sample that are in a mean over all of them.
    fn note_absent_classes(&mut self) {
        let (Some(soup), Some(metric)) = (self.machine.chosen(), self.machine.metric()) else { return };
        let answers = !self.prepared.spec.decoding.is_labels();
        let ledger = self.machine.ledger();
        let sets = (0u32..).map(Dataset).zip(self.prepared.reported());
        let absent = sets.filter_map(|(set, name)| {
            let (absent, classes) = metric.without_samples(ledger.score(set, soup)?, answers)?;
            Some(format!(
                "macro-f1 is the mean over all {classes} classes of the model: {absent} of them have no sample in dataset {name:?}, and count 0"
            ))
        });
        let notes: Vec<String> = absent.collect();
        self.say(notes);
    }

    /// Notes what has not been noted yet.
    fn say(&mut self, notes: Vec<String>) {
        for note in notes {
            if !self.notes.contains(&note) {
                self.log.note(&note);
                self.notes.push(note);
            }
        }
    }

    fn push(&self, report: &Report) {
        self.log.report(report, &self.prepared.datasets, self.machine.metric());
    }

    fn publish(&mut self) {
        if self.prepared.spec.audit_ppm > 0 {
            self.keep_all();
        }
        let (of, inbox) = (self.of.clone(), self.inbox.clone());
        let files = self.machine.files().unwrap_or_default();
        let digests: Vec<_> =
            (0..self.prepared.names.len()).map(|i| self.machine.ingredient_digests(i)).collect();
        self.note_absent_classes();
        match self.report() {
            Ok(report) => {
                let (prepared, staging) = (self.prepared.clone(), self.staging.clone());
                let (pairs, metric) = (self.pairs(), self.machine.metric().cloned());
                let outcomes = self.outcomes.clone();
                // The last record is the one that this follows from.
                let head = self.journal.head();
                tokio::spawn(async move {
                    soup_store::failpoint::reach("before-publish");
                    let written = Written { files: &files, ingredients: &digests, head: &head };
                    let significance = match &metric {
                        Some(metric) => significance::compare(pairs, metric, &outcomes).await,
                        None => Vec::new(),
                    };
                    let report = RunReport { significance, ..report };
                    let result = publish::publish(&prepared, &staging, report, &written).await;
                    soup_store::failpoint::reach("after-publish");
                    // Where the hub is gone, the output is there all the same.
                    let _ = inbox.send(Message::Published(of, result)).await;
                });
            }
            Err(error) => self.published = Some(Err(error)),
        }
    }

    fn count_time(&mut self, now: Millis) {
        let (phase, since) = self.phase;
        *self.spent_ms.entry(phase).or_default() += now.saturating_sub(since);
        self.phase = (self.machine.phase(), now);
        if self.phase.0 != phase {
            self.show_phase(phase);
        }
    }

    /// Shows operators how long the run has been in a phase, which it leaves.
    fn show_phase(&mut self, phase: Phase) {
        let spent = self.spent_ms.get(&phase).copied().unwrap_or_default();
        let shown = self.shown_ms.insert(phase, spent).unwrap_or_default();
        let took = Duration::from_millis(spent.saturating_sub(shown));
        observe(&metrics().coordinator.phase, ("phase", phase.name()), took);
    }
}

/// A verdict in one word, for counting.
fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted => "accepted",
        Verdict::Rejected => "rejected",
    }
}

fn plan(prepared: &PreparedRun, recall: bool, limits: Limits) -> Plan {
    let spec = &prepared.spec;
    let ingredients = prepared.names.len() as u32;
    let resident = |s| {
        let range = prepared.shards.range(s);
        (range.end - range.start).saturating_mul(u64::from(ingredients))
    };
    Plan {
        ingredients,
        // Where nothing stays there is room for any number, and owners have equal shares.
        shard_bytes: match spec.streams() {
            true => vec![1; prepared.shards.count() as usize],
            false => prepared.shards.shards().map(resident).collect(),
        },
        pool_bytes: prepared.shards.shards().map(resident).fold(0, u64::saturating_add),
        streams: spec.streams(),
        judge: prepared.judge.clone(),
        datasets: spec.datasets().count() as u32,
        batch_size: spec.batch_size,
        files: prepared.files.len() as u32,
        recipe: spec.recipe.clone(),
        groups: prepared.groups.clone(),
        given: prepared.given.clone(),
        ranking: prepared.ranking.clone(),
        train: spec.train_set(),
        calibration: spec.calibration_set(),
        answers: !spec.decoding.is_labels(),
        diagnosis: DiagnosisPlan {
            layers: (spec.diagnosis.level != DiagnosisLevel::None)
                .then(|| Arc::new(Layers::new(&prepared.schema))),
            require_shared_init: spec.diagnosis.require_shared_init,
            full: spec.diagnosis.level == DiagnosisLevel::Full,
        },
        baselines: spec.baselines,
        early: spec.evaluate.is_early(),
        lookahead: spec.lookahead,
        workers_min: spec.workers_min,
        recall,
        audit: AuditPlan::default(),
        limits,
    }
}

/// How long a run waits, and for whom.
fn limits(config: &CoordinatorConfig) -> Limits {
    let limits = Limits { start_timeout_ms: config.start_timeout_ms, ..Limits::default() };
    match config.one_process {
        // Workers that an earlier coordinator had ended with it.
        true => Limits { settle_ms: 0, ..limits },
        false => limits,
    }
}

/// What people should know of a run that goes on.
fn resumed(owned: &Owned) -> Option<String> {
    let fold = &owned.fold;
    let slices: usize = fold.slices.values().map(|slices| slices.judged.len()).sum();
    (fold.epoch > 1).then(|| {
        format!(
            "goes on where it stopped (epoch {}): {} soups scored, {} trials decided, {slices} slices more",
            fold.epoch,
            fold.scores.len(),
            fold.decisions
        )
    })
}
