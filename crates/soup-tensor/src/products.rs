//! Inner products on the CPU: of a gradient with every ingredient, the transpose of the blend; and of all ingredients with
//! each other ([`grams`]).
//!
//! Sums are in `f64` and in one order, whatever the processor and the number of threads: element e of a block is added to
//! lane e mod [`LANES`], lanes are added up at the end of the block, blocks at the end of their piece, pieces at the end of
//! the shard. The lanes are what the compiler makes vectors of.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::{Error, Result};

use crate::buffer::Buffer;
use crate::format::{Bf16, F16, F32, F64, Format};
use crate::simd::{InstructionSet, Job, Simd};
use crate::source::{Scratch, Source};
use crate::threads::share;
use crate::{SegmentDots, SegmentGram};

/// Elements of a block: it and the gradient's stay in the cache while all ingredients are multiplied.
const BLOCK_ELEMENTS: usize = 4096;
/// Elements that threads take at a time.
pub(crate) const PIECE_ELEMENTS: usize = 64 << 10;
/// Independent sums.
const LANES: usize = 16;

/// Sum of `a[e] * b[e]`, `b` in format `F`.
fn dot<F: Format>(a: &[f32], b: &[F::Bits], staged: &mut [f32]) -> f64 {
    InstructionSet::widest().run(Dot::<F> { a, b, staged })
}

struct Dot<'a, F: Format> {
    a: &'a [f32],
    b: &'a [F::Bits],
    staged: &'a mut [f32],
}

impl<F: Format> Job for Dot<'_, F> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let Dot { a, b, staged } = self;
        if F::STAGED {
            let staged = &mut staged[..b.len()];
            F::stage(b, staged);
            lanes::<F32>(a, bytemuck::cast_slice(staged))
        } else {
            lanes::<F>(a, b)
        }
    }
}

#[inline(always)]
fn lanes<F: Format>(a: &[f32], b: &[F::Bits]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * F::widen(b[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += f64::from(*a) * F::widen(*b);
    }
    sums.into_iter().sum()
}

/// A range of one segment's elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: usize,
    /// First element in the shard, and in the segment.
    in_shard: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// Cuts the segments into the pieces in which products are summed, in order; those that are copied too.
pub(crate) fn pieces(segments: &[Segment]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut in_shard = 0;
    for (segment, s) in segments.iter().enumerate() {
        for first in (0..s.elements()).step_by(PIECE_ELEMENTS) {
            let count = PIECE_ELEMENTS.min(s.elements() - first);
            pieces.push(Piece { segment, in_shard: in_shard + first, first, count });
        }
        in_shard += s.elements();
    }
    pieces
}

/// Adds the sums of the next piece to those of its segment, which `all` has by position.
pub(crate) fn add_piece(all: &mut Vec<(usize, Vec<f64>)>, segment: usize, sums: Vec<f64>) {
    match all.last_mut().filter(|(last, _)| *last == segment) {
        Some((_, open)) => open.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum),
        None => all.push((segment, sums)),
    }
}

impl Piece {
    /// Its bytes in the shard.
    pub(crate) fn range(&self, segments: &[Segment]) -> Range<usize> {
        let segment = &segments[self.segment];
        let width = segment.dtype.width_bytes() as usize;
        let start = segment.range.start + self.first * width;
        start..start + self.count * width
    }
}

/// The products of `gradient` (one value an element of the shard) with every ingredient, for each segment of averaged
/// elements, in order.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where the gradient has another number of elements; where an
/// ingredient cannot be read.
pub(crate) fn dots(
    segments: &[Segment],
    source: &dyn Source,
    gradient: &[f32],
    threads: NonZeroUsize,
) -> Result<Vec<SegmentDots>> {
    check_gradient(segments, gradient.len())?;
    let summed = sum_pieces(segments, source, threads, |piece, parts| {
        let gradient = &gradient[piece.in_shard..piece.in_shard + piece.count];
        multiply(segments[piece.segment].dtype, parts, gradient)
    })?;
    Ok(summed.into_iter().map(|(tensor, dots)| SegmentDots { tensor, dots }).collect())
}

/// Refuses a gradient of another number of values than the segments have elements.
pub(crate) fn check_gradient(segments: &[Segment], values: usize) -> Result<()> {
    let total: usize = segments.iter().map(Segment::elements).sum();
    if total != values {
        return Err(Error::internal(format!("a gradient of {values} values for {total} elements")));
    }
    Ok(())
}

