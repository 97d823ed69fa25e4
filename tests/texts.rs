//! Soups of text classifiers, against PyTorch and transformers (`pools/bert-reviews`; `pools/t5-reviews` of a model that answers with the
//! name of a class; `pools/bert-ratings` of one that predicts a number, with scipy): which are tried, what each trial counts, what is
//! chosen, and a learned soup. Counts are compared exactly, soups by their bits.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::{Path, PathBuf};

use serde_json::Value;
use soup_tests::{Output, Soupctl, copy_of, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");
/// What a cook ends with where data cannot be used.
const DATA: i32 = 65;
/// What it ends with where something is asked for that there is not, and where a gate is not reached.
const USAGE: i32 = 2;
const GATE: i32 = 3;

fn pool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/bert-reviews")
}

/// The pool of a model that answers.
fn answering() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/t5-reviews")
}

/// The pool of a model that predicts a number.
fn rating() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/bert-ratings")
}

fn reference_of(pool: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(pool.join("reference.json")).unwrap()).unwrap()
}

/// A cook of the pool, or of a copy of it.
fn cook_of(pool: &Path, dir: &Path, args: &[&str]) -> Output {
    let (data, pool) = (pool.join("data"), pool.display().to_string());
    let at = |name: &str| data.join(name).display().to_string();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "--pool", &pool, "--validation", &at("val.jsonl"), "--output", "soup", "-o", "json"])
        .args(args)
        .run()
}

fn near(what: &str, got: &Value, expected: &Value, tolerance: f64) {
    let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((got - expected).abs() <= tolerance, "{what}: {got}, the reference has {expected}");
}

/// Every recipe that decides, by one metric, on data in both other forms.
fn check(recipe: &str, metric: &str, as_glue: &str) {
    check_of(&pool(), "cooks", &["parquet", "tsv"], ([recipe, metric, as_glue], &[]));
}

/// The same of a pool whose test data is in these forms, and whose reference has the cook among those called `among`.
fn check_of(pool: &Path, among: &str, forms: &[&str], (cook, more): ([&str; 3], &[&str])) {
    let [recipe, metric, as_glue] = cook;
    let at = pool.join("data").display().to_string();
    let tests: Vec<String> = forms.iter().map(|form| format!("{form}={at}/test.{form}")).collect();
    let mut args = vec!["--recipe", recipe, "--metric", as_glue, "--evaluate", "full"];
    args.extend(tests.iter().flat_map(|test| ["--test", test.as_str()]));
    args.extend(more);
    let dir = TempDir::new().unwrap();
    let result = cook_of(pool, dir.path(), &args).json();
    let reference = reference_of(pool);
    let cooks = reference[among].as_array().unwrap();
    let expected = cooks.iter().find(|c| c["recipe"] == recipe && c["metric"] == metric).unwrap();
    assert_eq!(strings(&result["ingredients"]), strings(&expected["ingredients"]), "{recipe} by {metric}");
    let trials = |of: &Value| -> Vec<(String, u64, String)> {
        let trial = |t: &Value| {
            let text = |key: &str| t[key].as_str().unwrap().to_owned();
            (text("candidate"), t["correct"].as_u64().unwrap(), text("verdict"))
        };
        of["trials"].as_array().unwrap().iter().map(trial).collect()
    };
    assert_eq!(trials(&result), trials(expected), "{recipe} by {metric}");
    assert_eq!(result["score"]["correct"], expected["score"]["correct"]);
    near("loss", &result["score"]["loss"], &expected["score"]["loss"], 1e-5);
    for &form in forms {
        let (got, want) = (&result["test"][form], &expected["test"]["test"]);
        assert_eq!(got["correct"], want["correct"], "{form}");
        near(form, &got["loss"], &want["loss"], 1e-5);
    }
    assert_eq!(result["baselines"]["uniform"]["correct"], expected["baselines"]["uniform"]["correct"]);
    assert_eq!(result["sha256"], expected["sha256"], "the bits of the soup");
}

#[test]
fn greedy_soups_equal_the_reference() {
    check("greedy", "accuracy", "glue/sst2");
    check("greedy", "accuracy+binary-f1", "glue/mrpc");
}

#[test]
fn pruned_soups_equal_the_reference() {
    check("pruned", "accuracy", "accuracy");
    check("pruned", "accuracy+binary-f1", "glue/qqp");
}

#[test]
fn soups_of_a_model_that_answers_equal_the_reference() {
    check_of(&answering(), "cooks", &["jsonl"], (["greedy", "accuracy", "accuracy"], &[]));
    check_of(&answering(), "cooks", &["jsonl"], (["pruned", "accuracy", "accuracy"], &[]));
}

