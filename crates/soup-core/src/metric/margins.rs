//! How often classes are true, predicted, and both: all that figures of counts are made of.

use std::collections::BTreeMap;

use super::{ClassMetric, mean};
use crate::tally::Counts;

/// Row and column sums of a confusion matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Margins {
    /// Of every class that is true or predicted; one that is neither may be there, and counts nothing.
    pub(crate) by_class: BTreeMap<u32, Class>,
}

/// One class: how often it was true, predicted, and both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) labelled: u64,
    pub(crate) predicted: u64,
    pub(crate) hit: u64,
}

impl Class {
    /// 2 TP / (2 TP + FP + FN); 0 for a class that neither occurs nor is predicted.
    pub(crate) fn f1(&self) -> f64 {
        // TP + FN samples have the label, TP + FP the prediction.
        let both = self.labelled as f64 + self.predicted as f64;
        if both > 0.0 { 2.0 * self.hit as f64 / both } else { 0.0 }
    }
}

impl Margins {
    pub(crate) fn of(counts: &Counts) -> Margins {
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

    /// The value of a figure for a model with `classes` classes; NaN for a loss, which margins do not tell, and for the accuracy of no
    /// samples.
    pub(crate) fn value(&self, of: ClassMetric, classes: u32) -> f64 {
        match of {
            ClassMetric::Accuracy => self.correct() as f64 / self.samples() as f64,
            // No class can be missing from a sum over the classes that occur: the others count 0.
            ClassMetric::MacroF1 => self.by_class.values().map(Class::f1).sum::<f64>() / f64::from(classes),
            ClassMetric::BinaryF1 => self.by_class.get(&1).map_or(0.0, Class::f1),
            ClassMetric::Matthews => self.matthews(),
            ClassMetric::Loss => f64::NAN,
        }
    }

    /// The mean of figures.
    pub(crate) fn mean(&self, of: &[ClassMetric], classes: u32) -> f64 {
        mean(of.iter().map(|m| self.value(*m, classes)))
    }

    /// Samples whose prediction is their label.
    pub(super) fn correct(&self) -> u64 {
        self.by_class.values().map(|c| c.hit).sum()
    }

    /// Samples.
    pub(super) fn samples(&self) -> u64 {
        self.by_class.values().map(|c| c.labelled).sum()
    }

    /// Gorodkin's multi-class correlation: (c s - sum t p) / sqrt((s^2 - sum p^2) (s^2 - sum t^2)), with c hits of s
    /// samples and, by class, t labels and p predictions; 0 where all labels or all predictions are of one class.
    fn matthews(&self) -> f64 {
        let sum = |f: fn(&Class) -> f64| self.by_class.values().map(f).sum::<f64>();
        let samples = sum(|c| c.labelled as f64);
        let covariance = sum(|c| c.hit as f64) * samples - sum(|c| c.labelled as f64 * c.predicted as f64);
        let of_predictions = samples * samples - sum(|c| c.predicted as f64 * c.predicted as f64);
        let of_labels = samples * samples - sum(|c| c.labelled as f64 * c.labelled as f64);
        let norm = (of_predictions * of_labels).sqrt();
        if norm > 0.0 { covariance / norm } else { 0.0 }
    }
}
