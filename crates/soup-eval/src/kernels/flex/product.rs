//! Products of matrices, with what is done to their result in the same pass.
//!
//! The right matrix is *packed*: cut into *panels* of [`PANEL`] columns, each panel's rows end to end, so that it is read from front
//! to back however wide the matrix is. A *tile*, some rows of the result by the columns of a panel, is in registers while its sums
//! are made, and in the nearest cache for the rest.
//!
//! Every element of a result is one chain of fused multiplications and additions, the inputs in their order, or in that of the pairs that
//! they come in ([`factors`](super::factors)). Tiles and blocks decide
//! only which chains are made side by side: what a row comes out as depends on that row and on the matrix, not on the rows beside it
//! or on how many there are, and not on the width of a machine's vectors either.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activation::activate;
use super::factors::{Factor, Pair};
use super::vectorised;
use crate::kernels::Activation;

/// Columns of a panel.
pub(in crate::kernels) const PANEL: usize = 16;
/// Rows of a tile: with two vectors a row, twelve sums in the sixteen registers of AVX2.
pub(super) const TILE: usize = 6;
/// Rows of a tile where a row of a panel is one vector (AVX-512). They are more than the ways of the nearest cache, and rows whose distance
/// is a multiple of 4 KiB share one of its sets: these rows are gathered beside each other first.
const TALL_TILE: usize = 2 * TILE;
/// Panels of a tile there: with twelve rows, 24 sums in the 32 registers. A value of the left matrix is read once for both, since
/// processors that multiply two such vectors in a cycle read no more than two in one either.
const PANELS: usize = 2;
/// Inputs at a time: so much of a panel is in the nearest cache, beside the rows of a tile, even where two threads share it.
const INPUTS_AT_ONCE: usize = 192;
/// The same of [`PANELS`], which are more than that cache holds: a vector of each is wanted every twelve cycles, and comes from the second
/// one in time. What counts there is how often sums are written and read again.
const TALL_INPUTS_AT_ONCE: usize = 4 * INPUTS_AT_ONCE;
/// Values of the left matrix that are gone over panel by panel: they stay in the second cache.
const VALUES_AT_ONCE: usize = 32 << 10;
/// The same beside [`PANELS`]: processors with AVX-512 have at least 1 MiB there for each core.
const TALL_VALUES_AT_ONCE: usize = 128 << 10;
/// Factors of a column that are written at a time while columns are packed.
const PACKED_AT_ONCE: usize = 64;

/// Inputs of so many that are gone over at a time, of no more than `most`.
fn inputs_at_once(inputs: usize, most: usize) -> usize {
    inputs.div_ceil(inputs.div_ceil(most))
}

/// Rows of which so many inputs are gone over at a time, panel by panel: `values` in all.
fn rows_at_once(inputs_at_once: usize, values: usize) -> usize {
    (values / inputs_at_once / TALL_TILE).max(1) * TALL_TILE
}

/// Rows of so many inputs that are worth making at a time.
pub(super) fn rows_worth_making(inputs: usize) -> usize {
    rows_at_once(inputs_at_once(inputs, INPUTS_AT_ONCE), VALUES_AT_ONCE)
}

/// Values of a packed matrix.
pub(in crate::kernels) fn packed_len(inputs: usize, columns: usize) -> usize {
    columns.next_multiple_of(PANEL) * inputs
}

/// Packs a matrix whose columns are given one by one, `inputs` values each, into `packed`. What is beyond the last column stays as
/// it is.
pub(super) fn pack_columns<'a, F: Factor>(
    packed: &mut [F],
    inputs: usize,
    columns: usize,
    column: impl Fn(usize) -> &'a [f32],
) {
    let mut written = [F::default(); PACKED_AT_ONCE];
    for (nth, panel) in packed.chunks_exact_mut(inputs.div_ceil(F::VALUES) * PANEL).enumerate() {
        let columns = nth * PANEL..columns.min((nth + 1) * PANEL);
        let rows = panel.as_chunks_mut::<PANEL>().0;
        for (nth, rows) in rows.chunks_mut(PACKED_AT_ONCE).enumerate() {
            let first = nth * PACKED_AT_ONCE * F::VALUES;
            let inputs = first..inputs.min(first + rows.len() * F::VALUES);
            for (at, column) in columns.clone().map(&column).enumerate() {
                let written = &mut written[..rows.len()];
                F::write(&column[inputs.clone()], written);
                for (row, &factor) in rows.iter_mut().zip(&*written) {
                    row[at] = factor;
                }
            }
        }
    }
}

