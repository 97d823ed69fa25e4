//! A world: coordinators, workers and a client as hosts of a simulated network, on one thread, by one clock.
//!
//! The hosts run the real roles. What they keep lies in a store in memory, which fails as the seed says. Computations happen
//! inline and take simulated time, so that hosts can be stopped in the middle of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use soup_coordinator::CoordinatorConfig;
use soup_core::recipe::RecipeKind;
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_proto::judge_v1::judge_server::JudgeServer;
use soup_store::faults::{Effect, FaultyStore, Op, set_memory_store};
use soup_store::state::State;
use soup_tests::judge::{Linear, Options};
use soup_trust::{InProcess, Policy};
use soup_worker::{Compute, DeviceConfig, JudgeConfig, Parts, Source, WorkerConfig};
use tonic::transport::Server;
use turmoil::Sim;

use crate::faults::{Fault, Faults, WORKERS, effect_kind, store_effect, writes_tensors};
use crate::liar::{self, Liar, Lie};
use crate::log::Log;
use crate::network::{self, Network};
use crate::random::Random;
use crate::witness::Witness;
use crate::{client, pool};

const COORDINATORS: usize = 2;
pub const COORDINATOR: &str = "http://coordinator:7070";
const PORT: u16 = 7070;
/// Simulated time from which on a world is hung, once nothing goes wrong any more. Connections that died in silence are
/// noticed within 35 s, late answers of stores within 60 s.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// How long a worker computes, and how many times longer a slow one does.
const COMPUTE_MS: Range<u64> = 1..25;
const SLOWDOWN: u32 = 40;
/// How long what a silent one begins does not get done: longer than any deadline of what is known to be quick.
const SILENCE: Duration = Duration::from_secs(100);
/// So many calls a judge of its own answers before it dies.
const JUDGE_CALLS: Range<u64> = 3..40;
/// How long a process takes to start.
const START: Duration = Duration::from_millis(50);
/// Wait between looks at an output that is to be there.
const RETRY: Duration = Duration::from_millis(500);
/// Steps of a millisecond between two looks at the state.
const LOOK_STEPS: u64 = 250;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct World {
    pub seed: u64,
    pub recipe: RecipeKind,
    /// Whether a judge of its own judges, which dies now and then.
    pub judge: bool,
    pub lookahead: Option<u32>,
    /// Whether the output replaces one that is there.
    pub overwrite: bool,
    pub faults: Faults,
    /// The worker that lies, and about what.
    pub liar: Option<(usize, Lie)>,
    /// What is audited, in millionths.
    pub audit_ppm: u32,
    /// How long it goes on after the last fault.
    pub patience: Duration,
}

/// How it ended.
pub struct Ended {
    /// The run's report and the SHA-256 of the tensors found at the output.
    pub result: Result<(Value, String)>,
    pub log: Vec<String>,
    pub simulated: Duration,
    /// What happened how often.
    pub counts: BTreeMap<&'static str, u64>,
}

type Answer = Arc<Mutex<Option<Result<(Value, String)>>>>;

/// Counts what happens.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    fn add(&self, kind: &'static str, count: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += count;
    }
}

/// What the hosts of a world share besides the network.
struct Shared {
    network: Network,
    slow: Vec<Arc<AtomicBool>>,
    silent: Vec<Arc<AtomicBool>>,
    counts: Counts,
    answer: Answer,
}

