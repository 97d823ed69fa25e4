//! Tests and intervals against scipy, statsmodels and plain resampling in Python: `tests/reference/significance.py` wrote the file.
#![allow(clippy::unwrap_used)] // a panic is how a test fails

use serde_json::Value;
use soup_core::metric::Metric;
use soup_core::significance::{Bootstrap, Discordant, McNemar};
use soup_core::tally::Outcome;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/significance.json");

fn golden() -> Value {
    serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap()
}

fn outcomes(golden: &Value, model: &str) -> Vec<Outcome> {
    let columns = &golden["outcomes"];
    let column = |name: &str| columns[name].as_array().unwrap().iter();
    let classes = column("labels").zip(column(model));
    let losses = column(&format!("{model}_losses")).map(|loss| loss.as_f64().unwrap());
    let class = |v: &Value| v.as_u64().unwrap() as u32;
    classes
        .zip(losses)
        .map(|((l, p), loss)| Outcome { label: class(l), prediction: class(p), loss })
        .collect()
}

#[test]
fn the_exact_test_is_scipys() {
    for case in golden()["mcnemar"].as_array().unwrap() {
        let count = |name: &str| case[name].as_u64().unwrap();
        let found = McNemar::of(Discordant { gains: count("gains"), losses: count("losses") });
        for (got, name) in [(found.two_sided, "two_sided"), (found.better, "better")] {
            let expected = case[name].as_f64().unwrap();
            assert!((got - expected).abs() <= 1e-10 * expected, "{name} of {case}: {got}");
        }
    }
}

#[test]
fn soups_of_the_example_pool_are_better_by_the_references_test() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/pools/vit-fashion/reference.json");
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in reference["mcnemar_vs_best_individual_on_test"].as_object().unwrap().values() {
        let count = |name: &str| case[name].as_u64().unwrap();
        let counts = Discordant {
            gains: count("test_soup_right_best_wrong"),
            losses: count("test_soup_wrong_best_right"),
        };
        let (got, expected) = (McNemar::of(counts).two_sided, case["exact_mcnemar_p"].as_f64().unwrap());
        assert!((got - expected).abs() < 1e-12, "{got} of {case}");
    }
}

#[test]
fn intervals_are_those_of_plain_resampling() {
    let golden = golden();
    let [candidate, reference] = ["candidate", "reference"].map(|model| outcomes(&golden, model));
    let number = |name: &str| golden[name].as_u64().unwrap();
    let bootstrap =
        Bootstrap { resamples: number("resamples") as u32, seed: number("seed"), ..Bootstrap::default() };
    for case in golden["intervals"].as_array().unwrap() {
        let name = case["metric"].as_str().unwrap().parse().unwrap();
        let metric = Metric::of_classes(&name, number("classes") as u32).unwrap();
        let found = bootstrap.interval(&metric, &candidate, &reference).unwrap();
        let ends = [(found.difference, "difference"), (found.low, "low"), (found.high, "high")];
        for (got, end) in ends {
            assert!((got - case[end].as_f64().unwrap()).abs() < 1e-12, "{end} of {case}: {got}");
        }
    }
}

/// What an interval costs: `cargo test --release -p soup-core --test significance -- --ignored --nocapture`.
#[test]
#[ignore = "takes seconds, and says how many"]
#[allow(clippy::print_stdout)] // that is what it is for
fn intervals_of_many_samples() {
    let outcome = |i: u32, apart: u32| {
        let label = i % 1000;
        let prediction = if i % 5 == apart { (label + 1 + i % 7) % 1000 } else { label };
        Outcome { label, prediction, loss: f64::from(i % 13) }
    };
    let [candidate, reference] =
        [0, 1].map(|apart| (0..50_000).map(|i| outcome(i, apart)).collect::<Vec<_>>());
    for name in ["accuracy", "macro-f1", "matthews", "loss"] {
        let metric = Metric::of_classes(&name.parse().unwrap(), 1000).unwrap();
        let began = std::time::Instant::now();
        let found = Bootstrap::default().interval(&metric, &candidate, &reference).unwrap();
        println!("{name}: {found:?} in {:?}", began.elapsed());
    }
}
