//! Devices: what there is, and one that is open.
//!
//! Whatever cubecl would panic over is looked for first: driver, compiler and its headers, the device itself.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::devices::DeviceKind;
use soup_core::schema::Schema;
use soup_core::{Error, Result};
use soup_tensor::{Layout, Place, ShardBuilder};

use crate::budget::Memory;
use crate::compute::Compute;
use crate::engine::said;
use crate::resident::GpuPlace;
use crate::speed::{self, Speed};
use crate::{Found, Info, no_gpu, selftest};

/// A device that is open.
pub(crate) struct Opened {
    pub(crate) info: Info,
    pub(crate) compute: Box<dyn Compute>,
    /// Bytes that shards hold.
    held: AtomicU64,
    /// Taken while memory is: what was free for one is not for another.
    taking: Mutex<()>,
}

impl Opened {
    fn new(info: Info, compute: Box<dyn Compute>) -> Opened {
        Opened { info, compute, held: AtomicU64::new(0), taking: Mutex::default() }
    }

    /// An error of this device's.
    pub(crate) fn named(&self, error: Error) -> Error {
        error.context(format!("device {} ({})", self.info.kind, self.info.name))
    }

    /// What the device answers.
    ///
    /// # Errors
    /// Its own, with its name.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&dyn Compute) -> Result<T>) -> Result<T> {
        ask(self.compute.as_ref()).map_err(|e| self.named(e))
    }

    fn memory(&self) -> Result<Option<Memory>> {
        // A driver may not say what is free, and the host has not given yet what it promised.
        let held = self.held.load(Ordering::Relaxed);
        let memory = self.ask(|d| d.memory())?;
        Ok(memory.map(|m| Memory { free: m.free.min(m.total.saturating_sub(held)), ..m }))
    }

    /// Has `take` take `bytes` bytes for a shard, if there are so many.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), with what there is; those of `take`.
    pub(crate) fn take<T>(&self, bytes: u64, take: impl FnOnce(&dyn Compute) -> Result<T>) -> Result<T> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = self.memory()? {
            memory.check(&format!("{} ({})", self.info.kind, self.info.name), bytes)?;
        }
        let taken = self.ask(take)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(taken)
    }

    /// Gives back `bytes` bytes that nobody holds any longer.
    ///
    /// # Errors
    /// Where the device fails.
    pub(crate) fn give_back(&self, bytes: u64) -> Result<()> {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.ask(|d| d.give_back())
    }
}

/// A device that is open, and gives the CPU's bits.
pub struct Gpu(Arc<Opened>);

impl Gpu {
    /// Opens a device and compares it with the CPU, which takes seconds: kernels are compiled.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where this build has no such devices, its driver or what that
    /// needs is missing, there is no device with this number, or it does not give the CPU's bits;
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where it fails.
    pub fn open(kind: DeviceKind) -> Result<Gpu> {
        let opened = match kind {
            DeviceKind::Cpu => return Err(no_gpu(kind)),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda(ordinal) => caught(|| open_cuda(ordinal)),
            #[cfg(feature = "vulkan")]
            DeviceKind::Vulkan(ordinal) => caught(|| open_vulkan(ordinal, false)),
            #[cfg(not(all(feature = "cuda", feature = "vulkan")))]
            _ => return Err(kind.not_built()),
        };
        let opened = Arc::new(opened.map_err(|e| e.context(format!("device {kind}")))?);
        selftest::run(&opened)?;
        Ok(Gpu(opened))
    }

    /// What it is. The memory is that of when it was opened.
    pub fn info(&self) -> &Info {
        &self.0.info
    }

