//! Learned soups of the example pool, against the same learning in PyTorch (see the pool's README): the loss before the first
//! step, the loss of every later mini-batch, weights and temperature in the end, and what the soup scores.
//!
//! The reference steps in f32, ours in f64; both go the same way until rounding shows. Measured: losses agree to 1e-4, weights
//! to 2e-3. The tolerances below leave a factor of a few.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use serde_json::Value;
use soup_tests::{Cluster, Output, Pool, Soupctl, example, example_json};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// Learns as the reference does: from the validation set itself, in its order.
fn learn(dir: &Path, args: &[&str]) -> Output {
    let data = example().join("data");
    let train = data.join("val.parquet").display().to_string();
    let test = format!("test={}", data.join("test.parquet").display());
    let pool = example().display().to_string();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--recipe", "learned", "--pool", &pool, "--validation", &train, "--train", &train])
        .args(["--test", &test, "--shuffle=false", "--mini-batch", "250", "--epochs", "3"])
        .args(["--no-baselines", "--output", "soup", "-o", "json"])
        .args(args)
        .run()
}

#[track_caller]
fn check(name: &str, args: &[&str]) -> Value {
    let dir = TempDir::new().unwrap();
    let result = learn(dir.path(), args).json();
    let reference = &example_json("reference.json")["soups"][name];
    let learned = &result["learned"];
    let number = |v: &Value| v.as_f64().unwrap();
    let near = |what: &str, got: &Value, expected: &Value, tolerance: f64| {
        let (got, expected) = (number(got), number(expected));
        assert!((got - expected).abs() <= tolerance, "{name} {what}: {got}, the reference has {expected}");
    };
    let steps = learned["steps"].as_array().unwrap();
    assert_eq!(steps.len() as u64, reference["n_steps"].as_u64().unwrap());
    // Before the first step both are the uniform soup.
    near("first loss", &steps[0]["loss"], &reference["first_loss"], 2e-6);
    for (step, expected) in steps[steps.len() - 3..].iter().zip(reference["last_losses"].as_array().unwrap())
    {
        near("last losses", &step["loss"], expected, 1e-3);
    }
    near("beta", &learned["beta"], &reference["beta"], 1e-3);
    // At least as good, within what rounding can move.
    let on = |set: &str| &reference["results"][set];
    near("validation loss", &result["score"]["loss"], &on("val")["nll"], 2e-3);
    near("test loss", &result["test"]["test"]["loss"], &on("test")["nll"], 2e-3);
    near("validation accuracy", &result["score"]["accuracy"], &on("val")["accuracy"], 0.002);
    near("test accuracy", &result["test"]["test"]["accuracy"], &on("test")["accuracy"], 0.002);
    // Weights, by the names of the groups: the reference sorts them otherwise.
    let groups: Vec<&str> =
        learned["groups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap()).collect();
    for (group, weights) in groups.iter().zip(learned["weights"].as_array().unwrap()) {
        let group = if *group == "model" { "all" } else { group };
        let at = reference["groups"].as_array().unwrap().iter().position(|g| g == group).unwrap();
        for (w, expected) in
            weights.as_array().unwrap().iter().zip(reference["alpha"][at].as_array().unwrap())
        {
            near(&format!("weights of {group}"), w, expected, 5e-3);
        }
    }
    result
}

#[test]
fn one_weight_an_ingredient_equals_the_reference() {
    let result = check("learned_softmax", &["--granularity", "model", "--lr", "0.1"]);
    let weights = result["weights"].as_object().unwrap();
    assert_eq!(weights.len(), 16);
    assert!((weights.values().map(|w| w.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn weights_by_layer_equal_the_reference() {
    check("learned_softmax_per_layer", &["--granularity", "layer", "--lr", "0.1"]);
}

#[test]
fn free_weights_equal_the_reference() {
    check("learned_free", &["--granularity", "model", "--weights", "free", "--lr", "0.01"]);
}

/// A small pool, few samples, all the options.
fn small(pool: &Pool) -> Vec<String> {
    let data = example().join("data/test_noisy.parquet");
    let args = [
        "cook",
        "--recipe",
        "learned",
        "--pool",
        pool.path().to_str().unwrap(),
        "--validation",
        data.to_str().unwrap(),
        "--train-share",
        "0.3",
        "--mini-batch",
        "60",
        "--epochs",
        "2",
        "--parts",
        "3",
        "--seed",
        "5",
        "--weights",
        "sum-to-one",
        "--schedule",
        "cosine",
        "--warmup",
        "0.2",
        "--clip",
        "1",
        "--lr",
        "0.02",
        "--label-smoothing",
        "0.1",
        "--init",
        "greedy",
        "--no-baselines",
        "-o",
        "json",
    ];
    args.map(str::to_owned).to_vec()
}

fn settled(mut result: Value) -> Value {
    for changing in ["run", "output", "seconds", "notes", "pool_bytes_read"] {
        result.as_object_mut().unwrap().remove(changing);
    }
    result
}

#[test]
fn alphas_do_not_depend_on_the_number_of_workers() {
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m13"]);
    let dir = TempDir::new().unwrap();
    let cook = |workers: &str| {
        let args = ["--workers", workers, "--output", workers, "--fold-beta"];
        settled(Soupctl::new(SOUPCTL).dir(dir.path()).args(small(&pool)).args(args).run().json())
    };
    let one = cook("1");
    // Steps, losses, weights and the soup's digest, to the last bit.
    for workers in ["2", "3", "8"] {
        assert_eq!(cook(workers), one, "{workers} workers");
    }
    let learned = &one["learned"];
    assert_eq!(learned["steps"].as_array().unwrap().len(), 10);
    assert_eq!(learned["train"], "train");
    // Three tenths are learned from, the rest is reported on.
    assert_eq!(one["score"]["total"], 700);
}

#[test]
fn a_pool_larger_than_a_worker_is_learned_by_several() {
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m13"]);
    let dir = TempDir::new().unwrap();
    let cook = |workers: &str, memory: &str| {
        let args = ["--workers", workers, "--memory", memory, "--output", workers];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(small(&pool)).args(args).run()
    };
    // Five ingredients of 805 KiB.
    cook("1", "2MiB").fails(78, &["--memory"]);
    assert_eq!(settled(cook("3", "2MiB").json()), settled(cook("1", "8MiB").json()));
}

#[test]
fn beta_in_the_classifier_changes_the_loss_and_no_prediction() {
    let pool = Pool::of(&["m02", "m03", "m10"]);
    let dir = TempDir::new().unwrap();
    let cook = |folded: &str| {
        let args = [&format!("--fold-beta={folded}"), "--output", folded];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(small(&pool)).args(args).run().json()
    };
    let (folded, plain) = (cook("true"), cook("false"));
    assert_eq!(folded["learned"]["weights"], plain["learned"]["weights"]);
    assert_eq!(folded["score"]["correct"], plain["score"]["correct"]);
    assert_ne!(folded["score"]["loss"], plain["score"]["loss"]);
    assert_ne!(folded["sha256"], plain["sha256"]);
}

/// Kills the coordinator after its n-th record of a step, and a worker in mid-run: the same alphas, bit for bit.
#[test]
fn kills_change_no_bit_of_what_is_learned() {
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m13"]);
    let dir = TempDir::new().unwrap();
    let expected = settled(Soupctl::new(SOUPCTL).dir(dir.path()).args(small(&pool)).run().json());
    for (coordinator, worker) in [("after-append:40", ""), ("before-append:44", ""), ("", "before-answer:60")]
    {
        let dir = TempDir::new().unwrap();
        let mut cluster = Cluster::start_with(SOUPCTL, coordinator);
        cluster.add_worker_with(SOUPCTL, worker);
        cluster.add_worker(SOUPCTL);
        let args = ["--coordinator", &cluster.url.clone(), "--min-workers", "2"];
        let mut running = Soupctl::new(SOUPCTL).dir(dir.path()).args(small(&pool)).args(args).start();
        let mut killed = false;
        while !running.has_ended() {
            if cluster.coordinator.has_ended() {
                killed = true;
                cluster.restart_coordinator();
            }
            killed |= cluster.workers[0].has_ended();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let result = running.wait().json();
        assert!(killed, "{coordinator}{worker} is not reached");
        let run = result["run"].as_str().unwrap().to_owned();
        assert_eq!(settled(result), expected, "after {coordinator}{worker}");
        let state = cluster.state().to_str().unwrap();
        let log = Soupctl::new(SOUPCTL).args(["log", &run, "--verify", "--state-url", state]).run();
        assert!(log.stderr.contains(", 10 steps"), "{}", log.stderr);
    }
}

#[test]
fn options_of_the_learned_recipe_are_checked() {
    let pool = Pool::of(&["m02"]);
    let refused = |args: &[&str], part: &str| {
        let dir = TempDir::new().unwrap();
        let validation = example().join("data/val.parquet").display().to_string();
        let pool = pool.path().display().to_string();
        Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["cook", "--pool", &pool, "--validation", &validation, "--output", "soup"])
            .args(args)
            .run()
            .fails(2, &[part]);
    };
    refused(&["--lr", "0.1"], "--lr belongs to the learned recipe, and this one is greedy");
    refused(&["--recipe", "learned", "--lr", "0"], "--lr is 0, must be above 0");
    refused(&["--recipe", "learned", "--warmup", "2"], "--warmup is 2, must be a share");
    refused(
        &["--recipe", "learned", "--train-share", "1"],
        "--train-share is 1, must be above 0 and below 1",
    );
    refused(&["--recipe", "learned", "--train", "x", "--train-share", "0.1"], "give one of them");
    refused(&["--recipe", "learned", "--epochs", "0"], "--epochs is 0, must be 1 to");
    refused(&["--recipe", "learned", "--mini-batch", "0"], "--mini-batch is 0");
}
