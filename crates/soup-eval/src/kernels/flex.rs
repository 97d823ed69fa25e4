//! The kernels on the CPU backend: one pass over slices each, in place where the input is not needed any more, compiled for the widest
//! vectors that the machine has.
//!
//! What a row or an image comes out as is the same whatever is beside it, in every kernel: none pads, and batches have any size.

mod activation;
mod attention;
mod convolution;
mod dot;
mod factors;
mod likelihood;
mod product;
mod relative;
mod rms;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::{FlexDevice, FlexTensor};
use burn::tensor::{DType, Element, Tensor, TensorData, TensorPrimitive};
use pulp::{Simd, WithSimd};
use soup_core::Result;

use self::activation::activate;
pub(super) use self::activation::{GELU_TANH_CUBE, GELU_TANH_SCALE};
use self::attention::{Attention, Sizes};
use self::convolution::{Dense, Largest, Mean, PerChannel};
pub(super) use self::convolution::{Image, dense_by_rows, places, seen};
use self::factors::{Factor, Pair};
pub(super) use self::likelihood::partition;
use self::product::{PANEL, Packed, Then, pack_columns, pack_rows, packed_len};
pub(super) use self::relative::attend_pairs;
use super::math::{exp, sigmoid};
use super::relative::{Pairs, Relative, Scores};
use super::texts::Spans;
use super::windows::Windows;
use super::{Activation, Filters, Finish, Kernels, Norm, arithmetic, tensor};
use crate::device::Precision;
use crate::parameters::visitor::Layout;
use crate::parameters::{pixels_first, transpose};

/// Sums are kept in this many lanes, so that they vectorise; the order of additions is fixed by the row alone.
const LANES: usize = 16;

/// Does what is compiled several times, for the vectors of one kind of machine each, as it is for this one.
fn vectorised<W: WithSimd>(work: W) -> W::Output {
    pulp::Arch::new().dispatch(work)
}

impl Kernels for Flex {
    const ANY_BATCH: bool = true;

    fn on<T>(_: &FlexDevice, precision: Precision, work: impl FnOnce() -> Result<T>) -> Result<T> {
        arithmetic::within(precision, work)
    }

    /// Matrices are packed, `[panels * factors, PANEL]`.
    fn parameter<const D: usize>(
        values: Vec<f32>,
        layout: &Layout,
        shape: [usize; D],
        device: &FlexDevice,
    ) -> Tensor<Self, D> {
        let packed = |values: &[f32], [inputs, outputs]: [usize; 2]| {
            let packed = pack([inputs, outputs], |output| &values[output * inputs..][..inputs]);
            // No float of burn's, where it is pairs: none of its operations is for it.
            Tensor::from_primitive(TensorPrimitive::Float(packed))
        };
        match (layout, &shape[..]) {
            (Layout::Transposed, &[inputs, outputs]) => packed(&values, [inputs, outputs]),
            (Layout::Matrix, &[inputs, outputs]) => {
                packed(&transpose(&values, inputs, outputs), [inputs, outputs])
            }
            (&Layout::Filters { channels }, &[inputs, outputs]) => {
                packed(&pixels_first(&values, channels, inputs / channels), [inputs, outputs])
            }
            (Layout::PerChannel, &[pixels, channels]) => {
                tensor(transpose(&values, channels, pixels), shape, device)
            }
            (Layout::Interpolated(map), _) => tensor(map.apply(&values), shape, device),
            _ => tensor(values, shape, device),
        }
    }

    fn patches(
        images: Tensor<Self, 4>,
        [rows, columns]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Tensor<Self, 2> {
        let [batch, channels, image_height, image_width] = images.dims();
        let images = contiguous_owned(images);
        let images = values(&images);
        let pixels = channels * height * width;
        let mut out = Vec::with_capacity(batch * rows * columns * pixels);
        for image in images.chunks_exact(channels * image_height * image_width) {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                for channel in image.chunks_exact(image_height * image_width) {
                    for line in channel.chunks_exact(image_width).skip(row * height).take(height) {
                        out.extend_from_slice(&line[column * width..][..width]);
                    }
                }
            }
        }
        tensor(out, [batch * rows * columns, pixels], &FlexDevice)
    }

