//! The result of a run as data: what `-o json` prints and what the output's `soup.json` records.
//!
//! The shape is stable: fields may be added, none is renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch_norm::BatchNorm;
use crate::diagnosis::Diagnosis;
use crate::error::Result;
use crate::judge::JudgeId;
use crate::ledger::{Dataset, Ledger};
use crate::metric::{ClassMetric, Metric, MetricName, ValueMetric};
use crate::recipe::{Accept, RecipeSpec, Replay, Verdict};
use crate::rounding::{fixed, share};
use crate::significance::{Bootstrap, Discordant, Interval, McNemar, is_fragile, is_fragile_at};
use crate::soup::{Ingredient, Soup};
use crate::tally::{Outcome, Tally};

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The run's id.
    pub run: String,
    /// The recipe's name.
    pub recipe: String,
    /// The recipe's options.
    pub options: RecipeSpec,
    /// Whether a lower value of the metric is the better one.
    #[serde(default)]
    pub lower_is_better: bool,
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
    /// The soup beside others on the same samples, where it is known what happened to each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub significance: Vec<Comparison>,
    /// Who judged, where anything was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeId>,
    /// What became of running statistics of normalisation layers, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<StatisticsReport>,
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

/// What became of running statistics of normalisation layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatisticsReport {
    /// What.
    pub statistics: BatchNorm,
    /// So many tensors.
    pub tensors: u64,
    /// The set on which they were recomputed, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<String>,
    /// Its samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// SHA-256 of those of the soup that were recomputed, one tensor after the other in canonical order. The soup has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A score and what follows from it. What is not finite is `null`, or absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of a classifier.
    Classes {
        /// Samples whose prediction is their label.
        correct: u64,
        /// Samples.
        total: u64,
        /// correct / total.
        accuracy: f64,
        /// Mean cross-entropy in nats.
        loss: Option<f64>,
        /// The run's metric by its name, and what it is the mean of, where that is neither of the above.
        #[serde(flatten)]
        metric: BTreeMap<String, f64>,
    },
    /// Of a model that predicts a number.
    Values {
        /// Samples.
        samples: u64,
        /// Every metric of predicted numbers, by its name.
        metrics: BTreeMap<String, Option<f64>>,
        /// The run's metric.
        value: Option<f64>,
    },
    /// Of anything else.
    Sums {
        /// Samples.
        samples: u64,
        /// The sum of each figure.
        figures: BTreeMap<String, Option<f64>>,
        /// The run's metric.
        value: Option<f64>,
    },
}

/// What a soup is compared with, sample by sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// The best single ingredient.
    BestSingle,
    /// The mean of all ingredients.
    Uniform,
}

impl Against {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Against::BestSingle => "best single",
            Against::Uniform => "uniform",
        }
    }
}

/// The soup beside another one on the same samples. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The dataset.
    pub dataset: String,
    /// The other one.
    pub against: Against,
    /// Samples that only one of them got right.
    #[serde(flatten)]
    pub discordant: Discordant,
    /// McNemar's exact test, two-sided: how often equally good models differ as much.
    pub p: f64,
    /// The same, one-sided: how often a soup that is no better gains as much.
    pub p_better: f64,
    /// By how much the run's metric of the soup is larger; `null` where that is not finite.
    pub difference: Option<f64>,
    /// In which interval that lies at 95 %, by a bootstrap over samples.
    pub interval: Option<(f64, f64)>,
}

impl Comparison {
    /// Of what happened to the same samples, in the same order.
    ///
    /// # Errors
    /// Where these are not the same samples.
    pub fn of(
        (dataset, against): (String, Against),
        metric: &Metric,
        soup: &[Outcome],
        other: &[Outcome],
    ) -> Result<Comparison> {
        let discordant = Discordant::of(soup, other)?;
        let McNemar { two_sided, better } = McNemar::of(discordant);
        let Interval { difference, low, high } = Bootstrap::default().interval(metric, soup, other)?;
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        Ok(Comparison {
            dataset,
            against,
            discordant,
            p: two_sided,
            p_better: better,
            difference: finite(difference),
            interval: finite(low).zip(finite(high)),
        })
    }

