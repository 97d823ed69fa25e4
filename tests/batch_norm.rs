//! Soups of networks with running statistics under the native judge, beside plain PyTorch (`tests/reference/shapes_pool.py`): sets, trials
//! and counts are the same; losses, which are of f32 in both, to 1e-4; and the bits of what is averaged.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::{Path, PathBuf};

use serde_json::Value;
use soup_tests::{Output, Soupctl, example};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");
/// How far a mean loss may be off: PyTorch's own f32 is off its f64 by as much as 1e-6 in a logit.
const TOLERANCE: f64 = 1e-4;

fn pool() -> PathBuf {
    example().parent().unwrap().join("resnet-shapes")
}

fn reference() -> Value {
    serde_json::from_str(&std::fs::read_to_string(pool().join("reference.json")).unwrap()).unwrap()
}

/// Cooks in `dir`, to a folder of that name.
fn cook(dir: &Path, output: &str, args: &[&str]) -> Output {
    let file = pool().join("cook.yaml");
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "-f", file.to_str().unwrap(), "--output", output, "-o", "json"])
        .args(args)
        .run()
}

/// What a treatment is called, without a calibration set where there is none.
fn treated(treatment: &str) -> Vec<String> {
    let calibration =
        if treatment == "recompute" { pool().join("data/calibration.parquet") } else { PathBuf::new() };
    let calibration = ["--calibration".to_owned(), calibration.display().to_string()];
    let named = ["--batch-norm".to_owned(), treatment.to_owned()];
    named.into_iter().chain(calibration.into_iter().filter(|_| treatment == "recompute")).collect()
}

/// The same without the cook file, which names a calibration set.
fn cook_treated(dir: &Path, output: &str, treatment: &str, args: &[&str]) -> Output {
    let data = |name: &str| pool().join(format!("data/{name}.parquet")).display().to_string();
    let (own, test) = (pool().display().to_string(), format!("test={}", data("test")));
    let own = if args.contains(&"--pool") { &[][..] } else { &["--pool", &own] };
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--validation", &data("val"), "--test", &test])
        .args(own)
        .args(["--output", output, "-o", "json"])
        .args(treated(treatment))
        .args(args)
        .run()
}

#[track_caller]
fn same_score(what: &str, got: &Value, want: &Value) {
    assert_eq!(got["correct"], want["correct"], "{what}");
    let (loss, expected) = (got["loss"].as_f64().unwrap(), want["loss"].as_f64().unwrap());
    assert!((loss - expected).abs() <= TOLERANCE, "{what}: loss {loss}, PyTorch has {expected}");
}

/// Statistics are averaged by the weights, and weights do not follow them. The reference steps in f32, ours in f64.
#[test]
fn a_learned_soup_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let train = pool().join("data/calibration.parquet").display().to_string();
    let args =
        ["--recipe", "learned", "--train", &train, "--granularity", "model", "--lr", "0.1", "--epochs", "3"];
    let order = ["--mini-batch", "25", "--shuffle=false", "--no-baselines"];
    let result = cook_treated(dir.path(), "learned", "average", &[&args[..], &order].concat()).json();
    let want = &reference()["learned"];
    let near = |what: &str, got: &Value, expected: &Value, tolerance: f64| {
        let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((got - expected).abs() <= tolerance, "{what}: {got}, PyTorch has {expected}");
    };
    let (steps, losses) =
        (result["learned"]["steps"].as_array().unwrap(), want["losses"].as_array().unwrap());
    assert_eq!(steps.len(), losses.len());
    near("first loss", &steps[0]["loss"], &losses[0], 2e-6);
    for (step, expected) in steps.iter().zip(losses) {
        near("loss", &step["loss"], expected, 1e-3);
    }
    near("beta", &result["learned"]["beta"], &want["beta"], 1e-3);
    for (ingredient, expected) in want["weights"].as_object().unwrap() {
        near(ingredient, &result["weights"][ingredient], expected, 1e-3);
    }
    near("validation loss", &result["score"]["loss"], &want["validation"]["loss"], 1e-3);
}

#[track_caller]
fn check(result: &Value, treatment: &str, recipe: &str) {
    let want = &reference()["pool"][treatment][recipe];
    let what = format!("{recipe}, {treatment}");
    assert_eq!(result["ingredients"], want["ingredients"], "{what}");
    same_score(&what, &result["score"], &want["score"]);
    same_score(&what, &result["test"]["test"], &want["test"]);
    same_score(&what, &result["baselines"]["uniform"], &want["baselines"]["uniform"]);
    let (trials, expected) = (result["trials"].as_array().unwrap(), want["trials"].as_array().unwrap());
    let verdicts = |trials: &[Value]| -> Vec<(Value, Value)> {
        trials.iter().map(|t| (t["candidate"].clone(), t["verdict"].clone())).collect()
    };
    assert_eq!(verdicts(trials), verdicts(expected), "{what}");
}

