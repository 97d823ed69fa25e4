//! The loops of a blend on the CPU.
//!
//! A blend reads every member once and writes once, so memory should be the only limit. Elements are taken in blocks
//! whose `f64` sums stay in the cache, and [`MEMBERS_AT_ONCE`] members a turn, so that the sums are loaded and stored
//! once a turn and not once a member. Additions to one sum still happen one after the other in pool order: turns do not
//! change bits.

use crate::format::Format;

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

/// The sums of one block; reused from block to block.
pub(crate) struct Sums(Vec<f64>);

impl Sums {
    pub(crate) fn new() -> Sums {
        Sums(vec![0.0; BLOCK_ELEMENTS])
    }
}

/// Blends `members` (the bytes of one run of elements of format `F`, aligned to it) into `out`, which is as long and may
/// be unaligned.
pub(crate) fn blend<F: Format>(members: &[&[u8]], weights: Weights<'_>, sums: &mut Sums, out: &mut [u8]) {
    let width = size_of::<F::Bits>();
    for (block, out) in out.chunks_mut(BLOCK_ELEMENTS * width).enumerate() {
        let start = block * BLOCK_ELEMENTS * width;
        let sums = &mut sums.0[..out.len() / width];
        // Adding to -0 keeps every number as it is, including -0.
        sums.fill(-0.0);
        let range = start..start + out.len();
        for (turn, some) in members.chunks(MEMBERS_AT_ONCE).enumerate() {
            let first = turn * MEMBERS_AT_ONCE;
            match weights {
                Weights::Mean => add_some::<F>(sums, some, &range, |_, x| x),
                Weights::Explicit(w) => {
                    let w = &w[first..first + some.len()];
                    add_some::<F>(sums, some, &range, |member, x| w[member] * x);
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

/// Adds up to [`MEMBERS_AT_ONCE`] members to the sums.
fn add_some<F: Format>(
    sums: &mut [f64],
    members: &[&[u8]],
    range: &std::ops::Range<usize>,
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