/// Refuses a base of `base` bytes for a shard of `bytes`, unless they are as many.
pub(crate) fn check_base(bytes: usize, base: usize) -> Result<()> {
    if base != bytes {
        return Err(Error::internal(format!("a base of {base} bytes for a shard of {bytes}")));
    }
    Ok(())
}

/// Cuts the segments that are averaged into pieces, has threads `work` on them, each with the piece of every ingredient, and adds
/// up what that gives, for each segment in the order of its pieces. Gives the segments' tensors and sums, in order.
fn sum_pieces(
    segments: &[Segment],
    source: &dyn Source,
    threads: NonZeroUsize,
    work: impl Fn(&Piece, &[&[u8]]) -> Vec<f64> + Sync,
) -> Result<Vec<(usize, Vec<f64>)>> {
    let averaged = |piece: &Piece| segments[piece.segment].dtype.is_float();
    let pieces = pieces(segments).into_iter().filter(averaged);
    let pieces: Vec<(Piece, Mutex<Vec<f64>>)> = pieces.map(|piece| (piece, Mutex::default())).collect();
    let all: Vec<usize> = (0..source.ingredients()).collect();
    share(threads, pieces.iter(), Scratch::default, |scratch, (piece, sums)| {
        let parts = source.lend(&all, piece.range(segments), scratch)?;
        *sums.lock().unwrap_or_else(PoisonError::into_inner) = work(piece, &parts);
        Ok(())
    })?;
    let mut out = Vec::new();
    for (piece, sums) in pieces {
        add_piece(&mut out, piece.segment, sums.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    Ok(out.into_iter().map(|(segment, sums)| (segments[segment].tensor, sums)).collect())
}

/// The products on the elements of a piece: as many as `gradient` has, `parts` are those of every ingredient.
fn multiply(dtype: Dtype, parts: &[&[u8]], gradient: &[f32]) -> Vec<f64> {
    match dtype {
        Dtype::F64 => multiply_as::<F64>(parts, gradient),
        Dtype::F32 => multiply_as::<F32>(parts, gradient),
        Dtype::F16 => multiply_as::<F16>(parts, gradient),
        Dtype::BF16 => multiply_as::<Bf16>(parts, gradient),
        // The caller takes averaged segments only.
        _ => vec![0.0; parts.len()],
    }
}

fn multiply_as<F: Format>(parts: &[&[u8]], gradient: &[f32]) -> Vec<f64> {
    let width = size_of::<F::Bits>();
    let mut sums = vec![0.0; parts.len()];
    let mut staged = vec![0.0; if F::STAGED { BLOCK_ELEMENTS } else { 0 }];
    for (block, gradient) in gradient.chunks(BLOCK_ELEMENTS).enumerate() {
        let start = block * BLOCK_ELEMENTS * width;
        for (sum, part) in sums.iter_mut().zip(parts) {
            let elements = bytemuck::cast_slice(&part[start..start + gradient.len() * width]);
            *sum += dot::<F>(gradient, elements, &mut staged);
        }
    }
    sums
}

/// Elements whose deltas are held at a time: those of 58 ingredients fit the second-level cache.
const GRAM_BLOCK_ELEMENTS: usize = 256;

/// For each segment of averaged elements, in order: the inner products of the vectors d_1 ... d_k, o on it, where o is the
/// origin (`base`, or else the mean of the ingredients in `f64`) and d_i is ingredient i minus o, exactly.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where `base` is not as long as the shard; where an ingredient cannot
/// be read.
pub(crate) fn grams(
    segments: &[Segment],
    source: &dyn Source,
    base: Option<&[u8]>,
    threads: NonZeroUsize,
) -> Result<Vec<SegmentGram>> {
    if let Some(base) = base {
        check_base(source.bytes(), base.len())?;
    }
    let base = base.map(Buffer::copied_from);
    let base = base.as_ref().map(Buffer::bytes);
    let summed = sum_pieces(segments, source, threads, |piece, parts| {
        let base = base.map(|base| &base[piece.range(segments)]);
        gram(segments[piece.segment].dtype, parts, base)
    })?;
    Ok(summed.into_iter().map(|(tensor, packed)| SegmentGram { tensor, packed }).collect())
}

/// The inner products on the elements of a piece, of which `parts` are those of every ingredient.
pub(crate) fn gram(dtype: Dtype, parts: &[&[u8]], base: Option<&[u8]>) -> Vec<f64> {
    match dtype {
        Dtype::F64 => gram_as::<F64>(parts, base),
        Dtype::F32 => gram_as::<F32>(parts, base),
        Dtype::F16 => gram_as::<F16>(parts, base),
        Dtype::BF16 => gram_as::<Bf16>(parts, base),
        // The caller takes averaged segments only.
        _ => Vec::new(),
    }
}

fn gram_as<F: Format>(parts: &[&[u8]], base: Option<&[u8]>) -> Vec<f64> {
    let width = size_of::<F::Bits>();
    let elements = parts.first().map_or(0, |part| part.len() / width);
    let vectors = parts.len() + 1;
    let mut packed = vec![0.0; vectors * (vectors + 1) / 2];
    let mut deltas = vec![vec![0.0f64; GRAM_BLOCK_ELEMENTS]; vectors];
    for first in (0..elements).step_by(GRAM_BLOCK_ELEMENTS) {
        let count = GRAM_BLOCK_ELEMENTS.min(elements - first);
        let start = first * width;
        let widen = |bytes: &[u8], out: &mut [f64]| {
            let bits: &[F::Bits] = bytemuck::cast_slice(&bytes[start..start + count * width]);
            out.iter_mut().zip(bits).for_each(|(out, b)| *out = F::widen(*b));
        };
        deltas.iter_mut().zip(parts).for_each(|(delta, part)| widen(part, delta));
        if let Some((origin, deltas)) = deltas.split_last_mut() {
            match base {
                Some(base) => widen(base, origin),
                None => mean(deltas, &mut origin[..count]),
            }
            for delta in deltas {
                delta.iter_mut().zip(&*origin).for_each(|(d, o)| *d -= o);
            }
        }
        multiply_all(&deltas, count, &mut packed);
    }
    packed
}

fn mean(values: &[Vec<f64>], sums: &mut [f64]) {
    sums.fill(0.0);
    for value in values {
        sums.iter_mut().zip(value).for_each(|(sum, v)| *sum += v);
    }
    sums.iter_mut().for_each(|sum| *sum /= values.len() as f64);
}

/// Adds the inner products of the first `count` elements of every two vectors to the upper triangle, row by row.
fn multiply_all(vectors: &[Vec<f64>], count: usize, packed: &mut [f64]) {
    let pairs = vectors.iter().enumerate().flat_map(|(i, a)| vectors[i..].iter().map(move |b| (a, b)));
    for (product, (a, b)) in packed.iter_mut().zip(pairs) {
        *product += inner(&a[..count], &b[..count]);
    }
}

/// Sum of `a[e] * b[e]`.
fn inner(a: &[f64], b: &[f64]) -> f64 {
    InstructionSet::widest().run(Inner { a, b })
}

struct Inner<'a> {
    a: &'a [f64],
    b: &'a [f64],
}

impl Job for Inner<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let Inner { a, b } = self;
        let mut sums = [0.0f64; LANES];
        let (a_blocks, a_rest) = a.as_chunks::<LANES>();
        let (b_blocks, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a_blocks.iter().zip(b_blocks) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
            sums[lane] += a * b;
        }
        sums.into_iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Lent;

    fn any_numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    fn bytes_of(dtype: Dtype, values: &[f32]) -> Vec<u8> {
        match dtype {
            Dtype::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().map(|_| 7).collect(),
        }
    }

    fn widened(dtype: Dtype, value: f32) -> f64 {
        match dtype {
            Dtype::F16 => half::f16::from_f32(value).to_f64(),
            Dtype::BF16 => half::bf16::from_f32(value).to_f64(),
            _ => f64::from(value),
        }
    }

    /// Tensors of every dtype, one of them copied, sizes around a block, a piece and a lane.
    const SHAPE: [(Dtype, usize); 6] = [
        (Dtype::F64, 17),
        (Dtype::F32, PIECE_ELEMENTS + BLOCK_ELEMENTS + 3),
        (Dtype::F32, 1),
        (Dtype::F16, BLOCK_ELEMENTS + 5),
        (Dtype::BF16, 100),
        (Dtype::U8, 9),
    ];

    fn shard(ingredients: usize) -> (Vec<Segment>, Vec<Vec<f32>>, Vec<Vec<u64>>) {
        let total: usize = SHAPE.iter().map(|(_, n)| n).sum();
        let values: Vec<Vec<f32>> = (0..ingredients).map(|i| any_numbers(total, i as u32)).collect();
        let (mut segments, mut at) = (Vec::new(), 0);
        for (tensor, (dtype, count)) in SHAPE.into_iter().enumerate() {
            let bytes = count * dtype.width_bytes() as usize;
            segments.push(Segment { tensor, dtype, range: at..at + bytes, of_first_member: false });
            // Elements are aligned to their width, as in a schema of descending widths.
            at = (at + bytes).next_multiple_of(8);
        }
        let buffers = values
            .iter()
            .map(|values| {
                let mut words = vec![0u64; at / 8];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
                let mut rest = values.as_slice();
                for segment in &segments {
                    let (own, others) =
                        rest.split_at(segment.range.len() / segment.dtype.width_bytes() as usize);
                    bytes[segment.range.clone()].copy_from_slice(&bytes_of(segment.dtype, own));
                    rest = others;
                }
                words
            })
            .collect();
        (segments, values, buffers)
    }

    #[test]
    fn products_are_those_of_a_plain_loop_and_the_same_bits_on_any_number_of_threads() {
        let (segments, values, words) = shard(3);
        let buffers = Lent(words.iter().map(|w| bytemuck::cast_slice(w)).collect());
        let total: usize = SHAPE.iter().map(|(_, n)| n).sum();
        let gradient = any_numbers(total, 99);
        let threads = |n| NonZeroUsize::new(n).unwrap();
        let got = dots(&segments, &buffers, &gradient, threads(1)).unwrap();
        assert_eq!(
            got.iter().map(|s| s.tensor).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4],
            "what is copied has no products"
        );
        let mut first = 0;
        for (segment, (dtype, count)) in got.iter().zip(SHAPE) {
            for (values, dot) in values.iter().zip(&segment.dots) {
                let plain: f64 =
                    (first..first + count).map(|e| f64::from(gradient[e]) * widened(dtype, values[e])).sum();
                assert!((dot - plain).abs() < 1e-9, "{dtype} {dot} {plain}");
            }
            first += count;
        }
        for n in [2, 3, 8] {
            assert_eq!(dots(&segments, &buffers, &gradient, threads(n)).unwrap(), got);
        }
    }

    #[test]
    fn wider_vectors_give_the_same_bits() {
        let (a, b) = (any_numbers(BLOCK_ELEMENTS - 7, 1), any_numbers(BLOCK_ELEMENTS - 7, 2));
        let bits: &[u32] = bytemuck::cast_slice(&b);
        let portable = InstructionSet::Portable.run(Dot::<F32> { a: &a, b: bits, staged: &mut [] });
        assert_eq!(dot::<F32>(&a, bits, &mut []).to_bits(), portable.to_bits());
    }

    #[test]
    fn a_gradient_of_another_length_is_refused() {
        let (segments, _, words) = shard(1);
        let buffers = Lent(words.iter().map(|w| bytemuck::cast_slice(w)).collect());
        assert!(dots(&segments, &buffers, &[0.0; 3], NonZeroUsize::MIN).is_err());
    }

    #[test]
    fn inner_products_are_those_of_a_plain_loop_and_the_same_bits_on_any_number_of_threads() {
        let (segments, values, words) = shard(3);
        let (_, base_values, base_words) = shard(4);
        let buffers = Lent(words.iter().map(|w| bytemuck::cast_slice(w)).collect());
        let base: &[u8] = bytemuck::cast_slice(&base_words[3]);
        for base in [None, Some(base)] {
            let got = grams(&segments, &buffers, base, NonZeroUsize::MIN).unwrap();
            assert_eq!(got.len(), 5, "what is copied has no products");
            let mut first = 0;
            for (segment, (dtype, count)) in got.iter().zip(SHAPE) {
                let at = |values: &[f32], e: usize| widened(dtype, values[e]);
                let origin = |e: usize| match base {
                    Some(_) => at(&base_values[3], e),
                    None => values.iter().map(|v| at(v, e)).sum::<f64>() / 3.0,
                };
                let vector =
                    |i: usize, e: usize| if i == 3 { origin(e) } else { at(&values[i], e) - origin(e) };
                let pairs = (0..4).flat_map(|i| (i..4).map(move |j| (i, j)));
                for ((i, j), product) in pairs.zip(&segment.packed) {
                    let plain: f64 = (first..first + count).map(|e| vector(i, e) * vector(j, e)).sum();
                    assert!((product - plain).abs() < 1e-8, "{dtype} {i} {j}: {product} {plain}");
                }
                first += count;
            }
            for n in [2, 5] {
                assert_eq!(grams(&segments, &buffers, base, NonZeroUsize::new(n).unwrap()).unwrap(), got);
            }
        }
        assert!(grams(&segments, &buffers, Some(&[0; 8]), NonZeroUsize::MIN).is_err());
    }
}
