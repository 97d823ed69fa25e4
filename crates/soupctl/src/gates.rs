//! Gates: what a soup has to score on a dataset, or the cook ends with exit code 3. The soup is there all the same.
//!
//! `NAME>=VALUE` or `NAME<=VALUE`, where `NAME` is a dataset of the cook and its figure is the run's metric. `VALUE` is a number, a share (`85%`), or
//! what `best-single` or `uniform` scores there, with a distance in points of a hundredth (`best-single-0.2pt`).

use std::fmt;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::Error as _;
use soup_core::judge::JudgeId;
use soup_core::metric::{ClassMetric, ValueMetric};
use soup_core::report::{Against, Figures, RunReport, apart};
use soup_core::run::RunSpec;
use soup_core::{Error, ErrorKind, Result};

/// Figures and distances are rounded: what lies no further below what is to be reached, relative to the numbers that this is made of, reaches
/// it.
const ROUNDING: f64 = 1e-12;

/// One gate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gate {
    text: String,
    dataset: String,
    /// Whether the figure has to be at least the value; else at most.
    at_least: bool,
    value: Value,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Number(f64),
    /// What another soup scores, and so much.
    Other(Against, f64),
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Gate {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (at, operator) = [">=", "<="]
            .into_iter()
            .filter_map(|operator| text.find(operator).map(|at| (at, operator)))
            .min()
            .ok_or_else(|| format!("{text:?} is no gate such as test>=0.85 or test>=best-single-0.2pt"))?;
        let (dataset, value) = (text[..at].trim(), text[at + operator.len()..].trim());
        if dataset.is_empty() {
            return Err(format!("{text:?} names no dataset"));
        }
        let not_one = || {
            format!(
                "{value:?} is neither a number, a share (85%), best-single nor uniform (best-single-0.2pt)"
            )
        };
        let value = value_of(value).filter(Value::is_finite).ok_or_else(not_one)?;
        Ok(Gate { text: text.to_owned(), dataset: dataset.to_owned(), at_least: operator == ">=", value })
    }
}

fn value_of(text: &str) -> Option<Value> {
    for (name, against) in [("best-single", Against::BestSingle), ("uniform", Against::Uniform)] {
        let Some(distance) = text.strip_prefix(name) else { continue };
        let distance = distance.trim();
        if distance.is_empty() {
            return Some(Value::Other(against, 0.0));
        }
        let points = distance.strip_suffix("pt")?.trim_end();
        let signed = points.starts_with(['+', '-']);
        let (sign, number) = points.split_at_checked(1).filter(|_| signed)?;
        let points: f64 = number.trim_start().parse().ok().filter(|points| *points >= 0.0)?;
        return Some(Value::Other(against, if sign == "-" { -points / 100.0 } else { points / 100.0 }));
    }
    match text.strip_suffix('%') {
        Some(share) => share.trim_end().parse::<f64>().ok().map(|share| Value::Number(share / 100.0)),
        None => text.parse().ok().map(Value::Number),
    }
}

impl Value {
    fn is_finite(&self) -> bool {
        let (Value::Number(number) | Value::Other(_, number)) = self;
        number.is_finite()
    }

    fn is_number(&self) -> bool {
        matches!(self, Value::Number(_))
    }
}

