//! Milliseconds of a gradient and of the forward pass alone, on the example pool: `cargo bench -p soup-eval --bench
//! differentiate`. `tests/golden/gradient.py time` prints PyTorch's.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and has nobody to report errors to

#[path = "../tests/pool/mod.rs"]
mod pool;

use std::ops::Range;
use std::time::Instant;

use soup_core::weights::Weights;

use soup_eval::LossSpec;

const NEVER: &dyn Fn() -> bool = &|| false;

/// Milliseconds of `work` over `rows` samples, cut evenly over threads. The best of twenty: others share the machine.
fn best_ms(threads: usize, rows: usize, work: &(dyn Fn(Range<usize>) + Sync)) -> f64 {
    let timed = || {
        let started = Instant::now();
        let part = rows.div_ceil(threads);
        std::thread::scope(|scope| {
            for first in (0..rows).step_by(part) {
                scope.spawn(move || work(first..(first + part).min(rows)));
            }
        });
        started.elapsed().as_secs_f64() * 1e3
    };
    (0..20).map(|_| timed()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let prepared = pool::evaluator_of(1).prepare(&pool::dataset("val"), 0..256).unwrap();
    let (schema, bytes) = pool::parameters("m10");
    for threads in [1, 2] {
        for (batch_size, rows) in [(8, 32), (16, 32), (32, 32), (16, 256), (32, 256), (64, 256), (256, 256)] {
            let evaluator = pool::evaluator_of(batch_size);
            let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
            let loss = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 1.0 / rows as f64 };
            let forward = best_ms(threads, rows, &|range| {
                model.logits(&prepared, range, NEVER).unwrap();
            });
            let both = best_ms(threads, rows, &|range| {
                evaluator.differentiate(&schema, &bytes, &prepared, range, &loss, NEVER).unwrap();
            });
            println!(
                "{threads} threads, batch size {batch_size:3}, {rows:3} samples: forward {forward:6.1} ms, gradient \
                 {both:6.1} ms"
            );
        }
    }
}
