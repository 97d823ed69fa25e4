//! `ViTForImageClassification`: what its `config.json` says, and which tensors it needs.
//!
//! The forward pass is in [`model`]. Only options that change the forward pass in evaluation are read; an option of
//! such kind with a value that is not understood is an error, never a guess.

mod gradient;
pub(crate) mod model;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use soup_core::Result;
use soup_core::schema::Schema;

use crate::classes::Classes;
use crate::config::{OneOrTwo, check_problem, labels, numbers, wrong};
use crate::kernels::Activation;
use crate::parameters;
use crate::preprocess::ImageSize;

/// Name of the architecture, as in `architectures` of `config.json`.
pub(crate) const ARCHITECTURE: &str = "ViTForImageClassification";
/// `model_type` of the architecture.
pub(crate) const MODEL_TYPE: &str = "vit";

/// Largest value of any size in a config: bounds every product of two of them.
const SIZE_MAX: usize = 1 << 20;
const LAYERS_MAX: usize = 1024;
/// What `config.json` says about a vision transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) image: ImageSize,
    pub(crate) patch: ImageSize,
    pub(crate) channels: usize,
    pub(crate) qkv_bias: bool,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f64,
    pub(crate) classes: Classes,
}

/// The file's own form; defaults are those of transformers' `ViTConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    image_size: OneOrTwo,
    patch_size: OneOrTwo,
    num_channels: usize,
    qkv_bias: bool,
    hidden_act: String,
    layer_norm_eps: f64,
    id2label: Option<BTreeMap<String, Value>>,
    label2id: Option<BTreeMap<String, Value>>,
    num_labels: Option<usize>,
    problem_type: Option<String>,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            image_size: OneOrTwo::One(224),
            patch_size: OneOrTwo::One(16),
            num_channels: 3,
            qkv_bias: true,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-12,
            id2label: None,
            label2id: None,
            num_labels: None,
            problem_type: None,
        }
    }
}

