//! A blend of a whole shard, of which threads write pieces.

use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::Soup;
use soup_core::{Error, Result};

use crate::format::{Bf16, F16, F32, F64};
use crate::kernel::{self, Sums, Weights};
use crate::layout::Layout;
use crate::source::{Scratch, Source};
use crate::threads::share;

/// Threads share a shard in pieces of this size: small enough to even out, large enough not to notice. From a disk, a thread
/// reads so much of every member at a time.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

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

/// Writes the blend of `soup` over `source`, a shard in `layout`, to `out`.
///
/// # Errors
/// Where the soup or `out` does not fit, or an ingredient cannot be read.
pub(crate) fn blend(source: &dyn Source, layout: &Layout, soup: &Soup, out: &mut [u8]) -> Result<()> {
    layout.check_blend(soup, out.len())?;
    let blend = Blend { source, segments: layout.segments(), parts: Parts::new(soup) };
    share(layout.threads(), out.chunks_mut(PIECE_BYTES).enumerate(), Hand::new, |hand, (piece, out)| {
        blend.write(piece * PIECE_BYTES, hand, out)
    })
}

struct Blend<'a> {
    source: &'a dyn Source,
    segments: &'a [Segment],
    parts: Parts,
}

/// What a thread keeps from piece to piece.
struct Hand {
    sums: Sums,
    members: Scratch,
    first: Scratch,
}

impl Hand {
    fn new() -> Hand {
        Hand { sums: Sums::new(), members: Scratch::default(), first: Scratch::default() }
    }
}

impl Blend<'_> {
    /// Writes the piece that begins at byte `start` of the shard; a multiple of every element's width.
    fn write(&self, start: usize, hand: &mut Hand, out: &mut [u8]) -> Result<()> {
        let end = start + out.len();
        let Hand { sums, members, first } = hand;
        let from = self.segments.partition_point(|s| s.range.end <= start);
        let segments = self.segments[from..].iter().take_while(|s| s.range.start < end);
        let mut lent = None;
        for segment in segments {
            let range = segment.range.start.max(start)..segment.range.end.min(end);
            let within = range.start - start..range.end - start;
            let out = &mut out[within.clone()];
            if !segment.dtype.is_float() {
                // What is not averaged is the first ingredient's of the pool.
                out.copy_from_slice(self.source.lend(&[0], range, first)?[0]);
                continue;
            }
            if lent.is_none() {
                // All of the piece at once: a disk is asked once for many small tensors.
                lent = Some(self.source.lend(&self.parts.members, start..end, &mut *members)?);
            }
            let members: Vec<&[u8]> = lent.iter().flatten().map(|m| &m[within.clone()]).collect();
            self.parts.write(segment, &members, sums, out);
        }
        Ok(())
    }
}

/// Whose elements a segment of a soup has, where it has those of one member, bit for bit.
pub(crate) fn copied<T: Copy>(segment: &Segment, weights: Weights<'_>, members: &[T]) -> Option<T> {
    let alone = segment.of_first_member || (members.len() == 1 && matches!(weights, Weights::Mean));
    members.first().copied().filter(|_| alone)
}

/// A soup, as it is applied to elements.
pub(crate) struct Parts {
    pub(crate) members: Vec<usize>,
    /// Explicit weights: one row, or one a tensor.
    rows: Option<Vec<Vec<f64>>>,
}

impl Parts {
    pub(crate) fn new(soup: &Soup) -> Parts {
        let weights = |row: &[soup_core::soup::Weight]| row.iter().map(|w| w.get()).collect();
        Parts {
            members: soup.members().iter().map(|m| m.index()).collect(),
            rows: soup.rows().map(|rows| rows.iter().map(|row| weights(row)).collect()),
        }
    }

    /// The weights on tensor `tensor`.
    pub(crate) fn weights(&self, tensor: usize) -> Weights<'_> {
        match &self.rows {
            None => Weights::Mean,
            Some(rows) if rows.len() == 1 => Weights::Explicit(&rows[0]),
            Some(rows) => Weights::Explicit(&rows[tensor]),
        }
    }

    /// Writes the blend of some elements of a segment that is averaged, of which `members` are those of every member.
    pub(crate) fn write(&self, segment: &Segment, members: &[&[u8]], sums: &mut Sums, out: &mut [u8]) {
        let weights = self.weights(segment.tensor);
        if let Some(copied) = copied(segment, weights, members) {
            return out.copy_from_slice(copied);
        }
        match segment.dtype {
            Dtype::F64 => kernel::blend::<F64>(members, weights, sums, out),
            Dtype::F32 => kernel::blend::<F32>(members, weights, sums, out),
            Dtype::F16 => kernel::blend::<F16>(members, weights, sums, out),
            Dtype::BF16 => kernel::blend::<Bf16>(members, weights, sums, out),
            // The caller takes averaged segments only.
            _ => {}
        }
    }
}
