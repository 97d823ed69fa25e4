//! Shards in host memory, blended on the CPU.

use std::num::NonZeroUsize;
use std::ops::Range;

use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};

use crate::device::Buffer;
use crate::format::{Bf16, F16, F32, F64};
use crate::kernel::{self, Sums, Weights};
use crate::threads::share;
use crate::{SegmentDots, SegmentGram, ShardMemory, products};

/// Threads share a shard in pieces of this size: small enough to even out, large enough not to notice.
const PIECE_BYTES: usize = 256 << 10;

/// See the module.
pub(crate) struct HostShards {
    segments: Vec<Segment>,
    tensors: usize,
    buffers: Vec<Buffer>,
    threads: NonZeroUsize,
}

impl HostShards {
    pub(crate) fn new(
        segments: Vec<Segment>,
        tensors: usize,
        buffers: Vec<Buffer>,
        threads: NonZeroUsize,
    ) -> HostShards {
        HostShards { segments, tensors, buffers, threads }
    }
}

/// Refuses a soup or an output that does not fit a shard of `ingredients` ingredients, `tensors` tensors, `bytes` bytes.
pub(crate) fn check_fit(soup: &Soup, ingredients: usize, tensors: usize, bytes: [usize; 2]) -> Result<()> {
    if bytes[0] != bytes[1] {
        return Err(Error::internal(format!(
            "a blend of {} bytes was asked into {} bytes",
            bytes[0], bytes[1]
        )));
    }
    if let Some(member) = soup.members().iter().find(|m| m.index() >= ingredients) {
        let index = member.index();
        return Err(Error::internal(format!(
            "ingredient {index} of a soup is not in the pool of {ingredients}"
        )));
    }
    match soup.rows() {
        Some(rows) if rows.len() != 1 && rows.len() != tensors => Err(Error::internal(format!(
            "a soup has weights for {} tensors, the pool has {tensors}",
            rows.len()
        ))),
        _ => Ok(()),
    }
}

impl ShardMemory for HostShards {
    fn bytes(&self) -> usize {
        self.buffers[0].bytes().len()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        check_fit(soup, self.buffers.len(), self.tensors, [self.bytes(), out.len()])?;
        let members: Vec<&[u8]> = soup.members().iter().map(|m| self.buffers[m.index()].bytes()).collect();
        let rows: Option<Vec<Vec<f64>>> =
            soup.rows().map(|rows| rows.iter().map(|r| r.iter().map(|w| w.get()).collect()).collect());
        let blend = Blend { segments: &self.segments, first: self.buffers[0].bytes(), members, rows };
        share(self.threads, out.chunks_mut(PIECE_BYTES).enumerate(), |(piece, out)| {
            blend.write(piece * PIECE_BYTES, out);
        });
        Ok(())
    }

    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        let buffers: Vec<&[u8]> = self.buffers.iter().map(Buffer::bytes).collect();
        products::dots(&self.segments, &buffers, gradient, self.threads)
    }

    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        let buffers: Vec<&[u8]> = self.buffers.iter().map(Buffer::bytes).collect();
        let base = base.map(Buffer::copied_from);
        products::grams(&self.segments, &buffers, base.as_ref().map(Buffer::bytes), self.threads)
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        let index = ingredient.index();
        let buffer = self.buffers.get(index).ok_or_else(|| {
            Error::internal(format!("ingredient {index} is not in the pool of {}", self.buffers.len()))
        })?;
        Ok(buffer.sha256())
    }

    fn resident_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes().len() as u64).sum()
    }
}

/// One blend of a whole shard, of which threads write pieces.
struct Blend<'a> {
    segments: &'a [Segment],
    /// The first ingredient of the pool, for what is not averaged.
    first: &'a [u8],
    members: Vec<&'a [u8]>,
    /// Explicit weights: one row, or one a tensor.
    rows: Option<Vec<Vec<f64>>>,
}

impl Blend<'_> {
    /// Writes the piece that begins at byte `start` of the shard; a multiple of every element's width.
    fn write(&self, start: usize, out: &mut [u8]) {
        let end = start + out.len();
        let mut sums = Sums::new();
        let from = self.segments.partition_point(|s| s.range.end <= start);
        for segment in self.segments[from..].iter().take_while(|s| s.range.start < end) {
            let range = segment.range.start.max(start)..segment.range.end.min(end);
            let out = &mut out[range.start - start..range.end - start];
            self.write_segment(segment, range, &mut sums, out);
        }
    }

    fn write_segment(&self, segment: &Segment, range: Range<usize>, sums: &mut Sums, out: &mut [u8]) {
        let weights = match &self.rows {
            None => Weights::Mean,
            Some(rows) if rows.len() == 1 => Weights::Explicit(&rows[0]),
            Some(rows) => Weights::Explicit(&rows[segment.tensor]),
        };
        if !segment.dtype.is_float() {
            return out.copy_from_slice(&self.first[range]);
        }
        if let (Weights::Mean, [only]) = (weights, self.members.as_slice()) {
            return out.copy_from_slice(&only[range]);
        }
        let members: Vec<&[u8]> = self.members.iter().map(|m| &m[range.clone()]).collect();
        match segment.dtype {
            Dtype::F64 => kernel::blend::<F64>(&members, weights, sums, out),
            Dtype::F32 => kernel::blend::<F32>(&members, weights, sums, out),
            Dtype::F16 => kernel::blend::<F16>(&members, weights, sums, out),
            Dtype::BF16 => kernel::blend::<Bf16>(&members, weights, sums, out),
            _ => {}
        }
    }
}
