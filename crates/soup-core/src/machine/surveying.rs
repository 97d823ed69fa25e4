//! What is known of the data, before a parameter is loaded: what the judge told, and what follows from it.

use super::{Dataset, Error, Evaluation, Judged, Machine, Result, Slice, slices};
use crate::metric::{FIXED_WITHIN, Metric};
use crate::survey::{Demands, Survey, Tallies};
use crate::tally::Tally;

/// What follows from a survey.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    survey: Survey,
    /// By what scores are compared; `None` where nothing is judged.
    metric: Option<Metric>,
    slices: Vec<Vec<Slice>>,
}

impl Known {
    /// By what scores are compared; `None` where nothing is judged.
    pub(super) fn metric(&self) -> Option<&Metric> {
        self.metric.as_ref()
    }
}

impl Machine {
    /// Whether nothing is left to be surveyed.
    pub(super) fn surveyed_enough(&self) -> bool {
        self.known.is_some()
    }

    /// What the judge told.
    pub(super) fn survey(&self) -> Option<&Survey> {
        self.known.as_ref().map(|known| &known.survey)
    }

    /// By what scores are compared, once surveyed.
    pub fn metric(&self) -> Option<&Metric> {
        self.known.as_ref().and_then(Known::metric)
    }

    /// Takes what the judge told.
    ///
    /// # Errors
    /// Where it is not enough for the run.
    pub(super) fn know(&mut self, survey: Survey) -> Result<()> {
        let metric = self.check_survey(&survey)?;
        let slices = survey.samples.iter().map(|&n| slices(n, self.plan.batch_size)).collect();
        self.known = Some(Known { survey, metric: Some(metric), slices });
        Ok(())
    }

    /// By what scores are compared, where a survey says enough for the run.
    ///
    /// # Errors
    /// What it does not.
    pub(super) fn check_survey(&self, survey: &Survey) -> Result<Metric> {
        let judge =
            self.plan.judge.as_ref().ok_or_else(|| Error::internal("nobody judges, and was asked"))?;
        survey.check(&Demands {
            judge,
            datasets: self.plan.datasets as usize,
            recipe: &self.plan.recipe,
            full_diagnosis: self.plan.diagnosis.full,
            recompute: self.plan.calibration.is_some(),
            answers: self.plan.answers,
            train: self.plan.train,
        })
    }

    /// What the judge told is durable, and takes effect.
    pub(super) fn take_survey(&mut self) {
        if let Some(Known { survey, metric: Some(metric), .. }) = &self.known {
            self.ledger.surveyed(survey.samples.clone(), metric.clone());
        }
    }

    /// The slices of a dataset, in order.
    pub(super) fn slices_of(&self, dataset: Dataset) -> &[Slice] {
        self.known.as_ref().and_then(|k| k.slices.get(dataset.index())).map_or(&[], Vec::as_slice)
    }

    /// The samples of an evaluation.
    pub(super) fn samples_of(&self, evaluation: &Evaluation) -> u64 {
        self.slices_of(evaluation.dataset).last().map_or(0, |s| s.end)
    }

    /// Whether the run's judge can have said so of so many samples.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_judged(&self, judged: &Judged, samples: u64) -> Result<()> {
        let survey =
            self.survey().ok_or_else(|| Error::internal("something was judged before the survey"))?;
        survey.fits(judged, samples)
    }

    /// Whether the figures of a whole score that the judge promised to be the same of all soups are. Early verdicts went by that.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) naming the figure where they are not.
    pub(super) fn check_fixed(&self, dataset: Dataset, score: &Tally) -> Result<()> {
        let Some(Tallies::Sums { ranges, .. }) = self.survey().map(|survey| &survey.tallies) else {
            return Ok(());
        };
        let other = self.ledger.scores().find_map(|(set, _, tally)| match tally {
            Tally::Sums(sums) if set == dataset => Some(sums),
            _ => None,
        });
        let (Tally::Sums(sums), Some(other)) = (score, other) else { return Ok(()) };
        let fixed = ranges.iter().filter(|(_, range)| range.fixed).map(|(name, _)| name);
        let both = fixed.filter_map(|name| Some((name, sums.figures.get(name)?, other.figures.get(name)?)));
        let apart = |a: f64, b: f64| (a - b).abs() > FIXED_WITHIN * a.abs().max(b.abs());
        match both.into_iter().find(|(_, a, b)| apart(**a, **b)) {
            None => Ok(()),
            Some((name, a, b)) => Err(Error::internal(format!(
                "judge {} said that {name} is the same of all soups, and told {b} of one and {a} of another",
                self.plan.judge.as_ref().map_or("?", |judge| &judge.name)
            ))),
        }
    }
}
