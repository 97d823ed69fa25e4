//! The one task that owns all state. It never waits for anything but its inbox: slow things (reading headers,
//! publishing) run beside it and report back by message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use soup_core::machine::{Event, Millis, WorkerId};
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_proto::v1::coordinator_message::Message as Down;
use soup_proto::v1::run_event::Event as RunEventKind;
use soup_proto::v1::{Queued, Register, RunEvent, Welcome, WorkerMessage, worker_message};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::CoordinatorConfig;
use crate::event_log::EventLog;
use crate::messages;
use crate::prepare::{self, Prepared};
use crate::roster::{Outbox, Roster};
use crate::running::Running;

/// Messages that may wait for the hub; senders wait beyond that.
const INBOX_MESSAGES_MAX: usize = 4096;
/// How often time passes for the machine.
const TICK: Duration = Duration::from_millis(200);
/// Ended runs whose events are kept.
const ENDED_RUNS_MAX: usize = 64;

/// What the hub can be told.
pub(crate) enum Message {
    Join(Register, Outbox, oneshot::Sender<WorkerId>),
    Said(WorkerId, WorkerMessage),
    Left(WorkerId),
    Submit(Box<RunSpec>, oneshot::Sender<Result<String>>),
    Log(String, oneshot::Sender<Option<Arc<EventLog>>>),
    Cancel(String, oneshot::Sender<bool>),
    Prepared(String, Box<Result<Prepared>>),
    Published(String, Result<String>),
    Stop,
}

/// How everything else reaches the hub.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
}

fn stopped() -> Error {
    Error::unavailable("the coordinator is stopping")
}

impl Handle {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T> {
        let (answer, reply) = oneshot::channel();
        self.inbox.send(question(answer)).await.map_err(|_| stopped())?;
        reply.await.map_err(|_| stopped())
    }

    pub(crate) async fn join(&self, register: Register, outbox: Outbox) -> Result<WorkerId> {
        self.ask(|reply| Message::Join(register, outbox, reply)).await
    }

    pub(crate) async fn said(&self, worker: WorkerId, message: WorkerMessage) -> Result<()> {
        self.inbox.send(Message::Said(worker, message)).await.map_err(|_| stopped())
    }

    pub(crate) async fn left(&self, worker: WorkerId) -> Result<()> {
        self.inbox.send(Message::Left(worker)).await.map_err(|_| stopped())
    }

    pub(crate) async fn submit(&self, spec: RunSpec) -> Result<String> {
        self.ask(|reply| Message::Submit(Box::new(spec), reply)).await?
    }

    pub(crate) async fn log(&self, run: String) -> Result<Arc<EventLog>> {
        let unknown = Error::usage(format!("this coordinator knows no run {run:?}"));
        self.ask(|reply| Message::Log(run, reply)).await?.ok_or(unknown)
    }

    pub(crate) async fn cancel(&self, run: String) -> Result<()> {
        let unknown = Error::usage(format!("this coordinator knows no run {run:?}"));
        if self.ask(|reply| Message::Cancel(run, reply)).await? { Ok(()) } else { Err(unknown) }
    }

    pub(crate) async fn stop(&self) {
        // Where the hub is gone, it has stopped.
        let _ = self.inbox.send(Message::Stop).await;
    }
}

/// The run that is being worked on.
enum Current {
    None,
    /// Its pool is being read.
    Preparing {
        run: String,
        task: JoinHandle<()>,
        cancelled: bool,
    },
    Running(Box<Running>),
}

struct Hub {
    config: CoordinatorConfig,
    roster: Roster,
    queue: VecDeque<(String, RunSpec)>,
    current: Current,
    logs: BTreeMap<String, Arc<EventLog>>,
    /// Runs in the order they ended.
    ended: VecDeque<String>,
    submitted: u64,
    /// Removals of what runs staged that never began.
    discards: JoinSet<()>,
    inbox: mpsc::Sender<Message>,
    born: Instant,
}

/// Starts a hub; it ends when told to stop.
pub(crate) fn start(config: CoordinatorConfig) -> (Handle, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel(INBOX_MESSAGES_MAX);
    let hub = Hub {
        config,
        roster: Roster::default(),
        queue: VecDeque::new(),
        current: Current::None,
        logs: BTreeMap::new(),
        ended: VecDeque::new(),
        submitted: 0,
        discards: JoinSet::new(),
        inbox: sender.clone(),
        born: Instant::now(),
    };
    (Handle { inbox: sender }, tokio::spawn(hub.run(receiver)))
}

