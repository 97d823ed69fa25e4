//! Devices, chosen at run time.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;

use soup_core::devices::DeviceKind;
use soup_core::schema::Schema;
use soup_core::{Error, Result};

use crate::builder::ShardBuilder;
use crate::disk::DiskPlace;
use crate::host::HostPlace;
use crate::layout::Layout;

/// Where shards are resident and blended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    kind: DeviceKind,
    threads: NonZeroUsize,
}

impl Device {
    /// Host memory and `threads` threads a blend.
    pub fn cpu(threads: NonZeroUsize) -> Device {
        Device { kind: DeviceKind::Cpu, threads }
    }

    /// The device of that name, as `--device` gives it: `cpu` (one thread a blend, see [`with_threads`](Self::with_threads)),
    /// `cuda:N` or `vulkan:N`, of which the first is meant without a number. Whether there is such a device is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a name that is no device's.
    pub fn parse(name: &str) -> Result<Device> {
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, Some(number)),
            None => (name, None),
        };
        // A sign is no part of a number here, though the standard library reads one.
        let digits = |n: &str| n.bytes().all(|b| b.is_ascii_digit());
        let ordinal = number.map_or(Some(0), |n| n.parse().ok().filter(|_| digits(n)));
        let kind = match (kind, ordinal) {
            ("cpu", _) if number.is_none() => DeviceKind::Cpu,
            ("cuda", Some(ordinal)) => DeviceKind::Cuda(ordinal),
            ("vulkan", Some(ordinal)) => DeviceKind::Vulkan(ordinal),
            _ => {
                return Err(Error::usage(format!(
                    "unknown device {name:?}: expected \"cpu\", \"cuda:N\" or \"vulkan:N\", where N is the number of the device, from 0"
                )));
            }
        };
        Ok(Device { kind, threads: NonZeroUsize::MIN })
    }

    /// The same device with at most `threads` threads of the host a blend.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> Device {
        Device { threads, ..self }
    }

    /// What computes.
    pub fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// The name that [`parse`](Self::parse) takes.
    pub fn name(&self) -> String {
        self.kind.to_string()
    }

    /// The same device, where it is the host.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for another: this crate alone has no more.
    pub fn on_host(self) -> Result<Device> {
        match self.kind {
            DeviceKind::Cpu => Ok(self),
            kind => Err(kind.not_built()),
        }
    }

    /// The byte range `range` of the flattened parameters of `ingredients` ingredients, as this device's threads compute on it.
    ///
    /// # Errors
    /// Those of [`Layout::new`].
    pub fn layout(&self, schema: &Schema, range: Range<u64>, ingredients: u32) -> Result<Layout> {
        Layout::new(schema, range, ingredients, self.threads)
    }

    /// A place for a shard: the byte range `range` of the flattened parameters of `ingredients` ingredients, in the host's memory.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema or not aligned,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where there is not enough memory, or the device is not
    /// the host: a shard for another is made by [`ShardBuilder::new`], with a place of that device.
    pub fn builder(&self, schema: &Schema, range: Range<u64>, ingredients: u32) -> Result<ShardBuilder> {
        self.on_host()?;
        let layout = self.layout(schema, range, ingredients)?;
        let place = HostPlace::new(layout.clone());
        Ok(ShardBuilder::new(layout, Box::new(place)))
    }

    /// The same on the disk, in `folder`: the shard is read from there by the host whenever it is needed, whatever the device.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema or not aligned,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where `folder` cannot be written to or has no room.
    pub fn disk_builder(
        &self,
        schema: &Schema,
        range: Range<u64>,
        ingredients: u32,
        folder: &Path,
    ) -> Result<ShardBuilder> {
        let layout = self.layout(schema, range, ingredients)?;
        let place = DiskPlace::create(layout.clone(), folder)?;
        Ok(ShardBuilder::new(layout, Box::new(place)))
    }
}
