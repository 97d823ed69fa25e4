//! Loading a pool at the speed of its store? `cargo bench -p soup-worker --bench load [-- THREADS...]`
//!
//! A worker loads a pool from the local disk: the reads, digests and checks of a run. In the same rounds, the same files
//! are read by plain positioned reads, in the same parts on as many threads, into fresh memory too; and once more with a
//! SHA-256 of every part on the thread that read it, which is the least that a load has to do. The files are in the page
//! cache, so that the disk bounds nothing: this is the hardest case. Best of several rounds, because machines are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cost;
mod pool;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use cost::{Cost, measure};
use futures::{StreamExt, TryStreamExt, stream};
use pool::Pool;
use sha2::{Digest, Sha256};
use soup_store::load::LoadLimits;
use soup_worker::bench::BenchWorker;
use tokio::runtime::{Builder, Runtime};

const INGREDIENTS: usize = 8;
const INGREDIENT_BYTES: usize = 128 << 20;
const ROUNDS: usize = 5;

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for threads in if asked.is_empty() { vec![1, all] } else { asked } {
        compare(threads.max(1));
    }
}

fn compare(threads: usize) {
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::write(INGREDIENTS, INGREDIENT_BYTES));
    let mut costs = [Cost::new(INGREDIENTS * INGREDIENT_BYTES); 3];
    for round in 0..=ROUNDS {
        let spent = [
            measure(|| plain(&pool, threads, false)),
            measure(|| plain(&pool, threads, true)),
            measure(|| load(&runtime, &pool, threads)),
        ];
        // The first round only warms up.
        if round > 0 {
            costs.iter_mut().zip(spent).for_each(|(cost, spent)| cost.add(spent));
        }
    }
    let [plain, hashed, load] = costs;
    println!("{threads} threads: load {load}");
    for (name, other) in [("plain reads", plain), ("plain reads and SHA-256", hashed)] {
        let (speed, cpu) = (load.rate() / other.rate(), other.cpu() / load.cpu());
        println!("  {name}: {other}; the load has {speed:.2} of its speed, {cpu:.2} by CPU time");
    }
}

/// A fresh worker of `threads` slots loads every shard, with as many tasks at a time as it would be given.
fn load(runtime: &Runtime, pool: &Pool, threads: usize) {
    runtime.block_on(async {
        let worker = BenchWorker::new(threads as u32, pool.begin.clone()).unwrap();
        let loads = pool.loads.iter().map(|task| worker.load(task.clone()));
        let loaded: Vec<_> = stream::iter(loads).buffer_unordered(threads + 1).try_collect().await.unwrap();
        let bytes: u64 = loaded.iter().map(|l| l.bytes_read).sum();
        assert_eq!(bytes, (INGREDIENTS * INGREDIENT_BYTES) as u64);
    });
}

/// Reads every file in parts into fresh memory, and digests each part if `hash`.
fn plain(pool: &Pool, threads: usize, hash: bool) {
    let part_bytes = LoadLimits::default().part_bytes as usize;
    let files: Vec<File> = pool.files.iter().map(|f| File::open(f).unwrap()).collect();
    let mut memory: Vec<Vec<u8>> = files.iter().map(|_| vec![0; INGREDIENT_BYTES]).collect();
    let parts = files.iter().zip(&mut memory).flat_map(|(file, memory)| {
        let header_bytes = file.metadata().unwrap().len() - INGREDIENT_BYTES as u64;
        let part = move |(i, part)| (file, header_bytes + (i * part_bytes) as u64, part);
        memory.chunks_mut(part_bytes).enumerate().map(part)
    });
    let parts = Mutex::new(parts);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some((file, offset, part)) = parts.lock().unwrap().next() else { return };
                    file.read_exact_at(part, offset).unwrap();
                    if hash {
                        std::hint::black_box(Sha256::digest(part));
                    }
                }
            });
        }
    });
}
