//! Elements and `f64`: exact one way, one rounding the other, to the CPU's bits.
//!
//! `native` conversions are the device's instructions; the others are made of integer operations, whatever the device does with
//! denormals, infinities and NaN. 16-bit formats are widened through `f32` where conversions are native: bf16 is one shift, f16 a
//! shift and an addition to the exponent, or, below its normal numbers, one exact multiplication. They are narrowed in integers
//! everywhere: once a blend, and no device rounds `f64` to them in one step.

use cubecl::prelude::*;

pub(crate) const F32: u32 = 0;
pub(crate) const F16: u32 = 1;
pub(crate) const BF16: u32 = 2;
pub(crate) const F64: u32 = 3;

/// An f64 of `mb` mantissa bits and exponent bias `bias`, in integers.
#[cube]
fn widen_integer(bits: u32, #[comptime] mb: u32, #[comptime] bias: u32) -> f64 {
    let width = comptime!(if mb == 23 { 32u32 } else { 16u32 });
    let eb = comptime!(width - 1 - mb);
    let magnitude = bits & comptime!((1u32 << (width - 1)) - 1);
    let sign = u64::cast_from(bits >> comptime!(width - 1)) << 63u64;
    let top = comptime!(((1u32 << eb) - 1) << mb);
    let one = comptime!(1u32 << mb);
    let shift = comptime!((52 - mb) as u64);
    let rebias = comptime!(((1023 - bias) as u64) << 52);
    let rebias_inf = comptime!((2047u64 - ((1u64 << eb) - 1)) << 52);
    // 2^(1 - bias - mb): the smallest number
    let ulp = comptime!(f64::from_bits(((1023 + 1 - bias as u64) - mb as u64) << 52));
    let m = u64::cast_from(magnitude) << shift;
    let normal = m + select(magnitude >= top, rebias_inf.runtime(), rebias.runtime());
    let small = f64::cast_from(magnitude) * ulp.runtime();
    let value = select(magnitude < one, u64::reinterpret(small), normal);
    f64::reinterpret(value | sign)
}

/// The nearest float of `mb` mantissa bits, ties to even, in one rounding; one NaN.
#[cube]
fn narrow_integer(value: f64, #[comptime] mb: u32, #[comptime] bias: u32) -> u32 {
    let width = comptime!(if mb == 23 { 32u32 } else { 16u32 });
    let eb = comptime!(width - 1 - mb);
    let shift = comptime!((52 - mb) as u64);
    let all = u64::reinterpret(value);
    let m = all & comptime!(0x7fff_ffff_ffff_ffffu64);
    let sign = u32::cast_from(all >> 63u64) << comptime!(width - 1);
    let rebias = comptime!(((1023 - bias) as u64) << 52);
    let half = comptime!((1u64 << (52 - mb - 1)) - 1);
    let normal = (m - rebias + half + ((m >> shift) & 1u64)) >> shift;
    let magic = comptime!(((1023 + 1 - bias as u64) - mb as u64 + 52) << 52);
    // A constant, not `reinterpret` of one: that does not compile on CUDA (no lvalue).
    let magic_value = comptime!(f64::from_bits(magic));
    let abs = f64::reinterpret(m);
    let small = u64::reinterpret(abs + magic_value.runtime()) - magic;
    let first_normal = comptime!(((1024 - bias) as u64) << 52);
    let first_beyond = comptime!(((1024 + bias) as u64) << 52);
    let inf = comptime!(((1u32 << eb) - 1) << mb);
    let nan = comptime!((((1u32 << eb) - 1) << mb) | (1u32 << (mb - 1)));
    let finite = u32::cast_from(select(m < first_normal, small, normal));
    let rounded = select(m >= first_beyond, inf.runtime(), finite) | sign;
    select(m > comptime!(0x7ff0_0000_0000_0000u64), nan.runtime(), rounded)
}

#[cube]
pub(crate) fn widen_f32(bits: u32, #[comptime] native: bool) -> f64 {
    if comptime!(native) {
        f64::cast_from(f32::reinterpret(bits))
    } else {
        widen_integer(bits, 23u32, 127u32)
    }
}

/// `bits` are those of the element alone.
#[cube]
pub(crate) fn widen_half(bits: u32, #[comptime] format: u32, #[comptime] native: bool) -> f64 {
    if comptime!(native && format == BF16) {
        f64::cast_from(f32::reinterpret(bits << 16u32))
    } else if comptime!(native) {
        f64::cast_from(f32_of_f16(bits))
    } else if comptime!(format == F16) {
        widen_integer(bits, 10u32, 15u32)
    } else {
        widen_integer(bits, 7u32, 127u32)
    }
}

/// An f32 of an f16; exact, and never one that is denormal.
#[cube]
fn f32_of_f16(bits: u32) -> f32 {
    let magnitude = bits & 0x7fffu32;
    let sign = (bits & 0x8000u32) << 16u32;
    // Exponents count from 127 and not from 15; that of infinity and NaN becomes the last one.
    let raised = select(magnitude >= 0x7c00u32, 0x7000_0000u32.runtime(), 0x3800_0000u32.runtime());
    let normal = (magnitude << 13u32) + raised;
    let ulp = comptime!(f32::from_bits(103 << 23));
    let small = f32::cast_from(magnitude) * ulp.runtime();
    let value = select(magnitude < 0x400u32, u32::reinterpret(small), normal);
    f32::reinterpret(value | sign)
}

/// The nearest element, as bits.
#[cube]
pub(crate) fn narrow(value: f64, #[comptime] format: u32, #[comptime] native: bool) -> u32 {
    if comptime!(format == F16) {
        narrow_integer(value, 10u32, 15u32)
    } else if comptime!(format == BF16) {
        narrow_integer(value, 7u32, 127u32)
    } else if comptime!(native) {
        let bits = u32::reinterpret(f32::cast_from(value));
        select((bits & 0x7fff_ffffu32) > 0x7f80_0000u32, 0x7fc0_0000u32.runtime(), bits)
    } else {
        narrow_integer(value, 23u32, 127u32)
    }
}

#[cube]
pub(crate) fn f64_of_words(low: u32, high: u32) -> f64 {
    f64::reinterpret(u64::cast_from(low) | (u64::cast_from(high) << 32u64))
}

/// The bits of a number; of every NaN the same.
#[cube]
pub(crate) fn bits_of_f64(value: f64) -> u64 {
    let bits = u64::reinterpret(value);
    let nan = comptime!(0x7ff8_0000_0000_0000u64);
    let magnitude = bits & comptime!(0x7fff_ffff_ffff_ffffu64);
    select(magnitude > comptime!(0x7ff0_0000_0000_0000u64), nan.runtime(), bits)
}

/// Element `at` of an array of words.
#[cube]
pub(crate) fn widen_at(
    words: &Array<u32>,
    at: usize,
    #[comptime] format: u32,
    #[comptime] native: bool,
) -> f64 {
    if comptime!(format == F64) {
        f64_of_words(words[at * 2usize], words[at * 2usize + 1usize])
    } else if comptime!(format == F32) {
        widen_f32(words[at], native)
    } else {
        let word = words[at / 2usize];
        let bits = select(at % 2usize == 1usize, word >> 16u32, word & 0xffffu32);
        widen_half(bits, format, native)
    }
}
