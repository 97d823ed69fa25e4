//! What judges tell: what there is to be told, what happened to samples, and what it adds up to.

use std::collections::BTreeSet;

use soup_core::metric::{Formula, Range, Ranges, SumMetric};
use soup_core::run::DATASETS_MAX;
use soup_core::survey::{Ability, Survey, Tallies};
use soup_core::tally::values::VALUES_MAX;
use soup_core::tally::{Counts, Judged, Outcome, Sums, Tally, Value, Values};
use soup_core::{Error, Result};

use super::{malformed, required};
use crate::v1;
use crate::v1::figure_metric::Formula as WireFormula;

impl From<&Counts> for v1::Counts {
    fn from(c: &Counts) -> Self {
        v1::Counts {
            total: c.total,
            correct: c.correct,
            loss_sum: c.loss_sum,
            labels: c.confusion.keys().map(|(label, _)| *label).collect(),
            predictions: c.confusion.keys().map(|(_, prediction)| *prediction).collect(),
            counts: c.confusion.values().copied().collect(),
        }
    }
}

impl TryFrom<v1::Counts> for Counts {
    type Error = Error;
    fn try_from(c: v1::Counts) -> Result<Self> {
        if [c.predictions.len(), c.counts.len()] != [c.labels.len(); 2] {
            return Err(malformed("columns of counts differ in length"));
        }
        let pairs = c.labels.into_iter().zip(c.predictions);
        Ok(Counts {
            total: c.total,
            correct: c.correct,
            loss_sum: c.loss_sum,
            confusion: pairs.zip(c.counts).collect(),
        })
    }
}

impl From<&Tally> for v1::Tally {
    fn from(tally: &Tally) -> Self {
        let kind = match tally {
            Tally::Classes(counts) => v1::tally::Kind::Classes(counts.into()),
            Tally::Values(values) => v1::tally::Kind::Values(values.into()),
            Tally::Sums(Sums { samples, figures }) => v1::tally::Kind::Sums(v1::Sums {
                samples: *samples,
                figures: figures.iter().map(|(name, sum)| (name.clone(), *sum)).collect(),
            }),
        };
        v1::Tally { kind: Some(kind) }
    }
}

impl TryFrom<v1::Tally> for Tally {
    type Error = Error;
    fn try_from(tally: v1::Tally) -> Result<Self> {
        Ok(match required(tally.kind, "a tally's kind")? {
            v1::tally::Kind::Classes(counts) => Tally::Classes(counts.try_into()?),
            v1::tally::Kind::Values(values) => Tally::Values(values.try_into()?),
            v1::tally::Kind::Sums(v1::Sums { samples, figures }) => {
                Tally::Sums(Sums { samples, figures: figures.into_iter().collect() })
            }
        })
    }
}

impl From<&Values> for v1::Values {
    fn from(values: &Values) -> Self {
        let (truths, predictions) = values.samples().iter().map(|v| (v.truth, v.prediction)).unzip();
        v1::Values { truths, predictions }
    }
}

impl TryFrom<v1::Values> for Values {
    type Error = Error;
    fn try_from(v1::Values { truths, predictions }: v1::Values) -> Result<Self> {
        if truths.len() != predictions.len() || truths.len() as u64 > VALUES_MAX {
            return Err(malformed("columns of values differ in length, or are too long"));
        }
        let pairs = truths.into_iter().zip(predictions);
        Ok(pairs.map(|(truth, prediction)| Value { truth, prediction }).collect())
    }
}

impl v1::Tally {
    /// A tally for people: how many samples there are where it keeps one number after the other, which the metric's value tells more of.
    pub(super) fn in_short(tally: &Tally) -> Self {
        match tally {
            Tally::Values(_) => v1::Tally {
                kind: Some(v1::tally::Kind::Sums(v1::Sums {
                    samples: tally.samples(),
                    ..Default::default()
                })),
            },
            Tally::Classes(_) | Tally::Sums(_) => tally.into(),
        }
    }
}

impl From<&Judged> for v1::Evaluated {
    fn from(judged: &Judged) -> Self {
        let judged = match judged {
            Judged::Outcomes(outcomes) => v1::evaluated::Judged::Outcomes(v1::Outcomes {
                labels: outcomes.iter().map(|o| o.label).collect(),
                predictions: outcomes.iter().map(|o| o.prediction).collect(),
                losses: outcomes.iter().map(|o| o.loss).collect(),
            }),
            Judged::Tally(tally) => v1::evaluated::Judged::Tally(tally.into()),
        };
        v1::Evaluated { judged: Some(judged) }
    }
}

