//! AVX2 and F16C, which x86-64 processors have since 2013 (Intel) and 2015 (AMD).
//!
//! `unsafe` is allowed here to call what is compiled for more than every processor has: an [`Avx2`] is the proof that this
//! one has it.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Job, Simd};
use crate::format::LOST;

/// Bytes from what is being read to what is fetched meanwhile. Processors foresee the reads of a few streams, and only up to
/// the end of a page; a blend has as many as members, and has left one before it comes to the next page.
const PREFETCH_BYTES: usize = 512;
/// What is fetched at a time.
const LINE_BYTES: usize = 64;

/// The processor has AVX2 and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Where it has.
    pub(super) fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")).then_some(Avx2(()))
    }
}

impl Simd for Avx2 {
    #[inline(always)]
    fn run<J: Job>(self, job: J) -> J::Output {
        // SAFETY: the processor has what the function is compiled for; so below.
        unsafe { run(self, job) }
    }

    #[inline(always)]
    fn widen_f16(self, bits: [u16; 8]) -> [f64; 8] {
        // SAFETY: see above.
        unsafe { widen_f16(bits) }
    }

    #[inline(always)]
    fn narrow_f16(self, values: [f64; 8]) -> [u16; 8] {
        // SAFETY: see above.
        unsafe { narrow_f16(values) }
    }

    #[inline(always)]
    fn widen_bf16(self, bits: [u16; 8]) -> [f64; 8] {
        // SAFETY: see above.
        unsafe { widen_bf16(bits) }
    }

    #[inline(always)]
    fn narrow_bf16(self, values: [f64; 8]) -> [u16; 8] {
        // SAFETY: see above.
        unsafe { narrow_bf16(values) }
    }

    #[inline(always)]
    fn prefetch<T>(self, elements: &[T]) {
        for line in (0..size_of_val(elements)).step_by(LINE_BYTES) {
            let address = elements.as_ptr().wrapping_byte_add(PREFETCH_BYTES + line);
            // SAFETY: a hint, whatever is at the address, and be it nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
fn run<J: Job>(avx2: Avx2, job: J) -> J::Output {
    job.run(avx2)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16(bits: [u16; 8]) -> [f64; 8] {
    let x = _mm256_cvtph_ps(bytemuck::cast(bits));
    let [low, high] = [_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x)];
    bytemuck::cast([_mm256_cvtps_pd(low), _mm256_cvtps_pd(high)])
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_f16(values: [f64; 8]) -> [u16; 8] {
    let x = sticky(values);
    bytemuck::cast(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(one_nan(x, x)))
}

/// Those at even places first, then those at odd ones: a shift and a mask make `f32` of them in place, where to keep the order
/// would take the same unit that converts to `f64`, which is the one that bounds the loop.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_bf16(bits: [u16; 8]) -> [f64; 8] {
    let pairs: __m128i = bytemuck::cast(bits);
    let even = _mm_slli_epi32::<16>(pairs);
    let odd = _mm_and_si128(pairs, _mm_set1_epi32(!0xffff));
    let wide = |x| _mm256_cvtps_pd(_mm_castsi128_ps(x));
    bytemuck::cast([wide(even), wide(odd)])
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow_bf16(values: [f64; 8]) -> [u16; 8] {
    let x = sticky(values);
    let bits = _mm256_castps_si256(x);
    let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), last);
    let rounded = _mm256_castps_si256(one_nan(x, _mm256_castsi256_ps(rounded)));
    let even = _mm_srli_epi32::<16>(_mm256_castsi256_si128(rounded));
    let odd = _mm256_extracti128_si256::<1>(rounded);
    bytemuck::cast(_mm_blend_epi16::<0b1010_1010>(even, odd))
}

/// [`crate::format::sticky`] of each.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn sticky(values: [f64; 8]) -> __m256 {
    let lost = _mm256_set1_epi64x(LOST as i64);
    let half = |bits: __m256i| {
        let carried = _mm256_add_epi64(_mm256_and_si256(bits, lost), lost);
        let kept = _mm256_andnot_si256(lost, _mm256_or_si256(carried, bits));
        _mm256_cvtpd_ps(_mm256_castsi256_pd(kept))
    };
    let [low, high]: [__m256i; 2] = bytemuck::cast(values);
    _mm256_set_m128(half(high), half(low))
}

/// `other`, and the one NaN where `x` is any.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn one_nan(x: __m256, other: __m256) -> __m256 {
    let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
    _mm256_blendv_ps(other, _mm256_set1_ps(f32::from_bits(0x7fc0_0000)), is_nan)
}