impl Hub {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    None | Some(Message::Stop) => break,
                    Some(message) => self.take(message),
                },
                _ = tick.tick() => self.tick(),
            }
            self.start_next();
        }
        self.stop(&mut inbox).await;
    }

    fn now(&self) -> Millis {
        self.born.elapsed().as_millis() as Millis
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Join(register, outbox, reply) => self.join(register, outbox, reply),
            Message::Said(worker, message) => self.said(worker, message),
            Message::Left(worker) => self.lose(worker, "its stream ended"),
            Message::Submit(spec, reply) => {
                // A caller that went away does not want the answer.
                let _ = reply.send(self.submit(*spec));
            }
            Message::Log(run, reply) => {
                let _ = reply.send(self.logs.get(&run).cloned());
            }
            Message::Cancel(run, reply) => {
                let _ = reply.send(self.cancel(&run));
            }
            Message::Prepared(run, result) => self.prepared(&run, *result),
            Message::Published(run, result) => {
                if let Current::Running(running) = &mut self.current
                    && running.run() == run
                {
                    running.published(result);
                    let now = self.now();
                    self.drive(now, Event::Tick);
                }
            }
            Message::Stop => {}
        }
    }

    fn join(&mut self, register: Register, outbox: Outbox, reply: oneshot::Sender<WorkerId>) {
        let now = self.now();
        let worker = self.roster.join(register, outbox, now);
        tracing::info!(worker = worker.0, name = self.roster.name(worker), "worker joined");
        let welcome = Welcome { worker: worker.0, heartbeat_ms: self.config.heartbeat_ms };
        self.roster.send(worker, Down::Welcome(welcome));
        if reply.send(worker).is_err() {
            self.roster.leave(worker);
            return;
        }
        if let Some(new) = self.roster.get(worker) {
            self.drive(now, Event::WorkersJoined(vec![new]));
        }
    }

    fn said(&mut self, worker: WorkerId, message: WorkerMessage) {
        let now = self.now();
        self.roster.heard(worker, now);
        let (key, answer) = match message.message {
            Some(worker_message::Message::Done(done)) => (done.key, Ok(done.result)),
            Some(worker_message::Message::Failed(failed)) => {
                let failure = failed.failure.unwrap_or_default();
                (
                    failed.key,
                    Err(Error::from(failure).context(format!("worker {:?}", self.roster.name(worker)))),
                )
            }
            Some(worker_message::Message::Heartbeat(_) | worker_message::Message::Register(_)) | None => {
                return;
            }
        };
        let Some(key) = key else { return };
        let current = match &self.current {
            Current::Running(running) => running.run() == key.run && key.epoch == messages::EPOCH,
            _ => false,
        };
        if !current {
            tracing::debug!(
                worker = worker.0,
                run = key.run,
                task = key.task,
                "dropped an answer for another run"
            );
            return;
        }
        let event = match answer.and_then(messages::result) {
            Ok(result) => Event::Done(worker, key.attempt_key(), result),
            Err(error) => {
                tracing::info!(
                    worker = worker.0,
                    run = key.run,
                    task = key.task,
                    error = error.chain(),
                    "attempt failed"
                );
                Event::Failed(worker, key.attempt_key(), error)
            }
        };
        self.drive(now, event);
    }

    fn lose(&mut self, worker: WorkerId, why: &str) {
        if self.roster.leave(worker) {
            tracing::warn!(worker = worker.0, why, "worker lost");
            let now = self.now();
            self.drive(now, Event::WorkerLost(worker));
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for worker in self.roster.expired(now, self.config.lease_ms) {
            self.lose(worker, "not heard within its lease");
        }
        self.drive(now, Event::Tick);
    }

    /// Feeds the machine of the run in progress, and ends the run when the machine says so.
    fn drive(&mut self, now: Millis, event: Event) {
        let Current::Running(running) = &mut self.current else { return };
        running.drive(now, event, &mut self.roster, &self.inbox);
        if running.ended() {
            let run = running.run().to_owned();
            self.current = Current::None;
            self.retire(run);
        }
    }

    fn submit(&mut self, spec: RunSpec) -> Result<String> {
        if self.queue.len() >= self.config.runs_queued_max {
            let text = format!("{} runs are queued already: try again when one is done", self.queue.len());
            return Err(Error::try_again(text));
        }
        self.submitted += 1;
        let run = run_id(spec.recipe.kind.name(), self.submitted);
        let log = EventLog::new();
        let ahead = self.queue.len() as u32 + u32::from(!matches!(self.current, Current::None));
        log.push(RunEvent { event: Some(RunEventKind::Queued(Queued { ahead })) });
        self.logs.insert(run.clone(), log);
        tracing::info!(run, ahead, "run submitted");
        self.queue.push_back((run.clone(), spec));
        Ok(run)
    }

    fn start_next(&mut self) {
        if !matches!(self.current, Current::None) {
            return;
        }
        let Some((run, spec)) = self.queue.pop_front() else { return };
        let (id, inbox) = (run.clone(), self.inbox.clone());
        let task = tokio::spawn(async move {
            let result = prepare::prepare(&id, spec).await;
            // Where the hub is gone, nobody wants the run.
            let _ = inbox.send(Message::Prepared(id, Box::new(result))).await;
        });
        self.current = Current::Preparing { run, task, cancelled: false };
    }

    fn prepared(&mut self, run: &str, result: Result<Prepared>) {
        let cancelled = match &self.current {
            Current::Preparing { run: current, cancelled, .. } if current == run => *cancelled,
            _ => return,
        };
        self.current = Current::None;
        let Some(log) = self.logs.get(run).cloned() else { return };
        let now = self.now();
        let begun = result.and_then(|prepared| {
            let staging = prepared.staging.clone();
            let begun = if cancelled {
                Err(Error::cancelled("the run was cancelled"))
            } else {
                Running::begin(run, prepared, log.clone(), self.config.start_timeout_ms, now)
            };
            if begun.is_err() {
                self.discards.spawn(async move {
                    if let Err(e) = staging.discard().await {
                        tracing::warn!(error = e.chain(), "staged output could not be removed");
                    }
                });
            }
            begun
        });
        match begun {
            Ok(running) => {
                self.current = Current::Running(Box::new(running));
                let workers = self.roster.all();
                self.drive(now, Event::WorkersJoined(workers));
            }
            Err(error) => {
                fail(&log, &error);
                self.retire(run.to_owned());
            }
        }
    }

    /// Ends a run that has not ended; true if the run is known.
    fn cancel(&mut self, run: &str) -> bool {
        let Some(log) = self.logs.get(run).cloned() else { return false };
        if let Some(at) = self.queue.iter().position(|(id, _)| id == run) {
            self.queue.remove(at);
            fail(&log, &Error::cancelled("the run was cancelled"));
            self.retire(run.to_owned());
            return true;
        }
        match &mut self.current {
            // Ends once it is prepared, so that what it staged can be removed.
            Current::Preparing { run: current, cancelled, .. } if current == run => *cancelled = true,
            Current::Running(running) if running.run() == run => {
                let now = self.now();
                self.drive(now, Event::Cancel);
            }
            _ => {}
        }
        true
    }

    fn retire(&mut self, run: String) {
        self.ended.push_back(run);
        if self.ended.len() > ENDED_RUNS_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.logs.remove(&oldest);
        }
    }

    /// Cancels what is in progress, waits for what must not be cut off, and ends all streams.
    async fn stop(mut self, inbox: &mut mpsc::Receiver<Message>) {
        let now = self.now();
        let last_work = match &mut self.current {
            Current::None => None,
            Current::Preparing { task, cancelled, .. } => {
                *cancelled = true;
                Some(std::mem::replace(task, tokio::spawn(async {})))
            }
            Current::Running(running) => {
                running.drive(now, Event::Cancel, &mut self.roster, &self.inbox);
                running.take_last_work()
            }
        };
        if let Some(work) = last_work {
            // It reports its own failure, by the messages that follow.
            let _ = work.await;
        }
        while let Ok(message) = inbox.try_recv() {
            if matches!(message, Message::Prepared(..) | Message::Published(..)) {
                self.take(message);
            }
        }
        while self.discards.join_next().await.is_some() {}
        for log in self.logs.values().filter(|l| !l.ended()) {
            log.close();
        }
        self.roster.clear();
    }
}

fn fail(log: &EventLog, error: &Error) {
    log.finish(RunEvent { event: Some(RunEventKind::Failed(error.into())) });
}

/// An id that sorts by time and that no other run has: recipe, UTC time, and what tells coordinators apart.
fn run_id(recipe: &str, count: u64) -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_u64(count);
    let time = chrono::Utc::now().format("%Y%m%d-%H%M%S");
    format!("{recipe}-{time}-{:06x}", random.finish() & 0xff_ffff)
}
