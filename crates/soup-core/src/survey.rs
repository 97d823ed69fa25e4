//! What a judge says of a run before it holds a parameter: how many samples there are, what it tells of them, and what it can do.
//!
//! What a recipe, a metric or a diagnosis needs and the judge lacks is found here, by the machine before it has a shard loaded and by
//! `soupctl plan` alike; and what workers answer later is checked against it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::judge::JudgeId;
use crate::ledger::Dataset;
use crate::metric::{ClassMetric, Metric, MetricName, Ranges, SumMetric, check_word};
use crate::recipe::learned::LearnSpec;
use crate::recipe::{RecipeKind, RecipeSpec};
use crate::tally::values::VALUES_MAX;
use crate::tally::{Counts, Judged, Tally};

/// Most samples of a dataset: slices of it are asked for by their positions, which are lists.
pub(crate) const SAMPLES_MAX: u64 = 1 << 31;
/// Most samples of a set that is learned from: every step draws among all of them, which takes a moment and eight bytes for each.
const LEARNED_MAX: u64 = 1 << 24;
/// Most classes of a model.
const CLASSES_MAX: u32 = 1 << 24;
/// Most figures, and most metrics, of one judge.
const FIGURES_MAX: usize = 64;

/// What a judge can do besides telling what samples add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ability {
    /// The logits of samples.
    Logits,
    /// The gradient of a loss with respect to the parameters.
    Gradients,
    /// Running statistics of normalisation layers, computed anew for a soup.
    Statistics,
}

impl Ability {
    /// All of them.
    pub const ALL: [Ability; 3] = [Ability::Logits, Ability::Gradients, Ability::Statistics];

    /// Those of the native judge.
    pub const NATIVE: [Ability; 2] = [Ability::Logits, Ability::Gradients];

    /// The name in messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Ability::Logits => "logits",
            Ability::Gradients => "gradients",
            Ability::Statistics => "statistics",
        }
    }

    /// Those of these names that this program knows. What it does not know it does not ask for.
    pub fn known(names: &[String]) -> BTreeSet<Ability> {
        Self::ALL.into_iter().filter(|ability| names.iter().any(|name| name == ability.name())).collect()
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which tallies a judge gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tallies {
    /// Counts of a classifier.
    Classes {
        /// Its classes.
        classes: u32,
    },
    /// Values: numbers that are predicted.
    Values {
        /// How many of each sample: one.
        values: u32,
    },
    /// Sums of figures.
    Sums {
        /// The figures.
        figures: BTreeSet<String>,
        /// What it promises of some of them.
        #[serde(default, skip_serializing_if = "Ranges::is_empty")]
        ranges: Ranges,
        /// What is made of them.
        metrics: Vec<SumMetric>,
    },
}

/// What a judge says of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Samples of every dataset, the validation set first.
    pub samples: Vec<u64>,
    /// What it tells of them.
    #[serde(flatten)]
    pub tallies: Tallies,
    /// What else it can do.
    #[serde(default = "native_abilities")]
    pub abilities: BTreeSet<Ability>,
}

/// Of records from before judges said so: there was the native one.
fn native_abilities() -> BTreeSet<Ability> {
    Ability::NATIVE.into()
}

/// What a run asks of its judge.
#[derive(Clone, Copy, Debug)]
pub struct Demands<'a> {
    /// Who is asked.
    pub judge: &'a JudgeId,
    /// Datasets, the validation set included.
    pub datasets: usize,
    /// The recipe.
    pub recipe: &'a RecipeSpec,
    /// Whether a full diagnosis is wanted.
    pub full_diagnosis: bool,
    /// Whether running statistics are to be recomputed.
    pub recompute: bool,
    /// Whether the last class is that of answers that are no label, and no class of the model.
    pub answers: bool,
    /// The set that is learned from.
    pub train: Option<Dataset>,
}

/// Of no samples.
impl Default for Survey {
    fn default() -> Survey {
        Survey::of_classes(Vec::new(), 0)
    }
}

impl Survey {
    /// Of a classifier that can do what the native judge can.
    pub fn of_classes(samples: Vec<u64>, classes: u32) -> Survey {
        Survey { samples, tallies: Tallies::Classes { classes }, abilities: native_abilities() }
    }

