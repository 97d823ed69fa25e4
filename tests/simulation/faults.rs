//! The faults of a world: which, when and for how long. All of it follows from the seed.

use std::time::Duration;

use soup_store::faults::{Effect, Op, Request};

use crate::random::Random;

/// Folders of the store: where runs are kept, and where the soup goes.
const STATE: &str = "state/";
const OUTPUT: &str = "soup";
/// Workers of a world.
pub const WORKERS: usize = 3;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between two hosts; what was under way is lost, and with it the connections that carried it.
    Cut(String, String),
    /// Nothing passes from the first to the second.
    CutOneWay(String, String),
    /// What is sent between two hosts arrives late.
    Stall(String, String),
    /// A worker stops where it is, and starts anew.
    Crash(String),
    /// The coordinator stops where it is, and starts anew.
    CrashCoordinator,
    /// Another coordinator starts over the same state, and is the one that is found from now on. Nobody tells the first.
    Takeover,
    /// A worker computes much more slowly.
    Slow(usize),
    /// A worker is heard, and what it begins to compute does not get done for long.
    Silent(usize),
}

impl Fault {
    /// Whether a host dies of it.
    pub fn kills(&self) -> bool {
        matches!(self, Fault::Crash(_) | Fault::CrashCoordinator | Fault::Takeover)
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Cut(..) => "links cut",
            Fault::CutOneWay(..) => "links cut one way",
            Fault::Stall(..) => "links stalled",
            Fault::Crash(_) => "workers crashed",
            Fault::CrashCoordinator => "coordinators crashed",
            Fault::Takeover => "coordinators replaced alive",
            Fault::Slow(_) => "workers slowed",
            Fault::Silent(_) => "workers silent",
        }
    }
}

/// A fault, when it begins and when it ends.
#[derive(Clone, Debug)]
pub struct Planned {
    pub begin: Duration,
    pub end: Duration,
    pub fault: Fault,
}

/// What can go wrong in a world, and its parameters.
#[derive(Clone, Debug)]
pub struct Faults {
    pub planned: Vec<Planned>,
    /// Longest time that a message takes.
    pub latency_max: Duration,
    /// Requests to the store, of a thousand, that go wrong until the last fault has ended.
    pub store_permille: u64,
    /// Files of the output of which a bit changes on the way into the store, the first ones that are written.
    pub flipped: u64,
    /// The one read of an object, of all of it or a part, in which a bit changes: its path, and which one from 1.
    pub misread: Option<(String, u64)>,
    /// Seconds by which the clock of a coordinator jumps now and then, forth and back.
    pub jumps: u64,
}

impl Faults {
    /// A world in which nothing goes wrong.
    pub fn none() -> Faults {
        Faults {
            planned: Vec::new(),
            latency_max: Duration::from_millis(10),
            store_permille: 0,
            flipped: 0,
            misread: None,
            jumps: 0,
        }
    }

    /// What goes wrong in the world of `seed`: faults begin within `window`.
    pub fn of(seed: u64, window: Duration) -> Faults {
        let mut random = Random::new(seed, 2);
        let latency_max = random.millis(2..100);
        let window = window.as_millis() as u64;
        let planned = (0..random.number(1..13)).map(|_| {
            let begin = random.millis(0..window);
            let longest = if random.chance(30) { 15_000 } else { 1_500 };
            let end = begin + random.millis(1..longest);
            Planned { begin, end, fault: fault(&mut random) }
        });
        let planned = planned.collect();
        let store_permille = if random.chance(50) { random.number(1..60) } else { 0 };
        // Not drawn: what else happens stays as it was.
        let flipped = if seed % 8 == 3 { 1 + seed / 8 % 2 } else { 0 };
        let jumps = if seed % 5 == 1 { 86_400 } else { 0 };
        Faults { planned, latency_max, store_permille, flipped, misread: None, jumps }
    }

    /// The same, and a worker falls silent besides.
    pub fn and_silence(mut self, seed: u64, window: Duration) -> Faults {
        let mut random = Random::new(seed, 4);
        let begin = random.millis(0..window.as_millis() as u64);
        let end = begin + random.millis(100..15_000);
        let fault = Fault::Silent(random.number(0..WORKERS as u64) as usize);
        self.planned.push(Planned { begin, end, fault });
        self
    }

    /// The same, without what takes workers from the run: where one lies, the others have to be there to say so.
    pub fn that_leave_workers_there(mut self) -> Faults {
        self.planned
            .retain(|p| matches!(p.fault, Fault::Slow(_) | Fault::CrashCoordinator | Fault::Takeover));
        self
    }

    /// When the last one has ended.
    pub fn end(&self) -> Duration {
        self.planned.iter().map(|p| p.end).max().unwrap_or_default()
    }
}

fn fault(random: &mut Random) -> Fault {
    let worker = random.number(0..WORKERS as u64);
    let name = format!("worker{worker}");
    let peer = match random.number(0..10) {
        0..6 => "coordinator".to_owned(),
        _ => format!("worker{}", (worker + random.number(1..WORKERS as u64)) % WORKERS as u64),
    };
    match random.number(0..24) {
        0..4 => Fault::Cut(name, peer),
        4..6 => Fault::CutOneWay(name, peer),
        6..8 => Fault::CutOneWay(peer, name),
        8..10 => Fault::Stall(name, peer),
        10 => Fault::Cut("client".to_owned(), "coordinator".to_owned()),
        11..17 => Fault::Crash(name),
        17..20 => Fault::CrashCoordinator,
        20..22 => Fault::Takeover,
        _ => Fault::Slow(worker as usize),
    }
}

/// Whether tensors of the output are written with a request.
pub fn writes_tensors(request: &Request) -> bool {
    request.op == Op::Part && request.path.starts_with(OUTPUT) && request.path.ends_with(".safetensors")
}

/// What becomes of a request to the store, if anything unusual does.
pub fn store_effect(request: &Request, random: &mut Random, permille: u64) -> Option<Effect> {
    // Whoever reads checkpoints and datasets tries again only so often, and inline reads cannot wait.
    let input = !request.path.starts_with(STATE) && !request.path.starts_with(OUTPUT);
    if random.number(0..1000) >= if input { permille / 8 } else { permille } {
        return None;
    }
    Some(match random.number(0..10) {
        _ if input => Effect::Fail,
        0..3 => Effect::Fail,
        3..6 => Effect::LoseAnswer,
        6 => Effect::LateWrite(random.millis(1..3_000)),
        7..9 => Effect::Stall(random.millis(1..3_000)),
        _ => Effect::Exists409,
    })
}

pub fn effect_kind(effect: Effect) -> &'static str {
    match effect {
        Effect::Fail => "store requests failed",
        Effect::LoseAnswer => "store answers lost",
        Effect::LateWrite(_) => "store writes late",
        Effect::Stall(_) => "store requests stalled",
        Effect::Exists409 => "store 409s",
        Effect::Deny => "store requests denied",
        Effect::FlipBit => "written bits changed",
    }
}
