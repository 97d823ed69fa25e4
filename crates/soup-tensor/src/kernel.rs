//! The loops of a blend on the CPU.
//!
//! A blend reads every member once and writes once, so memory should be the only limit. Elements are taken in blocks,
//! and [`MEMBERS_AT_ONCE`] members a *turn*, so that as few places of memory are read at a time as a processor can keep track
//! of. Within a turn, [`CHUNK`] elements are summed in registers over all its members; between turns the `f64` sums of a block
//! wait in the cache. The last turn writes elements at once: a blend of few members never touches the sums. Additions to one sum
//! still happen one after the other in pool order: neither turns nor vectors change bits.
//!
//! What bounds it: f32, memory; 16-bit formats on few cores, the conversion to `f64`, which processors do for four elements
//! a cycle; few members, rounding the results.

use std::marker::PhantomData;

use bytemuck::Zeroable;

use crate::format::Format;
use crate::simd::{InstructionSet, Job, Simd};

/// Elements of a block. Their sums take 16 KiB.
const BLOCK_ELEMENTS: usize = 2048;

/// Members that are added in one turn.
const MEMBERS_AT_ONCE: usize = 8;

/// Elements whose sums are in registers: half of those that AVX2 has.
const CHUNK: usize = 32;

/// The weights of a blend on one tensor.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Equal weights: add, then divide by the number of members.
    Mean,
    /// One weight a member.
    Explicit(&'a [f64]),
}

/// The sums of one block; reused from block to block.
pub(crate) struct Sums(Vec<[f64; CHUNK]>);

impl Sums {
    pub(crate) fn new() -> Sums {
        Sums(vec![[0.0; CHUNK]; BLOCK_ELEMENTS / CHUNK])
    }
}

/// Blends `members` (the bytes of one run of elements of format `F`, aligned to it) into `out`, which is as long and may
/// be unaligned.
pub(crate) fn blend<F: Format>(members: &[&[u8]], weights: Weights<'_>, sums: &mut Sums, out: &mut [u8]) {
    blend_by::<F>(InstructionSet::widest(), members, weights, sums, out);
}

fn blend_by<F: Format>(
    instructions: InstructionSet,
    members: &[&[u8]],
    weights: Weights<'_>,
    sums: &mut Sums,
    out: &mut [u8],
) {
    let chunk_bytes = CHUNK * size_of::<F::Bits>();
    let (whole, rest) = out.split_at_mut(out.len() / chunk_bytes * chunk_bytes);
    let first = whole.len();
    if !whole.is_empty() {
        instructions.run(Blend::<F> { members, weights, sums, out: whole, format: PhantomData });
    }
    if rest.is_empty() {
        return;
    }
    // What is left is filled up with zeros, for the loops to know whole chunks only.
    let filled = |member: &&[u8]| {
        let mut chunk = [F::Bits::zeroed(); CHUNK];
        bytemuck::cast_slice_mut(&mut chunk)[..rest.len()].copy_from_slice(&member[first..]);
        chunk
    };
    let filled: Vec<[F::Bits; CHUNK]> = members.iter().map(filled).collect();
    let members: Vec<&[u8]> = filled.iter().map(|chunk| bytemuck::cast_slice(chunk)).collect();
    let mut chunk = [F::Bits::zeroed(); CHUNK];
    let out = bytemuck::cast_slice_mut(&mut chunk);
    instructions.run(Blend::<F> { members: &members, weights, sums, out, format: PhantomData });
    rest.copy_from_slice(&bytemuck::cast_slice(&chunk)[..rest.len()]);
}

/// A blend of whole chunks.
struct Blend<'a, F> {
    members: &'a [&'a [u8]],
    weights: Weights<'a>,
    sums: &'a mut Sums,
    out: &'a mut [u8],
    format: PhantomData<F>,
}

