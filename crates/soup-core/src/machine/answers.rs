//! What answers have to be like, whatever is in them: one that is not is a failure of its worker's.

use std::collections::BTreeSet;

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
            (work, result) => {
                let (asked, said) = (work.kind(), result.kind());
                Err(Error::internal(format!("a worker was asked for {asked} and answered with {said}")))
            }
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
        let k = self.plan.ingredients as usize;
        let packed = packed_len(k);
        let fits = |g: &LayerGram| g.packed.len() == packed && (g.layer as usize) < layers.names.len();
        match grams.iter().all(fits) && are_products(grams, k) {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "a worker answered shard {shard} with inner products that do not fit the pool"
            ))),
        }
    }
}

/// Whether these can be inner products of `k` ingredients and an origin: those of each layer once, and of nothing with itself less than zero.
fn are_products(grams: &[LayerGram], k: usize) -> bool {
    let mut seen = BTreeSet::new();
    grams.iter().all(|gram| {
        // The first of each row. Not a number is what parameters come to that are none, where they are allowed.
        let mut first = 0;
        let mut lengths = (0..=k).map(|row| {
            let length = gram.packed.get(first).copied().unwrap_or_default();
            first += k + 1 - row;
            length
        });
        !lengths.any(|length| length < 0.0) && seen.insert((gram.layer, gram.matrix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_products_that_cannot_be_are_known() {
        let gram = |layer, matrix, packed: [f64; 6]| LayerGram { layer, matrix, packed: packed.into() };
        let good = [2.0, -1.0, 0.0, 2.0, -3.0, 0.0];
        assert!(are_products(&[gram(0, true, good), gram(0, false, good), gram(1, true, good)], 2));
        assert!(are_products(&[gram(0, true, [f64::NAN; 6])], 2));
        assert!(!are_products(&[gram(0, true, good), gram(0, true, good)], 2));
        for diagonal in [0, 3, 5] {
            let mut packed = good;
            packed[diagonal] = -1.0;
            assert!(!are_products(&[gram(0, true, packed)], 2), "{diagonal}");
        }
    }
}