    /// Of a model that predicts a number: the squared error has a gradient, and there are no logits.
    pub fn of_values(samples: Vec<u64>) -> Survey {
        Survey { samples, tallies: Tallies::Values { values: 1 }, abilities: [Ability::Gradients].into() }
    }

    /// Whether this answers what was asked, and what the judge can do is enough. Gives the metric by which soups are compared.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) for a dataset without samples, [`Usage`](crate::ErrorKind::Usage) naming what is wanted and
    /// what is lacking, [`Internal`](crate::ErrorKind::Internal) where the judge contradicts itself.
    pub fn check(&self, demands: &Demands<'_>) -> Result<Metric> {
        if self.samples.len() != demands.datasets || self.samples.contains(&0) {
            return Err(Error::data(format!(
                "a survey found datasets of {:?} samples; {} are wanted, each with at least one",
                self.samples, demands.datasets
            )));
        }
        if let Some(many) = self.samples.iter().find(|&&n| n > SAMPLES_MAX) {
            return Err(Error::data(format!(
                "a survey found a dataset of {many} samples; at most {SAMPLES_MAX} are possible: use a part of it (limit)"
            )));
        }
        let kept = self.samples.iter().find(|&&n| n > VALUES_MAX);
        if let (Tallies::Values { .. }, Some(many)) = (&self.tallies, kept) {
            return Err(Error::data(format!(
                "a survey found a dataset of {many} samples of which numbers are predicted, and every score keeps them: at most \
                 {VALUES_MAX} are possible: use a part of it (limit)"
            )));
        }
        let train = demands.train.and_then(|set| self.samples.get(set.0 as usize));
        if let Some(many) = train.filter(|&&n| n > LEARNED_MAX) {
            return Err(Error::data(format!(
                "a survey found {many} samples to learn from; at most {LEARNED_MAX} are possible: use a part of them (limit)"
            )));
        }
        self.check_tallies().map_err(|e| e.context(format!("judge {}", demands.judge)))?;
        let needs = |what: &str, ability: Ability| match self.abilities.contains(&ability) {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "{what} needs {ability}, which judge {} does not give in {}",
                demands.judge.name, demands.judge.numerics
            ))),
        };
        if demands.recipe.kind == RecipeKind::Learned {
            needs("the learned recipe", Ability::Gradients)?;
            demands.recipe.learn.as_ref().map_or(Ok(()), |learn| self.check_learning(learn))?;
        }
        if demands.recompute {
            needs("--batch-norm recompute", Ability::Statistics)?;
        }
        if demands.recipe.compares_samples() && !matches!(self.tallies, Tallies::Classes { .. }) {
            return Err(Error::usage(format!(
                "accept significant compares classifiers, and judge {} tells of no classes",
                demands.judge.name
            )));
        }
        if demands.full_diagnosis {
            needs("a full diagnosis", Ability::Logits)?;
            if !matches!(self.tallies, Tallies::Classes { .. }) {
                return Err(Error::usage(format!(
                    "a full diagnosis compares classifiers, and judge {} tells of no classes",
                    demands.judge.name
                )));
            }
        }
        let metric = self.metric(&demands.recipe.metric);
        let metric = metric.map_err(|e| e.context(format!("judge {}", demands.judge.name)))?;
        check_of_two(&metric, demands.answers)?;
        Ok(metric)
    }

    /// Whether what is asked of learning means anything of what is told.
    fn check_learning(&self, learn: &LearnSpec) -> Result<()> {
        let classes = |option: &str, what: &str| {
            Err(Error::usage(format!("{option} {what}, and the model predicts a number: leave it out")))
        };
        match &self.tallies {
            Tallies::Values { .. } if learn.label_smoothing != 0.0 => {
                classes("--label-smoothing", "spreads labels over classes")
            }
            Tallies::Values { .. } if learn.fold_beta => {
                classes("--fold-beta", "folds a temperature of logits into a classifier")
            }
            _ => Ok(()),
        }
    }

    /// The metric of this name.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage), naming what there is.
    pub fn metric(&self, name: &MetricName) -> Result<Metric> {
        match &self.tallies {
            Tallies::Classes { classes } => Metric::of_classes(name, *classes),
            Tallies::Values { .. } => Metric::of_values(name),
            Tallies::Sums { metrics, ranges, .. } => Metric::of_sums(name, metrics, ranges),
        }
    }

    /// Whether figures and metrics are what they can be.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) saying what is wrong.
    pub fn check_tallies(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::internal(format!("it says that it gives {why}")));
        let Tallies::Sums { figures, ranges, metrics } = &self.tallies else {
            return match self.tallies {
                Tallies::Classes { classes: 0 } => wrong("counts of no classes".to_owned()),
                Tallies::Classes { classes } if classes > CLASSES_MAX => {
                    wrong(format!("counts of {classes} classes; at most {CLASSES_MAX} are possible"))
                }
                Tallies::Values { values } if values != 1 => {
                    wrong(format!("{values} numbers of each sample; one is possible"))
                }
                _ => Ok(()),
            };
        };
        if figures.is_empty() || figures.len() > FIGURES_MAX || metrics.len() > FIGURES_MAX {
            return wrong(format!(
                "{} figures and {} metrics; 1 to {FIGURES_MAX} are possible",
                figures.len(),
                metrics.len()
            ));
        }
        let mut names = BTreeSet::new();
        for name in figures.iter().chain(metrics.iter().map(|m| &m.name)) {
            if let Err(why) = check_word(name) {
                // It may be of any length.
                let begins: String = name.chars().take(64).collect();
                return wrong(format!("{begins:?}, which {why}"));
            }
        }
        for (figure, range) in ranges {
            if !figures.contains(figure) {
                let begins: String = figure.chars().take(64).collect();
                return wrong(format!("a range of {begins:?}, which is none of its figures"));
            }
            if !range.is_one() {
                let (least, most) = (range.least.unwrap_or(f64::MIN), range.most.unwrap_or(f64::MAX));
                return wrong(format!("{figure:?} from {least} to {most}"));
            }
        }
        for metric in metrics {
            if !names.insert(&metric.name) {
                return wrong(format!("metric {:?} twice", metric.name));
            }
            if let Some(other) = metric.formula.figures().find(|f| !figures.contains(*f)) {
                return wrong(format!("metric {:?} of {other:?}, which is none of its figures", metric.name));
            }
        }
        Ok(())
    }

    /// Whether `judged` can be what such a judge says of `samples` samples.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) saying what is wrong.
    pub fn fits(&self, judged: &Judged, samples: u64) -> Result<()> {
        let wrong = |what: String| Err(Error::internal(format!("a worker returned {what}")));
        let got = judged.samples();
        if got != samples {
            return wrong(format!("what happened to {got} samples, for {samples}"));
        }
        match (&self.tallies, judged) {
            (Tallies::Classes { classes }, Judged::Outcomes(outcomes)) => {
                match outcomes.iter().find(|o| o.label >= *classes || o.prediction >= *classes) {
                    Some(o) => wrong(format!(
                        "label {} and prediction {} of a model with {classes} classes",
                        o.label, o.prediction
                    )),
                    // That they are not is what verdicts on some of the samples go by.
                    None => match outcomes.iter().find(|o| o.loss < 0.0) {
                        Some(o) => wrong(format!("a loss of {}: a cross-entropy is not negative", o.loss)),
                        None => Ok(()),
                    },
                }
            }
            (Tallies::Classes { classes }, Judged::Tally(Tally::Classes(counts))) => {
                match adds_up(counts, *classes) {
                    true => Ok(()),
                    false => wrong("counts that do not add up".to_owned()),
                }
            }
            (Tallies::Values { .. }, Judged::Tally(Tally::Values(values))) => {
                match values.samples().iter().find(|value| !value.truth.is_finite()) {
                    Some(value) => wrong(format!("a true number of {}", value.truth)),
                    None => Ok(()),
                }
            }
            (Tallies::Sums { figures, ranges, .. }, Judged::Tally(Tally::Sums(sums))) => {
                if !sums.figures.keys().eq(figures) {
                    return wrong(format!("{} figures that are not {figures:?}", sums.figures.len()));
                }
                // Verdicts on some of the samples go by what was promised.
                let promised =
                    sums.figures.iter().filter_map(|(name, sum)| Some((name, sum, ranges.get(name)?)));
                match promised.into_iter().find(|(_, sum, range)| !range.holds(**sum, samples)) {
                    None => Ok(()),
                    Some((name, sum, _)) => wrong(format!(
                        "{name} of {sum} over {samples} samples, which is not in the range that its judge told"
                    )),
                }
            }
            _ => wrong("another kind of tally than the survey told".to_owned()),
        }
    }
}