impl<F: Format> Job for Blend<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let count = self.members.len();
        match self.weights {
            Weights::Explicit(weights) => self.blocks(simd, Weighted(weights)),
            // Division takes longer than all else. By a power of two it is a product, to the bit.
            Weights::Mean if count.is_power_of_two() => self.blocks(simd, Product(1.0 / count as f64)),
            Weights::Mean => self.blocks(simd, Quotient(count as f64)),
        }
    }
}

/// What is added of a member's element, and what becomes of the sum.
trait Rule: Copy {
    fn term(self, member: usize, x: f64) -> f64;
    fn finish(self, sum: f64) -> f64;
}

#[derive(Clone, Copy)]
struct Weighted<'a>(&'a [f64]);

impl Rule for Weighted<'_> {
    #[inline(always)]
    fn term(self, member: usize, x: f64) -> f64 {
        self.0[member] * x
    }

    #[inline(always)]
    fn finish(self, sum: f64) -> f64 {
        sum
    }
}

/// A mean, by a number that the sum is divided by.
#[derive(Clone, Copy)]
struct Quotient(f64);

impl Rule for Quotient {
    #[inline(always)]
    fn term(self, _: usize, x: f64) -> f64 {
        x
    }

    #[inline(always)]
    fn finish(self, sum: f64) -> f64 {
        sum / self.0
    }
}

/// A mean, by a number that the sum is multiplied by.
#[derive(Clone, Copy)]
struct Product(f64);

impl Rule for Product {
    #[inline(always)]
    fn term(self, _: usize, x: f64) -> f64 {
        x
    }

    #[inline(always)]
    fn finish(self, sum: f64) -> f64 {
        sum * self.0
    }
}

/// Some of the members, on a block.
struct Turn<'a, B> {
    members: &'a [&'a [[B; CHUNK]]],
    /// Position of the first one.
    first: usize,
    is_last: bool,
}

impl<F: Format> Blend<'_, F> {
    #[inline(always)]
    fn blocks<S: Simd, R: Rule>(self, simd: S, rule: R) {
        let block_bytes = BLOCK_ELEMENTS * size_of::<F::Bits>();
        for (block, out) in self.out.chunks_mut(block_bytes).enumerate() {
            let range = block * block_bytes..block * block_bytes + out.len();
            for (turn, some) in self.members.chunks(MEMBERS_AT_ONCE).enumerate() {
                let first = turn * MEMBERS_AT_ONCE;
                let mut members: [&[[F::Bits; CHUNK]]; MEMBERS_AT_ONCE] = [&[]; MEMBERS_AT_ONCE];
                for (member, bytes) in members.iter_mut().zip(some) {
                    *member = bytemuck::cast_slice(&bytes[range.clone()]).as_chunks().0;
                }
                let is_last = first + some.len() == self.members.len();
                let turn = Turn { members: &members[..some.len()], first, is_last };
                add::<F, S, R>(simd, rule, &turn, &mut self.sums.0, out);
            }
        }
    }
}

