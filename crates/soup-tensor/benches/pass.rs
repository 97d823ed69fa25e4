//! What a pass over a shard costs: `cargo bench -p soup-tensor --bench pass`
//!
//! One thread passes over eight ingredients that are in memory, first only digesting and inspecting them, then blending their mean
//! too. In turns with both, the same bytes are digested one ingredient after the other. Best of several rounds, because machines
//! are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::Soup;
use soup_tensor::{Having, Pass, Passing};

const INGREDIENTS: u32 = 8;
const SHARD_BYTES: usize = 16 << 20;
const ROUNDS: usize = 9;

fn main() {
    let elements = (SHARD_BYTES / size_of::<f32>()) as u64;
    let schema = Schema::new(vec![TensorSpec::new("w", Dtype::F32, [elements])]).unwrap();
    let whole = 0..SHARD_BYTES;
    let having = Having { covered: vec![whole], ..Having::default() };
    let havings = vec![having; INGREDIENTS as usize];
    let passing = Arc::new(Passing::new(&schema, 0..schema.bytes(), &havings, None, false));
    // Words, for the alignment. What the numbers are takes no part in how long it takes.
    let pool: Vec<Vec<u64>> = (0..INGREDIENTS)
        .map(|i| vec![0x3f80_0001_3f80_0000 + u64::from(i); SHARD_BYTES / size_of::<u64>()])
        .collect();
    let pool: Vec<&[u8]> = pool.iter().map(|words| bytemuck::cast_slice(words)).collect();
    let soup = Soup::uniform(INGREDIENTS).unwrap();
    let mut out = vec![0; SHARD_BYTES];
    let mut pass = |soup: Option<&Soup>| {
        let mut pass = Pass::new(passing.clone(), soup).unwrap();
        for tile in 0..passing.tiles() {
            let range = passing.blend_range(tile);
            let read: Vec<&[u8]> = pool.iter().map(|bytes| &bytes[range.clone()]).collect();
            pass.tile(tile, &read, None, &mut out[range]).unwrap();
        }
        black_box(pass.finish());
    };
    let names = ["digests one by one", "a pass without a blend", "a pass with the mean"];
    let mut best = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        let mut time = |at: usize, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            best[at] = best[at].min(start.elapsed().as_secs_f64());
        };
        time(0, &mut || {
            for bytes in &pool {
                black_box(Sha256::digest(bytes));
            }
        });
        time(1, &mut || pass(None));
        time(2, &mut || pass(Some(&soup)));
    }
    for (name, seconds) in names.into_iter().zip(best) {
        let rate = (INGREDIENTS as usize * SHARD_BYTES) as f64 / seconds / 1e9;
        println!("{name}: {rate:.2} GB/s, {:.2} of the speed of digests one by one", best[0] / seconds);
    }
}
