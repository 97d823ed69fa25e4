//! The crash matrix: coordinator and workers are killed with SIGKILL at named points, for every recipe. The soup must be
//! the undisturbed one, and its journal one chain with every decision made once. The clusters speak TLS.
//!
//! `cargo test -p soup-tests --test crashes` tries a selection; with `SOUP_CRASHES=all` it tries every record of every run
//! (about half an hour).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic is how a test fails; it says how many kills it survived

use std::path::Path;

use serde_json::Value;
use soup_tests::{Cluster, Pool, Soupctl, example, judge};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");
const JUDGE: &str = env!("CARGO_BIN_EXE_soup-judge-under-test");

/// Points of the coordinator, and the times at which it is killed there.
const COORDINATOR: [(&str, &[u32]); 6] = [
    ("after-claim", &[1]),
    ("before-staging", &[1]),
    ("before-append", &[1, 2, 6]),
    ("after-append", &[1, 9]),
    ("before-publish", &[1]),
    ("after-publish", &[1]),
];
/// Points of a worker.
const WORKER: [(&str, &[u32]); 4] =
    [("before-load", &[1]), ("before-answer", &[5]), ("before-write", &[1]), ("before-read-back", &[1])];
/// The same where nothing is judged: a coordinator decides nothing, and shards are read for the file.
const STREAMING_COORDINATOR: [(&str, &[u32]); 6] = [
    ("after-claim", &[1]),
    ("before-staging", &[1]),
    ("before-append", &[1, 2]),
    ("after-append", &[1, 2]),
    ("before-publish", &[1]),
    ("after-publish", &[1]),
];
const STREAMING_WORKER: [(&str, &[u32]); 4] = [
    ("before-pass", &[1, 3]),
    ("before-answer", &[1, 3]),
    ("before-write", &[1]),
    ("before-read-back", &[1]),
];

/// A small cook: five ingredients, few samples.
fn cook_file(dir: &Path, pool: &Pool, recipe: &str) -> String {
    let data = example().join("data");
    let text = format!(
        "pool: {}\nvalidation: {{url: {}, limit: 160}}\nrecipe: {recipe}\nbatch-size: 16\nno-baselines: true\n",
        pool.path().display(),
        validation(&data)
    );
    let file = dir.join(format!("{recipe}.yaml"));
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn validation(data: &Path) -> String {
    data.join("val.parquet").display().to_string()
}

fn cook(file: &str, dir: &Path, more: &[&str]) -> Soupctl {
    let args = ["cook", "-f", file, "--output", "soup", "-o", "json"];
    Soupctl::new(SOUPCTL).dir(dir).args(args).args(more)
}

struct Case<'a> {
    file: &'a str,
    /// What workers are started with besides.
    with: &'a [&'a str],
    expected: &'a Value,
    coordinator: String,
    worker: String,
}

