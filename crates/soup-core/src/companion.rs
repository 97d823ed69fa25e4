//! Whether the small files beside the ingredients agree: what gives tensors their meaning must agree like the tensors do.
//!
//! Row 3 of a classifier is a class only by `id2label`, a weight is a weight only under its activation and epsilon, and a
//! pixel is a pixel only after its preprocessing. Averages of tensors that mean different things are well-formed and wrong,
//! so the first difference is refused with its key and both values.
//!
//! # Words
//!
//! - A *companion* is a small file beside an ingredient: `config.json`, `preprocessor_config.json`, a vocabulary.
//! - A *setting* is a value in it, named by its *path*: `layer_norm_eps`, `vision_config.hidden_act`, `id2label.3`.
//!
//! # Rules
//!
//! The first ingredient that has a setting is the measure for the others ([`Measure`]). What only says where a file comes from is
//! not compared; what only training looks at is noted where it differs. A setting that one of two files lacks is compared with
//! its default where that is known, and noted otherwise: programs write more settings with every version.

mod forms;
mod measure;
mod named;
mod twice;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use self::forms::canonical;
use self::measure::{Difference, Measure};
pub use self::named::rename;
pub use self::twice::named_twice;
use crate::error::{Error, Result};
use crate::transformers::Version;

/// The companion that says what a model is.
pub const CONFIG: &str = "config.json";
/// The companion that says so of a model of open_clip, and how images become pixels.
pub const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
/// The companion that says how images become pixels.
pub const PREPROCESSOR: &str = "preprocessor_config.json";
/// The companion that says so in newer versions of transformers, under `image_processor`.
pub const PROCESSOR: &str = "processor_config.json";

/// What either of the two says of images, where some ingredients have the one and some the other.
pub const IMAGES: &str = "preprocessor_config.json or processor_config.json";

/// The companion that says which tokens texts become.
pub const TOKENIZER: &str = "tokenizer.json";
/// The companion that says what else transformers does with texts.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The companions that name tokens that transformers adds.
pub const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// See [`SPECIAL_TOKENS`].
pub const ADDED_TOKENS: &str = "added_tokens.json";

/// The companion that says what the classes are, of a model that compares images with texts.
pub const PROMPTS: &str = "prompts.json";

/// Longest value that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Under this name, which no file has, how the name of an image processor ends: it says what an image is resized by.
const ENDING: &str = "_image_processor_ending";

/// Settings that say where a file comes from, or how it was stored.
const PROVENANCE: [&str; 16] = [
    ENDING,
    "_name_or_path",
    "_commit_hash",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "_processor_class",
    "processor_class",
    "_valid_processor_keys",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "name_or_path",
    "tokenizer_file",
    "special_tokens_map_file",
    "is_local",
    "local_files_only",
];

/// Settings that change training, or a program's comfort, and no tensor's meaning in evaluation.
const TRAINING: [&str; 35] = [
    "attention_dropout",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "dropout",
    "dropout_rate",
    "drop_path_rate",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "encoder_stride",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "initializer_factor",
    "initializer_range",
    "label_smoothing",
    "layerdrop",
    "layerscale_value",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "return_dict",
    "stochastic_depth_prob",
    "summary_first_dropout",
    "task_specific_params",
    "torchscript",
    "use_cache",
    "use_mask_token",
    // timm's.
    "attn_drop_rate",
    "drop_rate",
    "fix_init",
    "patch_drop_rate",
    "pos_drop_rate",
    "proj_drop_rate",
    "weight_init",
];

/// Whether a `config.json` is one of timm's, which says itself how images become pixels.
pub fn is_timm(config: &Value) -> bool {
    config["architecture"].is_string() && config["architectures"].is_null() && config["model_type"].is_null()
}

/// Whether a configuration is one of open_clip's, which says itself how images become pixels.
pub fn is_open_clip(config: &Value) -> bool {
    config["model_cfg"].is_object() && config["architectures"].is_null() && config["model_type"].is_null()
}

