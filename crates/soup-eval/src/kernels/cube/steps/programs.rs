//! What every unit of a device does. All of it computes in f32, whatever is stored.
//!
//! Rows are added up in one order: each unit its own elements, then the units in halves.
#![allow(missing_docs, clippy::too_many_arguments)] // of what the macro makes of them

use cubecl::prelude::*;

use crate::kernels::Activation;
use crate::kernels::flex::{GELU_TANH_CUBE, GELU_TANH_SCALE};

/// One over the square root of two pi.
const DENSITY: f32 = 0.398_942_3;

/// `act(x + bias)`.
#[cube(launch)]
pub(super) fn bias_act<F: Float>(
    x: &Tensor<F>,
    bias: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let value = f32::cast_from(x[row * x_pitch + column]) + f32::cast_from(bias[column]);
        out[row * out_pitch + column] = F::cast_from(activate(value, activation));
    }
}

/// `act(x)`.
#[cube(launch)]
pub(super) fn act<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let value = f32::cast_from(x[row * x_pitch + column]);
        out[row * out_pitch + column] = F::cast_from(activate(value, activation));
    }
}

/// `gradient` times the slope of the activation at `x`.
#[cube(launch)]
pub(super) fn times_slope<F: Float>(
    gradient: &Tensor<F>,
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    gradient_pitch: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let value = f32::cast_from(x[row * x_pitch + column]);
        let product = f32::cast_from(gradient[row * gradient_pitch + column]) * slope(value, activation);
        out[row * out_pitch + column] = F::cast_from(product);
    }
}

/// `x * along + residual` or `x + along + residual`.
#[cube(launch)]
pub(super) fn with_residual<F: Float>(
    x: &Tensor<F>,
    along: &Tensor<F>,
    residual: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    residual_pitch: usize,
    out_pitch: usize,
    #[comptime] scales: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let value = f32::cast_from(x[row * x_pitch + column]);
        let by = f32::cast_from(along[column]);
        let changed = if comptime!(scales) { value * by } else { value + by };
        let residual = f32::cast_from(residual[row * residual_pitch + column]);
        out[row * out_pitch + column] = F::cast_from(changed + residual);
    }
}

/// `silu(gate) * value`.
#[cube(launch)]
pub(super) fn swiglu<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    elements: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    #[define(F)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at < elements {
        let row = at / width;
        let column = at % width;
        let gate = f32::cast_from(x[row * x_pitch + column]);
        let value = f32::cast_from(x[row * x_pitch + width + column]);
        out[row * out_pitch + column] = F::cast_from(gate * sigmoid(gate) * value);
    }
}

/// Layer normalisation; a cube a row.
#[cube(launch)]
pub(super) fn norm_rows<F: Float>(
    x: &Tensor<F>,
    gamma: &Tensor<F>,
    beta: &Tensor<F>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        let first = row * x_pitch;
        let count = f32::cast_from(width);

        let mut sum = f32::new(0.0);
        let mut column = unit;
        while column < width {
            sum += f32::cast_from(x[first + column]);
            column += units;
        }
        let mean = together(sum, &mut shared, units, false) / count;

        let mut squares = f32::new(0.0);
        let mut column = unit;
        while column < width {
            let off = f32::cast_from(x[first + column]) - mean;
            squares += off * off;
            column += units;
        }
        let variance = together(squares, &mut shared, units, false) / count;
        let inverse = f32::new(1.0) / (variance + epsilon).sqrt();

        let mut column = unit;
        while column < width {
            let normed = (f32::cast_from(x[first + column]) - mean) * inverse;
            let scaled = normed * f32::cast_from(gamma[column]) + f32::cast_from(beta[column]);
            out[row * out_pitch + column] = F::cast_from(scaled);
            column += units;
        }
    }
}

/// Rows over their root mean squares; a cube a row.
#[cube(launch)]
pub(super) fn rms_rows<F: Float>(
    x: &Tensor<F>,
    gamma: &Tensor<F>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        let first = row * x_pitch;

        let mut squares = f32::new(0.0);
        let mut column = unit;
        while column < width {
            let value = f32::cast_from(x[first + column]);
            squares += value * value;
            column += units;
        }
        let mean = together(squares, &mut shared, units, false) / f32::cast_from(width);
        let inverse = f32::new(1.0) / (mean + epsilon).sqrt();

        let mut column = unit;
        while column < width {
            let scaled = f32::cast_from(x[first + column]) * inverse * f32::cast_from(gamma[column]);
            out[row * out_pitch + column] = F::cast_from(scaled);
            column += units;
        }
    }
}

