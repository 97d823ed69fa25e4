//! How long does a coordinator think? `cargo bench -p soup-coordinator --bench decisions`
//!
//! A greedy cook of 58 ingredients on 50,000 samples and 1,000 workers of two slots, which answer in any order. Counted is
//! the coordinator's own time, on one thread: decoding an answer, the machine, and building and encoding what it sends.
//! A decision is a soup's score or a trial's verdict; its time is that of everything since the one before it.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use prost::Message;
use soup_core::machine::{
    Action, Event, FileDigest, Limits, Machine, NewWorker, Plan, Report, TaskKey, TaskResult, Work, WorkerId,
};
use soup_core::recipe::{Accept, Order, RecipeKind, RecipeSpec};
use soup_core::score::{Metric, Outcome};
use soup_core::soup::Soup;
use soup_proto::v1;

const WORKERS: u64 = 1000;
const SLOTS: u32 = 2;
const INGREDIENTS: u32 = 58;
const SHARDS: usize = 128;
const SHARD_BYTES: u64 = 64 << 20;
const SAMPLES: u64 = 50_000;
const CLASSES: u64 = 1000;
const LOOKAHEADS: [u32; 4] = [0, 4, 16, 64];

fn main() {
    for lookahead in LOOKAHEADS {
        let cook = Cook::new(lookahead);
        let figures = cook.run();
        figures.print(lookahead);
    }
}

/// A run with workers that answer at once, in any order.
struct Cook {
    machine: Machine,
    /// Attempts that are with workers.
    assigned: Vec<(WorkerId, TaskKey, Work)>,
    /// Answers of the journal, which takes an entry at a time.
    recorded: bool,
    published: bool,
    ended: bool,
    random: u64,
    figures: Figures,
    since_decision: Duration,
}

#[derive(Default)]
struct Figures {
    actions: usize,
    events: Vec<Duration>,
    decisions: Vec<Duration>,
}

impl Cook {
    fn new(lookahead: u32) -> Cook {
        let recipe = RecipeSpec {
            kind: RecipeKind::Greedy,
            order: Order::Sorted,
            accept: Accept::AtLeast,
            seed: 1,
            max_ingredients: None,
            passes: 1,
            metric: Metric::Accuracy,
        };
        let plan = Plan {
            ingredients: INGREDIENTS,
            shard_bytes: vec![SHARD_BYTES * u64::from(INGREDIENTS); SHARDS],
            datasets: 1,
            batch_size: 32,
            files: 1,
            recipe,
            baselines: true,
            lookahead,
            workers_min: WORKERS as u32,
            recall: false,
            limits: Limits::default(),
        };
        Cook {
            machine: Machine::new(plan, 0).unwrap(),
            assigned: Vec::new(),
            recorded: false,
            published: false,
            ended: false,
            random: 1,
            figures: Figures::default(),
            since_decision: Duration::ZERO,
        }
    }

    fn run(mut self) -> Figures {
        let new =
            |w| NewWorker { worker: WorkerId(w), slots: SLOTS, capacity_bytes: 1 << 40, held: Vec::new() };
        self.feed(|| Event::WorkersJoined((0..WORKERS).map(new).collect()));
        while !self.ended {
            if std::mem::take(&mut self.recorded) {
                self.feed(|| Event::Recorded);
            } else if std::mem::take(&mut self.published) {
                self.feed(|| Event::Published(Ok(())));
            } else {
                let at = self.random() as usize % self.assigned.len();
                let (worker, key, work) = self.assigned.swap_remove(at);
                match work {
                    Work::Evaluate(evaluation, slice) => {
                        let wire = evaluated(&evaluation.soup, slice.start..slice.end);
                        let decode = || {
                            let message = v1::Evaluated::decode(&wire[..]).unwrap();
                            Event::Done(worker, key, TaskResult::Evaluated(message.try_into().unwrap()))
                        };
                        self.feed(decode);
                    }
                    work => self.feed(|| Event::Done(worker, key, answer(&work))),
                }
            }
        }
        self.figures
    }

