//! `exp` and `erf` for f32 in a form that the compiler vectorises: no calls, no branches, no tables.
//!
//! The coefficients are least-squares fits of our own, reweighted towards the smallest largest relative error.
//! NaN in, NaN out.

/// `e^x` for x <= 88, to 2 units in the last place; 0 below -87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that `n * LN2_HIGH` is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it rounds to an integer that then stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.381_455_7e-3_f32;
    let p = p * r + 8.368_745e-3;
    let p = p * r + 4.166_839e-2;
    let p = p * r + 1.666_652_1e-1;
    let p = p * r + 4.999_999_4e-1;
    let p = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { p * power }
}

/// The error function, to 4e-7; 1 and -1 themselves where f32 has nothing nearer, so that what is left of a GELU's tail is zero.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    /// From here on it is 1 in f32.
    const ONE_FROM: f32 = 3.92;
    let within = if x > ONE_FROM { ONE_FROM } else { x };
    let within = if within < -ONE_FROM { -ONE_FROM } else { within };
    let t = within * within;
    let p = 2.051_702e-6_f32;
    let p = p * t + 2.847_891e-4;
    let p = p * t + 3.759_614_2e-3;
    let p = p * t + 5.273_009e-2;
    let p = p * t + 1.902_609_8e-1;
    let p = p * t + std::f32::consts::FRAC_2_SQRT_PI;
    let q = 3.810_365e-5_f32;
    let q = q * t + 1.161_162_6e-3;
    let q = q * t + 1.495_707e-2;
    let q = q * t + 1.140_495_5e-1;
    let q = q * t + 5.019_471_6e-1;
    let q = q * t + 1.0;
    let inside = within * p / q;
    let below = if x >= ONE_FROM { 1.0 } else { inside };
    if x <= -ONE_FROM { -1.0 } else { below }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)`, to 3e-7.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let magnitude = if x < 0.0 { -x } else { x };
    let e = exp(-2.0 * magnitude);
    let t = (1.0 - e) / (1.0 + e);
    if x < 0.0 { -t } else { t }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `erf` in f64, by its Taylor series; exact enough below 4.
    fn erf_f64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn grid(from: f32, to: f32) -> impl Iterator<Item = f32> {
        let n = 20_000;
        (0..=n).map(move |i| from + (to - from) * i as f32 / n as f32)
    }

    #[test]
    fn exp_is_close() {
        for x in grid(-87.0, 88.0) {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 2.5e-7, "exp({x}) = {}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_close() {
        for x in grid(-3.95, 3.95) {
            assert!((f64::from(erf(x)) - erf_f64(f64::from(x))).abs() < 4.5e-7, "erf({x}) = {}", erf(x));
        }
        for x in [3.92, 10.0, f32::INFINITY] {
            assert_eq!((erf(x), erf(-x)), (1.0, -1.0), "{x}");
        }
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_and_sigmoid_are_close() {
        for x in grid(-20.0, 20.0) {
            let d = f64::from(x);
            assert!((f64::from(tanh(x)) - d.tanh()).abs() < 3e-7, "tanh({x})");
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-d).exp())).abs() < 3e-7, "sigmoid({x})");
        }
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }
}
