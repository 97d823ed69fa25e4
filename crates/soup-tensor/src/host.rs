//! Shards in host memory.

use std::num::NonZeroUsize;

use soup_core::Result;
use soup_core::shard::Segment;
use soup_core::soup::{Ingredient, Soup};

use crate::buffer::Buffer;
use crate::builder::of_ingredient;
use crate::source::Lent;
use crate::{SegmentDots, SegmentGram, ShardMemory, blend, products};

/// See the module.
pub(crate) struct HostShards {
    pub(crate) segments: Vec<Segment>,
    pub(crate) tensors: usize,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) threads: NonZeroUsize,
}

impl HostShards {
    fn lent(&self) -> Lent<'_> {
        Lent(self.buffers.iter().map(Buffer::bytes).collect())
    }
}

impl ShardMemory for HostShards {
    fn bytes(&self) -> usize {
        self.buffers[0].bytes().len()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        blend::blend(&self.lent(), (&self.segments, self.tensors), soup, self.threads, out)
    }

    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        products::dots(&self.segments, &self.lent(), gradient, self.threads)
    }

    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        products::grams(&self.segments, &self.lent(), base, self.threads)
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        of_ingredient(&self.buffers, ingredient).map(Buffer::sha256)
    }

    fn resident_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes().len() as u64).sum()
    }
}
