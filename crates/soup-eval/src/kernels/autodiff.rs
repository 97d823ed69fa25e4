//! The kernels under automatic differentiation on the CPU: each is one node of the graph, with a backward pass in
//! slices like its forward pass.
//!
//! The plain kernels would do, and the tests compare with them. They make a graph of a dozen small steps out of each,
//! every one with a buffer that stays until the backward pass: a fused one keeps a single tensor, which mostly is alive
//! anyhow, and computes the rest anew.
//!
//! The forward pass is [`Flex`]'s own, so that a sample's logits are the ones that it is judged by.

mod convolution;
mod likelihood;
mod relative;
mod rms;
mod texts;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexDevice, FlexTensor};
use burn::backend::{Autodiff, Flex};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};

use super::attention::Split;
use super::flex::{self, contiguous_owned, rows_in_place, side_by_side, values};
use super::math::{erf, exp, sigmoid, tanh};
use super::relative::{Pairs, Relative, Scores};
use super::texts::Spans;
use super::windows::Windows;
use super::{Activation, Filters, Finish, Kernels, Norm, plain};

impl Kernels for Autodiff<Flex> {
    fn matmul<const D: usize>(left: Tensor<Self, D>, right: Tensor<Self, D>) -> Tensor<Self, D> {
        let (left, right) = (primitive(left), primitive(right));
        let step = Product::<D>.prepare::<NoCheckpointing>([left.node, right.node]);
        let (left, right) = (left.primitive, right.primitive);
        let out = primitive(Flex::matmul::<D>(lift(left.clone()), lift(right.clone())));
        lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((left, right), out),
            OpsKind::UnTracked(step) => step.finish(out),
        })
    }

    fn bias_act(x: Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>, act: Activation) -> Tensor<Self, 2> {
        let Some(bias) = bias else {
            return plain::bias_act(x, None, act);
        };
        let (x, bias) = (primitive(x), primitive(bias.clone()));
        let step = BiasAct.prepare::<NoCheckpointing>([x.node, bias.node]);
        let sum = Flex::bias_act(lift(x.primitive), Some(&lift(bias.primitive)), Activation::Linear);
        let input = (act != Activation::Linear).then(|| primitive(sum.clone()));
        let out = primitive(Flex::bias_act(sum, None, act));
        lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((act, input), out),
            OpsKind::UnTracked(step) => step.finish(out),
        })
    }

    fn bias_residual(
        x: Tensor<Self, 2>,
        bias: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (x, bias, residual) = (primitive(x), primitive(bias.clone()), primitive(residual.clone()));
        let step = BiasResidual.prepare::<NoCheckpointing>([x.node, bias.node, residual.node]);
        let out = Flex::bias_residual(lift(x.primitive), &lift(bias.primitive), &lift(residual.primitive));
        lift(step.compute_bound().stateless(primitive(out)))
    }

    fn scale_residual(
        x: Tensor<Self, 2>,
        scale: &Tensor<Self, 1>,
        residual: &Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        let (x, scale, residual) = (primitive(x), primitive(scale.clone()), primitive(residual.clone()));
        let step = ScaleResidual.prepare::<NoCheckpointing>([x.node, scale.node, residual.node]);
        let (input, factor) = (lift(x.primitive.clone()), lift(scale.primitive.clone()));
        let out = primitive(Flex::scale_residual(input, &factor, &lift(residual.primitive)));
        lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((x.primitive, scale.primitive), out),
            OpsKind::UnTracked(step) => step.finish(out),
        })
    }

    fn swiglu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let x = primitive(x);
        let step = Swiglu.prepare::<NoCheckpointing>([x.node]);
        let out = primitive(Flex::swiglu(lift(x.primitive.clone())));
        lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish(x.primitive, out),
            OpsKind::UnTracked(step) => step.finish(out),
        })
    }

    fn norm_rows(x: &Tensor<Self, 2>, norm: &Norm<Self>) -> Tensor<Self, 2> {
        let (x, epsilon) = (primitive(x.clone()), norm.epsilon);
        let (gamma, beta) = (primitive(norm.gamma.clone()), primitive(norm.beta.clone()));
        let step = NormRows.prepare::<NoCheckpointing>([x.node, gamma.node, beta.node]);
        let inner = Norm { gamma: lift(gamma.primitive.clone()), beta: lift(beta.primitive), epsilon };
        let out = primitive(Flex::norm_rows(&lift(x.primitive.clone()), &inner));
        lift(match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((x.primitive, gamma.primitive, epsilon), out),
            OpsKind::UnTracked(step) => step.finish(out),
        })
    }

    fn attend(query: Tensor<Self, 2>, key_value: Tensor<Self, 2>, sizes: [usize; 2]) -> Tensor<Self, 2> {
        let (query, key_value) = (primitive(query), primitive(key_value));
        let step = Attend.prepare::<NoCheckpointing>([query.node, key_value.node]);
        let (query, key_value) = (lift(query.primitive), lift(key_value.primitive));
        match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let (out, shares) = flex::attention(query.clone(), key_value.clone(), sizes);
                lift(step.finish(Attended { query, key_value, shares }, primitive(out)))
            }
            OpsKind::UnTracked(step) => lift(step.finish(primitive(Flex::attend(query, key_value, sizes)))),
        }
    }

    fn attend_texts(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        texts: &Spans,
        heads: usize,
    ) -> Tensor<Self, 2> {
        let [rows, _] = query.dims();
        relative::attend(query, key_value, (&Pairs::of_texts(texts, rows), heads), &Scores::Scaled)
    }

    fn rms_rows(x: &Tensor<Self, 2>, gamma: &Tensor<Self, 1>, epsilon: f64) -> Tensor<Self, 2> {
        rms::rms_rows(x, gamma, epsilon)
    }

    fn attend_pairs(
        query: Tensor<Self, 2>,
        key_value: Tensor<Self, 2>,
        of: (&Pairs, usize),
        relative: Option<&Relative<Self>>,
    ) -> Tensor<Self, 2> {
        relative::attend(query, key_value, of, &Scores::And(relative))
    }

    fn log_likelihoods(logits: Tensor<Self, 2>, at: &Arc<[u32]>) -> Tensor<Self, 2> {
        likelihood::log_likelihoods(logits, at)
    }

    fn first_of_each(x: Tensor<Self, 2>, texts: &Spans) -> Tensor<Self, 2> {
        texts::first_of_each(x, texts)
    }

    fn channels_last(images: Tensor<Self, 4>) -> Tensor<Self, 2> {
        Tensor::from_inner(Flex::channels_last(images.inner()))
    }

    fn convolve(x: Tensor<Self, 2>, filters: Filters<Self>, windows: &Windows) -> Tensor<Self, 2> {
        convolution::convolve(x, filters, windows)
    }

    fn finish(x: Tensor<Self, 2>, finish: Finish<'_, Self>) -> Tensor<Self, 2> {
        convolution::finish(x, finish)
    }

    fn largest(x: Tensor<Self, 2>, windows: &Windows) -> Tensor<Self, 2> {
        convolution::largest(x, windows)
    }

    fn mean(x: Tensor<Self, 2>, batch: usize) -> Tensor<Self, 2> {
        convolution::mean(x, batch)
    }
}

