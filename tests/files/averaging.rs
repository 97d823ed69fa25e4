//! Averaging without data: no validation set, any architecture, any dtype.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use soup_core::plan::PlanReport;
use soup_tests::{Output, Pool, Soupctl};
use tempfile::TempDir;

use crate::fixture::{Place, SOUPCTL, noted};

/// Values of ingredient `index` for tensor `at`: nothing that a sum in another order or a narrower float would leave as it is.
fn value(index: usize, at: usize) -> f64 {
    ((index * 7919 + at * 104_729) % 65_521) as f64 / 65_521.0 - 0.4 + 1e-9 * index as f64
}

fn bytes(dtype: Dtype, values: impl Iterator<Item = f64>) -> Vec<u8> {
    values
        .flat_map(|v| match dtype {
            Dtype::F64 => v.to_le_bytes().to_vec(),
            Dtype::F32 => (v as f32).to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f64(v).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f64(v).to_le_bytes().to_vec(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn numbers(view: &TensorView<'_>) -> Vec<f64> {
    let data = view.data();
    match view.dtype() {
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f64()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f64()).collect(),
        other => panic!("{other:?}"),
    }
}

const NAMES: [&str; 3] = ["embeddings.word.weight", "encoder.layer.0.dense.weight", "pooler.dense.bias"];

/// A pool of checkpoints of no architecture that is known here, without any small file: `pool/NAME.safetensors`.
fn pool(names: &[&str], dtype: Dtype) -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("pool")).unwrap();
    for (index, name) in names.iter().enumerate() {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = NAMES
            .iter()
            .enumerate()
            .map(|(t, name)| {
                let shape = vec![5 + t, 33];
                let count = shape.iter().product::<usize>();
                ((*name).to_owned(), shape, bytes(dtype, (0..count).map(|at| value(index, at + 1000 * t))))
            })
            .collect();
        let step = (index as i64).to_le_bytes();
        let mut views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(n, s, b)| (n.as_str(), TensorView::new(dtype, s.clone(), b).unwrap()))
            .collect();
        views.push(("step", TensorView::new(Dtype::I64, vec![], &step).unwrap()));
        let file = dir.path().join(format!("pool/{name}.safetensors"));
        std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    dir
}

fn cook(dir: &Path, args: &[&str]) -> Output {
    let common = [
        "cook",
        "--pool",
        "pool",
        "--output",
        "soup",
        "--overwrite",
        "-o",
        "json",
        "--quiet",
        "--memory",
        "100MiB",
    ];
    Soupctl::new(SOUPCTL).dir(dir).args(common).args(args).run()
}

/// Demands that the soup is `weights` times the ingredients, summed in pool order in f64 and rounded once; `None`: the mean.
#[track_caller]
fn check(dir: &Path, names: &[&str], weights: Option<&[f64]>) {
    let files: Vec<Vec<u8>> =
        names.iter().map(|n| std::fs::read(dir.join(format!("pool/{n}.safetensors"))).unwrap()).collect();
    let ingredients: Vec<_> = files.iter().map(|f| SafeTensors::deserialize(f).unwrap()).collect();
    let file = std::fs::read(dir.join("soup/model.safetensors")).unwrap();
    let soup = SafeTensors::deserialize(&file).unwrap();
    for name in NAMES {
        let all: Vec<Vec<f64>> = ingredients.iter().map(|i| numbers(&i.tensor(name).unwrap())).collect();
        let sum = |at: usize| match weights {
            None => all.iter().fold(-0.0, |sum, v| sum + v[at]) / all.len() as f64,
            Some(w) => {
                all.iter().zip(w).filter(|(_, w)| **w != 0.0).fold(-0.0, |sum, (v, w)| sum + w * v[at])
            }
        };
        let got = soup.tensor(name).unwrap();
        let expected = bytes(got.dtype(), (0..all[0].len()).map(sum));
        assert_eq!(got.data(), expected, "{name}");
    }
    assert_eq!(soup.tensor("step").unwrap().data(), ingredients[0].tensor("step").unwrap().data());
}

#[test]
fn any_tensors_of_any_float_are_averaged_without_data_or_configuration() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let dir = pool(&["a", "b", "c"], dtype);
        let result = cook(dir.path(), &["--recipe", "uniform"]).json();
        check(dir.path(), &["a", "b", "c"], None);
        assert_eq!(result.get("score"), None);
        assert_eq!(result.get("validation"), None);
        assert_eq!(result["ingredients"], json!(["a", "b", "c"]));
        // What needs no data is there.
        assert_eq!(result["diagnosis"]["ingredients"].as_array().unwrap().len(), 3);
        let page = std::fs::read_to_string(dir.path().join("soup/report.html")).unwrap();
        assert!(page.contains("not scored"), "the page says so");
    }
}

