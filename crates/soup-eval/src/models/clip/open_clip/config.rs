//! `open_clip_config.json`, in the words of transformers.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use soup_core::{Error, Result};

use crate::config::{ImageClassifier, Numbers};
use crate::preprocess::{CLIP_MEAN, CLIP_STD, Preprocessor};

/// By parts: what the model is, and how images become pixels.
pub(super) struct Source {
    model: Map<String, Value>,
    pixels: Map<String, Value>,
    /// Whether it has anything to say of pixels.
    says_pixels: bool,
}

/// Options of either tower that make another model of it, unless they are off.
const BLOCKS: [&str; 6] =
    ["qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"];

/// What is understood of a part of the file.
struct Known {
    at: &'static str,
    read: &'static [&'static str],
    /// Options that training alone looks at, or that have no say in what these towers come out as.
    without_effect: &'static [&'static str],
    /// Options that make another model of it, but for a value at which they do nothing.
    idle: fn() -> Vec<(&'static str, Value)>,
}

const MODEL: Known = Known {
    at: "model_cfg",
    read: &["embed_dim", "vision_cfg", "text_cfg", "quick_gelu"],
    without_effect: &["init_logit_scale", "output_dict"],
    idle: || vec![("custom_text", json!(false)), ("nonscalar_logit_scale", json!(false))],
};
const VISION: Known = Known {
    at: "vision_cfg",
    read: &["layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "norm_kwargs"],
    without_effect: &[
        "patch_dropout",
        "attn_pooler_queries",
        "attn_pooler_heads",
        // Of the one token for the whole both are the same.
        "final_ln_after_pool",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
        "timm_drop",
        "timm_drop_path",
    ],
    idle: || {
        let off = ["attentional_pool", "no_ln_pre", "output_tokens"].into_iter().chain(BLOCKS);
        let off = off.map(|name| (name, json!(false)));
        let others = [
            ("pos_embed_type", json!("learnable")),
            ("pool_type", json!("tok")),
            ("block_type", json!("default")),
            ("act_kwargs", json!({})),
        ];
        off.chain(others).collect()
    },
};
const TEXT: Known = Known {
    at: "text_cfg",
    read: &["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs"],
    without_effect: &[
        "pad_id",
        "eos_id",
        // Of one token both are the same.
        "final_ln_after_pool",
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
    ],
    idle: || {
        let off = ["embed_cls", "no_causal_mask", "proj_bias", "output_tokens"].into_iter().chain(BLOCKS);
        let off = off.map(|name| (name, json!(false)));
        let others = [
            ("pool_type", json!("argmax")),
            ("proj_type", json!("linear")),
            ("block_type", json!("default")),
            ("act_kwargs", json!({})),
            ("tokenizer_kwargs", json!({})),
        ];
        off.chain(others).collect()
    },
};
const PIXELS: Known = Known {
    at: "preprocess_cfg",
    read: &["size", "mean", "std", "interpolation", "resize_mode"],
    without_effect: &["fill_color"],
    idle: || vec![("mode", json!("RGB"))],
};

/// The file's own form of an image tower; defaults are those of open_clip's `CLIPVisionCfg`.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    layers: Value,
    width: usize,
    head_width: usize,
    mlp_ratio: f64,
    patch_size: Value,
    image_size: Value,
    norm_kwargs: Option<RawNorm>,
}

impl Default for RawVision {
    fn default() -> Self {
        RawVision {
            layers: json!(12),
            width: 768,
            head_width: 64,
            mlp_ratio: 4.0,
            patch_size: json!(16),
            image_size: json!(224),
            norm_kwargs: None,
        }
    }
}

/// The same of a text tower; defaults are those of `CLIPTextCfg`.
#[derive(Deserialize)]
#[serde(default)]
struct RawText {
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    mlp_ratio: f64,
    norm_kwargs: Option<RawNorm>,
}