    /// Memory that shards may take now, in bytes: what is free, less what should stay so. Everything, where the driver does not say.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn free_bytes(&self) -> Result<u64> {
        Ok(self.0.memory()?.map_or(u64::MAX, |memory| memory.available()))
    }

    /// Takes room for a shard.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the device has not so much;
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where it fails.
    pub fn place(&self, layout: Layout) -> Result<Box<dyn Place>> {
        Ok(Box::new(GpuPlace::new(self.0.clone(), layout)?))
    }

    /// A place for a shard: the byte range `range` of the flattened parameters of `ingredients` ingredients, in its memory.
    ///
    /// # Errors
    /// Those of [`place`](Self::place); [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema.
    pub fn builder(&self, schema: &Schema, range: Range<u64>, ingredients: u32) -> Result<ShardBuilder> {
        let layout = Layout::new(schema, range, ingredients, NonZeroUsize::MIN)?;
        Ok(ShardBuilder::new(layout.clone(), self.place(layout)?))
    }

    /// How fast it is, by a copy and a blend that read about `bytes` bytes each; the best of some rounds.
    ///
    /// # Errors
    /// Those of [`place`](Self::place).
    pub fn speed(&self, bytes: u64) -> Result<Speed> {
        const MIB: u64 = 1 << 20;
        let bytes = (bytes.min(self.0.compute.limit() / 2) / MIB).max(1) * MIB;
        let within = self.0.take(2 * bytes, |d| d.allocate(2 * bytes))?;
        let copy = speed::best(2 * bytes, || self.0.ask(|d| d.copy_within(&within, bytes as usize)))?;
        drop(within);
        self.0.give_back(2 * bytes)?;
        let of = |schema: &Schema, range, ingredients| self.builder(schema, range, ingredients);
        Ok(Speed { copy, blend: speed::blend(bytes, of)? })
    }
}

/// Takes a panic of a library's for the failure that it is.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(Error::unavailable(said(panic.as_ref()))))
}

/// The devices that this build of the program can look for: those that there are, and why others are not.
pub fn devices() -> Vec<Found> {
    let mut found = Vec::new();
    #[cfg(feature = "cuda")]
    match caught(crate::transfer::cuda::count) {
        Ok(count) => found.extend((0..count).map(|ordinal| Found {
            kind: DeviceKind::Cuda(ordinal),
            device:
                caught(|| crate::transfer::cuda::Card::find(ordinal)).map(|card| cuda_info(ordinal, &card)),
        })),
        Err(error) => found.push(Found { kind: DeviceKind::Cuda(0), device: Err(error) }),
    }
    #[cfg(feature = "vulkan")]
    match caught(|| Ok(crate::transfer::vulkan::adapters())) {
        Ok(adapters) if adapters.is_empty() => {
            found.push(Found { kind: DeviceKind::Vulkan(0), device: Err(no_vulkan()) });
        }
        Ok(adapters) => found.extend((0..).zip(&adapters).map(|(ordinal, adapter)| Found {
            kind: DeviceKind::Vulkan(ordinal),
            device: Ok(vulkan_info(ordinal, adapter)),
        })),
        Err(error) => found.push(Found { kind: DeviceKind::Vulkan(0), device: Err(error) }),
    }
    found
}

