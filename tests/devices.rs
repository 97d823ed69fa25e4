//! Devices: in every build, what is not there is refused by its name, and the processor has two arithmetics; in a build with `vulkan`, on whatever drives that (a processor with
//! lavapipe is enough), the same soups as on the processor, to the bit, and no judge among others that computes in another way.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;

use serde_json::Value;
use soup_tests::{Output, Soupctl, example};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// Samples that decide: a processor that computes as a device does is slow.
const SAMPLES: usize = 150;

fn cook(dir: &Path, args: &[&str]) -> Output {
    cook_of(&example(), "data/val.parquet", dir, args)
}

fn cook_of(pool: &Path, data: &str, dir: &Path, args: &[&str]) -> Output {
    let (pool, data) = (pool.display().to_string(), pool.join(data).display().to_string());
    let file = format!(
        "pool: {pool}\nvalidation: {{url: {data}, limit: {SAMPLES}}}\noutput: soup\noverwrite: true\n"
    );
    std::fs::write(dir.join("cook.yaml"), file).unwrap();
    Soupctl::new(SOUPCTL).dir(dir).args(["cook", "-f", "cook.yaml", "-o", "json"]).args(args).run()
}

fn devices(args: &[&str]) -> Vec<Value> {
    let output = Soupctl::new(SOUPCTL).args(["devices", "-o", "json"]).args(args).run();
    output.json().as_array().unwrap().clone()
}

#[test]
fn the_processor_is_always_there() {
    let all = devices(&[]);
    assert_eq!((all[0]["device"].as_str(), all[0]["numerics"].as_str()), (Some("cpu"), Some("flex-f32")));
    assert!(all[0]["blend_bytes_per_second"].as_f64().unwrap() > 0.0);
    assert!(all[0].get("error").is_none(), "{all:#?}");
    if !cfg!(feature = "vulkan") {
        assert_eq!(all.len(), 1, "{all:#?}");
    }
}

#[test]
fn what_is_not_there_is_refused_by_its_name() {
    let dir = TempDir::new().unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--device", "tpu"], 2, "unknown device \"tpu\""),
        (&["--device", "cuda:x"], 2, "unknown device \"cuda:x\""),
        (&["--device", "cpu", "--device-memory", "1GiB"], 2, "--device-memory is about a device"),
        (&["--precision", "f8"], 2, "unknown precision \"f8\""),
        (&["--precision", "tf32"], 78, "cpu computes in f32 and bf16, not in tf32"),
        (&["--device", "cuda:0"], 78, "cuda"),
        (
            &["--numerics", "cuda"],
            2,
            "no worker has judge \"native\" of numerics \"cuda\", there are native 4 (flex-f32)",
        ),
        (&["--precision", "bf16", "--numerics", "flex"], 78, "never compared: say which with --numerics"),
    ];
    for (args, code, part) in cases {
        cook(dir.path(), args).fails(code, &[part]);
    }
    assert!(!dir.path().join("soup").exists());
}

#[test]
fn auto_is_the_processor_where_there_is_no_card() {
    let dir = TempDir::new().unwrap();
    let result = cook(dir.path(), &["--device", "auto", "--recipe", "best-single", "--no-baselines"]).json();
    assert!(result["judge"].is_null() || result["judge"]["numerics"] == "flex-f32", "{:#}", result["judge"]);
}

