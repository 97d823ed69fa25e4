//! Samples a second of processor time on one thread, on the example pool: `cargo bench -p soup-eval`, of some
//! batch sizes alone with `-- 8 32`. `tests/reference/forward_torch.py` prints PyTorch's.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a bench prints, and has nobody to report errors to

#[path = "../tests/pool/mod.rs"]
mod pool;

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use soup_core::devices::DeviceKind;
use soup_core::weights::Weights;

/// Processor time of this thread; plain time on a device, which works while this thread waits.
fn processor_seconds(device: DeviceKind) -> f64 {
    let clock = match device {
        DeviceKind::Cpu => ClockId::ThreadCPUTime,
        _ => ClockId::Monotonic,
    };
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn main() {
    let dataset = pool::dataset("val");
    let started = Instant::now();
    let prepared = pool::evaluator_of(1).prepare(&dataset, 0..dataset.len()).unwrap();
    println!("prepare: {:.0} samples/s", prepared.len() as f64 / started.elapsed().as_secs_f64());
    let mut sizes: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1, 4, 8, 16, 32, 64, 128, 250];
    }
    for (&device, &batch_size) in
        pool::DEVICES.iter().flat_map(|device| sizes.iter().map(move |size| (device, size)))
    {
        let evaluator = pool::evaluator_on(device, batch_size);
        let (schema, bytes) = pool::parameters("m10");
        let started = Instant::now();
        let model = evaluator.load(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        // The first kernels are made by the first pass; a driver in software is slow.
        let samples = if device == DeviceKind::Cpu { prepared.len() } else { prepared.len().min(256) };
        model.logits(&prepared, 0..1, &|| false).unwrap();
        // Others share the machine.
        let mut seconds: Vec<f64> = (0..9)
            .map(|_| {
                let started = processor_seconds(device);
                model.logits(&prepared, 0..samples, &|| false).unwrap();
                processor_seconds(device) - started
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let rate = |nth: usize| samples as f64 / seconds[nth];
        println!(
            "{device}, batch {batch_size:4}: {:8.0} samples/s at best, {:.0} in the median (load {load_ms:.1} ms)",
            rate(0),
            rate(4)
        );
    }
}