    fn tokens(
        whole: Vec<Tensor<Self, 3>>,
        patches: Tensor<Self, 2>,
        positions: Tensor<Self, 3>,
    ) -> Tensor<Self, 3> {
        let ([rows, hidden], [_, tokens, _]) = (patches.dims(), positions.dims());
        let patches_of_one = tokens - whole.iter().map(|token| token.dims()[1]).sum::<usize>();
        let whole: Vec<FlexTensor> = whole.into_iter().map(contiguous_owned).collect();
        let (patches, positions) = (contiguous_owned(patches), contiguous_owned(positions));
        let batch = rows / patches_of_one;
        let mut out = Vec::with_capacity(batch * tokens * hidden);
        for patches in values(&patches).chunks_exact(patches_of_one * hidden) {
            let whole = whole.iter().flat_map(|some| values(some).chunks_exact(hidden));
            let rows = whole.chain(patches.chunks_exact(hidden));
            for (row, position) in rows.zip(values(&positions).chunks_exact(hidden)) {
                out.extend(row.iter().zip(position).map(|(v, p)| v + p));
            }
        }
        tensor(out, [batch, tokens, hidden], &FlexDevice)
    }

    fn matmul<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        let dims = right.dims();
        let &[inputs, columns] = &dims[..] else {
            return left.matmul(right);
        };
        let right = contiguous_owned(right);
        let mut packed = vec![0.0; packed_len(inputs, columns)];
        pack_rows(&mut packed, inputs, columns, |input| &values(&right)[input * columns..][..columns]);
        product(left, Packed::Values(&packed), columns, Then::NOTHING)
    }

    fn linear_act(
        x: Tensor<Self, 2>,
        (weight, outputs): (Tensor<Self, 2>, usize),
        bias: Option<&Tensor<Self, 1>>,
        act: Activation,
    ) -> Tensor<Self, 2> {
        let (weight, bias) = (contiguous_owned(weight), bias.map(contiguous));
        let then = Then { bias: bias.as_ref().map(values), act, ..Then::NOTHING };
        product(x, packed(&weight), outputs, then)
    }

    fn linear_residual(
        x: Tensor<Self, 2>,
        (weight, outputs): (Tensor<Self, 2>, usize),
        bias: Option<&Tensor<Self, 1>>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (weight, bias, residual) = (contiguous_owned(weight), bias.map(contiguous), contiguous(residual));
        let (bias, residual) = (bias.as_ref().map(values), Some(values(&residual)));
        product(x, packed(&weight), outputs, Then { bias, residual, ..Then::NOTHING })
    }

    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        if bias.is_none() && act == Activation::Linear {
            return x;
        }
        let bias = bias.map(contiguous);
        let bias = bias.as_ref().map(values);
        rows_in_place(x, |row, _| {
            if let Some(bias) = bias {
                row.iter_mut().zip(bias).for_each(|(v, &b)| *v += b);
            }
            activate(act, row);
        })
    }

    fn bias_residual(
        x: Tensor<Self, 2>,
        bias: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (bias, residual) = (contiguous(bias), contiguous(residual));
        let (bias, residual) = (values(&bias), values(&residual));
        rows_in_place(x, |row, index| {
            let residual = &residual[index * bias.len()..][..bias.len()];
            for ((v, &b), &r) in row.iter_mut().zip(bias).zip(residual) {
                *v = *v + b + r;
            }
        })
    }

    fn scale_residual(
        x: Tensor<Self, 2>,
        scale: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (scale, residual) = (contiguous(scale), contiguous(residual));
        let (scale, residual) = (values(&scale), values(&residual));
        rows_in_place(x, |row, index| {
            let residual = &residual[index * scale.len()..][..scale.len()];
            for ((v, &s), &r) in row.iter_mut().zip(scale).zip(residual) {
                *v = *v * s + r;
            }
        })
    }

    fn swiglu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [rows, columns] = x.dims();
        let width = columns / 2;
        let x = contiguous_owned(x);
        let mut out = Vec::with_capacity(rows * width);
        // No dimension is 0: a config has none, and an empty batch is never run.
        for row in values(&x).chunks_exact(columns) {
            let (gate, value) = row.split_at(width);
            out.extend(gate.iter().zip(value).map(|(&g, &v)| g * sigmoid(g) * v));
        }
        Tensor::from_data(TensorData::new(out, [rows, width]), &FlexDevice)
    }

    fn norm_rows(x: &Tensor<Self, 2>, norm: &Norm<Self>) -> Tensor<Self, 2> {
        let (gamma, beta) = (contiguous(&norm.gamma), contiguous(&norm.beta));
        let input = contiguous(x);
        let mut out = vec![0.0; values(&input).len()];
        vectorised(NormRows {
            input: values(&input),
            gamma: values(&gamma),
            beta: values(&beta),
            epsilon: norm.epsilon as f32,
            out: &mut out,
        });
        Tensor::from_data(TensorData::new(out, x.shape()), &x.device())
    }

    fn softmax_scaled(x: Tensor<Self, 4>, scale: f32) -> Tensor<Self, 4> {
        rows_in_place(x, |row, _| {
            let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
            // Scales are positive, so the largest stays the largest.
            for v in row.iter_mut() {
                *v = exp((*v - largest) * scale);
            }
            let inverse = 1.0 / sum(row, |v| v);
            for v in row.iter_mut() {
                *v *= inverse;
            }
        })
    }

    fn attend(query: Tensor<Self, 2>, key_value: Tensor<Self, 2>, sizes: [usize; 2]) -> Tensor<Self, 2> {
        attend(query, key_value, sizes, None)
    }

    fn attend_texts(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        texts: &Spans,
        heads: usize,
    ) -> Tensor<Self, 2> {
        let [rows, _] = query.dims();
        let pairs = Pairs::of_texts(texts, rows);
        attend_pairs(query, key_value, (&pairs, heads), &Scores::Scaled, None)
    }

    fn against_rows(x: Tensor<Self, 2>, table: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [columns, inputs] = table.dims();
        let table = contiguous_owned(table);
        let matrix = pack([inputs, columns], |row| &values(&table)[row * inputs..][..inputs]);
        product(x, packed(&matrix), columns, Then::NOTHING)
    }

    fn rms_rows(x: &Tensor<Self, 2>, gamma: &Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        rms::rms_rows(x, gamma, epsilon)
    }

    fn attend_pairs(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        (pairs, heads): (&Pairs, usize),
        relative: Option<&Relative<Self>>,
    ) -> Tensor<Self, 2> {
        attend_pairs(query, key_value, (pairs, heads), &Scores::And(relative), None)
    }

    fn log_likelihoods(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        likelihood::log_likelihoods(logits, at)
    }

    fn most_probable(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        likelihood::most_probable(logits, at)
    }

    fn channels_last(images: Tensor<Self, 4>) -> Tensor<Self, 2> {
        let [batch, channels, height, width] = images.dims();
        let images = contiguous_owned(images);
        // No dimension is 0: a config has none, and an empty batch is never run.
        let by_image = values(&images).chunks_exact(channels * height * width);
        let out = by_image.flat_map(|image| transpose(image, channels, height * width)).collect();
        tensor(out, [batch * height * width, channels], &FlexDevice)
    }

    fn convolve(x: Tensor<Self, 2>, filters: Filters<Self>, windows: &Windows) -> Tensor<Self, 2> {
        convolve(x, filters, windows, Then::NOTHING)
    }

    fn convolve_then(
        x: Tensor<Self, 2>,
        filters: Filters<Self>,
        windows: &Windows,
        finish: Finish<'_, Self>,
    ) -> Tensor<Self, 2> {
        finishing(finish, |then| convolve(x, filters, windows, then))
    }

    fn finish(x: Tensor<Self, 2>, finish: Finish<'_, Self>) -> Tensor<Self, 2> {
        finishing(finish, |then| rows_in_place(x, |row, index| convolution::finish(row, then, index)))
    }

    fn largest(x: Tensor<Self, 2>, windows: &Windows) -> Tensor<Self, 2> {
        let [_, channels] = x.dims();
        let x = contiguous_owned(x);
        let mut out = vec![0.0; windows.rows() * channels];
        vectorised(Largest { input: values(&x), channels, windows, out: &mut out });
        tensor(out, [windows.rows(), channels], &FlexDevice)
    }

    fn mean(x: Tensor<Self, 2>, batch: usize) -> Tensor<Self, 2> {
        let [_, channels] = x.dims();
        let x = contiguous_owned(x);
        let mut out = vec![0.0; batch * channels];
        vectorised(Mean { input: values(&x), channels, out: &mut out });
        tensor(out, [batch, channels], &FlexDevice)
    }

    fn scale_images(x: Tensor<Self, 2>, factors: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let ([rows, _], [batch, channels]) = (x.dims(), factors.dims());
        let (pixels, factors) = (rows / batch, contiguous_owned(factors));
        let factors = values(&factors);
        rows_in_place(x, |row, index| {
            let factors = &factors[index / pixels * channels..][..channels];
            row.iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
        })
    }
}

