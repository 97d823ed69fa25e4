//! A build without devices.

use std::convert::Infallible;
use std::ops::Range;

use soup_core::Result;
use soup_core::devices::DeviceKind;
use soup_core::schema::Schema;
use soup_tensor::{Layout, Place, ShardBuilder};

use crate::speed::Speed;
use crate::{Found, Info, no_gpu};

/// A device that is open; in this build there is none.
pub struct Gpu(Infallible);

impl Gpu {
    /// Refuses the device.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), with the cargo feature that a build needs for it.
    pub fn open(kind: DeviceKind) -> Result<Gpu> {
        match kind {
            DeviceKind::Cpu => Err(no_gpu(kind)),
            _ => Err(kind.not_built()),
        }
    }

    /// What it is.
    pub fn info(&self) -> &Info {
        match self.0 {}
    }

    /// Memory that shards may take now, in bytes.
    ///
    /// # Errors
    /// None.
    pub fn free_bytes(&self) -> Result<u64> {
        match self.0 {}
    }

    /// Room for a shard.
    ///
    /// # Errors
    /// None.
    pub fn place(&self, _: Layout) -> Result<Box<dyn Place>> {
        match self.0 {}
    }

    /// A place for a shard.
    ///
    /// # Errors
    /// None.
    pub fn builder(&self, _: &Schema, _: Range<u64>, _: u32) -> Result<ShardBuilder> {
        match self.0 {}
    }

    /// How fast it is.
    ///
    /// # Errors
    /// None.
    pub fn speed(&self, _: u64) -> Result<Speed> {
        match self.0 {}
    }
}

/// The devices that this build can look for: none.
pub fn devices() -> Vec<Found> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_refused_with_its_feature() {
        let refused = |kind| Gpu::open(kind).err().map(|e| e.chain()).unwrap_or_default();
        assert!(
            refused(DeviceKind::Cuda(2)).contains("no device \"cuda:2\""),
            "{}",
            refused(DeviceKind::Cuda(2))
        );
        assert!(refused(DeviceKind::Cuda(2)).ends_with("the cargo feature \"cuda\""));
        assert!(refused(DeviceKind::Vulkan(0)).ends_with("the cargo feature \"vulkan\""));
        assert_eq!(refused(DeviceKind::Cpu), "device \"cpu\" is no GPU");
        assert!(devices().is_empty());
    }
}
