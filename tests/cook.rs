//! Cooking the example pool: every recipe gives what the reference implementation gave, on any number of workers.
//!
//! The references were computed with PyTorch and transformers (see the pool's README). Correct counts are compared
//! exactly; tensors by the SHA-256 of their bytes.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use soup_core::run::DatasetOptions;
use soup_eval::{Dataset, Input, LocalFiles, Target};
use soup_tests::{Output, Pool, Soupctl, example, example_json, strings, test_counts};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

fn cook(dir: &Path, args: &[&str]) -> Output {
    let file = example().join("cook.yaml");
    let file = file.to_str().unwrap();
    Soupctl::new(SOUPCTL).dir(dir).args(["cook", "-f", file, "-o", "json"]).args(args).run()
}

/// What `reference.json` says of a soup, against a result.
#[track_caller]
fn check_soup(result: &Value, name: &str) {
    let reference = &example_json("reference.json")["soups"][name];
    let mut chosen = strings(&reference["chosen"]);
    chosen.sort_unstable();
    assert_eq!(strings(&result["ingredients"]), chosen);
    let expected = |set: &str| reference["results"][set]["correct"].as_u64().unwrap();
    assert_eq!(result["score"]["correct"].as_u64(), Some(expected("val")));
    for (set, correct) in test_counts(result) {
        let reference = if set == "test" { set.clone() } else { format!("test_{set}") };
        assert_eq!(correct, expected(&reference), "{set}");
    }
    assert_eq!(result["sha256"], example_json("soups.json")[name]["sha256"], "the bits of the soup");
}

/// Every trial's ingredients, count and verdict, against the reference's steps: all of them were judged on all samples.
#[track_caller]
fn check_trials(result: &Value, name: &str, count: &str, verdict: &str) {
    let reference = &example_json("reference.json")["soups"][name];
    let steps: Vec<(&str, u64, bool)> = reference["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            (s["candidate"].as_str().unwrap(), s[count].as_u64().unwrap(), s[verdict].as_bool().unwrap())
        })
        .collect();
    let trials: Vec<(&str, u64, bool)> = result["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            (t["candidate"].as_str().unwrap(), t["correct"].as_u64().unwrap(), t["verdict"] == "accepted")
        })
        .collect();
    assert_eq!(trials, steps);
}

/// The same of verdicts that were certain before all samples were judged: they are those of the reference, and what could have been reached
/// at best is not less than what the reference counted. Gives the share of the samples that rejected trials took.
#[track_caller]
fn check_early(result: &Value, name: &str, count: &str, verdict: &str) -> f64 {
    let reference = &example_json("reference.json")["soups"][name];
    let (steps, trials) = (reference["steps"].as_array().unwrap(), result["trials"].as_array().unwrap());
    assert_eq!(trials.len(), steps.len());
    let (mut judged, mut of) = (0, 0);
    for (trial, step) in trials.iter().zip(steps) {
        assert_eq!(trial["candidate"], step["candidate"]);
        assert_eq!(trial["verdict"] == "accepted", step[verdict].as_bool().unwrap(), "{trial}");
        let counted = step[count].as_u64().unwrap();
        let [evaluated, out_of] = ["evaluated", "out_of"].map(|key| trial[key].as_u64().unwrap());
        match trial["bound"].as_f64() {
            None => assert_eq!((trial["correct"].as_u64(), evaluated), (Some(counted), out_of)),
            Some(bound) => {
                assert!(bound * out_of as f64 + 1e-6 >= counted as f64, "{trial} counts {counted}");
                assert!(bound < trial["bar"].as_f64().unwrap() + 1e-9 && evaluated < out_of, "{trial}");
                assert!(trial["correct"].is_null() && trial["verdict"] == "rejected", "{trial}");
            }
        }
        if trial["verdict"] == "rejected" {
            (judged, of) = (judged + evaluated, of + out_of);
        }
    }
    judged as f64 / of as f64
}

