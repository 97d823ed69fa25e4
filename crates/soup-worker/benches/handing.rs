//! What does it cost to hand a soup to an external judge? `cargo bench -p soup-worker --bench handing [-- MIB...]`
//!
//! Blends are written into a file in memory, as they come while a soup is assembled. In the same rounds the same bytes are copied into
//! memory that was used before, which is the least that a copy costs, and into fresh memory, as a map of the file would be. Best of
//! several rounds, because machines are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use soup_worker::bench::HandingOver;

/// A shard's blend.
const PIECE_BYTES: usize = 32 << 20;
const ROUNDS: usize = 7;

fn main() {
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let piece: Vec<u8> = (0..PIECE_BYTES).map(|n| (n * 31) as u8).collect();
    let folder = HandingOver::new().unwrap();
    for mib in if asked.is_empty() { vec![352, 4096] } else { asked } {
        let pieces = (mib << 20).div_ceil(PIECE_BYTES as u64);
        let bytes = pieces * PIECE_BYTES as u64;
        let mut used = vec![1u8; bytes as usize];
        let [mut file, mut warm, mut fresh] = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            warm = warm.min(time(|| {
                used.chunks_mut(PIECE_BYTES).for_each(|place| place.copy_from_slice(&piece));
                black_box(&used);
            }));
            fresh = fresh.min(time(|| {
                let mut memory: Vec<u8> = Vec::with_capacity(bytes as usize);
                (0..pieces).for_each(|_| memory.extend_from_slice(&piece));
                black_box(&memory);
            }));
            file = file.min(time(|| drop(folder.soup(&piece, pieces).unwrap())));
        }
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e9;
        println!(
            "{:5} MiB: handed over at {:.2} GB/s; copied into used memory at {:.2} GB/s (ratio of times {:.2}), into fresh memory at \
             {:.2} GB/s ({:.2})",
            bytes >> 20,
            rate(file),
            rate(warm),
            file.as_secs_f64() / warm.as_secs_f64(),
            rate(fresh),
            file.as_secs_f64() / fresh.as_secs_f64(),
        );
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
