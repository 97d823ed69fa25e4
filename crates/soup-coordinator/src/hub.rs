//! The one task that owns all state. It never waits for anything but its inbox: slow things (reading headers,
//! publishing) run beside it and report back by message.

pub(crate) mod ending;
mod handle;
pub(crate) mod judges;
mod over;
mod probing;
mod queue;
mod recovery;
mod stop;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use soup_core::judge::{JudgeId, WorkerJudges};
use soup_core::machine::{Event, Millis, TaskResult, Work, WorkerId};
use soup_core::{Error, Result};
use soup_metrics::{count, metrics};
use soup_store::state::AppendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::CoordinatorConfig;
use crate::admission::Admission;
use crate::event_log::EventLog;
use crate::exchange::{Answer, Attempt, HandedIn, Incarnation, Newcomer, Said, Told};
use crate::live::View;
use crate::opening::{self, Keeper, Opened, Owned, StartError, Started};
use crate::prepare::PreparedRun;
use crate::roster::{Outbox, Roster};
use crate::running::Running;

use self::ending::End;
pub(crate) use self::handle::Handle;
use self::judges::{AwaitsJudge, Wanted};
use self::over::Over;
use self::probing::{Probe, Probed};
use self::recovery::Recovery;

/// Messages that may wait for the hub; senders wait beyond that.
const INBOX_MESSAGES_MAX: usize = 4096;
/// How often time passes for the machine.
const TICK: Duration = Duration::from_millis(200);

/// Whoever asked for a run, and hears its id.
pub(crate) struct Asked {
    pub(crate) client: Option<String>,
    /// The run that it has to be.
    pub(crate) named: Option<NamedRun>,
    pub(crate) reply: oneshot::Sender<Result<String>>,
}

/// Which run is meant by who asks for one.
pub(crate) enum Meant {
    /// Whichever the request and its files are.
    Any,
    /// One of its own, made another by these letters.
    Fresh(String),
    /// This one.
    Run(NamedRun),
}

/// A run that somebody names.
#[derive(Clone, Debug)]
pub(crate) struct NamedRun {
    pub(crate) run: String,
    /// Whether it is theirs to see, if it is there.
    pub(crate) theirs: bool,
}

/// What the hub can be told.
pub(crate) enum Message {
    Join(Newcomer, Outbox, oneshot::Sender<WorkerId>),
    /// With the room that a large message takes until it is taken.
    Said(WorkerId, Box<Said>, Option<OwnedSemaphorePermit>),
    Left(WorkerId),
    /// Somebody wants to know which judge workers call so, once so many workers are there.
    WhoJudges(Wanted, u32, oneshot::Sender<Result<JudgeId>>),
    /// Somebody wants to see where this coordinator is.
    View(oneshot::Sender<View>),
    /// Somebody wants to know who reaches whom.
    Probe(oneshot::Sender<Probed>),
    /// Somebody wants to know who can judge where.
    Judges(oneshot::Sender<Vec<WorkerJudges>>),
    /// A request for a run was read; its pool is known now.
    Prepared(Box<Result<PreparedRun>>, Asked),
    /// A run is ours, or is known to be done, or cannot be had.
    Opened(String, Box<Result<Opened>>),
    /// The runs that an earlier coordinator left.
    Unfinished(Vec<String>),
    /// One of them is none to go on with.
    Recovered(String),
    /// The turn of a run has come, and its output is staged.
    Started(Box<Result<Started, (Box<Owned>, StartError)>>),
    Log(String, oneshot::Sender<Option<Arc<EventLog>>>),
    Cancel(String, oneshot::Sender<bool>),
    /// The runs that this coordinator is about, with how many are ahead of each.
    Live(oneshot::Sender<BTreeMap<String, u32>>),
    /// The entry on its way is durable.
    Recorded(String, u64),
    /// Something else that happened to a run, in an epoch.
    ForRun(String, u64, Event),
    /// Another coordinator serves this state.
    Superseded(Error),
    /// A run is somebody else's, or its journal cannot be written.
    JournalLost(String, AppendError),
    Published(Incarnation, Result<String>),
    /// There will be no more work: so many workers are to be told, and somebody waits until they are gone.
    Over(usize, oneshot::Sender<()>),
    Stop,
}

/// The run that is being worked on.
pub(super) enum Current {
    None,
    /// Its output is being staged.
    Starting {
        run: String,
        cancelled: bool,
    },
    Running(Box<Running>),
}

