//! The result of a run as data: what `-o json` prints and what the output's `soup.json` records.
//!
//! The shape is stable: fields may be added, none is renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnosis::Diagnosis;
use crate::judge::JudgeId;
use crate::ledger::{Dataset, Ledger};
use crate::metric::Metric;
use crate::recipe::{RecipeSpec, Replay, Verdict};
use crate::soup::{Ingredient, Soup};
use crate::tally::Counts;

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run's id.
    pub run: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's options.
    pub options: RecipeSpec,
    /// Names of the chosen ingredients, in pool order.
    pub ingredients: Vec<String>,
    /// Weight of each chosen ingredient, where one weight holds for the whole model.
    pub weights: BTreeMap<String, f64>,
    /// The soup on the validation set; none where nothing was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Figures>,
    /// The soup on each test set.
    pub test: BTreeMap<String, Figures>,
    /// What the soup is compared with.
    pub baselines: Baselines,
    /// Every single ingredient on the validation set, in pool order, where it was scored.
    pub ranking: Vec<Ranked>,
    /// The order in which the recipe took the ingredients; empty for recipes without one.
    pub order: Vec<String>,
    /// Every trial in order, with its verdict.
    pub trials: Vec<TrialReport>,
    /// Name of the validation set; empty where nothing was judged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub validation: String,
    /// Where the soup is.
    pub output: String,
    /// SHA-256 of the tensor data: the flattened parameters in canonical order, which is the data section of a
    /// single-file output.
    pub sha256: String,
    /// Who judged, where anything was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeId>,
    /// How weights were learned, for recipes that learn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedReport>,
    /// What explains the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
    /// What people should know.
    pub notes: Vec<String>,
    /// Seconds spent in each phase.
    pub seconds: BTreeMap<String, f64>,
    /// Bytes of parameters that workers read from the pool's store since the coordinator began or took over the run. Each is
    /// read once, unless a worker that held it was lost.
    #[serde(default)]
    pub pool_bytes_read: u64,
}

/// Counts and what follows from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Samples whose prediction is their label.
    pub correct: u64,
    /// Samples.
    pub total: u64,
    /// correct / total.
    pub accuracy: f64,
    /// Mean cross-entropy in nats; `null` where it is not finite.
    pub loss: Option<f64>,
    /// The run's metric by its name, where it is neither of the above.
    #[serde(flatten)]
    pub metric: BTreeMap<String, f64>,
}

/// Soups that need no recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// The best single ingredient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_single: Option<Baseline>,
    /// The mean of all ingredients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uniform: Option<Baseline>,
}

/// A soup to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// On the validation set.
    #[serde(flatten)]
    pub score: Figures,
    /// Its ingredients.
    pub ingredients: Vec<String>,
    /// On each test set.
    pub test: BTreeMap<String, Figures>,
}

/// One ingredient alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// Its name.
    pub ingredient: String,
    /// On the validation set.
    #[serde(flatten)]
    pub score: Figures,
    /// On each test set where it was scored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test: BTreeMap<String, Figures>,
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Ingredients of the soup that was tried, in pool order.
    pub ingredients: Vec<String>,
    /// The one that was added or removed.
    pub candidate: String,
    /// Which pass over the candidates.
    pub pass: u32,
    /// What it scored.
    #[serde(flatten)]
    pub score: Figures,
    /// The metric it had to reach.
    pub bar: f64,
    /// How it ended.
    pub verdict: Verdict,
}

/// How weights were learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedReport {
    /// What has weights of its own: `model`, or the names of tensors or layers.
    pub groups: Vec<String>,
    /// `weights[group][ingredient]`, the pool's ingredients in pool order.
    pub weights: Vec<Vec<f64>>,
    /// What the logits were multiplied by, learned too.
    pub beta: f64,
    /// Whether beta is in the classifier's parameters.
    pub beta_folded: bool,
    /// Name of the dataset that was learned from.
    pub train: String,
    /// Every step in order.
    pub steps: Vec<LearnedStep>,
}

/// A step of the optimiser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedStep {
    /// Counts from 1.
    pub step: u32,
    /// Mean loss of the mini-batch before the step, in nats; `null` where it is not finite.
    pub loss: Option<f64>,
    /// Correct predictions in the mini-batch.
    pub correct: u64,
    /// Samples of the mini-batch.
    pub total: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Beta after the step.
    pub beta: f64,
    /// Norm of the gradient with respect to what is learned, before clipping.
    pub gradient_norm: f64,
}

/// A share for people: `87.50 %`; `-` where there is nothing to divide by.
pub fn percent(correct: u64, total: u64) -> String {
    if total == 0 { "-".to_owned() } else { format!("{:.2} %", 100.0 * correct as f64 / total as f64) }
}

