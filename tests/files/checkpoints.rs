//! What in a pool's folder is an ingredient, what is not, and what is said of it.

use std::path::Path;

use serde_json::Value;

use crate::fixture::{Place, noted};

/// Puts `prefix` before the name of every tensor of a safetensors file.
fn put_prefix(file: &Path, prefix: &str) {
    let bytes = std::fs::read(file).unwrap();
    let length = length_of(&bytes);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let renamed: serde_json::Map<String, Value> = header
        .into_iter()
        .map(|(name, spec)| (if name == "__metadata__" { name } else { format!("{prefix}{name}") }, spec))
        .collect();
    let mut header = serde_json::to_vec(&renamed).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let start = (header.len() as u64).to_le_bytes();
    std::fs::write(file, [&start[..], &header, &bytes[8 + length..]].concat()).unwrap();
}

fn length_of(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

fn correct(result: &Value) -> u64 {
    result["score"]["correct"].as_u64().unwrap()
}

#[test]
fn checkpoints_that_cannot_be_read_are_all_named() {
    let place = Place::with(&["a", "b", "bin", "shards", "fp16", "link"]);
    let rename = |from: &str, to: &str| {
        std::fs::rename(place.path().join("pool").join(from), place.path().join("pool").join(to)).unwrap();
    };
    rename("bin/model.safetensors", "bin/pytorch_model.bin");
    rename("shards/model.safetensors", "shards/model-00001-of-00002.safetensors");
    rename("fp16/model.safetensors", "fp16/model.fp16.safetensors");
    std::fs::remove_file(place.ingredient("link").join("model.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../blobs/gone", place.ingredient("link").join("model.safetensors"))
        .unwrap();
    place.write("pool/lora/adapter_config.json", "{}");
    place.write("pool/lora/adapter_model.safetensors", "x");
    let parts = [
        "has 5 checkpoints that cannot be read",
        "\"bin\": pytorch_model.bin is a PyTorch file",
        "\"shards\" holds files of a checkpoint (model-00001-of-00002.safetensors) and no model.safetensors.index.json",
        "\"fp16\" holds only a variant, model.fp16.safetensors",
        "\"link\": model.safetensors is a broken link to ../../blobs/gone",
        "\"lora\" holds an adapter",
    ];
    place.cook_all(&[]).fails(65, &parts);
    place.call(&["inspect", "pool"]).fails(65, &parts);
}

#[test]
fn pointers_of_git_lfs_are_called_so() {
    let place = Place::with(&["a", "b"]);
    place.write(
        "pool/b/model.safetensors",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    );
    place.cook_all(&[]).fails(65, &["pool/b/model.safetensors", "Git LFS pointer", "git lfs pull"]);
}

#[test]
fn what_is_left_out_is_noted_by_cook_plan_and_inspect() {
    let place = Place::with(&["a", "b", "soup", "a/checkpoint-500"]);
    place.write("pool/soup/soup.json", "{}");
    place.write("pool/logs/events", "x");
    let result = place.cook_all(&[]).json();
    assert_eq!(result["ingredients"].as_array().map(Vec::len), Some(2), "{result}");
    let plan = place.call(&[
        "plan",
        "--pool",
        "pool",
        "--recipe",
        "uniform",
        "--output",
        "s",
        "-o",
        "json",
        "--validation",
        crate::fixture::animals().join("validation.parquet").to_str().unwrap(),
    ]);
    for result in [result, plan.json(), place.call(&["inspect", "pool", "-o", "json"]).json()] {
        noted(&result, &["\"soup\", which is a soup"]);
        noted(&result, &["\"logs\", which holds no checkpoint"]);
        noted(&result, &["\"checkpoint-500\", which is beside its model.safetensors"]);
    }
    let table = place.call(&["inspect", "pool"]);
    assert!(table.stdout.contains("which is a soup"), "{}", table.stdout);
}

#[test]
fn prefixes_of_wrappers_are_taken_off_with_a_note() {
    for (a, b) in [
        ("", "module."),
        ("module.", "module."),
        ("", "_orig_mod.module."),
        ("model.", ""),
        ("model.", "model."),
    ] {
        let place = Place::with(&["a", "b"]);
        put_prefix(&place.ingredient("a").join("model.safetensors"), a);
        put_prefix(&place.ingredient("b").join("model.safetensors"), b);
        let result = place.cook_all(&[]).json();
        assert_eq!(correct(&result), 12, "{a:?} {b:?}");
        noted(&result, &["the prefix", "of every tensor's name is taken off"]);
    }
}

#[test]
fn the_folders_of_mlflow_need_no_renaming() {
    let place = Place::with(&[]);
    for run in ["ab", "cd"] {
        crate::fixture::copy(
            &crate::fixture::animals().join("m0"),
            &place.path().join(format!("pool/1/{run}/artifacts/model")),
        );
    }
    let found = place.call(&["inspect", "pool/*/*/artifacts/model", "-o", "json"]).json();
    let names: Vec<&str> =
        found["ingredients"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ab", "cd"]);
}

#[test]
fn the_card_names_the_base_by_its_id_or_not_at_all() {
    let place = Place::with(&["a", "b"]);
    let card = || std::fs::read_to_string(place.path().join("soup/README.md")).unwrap();
    for name in ["a", "b"] {
        place.change_json(&format!("pool/{name}/config.json"), |c| {
            c["_name_or_path"] = "google/vit-tiny".into()
        });
    }
    place.cook_all(&[]).json();
    assert!(
        card().contains("base_model:\n- \"google/vit-tiny\"\nbase_model_relation: merge\n"),
        "{}",
        card()
    );
    for name in ["a", "b"] {
        place
            .change_json(&format!("pool/{name}/config.json"), |c| c["_name_or_path"] = "/home/me/vit".into());
    }
    place.cook_all(&[]).json();
    assert!(!card().contains("base_model"), "{}", card());
}
