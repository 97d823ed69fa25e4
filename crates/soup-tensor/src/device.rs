//! Devices, chosen at run time.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;

use soup_core::schema::{ALIGN_BYTES, Schema};
use soup_core::shard::segments;
use soup_core::{Error, Result};

use crate::builder::{Place, ShardBuilder};
use crate::disk::DiskFile;

/// Where shards are resident and blended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    threads: NonZeroUsize,
}

impl Device {
    /// Host memory and `threads` threads a blend.
    pub fn cpu(threads: NonZeroUsize) -> Device {
        Device { threads }
    }

    /// The device of that name, as `--device` gives it: `cpu` (one thread a blend, see [`with_threads`](Self::with_threads)).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for a device that this build has not,
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for a name that is no device's.
    pub fn parse(name: &str) -> Result<Device> {
        match name {
            "cpu" => Ok(Device::cpu(NonZeroUsize::MIN)),
            "cuda" | "wgpu" => Err(Error::configuration(format!(
                "this build of the program has no device {name:?}: use \"cpu\", or a build with {name} support"
            ))),
            _ => Err(Error::usage(format!("unknown device {name:?}: expected \"cpu\""))),
        }
    }

    /// The same device with at most `threads` threads of the host a blend.
    #[must_use]
    pub fn with_threads(self, threads: NonZeroUsize) -> Device {
        Device { threads }
    }

    /// Threads of the host a blend.
    pub(crate) fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// The name that [`parse`](Self::parse) takes.
    pub fn name(&self) -> &'static str {
        "cpu"
    }

    /// A place for the byte range `range` of the flattened parameters of `ingredients` ingredients: memory of this device.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema or not aligned,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where there is not enough memory.
    pub fn builder(&self, schema: &Schema, range: Range<u64>, ingredients: u32) -> Result<ShardBuilder> {
        let buffers = |_: usize| Ok(Place::Memory((0..ingredients).map(|_| Mutex::default()).collect()));
        self.builder_in(schema, range, ingredients, buffers)
    }

    /// The same on the disk, in `folder`: the shard is read from there by this device whenever it is needed.
    ///
    /// # Errors
    /// As for [`builder`](Self::builder); [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where `folder`
    /// cannot be written to or has no room.
    pub fn disk_builder(
        &self,
        schema: &Schema,
        range: Range<u64>,
        ingredients: u32,
        folder: &Path,
    ) -> Result<ShardBuilder> {
        self.builder_in(schema, range, ingredients, |bytes| {
            let file = DiskFile::create(folder, bytes, ingredients as usize)?;
            Ok(Place::Disk { file, digests: Mutex::new(vec![None; ingredients as usize]) })
        })
    }

    fn builder_in(
        &self,
        schema: &Schema,
        range: Range<u64>,
        ingredients: u32,
        place: impl FnOnce(usize) -> Result<Place>,
    ) -> Result<ShardBuilder> {
        let aligned = |at: u64| at.is_multiple_of(ALIGN_BYTES) || at == schema.bytes();
        let inside = range.start <= range.end && range.end <= schema.bytes();
        if ingredients == 0 || !inside || !aligned(range.start) || !aligned(range.end) {
            let bytes = schema.bytes();
            return Err(Error::internal(format!(
                "shard {range:?} of {ingredients} ingredients does not fit parameters of {bytes} bytes"
            )));
        }
        let bytes = range.end - range.start;
        let bytes = usize::try_from(bytes).map_err(|_| no_memory(bytes))?;
        Ok(ShardBuilder {
            device: *self,
            segments: segments(schema, range),
            tensors: schema.tensors().len(),
            bytes,
            place: place(bytes)?,
        })
    }
}

pub(crate) fn no_memory(bytes: u64) -> Error {
    Error::configuration(format!(
        "not enough memory for a shard of {bytes} bytes of one ingredient: use more workers, or give them a disk cache"
    ))
}
