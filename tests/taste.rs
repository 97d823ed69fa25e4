//! What is found out about pools, against numpy and PyTorch (see the pools' READMEs): fine-tunings of one model, and networks
//! trained from scratch, which averaging destroys.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use serde_json::Value;
use soup_tests::{Output, Pool, Soupctl, example, example_json, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

fn call(dir: &Path, args: &[&str]) -> Output {
    Soupctl::new(SOUPCTL).dir(dir).args(args).args(["-o", "json", "--output", "out"]).run()
}

fn scratch() -> String {
    example().parent().unwrap().join("scratch").display().to_string()
}

#[test]
fn angles_from_the_base_are_those_of_numpy() {
    let dir = TempDir::new().unwrap();
    let base = example().join("theta0.safetensors").display().to_string();
    let pool = example().display().to_string();
    let args =
        ["taste", &pool, "--base", &base, "--diagnose", "geometry", "--recipe", "uniform", "--no-baselines"];
    let result = call(dir.path(), &args).json();
    let reference = &example_json("reference.json")["angles_deg"];
    let geometry = &result["diagnosis"]["geometry"];
    let numbers = |v: &Value| v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    // Both sum in f64; the reference is rounded to so many digits.
    for (got, expected) in numbers(&geometry["norms"]).iter().zip(numbers(&reference["norms"])) {
        assert!((got - expected).abs() < 1e-6, "norm {got}, numpy has {expected}");
    }
    let rows = geometry["angles_deg"].as_array().unwrap().iter().zip(reference["matrix"].as_array().unwrap());
    for (got, expected) in rows.flat_map(|(a, b)| numbers(a).into_iter().zip(numbers(b))) {
        assert!((got - expected).abs() < 1e-3, "angle {got}, numpy has {expected}");
    }
    assert_eq!(result["diagnosis"]["shared_init"]["verdict"], "shared");
    // The two that diverged, and nobody else.
    let outliers = result["diagnosis"]["outliers"].as_array().unwrap();
    let names: Vec<&str> = outliers.iter().map(|o| o["ingredient"].as_str().unwrap()).collect();
    assert_eq!(names, ["m05", "m11"], "{outliers:?}");
    assert_eq!(result["diagnosis"]["duplicates"], serde_json::json!([]));
    let layers = result["diagnosis"]["layers"].as_array().unwrap();
    assert_eq!((layers[0]["layer"].as_str(), layers.len()), (Some("embeddings"), 9));
}

#[test]
fn interpolations_and_ensembles_are_those_of_pytorch() {
    let dir = TempDir::new().unwrap();
    let pool = example().display().to_string();
    let validation = example().join("data/val.parquet").display().to_string();
    let test = format!("test={}", example().join("data/test.parquet").display());
    let args =
        ["taste", "--pool", &pool, "--validation", &validation, "--test", &test, "--recipe", "uniform"];
    let result = call(dir.path(), &args).json();
    let diagnosis = &result["diagnosis"];
    let reference = example_json("reference.json");

    // At t = 0, 0.2, ... of the lines from the best to the second and to the worst; sums are rounded a little otherwise.
    for (curve, name) in diagnosis["interpolation"].as_array().unwrap().iter().zip(["best_two", "best_worst"])
    {
        let expected = &reference["interpolation"][name];
        assert_eq!([&curve["from"], &curve["to"]], [&expected["names"][0], &expected["names"][1]]);
        let points = curve["points"].as_array().unwrap().iter().step_by(2);
        for (point, expected) in points.zip(expected["path"].as_array().unwrap()) {
            let apart = point["correct"].as_i64().unwrap() - expected["correct"].as_i64().unwrap();
            assert!(apart.abs() <= 1, "{point} {expected}");
            let apart = point["loss"].as_f64().unwrap() - expected["nll"].as_f64().unwrap();
            assert!(apart.abs() < 1e-5, "{point} {expected}");
        }
    }

    let alternatives = diagnosis["alternatives"].as_array().unwrap();
    let find =
        |name: &str| alternatives.iter().find(|a| a["name"].as_str().unwrap().starts_with(name)).unwrap();
    let ensemble = find("logit ensemble");
    let expected = &reference["ensembles"]["logits_all"];
    assert_eq!(ensemble["score"]["correct"], expected["val"]["correct"]);
    assert_eq!(ensemble["test"]["test"]["correct"], expected["test"]["correct"]);
    let apart = ensemble["score"]["loss"].as_f64().unwrap() - expected["val"]["nll"].as_f64().unwrap();
    assert!(apart.abs() < 1e-5);
    assert_eq!(ensemble["forward_passes"], 16);
    // Stacking begins at the ensemble and only gets better on what it is fitted to.
    let loss = |a: &Value| a["score"]["loss"].as_f64().unwrap();
    assert!(loss(find("stacking")) < loss(ensemble));
    assert!(find("majority vote")["score"]["loss"].is_null());
    // Those who have votes, and nobody else, are asked.
    let boosting = find("boosting");
    let voters = strings(&boosting["ingredients"]);
    assert_eq!(boosting["forward_passes"], voters.len());
    assert!(!voters.is_empty() && voters.iter().all(|v| boosting["votes"][v].as_f64().unwrap() > 0.0));
    assert_eq!([&boosting["score"]["total"], &boosting["test"]["test"]["total"]], [2000, 4000]);
    assert!(boosting["score"]["loss"].is_null());

    let marginal = diagnosis["marginal_utility"].as_array().unwrap();
    assert_eq!(marginal.len(), 16);
    assert_eq!(marginal[15]["correct"], reference["soups"]["uniform"]["results"]["val"]["correct"]);
    let plane = &diagnosis["plane"];
    assert_eq!(strings(&plane["ingredients"]), ["m10", "m02", "m07"]);
    assert!(
        plane["scores"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|r| r.as_array().unwrap())
            .all(|s| s["total"] == 2000)
    );

    // A report, and no model.
    assert_eq!(Pool::list(&dir.path().join("out")), ["report.html", "soup.json"]);
}

#[test]
fn networks_from_scratch_are_detected_and_explained() {
    let dir = TempDir::new().unwrap();
    let args = ["cook", "-f", &format!("{}/cook.yaml", scratch()), "--recipe", "uniform"];
    let output = call(dir.path(), &args);
    let result = output.json();
    assert!(output.stderr.contains("note: the ingredients are nearly orthogonal"), "{}", output.stderr);
    let shared = &result["diagnosis"]["shared_init"];
    assert_eq!(shared["verdict"], "separate");
    assert!(shared["explanation"].as_str().unwrap().contains("Averaging will destroy them"));
    // And so it does.
    let text = std::fs::read_to_string(format!("{}/reference.json", scratch())).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["score"]["correct"], reference["uniform"]["val"]["correct"]);
    assert_eq!(result["test"]["test"]["correct"], reference["uniform"]["test"]["correct"]);
    assert_eq!(result["baselines"]["best_single"]["correct"], reference["best_individual"]["val"]["correct"]);
    assert!(Pool::list(&dir.path().join("out")).contains(&"report.html".to_owned()));
}