/// Every family in bf16 on the processor: in a class of its own, near the f32 of which it says so.
#[test]
fn the_processor_judges_in_bf16_too() {
    let pools: [(&str, &str, &[&str]); 5] = [
        ("vit-fashion", "data/val.parquet", &[]),
        ("bert-reviews", "data/val.jsonl", &[]),
        ("t5-reviews", "data/val.jsonl", &["--decoding", "greedy"]),
        ("clip-shapes", "data/val.parquet", &[]),
        ("resnet-shapes", "data/val.parquet", &["--batch-norm", "average"]),
    ];
    for (pool, data, args) in pools {
        let path = example().with_file_name(pool);
        let cooked = |more: &[&str]| {
            let dir = TempDir::new().unwrap();
            let best = ["--recipe", "best-single", "--no-baselines"];
            cook_of(&path, data, dir.path(), &[&best[..], args, more].concat()).json()
        };
        let (whole, half) = (cooked(&[]), cooked(&["--precision", "bf16"]));
        assert_eq!(half["judge"]["numerics"], "flex-bf16", "{pool}");
        assert_ne!(half["run"], whole["run"], "{pool}");
        let mean = |result: &Value| {
            let ranking = result["ranking"].as_array().unwrap();
            ranking.iter().map(|of| of["correct"].as_f64().unwrap()).sum::<f64>() / ranking.len() as f64
        };
        let (correct, as_many) = (mean(&half), mean(&whole));
        assert!((correct - as_many).abs() < 0.02 * SAMPLES as f64, "{pool}: {correct} and {as_many}");
    }
}

#[test]
fn what_is_learned_is_learned_in_f32() {
    let dir = TempDir::new().unwrap();
    let train = example().join("data/val.parquet").display().to_string();
    let learned = ["--recipe", "learned", "--train", &train, "--epochs", "1", "--precision", "bf16"];
    cook(dir.path(), &learned).fails(2, &["needs gradients, which judge native does not give in flex-bf16"]);
}

#[cfg(feature = "vulkan")]
mod vulkan {
    use soup_tests::Cluster;

    use super::*;

    const DEVICE: [&str; 4] = ["--device", "vulkan:0", "--device-memory", "256MiB"];

    fn notes(result: &Value) -> String {
        result["notes"].to_string()
    }

    fn numerics(result: &Value) -> &str {
        result["judge"]["numerics"].as_str().unwrap()
    }

    /// What the recipe decided, and of what; scores too, but for losses, which other arithmetic moves in the last digits.
    fn decided(result: &Value) -> Vec<Value> {
        let trial = |t: &Value| serde_json::json!([t["candidate"], t["correct"], t["verdict"]]);
        let trials = result["trials"].as_array().unwrap().iter().map(trial);
        trials
            .chain([&result["ingredients"], &result["order"], &result["sha256"]].map(Clone::clone))
            .collect()
    }

    #[test]
    fn it_is_listed_compared_and_measured() {
        let all = devices(&[]);
        let vulkan = all.iter().find(|d| d["device"] == "vulkan:0").unwrap();
        assert!(vulkan.get("error").is_none(), "{vulkan:#}");
        assert!(vulkan["numerics"].as_str().unwrap().starts_with("vulkan-f32"), "{vulkan:#}");
        assert!(vulkan["copy_bytes_per_second"].as_f64().unwrap() > 0.0);
        assert!(vulkan["blend_bytes_per_second"].as_f64().unwrap() > 0.0);
    }

    /// Shards on the device, the host's arithmetic: then nothing at all may differ, learned weights included.
    #[test]
    fn blends_and_products_are_the_processors_to_the_bit() {
        let train = example().join("data/val.parquet").display().to_string();
        let learned = ["--recipe", "learned", "--train", &train, "--epochs", "1"];
        for recipe in [&["--recipe", "greedy"][..], &["--recipe", "pruned"], &learned] {
            let cooked = |more: &[&str]| {
                let dir = TempDir::new().unwrap();
                cook(dir.path(), &[recipe, more].concat()).json()
            };
            let host = cooked(&[]);
            let device = cooked(&[&DEVICE[..], &["--numerics", "flex"]].concat());
            for key in
                ["sha256", "ingredients", "score", "ranking", "trials", "learned", "baselines", "diagnosis"]
            {
                assert_eq!(device[key], host[key], "{recipe:?} {key}");
            }
            assert!(!notes(&device).contains("devices"), "{}", notes(&device));
            // A few of them on the device, the others beside it.
            let both = cooked(&["--device", "vulkan:0", "--device-memory", "6MiB", "--numerics", "flex"]);
            assert_eq!(both["sha256"], host["sha256"], "{recipe:?}");
            assert!(notes(&both).contains("memory of the workers' devices"), "{}", notes(&both));
        }
    }