fn primitive<B: burn::tensor::backend::Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

fn lift<B: burn::tensor::backend::Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// A product of matrices.
#[derive(Debug)]
struct Product<const D: usize>;

impl<const D: usize> Backward<Flex, 2> for Product<D> {
    /// Its factors.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, D> = lift(gradients.consume::<Flex>(&ops.node));
        let (left, right): (Tensor<Flex, D>, Tensor<Flex, D>) = (lift(ops.state.0), lift(ops.state.1));
        let [d_left, d_right] = ops.parents;
        if let Some(parent) = d_left {
            let d_left = gradient.clone().matmul(right.transpose());
            gradients.register::<Flex>(parent.id, primitive(d_left));
        }
        if let Some(parent) = d_right {
            gradients.register::<Flex>(parent.id, primitive(left.transpose().matmul(gradient)));
        }
    }
}

/// `act(x + bias)`.
#[derive(Debug)]
struct BiasAct;

impl Backward<Flex, 2> for BiasAct {
    /// The activation, and what it was applied to, where its slope depends on that.
    type State = (Activation, Option<FlexTensor>);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let mut gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        if let (act, Some(input)) = ops.state {
            gradient = times_slope(gradient, &contiguous_owned::<2>(lift(input)), act);
        }
        let [x, bias] = ops.parents;
        if let Some(bias) = bias {
            gradients.register::<Flex>(bias.id, column_sums(&gradient));
        }
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(gradient));
        }
    }
}

/// `x + bias + residual`.
#[derive(Debug)]
struct BiasResidual;