/// The soup beside the others on the same samples: what is gained and lost makes the difference of the counts.
#[track_caller]
fn check_significance(result: &Value) {
    let compared = result["significance"].as_array().unwrap();
    assert_eq!(compared.len(), 12, "six datasets, two others: {compared:#?}");
    let counts = |score: &Value| score["correct"].as_i64().unwrap();
    for of in compared {
        let (set, against) = (of["dataset"].as_str().unwrap(), of["against"].as_str().unwrap());
        let other = &result["baselines"][against.replace('-', "_")];
        let [soup, other] = match set {
            "validation" => [&result["score"], other],
            _ => [&result["test"][set], &other["test"][set]],
        };
        let gained = of["gains"].as_i64().unwrap() - of["losses"].as_i64().unwrap();
        assert_eq!(gained, counts(soup) - counts(other), "{of}");
        let (p, p_better) = (of["p"].as_f64().unwrap(), of["p_better"].as_f64().unwrap());
        assert!((0.0..=1.0).contains(&p) && (p_better < 0.5) == (gained > 0), "{of}");
        let [low, high] = [0, 1].map(|end| of["interval"][end].as_f64().unwrap());
        let difference = of["difference"].as_f64().unwrap();
        assert!(low <= difference && difference <= high, "{of}");
    }
}

/// A tar file of plain files: headers of ustar.
fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// The validation set as WebDataset has it: the same samples in the same order, and so the same soup.
#[test]
fn archives_of_samples_are_the_same_samples() {
    let dir = TempDir::new().unwrap();
    let files = Arc::new(LocalFiles::new(example().join("data/val.parquet")));
    let dataset = Dataset::open(files, &DatasetOptions::default()).unwrap();
    let samples = dataset.read(0..dataset.len()).unwrap();
    for (nth, part) in samples.chunks(700).enumerate() {
        let members = part.iter().enumerate().flat_map(|(at, sample)| {
            let (Input::Image(image), Target::Class(class)) = (&sample.input, sample.target) else {
                panic!("{sample:?}")
            };
            let name = format!("{:05}", nth * 700 + at);
            [(format!("{name}.cls"), class.to_string().into_bytes()), (format!("{name}.png"), image.to_vec())]
        });
        let archive = tar(&members.collect::<Vec<_>>());
        std::fs::write(dir.path().join(format!("fashion-val-{nth:06}.tar")), archive).unwrap();
    }
    let archives = dir.path().join("fashion-val-*.tar").display().to_string();
    let pool = example().display().to_string();
    let args =
        ["cook", "--pool", &pool, "--validation", &archives, "--recipe", "greedy", "--evaluate", "full"];
    let out = ["--no-baselines", "--output", "soup", "-o", "json"];
    let result = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args(out).run().json();
    check_soup(&result, "greedy");
    check_trials(&result, "greedy", "val_correct", "kept");
}

#[test]
fn greedy_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let result = cook(dir.path(), &["--recipe", "greedy", "--output", "soup"]).json();
    check_soup(&result, "greedy");
    let share = check_early(&result, "greedy", "val_correct", "kept");
    assert!(share < 0.2, "rejected trials took {share} of their samples");
    assert_eq!(
        strings(&result["order"]),
        strings(&example_json("reference.json")["soups"]["greedy"]["order"])
    );

    // The baselines and the ranking.
    let reference = example_json("reference.json");
    let best = &result["baselines"]["best_single"];
    assert_eq!(strings(&best["ingredients"]), [reference["best_individual"]["name"].as_str().unwrap()]);
    assert_eq!(best["test"]["test"]["correct"], reference["best_individual"]["test"]["correct"]);
    let uniform = &reference["soups"]["uniform"]["results"];
    assert_eq!(result["baselines"]["uniform"]["correct"], uniform["val"]["correct"]);
    assert_eq!(result["baselines"]["uniform"]["test"]["noisy"]["correct"], uniform["test_noisy"]["correct"]);
    for ranked in result["ranking"].as_array().unwrap() {
        let name = ranked["ingredient"].as_str().unwrap();
        assert_eq!(ranked["correct"], reference["ingredients"][name]["val"]["correct"], "{name}");
    }

    check_significance(&result);

    // A run that is done is answered at once, and held against gates.
    let gated = |gates: &[&str]| {
        let flags: Vec<&str> = gates.iter().flat_map(|gate| ["--gate", gate]).collect();
        cook(dir.path(), &[&["--recipe", "greedy", "--output", "soup"], &flags[..]].concat())
    };
    assert_eq!(
        gated(&["test>=best-single", "rotated>=best-single-0.2pt"]).json()["sha256"],
        result["sha256"]
    );
    let failed = gated(&["test>=85%", "rotated>=best-single"]);
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    assert!(failed.stderr.contains("rotated>=best-single: accuracy is 0.4690"), "{}", failed.stderr);
    assert!(failed.stdout.contains(result["sha256"].as_str().unwrap()), "the soup is there all the same");
    for nonsense in ["test<=85", "test>=85", "test>=-1"] {
        gated(&[nonsense]).fails(2, &[nonsense, "accuracy lies between 0 and 1", "85%"]);
    }
    gated(&["nothing>=0"]).fails(2, &["is about dataset \"nothing\", and the cook has validation, "]);

    // The folder is what Hugging Face tools expect, and the manifest says what it is.
    let folder = dir.path().join("soup");
    let expected = [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "report.html",
        "soup.json",
    ];
    assert_eq!(Pool::list(&folder), expected);
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("soup.json")).unwrap()).unwrap();
    assert_eq!(manifest["report"]["sha256"], result["sha256"]);
    assert_eq!(manifest["pool"].as_array().unwrap().len(), 16);
    assert_eq!(manifest["pool"][3]["files"][0]["bytes"], 835_136);
    let card = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(card.contains("model-soup") && card.contains("m10"), "{card}");

    // The digest is that of the file's data, as anybody can compute it.
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[8 + header..]);
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(result["sha256"], hex);
    assert_eq!(Pool::list(dir.path()), ["soup"], "nothing else is left");
}