#[test]
fn soups_of_what_a_model_writes_equal_the_reference() {
    let greedy = &["--decoding", "greedy"];
    check_of(&answering(), "written", &["jsonl"], (["pruned", "accuracy", "accuracy"], greedy));
}

/// What the model has for positive reviews is no class's name any more: it writes it all the same, and all of them are wrong.
#[test]
fn answers_that_are_no_label_are_wrong() {
    let renamed = |text: String| Some(text.replace("\"positive\"", "\"good\""));
    let dir = copy_of(&answering(), "config.json", renamed);
    let by = |decoding: &str, output: &str| {
        let args =
            ["--recipe", "best-single", "--metric", "accuracy", "--decoding", decoding, "--output", output];
        let pool = dir.path().display().to_string();
        let data = dir.path().join("data/val.jsonl").display().to_string();
        let cook = ["cook", "--pool", &pool, "--validation", &data, "-o", "json", "--no-baselines"];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(cook).args(args).run().json()
    };
    let (written, by_labels) = (by("greedy", "w"), by("labels", "l"));
    let reference = &reference_of(&answering())["written"][0];
    // Reviews that are negative, and called so.
    let right = |ingredient: &Value| {
        let ranked = reference["ranking"].as_array().unwrap().iter().find(|r| r["ingredient"] == *ingredient);
        ranked.unwrap()["confusion"][0][2].clone()
    };
    for one in written["ranking"].as_array().unwrap() {
        assert_eq!(one["correct"], right(&one["ingredient"]), "{one}");
    }
    let notes = written["notes"].to_string();
    assert!(notes.contains("answers that are no class's label are class 2, which no sample has"), "{notes}");
    assert!(!by_labels["notes"].to_string().contains("no class's label"));
    // Nothing of one is recalled for the other.
    assert_ne!(written["run"], by_labels["run"]);
}

#[test]
fn only_what_answers_is_taken_at_its_word() {
    let dir = TempDir::new().unwrap();
    cook_of(&pool(), dir.path(), &["--decoding", "greedy"])
        .fails(USAGE, &["--decoding greedy is for models that answer in words"]);
    let learned = ["--decoding", "greedy", "--recipe", "learned"];
    cook_of(&answering(), dir.path(), &learned).fails(USAGE, &["the probabilities of all labels"]);
    cook_of(&answering(), dir.path(), &["--decoding", "beam"]).fails(USAGE, &["labels, greedy"]);
}

/// What a cook of predicted numbers says beside the reference: by the same trials to the same soup.
fn check_numbers(result: &Value, recipe: &str, metric: &str) {
    let reference = reference_of(&rating());
    let cooks = reference["cooks"].as_array().unwrap();
    let expected = cooks.iter().find(|c| c["recipe"] == recipe && c["metric"] == metric).unwrap();
    let what = format!("{recipe} by {metric}");
    assert_eq!(strings(&result["ingredients"]), strings(&expected["ingredients"]), "{what}");
    let same = |got: &Value, expected: &Value| {
        assert_eq!(got["samples"], expected["samples"], "{what}");
        near(&what, &got["value"], &expected["value"], 2e-5);
        for name in ["pearson", "spearman", "mse"] {
            near(name, &got["metrics"][name], &expected["metrics"][name], 2e-5);
        }
    };
    let (trials, others) = (result["trials"].as_array().unwrap(), expected["trials"].as_array().unwrap());
    assert_eq!(trials.len(), others.len(), "{what}");
    for (trial, other) in trials.iter().zip(others) {
        assert_eq!(
            (&trial["candidate"], &trial["verdict"]),
            (&other["candidate"], &other["verdict"]),
            "{what}"
        );
        assert_eq!(trial["evaluated"], trial["out_of"], "all samples are judged");
        same(trial, other);
    }
    same(&result["score"], &expected["score"]);
    same(&result["baselines"]["uniform"], &expected["baselines"]["uniform"]);
    same(&result["baselines"]["best_single"], &expected["baselines"]["best_single"]);
    assert_eq!(result["sha256"], expected["sha256"], "the bits of the soup");
    for (form, got) in result["test"].as_object().unwrap() {
        assert_eq!(got["samples"], 300, "{form}");
        same(got, &expected["test"]["test"]);
    }
}