impl TryFrom<v1::Evaluated> for Judged {
    type Error = Error;
    fn try_from(evaluated: v1::Evaluated) -> Result<Self> {
        let outcomes = match required(evaluated.judged, "what was judged")? {
            v1::evaluated::Judged::Tally(tally) => return Ok(Judged::Tally(tally.try_into()?)),
            v1::evaluated::Judged::Outcomes(outcomes) => outcomes,
        };
        let v1::Outcomes { labels, predictions, losses } = outcomes;
        if [predictions.len(), losses.len()] != [labels.len(); 2] {
            return Err(malformed("columns of outcomes differ in length"));
        }
        let columns = labels.into_iter().zip(predictions).zip(losses);
        let outcome = |((label, prediction), loss)| Outcome { label, prediction, loss };
        Ok(Judged::Outcomes(columns.map(outcome).collect()))
    }
}

impl v1::Surveyed {
    /// What a judge told, and what people should know of it.
    pub fn new(survey: Survey, notes: Vec<String>) -> Self {
        let Survey { samples, tallies, abilities } = survey;
        let tallies = match tallies {
            Tallies::Classes { classes } => v1::surveyed::Tallies::Classes(classes),
            Tallies::Values { values } => v1::surveyed::Tallies::Values(values),
            Tallies::Sums { figures, ranges, metrics } => v1::surveyed::Tallies::Figures(v1::Figures {
                names: figures.into_iter().collect(),
                metrics: metrics.into_iter().map(Into::into).collect(),
                ranges: ranges.into_iter().map(Into::into).collect(),
            }),
        };
        let abilities = abilities.into_iter().map(|a| a.name().to_owned()).collect();
        v1::Surveyed { samples, tallies: Some(tallies), abilities, notes }
    }

    /// The same, from the wire.
    ///
    /// # Errors
    /// Where the message is malformed.
    pub fn survey(self) -> Result<(Survey, Vec<String>)> {
        let tallies = match required(self.tallies, "what a judge tells")? {
            v1::surveyed::Tallies::Classes(classes) => Tallies::Classes { classes },
            v1::surveyed::Tallies::Values(values) => Tallies::Values { values },
            v1::surveyed::Tallies::Figures(v1::Figures { names, metrics, ranges }) => Tallies::Sums {
                figures: distinct(names, "a figure")?,
                ranges: of_distinct(ranges)?,
                metrics: metrics.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            },
        };
        // They are compared, and shown where they differ.
        if self.samples.len() > DATASETS_MAX {
            return Err(malformed(&format!("samples of {} datasets", self.samples.len())));
        }
        let abilities = Ability::known(&self.abilities);
        Ok((Survey { samples: self.samples, tallies, abilities }, self.notes))
    }
}

fn distinct(names: Vec<String>, what: &str) -> Result<BTreeSet<String>> {
    let count = names.len();
    let names: BTreeSet<String> = names.into_iter().collect();
    if names.len() == count { Ok(names) } else { Err(malformed(&format!("{what} is named twice"))) }
}

fn of_distinct(ranges: Vec<v1::FigureRange>) -> Result<Ranges> {
    let count = ranges.len();
    let ranges: Ranges = ranges.into_iter().map(Into::into).collect();
    if ranges.len() == count { Ok(ranges) } else { Err(malformed("the range of a figure is named twice")) }
}

impl From<(String, Range)> for v1::FigureRange {
    fn from((figure, Range { least, most, fixed }): (String, Range)) -> Self {
        v1::FigureRange { figure, least, most, fixed }
    }
}

impl From<v1::FigureRange> for (String, Range) {
    fn from(v1::FigureRange { figure, least, most, fixed }: v1::FigureRange) -> Self {
        (figure, Range { least, most, fixed })
    }
}

impl From<SumMetric> for v1::FigureMetric {
    fn from(metric: SumMetric) -> Self {
        let SumMetric { name, formula, lower_is_better } = metric;
        let (formula, figure, by) = match formula {
            Formula::Mean(figure) => (WireFormula::Mean, figure, String::new()),
            Formula::Ratio(figure, by) => (WireFormula::Ratio, figure, by),
            Formula::ExpRatio(figure, by) => (WireFormula::ExpRatio, figure, by),
        };
        v1::FigureMetric { name, formula: formula.into(), figure, by, lower_is_better }
    }
}

impl TryFrom<v1::FigureMetric> for SumMetric {
    type Error = Error;
    fn try_from(metric: v1::FigureMetric) -> Result<Self> {
        let kind = metric.formula();
        let v1::FigureMetric { name, figure, by, lower_is_better, .. } = metric;
        let formula = match kind {
            WireFormula::Mean => Formula::Mean(figure),
            WireFormula::Ratio => Formula::Ratio(figure, by),
            WireFormula::ExpRatio => Formula::ExpRatio(figure, by),
            WireFormula::Unspecified => return Err(malformed("a metric's formula is unknown")),
        };
        Ok(SumMetric { name, formula, lower_is_better })
    }
}
