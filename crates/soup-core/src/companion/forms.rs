//! Settings in one form: forms that mean the same become equal, and known defaults are filled in.

use serde_json::{Map, Value};

use super::{CONFIG, ENDING, OPEN_CLIP_CONFIG, TOKENIZER_CONFIG};

/// What transformers takes where a `config.json` of a model type does not say.
const DEFAULTS: [(&str, &[(&str, &str)]); 7] = [
    ("vit", VIT),
    ("deit", VIT),
    ("dinov2", DINOV2),
    ("dinov2_with_registers", DINOV2_WITH_REGISTERS),
    ("bert", BERT),
    ("roberta", ROBERTA),
    ("distilbert", DISTILBERT),
];

const BERT: &[(&str, &str)] = &[
    ("vocab_size", "30522"),
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("intermediate_size", "3072"),
    ("hidden_act", "\"gelu\""),
    ("max_position_embeddings", "512"),
    ("type_vocab_size", "2"),
    ("layer_norm_eps", "1e-12"),
    ("pad_token_id", "0"),
    ("position_embedding_type", "\"absolute\""),
    ("is_decoder", "false"),
    ("add_cross_attention", "false"),
];

const ROBERTA: &[(&str, &str)] = &[
    ("vocab_size", "50265"),
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("intermediate_size", "3072"),
    ("hidden_act", "\"gelu\""),
    ("max_position_embeddings", "512"),
    ("type_vocab_size", "2"),
    ("layer_norm_eps", "1e-12"),
    ("pad_token_id", "1"),
    ("position_embedding_type", "\"absolute\""),
    ("is_decoder", "false"),
    ("add_cross_attention", "false"),
];

const DISTILBERT: &[(&str, &str)] = &[
    ("vocab_size", "30522"),
    ("dim", "768"),
    ("n_layers", "6"),
    ("n_heads", "12"),
    ("hidden_dim", "3072"),
    ("activation", "\"gelu\""),
    ("max_position_embeddings", "512"),
    ("pad_token_id", "0"),
    ("sinusoidal_pos_embds", "false"),
];

const VIT: &[(&str, &str)] = &[
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("intermediate_size", "3072"),
    ("hidden_act", "\"gelu\""),
    ("layer_norm_eps", "1e-12"),
    ("image_size", "224"),
    ("patch_size", "16"),
    ("num_channels", "3"),
    ("qkv_bias", "true"),
    ("pooler_act", "\"tanh\""),
];

const DINOV2: &[(&str, &str)] = &[
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("mlp_ratio", "4"),
    ("hidden_act", "\"gelu\""),
    ("layer_norm_eps", "1e-6"),
    ("image_size", "224"),
    ("patch_size", "14"),
    ("num_channels", "3"),
    ("qkv_bias", "true"),
    ("use_swiglu_ffn", "false"),
];

const DINOV2_WITH_REGISTERS: &[(&str, &str)] = &[
    ("hidden_size", "768"),
    ("num_hidden_layers", "12"),
    ("num_attention_heads", "12"),
    ("mlp_ratio", "4"),
    ("hidden_act", "\"gelu\""),
    ("layer_norm_eps", "1e-6"),
    ("image_size", "224"),
    ("patch_size", "16"),
    ("num_channels", "3"),
    ("qkv_bias", "true"),
    ("use_swiglu_ffn", "false"),
    ("num_register_tokens", "4"),
];

/// Settings of the companion `file` in one form.
pub(super) fn canonical(file: &str, settings: &Map<String, Value>) -> Map<String, Value> {
    let mut settings = settings.clone();
    match file {
        CONFIG => {
            classes(&mut settings);
            fill_in(&mut settings);
            head_of_t5(&mut settings);
            counted(&mut settings);
        }
        OPEN_CLIP_CONFIG => {
            if let Some(Value::Object(model)) = settings.get_mut("model_cfg") {
                // What open_clip takes where a file does not say.
                model.entry("quick_gelu").or_insert(Value::Bool(false));
            }
        }
        TOKENIZER_CONFIG => tokenizer(&mut settings),
        _ => processor(&mut settings),
    }
    settings
}

/// The names of classes as `id2label`: `label2id` is the same table, read the other way, and names that were made up say nothing.
fn classes(settings: &mut Map<String, Value>) {
    let made_up = |(id, name): (&String, &Value)| name.as_str() == Some(&format!("LABEL_{id}"));
    match settings.get("id2label") {
        None | Some(Value::Null) => {}
        Some(Value::Object(named)) if named.iter().all(made_up) => {}
        Some(Value::Object(_)) => return drop(settings.remove("label2id")),
        Some(_) => return,
    }
    settings.remove("id2label");
    let Some(Value::Object(by_name)) = settings.get("label2id") else { return };
    if let Some(by_id) = turned_round(by_name) {
        settings.remove("label2id");
        if !by_id.is_empty() {
            settings.insert("id2label".to_owned(), Value::Object(by_id));
        }
    }
}