/// A packed matrix.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    /// As it is.
    Values(&'a [f32]),
    /// In bf16.
    Pairs(&'a [Pair]),
}

impl Packed<'_> {
    /// `act((left * self) * scale + bias + residual)` to `out`, where this has so many inputs and columns.
    pub(super) fn multiply(self, left: &[f32], sizes: [usize; 2], then: Then<'_>, out: &mut [f32]) {
        match self {
            Packed::Values(right) => vectorised(Product { left, right, sizes, then, out }),
            Packed::Pairs(right) => vectorised(Product { left, right, sizes, then, out }),
        }
    }
}

/// Packs a matrix whose rows are given one by one, `columns` values each, as [`pack_columns`].
pub(super) fn pack_rows<'a>(
    packed: &mut [f32],
    inputs: usize,
    columns: usize,
    row: impl Fn(usize) -> &'a [f32],
) {
    for (nth, panel) in packed.chunks_exact_mut(inputs * PANEL).enumerate() {
        let columns = nth * PANEL..columns.min((nth + 1) * PANEL);
        for (input, to) in panel.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            to[..columns.len()].copy_from_slice(&row(input)[columns.clone()]);
        }
    }
}

/// What is done to a product.
#[derive(Clone, Copy)]
pub(super) struct Then<'a> {
    /// What every row is multiplied by.
    pub(super) scale: Option<&'a [f32]>,
    /// Added to that.
    pub(super) bias: Option<&'a [f32]>,
    /// Added to that; as large as the result.
    pub(super) residual: Option<&'a [f32]>,
    /// Applied in the end.
    pub(super) act: Activation,
}

impl Then<'_> {
    /// Nothing.
    pub(super) const NOTHING: Then<'static> =
        Then { scale: None, bias: None, residual: None, act: Activation::Linear };

    /// The same of `rows` of the result, which has so many columns.
    pub(super) fn of_rows(self, rows: Range<usize>, columns: usize) -> Self {
        Then { residual: self.residual.map(|all| &all[rows.start * columns..rows.end * columns]), ..self }
    }
}

/// `act((left * right) * scale + bias + residual)`.
pub(super) struct Product<'a, F> {
    /// [rows, inputs].
    pub(super) left: &'a [f32],
    /// [inputs, columns], packed.
    pub(super) right: &'a [F],
    /// Inputs and columns.
    pub(super) sizes: [usize; 2],
    pub(super) then: Then<'a>,
    /// [rows, columns].
    pub(super) out: &'a mut [f32],
}

impl<F: Factor> WithSimd for Product<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1>(simd),
            8 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 16>(simd),
        }
    }
}

/// A part of a product whose sums are made in one go: some factors of some rows, by the columns of `P` panels.
struct Part<'a, F, const P: usize> {
    /// These factors of the first row, and from there on.
    left: &'a [F],
    /// From a row to the next one there.
    stride: usize,
    first_row: usize,
    first_column: usize,
    /// Whether they are the first ones, and the last.
    ends: [bool; 2],
    /// Their factors of each panel.
    panels: [&'a [F]; P],
}

/// The sums of a row, by panel.
pub(super) type Sums<const P: usize> = [[f32; PANEL]; P];

/// Rows that are gone over panel by panel, and some of their factors.
struct Block<'a, F> {
    rows: Range<usize>,
    factors: Range<usize>,
    /// Those of the first row, and from there on.
    left: &'a [F],
    /// From a row to the next one there.
    stride: usize,
}

