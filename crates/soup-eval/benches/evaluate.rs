//! Samples a second on one thread, on the example pool: `cargo bench -p soup-eval`.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and has nobody to report errors to

#[path = "../tests/pool/mod.rs"]
mod pool;

use std::time::Instant;

use soup_core::devices::DeviceKind;
use soup_core::weights::Weights;

fn main() {
    let dataset = pool::dataset("val");
    let started = Instant::now();
    let prepared = pool::evaluator_of(1).prepare(&dataset, 0..dataset.len()).unwrap();
    println!("prepare: {:.0} samples/s", prepared.len() as f64 / started.elapsed().as_secs_f64());
    let sizes = [1, 4, 8, 16, 32, 64, 128, 250];
    for (&device, batch_size) in pool::DEVICES.iter().flat_map(|device| sizes.map(|size| (device, size))) {
        let evaluator = pool::evaluator_on(device, batch_size);
        let (schema, bytes) = pool::parameters("m10");
        let started = Instant::now();
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        // The first kernels are made by the first pass; a driver in software is slow.
        let samples = if device == DeviceKind::Cpu { prepared.len() } else { prepared.len().min(256) };
        model.logits(&prepared, 0..1, &|| false).unwrap();
        // The best of three: others share the machine.
        let seconds = (0..3).map(|_| {
            let started = Instant::now();
            model.logits(&prepared, 0..samples, &|| false).unwrap();
            started.elapsed().as_secs_f64()
        });
        let rate = samples as f64 / seconds.fold(f64::INFINITY, f64::min);
        println!("{device}, batch {batch_size:4}: {rate:8.0} samples/s (load {load_ms:.1} ms)");
    }
}
