//! Architectures of timm by what they stand for, and what is refused.

use super::*;
use crate::parameters::visitor::Listing;

fn read(architecture: &str, others: Value) -> Result<TimmVit> {
    let mut config = json!({ "architecture": architecture });
    let mut pretrained = json!({ "fixed_input_size": true });
    for (key, value) in others.as_object().unwrap() {
        let at = if key == "input_size" { &mut pretrained } else { &mut config };
        at[key] = value.clone();
    }
    config["pretrained_cfg"] = pretrained;
    TimmVit::from_json(&config.to_string())
}

fn tensors(architecture: &str, others: Value) -> Vec<(String, Vec<u64>)> {
    let mut listing = Listing::default();
    read(architecture, others).unwrap().parameters(&mut listing).unwrap();
    listing.tensors
}

fn error(architecture: &str, others: Value) -> String {
    read(architecture, others).err().map(|e| e.chain()).unwrap_or_default()
}

#[test]
fn a_name_stands_for_a_model() {
    let vit = read("vit_base_patch16_224.augreg2_in21k_ft_in1k", json!({})).unwrap();
    assert_eq!((vit.transformer.hidden, vit.transformer.layers, vit.transformer.heads), (768, 12, 12));
    assert_eq!((vit.transformer.grid(), vit.transformer.epsilon), ((14, 14), 1e-6));
    assert_eq!((vit.classifier().outputs(), vit.arguments.pool), (1000, Pool::Token));
    let listed = tensors("vit_base_patch16_224", json!({}));
    // As in timm/vit_base_patch16_224.augreg2_in21k_ft_in1k: 4 + 12 a layer + 2 + 2.
    assert_eq!(listed.len(), 8 + 12 * 12);
    assert!(listed.contains(&("blocks.11.attn.qkv.weight".to_owned(), vec![2304, 768])));
    assert!(listed.contains(&("norm.bias".to_owned(), vec![768])));
    let clip =
        read("vit_large_patch14_clip_336", json!({ "input_size": [3, 336, 336], "num_classes": 7 })).unwrap();
    assert_eq!((clip.transformer.epsilon, clip.transformer.grid()), (1e-5, (24, 24)));
    assert_eq!(clip.classifier().outputs(), 7);
    // A gap has no token for the whole; so400m's width is 1152 * 3.7362.
    let gap = read("vit_so400m_patch14_siglip_gap_224", json!({})).unwrap();
    let mlp = MlpConfig::Plain { intermediate: 4304, activation: Activation::Gelu };
    assert_eq!((gap.mlp, gap.arguments.pool), (mlp, Pool::Mean { first: 0 }));
}

#[test]
fn arguments_come_before_what_a_name_stands_for() {
    let changed = json!({ "model_args": { "global_pool": "avg", "num_classes": 3, "depth": 1, "drop_rate": 0.1, "qkv_bias": null } });
    let listed = tensors("vit_tiny_patch16_224", changed);
    let names: Vec<&str> = listed.iter().map(|(name, _)| &name[..]).collect();
    assert!(names.contains(&"fc_norm.weight") && !names.contains(&"norm.weight"), "{names:?}");
    assert!(listed.contains(&("head.weight".to_owned(), vec![3, 192])));
    assert_eq!(listed.len(), 8 + 12);
    // The size of images that is given, with that of pretrained_cfg.
    let vit = read("vit_tiny_patch16_224", json!({ "model_args": { "img_size": [64, 96] } })).unwrap();
    assert_eq!(vit.transformer.grid(), (4, 6));
    let vit = read("vit_tiny_patch16_224", json!({ "input_size": [1, 48, 48] })).unwrap();
    assert_eq!((vit.transformer.grid(), vit.classifier().channels), ((3, 3), 1));
}

#[test]
fn classes_have_the_names_that_the_file_gives_them() {
    let of =
        |others: Value| read("vit_tiny_patch16_224", others).unwrap().classifier().classes.names().to_vec();
    assert_eq!(of(json!({ "num_classes": 2 })), ["LABEL_0", "LABEL_1"]);
    assert_eq!(of(json!({ "num_classes": 2, "label_names": ["cat", "dog"] })), ["cat", "dog"]);
    let by_number = json!({ "num_classes": 2, "label_names": { "1": "n2", "0": "n1" }, "label_descriptions": { "n2": "dog" } });
    assert_eq!(of(by_number), ["n1", "n2"]);
    let error =
        |names: Value| error("vit_tiny_patch16_224", json!({ "num_classes": 2, "label_names": names }));
    assert!(error(json!(["cat"])).contains("label_names has 1 names of 2 classes"));
    assert!(error(json!({ "0": "cat", "2": "dog" })).contains("label_names is neither"));
    assert!(error(json!(["cat", 3])).contains("label_names is neither"));
}