#[test]
fn greedy_with_the_strict_rule_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let args = [
        "--recipe",
        "greedy",
        "--accept",
        "better",
        "--no-baselines",
        "--output",
        "soup",
        "--lookahead",
        "3",
    ];
    let result = cook(dir.path(), &args).json();
    check_soup(&result, "greedy_strict");
    let share = check_early(&result, "greedy_strict", "val_correct", "kept");
    assert!(share < 0.2, "rejected trials took {share} of their samples");
}

/// How often a fair coin that is thrown `n` times shows heads at least `k` times.
fn at_least(k: u64, n: u64) -> f64 {
    let ways = |k: u64| (1..=k).fold(1.0, |product, i| product * (n - k + i) as f64 / i as f64);
    (k..=n).map(ways).sum::<f64>() / 2f64.powi(n as i32)
}

#[test]
fn what_is_accepted_by_significance_is_what_its_test_says() {
    let dir = TempDir::new().unwrap();
    let significant = |alpha: &str, output: &str, more: &[&str]| {
        let flags = ["--accept", "significant", "--alpha", alpha, "--output", output];
        cook(dir.path(), &[&flags[..], more].concat()).json()
    };
    let result = significant("0.2", "soup", &[]);
    assert_eq!(strings(&result["ingredients"]), ["m02", "m10"]);
    assert_eq!(result["options"]["alpha"], 0.2);
    let trials = result["trials"].as_array().unwrap();
    let better = trials.iter().filter(|t| !t["compared"].is_null());
    for trial in better.clone() {
        let [gains, losses] = ["gains", "losses"].map(|key| trial["compared"][key].as_u64().unwrap());
        let p = trial["compared"]["p"].as_f64().unwrap();
        assert!((p - at_least(gains, gains + losses)).abs() < 1e-9, "{trial}");
        assert_eq!(trial["verdict"] == "accepted", p <= 0.2, "{trial}");
        let bar = (trial["bar"].as_f64().unwrap() * 2000.0).round() as u64;
        assert_eq!(trial["correct"].as_u64().unwrap() + losses, bar + gains, "{trial}");
    }
    // The reference has two that score better than what they had to reach: m02, and then m03 or m08.
    let shown: Vec<&str> = better.map(|t| t["candidate"].as_str().unwrap()).collect();
    assert_eq!(shown, ["m02", "m03", "m08"]);
    let full = significant("0.2", "full", &["--evaluate", "full", "--workers", "3"]);
    assert_eq!((&full["sha256"], &full["ingredients"]), (&result["sha256"], &result["ingredients"]));
    // By chance alone one in six would gain as much: at the usual level nothing is accepted.
    assert_eq!(strings(&significant("0.05", "none", &["--no-baselines"])["ingredients"]), ["m10"]);
    let log = |run: &Value| {
        Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["log", run.as_str().unwrap(), "--verify", "--state-url", ".soup-state"])
            .run()
            .stderr
    };
    assert!(log(&result["run"]).contains(", 3 comparisons sample by sample"), "{}", log(&result["run"]));
    cook(dir.path(), &["--accept", "significant", "--metric", "loss"]).fails(2, &["is a test of accuracies"]);
    cook(dir.path(), &["--alpha", "0.1"]).fails(2, &["belongs to accept significant"]);
}

