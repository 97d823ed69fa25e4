//! The way of a shard to where it stays.
//!
//! A loader takes a [`Buffer`] for each ingredient, fills it and hands it back, in any order and from several threads. It is digested,
//! and looked at for what is wrong with it, once: while it is filled, by an [`Inspection`] that is shown each part as long as that is in the
//! processor's cache, or else when it is handed back. A [`Place`] takes it from there, to a device for instance, and no second copy is kept.

use std::sync::{Mutex, PoisonError};

use soup_core::digest::DigestKind;
use soup_core::shard::Segment;
use soup_core::soup::Ingredient;
use soup_core::{Error, Result};

use crate::ShardMemory;
use crate::buffer::Buffer;
use crate::check::{Findings, Inspected, Inspecting};
use crate::digests::Hasher;
use crate::layout::{Layout, no_memory};

/// Where the ingredients of a shard go.
pub trait Place: Send + Sync {
    /// Takes the shard of an ingredient, of which there is one; over an earlier one, where that is handed in again. Ingredients
    /// come in any order and from several threads at once.
    ///
    /// # Errors
    /// Where the place has no room for it or fails.
    fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> Result<()>;

    /// Makes the shard of what was taken: every ingredient was.
    ///
    /// # Errors
    /// Where the place fails.
    fn finish(self: Box<Self>) -> Result<Box<dyn ShardMemory>>;
}

/// Digests the shard of one ingredient, and looks for what is wrong with it, as it is read: in order, part by part.
pub struct Inspection<'a> {
    /// That were shown.
    bytes: usize,
    hasher: Hasher,
    inspecting: Inspecting<'a>,
}

impl Inspection<'_> {
    /// Takes what comes next.
    pub fn update(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.inspecting.update(part);
        self.bytes += part.len();
    }
}

/// A shard of all ingredients that is being loaded: for each, a buffer is taken, filled and handed back.
pub struct ShardBuilder {
    layout: Layout,
    place: Box<dyn Place>,
    digest: DigestKind,
    /// One an ingredient, once it was handed in.
    inspected: Vec<Mutex<Option<Inspected>>>,
}

impl ShardBuilder {
    /// A shard in `layout` that goes to `place`.
    pub fn new(layout: Layout, place: Box<dyn Place>) -> ShardBuilder {
        let inspected = (0..layout.ingredients()).map(|_| Mutex::default()).collect();
        ShardBuilder { layout, place, digest: DigestKind::default(), inspected }
    }

    /// The same, whose ingredients are digested by this algorithm.
    #[must_use]
    pub fn digested_by(self, digest: DigestKind) -> ShardBuilder {
        ShardBuilder { digest, ..self }
    }

    /// Where to read the shard of one ingredient to: zeros so far, in the layout of the schema. What the ingredient lacks stays
    /// zero.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the system refuses the memory.
    pub fn buffer(&self) -> Result<Buffer> {
        let bytes = self.layout.bytes();
        Buffer::zeroed(bytes, self.digest).ok_or_else(|| no_memory(bytes as u64))
    }

    /// What looks at the shard of one ingredient while a buffer is filled with it.
    pub fn inspection(&self) -> Inspection<'_> {
        let (hasher, inspecting) = (Hasher::new(self.digest), Inspecting::new(self.layout.segments()));
        Inspection { bytes: 0, hasher, inspecting }
    }

    /// Digests and inspects the shard of `ingredient` on this thread and keeps it. One that goes to the disk or a device leaves memory.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for an ingredient outside the pool; where its place does not take
    /// it.
    pub fn keep(&self, ingredient: Ingredient, mut buffer: Buffer) -> Result<()> {
        buffer.take_digest();
        let inspected = Inspected::of(buffer.bytes(), self.layout.segments());
        self.keep_inspected(ingredient, buffer, inspected)
    }

    /// Keeps the shard of `ingredient`, all of which `inspection` was shown while `buffer` was filled.
    ///
    /// # Errors
    /// As for [`keep`](ShardBuilder::keep); [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where it was not shown all.
    pub fn keep_shown(
        &self,
        ingredient: Ingredient,
        mut buffer: Buffer,
        inspection: Inspection<'_>,
    ) -> Result<()> {
        if inspection.bytes != buffer.bytes().len() {
            return Err(Error::internal("a shard was handed back of which not all was shown"));
        }
        buffer.set_digest(inspection.hasher.finish());
        self.keep_inspected(ingredient, buffer, inspection.inspecting.finish())
    }

    fn keep_inspected(&self, ingredient: Ingredient, buffer: Buffer, inspected: Inspected) -> Result<()> {
        if buffer.bytes().len() != self.layout.bytes() {
            return Err(Error::internal("a buffer of another shard was handed back"));
        }
        let outside = || Error::internal(format!("ingredient {} is not of this shard", ingredient.index()));
        let slot = self.inspected.get(ingredient.index()).ok_or_else(outside)?;
        self.place.keep(ingredient, buffer)?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(inspected);
        Ok(())
    }

    /// The parts of tensors in this shard.
    pub fn segments(&self) -> &[Segment] {
        self.layout.segments()
    }

    /// Says what is wrong with what was loaded, and makes it resident. `has_tensor(ingredient, tensor)` says which tensors (by
    /// position in the schema) each ingredient has; only those are compared.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where an ingredient is missing; where the place fails.
    pub fn finish(
        self,
        has_tensor: impl Fn(Ingredient, usize) -> bool,
    ) -> Result<(Box<dyn ShardMemory>, Findings)> {
        let inspected = all_of(self.inspected)?;
        let findings = Findings::of(&inspected, self.layout.segments(), has_tensor);
        Ok((self.place.finish()?, findings))
    }
}

/// What is in the slots, one an ingredient.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where one is empty.
pub(crate) fn all_of<T>(slots: Vec<Mutex<Option<T>>>) -> Result<Vec<T>> {
    let taken = |slot: Mutex<Option<T>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
    slots
        .into_iter()
        .map(taken)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Error::internal("a shard is finished, but not every ingredient was loaded"))
}
