//! Devices that Vulkan drives: kernels in SPIR-V, true f32 alone.

use std::sync::OnceLock;

use burn::backend::Autodiff;
use burn_cubecl::CubeBackend;
use burn_wgpu::{WgpuDevice, WgpuRuntime};
use cubecl::future::block_on;
use soup_core::{Error, Result};
use wgpu::{Backends, DeviceType, Instance, InstanceDescriptor};

use super::{Precision, Site, With, only_f32, sanitised, trial};
use soup_core::devices::DeviceKind;

type Vulkan = CubeBackend<WgpuRuntime, f32, i32, u8>;

/// As [`open`](super::open), device `index` of the loader's list.
pub(super) fn open<W: With>(index: u32, precision: Precision, with: W) -> Result<W::Out> {
    let name = DeviceKind::Vulkan(index);
    only_f32(name, precision)?;
    let found = list()
        .get(index as usize)
        .ok_or_else(|| Error::configuration(format!("{name} is not there: {}", count())))?;
    let Some(device) = found.device.clone() else {
        return Err(Error::configuration(format!(
            "{name}, {}, is of a kind that is not computed on here",
            found.title
        )));
    };
    trial::pass::<Vulkan>(&device, (name, &found.title), precision)?;
    let numerics = format!("vulkan-{precision}-{}", sanitised(&found.title));
    let tried = Some((name, found.title.clone()));
    Ok(with.with::<Autodiff<Vulkan>>(Site { device, precision, numerics, tried }))
}

/// A device of the list.
struct Found {
    /// What it and its driver call themselves.
    title: String,
    /// How cubecl finds it: among those of its type.
    device: Option<WgpuDevice>,
}

/// All of them, as they were when first asked for.
fn list() -> &'static [Found] {
    static LIST: OnceLock<Vec<Found>> = OnceLock::new();
    LIST.get_or_init(|| {
        let descriptor = InstanceDescriptor {
            backends: Backends::VULKAN,
            ..InstanceDescriptor::new_without_display_handle()
        };
        let adapters = block_on(Instance::new(descriptor).enumerate_adapters(Backends::VULKAN));
        let infos: Vec<_> = adapters.iter().map(wgpu::Adapter::get_info).collect();
        let found = infos.iter().enumerate().map(|(at, info)| {
            let of_its_type = infos[..at].iter().filter(|i| i.device_type == info.device_type).count();
            let device = match info.device_type {
                DeviceType::DiscreteGpu => Some(WgpuDevice::DiscreteGpu(of_its_type)),
                DeviceType::IntegratedGpu => Some(WgpuDevice::IntegratedGpu(of_its_type)),
                DeviceType::VirtualGpu => Some(WgpuDevice::VirtualGpu(of_its_type)),
                DeviceType::Cpu if of_its_type == 0 => Some(WgpuDevice::Cpu),
                DeviceType::Cpu | DeviceType::Other => None,
            };
            Found { title: format!("{} {} {}", info.name, info.driver, info.driver_info), device }
        });
        found.collect()
    })
}

/// What there is, for messages.
fn count() -> String {
    match list() {
        [] => "Vulkan has no device here, or its loader (libvulkan.so.1) is missing".to_owned(),
        [first, ..] => format!("Vulkan has 0: {}, of {}", first.title, list().len()),
    }
}