/// Does `work` with what is to follow it.
fn finishing<T>(finish: Finish<'_, Flex>, work: impl FnOnce(Then<'_>) -> T) -> T {
    let Finish { scale, shift, residual, act } = finish;
    let (scale, shift) = (contiguous_owned(scale), contiguous_owned(shift));
    let residual = residual.map(contiguous);
    work(Then {
        scale: Some(values(&scale)),
        bias: Some(values(&shift)),
        residual: residual.as_ref().map(values),
        act,
    })
}

/// A convolution, and what comes after it.
fn convolve(
    x: Tensor<Flex, 2>,
    filters: Filters<Flex>,
    windows: &Windows,
    then: Then<'_>,
) -> Tensor<Flex, 2> {
    let [_, channels] = x.dims();
    match filters {
        Filters::Dense(weight, outputs) if windows.are_pixels() => {
            product(x, packed(&contiguous_owned(weight)), outputs, then)
        }
        Filters::Dense(weight, outputs) => {
            let (x, weight) = (contiguous_owned(x), contiguous_owned(weight));
            let mut out = vec![0.0; windows.rows() * outputs];
            let right = packed(&weight);
            let dense = Dense { input: values(&x), sizes: [channels, outputs], windows, right, then };
            dense.run(&mut out);
            tensor(out, [windows.rows(), outputs], &FlexDevice)
        }
        Filters::PerChannel(weight) => {
            let (x, weight) = (contiguous_owned(x), contiguous_owned(weight));
            let mut out = vec![0.0; windows.rows() * channels];
            let (input, weight) = (values(&x), values(&weight));
            vectorised(PerChannel { input, channels, windows, weight, then, out: &mut out });
            tensor(out, [windows.rows(), channels], &FlexDevice)
        }
    }
}