/// The names of `label2id` by their numbers, without those that were made up; `None` where a number has several, or one is none.
fn turned_round(label2id: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut by_id = Map::new();
    for (name, id) in label2id {
        let id = match id {
            // Some programs write numbers as text.
            Value::String(text) => text.parse().ok()?,
            other => other.as_u64()?,
        };
        if *name != format!("LABEL_{id}") && by_id.insert(id.to_string(), name.as_str().into()).is_some() {
            return None;
        }
    }
    Some(by_id)
}

/// Fills in what the model type is known to take where the file does not say.
fn fill_in(settings: &mut Map<String, Value>) {
    let model_type = settings.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let defaults = DEFAULTS.iter().find(|(of, _)| *of == model_type).map_or(&[][..], |(_, d)| d);
    for (key, default) in defaults {
        if !settings.contains_key(*key)
            && let Ok(default) = serde_json::from_str(default)
        {
            settings.insert((*key).to_owned(), default);
        }
    }
}

/// What a T5's file says of its head, as transformers 5 says it: 4 had one setting for whether the head is the embeddings, which the
/// tensors say themselves, and for whether what goes into it is scaled.
fn head_of_t5(settings: &mut Map<String, Value>) {
    if settings.get("model_type").and_then(Value::as_str) == Some("t5") {
        let tied = settings.remove("tie_word_embeddings").filter(|tied| !tied.is_null());
        settings.entry("scale_decoder_outputs").or_insert(tied.unwrap_or(Value::Bool(true)));
    }
}

/// Takes out how many layers an EfficientNet says that it has: versions count in different ways, and none looks at it.
fn counted(settings: &mut Map<String, Value>) {
    let of_type = settings.get("model_type").and_then(Value::as_str);
    let counts = match of_type {
        Some("efficientnet") => Some(settings),
        Some("align") => settings.get_mut("vision_config").and_then(Value::as_object_mut),
        _ => None,
    };
    if let Some(settings) = counts {
        settings.remove("num_hidden_layers");
    }
}

/// Classes of tokenizers under the one name that all of them have had, and further special tokens under one name: transformers 4 and 5 have
/// another each.
fn tokenizer(settings: &mut Map<String, Value>) {
    // Transformers 5 says so of all that are made of a tokenizer.json.
    if settings.get("backend").is_some_and(|backend| backend == "tokenizers") {
        settings.remove("backend");
    }
    if let Some(Value::String(class)) = settings.get_mut("tokenizer_class")
        && let Some(stem) = class.strip_suffix("Fast").map(str::to_owned)
    {
        *class = stem;
    }
    let mut further = Vec::new();
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        match settings.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(tokens)) => further.extend(tokens.iter().cloned()),
            Some(Value::Object(by_name)) => further.extend(by_name.values().cloned()),
            Some(_) => return,
        }
    }
    settings.remove("extra_special_tokens");
    settings.remove("additional_special_tokens");
    if !further.is_empty() {
        settings.insert("additional_special_tokens".to_owned(), further.into());
    }
}

/// Processors under the one name that they had and have, with its ending apart, and squares by their side.
fn processor(settings: &mut Map<String, Value>) {
    let names = ["image_processor_type", "feature_extractor_type"];
    let name = names.iter().find_map(|n| settings.remove(*n));
    if let Some(Value::String(name)) = name {
        let ended = ["Fast", "Pil"].into_iter().find_map(|ending| Some((name.strip_suffix(ending)?, ending)));
        let (stem, ending) = ended.unwrap_or((name.as_str(), ""));
        let stem = stem.trim_end_matches("FeatureExtractor").trim_end_matches("ImageProcessor");
        settings.insert(names[0].to_owned(), stem.into());
        settings.insert(ENDING.to_owned(), ending.into());
    }
    for key in ["size", "crop_size"] {
        let sides = settings.get(key).and_then(|v| Some((v.get("height")?.clone(), v.get("width")?.clone())));
        if let Some((height, width)) = sides
            && height == width
            && settings[key].as_object().is_some_and(|o| o.len() == 2)
        {
            settings.insert(key.to_owned(), height);
        }
    }
}
