//! A coordinator without a network, played to from a script: what happens goes in, what follows from it is written down.
//!
//! State, pool and output are in memory, the clock stands still until everybody waits, and the script plays all workers. Each
//! step waits until nothing happens any more; then what workers were told is written down, then what became durable, then what
//! watchers heard.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use soup_core::journal::Claim;
use soup_core::machine::{Space, Tier, WorkerId};
use soup_core::run::RunSpec;
use soup_core::shard::Shard;
use soup_core::{Error, Result};
use soup_proto::v1::RunEvent;
use soup_store::state::State;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::text;
use super::worker::answer;
use crate::event_log::EventLog;
use crate::exchange::{Assignment, Attempt, Newcomer, Said, Told};
use crate::hub::{self, Handle, Meant};
use crate::opening::Keeper;
use crate::roster::OUTBOX_MESSAGES_MAX;
use crate::{CoordinatorConfig, Window};

/// Long enough for everything that does not wait for a clock.
const MOMENT: Duration = Duration::from_millis(1);

pub(super) fn config() -> CoordinatorConfig {
    CoordinatorConfig {
        heartbeat_ms: 1000,
        lease_ms: 10_000,
        start_timeout_ms: 60_000,
        runs_queued_max: 2,
        runs_per_client_max: 2,
        insecure: false,
        recover: true,
        one_process: false,
        window: Window::default(),
    }
}

struct Worker {
    id: WorkerId,
    stream: mpsc::Receiver<Told>,
    /// What it was given and has not answered.
    tasks: Vec<Assignment>,
}

struct Run {
    id: String,
    /// Records seen.
    records: usize,
    log: Option<Arc<EventLog>>,
    events: Option<Pin<Box<dyn Stream<Item = RunEvent>>>>,
}

struct Coordinator {
    handle: Handle,
    hub: JoinHandle<Result<()>>,
}

/// A script in progress.
pub(super) struct Script {
    name: &'static str,
    state: State,
    coordinator: Option<Coordinator>,
    workers: BTreeMap<&'static str, Worker>,
    runs: BTreeMap<&'static str, Run>,
    /// Requests for runs that have no answer yet.
    asked: Vec<(&'static str, JoinHandle<Result<String>>)>,
    transcript: String,
}

impl Script {
    /// Begins the script `name`, which is also its place in memory, with a pool and a coordinator.
    pub(super) async fn begin(name: &'static str) -> Script {
        super::pool::put(name).await;
        let began = Instant::now();
        let clock = move || format!("{:012}", began.elapsed().as_millis());
        let state = State::open(&format!("memory:///{name}/state")).unwrap().with_clock(Arc::new(clock));
        let mut script = Script {
            name,
            state,
            coordinator: None,
            workers: BTreeMap::new(),
            runs: BTreeMap::new(),
            asked: Vec::new(),
            transcript: String::new(),
        };
        script.coordinator_starts().await;
        script
    }

    pub(super) async fn coordinator_starts(&mut self) {
        let (handle, hub) = hub::start(config(), Keeper::new(self.state.clone()));
        self.coordinator = Some(Coordinator { handle, hub });
        self.step("a coordinator starts").await;
    }

    pub(super) async fn coordinator_stops(&mut self) {
        self.handle().stop().await;
        self.step("the coordinator is asked to stop").await;
    }

    /// It ends as if by `kill -9`.
    pub(super) async fn coordinator_dies(&mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.hub.abort();
        }
        self.workers.clear();
        self.step("the coordinator dies").await;
    }

    fn handle(&self) -> Handle {
        self.coordinator.as_ref().unwrap().handle.clone()
    }

    fn id(&self, run: &str) -> String {
        self.runs[run].id.clone()
    }

    pub(super) async fn submits(&mut self, run: &'static str, spec: RunSpec) {
        let handle = self.handle();
        self.asked.push((
            run,
            tokio::spawn(async move { handle.submit(spec, Meant::Any, handle.admit(None)?).await }),
        ));
        self.step(format!("{run} is submitted")).await;
    }

    /// Whoever submits it thinks better of it as soon as it is accepted.
    pub(super) async fn submits_and_cancels(&mut self, run: &'static str, spec: RunSpec) {
        let handle = self.handle();
        let both = async move {
            let id = handle.submit(spec, Meant::Any, handle.admit(None)?).await?;
            handle.cancel(id.clone()).await.map(|()| id)
        };
        self.asked.push((run, tokio::spawn(both)));
        self.step(format!("{run} is submitted and cancelled")).await;
    }

