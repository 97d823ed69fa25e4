//! The small files beside the ingredients give tensors their meaning, and have to agree like tensors.

use serde_json::json;

use crate::fixture::{Place, noted};

#[test]
fn the_small_pool_makes_no_mistake() {
    let result = Place::with(&["a", "b"]).cook_all(&[]).json();
    assert_eq!((&result["score"]["correct"], &result["score"]["total"]), (&12.into(), &12.into()));
}

/// What is always noted of this pool.
const EQUAL: &str = "ingredient \"b\" equals ingredient \"a\"";

/// A pool of `a` and `b`, where one setting of b's `file` is another one.
fn differing(file: &str, key: &str, value: serde_json::Value) -> Place {
    let place = Place::with(&["a", "b"]);
    place.change_json(&format!("pool/b/{file}"), |json| json[key] = value);
    place
}

#[test]
fn classes_in_another_order_are_refused() {
    let place = Place::with(&["a", "b"]);
    place.change_json("pool/b/config.json", |json| {
        json["id2label"]["0"] = "yak".into();
        json["id2label"]["1"] = "zebra".into();
    });
    place
        .cook_all(&[])
        .fails(65, &["\"b\"", "config.json", "id2label.0", "yak", "\"a\"", "zebra", "--ignore-config"]);
    for command in ["inspect", "plan"] {
        let set = place.path().join("none.parquet");
        let args = ["plan", "--pool", "pool", "--validation", set.to_str().unwrap()];
        let args = if command == "plan" { &args[..] } else { &["inspect", "pool"] };
        let output = place.call(args);
        assert_eq!(output.code, 65, "{}", output.stderr);
        assert!(output.stderr.contains("id2label.0"), "{}", output.stderr);
    }
}

#[test]
fn every_setting_that_gives_tensors_their_meaning_is_compared() {
    for (file, key, value) in [
        ("config.json", "hidden_act", json!("relu")),
        ("config.json", "layer_norm_eps", json!(1e-6)),
        ("config.json", "image_size", json!(32)),
        ("config.json", "num_attention_heads", json!(4)),
        ("config.json", "qkv_bias", json!(false)),
        ("config.json", "model_type", json!("deit")),
        ("preprocessor_config.json", "image_mean", json!([0.5, 0.5, 0.5])),
        ("preprocessor_config.json", "image_std", json!([0.5, 0.5, 0.5])),
        ("preprocessor_config.json", "do_resize", json!(false)),
        ("preprocessor_config.json", "resample", json!(3)),
        ("preprocessor_config.json", "rescale_factor", json!(1.0)),
        ("preprocessor_config.json", "size", json!({ "shortest_edge": 16 })),
        ("preprocessor_config.json", "image_processor_type", json!("CLIPImageProcessor")),
    ] {
        differing(file, key, value).cook_all(&[]).fails(65, &["\"b\"", file, key, "\"a\""]);
    }
}

#[test]
fn who_knows_better_says_so_and_it_is_noted() {
    let place = differing("config.json", "layer_norm_eps", json!(1e-6));
    let result = place.cook_all(&["--ignore-config", "layer_norm_eps"]).json();
    noted(&result, &["layer_norm_eps", "\"b\"", "ignored"]);
    let result = Place::with(&["a", "b"]).cook_all(&["--ignore-config", "layer_norm_eps"]).json();
    noted(&result, &["nothing differs", "layer_norm_eps"]);
}

#[test]
fn what_cannot_change_the_result_does_not_stop_a_cook() {
    let place = differing("config.json", "transformers_version", json!("4.20"));
    assert_eq!(place.cook_all(&[]).json()["notes"], json!([EQUAL]));
    let place = differing("config.json", "hidden_dropout_prob", json!(0.3));
    noted(&place.cook_all(&[]).json(), &["hidden_dropout_prob", "only training"]);
    let place = differing("config.json", "an_option_of_a_later_version", json!(1));
    noted(&place.cook_all(&[]).json(), &["an_option_of_a_later_version"]);
    // Forms that mean the same.
    let place = differing("preprocessor_config.json", "size", json!(16));
    assert_eq!(place.cook_all(&[]).json()["notes"], json!([EQUAL]));
}

#[test]
fn vocabularies_have_to_be_equal() {
    let place = Place::with(&["a", "b"]);
    place.write("pool/a/vocab.txt", "cat\ndog\n");
    place.write("pool/b/vocab.txt", "dog\ncat\n");
    place.cook_all(&[]).fails(65, &["\"b\"", "vocab.txt"]);
    place.write("pool/b/vocab.txt", "cat\ndog\n");
    assert_eq!(place.cook_all(&[]).code, 0);
}

#[test]
fn a_companion_that_cannot_be_read_is_named() {
    let place = Place::with(&["a", "b"]);
    place.write("pool/b/config.json", "[1]");
    place.cook_all(&[]).fails(65, &["pool/b/config.json", "JSON object"]);
}
