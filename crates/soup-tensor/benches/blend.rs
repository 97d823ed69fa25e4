//! Blends at the speed of memory? `cargo bench -p soup-tensor [-- THREADS...]`
//!
//! Measures blends of many ingredients and of two, as bytes read and written per second, beside the STREAM triad (a = b + s * c)
//! on the same threads. Both in turns, because others use the machine too, and the best of several rounds; on one thread by
//! processor time, which others lengthen less.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup};
use soup_tensor::{Device, ShardMemory};

const MIB: usize = 1 << 20;
const STREAM_BYTES: usize = 64 * MIB;
const SHARD_BYTES: usize = 16 * MIB;
const ROUNDS: usize = 25;

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let counts = if asked.is_empty() { vec![1, all] } else { asked };
    for threads in counts.into_iter().filter_map(NonZeroUsize::new) {
        println!(
            "{threads} threads{}",
            if threads == NonZeroUsize::MIN { ", by processor time" } else { "" }
        );
        let mut triad = Triad::new();
        for (dtype, members) in [
            (Dtype::F32, 16),
            (Dtype::F32, 58),
            (Dtype::F32, 2),
            (Dtype::BF16, 16),
            (Dtype::BF16, 58),
            (Dtype::BF16, 2),
            (Dtype::F16, 16),
            (Dtype::F16, 58),
            (Dtype::F16, 2),
        ] {
            let moved = (members as usize + 1) * SHARD_BYTES;
            let blend = Blend::new(threads, dtype, members, None);
            let [stream, rate] =
                best(threads, [(3 * STREAM_BYTES, &mut || triad.run(threads)), (moved, &mut || blend.run())]);
            let of = rate / stream;
            println!("  blend {dtype} k={members}: {rate:.2} GB/s, {of:.2} of triad's {stream:.2} GB/s");
            if dtype == Dtype::F32 && members == 16 {
                let disk = Blend::new(threads, dtype, members, Some(&std::env::temp_dir()));
                let [rate, disk] = best(threads, [(moved, &mut || blend.run()), (moved, &mut || disk.run())]);
                let of = disk / rate;
                println!("    the same from the page cache of a disk: {disk:.2} GB/s, {of:.2} of it");
            }
        }
    }
}

/// Bytes per second in GB of the fastest of several rounds of each work, which moves so many bytes.
fn best<const N: usize>(threads: NonZeroUsize, mut works: [(usize, &mut dyn FnMut()); N]) -> [f64; N] {
    let clock = if threads == NonZeroUsize::MIN { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
    let now = || {
        let now = clock_gettime(clock);
        now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
    };
    let mut seconds = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for (best, (_, work)) in seconds.iter_mut().zip(&mut works) {
            let start = now();
            work();
            *best = best.min(now() - start);
        }
    }
    std::array::from_fn(|i| works[i].0 as f64 / seconds[i] / 1e9)
}

struct Triad([Vec<f64>; 3]);

impl Triad {
    fn new() -> Triad {
        Triad([1.0, 2.0, 3.0].map(|x| vec![x; STREAM_BYTES / size_of::<f64>()]))
    }

    fn run(&mut self, threads: NonZeroUsize) {
        let Triad([a, b, c]) = self;
        let piece = a.len().div_ceil(threads.get());
        let mut pieces = a.chunks_mut(piece).zip(b.chunks(piece)).zip(c.chunks(piece));
        let run = |((a, b), c): ((&mut [f64], &[f64]), &[f64])| {
            a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + 3.0 * c);
        };
        std::thread::scope(|scope| {
            // One of the pieces on this thread, as in a blend.
            let own = pieces.next();
            for others in pieces {
                scope.spawn(move || run(others));
            }
            own.into_iter().for_each(run);
        });
        std::hint::black_box(a);
    }
}

/// The mean of all ingredients of one shard.
struct Blend {
    memory: Box<dyn ShardMemory>,
    soup: Soup,
    out: RefCell<Vec<u8>>,
}

impl Blend {
    fn run(&self) {
        self.memory.blend(&self.soup, &mut self.out.borrow_mut()).unwrap();
    }

    fn new(threads: NonZeroUsize, dtype: Dtype, members: u32, folder: Option<&Path>) -> Blend {
        let elements = SHARD_BYTES as u64 / dtype.width_bytes();
        let schema = Schema::new(vec![TensorSpec::new("w", dtype, [elements])]).unwrap();
        let (device, whole) = (Device::cpu(threads), 0..schema.bytes());
        let builder = match folder {
            None => device.builder(&schema, whole, members).unwrap(),
            Some(folder) => device.disk_builder(&schema, whole, members, folder).unwrap(),
        };
        for index in 0..members {
            let mut kept = builder.buffer().unwrap();
            let buffer = kept.bytes_mut();
            // Ordinary numbers: the exponent's top bits are those of values around one, the rest is noise.
            let mut state = index + 1;
            for word in buffer.chunks_exact_mut(4) {
                state = state.wrapping_mul(0x9e37_79b1).wrapping_add(0x85eb_ca6b);
                word.copy_from_slice(&((state & 0x80ff_80ff) | 0x3c00_3c00).to_le_bytes());
            }
            builder.keep(Ingredient(index), kept).unwrap();
        }
        let (memory, _) = builder.finish(|_, _| true).unwrap();
        let out = RefCell::new(vec![0u8; SHARD_BYTES]);
        Blend { memory, soup: Soup::uniform(members).unwrap(), out }
    }
}