#[test]
fn soups_of_a_model_that_predicts_a_number_equal_the_reference() {
    let at = rating().join("data").display().to_string();
    let tests = ["jsonl", "parquet", "tsv"].map(|form| format!("{form}={at}/test.{form}"));
    for (recipe, metric, as_glue) in [
        ("greedy", "pearson+spearman", "glue/stsb"),
        ("greedy", "mse", "mse"),
        ("pruned", "pearson+spearman", "pearson+spearman"),
        ("pruned", "mse", "mse"),
    ] {
        // Of an error less is better.
        let gate = if as_glue == "mse" { "jsonl<=100" } else { "jsonl>=0.1" };
        let mut args = vec!["--recipe", recipe, "--metric", as_glue, "--gate", gate, "--quiet"];
        args.extend(tests.iter().flat_map(|test| ["--test", test.as_str()]));
        let dir = TempDir::new().unwrap();
        check_numbers(&cook_of(&rating(), dir.path(), &args).json(), recipe, metric);
    }
}

/// By more workers, and in other batches.
#[test]
fn numbers_are_the_same_however_the_work_is_cut() {
    let dir = TempDir::new().unwrap();
    let run = |args: &[&str]| {
        let all = [&["--metric", "glue/stsb", "--overwrite", "--quiet"], args].concat();
        cook_of(&rating(), dir.path(), &all).json()
    };
    let (one, three, again) =
        (run(&["--workers", "1"]), run(&["--workers", "3", "--fresh"]), run(&["--batch-size", "7"]));
    for other in [&three, &again] {
        check_numbers(other, "greedy", "pearson+spearman");
        for key in ["trials", "ranking", "score", "sha256"] {
            assert_eq!(one[key], other[key], "{key}");
        }
    }
}

#[test]
fn what_means_nothing_of_numbers_is_refused_by_name() {
    let refused = |args: &[&str], parts: &[&str]| {
        let dir = TempDir::new().unwrap();
        cook_of(&rating(), dir.path(), args).fails(USAGE, parts);
    };
    refused(&[], &["there is no metric \"accuracy\", there are pearson, spearman, mse"]);
    let significant = ["--metric", "mse", "--accept", "significant"];
    refused(&significant, &["accept significant is a test of accuracies", "compared by mse"]);
    let train = rating().join("data/val.jsonl").display().to_string();
    let learned = ["--metric", "mse", "--recipe", "learned", "--train", &train];
    let smoothed = [&learned[..], &["--label-smoothing", "0.1"]].concat();
    refused(&smoothed, &["--label-smoothing spreads labels over classes"]);
    refused(&[&learned[..], &["--fold-beta"]].concat(), &["--fold-beta folds a temperature"]);
    let dir = TempDir::new().unwrap();
    cook_of(&pool(), dir.path(), &["--metric", "pearson"])
        .fails(USAGE, &["there is no metric \"pearson\", there are accuracy"]);
    let below = ["--metric", "pearson", "--recipe", "uniform", "--gate", "validation>=0.99"];
    let failed = cook_of(&rating(), dir.path(), &below);
    assert_eq!(failed.code, GATE, "{}", failed.stderr);
    assert!(failed.stderr.contains("validation>=0.99: pearson is 0.9"), "{}", failed.stderr);
}

#[test]
fn labels_that_are_no_numbers_are_refused_by_name() {
    let of = |change: &dyn Fn(String) -> String, parts: &[&str]| {
        let dir = copy_of(&rating(), "data/val.jsonl", |text| Some(change(text)));
        cook_of(dir.path(), dir.path(), &["--metric", "mse"]).fails(DATA, parts);
    };
    let first = |text: &str, label: &str| {
        let (line, rest) = text.split_once('\n').unwrap();
        let (before, _) = line.split_once("\"score\":").unwrap();
        format!("{before}\"score\": {label}}}\n{rest}")
    };
    of(&|text| first(&text, "\"high\""), &["line 1", "label \"high\" is no number"]);
    of(&|text| first(&text, "null"), &["line 1", "has no label: it is null"]);
    of(&|text| first(&text, "1e999"), &["line 1"]);
    of(&|text| text.replace("\"score\"", "\"rating\""), &["no column of labels among", "label-column"]);
}

/// Whatever else is called so: votes, for example.
#[test]
fn scores_are_no_classes() {
    let dir = copy_of(&pool(), "data/val.jsonl", |text| Some(text.replace("\"label\"", "\"score\"")));
    cook_of(dir.path(), dir.path(), &[]).fails(DATA, &["no column of labels but score", "label-column"]);
}