    /// In one line for people. Of a metric that is a share, differences are in percent of all samples.
    pub fn sentence(&self, share: bool) -> String {
        let Discordant { gains, losses } = self.discordant;
        let signed = |v: f64| format!("{}{}", if v < 0.0 { "-" } else { "+" }, decimal(v.abs()));
        let number = |v: f64| if share { points(v) } else { signed(v) };
        let by = match (self.difference, self.interval) {
            (Some(by), Some((low, high))) => {
                format!(", {} ({} to {} at 95 %)", number(by), number(low), number(high))
            }
            _ => String::new(),
        };
        format!("{gains} samples gained, {losses} lost, p {}{by}", chance(self.p))
    }
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
    /// What it scored; absent where the verdict was certain before all samples were judged.
    #[serde(flatten)]
    pub score: Option<Figures>,
    /// Samples that were judged.
    #[serde(default)]
    pub evaluated: u64,
    /// Samples of the dataset.
    #[serde(default)]
    pub out_of: u64,
    /// The metric that it could have reached at best, where the verdict was certain before all samples were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// The metric it had to reach; `null` where that is not finite.
    #[serde(deserialize_with = "nan_for_null")]
    pub bar: f64,
    /// How it ended.
    pub verdict: Verdict,
    /// How it compares with the soup that it had to reach, sample by sample, where the rule asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Compared>,
    /// Whether it had ended otherwise with two samples more right, or two fewer; where that is known: of figures of counts that all samples
    /// were judged for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragile: Option<bool>,
}

/// How two soups compare sample by sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The samples that only one of them got right.
    #[serde(flatten)]
    pub counts: Discordant,
    /// How often a soup that is no better gains at least as much: a one-sided [exact McNemar test](McNemar).
    pub p: f64,
}

/// JSON has no word for what is not finite.
fn nan_for_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// How weights were learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearnedReport {
    /// What has weights of its own: `model`, or the names of tensors or layers.
    pub groups: Vec<String>,
    /// `weights[group][ingredient]`, the pool's ingredients in pool order.
    pub weights: Vec<Vec<f64>>,
    /// What the logits were multiplied by, learned too; 1 of a model that predicts a number.
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
    /// Mean loss of the mini-batch before the step, a cross-entropy in nats or the squared error of a predicted number; `null` where it is
    /// not finite.
    pub loss: Option<f64>,
    /// Correct predictions in the mini-batch; 0 of numbers.
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
    if total == 0 { "-".to_owned() } else { share(correct as f64 / total as f64) }
}

/// A difference of shares for people: `+0.63 %`, of all samples.
pub fn points(difference: f64) -> String {
    let text = share(difference);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

impl Figures {
    /// What `tally` amounts to by `metric`, which is called `name`.
    pub fn new(tally: &Tally, metric: &Metric, name: &MetricName) -> Figures {
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        let value = finite(metric.value(tally));
        match (tally, metric) {
            (Tally::Classes(counts), Metric::Classes { of, classes }) => {
                let parts = of.iter().map(|m| (m.name(), finite(m.value(counts, *classes))));
                let known = [ClassMetric::Accuracy, ClassMetric::Loss].map(ClassMetric::name);
                let own = parts.chain([(name.as_str(), value)]).filter(|(name, _)| !known.contains(name));
                Figures::Classes {
                    correct: counts.correct,
                    total: counts.total,
                    accuracy: ClassMetric::Accuracy.value(counts, *classes),
                    loss: finite(ClassMetric::Loss.value(counts, *classes)),
                    metric: own.filter_map(|(name, value)| Some((field(name), value?))).collect(),
                }
            }
            (Tally::Values(values), _) => Figures::Values {
                samples: tally.samples(),
                metrics: ValueMetric::ALL.map(|m| (m.name().to_owned(), finite(m.value(values)))).into(),
                value,
            },
            (Tally::Classes(counts), Metric::Values(_) | Metric::Sums { .. }) => {
                Figures::Sums { samples: counts.total, figures: BTreeMap::new(), value }
            }
            (Tally::Sums(sums), _) => Figures::Sums {
                samples: sums.samples,
                figures: sums.figures.iter().map(|(name, sum)| (name.clone(), finite(*sum))).collect(),
                value,
            },
        }
    }

    /// The run's metric, which is called `name`, where it is known and finite.
    pub fn value(&self, name: &MetricName) -> Option<f64> {
        let value = match (self, name.as_str()) {
            (Figures::Classes { .. }, "accuracy") => self.accuracy(),
            (Figures::Classes { loss, .. }, "loss") => *loss,
            (Figures::Classes { metric, .. }, name) => metric.get(&field(name)).copied(),
            (Figures::Values { value, .. } | Figures::Sums { value, .. }, _) => *value,
        };
        value.filter(|v| v.is_finite())
    }

    /// The same without the loss, of what has none.
    #[must_use]
    pub fn without_loss(mut self) -> Figures {
        if let Figures::Classes { loss, .. } = &mut self {
            *loss = None;
        }
        self
    }

    /// Samples.
    pub fn samples(&self) -> u64 {
        match self {
            Figures::Classes { total, .. } => *total,
            Figures::Values { samples, .. } | Figures::Sums { samples, .. } => *samples,
        }
    }

    /// Share of correct predictions, where there are predictions, and any samples.
    pub fn accuracy(&self) -> Option<f64> {
        match self {
            Figures::Classes { correct, total, .. } if *total > 0 => Some(*correct as f64 / *total as f64),
            _ => None,
        }
    }

    /// Whether they are of numbers that are predicted.
    pub fn of_numbers(&self) -> bool {
        matches!(self, Figures::Values { .. })
    }

    /// Mean cross-entropy in nats, where it is known and finite.
    pub fn loss(&self) -> Option<f64> {
        match self {
            Figures::Classes { loss, .. } => *loss,
            Figures::Values { .. } | Figures::Sums { .. } => None,
        }
    }

    /// The first thing to look at, for people: the share of correct predictions, else the run's metric.
    pub fn headline(&self) -> String {
        match self {
            Figures::Classes { correct, total, .. } => percent(*correct, *total),
            Figures::Values { value, .. } | Figures::Sums { value, .. } => number(*value),
        }
    }

    /// Whether they have two first things to look at: they are of a classifier, and the run's metric, which is called `name`, is not the share
    /// of correct predictions.
    pub fn has_two(&self, name: &MetricName) -> bool {
        self.accuracy().is_some() && name.as_str() != ClassMetric::Accuracy.name()
    }

    /// Both where there are two, for people: the share of correct predictions, and in parentheses the run's metric.
    pub fn headlines(&self, name: &MetricName) -> String {
        match self.has_two(name) {
            true => format!("{} ({})", self.headline(), number(self.value(name))),
            false => self.headline(),
        }
    }
}

/// How the name of a metric is spelt in JSON.
fn field(name: &str) -> String {
    name.replace('-', "_")
}

/// A metric's value for people; `-` where there is none.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), decimal)
}