/// Adds a turn's members to the sums of a block, or, if it is the last one, writes the block.
#[inline(always)]
fn add<F: Format, S: Simd, R: Rule>(
    simd: S,
    rule: R,
    turn: &Turn<'_, F::Bits>,
    sums: &mut [[f64; CHUNK]],
    out: &mut [u8],
) {
    let width = size_of::<F::Bits>();
    for (at, (out, kept)) in out.chunks_exact_mut(CHUNK * width).zip(sums).enumerate() {
        // Adding to -0 keeps every number as it is, including -0.
        let mut sums = if turn.first == 0 { [-0.0; CHUNK] } else { *kept };
        for (member, chunks) in turn.members.iter().enumerate() {
            let chunk = &chunks[at];
            simd.prefetch(chunk);
            for (bits, sums) in chunk.as_chunks::<8>().0.iter().zip(sums.as_chunks_mut::<8>().0) {
                let values = F::widen_8(simd, *bits);
                for (sum, x) in sums.iter_mut().zip(values) {
                    *sum += rule.term(turn.first + member, x);
                }
            }
        }
        if !turn.is_last {
            *kept = sums;
            continue;
        }
        for (out, values) in out.chunks_exact_mut(8 * width).zip(sums.as_chunks_mut::<8>().0) {
            for value in &mut *values {
                *value = rule.finish(*value);
            }
            out.copy_from_slice(bytemuck::cast_slice(&F::narrow_8(simd, *values)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Bf16, F16, F32, F64};

    /// One element after the other, one member after the other.
    fn plain<F: Format>(members: &[&[u8]], weights: Weights<'_>) -> Vec<u8> {
        let elements: Vec<&[F::Bits]> = members.iter().map(|m| bytemuck::cast_slice(m)).collect();
        let one = |at: usize| {
            let mut sum = -0.0;
            for (member, elements) in elements.iter().enumerate() {
                let x = F::widen(elements[at]);
                sum += match weights {
                    Weights::Mean => x,
                    Weights::Explicit(weights) => weights[member] * x,
                };
            }
            F::narrow(if let Weights::Mean = weights { sum / members.len() as f64 } else { sum })
        };
        (0..elements[0].len()).flat_map(|at| bytemuck::bytes_of(&one(at)).to_vec()).collect()
    }

    fn check<F: Format>(pool: &[Vec<u64>], elements: usize, weights: Weights<'_>) {
        let bytes = elements * size_of::<F::Bits>();
        let members: Vec<&[u8]> = pool.iter().map(|m| &bytemuck::cast_slice(m)[..bytes]).collect();
        let expect = plain::<F>(&members, weights);
        let mut sums = Sums::new();
        for set in InstructionSet::all() {
            // One byte off, so that the output is aligned for nothing.
            let mut found = vec![0xaa; bytes + 1];
            blend_by::<F>(set, &members, weights, &mut sums, &mut found[1..]);
            assert!(found[1..] == expect, "{set:?}: {} members, {elements} elements", members.len());
        }
    }

    fn check_all<F: Format>(pool: &[Vec<u64>], elements: usize) {
        let weights: Vec<f64> = (0..pool.len()).map(|m| (m as f64 - 2.7) / 7.0).collect();
        check::<F>(pool, elements, Weights::Mean);
        check::<F>(pool, elements, Weights::Explicit(&weights));
    }

    /// Any bits in all members, so also NaN, infinities and subnormals; or ordinary numbers of 16 and 32 bits.
    fn noise(members: usize, elements: usize, any: bool) -> Vec<Vec<u64>> {
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let bits = state ^ (state >> 29);
            if any { bits } else { (bits & 0x80ff_80ff_80ff_80ff) | 0x3c00_3c00_3c00_3c00 }
        };
        (0..members).map(|_| (0..elements).map(|_| word()).collect()).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_plain_loops() {
        let lengths = [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS + 37];
        for members in [1, 2, 3, 7, 8, 9, 16, 17, 58] {
            for any in [true, false] {
                let pool = noise(members, 2 * BLOCK_ELEMENTS + 37, any);
                for elements in lengths {
                    check_all::<F64>(&pool, elements);
                    check_all::<F32>(&pool, elements);
                    check_all::<F16>(&pool, elements);
                    check_all::<Bf16>(&pool, elements);
                }
            }
        }
    }

    /// Every element of the 16-bit formats, in turn with its neighbours and with others that are far from it.
    #[test]
    fn every_element_of_16_bits_is_blended_alike() {
        let stepping = |step: u16| -> Vec<u64> {
            let all: Vec<u16> =
                (0..=u16::MAX).map(|bits| bits.wrapping_mul(step).wrapping_add(step / 2)).collect();
            all.as_chunks::<4>().0.iter().map(|four| bytemuck::cast(*four)).collect()
        };
        for steps in [&[1, 1][..], &[1, 3], &[1, 1, 5], &[7, 1, 257, 4097, 3, 9, 11, 13, 15]] {
            let pool: Vec<Vec<u64>> = steps.iter().map(|&step| stepping(step)).collect();
            check_all::<F16>(&pool, 1 << 16);
            check_all::<Bf16>(&pool, 1 << 16);
        }
    }
}