impl Default for RawText {
    fn default() -> Self {
        RawText {
            context_length: 77,
            vocab_size: 49408,
            width: 512,
            heads: 8,
            layers: 12,
            mlp_ratio: 4.0,
            norm_kwargs: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNorm {
    #[serde(default = "epsilon")]
    eps: f64,
}

fn epsilon() -> f64 {
    1e-5
}

/// How images become pixels; defaults are those of open_clip's `PreprocessCfg`.
#[derive(Deserialize)]
#[serde(default)]
struct RawPixels {
    size: Option<Value>,
    mean: Vec<f64>,
    std: Vec<f64>,
    interpolation: String,
    resize_mode: String,
}

impl Default for RawPixels {
    fn default() -> Self {
        RawPixels {
            size: None,
            mean: CLIP_MEAN.to_vec(),
            std: CLIP_STD.to_vec(),
            interpolation: "bicubic".to_owned(),
            resize_mode: "shortest".to_owned(),
        }
    }
}

fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("open_clip_config.json: {text}"))
}

/// Requires that the option `name` of the part `at` is one of these numbers.
fn check(at: &str, name: &str, value: f64, numbers: Numbers) -> Result<()> {
    match numbers.expected_for(value) {
        None => Ok(()),
        Some(expected) => Err(wrong(format!("{at}.{name} is {value}, expected {expected}"))),
    }
}

fn object(of: &Map<String, Value>, key: &str) -> Result<Map<String, Value>> {
    match of.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(part)) => Ok(part.clone()),
        Some(other) => Err(wrong(format!("{key} is {other}, expected settings"))),
    }
}

impl Known {
    /// The part in a form of its own.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first option that would make another model of it, or that is not known.
    fn read<T: serde::de::DeserializeOwned>(&self, part: &Map<String, Value>) -> Result<T> {
        let (at, idle) = (self.at, (self.idle)());
        let known = |key: &str| self.read.contains(&key) || self.without_effect.contains(&key);
        // open_clip takes its default where one is null.
        for (key, value) in part.iter().filter(|(key, value)| !known(key) && !value.is_null()) {
            match idle.iter().find(|(name, _)| name == key) {
                Some((_, usual)) if usual == value => {}
                Some((_, usual)) => {
                    return Err(wrong(format!("{at}.{key} is {value}: only {usual} is supported")));
                }
                None => return Err(wrong(format!("{at}.{key} is {value}, which is not supported"))),
            }
        }
        T::deserialize(part).map_err(|e| wrong(format!("{at} is not understood")).with_source(e))
    }
}

