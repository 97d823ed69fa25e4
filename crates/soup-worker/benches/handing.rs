//! What does it cost to hand a soup to an external judge? `cargo bench -p soup-worker --bench handing [-- MIB...]`
//!
//! Blends are written into a file in memory, as they come while a soup is assembled: a new one for the first two soups, and then over that
//! of a soup that the judge has let go. In the same rounds the same bytes are copied into
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
        let [mut new, mut over, mut warm, mut fresh] = [Duration::MAX; 4];
        let mut spare = Some(folder.soup(&piece, pieces, None).unwrap());
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
            over = over.min(time(|| spare = Some(folder.soup(&piece, pieces, spare.take()).unwrap())));
            new = new.min(time(|| drop(folder.soup(&piece, pieces, None).unwrap())));
        }
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e9;
        let ratio = |took: Duration, of: Duration| took.as_secs_f64() / of.as_secs_f64();
        println!(
            "{:5} MiB: handed over at {:.2} GB/s, {:.2} times the time of a copy into used memory ({:.2} GB/s); the first ones at {:.2} \
             GB/s, {:.2} times that of a copy into fresh memory ({:.2} GB/s)",
            bytes >> 20,
            rate(over),
            ratio(over, warm),
            rate(warm),
            rate(new),
            ratio(new, fresh),
            rate(fresh),
        );
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
