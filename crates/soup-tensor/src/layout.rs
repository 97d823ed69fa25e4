//! What the shard of an ingredient looks like, wherever it is kept.

use std::num::NonZeroUsize;
use std::ops::Range;

use soup_core::schema::{ALIGN_BYTES, Schema};
use soup_core::shard::{Segment, segments};
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};

use crate::{blend, products};

/// A shard of all ingredients: the same range of the flattened parameters of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    tensors: usize,
    bytes: usize,
    ingredients: usize,
    threads: NonZeroUsize,
}

impl Layout {
    /// The byte range `range` of the flattened parameters of `ingredients` ingredients, for blends by at most `threads` threads of
    /// the host.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for a range that is not of this schema or not aligned,
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for one that no memory can hold.
    pub fn new(
        schema: &Schema,
        range: Range<u64>,
        ingredients: u32,
        threads: NonZeroUsize,
    ) -> Result<Layout> {
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
        Ok(Layout {
            segments: segments(schema, range),
            tensors: schema.tensors().len(),
            bytes,
            ingredients: ingredients as usize,
            threads,
        })
    }

    /// The parts of tensors in it, in order, covering it exactly.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Number of tensors in the schema.
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// Size of the shard of one ingredient.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of ingredients, at least one.
    pub fn ingredients(&self) -> usize {
        self.ingredients
    }

    /// Threads of the host that a blend may take.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Refuses a blend of `soup` into `out` bytes that does not fit.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where they are more or less than the shard has, or the soup has an
    /// ingredient or tensor that the shard has not.
    pub fn check_blend(&self, soup: &Soup, out: usize) -> Result<()> {
        blend::check_fit(soup, self.ingredients, self.tensors, [self.bytes, out])
    }

    /// Refuses a gradient of another number of values than the shard has elements.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for one that has.
    pub fn check_gradient(&self, values: usize) -> Result<()> {
        products::check_gradient(&self.segments, values)
    }

    /// Refuses an origin of inner products that is another number of bytes than the shard.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for one that is.
    pub fn check_base(&self, bytes: usize) -> Result<()> {
        products::check_base(self.bytes, bytes)
    }

    /// What there is of `ingredient`, of one an ingredient.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for an ingredient outside the pool.
    pub fn of<'a, T>(&self, all: &'a [T], ingredient: Ingredient) -> Result<&'a T> {
        let index = ingredient.index();
        all.get(index)
            .ok_or_else(|| Error::internal(format!("ingredient {index} is not in the pool of {}", all.len())))
    }
}

/// The system has no memory for the shard of one ingredient.
pub(crate) fn no_memory(bytes: u64) -> Error {
    Error::configuration(format!(
        "not enough memory for a shard of {bytes} bytes of one ingredient: use more workers, or give them a disk cache"
    ))
}