/// The companion of one name beside one ingredient.
#[derive(Clone, Debug)]
pub struct Companion {
    /// The ingredient's name.
    pub ingredient: String,
    /// What the file says.
    pub content: Content,
}

/// What a companion says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Settings: a JSON object.
    Settings(Map<String, Value>),
    /// Anything else, by its SHA-256: a vocabulary.
    Digest(String),
    /// What the first ingredient's file says, byte for byte.
    Same,
}

/// Settings that may differ because the user says so.
#[derive(Clone, Debug, Default)]
pub struct Ignored {
    keys: Vec<String>,
    used: BTreeSet<String>,
}

impl Ignored {
    /// The settings named `keys`: a file (`preprocessor_config.json`), a path (`vision_config.hidden_act`) with everything
    /// below it, or the last part of a path (`hidden_act`), wherever it is.
    pub fn new(keys: &[String]) -> Ignored {
        Ignored { keys: keys.to_vec(), used: BTreeSet::new() }
    }

    fn takes(&mut self, file: &str, path: &str) -> bool {
        let below = |key: &String| path.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with('.'));
        let last = |key: &String| path.rsplit('.').next() == Some(key.as_str());
        let of_file = |key: &String| {
            key == file || (file == IMAGES && [PREPROCESSOR, PROCESSOR].contains(&key.as_str()))
        };
        let found = self.keys.iter().find(|key| of_file(key) || *key == path || below(key) || last(key));
        let found = found.cloned();
        found.is_some_and(|key| {
            self.used.insert(key);
            true
        })
    }

    /// The keys that nothing was found for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(|key| !self.used.contains(*key)).map(String::as_str)
    }
}

/// Compares the companions called `file`, in pool order, of those ingredients that have one of their own. Returns what
/// people should know.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) for the first difference that matters and is not `ignored`, naming both
/// ingredients, the setting and both values.
pub fn agree(file: &str, companions: &[Companion], ignored: &mut Ignored) -> Result<Vec<String>> {
    let Some((first, others)) = companions.split_first() else { return Ok(Vec::new()) };
    let mut notes = Notes::default();
    let images = file == CONFIG && is_of_images(&first.content);
    let mut measure = Measure::of(&first.ingredient, settings(file, &first.content));
    for other in others {
        let differences = match (&first.content, &other.content) {
            (Content::Settings(_), Content::Settings(b)) => {
                measure.against(&other.ingredient, canonical(file, b))
            }
            (_, Content::Same) => continue,
            (a, b) if a == b => continue,
            _ if ignored.takes(file, "") => {
                notes.add(file, Kind::Ignored, &other.ingredient);
                continue;
            }
            _ => {
                let what = format!("is another one than that of ingredient {:?}", first.ingredient);
                return Err(differs(file, &other.ingredient, &what, file));
            }
        };
        for difference in differences {
            let path = &difference.path;
            if resizes_otherwise(&difference) {
                notes.add("image_processor_type", Kind::Pixels, &other.ingredient);
                continue;
            }
            let kind = match images && means_other_pixels(&difference) {
                true => Kind::Pixels,
                false => kind(&difference),
            };
            match kind {
                Kind::Silent => {}
                Kind::Matters if !ignored.takes(file, path) => {
                    // Classes are one table: nobody wants to ignore the third one alone.
                    let key = if path.starts_with("id2label.") { "id2label" } else { path };
                    let what = said(&difference);
                    return Err(differs(file, &other.ingredient, &what, key));
                }
                Kind::Matters => notes.add(path, Kind::Ignored, &other.ingredient),
                noted => notes.add(path, noted, &other.ingredient),
            }
        }
    }
    Ok(notes.lines(file, &first.ingredient))
}

/// Whether it is what a `config.json` says of a model that looks at images.
fn is_of_images(content: &Content) -> bool {
    let Content::Settings(settings) = content else { return false };
    ["num_channels", "vision_config"].iter().any(|key| settings.contains_key(*key))
}

/// Whether it is a version by which image processors' files mean other things. What is no version is refused where it matters.
fn means_other_pixels(difference: &Difference<'_>) -> bool {
    let [a, b] = [0, 1].map(|at| Version::of(difference.values[at].as_ref()));
    let differ = a.zip(b).is_some_and(|(a, b)| !a.prepares_images_as(b));
    difference.path == "transformers_version" && differ
}

