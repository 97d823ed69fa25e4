//! From alpha to weights, and gradients back.

use super::WeightRule;
use crate::soup::{Ingredient, Soup};

/// Share of the weight of an ingredient inside the greedy soup with which one outside starts, under softmax.
const OUTSIDE_SHARE: f64 = 0.01;

/// Alpha of one group at the start: of the mean of `start`, or of all.
pub(super) fn initial(rule: WeightRule, ingredients: u32, start: Option<&Soup>) -> Vec<f64> {
    let members = start.map_or(ingredients as usize, |s| s.members().len());
    let inside = |i: u32| start.is_none_or(|s| s.contains(Ingredient(i)));
    let alpha = |i: u32| match (rule, inside(i)) {
        (WeightRule::Softmax, true) => 0.0,
        (WeightRule::Softmax, false) => libm::log(OUTSIDE_SHARE),
        (_, true) => 1.0 / members as f64,
        (_, false) => 0.0,
    };
    (0..ingredients).map(alpha).collect()
}

/// The weights of one group.
pub(super) fn weights(rule: WeightRule, alpha: &[f64]) -> Vec<f64> {
    match rule {
        WeightRule::Softmax => softmax(alpha),
        WeightRule::Free => alpha.to_vec(),
        WeightRule::SumToOne => {
            let excess = (alpha.iter().sum::<f64>() - 1.0) / alpha.len() as f64;
            alpha.iter().map(|a| a - excess).collect()
        }
    }
}

/// The gradient with respect to alpha, from that with respect to the weights.
pub(super) fn pull_back(rule: WeightRule, alpha: &[f64], gradient: &[f64]) -> Vec<f64> {
    match rule {
        WeightRule::Softmax => {
            let w = softmax(alpha);
            let mean: f64 = w.iter().zip(gradient).map(|(w, g)| w * g).sum();
            w.iter().zip(gradient).map(|(w, g)| w * (g - mean)).collect()
        }
        WeightRule::Free => gradient.to_vec(),
        WeightRule::SumToOne => {
            let mean = gradient.iter().sum::<f64>() / gradient.len() as f64;
            gradient.iter().map(|g| g - mean).collect()
        }
    }
}

fn softmax(alpha: &[f64]) -> Vec<f64> {
    let max = alpha.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = alpha.iter().map(|a| libm::exp(a - max)).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [WeightRule; 3] = [WeightRule::Softmax, WeightRule::Free, WeightRule::SumToOne];

    #[test]
    fn all_rules_start_at_the_same_soup() {
        for rule in RULES {
            let w = weights(rule, &initial(rule, 4, None));
            assert!(w.iter().all(|w| (w - 0.25).abs() < 1e-15), "{rule:?} {w:?}");
            let start = Soup::mean([Ingredient(1), Ingredient(3)]).unwrap();
            let w = weights(rule, &initial(rule, 4, Some(&start)));
            assert!(w[1] > 0.49 && w[3] == w[1] && w[0] < 0.005 && w[2] == w[0], "{rule:?} {w:?}");
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (alpha, g) = ([0.3, -1.2, 0.9], [0.5, -2.0, 1.5]);
        let loss =
            |rule, alpha: &[f64]| -> f64 { weights(rule, alpha).iter().zip(g).map(|(w, g)| w * g).sum() };
        for rule in RULES {
            let gradient = pull_back(rule, &alpha, &g);
            for i in 0..3 {
                let step = 1e-6;
                let moved = |by: f64| {
                    let mut alpha = alpha;
                    alpha[i] += by;
                    loss(rule, &alpha)
                };
                let measured = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((measured - gradient[i]).abs() < 1e-8, "{rule:?} {i}: {measured} {}", gradient[i]);
            }
        }
    }

    #[test]
    fn sum_to_one_stays_on_its_hyperplane() {
        let w = weights(WeightRule::SumToOne, &[3.0, -1.0, 0.5]);
        assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn softmax_survives_large_numbers() {
        assert_eq!(softmax(&[1e6, 0.0]), [1.0, 0.0]);
    }
}
