//! The products of pairs by AVX512-BF16, which pulp has no word for.

// The one instruction for it, and what is read and written for that.
#![allow(unsafe_code)]

use super::factors::Pair;
use super::product::Sums;

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn is_there() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn add<const R: usize, const P: usize>(_: [&[Pair]; R], _: [&[Pair]; P], _: &mut [Sums<P>; R]) {
    unreachable!("it is not there");
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::{add, is_there};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;
    use std::sync::LazyLock;

    use super::super::factors::{as_long, first_of, second_of};
    use super::super::product::PANEL;
    use super::*;

    /// Whether this processor has the instruction, and it gives the bits of plain fused steps.
    pub(in super::super) fn is_there() -> bool {
        static IS_THERE: LazyLock<bool> = LazyLock::new(|| {
            is_x86_feature_detected!("avx512f")
                // What AVX512-BF16 is built on, and the compiler takes for granted with it.
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
                && agrees()
        });
        *IS_THERE
    }

    /// Whether it adds the second products first, and rounds each sum: sums of numbers of like size show that in most of so many tries.
    fn agrees() -> bool {
        const TRIES: usize = 64;
        let mut bits = 0x2545_f491_u32;
        let mut pairs = || {
            let mut next = || {
                bits = bits.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                // Between 0.5 and 2, of either sign.
                (bits >> 16 & 0x80ff) | 0x3f00
            };
            std::array::from_fn::<Pair, TRIES, _>(|_| next() | next() << 16)
        };
        let (left, right) = (pairs(), pairs());
        let panel: Vec<Pair> = right.iter().flat_map(|&pair| [pair; PANEL]).collect();
        let mut sums = [[[0.0; PANEL]; 1]; 1];
        // SAFETY: the caller has looked whether the processor has what it takes.
        unsafe { multiply([&left], [&panel], &mut sums) };
        let want = left.iter().zip(&right).fold(0.0f32, |sum, (&left, &right)| {
            let sum = second_of(left).mul_add(second_of(right), sum);
            first_of(left).mul_add(first_of(right), sum)
        });
        sums[0][0].iter().all(|sum| sum.to_bits() == want.to_bits())
    }

    /// Adds to `sums` the products of rows with panels, where it [is there](is_there).
    #[inline(always)]
    pub(in super::super) fn add<const R: usize, const P: usize>(
        left: [&[Pair]; R],
        panels: [&[Pair]; P],
        sums: &mut [Sums<P>; R],
    ) {
        assert!(is_there());
        // SAFETY: just looked at.
        unsafe { multiply(left, panels, sums) }
    }

    /// A function of its own, so that sums stay in registers.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline(never)]
    fn multiply<const R: usize, const P: usize>(
        left: [&[Pair]; R],
        panels: [&[Pair]; P],
        to: &mut [Sums<P>; R],
    ) {
        let (left, panels) = as_long(left, panels);
        let mut sums = [[_mm512_setzero_ps(); P]; R];
        for (sum, from) in sums.as_flattened_mut().iter_mut().zip(to.as_flattened()) {
            // SAFETY: a panel is as wide as the vector.
            *sum = unsafe { _mm512_loadu_ps(from.as_ptr()) };
        }
        for pair in 0..panels[0].len() {
            let mut right = [bf16s(_mm512_setzero_si512()); P];
            for (right, panel) in right.iter_mut().zip(&panels) {
                // SAFETY: a panel is as wide as the vector.
                *right = bf16s(unsafe { _mm512_loadu_si512(panel[pair].as_ptr().cast()) });
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let left = bf16s(_mm512_set1_epi32(left[pair].cast_signed()));
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = _mm512_dpbf16_ps(*sum, left, right);
                }
            }
        }
        for (sum, to) in sums.as_flattened().iter().zip(to.as_flattened_mut()) {
            // SAFETY: a panel is as wide as the vector.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sum) };
        }
    }

    /// The same bits, read as bf16.
    #[inline(always)]
    fn bf16s(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of plain bits.
        unsafe { std::mem::transmute(bits) }
    }
}
