use soup_core::schema::{Dtype, TensorSpec};

use crate::conformance::{memory, put, safetensors};
use crate::pool::open_pool;

/// The names of the tensors of a pool of `ingredients` (their tensors), beside a configuration; and the notes.
async fn opened(test: &str, config: &str, ingredients: &[&[&str]]) -> (Vec<String>, Vec<String>) {
    let root = memory(&format!("prefix-{test}"));
    for (at, tensors) in ingredients.iter().enumerate() {
        let specs = tensors.iter().map(|&name| TensorSpec::new(name, Dtype::F32, [2])).collect();
        let bytes = safetensors(&soup_core::schema::Schema::new(specs).unwrap(), |_| 1);
        put(&root, &format!("m{at}.safetensors"), bytes).await;
    }
    put(&root, "config.json", config.to_owned()).await;
    let pool = open_pool(&[root.to_string()]).await.unwrap();
    let joined = |c: &crate::checkpoint::Checkpoint| {
        c.schema.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let names = pool.checkpoints.iter().map(joined).collect();
    for c in &pool.checkpoints {
        assert_eq!(c.places.len(), c.schema.tensors().len());
    }
    (names, pool.notes)
}

#[tokio::test]
async fn a_wrappers_prefix_is_taken_off_where_every_tensor_has_it() {
    let (names, notes) = opened(
        "mixed",
        "{}",
        &[
            &["a.w", "b"],
            &["module.a.w", "module.b"],
            &["_orig_mod.module.a.w", "_orig_mod.module.b"],
            &["a.w", "module.b"],
        ],
    )
    .await;
    assert_eq!(names, ["a.w b", "a.w b", "a.w b", "a.w module.b"]);
    assert_eq!(
        notes,
        [
            "ingredient \"m2\": the prefix \"_orig_mod.module.\" of every tensor's name is taken off",
            "ingredient \"m1\": the prefix \"module.\" of every tensor's name is taken off",
        ]
    );
}

#[tokio::test]
async fn what_averages_weights_has_a_tensor_of_its_own() {
    let (names, notes) =
        opened("swa", "{}", &[&["a.w", "z"], &["module.a.w", "module.z", "n_averaged"]]).await;
    assert_eq!(names, ["a.w z", "a.w n_averaged z"]);
    assert_eq!(notes.len(), 1);
}

#[tokio::test]
async fn model_is_a_wrapper_where_another_ingredient_says_so() {
    let (names, _) = opened(
        "m1",
        "{}",
        &[&["model.a", "model.b"], &["a", "b"], &["model._orig_mod.a", "model._orig_mod.b"]],
    )
    .await;
    assert_eq!(names, ["a b", "a b", "a b"]);
    let (names, notes) = opened("m2", "{}", &[&["lm_head", "model.a"], &["model.a"]]).await;
    assert_eq!((names[1].as_str(), notes.len()), ("model.a", 0));
}

#[tokio::test]
async fn model_is_a_wrapper_where_the_models_type_says_so() {
    let vit = [&["model.vit.a", "model.classifier"][..]; 2];
    let (names, notes) = opened("m3", r#"{"model_type": "vit"}"#, &vit).await;
    assert_eq!(names, ["classifier vit.a"; 2]);
    assert_eq!(
        notes,
        ["ingredients \"m0\" and \"m1\": the prefix \"model.\" of every tensor's name is taken off"]
    );
    let llama = [&["model.embed_tokens", "model.layers.0.w"][..]; 2];
    let (names, notes) = opened("m4", r#"{"model_type": "llama"}"#, &llama).await;
    assert_eq!((names[0].as_str(), notes.len()), ("model.embed_tokens model.layers.0.w", 0));
    let (names, _) =
        opened("m5", r#"{"model_type": "vit"}"#, &[&["vit.a", "vit.b"], &["vit.a", "vit.b"]]).await;
    assert_eq!(names[0], "vit.a vit.b");
}