impl Backward<Flex, 3> for BiasResidual {
    type State = ();

    fn backward(self, ops: Ops<(), 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let [x, bias, residual] = ops.parents;
        if let Some(bias) = bias {
            gradients.register::<Flex>(bias.id, column_sums(&gradient));
        }
        for parent in [x, residual].into_iter().flatten() {
            gradients.register::<Flex>(parent.id, primitive(gradient.clone()));
        }
    }
}

/// `x * scale + residual`.
#[derive(Debug)]
struct ScaleResidual;

impl Backward<Flex, 3> for ScaleResidual {
    /// The input and the scale.
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let (input, scale) = ops.state;
        let (input, scale) = (contiguous_owned::<2>(lift(input)), contiguous_owned::<1>(lift(scale)));
        let (input, scale) = (values(&input), values(&scale));
        let width = scale.len();
        let mut d_scale = vec![0.0; width];
        let d_x = rows_in_place(gradient.clone(), |row, index| {
            let input = &input[index * width..][..width];
            for (((g, &v), &s), d_scale) in row.iter_mut().zip(input).zip(scale).zip(&mut d_scale) {
                *d_scale += *g * v;
                *g *= s;
            }
        });
        let [x, scale, residual] = ops.parents;
        if let Some(scale) = scale {
            gradients.register::<Flex>(scale.id, vector(d_scale));
        }
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(d_x));
        }
        if let Some(residual) = residual {
            gradients.register::<Flex>(residual.id, primitive(gradient));
        }
    }
}

/// `silu(gate) * value`.
#[derive(Debug)]
struct Swiglu;

impl Backward<Flex, 1> for Swiglu {
    /// Gate and value side by side.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous_owned::<2>(lift(gradients.consume::<Flex>(&ops.node)));
        let gradient = values(&gradient);
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let d_x = rows_in_place::<2>(lift(ops.state), |row, index| {
            let width = row.len() / 2;
            let gradient = &gradient[index * width..][..width];
            let (gate, value) = row.split_at_mut(width);
            for ((g, v), &d) in gate.iter_mut().zip(value).zip(gradient) {
                let s = sigmoid(*g);
                let (d_gate, d_value) = (d * *v * (s + *g * s * (1.0 - s)), d * *g * s);
                (*g, *v) = (d_gate, d_value);
            }
        });
        gradients.register::<Flex>(parent.id, primitive(d_x));
    }
}

/// Layer normalisation.
#[derive(Debug)]
struct NormRows;

impl Backward<Flex, 3> for NormRows {
    /// The input, gamma, epsilon.
    type State = (FlexTensor, FlexTensor, f64);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let (x, gamma, epsilon) = ops.state;
        let (x, gamma) = (contiguous_owned::<2>(lift(x)), contiguous_owned::<1>(lift(gamma)));
        let (input, gamma) = (values(&x), values(&gamma));
        let width = gamma.len();
        let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
        let d_x = rows_in_place(gradient, |row, index| {
            let input = &input[index * width..][..width];
            norm_row(row, input, gamma, epsilon as f32, &mut d_gamma, &mut d_beta);
        });
        let [x, gamma, beta] = ops.parents;
        for (parent, values) in [(gamma, d_gamma), (beta, d_beta)] {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, vector(values));
            }
        }
        if let Some(x) = x {
            gradients.register::<Flex>(x.id, primitive(d_x));
        }
    }
}

/// Turns the gradient of a normalised row into that of the `input` it was made of, and adds those of gamma and beta.
#[inline(always)]
fn norm_row(
    row: &mut [f32],
    input: &[f32],
    gamma: &[f32],
    epsilon: f32,
    d_gamma: &mut [f32],
    d_beta: &mut [f32],
) {
    let width = gamma.len() as f32;
    let mean = flex::sum(input, |v| v) / width;
    let variance = flex::sum(input, |v| (v - mean) * (v - mean)) / width;
    let inverse = 1.0 / (variance + epsilon).sqrt();
    // With n = (input - mean) * inverse and h = row * gamma: inverse * (h - mean(h) - n * mean(h * n)).
    for ((((g, &v), &scale), d_gamma), d_beta) in
        row.iter_mut().zip(input).zip(gamma).zip(d_gamma).zip(d_beta)
    {
        *d_gamma += *g * (v - mean) * inverse;
        *d_beta += *g;
        *g *= scale;
    }
    let mean_h = flex::sum(row, |h| h) / width;
    let mean_hn = flex::sum_of_two(row, input, |h, v| h * (v - mean) * inverse) / width;
    for (h, &v) in row.iter_mut().zip(input) {
        *h = inverse * (*h - mean_h - (v - mean) * inverse * mean_hn);
    }
}