/// The product with a packed matrix of so many columns, and what comes after it.
fn product<const D: usize>(
    left: Tensor<Flex, D>,
    right: Packed<'_>,
    columns: usize,
    then: Then<'_>,
) -> Tensor<Flex, D> {
    let mut shape = left.dims();
    let [rows, inputs] = [shape[0], shape[1]];
    shape[1] = columns;
    let left = contiguous_owned(left);
    let mut out = vec![0.0; rows * columns];
    right.multiply(values(&left), [inputs, columns], then, &mut out);
    tensor(out, shape, &FlexDevice)
}

/// [`Kernels::attend`], and how much of every token each query takes: `[batch, heads, asked, tokens]`.
pub(super) fn attention(
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    [batch, heads]: [usize; 2],
) -> (Tensor<Flex, 2>, Tensor<Flex, 4>) {
    let Sizes { asked, tokens, .. } = sizes_of(&query, &key_value, [batch, heads]);
    let mut shares = vec![0.0; batch * heads * asked * tokens];
    let out = attend(query, key_value, [batch, heads], Some(&mut shares));
    (out, tensor(shares, [batch, heads, asked, tokens], &FlexDevice))
}

fn sizes_of(query: &Tensor<Flex, 2>, key_value: &Tensor<Flex, 2>, [batch, heads]: [usize; 2]) -> Sizes {
    let ([rows, hidden], [all, _]) = (query.dims(), key_value.dims());
    Sizes { batch, heads, asked: rows / batch, tokens: all / batch, width: hidden / heads }
}