/// Reads one gate, or a list of them.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<Gate>, D::Error> {
    let texts = crate::datasets::one_or_many(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

/// Whether gates can be asked of a cook, before it begins.
///
/// # Errors
/// [`ErrorKind::Usage`] naming the gate and what it lacks.
pub(crate) fn check_spec(gates: &[Gate], spec: &RunSpec) -> Result<()> {
    let sets: Vec<&str> = spec.reported().map(|set| set.name.as_str()).collect();
    for gate in gates {
        if !sets.contains(&gate.dataset.as_str()) {
            return Err(Error::usage(format!(
                "gate {gate} is about dataset {:?}, and the cook has {}",
                gate.dataset,
                if sets.is_empty() { "none".to_owned() } else { sets.join(", ") }
            )));
        }
        if let (Value::Number(number), Some((least, most))) = (gate.value, bounds(spec))
            && !(least..=most).contains(&number)
        {
            return Err(Error::usage(format!(
                "gate {gate} is no question: {} lies between {least} and {most}, and a share is written as 85% or 0.85",
                spec.recipe.metric
            )));
        }
        if !gate.value.is_number() && !spec.baselines {
            return Err(Error::usage(format!(
                "gate {gate} is about another soup, which is not scored: leave out --no-baselines"
            )));
        }
        // Of what more is better a limit may be meant: of a set that a soup is not to be right about.
        if let Some(lower) = lower_is_better(spec)
            && gate.at_least == lower
            && (lower || !gate.value.is_number())
        {
            let (better, operator) = if lower { ("less", "<=") } else { ("more", ">=") };
            return Err(Error::usage(format!(
                "gate {gate} is what worse soups pass, since of {} {better} is better: write {operator}",
                spec.recipe.metric
            )));
        }
    }
    Ok(())
}

/// Whether a cook is judged by the native judge.
fn is_native(spec: &RunSpec) -> bool {
    spec.judge.as_ref().is_none_or(|judge| *judge == JudgeId::native().name)
}

/// Whether less of a cook's figure is better, where that is known: all parts of one have one direction.
fn lower_is_better(spec: &RunSpec) -> Option<bool> {
    let errors = [ClassMetric::Loss.name(), ValueMetric::Mse.name()];
    is_native(spec).then(|| spec.recipe.metric.parts().any(|metric| errors.contains(&metric)))
}

/// Between what the figures of a cook lie, where that is known: those of the native judge that are shares or correlations.
fn bounds(spec: &RunSpec) -> Option<(f64, f64)> {
    let least = |metric: &str| {
        let shares =
            [ClassMetric::Accuracy, ClassMetric::MacroF1, ClassMetric::BinaryF1].map(ClassMetric::name);
        let correlations =
            [ClassMetric::Matthews.name(), ValueMetric::Pearson.name(), ValueMetric::Spearman.name()];
        match (shares.contains(&metric), correlations.contains(&metric)) {
            (true, _) => Some(0.0),
            (_, true) => Some(-1.0),
            _ => None,
        }
    };
    let least: Option<Vec<f64>> = spec.recipe.metric.parts().map(least).collect();
    least.filter(|_| is_native(spec)).map(|least| (least.into_iter().fold(0.0, f64::min), 1.0))
}

/// Whether a soup passes all gates.
///
/// # Errors
/// [`ErrorKind::Gate`] naming those that it does not pass, and why.
pub(crate) fn check(gates: &[Gate], report: &RunReport) -> Result<()> {
    let failed: Vec<String> = gates.iter().filter_map(|gate| gate.failure(report)).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Gate, format!("the soup fails: {}", failed.join("; ")))),
    }
}