    pub(super) async fn cancels(&mut self, run: &'static str) {
        let id = self.runs.get(run).map_or_else(|| run.to_owned(), |r| r.id.clone());
        let cancelled = self.handle().cancel(id).await;
        self.step(format!("{run} is cancelled")).await;
        if let Err(error) = cancelled {
            self.line(format!("  refused: {}", error.chain()));
        }
    }

    pub(super) async fn joins(&mut self, name: &'static str) {
        self.joins_with(name, OUTBOX_MESSAGES_MAX, BTreeMap::new()).await;
    }

    /// A worker for which no more than `outbox` messages may wait.
    pub(super) async fn joins_with_outbox(&mut self, name: &'static str, outbox: usize) {
        self.joins_with(name, outbox, BTreeMap::new()).await;
    }

    /// A worker that has shards of `run` from under an earlier coordinator.
    pub(super) async fn joins_holding(&mut self, name: &'static str, run: &str, shards: &[u32]) {
        let shards = shards.iter().map(|&s| (Shard(s), Tier::Memory)).collect();
        self.joins_with(name, OUTBOX_MESSAGES_MAX, BTreeMap::from([(self.id(run), shards)])).await;
    }

    async fn joins_with(
        &mut self,
        name: &'static str,
        outbox: usize,
        held: BTreeMap<String, Vec<(Shard, Tier)>>,
    ) {
        let (sender, stream) = mpsc::channel(outbox);
        let newcomer = Newcomer {
            name: name.to_owned(),
            certificate: None,
            address: format!("http://{name}").into(),
            slots: 1,
            space: Space { memory: 1 << 20, ..Space::default() },
            judges: vec![soup_core::judge::Offer::native()],
            held,
        };
        let id = self.handle().join(newcomer, sender).await.unwrap();
        self.workers.insert(name, Worker { id, stream, tasks: Vec::new() });
        self.step(format!("{name} joins")).await;
    }

    /// A worker's stream ends.
    pub(super) async fn leaves(&mut self, name: &'static str) {
        let worker = self.workers.remove(name).unwrap();
        self.handle().left(worker.id).await.unwrap();
        self.step(format!("{name} is gone")).await;
    }

    /// A worker says something of its own.
    pub(super) async fn says(&mut self, name: &'static str, what: &str, said: Said) {
        self.handle().said(self.workers[name].id, said, None).await.unwrap();
        self.step(format!("{name} says: {what}")).await;
    }

    /// The attempt that a worker has been at for the longest time. It stays with the worker.
    pub(super) fn attempt(&self, name: &str) -> Attempt {
        self.workers[name].tasks[0].attempt.clone()
    }

    /// Takes that attempt from the worker, so that the script can answer in its place.
    pub(super) fn takes(&mut self, name: &str) -> Assignment {
        let worker = self.workers.get_mut(name).filter(|w| !w.tasks.is_empty());
        let worker = worker.unwrap_or_else(|| panic!("{name} has nothing to do:\n{}", self.transcript));
        worker.tasks.remove(0)
    }

    /// A worker does what it was given first.
    pub(super) async fn works(&mut self, name: &'static str) {
        let task = self.takes(name);
        let answer = answer(&task).await;
        let what = format!("done {}", text::attempt(&task.attempt));
        self.says(name, &self.named(&what), Said::Done(task.attempt, answer)).await;
    }

    /// All workers work in turn, until there is nothing to do.
    pub(super) async fn all_work(&mut self) {
        while let Some(name) = self.workers.iter().find(|(_, w)| !w.tasks.is_empty()).map(|(name, _)| *name) {
            self.works(name).await;
        }
    }

    /// A worker fails at what it was given first.
    pub(super) async fn fails(&mut self, name: &'static str, error: Error) {
        let attempt = self.takes(name).attempt;
        let what = format!("failed {}: {}", text::attempt(&attempt), error.chain());
        self.says(name, &self.named(&what), Said::Failed(attempt, error, None)).await;
    }