/// Cooks while something is killed; false if the point was never reached.
fn survive(case: &Case<'_>) -> bool {
    let what = format!("{}{} {}", case.coordinator, case.worker, case.file);
    let dir = TempDir::new().unwrap();
    let mut cluster = Cluster::start_secure(SOUPCTL, &case.coordinator);
    cluster.add_worker_args(SOUPCTL, &case.worker, case.with);
    cluster.add_worker_args(SOUPCTL, "", case.with);
    let client = cluster.trust("client");
    let mut running = cook(case.file, dir.path(), &["--coordinator", &cluster.url]).args(client).start();
    let mut killed = false;
    while !running.has_ended() {
        if cluster.coordinator.has_ended() {
            killed = true;
            cluster.restart_coordinator();
        }
        if !killed && cluster.workers[0].has_ended() {
            killed = true;
            cluster.add_worker_args(SOUPCTL, "", case.with);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = running.wait();
    let result = output.json();
    for key in ["sha256", "ingredients", "score", "trials"] {
        assert_eq!(result[key], case.expected[key], "{key} after {what}: {}", output.stderr);
    }
    assert_eq!(Pool::list(dir.path()), ["soup"], "{what}");
    let run = result["run"].as_str().unwrap();
    let state = cluster.state().to_str().unwrap();
    let log = Soupctl::new(SOUPCTL).args(["log", run, "--verify", "--state-url", state, "-o", "json"]).run();
    let records = log.json();
    let trials = result["trials"].as_array().unwrap().len();
    assert!(log.stderr.contains(&format!("{trials} decisions made again")), "{what}: {}", log.stderr);
    check_slices(&records, &what);
    killed
}

/// No slice is in the log twice: each is scored once, or was lost before it was recorded.
fn check_slices(records: &Value, what: &str) {
    let mut seen = std::collections::BTreeSet::new();
    for record in records.as_array().unwrap().iter().filter(|r| r["kind"] == "slices") {
        for slice in record["body"].as_array().unwrap() {
            let key = format!("{} {} {}", slice["dataset"], slice["soup"], slice["slice"]);
            assert!(seen.insert(key.clone()), "slice {key} is recorded twice after {what}");
        }
    }
}

fn check(recipe: &str) {
    let dir = TempDir::new().unwrap();
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m14"]);
    let file = cook_file(dir.path(), &pool, recipe);
    matrix(recipe, &file, &[], &COORDINATOR, &WORKER);
}

type Points<'a> = &'a [(&'a str, &'a [u32])];

/// Tries every point; `with`: what workers are started with besides.
fn matrix(recipe: &str, file: &str, with: &[&str], coordinator: Points<'_>, worker: Points<'_>) {
    let dir = TempDir::new().unwrap();
    let embedded = [&["--workers", "2", "--threads", "1"][..], with].concat();
    let expected = cook(file, dir.path(), &embedded).run().json();
    let all = std::env::var("SOUP_CRASHES").is_ok_and(|v| v == "all");
    let mut survived = 0;
    for (role, points) in [("coordinator", coordinator), ("worker", worker)] {
        for (point, times) in points {
            let chosen: Vec<u32> = if all { (1..).take(2000).collect() } else { times.to_vec() };
            for n in chosen {
                let at = format!("{point}:{n}");
                let (coordinator, worker) =
                    if role == "coordinator" { (at, String::new()) } else { (String::new(), at) };
                let case = Case { file, with, expected: &expected, coordinator, worker };
                let reached = survive(&case);
                // Short runs have few records, and a worker may have had nothing to do.
                let may_miss = all || role == "worker" || n > 2;
                assert!(reached || may_miss, "{point}:{n} is not reached by {recipe}");
                if !reached {
                    break;
                }
                survived += 1;
            }
        }
    }
    println!("{recipe}: {survived} kills survived");
    assert!(survived >= 7, "{recipe}: only {survived} points were reached");
}

#[test]
fn greedy_survives_a_kill_at_every_point() {
    check("greedy");
}

#[test]
fn pruned_survives_a_kill_at_every_point() {
    check("pruned");
}

#[test]
fn uniform_survives_a_kill_at_every_point() {
    check("uniform");
}

#[test]
fn best_single_survives_a_kill_at_every_point() {
    check("best-single");
}

#[test]
fn an_average_without_data_survives_a_kill_at_every_point() {
    let dir = TempDir::new().unwrap();
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m14"]);
    let file = dir.path().join("average.yaml");
    std::fs::write(&file, format!("pool: {}\nrecipe: uniform\n", pool.path().display())).unwrap();
    matrix("average", file.to_str().unwrap(), &[], &STREAMING_COORDINATOR, &STREAMING_WORKER);
}

/// What a judge of one's own decides, and the statistics that it recomputes.
#[test]
fn a_judge_of_ones_own_survives_a_kill_of_its_worker_at_every_point() {
    let dir = TempDir::new().unwrap();
    let pool = dir.path().join("pool");
    judge::normalised_pool(&pool, 6);
    let file = dir.path().join("judged.yaml");
    let text = format!(
        "pool: {}\njudge: lin\nvalidation: lin:points/400/1\nbatch-norm: recompute\ncalibration: lin:points/90/7\n\
         batch-size: 16\nno-baselines: true\n",
        pool.display()
    );
    std::fs::write(&file, text).unwrap();
    let judge = format!("lin=cmd:exec {JUDGE}");
    let with = ["--judge", &judge, "--judge-dir", dir.path().to_str().unwrap()];
    matrix("judged", file.to_str().unwrap(), &with, &COORDINATOR, &WORKER);
}
