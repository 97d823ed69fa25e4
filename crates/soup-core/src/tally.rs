//! What happened to each sample, and what it adds up to.
//!
//! # Words
//!
//! - An *outcome* is what happened to one sample of a classifier. *Counts* are what outcomes add up to.
//! - A *figure* is a named number that adds up over samples (`nll`, `tokens`); *sums* are what a judge says that tells of figures and
//!   not of classes.
//! - A *value* is the true number of a sample with the predicted one. Values are kept: how they correlate is no sum.
//! - A *tally* is one of the three. The *score* of a soup on a dataset is the tally of all its samples.
//!
//! Counts add exactly and in any order, so how the work was cut can never change a verdict. Losses and figures are floating point:
//! they are added sample by sample within a slice and then slice by slice, in order, and slices are cut by the
//! dataset's size alone, never by the number of workers.

pub mod agreement;
pub mod packed;
pub mod values;

use std::collections::BTreeMap;

use crate::error::{Error, Result};

pub use values::{Value, Values};

/// What happened to one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The true class.
    pub label: u32,
    /// The predicted class: the first one with the largest logit.
    pub prediction: u32,
    /// Cross-entropy in nats.
    pub loss: f64,
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
        let mut counts = Counts::default();
        outcomes.into_iter().for_each(|o| counts.add(o));
        counts
    }
}

/// Figures over samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Samples seen.
    pub samples: u64,
    /// The sum of each figure over them.
    pub figures: BTreeMap<String, f64>,
}

/// What some samples add up to.
#[derive(Clone, Debug, PartialEq)]
pub enum Tally {
    /// Of a classifier.
    Classes(Counts),
    /// Of a model that predicts a number.
    Values(Values),
    /// Of anything else.
    Sums(Sums),
}

impl Tally {
    /// Samples seen.
    pub fn samples(&self) -> u64 {
        match self {
            Tally::Classes(counts) => counts.total,
            Tally::Values(values) => values.samples().len() as u64,
            Tally::Sums(sums) => sums.samples,
        }
    }

    /// The counts, where classes are told.
    pub fn counts(&self) -> Option<&Counts> {
        match self {
            Tally::Classes(counts) => Some(counts),
            Tally::Values(_) | Tally::Sums(_) => None,
        }
    }

    /// Adds what another set of samples adds up to. Add slices in their order.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where the two are of different kinds or figures: every tally of a run is of the
    /// kind that its survey told.
    pub fn merge(&mut self, other: &Tally) -> Result<()> {
        match (self, other) {
            (Tally::Classes(sum), Tally::Classes(more)) => {
                sum.merge(more);
                Ok(())
            }
            (Tally::Values(values), Tally::Values(more)) => {
                values.append(more);
                Ok(())
            }
            (Tally::Sums(sum), Tally::Sums(more)) if sum.figures.keys().eq(more.figures.keys()) => {
                sum.samples += more.samples;
                sum.figures.values_mut().zip(more.figures.values()).for_each(|(sum, more)| *sum += more);
                Ok(())
            }
            _ => Err(Error::internal("tallies of different kinds were added up")),
        }
    }
}

impl From<Counts> for Tally {
    fn from(counts: Counts) -> Tally {
        Tally::Classes(counts)
    }
}

impl From<Values> for Tally {
    fn from(values: Values) -> Tally {
        Tally::Values(values)
    }
}

impl From<Sums> for Tally {
    fn from(sums: Sums) -> Tally {
        Tally::Sums(sums)
    }
}

/// What a judge says of some samples: what happened to each, in order, or what it adds up to.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// One a sample.
    Outcomes(Vec<Outcome>),
    /// Of all of them.
    Tally(Tally),
}

impl Judged {
    /// Of how many samples it is.
    pub fn samples(&self) -> u64 {
        match self {
            Judged::Outcomes(outcomes) => outcomes.len() as u64,
            Judged::Tally(tally) => tally.samples(),
        }
    }

    /// What it adds up to.
    pub fn tally(&self) -> Tally {
        match self {
            Judged::Outcomes(outcomes) => Tally::Classes(outcomes.iter().collect()),
            Judged::Tally(tally) => tally.clone(),
        }
    }

    /// Adds what was said of the next samples to what was `said` so far, if anything was.
    ///
    /// # Errors
    /// As [`append`](Judged::append).
    pub fn add(said: &mut Option<Judged>, next: Judged) -> Result<()> {
        match said {
            Some(said) => said.append(next),
            None => {
                *said = Some(next);
                Ok(())
            }
        }
    }

