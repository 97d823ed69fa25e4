//! Vulkan: everything goes through cubecl, and wgpu knows which devices there are.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use cubecl::bytes::Bytes;
use cubecl::client::ComputeClient;
use cubecl::wgpu::{WgpuDevice, WgpuRuntime};
use soup_core::{Error, Result};
use wgpu::{Backends, DeviceType};

use super::Transfer;
use crate::budget::Memory;
use crate::compute::Held;
use crate::engine::failure;
use crate::launch;
use crate::ring::{SLOT_BYTES, SLOTS};

/// A device, as Vulkan describes it.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    pub(crate) name: String,
    pub(crate) driver: String,
    /// How cubecl calls it; none where it has no name for it.
    pub(crate) device: Option<WgpuDevice>,
    /// The host itself: its memory is the host's.
    is_host: bool,
    /// Memory of the device in bytes.
    total: u64,
}

/// All devices, in the order of their numbers. None where there is no driver at all.
pub(crate) fn adapters() -> Vec<Adapter> {
    let descriptor = wgpu::InstanceDescriptor {
        backends: Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let found = cubecl::future::block_on(instance.enumerate_adapters(Backends::VULKAN));
    let mut seen = [0; 3];
    let mut hosts = 0;
    let mut next = |kind: usize| {
        seen[kind] += 1;
        seen[kind] - 1
    };
    let mut adapters = Vec::new();
    for adapter in found {
        let info = adapter.get_info();
        let device = match info.device_type {
            DeviceType::DiscreteGpu => Some(WgpuDevice::DiscreteGpu(next(0))),
            DeviceType::IntegratedGpu => Some(WgpuDevice::IntegratedGpu(next(1))),
            DeviceType::VirtualGpu => Some(WgpuDevice::VirtualGpu(next(2))),
            // cubecl knows one.
            DeviceType::Cpu => {
                hosts += 1;
                (hosts == 1).then_some(WgpuDevice::Cpu)
            }
            DeviceType::Other => None,
        };
        adapters.push(Adapter {
            name: info.name,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            device,
            is_host: info.device_type == DeviceType::Cpu,
            total: memory_of(&adapter),
        });
    }
    adapters
}

/// The largest heap of a device's own memory, in bytes.
fn memory_of(adapter: &wgpu::Adapter) -> u64 {
    // SAFETY: what the adapter is made of is read while the adapter lives, and nothing of it is destroyed.
    let Some(hal) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return 0 };
    let physical = hal.raw_physical_device();
    // SAFETY: the device is of this instance, which outlives the call.
    let memory =
        unsafe { hal.shared_instance().raw_instance().get_physical_device_memory_properties(physical) };
    const DEVICE_LOCAL: u32 = 1;
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    heaps.filter(|h| h.flags.as_raw() & DEVICE_LOCAL != 0).map(|h| h.size).max().unwrap_or(0)
}

impl Adapter {
    /// Its memory, as far as that can be known: of a card, Vulkan says what it has, not what is free.
    pub(crate) fn memory(&self) -> Option<Memory> {
        if !self.is_host {
            return (self.total > 0).then_some(Memory { free: self.total, total: self.total });
        }
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let of = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Memory { free: of("MemAvailable:")?, total: of("MemTotal:")? })
    }
}

impl Transfer<WgpuRuntime> for Adapter {
    fn memory(&self) -> Result<Option<Memory>> {
        Ok(Adapter::memory(self))
    }

    fn upload(
        &self,
        client: &ComputeClient<WgpuRuntime>,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        static TOKEN: AtomicU32 = AtomicU32::new(1);
        let chunks = bytes.div_ceil(SLOT_BYTES);
        let token = TOKEN.fetch_add(1, Ordering::Relaxed);
        let proof = Held(client.empty(chunks.max(4) * size_of::<u32>()));
        for (nth, offset) in (0..bytes).step_by(SLOT_BYTES).enumerate() {
            let mut chunk = vec![0; SLOT_BYTES.min(bytes - offset)];
            fill(offset, &mut chunk);
            let count = chunk.len();
            let chunk = Held(client.create(Bytes::from_bytes_vec(chunk)));
            launch::put(client, &chunk, (to, start + offset), count, (&proof, nth), token)?;
            if nth % SLOTS == SLOTS - 1 {
                // What was copied can be used again.
                cubecl::future::block_on(client.sync()).map_err(|e| failure(&e))?;
            }
        }
        // A copy that was not made would be seen by nobody.
        let proof = client.read_one(proof.0).map_err(|e| failure(&e))?;
        match proof.chunks_exact(size_of::<u32>()).take(chunks).filter(|p| **p == token.to_le_bytes()).count()
        {
            made if made == chunks => Ok(()),
            made => Err(Error::unavailable(format!(
                "it made {made} of {chunks} copies, though no error was told"
            ))),
        }
    }

    fn download(
        &self,
        client: &ComputeClient<WgpuRuntime>,
        from: &Held,
        range: Range<usize>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()> {
        for start in range.clone().step_by(SLOT_BYTES) {
            let end = range.end.min(start + SLOT_BYTES);
            let behind = from.0.size_in_used() - end as u64;
            let part = from.0.clone().offset_start(start as u64).offset_end(behind);
            let bytes = client.read_one(part).map_err(|e| failure(&e))?;
            match bytes.get(..end - start) {
                Some(bytes) => take(start - range.start, bytes),
                None => return Err(Error::unavailable("it gave fewer bytes than were asked for")),
            }
        }
        Ok(())
    }
}