/// Whether it is between two image processors of one kind of which one may work on tensors and the other on PIL images.
fn resizes_otherwise(difference: &Difference<'_>) -> bool {
    difference.path == ENDING && difference.values.iter().all(Option::is_some)
}

/// Settings in one form; none of what is no settings.
fn settings(file: &str, content: &Content) -> Map<String, Value> {
    match content {
        Content::Settings(settings) => canonical(file, settings),
        Content::Digest(_) | Content::Same => Map::new(),
    }
}

fn differs(file: &str, ingredient: &str, what: &str, key: &str) -> Error {
    Error::data(format!(
        "ingredient {ingredient:?}: its {file} {what}: their tensors do not mean the same; leave it out, or say \
         --ignore-config {key} if you know that they do"
    ))
}

/// `says "layer_norm_eps" is 1e-6, but ingredient "a0" says 1e-12`
fn said(difference: &Difference<'_>) -> String {
    let ([a, b], first) = (&difference.values, difference.measure);
    match (a, b) {
        (Some(a), Some(b)) => {
            format!("says {:?} is {}, but ingredient {first:?} says {}", difference.path, shown(b), shown(a))
        }
        (Some(a), None) => {
            format!("does not say {:?}, but ingredient {first:?} says {}", difference.path, shown(a))
        }
        (None, Some(b)) => {
            format!("says {:?} is {}, but ingredient {first:?} does not say it", difference.path, shown(b))
        }
        (None, None) => String::new(),
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{} [...]", &text[..end]),
    }
}

/// What becomes of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It says where a file comes from.
    Silent,
    /// It says where a file comes from, by which another one has another meaning.
    Pixels,
    /// Only training looks at it.
    Training,
    /// One of two files does not say it.
    OneSided,
    /// The user says that it does not matter.
    Ignored,
    /// It gives tensors their meaning.
    Matters,
}

fn kind(difference: &Difference<'_>) -> Kind {
    let named = |names: &[&str]| difference.path.split('.').any(|part| names.contains(&part));
    if named(&PROVENANCE) {
        Kind::Silent
    } else if named(&TRAINING) {
        Kind::Training
    } else if difference.values.iter().any(Option::is_none) {
        Kind::OneSided
    } else {
        Kind::Matters
    }
}

/// What is tolerated, gathered by setting.
#[derive(Default)]
struct Notes {
    by_path: BTreeMap<(Kind, String), Vec<String>>,
}

impl Notes {
    fn add(&mut self, path: &str, kind: Kind, ingredient: &str) {
        let who = self.by_path.entry((kind, path.to_owned())).or_default();
        // Two settings may share what they are noted under.
        if who.last().is_none_or(|last| last != ingredient) {
            who.push(ingredient.to_owned());
        }
    }

