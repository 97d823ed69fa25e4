//! Devices, chosen at run time, and the way of a shard onto one.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use soup_core::schema::{ALIGN_BYTES, Schema};
use soup_core::shard::{Segment, segments};
use soup_core::soup::Ingredient;
use soup_core::{Error, Result};

use crate::ShardMemory;
use crate::check::Findings;
use crate::disk::{DiskFile, DiskShards};
use crate::host::HostShards;
use crate::source::{Lent, Scratch, Source};
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

fn no_memory(bytes: u64) -> Error {
    Error::configuration(format!(
        "not enough memory for a shard of {bytes} bytes of one ingredient: use more workers, or give them a disk cache"
    ))
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

    /// Takes over the SHA-256 of what was read into it, from whoever read it.
    pub fn set_digest(&mut self, sha256: [u8; 32]) {
        self.sha256 = Some(sha256);
    }

    /// SHA-256 of the bytes.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256.unwrap_or_else(|| Sha256::digest(self.bytes()).into())
    }
}

/// A shard of all ingredients that is being loaded: for each, a buffer is taken, filled and handed back.
pub struct ShardBuilder {
    device: Device,
    pub(crate) segments: Vec<Segment>,
    /// Number of tensors in the schema.
    pub(crate) tensors: usize,
    /// Of one ingredient.
    bytes: usize,
    place: Place,
}

/// Where the ingredients go.
enum Place {
    /// One an ingredient; never empty.
    Memory(Vec<Mutex<Option<Buffer>>>),
    Disk {
        file: DiskFile,
        digests: Mutex<Vec<Option<[u8; 32]>>>,
    },
}

impl ShardBuilder {
    /// Where to read the shard of one ingredient to: zeros so far, in the layout of the schema. What the ingredient lacks stays
    /// zero.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the system refuses the memory.
    pub fn buffer(&self) -> Result<Buffer> {
        Buffer::zeroed(self.bytes).ok_or_else(|| no_memory(self.bytes as u64))
    }

    /// Keeps the shard of `ingredient`. One that goes to the disk leaves memory.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for an ingredient outside the pool; where the disk does not take it.
    pub fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> Result<()> {
        let index = ingredient.index();
        let outside = || Error::internal(format!("ingredient {index} is not of this shard"));
        if buffer.bytes().len() != self.bytes {
            return Err(Error::internal("a buffer of another shard was handed back"));
        }
        match &self.place {
            Place::Memory(buffers) => {
                let slot = buffers.get(index).ok_or_else(outside)?;
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffer);
            }
            Place::Disk { file, digests } => {
                file.write(index, buffer.bytes())?;
                let digest = buffer.sha256();
                *digests
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_mut(index)
                    .ok_or_else(outside)? = Some(digest);
            }
        }
        Ok(())
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
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where an ingredient is missing; where the disk fails.
    pub fn finish(
        self,
        has_tensor: impl Fn(Ingredient, usize) -> bool + Sync,
    ) -> Result<(Box<dyn ShardMemory>, Findings)> {
        let ShardBuilder { device, segments, tensors, place, .. } = self;
        let threads = device.threads;
        match place {
            Place::Memory(buffers) => {
                let (buffers, findings) = all_kept(buffers, &segments, threads, has_tensor)?;
                Ok((Box::new(HostShards { segments, tensors, buffers, threads }), findings))
            }
            Place::Disk { file, digests } => {
                let digests = digests.into_inner().unwrap_or_else(PoisonError::into_inner);
                let digests = digests.into_iter().collect::<Option<Vec<_>>>().ok_or_else(missing)?;
                let findings = inspect(&file, &segments, threads, has_tensor)?;
                Ok((Box::new(DiskShards { segments, tensors, file, digests, threads }), findings))
            }
        }
    }
}

fn missing() -> Error {
    Error::internal("a shard is finished, but not every ingredient was loaded")
}

/// All ingredients out of their slots, and what was found in them.
fn all_kept(
    slots: Vec<Mutex<Option<Buffer>>>,
    segments: &[Segment],
    threads: NonZeroUsize,
    has_tensor: impl Fn(Ingredient, usize) -> bool + Sync,
) -> Result<(Vec<Buffer>, Findings)> {
    let taken = |slot: Mutex<Option<Buffer>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
    let buffers = slots.into_iter().map(taken).collect::<Option<Vec<_>>>().ok_or_else(missing)?;
    let lent = Lent(buffers.iter().map(Buffer::bytes).collect());
    let findings = inspect(&lent, segments, threads, has_tensor)?;
    Ok((buffers, findings))
}

/// What there is of `ingredient`, of one an ingredient.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for an ingredient outside the pool.
pub(crate) fn of_ingredient<T>(all: &[T], ingredient: Ingredient) -> Result<&T> {
    let index = ingredient.index();
    all.get(index)
        .ok_or_else(|| Error::internal(format!("ingredient {index} is not in the pool of {}", all.len())))
}

fn inspect(
    source: &dyn Source,
    segments: &[Segment],
    threads: NonZeroUsize,
    has_tensor: impl Fn(Ingredient, usize) -> bool + Sync,
) -> Result<Findings> {
    let found: Vec<Mutex<Findings>> = (0..source.ingredients()).map(|_| Mutex::default()).collect();
    share(threads, found.iter().enumerate(), Scratch::default, |scratch, (index, found)| {
        // A pool has at most u32::MAX ingredients.
        let ingredient = Ingredient(index as u32);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.inspect(source, segments, ingredient, scratch, |tensor| has_tensor(ingredient, tensor))
    })?;
    let mut all = Findings::default();
    found.into_iter().for_each(|f| all.append(f.into_inner().unwrap_or_else(PoisonError::into_inner)));
    Ok(all)
}