/// `softmax(scale * x)`; a cube a row.
#[cube(launch)]
pub(super) fn softmax<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    rows: usize,
    width: usize,
    x_pitch: usize,
    out_pitch: usize,
    scale: f32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row < rows {
        let mut shared = SharedMemory::<f32>::new(units);
        let unit = UNIT_POS as usize;
        let first = row * x_pitch;

        let mut largest = f32::new(-3.402_823_5e38);
        let mut column = unit;
        while column < width {
            largest = larger(f32::cast_from(x[first + column]), largest);
            column += units;
        }
        // Scales are positive, so the largest stays the largest.
        let largest = together(largest, &mut shared, units, true);

        let mut sum = f32::new(0.0);
        let mut column = unit;
        while column < width {
            sum += ((f32::cast_from(x[first + column]) - largest) * scale).exp();
            column += units;
        }
        let inverse = f32::new(1.0) / together(sum, &mut shared, units, false);

        let mut column = unit;
        while column < width {
            let share = ((f32::cast_from(x[first + column]) - largest) * scale).exp() * inverse;
            out[row * out_pitch + column] = F::cast_from(share);
            column += units;
        }
    }
}

/// The sum of `value` over the units of the cube, or the largest.
#[cube]
pub(in crate::kernels::cube) fn together(
    value: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] largest: bool,
) -> f32 {
    let unit = UNIT_POS as usize;
    // Whoever still reads what was there before.
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let own = shared[unit];
            let other = shared[unit + half];
            shared[unit] = if comptime!(largest) { larger(own, other) } else { own + other };
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// NaN is passed over: what it is subtracted from becomes NaN anyhow.
#[cube]
pub(in crate::kernels::cube) fn larger(a: f32, b: f32) -> f32 {
    select(a > b, a, b)
}

#[cube]
fn sigmoid(v: f32) -> f32 {
    f32::new(1.0) / (f32::new(1.0) + (-v).exp())
}

/// Not the device's own, which is a rough one on some.
#[cube]
fn tanh(v: f32) -> f32 {
    let e = (f32::new(-2.0) * v.abs()).exp();
    let t = (f32::new(1.0) - e) / (f32::new(1.0) + e);
    select(v < f32::new(0.0), -t, t)
}

#[cube]
pub(in crate::kernels::cube) fn activate(v: f32, #[comptime] activation: Activation) -> f32 {
    if comptime!(activation == Activation::Gelu) {
        f32::new(0.5) * v * (f32::new(1.0) + Erf::erf(v * f32::new(std::f32::consts::FRAC_1_SQRT_2)))
    } else if comptime!(activation == Activation::GeluTanh) {
        let inner = v + f32::new(GELU_TANH_CUBE) * v * v * v;
        f32::new(0.5) * v * (f32::new(1.0) + tanh(f32::new(GELU_TANH_SCALE) * inner))
    } else if comptime!(activation == Activation::QuickGelu) {
        v * sigmoid(v * f32::new(1.702))
    } else if comptime!(activation == Activation::Relu) {
        select(v < f32::new(0.0), f32::new(0.0), v)
    } else if comptime!(activation == Activation::Silu) {
        v * sigmoid(v)
    } else if comptime!(activation == Activation::Tanh) {
        tanh(v)
    } else if comptime!(activation == Activation::Sigmoid) {
        sigmoid(v)
    } else {
        v
    }
}

#[cube]
fn slope(v: f32, #[comptime] activation: Activation) -> f32 {
    let half = f32::new(0.5);
    let one = f32::new(1.0);
    if comptime!(activation == Activation::Gelu) {
        let share = half * (one + Erf::erf(v * f32::new(std::f32::consts::FRAC_1_SQRT_2)));
        share + v * f32::new(DENSITY) * (-half * v * v).exp()
    } else if comptime!(activation == Activation::GeluTanh) {
        let square = v * v;
        let t = tanh(f32::new(GELU_TANH_SCALE) * (v + f32::new(GELU_TANH_CUBE) * v * square));
        let inner = f32::new(GELU_TANH_SCALE) * (one + f32::new(3.0 * GELU_TANH_CUBE) * square);
        half * (one + t) + half * v * (one - t * t) * inner
    } else if comptime!(activation == Activation::QuickGelu) {
        let scaled = v * f32::new(1.702);
        let s = sigmoid(scaled);
        s + scaled * s * (one - s)
    } else if comptime!(activation == Activation::Relu) {
        select(v > f32::new(0.0), one, f32::new(0.0))
    } else if comptime!(activation == Activation::Silu) {
        let s = sigmoid(v);
        s + v * s * (one - s)
    } else if comptime!(activation == Activation::Tanh) {
        let t = tanh(v);
        one - t * t
    } else if comptime!(activation == Activation::Sigmoid) {
        let s = sigmoid(v);
        s * (one - s)
    } else {
        one
    }
}
