//! Cutting the flattened parameters into shards, by bytes.

use std::ops::Range;

use crate::schema::{ALIGN_BYTES, Dtype, Schema};

/// A shard, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u32);

/// Equal cuts of the flattened parameters. Depends on the pool alone, never on the cluster, so that digests of
/// shards are reproducible anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    bytes_total: u64,
    shard_bytes: u64,
}

/// Part of one tensor inside a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position of the tensor in the schema.
    pub tensor: usize,
    /// Its dtype.
    pub dtype: Dtype,
    /// Byte range inside the shard.
    pub range: Range<usize>,
}

/// Largest number of shards a pool is cut into.
pub const SHARDS_MAX: u64 = 4096;
/// Shards are not cut smaller than this, unless the whole model is smaller.
pub const SHARD_BYTES_MIN: u64 = 64 << 10;
/// The size shards are cut to where the model is large enough.
pub const SHARD_BYTES_TARGET: u64 = 64 << 20;
/// At least this many shards where they would not fall under [`SHARD_BYTES_MIN`], so that small models spread too.
pub const SHARDS_WANTED: u64 = 16;

impl ShardPlan {
    /// The cut of a model of `bytes_total` bytes.
    pub fn new(bytes_total: u64) -> ShardPlan {
        let wanted = bytes_total
            .div_ceil(SHARDS_WANTED)
            .clamp(SHARD_BYTES_MIN, SHARD_BYTES_TARGET)
            .max(bytes_total.div_ceil(SHARDS_MAX));
        ShardPlan { bytes_total, shard_bytes: wanted.next_multiple_of(ALIGN_BYTES) }
    }

    /// Bytes of every shard but the last.
    pub fn shard_bytes(&self) -> u64 {
        self.shard_bytes
    }

    /// Bytes of the flattened parameters.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Number of shards; at least one, so that an empty model still has an owner.
    pub fn count(&self) -> u32 {
        // At most SHARDS_MAX, so it fits.
        self.bytes_total.div_ceil(self.shard_bytes).max(1) as u32
    }

    /// All shards in order.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.count()).map(Shard)
    }

    /// Byte range of `shard` in the flattened parameters.
    pub fn range(&self, shard: Shard) -> Range<u64> {
        let start = u64::from(shard.0) * self.shard_bytes;
        start.min(self.bytes_total)..(start + self.shard_bytes).min(self.bytes_total)
    }
}

/// The parts of tensors that lie in the byte range `range` of the flattened parameters, in order, covering it exactly.
/// Tensors without elements have no segment.
pub fn segments(schema: &Schema, range: Range<u64>) -> Vec<Segment> {
    let mut out = Vec::new();
    for (index, tensor) in schema.tensors().iter().enumerate() {
        let t = schema.range(index);
        let (start, end) = (t.start.max(range.start), t.end.min(range.end));
        if start < end {
            let within = (start - range.start) as usize..(end - range.start) as usize;
            out.push(Segment { tensor: index, dtype: tensor.dtype, range: within });
        }
    }
    out
}