/// Attention.
#[derive(Debug)]
struct Attend;

/// What an attention was made of.
#[derive(Clone, Debug)]
struct Attended {
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    shares: Tensor<Flex, 4>,
}

impl Backward<Flex, 2> for Attend {
    type State = Attended;

    fn backward(self, ops: Ops<Attended, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient: Tensor<Flex, 2> = lift(gradients.consume::<Flex>(&ops.node));
        let Attended { query, key_value, shares } = ops.state;
        let (d_query, d_key_value) = attention_gradients(gradient, query, key_value, shares);
        let [query, key_value] = ops.parents;
        if let Some(query) = query {
            gradients.register::<Flex>(query.id, primitive(d_query));
        }
        if let Some(key_value) = key_value {
            gradients.register::<Flex>(key_value.id, primitive(d_key_value));
        }
    }
}

/// From the gradient of an attention, and what that was made of and made, those of its queries and of its keys and values.
fn attention_gradients(
    gradient: Tensor<Flex, 2>,
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    shares: Tensor<Flex, 4>,
) -> (Tensor<Flex, 2>, Tensor<Flex, 2>) {
    let [batch, heads, _, _] = shares.dims();
    let split = Split::<Flex>::new(query, key_value, [batch, heads]);
    let scale = split.scale();
    let (d_query, d_key_value, _) = split_gradients(gradient, split, shares, scale);
    (d_query, d_key_value)
}

/// The same, and the gradient of what was scaled to become shares: `[batch, heads, asked, tokens]`.
fn split_gradients(
    gradient: Tensor<Flex, 2>,
    split: Split<Flex>,
    shares: Tensor<Flex, 4>,
    scale: f32,
) -> (Tensor<Flex, 2>, Tensor<Flex, 2>, Tensor<Flex, 4>) {
    let [batch, heads, asked, width] = split.query.dims();
    // The products take views as they are; only `side_by_side` copies.
    let gradient = gradient.reshape([batch, asked, heads, width]).swap_dims(1, 2);
    let d_value = shares.clone().swap_dims(2, 3).matmul(gradient.clone());
    let d_shares = gradient.matmul(split.value.swap_dims(2, 3));
    let d_scores = softmax_gradient(d_shares, shares, scale);
    let d_key = d_scores.clone().swap_dims(2, 3).matmul(split.query);
    let d_query = d_scores.clone().matmul(split.key);
    (side_by_side([d_query]), side_by_side([d_key, d_value]), d_scores)
}

/// Turns the gradient of `shares = softmax(scale * x)` into that of x.
fn softmax_gradient(gradient: Tensor<Flex, 4>, shares: Tensor<Flex, 4>, scale: f32) -> Tensor<Flex, 4> {
    let shares = contiguous_owned(shares);
    let shares = values(&shares);
    rows_in_place(gradient, |row, index| {
        let shares = &shares[index * row.len()..][..row.len()];
        let mean = flex::sum_of_two(row, shares, |g, s| g * s);
        for (g, &s) in row.iter_mut().zip(shares) {
            *g = scale * s * (*g - mean);
        }
    })
}

/// `gradient` times the slope of `act` at `input`.
fn times_slope(gradient: Tensor<Flex, 2>, input: &FlexTensor, act: Activation) -> Tensor<Flex, 2> {
    let input = values(input);
    match act {
        Activation::Gelu => times(gradient, input, gelu_slope),
        Activation::GeluTanh => times(gradient, input, gelu_tanh_slope),
        Activation::QuickGelu => times(gradient, input, |v| {
            let s = sigmoid(1.702 * v);
            s + 1.702 * v * s * (1.0 - s)
        }),
        Activation::Relu => times(gradient, input, |v| if v > 0.0 { 1.0 } else { 0.0 }),
        Activation::Silu => times(gradient, input, |v| {
            let s = sigmoid(v);
            s + v * s * (1.0 - s)
        }),
        Activation::Tanh => times(gradient, input, |v| {
            let t = tanh(v);
            1.0 - t * t
        }),
        Activation::Sigmoid => times(gradient, input, |v| {
            let s = sigmoid(v);
            s * (1.0 - s)
        }),
        Activation::Linear => gradient,
    }
}

