//! Activations of many values at once.

use super::super::math::{erf, sigmoid, tanh};
use crate::kernels::Activation;

/// The square root of 2 / pi.
pub(in crate::kernels) const GELU_TANH_SCALE: f32 = 0.797_884_6;
/// Factor of the cube.
pub(in crate::kernels) const GELU_TANH_CUBE: f32 = 0.044_715;

/// `act` of every one of `values`.
#[inline(always)]
pub(super) fn activate(act: Activation, values: &mut [f32]) {
    match act {
        Activation::Gelu => each(values, |v| 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2))),
        Activation::GeluTanh => each(values, gelu_tanh),
        Activation::QuickGelu => each(values, |v| v * sigmoid(1.702 * v)),
        // Not `max`, which would hide a NaN.
        Activation::Relu => each(values, |v| if v < 0.0 { 0.0 } else { v }),
        Activation::Silu => each(values, |v| v * sigmoid(v)),
        Activation::Tanh => each(values, tanh),
        Activation::Sigmoid => each(values, sigmoid),
        Activation::Linear => {}
    }
}

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for v in values {
        *v = f(*v);
    }
}

/// `tanh` approximation of GELU.
#[inline(always)]
fn gelu_tanh(v: f32) -> f32 {
    0.5 * v * (1.0 + tanh(GELU_TANH_SCALE * (v + GELU_TANH_CUBE * v * v * v)))
}