#[test]
fn a_ranking_that_is_given_leads_to_the_same_soups_without_judging_the_ingredients() {
    let dir = TempDir::new().unwrap();
    let reference = example_json("reference.json");
    let val = |name: &str| reference["ingredients"][name]["val"]["correct"].as_u64().unwrap();
    let names: Vec<&String> = reference["ingredients"].as_object().unwrap().keys().collect();
    let csv: String = names.iter().map(|name| format!("{name},{}\n", val(name))).collect();
    std::fs::write(dir.path().join("scores.csv"), format!("model,correct\n{csv}")).unwrap();
    for recipe in ["greedy", "pruned"] {
        let flags = ["--recipe", recipe, "--ranked-by", "scores.csv", "--output", recipe, "--fresh"];
        let result = cook(dir.path(), &flags).json();
        let plain = cook(dir.path(), &["--recipe", recipe, "--output", "plain", "--overwrite"]).json();
        for same in ["sha256", "ingredients", "order", "score", "test"] {
            assert_eq!(result[same], plain[same], "{recipe} {same}");
        }
        // The best single ingredient is a baseline, and where greedy begins.
        assert_eq!(result["ranking"].as_array().unwrap().len(), 1, "{recipe}");
        assert_eq!(result["baselines"]["best_single"]["ingredients"], serde_json::json!(["m10"]));
        let notes = strings(&result["notes"]);
        assert!(notes.iter().any(|note| note.contains("ranked by scores that were given")), "{notes:?}");
        let run = result["run"].as_str().unwrap();
        let log = Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["log", run, "--verify", "--state-url", ".soup-state"])
            .run();
        assert!(log.stderr.contains("decisions made again"), "{log:?}");
    }
    let refused = |text: &str, flags: &[&str], part: &str| {
        std::fs::write(dir.path().join("s.json"), text).unwrap();
        let flags = [&["--ranked-by", "s.json", "--output", "none"], flags].concat();
        cook(dir.path(), &flags).fails(2, &[part]);
        assert!(!dir.path().join("none").exists());
    };
    refused(r#"{"m00": 1}"#, &[], "ingredient \"m01\" is not ranked");
    refused(r#"{"m00": 1, "m99": 2}"#, &[], "\"m99\" is ranked, but there is no ingredient of that name");
    refused(r#"{"m00": "1"}"#, &[], "not a JSON object from ingredients to scores");
    refused(r#"{"m00": 1}"#, &["--order", "random"], "and so does --order");
    refused(r#"{"m00": 1}"#, &["--recipe", "uniform"], "the uniform recipe takes none");
}

#[test]
fn on_all_samples_every_trial_counts_what_the_reference_does() {
    for (recipe, args) in [
        ("greedy", &["--recipe", "greedy"][..]),
        ("greedy_strict", &["--recipe", "greedy", "--accept", "better", "--lookahead", "2"]),
        ("pruned", &["--recipe", "pruned", "--order", "pool", "--passes", "2"]),
    ] {
        let dir = TempDir::new().unwrap();
        let full = ["--evaluate", "full", "--no-baselines", "--output", "soup"];
        let result = cook(dir.path(), &[args, &full].concat()).json();
        check_soup(&result, recipe);
        match recipe {
            "pruned" => check_trials(&result, recipe, "val_correct_without", "removed"),
            _ => check_trials(&result, recipe, "val_correct", "kept"),
        }
    }
}

#[test]
fn pruned_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let args =
        ["--recipe", "pruned", "--order", "pool", "--passes", "2", "--no-baselines", "--output", "soup"];
    let result = cook(dir.path(), &args).json();
    check_soup(&result, "pruned");
    let share = check_early(&result, "pruned", "val_correct_without", "removed");
    assert!(share < 0.3, "rejected trials took {share} of their samples");
}

#[test]
fn uniform_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let result = cook(dir.path(), &["--recipe", "uniform", "--no-baselines", "--output", "soup"]).json();
    check_soup(&result, "uniform");
    assert!(result["trials"].as_array().unwrap().is_empty());
}

/// A few ingredients and samples, for what does not depend on them.
fn small<'a>(pool: &'a Pool, validation: &'a str) -> Vec<&'a str> {
    vec!["cook", "--pool", pool.path().to_str().unwrap(), "--validation", validation, "-o", "json"]
}

#[test]
fn the_soup_does_not_depend_on_the_number_of_workers() {
    let pool = Pool::of(&["m02", "m03", "m07", "m10", "m13"]);
    let validation = example().join("data/test_noisy.parquet");
    let dir = TempDir::new().unwrap();
    let data_bytes = |name| {
        let bytes = std::fs::read(pool.file(name)).unwrap();
        bytes.len() as u64 - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap())
    };
    let pool_bytes: u64 = ["m02", "m03", "m07", "m10", "m13"].into_iter().map(data_bytes).sum();
    let mut results = Vec::new();
    for workers in ["1", "2", "3", "8"] {
        let args = ["--workers", workers, "--metric", "macro-f1", "--output", workers];
        let args = small(&pool, validation.to_str().unwrap()).into_iter().chain(args);
        let mut result = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).run().json();
        assert_eq!(
            result["pool_bytes_read"], pool_bytes,
            "{workers} workers read every byte of the pool once"
        );
        for changing in ["run", "output", "seconds"] {
            result.as_object_mut().unwrap().remove(changing);
        }
        results.push(result);
    }
    // Everything: digest, decisions, counts, and losses to the last bit.
    assert!(results.windows(2).all(|w| w[0] == w[1]), "{results:#?}");
}

