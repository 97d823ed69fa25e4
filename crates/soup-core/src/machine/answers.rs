//! What answers have to be like, whatever is in them: one that is not is a failure of its worker's.

use super::{Error, Judged, LayerGram, Machine, Result, Slice, TaskResult, Work};
use crate::diagnosis::boosting::Hits;
use crate::diagnosis::ensemble::Alternatives;
use crate::diagnosis::geometry::packed_len;
use crate::machine::exchange::{Compare, SegmentDots};

impl Machine {
    /// Whether an answer can be one to `work`.
    ///
    /// # Errors
    /// What is wrong with it; for a survey, what it is not enough for.
    pub(super) fn check_answer(&self, work: &Work, result: &TaskResult) -> Result<()> {
        match (work, result) {
            (Work::Load(_), TaskResult::Loaded { .. }) if self.plan.streams => Ok(()),
            (Work::Load(_), TaskResult::Loaded { digests, .. }) => self.check_count(digests.len()),
            (Work::Survey, TaskResult::Surveyed { survey, .. }) => self.check_survey(survey).map(drop),
            (Work::Evaluate(evaluation, slice), TaskResult::Evaluated(judged)) => {
                let about = || {
                    format!("samples {} to {} of dataset {}", slice.start, slice.end, evaluation.dataset.0)
                };
                self.check_slice(judged, slice).map_err(|e| e.context(about()))
            }
            (Work::Differentiate(part), TaskResult::Differentiated(figures)) => {
                let samples = part.samples.len() as u64;
                match figures.total == samples && figures.correct <= samples {
                    true => Ok(()),
                    false => Err(Error::internal(format!(
                        "a worker differentiated {} samples of {samples}, {} of them right",
                        figures.total, figures.correct
                    ))),
                }
            }
            (Work::Dot(dot), TaskResult::Dotted(segments)) => self.check_dots(dot.shard.0, segments),
            (Work::Gram(shard), TaskResult::Measured(grams)) => self.check_grams(shard.0, grams),
            (Work::Pass(shard), TaskResult::Passed { digests, grams, .. }) => {
                self.check_count(digests.len()).and_then(|()| self.check_grams(shard.0, grams))
            }
            (Work::Compare(of), TaskResult::Compared(found)) => self.check_compared(of, found),
            (Work::Reread(shard, soup), TaskResult::Reread(found)) => {
                let blends = [found.blend, found.served].iter().flatten().count();
                match blends == if soup.is_some() { 2 } else { 0 } {
                    true => self.check_count(found.digests.len()),
                    false => Err(Error::internal(format!("a worker read shard {} again by halves", shard.0))),
                }
            }
            (Work::Prove(..), TaskResult::Proved(_))
            | (Work::Write(..), TaskResult::Written(_))
            | (Work::ReadBack(_), TaskResult::ReadBack { .. })
            | (Work::Digest(_), TaskResult::Digested(_)) => Ok(()),
            (work, result) => Err(Error::internal(format!("a worker answered {work:?} with {result:?}"))),
        }
    }

    /// Whether the run's judge can have said so of a slice. Samples in another order than their own have to be told one by one.
    pub(super) fn check_slice(&self, judged: &Judged, slice: &Slice) -> Result<()> {
        if !slice.sequence.is_natural() && !matches!(judged, Judged::Outcomes(_)) {
            return Err(Error::internal("a worker told what samples add up to, and not of each"));
        }
        self.check_judged(judged, slice.end - slice.start)
    }

    fn check_count(&self, digests: usize) -> Result<()> {
        let ingredients = self.plan.ingredients;
        match digests == ingredients as usize {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "a worker returned {digests} digests for {ingredients} ingredients"
            ))),
        }
    }

    fn check_compared(&self, of: &Compare, found: &Alternatives) -> Result<()> {
        let (ingredients, samples) = (self.plan.ingredients as usize, of.slice.end - of.slice.start);
        let fit = |hits: &Hits| hits.ingredients() == ingredients && hits.samples() == samples;
        if found.newton.gradient.len() != ingredients || !found.hits.iter().all(fit) {
            return Err(Error::internal("a worker compared other ingredients than it was asked to"));
        }
        if (found.boosted.is_some(), found.hits.is_some()) != (!of.votes.is_empty(), of.hits) {
            return Err(Error::internal("a worker told of other votes than it was asked about"));
        }
        let counts = [&found.logits, &found.vote, &found.stacked].into_iter().chain(&found.boosted);
        counts.into_iter().try_for_each(|counts| {
            let checked = self.check_judged(&Judged::Tally(counts.clone().into()), samples);
            checked.map_err(|e| e.context("other uses of the ingredients"))
        })
    }

    fn check_dots(&self, shard: u32, segments: &[SegmentDots]) -> Result<()> {
        let tensors = self.plan.groups.of.len();
        let fits =
            |s: &SegmentDots| s.dots.len() == self.plan.ingredients as usize && (s.tensor as usize) < tensors;
        match segments.iter().all(fits) {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "a worker answered shard {shard} with products that do not fit the pool"
            ))),
        }
    }

    fn check_grams(&self, shard: u32, grams: &[LayerGram]) -> Result<()> {
        let Some(layers) = &self.plan.diagnosis.layers else { return Ok(()) };
        let packed = packed_len(self.plan.ingredients as usize);
        let fits = |g: &LayerGram| g.packed.len() == packed && (g.layer as usize) < layers.names.len();
        match grams.iter().all(fits) {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "a worker answered shard {shard} with inner products that do not fit the pool"
            ))),
        }
    }
}
