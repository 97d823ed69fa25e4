//! What products of matrices multiply: values as they are, or pairs of values that are rounded to bf16.
//!
//! A pair is added to a sum by two fused steps, the second of the two first, each rounded to f32. That is what the one instruction of
//! AVX512-BF16 does ([`dot`]), which makes twice the products of f32 in a cycle. Two values of bf16 have a product that f32 holds
//! exactly, so that plain fused steps give the same bits where there is no such instruction. It alone takes what is too small for a
//! normal number as zero: values that could lead there are zero before ([`LEAST`]).

use pulp::{Simd, WithSimd};

use super::dot;
use super::product::{PANEL, Sums, apart};

/// One or more values of a row, or of a column, that follow each other.
pub(super) trait Factor: Copy + Default + 'static {
    /// How many values.
    const VALUES: usize;

    /// The values as factors, where that is what they are.
    fn in_place(values: &[f32]) -> Option<&[Self]>;

    /// Writes values that follow each other as so many factors; those of the last one that are missing are zeros.
    fn write(values: &[f32], to: &mut [Self]);

    /// Adds to `sums` the products of rows with panels, for as many columns of each as `V` vectors have. All have as many factors.
    fn add<S: Simd, const R: usize, const V: usize, const P: usize>(
        simd: S,
        left: [&[Self]; R],
        panels: [&[Self]; P],
        sums: &mut [Sums<P>; R],
    );
}

impl Factor for f32 {
    const VALUES: usize = 1;

    #[inline(always)]
    fn in_place(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    #[inline(always)]
    fn write(values: &[f32], to: &mut [f32]) {
        to.copy_from_slice(values);
    }

    #[inline(always)]
    fn add<S: Simd, const R: usize, const V: usize, const P: usize>(
        simd: S,
        left: [&[f32]; R],
        panels: [&[f32]; P],
        sums: &mut [Sums<P>; R],
    ) {
        apart(simd, Values::<R, V, P> { left, panels, sums });
    }
}

/// Two values in bf16, the first one in the lower half.
pub(super) type Pair = u32;

/// The half that is the first value of a pair.
const FIRST: Pair = 0xffff;
/// Bits that a value has less in bf16.
const DROPPED: u32 = 16;
/// Smaller values are zeros. Sums are then multiples of 2^-114, so that none is between zero and the least normal number.
const LEAST: f32 = f32::from_bits((127 - 50) << 23);
/// What all that is not a number becomes.
const NAN: u32 = 0x7fc0;

/// `value` in bf16: the nearest one, of two that are as near the even one.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> DROPPED & 1)) >> DROPPED;
    let number = if value.abs() < LEAST { 0 } else { nearest };
    if value.is_nan() { NAN } else { number }
}

/// The first value of a pair.
#[inline(always)]
pub(super) fn first_of(pair: Pair) -> f32 {
    f32::from_bits(pair << DROPPED)
}

/// The second value of a pair.
#[inline(always)]
pub(super) fn second_of(pair: Pair) -> f32 {
    f32::from_bits(pair & !FIRST)
}

impl Factor for Pair {
    const VALUES: usize = 2;

    #[inline(always)]
    fn in_place(_: &[f32]) -> Option<&[Pair]> {
        None
    }

    #[inline(always)]
    fn write(values: &[f32], to: &mut [Pair]) {
        let (pairs, single) = values.as_chunks::<2>();
        for (to, &[first, second]) in to.iter_mut().zip(pairs) {
            *to = rounded(first) | rounded(second) << DROPPED;
        }
        if let ([first], Some(to)) = (single, to.last_mut()) {
            *to = rounded(*first);
        }
    }

    #[inline(always)]
    fn add<S: Simd, const R: usize, const V: usize, const P: usize>(
        simd: S,
        left: [&[Pair]; R],
        panels: [&[Pair]; P],
        sums: &mut [Sums<P>; R],
    ) {
        if V == 1 && dot::is_there() {
            dot::add(left, panels, sums);
        } else {
            apart(simd, Pairs::<R, V, P> { left, panels, sums });
        }
    }
}

/// Adds to `sums` the products of rows with panels, which have as many inputs, for as many columns of each as `V` vectors have.
struct Values<'a, const R: usize, const V: usize, const P: usize> {
    left: [&'a [f32]; R],
    panels: [&'a [f32]; P],
    sums: &'a mut [Sums<P>; R],
}

impl<const R: usize, const V: usize, const P: usize> WithSimd for Values<'_, R, V, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (left, panels) = as_long(self.left, self.panels);
        let mut sums = loaded::<S, R, V, P>(simd, self.sums);
        for input in 0..panels[0].len() {
            let mut right = [[simd.splat_f32s(0.0); V]; P];
            for (right, panel) in right.iter_mut().zip(&panels) {
                right.copy_from_slice(&S::as_simd_f32s(&panel[input]).0[..V]);
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let left = simd.splat_f32s(left[input]);
                for (sums, right) in sums.iter_mut().zip(&right) {
                    for (sum, &right) in sums.iter_mut().zip(right) {
                        *sum = simd.mul_add_f32s(left, right, *sum);
                    }
                }
            }
        }
        store::<S, R, V, P>(&sums, self.sums);
    }
}

