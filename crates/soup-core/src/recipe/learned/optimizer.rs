//! AdamW (Loshchilov, Hutter 2019) without weight decay, its learning rate and clipping, as PyTorch defines them. Own code,
//! because it must give the same bits everywhere and works on a few thousand scalars.

use super::{LearnSpec, Schedule};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Added to the norm before dividing by it, as `torch.nn.utils.clip_grad_norm_` does.
const CLIP_EPSILON: f64 = 1e-6;

/// The optimiser's state.
#[derive(Clone, Debug)]
pub(super) struct AdamW {
    mean: Vec<f64>,
    square: Vec<f64>,
    /// Powers of the betas, by the number of steps.
    powers: (f64, f64),
}

impl AdamW {
    /// For `count` values.
    pub(super) fn new(count: usize) -> AdamW {
        AdamW { mean: vec![0.0; count], square: vec![0.0; count], powers: (1.0, 1.0) }
    }

    /// Updates `values`.
    pub(super) fn step(&mut self, values: &mut [&mut f64], gradient: &[f64], lr: f64) {
        self.powers = (self.powers.0 * BETA_1, self.powers.1 * BETA_2);
        let (bias_1, bias_2) = (1.0 - self.powers.0, 1.0 - self.powers.1);
        let state = self.mean.iter_mut().zip(&mut self.square);
        for ((value, g), (mean, square)) in values.iter_mut().zip(gradient).zip(state) {
            *mean = BETA_1 * *mean + (1.0 - BETA_1) * g;
            *square = BETA_2 * *square + (1.0 - BETA_2) * g * g;
            let denominator = (*square / bias_2).sqrt() + EPSILON;
            **value -= lr / bias_1 * *mean / denominator;
        }
    }
}

/// Euclidean norm.
pub(super) fn norm(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}

/// Scales a gradient of norm `norm` down to `max`.
pub(super) fn clip(gradient: &mut [f64], norm: f64, max: f64) {
    let factor = max / (norm + CLIP_EPSILON);
    if factor < 1.0 {
        gradient.iter_mut().for_each(|g| *g *= factor);
    }
}

/// The learning rate of step `step` (from 1) of `total`.
pub(super) fn learning_rate(learn: &LearnSpec, step: u32, total: u32) -> f64 {
    let warmup = (learn.warmup * f64::from(total)).ceil();
    let step = f64::from(step);
    if step <= warmup {
        return learn.lr * step / warmup;
    }
    match learn.schedule {
        Schedule::Constant => learn.lr,
        Schedule::Cosine => {
            let rest = (f64::from(total) - warmup).max(1.0);
            let gone = (step - 1.0 - warmup) / rest;
            learn.lr * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * gone))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_pytorch() {
        // p = Parameter([1.0, -0.5]) in float64, torch.optim.AdamW([p], lr=0.1, weight_decay=0), torch 2.15.
        let expected = [
            [0.900000002, -0.4000000033333332],
            [0.8196959063846518, -0.3855479509285968],
            [0.7337898590830659, -0.42553964195964733],
        ];
        let gradients = [[0.5, -0.3], [0.1, 0.2], [0.3, 0.4]];
        let (mut a, mut b) = (1.0, -0.5);
        let mut optimizer = AdamW::new(2);
        for (gradient, expected) in gradients.iter().zip(expected) {
            optimizer.step(&mut [&mut a, &mut b], gradient, 0.1);
            assert!(
                (a - expected[0]).abs() < 1e-12 && (b - expected[1]).abs() < 1e-12,
                "{a} {b} {expected:?}"
            );
        }
    }

    #[test]
    fn long_gradients_are_scaled_to_the_limit() {
        let mut gradient = [3.0, 4.0];
        let length = norm(&gradient);
        clip(&mut gradient, length, 1.0);
        assert!((norm(&gradient) - 1.0).abs() < 1e-6);
        let mut short = [0.3, 0.4];
        clip(&mut short, 0.5, 1.0);
        assert_eq!(short, [0.3, 0.4]);
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let learn = LearnSpec { lr: 1.0, warmup: 0.2, schedule: Schedule::Cosine, ..LearnSpec::default() };
        let rates: Vec<f64> = (1..=10).map(|s| learning_rate(&learn, s, 10)).collect();
        assert_eq!(&rates[..3], [0.5, 1.0, 1.0]);
        assert!(rates[2..].windows(2).all(|w| w[0] > w[1]) && rates[9] > 0.0, "{rates:?}");
        let constant = LearnSpec { lr: 0.1, ..LearnSpec::default() };
        assert!((1..=10).all(|s| learning_rate(&constant, s, 10) == 0.1));
    }
}