fn attend(
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    of: [usize; 2],
    shares: Option<&mut [f32]>,
) -> Tensor<Flex, 2> {
    let (sizes, shape) = (sizes_of(&query, &key_value, of), query.dims());
    let (query, key_value) = (contiguous_owned(query), contiguous_owned(key_value));
    let mut out = vec![0.0; shape[0] * shape[1]];
    vectorised(Attention {
        sizes,
        query: values(&query),
        key_value: values(&key_value),
        out: &mut out,
        scale: sizes.scale(),
        bias: None,
        shares,
    });
    tensor(out, shape, &FlexDevice)
}

/// Layer normalisation of every row.
struct NormRows<'a> {
    input: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl WithSimd for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let NormRows { input, gamma, beta, epsilon, out } = self;
        let width = gamma.len();
        for (row, out) in input.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = sum(row, |v| v) / width as f32;
            let variance = sum(row, |v| (v - mean) * (v - mean)) / width as f32;
            let inverse = 1.0 / (variance + epsilon).sqrt();
            for (((out, &v), &g), &b) in out.iter_mut().zip(row).zip(gamma).zip(beta) {
                *out = (v - mean) * inverse * g + b;
            }
        }
    }
}

/// `[batch, heads, rows, width]` each, to `[batch * rows, parts * heads * width]`.
pub(super) fn side_by_side<const N: usize>(parts: [Tensor<Flex, 4>; N]) -> Tensor<Flex, 2> {
    let [batch, heads, rows, width] = parts[0].dims();
    let columns = N * heads * width;
    let mut out = vec![0.0; batch * rows * columns];
    for (index, part) in parts.into_iter().enumerate() {
        let part = contiguous_owned(part);
        // No dimension is 0: a config has none, and an empty batch is never run.
        for (block, head_rows) in values(&part).chunks_exact(rows * width).enumerate() {
            let (image, head) = (block / heads, block % heads);
            for (row, values) in head_rows.chunks_exact(width).enumerate() {
                let at = (image * rows + row) * columns + (index * heads + head) * width;
                out[at..at + width].copy_from_slice(values);
            }
        }
    }
    Tensor::from_data(TensorData::new(out, [batch * rows, columns]), &FlexDevice)
}

/// The sum of `f` of every element, in vectorisable lanes.
#[inline(always)]
pub(super) fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum_of_two(row, row, |v, _| f(v))
}

/// The sum of `f` of every pair of elements, in vectorisable lanes.
#[inline(always)]
pub(super) fn sum_of_two(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    a_rest.iter().zip(b_rest).fold(reduce(lanes, |a, b| a + b), |s, (&a, &b)| s + f(a, b))
}

