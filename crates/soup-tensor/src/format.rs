//! Element formats: how the bits of each dtype become `f64` and how an `f64` is rounded to them, once.
//!
//! Everything here is branch-free, so that loops over it become vector instructions on any processor. There is no
//! rounding of `f64` to 16 bits in hardware; going through `f32` rounds twice, which is wrong for values that the first
//! step moves onto a tie. [`sticky`] therefore makes the first step exact: it leaves away what cannot matter but that it
//! was there.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::simd::{Simd, narrow_each, widen_each};

/// A floating-point format of tensors.
pub(crate) trait Format: Sized {
    /// The bits of one element.
    type Bits: bytemuck::Pod;
    /// The value; exact.
    fn widen(bits: Self::Bits) -> f64;
    /// The nearest element, ties to even; every NaN becomes the same one.
    fn narrow(value: f64) -> Self::Bits;
    /// Whether `bits` are infinite or NaN.
    fn is_not_finite(bits: Self::Bits) -> bool;
    /// The values of eight elements; exact. In any order: the one that [`narrow_8`](Self::narrow_8) takes.
    #[inline(always)]
    fn widen_8<S: Simd>(_: S, bits: [Self::Bits; 8]) -> [f64; 8] {
        widen_each::<Self>(bits)
    }
    /// The nearest elements of eight values, in the order of the bits that were widened.
    #[inline(always)]
    fn narrow_8<S: Simd>(_: S, values: [f64; 8]) -> [Self::Bits; 8] {
        narrow_each::<Self>(values)
    }
    /// Whether many elements are better widened to `f32` by [`stage`](Self::stage) first.
    const STAGED: bool = false;
    /// Widens all elements to `f32`, exactly; for [`STAGED`](Self::STAGED) formats.
    fn stage(_bits: &[Self::Bits], _out: &mut [f32]) {}
}

pub(crate) struct F64;
pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Format for F64 {
    type Bits = u64;

    #[inline(always)]
    fn widen(bits: u64) -> f64 {
        f64::from_bits(bits)
    }

    #[inline(always)]
    fn narrow(value: f64) -> u64 {
        if value.is_nan() { 0x7ff8 << 48 } else { value.to_bits() }
    }

    #[inline(always)]
    fn is_not_finite(bits: u64) -> bool {
        bits & (0x7ff0 << 48) == 0x7ff0 << 48
    }
}

impl Format for F32 {
    type Bits = u32;

    #[inline(always)]
    fn widen(bits: u32) -> f64 {
        f64::from(f32::from_bits(bits))
    }

    #[inline(always)]
    fn narrow(value: f64) -> u32 {
        if value.is_nan() { 0x7fc0_0000 } else { (value as f32).to_bits() }
    }

    #[inline(always)]
    fn is_not_finite(bits: u32) -> bool {
        bits & 0x7f80_0000 == 0x7f80_0000
    }
}

impl Format for Bf16 {
    type Bits = u16;