#[test]
fn what_timm_builds_otherwise_is_refused() {
    let of = |arguments: Value| error("vit_tiny_patch16_224", json!({ "model_args": arguments }));
    for (key, value) in [
        ("qk_norm", json!(true)),
        ("proj_bias", json!(false)),
        ("pos_embed", json!("none")),
        ("dynamic_img_pad", json!(true)),
        ("block_fn", json!("ParallelScalingBlock")),
        ("scale_mlp_norm", json!(true)),
    ] {
        assert!(
            of(json!({ key: value })).contains(&format!("{key} is {value}: only ")),
            "{key}: {}",
            of(json!({ key: value }))
        );
    }
    assert!(of(json!({ "sparkle": 1 })).contains("unknown field `sparkle`"));
    assert!(of(json!({ "global_pool": "map" })).contains("global_pool is \"map\": supported are"));
    assert!(of(json!({ "class_token": false })).contains("class_token is false"));
    assert!(of(json!({ "act_layer": "mish" })).contains("unknown act_layer \"mish\""));
    assert!(of(json!({ "norm_layer": "rmsnorm" })).contains("norm_layer is \"rmsnorm\""));
    assert!(of(json!({ "mlp_layer": "SwiGLU" })).contains("mlp_layer is \"SwiGLU\""));
    assert!(of(json!({ "mlp_layer": "SwiGLUPacked" })).contains("with act_layer \"gelu\""));
    assert!(of(json!({ "mlp_ratio": 0 })).contains("mlp_ratio is 0"));
    let norm = json!({ "name": "layernorm", "eps": 2_147_483_648u64 });
    assert!(of(json!({ "norm_layer": norm })).contains("norm_layer.eps is 2147483648"));
    assert!(of(json!({ "reg_tokens": 9999 })).contains("reg_tokens is 9999"));
    assert!(of(json!({ "num_classes": 0 })).contains("num_labels is 0"));
    assert!(
        of(json!({ "num_classes": 1 })).contains("num_classes is 1, and what one class means is not said")
    );
    for name in [
        "aimv2_large_patch14_224",
        "vit_base_patch16_siglip_224",
        "deit_base_distilled_patch16_224",
        "vit_base_patch16_rpn_224",
    ] {
        assert!(!error(name, json!({})).is_empty(), "{name}");
    }
    assert!(error("vit_odd", json!({})).contains("unknown architecture \"vit_odd\" of timm"));
    let told = json!({ "global_pool": "avg" });
    assert!(
        error("vit_tiny_patch16_224", told)
            .contains("global_pool is \"avg\", but architecture and model_args")
    );
}

#[test]
fn images_have_the_size_of_the_models() {
    let loose =
        r#"{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, 256, 256]}}"#;
    let error = TimmVit::from_json(loose).err().unwrap().chain();
    assert!(error.contains("input_size is of 256 x 256 pixels, the model takes 224 x 224"), "{error}");
    // Old files have no pretrained_cfg: they are it.
    let old = r#"{"architecture": "vit_tiny_patch16_224", "input_size": [3, 32, 32], "fixed_input_size": true, "num_classes": 4}"#;
    let vit = TimmVit::from_json(old).unwrap();
    assert_eq!((vit.transformer.grid(), vit.classifier().outputs()), ((2, 2), 4));
    let offset = r#"{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"label_offset": 1}}"#;
    assert!(TimmVit::from_json(offset).err().unwrap().chain().contains("label_offset is 1"));
}

/// Every name that timm has either makes a model or is refused for one of its arguments.
#[test]
fn every_name_is_understood_or_refused_by_an_argument() {
    let table: Map<String, Value> = serde_json::from_str(include_str!("architectures.json")).unwrap();
    let all = table.keys().map(|name| (name, error(name, json!({ "model_args": { "img_size": 448 } }))));
    let refused: Vec<_> = all.filter(|(_, error)| !error.is_empty()).collect();
    for (name, error) in &refused {
        let about = [
            "_layer is",
            "block_fn is",
            "global_pool is",
            "qk_norm is",
            "_norm is",
            "distilled is",
            "proj_bias is",
        ];
        assert!(about.iter().any(|part| error.contains(part)), "{name}: {error}");
    }
    assert_eq!((table.len(), refused.len()), (179, 49));
}
