//! The stream to the coordinator: register, heartbeats and results up; runs, placements and tasks down.
//!
//! When it breaks, the worker keeps its shards and goes on with the slices it is scoring: a coordinator that takes the run
//! over is told what is resident, and is handed what was finished meanwhile ([`handing_in`](crate::handing_in)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::ready;
use soup_core::{Error, ErrorKind, Result};
use soup_metrics::{Open, metrics, observe};
use soup_proto::v1::assign::Work;
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::coordinator_message::Message as Down;
use soup_proto::v1::worker_message::Message as Up;
use soup_proto::v1::{
    Assign, CoordinatorMessage, Leaving, ProbePeers, Probed, Register, TaskFailed, TaskKey, WorkerMessage,
};
use soup_proto::{CONTROL_BYTES_MAX, PROTOCOL_VERSION, error_of, lost};
use soup_telemetry::TARGET;
use soup_trust::Connect;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tracing::{Instrument as _, Span, info_span};

use crate::active::Worker;
use crate::messages::{self, Done};
use crate::task::{self, Cancelled};
use crate::{Ended, WorkerConfig, outgoing, peers, probing};

/// Messages that may wait for the stream; tasks wait beyond that.
const OUTBOX_MESSAGES_MAX: usize = 256;
/// Wait between attempts to reach the coordinator: the first, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a coordinator may take to welcome a worker, at least.
const WELCOME: Duration = Duration::from_secs(10);
/// How often a worker that is to end looks whether its tasks are done.
const LEAVING_PAUSE: Duration = Duration::from_millis(50);
/// How often one that loads shards looks whether it has, to be ready then.
const LOADS_PAUSE: Duration = Duration::from_millis(500);

/// How long this worker waits for a coordinator: one to begin with, and one that it had and that is gone.
struct Patience {
    connect: Duration,
    orphan: Duration,
    /// Whether a coordinator has ever welcomed this worker.
    had_one: bool,
    /// Since when none has.
    alone: Instant,
}

impl Patience {
    fn of(config: &WorkerConfig) -> Patience {
        Patience {
            connect: Duration::from_millis(config.connect_timeout_ms),
            orphan: Duration::from_millis(config.orphan_timeout_ms),
            had_one: false,
            alone: Instant::now(),
        }
    }

    fn welcomed(&mut self) {
        (self.had_one, self.alone) = (true, Instant::now());
    }

    fn limit(&self) -> Duration {
        if self.had_one { self.orphan } else { self.connect }
    }

    fn is_spent(&self) -> bool {
        self.alone.elapsed() >= self.limit()
    }

    /// What `why` means once there is no patience left.
    fn lost(&self, url: &str, why: Error) -> Error {
        let seconds = self.limit().as_secs();
        match self.had_one {
            true => {
                let text = format!("the coordinator at {url} has been away for {seconds} s");
                Error::try_again(text).with_source(why)
            }
            false => why.context(format!("no coordinator has answered at {url} for {seconds} s")),
        }
    }
}