impl<F: Factor> Product<'_, F> {
    /// The vectors of a row of a panel are `V`.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(mut self, simd: S) {
        let [inputs, columns] = self.sizes;
        let rows = self.left.len() / inputs;
        let factors = inputs.div_ceil(F::VALUES);
        let (most, values) = match V {
            1 => (TALL_INPUTS_AT_ONCE, TALL_VALUES_AT_ONCE),
            _ => (INPUTS_AT_ONCE, VALUES_AT_ONCE),
        };
        let factors_at_once = inputs_at_once(factors, most);
        let rows_at_once = rows_at_once(factors_at_once, values);
        let mut gathered = Vec::new();
        for first in (0..rows).step_by(rows_at_once) {
            let rows = first..rows.min(first + rows_at_once);
            for first in (0..factors).step_by(factors_at_once) {
                let factors = first..factors.min(first + factors_at_once);
                let (left, stride) = match F::in_place(self.left) {
                    Some(left) if V != 1 => (&left[rows.start * inputs + first..], inputs),
                    _ => {
                        self.gather(&rows, &factors, &mut gathered);
                        (&gathered[..], factors.len())
                    }
                };
                let block = Block { rows: rows.clone(), factors, left, stride };
                let mut first_column = 0;
                while first_column < columns {
                    if V == 1 && columns - first_column > PANEL {
                        self.panels::<S, V, PANELS>(simd, &block, first_column);
                        first_column += PANELS * PANEL;
                    } else {
                        self.panels::<S, V, 1>(simd, &block, first_column);
                        first_column += PANEL;
                    }
                }
            }
        }
    }

    /// Writes some factors of some rows of the left matrix, row by row.
    #[inline(always)]
    fn gather(&self, rows: &Range<usize>, factors: &Range<usize>, gathered: &mut Vec<F>) {
        let [inputs, _] = self.sizes;
        gathered.resize(rows.len() * factors.len(), F::default());
        let values = factors.start * F::VALUES..inputs.min(factors.end * F::VALUES);
        for (row, to) in rows.clone().zip(gathered.chunks_exact_mut(factors.len())) {
            F::write(&self.left[row * inputs..][values.clone()], to);
        }
    }

    /// The products of a block with `P` panels.
    #[inline(always)]
    fn panels<S: Simd, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        block: &Block<'_, F>,
        first_column: usize,
    ) {
        let all = self.sizes[0].div_ceil(F::VALUES);
        let &Block { ref rows, ref factors, left, stride } = block;
        let mut panels: [&[F]; P] = [&[]; P];
        for (nth, panel) in panels.iter_mut().enumerate() {
            let first = (first_column + nth * PANEL) * all + factors.start * PANEL;
            *panel = &self.right[first..][..factors.len() * PANEL];
        }
        let ends = [factors.start == 0, factors.end == all];
        let mut first_row = rows.start;
        while first_row < rows.end {
            let left = &left[(first_row - rows.start) * stride..];
            let part = Part { left, stride, first_row, first_column, ends, panels };
            first_row += self.rows::<S, V, P>(simd, &part, rows.end - first_row);
        }
    }

    /// Makes the sums of as many rows as are a tile, of so many that are left. Says how many.
    #[inline(always)]
    fn rows<S: Simd, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        part: &Part<'_, F, P>,
        left: usize,
    ) -> usize {
        match left {
            1 => self.part::<S, 1, V, P>(simd, part),
            2 => self.part::<S, 2, V, P>(simd, part),
            3 => self.part::<S, 3, V, P>(simd, part),
            4 => self.part::<S, 4, V, P>(simd, part),
            5 => self.part::<S, 5, V, P>(simd, part),
            TALL_TILE.. if V == 1 => {
                self.part::<S, TALL_TILE, V, P>(simd, part);
                return TALL_TILE;
            }
            _ => {
                self.part::<S, TILE, V, P>(simd, part);
                return TILE;
            }
        }
        left
    }

    // Arrays are filled by loops: what `map` and `from_fn` call is compiled by itself, for no vectors at all.
    #[inline(always)]
    fn part<S: Simd, const R: usize, const V: usize, const P: usize>(
        &mut self,
        simd: S,
        part: &Part<'_, F, P>,
    ) {
        let [_, columns] = self.sizes;
        let here = part.panels[0].len() / PANEL;
        let width = (P * PANEL).min(columns - part.first_column);
        let first = part.first_row * columns + part.first_column;
        let mut left: [&[F]; R] = [&[]; R];
        for (row, left) in left.iter_mut().enumerate() {
            *left = &part.left[row * part.stride..][..here];
        }
        let mut sums = [[[0.0; PANEL]; P]; R];
        let [begins, ends] = part.ends;
        if !begins {
            for (row, sums) in sums.iter_mut().enumerate() {
                get(&self.out[first + row * columns..][..width], sums);
            }
        }
        F::add::<S, R, V, P>(simd, left, part.panels, &mut sums);
        if ends {
            self.finish(simd, part, &mut sums);
        }
        for (row, sums) in sums.iter().enumerate() {
            put(sums, &mut self.out[first + row * columns..][..width]);
        }
    }

    /// Does what is to be done to the sums of all inputs.
    #[inline(always)]
    fn finish<S: Simd, const R: usize, const P: usize>(
        &self,
        simd: S,
        part: &Part<'_, F, P>,
        sums: &mut [Sums<P>; R],
    ) {
        let [_, columns] = self.sizes;
        let width = (P * PANEL).min(columns - part.first_column);
        let Then { scale, bias, residual, act } = self.then;
        let mut more = [[0.0; PANEL]; P];
        if let Some(scale) = scale {
            get(&scale[part.first_column..][..width], &mut more);
            sums.iter_mut().for_each(|sums| multiply(simd, sums.as_flattened_mut(), more.as_flattened()));
        }
        if let Some(bias) = bias {
            get(&bias[part.first_column..][..width], &mut more);
            sums.iter_mut().for_each(|sums| add(simd, sums.as_flattened_mut(), more.as_flattened()));
        }
        if let Some(residual) = residual {
            let first = part.first_row * columns + part.first_column;
            for (row, sums) in sums.iter_mut().enumerate() {
                get(&residual[first + row * columns..][..width], &mut more);
                add(simd, sums.as_flattened_mut(), more.as_flattened());
            }
        }
        if act != Activation::Linear {
            apart(simd, Activate { act, values: sums.as_flattened_mut().as_flattened_mut() });
        }
    }
}