    /// Judged there too: the same decisions by the same counts.
    #[test]
    fn the_device_judges_as_the_processor_does() {
        let cooked = |more: &[&str]| {
            let dir = TempDir::new().unwrap();
            cook(dir.path(), &[&["--recipe", "greedy", "--no-baselines"][..], more].concat()).json()
        };
        let (host, device) = (cooked(&[]), cooked(&DEVICE));
        assert!(numerics(&device).starts_with("vulkan-f32"), "{}", numerics(&device));
        assert_eq!(decided(&device), decided(&host));
        let loss = |of: &Value| of["score"]["loss"].as_f64().unwrap();
        assert!((loss(&device) - loss(&host)).abs() < 1e-4, "{} and {}", loss(&device), loss(&host));
        // The same bits in another process.
        assert_eq!(cooked(&DEVICE)["ranking"], device["ranking"]);
    }

    /// Texts, convolutions, prompts, numbers and answers in words.
    #[test]
    fn the_device_judges_other_families_as_the_processor_does() {
        let pools: [(&str, &str, &[&str]); 6] = [
            ("bert-reviews", "data/val.jsonl", &[]),
            ("bert-ratings", "data/val.jsonl", &["--metric", "mse"]),
            ("t5-reviews", "data/val.jsonl", &[]),
            ("t5-reviews", "data/val.jsonl", &["--decoding", "greedy"]),
            ("clip-shapes", "data/val.parquet", &[]),
            ("resnet-shapes", "data/val.parquet", &["--batch-norm", "average"]),
        ];
        for (pool, data, args) in pools {
            let path = example().with_file_name(pool);
            let cooked = |more: &[&str]| {
                let dir = TempDir::new().unwrap();
                cook_of(&path, data, dir.path(), &[&["--no-baselines"], args, more].concat()).json()
            };
            let (host, device) = (cooked(&[]), cooked(&DEVICE));
            assert!(numerics(&device).starts_with("vulkan-f32"), "{pool}: {}", numerics(&device));
            assert_eq!(decided(&device), decided(&host), "{pool} {args:?}");
        }
    }

    /// One worker on the device and one on the processor: their blends are the same, their judges are not.
    #[test]
    fn blends_may_mix_and_judges_may_not() {
        let mut cluster = Cluster::start(SOUPCTL, 1);
        cluster.add_worker_args(SOUPCTL, "", &["--device", "vulkan:0", "--device-memory", "6MiB"]);
        let cooked = |numerics: &[&str]| {
            let dir = TempDir::new().unwrap();
            let args =
                ["--recipe", "greedy", "--no-baselines", "--coordinator", &cluster.url, "--min-workers", "2"];
            cook(dir.path(), &[&args[..], numerics].concat()).json()
        };
        let by_all = cooked(&[]);
        let by_device = cooked(&["--numerics", "vulkan"]);
        assert_eq!(decided(&by_all), decided(&by_device));
        for result in [&by_all, &by_device] {
            assert!(notes(result).contains("memory of the workers' devices"), "{}", notes(result));
        }
        assert!(numerics(&by_device).starts_with("vulkan-f32"));
        assert_ne!(by_all["run"], by_device["run"]);
    }

    #[test]
    fn what_the_device_has_not_is_refused() {
        let dir = TempDir::new().unwrap();
        let on = |args: &[&str]| cook(dir.path(), &[&["--device", "vulkan:0"], args].concat());
        on(&["--device-memory", "100TiB"]).fails(78, &["of memory free, and --device-memory says"]);
        on(&["--precision", "tf32"]).fails(78, &["computes in f32 alone"]);
        cook(dir.path(), &["--device", "vulkan:99"]).fails(78, &["vulkan:99"]);
    }
}
