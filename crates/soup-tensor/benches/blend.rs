//! Blends at the speed of memory? `cargo bench -p soup-tensor [-- THREADS...]`
//!
//! Measures, in one run on the same threads, the STREAM triad (a = b + s * c), a plain copy, and blends of many
//! ingredients, as bytes read and written per second; best of several rounds, because machines are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::num::NonZeroUsize;
use std::time::Instant;

use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup};
use soup_tensor::{Device, ShardMemory};

const MIB: usize = 1 << 20;
const STREAM_BYTES: usize = 1024 * MIB;
const SHARD_BYTES: usize = 64 * MIB;
const ROUNDS: usize = 7;

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let counts = if asked.is_empty() { vec![1, all] } else { asked };
    for threads in counts.into_iter().filter_map(NonZeroUsize::new) {
        let (triad, copy) = stream(threads);
        println!("{threads} threads: triad {triad:.2} GB/s, copy {copy:.2} GB/s");
        for (dtype, members) in [
            (Dtype::F32, 16),
            (Dtype::F32, 58),
            (Dtype::BF16, 16),
            (Dtype::BF16, 58),
            (Dtype::F16, 16),
            (Dtype::F16, 2),
            (Dtype::BF16, 2),
            (Dtype::F32, 2),
        ] {
            let rate = blend(threads, dtype, members, None);
            println!("  blend {dtype} k={members}: {rate:.2} GB/s, {:.2} of triad", rate / triad);
            if dtype == Dtype::F32 && members == 16 {
                let disk = blend(threads, dtype, members, Some(&std::env::temp_dir()));
                println!(
                    "    the same from the page cache of a disk: {disk:.2} GB/s, {:.2} of it",
                    disk / rate
                );
            }
        }
    }
}

/// Bytes per second in GB of the fastest of several rounds of `work`, which moves `bytes`.
fn best(bytes: usize, mut work: impl FnMut()) -> f64 {
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    bytes as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
}

/// Triad and copy in GB/s.
fn stream(threads: NonZeroUsize) -> (f64, f64) {
    let n = STREAM_BYTES / size_of::<f64>();
    let (mut a, b, c) = (vec![1.0f64; n], vec![2.0f64; n], vec![3.0f64; n]);
    let piece = n.div_ceil(threads.get());
    let triad = best(3 * STREAM_BYTES, || {
        std::thread::scope(|scope| {
            for ((a, b), c) in a.chunks_mut(piece).zip(b.chunks(piece)).zip(c.chunks(piece)) {
                scope.spawn(move || a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + 3.0 * c));
            }
        });
    });
    let copy = best(2 * STREAM_BYTES, || {
        std::thread::scope(|scope| {
            for (a, b) in a.chunks_mut(piece).zip(b.chunks(piece)) {
                scope.spawn(move || a.copy_from_slice(b));
            }
        });
    });
    std::hint::black_box(&a);
    (triad, copy)
}

/// Bytes read and written per second, in GB, by the mean of `members` ingredients of one shard.
fn blend(threads: NonZeroUsize, dtype: Dtype, members: u32, folder: Option<&std::path::Path>) -> f64 {
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
    let memory: &dyn ShardMemory = memory.as_ref();
    let soup = Soup::uniform(members).unwrap();
    let mut out = vec![0u8; SHARD_BYTES];
    best((members as usize + 1) * SHARD_BYTES, || memory.blend(&soup, &mut out).unwrap())
}