/// Does `work` in a function of its own. Registers are given out by function: in one with much else around it, sums that are added to
/// in the innermost loop would not stay in theirs.
#[inline(never)]
pub(super) fn apart<S: Simd, W: WithSimd>(simd: S, work: W) -> W::Output {
    simd.vectorize(work)
}

#[inline(always)]
fn add<S: Simd>(simd: S, sums: &mut [f32], more: &[f32]) {
    let (sums, more) = (S::as_mut_simd_f32s(sums).0, S::as_simd_f32s(more).0);
    for (sum, &more) in sums.iter_mut().zip(more) {
        *sum = simd.add_f32s(*sum, more);
    }
}

#[inline(always)]
fn multiply<S: Simd>(simd: S, sums: &mut [f32], by: &[f32]) {
    let (sums, by) = (S::as_mut_simd_f32s(sums).0, S::as_simd_f32s(by).0);
    for (sum, &by) in sums.iter_mut().zip(by) {
        *sum = simd.mul_f32s(*sum, by);
    }
}

/// As many values as there are. Whole panels are what has to be fast.
#[inline(always)]
fn get<const P: usize>(from: &[f32], to: &mut Sums<P>) {
    match from.as_chunks::<PANEL>() {
        (whole, []) if whole.len() == P => to.copy_from_slice(whole),
        _ => to.as_flattened_mut()[..from.len()].copy_from_slice(from),
    }
}

/// Writes as many as there is room for.
#[inline(always)]
pub(super) fn put<const P: usize>(sums: &Sums<P>, out: &mut [f32]) {
    match out.as_chunks_mut::<PANEL>() {
        (whole, []) if whole.len() == P => whole.copy_from_slice(sums),
        _ => out.copy_from_slice(&sums.as_flattened()[..out.len()]),
    }
}

/// Adds to `sums`, for as many columns as `V` vectors have, the products of `left`, which has as many inputs as the panel.
#[inline(always)]
pub(super) fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: [&[f32]; R],
    panel: &[f32],
    sums: &mut [Sums<1>; R],
) {
    f32::add::<S, R, V, 1>(simd, left, [panel], sums);
}

struct Activate<'a> {
    act: Activation,
    values: &'a mut [f32],
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        activate(self.act, self.values);
    }
}

