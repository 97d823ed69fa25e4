//! Where the bytes of a shard are.

use std::collections::BTreeMap;
use std::ops::Range;

use soup_core::machine::Tier;
use soup_core::schema::Dtype;
use soup_store::load::{Read, ReadFrom};

/// What is read of a shard of one checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// What people call it.
    pub(crate) name: String,
    pub(crate) files: Vec<ReadFrom>,
    pub(crate) reads: Vec<Read>,
    /// The dtypes of tensors, by position, that are stored in another one than the run's.
    pub(crate) stored: BTreeMap<usize, Dtype>,
}

impl Source {
    /// The byte ranges of what is read that there are; the others are zeros.
    pub(crate) fn covered(&self) -> impl Iterator<Item = Range<u64>> {
        self.reads.iter().map(|r| r.dest_offset..r.dest_offset.saturating_add(r.len))
    }

    /// Bytes that are read.
    pub(crate) fn bytes(&self) -> u64 {
        self.reads.iter().map(|r| r.len).fold(0, u64::saturating_add)
    }
}

/// A shard of every ingredient.
#[derive(Clone, Debug)]
pub(crate) struct ShardSources {
    pub(crate) shard: u32,
    /// Where it is kept.
    pub(crate) tier: Tier,
    /// In pool order.
    pub(crate) ingredients: Vec<Source>,
    /// Whether inner products are wanted, in a run that streams, and of what the base is.
    pub(crate) products: bool,
    pub(crate) base: Option<Source>,
}
