//! Devices, chosen at run time, and the way of a shard onto one.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use soup_core::schema::{ALIGN_BYTES, Schema};
use soup_core::shard::{Segment, segments};
use soup_core::soup::Ingredient;
use soup_core::{Error, Result};

use crate::ShardMemory;
use crate::check::Findings;
use crate::host::HostShards;
use crate::threads::share;

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

    /// The name that [`parse`](Self::parse) takes.
    pub fn name(&self) -> &'static str {
        "cpu"
    }

    /// A place for the byte range `range` of the flattened parameters of `ingredients` ingredients: zeroed memory.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema or not aligned,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where there is not enough memory.
    pub fn builder(&self, schema: &Schema, range: Range<u64>, ingredients: u32) -> Result<ShardBuilder> {
        let aligned = |at: u64| at.is_multiple_of(ALIGN_BYTES) || at == schema.bytes();
        let inside = range.start <= range.end && range.end <= schema.bytes();
        if ingredients == 0 || !inside || !aligned(range.start) || !aligned(range.end) {
            let bytes = schema.bytes();
            return Err(Error::internal(format!(
                "shard {range:?} of {ingredients} ingredients does not fit parameters of {bytes} bytes"
            )));
        }
        let no_memory = || {
            let bytes = range.end - range.start;
            Error::configuration(format!(
                "not enough memory for a shard of {ingredients} ingredients of {bytes} bytes each: use more workers"
            ))
        };
        let bytes = usize::try_from(range.end - range.start).map_err(|_| no_memory())?;
        let buffers: Option<Vec<Buffer>> = (0..ingredients).map(|_| Buffer::zeroed(bytes)).collect();
        Ok(ShardBuilder {
            device: *self,
            segments: segments(schema, range.clone()),
            tensors: schema.tensors().len(),
            buffers: buffers.ok_or_else(no_memory)?,
        })
    }
}

/// Bytes in host memory, aligned for every dtype: the shard of one ingredient.
pub struct Buffer {
    words: Vec<u64>,
    bytes: usize,
    /// SHA-256 of the bytes, once taken.
    sha256: Option<[u8; 32]>,
}

impl Buffer {
    /// `bytes` zeros, or `None` where the system refuses the memory.
    fn zeroed(bytes: usize) -> Option<Buffer> {
        let words = bytes.div_ceil(size_of::<u64>());
        // `vec!` gets zeroed pages from the system without touching them, but aborts when refused: ask first.
        Vec::<u64>::new().try_reserve_exact(words).ok()?;
        Some(Buffer { words: vec![0; words], bytes, sha256: None })
    }

    /// A copy, aligned for any element.
    pub(crate) fn copied_from(bytes: &[u8]) -> Buffer {
        let words = vec![0; bytes.len().div_ceil(size_of::<u64>())];
        let mut buffer = Buffer { words, bytes: bytes.len(), sha256: None };
        buffer.bytes_mut().copy_from_slice(bytes);
        buffer
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.sha256 = None;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl Buffer {
    /// Takes the SHA-256 of what was read into it, on this thread; [`ShardMemory::digest`] then has it already.
    pub fn take_digest(&mut self) {
        self.sha256 = Some(self.sha256());
    }

    /// SHA-256 of the bytes.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256.unwrap_or_else(|| Sha256::digest(self.bytes()).into())
    }
}

/// A shard of all ingredients that is being loaded.
pub struct ShardBuilder {
    device: Device,
    pub(crate) segments: Vec<Segment>,
    /// Number of tensors in the schema.
    pub(crate) tensors: usize,
    /// One an ingredient; never empty.
    pub(crate) buffers: Vec<Buffer>,
}

impl ShardBuilder {
    /// Where to read the shard of `ingredient` to: zeros so far, in the layout of the schema. What the ingredient lacks
    /// stays zero. `None` for an ingredient outside the pool.
    pub fn buffer(&mut self, ingredient: Ingredient) -> Option<&mut [u8]> {
        self.buffers.get_mut(ingredient.index()).map(Buffer::bytes_mut)
    }

    /// All buffers in pool order, for reading several ingredients at a time.
    pub fn buffers(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.buffers.iter_mut().map(Buffer::bytes_mut)
    }

    /// Takes all buffers out, in pool order, so that each can be read and digested on a thread of its own. They have to be
    /// [put back](Self::put_buffers).
    pub fn take_buffers(&mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.buffers)
    }

    /// Puts back the buffers that were taken out, in pool order.
    pub fn put_buffers(&mut self, buffers: Vec<Buffer>) {
        self.buffers = buffers;
    }

    /// The parts of tensors in this shard.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Inspects what was loaded and makes it resident. `has_tensor(ingredient, tensor)` says which tensors (by position in
    /// the schema) each ingredient has; only those are compared.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the device has not enough memory;
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where the buffers are not back.
    pub fn finish(
        self,
        has_tensor: impl Fn(Ingredient, usize) -> bool + Sync,
    ) -> Result<(Box<dyn ShardMemory>, Findings)> {
        if self.buffers.is_empty() {
            return Err(Error::internal("the buffers of a shard were taken out and not put back"));
        }
        let findings = self.inspect(has_tensor);
        Ok((
            Box::new(HostShards::new(self.segments, self.tensors, self.buffers, self.device.threads)),
            findings,
        ))
    }

    pub(crate) fn inspect(&self, has_tensor: impl Fn(Ingredient, usize) -> bool + Sync) -> Findings {
        let first = self.buffers[0].bytes();
        let found: Vec<Mutex<Findings>> = self.buffers.iter().map(|_| Mutex::default()).collect();
        share(
            self.device.threads,
            self.buffers.iter().zip(&found).enumerate(),
            |(index, (buffer, found))| {
                // A pool has at most u32::MAX ingredients.
                let ingredient = Ingredient(index as u32);
                found.lock().unwrap_or_else(PoisonError::into_inner).inspect(
                    &self.segments,
                    ingredient,
                    buffer.bytes(),
                    first,
                    |tensor| has_tensor(ingredient, tensor),
                );
            },
        );
        let mut all = Findings::default();
        found.into_iter().for_each(|f| all.append(f.into_inner().unwrap_or_else(PoisonError::into_inner)));
        all
    }
}
