//! What happened to each sample, and the counts that add up from it.
//!
//! Counts add exactly and in any order, so how the work was cut can never change a verdict. Losses are floating point:
//! they are added sample by sample within a slice and then slice by slice, in order, and slices are cut by the
//! dataset's size alone, never by the number of workers.

use std::collections::BTreeMap;

/// What happened to one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The true class.
    pub label: u32,
    /// The predicted class: the first one with the largest logit.
    pub prediction: u32,
    /// Cross-entropy in nats.
    pub loss: f64,
    /// Logit of the true class minus the largest other logit: positive when correct, larger when safer.
    pub margin: f32,
}

/// The counts that outcomes add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Samples seen.
    pub total: u64,
    /// Samples whose prediction is their label.
    pub correct: u64,
    /// Sum of the losses, in nats.
    pub loss_sum: f64,
    /// How often (label, prediction) occurred; absent pairs never did.
    pub confusion: BTreeMap<(u32, u32), u64>,
}

impl Counts {
    /// Adds one sample.
    pub fn add(&mut self, outcome: &Outcome) {
        self.total += 1;
        self.correct += u64::from(outcome.label == outcome.prediction);
        self.loss_sum += outcome.loss;
        *self.confusion.entry((outcome.label, outcome.prediction)).or_default() += 1;
    }

    /// Adds the counts of another set of samples. Add slices in their order, so that losses add up reproducibly.
    pub fn merge(&mut self, other: &Counts) {
        self.total += other.total;
        self.correct += other.correct;
        self.loss_sum += other.loss_sum;
        for (&pair, &n) in &other.confusion {
            *self.confusion.entry(pair).or_default() += n;
        }
    }
}

impl<'a> FromIterator<&'a Outcome> for Counts {
    fn from_iter<I: IntoIterator<Item = &'a Outcome>>(outcomes: I) -> Self {
        let mut score = Counts::default();
        outcomes.into_iter().for_each(|o| score.add(o));
        score
    }
}
