//! Pools that are larger than the workers' memory: shards that have no room there are kept on disk, and nothing else changes.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use serde_json::Value;
use soup_tests::{Cluster, Output, Pool, Soupctl, example, example_json};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// Cooks the example pool with these arguments.
fn cook(dir: &Path, args: &[&str]) -> Output {
    let pool = example().display().to_string();
    let validation = example().join("data/val.parquet").display().to_string();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--pool", &pool, "--validation", &validation, "--no-baselines", "--diagnose", "none"])
        .args(["--output", "soup", "-o", "json"])
        .args(args)
        .run()
}

fn used_the_disk(result: &Value) -> bool {
    result["notes"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains("disk caches"))
}

#[test]
fn a_pool_larger_than_memory_gives_the_same_greedy_soup() {
    let dir = TempDir::new().unwrap();
    let result = cook(
        dir.path(),
        &[
            "--recipe",
            "greedy",
            "--workers",
            "2",
            "--memory",
            "3MiB",
            "--disk-cache",
            "cache",
            "--disk",
            "64MiB",
        ],
    )
    .json();
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert!(used_the_disk(&result), "{:#}", result["notes"]);
    // Read once from the pool, wherever it went.
    let pool = result["pool_bytes_read"].as_u64().unwrap();
    let bytes = example_json("soups.json")["greedy"]["bytes"].as_u64().unwrap();
    assert_eq!(pool, 16 * bytes);
    assert_eq!(Pool::list(&dir.path().join("cache")), [""; 0]);
}

#[test]
fn a_learned_soup_is_the_same_from_disk() {
    let learn = |more: &[&str]| {
        let dir = TempDir::new().unwrap();
        let train = example().join("data/val.parquet").display().to_string();
        let mut args = vec!["--recipe", "learned", "--train", &train, "--mini-batch", "500", "--epochs", "1"];
        args.extend(more);
        cook(dir.path(), &args).json()
    };
    let memory = learn(&[]);
    let disk = learn(&["--memory", "1MiB", "--disk-cache", "cache"]);
    assert!(used_the_disk(&disk) && !used_the_disk(&memory));
    assert_eq!((&disk["sha256"], &disk["learned"]), (&memory["sha256"], &memory["learned"]));
}

#[test]
fn killed_workers_leave_nothing_in_their_disk_caches() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut cluster = Cluster::start_with(SOUPCTL, "");
    (0..3).for_each(|_| cluster.add_worker_on_disk(SOUPCTL, "2MiB", cache.path()));
    let url = cluster.url.clone();
    let pool = example().display().to_string();
    let validation = example().join("data/val.parquet").display().to_string();
    let mut run = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args([
            "cook",
            "--coordinator",
            &url,
            "--pool",
            &pool,
            "--validation",
            &validation,
            "--min-workers",
            "3",
        ])
        .args(["--recipe", "greedy", "--no-baselines", "--output", "soup", "-o", "json"])
        .start();
    run.line_with("+ m07");
    cluster.workers.remove(0).kill();
    let result = run.wait().json();
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert!(used_the_disk(&result));
    assert_eq!(Pool::list(cache.path()), [""; 0]);
}

#[test]
fn what_is_wrong_with_a_disk_cache_is_said() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    cook(dir.path(), &["--disk-cache", "file"]).fails(78, &["disk cache", "file"]);
    cook(dir.path(), &["--disk", "1GiB"]).fails(2, &["--disk-cache"]);
    cook(dir.path(), &["--disk-cache", "s3://bucket/x"]).fails(2, &["--disk-cache s3://bucket/x"]);
    let small = ["--workers", "1", "--memory", "2MiB", "--disk-cache", "cache", "--disk", "3MiB"];
    cook(dir.path(), &small).fails(78, &["2 MiB of memory and 3 MiB of disk", "--disk"]);
    assert_eq!(Pool::list(dir.path()), ["cache", "file"]);
}
