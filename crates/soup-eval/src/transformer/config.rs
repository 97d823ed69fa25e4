//! What the `config.json` of every vision transformer says.

use serde::Deserialize;
use serde_json::Value;
use soup_core::Result;

use crate::config::{ImageClassifier, Numbers, OneOrTwo, Settings, check_number, check_size, wrong};
use crate::kernels::Activation;
use crate::preprocess::ImageSize;

/// Most layers of any transformer.
pub(crate) const LAYERS_MAX: usize = 1024;

/// Sizes and options that all vision transformers have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TransformerConfig {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) patch: ImageSize,
    /// Rows and columns of the patches that the checkpoint has position embeddings of: those of `image_size`.
    pub(crate) positions: (usize, usize),
    pub(crate) qkv_bias: bool,
    pub(crate) epsilon: f64,
    pub(crate) classifier: ImageClassifier,
}

/// The file's own form; defaults are those of transformers' `ViTConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    patch_size: OneOrTwo,
    qkv_bias: bool,
    layer_norm_eps: f64,
    head_dim: Option<usize>,
    pruned_heads: Value,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            patch_size: OneOrTwo::One(16),
            qkv_bias: true,
            layer_norm_eps: 1e-12,
            head_dim: None,
            pruned_heads: Value::Null,
        }
    }
}

impl TransformerConfig {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood, or where there are no
    /// classes to tell apart.
    pub(crate) fn read(settings: &Settings) -> Result<TransformerConfig> {
        let raw = settings.read::<Raw>()?;
        let mut config = TransformerConfig {
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            patch: raw.patch_size.checked("patch_size")?,
            positions: (0, 0),
            qkv_bias: raw.qkv_bias,
            epsilon: raw.layer_norm_eps,
            classifier: settings.classifier()?,
        };
        config.check()?;
        config.check_heads(&raw)?;
        config.positions = config.grid();
        Ok(config)
    }

    /// Has it take images of another size than `image_size`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where they have no whole patch.
    pub(crate) fn resize(&mut self, image: ImageSize) -> Result<()> {
        if self.patch.height > image.height || self.patch.width > image.width {
            return Err(wrong(format!(
                "patch_size is larger than the images, which become {} x {} pixels (preprocessor_config.json)",
                image.width, image.height
            )));
        }
        self.classifier.image = image;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        check_size("hidden_size", self.hidden)?;
        check_size("num_attention_heads", self.heads)?;
        check_layers(self.layers)?;
        let image = self.classifier.image;
        if self.patch.height > image.height || self.patch.width > image.width {
            return Err(wrong("patch_size is larger than image_size"));
        }
        check_number("layer_norm_eps", self.epsilon, Numbers::Epsilons)
    }

    /// Heads share the hidden state evenly, and all of them are there.
    fn check_heads(&self, raw: &Raw) -> Result<()> {
        check_share(self.hidden, self.heads)?;
        let share = self.hidden / self.heads;
        if let Some(width) = raw.head_dim.filter(|width| *width != share) {
            return Err(wrong(format!(
                "head_dim is {width}, expected hidden_size / num_attention_heads = {share}"
            )));
        }
        check_pruned(&raw.pruned_heads)
    }

    /// Rows and columns of patches; pixels beyond the last whole patch are not looked at.
    pub(crate) fn grid(&self) -> (usize, usize) {
        let image = self.classifier.image;
        (image.height / self.patch.height, image.width / self.patch.width)
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) for more layers than any model has.
pub(crate) fn check_layers(layers: usize) -> Result<()> {
    match layers <= LAYERS_MAX {
        true => Ok(()),
        false => Err(wrong(format!("num_hidden_layers is {layers}, expected at most {LAYERS_MAX}"))),
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where heads cannot share the hidden state evenly.
pub(crate) fn check_share(hidden: usize, heads: usize) -> Result<()> {
    match hidden.is_multiple_of(heads) {
        true => Ok(()),
        false => Err(wrong(format!("hidden_size {hidden} is not a multiple of num_attention_heads {heads}"))),
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where some heads are not there.
pub(crate) fn check_pruned(pruned_heads: &Value) -> Result<()> {
    match pruned_heads {
        Value::Null => Ok(()),
        Value::Object(layers) if layers.is_empty() => Ok(()),
        other => Err(wrong(format!("pruned_heads is {other}: models without some heads are not supported"))),
    }
}

/// The activation that the setting `hidden_act` names.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is none of those here.
pub(crate) fn activation(hidden_act: &str) -> Result<Activation> {
    Activation::from_name(hidden_act)
        .ok_or_else(|| wrong(format!("unknown hidden_act {hidden_act:?}: known are {}", Activation::NAMES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TransformerConfig> {
        TransformerConfig::read(&Settings::parse(json)?)
    }

    fn error(json: &str) -> String {
        read(json).unwrap_err().chain()
    }

    #[test]
    fn sizes_may_be_pairs() {
        let config = read(r#"{"image_size": [32, 48], "patch_size": [16, 12]}"#).unwrap();
        assert_eq!(config.grid(), (2, 4));
    }

    #[test]
    fn bad_sizes_say_what_is_wrong() {
        assert!(error(r#"{"hidden_size": 0}"#).contains("hidden_size is 0"));
        assert!(error(r#"{"hidden_size": null}"#).contains("not understood"));
        assert!(error(r#"{"hidden_size": 10, "num_attention_heads": 3}"#).contains("not a multiple"));
        assert!(error(r#"{"patch_size": 300}"#).contains("larger than image_size"));
        assert!(error(r#"{"layer_norm_eps": -1}"#).contains("layer_norm_eps"));
        assert!(error(r#"{"layer_norm_eps": 2147483648}"#).contains("layer_norm_eps is 2147483648"));
        assert!(error(r#"{"num_hidden_layers": 5000}"#).contains("num_hidden_layers"));
    }

    #[test]
    fn heads_have_one_width_and_are_all_there() {
        assert!(read(r#"{"head_dim": 64, "pruned_heads": {}}"#).is_ok());
        assert!(read(r#"{"head_dim": null, "pruned_heads": null}"#).is_ok());
        assert!(error(r#"{"head_dim": 32}"#).contains("head_dim is 32, expected"));
        assert!(error(r#"{"pruned_heads": {"0": [1]}}"#).contains("pruned_heads is {\"0\":[1]}"));
    }
}