#[cfg(feature = "cuda")]
fn cuda_info(ordinal: u32, card: &crate::transfer::cuda::Card) -> Info {
    Info {
        kind: DeviceKind::Cuda(ordinal),
        name: card.name.clone(),
        driver: card.driver.clone(),
        memory: Some(card.memory),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: u32) -> Result<Opened> {
    use cubecl::Runtime;
    use cubecl::cuda::{CudaDevice, CudaRuntime};

    let count = crate::transfer::cuda::count()?;
    if ordinal >= count {
        return Err(Error::configuration(format!(
            "there are {count} cards of NVIDIA's here: see nvidia-smi -L"
        )));
    }
    let card = crate::transfer::cuda::Card::find(ordinal)?;
    let info = cuda_info(ordinal, &card);
    let client = CudaRuntime::client(&CudaDevice::new(ordinal as usize));
    let engine = crate::engine::Engine::new(client, card.transfer()?, true);
    Ok(Opened::new(info, Box::new(engine)))
}

#[cfg(feature = "vulkan")]
fn no_vulkan() -> Error {
    Error::configuration(
        "there is no driver of Vulkan's: install one (mesa-vulkan-drivers has one that needs no card), or name it in VK_DRIVER_FILES",
    )
}

#[cfg(feature = "vulkan")]
fn vulkan_info(ordinal: u32, adapter: &crate::transfer::vulkan::Adapter) -> Info {
    Info {
        kind: DeviceKind::Vulkan(ordinal),
        name: adapter.name.clone(),
        driver: adapter.driver.clone(),
        memory: adapter.memory(),
    }
}

/// Vulkan leaves conversions to the device, so that they are `native` in tests alone.
#[cfg(feature = "vulkan")]
fn open_vulkan(ordinal: u32, native: bool) -> Result<Opened> {
    use cubecl::Runtime;
    use cubecl::ir::{ElemType, FloatKind, UIntKind};
    use cubecl::wgpu::WgpuRuntime;

    let mut adapters = crate::transfer::vulkan::adapters();
    let count = adapters.len();
    if count == 0 {
        return Err(no_vulkan());
    }
    if ordinal as usize >= count {
        return Err(Error::configuration(format!(
            "there are {count} devices of Vulkan's here: see vulkaninfo"
        )));
    }
    let adapter = adapters.swap_remove(ordinal as usize);
    let info = vulkan_info(ordinal, &adapter);
    let Some(device) = adapter.device.clone() else {
        return Err(Error::configuration(format!(
            "{} is a kind of device that is not understood",
            adapter.name
        )));
    };
    let client = WgpuRuntime::client(&device);
    for (kind, name) in [(ElemType::Float(FloatKind::F64), "f64"), (ElemType::UInt(UIntKind::U64), "u64")] {
        if !client.properties().supports_type(kind) {
            return Err(Error::configuration(format!(
                "{} has no {name} arithmetic, which blends need: use the device \"cpu\"",
                adapter.name
            )));
        }
    }
    let engine = crate::engine::Engine::new(client, adapter, native);
    Ok(Opened::new(info, Box::new(engine)))
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::compute::{Held, Rows, Spans, Terms};
    use crate::plan::Block;

    /// The conversions that CUDA is given, seen without a card: lavapipe's are the processor's, which keep denormals and NaN.
    #[test]
    fn native_conversions_are_exact_on_a_device_that_is_a_processor() {
        let opened = Arc::new(open_vulkan(0, true).unwrap());
        if opened.info.name.starts_with("llvmpipe") {
            selftest::run(&opened).unwrap();
        }
    }

    #[test]
    fn what_is_held_is_not_free() {
        let opened = Opened::new(
            Info { kind: DeviceKind::Vulkan(9), name: "none".into(), driver: String::new(), memory: None },
            Box::new(Broken),
        );
        let free = || opened.memory().unwrap().unwrap().free;
        assert_eq!(free(), 8 << 30);
        opened.take(3 << 30, |_| Ok(())).unwrap();
        assert_eq!(free(), 7 << 30, "of 10 GiB 3 are promised, whatever the driver says");
        let refused = opened.take(7 << 30, |_| Ok(())).unwrap_err();
        assert!(
            refused.chain().starts_with("device vulkan:9 (none) has no room for 7.0 GiB"),
            "{}",
            refused.chain()
        );
        let error = opened.take(1, |d| d.allocate(1)).unwrap_err();
        assert_eq!(error.chain(), "device vulkan:9 (none): out of order");
        assert_eq!(free(), 7 << 30, "what could not be taken is not held");
        opened.give_back(3 << 30).unwrap();
        assert_eq!(free(), 8 << 30);
    }

    /// A device with memory and nothing else.
    struct Broken;

    fn broken<T>() -> Result<T> {
        Err(Error::unavailable("out of order"))
    }

    impl Compute for Broken {
        fn limit(&self) -> u64 {
            1 << 20
        }

        fn memory(&self) -> Result<Option<Memory>> {
            Ok(Some(Memory { free: 8 << 30, total: 10 << 30 }))
        }

        fn allocate(&self, _: u64) -> Result<Held> {
            broken()
        }

        fn table(&self, _: &[u32]) -> Result<Held> {
            broken()
        }

        fn upload(&self, _: &Held, _: usize, _: usize, _: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
            broken()
        }

        fn download(&self, _: &Held, _: Range<usize>, _: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
            broken()
        }

        fn blend(&self, _: &Rows, _: &Terms<'_>, _: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
            broken()
        }

        fn dots(&self, _: &Rows, _: &[f32], _: &[Block]) -> Result<Vec<f64>> {
            broken()
        }

        fn gram(&self, _: &Rows, _: Option<&[u8]>, _: &[Block], _: &mut dyn Spans) -> Result<()> {
            broken()
        }

        fn copy_within(&self, _: &Held, _: usize) -> Result<()> {
            broken()
        }

        fn give_back(&self) -> Result<()> {
            Ok(())
        }
    }
}