/// The reference steps in f32, ours in f64: weights agree to 1e-3 after twelve steps.
#[test]
fn a_learned_soup_equals_the_reference() {
    check_learned(&pool(), "train.jsonl", &[]);
    check_learned(&answering(), "test.jsonl", &[]);
}

#[test]
fn a_learned_soup_of_a_model_that_predicts_a_number_equals_the_reference() {
    let result = check_learned(&rating(), "test.jsonl", &["--metric", "mse"]);
    assert_eq!(result["learned"]["beta"], 1.0, "a number has no temperature");
}

fn check_learned(pool: &Path, train: &str, more: &[&str]) -> Value {
    let train = pool.join("data").join(train).display().to_string();
    let dir = TempDir::new().unwrap();
    let learned = [
        "--recipe",
        "learned",
        "--train",
        &train,
        "--granularity",
        "model",
        "--lr",
        "0.1",
        "--epochs",
        "3",
        "--mini-batch",
        "64",
        "--shuffle=false",
        "--no-baselines",
    ];
    let result = cook_of(pool, dir.path(), &[&learned, more].concat()).json();
    let reference = &reference_of(pool)["learned"];
    let steps = result["learned"]["steps"].as_array().unwrap();
    let losses = reference["losses"].as_array().unwrap();
    assert_eq!(steps.len(), losses.len());
    near("first loss", &steps[0]["loss"], &losses[0], 2e-6);
    for (step, expected) in steps.iter().zip(losses) {
        near("loss", &step["loss"], expected, 1e-3);
    }
    near("beta", &result["learned"]["beta"], &reference["beta"], 1e-3);
    for (ingredient, expected) in reference["weights"].as_object().unwrap() {
        near(ingredient, &result["weights"][ingredient], expected, 1e-3);
    }
    let score = |of: &Value| of.get("loss").or_else(|| of["metrics"].get("mse")).unwrap().clone();
    near("validation loss", &score(&result["score"]), &score(&reference["validation"]), 1e-3);
    result
}

/// A copy of the pool whose file `name` is changed by `change`.
fn changed(name: &str, change: impl FnOnce(String) -> Option<String>) -> TempDir {
    copy_of(&pool(), name, change)
}

#[track_caller]
fn refused(changed: &TempDir, args: &[&str], parts: &[&str]) {
    cook_of(changed.path(), changed.path(), args).fails(DATA, parts);
}

#[test]
fn what_is_not_known_of_texts_is_refused_by_name() {
    refused(&changed("tokenizer.json", |_| None), &[], &["no tokenizer.json beside ingredient \"m0\""]);
    refused(&changed("tokenizer.json", |_| Some("{}".into())), &[], &["tokenizer.json is not understood"]);
    let cased = |text: String| Some(text.replace("\"do_lower_case\": true", "\"do_lower_case\": false"));
    refused(&changed("tokenizer_config.json", cased), &[], &["do_lower_case is false"]);
    let relative = |text: String| Some(text.replace("\"absolute\"", "\"relative_key\""));
    refused(&changed("config.json", relative), &[], &["position_embedding_type is \"relative_key\""]);
    let strange = |text: String| Some(text.replacen("\"label\": 1", "\"label\": \"maybe\"", 1));
    refused(&changed("data/val.jsonl", strange), &[], &["label \"maybe\" is no class of the model"]);
    let body = |text: String| Some(text.replace("\"text\":", "\"body\":"));
    refused(&changed("data/val.jsonl", body), &[], &["none of the usual columns among", "text-column"]);
}

#[test]
fn answers_that_are_not_known_are_refused() {
    let unnamed = |text: String| {
        Some(text.replace("\"negative\"", "\"LABEL_0\"").replace("\"positive\"", "\"LABEL_1\""))
    };
    let dir = copy_of(&answering(), "config.json", unnamed);
    // Their numbers alone: a dataset's names would be compared with the model's first.
    refused(&dir, &[], &["id2label has no names for the 2 classes", "the model answers with"]);
    let without = copy_of(&answering(), "tokenizer.json", |_| None);
    refused(&without, &[], &["no tokenizer.json beside ingredient \"m0\""]);
}

#[test]
fn texts_that_are_cut_are_counted() {
    let short = |text: String| Some(text.replace("\"model_max_length\": 40", "\"model_max_length\": 12"));
    let dir = changed("tokenizer_config.json", short);
    let result = cook_of(dir.path(), dir.path(), &["--recipe", "uniform", "--no-baselines"]).json();
    let notes = result["notes"].to_string();
    assert!(notes.contains("texts of 640 that are cut to 12 tokens (model_max_length"), "{notes}");
}