#[test]
fn recomputed_soups_are_those_of_pytorch_on_any_number_of_workers() {
    let dir = TempDir::new().unwrap();
    for recipe in ["greedy", "pruned"] {
        let of = |workers: &str| {
            let output = format!("{recipe}-{workers}");
            let result = cook(dir.path(), &output, &["--recipe", recipe, "--workers", workers]).json();
            check(&result, "recompute", recipe);
            let bytes = std::fs::read(dir.path().join(output).join("model.safetensors")).unwrap();
            (result, bytes)
        };
        let (one, two) = (of("1"), of("2"));
        assert_eq!(one.0["sha256"], two.0["sha256"], "{recipe}");
        assert!(one.1 == two.1, "{recipe}");
        let of = &one.0["batch_norm"];
        assert_eq!((&of["statistics"], &of["samples"]), (&"recompute".into(), &100.into()), "{of}");
        assert_eq!(of["sha256"], two.0["batch_norm"]["sha256"]);
    }
}

/// What is averaged or taken is the same bits as in PyTorch.
#[test]
fn averaged_and_first_statistics_are_those_of_pytorch() {
    let dir = TempDir::new().unwrap();
    for treatment in ["average", "first"] {
        for recipe in ["greedy", "pruned"] {
            let output = format!("{treatment}-{recipe}");
            let result = cook_treated(dir.path(), &output, treatment, &["--recipe", recipe]).json();
            check(&result, treatment, recipe);
            let want = &reference()["pool"][treatment][recipe]["sha256"];
            assert_eq!(&result["sha256"], want, "{output}");
        }
    }
}

/// The statistics of two networks from scratch, on average, are of neither and not of their soup; with its own the soup is far better,
/// and still no match for either.
#[test]
fn soups_from_scratch_collapse_less_with_statistics_of_their_own() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("pool");
    std::fs::create_dir_all(folder.join("ingredients")).unwrap();
    for name in ["config.json", "preprocessor_config.json"] {
        std::fs::copy(pool().join(name), folder.join(name)).unwrap();
    }
    for name in ["s0.safetensors", "s1.safetensors"] {
        std::fs::copy(pool().join("scratch").join(name), folder.join("ingredients").join(name)).unwrap();
    }
    for treatment in ["average", "recompute"] {
        let args = ["--recipe", "uniform", "--pool", folder.to_str().unwrap()];
        let result = cook_treated(dir.path(), treatment, treatment, &args).json();
        same_score(treatment, &result["score"], &reference()["scratch"][treatment]["uniform"]);
    }
}

/// A soup whose weights are learned by the native judge's gradient, by which the loss falls; its statistics are averaged.
#[test]
fn weights_are_learned() {
    let dir = TempDir::new().unwrap();
    let train = pool().join("data/calibration.parquet").display().to_string();
    let args = ["--recipe", "learned", "--train", &train, "--granularity", "model", "--mini-batch", "50"];
    let args = [&args[..], &["--epochs", "4", "--lr", "0.1", "--shuffle=false"]].concat();
    let result = cook_treated(dir.path(), "learned", "average", &args).json();
    let steps = result["learned"]["steps"].as_array().unwrap();
    let loss = |nth: usize| steps[nth]["loss"].as_f64().unwrap();
    assert_eq!(steps.len(), 8);
    // The same halves of the set, before and after.
    assert!(loss(6) < loss(0) && loss(7) < loss(1), "{steps:?}");
    cook_treated(dir.path(), "x", "recompute", &args).fails(2, &["the learned recipe"]);
}

#[test]
fn what_cannot_be_recomputed_is_said() {
    let dir = TempDir::new().unwrap();
    let limited = |samples: u64| {
        let text = std::fs::read_to_string(pool().join("cook.yaml")).unwrap();
        let absolute = text
            .replace("pool: .", &format!("pool: {}", pool().display()))
            .replace("data/", &format!("{}/data/", pool().display()));
        let calibration = format!("calibration: {}/data/calibration.parquet", pool().display());
        assert!(absolute.contains(&calibration));
        let limit =
            format!("calibration:\n  url: {}/data/calibration.parquet\n  limit: {samples}", pool().display());
        let file = dir.path().join("limited.yaml");
        std::fs::write(&file, absolute.replace(&calibration, &limit)).unwrap();
        let args = [
            "cook",
            "-f",
            file.to_str().unwrap(),
            "--recipe",
            "uniform",
            "--output",
            "limited",
            "-o",
            "json",
        ];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(args).run()
    };
    assert_eq!(limited(32).json()["batch_norm"]["samples"], 32);
    let of_example = ["--recipe", "uniform", "--pool", example().to_str().unwrap()].map(str::to_owned);
    let of_example: Vec<&str> = of_example.iter().map(String::as_str).collect();
    cook_treated(dir.path(), "x", "recompute", &of_example).fails(2, &["the pool has no running statistics"]);
    let pool = pool().display().to_string();
    let plain = ["cook", "--pool", &pool, "--recipe", "uniform", "--output", "x"];
    Soupctl::new(SOUPCTL).dir(dir.path()).args(plain).run().fails(2, &["--batch-norm"]);
}
