//! Soups of models whose classes are what prompts say, against PyTorch and transformers (`pools/clip-shapes`): which are tried, what each
//! trial counts, what is chosen, and a learned soup. Counts are compared exactly, soups by their bits.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::{Path, PathBuf};

use serde_json::Value;
use soup_tests::{Output, Soupctl, copy_of, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");
/// What a cook ends with where data cannot be used.
const DATA: i32 = 65;

fn pool() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/clip-shapes")
}

fn reference() -> Value {
    serde_json::from_str(&std::fs::read_to_string(pool().join("reference.json")).unwrap()).unwrap()
}

fn data(name: &str) -> String {
    pool().join("data").join(name).display().to_string()
}

/// A cook of the pool, or of a copy of it.
fn cook_of(pool: &Path, dir: &Path, args: &[&str]) -> Output {
    let pool = pool.display().to_string();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args([
            "cook",
            "--pool",
            &pool,
            "--validation",
            &data("val.parquet"),
            "--output",
            "soup",
            "-o",
            "json",
        ])
        .args(args)
        .run()
}

fn near(what: &str, got: &Value, expected: &Value, tolerance: f64) {
    let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((got - expected).abs() <= tolerance, "{what}: {got}, the reference has {expected}");
}

#[track_caller]
fn same_score(what: &str, got: &Value, want: &Value) {
    assert_eq!(got["correct"], want["correct"], "{what}");
    near(what, &got["loss"], &want["loss"], 1e-5);
}

#[test]
fn soups_equal_the_reference() {
    let test = format!("test={}", data("test.parquet"));
    for recipe in ["greedy", "pruned"] {
        let dir = TempDir::new().unwrap();
        let args = ["--recipe", recipe, "--evaluate", "full", "--test", &test];
        let result = cook_of(&pool(), dir.path(), &args).json();
        let reference = reference();
        let cooks = reference["cooks"].as_array().unwrap();
        let expected = cooks.iter().find(|c| c["recipe"] == recipe).unwrap();
        assert_eq!(strings(&result["ingredients"]), strings(&expected["ingredients"]), "{recipe}");
        let trials = |of: &Value| -> Vec<(String, u64, String)> {
            let trial = |t: &Value| {
                let text = |key: &str| t[key].as_str().unwrap().to_owned();
                (text("candidate"), t["correct"].as_u64().unwrap(), text("verdict"))
            };
            of["trials"].as_array().unwrap().iter().map(trial).collect()
        };
        assert_eq!(trials(&result), trials(expected), "{recipe}");
        let ranking = |of: &Value| -> Vec<(Value, Value)> {
            let ingredient = |i: &Value| (i["ingredient"].clone(), i["correct"].clone());
            let mut all: Vec<_> = of["ranking"].as_array().unwrap().iter().map(ingredient).collect();
            all.sort_by_key(|(name, _)| name.to_string());
            all
        };
        assert_eq!(ranking(&result), ranking(expected), "{recipe}");
        same_score(recipe, &result["score"], &expected["score"]);
        same_score(recipe, &result["test"]["test"], &expected["test"]["test"]);
        for of in ["uniform", "best_single"] {
            same_score(of, &result["baselines"][of], &expected["baselines"][of]);
        }
        assert_eq!(result["sha256"], expected["sha256"], "the bits of the soup");
        // It is judged by the same prompts wherever it goes.
        let prompts = std::fs::read(dir.path().join("soup/prompts.json")).unwrap();
        assert_eq!(prompts, std::fs::read(pool().join("prompts.json")).unwrap());
    }
}

#[test]
fn a_uniform_soup_equals_the_reference() {
    let dir = TempDir::new().unwrap();
    let result = cook_of(&pool(), dir.path(), &["--recipe", "uniform"]).json();
    same_score("uniform", &result["score"], &reference()["cooks"][0]["baselines"]["uniform"]);
}

/// The reference steps in f32, ours in f64: weights agree to 1e-3 after six steps through both towers.
#[test]
fn a_learned_soup_equals_the_reference() {
    let (dir, train) = (TempDir::new().unwrap(), data("train.parquet"));
    let args = ["--recipe", "learned", "--train", &train, "--granularity", "model", "--lr", "0.1"];
    let more = ["--epochs", "3", "--mini-batch", "64", "--shuffle=false", "--no-baselines"];
    let result = cook_of(&pool(), dir.path(), &[&args[..], &more].concat()).json();
    let reference = &reference()["learned"];
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
    near("validation loss", &result["score"]["loss"], &reference["validation"]["loss"], 1e-3);
}