impl Figures {
    /// What `score` amounts to for a model of `classes` classes.
    pub fn new(score: &Counts, metric: Metric, classes: u32) -> Figures {
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        let own = match metric {
            Metric::Accuracy | Metric::Loss => None,
            other => finite(other.value(score, classes)).map(|v| (other.name().replace('-', "_"), v)),
        };
        Figures {
            correct: score.correct,
            total: score.total,
            accuracy: Metric::Accuracy.value(score, classes),
            loss: finite(Metric::Loss.value(score, classes)),
            metric: own.into_iter().collect(),
        }
    }
}

/// What a report is made from.
pub struct Sources<'a> {
    /// Names of the ingredients, in pool order.
    pub ingredients: &'a [String],
    /// Names of the datasets, the validation set first.
    pub datasets: &'a [String],
    /// The recipe.
    pub recipe: RecipeSpec,
    /// Classes of the model.
    pub classes: u32,
    /// All scores.
    pub ledger: &'a Ledger,
    /// The recipe's decisions.
    pub replay: &'a Replay,
}

impl Sources<'_> {
    /// Names of the members of a soup.
    pub fn names(&self, soup: &Soup) -> Vec<String> {
        soup.members().iter().map(|&m| self.name(m)).collect()
    }

    fn name(&self, ingredient: Ingredient) -> String {
        self.ingredients.get(ingredient.index()).cloned().unwrap_or_else(|| ingredient.0.to_string())
    }

    /// The figures of a soup on a dataset, where it was scored.
    pub fn figures(&self, dataset: Dataset, soup: &Soup) -> Option<Figures> {
        self.ledger.score(dataset, soup).map(|s| Figures::new(s, self.recipe.metric, self.classes))
    }

    /// The figures of a soup on every test set where it was scored.
    pub fn test(&self, soup: &Soup) -> BTreeMap<String, Figures> {
        let set = |(d, name): (usize, &String)| Some((name.clone(), self.figures(Dataset(d as u32), soup)?));
        self.datasets.iter().enumerate().skip(1).filter_map(set).collect()
    }

    /// A soup to compare with, where it was scored on the validation set.
    pub fn baseline(&self, soup: &Soup) -> Option<Baseline> {
        let score = self.figures(Dataset::VALIDATION, soup)?;
        Some(Baseline { score, ingredients: self.names(soup), test: self.test(soup) })
    }

    /// Every single ingredient that was scored.
    pub fn ranking(&self) -> Vec<Ranked> {
        let one = |(i, name): (usize, &String)| {
            let soup = Soup::single(Ingredient(i as u32));
            let score = self.figures(Dataset::VALIDATION, &soup)?;
            Some(Ranked { ingredient: name.clone(), score, test: self.test(&soup) })
        };
        self.ingredients.iter().enumerate().filter_map(one).collect()
    }

    /// The order of the candidates.
    pub fn order(&self) -> Vec<String> {
        self.replay.order.iter().map(|&i| self.name(i)).collect()
    }

    /// Every trial.
    pub fn trials(&self) -> Vec<TrialReport> {
        let metric = self.recipe.metric;
        let one = |d: &crate::recipe::Decision| TrialReport {
            ingredients: self.names(&d.soup),
            candidate: self.name(d.candidate),
            pass: d.pass,
            score: Figures::new(&d.score, metric, self.classes),
            bar: metric.value(&d.bar, self.classes),
            verdict: d.verdict,
        };
        self.replay.decisions.iter().map(one).collect()
    }

    /// The weights of a soup that has one weight per ingredient for the whole model.
    pub fn weights(&self, soup: &Soup) -> BTreeMap<String, f64> {
        let members = soup.members();
        match soup.rows() {
            None => members.iter().map(|&m| (self.name(m), 1.0 / members.len() as f64)).collect(),
            Some([row]) => members.iter().zip(row).map(|(&m, w)| (self.name(m), w.get())).collect(),
            Some(_) => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_names_are_stable() {
        let outcome = |label, prediction| crate::tally::Outcome { label, prediction, loss: 0.5, margin: 0.0 };
        let score: Counts = [outcome(0, 0), outcome(1, 0)].iter().collect();
        let figures = Figures::new(&score, Metric::MacroF1, 2);
        let json =
            serde_json::to_value(Ranked { ingredient: "a".into(), score: figures, test: BTreeMap::new() })
                .unwrap();
        let expected = serde_json::json!({
            "ingredient": "a", "correct": 1, "total": 2, "accuracy": 0.5, "loss": 0.5, "macro_f1": 1.0 / 3.0,
        });
        assert_eq!(json, expected);
    }
}
