//! How often classes are true, predicted, and both: all that figures of counts are made of.

use std::collections::BTreeMap;

use crate::tally::Counts;

/// Row and column sums of a confusion matrix.
pub(super) struct Margins {
    pub(super) by_class: BTreeMap<u32, Class>,
}

/// One class: how often it was true, predicted, and both.
#[derive(Clone, Copy, Default)]
pub(super) struct Class {
    pub(super) labelled: u64,
    pub(super) predicted: u64,
    pub(super) hit: u64,
}

impl Class {
    /// 2 TP / (2 TP + FP + FN); 0 for a class that neither occurs nor is predicted.
    pub(super) fn f1(&self) -> f64 {
        // TP + FN samples have the label, TP + FP the prediction.
        let both = self.labelled as f64 + self.predicted as f64;
        if both > 0.0 { 2.0 * self.hit as f64 / both } else { 0.0 }
    }
}

impl Margins {
    pub(super) fn of(counts: &Counts) -> Margins {
        let mut by_class: BTreeMap<u32, Class> = BTreeMap::new();
        for (&(label, prediction), &count) in &counts.confusion {
            by_class.entry(label).or_default().labelled += count;
            let class = by_class.entry(prediction).or_default();
            class.predicted += count;
            if label == prediction {
                class.hit += count;
            }
        }
        Margins { by_class }
    }

    /// Gorodkin's multi-class correlation: (c s - sum t p) / sqrt((s^2 - sum p^2) (s^2 - sum t^2)), with c hits of s
    /// samples and, by class, t labels and p predictions; 0 where all labels or all predictions are of one class.
    pub(super) fn matthews(&self) -> f64 {
        let sum = |f: fn(&Class) -> f64| self.by_class.values().map(f).sum::<f64>();
        let samples = sum(|c| c.labelled as f64);
        let covariance = sum(|c| c.hit as f64) * samples - sum(|c| c.labelled as f64 * c.predicted as f64);
        let of_predictions = samples * samples - sum(|c| c.predicted as f64 * c.predicted as f64);
        let of_labels = samples * samples - sum(|c| c.labelled as f64 * c.labelled as f64);
        let norm = (of_predictions * of_labels).sqrt();
        if norm > 0.0 { covariance / norm } else { 0.0 }
    }
}