impl World {
    /// Simulates it to its end.
    pub fn simulate(&self) -> Ended {
        let log = Log::start();
        let shared = Shared {
            network: Network::default(),
            slow: (0..WORKERS).map(|_| Arc::default()).collect(),
            silent: (0..WORKERS).map(|_| Arc::default()).collect(),
            counts: Counts::default(),
            answer: Answer::default(),
        };
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.seed)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(self.faults.latency_max)
            .build();
        let result = self.populate(&mut sim, &shared).and_then(|witness| {
            self.drive(&mut sim, &shared, &witness)?;
            let taken = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (report, sha256) =
                taken.unwrap_or_else(|| Err(Error::internal("the run did not end in time")))?;
            let recipe = self.spec().recipe;
            let epochs = witness.verdict(&recipe, pool::INGREDIENTS.len() as u32, &report)?;
            shared.counts.add("epochs", epochs);
            Ok((report, sha256))
        });
        let simulated = sim.elapsed();
        // The hosts are dropped before the last lines are read: that is part of the world.
        drop(sim);
        set_memory_store(None);
        let result = log.panic().map_or(result, |panic| Err(Error::internal(format!("a panic: {panic}"))));
        let counts = shared.counts.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ended { result, log: log.lines(), simulated, counts }
    }

    fn spec(&self) -> RunSpec {
        let spec = if self.judge { pool::judged } else { pool::spec };
        RunSpec { overwrite: self.overwrite, audit_ppm: self.audit_ppm, ..spec(self.recipe, self.lookahead) }
    }

    /// Fills the store and starts the hosts.
    fn populate(&self, sim: &mut Sim<'_>, shared: &Shared) -> Result<Witness> {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let replaced = if self.overwrite { pool::replaced() } else { Vec::new() };
        for (path, bytes) in pool::files().into_iter().chain(replaced) {
            let put = memory.put(&path.as_str().into(), bytes.into()).now_or_never();
            put.and_then(Result::ok).ok_or_else(|| Error::internal("the memory does not answer at once"))?;
        }
        set_memory_store(memory.clone());
        let witness = Witness::new(State::open(pool::STATE)?);
        set_memory_store(Arc::new(self.faulty(memory, shared)) as Arc<dyn ObjectStore>);
        for index in 0..COORDINATORS {
            let (network, jumps) = (shared.network.clone(), self.faults.jumps);
            sim.host(format!("coordinator{index}"), move || coordinator(index, network.clone(), jumps));
        }
        for (index, flags) in shared.slow.iter().zip(&shared.silent).enumerate() {
            let (seed, network) = (self.seed, shared.network.clone());
            let flags = (flags.0.clone(), flags.1.clone());
            let lie = self.liar.filter(|(liar, _)| *liar == index).map(|(_, lie)| lie);
            sim.host(format!("worker{index}"), move || {
                worker(index, seed, network.clone(), flags.clone(), lie)
            });
        }
        let spec = self.spec();
        sim.client("client", client(spec, shared.network.clone(), witness.clone(), shared.answer.clone()));
        Ok(witness)
    }

    /// The store as the hosts see it.
    fn faulty(&self, memory: Arc<dyn ObjectStore>, shared: &Shared) -> FaultyStore {
        let random = Mutex::new(Random::new(self.seed, 3));
        let (permille, until) = (self.faults.store_permille, self.faults.end());
        let (counts, flipped) = (shared.counts.clone(), AtomicU64::new(self.faults.flipped));
        let (misread, reads) = (self.faults.misread.clone(), AtomicU64::new(0));
        let decide = move |request: &soup_store::faults::Request| {
            if let Some((path, which)) = &misread
                && request.op == Op::Get
                && request.path == *path
                && reads.fetch_add(1, Ordering::Relaxed) + 1 == *which
            {
                tracing::info!(target: "simulation", "a bit of {path} changes as it is read");
                counts.add("read bits changed", 1);
                return Some(Effect::FlipBit);
            }
            let now = turmoil::in_simulation().then(turmoil::sim_elapsed).flatten()?;
            if writes_tensors(request) && flipped.load(Ordering::Relaxed) > 0 {
                flipped.fetch_sub(1, Ordering::Relaxed);
                tracing::info!(target: "simulation", "a bit of {} changes", request.path);
                counts.add(effect_kind(Effect::FlipBit), 1);
                return Some(Effect::FlipBit);
            }
            if now >= until {
                return None;
            }
            let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
            let effect = store_effect(request, &mut random, permille)?;
            tracing::info!(target: "simulation", "{effect:?} of {:?} {}", request.op, request.path);
            counts.add(effect_kind(effect), 1);
            Some(effect)
        };
        FaultyStore::new(memory, Arc::new(decide))
    }

    /// Runs the hosts until the client has its answer, applies the faults on the way and looks at the state.
    fn drive(&self, sim: &mut Sim<'_>, shared: &Shared, witness: &Witness) -> Result<()> {
        let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
        for (index, planned) in self.faults.planned.iter().enumerate() {
            moments.push((planned.begin, true, index));
            moments.push((planned.end, false, index));
        }
        moments.sort_unstable();
        let mut moments = moments.into_iter().peekable();
        let mut crashed = BTreeMap::new();
        for step in 0u64.. {
            let now = sim.elapsed();
            if now >= self.faults.end() + self.patience {
                break;
            }
            while let Some((_, begins, index)) = moments.next_if(|(at, ..)| *at <= now) {
                let fault = &self.faults.planned[index].fault;
                let verb = if begins { "begins" } else { "ends" };
                tracing::info!(target: "simulation", "{:.3} fault {verb}: {fault:?}", now.as_secs_f64());
                if begins {
                    shared.counts.add(fault.kind(), 1);
                    begin(sim, fault, shared, crashed.entry(index).or_default());
                } else {
                    end(sim, fault, shared, &crashed.remove(&index).unwrap_or_default());
                }
            }
            supervise(sim, &crashed, &shared.counts);
            sim.step().map_err(|e| Error::internal(format!("a host ended: {e}")))?;
            if step % LOOK_STEPS == 0 {
                witness.look()?;
            }
            if shared.answer.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// Starts again what ended itself, as a supervisor does. Of a process that ends, nothing is left.
fn supervise(sim: &mut Sim<'_>, crashed: &BTreeMap<usize, Vec<String>>, counts: &Counts) {
    for host in hosts("coordinator").into_iter().chain((0..WORKERS).map(|i| format!("worker{i}"))) {
        if !sim.is_host_running(host.as_str()) && !crashed.values().flatten().any(|c| *c == host) {
            let kind = if host.starts_with("worker") { "workers exited" } else { "coordinators exited" };
            counts.add(kind, 1);
            sim.bounce(host.as_str());
        }
    }
}

/// The hosts of that name: `coordinator` is all of them.
fn hosts(name: &str) -> Vec<String> {
    match name {
        "coordinator" => (0..COORDINATORS).map(|i| format!("coordinator{i}")).collect(),
        other => vec![other.to_owned()],
    }
}

fn for_links(a: &str, b: &str, apply: impl Fn(&str, &str)) {
    for a in hosts(a) {
        hosts(b).iter().for_each(|b| apply(&a, b));
    }
}

/// Begins a fault; notes the hosts that have to be started again when it ends.
fn begin(sim: &mut Sim<'_>, fault: &Fault, shared: &Shared, crashed: &mut Vec<String>) {
    let active = &shared.network.coordinator;
    match fault {
        Fault::Cut(a, b) => for_links(a, b, |a, b| sim.partition(a, b)),
        Fault::CutOneWay(a, b) => for_links(a, b, |a, b| sim.partition_oneway(a, b)),
        Fault::Stall(a, b) => for_links(a, b, |a, b| sim.hold(a, b)),
        Fault::Crash(host) => crashed.push(host.clone()),
        Fault::CrashCoordinator => crashed.push(format!("coordinator{}", active.load(Ordering::Relaxed))),
        Fault::Takeover => {
            let next = (active.load(Ordering::Relaxed) + 1) % COORDINATORS;
            active.store(next, Ordering::Relaxed);
            sim.bounce(format!("coordinator{next}"));
        }
        Fault::Slow(worker) => shared.slow[*worker].store(true, Ordering::Relaxed),
        Fault::Silent(worker) => shared.silent[*worker].store(true, Ordering::Relaxed),
    }
    crashed.iter().for_each(|host| sim.crash(host.as_str()));
}

fn end(sim: &mut Sim<'_>, fault: &Fault, shared: &Shared, crashed: &[String]) {
    match fault {
        Fault::Cut(a, b) => for_links(a, b, |a, b| sim.repair(a, b)),
        Fault::CutOneWay(a, b) => for_links(a, b, |a, b| sim.repair_oneway(a, b)),
        Fault::Stall(a, b) => for_links(a, b, |a, b| sim.release(a, b)),
        Fault::Slow(worker) => shared.slow[*worker].store(false, Ordering::Relaxed),
        Fault::Silent(worker) => shared.silent[*worker].store(false, Ordering::Relaxed),
        Fault::Crash(_) | Fault::CrashCoordinator | Fault::Takeover => {}
    }
    crashed.iter().for_each(|host| sim.bounce(host.as_str()));
}

/// The simulated time, as records bear it. It is as far off as `jumps` says for every third second, forth and back in turn.
fn clock(jumps: u64) -> String {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    let days = match elapsed.as_secs() % 6 {
        1 => 2,
        4 => 0,
        _ => 1,
    };
    let (seconds, millis) = (elapsed.as_secs() + days * jumps, elapsed.subsec_millis());
    let day = 1 + seconds / 86_400;
    let seconds = seconds % 86_400;
    format!(
        "2000-01-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A coordinator, if it is the one that is to be found.
async fn coordinator(index: usize, network: Network, jumps: u64) -> turmoil::Result {
    tokio::time::sleep(START).await;
    if network.coordinator.load(Ordering::Relaxed) != index {
        std::future::pending::<()>().await;
    }
    let config = CoordinatorConfig { heartbeat_ms: 200, lease_ms: 2_000, ..CoordinatorConfig::default() };
    let state = State::open(pool::STATE)?.with_clock(Arc::new(move || clock(jumps)));
    let incoming = network::listen(PORT).await?;
    let ended = soup_coordinator::serve_with(config, state, incoming, std::future::pending()).await;
    tracing::info!(target: "simulation", "coordinator{index} ended: {ended:?}");
    Ok(())
}

async fn worker(
    index: usize,
    seed: u64,
    network: Network,
    (slow, silent): (Arc<AtomicBool>, Arc<AtomicBool>),
    lie: Option<Lie>,
) -> turmoil::Result {
    tokio::time::sleep(START).await;
    let random = Mutex::new(Random::new(seed, 100 + index as u64));
    let pause = move || {
        let pause = random.lock().unwrap_or_else(PoisonError::into_inner).millis(COMPUTE_MS);
        match silent.load(Ordering::Relaxed) {
            true => SILENCE,
            false => pause * if slow.load(Ordering::Relaxed) { SLOWDOWN } else { 1 },
        }
    };
    let judge = InProcess::default();
    let config = WorkerConfig {
        coordinator: match lie {
            Some(_) => format!("http://worker{index}:{}", liar::PORT),
            None => COORDINATOR.to_owned(),
        },
        name: format!("worker{index}"),
        advertise: None,
        slots: 2,
        memory_bytes: 64 << 20,
        disk_cache: None,
        device: DeviceConfig::default(),
        connect_timeout_ms: 60_000,
        orphan_timeout_ms: 60_000,
        judges: vec![JudgeConfig {
            name: pool::JUDGE.to_owned(),
            source: Source::At(Arc::new(judge.clone()), format!("mem://{}", pool::JUDGE)),
            silence: Duration::from_secs(60),
        }],
        judge_dir: None,
    };
    let dies_every = Random::new(seed, 200 + index as u64).number(JUDGE_CALLS);
    tokio::spawn(serve_judge(judge, dies_every));
    if let Some(lie) = lie {
        tokio::spawn(Liar::serve(network.clone(), lie));
    }
    let parts = Parts {
        policy: Policy::Everybody,
        incoming: network::listen(PORT).await?,
        address: format!("http://worker{index}:{PORT}"),
        coordinator: Arc::new(network.clone()),
        peers: Arc::new(network),
        compute: Compute::inline(pause),
    };
    let ended = soup_worker::run_with(config, parts, std::future::pending()).await;
    tracing::info!(target: "simulation", "worker{index} ended: {ended:?}");
    Ok(())
}

/// A judge that dies now and then, with all that it had loaded.
async fn serve_judge(network: InProcess, dies_every: u64) {
    let Ok(listener) = network.listen(pool::JUDGE) else { return };
    let service =
        JudgeServer::new(Linear::new(Options { dies_every: Some(dies_every), ..Options::default() }));
    let ended = Server::builder().add_service(service).serve_with_incoming(listener).await;
    tracing::info!(target: "simulation", "a judge ended: {ended:?}");
}

async fn client(spec: RunSpec, network: Network, witness: Witness, answer: Answer) -> turmoil::Result {
    let result = async {
        let report = client::cook(COORDINATOR, &network, &spec, &witness).await?;
        loop {
            match client::published_sha256(&spec.output).await {
                // The store may still be failing.
                Err(e) if e.kind().is_transient() => tokio::time::sleep(RETRY).await,
                sha256 => return Ok((report, sha256?)),
            }
        }
    };
    let result = result.await;
    *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    Ok(())
}