/// What `soup.json` says of the ingredients' digests: by which algorithm, and the digests.
fn pool_digests(folder: &Path) -> (String, Vec<String>) {
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("soup.json")).unwrap()).unwrap();
    let of = |ingredient: &Value| ingredient["sha256"].as_str().unwrap().to_owned();
    let algorithm = manifest["pool_digest"]["algorithm"].as_str().unwrap().to_owned();
    (algorithm, manifest["pool"].as_array().unwrap().iter().map(of).collect())
}

#[test]
fn another_digest_of_the_ingredients_leads_to_the_same_soup() {
    let dir = TempDir::new().unwrap();
    let digests = |output: &str, flags: &[&str]| {
        let result = cook(dir.path(), &[&["--recipe", "uniform", "--output", output], flags].concat()).json();
        check_soup(&result, "uniform");
        pool_digests(&dir.path().join(output))
    };
    let (by, sha256) = digests("sha256", &[]);
    assert_eq!(by, "SHA-256 of the SHA-256 of each shard of the flattened parameters, in order");
    let (by, blake3) = digests("blake3", &["--digest", "blake3"]);
    assert_eq!(by, "SHA-256 of the BLAKE3 of each shard of the flattened parameters, in order");
    assert!(sha256.iter().all(|digest| !blake3.contains(digest)) && blake3.len() == 16);
    // From the disk, and in passes that keep nothing, it is the same.
    let disk = ["--digest", "blake3", "--memory", "1MiB", "--disk-cache", "cache"];
    std::fs::create_dir(dir.path().join("cache")).unwrap();
    assert_eq!(digests("disk", &[&disk[..], &["--audit", "100%"]].concat()).1, blake3);
    let pool = example();
    let streamed = ["cook", "--pool", pool.to_str().unwrap(), "--recipe", "uniform", "--digest", "blake3"];
    let streamed = [&streamed[..], &["--output", "streamed", "-o", "json"]].concat();
    Soupctl::new(SOUPCTL).dir(dir.path()).args(streamed).run().json();
    assert_eq!(pool_digests(&dir.path().join("streamed")).1, blake3);
}

#[test]
fn best_single_is_the_ingredient_itself() {
    let pool = Pool::of(&["m05", "m10"]);
    let validation = example().join("data/test_noisy.parquet");
    let dir = TempDir::new().unwrap();
    let args = small(&pool, validation.to_str().unwrap());
    let result = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args(args)
        .args(["--recipe", "best-single", "--output", "b"])
        .run()
        .json();
    assert_eq!(strings(&result["ingredients"]), ["m10"]);
    let data = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    assert!(data(&dir.path().join("b/model.safetensors")) == data(&pool.file("m10")));
}
