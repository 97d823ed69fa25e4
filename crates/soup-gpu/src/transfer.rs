//! Bytes on their way between the host and a device, and what has to be asked of drivers themselves.
//!
//! cubecl uploads through memory that the driver has to copy once more, at a hundredth of the speed of the bus. On CUDA bytes
//! therefore go through a ring of pinned buffers of our own, to the address of cubecl's buffer; elsewhere through cubecl.
//!
//! `unsafe` is allowed here for calls of drivers, which are foreign code; every use says why it is right.
#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "vulkan")]
pub(crate) mod vulkan;

use std::ops::Range;

use cubecl::Runtime;
use cubecl::client::ComputeClient;
use soup_core::Result;

use crate::budget::Memory;
use crate::compute::Held;

/// A way between the host and a device.
pub(crate) trait Transfer<R: Runtime>: Send + Sync {
    /// Memory of the device, where that can be asked.
    fn memory(&self) -> Result<Option<Memory>>;

    /// Copies `bytes` bytes, a multiple of 16, to `to` from byte `start` on; `fill` writes those from an offset on. Nothing else uses `to`.
    fn upload(
        &self,
        client: &ComputeClient<R>,
        to: &Held,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()>;

    /// Copies the bytes `range` of `from` to the host; `take` is given them in order, with their offsets in the range. All that writes
    /// them is done.
    fn download(
        &self,
        client: &ComputeClient<R>,
        from: &Held,
        range: Range<usize>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<()>;
}