#[inline(always)]
fn gelu_slope(v: f32) -> f32 {
    /// One over the square root of two pi.
    const DENSITY: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)) + v * DENSITY * exp(-0.5 * v * v)
}

#[inline(always)]
fn gelu_tanh_slope(v: f32) -> f32 {
    let square = v * v;
    let t = tanh(flex::GELU_TANH_SCALE * (v + flex::GELU_TANH_CUBE * v * square));
    let inner = flex::GELU_TANH_SCALE * (1.0 + 3.0 * flex::GELU_TANH_CUBE * square);
    0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner
}

#[inline(always)]
fn times(gradient: Tensor<Flex, 2>, input: &[f32], slope: impl Fn(f32) -> f32) -> Tensor<Flex, 2> {
    rows_in_place(gradient, |row, index| {
        let input = &input[index * row.len()..][..row.len()];
        for (g, &v) in row.iter_mut().zip(input) {
            *g *= slope(v);
        }
    })
}

/// The sum of every column, the rows in order.
fn column_sums(x: &Tensor<Flex, 2>) -> FlexTensor {
    let [_, width] = x.dims();
    let x = contiguous_owned(x.clone());
    let mut sums = vec![0.0; width];
    for row in values(&x).chunks_exact(width.max(1)) {
        sums.iter_mut().zip(row).for_each(|(s, &v)| *s += v);
    }
    vector(sums)
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let width = values.len();
    primitive(Tensor::<Flex, 1>::from_data(TensorData::new(values, [width]), &FlexDevice))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::flex::tests::noise;
    use super::*;

    pub(super) type Differentiable = Autodiff<Flex>;

    /// What `f` makes of leaves of `sizes`, and the gradient of each leaf, for a loss that is a linear map of that.
    fn run<const D: usize>(
        sizes: &[usize],
        range: f32,
        f: &dyn Fn(&[Tensor<Differentiable, 1>]) -> Tensor<Differentiable, D>,
    ) -> Vec<Vec<f32>> {
        let leaf = |(seed, &size)| Tensor::from_inner(noise([size], range, seed as u32)).require_grad();
        let leaves: Vec<Tensor<Differentiable, 1>> = sizes.iter().enumerate().map(leaf).collect();
        let out = f(&leaves);
        let weights = Tensor::from_inner(noise(out.dims(), 1.0, 99));
        let mut gradients = (out.clone() * weights).sum().backward();
        let gradients = leaves.iter().map(|l| l.grad_remove(&mut gradients).unwrap().into_data());
        std::iter::once(out.into_data()).chain(gradients).map(|d| d.to_vec::<f32>().unwrap()).collect()
    }

    #[track_caller]
    pub(super) fn check<const D: usize>(
        what: &str,
        (sizes, range): (&[usize], f32),
        fused: &dyn Fn(&[Tensor<Differentiable, 1>]) -> Tensor<Differentiable, D>,
        plain: &dyn Fn(&[Tensor<Differentiable, 1>]) -> Tensor<Differentiable, D>,
    ) {
        let (fused, plain) = (run(sizes, range, fused), run(sizes, range, plain));
        for (index, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
            assert_eq!(fused.len(), plain.len());
            let largest = plain.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (f, p) in fused.iter().zip(plain) {
                assert!((f - p).abs() <= 4e-6 * largest, "{what}, value {index}: {f} for {p}");
            }
        }
    }

    const SHAPES: [(usize, usize); 4] = [(1, 2), (3, 7), (17, 64), (5, 129)];

    #[test]
    fn a_bias_with_an_activation() {
        for (rows, width) in SHAPES {
            for act in Activation::ALL {
                check(
                    &format!("{act:?}"),
                    (&[rows * width, width], 3.0),
                    &|l| Differentiable::bias_act(l[0].clone().reshape([rows, width]), Some(&l[1]), act),
                    &|l| plain::bias_act(l[0].clone().reshape([rows, width]), Some(&l[1]), act),
                );
                check(
                    &format!("{act:?} alone"),
                    (&[rows * width], 6.0),
                    &|l| Differentiable::bias_act(l[0].clone().reshape([rows, width]), None, act),
                    &|l| plain::bias_act(l[0].clone().reshape([rows, width]), None, act),
                );
            }
        }
    }

    #[test]
    fn a_bias_with_a_residual() {
        for (rows, width) in SHAPES {
            let shaped = |x: &Tensor<Differentiable, 1>| x.clone().reshape([rows, width]);
            let sizes = [rows * width, width, rows * width];
            check(
                "bias_residual",
                (&sizes, 3.0),
                &|l| Differentiable::bias_residual(shaped(&l[0]), &l[1], &shaped(&l[2])),
                &|l| plain::bias_residual(shaped(&l[0]), &l[1], &shaped(&l[2])),
            );
            // As in a layer: what is added is also what was mapped.
            check(
                "bias_residual of itself",
                (&sizes[..2], 3.0),
                &|l| {
                    let x = shaped(&l[0]);
                    Differentiable::bias_residual(x.clone().tanh(), &l[1], &x) * x
                },
                &|l| {
                    let x = shaped(&l[0]);
                    plain::bias_residual(x.clone().tanh(), &l[1], &x) * x
                },
            );
        }
    }

    #[test]
    fn a_scale_and_a_residual() {
        for (rows, width) in SHAPES {
            let shaped = |l: &Tensor<Differentiable, 1>| l.clone().reshape([rows, width]);
            check(
                "scale_residual",
                (&[rows * width, width, rows * width], 3.0),
                &|l| Differentiable::scale_residual(shaped(&l[0]), &l[1], &shaped(&l[2])),
                &|l| plain::scale_residual(shaped(&l[0]), &l[1], &shaped(&l[2])),
            );
            check(
                "scale_residual of itself",
                (&[rows * width, width], 3.0),
                &|l| {
                    let x = shaped(&l[0]);
                    Differentiable::scale_residual(x.clone().tanh(), &l[1], &x) * x
                },
                &|l| {
                    let x = shaped(&l[0]);
                    plain::scale_residual(x.clone().tanh(), &l[1], &x) * x
                },
            );
        }
    }

    #[test]
    fn a_gate() {
        for (rows, width) in SHAPES {
            let shaped = |l: &Tensor<Differentiable, 1>| l.clone().reshape([rows, 2 * width]);
            check(
                "swiglu",
                (&[2 * rows * width], 4.0),
                &|l| Differentiable::swiglu(shaped(&l[0])) * shaped(&l[0]).slice([0..rows, 0..width]),
                &|l| plain::swiglu(shaped(&l[0])) * shaped(&l[0]).slice([0..rows, 0..width]),
            );
        }
    }

    #[test]
    fn a_layer_normalisation() {
        for (rows, width) in SHAPES {
            for epsilon in [1e-12, 0.1] {
                let of = |l: &[Tensor<Differentiable, 1>]| {
                    let norm = Norm { gamma: l[1].clone(), beta: l[2].clone(), epsilon };
                    (l[0].clone().reshape([rows, width]), norm)
                };
                check(
                    &format!("{rows} x {width}, epsilon {epsilon}"),
                    (&[rows * width, width, width], 3.0),
                    &|l| {
                        let (x, norm) = of(l);
                        Differentiable::norm_rows(&x, &norm) + x
                    },
                    &|l| {
                        let (x, norm) = of(l);
                        plain::layer_norm(&x, &norm) + x
                    },
                );
            }
        }
    }

    #[test]
    fn an_attention() {
        for (batch, heads, asked, tokens, width) in [(1, 1, 1, 1, 1), (3, 2, 5, 5, 4), (2, 4, 1, 17, 16)] {
            let hidden = heads * width;
            let sizes = [batch * asked * hidden, batch * tokens * 2 * hidden];
            let of = |l: &[Tensor<Differentiable, 1>]| {
                let query = l[0].clone().reshape([batch * asked, hidden]);
                (query, l[1].clone().reshape([batch * tokens, 2 * hidden]))
            };
            check(
                &format!("{heads} heads"),
                (&sizes, 2.0),
                &|l| {
                    let (query, key_value) = of(l);
                    Differentiable::attend(query, key_value, [batch, heads])
                },
                &|l| {
                    let (query, key_value) = of(l);
                    let split = Split::new(query, key_value, [batch, heads]);
                    let scores = split.query.clone().matmul(split.key.clone().swap_dims(2, 3));
                    let shares = plain::softmax(scores, split.scale());
                    split.context(shares).swap_dims(1, 2).reshape([batch * asked, hidden])
                },
            );
        }
    }
}