    fn lines(&self, file: &str, first: &str) -> Vec<String> {
        let line = |((kind, path), who): (&(Kind, String), &Vec<String>)| {
            let others = match &who[..] {
                [one] => format!("ingredient {one:?} has"),
                [one, rest @ ..] => format!("ingredient {one:?} and {} more have", rest.len()),
                [] => String::new(),
            };
            let soup = format!("soups have that of ingredient {first:?}");
            match kind {
                Kind::Training => {
                    format!("{file}: {others} another {path:?}, which only training looks at; {soup}")
                }
                Kind::Pixels if file != CONFIG => format!(
                    "{file}: {others} another {path:?}, by which images may become other pixels; they are prepared as for that of ingredient \
                     {first:?}"
                ),
                Kind::Pixels => format!(
                    "{file}: {others} another {path:?}, by which {IMAGES} beside it means other pixels; images are prepared as for that of \
                     ingredient {first:?}"
                ),
                Kind::OneSided => {
                    format!(
                        "{file}: {others} no {path:?} where ingredient {first:?} has, or the other way round; {soup}"
                    )
                }
                _ => format!("{file}: {others} another {path:?}, which was to be ignored; {soup}"),
            }
        };
        self.by_path.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Content {
        let Value::Object(map) = value else { panic!("settings are an object") };
        Content::Settings(map)
    }

    /// The notes, or the error's text, of these files beside ingredients a0, a1, ...
    fn agreement(
        file: &str,
        contents: &[Content],
        ignore: &[&str],
    ) -> std::result::Result<Vec<String>, String> {
        let name = |(i, c): (usize, &Content)| Companion { ingredient: format!("a{i}"), content: c.clone() };
        let companions: Vec<_> = contents.iter().enumerate().map(name).collect();
        let ignore: Vec<String> = ignore.iter().map(|k| (*k).to_owned()).collect();
        agree(file, &companions, &mut Ignored::new(&ignore)).map_err(|e| e.chain())
    }

    #[track_caller]
    fn silent(file: &str, a: Value, b: Value) {
        assert_eq!(agreement(file, &[settings(a), settings(b)], &[]).unwrap(), [""; 0]);
    }

    #[track_caller]
    fn noted(file: &str, a: Value, b: Value, part: &str) {
        let notes = agreement(file, &[settings(a), settings(b)], &[]).unwrap();
        assert!(notes.len() == 1 && notes[0].contains(part), "{notes:?}");
    }

    #[track_caller]
    fn refused(file: &str, a: Value, b: Value, part: &str) {
        let error = agreement(file, &[settings(a), settings(b)], &[]).unwrap_err();
        assert!(error.starts_with("ingredient \"a1\"") && error.contains(part), "{error}");
    }

    #[test]
    fn heads_of_t5s_are_compared_whichever_version_saved_them() {
        let four = |tied: Option<bool>| json!({ "model_type": "t5", "tie_word_embeddings": tied });
        let five = |scales: bool| json!({ "model_type": "t5", "tie_word_embeddings": true, "scale_decoder_outputs": scales });
        silent(CONFIG, four(Some(false)), five(false));
        silent(CONFIG, five(true), four(Some(true)));
        silent(CONFIG, json!({ "model_type": "t5" }), five(true));
        silent(CONFIG, four(None), five(true));
        refused(CONFIG, json!({ "model_type": "t5" }), five(false), "scale_decoder_outputs");
        refused(CONFIG, five(false), four(Some(true)), "scale_decoder_outputs");
        refused(CONFIG, five(true), five(false), "scale_decoder_outputs");
    }

    #[test]
    fn tokenizers_are_compared_whichever_version_saved_them() {
        let four = json!({
            "tokenizer_class": "T5TokenizerFast", "additional_special_tokens": ["<x>", "<y>"], "extra_special_tokens": {}
        });
        let five = |tokens: &[&str]| {
            json!({
                "tokenizer_class": "T5Tokenizer", "extra_special_tokens": tokens, "is_local": true, "local_files_only": false
            })
        };
        silent(TOKENIZER_CONFIG, four.clone(), five(&["<x>", "<y>"]));
        refused(TOKENIZER_CONFIG, four, five(&["<x>"]), "additional_special_tokens");
        silent(TOKENIZER_CONFIG, json!({ "extra_special_tokens": {} }), json!({}));
        let class = |name: &str| json!({ "tokenizer_class": name });
        refused(
            TOKENIZER_CONFIG,
            class("PreTrainedTokenizerFast"),
            class("TokenizersBackend"),
            "tokenizer_class",
        );
    }

    #[test]
    fn layers_that_are_only_counted_are_not_compared() {
        let align =
            |count: u32| json!({ "model_type": "align", "vision_config": { "num_hidden_layers": count } });
        silent(CONFIG, align(64), align(55));
        let of =
            |model_type: &str, count: u32| json!({ "model_type": model_type, "num_hidden_layers": count });
        silent(CONFIG, of("efficientnet", 64), of("efficientnet", 16));
        refused(CONFIG, of("align", 64), of("align", 55), "num_hidden_layers");
    }

    #[test]
    fn what_gives_tensors_their_meaning_must_agree() {
        let labels = |a: &str, b: &str| json!({ "id2label": { "0": a, "1": b } });
        refused(
            CONFIG,
            labels("cat", "dog"),
            labels("dog", "cat"),
            r#"its config.json says "id2label.0" is "dog", but ingredient "a0" says "cat""#,
        );
        refused(
            CONFIG,
            json!({ "hidden_act": "gelu" }),
            json!({ "hidden_act": "relu" }),
            "--ignore-config hidden_act",
        );
        refused(CONFIG, json!({ "layer_norm_eps": 1e-12 }), json!({ "layer_norm_eps": 1e-6 }), "1e-6");
        refused(CONFIG, json!({ "image_size": 224 }), json!({ "image_size": 384 }), "image_size");
        let nested = |act: &str| json!({ "vision_config": { "hidden_act": act } });
        refused(CONFIG, nested("gelu"), nested("quick_gelu"), "vision_config.hidden_act");
        refused(PREPROCESSOR, json!({ "image_mean": [0.5] }), json!({ "image_mean": [0.4] }), "image_mean");
    }

    #[test]
    fn more_classes_are_not_the_same_classes() {
        let two = json!({ "id2label": { "0": "cat", "1": "dog" } });
        let three = json!({ "id2label": { "0": "cat", "1": "dog", "2": "cow" } });
        // Their tensors differ too; that is said by whoever compares those.
        noted(CONFIG, two, three, "id2label.2");
    }

    #[test]
    fn what_only_tells_the_origin_is_not_compared() {
        silent(
            CONFIG,
            json!({ "_name_or_path": "google/vit", "transformers_version": "4.20", "torch_dtype": "float32" }),
            json!({ "_name_or_path": "./out", "transformers_version": "4.57", "dtype": "float32" }),
        );
    }

    #[test]
    fn a_version_by_which_images_become_other_pixels_is_noted() {
        let of = |key: &str, version: &str| json!({ key: {}, "transformers_version": version });
        for key in ["num_channels", "vision_config"] {
            noted(
                CONFIG,
                of(key, "4.57.6"),
                of(key, "5.24.0"),
                "means other pixels; images are prepared as for",
            );
            noted(CONFIG, of(key, "5.24.0"), of(key, "5.3.0"), "ingredient \"a1\" has another");
            silent(CONFIG, of(key, "4.20.0"), of(key, "4.57.6"));
        }
        silent(CONFIG, of("vocab_size", "4.57.6"), of("vocab_size", "5.24.0"));
    }

    #[test]
    fn a_processor_that_may_resize_otherwise_is_noted() {
        let of = |name: &str| json!({ "image_processor_type": name, "size": 224 });
        for (a, b) in [("", "Fast"), ("Fast", ""), ("", "Pil"), ("Fast", "Pil")] {
            let [a, b] = [a, b].map(|ending| of(&format!("BitImageProcessor{ending}")));
            noted(
                PREPROCESSOR,
                a,
                b,
                "another \"image_processor_type\", by which images may become other pixels",
            );
        }
        silent(PREPROCESSOR, of("BitImageProcessorFast"), of("BitImageProcessorFast"));
        refused(PREPROCESSOR, of("BitImageProcessor"), of("ViTImageProcessorFast"), "image_processor_type");
        noted(
            PREPROCESSOR,
            of("BitImageProcessor"),
            json!({ "size": 224 }),
            "has no \"image_processor_type\"",
        );
    }

    #[test]
    fn what_only_training_looks_at_is_noted() {
        noted(
            CONFIG,
            json!({ "hidden_dropout_prob": 0.0 }),
            json!({ "hidden_dropout_prob": 0.1 }),
            "only training looks at",
        );
    }

    #[test]
    fn equal_values_in_other_forms_agree() {
        silent(CONFIG, json!({ "image_size": 224 }), json!({ "image_size": 224.0 }));
        silent(CONFIG, json!({ "x": null }), json!({}));
        silent(CONFIG, json!({ "model_type": "vit" }), json!({ "model_type": "vit", "hidden_act": "gelu" }));
        let named = json!({ "id2label": { "0": "cat" }, "label2id": { "cat": 0 } });
        silent(CONFIG, named, json!({ "id2label": { "0": "cat" }, "label2id": { "cat": "0" } }));
        silent(
            PREPROCESSOR,
            json!({ "size": 224, "feature_extractor_type": "ViTFeatureExtractor" }),
            json!({ "size": { "height": 224, "width": 224 }, "image_processor_type": "ViTImageProcessor" }),
        );
        silent(TOKENIZER_CONFIG, json!({ "backend": "tokenizers" }), json!({}));
        silent(
            CONFIG,
            json!({ "model_type": "bert", "add_cross_attention": false }),
            json!({ "model_type": "bert" }),
        );
    }

    #[test]
    fn what_one_file_lacks_is_noted_unless_its_default_is_known_to_differ() {
        noted(CONFIG, json!({}), json!({ "new_option": 3 }), "new_option");
        refused(
            CONFIG,
            json!({ "model_type": "vit" }),
            json!({ "model_type": "vit", "hidden_act": "relu" }),
            "hidden_act",
        );
        let deit = json!({ "model_type": "deit", "layer_norm_eps": 1e-12 });
        silent(CONFIG, json!({ "model_type": "deit" }), deit);
        let gated = json!({ "model_type": "dinov2", "use_swiglu_ffn": true });
        refused(CONFIG, json!({ "model_type": "dinov2" }), gated, "use_swiglu_ffn");
        let registers =
            |count: u32| json!({ "model_type": "dinov2_with_registers", "num_register_tokens": count });
        let unsaid = json!({ "model_type": "dinov2_with_registers" });
        silent(CONFIG, unsaid.clone(), registers(4));
        refused(CONFIG, unsaid, registers(1), "num_register_tokens");
        let made_up = json!({ "id2label": { "0": "LABEL_0", "1": "LABEL_1" } });
        noted(CONFIG, json!({ "id2label": { "0": "cat", "1": "dog" } }), made_up, "id2label");
    }

    #[test]
    fn whoever_says_a_setting_first_is_the_measure() {
        let classes = |names: [&str; 2]| json!({ "id2label": { "0": names[0], "1": names[1] } });
        let three = |file: &str, contents: [Value; 3]| agreement(file, &contents.map(settings), &[]);
        let error = three(
            CONFIG,
            [classes(["LABEL_0", "LABEL_1"]), classes(["cat", "dog"]), classes(["dog", "cat"])],
        );
        let says =
            r#"ingredient "a2": its config.json says "id2label.0" is "dog", but ingredient "a1" says "cat""#;
        assert!(error.as_ref().is_err_and(|e| e.starts_with(says)), "{error:?}");
        let mean = |mean: f64| json!({ "image_mean": [mean] });
        let error = three(PREPROCESSOR, [json!({}), mean(0.1), mean(0.9)]);
        assert!(error.as_ref().is_err_and(|e| e.contains(r#"but ingredient "a1" says [0.1]"#)), "{error:?}");
        // Below a setting that all have, too.
        let nested = |act: Value| json!({ "vision_config": act });
        let (gelu, relu) = (json!({ "act": "gelu" }), json!({ "act": "relu" }));
        let error = three(CONFIG, [nested(json!({ "x": 1 })), nested(gelu), nested(relu)]);
        assert!(error.is_err_and(|e| e.contains("vision_config.act")));
        // Those who agree are noted together, and what is ignored is.
        let notes = three(PREPROCESSOR, [json!({}), mean(0.1), mean(0.1)]).unwrap();
        assert!(notes.len() == 1 && notes[0].contains(r#"ingredient "a1" and 1 more"#), "{notes:?}");
        let differ = [json!({}), mean(0.1), mean(0.9)].map(settings);
        let notes = agreement(PREPROCESSOR, &differ, &["image_mean"]).unwrap();
        assert!(notes.iter().any(|n| n.contains("was to be ignored")), "{notes:?}");
    }

    #[test]
    fn classes_are_the_same_table_in_either_form() {
        let by_id = |a: &str, b: &str| json!({ "id2label": { "0": a, "1": b } });
        let by_name = |a: u32, b: u32| json!({ "label2id": { "cat": a, "dog": b } });
        silent(CONFIG, by_id("cat", "dog"), by_name(0, 1));
        silent(CONFIG, by_id("cat", "dog"), json!({ "label2id": { "cat": "0", "dog": "1", "LABEL_0": 0 } }));
        refused(CONFIG, by_id("cat", "dog"), by_name(1, 0), r#""id2label.0" is "dog""#);
        let made_up =
            |label2id: Value| json!({ "id2label": { "0": "LABEL_0", "1": "LABEL_1" }, "label2id": label2id });
        let names = |a: u32, b: u32| made_up(json!({ "cat": a, "dog": b }));
        refused(CONFIG, names(0, 1), names(1, 0), "id2label.0");
        let numbers = made_up(json!({ "LABEL_0": 0, "LABEL_1": 1 }));
        silent(CONFIG, numbers.clone(), json!({}));
        noted(CONFIG, numbers, names(0, 1), "id2label");
        // A table that cannot be turned round is compared as it is.
        let several = |cat: u32| json!({ "label2id": { "cat": cat, "tabby": 0, "dog": 1 } });
        refused(CONFIG, several(0), several(1), "label2id.cat");
    }

    #[test]
    fn images_in_either_file_are_compared() {
        refused(IMAGES, json!({ "image_mean": [0.5] }), json!({ "image_mean": [0.4] }), "image_mean");
        let pair = [json!({ "size": 1 }), json!({ "size": 2 })].map(settings);
        assert_eq!(agreement(IMAGES, &pair, &[PREPROCESSOR]).unwrap().len(), 1);
    }

    #[test]
    fn what_is_to_be_ignored_is_noted() {
        let pair = [settings(json!({ "hidden_act": "gelu" })), settings(json!({ "hidden_act": "relu" }))];
        for key in ["hidden_act", CONFIG] {
            let notes = agreement(CONFIG, &pair, &[key]).unwrap();
            assert!(notes[0].contains("hidden_act") && notes[0].contains("ignored"), "{notes:?}");
        }
        assert!(agreement(CONFIG, &pair, &["hidden"]).is_err());
        let mut ignored = Ignored::new(&["nothing".to_owned()]);
        agree(CONFIG, &[], &mut ignored).unwrap();
        assert_eq!(ignored.unused().collect::<Vec<_>>(), ["nothing"]);
    }

    #[test]
    fn vocabularies_must_be_equal() {
        let digest = |text: &str| Content::Digest(text.to_owned());
        assert_eq!(agreement("vocab.txt", &[digest("x"), digest("x")], &[]).unwrap(), [""; 0]);
        let error = agreement("vocab.txt", &[digest("x"), digest("x"), digest("y")], &[]).unwrap_err();
        assert!(error.starts_with(r#"ingredient "a2": its vocab.txt is another one than"#), "{error}");
        assert_eq!(agreement("vocab.txt", &[digest("x"), digest("y")], &["vocab.txt"]).unwrap().len(), 1);
    }

    #[test]
    fn what_the_first_one_says_again_agrees_with_it_and_leaves_others_to_be_compared() {
        let act = |name: &str| settings(json!({ "hidden_act": name }));
        assert_eq!(agreement(CONFIG, &[act("gelu"), Content::Same, act("gelu")], &[]).unwrap(), [""; 0]);
        let error = agreement(CONFIG, &[act("gelu"), Content::Same, act("relu")], &[]).unwrap_err();
        assert!(error.starts_with(r#"ingredient "a2""#), "{error}");
    }

    #[test]
    fn notes_are_gathered_by_setting() {
        let dropout = |p: f64| settings(json!({ "hidden_dropout_prob": p }));
        let notes = agreement(CONFIG, &[dropout(0.0), dropout(0.1), dropout(0.2)], &[]).unwrap();
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].contains(r#"ingredient "a1" and 1 more have another "hidden_dropout_prob""#),
            "{notes:?}"
        );
    }
}
