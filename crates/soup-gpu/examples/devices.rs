//! The devices that this build can look for; with names of devices, opens those and measures them.
//! `cargo run -p soup-gpu --features vulkan --example devices [-- vulkan:0 [MIB]]`
#![allow(clippy::print_stdout, missing_docs)]

use std::process::ExitCode;

use soup_gpu::{Gpu, devices};
use soup_tensor::Device;

fn main() -> ExitCode {
    for found in devices() {
        match found.device {
            Ok(info) => println!("{}: {}, {}, {:?}", found.kind, info.name, info.driver, info.memory),
            Err(error) => println!("{}: {}", found.kind, error.chain()),
        }
    }
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else { return ExitCode::SUCCESS };
    let mib = arguments.next().and_then(|mib| mib.parse().ok()).unwrap_or(64);
    let opened = Device::parse(&name).and_then(|device| Gpu::open(device.kind()));
    match opened.and_then(|gpu| Ok((gpu.info().clone(), gpu.free_bytes()?, gpu.speed(mib << 20)?))) {
        Ok((info, free, speed)) => {
            println!(
                "{} ({}): the CPU's bits; {} MiB for shards; copy {:.2} GB/s, blend {:.2} GB/s",
                info.kind,
                info.name,
                free >> 20,
                speed.copy / 1e9,
                speed.blend / 1e9
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", error.chain());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