struct Hub {
    config: CoordinatorConfig,
    keeper: Keeper,
    roster: Roster,
    /// Runs that are being opened, and who waits for that.
    opening: BTreeMap<String, Vec<Asked>>,
    /// Whoever waits for a worker that has a judge.
    awaiting_judges: Vec<AwaitsJudge>,
    /// How far the runs that an earlier coordinator left are opened.
    recovery: Recovery,
    /// Requests that wait for that: theirs may be one of those runs, which must not be opened twice.
    postponed: Vec<(PreparedRun, Asked)>,
    queue: VecDeque<Owned>,
    current: Current,
    logs: BTreeMap<String, Arc<EventLog>>,
    /// Runs in the order they ended.
    ended: VecDeque<String>,
    /// Last records and removals that are on their way.
    endings: JoinSet<()>,
    /// Who of the workers reaches whom, as far as they have said, and how often that was asked.
    probe: Option<Probe>,
    probes: u64,
    /// Whether all work is over.
    over: Option<Over>,
    /// Why this coordinator must stop.
    broken: Option<Error>,
    inbox: mpsc::Sender<Message>,
    born: Instant,
}

/// Starts a hub; it ends when told to stop, and gives the reason if there is one that others should know.
pub(crate) fn start(config: CoordinatorConfig, keeper: Keeper) -> (Handle, JoinHandle<Result<()>>) {
    let (sender, receiver) = mpsc::channel(INBOX_MESSAGES_MAX);
    let recover = config.recover;
    let mut hub = Hub {
        config,
        keeper,
        roster: Roster::default(),
        opening: BTreeMap::new(),
        awaiting_judges: Vec::new(),
        recovery: Recovery::Over,
        postponed: Vec::new(),
        queue: VecDeque::new(),
        current: Current::None,
        logs: BTreeMap::new(),
        ended: VecDeque::new(),
        endings: JoinSet::new(),
        probe: None,
        probes: 0,
        over: None,
        broken: None,
        inbox: sender.clone(),
        born: Instant::now(),
    };
    if recover {
        tokio::spawn(opening::watch_seat(hub.keeper.clone(), sender.clone()));
        hub.recover();
    }
    (Handle { inbox: sender, admission: Admission::new() }, tokio::spawn(hub.run(receiver)))
}