    /// Time passes, in which the workers named say that they are alive, once a second.
    pub(super) async fn passes(&mut self, seconds: u64, alive: &[&str]) {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for name in alive {
                self.handle().said(self.workers[name].id, Said::Alive, None).await.unwrap();
            }
        }
        let alive = if alive.is_empty() { String::new() } else { format!(", {} alive", alive.join(", ")) };
        self.step(format!("{seconds} s pass{alive}")).await;
    }

    /// Somebody else takes a run.
    pub(super) async fn taken(&mut self, run: &'static str) {
        let claim = Claim { host: "elsewhere".to_owned(), pid: 7, version: "1".to_owned() };
        self.state.claim(&self.id(run), "somebody else", claim).await.unwrap();
        self.step(format!("somebody else takes {run}")).await;
    }

    async fn step(&mut self, what: impl Display) {
        self.line(format!("{what}"));
        tokio::time::sleep(MOMENT).await;
        self.write_answers().await;
        self.write_told();
        self.write_records().await;
        self.write_events().await;
        self.write_end().await;
    }

    async fn write_answers(&mut self) {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.asked).into_iter().partition(|(_, asked)| asked.is_finished());
        self.asked = waiting;
        for (run, asked) in ready {
            match asked.await.unwrap() {
                Ok(id) => {
                    let new = || Run { id: id.clone(), records: 0, log: None, events: None };
                    assert_eq!(self.runs.entry(run).or_insert_with(new).id, id);
                    self.line(format!("  accepted: {run}"));
                }
                Err(error) => self.line(format!("  refused: {}", error.chain())),
            }
        }
    }

    fn write_told(&mut self) {
        let mut lines = Vec::new();
        self.workers.retain(|name, worker| {
            loop {
                match worker.stream.try_recv() {
                    Ok(told) => {
                        lines.push(format!("  {name} < {}", text::told(&told)));
                        match told {
                            Told::Assign(assignment) => worker.tasks.push(assignment),
                            Told::Cancel(attempt) => worker.tasks.retain(|t| t.attempt != attempt),
                            _ => {}
                        }
                    }
                    Err(mpsc::error::TryRecvError::Empty) => return true,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        lines.push(format!("  {name} < its stream ends"));
                        return false;
                    }
                }
            }
        });
        lines.into_iter().for_each(|line| self.line(line));
    }

    async fn write_records(&mut self) {
        let mut lines = Vec::new();
        for (name, run) in &mut self.runs {
            let (_, records) = self.state.read(&run.id).await.unwrap();
            let new = records.iter().skip(run.records);
            lines.extend(new.map(|r| format!("  {name} is durable, {}: {}", r.seq, text::entry(&r.entry))));
            run.records = records.len();
        }
        lines.into_iter().for_each(|line| self.line(line));
    }

    async fn write_events(&mut self) {
        let mut lines = Vec::new();
        for (name, run) in &mut self.runs {
            let log = match &self.coordinator {
                Some(coordinator) => coordinator.handle.log(run.id.clone()).await.ok().flatten(),
                None => None,
            };
            if let Some(log) = log
                && !run.log.as_ref().is_some_and(|l| Arc::ptr_eq(l, &log))
            {
                run.events = Some(Box::pin(log.watch().map(Result::unwrap)));
                run.log = Some(log);
            }
            while let Some(events) = &mut run.events
                && let Some(event) = events.next().now_or_never()
            {
                match event {
                    Some(event) => lines.push(format!("  {name} tells: {}", text::event(event))),
                    None => {
                        lines.push(format!("  {name} has no more to tell"));
                        run.events = None;
                    }
                }
            }
        }
        lines.into_iter().for_each(|line| self.line(line));
    }

    async fn write_end(&mut self) {
        let Some(coordinator) = self.coordinator.take_if(|c| c.hub.is_finished()) else { return };
        match coordinator.hub.await.unwrap() {
            Ok(()) => self.line("  the coordinator ends".to_owned()),
            Err(e) => {
                self.line(format!("  the coordinator ends with {}: {}", e.kind().exit_code(), e.chain()))
            }
        }
    }

    /// With the names that the script gives to runs.
    fn named(&self, text: &str) -> String {
        self.runs.iter().fold(text.to_owned(), |text, (name, run)| text.replace(&run.id, name))
    }

    fn line(&mut self, line: String) {
        let line = self.named(&line);
        writeln!(self.transcript, "{line}").unwrap();
    }

    /// Ends the script: what was written down has to be what is in the file of its name. With `SOUP_TRANSCRIPTS=write` in the
    /// environment it is written there, to be read and kept.
    pub(super) fn ends(self) {
        let file = format!("src/hub/tests/{}.txt", self.name);
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var("SOUP_TRANSCRIPTS").is_ok_and(|v| v == "write") {
            return std::fs::write(file, self.transcript).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        let both = expected.lines().map(Some).chain(std::iter::repeat(None));
        let differs = self.transcript.lines().zip(both).position(|(line, expected)| Some(line) != expected);
        let shorter = self.transcript.lines().count() < expected.lines().count();
        let at = differs.or_else(|| shorter.then(|| self.transcript.lines().count()));
        if let Some(at) = at {
            let around = |text: &str| {
                let lines = text.lines().enumerate().skip(at.saturating_sub(5)).take(12);
                lines.map(|(i, l)| format!("{:4} {l}\n", i + 1)).collect::<String>()
            };
            panic!(
                "{} differs from line {} on; expected:\n{}but this happened:\n{}",
                file.display(),
                at + 1,
                around(&expected),
                around(&self.transcript)
            );
        }
    }
}
