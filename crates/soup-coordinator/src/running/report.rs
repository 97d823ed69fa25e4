//! The report of a run: what its machine found out, with the names that people know.

use std::collections::BTreeMap;

use soup_core::batch_norm;
use soup_core::ledger::{Dataset, Evaluation};
use soup_core::report::{Against, Baselines, RunReport, Sources, StatisticsReport};
use soup_core::soup::Soup;
use soup_core::{Error, Result};

use super::Running;
use crate::significance::Pair;
use crate::{diagnosis, learned};

impl Running {
    /// What became of running statistics, where there are some.
    fn batch_norm(&self, soup: &Soup) -> Option<StatisticsReport> {
        let (schema, spec) = (&self.prepared.schema, &self.prepared.spec);
        let (set, survey) = (spec.calibration_set(), self.machine.surveyed());
        Some(StatisticsReport {
            statistics: schema.batch_norm()?,
            tensors: batch_norm::statistics(schema).count() as u64,
            calibration: spec.calibration.as_ref().map(|set| set.url.clone()),
            samples: set
                .zip(survey)
                .and_then(|(set, survey)| survey.survey.samples.get(set.index()).copied()),
            sha256: self.machine.statistics(soup).map(hex::encode),
        })
    }

    /// What the soup is compared with sample by sample, once the run is done.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let Some(soup) = self.machine.chosen() else { return Vec::new() };
        let replay = self.machine.replay();
        let best = self.machine.best_single().filter(|best| self.machine.tells_of(best, &replay));
        let others = [
            (Against::BestSingle, best),
            (Against::Uniform, Soup::uniform(self.prepared.names.len() as u32)),
        ];
        let others: Vec<(Against, Soup)> = others
            .into_iter()
            .filter_map(|(against, other)| Some((against, other.filter(|other| other != soup)?)))
            .collect();
        let pairs = self.prepared.reported().iter().enumerate().flat_map(|(set, name)| {
            let dataset = Dataset(set as u32);
            let outcomes =
                |soup: &Soup| self.machine.outcomes_sha256(&Evaluation { dataset, soup: soup.clone() });
            let pair = |(against, other): &(Against, Soup)| {
                let (candidate, reference) = outcomes(soup).zip(outcomes(other))?;
                let samples = self.machine.ledger().samples(dataset)?;
                Some(Pair { dataset: name.clone(), against: *against, candidate, reference, samples })
            };
            others.iter().filter_map(pair).collect::<Vec<_>>()
        });
        pairs.collect()
    }

    /// What the run has found out, once it is done.
    ///
    /// # Errors
    /// Where the machine does not know what it should know by then.
    pub(super) fn report(&self) -> Result<RunReport> {
        let missing = |what: &str| Error::internal(format!("a finished run has no {what}"));
        let soup = self.machine.chosen().ok_or_else(|| missing("soup"))?;
        let replay = self.machine.replay();
        let spec = &self.prepared.spec;
        let sources = Sources {
            ingredients: &self.prepared.names,
            datasets: self.prepared.reported(),
            metric: (self.machine.metric(), &spec.recipe.metric),
            ledger: self.machine.ledger(),
            replay: &replay,
            accept: spec.recipe.accept,
            alpha: spec.recipe.alpha,
        };
        let uniform = Soup::uniform(self.prepared.names.len() as u32);
        let told = |single: &Soup| self.machine.tells_of(single, &replay);
        let mut seconds: BTreeMap<String, f64> =
            self.spent_ms.iter().map(|(p, &ms)| (p.name().to_owned(), ms as f64 / 1000.0)).collect();
        seconds.insert("prepare".to_owned(), self.prepared.seconds);
        let sha256 = match self.prepared.files.is_empty() {
            true => String::new(),
            false => hex::encode(self.machine.data_sha256().ok_or_else(|| missing("digest"))?),
        };
        Ok(RunReport {
            run: self.of.run.clone(),
            recipe: spec.recipe.kind.name().to_owned(),
            options: spec.recipe.clone(),
            lower_is_better: self.machine.metric().is_some_and(|m| m.lower_is_better()),
            ingredients: sources.names(soup),
            weights: sources.weights(soup),
            score: match &spec.validation {
                Some(_) => Some(
                    sources.figures(Dataset::VALIDATION, soup).ok_or_else(|| missing("validation score"))?,
                ),
                None => None,
            },
            test: sources.test(soup),
            baselines: Baselines {
                best_single: self.machine.best_single().filter(told).and_then(|s| sources.baseline(&s)),
                uniform: uniform.and_then(|s| sources.baseline(&s)),
            },
            ranking: sources.ranking(told),
            order: sources.order(),
            trials: sources.trials(),
            validation: spec.validation.as_ref().map_or_else(String::new, |v| v.name.clone()),
            output: spec.output.clone(),
            sha256,
            significance: Vec::new(),
            judge: self.prepared.judge.clone(),
            batch_norm: self.batch_norm(soup),
            learned: learned::report(&self.machine, &self.prepared),
            diagnosis: diagnosis::diagnose(&self.machine, &sources, &self.prepared, soup),
            notes: self.notes.iter().cloned().chain(self.machine.notes().map(str::to_owned)).collect(),
            seconds,
            pool_bytes_read: self.pool_bytes_read,
        })
    }
}