/// Keeps a link to the coordinator: when it breaks, a new one is opened. Ends once the work is over, or this worker is told to leave and
/// its tasks are done.
///
/// # Errors
/// Where the coordinator refuses this worker; [`Unavailable`](ErrorKind::Unavailable) where none is found for the configured time, and
/// [`TryAgain`](ErrorKind::TryAgain) where the one that there was stays away for the time that is configured for that.
pub(crate) async fn keep(
    config: &WorkerConfig,
    (connect, address): (&dyn Connect, &str),
    worker: Arc<Worker>,
    mut leaving: watch::Receiver<bool>,
) -> Result<Ended> {
    // Permits to compute, for the tasks of all links: those of a broken one may still be at it.
    let slots = Arc::new(Semaphore::new(worker.slots.max(1) as usize));
    let mut patience = Patience::of(config);
    let mut wait = RETRY_MIN;
    loop {
        let welcomed = AtomicBool::new(false);
        let channel = tokio::select! {
            channel = reach(config, connect, &patience) => channel?,
            () = asked_to_leave(&mut leaving) => return Ok(Ended::Stopped),
        };
        let deadline = (patience.alone + patience.limit()).max(Instant::now() + WELCOME);
        let talk = talk(config, address, (&worker, &slots, leaving.clone()), channel, &welcomed);
        let result = tokio::select! {
            result = talk => result,
            // What takes connections and says nothing is no coordinator.
            () = never_welcomed(&welcomed, deadline) => {
                Err(Error::unavailable("something takes connections there and says nothing"))
            }
        };
        worker.handing_in.disconnect();
        metrics().ready.set(0);
        if let Ok(Parting::Over) = result {
            tracing::info!("the coordinator says that the work is over");
            return Ok(Ended::Over);
        }
        if *leaving.borrow() {
            return Ok(Ended::Stopped);
        }
        let welcomed = welcomed.load(Ordering::Relaxed);
        if welcomed {
            patience.welcomed();
            wait = RETRY_MIN;
        }
        let result = match result {
            Ok(_) if !welcomed => Err(Error::unavailable("streams end there at once")),
            other => other,
        };
        match result {
            Err(error) if error.kind() == ErrorKind::Unavailable && patience.is_spent() => {
                return Err(patience.lost(&config.coordinator, error));
            }
            // Refused, not lost: trying again would not help.
            Err(error) if matches!(error.kind(), ErrorKind::Configuration | ErrorKind::Usage) => {
                return Err(error);
            }
            Err(error) => tracing::warn!(error = error.chain(), "lost the coordinator; connecting again"),
            Ok(_) => tracing::info!("the coordinator ended the stream; connecting again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Waits until `then`, unless somebody has welcomed this worker by then.
async fn never_welcomed(welcomed: &AtomicBool, then: Instant) {
    tokio::time::sleep_until(then).await;
    if welcomed.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Waits until this worker is to end.
async fn asked_to_leave(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|l| *l).await.is_err() {
        // Whoever could ask is gone, and ends everything in another way.
        std::future::pending::<()>().await;
    }
}

async fn reach(config: &WorkerConfig, connect: &dyn Connect, patience: &Patience) -> Result<Channel> {
    let url = &config.coordinator;
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|e| {
            Error::usage(format!("coordinator {url:?} is not a URL like http://host:7070")).with_source(e)
        })?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(15));
    let mut wait = RETRY_MIN;
    loop {
        match connect.connect(&endpoint).await {
            Ok(channel) => return Ok(channel),
            Err(e) if patience.is_spent() => {
                let unreached = Error::unavailable("it cannot be reached").with_source(e);
                return Err(patience.lost(url, unreached));
            }
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn talk(
    config: &WorkerConfig,
    address: &str,
    (worker, slots, leaving): (&Arc<Worker>, &Arc<Semaphore>, watch::Receiver<bool>),
    channel: Channel,
    welcomed: &AtomicBool,
) -> Result<Parting> {
    let (outbox, messages) = mpsc::channel(OUTBOX_MESSAGES_MAX);
    let space = worker.space();
    let register = Register {
        name: config.name.clone(),
        address: address.to_owned(),
        slots: config.slots.max(1),
        device_bytes: space.device,
        capacity_bytes: space.memory,
        disk_bytes: space.disk,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL_VERSION,
        held: messages::held(worker.held()),
        judges: worker.offers().into_iter().map(Into::into).collect(),
    };
    let first = WorkerMessage { message: Some(Up::Register(register)) };
    // The channel is new and has room.
    let _ = outbox.try_send(first);
    let mut down = CoordinatorClient::new(channel)
        .max_decoding_message_size(CONTROL_BYTES_MAX)
        .max_encoding_message_size(CONTROL_BYTES_MAX)
        .work(ReceiverStream::new(messages).filter_map(|message| ready(outgoing::fitting(message))))
        .await
        .map_err(|status| error_of(&status).context("the coordinator did not accept this worker"))?
        .into_inner();
    let mut link = Link {
        worker: worker.clone(),
        outbox,
        slots: slots.clone(),
        tasks: BTreeMap::new(),
        heartbeat: None,
        probe: None,
        me: 0,
        leaving,
    };
    link.listen(&mut down, welcomed).await
}

/// How a connection ended, where it did not break.
enum Parting {
    /// The coordinator ended the stream.
    StreamEnded,
    /// This worker was told to leave, and nothing is left to do.
    Left,
    /// There will be no more work.
    Over,
}

/// One connection's state.
struct Link {
    worker: Arc<Worker>,
    outbox: mpsc::Sender<WorkerMessage>,
    /// Permits to compute. Tasks that wait for one have done their fetching.
    slots: Arc<Semaphore>,
    /// Tasks by (task, attempt) of the run in progress.
    tasks: BTreeMap<(String, u64, u32), Started>,
    heartbeat: Option<AbortHandle>,
    /// The last time that it tried to reach its peers for the coordinator.
    probe: Option<AbortHandle>,
    /// The number that the coordinator gave this worker.
    me: u64,
    /// Whether this worker is to end.
    leaving: watch::Receiver<bool>,
}

/// A task that is being done.
struct Started {
    handle: AbortHandle,
    cancelled: Cancelled,
    /// Whether it scores a slice, which is worth finishing even if the coordinator is gone.
    scores: bool,
    /// Whether it loads a shard, without which this worker is not ready.
    loads: bool,
}

impl Link {
    async fn listen(
        &mut self,
        down: &mut Streaming<CoordinatorMessage>,
        welcomed: &AtomicBool,
    ) -> Result<Parting> {
        let mut told = false;
        let mut leaving = self.leaving.clone();
        loop {
            self.tasks.retain(|_, task| !task.handle.is_finished());
            self.show_readiness();
            if told && self.tasks.is_empty() {
                return Ok(Parting::Left);
            }
            tokio::select! {
                message = down.message() => match message.map_err(|s| lost(&s))? {
                    Some(CoordinatorMessage { message: Some(Down::Over(_)) }) => return Ok(Parting::Over),
                    Some(message) => {
                        welcomed.store(true, Ordering::Relaxed);
                        self.take(message);
                    }
                    None => return Ok(Parting::StreamEnded),
                },
                () = asked_to_leave(&mut leaving), if !told => {
                    told = true;
                    let leaving = WorkerMessage { message: Some(Up::Leaving(Leaving {})) };
                    self.outbox.send(leaving).await.map_err(|_| Error::unavailable("the stream ended"))?;
                }
                () = tokio::time::sleep(LEAVING_PAUSE), if told => {}
                // Nobody says when the last of them is there.
                () = tokio::time::sleep(LOADS_PAUSE), if self.is_loading() => {}
            }
        }
    }

    fn take(&mut self, message: CoordinatorMessage) {
        match message.message {
            Some(Down::Welcome(welcome)) => {
                self.me = welcome.worker;
                metrics().worker.welcomes.inc();
                self.beat(u64::from(welcome.heartbeat_ms.max(10)));
            }
            Some(Down::Begin(begin)) => {
                let (run, epoch) = (begin.run.clone(), begin.epoch);
                self.worker.begin(run.clone(), epoch, begin.try_into());
                self.worker.handing_in.connect(&run, epoch, &self.outbox);
            }
            Some(Down::Placement(placement)) => {
                if let Ok(run) = self.worker.run(&placement.run, placement.epoch) {
                    run.place(placement.into(), self.me);
                }
            }
            Some(Down::Assign(assign)) => self.start(assign),
            Some(Down::Cancel(cancel)) => {
                if let Some(key) = cancel.key {
                    self.cancel(|k, _| *k == (key.run.clone(), key.task, key.attempt));
                }
            }
            Some(Down::Forget(forget)) => {
                if let Ok(run) = self.worker.run(&forget.run, forget.epoch) {
                    run.soups.forget();
                    run.logits.forget();
                }
            }
            Some(Down::Release(release)) => {
                if let Ok(run) = self.worker.run(&release.run, release.epoch) {
                    run.gradients.release((release.step, release.part));
                }
            }
            Some(Down::End(end)) => {
                self.cancel(|k, _| k.0 == end.run);
                self.worker.end(&end.run);
            }
            Some(Down::Probe(probe)) => self.probe(probe),
            // Taken by whoever listens.
            Some(Down::Over(_)) => {}
            None => tracing::warn!("dropped an unknown message of the coordinator"),
        }
    }

    /// Shows operators whether this worker takes part and has loaded what it was told to.
    fn show_readiness(&self) {
        metrics().ready.set(i64::from(self.heartbeat.is_some() && !self.is_loading()));
    }

    /// Whether a shard is being loaded.
    fn is_loading(&self) -> bool {
        self.tasks.values().any(|task| task.loads && !task.handle.is_finished())
    }

    /// Starts the heartbeat: a task of its own, which nothing else can hold up.
    fn beat(&mut self, interval_ms: u64) {
        let (outbox, worker) = (self.outbox.clone(), self.worker.clone());
        let mut timer = tokio::time::interval(Duration::from_millis(interval_ms));
        let task = tokio::spawn(async move {
            loop {
                timer.tick().await;
                worker.show_resident();
                let message = Some(Up::Heartbeat(messages::heartbeat(worker.passes())));
                if outbox.send(WorkerMessage { message }).await.is_err() {
                    return;
                }
            }
        });
        if let Some(old) = self.heartbeat.replace(task.abort_handle()) {
            old.abort();
        }
    }

    /// Tries to reach peers, beside everything else; a probe that comes before the last one is answered ends that.
    fn probe(&mut self, ProbePeers { number, peers }: ProbePeers) {
        let (worker, outbox) = (self.worker.clone(), self.outbox.clone());
        let task = tokio::spawn(async move {
            let reached = probing::reach(&*worker.peers, peers).await;
            // A coordinator that is gone does not want the answer.
            let _ =
                outbox.send(WorkerMessage { message: Some(Up::Probed(Probed { number, reached })) }).await;
        });
        if let Some(old) = self.probe.replace(task.abort_handle()) {
            old.abort();
        }
    }

    fn start(&mut self, assign: Assign) {
        let Some(key) = assign.key else { return };
        let Some(work) = assign.work else { return };
        let cancelled = Cancelled::default();
        let (worker, outbox, slots) = (self.worker.clone(), self.outbox.clone(), self.slots.clone());
        let id = (key.run.clone(), key.task, key.attempt);
        let flag = cancelled.clone();
        let slice = match &work {
            // Which samples they are follows from the sequence.
            Work::Evaluate(slice) => {
                Some(soup_proto::v1::JudgeSlice { samples: Vec::new(), ..slice.clone() })
            }
            _ => None,
        };
        let scores = slice.is_some();
        let loads = matches!(work, Work::Load(_));
        let span = span_of(&key, &work);
        soup_telemetry::follow(&span, &assign.traceparent);
        let handle = tokio::spawn(async move {
            let context = task::Context { worker: worker.clone(), slots, cancelled: flag };
            let (name, begun) = (messages::name(&work), Instant::now());
            let open = Open::of(&metrics().worker.tasks_open);
            let result = execute(&context, &key, work).instrument(span).await;
            drop(open);
            show_end(name, &result, begun.elapsed());
            let message = answer(key.clone(), result);
            soup_store::failpoint::reach("before-answer");
            if let Err(mpsc::error::SendError(unsent)) = outbox.send(message).await {
                // The coordinator is gone. Its successor can use a slice; everything else it assigns again.
                worker.handing_in.keep(&key.run, slice, unsent);
            }
        });
        self.tasks.insert(id, Started { handle: handle.abort_handle(), cancelled, scores, loads });
    }

    fn cancel(&mut self, which: impl Fn(&(String, u64, u32), &Started) -> bool) {
        for (_, task) in self.tasks.extract_if(.., |key, task| which(key, task)) {
            task.cancelled.set();
            task.handle.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cancel(|_, task| !task.scores);
        for task in [&self.heartbeat, &self.probe].into_iter().flatten() {
            task.abort();
        }
    }
}

/// Does what is to be done.
///
/// # Errors
/// The task's own; [`TryAgain`](ErrorKind::TryAgain) for a run that this worker does not know.
async fn execute(context: &task::Context, key: &TaskKey, work: Work) -> Result<Done> {
    let run = context.worker.run(&key.run, key.epoch)?;
    let task = messages::task(work, &run.begun)?;
    task::execute(context, run, task).await
}

/// An attempt in a trace.
fn span_of(key: &TaskKey, work: &Work) -> Span {
    let (run, task, attempt) = (&key.run, key.task, key.attempt);
    match work {
        Work::Evaluate(of) => {
            info_span!(target: TARGET, parent: None, "slice", run, task, attempt, start = of.start, end = of.end)
        }
        other => {
            info_span!(target: TARGET, parent: None, "task", kind = messages::name(other), run, task, attempt)
        }
    }
}

/// Shows operators how an attempt ended.
fn show_end(task: &'static str, result: &Result<Done>, took: Duration) {
    let of = &metrics().worker;
    let outcome = result.as_ref().map_or_else(|error| error.kind().name(), |_| "done");
    of.tasks.get_or_create(&[("task", task), ("outcome", outcome)]).inc();
    if let Ok(done) = result {
        observe(&of.task_seconds, ("task", task), took);
        of.loaded.inc_by(done.bytes_read());
    }
}

fn answer(key: TaskKey, result: Result<Done>) -> WorkerMessage {
    let message = match result {
        Ok(done) => Up::Done(done.told(key)),
        Err(error) => {
            tracing::warn!(
                run = key.run,
                task = key.task,
                attempt = key.attempt,
                error = error.chain(),
                "task failed"
            );
            let unreached = peers::unreached(&error);
            Up::Failed(TaskFailed { key: Some(key), failure: Some((&error).into()), unreached })
        }
    };
    WorkerMessage { message: Some(message) }
}
