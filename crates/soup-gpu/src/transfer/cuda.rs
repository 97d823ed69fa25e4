//! CUDA: what its driver says of a card, and a ring of pinned buffers to the address of cubecl's.

use std::ops::Range;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use cubecl::client::ComputeClient;
use cubecl::cuda::CudaRuntime;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;
use soup_core::{Error, Result};

use super::Transfer;
use crate::budget::Memory;
use crate::compute::Held;
use crate::engine::failure;
use crate::ring::{self, SLOT_BYTES, SLOTS, Slots};

/// A card, as its driver describes it.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) memory: Memory,
    context: Arc<Context>,
}

/// What a process has of a card. It takes some hundred megabytes of the card's memory, and all of a card that is for one process at a
/// time; it is therefore given back where a card is only looked at.
#[derive(Debug)]
struct Context {
    device: sys::CUdevice,
    primary: sys::CUcontext,
}

// SAFETY: a context may be made current, and given back, by any thread; that is all that is done with it.
unsafe impl Send for Context {}
// SAFETY: likewise.
unsafe impl Sync for Context {}

fn told(doing: &str, error: DriverError) -> Error {
    Error::unavailable(format!("the driver could not {doing}: {:?}", error.0))
}

/// Makes sure that there are a driver, a compiler of kernels and its headers, without which cubecl panics or gives zeros; gives the
/// number of cards.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), with what is missing.
pub(crate) fn count() -> Result<u32> {
    // SAFETY: loads the library and lets it go: NVIDIA's has nothing to be done before.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::configuration(
            "there is no driver of NVIDIA's (libcuda.so): install it, or give the container access to the card",
        ));
    }
    // SAFETY: likewise.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(Error::configuration(
            "there is no compiler of kernels (libnvrtc.so): install the CUDA toolkit, or name its folder of libraries in LD_LIBRARY_PATH",
        ));
    }
    headers()?;
    let cannot = |e: DriverError| {
        Error::configuration(format!(
            "NVIDIA's driver cannot be used ({:?}): look at what nvidia-smi says",
            e.0
        ))
    };
    result::init().map_err(cannot)?;
    Ok(result::device::get_count().map_err(cannot)?.unsigned_abs())
}

/// Looks for the headers that kernels are compiled with, where cubecl does.
fn headers() -> Result<()> {
    let folder = std::env::var_os("CUDA_PATH").map(PathBuf::from).or_else(|| {
        let usual = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
        let usual = usual.into_iter().find(|folder| folder.exists());
        usual.or_else(|| std::path::Path::new("/usr/bin/nvcc").exists().then(|| PathBuf::from("/usr")))
    });
    let folder = folder.ok_or_else(|| {
        Error::configuration(
            "there are no headers of CUDA: install the CUDA toolkit, or name its folder in CUDA_PATH",
        )
    })?;
    let header = folder.join("include/cuda_runtime.h");
    if !header.is_file() {
        return Err(Error::configuration(format!(
            "there is no {}: install the headers of the CUDA toolkit, or name its folder in CUDA_PATH",
            header.display()
        )));
    }
    Ok(())
}

impl Card {
    /// The card with this number, of which there are more.
    pub(crate) fn find(ordinal: u32) -> Result<Card> {
        let ordinal = i32::try_from(ordinal).map_err(|_| Error::usage("no card has this number"))?;
        let device = result::device::get(ordinal).map_err(|e| told("name the card", e))?;
        let name = result::device::get_name(device).map_err(|e| told("name the card", e))?;
        // SAFETY: the device is one that the driver gave.
        let primary = unsafe { result::primary_ctx::retain(device) };
        let primary = primary.map_err(|e| told("open the card", e))?;
        let context = Arc::new(Context { device, primary });
        let memory = context.memory()?;
        let mut version = 0;
        // SAFETY: writes one number to where it is told.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| told("tell its version", e))?;
        let driver = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
        Ok(Card { name, driver, memory, context })
    }

    /// A way to it.
    pub(crate) fn transfer(&self) -> Result<Pinned> {
        self.context.enter()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|e| told("make a stream", e))?;
        let mut ring = Ring { context: self.context.clone(), stream, slots: Vec::new() };
        for _ in 0..SLOTS {
            // SAFETY: the memory is written before it is read, and freed with the ring.
            let bytes = unsafe { result::malloc_host(SLOT_BYTES, 0) };
            let bytes = bytes.map_err(|e| told("pin memory of the host", e))?;
            let bytes = NonNull::new(bytes.cast()).ok_or_else(|| Error::unavailable("no pinned memory"))?;
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
                .map_err(|e| told("make an event", e))?;
            ring.slots.push(Slot { bytes, event });
        }
        Ok(Pinned { context: self.context.clone(), ring: Mutex::new(ring) })
    }
}

