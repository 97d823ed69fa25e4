//! From the logits of a sample to its outcome.
//!
//! - The prediction is the first class with the largest logit.
//! - The loss is the cross-entropy in nats, in f64 from the f32 logits.
//!
//! A sample with a logit that is not finite always counts as wrong, because a model that produces one cannot be
//! trusted about the sample: its loss is `+inf`, and its prediction the first of the *wrong* classes
//! with the largest logit that is not NaN (the first wrong class where all are NaN). With a single class, which leaves
//! no wrong one, the prediction is 1, a class that does not exist.
//!
//! A model that answers in words may be taken at its word instead: then its rows say what the answer is, after the log-probabilities
//! of the labels, which the loss is still made of. An answer that is no label is a class of its own, after all others, that no sample
//! has; so is that of a row that is not finite.

use soup_core::tally::Outcome;

/// The outcome of one sample. `label` is an index of `logits`.
pub(crate) fn outcome(logits: &[f32], label: u32) -> Outcome {
    let at = label as usize;
    if !logits.iter().all(|l| l.is_finite()) {
        let wrong = best(logits, |class| class != at);
        let prediction = wrong.unwrap_or(usize::from(at == 0)) as u32;
        return Outcome { label, prediction, loss: f64::INFINITY };
    }
    let prediction = best(logits, |_| true).unwrap_or(0);
    Outcome { label, prediction: prediction as u32, loss: cross_entropy(logits, at) }
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

/// The outcome of one sample whose answer is the last value of `row`, as a class or as the number of classes; before it there are the
/// log-probabilities of the labels.
pub(crate) fn outcome_of_answer(row: &[f32], label: u32) -> Outcome {
    let (logits, answer) = row.split_at(row.len().saturating_sub(1));
    let none = logits.len() as u32;
    if !logits.iter().all(|l| l.is_finite()) {
        return Outcome { label, prediction: none, loss: f64::INFINITY };
    }
    let prediction = answer.first().map_or(none, |&class| class as u32);
    Outcome { label, prediction, loss: cross_entropy(logits, label as usize) }
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

    fn check(logits: &[f32], label: u32, prediction: u32, loss: f64) {
        let got = outcome(logits, label);
        assert_eq!((got.label, got.prediction), (label, prediction), "{logits:?}");
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
        check(&[0.0, 0.0], 0, 0, LN_2);
        check(&[0.0, 0.0], 1, 0, LN_2);
        check(&[1.0, 3.0, 2.0], 1, 1, (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln());
        check(&[1.0, 3.0, 2.0], 0, 1, 2.0 + (1.0 + (-1.0f64).exp() + (-2.0f64).exp()).ln());
        check(&[1e30, -1e30], 0, 0, 0.0);
        check(&[5.0], 0, 0, 0.0);
    }

    #[test]
    fn among_some_classes_the_others_do_not_count() {
        let logits = [9.0, 1.0, 3.0, 2.0];
        let got = outcome_among(&logits, 3, &[1, 3]);
        assert_eq!((got.label, got.prediction), (3, 3));
        assert!((got.loss - (1.0 + (-1.0f64).exp()).ln()).abs() < 1e-12);
        assert_eq!(outcome_among(&logits, 1, &[1, 2]).prediction, 2);
        assert_eq!(outcome_among(&logits, 2, &[0, 1, 2, 3]), outcome(&logits, 2));
        // A prediction that no class can be is none.
        assert_eq!(outcome_among(&[f32::NAN, 0.0], 0, &[0]).prediction, 2);
    }

    #[test]
    fn an_answer_counts_whatever_is_most_probable() {
        let loss = (1.0 + (-1.0f64).exp()).ln();
        for (answer, prediction) in [(0.0, 0), (1.0, 1), (2.0, 2)] {
            let got = outcome_of_answer(&[2.0, 1.0, answer], 0);
            assert_eq!((got.label, got.prediction), (0, prediction));
            assert!((got.loss - loss).abs() < 1e-12);
        }
        for bad in [f32::NAN, INF, -INF] {
            let got = outcome_of_answer(&[bad, 1.0, 1.0], 1);
            assert_eq!((got.prediction, got.loss), (2, f64::INFINITY));
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_always_wrong() {
        let wrong = |logits: &[f32], label, prediction| check(logits, label, prediction, f64::INFINITY);
        wrong(&[f32::NAN, f32::NAN], 0, 1);
        wrong(&[f32::NAN, f32::NAN], 1, 0);
        wrong(&[f32::NAN, 2.0, 3.0], 2, 1);
        wrong(&[INF, 2.0, 3.0], 0, 2);
        wrong(&[-INF, 2.0, 3.0], 2, 1);
        wrong(&[f32::NAN], 0, 1);
    }
}
