//! Whether the decisions in a log are the ones that its scores make.

use super::{Decided, Entry, Record, Surveyed};
use crate::error::{Error, Result};
use crate::ledger::{Dataset, Ledger};
use crate::recipe::RecipeSpec;
use crate::survey::Survey;
use crate::tally::Judged;

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
    /// Steps of a learned soup that stand.
    pub steps: u64,
    /// How often something was taken back, since a worker turned out not to be believed.
    pub retractions: u64,
}

/// Makes every decision of a log again, from the scores recorded before it on the set `deciding`.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) naming the record whose decisions are not those of the recipe.
pub fn verify(
    recipe: &RecipeSpec,
    ingredients: u32,
    deciding: Dataset,
    records: &[Record],
) -> Result<Verified> {
    let (metric, recipe) = (&recipe.metric, recipe.build(ingredients)?);
    let mut ledger = Ledger::new(ingredients).deciding_on(deciding);
    let mut surveyed = Survey::default();
    let mut seen = Verified { records: records.len() as u64, ..Verified::default() };
    for record in records {
        match &record.entry {
            Entry::EpochClaim(_) => seen.epochs += 1,
            // Where nothing is judged nothing is compared either.
            Entry::Surveyed(Surveyed { survey, .. }) if survey.samples.is_empty() => {}
            Entry::Surveyed(Surveyed { survey, .. }) => {
                ledger.surveyed(survey.samples.clone(), survey.metric(metric)?);
                surveyed = survey.clone();
            }
            Entry::Stepped(stepped) => {
                ledger.record_step(stepped.gradients.clone());
                seen.steps += 1;
            }
            Entry::Scored(scored) => {
                let samples = surveyed.samples.get(scored.dataset as usize).copied().unwrap_or_default();
                let judged = Judged::Tally(scored.score.clone());
                surveyed.fits(&judged, samples).map_err(|e| {
                    let about =
                        format!("record {} of the log has a score that no judge can have given", record.seq);
                    Error::data(about).with_source(e)
                })?;
                ledger.record(Dataset(scored.dataset), scored.soup.soup()?, scored.score.clone());
                let replay = recipe.replay(&ledger, 0);
                let made =
                    replay.decisions.iter().enumerate().skip(seen.decisions as usize).map(|(i, d)| Decided {
                        trial: i as u32 + 1,
                        candidate: d.candidate.0,
                        pass: d.pass,
                        verdict: d.verdict,
                    });
                if !made.eq(scored.decisions.iter().cloned()) {
                    return Err(Error::data(format!(
                        "record {} of the log decides what its scores do not: {:?}",
                        record.seq, scored.decisions
                    )));
                }
                seen.scores += 1;
                seen.decisions += scored.decisions.len() as u64;
            }
            Entry::Retracted(retracted) => {
                for of in &retracted.scores {
                    ledger.retract(Dataset(of.dataset), &of.soup.soup()?);
                }
                ledger.retract_steps(retracted.steps as usize);
                let left = recipe.replay(&ledger, 0).decisions.len() as u32;
                if left != retracted.decisions {
                    return Err(Error::data(format!(
                        "record {} of the log leaves {} decisions, and the scores that it leaves make {left}",
                        record.seq, retracted.decisions
                    )));
                }
                seen.retractions += 1;
                (seen.decisions, seen.steps) = (u64::from(left), u64::from(retracted.steps));
            }
            _ => {}
        }
    }
    Ok(seen)
}