impl Context {
    /// Makes it this thread's.
    fn enter(&self) -> Result<()> {
        // SAFETY: a primary context that is retained, and released no sooner than this is dropped.
        unsafe { result::ctx::set_current(self.primary) }.map_err(|e| told("open the card", e))
    }

    fn memory(&self) -> Result<Memory> {
        self.enter()?;
        let (free, total) = result::mem_get_info().map_err(|e| told("tell its memory", e))?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and nothing that was made in it is left but what cubecl made, which retains it too.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A ring of pinned buffers to one card.
pub(crate) struct Pinned {
    context: Arc<Context>,
    ring: Mutex<Ring>,
}

struct Ring {
    context: Arc<Context>,
    stream: sys::CUstream,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    /// [`SLOT_BYTES`] of them.
    bytes: NonNull<u8>,
    /// The last copy of it.
    event: sys::CUevent,
}

// SAFETY: streams, events and pinned memory belong to no thread; the ring is used by one at a time.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // Whoever drops it last may never have used the card, and pinned memory is freed in its context alone.
        let _ = self.context.enter();
        // SAFETY: made by the driver, and freed once. A driver that fails here keeps what it has until the process ends.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            for slot in &self.slots {
                let _ = result::event::destroy(slot.event);
                let _ = result::free_host(slot.bytes.as_ptr().cast());
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}

/// The ring, and the address of a buffer of cubecl's.
struct Way<'a> {
    ring: &'a mut Ring,
    address: u64,
    bytes: usize,
}

impl Way<'_> {
    fn begin(
        &mut self,
        slot: usize,
        range: &Range<usize>,
        copy: impl FnOnce(&mut [u8], u64, sys::CUstream) -> Result<(), DriverError>,
    ) -> Result<()> {
        if range.end > self.bytes || range.len() > SLOT_BYTES {
            return Err(Error::internal(format!("bytes {range:?} of a buffer of {}", self.bytes)));
        }
        let Slot { bytes, event } = self.ring.slots[slot];
        // SAFETY: the slot has so many bytes, and whoever begins a copy has waited for the one before.
        let part = unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr(), range.len()) };
        copy(part, self.address + range.start as u64, self.ring.stream).map_err(|e| told("copy", e))?;
        // SAFETY: event and stream are the ring's.
        unsafe { result::event::record(event, self.ring.stream) }.map_err(|e| told("copy", e))
    }
}

impl Slots for Way<'_> {
    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn slot(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: the slot has so many bytes, zero or copied at some time, and no copy of it is under way: see `ring`.
        unsafe { std::slice::from_raw_parts_mut(self.ring.slots[slot].bytes.as_ptr(), SLOT_BYTES) }
    }

    fn send(&mut self, slot: usize, to: Range<usize>) -> Result<()> {
        // SAFETY: the address is that of a buffer which has these bytes, and the pinned ones are not touched until the event.
        self.begin(slot, &to, |from, address, stream| unsafe {
            result::memcpy_htod_async(address, from, stream)
        })
    }

    fn receive(&mut self, slot: usize, from: Range<usize>) -> Result<()> {
        // SAFETY: likewise.
        self.begin(slot, &from, |to, address, stream| unsafe {
            result::memcpy_dtoh_async(to, address, stream)
        })
    }

    fn wait(&mut self, slot: usize) -> Result<()> {
        // SAFETY: an event of the ring's; one that was never recorded is over.
        unsafe { result::event::synchronize(self.ring.slots[slot].event) }.map_err(|e| told("copy", e))
    }
}

impl Pinned {
    /// Has `copy` the way to `held`, which lives until that is over.
    fn with(
        &self,
        client: &ComputeClient<CudaRuntime>,
        held: &Held,
        copy: impl FnOnce(&mut Way<'_>) -> Result<()>,
    ) -> Result<()> {
        self.context.enter()?;
        // All that was asked of cubecl with this buffer is done: the ring's stream knows nothing of it.
        cubecl::future::block_on(client.sync()).map_err(|e| failure(&e))?;
        let resource = client.get_resource(held.0.clone()).map_err(|e| failure(&e))?;
        let (address, bytes) = (resource.resource().ptr, resource.resource().size as usize);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        copy(&mut Way { ring: &mut ring, address, bytes })
    }
}

impl Transfer<CudaRuntime> for Pinned {
    fn memory(&self) -> Result<Option<Memory>> {
        self.context.memory().map(Some)
    }

    fn upload(
        &self,
        client: &ComputeClient<CudaRuntime>,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        self.with(client, to, |way| ring::upload(way, start, bytes, fill))
    }

    fn download(
        &self,
        client: &ComputeClient<CudaRuntime>,
        from: &Held,
        range: Range<usize>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()> {
        self.with(client, from, |way| ring::download(way, range.start, range.len(), take))
    }
}