#[derive(Deserialize)]
struct RawModel {
    embed_dim: usize,
    #[serde(default)]
    quick_gelu: bool,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Source> {
        let whole: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| wrong("not understood").with_source(e))?;
        let (model, pixels) = (object(&whole, "model_cfg")?, object(&whole, "preprocess_cfg")?);
        let says_pixels = whole.get("preprocess_cfg").is_some_and(Value::is_object);
        Ok(Source { model, pixels, says_pixels })
    }

    /// What the model is, in the words of a `CLIPModel`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming an option that is not supported.
    pub(super) fn settings(&self) -> Result<Map<String, Value>> {
        let RawModel { embed_dim, quick_gelu } = MODEL.read(&self.model)?;
        let vision: RawVision = VISION.read(&object(&self.model, VISION.at)?)?;
        let text: RawText = TEXT.read(&object(&self.model, TEXT.at)?)?;
        if !vision.layers.is_u64() {
            let layers = &vision.layers;
            return Err(wrong(format!("vision_cfg.layers is {layers}: its ResNets are not supported")));
        }
        let heads = vision.width.checked_div(vision.head_width).unwrap_or(0);
        let activation = if quick_gelu { "quick_gelu" } else { "gelu" };
        // Truncated, in floating point, as the original does.
        let wide = |width: usize, ratio: f64| (width as f64 * ratio) as usize;
        let epsilon = |norm: &Option<RawNorm>| norm.as_ref().map_or(epsilon(), |norm| norm.eps);
        for (at, ratio, norm) in
            [(VISION.at, vision.mlp_ratio, &vision.norm_kwargs), (TEXT.at, text.mlp_ratio, &text.norm_kwargs)]
        {
            check(at, "mlp_ratio", ratio, Numbers::Factors)?;
            check(at, "norm_kwargs.eps", epsilon(norm), Numbers::Epsilons)?;
        }
        let whole = json!({
            "projection_dim": embed_dim,
            "vision_config": {
                "hidden_size": vision.width,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": heads,
                "intermediate_size": wide(vision.width, vision.mlp_ratio),
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "hidden_act": activation,
                "layer_norm_eps": epsilon(&vision.norm_kwargs),
            },
            "text_config": {
                "hidden_size": text.width,
                "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads,
                "intermediate_size": wide(text.width, text.mlp_ratio),
                "max_position_embeddings": text.context_length,
                "vocab_size": text.vocab_size,
                "hidden_act": activation,
                "layer_norm_eps": epsilon(&text.norm_kwargs),
                // The last one of open_clip's tokenizer, so that it is the largest of each text.
                "eos_token_id": text.vocab_size.saturating_sub(1),
            },
        });
        match whole {
            Value::Object(settings) => Ok(settings),
            _ => Err(Error::internal("settings are no object")),
        }
    }

    /// As open_clip makes pixels in evaluation, for a model that takes images of one size.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not understood.
    pub(super) fn preprocessor(&self, classifier: &ImageClassifier) -> Result<Preprocessor> {
        if !self.says_pixels {
            return Err(wrong("there is no preprocess_cfg, which says how images become pixels"));
        }
        let raw: RawPixels = PIXELS.read(&self.pixels)?;
        let (image, channels) = (classifier.image, classifier.channels);
        let sizes = [json!(image.height), json!([image.height, image.width])];
        if let Some(size) = raw.size.filter(|size| !size.is_null() && !sizes.contains(size)) {
            return Err(wrong(format!("preprocess_cfg.size is {size}, the model takes {}", sizes[1])));
        }
        let crop_mode = match raw.resize_mode.as_str() {
            "shortest" => "center",
            "squash" => "squash",
            other => {
                return Err(wrong(format!(
                    "preprocess_cfg.resize_mode is {other:?}: supported are \"shortest\" and \"squash\""
                )));
            }
        };
        let interpolation = raw.interpolation;
        if !["bicubic", "bilinear"].contains(&interpolation.as_str()) {
            return Err(wrong(format!(
                "preprocess_cfg.interpolation is {interpolation:?}: supported are \"bicubic\" and \"bilinear\""
            )));
        }
        if raw.mean.len() != channels || raw.std.len() != channels || raw.std.iter().any(|&s| s <= 0.0) {
            return Err(wrong(format!(
                "preprocess_cfg has mean {:?} and std {:?}, expected {channels} numbers each, and positive deviations",
                raw.mean, raw.std
            )));
        }
        let as_timm = json!({
            "crop_pct": 1.0, "crop_mode": crop_mode, "interpolation": interpolation, "mean": raw.mean, "std": raw.std,
        });
        match as_timm {
            Value::Object(config) => Preprocessor::of_timm(&config, image, channels),
            _ => Err(Error::internal("settings are no object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::ImageSize;

    fn settings(model: &str) -> Result<Value> {
        Source::parse(&format!(r#"{{"model_cfg": {model}}}"#))?.settings().map(Value::Object)
    }

    fn error(model: &str) -> String {
        settings(model).err().map(|e| e.chain()).unwrap_or_default()
    }

    #[test]
    fn settings_are_put_into_transformers_words() {
        let got = settings(
            r#"{"embed_dim": 512, "quick_gelu": true, "vision_cfg": {"layers": 24, "width": 1664, "head_width": 104,
                "mlp_ratio": 4.9231, "patch_size": 14, "patch_dropout": 0.5, "ls_init_value": null},
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1280, "heads": 20, "layers": 32,
                "norm_kwargs": {"eps": 1e-6}}}"#,
        );
        let got = got.unwrap();
        let (vision, text) = (&got["vision_config"], &got["text_config"]);
        assert_eq!(
            (&vision["num_attention_heads"], &vision["intermediate_size"]),
            (&json!(16), &json!(8192))
        );
        assert_eq!((&vision["hidden_act"], &vision["layer_norm_eps"]), (&json!("quick_gelu"), &json!(1e-5)));
        assert_eq!((&text["intermediate_size"], &text["layer_norm_eps"]), (&json!(5120), &json!(1e-6)));
        assert_eq!(got["projection_dim"], 512);
        assert_eq!(settings(r#"{"embed_dim": 8}"#).unwrap()["vision_config"]["hidden_act"], "gelu");
    }

    #[test]
    fn other_models_are_refused_by_name() {
        assert!(error("{}").contains("model_cfg is not understood"));
        let of = |more: &str| error(&format!(r#"{{"embed_dim": 8, {more}}}"#));
        for (more, text) in [
            (r#""custom_text": true"#, "model_cfg.custom_text is true: only false is supported"),
            (r#""init_logit_bias": -10"#, "model_cfg.init_logit_bias is -10, which is not supported"),
            (r#""multimodal_cfg": {}"#, "model_cfg.multimodal_cfg is {}, which is not supported"),
            (r#""vision_cfg": {"layers": [3, 4, 6, 3]}"#, "vision_cfg.layers is [3,4,6,3]: its ResNets"),
            (r#""vision_cfg": {"timm_model_name": "vit"}"#, "vision_cfg.timm_model_name is \"vit\", which"),
            (r#""vision_cfg": {"ls_init_value": 0.1}"#, "vision_cfg.ls_init_value is 0.1"),
            (r#""vision_cfg": {"pool_type": "avg"}"#, "vision_cfg.pool_type is \"avg\": only \"tok\""),
            (r#""text_cfg": {"hf_model_name": "roberta"}"#, "text_cfg.hf_model_name is \"roberta\", which"),
            (r#""text_cfg": {"pool_type": "last"}"#, "text_cfg.pool_type is \"last\": only \"argmax\""),
            (r#""text_cfg": {"qk_norm": true}"#, "text_cfg.qk_norm is true"),
            (r#""text_cfg": {"norm_kwargs": {"bias": false}}"#, "text_cfg is not understood"),
            (r#""text_cfg": {"norm_kwargs": {"eps": 2}}"#, "text_cfg.norm_kwargs.eps is 2, expected"),
            (r#""vision_cfg": {"norm_kwargs": {"eps": 0}}"#, "vision_cfg.norm_kwargs.eps is 0, expected"),
            (r#""vision_cfg": {"mlp_ratio": -4}"#, "vision_cfg.mlp_ratio is -4, expected"),
        ] {
            assert!(of(more).contains(text), "{more}: {}", of(more));
        }
    }

    #[test]
    fn images_become_pixels_as_the_file_says() {
        let of = |pixels: &str| {
            let source = Source::parse(&format!(r#"{{"preprocess_cfg": {pixels}}}"#)).unwrap();
            let image = ImageSize { height: 16, width: 16 };
            let classes = crate::classes::Classes::new(vec!["a".to_owned()], &Default::default());
            source.preprocessor(&ImageClassifier { image, channels: 3, classes })
        };
        let error = |pixels: &str| of(pixels).err().map(|e| e.chain()).unwrap_or_default();
        assert_eq!(of("{}").unwrap().output(), ImageSize { height: 16, width: 16 });
        assert!(error("null").contains("there is no preprocess_cfg"));
        assert!(of(r#"{"size": [16, 16], "mode": "RGB", "resize_mode": "squash", "fill_color": 0}"#).is_ok());
        assert!(error(r#"{"size": 32}"#).contains("preprocess_cfg.size is 32, the model takes [16,16]"));
        assert!(error(r#"{"resize_mode": "longest"}"#).contains("preprocess_cfg.resize_mode is \"longest\""));
        assert!(error(r#"{"interpolation": "random"}"#).contains("interpolation is \"random\""));
        assert!(error(r#"{"mode": "L"}"#).contains("preprocess_cfg.mode is \"L\": only \"RGB\""));
        assert!(error(r#"{"std": [1, 1, 0]}"#).contains("positive deviations"));
    }
}
