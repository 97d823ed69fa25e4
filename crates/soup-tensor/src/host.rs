//! Shards in host memory.

use std::sync::{Mutex, PoisonError};

use soup_core::Result;
use soup_core::soup::{Ingredient, Soup};

use crate::buffer::Buffer;
use crate::builder::{Place, all_of};
use crate::layout::Layout;
use crate::source::Lent;
use crate::{SegmentDots, SegmentGram, ShardMemory, blend, products};

/// Keeps the buffers that it is given.
pub(crate) struct HostPlace {
    layout: Layout,
    /// One an ingredient.
    buffers: Vec<Mutex<Option<Buffer>>>,
}

impl HostPlace {
    pub(crate) fn new(layout: Layout) -> HostPlace {
        let buffers = (0..layout.ingredients()).map(|_| Mutex::default()).collect();
        HostPlace { layout, buffers }
    }
}

impl Place for HostPlace {
    fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> Result<()> {
        let slot = self.layout.of(&self.buffers, ingredient)?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffer);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn ShardMemory>> {
        let buffers = all_of(self.buffers)?;
        Ok(Box::new(HostShards { layout: self.layout, buffers }))
    }
}

/// See the module.
struct HostShards {
    layout: Layout,
    /// One an ingredient.
    buffers: Vec<Buffer>,
}

impl HostShards {
    fn lent(&self) -> Lent<'_> {
        Lent(self.buffers.iter().map(Buffer::bytes).collect())
    }
}

impl ShardMemory for HostShards {
    fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        blend::blend(&self.lent(), &self.layout, soup, out)
    }

    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        products::dots(self.layout.segments(), &self.lent(), gradient, self.layout.threads())
    }

    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        products::grams(self.layout.segments(), &self.lent(), base, self.layout.threads())
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        self.layout.of(&self.buffers, ingredient).map(Buffer::digest)
    }

    fn resident_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes().len() as u64).sum()
    }
}