impl Hub {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.broken.is_none() {
            tokio::select! {
                // In this order, so that the same messages at the same times give the same run.
                biased;
                _ = tick.tick() => self.tick(),
                message = inbox.recv() => match message {
                    None | Some(Message::Stop) => break,
                    Some(message) => self.take(message),
                },
            }
            while self.endings.try_join_next().is_some() {}
            self.start_next();
        }
        metrics().ready.set(0);
        self.stop(&mut inbox).await
    }

    /// What operators see of where it is.
    fn show(&self) {
        let of = &metrics().coordinator;
        of.queued.set(self.queue.len() as i64);
        of.running.set(i64::from(!matches!(self.current, Current::None)));
        of.workers.set(self.roster.len() as i64);
        metrics().ready.set(i64::from(self.broken.is_none() && !self.recovery.is_listing()));
    }

    /// The same, for a page.
    fn view(&self) -> View {
        let running = match &self.current {
            Current::Running(running) => Some(running),
            _ => None,
        };
        let owned = running.map(|running| running.shards_of()).unwrap_or_default();
        View {
            run: running.map(|running| running.run().to_owned()),
            phase: running.map(|running| running.phase_name()),
            queued: self.queue.iter().map(|owned| owned.prepared.run.clone()).collect(),
            workers: self.roster.view(|worker| owned.get(&worker).copied().unwrap_or_default()),
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.born.elapsed().as_millis() as Millis
    }

    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Join(newcomer, outbox, reply) => self.join(newcomer, outbox, reply),
            Message::Said(worker, said, _room) => self.said(worker, *said),
            Message::Left(worker) => self.lose(worker, ("stream", "its stream ended")),
            Message::WhoJudges(wanted, workers_min, reply) => self.who_judges(wanted, workers_min, reply),
            Message::View(reply) => {
                let _ = reply.send(self.view());
            }
            Message::Probe(reply) => self.probe(reply),
            Message::Judges(reply) => {
                let _ = reply.send(self.roster.judges());
            }
            Message::Prepared(prepared, asked) => self.asked(*prepared, asked),
            Message::Opened(run, opened) => {
                self.opened(&run, *opened);
                self.recovered(&run);
            }
            Message::Unfinished(runs) => self.unfinished(runs),
            Message::Recovered(run) => self.recovered(&run),
            Message::Started(started) => self.started(*started),
            Message::Log(run, reply) => {
                // A caller that went away does not want the answer; here and below.
                let _ = reply.send(self.logs.get(&run).cloned());
            }
            Message::Cancel(run, reply) => {
                let _ = reply.send(self.cancel(&run));
            }
            Message::Live(reply) => {
                let _ = reply.send(self.live());
            }
            Message::Recorded(run, epoch) => self.for_run(&run, epoch, Event::Recorded),
            Message::ForRun(run, epoch, event) => self.for_run(&run, epoch, event),
            Message::JournalLost(run, error) => {
                let error = match &self.current {
                    Current::Running(running) if running.run() == run => running.leaving(error),
                    _ => error,
                };
                let error = error.into_error();
                tracing::error!(run, error = error.chain(), "the journal is lost");
                metrics().coordinator.fenced.inc();
                self.broken.get_or_insert(error);
            }
            Message::Superseded(error) => {
                tracing::error!(error = error.chain(), "another coordinator serves the state");
                metrics().coordinator.fenced.inc();
                self.broken.get_or_insert(error);
            }
            Message::Published(of, result) => {
                if let Current::Running(running) = &mut self.current
                    && running.is(&of.run, of.epoch)
                {
                    running.published(result);
                    let now = self.now();
                    self.drive(now, Event::Tick);
                }
            }
            Message::Over(expected, waits) => self.over(expected, waits),
            Message::Stop => {}
        }
    }

    /// Feeds an event to the run that it is for, if that is in progress.
    fn for_run(&mut self, run: &str, epoch: u64, event: Event) {
        if matches!(&self.current, Current::Running(running) if running.is(run, epoch)) {
            let now = self.now();
            self.drive(now, event);
        }
    }

    fn join(&mut self, newcomer: Newcomer, outbox: Outbox, reply: oneshot::Sender<WorkerId>) {
        let now = self.now();
        let worker = self.roster.join(newcomer, outbox, now);
        tracing::info!(worker = worker.0, name = self.roster.who(worker), "worker joined");
        metrics().coordinator.joined.inc();
        let welcome = Told::Welcome { worker, heartbeat_ms: self.config.heartbeat_ms };
        self.roster.send(worker, welcome);
        if reply.send(worker).is_err() {
            self.roster.leave(worker);
            return;
        }
        self.tell_over(worker);
        self.tell_judges();
        if let Current::Running(running) = &self.current
            && !running.is_quarantined(&self.roster.who(worker))
            && let Some(new) = self.roster.get(running.prepared(), worker)
        {
            self.drive(now, Event::WorkersJoined(vec![new]));
        }
    }

    fn said(&mut self, worker: WorkerId, said: Said) {
        let now = self.now();
        self.roster.heard(worker, now);
        match said {
            Said::Done(attempt, answer) => self.answered(worker, attempt, Ok(answer)),
            Said::Failed(attempt, error, unreached) => {
                if let Some(source) = unreached {
                    let Attempt { of, key } = &attempt;
                    self.for_run(&of.run, of.epoch, Event::Unreached(worker, *key, source));
                }
                let error = error.context(format!("worker {:?}", self.roster.name(worker)));
                self.answered(worker, attempt, Err(error));
            }
            Said::HandedIn(of, handed) => self.handed_in(worker, &of, handed),
            Said::Passed(of, shards) => {
                if let Current::Running(running) = &mut self.current
                    && running.is(&of.run, of.epoch)
                {
                    running.has_passed(worker, shards);
                }
            }
            Said::Probed(number, reached) => self.probed(worker, number, reached),
            // Once is enough.
            Said::Leaving if self.roster.is_leaving(worker) => {}
            Said::Leaving => {
                tracing::info!(worker = worker.0, "worker is leaving");
                self.roster.leaving(worker);
                self.drive(now, Event::WorkerLeaving(worker));
            }
            Said::Alive => {}
        }
    }

    /// A worker hands in a slice: taken if it was given to it.
    fn handed_in(&mut self, worker: WorkerId, of: &Incarnation, handed: HandedIn) {
        let Current::Running(running) = &self.current else { return };
        let name = self.roster.name(worker);
        if !running.is(&of.run, of.epoch) {
            return;
        }
        // Whether it has its seal follows from every weight, and nothing else is done meanwhile: of one that cannot be, that is not asked.
        let may_be = running.prepared().may_be_of(&handed.evaluation.soup);
        if !may_be || !running.seals().is_sealed(&self.roster.who(worker), &handed) {
            return tracing::warn!(
                run = of.run,
                worker = worker.0,
                name,
                "dropped a slice that the worker was not given"
            );
        }
        let HandedIn { evaluation, slice, judged, seal: _ } = handed;
        self.for_run(&of.run, of.epoch, Event::HandedIn(worker, evaluation, slice, judged));
    }

    /// A worker has done an attempt, or failed at it.
    fn answered(&mut self, worker: WorkerId, attempt: Attempt, answer: Result<Answer>) {
        let Attempt { of: Incarnation { run, epoch }, key } = attempt;
        let running = match &mut self.current {
            Current::Running(running) if running.is(&run, epoch) => running,
            _ => {
                tracing::debug!(worker = worker.0, run, task = key.task, "dropped an answer for another run");
                return;
            }
        };
        let at = running.at(worker, key);
        let mut statistics = None;
        let result = answer.and_then(|answer| {
            running.count_read(answer.bytes_read);
            statistics = answer.statistics;
            answer.result
        });
        let event = match result {
            Ok(result) => {
                if let (Some(Work::Evaluate(_, slice)), TaskResult::Evaluated(judged)) = (&at, &result)
                    && judged.samples() == slice.end - slice.start
                {
                    metrics().coordinator.judged_samples.inc_by(judged.samples());
                }
                Event::Done(worker, key, result)
            }
            Err(error) => {
                let chain = error.chain();
                if at.is_some() {
                    tracing::info!(worker = worker.0, run, task = key.task, error = chain, "attempt failed");
                    count(&metrics().coordinator.failed_attempts, ("kind", error.kind().name()));
                } else {
                    // It was taken back, or made up.
                    tracing::debug!(
                        worker = worker.0,
                        run,
                        task = key.task,
                        error = chain,
                        "dropped a failure"
                    );
                }
                Event::Failed(worker, key, error)
            }
        };
        let now = self.now();
        if let (Some(sha256), Event::Done(..)) = (statistics, &event) {
            self.drive(now, Event::Recomputed(worker, key, sha256));
        }
        self.drive(now, event);
    }

    fn lose(&mut self, worker: WorkerId, (reason, why): (&'static str, &str)) {
        let was_leaving = self.roster.is_leaving(worker) || self.over.is_some();
        if self.roster.leave(worker) {
            let reason = if was_leaving { "left" } else { reason };
            count(&metrics().coordinator.lost, ("reason", reason));
            match was_leaving {
                true => tracing::info!(worker = worker.0, "worker left"),
                false => tracing::warn!(worker = worker.0, why, "worker lost"),
            }
            let now = self.now();
            self.drive(now, Event::WorkerLost(worker));
            self.look_who_is_left();
            self.tell_probe();
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        for worker in self.roster.expired(now, self.config.lease_ms) {
            self.lose(worker, ("lease", "not heard within its lease"));
        }
        self.tell_judges();
        self.tell_probe();
        self.drive(now, Event::Tick);
        self.show();
    }

    /// Feeds the machine of the run in progress, and ends the run when the machine says so.
    fn drive(&mut self, now: Millis, event: Event) {
        let Current::Running(running) = &mut self.current else { return };
        // A defect ends the run that meets it, and no other: what is half changed by then is dropped with the run.
        let publishing = running.publishing();
        let driven = catch_unwind(AssertUnwindSafe(|| running.drive(now, event, &mut self.roster)));
        match (driven, running.end()) {
            (Err(_), _) => {
                metrics().coordinator.defects.inc();
                let text = "a defect of this program ended the run: see the coordinator's log, and report it";
                // What is being made visible goes on beside this: nothing of it is removed, and the same command finds out.
                let error = if publishing { Error::try_again(text) } else { Error::internal(text) };
                self.end_current(End::Failed(error));
            }
            (Ok(()), Some(end)) => self.end_current(end),
            (Ok(()), None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
