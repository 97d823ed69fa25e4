//! Checkpoints as other programs lay them out: their names stay, and what says how images become pixels is found where they have it.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use crate::fixture::{Place, copy};

/// The folder of a tiny model of another family, with five classes that have no names.
fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/soup-eval/tests/golden/models").join(case)
}

/// A pool of `a` and `b`, both the model of a case, and one image of each class in `images`.
fn pool_of(case: &str) -> Place {
    let place = Place::with(&[]);
    for name in ["a", "b"] {
        for file in ["config.json", "model.safetensors"] {
            copy(&golden(case).join(file), &place.ingredient(name).join(file));
        }
    }
    place.images("images", |class| (class < 5).then(|| format!("class-{class}")));
    place
}

/// The same of a model whose classes prompts tell of, with the names that they have.
fn pool_of_prompts() -> Place {
    let place = pool_of("clip_zero_shot");
    for name in ["a", "b"] {
        for file in ["tokenizer.json", "prompts.json"] {
            copy(&golden("clip_zero_shot").join(file), &place.ingredient(name).join(file));
        }
        // It has the words of no CLIP's: the file as it is, and not what a CLIPTokenizer makes of it.
        let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
        place.write(&format!("pool/{name}/tokenizer_config.json"), class);
    }
    place.write("pool/preprocessor_config.json", CLIP_PROCESSOR);
    const CLASSES: [&str; 5] = ["w11", "w12 w13", "w14", "w15 w11 w16", "w17"];
    place.images("named", |class| CLASSES.get(class).map(|name| (*name).to_owned()));
    place
}

/// As CLIP's are, for images of 16 pixels.
const CLIP_PROCESSOR: &str =
    r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "crop_size": 16}"#;

/// The tensors of a checkpoint, by name.
fn tensors(file: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = tensors.tensors().into_iter().map(|(n, t)| (n, t.data().to_vec())).collect();
    tensors.sort();
    tensors
}

#[test]
fn a_soup_of_timms_models_is_a_model_of_timms() {
    for case in ["timm", "timm_registers"] {
        let place = pool_of(case);
        let result = place.cook(&["--validation", "images"]).json();
        assert_eq!(result["score"]["total"], 5, "{case}");
        let soup = tensors(&place.path().join("soup/model.safetensors"));
        assert_eq!(soup, tensors(&golden(case).join("model.safetensors")), "{case}");
        assert!(soup.iter().any(|(name, _)| name == "blocks.0.attn.qkv.weight"), "{case}");
        assert!(place.path().join("soup/config.json").is_file(), "{case}");
    }
}

#[test]
fn how_timm_makes_pixels_of_images_is_compared_and_may_be_said_otherwise() {
    let place = pool_of("timm");
    place.change_json("pool/b/config.json", |json| json["pretrained_cfg"]["crop_pct"] = 0.5.into());
    place.cook(&["--validation", "images"]).fails(65, &["\"b\"", "config.json", "crop_pct"]);
    let place = pool_of("timm");
    place.write("p.json", r#"{"image_processor_type": "ViTImageProcessor", "size": 17}"#);
    let args = ["--validation", "images", "--preprocessor-config", "p.json"];
    place.cook(&args).fails(65, &["images become 17 x 17 pixels", "16 x 16"]);
}

#[test]
fn an_architecture_that_timm_has_and_we_have_not_is_refused_by_name() {
    let place = pool_of("timm");
    for name in ["a", "b"] {
        place.change_json(&format!("pool/{name}/config.json"), |json| {
            json["architecture"] = "resnet50".into()
        });
    }
    place.cook(&["--validation", "images"]).fails(65, &["unknown architecture \"resnet50\" of timm"]);
}

#[test]
fn a_soup_of_clips_with_classifiers_has_its_tensors() {
    let place = pool_of("clip_whole");
    place.cook(&["--validation", "images"]).fails(65, &["preprocessor_config.json", "--preprocessor-config"]);
    place.write("pool/preprocessor_config.json", CLIP_PROCESSOR);
    let result = place.cook(&["--validation", "images"]).json();
    assert_eq!(result["score"]["total"], 5);
    let soup = tensors(&place.path().join("soup/model.safetensors"));
    assert_eq!(soup, tensors(&golden("clip_whole").join("model.safetensors")));
    assert!(soup.iter().any(|(name, _)| name.starts_with("text_model.")));
}

#[test]
fn a_soup_of_clips_is_judged_by_the_prompts_beside_it() {
    let place = pool_of_prompts();
    let result = place.cook(&["--validation", "named"]).json();
    assert_eq!(result["score"]["total"], 5);
    for file in ["prompts.json", "tokenizer.json"] {
        assert!(place.path().join("soup").join(file).is_file(), "{file} goes along with the soup");
    }
    // What classes there are is part of the run: other prompts are another one.
    let again = |templates: &str| {
        let prompts = format!(
            r#"{{"classes": ["w11", "w12 w13", "w14", "w15 w11 w16", "w17"], "templates": [{templates}]}}"#
        );
        for name in ["a", "b"] {
            place.write(&format!("pool/{name}/prompts.json"), &prompts);
        }
        place.cook(&["--validation", "named"])
    };
    assert_ne!(again(r#""{}", "w7 {} w8""#).json()["score"]["loss"], result["score"]["loss"]);
    again("\"w1\"").fails(65, &["prompts.json", "template \"w1\""]);
}

#[test]
fn prompts_are_needed_and_have_to_agree() {
    let place = pool_of_prompts();
    place.write("pool/b/prompts.json", r#"{"classes": ["w11", "w12"], "templates": ["{}"]}"#);
    place.cook(&["--validation", "named"]).fails(65, &["\"b\"", "prompts.json"]);
    for name in ["a", "b"] {
        std::fs::remove_file(place.ingredient(name).join("prompts.json")).unwrap();
    }
    place.cook(&["--validation", "named"]).fails(65, &["found no prompts.json", "\"templates\""]);
}