/// Refuses figures of two classes where there are others. `answers`: the last one is no class of the model.
fn check_of_two(metric: &Metric, answers: bool) -> Result<()> {
    let Metric::Classes { of, classes } = metric else { return Ok(()) };
    let own = classes.saturating_sub(u32::from(answers));
    match of.contains(&ClassMetric::BinaryF1) && own != 2 {
        true => Err(Error::usage(format!(
            "metric binary-f1 is the F1 of class 1 of two, and the model has {own}: take macro-f1, or another metric"
        ))),
        false => Ok(()),
    }
}

/// Whether the pairs of labels and predictions are those of so many samples and hits.
fn adds_up(counts: &Counts, classes: u32) -> bool {
    let sum = |of: &dyn Fn(&(u32, u32)) -> bool| {
        let pairs = counts.confusion.iter().filter(|(pair, _)| of(pair));
        pairs.map(|(_, n)| *n).try_fold(0u64, u64::checked_add)
    };
    let known = counts.confusion.keys().all(|(label, prediction)| label.max(prediction) < &classes);
    known && sum(&|_| true) == Some(counts.total) && sum(&|(l, p)| l == p) == Some(counts.correct)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::metric::{Formula, Range};
    use crate::recipe::{Accept, Order};
    use crate::tally::{Outcome, Sums, Value};

    fn language_model() -> Survey {
        let of = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let (nll, tokens) = of("nll", "tokens");
        let metric =
            |name: &str, formula, lower_is_better| SumMetric { name: name.into(), formula, lower_is_better };
        Survey {
            samples: vec![10],
            tallies: Tallies::Sums {
                figures: [nll.clone(), tokens.clone()].into(),
                ranges: [(nll.clone(), Range { least: Some(0.0), ..Range::default() })].into(),
                metrics: vec![
                    metric("perplexity", Formula::ExpRatio(nll.clone(), tokens.clone()), true),
                    metric("nll", Formula::Mean(nll), true),
                    metric("length", Formula::Mean(tokens), false),
                ],
            },
            abilities: BTreeSet::new(),
        }
    }

    fn recipe(kind: RecipeKind, metric: &str, learn: Option<LearnSpec>) -> RecipeSpec {
        RecipeSpec {
            kind,
            order: Order::Sorted,
            accept: Accept::AtLeast,
            alpha: None,
            seed: 0,
            max_ingredients: None,
            passes: 1,
            metric: metric.parse().unwrap(),
            learn,
        }
    }

    /// Of one dataset, and nothing besides.
    fn asked<'a>(judge: &'a JudgeId, recipe: &'a RecipeSpec) -> Demands<'a> {
        Demands {
            judge,
            datasets: 1,
            recipe,
            full_diagnosis: false,
            recompute: false,
            answers: false,
            train: None,
        }
    }

    #[track_caller]
    fn refused(survey: &Survey, kind: RecipeKind, metric: &str, full_diagnosis: bool, expected: &str) {
        let (judge, recipe) =
            (JudgeId { name: "lm".into(), ..JudgeId::native() }, recipe(kind, metric, None));
        let demands = Demands { full_diagnosis, ..asked(&judge, &recipe) };
        let error = survey.check(&demands).unwrap_err();
        assert!(error.chain().contains(expected), "{}", error.chain());
    }

    #[test]
    fn what_the_judge_cannot_do_is_refused_by_name() {
        let lm = language_model();
        let greedy = RecipeKind::Greedy;
        refused(
            &lm,
            RecipeKind::Learned,
            "nll",
            false,
            "the learned recipe needs gradients, which judge lm does not give",
        );
        refused(&lm, greedy, "nll", true, "a full diagnosis needs logits, which judge lm does not give");
        let with_logits = Survey { abilities: [Ability::Logits].into(), ..lm.clone() };
        refused(&with_logits, greedy, "nll", true, "judge lm tells of no classes");
        refused(
            &lm,
            greedy,
            "accuracy",
            false,
            "there is no metric \"accuracy\", there are perplexity, nll, length",
        );
        refused(&lm, greedy, "nll+length", false, "better when it is high");
        let classes = Survey::of_classes(vec![10], 2);
        refused(
            &classes,
            greedy,
            "perplexity",
            false,
            "there are accuracy, macro-f1, binary-f1, matthews, loss",
        );
        refused(&classes, greedy, "accuracy+loss", false, "better when it is low");
        refused(&Survey { samples: vec![], ..classes.clone() }, greedy, "loss", false, "1 are wanted");
        refused(&Survey { samples: vec![0], ..classes.clone() }, greedy, "loss", false, "at least one");
        let values = Survey::of_values(vec![VALUES_MAX]);
        refused(&values, greedy, "accuracy", false, "there are pearson, spearman, mse");
        refused(&values, greedy, "mse", true, "a full diagnosis needs logits");
        let many = Survey::of_values(vec![VALUES_MAX + 1]);
        refused(&many, greedy, "mse", false, "65537 samples of which numbers are predicted");
        let endless = Survey { samples: vec![u64::MAX], ..classes };
        refused(&endless, greedy, "loss", false, "18446744073709551615 samples; at most 2147483648");
    }

    #[test]
    fn a_figure_of_two_classes_is_refused_where_there_are_others() {
        let check = |name: &str, classes, answers| {
            let metric = Metric::of_classes(&name.parse().unwrap(), classes).unwrap();
            check_of_two(&metric, answers).map_err(|e| (e.kind(), e.chain()))
        };
        check("binary-f1", 2, false).unwrap();
        check("glue/mrpc", 3, true).unwrap();
        check("macro-f1+matthews", 10, false).unwrap();
        for (name, classes, answers) in [
            ("binary-f1", 10, false),
            ("glue/qqp", 3, false),
            ("binary-f1", 2, true),
            ("binary-f1", 1, false),
        ] {
            let (kind, text) = check(name, classes, answers).unwrap_err();
            let own = classes - u32::from(answers);
            assert_eq!(kind, ErrorKind::Usage);
            assert!(text.contains(&format!("class 1 of two, and the model has {own}")), "{text}");
        }
        let ten = Survey::of_classes(vec![10], 10);
        refused(&ten, RecipeKind::Greedy, "accuracy+binary-f1", false, "the model has 10");
    }

    /// Of a model that predicts a number, weights are learned, and nothing that is about classes.
    #[test]
    fn learning_from_numbers_takes_no_options_of_classes() {
        let (judge, survey) = (JudgeId::native(), Survey::of_values(vec![10, 10]));
        let check = |learn: LearnSpec| {
            let recipe = recipe(RecipeKind::Learned, "mse", Some(learn));
            let demands = Demands { datasets: 2, train: Some(Dataset(1)), ..asked(&judge, &recipe) };
            survey.check(&demands).map(drop).map_err(|e| e.chain())
        };
        check(LearnSpec::default()).unwrap();
        let smoothed = check(LearnSpec { label_smoothing: 0.1, ..LearnSpec::default() }).unwrap_err();
        assert!(smoothed.contains("--label-smoothing spreads labels over classes"), "{smoothed}");
        let folded = check(LearnSpec { fold_beta: true, ..LearnSpec::default() }).unwrap_err();
        assert!(folded.contains("--fold-beta folds a temperature"), "{folded}");
    }

    /// Half of what a small file claims to have: each step would draw among them.
    #[test]
    fn what_is_learned_from_is_no_more_than_can_be_drawn_among() {
        let judge = JudgeId::native();
        let recipe = recipe(RecipeKind::Learned, MetricName::default().as_str(), Some(LearnSpec::default()));
        let check = |samples: Vec<u64>, train| {
            let demands = Demands { datasets: 2, train, ..asked(&judge, &recipe) };
            Survey::of_classes(samples, 10).check(&demands).map_err(|e| e.chain())
        };
        let train = Some(Dataset(1));
        check(vec![1 << 31, LEARNED_MAX], train).unwrap();
        let error = check(vec![10, LEARNED_MAX + 1], train).unwrap_err();
        assert!(error.contains("16777217 samples to learn from; at most 16777216"), "{error}");
    }

    #[test]
    fn a_judge_that_contradicts_itself_is_refused() {
        let with = |change: &dyn Fn(&mut BTreeSet<String>, &mut Vec<SumMetric>)| {
            let mut survey = language_model();
            if let Tallies::Sums { figures, metrics, .. } = &mut survey.tallies {
                change(figures, metrics);
            }
            survey
        };
        let two = Survey { tallies: Tallies::Values { values: 2 }, ..Survey::of_values(vec![10]) };
        let cases: [(Survey, &str); 8] = [
            (two, "2 numbers of each sample"),
            (with(&|figures, _| figures.clear()), "0 figures"),
            (
                with(&|figures, _| {
                    figures.remove("tokens");
                }),
                "\"tokens\", which is none of its figures",
            ),
            (with(&|_, metrics| metrics.push(metrics[0].clone())), "\"perplexity\" twice"),
            (with(&|_, metrics| metrics[0].name = "a b".into()), "has other characters"),
            (
                with(&|figures, _| {
                    figures.insert("x".repeat(65));
                }),
                "more than 64 characters",
            ),
            (Survey::of_classes(vec![10], 0), "no classes"),
            (Survey::of_classes(vec![10], u32::MAX), "at most 16777216"),
        ];
        for (survey, expected) in cases {
            refused(&survey, RecipeKind::Greedy, "nll", false, expected);
        }
    }

    #[test]
    fn records_of_classifiers_are_as_they_were() {
        let survey = Survey::of_classes(vec![7, 3], 10);
        let json =
            serde_json::json!({ "samples": [7, 3], "classes": 10, "abilities": ["logits", "gradients"] });
        assert_eq!(serde_json::to_value(&survey).unwrap(), json);
        let before = serde_json::json!({ "samples": [7, 3], "classes": 10 });
        assert_eq!(serde_json::from_value::<Survey>(before).unwrap(), survey);
        let lm = serde_json::to_value(language_model()).unwrap();
        assert_eq!(serde_json::from_value::<Survey>(lm).unwrap(), language_model());
    }

    #[test]
    fn answers_are_checked_against_the_survey() {
        let classes = Survey::of_classes(vec![2], 3);
        let outcome = |label, prediction| Outcome { label, prediction, loss: 0.5 };
        let good = Judged::Outcomes(vec![outcome(0, 2), outcome(2, 2)]);
        let tally = Judged::Tally(good.tally());
        let sums = |names: &[&str], samples| {
            let figures = names.iter().map(|n| ((*n).to_owned(), f64::NAN)).collect();
            Judged::Tally(Sums { samples, figures }.into())
        };
        assert!(classes.fits(&good, 2).is_ok() && classes.fits(&tally, 2).is_ok());
        assert!(language_model().fits(&sums(&["nll", "tokens"], 2), 2).is_ok(), "NaN is an answer");
        let counts = |change: &dyn Fn(&mut Counts)| {
            let mut counts = good.tally().counts().unwrap().clone();
            change(&mut counts);
            Judged::Tally(counts.into())
        };
        let numbers = Survey::of_values(vec![2]);
        let values = |truths: &[f64]| {
            let value = |&truth: &f64| Value { truth, prediction: f64::NAN };
            Judged::Tally(truths.iter().map(value).collect::<crate::tally::Values>().into())
        };
        assert!(numbers.fits(&values(&[1.0, -2.5]), 2).is_ok(), "NaN is a prediction");
        let wrong = [
            (&classes, Judged::Outcomes(vec![outcome(0, 0)]), "1 samples, for 2"),
            (&classes, Judged::Outcomes(vec![outcome(0, 0), outcome(3, 0)]), "label 3"),
            (&classes, Judged::Outcomes(vec![outcome(0, 0), outcome(0, 3)]), "prediction 3"),
            (&classes, counts(&|c| c.correct = 2), "do not add up"),
            (
                &classes,
                counts(&|c| {
                    c.confusion.insert((1, 1), u64::MAX);
                }),
                "do not add up",
            ),
            (
                &classes,
                counts(&|c| {
                    c.confusion.insert((1, 7), 0);
                }),
                "do not add up",
            ),
            (&classes, sums(&["nll", "tokens"], 2), "another kind"),
            (&language_model(), sums(&["nll"], 2), "figures"),
            (&language_model(), good.clone(), "another kind"),
            (&numbers, good.clone(), "another kind"),
            (&classes, values(&[1.0, 2.0]), "another kind"),
            (&numbers, values(&[1.0]), "1 samples, for 2"),
            (&numbers, values(&[1.0, f64::INFINITY]), "a true number of inf"),
        ];
        for (survey, judged, expected) in wrong {
            let error = survey.fits(&judged, 2).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.chain().contains(expected), "{}", error.chain());
        }
    }
}