impl VitConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is not JSON, where a value is out of range, or where it describes
    /// something that cannot classify.
    pub fn from_json(text: &str) -> Result<VitConfig> {
        // By way of a map: a struct would also be read from a list.
        let raw = serde_json::from_str::<serde_json::Map<String, Value>>(text)
            .and_then(|map| serde_json::from_value::<Raw>(Value::Object(map)))
            .map_err(|e| wrong("not understood").with_source(e))?;
        let config = VitConfig {
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            intermediate: raw.intermediate_size,
            image: raw.image_size.into(),
            patch: raw.patch_size.into(),
            channels: raw.num_channels,
            qkv_bias: raw.qkv_bias,
            activation: Activation::from_name(&raw.hidden_act).ok_or_else(|| {
                wrong(format!("unknown hidden_act {:?}: known are {}", raw.hidden_act, Activation::NAMES))
            })?,
            epsilon: raw.layer_norm_eps,
            classes: Classes::new(labels(raw.id2label, raw.num_labels)?, &numbers(raw.label2id)),
        };
        config.check()?;
        check_problem(raw.problem_type.as_deref(), &config.classes)?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("num_attention_heads", self.heads),
            ("intermediate_size", self.intermediate),
            ("image_size", self.image.height.min(self.image.width)),
            ("image_size", self.image.height.max(self.image.width)),
            ("patch_size", self.patch.height.min(self.patch.width)),
            ("patch_size", self.patch.height.max(self.patch.width)),
            ("num_channels", self.channels),
        ];
        for (name, size) in sizes {
            if size == 0 || size > SIZE_MAX {
                return Err(wrong(format!("{name} is {size}, expected 1 to {SIZE_MAX}")));
            }
        }
        if self.channels != 1 && self.channels != 3 {
            return Err(wrong(format!("num_channels is {}, expected 1 (grey) or 3 (RGB)", self.channels)));
        }
        if self.layers > LAYERS_MAX {
            return Err(wrong(format!(
                "num_hidden_layers is {}, expected at most {LAYERS_MAX}",
                self.layers
            )));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(wrong(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden, self.heads
            )));
        }
        if self.patch.height > self.image.height || self.patch.width > self.image.width {
            return Err(wrong("patch_size is larger than image_size"));
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(wrong(format!(
                "layer_norm_eps is {}, expected a small positive number",
                self.epsilon
            )));
        }
        Ok(())
    }

    /// The classes.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Height and width of the images it takes.
    pub fn image_size(&self) -> ImageSize {
        self.image
    }

    /// 1 (grey) or 3 (RGB).
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Rows and columns of patches; pixels beyond the last whole patch are not looked at.
    pub(crate) fn grid(&self) -> (usize, usize) {
        (self.image.height / self.patch.height, self.image.width / self.patch.width)
    }

    /// Name and shape of every tensor that the forward pass needs (names of transformers 4).
    pub fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (hidden, intermediate) = (self.hidden as u64, self.intermediate as u64);
        let (rows, columns) = self.grid();
        let patch = [self.channels as u64, self.patch.height as u64, self.patch.width as u64];
        let mut out = vec![
            ("vit.embeddings.cls_token".to_owned(), vec![1, 1, hidden]),
            ("vit.embeddings.position_embeddings".to_owned(), vec![1, (rows * columns) as u64 + 1, hidden]),
            (
                "vit.embeddings.patch_embeddings.projection.weight".to_owned(),
                vec![hidden, patch[0], patch[1], patch[2]],
            ),
            ("vit.embeddings.patch_embeddings.projection.bias".to_owned(), vec![hidden]),
        ];
        let mut linear = |name: String, rows: u64, columns: u64, bias: bool| {
            out.push((format!("{name}.weight"), vec![rows, columns]));
            if bias {
                out.push((format!("{name}.bias"), vec![rows]));
            }
        };
        let mut norms = vec!["vit.layernorm".to_owned()];
        for layer in 0..self.layers {
            let at = format!("vit.encoder.layer.{layer}");
            for part in ["query", "key", "value"] {
                linear(format!("{at}.attention.attention.{part}"), hidden, hidden, self.qkv_bias);
            }
            linear(format!("{at}.attention.output.dense"), hidden, hidden, true);
            linear(format!("{at}.intermediate.dense"), intermediate, hidden, true);
            linear(format!("{at}.output.dense"), hidden, intermediate, true);
            norms.extend([format!("{at}.layernorm_before"), format!("{at}.layernorm_after")]);
        }
        linear("classifier".to_owned(), u64::from(self.classes.count()), hidden, true);
        for norm in norms {
            out.push((format!("{norm}.weight"), vec![hidden]));
            out.push((format!("{norm}.bias"), vec![hidden]));
        }
        out
    }

    /// Checks that a pool of `schema` can be evaluated; tensors that the forward pass does not use are ignored.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the first tensor that is missing or has another shape.
    pub fn check_schema(&self, schema: &Schema) -> Result<()> {
        parameters::check_schema(schema, &self.tensors(), ARCHITECTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        VitConfig::from_json(json).unwrap_err().chain()
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let config = VitConfig::from_json("{}").unwrap();
        assert_eq!((config.hidden, config.layers, config.heads, config.intermediate), (768, 12, 12, 3072));
        assert_eq!(config.grid(), (14, 14));
        assert_eq!(config.classes().names(), ["LABEL_0", "LABEL_1"]);
        // 4 + 16 a layer + 2 + 2, as in google/vit-base-patch16-224 without its pooler.
        assert_eq!(config.tensors().len(), 8 + 12 * 16);
    }

    #[test]
    fn sizes_may_be_pairs() {
        let config = VitConfig::from_json(r#"{"image_size": [32, 48], "patch_size": [16, 12]}"#).unwrap();
        assert_eq!(config.grid(), (2, 4));
    }

    #[test]
    fn without_qkv_bias_there_are_three_tensors_a_layer_less() {
        let config = VitConfig::from_json(r#"{"qkv_bias": false}"#).unwrap();
        assert_eq!(config.tensors().len(), 8 + 12 * 13);
    }

    #[test]
    fn labels_come_by_id_not_by_text() {
        let ids: Vec<String> = (0..11).map(|i| format!("\"{i}\": \"c{i}\"")).collect();
        let config = VitConfig::from_json(&format!("{{\"id2label\": {{{}}}}}", ids.join(","))).unwrap();
        assert_eq!(config.classes().names()[2], "c2");
        assert_eq!(config.classes().names()[10], "c10");
    }

    #[test]
    fn bad_configs_say_what_is_wrong() {
        assert!(error(r#"{"id2label": {}}"#).contains("num_labels is 0"));
        assert!(error(r#"{"num_labels": 0}"#).contains("num_labels is 0"));
        assert!(error(r#"{"num_labels": 1}"#).contains("one class"));
        assert!(error(r#"{"id2label": {"0": "price"}}"#).contains("a regression"));
        for problem in ["regression", "multi_label_classification"] {
            let config = format!(r#"{{"problem_type": "{problem}", "num_labels": 3}}"#);
            assert!(error(&config).contains(problem));
        }
        assert!(error(r#"{"id2label": {"1": "a"}}"#).contains("none for class 0"));
        assert!(error(r#"{"hidden_act": "geglu"}"#).contains("unknown hidden_act \"geglu\""));
        assert!(error(r#"{"hidden_size": 0}"#).contains("hidden_size is 0"));
        assert!(error(r#"{"hidden_size": 10, "num_attention_heads": 3}"#).contains("not a multiple"));
        assert!(error(r#"{"patch_size": 300}"#).contains("larger than image_size"));
        assert!(error(r#"{"num_channels": 4}"#).contains("num_channels is 4"));
        assert!(error(r#"{"layer_norm_eps": -1}"#).contains("layer_norm_eps"));
        assert!(error(r#"{"num_hidden_layers": 5000}"#).contains("num_hidden_layers"));
        assert!(error("[]").contains("config.json"));
        assert!(error(r#"{"image_size": 9999999999999}"#).contains("image_size"));
    }
}
