//! Loading a pool at the speed of its store? `cargo bench -p soup-worker --bench load [-- THREADS...]`
//!
//! A worker loads a pool from the local disk: the reads, digests and checks of a run. In the same rounds, the same files
//! are read by plain positioned reads, in the same parts on as many threads, into fresh memory too; and once more with a
//! SHA-256 of every part on the thread that read it, which is the least that a load by SHA-256 has to do. The worker loads by SHA-256 and
//! by BLAKE3. First the files are in the page
//! cache, so that the disk bounds nothing, which is the hardest case; then they are taken out of it before each reading, so
//! that they come from the disk. Best of several rounds, because machines are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cost;
mod pool;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

use cost::{Cost, measure};
use futures::{StreamExt, TryStreamExt, stream};
use pool::Pool;
use sha2::{Digest, Sha256};
use soup_proto::v1::{BeginRun, DigestKind};
use soup_store::load::LoadLimits;
use soup_worker::bench::BenchWorker;
use tokio::runtime::{Builder, Runtime};

const INGREDIENTS: usize = 8;
const INGREDIENT_BYTES: usize = 128 << 20;
const ROUNDS: usize = 5;

/// From this size on, glibc takes fresh pages from the system for every allocation.
const FRESH: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

fn main() {
    // A worker loads into memory that it has never used. Every round is to do so too, instead of zeroing what the last one
    // left: the allocator reads its setting when a process starts.
    if std::env::var(FRESH.0).is_err() {
        let error = Command::new(std::env::current_exe().unwrap())
            .args(std::env::args().skip(1))
            .env(FRESH.0, FRESH.1)
            .exec();
        panic!("{error}");
    }
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for threads in if asked.is_empty() { vec![1, all] } else { asked } {
        for cold in [false, true] {
            compare(threads.max(1), cold);
        }
    }
}

fn compare(threads: usize, cold: bool) {
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let pool = runtime.block_on(Pool::write(INGREDIENTS, INGREDIENT_BYTES));
    let mut costs = [Cost::new(INGREDIENTS * INGREDIENT_BYTES); 4];
    for round in 0..=ROUNDS {
        let before = || {
            if cold {
                evict(&pool)
            }
        };
        let works: [&dyn Fn(); 4] = [
            &|| plain(&pool, threads, false),
            &|| plain(&pool, threads, true),
            &|| load(&runtime, &pool, threads, DigestKind::Sha256),
            &|| load(&runtime, &pool, threads, DigestKind::Blake3),
        ];
        let spent = works.map(|work| {
            before();
            measure(work)
        });
        // The first round only warms up.
        if round > 0 {
            costs.iter_mut().zip(spent).for_each(|(cost, spent)| cost.add(spent));
        }
    }
    let [plain, hashed, by_sha256, by_blake3] = costs;
    println!("{threads} threads, from the {}", if cold { "disk" } else { "page cache" });
    println!("  plain reads: {plain}; and SHA-256: {hashed}");
    for (name, load) in [("SHA-256", by_sha256), ("BLAKE3", by_blake3)] {
        let of = |other: Cost| (load.rate() / other.rate(), other.cpu() / load.cpu());
        let ((speed, cpu), (hashed, _)) = (of(plain), of(hashed));
        println!(
            "  load by {name}: {load}; {speed:.2} of the speed of plain reads, {cpu:.2} by CPU time; {hashed:.2} of that with SHA-256"
        );
    }
}

/// Takes the files out of the page cache.
fn evict(pool: &Pool) {
    for path in &pool.files {
        let file = File::open(path).unwrap();
        // What is not on the disk yet would stay.
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// A fresh worker of `threads` slots loads every shard, with as many tasks at a time as it would be given.
fn load(runtime: &Runtime, pool: &Pool, threads: usize, digest: DigestKind) {
    runtime.block_on(async {
        let begin = BeginRun { digest: digest.into(), ..pool.begin.clone() };
        let worker = BenchWorker::new(threads as u32, begin).unwrap();
        let loads = pool.loads.iter().map(|task| worker.load(task.clone()));
        let loaded: Vec<_> = stream::iter(loads).buffer_unordered(threads + 1).try_collect().await.unwrap();
        let bytes: u64 = loaded.iter().sum();
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
