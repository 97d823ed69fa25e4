//! Whether the decisions in a log are the ones that its scores make.

use super::{Compared, Decided, Entry, Record, Rejected, Retracted, Surveyed};
use crate::error::{Error, Result};
use crate::ledger::{Comparison, Dataset, Evaluation, Finding, Ledger, Rejection};
use crate::recipe::{Recipe, RecipeSpec, Setting};
use crate::survey::Survey;
use crate::tally::{Judged, Tally};

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Records, each chained to the one before.
    pub records: u64,
    /// Coordinators that the run has had.
    pub epochs: u64,
    /// Scores.
    pub scores: u64,
    /// Decisions that stand, each made again from the scores before it.
    pub decisions: u64,
    /// Soups that were rejected before all of their samples were judged, each of them certain by what was.
    pub rejections: u64,
    /// Pairs of soups that were compared sample by sample, each of them as their scores differ.
    pub comparisons: u64,
    /// Steps of a learned soup that stand.
    pub steps: u64,
    /// How often something was taken back, since a worker turned out not to be believed.
    pub retractions: u64,
}

/// Makes every decision of a log again, from the scores recorded before it on the set `deciding`; `setting` is what the recipe knew.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) naming the record whose decisions are not those of the recipe.
pub fn verify(
    recipe: &RecipeSpec,
    setting: &Setting,
    deciding: Dataset,
    records: &[Record],
) -> Result<Verified> {
    let mut verifying = Verifying {
        spec: recipe,
        recipe: recipe.build_for(setting)?,
        ledger: Ledger::new(setting.ingredients).deciding_on(deciding),
        survey: Survey::default(),
        seen: Verified { records: records.len() as u64, ..Verified::default() },
    };
    for record in records {
        verifying.take(record).map_err(|e| e.context(format!("record {} of the log", record.seq)))?;
    }
    let Verifying { ledger, seen, .. } = verifying;
    let (rejections, comparisons) = (ledger.rejections().len() as u64, ledger.comparisons().len() as u64);
    Ok(Verified { rejections, comparisons, ..seen })
}

/// A log that is gone through.
struct Verifying<'a> {
    spec: &'a RecipeSpec,
    recipe: Box<dyn Recipe + Send + Sync>,
    ledger: Ledger,
    survey: Survey,
    seen: Verified,
}

impl Verifying<'_> {
    fn take(&mut self, record: &Record) -> Result<()> {
        match &record.entry {
            Entry::EpochClaim(_) => self.seen.epochs += 1,
            // Where nothing is judged nothing is compared either.
            Entry::Surveyed(Surveyed { survey, .. }) if survey.samples.is_empty() => {}
            Entry::Surveyed(Surveyed { survey, .. }) => {
                self.ledger.surveyed(survey.samples.clone(), survey.metric(&self.spec.metric)?);
                self.survey = survey.clone();
            }
            Entry::Stepped(stepped) => {
                self.ledger.record_step(stepped.gradients.clone());
                self.seen.steps += 1;
            }
            Entry::Scored(scored) => {
                let evaluation = Evaluation { dataset: Dataset(scored.dataset), soup: scored.soup.soup()? };
                self.check(&scored.score, self.samples(evaluation.dataset))?;
                self.find(evaluation, Finding::Score(scored.score.clone()), &scored.decisions)?;
                self.seen.scores += 1;
            }
            Entry::Rejected(rejected) => self.reject(rejected)?,
            Entry::Compared(compared) => self.compare(compared)?,
            Entry::Retracted(retracted) => self.retract(retracted)?,
            _ => {}
        }
        Ok(())
    }

    fn samples(&self, dataset: Dataset) -> u64 {
        self.survey.samples.get(dataset.index()).copied().unwrap_or_default()
    }

    fn check(&self, tally: &Tally, samples: u64) -> Result<()> {
        self.survey
            .fits(&Judged::Tally(tally.clone()), samples)
            .map_err(|e| Error::data("it has a score that no judge can have given").with_source(e))
    }

    /// Takes what was found, and holds the decisions that it makes against those that were recorded.
    fn find(&mut self, evaluation: Evaluation, finding: Finding, decided: &[Decided]) -> Result<()> {
        self.ledger.find(evaluation, finding);
        let replay = self.recipe.replay(&self.ledger, 0);
        let made = Decided::beyond(&replay, self.seen.decisions as usize);
        if made != decided {
            return Err(Error::data(format!("it decides what its scores do not: {decided:?}")));
        }
        self.seen.decisions += decided.len() as u64;
        Ok(())
    }

    /// Whether a soup cannot reach its bar, by what was judged of it.
    fn reject(&mut self, rejected: &Rejected) -> Result<()> {
        let (soup, bar, judged) = (rejected.soup.soup()?, rejected.bar.soup()?, &rejected.judged);
        let evaluation = Evaluation { dataset: Dataset(rejected.dataset), soup };
        if evaluation.dataset != self.ledger.deciding_set()
            || judged.samples() > self.samples(evaluation.dataset)
        {
            return Err(Error::data("it rejects a soup by samples that nothing is decided on"));
        }
        self.check(judged, judged.samples())?;
        let short = self.ledger.deciding(&bar).zip(self.ledger.metric());
        if !short.is_some_and(|(bar, metric)| metric.falls_short(self.spec.accept, judged, bar)) {
            return Err(Error::data("it rejects a soup that may reach its bar yet"));
        }
        let rejection = Rejection { bar, judged: judged.clone() };
        self.find(evaluation, Finding::Rejection(rejection), &rejected.decisions)
    }

    /// Whether two soups differ by as many samples as their scores do.
    fn compare(&mut self, compared: &Compared) -> Result<()> {
        let (soup, reference, counts) = (compared.soup.soup()?, compared.reference.soup()?, compared.counts);
        let evaluation = Evaluation { dataset: Dataset(compared.dataset), soup };
        let scores = self.ledger.deciding(&evaluation.soup).zip(self.ledger.deciding(&reference));
        let fits = scores.is_some_and(|(candidate, reference)| counts.is_between(candidate, reference));
        if evaluation.dataset != self.ledger.deciding_set() || !fits {
            return Err(Error::data("it compares soups in a way in which their scores do not differ"));
        }
        let comparison = Comparison { reference, counts };
        self.find(evaluation, Finding::Comparison(comparison), &compared.decisions)
    }

    fn retract(&mut self, retracted: &Retracted) -> Result<()> {
        for of in &retracted.scores {
            self.ledger.retract(Dataset(of.dataset), &of.soup.soup()?);
        }
        self.ledger.retract_steps(retracted.steps as usize);
        let left = self.recipe.replay(&self.ledger, 0).decisions.len() as u32;
        if left != retracted.decisions {
            return Err(Error::data(format!(
                "it leaves {} decisions, and the scores that it leaves make {left}",
                retracted.decisions
            )));
        }
        self.seen.retractions += 1;
        (self.seen.decisions, self.seen.steps) = (u64::from(left), u64::from(retracted.steps));
        Ok(())
    }
}
