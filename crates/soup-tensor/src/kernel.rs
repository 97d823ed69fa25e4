//! The loops of a blend on the CPU.
//!
//! A blend reads every member once and writes once, so memory should be the only limit. Elements are taken in blocks
//! whose `f64` sums stay in the cache, and [`MEMBERS_AT_ONCE`] members a turn, so that the sums are loaded and stored
//! once a turn and not once a member. Additions to one sum still happen one after the other in pool order: turns do not
//! change bits.
//!
//! `unsafe` is allowed here for one call: of the same loops compiled for wider vectors, where the processor has them.
//! Without it one thread blends bf16 at six tenths of the speed (measured), because arithmetic is then the limit.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::format::{F32, Format};

/// Elements of a block. Their sums take 32 KiB.
const BLOCK_ELEMENTS: usize = 4096;

/// Members that are added in one turn.
const MEMBERS_AT_ONCE: usize = 4;

/// The weights of a blend on one tensor.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// Equal weights: add, then divide by the number of members.
    Mean,
    /// One weight a member.
    Explicit(&'a [f64]),
}

/// The sums of one block, and room for the members of a turn; reused from block to block.
pub(crate) struct Sums {
    sums: Vec<f64>,
    staged: [Vec<f32>; MEMBERS_AT_ONCE],
}

impl Sums {
    pub(crate) fn new() -> Sums {
        Sums { sums: vec![0.0; BLOCK_ELEMENTS], staged: std::array::from_fn(|_| vec![0.0; BLOCK_ELEMENTS]) }
    }
}

/// Blends `members` (the bytes of one run of elements of format `F`, aligned to it) into `out`, which is as long and may
/// be unaligned.
pub(crate) fn blend<F: Format>(members: &[&[u8]], weights: Weights<'_>, sums: &mut Sums, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { blend_avx2::<F>(members, weights, sums, out) };
    }
    blend_portable::<F>(members, weights, sums, out);
}

/// The same code for vectors twice as wide as those that every x86-64 processor has. The same operations in the same
/// order (and never a fused multiply-add), so the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blend_avx2<F: Format>(members: &[&[u8]], weights: Weights<'_>, sums: &mut Sums, out: &mut [u8]) {
    blend_portable::<F>(members, weights, sums, out);
}

#[inline(always)]
fn blend_portable<F: Format>(members: &[&[u8]], weights: Weights<'_>, sums: &mut Sums, out: &mut [u8]) {
    let width = size_of::<F::Bits>();
    for (block, out) in out.chunks_mut(BLOCK_ELEMENTS * width).enumerate() {
        let start = block * BLOCK_ELEMENTS * width;
        let Sums { sums, staged } = sums;
        let sums = &mut sums[..out.len() / width];
        // Adding to -0 keeps every number as it is, including -0.
        sums.fill(-0.0);
        let range = start..start + out.len();
        for (turn, some) in members.chunks(MEMBERS_AT_ONCE).enumerate() {
            let first = turn * MEMBERS_AT_ONCE;
            match weights {
                Weights::Mean => add_some::<F>(sums, staged, some, &range, |_, x| x),
                Weights::Explicit(w) => {
                    let w = &w[first..first + some.len()];
                    add_some::<F>(sums, staged, some, &range, |member, x| w[member] * x);
                }
            }
        }
        match weights {
            Weights::Mean => {
                let count = members.len() as f64;
                store::<F>(sums, out, |sum| sum / count);
            }
            Weights::Explicit(_) => store::<F>(sums, out, |sum| sum),
        }
    }
}

/// Adds the bytes `range` of up to [`MEMBERS_AT_ONCE`] members to the sums.
#[inline(always)]
fn add_some<F: Format>(
    sums: &mut [f64],
    staged: &mut [Vec<f32>; MEMBERS_AT_ONCE],
    members: &[&[u8]],
    range: &Range<usize>,
    term: impl Fn(usize, f64) -> f64,
) {
    if F::STAGED {
        for (member, staged) in members.iter().zip(&mut *staged) {
            F::stage(bytemuck::cast_slice(&member[range.clone()]), &mut staged[..sums.len()]);
        }
        let whole = 0..size_of_val(&staged[0][..sums.len()]);
        let staged_members: [&[u8]; MEMBERS_AT_ONCE] =
            std::array::from_fn(|at| bytemuck::cast_slice(&staged[at]));
        add_up_to_4::<F32>(sums, &staged_members[..members.len()], &whole, term);
    } else {
        add_up_to_4::<F>(sums, members, range, term);
    }
}

#[inline(always)]
fn add_up_to_4<F: Format>(
    sums: &mut [f64],
    members: &[&[u8]],
    range: &Range<usize>,
    term: impl Fn(usize, f64) -> f64,
) {
    let elements = |member: usize| -> &[F::Bits] { bytemuck::cast_slice(&members[member][range.clone()]) };
    match members.len() {
        1 => add::<F, 1>(sums, [0].map(elements), term),
        2 => add::<F, 2>(sums, [0, 1].map(elements), term),
        3 => add::<F, 3>(sums, [0, 1, 2].map(elements), term),
        _ => add::<F, 4>(sums, [0, 1, 2, 3].map(elements), term),
    }
}

#[inline(always)]
fn add<F: Format, const N: usize>(
    sums: &mut [f64],
    members: [&[F::Bits]; N],
    term: impl Fn(usize, f64) -> f64,
) {
    let count = sums.len();
    // Equal lengths, said so that the compiler sees it and checks no index in the loop.
    let members = members.map(|m| &m[..count]);
    for i in 0..count {
        let mut sum = sums[i];
        for (member, elements) in members.iter().enumerate() {
            sum += term(member, F::widen(elements[i]));
        }
        sums[i] = sum;
    }
}

#[inline(always)]
fn store<F: Format>(sums: &[f64], out: &mut [u8], finish: impl Fn(f64) -> f64) {
    for (&sum, out) in sums.iter().zip(out.chunks_exact_mut(size_of::<F::Bits>())) {
        out.copy_from_slice(bytemuck::bytes_of(&F::narrow(finish(sum))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Bf16, F16, F64};

    /// On a processor without the wider vectors both are the same code.
    fn check<F: Format>(weights: Weights<'_>) {
        // Any bits; longer than a block, and no multiple of a vector.
        let width = size_of::<F::Bits>();
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ (state >> 29)
        };
        let members: Vec<Vec<u64>> =
            (0..7).map(|_| (0..BLOCK_ELEMENTS + 100).map(|_| word()).collect()).collect();
        let bytes = (BLOCK_ELEMENTS + 37) * width;
        let members: Vec<&[u8]> = members.iter().map(|m| &bytemuck::cast_slice(m)[..bytes]).collect();
        let (mut portable, mut wide) = (vec![1; bytes], vec![2; bytes]);
        blend_portable::<F>(&members, weights, &mut Sums::new(), &mut portable);
        blend::<F>(&members, weights, &mut Sums::new(), &mut wide);
        assert!(portable == wide);
    }

    #[test]
    fn wider_vectors_give_the_same_bits() {
        for weights in [Weights::Mean, Weights::Explicit(&[0.1, -0.2, 0.3, 0.7, 1e-9, 3.0, 0.5])] {
            check::<F64>(weights);
            check::<F32>(weights);
            check::<F16>(weights);
            check::<Bf16>(weights);
        }
    }
}
