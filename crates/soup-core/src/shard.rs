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
    /// Whether it is that of a soup's first member, and not averaged.
    pub of_first_member: bool,
}

/// Where what a checkpoint stores of a shard goes when it is read: its parts one after the other in the order of the segments,
/// each in the dtype in which it is stored. Where those are the schema's, that is the shard itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// One a segment.
    dtypes: Vec<Dtype>,
    /// `offsets[i]` is where segment `i` begins; one more at the end.
    offsets: Vec<usize>,
}

impl Stored {
    /// The layout of the shard with these segments, whose tensors are stored in `dtype`.
    pub fn new(segments: &[Segment], dtype: impl Fn(&Segment) -> Dtype) -> Stored {
        let dtypes: Vec<Dtype> = segments.iter().map(dtype).collect();
        let mut at = 0;
        let mut offsets = vec![0];
        for (segment, dtype) in segments.iter().zip(&dtypes) {
            at += segment.elements() * dtype.width_bytes() as usize;
            offsets.push(at);
        }
        Stored { dtypes, offsets }
    }

    /// The dtype of segment `index`.
    pub fn dtype(&self, index: usize) -> Dtype {
        self.dtypes[index]
    }

    /// Byte range of `count` elements of segment `index`, from element `first` on.
    pub fn range(&self, index: usize, first: usize, count: usize) -> Range<usize> {
        let width = self.dtypes[index].width_bytes() as usize;
        let start = self.offsets[index] + first * width;
        start..start + count * width
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.offsets[self.dtypes.len()]
    }

    /// Whether every segment is stored in its own dtype.
    pub fn is_native(&self, segments: &[Segment]) -> bool {
        segments.iter().map(|s| s.dtype).eq(self.dtypes.iter().copied())
    }
}

impl Segment {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.range.len() / self.dtype.width_bytes() as usize
    }
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
    for index in schema.tensors_in(&range) {
        let (tensor, t) = (&schema.tensors()[index], schema.range(index));
        let (start, end) = (t.start.max(range.start), t.end.min(range.end));
        if start < end {
            let within = (start - range.start) as usize..(end - range.start) as usize;
            out.push(Segment {
                tensor: index,
                dtype: tensor.dtype,
                range: within,
                of_first_member: schema.is_of_first_member(index),
            });
        }
    }
    out
}

/// Elements of the flattened parameters before byte `offset`, which is an element boundary.
pub fn elements_before(schema: &Schema, offset: u64) -> u64 {
    let before = |(index, tensor): (usize, &crate::schema::TensorSpec)| {
        let range = schema.range(index);
        (offset.min(range.end).saturating_sub(range.start)) / tensor.dtype.width_bytes()
    };
    schema.tensors().iter().enumerate().map(before).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::TensorSpec;

    #[track_caller]
    fn check(bytes_total: u64, shard_bytes: u64, count: u32) {
        let plan = ShardPlan::new(bytes_total);
        assert_eq!((plan.shard_bytes(), plan.count()), (shard_bytes, count));
    }

    #[test]
    fn small_models_are_cut_small_but_not_tiny() {
        check(0, SHARD_BYTES_MIN, 1);
        check(1, SHARD_BYTES_MIN, 1);
        check(SHARD_BYTES_MIN + 1, SHARD_BYTES_MIN, 2);
        check(826_152, SHARD_BYTES_MIN, 13);
    }

    #[test]
    fn large_models_are_cut_to_the_target_until_there_are_too_many_shards() {
        check(1 << 30, SHARD_BYTES_TARGET, 16);
        check(14 << 30, SHARD_BYTES_TARGET, 224);
        check(SHARDS_MAX * SHARD_BYTES_TARGET, SHARD_BYTES_TARGET, 4096);
        check(2 * SHARDS_MAX * SHARD_BYTES_TARGET, 2 * SHARD_BYTES_TARGET, 4096);
    }

    #[test]
    fn a_segment_for_every_tensor_in_the_range_and_none_for_empty_ones() {
        let schema = Schema::new(vec![
            TensorSpec::new("a", Dtype::F32, [3]),
            TensorSpec::new("b", Dtype::F32, [0, 7]),
            TensorSpec::new("c", Dtype::F32, []),
            TensorSpec::new("d", Dtype::U8, [9]),
        ])
        .unwrap();
        let segment = |tensor, dtype, range| Segment { tensor, dtype, range, of_first_member: false };
        assert_eq!(
            segments(&schema, 8..24),
            [segment(0, Dtype::F32, 0..4), segment(2, Dtype::F32, 4..8), segment(3, Dtype::U8, 8..16)]
        );
        assert_eq!(segments(&schema, 8..8), []);
    }

    fn schemas() -> impl Strategy<Value = Schema> {
        // Up to 2 MiB in all, so that some are cut into many shards.
        let tensor = (0..Dtype::ALL.len(), prop_oneof![0u64..9, 0u64..40_000]);
        prop::collection::vec(tensor, 0..12).prop_map(|tensors| {
            let spec = |(i, (dtype, n)): (usize, (usize, u64))| {
                TensorSpec::new(format!("t{i}"), Dtype::ALL[dtype], [n])
            };
            Schema::new(tensors.into_iter().enumerate().map(spec).collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn shards_tile_the_bytes_in_aligned_cuts(bytes_total in prop_oneof![0u64..1 << 22, 0u64..1 << 50]) {
            let plan = ShardPlan::new(bytes_total);
            prop_assert!(plan.count() >= 1 && u64::from(plan.count()) <= SHARDS_MAX);
            let mut at = 0;
            for shard in plan.shards() {
                let range = plan.range(shard);
                prop_assert_eq!(range.start, at);
                prop_assert_eq!(range.start % ALIGN_BYTES, 0);
                prop_assert!(range.end - range.start <= plan.shard_bytes());
                prop_assert!(!range.is_empty() || bytes_total == 0);
                at = range.end;
            }
            prop_assert_eq!(at, bytes_total);
        }

        #[test]
        fn segments_cover_their_shard_exactly_and_never_cut_an_element(schema in schemas()) {
            let plan = ShardPlan::new(schema.bytes());
            let mut bytes_of_tensor = vec![0u64; schema.tensors().len()];
            for shard in plan.shards() {
                let range = plan.range(shard);
                let mut at = 0;
                for segment in segments(&schema, range.clone()) {
                    let width = segment.dtype.width_bytes();
                    let start_in_tensor = range.start + segment.range.start as u64 - schema.range(segment.tensor).start;
                    prop_assert_eq!(segment.range.start, at);
                    prop_assert!(!segment.range.is_empty());
                    prop_assert_eq!(segment.dtype, schema.tensors()[segment.tensor].dtype);
                    prop_assert_eq!(start_in_tensor % width, 0);
                    prop_assert_eq!(segment.range.len() as u64 % width, 0);
                    // Segments of a tensor follow each other.
                    prop_assert_eq!(start_in_tensor, bytes_of_tensor[segment.tensor]);
                    bytes_of_tensor[segment.tensor] += segment.range.len() as u64;
                    at = segment.range.end;
                }
                prop_assert_eq!(at as u64, range.end - range.start);
            }
            for (index, tensor) in schema.tensors().iter().enumerate() {
                prop_assert_eq!(Some(bytes_of_tensor[index]), tensor.bytes());
            }
        }
    }
}