/// A copy of the pool whose file `name` is changed by `change`, or left out.
fn changed(name: &str, change: impl FnOnce(String) -> Option<String>) -> TempDir {
    copy_of(&pool(), name, change)
}

#[track_caller]
fn refused(changed: &TempDir, parts: &[&str]) {
    cook_of(changed.path(), changed.path(), &["--recipe", "uniform"]).fails(DATA, parts);
}

#[test]
fn what_is_not_known_of_prompts_is_refused_by_name() {
    refused(
        &changed("prompts.json", |_| None),
        &["no prompts.json beside ingredient \"m0\"", "compares images with texts"],
    );
    refused(&changed("tokenizer.json", |_| None), &["no tokenizer.json beside ingredient \"m0\""]);
    refused(
        &changed("preprocessor_config.json", |_| None),
        &["no preprocessor_config.json", "how images become pixels is not known"],
    );
    // As long as the other in tokens.
    let other = |text: String| Some(text.replace("\"triangle\"", "\"picture\""));
    refused(&changed("prompts.json", other), &["triangle"]);
    let long =
        |text: String| Some(text.replace("a photo of a {}.", &format!("{}{{}}", "a photo ".repeat(6))));
    refused(&changed("prompts.json", long), &["is too long: it would be cut to 12 tokens"]);
}

/// The file of a golden model of open_clip.
fn of_open_clip(name: &str) -> PathBuf {
    let golden = "../crates/soup-eval/tests/golden/models/open_clip";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(golden).join(name)
}

/// Folders as open_clip's hub has them, twice the same model: its own configuration, names and preprocessing. The files are named, since
/// such folders often have a `model.safetensors` of transformers besides.
#[test]
fn a_pool_of_open_clip_is_cooked_as_it_is() {
    let dir = TempDir::new().unwrap();
    let pool = dir.path().join("pool");
    for ingredient in ["a", "b"] {
        let folder = pool.join(ingredient);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(of_open_clip("model.safetensors"), folder.join("open_clip_model.safetensors")).unwrap();
        std::fs::copy(of_open_clip("open_clip_config.json"), folder.join("open_clip_config.json")).unwrap();
        let mut words = std::fs::read_to_string(of_open_clip("tokenizer.json")).unwrap();
        for (nth, class) in ["circle", "square", "triangle", "cross"].iter().enumerate() {
            words = words.replace(&format!("\"w{}\":", nth + 11), &format!("\"{class}\":"));
        }
        std::fs::write(folder.join("tokenizer.json"), words).unwrap();
        let prompts =
            r#"{"classes": ["circle", "square", "triangle", "cross"], "templates": ["w1 {}", "{} w2"]}"#;
        std::fs::write(folder.join("prompts.json"), prompts).unwrap();
    }
    let named = pool.join("*/open_clip_model.safetensors");
    let result = cook_of(&named, dir.path(), &["--recipe", "greedy"]).json();
    assert_eq!(result["ingredients"].as_array().unwrap().len(), 2);
    assert_eq!(result["score"]["total"], 160);
    // Of two that are the same the soup is the same, too.
    let single = &result["baselines"]["best_single"];
    assert_eq!(
        (&result["score"]["correct"], &result["score"]["loss"]),
        (&single["correct"], &single["loss"])
    );
    let soup = dir.path().join("soup");
    let config = std::fs::read(soup.join("open_clip_config.json")).unwrap();
    assert_eq!(config, std::fs::read(of_open_clip("open_clip_config.json")).unwrap());
    let names = |file: &Path| -> Vec<String> {
        let bytes = std::fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = tensors.names().iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&soup.join("model.safetensors")), names(&of_open_clip("model.safetensors")));
    // What open_clip would make another model of is refused before anything is loaded.
    let config = String::from_utf8(config)
        .unwrap()
        .replace("\"vision_cfg\": {", "\"vision_cfg\": {\"pool_type\": \"avg\",");
    for ingredient in ["a", "b"] {
        std::fs::write(pool.join(ingredient).join("open_clip_config.json"), &config).unwrap();
    }
    let refused = cook_of(&named, dir.path(), &["--recipe", "uniform", "--overwrite"]);
    refused.fails(DATA, &["vision_cfg.pool_type is \"avg\": only \"tok\" is supported"]);
}