#[test]
fn the_bits_do_not_depend_on_the_workers_or_on_whether_it_is_judged() {
    let dir = pool(&["a", "b", "c"], Dtype::F32);
    let sha = |args: &[&str]| {
        let args = [&["--recipe", "uniform", "--fresh"], args].concat();
        cook(dir.path(), &args).json()["sha256"].clone()
    };
    let one = sha(&["--workers", "1"]);
    assert_eq!(sha(&["--workers", "3"]), one);
    let example = Pool::of(&["m00", "m01", "m02"]);
    let place = TempDir::new().unwrap();
    let cooked = |args: &[&str]| -> Value {
        let pool = example.path().to_str().unwrap();
        let common = [
            "cook",
            "--pool",
            pool,
            "--recipe",
            "uniform",
            "--output",
            "soup",
            "--overwrite",
            "-o",
            "json",
            "-q",
        ];
        Soupctl::new(SOUPCTL).dir(place.path()).args(common).args(args).run().json()
    };
    let data = soup_tests::example().join("data/test_noisy.parquet");
    let judged = cooked(&["--validation", data.to_str().unwrap(), "--no-baselines"]);
    assert_eq!(judged["sha256"], cooked(&[])["sha256"]);
}

#[test]
fn weights_are_taken_as_they_are_given() {
    let dir = pool(&["a", "b", "c"], Dtype::F32);
    std::fs::write(dir.path().join("w.json"), r#"{"a": 0.1, "b": 0, "c": 1.2}"#).unwrap();
    let result = cook(dir.path(), &["--recipe", "weighted", "--weights-file", "w.json"]).json();
    check(dir.path(), &["a", "b", "c"], Some(&[0.1, 0.0, 1.2]));
    assert_eq!(result["ingredients"], json!(["a", "c"]));
    assert_eq!(result["weights"], json!({"a": 0.1, "c": 1.2}));
    noted(&result, &["add up to 1.3"]);
    // The same in a cook file, from which it goes on by itself.
    let text = "pool: pool\nrecipe: weighted\noutput: soup2\ningredient-weights: {a: 0.1, b: 0, c: 1.2}\n";
    std::fs::write(dir.path().join("cook.yaml"), text).unwrap();
    let again = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args(["cook", "-f", "cook.yaml", "-o", "json", "-q"])
        .run()
        .json();
    assert_eq!(again["sha256"], result["sha256"]);
}

#[test]
fn layers_and_tensors_may_have_weights_of_their_own() {
    let dir = pool(&["a", "b"], Dtype::F64);
    let weights = r#"{"a": {"*": 0.25, "embeddings": 1}, "b": {"*": 0.75, "embeddings.word.weight": 0}}"#;
    std::fs::write(dir.path().join("w.json"), weights).unwrap();
    cook(dir.path(), &["--recipe", "weighted", "--weights-file", "w.json"]).json();
    let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
    let (a, soup) = (read("pool/a.safetensors"), read("soup/model.safetensors"));
    let (a, soup) = (SafeTensors::deserialize(&a).unwrap(), SafeTensors::deserialize(&soup).unwrap());
    assert_eq!(soup.tensor(NAMES[0]).unwrap().data(), a.tensor(NAMES[0]).unwrap().data());
    assert_ne!(soup.tensor(NAMES[1]).unwrap().data(), a.tensor(NAMES[1]).unwrap().data());
}

#[test]
fn weights_that_do_not_fit_the_pool_are_refused() {
    let dir = pool(&["a", "b"], Dtype::F32);
    let refused = |weights: &str, parts: &[&str]| {
        std::fs::write(dir.path().join("w.json"), weights).unwrap();
        cook(dir.path(), &["--recipe", "weighted", "--weights-file", "w.json"]).fails(2, parts);
    };
    refused(r#"{"a": 1}"#, &["\"b\" has no weight"]);
    refused(r#"{"a": 1, "b": 1, "m": 1}"#, &["\"m\" has a weight"]);
    refused(r#"{"a": 1, "b": {"nothing": 1, "*": 0}}"#, &["\"nothing\""]);
    refused(r#"{"a": 1, "b": "much"}"#, &["w.json"]);
    refused("[1]", &["w.json"]);
    // Of two weights for one name, which is meant is not known.
    refused(r#"{"a": 1, "b": 0, "a": 0.5}"#, &["w.json", "\"a\" is named twice"]);
    refused(r#"{"a": {"*": 1, "embeddings": 1, "embeddings": 0}, "b": 0}"#, &["each named once"]);
    // What is copied has no weight.
    refused(r#"{"a": {"*": 1, "step": 2}, "b": 0}"#, &["\"step\"", "not averaged"]);
    for twice in ["{a: 1, b: 0, a: 0.5}", "{a: {'*': 1, '*': 0.5}, b: 0}"] {
        let text = format!("pool: pool\nrecipe: weighted\noutput: soup2\ningredient-weights: {twice}\n");
        std::fs::write(dir.path().join("cook.yaml"), text).unwrap();
        Soupctl::new(SOUPCTL)
            .dir(dir.path())
            .args(["cook", "-f", "cook.yaml"])
            .run()
            .fails(2, &["cook.yaml"]);
    }
    cook(dir.path(), &["--recipe", "weighted"]).fails(2, &["--weights-file"]);
    cook(dir.path(), &["--recipe", "uniform", "--weights-file", "w.json"]).fails(2, &["weighted recipe"]);
}

#[test]
fn what_decides_by_scores_needs_data() {
    let dir = pool(&["a", "b"], Dtype::F32);
    for recipe in ["greedy", "pruned", "best-single", "learned"] {
        cook(dir.path(), &["--recipe", recipe]).fails(2, &["--validation", recipe]);
    }
    cook(dir.path(), &["--recipe", "uniform", "--test", "t=x.parquet"]).fails(2, &["--validation"]);
    cook(dir.path(), &["--recipe", "uniform", "--diagnose", "full"]).fails(2, &["--validation"]);
    cook(dir.path(), &["--recipe", "uniform", "--class-subset"])
        .fails(2, &["--validation", "--class-subset"]);
}

#[test]
fn a_weighted_soup_is_scored_where_data_is_given() {
    let place = Place::with(&["a", "b"]);
    place.write("w.json", r#"{"a": 0.5, "b": 0.5}"#);
    let validation = crate::fixture::animals().join("validation.parquet");
    let weighted =
        ["cook", "--pool", "pool", "--recipe", "weighted", "--weights-file", "w.json", "--output", "soup"];
    let data = ["--validation", validation.to_str().unwrap(), "-o", "json", "-q"];
    let result = place.call(&[&weighted[..], &data].concat()).json();
    assert_eq!(result["score"]["correct"], 12);
    let plan = ["plan", "--pool", "pool", "--recipe", "weighted", "--weights-file", "w.json", "-o", "json"];
    assert_eq!(place.call(&plan).json()["evaluations"]["validation_max"], 0);
}

#[test]
fn an_averaged_run_is_in_the_books_like_any_other() {
    let dir = pool(&["a", "b"], Dtype::F32);
    let first = cook(dir.path(), &["--recipe", "uniform"]).json();
    let run = first["run"].as_str().unwrap();
    let call = |args: &[&str]| Soupctl::new(SOUPCTL).dir(dir.path()).args(args).run();
    assert_eq!(call(&["log", run, "--verify", "--state-url", ".soup-state"]).code, 0);
    let status = call(&["status", run, "--state-url", ".soup-state", "-o", "json"]).json();
    assert_eq!(status["state"], "published", "{status}");
    // Asked for again it is there.
    let args = ["cook", "--pool", "pool", "--output", "soup", "--recipe", "uniform", "-o", "json", "-q"];
    assert_eq!(call(&args).json()["sha256"], first["sha256"]);
}

/// Writes `pool/NAME.safetensors` with these tensors of 6 elements each: name, dtype, and a seed of the values.
fn ingredient(dir: &Path, name: &str, tensors: &[(&str, Dtype, usize)]) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, seed)| match dtype {
            Dtype::I64 => (0..6i64).flat_map(|v| (v + *seed as i64).to_le_bytes()).collect(),
            float => bytes(*float, (0..6).map(|at| value(*seed, at))),
        })
        .collect();
    let view = |((name, dtype, _), data): (&(&'static str, Dtype, usize), &'static [u8])| {
        (*name, TensorView::new(*dtype, vec![2, 3], data).unwrap())
    };
    let tensors: Vec<(&'static str, Dtype, usize)> =
        tensors.iter().map(|(n, d, s)| (&*n.to_string().leak(), *d, *s)).collect();
    let views: Vec<_> = tensors.iter().zip(data.into_iter().map(|d| &*d.leak())).map(view).collect();
    std::fs::create_dir_all(dir.join("pool")).unwrap();
    let file = dir.join(format!("pool/{name}.safetensors"));
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The soup's tensors: name, dtype, data.
fn soup_of(dir: &Path) -> Vec<(String, Dtype, Vec<u8>)> {
    let file = std::fs::read(dir.join("soup/model.safetensors")).unwrap();
    let soup = SafeTensors::deserialize(&file).unwrap();
    let mut all: Vec<_> =
        soup.iter().map(|(n, view)| (n.to_owned(), view.dtype(), view.data().to_vec())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The mean over ingredients of what is stored in `dtypes`, with these seeds, rounded once to `out`.
fn mean(out: Dtype, stored: &[(Dtype, usize)]) -> Vec<u8> {
    let stored: Vec<Vec<f64>> = stored
        .iter()
        .map(|(dtype, seed)| {
            let data = bytes(*dtype, (0..6).map(|at| value(*seed, at)));
            numbers(&TensorView::new(*dtype, vec![6], &data).unwrap())
        })
        .collect();
    bytes(out, (0..6).map(|at| stored.iter().fold(-0.0, |sum, v| sum + v[at]) / stored.len() as f64))
}

#[test]
fn ingredients_of_other_dtypes_are_averaged_from_what_they_store() {
    let dir = TempDir::new().unwrap();
    for (seed, (name, dtype)) in [("a", Dtype::F32), ("b", Dtype::BF16), ("c", Dtype::F16)].iter().enumerate()
    {
        ingredient(dir.path(), name, &[("w", *dtype, seed), ("ids", Dtype::I64, 0)]);
    }
    // Nobody guesses which one is meant.
    cook(dir.path(), &["--recipe", "uniform"]).fails(65, &["\"w\" is BF16", "\"a\" has F32", "--out-dtype"]);
    let stored = [(Dtype::F32, 0), (Dtype::BF16, 1), (Dtype::F16, 2)];
    for (flag, out) in
        [("bf16", Dtype::BF16), ("float32", Dtype::F32), ("f16", Dtype::F16), ("float64", Dtype::F64)]
    {
        let result = cook(dir.path(), &["--recipe", "uniform", "--out-dtype", flag]).json();
        noted(&result, &["stored as F32 and F16 and BF16"]);
        let soup = soup_of(dir.path());
        assert_eq!((soup[1].0.as_str(), soup[1].1), ("w", out));
        assert_eq!(soup[1].2, mean(out, &stored), "{flag}");
        assert_eq!(soup[0].1, Dtype::I64, "integers stay what they are");
        // Geometry is of what is stored, whatever becomes of it.
        assert_eq!(result["diagnosis"]["ingredients"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_dtype_that_cannot_hold_the_soup_is_refused() {
    let dir = pool(&["a", "b"], Dtype::F16);
    std::fs::write(dir.path().join("w.json"), r#"{"a": 90000, "b": 90000}"#).unwrap();
    let weighted = ["--recipe", "weighted", "--weights-file", "w.json"];
    cook(dir.path(), &weighted).fails(65, &["\"embeddings.word.weight\"", "F16 cannot hold", "--out-dtype"]);
    assert!(!dir.path().join("soup").exists());
    cook(dir.path(), &[&weighted[..], &["--out-dtype", "bf16"]].concat()).json();
}

#[test]
fn tensors_that_only_some_have_are_refused_left_out_or_taken() {
    let dir = TempDir::new().unwrap();
    let (w, v) = (("w", Dtype::F32, 1), ("v", Dtype::F32, 2));
    ingredient(dir.path(), "a", &[w, v]);
    ingredient(dir.path(), "b", &[("pooler", Dtype::F32, 7), ("w", Dtype::F32, 3), ("v", Dtype::F32, 4)]);
    ingredient(dir.path(), "c", &[("pooler", Dtype::F32, 9), ("w", Dtype::F32, 5)]);
    cook(dir.path(), &["--recipe", "uniform"]).fails(65, &["\"b\"", "\"pooler\"", "--missing"]);
    let names = |dir: &Path| soup_of(dir).into_iter().map(|(n, ..)| n).collect::<Vec<_>>();
    let result = cook(dir.path(), &["--recipe", "uniform", "--missing", "skip"]).json();
    noted(&result, &["2 tensors are not in all ingredients, and left out", "\"v\"", "\"pooler\""]);
    assert_eq!(names(dir.path()), ["w"]);
    let all = [(Dtype::F32, 1), (Dtype::F32, 3), (Dtype::F32, 5)];
    assert_eq!(soup_of(dir.path())[0].2, mean(Dtype::F32, &all));
    let result = cook(dir.path(), &["--recipe", "uniform", "--missing", "first"]).json();
    noted(&result, &["2 tensors are not in all ingredients, and those of the first"]);
    assert_eq!(names(dir.path()), ["pooler", "v", "w"]);
    let soup = soup_of(dir.path());
    assert_eq!(soup[0].2, bytes(Dtype::F32, (0..6).map(|at| value(7, at))), "that of b");
    assert_eq!(soup[1].2, bytes(Dtype::F32, (0..6).map(|at| value(2, at))), "that of a");
    assert_eq!(soup[2].2, mean(Dtype::F32, &all));
    // Whose it is has nothing to do with who is in the soup, and what is taken has no weight.
    std::fs::write(dir.path().join("w.json"), r#"{"a": 0, "b": 0, "c": {"*": 1}}"#).unwrap();
    let weighted = ["--recipe", "weighted", "--weights-file", "w.json", "--missing", "first"];
    cook(dir.path(), &weighted).json();
    let soup = soup_of(dir.path());
    assert_eq!(soup[1].2, bytes(Dtype::F32, (0..6).map(|at| value(2, at))));
    assert_eq!(soup[2].2, bytes(Dtype::F32, (0..6).map(|at| value(5, at))));
    std::fs::write(dir.path().join("w.json"), r#"{"a": 0, "b": 0, "c": {"*": 1, "pooler": 1}}"#).unwrap();
    cook(dir.path(), &weighted).fails(2, &["\"pooler\"", "not averaged"]);
    // With both, what is taken is in the soup's dtype too.
    let both = ["--recipe", "uniform", "--missing", "first", "--out-dtype", "f64"];
    cook(dir.path(), &both).json();
    assert_eq!(soup_of(dir.path())[0].2, mean(Dtype::F64, &[(Dtype::F32, 7)]));
}

#[test]
fn a_soup_that_is_judged_is_the_model_that_its_ingredients_are() {
    let place = Place::with(&["a", "b"]);
    let validation = crate::fixture::animals().join("validation.parquet");
    let judged = ["cook", "--pool", "pool", "--recipe", "uniform", "--output", "soup", "--validation"];
    let judged = [&judged[..], &[validation.to_str().unwrap()]].concat();
    for flag in [&["--missing", "skip"][..], &["--out-dtype", "bf16"]] {
        place.call(&[&judged[..], flag].concat()).fails(2, &[flag[0], "judge"]);
    }
}

#[test]
fn the_configuration_states_the_dtype_of_the_soup() {
    let place = Place::with(&["a", "b"]);
    let config = std::fs::read_to_string(place.ingredient("a").join("config.json")).unwrap();
    let stating =
        config.replacen('{', r#"{"torch_dtype": "float32", "text_config": {"dtype": "float32"},"#, 1);
    for name in ["a", "b"] {
        std::fs::write(place.ingredient(name).join("config.json"), &stating).unwrap();
    }
    let cook = ["cook", "--pool", "pool", "--recipe", "uniform", "--output", "soup", "-o", "json", "-q"];
    place.call(&[&cook[..], &["--out-dtype", "bf16"]].concat()).json();
    let written = std::fs::read_to_string(place.path().join("soup/config.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["torch_dtype"], "bfloat16");
    assert_eq!(written["text_config"]["dtype"], "bfloat16");
    let mut expected: Value = serde_json::from_str(&stating).unwrap();
    expected["torch_dtype"] = json!("bfloat16");
    expected["text_config"]["dtype"] = json!("bfloat16");
    assert_eq!(written, expected, "and nothing else");
}

#[test]
fn a_plan_says_that_nothing_is_kept() {
    let dir = pool(&["a", "b"], Dtype::F32);
    let plan = |args: &[&str]| {
        let common = ["plan", "--pool", "pool", "--recipe", "uniform", "--memory", "1KiB"];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(common).args(args).run()
    };
    let planned: PlanReport = serde_json::from_value(plan(&["-o", "json"]).json()).unwrap();
    assert!(planned.streams && planned.warnings.is_empty(), "{planned:?}");
    assert_eq!(planned.memory.resident_bytes_per_worker, 0);
    assert!(plan(&[]).stdout.contains("keep nothing of the ingredients"));
    // And so little memory is enough.
    let cook =
        ["cook", "--pool", "pool", "--recipe", "uniform", "--output", "soup", "--memory", "1KiB", "-q"];
    assert_eq!(Soupctl::new(SOUPCTL).dir(dir.path()).args(cook).run().code, 0);
}

#[test]
fn quantized_models_are_refused_and_other_integers_noted() {
    let dir = TempDir::new().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    for (index, name) in ["a", "b"].iter().enumerate() {
        let scales = bytes(Dtype::F32, (0..4).map(|at| value(index, at)));
        let packed = [index as u8; 32];
        let views = [
            ("layer.scales", TensorView::new(Dtype::F32, vec![4], &scales).unwrap()),
            ("layer.qweight", TensorView::new(Dtype::I32, vec![2, 4], &packed).unwrap()),
        ];
        write(&format!("pool/{name}/model.safetensors"), &safetensors::serialize(views, None).unwrap());
    }
    let result = cook(dir.path(), &["--recipe", "uniform"]).json();
    noted(&result, &["integer tensor \"layer.qweight\" differs", "\"a\""]);
    for quantized in
        [r#"{"quantization_config": {"quant_method": "gptq"}}"#, r#"{"quantization": {"bits": 4}}"#]
    {
        ["a", "b"].iter().for_each(|name| write(&format!("pool/{name}/config.json"), quantized.as_bytes()));
        cook(dir.path(), &["--recipe", "uniform"])
            .fails(65, &["\"a\" is quantized", "\"layer.qweight\" (I32)", "dequantize"]);
        let key = quantized[2..].split('"').next().unwrap();
        cook(dir.path(), &["--recipe", "uniform", "--ignore-config", key]).json();
    }
    // What is said of weights that were unpacked again is no more.
    let place = Place::with(&["a", "b"]);
    for name in ["a", "b"] {
        let said = json!({"quant_method": "bitsandbytes"});
        place.change_json(&format!("pool/{name}/config.json"), |c| c["quantization_config"] = said);
    }
    place.cook(&[]).json();
}
