//! A cluster of real processes: same soup, also when a worker is killed on the way.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use serde_json::Value;
use soup_tests::{Cluster, Soupctl, example, example_json, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

fn submit(cluster: &Cluster, dir: &Path, args: &[&str]) -> Soupctl {
    let file = example().join("cook.yaml");
    let file = file.to_str().unwrap();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "-f", file, "-o", "json", "--coordinator", &cluster.url, "--no-baselines"])
        .args(args)
}

#[track_caller]
fn check_greedy(result: &Value) {
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert_eq!(strings(&result["ingredients"]), ["m02", "m03", "m10"]);
    assert_eq!(result["score"]["correct"], 1750);
    assert_eq!(result["trials"].as_array().unwrap().len(), 15);
}

#[test]
fn processes_give_the_same_soup_one_run_after_another() {
    let cluster = Cluster::start(SOUPCTL, 3);
    let dir = TempDir::new().unwrap();
    let first = submit(&cluster, dir.path(), &["--output", "first", "--min-workers", "3"]).start();
    let second = submit(&cluster, dir.path(), &["--output", "second", "--recipe", "uniform"]).run().json();
    check_greedy(&first.wait().json());
    assert_eq!(second["sha256"], example_json("soups.json")["uniform"]["sha256"]);
}

#[test]
fn a_killed_worker_changes_nothing() {
    let mut cluster = Cluster::start(SOUPCTL, 3);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup", "--min-workers", "3"]).start();
    cook.line_with("+ m07");
    cluster.workers[1].kill();
    cook.line_with("+ m08");
    cluster.workers[0].kill();
    cluster.add_worker(SOUPCTL);
    let output = cook.wait();
    check_greedy(&output.json());
    assert_eq!(output.stderr.matches("was lost").count(), 2, "{}", output.stderr);
}

#[test]
fn a_stopped_coordinator_says_so_and_leaves_nothing_behind() {
    let cluster = Cluster::start(SOUPCTL, 1);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    cook.line_with("+ m02");
    cluster.coordinator.signal("TERM");
    let output = cook.wait();
    assert_ne!(output.code, 0);
    assert!(output.stdout.is_empty() && output.stderr.contains("error: "), "{}", output.stderr);
    assert_eq!(cluster.coordinator.wait().code, 0);
    assert_eq!(soup_tests::Pool::list(dir.path()), [""; 0]);
}

#[test]
fn an_interrupted_cook_cancels_its_run() {
    let cluster = Cluster::start(SOUPCTL, 1);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    cook.line_with("+ m02");
    cook.signal("INT");
    let output = cook.wait();
    assert_eq!(output.code, 130, "{}", output.stderr);
    assert_eq!(soup_tests::Pool::list(dir.path()), [""; 0]);
    // The cluster takes the next run.
    submit(&cluster, dir.path(), &["--output", "next", "--recipe", "uniform"]).run().json();
}