impl Gate {
    /// Why a soup does not pass, if it does not. What has no value passes nothing.
    fn failure(&self, report: &RunReport) -> Option<String> {
        let metric = &report.options.metric;
        let on = |score: Option<&Figures>, test: &std::collections::BTreeMap<String, Figures>| {
            let figures = if self.dataset == report.validation { score } else { test.get(&self.dataset) };
            figures.and_then(|figures| figures.value(metric))
        };
        let of_other = |against: Against| {
            let other = match against {
                Against::BestSingle => &report.baselines.best_single,
                Against::Uniform => &report.baselines.uniform,
            };
            other.as_ref().and_then(|other| on(Some(&other.score), &other.test))
        };
        let soup = on(report.score.as_ref(), &report.test);
        let parts = match self.value {
            Value::Number(number) => Some((number, 0.0)),
            Value::Other(against, distance) => of_other(against).map(|value| (value, distance)),
        };
        let (Some(soup), Some((value, distance))) = (soup, parts) else {
            return Some(format!("{self}, of which there is no figure"));
        };
        let wanted = value + distance;
        let beyond = if self.at_least { soup - wanted } else { wanted - soup };
        let largest = soup.abs().max(value.abs()).max(distance.abs());
        let passes = beyond >= -ROUNDING * largest;
        (!passes).then(|| {
            let (soup, wanted) = apart(soup, wanted);
            format!("{self}: {metric} is {soup}, and {wanted} was to be reached")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_numbers_shares_or_other_soups() {
        let value = |text: &str| text.parse::<Gate>().unwrap().value;
        assert_eq!(value("test>=0.85"), Value::Number(0.85));
        assert_eq!(value("a test >= 85 %"), Value::Number(0.85));
        assert_eq!(value("t<=-1e-3"), Value::Number(-0.001));
        assert_eq!(value("t>=best-single"), Value::Other(Against::BestSingle, 0.0));
        assert_eq!(value("t>=best-single-0.2pt"), Value::Other(Against::BestSingle, -0.002));
        assert_eq!(value("t>=uniform + 1 pt"), Value::Other(Against::Uniform, 0.01));
        for bad in [
            "",
            "test",
            "test>0.8",
            ">=0.8",
            "t>=",
            "t>=x",
            "t>=best-single0.2pt",
            "t>=uniform-1",
            "t>=nan",
            "t>=uniform--1pt",
        ] {
            assert!(bad.parse::<Gate>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn gates_that_worse_soups_pass_are_refused() {
        let asked = |metric: &str| -> RunSpec {
            serde_json::from_value(serde_json::json!({
                "pool": ["/p"], "recipe": {
                    "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null,
                    "passes": 1, "metric": metric
                },
                "validation": { "name": "v", "url": "/v" }, "tests": [], "output": "/o", "overwrite": false,
                "batch_size": 1, "allow_nan": false, "baselines": true, "workers_min": 1,
                "model_config": null, "preprocessor_config": null
            }))
            .unwrap()
        };
        let outcome = |gate: &str, metric: &str| {
            check_spec(&[gate.parse().unwrap()], &asked(metric)).map_err(|e| e.chain())
        };
        for (gate, metric, operator) in [
            ("v>=best-single-0.2pt", "loss", "<="),
            ("v>=0.5", "mse", "<="),
            ("v<=uniform", "accuracy", ">="),
            ("v<=best-single", "pearson+spearman", ">="),
        ] {
            let error = outcome(gate, metric).unwrap_err();
            assert!(error.contains(gate) && error.contains(&format!("write {operator}")), "{error}");
        }
        for (gate, metric) in [
            ("v<=best-single+0.2pt", "loss"),
            ("v<=0.5", "mse"),
            ("v>=uniform", "matthews"),
            ("v<=0.5", "accuracy"),
        ] {
            assert_eq!(outcome(gate, metric), Ok(()), "{gate} {metric}");
        }
        // What another judge calls so is its own affair.
        let other = RunSpec { judge: Some("lm".to_owned()), ..asked("loss") };
        assert!(check_spec(&["v>=1".parse().unwrap()], &other).is_ok());
    }

    fn report() -> RunReport {
        let figures = |correct: u64| {
            let accuracy = correct as f64 / 1000.0;
            serde_json::json!({ "correct": correct, "total": 1000, "accuracy": accuracy, "loss": 0.5 })
        };
        let baseline = |validation, test| {
            let mut baseline = figures(validation);
            baseline["ingredients"] = serde_json::json!(["a"]);
            baseline["test"] = serde_json::json!({ "test": figures(test) });
            baseline
        };
        serde_json::from_value(serde_json::json!({
            "run": "r", "recipe": "greedy", "options": {
                "kind": "greedy", "order": "sorted", "accept": "at-least", "seed": 0, "max_ingredients": null, "passes": 1,
                "metric": "accuracy"
            },
            "ingredients": ["a"], "weights": {}, "score": figures(870), "test": { "test": figures(850) },
            "baselines": { "best_single": baseline(860, 852), "uniform": baseline(820, 810) },
            "ranking": [], "order": [], "trials": [], "validation": "validation", "output": "/o", "sha256": "", "notes": [],
            "seconds": {}
        }))
        .unwrap()
    }

    #[test]
    fn small_figures_are_not_taken_for_rounding() {
        let mut report = report();
        report.options.metric = "loss".parse().unwrap();
        if let Some(Figures::Classes { loss, .. }) = report.test.get_mut("test") {
            *loss = Some(9e-10);
        }
        let outcome = |gate: &str| check(&[gate.parse().unwrap()], &report);
        assert!(outcome("test<=9e-10").is_ok());
        let error = outcome("test<=1e-10").unwrap_err().chain();
        assert!(error.contains("loss is 9.000e-10, and 1.000e-10 was to be reached"), "{error}");
    }

    #[test]
    fn a_soup_passes_or_fails_by_its_figures() {
        let report = report();
        let outcome = |gate: &str| check(&[gate.parse().unwrap()], &report);
        for passed in [
            "validation>=87%",
            "test>=0.85",
            "test<=0.85",
            "test>=best-single-0.2pt",
            "test>=uniform+4pt",
            "validation>=best-single",
        ] {
            assert!(outcome(passed).is_ok(), "{passed}");
        }
        for failed in
            ["validation>=0.8701", "test>=best-single", "test>=best-single-0.1pt", "test<=84%", "other>=0"]
        {
            assert_eq!(outcome(failed).unwrap_err().kind(), ErrorKind::Gate, "{failed}");
        }
        let error = outcome("test>=0.85001").unwrap_err().chain();
        assert!(error.contains("accuracy is 0.85, and 0.85001 was to be reached"), "{error}");
        let both: Vec<Gate> = ["test>=0.9", "validation>=0.9"].map(|g| g.parse().unwrap()).into();
        let error = check(&both, &report).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
        assert!(
            error.chain().contains("test>=0.9: accuracy is 0.8500, and 0.9000 was to be reached; validation")
        );
    }
}