    #[inline(always)]
    fn widen(bits: u16) -> f64 {
        f64::from(f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    fn narrow(value: f64) -> u16 {
        let bits = sticky(value).to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        if value.is_nan() { 0x7fc0 } else { rounded }
    }

    #[inline(always)]
    fn widen_8<S: Simd>(simd: S, bits: [u16; 8]) -> [f64; 8] {
        simd.widen_bf16(bits)
    }

    #[inline(always)]
    fn narrow_8<S: Simd>(simd: S, values: [f64; 8]) -> [u16; 8] {
        simd.narrow_bf16(values)
    }

    #[inline(always)]
    fn is_not_finite(bits: u16) -> bool {
        bits & 0x7f80 == 0x7f80
    }
}

impl Format for F16 {
    type Bits = u16;

    #[inline(always)]
    fn widen(bits: u16) -> f64 {
        // As an f32: moved up, with the exponent of one that is as large.
        let (sign, moved) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
        // Without a leading one: a subtraction takes away the one that the exponent of 2^-14 brings.
        let subnormal = f32::from_bits(moved + (113 << 23)) - f32::from_bits(113 << 23);
        // Infinity and NaN have the highest exponent in both.
        let normal = moved + if moved >= 0x7c00 << 13 { 224 << 23 } else { 112 << 23 };
        let magnitude = if moved < 1 << 23 { subnormal.to_bits() } else { normal };
        f64::from(f32::from_bits(magnitude | sign))
    }

    #[inline(always)]
    fn narrow(value: f64) -> u16 {
        let bits = sticky(value).to_bits();
        let magnitude = bits & 0x7fff_ffff;
        let sign = (bits >> 16) as u16 & 0x8000;
        // 13 bits go. A carry out of the mantissa raises the exponent, at the top to infinity: as it should.
        let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Below 2^-14 an addition rounds: the last bit of 0.5 is 2^-24, which is the smallest f16.
        let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if magnitude < 113 << 23 { subnormal } else { normal };
        let rounded = if magnitude >= 143 << 23 { 0x7c00 } else { finite };
        if value.is_nan() { 0x7e00 } else { rounded as u16 | sign }
    }

    #[inline(always)]
    fn widen_8<S: Simd>(simd: S, bits: [u16; 8]) -> [f64; 8] {
        simd.widen_f16(bits)
    }

    #[inline(always)]
    fn narrow_8<S: Simd>(simd: S, values: [f64; 8]) -> [u16; 8] {
        simd.narrow_f16(values)
    }

    #[inline(always)]
    fn is_not_finite(bits: u16) -> bool {
        bits & 0x7c00 == 0x7c00
    }

    // Processors have an instruction for it, which the compiler does not find by itself.
    const STAGED: bool = true;

    fn stage(bits: &[u16], out: &mut [f32]) {
        bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(out);
    }
}

/// Bits of an `f64` that [`sticky`] leaves away; it keeps 13 significant ones.
pub(crate) const LOST: u64 = (1 << 40) - 1;

/// `value` cut to 13 significant bits, the last of which is set where any of those that are cut off was: so it is beside every
/// tie of a 16-bit format on the same side as `value`, whose ties have 12 bits at most (11 of f16, and the next one). 13
/// bits are exact as an `f32`, down to 2^-137; what is smaller is zero in either format, and what an `f32` cannot hold is infinite.
#[inline(always)]
pub(crate) fn sticky(value: f64) -> f32 {
    let bits = value.to_bits();
    // The addition carries into the last bit that stays, if there is anything to carry.
    let carried = (bits & LOST) + LOST;
    f64::from_bits((carried | bits) & !LOST) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The nearest of all elements of a 16-bit format by search: among the finite ones with a virtual 2^`emax` in the
    /// place of infinity, the closest to `value`, of two equally close ones the even. Differences are exact enough because
    /// they are compared on the scale of the neighbours alone.
    fn nearest_by_search<F: Format<Bits = u16>>(value: f64, infinity: u16, first_beyond: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let magnitude = value.abs();
        let at = |bits: u16| if bits == infinity { first_beyond } else { F::widen(bits) };
        // The largest element that is not above.
        let (mut low, mut high) = (0u16, infinity);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if at(middle) <= magnitude { low = middle } else { high = middle - 1 }
        }
        if low == infinity {
            return sign | infinity;
        }
        // Half way between two neighbours has few bits: exact.
        let half_way = (at(low) + at(low + 1)) / 2.0;
        let up = magnitude > half_way || (magnitude == half_way && low % 2 == 1);
        sign | (low + u16::from(up))
    }

    fn check_f16(value: f64) {
        let expect = nearest_by_search::<F16>(value, 0x7c00, 65536.0);
        assert_eq!(F16::narrow(value), expect, "{value:e} {:#x}", value.to_bits());
    }

    fn check_bf16(value: f64) {
        let expect = nearest_by_search::<Bf16>(value, 0x7f80, 128f64.exp2());
        assert_eq!(Bf16::narrow(value), expect, "{value:e} {:#x}", value.to_bits());
    }

    /// Around every boundary between two elements: on it, and one step of f64 to each side of it and of the elements.
    fn check_boundaries<F: Format<Bits = u16>>(infinity: u16, first_beyond: f64, check: fn(f64)) {
        for low in 0..infinity {
            let a = F::widen(low);
            let b = if low + 1 == infinity { first_beyond } else { F::widen(low + 1) };
            let half_way = (a + b) / 2.0;
            for value in [a, half_way, b] {
                for near in [value.next_down(), value, value.next_up()] {
                    check(near);
                    check(-near);
                }
            }
        }
    }

    #[test]
    fn f16_is_rounded_once_at_every_boundary() {
        check_boundaries::<F16>(0x7c00, 65536.0, check_f16);
    }

    #[test]
    fn bf16_is_rounded_once_at_every_boundary() {
        check_boundaries::<Bf16>(0x7f80, 128f64.exp2(), check_bf16);
    }

    #[test]
    fn going_through_f32_would_round_twice() {
        // Just above the tie between 1 and the next f16, by less than an f32 can hold.
        let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(F16::narrow(value), 0x3c01);
        assert_eq!(half::f16::from_f32(value as f32).to_bits(), 0x3c00);
    }

    fn f16_by_definition(bits: u16) -> f64 {
        let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
        let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff) / 1024.0);
        sign * match exponent {
            0 => fraction * 2f64.powi(-14),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
        }
    }

    #[test]
    fn all_16_bit_patterns_widen_exactly() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut staged = vec![0.0; all.len()];
        F16::stage(&all, &mut staged);
        for bits in all {
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            let f16 = f16_by_definition(bits);
            assert!(same(F16::widen(bits), f16), "f16 {bits:#x}");
            assert!(same(f64::from(staged[usize::from(bits)]), f16), "staged f16 {bits:#x}");
            assert!(same(Bf16::widen(bits), half::bf16::from_bits(bits).to_f64()), "bf16 {bits:#x}");
            assert_eq!(F16::is_not_finite(bits), !half::f16::from_bits(bits).is_finite());
            assert_eq!(Bf16::is_not_finite(bits), !half::bf16::from_bits(bits).is_finite());
        }
    }

    #[test]
    fn all_16_bit_patterns_survive_a_round_trip() {
        for bits in 0..=u16::MAX {
            let nan = |b: u16, infinity: u16| b & 0x7fff > infinity;
            let expect = if nan(bits, 0x7c00) { 0x7e00 } else { bits };
            assert_eq!(F16::narrow(F16::widen(bits)), expect);
            let expect = if nan(bits, 0x7f80) { 0x7fc0 } else { bits };
            assert_eq!(Bf16::narrow(Bf16::widen(bits)), expect);
        }
    }

    #[test]
    fn nan_has_one_pattern() {
        for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001), f64::INFINITY - f64::INFINITY]
        {
            assert_eq!(F64::narrow(nan), 0x7ff8_0000_0000_0000);
            assert_eq!(F32::narrow(nan), 0x7fc0_0000);
            assert_eq!(F16::narrow(nan), 0x7e00);
            assert_eq!(Bf16::narrow(nan), 0x7fc0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn any_number_is_rounded_once(bits in any::<u64>(), exponent in 0u64..320) {
            // Any f64, and one of an exponent in the formats' range.
            let near = (bits & !(0x7ff << 52)) | ((1023 - 160 + exponent) << 52);
            for value in [f64::from_bits(bits), f64::from_bits(near)] {
                if !value.is_nan() {
                    check_f16(value);
                    check_bf16(value);
                    prop_assert_eq!(F32::narrow(value), (value as f32).to_bits());
                    prop_assert_eq!(F64::narrow(value), value.to_bits());
                }
            }
        }
    }
}
