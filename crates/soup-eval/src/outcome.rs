//! From the logits of a sample to its outcome.
//!
//! - The prediction is the first class with the largest logit.
//! - The loss is the cross-entropy in nats, in f64 from the f32 logits.
//! - The margin is the label's logit minus the largest other one.
//!
//! A sample with a logit that is not finite always counts as wrong, because a model that produces one cannot be
//! trusted about the sample: its loss is `+inf`, its margin `-inf`, and its prediction the first of the *wrong* classes
//! with the largest logit that is not NaN (the first wrong class where all are NaN). With a single class, which leaves
//! no wrong one, the prediction is 1, a class that does not exist.

use soup_core::tally::Outcome;

/// The outcome of one sample. `label` is an index of `logits`.
pub(crate) fn outcome(logits: &[f32], label: u32) -> Outcome {
    let at = label as usize;
    let other = best(logits, |class| class != at);
    if !logits.iter().all(|l| l.is_finite()) {
        let prediction = other.unwrap_or(usize::from(at == 0)) as u32;
        return Outcome { label, prediction, loss: f64::INFINITY, margin: f32::NEG_INFINITY };
    }
    let prediction = best(logits, |_| true).unwrap_or(0);
    let margin = other.map_or(f32::INFINITY, |o| logits[at] - logits[o]);
    Outcome { label, prediction: prediction as u32, loss: cross_entropy(logits, at), margin }
}

/// The outcome of one sample where only `classes`, ascending and with the label among them, may be predicted: as if the model had
/// no others.
pub(crate) fn outcome_among(logits: &[f32], label: u32, classes: &[u32]) -> Outcome {
    let Ok(at) = classes.binary_search(&label) else { return outcome(logits, label) };
    let own: Vec<f32> = classes.iter().map(|&class| logits[class as usize]).collect();
    let found = outcome(&own, at as u32);
    let prediction = classes.get(found.prediction as usize).copied().unwrap_or(logits.len() as u32);
    Outcome { label, prediction, ..found }
}

/// First class among the allowed ones with the largest logit that is not NaN.
fn best(logits: &[f32], allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (class, &logit) in logits.iter().enumerate() {
        if allowed(class) && !logit.is_nan() && best.is_none_or(|b| logit > logits[b]) {
            best = Some(class);
        }
    }
    best
}

fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum();
    // Never below zero: rounding could leave a tiny negative for a very certain sample.
    (largest + sum.ln() - f64::from(logits[label])).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(logits: &[f32], label: u32, prediction: u32, loss: f64, margin: f32) {
        let got = outcome(logits, label);
        assert_eq!((got.label, got.prediction, got.margin), (label, prediction, margin), "{logits:?}");
        assert!(
            got.loss == loss || (got.loss - loss).abs() < 1e-12,
            "{logits:?}: loss {} for {loss}",
            got.loss
        );
    }

    const LN_2: f64 = std::f64::consts::LN_2;
    const INF: f32 = f32::INFINITY;

    #[test]
    fn finite_logits() {
        check(&[0.0, 0.0], 0, 0, LN_2, 0.0);
        check(&[0.0, 0.0], 1, 0, LN_2, 0.0);
        check(&[1.0, 3.0, 2.0], 1, 1, (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln(), 1.0);
        check(&[1.0, 3.0, 2.0], 0, 1, 2.0 + (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln(), -2.0);
        check(&[1e30, -1e30], 0, 0, 0.0, 2e30);
        check(&[5.0], 0, 0, 0.0, INF);
    }

    #[test]
    fn among_some_classes_the_others_do_not_count() {
        let logits = [9.0, 1.0, 3.0, 2.0];
        let got = outcome_among(&logits, 3, &[1, 3]);
        assert_eq!((got.label, got.prediction, got.margin), (3, 3, 1.0));
        assert!((got.loss - (1.0 + (-1.0f64).exp()).ln()).abs() < 1e-12);
        assert_eq!(outcome_among(&logits, 1, &[1, 2]).prediction, 2);
        assert_eq!(outcome_among(&logits, 2, &[0, 1, 2, 3]), outcome(&logits, 2));
        // A prediction that no class can be is none.
        assert_eq!(outcome_among(&[f32::NAN, 0.0], 0, &[0]).prediction, 2);
    }

    #[test]
    fn logits_that_are_not_finite_are_always_wrong() {
        let wrong = |logits: &[f32], label, prediction| check(logits, label, prediction, f64::INFINITY, -INF);
        wrong(&[f32::NAN, f32::NAN], 0, 1);
        wrong(&[f32::NAN, f32::NAN], 1, 0);
        wrong(&[f32::NAN, 2.0, 3.0], 2, 1);
        wrong(&[INF, 2.0, 3.0], 0, 2);
        wrong(&[-INF, 2.0, 3.0], 2, 1);
        wrong(&[f32::NAN], 0, 1);
    }
}