/// The same of pairs.
struct Pairs<'a, const R: usize, const V: usize, const P: usize> {
    left: [&'a [Pair]; R],
    panels: [&'a [Pair]; P],
    sums: &'a mut [Sums<P>; R],
}

impl<const R: usize, const V: usize, const P: usize> WithSimd for Pairs<'_, R, V, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (left, panels) = as_long(self.left, self.panels);
        let mut sums = loaded::<S, R, V, P>(simd, self.sums);
        let (second, shift) = (simd.splat_u32s(!FIRST), simd.splat_u32s(DROPPED));
        for pair in 0..panels[0].len() {
            let mut right = [[[simd.splat_f32s(0.0); 2]; V]; P];
            for (right, panel) in right.iter_mut().zip(&panels) {
                for (right, &both) in right.iter_mut().zip(S::as_simd_u32s(&panel[pair]).0) {
                    right[0] = simd.transmute_f32s_u32s(simd.and_u32s(both, second));
                    right[1] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(both, shift));
                }
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let second = simd.splat_f32s(second_of(left[pair]));
                let first = simd.splat_f32s(first_of(left[pair]));
                for (sums, right) in sums.iter_mut().zip(&right) {
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = simd.mul_add_f32s(second, right[0], *sum);
                        *sum = simd.mul_add_f32s(first, right[1], *sum);
                    }
                }
            }
        }
        store::<S, R, V, P>(&sums, self.sums);
    }
}

/// Rows of the left matrix, and some factors of each column of the right one.
type Parts<'a, F, const R: usize, const P: usize> = ([&'a [F]; R], [&'a [[F; PANEL]]; P]);

/// Rows and panels as long as the first panel: known to be as long, they need no check of every factor.
#[inline(always)]
pub(super) fn as_long<'a, F, const R: usize, const P: usize>(
    mut left: [&'a [F]; R],
    panels: [&'a [F]; P],
) -> Parts<'a, F, R, P> {
    let factors = panels[0].len() / PANEL;
    for left in &mut left {
        *left = &left[..factors];
    }
    let mut rows: [&[[F; PANEL]]; P] = [&[]; P];
    for (rows, panel) in rows.iter_mut().zip(panels) {
        *rows = &panel.as_chunks::<PANEL>().0[..factors];
    }
    (left, rows)
}

/// The vectors of sums.
type Vectors<S, const R: usize, const V: usize, const P: usize> = [[[<S as Simd>::f32s; V]; P]; R];

#[inline(always)]
fn loaded<S: Simd, const R: usize, const V: usize, const P: usize>(
    simd: S,
    from: &[Sums<P>; R],
) -> Vectors<S, R, V, P> {
    let mut sums = [[[simd.splat_f32s(0.0); V]; P]; R];
    for (sums, from) in sums.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
        sums.copy_from_slice(&S::as_simd_f32s(from).0[..V]);
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const R: usize, const V: usize, const P: usize>(
    sums: &Vectors<S, R, V, P>,
    to: &mut [Sums<P>; R],
) {
    for (sums, to) in sums.as_flattened().iter().zip(to.as_flattened_mut()) {
        S::as_mut_simd_f32s(to).0[..V].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// But for what is too small, and for the kinds of what is no number, as `half` rounds.
    #[test]
    fn values_are_rounded_to_the_nearest_one() {
        let mut values =
            vec![0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, LEAST, -LEAST, 1e-15];
        // Halfway between two, to the even one; and the values beside.
        for bits in [0x3f80_8000u32, 0x3f81_8000, 0xbf80_8000, 0x3f80_7fff, 0x3f80_8001, 0x7f7f_8000] {
            values.push(f32::from_bits(bits));
        }
        values.extend((0..10_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x0069_e377))));
        for value in values.into_iter().filter(|value| !value.is_nan()) {
            let want = if value.abs() < LEAST { 0 } else { u32::from(bf16::from_f32(value).to_bits()) };
            assert_eq!(rounded(value), want, "{value:e}");
        }
        assert_eq!(rounded(LEAST.next_down()), 0);
        assert!(f32::from_bits(rounded(f32::NAN) << DROPPED).is_nan());
        assert!(f32::from_bits(rounded(f32::from_bits(0x7f80_0001)) << DROPPED).is_nan());
    }

    #[test]
    fn what_a_last_pair_lacks_is_zero() {
        let mut pairs = [9; 2];
        Pair::write(&[1.0, -2.0, 3.0], &mut pairs);
        assert_eq!(pairs.map(|pair| [first_of(pair), second_of(pair)]), [[1.0, -2.0], [3.0, 0.0]]);
    }
}
