//! Blends between peers at the speed of TCP? `cargo bench -p soup-worker --bench peers`
//!
//! One worker holds every shard of a model and has blended them; another one, on a runtime of its own, assembles the
//! model over loopback: the service and the fetches of a run. In the same rounds, the same bytes go in the same chunks
//! over plain TCP streams between the same runtimes into the same memory. Best of several rounds, because machines are
//! shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod pool;

use std::time::Instant;

use pool::Pool;
use soup_core::soup::{Ingredient, Soup};
use soup_proto::CHUNK_BYTES_MAX;
use soup_proto::v1::{Peer, Placement};
use soup_worker::bench::BenchWorker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Sixteen shards of 64 MiB.
const MODEL_BYTES: usize = 1 << 30;
const SHARD_BYTES: usize = 64 << 20;
const ROUNDS: usize = 5;
const STREAMS: [usize; 3] = [1, 4, 8];

fn main() {
    let (serving, fetching) = (runtime(), runtime());
    let pool = serving.block_on(Pool::write(1, MODEL_BYTES));
    let (owner, asker) = (worker(&serving, &pool), worker(&fetching, &pool));
    let soup = Soup::single(Ingredient(0));
    let mut expected = vec![0; MODEL_BYTES];
    serving.block_on(async {
        for load in &pool.loads {
            owner.load(load.clone()).await.unwrap();
        }
        // From its own shards: this makes the blends that are served.
        owner.assemble(&soup, &mut expected).await.unwrap();
    });
    let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    serving.block_on(async { owner.serve(listener) });
    let placement = Placement {
        run: pool.begin.run.clone(),
        epoch: pool.begin.epoch,
        owners: vec![1; pool.loads.len()],
        peers: vec![Peer { worker: 1, address }],
    };
    asker.place(placement, 2);

    let mut raw: Vec<Raw> = STREAMS.iter().map(|&n| Raw::connect(&serving, &fetching, n)).collect();
    let mut out = vec![0; MODEL_BYTES];
    let mut costs = vec![Cost::default(); STREAMS.len() + 1];
    for round in 0..=ROUNDS {
        let mut spent: Vec<Cost> =
            raw.iter_mut().map(|raw| measure(|| fetching.block_on(raw.fetch(&mut out)))).collect();
        out.fill(0);
        spent.push(measure(|| fetching.block_on(asker.assemble(&soup, &mut out)).unwrap()));
        assert!(out == expected, "what was fetched is not what was blended");
        // The first round only warms up.
        if round > 0 {
            costs.iter_mut().zip(spent).for_each(|(cost, spent)| cost.add(spent));
        }
    }
    let peers = costs.pop().unwrap_or_default();
    println!("peers: {:.2} GB/s, {:.2} CPU s/GB", peers.rate(), peers.cpu());
    for (streams, raw) in STREAMS.iter().zip(&costs) {
        let (speed, cpu) = (peers.rate() / raw.rate(), raw.cpu() / peers.cpu());
        println!(
            "raw TCP, {streams} streams: {:.2} GB/s, {:.2} CPU s/GB; peers have {speed:.2} of its speed, {cpu:.2} by CPU time",
            raw.rate(),
            raw.cpu()
        );
    }
}

/// What transfers of the model cost: the shortest time, and the processor time of all rounds, both ends together.
#[derive(Clone, Copy, Default)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    rounds: u32,
}

impl Cost {
    fn add(&mut self, spent: Cost) {
        self.seconds = if self.rounds == 0 { spent.seconds } else { self.seconds.min(spent.seconds) };
        self.cpu_seconds += spent.cpu_seconds;
        self.rounds += spent.rounds;
    }

    fn rate(&self) -> f64 {
        MODEL_BYTES as f64 / self.seconds / 1e9
    }

    fn cpu(&self) -> f64 {
        self.cpu_seconds / f64::from(self.rounds) / (MODEL_BYTES as f64 / 1e9)
    }
}

fn measure(work: impl FnOnce()) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work();
    Cost { seconds: start.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu, rounds: 1 }
}

/// Processor time of this process so far, in ticks of 10 ms; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

fn worker(runtime: &Runtime, pool: &Pool) -> BenchWorker {
    let _inside = runtime.enter();
    BenchWorker::new(2, pool.begin.clone()).unwrap()
}

/// Plain streams over which a task at the other end sends shards when told to.
struct Raw {
    streams: Vec<TcpStream>,
}

impl Raw {
    fn connect(serving: &Runtime, fetching: &Runtime, streams: usize) -> Raw {
        let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        serving.spawn(async move {
            let blend = bytes::Bytes::from(vec![7u8; MODEL_BYTES / streams]);
            for _ in 0..streams {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let blend = blend.clone();
                tokio::spawn(async move {
                    while stream.read_u8().await.is_ok() {
                        for chunk in blend.chunks(CHUNK_BYTES_MAX) {
                            stream.write_all(chunk).await.unwrap();
                        }
                    }
                });
            }
        });
        let connect = |_| fetching.block_on(TcpStream::connect(address)).unwrap();
        Raw { streams: (0..streams).map(connect).collect() }
    }

    async fn fetch(&mut self, out: &mut [u8]) {
        let each = out.len() / self.streams.len();
        assert_eq!(each % SHARD_BYTES, 0);
        let jobs = self.streams.iter_mut().zip(out.chunks_mut(each)).map(|(stream, out)| async move {
            stream.write_u8(1).await.unwrap();
            for chunk in out.chunks_mut(CHUNK_BYTES_MAX) {
                stream.read_exact(chunk).await.unwrap();
            }
        });
        futures::future::join_all(jobs).await;
    }
}
