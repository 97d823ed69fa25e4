//! The way of a shard to where it stays.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use soup_core::shard::Segment;
use soup_core::soup::Ingredient;
use soup_core::{Error, Result};

use crate::ShardMemory;
use crate::buffer::Buffer;
use crate::check::Findings;
use crate::device::{Device, no_memory};
use crate::disk::{DiskFile, DiskShards};
use crate::host::HostShards;
use crate::source::{Lent, Scratch, Source};
use crate::threads::share;

/// A shard of all ingredients that is being loaded: for each, a buffer is taken, filled and handed back.
pub struct ShardBuilder {
    pub(crate) device: Device,
    pub(crate) segments: Vec<Segment>,
    /// Number of tensors in the schema.
    pub(crate) tensors: usize,
    /// Of one ingredient.
    pub(crate) bytes: usize,
    pub(crate) place: Place,
}

/// Where the ingredients go.
pub(crate) enum Place {
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
        let threads = device.threads();
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