/// What `f` makes of all lanes, in halves.
#[inline(always)]
fn reduce(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Calls `f(row, index)` on every row of the last dimension, in place where nobody else holds the values.
pub(super) fn rows_in_place<const D: usize>(
    x: Tensor<Flex, D>,
    f: impl FnMut(&mut [f32], usize),
) -> Tensor<Flex, D> {
    let width = x.dims()[D - 1];
    let mut flex = contiguous_owned(x);
    if width > 0 {
        vectorised(EachRow { values: flex.storage_mut::<f32>(), width, f });
    }
    Tensor::from_primitive(TensorPrimitive::Float(flex))
}

struct EachRow<'a, F> {
    values: &'a mut [f32],
    width: usize,
    f: F,
}

impl<F: FnMut(&mut [f32], usize)> WithSimd for EachRow<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for (index, row) in self.values.chunks_exact_mut(self.width).enumerate() {
            (self.f)(row, index);
        }
    }
}

fn contiguous<const D: usize>(x: &Tensor<Flex, D>) -> FlexTensor {
    contiguous_owned(x.clone())
}

/// Consumes, so that values nobody else holds stay unshared.
pub(super) fn contiguous_owned<const D: usize>(x: Tensor<Flex, D>) -> FlexTensor {
    let flex = x.into_primitive().tensor();
    // The whole buffer or a copy of the part: `storage` below must be exactly the elements.
    flex.to_contiguous()
}

pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.storage::<f32>()
}

/// A matrix of so many inputs and columns, packed as the arithmetic in force takes it, `[panels * factors, PANEL]`.
fn pack<'a>(sizes: [usize; 2], column: impl Fn(usize) -> &'a [f32]) -> FlexTensor {
    match arithmetic::in_force() {
        Precision::Bf16 => pack_as::<Pair>(sizes, column),
        Precision::F32 | Precision::Tf32 => pack_as::<f32>(sizes, column),
    }
}

fn pack_as<'a, F: Factor + Element>(
    [inputs, columns]: [usize; 2],
    column: impl Fn(usize) -> &'a [f32],
) -> FlexTensor {
    let mut packed = vec![F::default(); packed_len(inputs.div_ceil(F::VALUES), columns)];
    pack_columns(&mut packed, inputs, columns, column);
    let shape = [packed.len() / PANEL, PANEL];
    FlexTensor::from_data(TensorData::new(packed, shape))
}