    /// Feeds one event and takes the time that it and its consequences cost.
    fn feed(&mut self, event: impl FnOnce() -> Event) {
        let start = Instant::now();
        let actions = self.machine.handle(self.figures.events.len() as u64, event());
        let messages: usize = actions.iter().filter_map(message).map(|m| m.encode_to_vec().len()).sum();
        std::hint::black_box(messages);
        let spent = start.elapsed();
        self.figures.events.push(spent);
        self.figures.actions += actions.len();
        self.since_decision += spent;
        for action in actions {
            match action {
                Action::Assign(worker, key, work) => self.assigned.push((worker, key, work)),
                Action::Cancel(worker, key) => self.assigned.retain(|(w, k, _)| (*w, *k) != (worker, key)),
                Action::Record(_) => self.recorded = true,
                Action::Publish => self.published = true,
                Action::Finish(result) => {
                    result.unwrap();
                    self.ended = true;
                }
                Action::Report(Report::Scored(..) | Report::Decided(..)) => {
                    self.figures.decisions.push(std::mem::take(&mut self.since_decision));
                }
                _ => {}
            }
        }
    }

    fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}

fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The outcomes of a slice as they come over the wire: three quarters are right, give or take what the soup is made of.
fn evaluated(soup: &Soup, samples: std::ops::Range<u64>) -> Vec<u8> {
    let members = soup.members().iter().fold(7, |h, m| mix(h ^ u64::from(m.0)));
    let outcome = |sample| {
        let h = mix(members ^ mix(sample));
        let label = sample % CLASSES;
        let right = h % 1000 < 750 + members % 10;
        let prediction = if right { label } else { h / 1000 % CLASSES };
        Outcome { label: label as u32, prediction: prediction as u32, loss: 0.5, margin: 0.5 }
    };
    let outcomes: Vec<Outcome> = samples.map(outcome).collect();
    v1::Evaluated::from(&outcomes[..]).encode_to_vec()
}

fn answer(work: &Work) -> TaskResult {
    match work {
        Work::Load(_) => TaskResult::Loaded {
            sha256: (0..INGREDIENTS as u8).map(|i| [i; 32]).collect(),
            notes: Vec::new(),
        },
        Work::Survey => {
            TaskResult::Surveyed { samples: vec![SAMPLES], classes: CLASSES as u32, notes: Vec::new() }
        }
        Work::Write(..) => {
            TaskResult::Written(FileDigest { data_sha256: [7; 32], file_sha256: [8; 32], bytes: 9 })
        }
        Work::Digest(_) | Work::Evaluate(..) => TaskResult::Digested([7; 32]),
    }
}

/// What goes to a worker, but for messages that need a pool on a store.
fn message(action: &Action) -> Option<v1::CoordinatorMessage> {
    use v1::coordinator_message::Message;

    let message = match action {
        Action::Assign(_, key, Work::Evaluate(evaluation, slice)) => {
            let work = v1::assign::Work::Evaluate(v1::Evaluate {
                soup: Some((&evaluation.soup).into()),
                dataset: evaluation.dataset.0,
                start: slice.start,
                end: slice.end,
            });
            Message::Assign(v1::Assign { key: Some(v1::TaskKey::new("bench", 1, *key)), work: Some(work) })
        }
        Action::Cancel(_, key) => {
            Message::Cancel(v1::CancelTask { key: Some(v1::TaskKey::new("bench", 1, *key)) })
        }
        Action::Place(_, owners) => Message::Placement(v1::Placement {
            run: "bench".to_owned(),
            epoch: 1,
            owners: owners.iter().map(|w| w.0).collect(),
            peers: (0..WORKERS)
                .map(|w| v1::Peer { worker: w, address: format!("http://10.0.{}.{}:7071", w / 256, w % 256) })
                .collect(),
        }),
        _ => return None,
    };
    Some(v1::CoordinatorMessage { message: Some(message) })
}

impl Figures {
    fn print(mut self, lookahead: u32) {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let mean = |all: &[Duration]| ms(all.iter().sum()) / all.len() as f64;
        self.events.sort_unstable();
        self.decisions.sort_unstable();
        let (events, decisions) = (&self.events, &self.decisions);
        let at = |all: &[Duration], share: f64| ms(all[((all.len() - 1) as f64 * share) as usize]);
        println!(
            "lookahead {lookahead:>2}: {} events, {} actions, {} decisions; ms a decision: mean {:.2}, p50 {:.2}, p99 {:.2}; \
             ms an event: mean {:.3}, p99 {:.3}, max {:.1}",
            events.len(),
            self.actions,
            decisions.len(),
            mean(decisions),
            at(decisions, 0.5),
            at(decisions, 0.99),
            mean(events),
            at(events, 0.99),
            at(events, 1.0),
        );
    }
}
