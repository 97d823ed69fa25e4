//! The kernels: blends and inner products of pieces on a device, to the CPU's bits.
//!
//! Every step is one operation of IEEE 754 in `f64`, in the order in which the CPU does it, so that nothing is left to a device or its
//! compiler. Two things would be:
//!
//! - *Contraction.* CUDA makes one rounding of `sum + w * x`, and there is no switch. [`product`] is therefore `fma(w, x, -0)`, with a
//!   -0 that is known when the kernel runs alone: the rounded product with the sign that its zeros should have, which no compiler
//!   can drop or merge with the addition. **No kernel says `a * b + c` in `f64`.**
//! - *Conversion.* What Vulkan does with denormals, infinities and NaN is the device's choice. Where conversions are not `native`,
//!   they are made of integer operations (see [`format`]).
//!
//! Elements are read and written as vectors of four words of 32 bits, whatever they are.
//!
//! Devices and drivers may fail to run a kernel and not say so. The last element of what a kernel gives is a *token*, another one
//! every time: whose is missing, did not run.

mod format;
mod products;

use cubecl::prelude::*;

pub(crate) use format::{BF16, F16, F32, F64};
pub(crate) use products::{
    BLOCKS_A_CUBE, GROUP, MEMBERS_AT_ONCE, PAIRS_A_CUBE, add_blocks, deltas, dots, inner,
};

use format::{bits_of_f64, f64_of_words, narrow, widen_f32, widen_half};

/// Words of a vector.
pub(crate) const VECTOR: usize = 4;
/// Vectors of a unit: see [`UNIT_BYTES`](crate::plan::UNIT_BYTES).
const UNIT_VECTORS: usize = 32;

/// Elements of a vector.
pub(crate) fn elements(format: u32) -> usize {
    match format {
        F64 => 2,
        F32 => 4,
        _ => 8,
    }
}

/// The rounded product, by itself.
#[cube]
pub(crate) fn product(a: f64, b: f64, neg_zero: f64) -> f64 {
    fma(a, b, neg_zero)
}

#[cube]
fn add_term(sum: f64, w: f64, x: f64, neg_zero: f64, #[comptime] mean: bool) -> f64 {
    if comptime!(mean) { sum + x } else { sum + product(w, x, neg_zero) }
}

/// Adds the elements of a vector to their sums.
#[cube]
fn add_vector<N: Size>(
    sums: &mut Array<f64>,
    v: Vector<u32, N>,
    w: f64,
    neg_zero: f64,
    #[comptime] format: u32,
    #[comptime] mean: bool,
    #[comptime] native: bool,
) {
    if comptime!(format == F64) {
        sums[0usize] = add_term(sums[0usize], w, f64_of_words(v[0usize], v[1usize]), neg_zero, mean);
        sums[1usize] = add_term(sums[1usize], w, f64_of_words(v[2usize], v[3usize]), neg_zero, mean);
    } else if comptime!(format == F32) {
        #[unroll]
        for lane in 0..VECTOR {
            sums[lane] = add_term(sums[lane], w, widen_f32(v[lane], native), neg_zero, mean);
        }
    } else {
        #[unroll]
        for lane in 0..VECTOR {
            let low = widen_half(v[lane] & 0xffffu32, format, native);
            let high = widen_half(v[lane] >> 16u32, format, native);
            sums[lane * 2usize] = add_term(sums[lane * 2usize], w, low, neg_zero, mean);
            sums[lane * 2usize + 1usize] = add_term(sums[lane * 2usize + 1usize], w, high, neg_zero, mean);
        }
    }
}

#[cube]
fn finished(sum: f64, divisor: f64, #[comptime] mean: bool) -> f64 {
    if comptime!(mean) { sum / divisor } else { sum }
}

/// A blend of a piece: `pool` has a row of `stride` vectors an ingredient; `members` says which are in the soup. Of weights there is one
/// a member in each row, and `rows` says which row each unit of the piece has. `out` has a row and, at its end, the token.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn blend<N: Size>(
    pool: &Array<Vector<u32, N>>,
    members: &Array<u32>,
    weights: &Array<f64>,
    rows: &Array<u32>,
    out: &mut Array<Vector<u32, N>>,
    stride: usize,
    count: usize,
    rows_apart: usize,
    divisor: f64,
    neg_zero: f64,
    token: u32,
    #[comptime] format: u32,
    #[comptime] mean: bool,
    #[comptime] native: bool,
    #[comptime] unroll: usize,
) {
    let at = ABSOLUTE_POS;
    if at == 0usize {
        out[stride] = Vector::<u32, N>::new(token);
    }
    if at < stride {
        let each = comptime!(elements(format));
        let mut sums = Array::<f64>::new(each);
        #[unroll]
        for e in 0..each {
            sums[e] = neg_zero;
        }
        let row = rows[at / UNIT_VECTORS] as usize * rows_apart;
        let whole = count / unroll;
        for turn in 0..whole {
            let first = turn * unroll;
            // All loads of a turn before the first use, so that they wait together.
            let mut loaded = Array::<Vector<u32, N>>::new(unroll);
            #[unroll]
            for j in 0..unroll {
                loaded[j] = pool[members[first + j] as usize * stride + at];
            }
            #[unroll]
            for j in 0..unroll {
                let w = weight(weights, row + first + j, mean);
                add_vector::<N>(&mut sums, loaded[j], w, neg_zero, format, mean, native);
            }
        }
        for i in whole * unroll..count {
            let w = weight(weights, row + i, mean);
            let v = pool[members[i] as usize * stride + at];
            add_vector::<N>(&mut sums, v, w, neg_zero, format, mean, native);
        }
        let mut result = Vector::<u32, N>::new(0u32);
        if comptime!(format == F64) {
            let first = bits_of_f64(finished(sums[0usize], divisor, mean));
            let second = bits_of_f64(finished(sums[1usize], divisor, mean));
            result[0usize] = u32::cast_from(first & comptime!(0xffff_ffffu64));
            result[1usize] = u32::cast_from(first >> 32u64);
            result[2usize] = u32::cast_from(second & comptime!(0xffff_ffffu64));
            result[3usize] = u32::cast_from(second >> 32u64);
        } else if comptime!(format == F32) {
            #[unroll]
            for lane in 0..VECTOR {
                result[lane] = narrow(finished(sums[lane], divisor, mean), format, native);
            }
        } else {
            #[unroll]
            for lane in 0..VECTOR {
                let low = narrow(finished(sums[lane * 2usize], divisor, mean), format, native);
                let high = narrow(finished(sums[lane * 2usize + 1usize], divisor, mean), format, native);
                result[lane] = low | (high << 16u32);
            }
        }
        out[at] = result;
    }
}

#[cube]
fn weight(weights: &Array<f64>, at: usize, #[comptime] mean: bool) -> f64 {
    if comptime!(mean) { 0.0f64.runtime() } else { weights[at] }
}

/// Copies `count` vectors to `to`, from vector `first` on: the way of what is uploaded into a buffer that is there. Its token goes to
/// `proof`, where this copy has a place.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn put<N: Size>(
    from: &Array<Vector<u32, N>>,
    to: &mut Array<Vector<u32, N>>,
    proof: &mut Array<u32>,
    first: usize,
    count: usize,
    place: usize,
    token: u32,
) {
    let at = ABSOLUTE_POS;
    if at == 0usize {
        proof[place] = token;
    }
    if at < count {
        to[first + at] = from[at];
    }
}