#[test]
fn a_shared_initialisation_can_be_demanded() {
    let dir = TempDir::new().unwrap();
    let file = format!("{}/cook.yaml", scratch());
    let output = call(dir.path(), &["cook", "-f", &file, "--recipe", "uniform", "--require-shared-init"]);
    output.fails(3, &["the ingredients must share an initialisation", "nearly orthogonal"]);
    assert!(Pool::list(dir.path()).is_empty());
}

#[test]
fn equal_ingredients_are_told() {
    let dir = TempDir::new().unwrap();
    let pool = Pool::of(&["m02", "m03", "m07"]);
    std::fs::copy(pool.file("m03"), pool.file("m99")).unwrap();
    let validation = example().join("data/test_noisy.parquet").display().to_string();
    let path = pool.path().display().to_string();
    let args = ["taste", &path, "--validation", &validation, "--diagnose", "geometry", "--recipe", "uniform"];
    let result = call(dir.path(), &args).json();
    assert_eq!(result["diagnosis"]["duplicates"], serde_json::json!([["m03", "m99"]]));
}

#[test]
fn a_base_that_is_no_relative_is_refused() {
    let dir = TempDir::new().unwrap();
    let base = Pool::of(&["m02"]);
    base.change_header("m02", |h| h.replace("classifier.bias", "classifier.bent"));
    let file = base.file("m02").display().to_string();
    let pool = example().display().to_string();
    call(dir.path(), &["taste", &pool, "--base", &file, "--diagnose", "geometry"])
        .fails(65, &["leave out --base", "classifier.b"]);
    call(dir.path(), &["taste", &pool, "--base", "nowhere", "--diagnose", "geometry"])
        .fails(65, &["nowhere"]);
}