    /// Appends what was said of the samples that follow.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where the two are of different kinds.
    pub fn append(&mut self, next: Judged) -> Result<()> {
        match (self, next) {
            (Judged::Outcomes(all), Judged::Outcomes(more)) => {
                all.extend(more);
                Ok(())
            }
            (Judged::Tally(sum), Judged::Tally(more)) => sum.merge(&more),
            _ => Err(Error::internal("samples were told of in different kinds")),
        }
    }

    /// Whether this is the same to the last bit; what is no number is the same as another.
    pub fn is_same(&self, other: &Judged) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        match (self, other) {
            (Judged::Outcomes(a), Judged::Outcomes(b)) => {
                let outcome = |(a, b): (&Outcome, &Outcome)| {
                    (a.label, a.prediction) == (b.label, b.prediction) && same(a.loss, b.loss)
                };
                a.len() == b.len() && a.iter().zip(b).all(outcome)
            }
            (Judged::Tally(Tally::Classes(a)), Judged::Tally(Tally::Classes(b))) => {
                (a.total, a.correct, &a.confusion) == (b.total, b.correct, &b.confusion)
                    && same(a.loss_sum, b.loss_sum)
            }
            (Judged::Tally(Tally::Values(a)), Judged::Tally(Tally::Values(b))) => {
                let value =
                    |(a, b): (&Value, &Value)| same(a.truth, b.truth) && same(a.prediction, b.prediction);
                let (a, b) = (a.samples(), b.samples());
                a.len() == b.len() && a.iter().zip(b).all(value)
            }
            (Judged::Tally(Tally::Sums(a)), Judged::Tally(Tally::Sums(b))) => {
                a.samples == b.samples
                    && a.figures.keys().eq(b.figures.keys())
                    && a.figures.values().zip(b.figures.values()).all(|(a, b)| same(*a, *b))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(samples: u64, figures: &[(&str, f64)]) -> Tally {
        Sums { samples, figures: figures.iter().map(|&(name, sum)| (name.to_owned(), sum)).collect() }.into()
    }

    #[test]
    fn tallies_of_one_kind_add_up() {
        let outcome = |label, prediction| Outcome { label, prediction, loss: 0.5 };
        let mut classes = Judged::Outcomes(vec![outcome(0, 0), outcome(1, 0)]).tally();
        classes.merge(&Judged::Outcomes(vec![outcome(1, 0)]).tally()).unwrap();
        let confusion = BTreeMap::from([((0, 0), 1), ((1, 0), 2)]);
        assert_eq!(classes, Counts { total: 3, correct: 1, loss_sum: 1.5, confusion }.into());
        assert_eq!(classes.samples(), 3);

        let mut total = sums(2, &[("nll", 1.5), ("tokens", 7.0)]);
        total.merge(&sums(1, &[("nll", 0.25), ("tokens", 3.0)])).unwrap();
        assert_eq!(total, sums(3, &[("nll", 1.75), ("tokens", 10.0)]));
        assert_eq!((total.samples(), total.counts()), (3, None));
    }

    #[test]
    fn values_are_put_in_the_order_of_their_samples() {
        let values = |of: &[(f64, f64)]| -> Values {
            of.iter().map(|&(truth, prediction)| Value { truth, prediction }).collect()
        };
        let mut all: Tally = values(&[(1.0, 0.5), (2.0, f64::NAN)]).into();
        all.merge(&values(&[(3.0, 2.5)]).into()).unwrap();
        let Tally::Values(kept) = &all else { unreachable!() };
        assert_eq!((all.samples(), all.counts(), kept.samples()[2].prediction), (3, None, 2.5));
        let said = |of: &[(f64, f64)]| Judged::Tally(values(of).into());
        let first = said(&[(1.0, f64::NAN), (2.0, 0.0)]);
        assert!(first.is_same(&said(&[(1.0, -f64::NAN), (2.0, 0.0)])));
        assert!(!first.is_same(&said(&[(1.0, f64::NAN), (2.0, -0.0)])));
        assert!(!first.is_same(&said(&[(1.0, f64::NAN)])));
        let mut outcomes = Judged::Outcomes(Vec::new());
        assert!(outcomes.append(first).is_err());
    }

    #[test]
    fn tallies_of_different_kinds_are_never_added() {
        let mut classes = Tally::Classes(Counts::default());
        let mut total = sums(1, &[("nll", 1.0)]);
        assert!(classes.merge(&total).is_err());
        assert!(total.merge(&classes).is_err());
        assert!(classes.merge(&Values::default().into()).is_err());
        assert!(total.merge(&sums(1, &[("tokens", 1.0)])).is_err());
        assert!(total.merge(&sums(1, &[])).is_err());
        assert_eq!(total, sums(1, &[("nll", 1.0)]), "nothing is added by halves");
    }
}