#[cfg(test)]
mod tests {
    use super::super::factors::{first_of, second_of};
    use super::*;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        crate::kernels::flex::tests::noise([len], 1.0, seed).into_data().to_vec().unwrap()
    }

    /// A product with all that can follow it, made by `run`.
    fn product<F: Factor>(
        left: &[f32],
        right: &[F],
        sizes: [usize; 2],
        run: impl FnOnce(Product<'_, F>),
    ) -> Vec<f32> {
        let bias = noise(sizes[1], 3);
        let mut out = vec![f32::NAN; left.len() / sizes[0] * sizes[1]];
        let residual = noise(out.len(), 4);
        let residual = (left.len() > sizes[0]).then_some(&residual[..]);
        let scale = noise(sizes[1], 5);
        let then = Then { scale: Some(&scale), bias: Some(&bias), residual, act: Activation::Gelu };
        run(Product { left, right, sizes, then, out: &mut out });
        out
    }

    #[test]
    fn packing_by_rows_and_by_columns_is_the_same() {
        for [inputs, columns] in [[1, 1], [3, 17], [130, 16], [65, 40]] {
            let by_column = noise(inputs * columns, 1);
            let by_row: Vec<f32> =
                (0..inputs * columns).map(|i| by_column[i % columns * inputs + i / columns]).collect();
            let (mut a, mut b) =
                (vec![0.0f32; packed_len(inputs, columns)], vec![0.0; packed_len(inputs, columns)]);
            pack_columns(&mut a, inputs, columns, |at| &by_column[at * inputs..][..inputs]);
            pack_rows(&mut b, inputs, columns, |at| &by_row[at * columns..][..columns]);
            assert_eq!(a, b);
        }
    }

    fn noise_packed<F: Factor>(inputs: usize, columns: usize) -> Vec<F> {
        let values = noise(inputs * columns, 2);
        let mut packed = vec![F::default(); packed_len(inputs.div_ceil(F::VALUES), columns)];
        pack_columns(&mut packed, inputs, columns, |column| &values[column * inputs..][..inputs]);
        packed
    }

    /// The chain of fused steps that an element is, one by one.
    fn an_element_is_a_chain<F: Factor>(add: impl Fn(F, F, f32) -> f32) {
        let [inputs, columns] = [431, 21];
        let (left, right) = (noise(9 * inputs, 1), noise_packed::<F>(inputs, columns));
        let factors = inputs.div_ceil(F::VALUES);
        let then = Then::NOTHING;
        for rows in 1..=9 {
            let mut out = vec![f32::NAN; rows * columns];
            let left = &left[..rows * inputs];
            let sizes = [inputs, columns];
            pulp::Arch::new().dispatch(Product { left, right: &right, sizes, then, out: &mut out });
            for (at, got) in out.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let panel = &right[column / PANEL * PANEL * factors..];
                let mut written = vec![F::default(); factors];
                F::write(&left[row * inputs..][..inputs], &mut written);
                let want = (0..factors)
                    .fold(0.0f32, |sum, k| add(written[k], panel[k * PANEL + column % PANEL], sum));
                assert_eq!(got.to_bits(), want.to_bits(), "row {row} of {rows}, column {column}");
            }
        }
    }

    #[test]
    fn an_element_depends_on_its_row_alone() {
        an_element_is_a_chain::<f32>(f32::mul_add);
    }

    /// With whichever instructions.
    #[test]
    fn an_element_of_pairs_depends_on_its_row_alone() {
        an_element_is_a_chain::<Pair>(|left, right, sum| {
            let sum = second_of(left).mul_add(second_of(right), sum);
            first_of(left).mul_add(first_of(right), sum)
        });
    }

    fn any_width_gives_the_same_bits<F: Factor>() {
        let shapes =
            [[1, 1, 1], [7, 64, 10], [13, 300, 33], [6, 16, 48], [5, 1031, 24], [29, 40, 17], [180, 200, 20]];
        for [rows, inputs, columns] in shapes {
            let (left, right) = (noise(rows * inputs, 1), noise_packed::<F>(inputs, columns));
            let product = |run: fn(Product<'_, F>)| {
                let out = product(&left, &right, [inputs, columns], run);
                out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
            };
            let widest = product(|of| pulp::Arch::new().dispatch(of));
            assert!(
                widest == product(|of| of.with_simd(pulp::Scalar::new())),
                "{rows} x {inputs} x {columns}"
            );
            #[cfg(target_arch = "x86_64")]
            if pulp::x86::V3::try_new().is_some() {
                let narrower = product(|of| Simd::vectorize(pulp::x86::V3::try_new().unwrap(), of));
                assert!(widest == narrower, "{rows} x {inputs} x {columns}");
            }
        }
    }

    #[test]
    fn vectors_of_any_width_give_the_same_bits() {
        any_width_gives_the_same_bits::<f32>();
    }

    #[test]
    fn vectors_of_any_width_give_the_same_bits_of_pairs() {
        any_width_gives_the_same_bits::<Pair>();
    }

    /// Values from the least to the largest, and what is no number: what an instruction takes as zero, and plain steps do not, shows here.
    #[test]
    fn pairs_of_any_size_give_the_same_bits() {
        let values: Vec<f32> = (0..4096u32)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9).rotate_left(7)))
            .map(|value| if value.is_nan() { f32::MIN_POSITIVE / 3.0 } else { value })
            .collect();
        let [inputs, columns] = [64, 64];
        let mut right = vec![0; packed_len(inputs / 2, columns)];
        pack_columns(&mut right, inputs, columns, |column| &values[column * inputs..][..inputs]);
        let product = |run: fn(Product<'_, Pair>)| {
            let mut out = vec![0.0; values.len() / inputs * columns];
            let then = Then::NOTHING;
            run(Product { left: &values, right: &right, sizes: [inputs, columns], then, out: &mut out });
            out.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect::<Vec<_>>()
        };
        let plain = product(|of| of.with_simd(pulp::Scalar::new()));
        assert!(plain == product(|of| pulp::Arch::new().dispatch(of)));
        assert!(plain.iter().any(|&bits| f32::from_bits(bits).is_finite()));
    }
}
