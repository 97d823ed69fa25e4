//! A run in progress: its machine, and the performing of the machine's actions.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use soup_core::machine::{Action, Event, Limits, Machine, Millis, NewWorker, Phase, Plan, Report, WorkerId};
use soup_core::report::{Baselines, RunReport, Sources};
use soup_core::score::Score;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_proto::report_event;
use soup_proto::v1::coordinator_message::Message as Down;
use soup_proto::v1::run_event::Event as RunEventKind;
use soup_proto::v1::{Planned, RunEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event_log::EventLog;
use crate::hub::Message;
use crate::messages;
use crate::prepare::Prepared;
use crate::publish;
use crate::roster::Roster;

/// The run in progress.
pub(crate) struct Running {
    run: String,
    prepared: Arc<Prepared>,
    machine: Machine,
    log: Arc<EventLog>,
    /// What people should know, besides the machine's notes.
    notes: Vec<String>,
    /// The phase that time is being counted for, and since when.
    phase: (Phase, Millis),
    spent_ms: BTreeMap<Phase, Millis>,
    /// The publisher's answer, until the machine has it.
    published: Option<Result<String>>,
    finished_json: Option<String>,
    /// What has to end before the coordinator may: publishing, or removing what was staged.
    last_work: Option<JoinHandle<()>>,
}

impl Running {
    /// Begins a prepared run.
    pub(crate) fn begin(
        run: &str,
        prepared: Prepared,
        log: Arc<EventLog>,
        start_timeout_ms: Millis,
        now: Millis,
    ) -> Result<Running> {
        let spec = &prepared.spec;
        let ingredients = prepared.names.len() as u32;
        let resident = |s| {
            let range = prepared.shards.range(s);
            (range.end - range.start).saturating_mul(u64::from(ingredients))
        };
        let plan = Plan {
            ingredients,
            shard_bytes: prepared.shards.shards().map(resident).collect(),
            datasets: spec.datasets().count() as u32,
            batch_size: spec.batch_size,
            files: prepared.files.len() as u32,
            recipe: spec.recipe,
            baselines: spec.baselines,
            lookahead: spec.lookahead,
            workers_min: spec.workers_min,
            limits: Limits { start_timeout_ms, ..Limits::default() },
        };
        messages::begin(run, &prepared).check_size()?;
        let machine = Machine::new(plan, now)?;
        log.push(RunEvent { event: Some(RunEventKind::Planned(planned(&prepared))) });
        for note in &prepared.notes {
            log.push(RunEvent { event: Some(RunEventKind::Note(note.clone())) });
        }
        Ok(Running {
            run: run.to_owned(),
            notes: prepared.notes.clone(),
            prepared: Arc::new(prepared),
            machine,
            log,
            phase: (Phase::Gathering, now),
            spent_ms: BTreeMap::new(),
            published: None,
            finished_json: None,
            last_work: None,
        })
    }

    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn ended(&self) -> bool {
        self.machine.ended()
    }

    /// What has to end before the coordinator may, if it has begun.
    pub(crate) fn take_last_work(&mut self) -> Option<JoinHandle<()>> {
        self.last_work.take()
    }

    /// The publisher's answer; takes effect with the next event.
    pub(crate) fn published(&mut self, result: Result<String>) {
        self.published = Some(result);
    }

    /// Feeds one event to the machine and performs what it asks for.
    pub(crate) fn drive(
        &mut self,
        now: Millis,
        event: Event,
        roster: &mut Roster,
        inbox: &mpsc::Sender<Message>,
    ) {
        let mut events = VecDeque::from([event]);
        if let Some(published) = self.published.take() {
            events.push_back(Event::Published(published.map(|json| self.finished_json = Some(json))));
        }
        while let Some(event) = events.pop_front() {
            let actions = self.machine.handle(now, event);
            self.count_time(now);
            for action in actions {
                if let Some(worker) = self.perform(action, roster, inbox)
                    && roster.leave(worker)
                {
                    // What was meant for it is lost, so it has to be too: its stream ends and it starts afresh.
                    tracing::warn!(run = self.run, worker = worker.0, "worker does not take messages");
                    events.push_back(Event::WorkerLost(worker));
                }
            }
        }
    }

    /// Performs an action; gives the worker that did not take its message, if one did not.
    fn perform(
        &mut self,
        action: Action,
        roster: &Roster,
        inbox: &mpsc::Sender<Message>,
    ) -> Option<WorkerId> {
        let (worker, message) = match action {
            Action::Begin(worker) => (worker, Down::Begin(messages::begin(&self.run, &self.prepared))),
            Action::Place(worker, owners) => {
                (worker, messages::placement(&self.run, &owners, roster.peers()))
            }
            Action::Assign(worker, key, work) => {
                let (task, attempt) = (key.task, key.attempt);
                tracing::debug!(run = self.run, worker = worker.0, task, attempt, ?work, "assign");
                (worker, messages::assign(&self.run, key, &work, &self.prepared))
            }
            Action::Cancel(worker, key) => (worker, messages::cancel(&self.run, key)),
            Action::Report(report) => {
                self.tell(&report);
                return None;
            }
            Action::Publish => {
                self.publish(inbox);
                return None;
            }
            Action::Finish(result) => {
                self.finish(result, roster);
                return None;
            }
        };
        (!roster.send(worker, message)).then_some(worker)
    }

    /// Tells watchers, and the log where it is worth a line.
    fn tell(&mut self, report: &Report) {
        let value = |s: &Score| self.metric_value(s);
        self.log.push(report_event(report, &self.prepared.datasets, &value));
        match report {
            Report::Decided(trial, d) => {
                let (correct, total) = (d.score.correct, d.score.total);
                tracing::info!(run = self.run, trial, correct, total, verdict = ?d.verdict, "trial decided");
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
                Entry::Vacant(slot) => {
                    slot.insert(name);
                }
                Entry::Occupied(same) => {
                    notes.push(format!("ingredient {name:?} equals ingredient {:?}", same.get()))
                }
            }
        }
        for note in notes {
            if !self.notes.contains(&note) {
                self.log.push(RunEvent { event: Some(RunEventKind::Note(note.clone())) });
                self.notes.push(note);
            }
        }
    }

    fn metric_value(&self, score: &Score) -> f64 {
        self.prepared.spec.recipe.metric.value(score, self.machine.classes().unwrap_or_default())
    }

    fn publish(&mut self, inbox: &mpsc::Sender<Message>) {
        let (run, inbox) = (self.run.clone(), inbox.clone());
        let files = self.machine.files().unwrap_or_default();
        let digests = (0..self.prepared.names.len()).map(|i| self.machine.ingredient_digests(i)).collect();
        match self.report() {
            Ok(report) => {
                let prepared = self.prepared.clone();
                self.last_work = Some(tokio::spawn(async move {
                    let result = publish::publish(&prepared, report, &files, digests).await;
                    // Where the hub is gone, the output is there all the same.
                    let _ = inbox.send(Message::Published(run, result)).await;
                }));
            }
            Err(error) => self.published = Some(Err(error)),
        }
    }

    fn finish(&mut self, result: Result<()>, roster: &Roster) {
        for NewWorker { worker, .. } in roster.all() {
            // One that does not take it forgets the run when its stream ends.
            roster.send(worker, messages::end(&self.run));
        }
        let json = self.finished_json.take();
        let result =
            result.and_then(|()| json.ok_or_else(|| Error::internal("the run ended without a report")));
        let event = match result {
            Ok(json) => {
                tracing::info!(run = self.run, "run finished");
                RunEventKind::FinishedJson(json)
            }
            Err(error) => {
                tracing::info!(run = self.run, error = error.chain(), "run failed");
                let event = RunEventKind::Failed((&error).into());
                // Watchers hear of the failure once nothing staged is left.
                let (log, staging) = (self.log.clone(), self.prepared.staging.clone());
                self.last_work = Some(tokio::spawn(async move {
                    if let Err(e) = staging.discard().await {
                        tracing::warn!(error = e.chain(), "staged output could not be removed");
                    }
                    log.finish(RunEvent { event: Some(event) });
                }));
                return;
            }
        };
        self.log.finish(RunEvent { event: Some(event) });
    }

    fn count_time(&mut self, now: Millis) {
        let (phase, since) = self.phase;
        *self.spent_ms.entry(phase).or_default() += now.saturating_sub(since);
        self.phase = (self.machine.phase(), now);
    }

    fn report(&self) -> Result<RunReport> {
        let missing = |what: &str| Error::internal(format!("a finished run has no {what}"));
        let soup = self.machine.chosen().ok_or_else(|| missing("soup"))?;
        let replay = self.machine.replay();
        let spec = &self.prepared.spec;
        let sources = Sources {
            ingredients: &self.prepared.names,
            datasets: &self.prepared.datasets,
            recipe: spec.recipe,
            classes: self.machine.classes().unwrap_or_default(),
            ledger: self.machine.ledger(),
            replay: &replay,
        };
        let uniform = Soup::uniform(self.prepared.names.len() as u32);
        let mut seconds: BTreeMap<String, f64> =
            self.spent_ms.iter().map(|(p, &ms)| (p.name().to_owned(), ms as f64 / 1000.0)).collect();
        seconds.insert("prepare".to_owned(), self.prepared.seconds);
        let sha256 = self.machine.data_sha256().ok_or_else(|| missing("digest"))?;
        Ok(RunReport {
            run: self.run.clone(),
            recipe: spec.recipe.kind.name().to_owned(),
            options: spec.recipe,
            ingredients: sources.names(soup),
            weights: sources.weights(soup),
            score: sources
                .figures(soup_core::ledger::Dataset::VALIDATION, soup)
                .ok_or_else(|| missing("validation score"))?,
            test: sources.test(soup),
            baselines: Baselines {
                best_single: self.machine.best_single().and_then(|s| sources.baseline(&s)),
                uniform: uniform.and_then(|s| sources.baseline(&s)),
            },
            ranking: sources.ranking(),
            order: sources.order(),
            trials: sources.trials(),
            validation: spec.validation.name.clone(),
            output: spec.output.clone(),
            sha256: publish::hex(&sha256),
            notes: self
                .prepared
                .notes
                .iter()
                .cloned()
                .chain(self.machine.notes().map(str::to_owned))
                .collect(),
            seconds,
        })
    }
}

fn planned(prepared: &Prepared) -> Planned {
    Planned {
        ingredients: prepared.names.clone(),
        parameters: prepared.schema.parameters(),
        bytes_per_ingredient: prepared.schema.bytes(),
        shards: prepared.shards.count(),
        workers_min: prepared.spec.workers_min,
        datasets: prepared.datasets.clone(),
    }
}
