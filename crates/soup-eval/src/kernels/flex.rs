//! The kernels on the CPU backend: one pass over slices each, in place where the input is not needed any more.

use burn::backend::Flex;
use burn::backend::flex::{FlexDevice, FlexTensor};
use burn::tensor::{Tensor, TensorData, TensorPrimitive};

use super::attention::Split;
use super::math::{erf, exp, sigmoid, tanh};
use super::{Activation, Kernels, Norm};

/// Sums are kept in this many lanes, so that they vectorise; the order of additions is fixed by the row alone.
const LANES: usize = 16;

impl Kernels for Flex {
    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        let bias = bias.map(contiguous);
        let bias = bias.as_ref().map(values);
        match act {
            Activation::Gelu => {
                map_rows(x, bias, |v| 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)))
            }
            Activation::GeluTanh => map_rows(x, bias, gelu_tanh),
            Activation::QuickGelu => map_rows(x, bias, |v| v * sigmoid(1.702 * v)),
            // Not `max`, which would hide a NaN.
            Activation::Relu => map_rows(x, bias, |v| if v < 0.0 { 0.0 } else { v }),
            Activation::Silu => map_rows(x, bias, |v| v * sigmoid(v)),
            Activation::Tanh => map_rows(x, bias, tanh),
            Activation::Sigmoid => map_rows(x, bias, sigmoid),
            Activation::Linear => match bias {
                Some(_) => map_rows(x, bias, |v| v),
                None => x,
            },
        }
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
        let (gamma, beta) = (values(&gamma), values(&beta));
        let input = contiguous(x);
        let input = values(&input);
        let width = gamma.len();
        let mut out = Vec::with_capacity(input.len());
        for row in input.chunks_exact(width) {
            let mean = sum(row, |v| v) / width as f32;
            let variance = sum(row, |v| (v - mean) * (v - mean)) / width as f32;
            let inverse = 1.0 / (variance + norm.epsilon as f32).sqrt();
            out.extend(row.iter().zip(gamma).zip(beta).map(|((&v, &g), &b)| (v - mean) * inverse * g + b));
        }
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
        let split = Split::new(query, key_value, sizes);
        let shares = split.shares();
        side_by_side([split.context(shares)])
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

/// The square root of 2 / pi.
pub(super) const GELU_TANH_SCALE: f32 = 0.797_884_6;
/// Factor of the cube.
pub(super) const GELU_TANH_CUBE: f32 = 0.044_715;

/// `tanh` approximation of GELU.
#[inline(always)]
fn gelu_tanh(v: f32) -> f32 {
    0.5 * v * (1.0 + tanh(GELU_TANH_SCALE * (v + GELU_TANH_CUBE * v * v * v)))
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
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    a_rest.iter().zip(b_rest).fold(lanes[0], |s, (&a, &b)| s + f(a, b))
}

#[inline(always)]
fn map_rows(x: Tensor<Flex, 2>, bias: Option<&[f32]>, f: impl Fn(f32) -> f32) -> Tensor<Flex, 2> {
    match bias {
        Some(bias) => rows_in_place(x, |row, _| {
            for (v, &b) in row.iter_mut().zip(bias) {
                *v = f(*v + b);
            }
        }),
        None => rows_in_place(x, |row, _| row.iter_mut().for_each(|v| *v = f(*v))),
    }
}

/// Calls `f(row, index)` on every row of the last dimension, in place where nobody else holds the values.
#[inline(always)]
pub(super) fn rows_in_place<const D: usize>(
    x: Tensor<Flex, D>,
    mut f: impl FnMut(&mut [f32], usize),
) -> Tensor<Flex, D> {
    let width = x.dims()[D - 1];
    let mut flex = contiguous_owned(x);
    if width > 0 {
        for (index, row) in flex.storage_mut::<f32>().chunks_exact_mut(width).enumerate() {
            f(row, index);
        }
    }
    Tensor::from_primitive(TensorPrimitive::Float(flex))
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

    pub(in super::super) const ACTIVATIONS: [Activation; 8] = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Linear,
    ];

    #[test]
    fn the_fused_kernels_do_what_the_plain_ones_do() {
        for (rows, width) in [(1, 1), (3, 7), (17, 64), (5, 129)] {
            let (x, bias) = (noise([rows, width], 6.0, 1), noise([width], 1.0, 2));
            for act in ACTIVATIONS {
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
        for act in ACTIVATIONS {
            let out = Flex::bias_act(x.clone(), None, act).into_data().to_vec::<f32>().unwrap();
            assert!(out[0].is_nan() && out[1].is_finite(), "{act:?}");
        }
        let gated = Flex::swiglu(x.clone().slice([0..1, 0..2])).into_data().to_vec::<f32>().unwrap();
        assert!(gated[0].is_nan());
        let out = Flex::softmax_scaled(x.unsqueeze(), 1.0).into_data().to_vec::<f32>().unwrap();
        assert!(out.iter().all(|v| v.is_nan()));
    }
}
