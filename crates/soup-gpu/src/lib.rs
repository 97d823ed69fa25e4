//! Shards resident on a GPU: the same blends and inner products as on the CPU, to the bit.
//!
//! # Flow
//!
//! [`devices`] says what there is, [`Gpu::open`] makes sure that a device works and gives the CPU's bits, and [`Gpu::place`] takes room
//! for a shard on it: a [`Place`](soup_tensor::Place) for [`ShardBuilder::new`](soup_tensor::ShardBuilder::new). What the builder gives
//! in the end answers as a shard in memory does.
//!
//! # Parts
//!
//! `plan` says how a shard lies on a device; `kernels` are what the device runs, `launch` how they are called, `engine` what is
//! made of that, behind the trait in `compute`; `transfer` is the way of bytes, through a `ring` of buffers where that is faster;
//! `resident` answers for a shard, adding up in the `order` of the CPU; `selftest` holds a device against the CPU; `speed` measures it; `budget` says what
//! memory may be taken.
//!
//! Without the cargo features `cuda` and `vulkan` there is no device, and every one is refused with the feature that it needs.

// What needs no device is compiled and tested without one.
#[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), allow(dead_code))]
mod budget;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod compute;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod engine;
#[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), path = "none.rs")]
mod gpu;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod kernels;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod launch;
#[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), allow(dead_code))]
mod order;
#[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), allow(dead_code))]
mod plan;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod resident;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod ring;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod selftest;
mod speed;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod transfer;

use soup_core::devices::DeviceKind;
use soup_core::{Error, Result};

pub use budget::Memory;
pub use gpu::{Gpu, devices};
pub use speed::{Speed, host_speed};

/// A device, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Which it is.
    pub kind: DeviceKind,
    /// Its name.
    pub name: String,
    /// The driver's name or version.
    pub driver: String,
    /// Its memory, where the driver says.
    pub memory: Option<Memory>,
}

/// A device that this build of the program can look for.
#[derive(Debug)]
pub struct Found {
    /// Which it is; the first of its kind where not even the driver can be used.
    pub kind: DeviceKind,
    /// What it is, or why it cannot be used.
    pub device: Result<Info>,
}

/// That a device is none of this crate's.
fn no_gpu(kind: DeviceKind) -> Error {
    Error::internal(format!("device \"{kind}\" is no GPU"))
}