/// A number for people: with four decimals, or with four digits where those would say little of it or would be many.
pub fn decimal(v: f64) -> String {
    let size = v.abs();
    let fits = size == 0.0 || !size.is_finite() || (0.001..1e12).contains(&size);
    if fits { fixed(v, 4) } else { format!("{v:.3e}") }
}

/// Two numbers for people, with all of their digits where those of [`decimal`] would not tell them apart and more than rounding does.
pub fn apart(a: f64, b: f64) -> (String, String) {
    const ROUNDING: f64 = 1e-12;
    let equal = a == b || (a - b).abs() <= ROUNDING * a.abs().max(b.abs());
    let all_digits = |v: f64| format!("{v:?}");
    match (decimal(a), decimal(b)) {
        (short, other) if equal || short != other => (short, other),
        _ => (all_digits(a), all_digits(b)),
    }
}

/// How large a probability is, for people: `= 0.0412`; never that it is none.
pub fn chance(p: f64) -> String {
    if p < 0.00005 { "< 0.0001".to_owned() } else { format!("= {}", fixed(p, 4)) }
}

/// What a report is made from.
pub struct Sources<'a> {
    /// Names of the ingredients, in pool order.
    pub ingredients: &'a [String],
    /// Names of the datasets, the validation set first.
    pub datasets: &'a [String],
    /// By what scores are compared, and what that is called.
    pub metric: (Option<&'a Metric>, &'a MetricName),
    /// All scores.
    pub ledger: &'a Ledger,
    /// The recipe's decisions.
    pub replay: &'a Replay,
    /// By which rule.
    pub accept: Accept,
    /// That of the rule which asks for significance.
    pub alpha: Option<f64>,
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
        self.ledger.score(dataset, soup).and_then(|score| self.figures_of(score))
    }

    /// What a score amounts to.
    pub fn figures_of(&self, score: &Tally) -> Option<Figures> {
        let (metric, name) = self.metric;
        metric.map(|metric| Figures::new(score, metric, name))
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

    /// Every single ingredient that was scored, and that is `told` of.
    pub fn ranking(&self, told: impl Fn(&Soup) -> bool) -> Vec<Ranked> {
        let one = |(i, name): (usize, &String)| {
            let soup = Soup::single(Ingredient(i as u32));
            let score = self.figures(Dataset::VALIDATION, &soup).filter(|_| told(&soup))?;
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
        let one = |d: &crate::recipe::Decision| {
            Some(TrialReport {
                ingredients: self.names(&d.soup),
                candidate: self.name(d.candidate),
                pass: d.pass,
                score: if d.early { None } else { Some(self.figures_of(&d.score)?) },
                evaluated: d.score.samples(),
                out_of: d.bar.samples(),
                bound: if d.early { self.metric.0?.reach(&d.score, &d.bar) } else { None },
                bar: self.metric.0?.value(&d.bar),
                verdict: d.verdict,
                compared: d.compared.map(|counts| Compared { counts, p: McNemar::of(counts).better }),
                fragile: match (d.early, self.alpha) {
                    (true, _) => None,
                    (false, None) => is_fragile(self.metric.0?, self.accept, &d.score, &d.bar),
                    (false, Some(alpha)) => {
                        d.compared.and_then(|counts| is_fragile_at(alpha, counts, &d.score, &d.bar))
                    }
                },
            })
        };
        self.replay.decisions.iter().filter_map(one).collect()
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
    use crate::metric::{Formula, SumMetric};

    #[test]
    fn the_json_names_are_stable() {
        let outcome = |label, prediction| crate::tally::Outcome { label, prediction, loss: 0.5 };
        let score = Tally::Classes([outcome(0, 0), outcome(1, 0)].iter().collect());
        let figures = |name: &str| {
            let name: MetricName = name.parse().unwrap();
            let figures = Figures::new(&score, &Metric::of_classes(&name, 2).unwrap(), &name);
            (figures.value(&name), figures)
        };
        let json = |score| {
            serde_json::to_value(Ranked { ingredient: "a".into(), score, test: BTreeMap::new() }).unwrap()
        };
        let (value, macro_f1) = figures("macro-f1");
        let expected = serde_json::json!({
            "ingredient": "a", "correct": 1, "total": 2, "accuracy": 0.5, "loss": 0.5, "macro_f1": 1.0 / 3.0,
        });
        assert_eq!((value, json(macro_f1)), (Some(1.0 / 3.0), expected));
        let (value, mean) = figures("accuracy+macro-f1");
        let expected = serde_json::json!({
            "ingredient": "a", "correct": 1, "total": 2, "accuracy": 0.5, "loss": 0.5, "macro_f1": 1.0 / 3.0,
            "accuracy+macro_f1": (0.5 + 1.0 / 3.0) / 2.0,
        });
        assert_eq!((value, json(mean)), (Some((0.5 + 1.0 / 3.0) / 2.0), expected));
    }

    #[test]
    fn numbers_for_people_say_what_they_are() {
        let shown: Vec<String> = [0.0, 0.87654, -12.0, 0.001, 0.00012344, -3e-9, 4.2e17].map(decimal).into();
        assert_eq!(shown, ["0.0000", "0.8765", "-12.0000", "0.0010", "1.234e-4", "-3.000e-9", "4.200e17"]);
        assert_eq!([f64::NAN, f64::INFINITY].map(decimal), ["NaN", "inf"]);
        let beside = |a, b| {
            let (a, b) = apart(a, b);
            format!("{a} {b}")
        };
        assert_eq!(beside(0.85, 0.86), "0.8500 0.8600");
        assert_eq!(beside(0.85, 0.85), "0.8500 0.8500");
        assert_eq!(beside(0.1 + 0.2, 0.3), "0.3000 0.3000");
        assert_eq!(beside(0.85, 0.85001), "0.85 0.85001");
        assert_eq!(beside(1.2341e-9, 1.2342e-9), "1.2341e-9 1.2342e-9");
        assert_eq!(beside(f64::NAN, f64::NAN), "NaN NaN");
        let chances = [0.0412, 0.00005, 1e-300, 0.0].map(chance);
        assert_eq!(chances, ["= 0.0412", "= 0.0001", "< 0.0001", "< 0.0001"]);
        let of = |difference, p| Comparison {
            dataset: "validation".to_owned(),
            against: Against::Uniform,
            discordant: Discordant { gains: 40, losses: 2 },
            p,
            p_better: p,
            difference: Some(difference),
            interval: Some((-difference, 2.0 * difference)),
        };
        let sentence = of(3e-5, 1e-9).sentence(false);
        assert_eq!(
            sentence,
            "40 samples gained, 2 lost, p < 0.0001, +3.000e-5 (-3.000e-5 to +6.000e-5 at 95 %)"
        );
        assert_eq!(percent(2, 320), "0.63 %");
        assert_eq!([0.625, 0.875].map(|of| points(of - 0.61875)), ["+0.63 %", "+25.63 %"]);
        assert_eq!([-0.00625, -0.00001].map(points), ["-0.63 %", "+0.00 %"]);
        let sentence = of(0.019, 0.03).sentence(true);
        assert_eq!(sentence, "40 samples gained, 2 lost, p = 0.0300, +1.90 % (-1.90 % to +3.80 % at 95 %)");
    }

    #[test]
    fn a_bar_that_is_not_finite_is_read_again() {
        let score = Figures::Sums { samples: 1, figures: BTreeMap::new(), value: None };
        for bar in [f64::NAN, f64::INFINITY, 0.5] {
            let (ingredients, candidate, verdict) = (vec!["a".to_owned()], "a".to_owned(), Verdict::Rejected);
            let trial = TrialReport {
                ingredients,
                candidate,
                pass: 1,
                score: Some(score.clone()),
                evaluated: 1,
                out_of: 1,
                bound: None,
                bar,
                verdict,
                compared: None,
                fragile: None,
            };
            let json = serde_json::to_string(&trial).unwrap();
            let read: TrialReport = serde_json::from_str(&json).unwrap();
            assert_eq!(read.bar.is_finite().then_some(read.bar), bar.is_finite().then_some(bar), "{json}");
        }
    }

    #[test]
    fn a_trial_whose_verdict_was_early_has_no_score() {
        let trial = TrialReport {
            ingredients: vec!["a".to_owned()],
            candidate: "a".to_owned(),
            pass: 1,
            score: None,
            evaluated: 320,
            out_of: 2000,
            bound: Some(0.87),
            bar: 0.875,
            verdict: Verdict::Rejected,
            compared: None,
            fragile: None,
        };
        let json = serde_json::json!({
            "ingredients": ["a"], "candidate": "a", "pass": 1, "evaluated": 320, "out_of": 2000, "bound": 0.87, "bar": 0.875,
            "verdict": "rejected",
        });
        assert_eq!(serde_json::to_value(&trial).unwrap(), json);
        assert_eq!(serde_json::from_value::<TrialReport>(json).unwrap(), trial);
    }

    #[test]
    fn figures_of_predicted_numbers_read_back_as_they_were_written() {
        let values: crate::tally::Values = [(1.0, 2.0), (2.0, 4.0), (4.0, 8.0)]
            .map(|(truth, prediction)| crate::tally::Value { truth, prediction })
            .into_iter()
            .collect();
        let name: MetricName = "glue/stsb".parse().unwrap();
        let score = Figures::new(&values.into(), &Metric::of_values(&name).unwrap(), &name);
        assert_eq!((score.value(&name), score.samples(), score.headline()), (Some(1.0), 3, "1.0000".into()));
        let ranked = Ranked { ingredient: "a".into(), score, test: BTreeMap::new() };
        let json = serde_json::json!({
            "ingredient": "a", "samples": 3, "metrics": { "mse": 7.0, "pearson": 1.0, "spearman": 1.0 }, "value": 1.0,
        });
        assert_eq!(serde_json::to_value(&ranked).unwrap(), json);
        assert_eq!(serde_json::from_value::<Ranked>(json).unwrap(), ranked);
    }

    #[test]
    fn figures_of_sums_read_back_as_they_were_written() {
        let figures = [("nll".to_owned(), 6.0), ("tokens".to_owned(), f64::INFINITY)].into();
        let tally = Tally::Sums(crate::tally::Sums { samples: 4, figures });
        let name: MetricName = "nll".parse().unwrap();
        let nll =
            SumMetric { name: "nll".into(), formula: Formula::Mean("nll".into()), lower_is_better: true };
        let score = Figures::new(&tally, &Metric::Sums { of: vec![nll], ranges: Default::default() }, &name);
        assert_eq!((score.value(&name), score.samples(), score.headline()), (Some(1.5), 4, "1.5000".into()));
        let ranked = Ranked { ingredient: "a".into(), score, test: BTreeMap::new() };
        let json = serde_json::json!({
            "ingredient": "a", "samples": 4, "figures": { "nll": 6.0, "tokens": null }, "value": 1.5,
        });
        assert_eq!(serde_json::to_value(&ranked).unwrap(), json);
        assert_eq!(serde_json::from_value::<Ranked>(json).unwrap(), ranked);
    }
}