/// A matrix as [`pack`] makes it.
fn packed(x: &FlexTensor) -> Packed<'_> {
    match x.dtype() {
        DType::U32 => Packed::Pairs(x.storage::<Pair>()),
        _ => Packed::Values(values(x)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::plain;
    use super::*;

    /// Reproducible values between -range and range.
    pub(in super::super) fn noise<const D: usize>(
        dims: [usize; D],
        range: f32,
        seed: u32,
    ) -> Tensor<Flex, D> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 * range - range
        };
        let n: usize = dims.iter().product();
        Tensor::from_data(TensorData::new((0..n).map(|_| next()).collect::<Vec<_>>(), dims), &FlexDevice)
    }

    #[track_caller]
    fn check<const D: usize>(fused: Tensor<Flex, D>, plain: Tensor<Flex, D>) {
        assert_eq!(fused.dims(), plain.dims());
        let (fused, plain) = (fused.into_data().to_vec::<f32>(), plain.into_data().to_vec::<f32>());
        for (f, p) in fused.unwrap().into_iter().zip(plain.unwrap()) {
            assert!((f - p).abs() <= 2e-6 * p.abs().max(1.0), "{f} for {p}");
        }
    }

    #[test]
    fn the_fused_kernels_do_what_the_plain_ones_do() {
        for (rows, width) in [(1, 1), (3, 7), (17, 64), (5, 129)] {
            let (x, bias) = (noise([rows, width], 6.0, 1), noise([width], 1.0, 2));
            for act in Activation::ALL {
                check(
                    Flex::bias_act(x.clone(), Some(&bias), act),
                    plain::bias_act(x.clone(), Some(&bias), act),
                );
                check(Flex::bias_act(x.clone(), None, act), plain::bias_act(x.clone(), None, act));
            }
            let residual = noise([rows, width], 3.0, 3);
            check(
                Flex::bias_residual(x.clone(), &bias, &residual),
                plain::bias_residual(x.clone(), &bias, &residual),
            );
            let scale = noise([width], 2.0, 6);
            check(
                Flex::scale_residual(x.clone(), &scale, &residual),
                plain::scale_residual(x.clone(), &scale, &residual),
            );
            let gated = noise([rows, 2 * width], 6.0, 7);
            check(Flex::swiglu(gated.clone()), plain::swiglu(gated));
            let norm = Norm { gamma: noise([width], 2.0, 4), beta: bias.clone(), epsilon: 1e-5 };
            if width > 1 {
                check(Flex::norm_rows(&x, &norm), plain::layer_norm(&x, &norm));
            }
            let scores = noise([2, 3, rows, width], 20.0, 5);
            check(Flex::softmax_scaled(scores.clone(), 0.25), plain::softmax(scores, 0.25));
        }
    }

    #[test]
    fn attention_mixes_the_values_of_its_own_image_and_head() {
        for (batch, heads, asked, tokens, width) in [(1, 1, 1, 1, 1), (3, 2, 5, 5, 4), (2, 4, 1, 17, 16)] {
            let hidden = heads * width;
            let query = noise([batch * asked, hidden], 2.0, 1);
            let key_value = noise([batch * tokens, 2 * hidden], 2.0, 2);
            let got = Flex::attend(query.clone(), key_value.clone(), [batch, heads]);
            let mut rows = Vec::new();
            for image in 0..batch {
                let mut parts = Vec::new();
                for head in 0..heads {
                    let (own, columns) =
                        (image * tokens..(image + 1) * tokens, head * width..(head + 1) * width);
                    let query = query.clone().slice([image * asked..(image + 1) * asked, columns.clone()]);
                    let key = key_value.clone().slice([own.clone(), columns.clone()]);
                    let values = columns.start + hidden..columns.end + hidden;
                    let value = key_value.clone().slice([own, values]);
                    let scores = query.matmul(key.transpose()).unsqueeze::<4>();
                    let shares: Tensor<Flex, 4> = plain::softmax(scores, 1.0 / (width as f32).sqrt());
                    parts.push(shares.reshape([asked, tokens]).matmul(value));
                }
                rows.push(Tensor::cat(parts, 1));
            }
            check(got, Tensor::cat(rows, 0));
        }
    }

    #[test]
    fn views_and_shared_values_are_left_alone() {
        let x = noise([8, 10], 1.0, 1);
        let before = x.clone().into_data();
        let view = x.clone().slice([2..5, 0..10]);
        check(
            Flex::bias_act(view.clone(), None, Activation::Tanh),
            plain::bias_act(view, None, Activation::Tanh),
        );
        let _ = Flex::bias_act(x.clone(), None, Activation::Relu);
        assert_eq!(x.into_data(), before);
    }

    #[test]
    fn nan_stays_nan() {
        let x = Tensor::<Flex, 2>::from_data([[f32::NAN, 1.0, -1.0]], &FlexDevice);
        for act in Activation::ALL {
            let out = Flex::bias_act(x.clone(), None, act).into_data().to_vec::<f32>().unwrap();
            assert!(out[0].is_nan() && out[1].is_finite(), "{act:?}");
        }
        let gated = Flex::swiglu(x.clone().slice([0..1, 0..2])).into_data().to_vec::<f32>().unwrap();
        assert!(gated[0].is_nan());
        let out = Flex::softmax_scaled(x.unsqueeze(), 1.0).into_data().to_vec::<f32>().unwrap();
        assert!(out.iter().all(|v| v.is_nan()));
    }
}
