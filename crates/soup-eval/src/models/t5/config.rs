//! What the `config.json` of a T5 says.

use serde::Deserialize;
use serde_json::Value;
use soup_core::Result;

use crate::config::{Numbers, Settings, check_number, check_size, wrong};
use crate::kernels::Activation;
use crate::kernels::relative::Buckets;
use crate::kind::TextClassifier;
use crate::transformer::config::{LAYERS_MAX, check_pruned};

/// Longest text, in tokens. The model itself knows of no longest one; this bounds what a sample takes.
const TEXT_TOKENS_MAX: usize = 1 << 12;

/// Sizes and options, of encoder and decoder unless they say so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct T5Config {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    /// Of a head: heads have as much together as they like.
    pub(super) width: usize,
    pub(super) intermediate: usize,
    pub(super) encoder_layers: usize,
    pub(super) decoder_layers: usize,
    /// How the encoder puts distances into buckets; the decoder has as many of them.
    pub(super) buckets: Buckets,
    pub(super) epsilon: f64,
    pub(super) activation: Activation,
    /// Whether the activation of one map is multiplied by another map.
    pub(super) gated: bool,
    pub(super) head: Head,
    /// Whether the decoder's states are scaled before the head.
    pub(super) scaled: bool,
    /// The token that a decoder starts with.
    pub(super) start: u32,
    /// Tokens that a text may end with; none: not known.
    pub(super) ends: Vec<u32>,
    pub(super) classifier: TextClassifier,
}

/// What tells the tokens of the vocabulary apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The embeddings.
    Embeddings,
    /// A tensor of its own.
    Own,
    /// That, where a checkpoint has one, else the embeddings.
    AsStored,
}

/// The file's own form; defaults are those of transformers' `T5Config`.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    tie_word_embeddings: Option<bool>,
    scale_decoder_outputs: Option<bool>,
    decoder_start_token_id: Option<i64>,
    eos_token_id: Value,
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            dense_act_fn: None,
            is_gated_act: None,
            tie_word_embeddings: None,
            scale_decoder_outputs: None,
            decoder_start_token_id: None,
            eos_token_id: 1.into(),
        }
    }
}

/// Options that make another model of it, or say again what others say.
#[derive(Deserialize)]
struct RawOthers {
    hidden_size: Option<Value>,
    num_attention_heads: Option<Value>,
    num_hidden_layers: Option<Value>,
    head_dim: Option<Value>,
    is_encoder_decoder: Option<Value>,
    is_decoder: Option<Value>,
    add_cross_attention: Option<Value>,
    tie_encoder_decoder: Option<Value>,
    scalable_attention: Option<Value>,
    #[serde(default)]
    pruned_heads: Value,
}

impl T5Config {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a value is out of range or not understood, or where there are no classes to tell apart.
    pub(super) fn read(settings: &Settings) -> Result<T5Config> {
        let raw = settings.read::<Raw>()?;
        check_sizes(&raw)?;
        check_others(&settings.read::<RawOthers>()?, &raw)?;
        check_number("layer_norm_epsilon", raw.layer_norm_epsilon, Numbers::Epsilons)?;
        let (activation, gated) = feed_forward(&raw)?;
        let (head, scaled) = head(&raw)?;
        let start = raw.decoder_start_token_id.map(Value::from);
        let start =
            start.ok_or_else(|| wrong("decoder_start_token_id is missing: the decoder starts with it"));
        Ok(T5Config {
            hidden: raw.d_model,
            heads: raw.num_heads,
            width: raw.d_kv,
            intermediate: raw.d_ff,
            encoder_layers: raw.num_layers,
            decoder_layers: raw.num_decoder_layers.unwrap_or(raw.num_layers),
            buckets: Buckets {
                count: raw.relative_attention_num_buckets,
                farthest: raw.relative_attention_max_distance,
                causal: false,
            },
            epsilon: raw.layer_norm_epsilon,
            activation,
            gated,
            head,
            scaled,
            start: token("decoder_start_token_id", &start?, raw.vocab_size)?,
            ends: ends(&raw)?,
            classifier: TextClassifier {
                classes: settings.classes()?,
                vocabulary: raw.vocab_size,
                types: None,
                tokenizer: "T5Tokenizer",
                longest: TEXT_TOKENS_MAX,
            },
        })
    }

    /// What all heads have together.
    pub(super) fn inner(&self) -> usize {
        self.heads * self.width
    }
}

fn check_sizes(raw: &Raw) -> Result<()> {
    for (name, size) in [
        ("vocab_size", raw.vocab_size),
        ("d_model", raw.d_model),
        ("d_kv", raw.d_kv),
        ("d_ff", raw.d_ff),
        ("num_heads", raw.num_heads),
        ("relative_attention_num_buckets", raw.relative_attention_num_buckets),
        ("relative_attention_max_distance", raw.relative_attention_max_distance),
    ] {
        check_size(name, size)?;
    }
    check_size("num_heads times d_kv", raw.num_heads.saturating_mul(raw.d_kv))?;
    for (name, layers) in
        [("num_layers", Some(raw.num_layers)), ("num_decoder_layers", raw.num_decoder_layers)]
    {
        if let Some(layers) = layers.filter(|layers| !(1..=LAYERS_MAX).contains(layers)) {
            return Err(wrong(format!("{name} is {layers}, expected 1 to {LAYERS_MAX}")));
        }
    }
    let (buckets, farthest) = (raw.relative_attention_num_buckets, raw.relative_attention_max_distance);
    if buckets < 4 {
        return Err(wrong(format!("relative_attention_num_buckets is {buckets}, expected at least 4")));
    }
    if farthest <= buckets / 2 {
        return Err(wrong(format!(
            "relative_attention_max_distance is {farthest}, expected more than half of \
             relative_attention_num_buckets, {buckets}"
        )));
    }
    Ok(())
}

/// Refuses options of other models, and those that contradict what they repeat.
fn check_others(others: &RawOthers, raw: &Raw) -> Result<()> {
    check_pruned(&others.pruned_heads)?;
    for (name, value, usual) in [
        ("hidden_size", &others.hidden_size, Value::from(raw.d_model)),
        ("num_attention_heads", &others.num_attention_heads, raw.num_heads.into()),
        ("num_hidden_layers", &others.num_hidden_layers, raw.num_layers.into()),
        ("head_dim", &others.head_dim, raw.d_kv.into()),
        ("is_encoder_decoder", &others.is_encoder_decoder, true.into()),
        ("is_decoder", &others.is_decoder, false.into()),
        ("add_cross_attention", &others.add_cross_attention, false.into()),
        ("tie_encoder_decoder", &others.tie_encoder_decoder, false.into()),
        ("scalable_attention", &others.scalable_attention, false.into()),
    ] {
        if let Some(value) = value.as_ref().filter(|&value| !value.is_null() && *value != usual) {
            return Err(wrong(format!(
                "{name} is {value}: only {usual} is supported beside the other options"
            )));
        }
    }
    Ok(())
}

/// The activation, and whether it is gated.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is not known, or the file contradicts itself.
fn feed_forward(raw: &Raw) -> Result<(Activation, bool)> {
    let projection = raw.feed_forward_proj.as_str();
    let (name, gated) = match projection.strip_prefix("gated-") {
        // So it was first called.
        Some("gelu") => ("gelu_new", true),
        Some(name) => (name, true),
        None => (projection, false),
    };
    if raw.is_gated_act.is_some_and(|is| is != gated) {
        return Err(wrong(format!("is_gated_act is {}, but feed_forward_proj is {projection:?}", !gated)));
    }
    if let Some(other) = raw.dense_act_fn.as_ref().filter(|&other| other != name) {
        return Err(wrong(format!("dense_act_fn is {other:?}, but feed_forward_proj is {projection:?}")));
    }
    match Activation::from_name(name) {
        Some(activation) => Ok((activation, gated)),
        None => Err(wrong(format!(
            "unknown feed_forward_proj {projection:?}: known are, with \"gated-\" before them or without, {}",
            Activation::NAMES
        ))),
    }
}

/// The head, and whether what goes into it is scaled.
///
/// Files of transformers 4 say both with one setting. Those of 5 say of every model that it is tied, and with another setting whether it
/// scales; what the head is follows from the checkpoint, as `from_pretrained` of 5 ties what is not there twice.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the two versions would take the file for different models.
fn head(raw: &Raw) -> Result<(Head, bool)> {
    match (raw.tie_word_embeddings.unwrap_or(true), raw.scale_decoder_outputs) {
        (true, None) => Ok((Head::Embeddings, true)),
        (true, Some(scaled)) => Ok((Head::AsStored, scaled)),
        (false, None | Some(false)) => Ok((Head::Own, false)),
        (false, Some(true)) => Err(wrong(
            "scale_decoder_outputs is true: only false is supported where tie_word_embeddings is false",
        )),
    }
}

/// Tokens that a text may end with.
fn ends(raw: &Raw) -> Result<Vec<u32>> {
    let of = |value: &Value| token("eos_token_id", value, raw.vocab_size);
    match &raw.eos_token_id {
        Value::Null => Ok(Vec::new()),
        Value::Array(all) => all.iter().map(of).collect(),
        one => Ok(vec![of(one)?]),
    }
}

/// The token that the setting `name` is.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is none of the vocabulary.
fn token(name: &str, value: &Value, vocabulary: usize) -> Result<u32> {
    let known = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < vocabulary);
    known.ok_or_else(|| wrong(format!("{name} is {value}, expected a token: 0 to {}", vocabulary - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<T5Config> {
        T5Config::read(&Settings::parse(json)?.or("decoder_start_token_id", 0.into()))
    }

    #[test]
    fn an_empty_config_is_transformers_default() {
        let config = read("{}").unwrap();
        assert_eq!((config.hidden, config.heads, config.width, config.intermediate), (512, 8, 64, 2048));
        assert_eq!((config.encoder_layers, config.decoder_layers, config.inner()), (6, 6, 512));
        assert_eq!((config.buckets.count, config.buckets.farthest, config.epsilon), (32, 128, 1e-6));
        assert_eq!((config.activation, config.gated), (Activation::Relu, false));
        assert_eq!((config.head, config.scaled), (Head::Embeddings, true));
        assert_eq!((config.start, config.ends, config.classifier.vocabulary), (0, vec![1], 32_128));
    }

    #[test]
    fn projections_are_gated_or_not() {
        for (json, want) in [
            (r#"{"feed_forward_proj": "gated-gelu"}"#, (Activation::GeluTanh, true)),
            (
                r#"{"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": true}"#,
                (Activation::GeluTanh, true),
            ),
            (r#"{"feed_forward_proj": "gated-silu"}"#, (Activation::Silu, true)),
            (r#"{"feed_forward_proj": "gelu"}"#, (Activation::Gelu, false)),
        ] {
            let config = read(json).unwrap();
            assert_eq!((config.activation, config.gated), want, "{json}");
        }
    }

    #[test]
    fn heads_are_those_of_either_version() {
        for (json, want) in [
            (r#"{"tie_word_embeddings": true}"#, (Head::Embeddings, true)),
            (r#"{"tie_word_embeddings": null}"#, (Head::Embeddings, true)),
            (r#"{"tie_word_embeddings": false}"#, (Head::Own, false)),
            (r#"{"tie_word_embeddings": false, "scale_decoder_outputs": false}"#, (Head::Own, false)),
            // As 5 saves T5 and T5 1.1.
            (r#"{"tie_word_embeddings": true, "scale_decoder_outputs": true}"#, (Head::AsStored, true)),
            (r#"{"tie_word_embeddings": true, "scale_decoder_outputs": false}"#, (Head::AsStored, false)),
            (r#"{"scale_decoder_outputs": false}"#, (Head::AsStored, false)),
        ] {
            let config = read(json).unwrap();
            assert_eq!((config.head, config.scaled), want, "{json}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (json, part) in [
            (r#"{"feed_forward_proj": "gated-mish"}"#, "unknown feed_forward_proj \"gated-mish\""),
            (r#"{"feed_forward_proj": "twice-relu"}"#, "unknown feed_forward_proj \"twice-relu\""),
            (r#"{"feed_forward_proj": "gated-gelu-x"}"#, "unknown feed_forward_proj \"gated-gelu-x\""),
            (r#"{"dense_act_fn": "gelu"}"#, "dense_act_fn is \"gelu\", but feed_forward_proj is \"relu\""),
            (r#"{"is_gated_act": true}"#, "is_gated_act is true, but feed_forward_proj is \"relu\""),
            (r#"{"scalable_attention": true}"#, "scalable_attention is true"),
            (
                r#"{"tie_word_embeddings": false, "scale_decoder_outputs": true}"#,
                "scale_decoder_outputs is true: only false",
            ),
            (r#"{"is_encoder_decoder": false}"#, "is_encoder_decoder is false"),
            (r#"{"is_decoder": true}"#, "is_decoder is true"),
            (r#"{"tie_encoder_decoder": true}"#, "tie_encoder_decoder is true"),
            (r#"{"pruned_heads": {"0": [1]}}"#, "pruned_heads is"),
            (r#"{"hidden_size": 513}"#, "hidden_size is 513"),
            (r#"{"head_dim": 32}"#, "head_dim is 32"),
            (r#"{"d_kv": 0}"#, "d_kv is 0"),
            (r#"{"d_kv": 1048576}"#, "num_heads times d_kv is"),
            (r#"{"num_layers": 0}"#, "num_layers is 0"),
            (r#"{"num_decoder_layers": 5000}"#, "num_decoder_layers is 5000"),
            (r#"{"relative_attention_num_buckets": 3}"#, "relative_attention_num_buckets is 3"),
            (r#"{"relative_attention_max_distance": 16}"#, "relative_attention_max_distance is 16"),
            (r#"{"layer_norm_epsilon": -1}"#, "layer_norm_epsilon is -1"),
            (r#"{"layer_norm_epsilon": 2147483648}"#, "layer_norm_epsilon is 2147483648"),
            (r#"{"decoder_start_token_id": 32128}"#, "decoder_start_token_id is 32128"),
            (r#"{"decoder_start_token_id": null}"#, "decoder_start_token_id is missing"),
            (r#"{"eos_token_id": -1}"#, "eos_token_id is -1"),
            (r#"{"eos_token_id": [1, 40000]}"#, "eos_token_id is 40000"),
            (r#"{"num_labels": 1}"#, "predicts a number"),
        ] {
            let error = read(json).err().map(|e| e.chain()).unwrap_or_default();
            assert!(error.contains(part), "{json}: {error}");
        }
        for json in [
            r#"{"hidden_size": 512, "is_encoder_decoder": true, "scalable_attention": false}"#,
            r#"{"tie_word_embeddings": false, "scale_decoder_outputs": false, "eos_token_id": null}"#,
        ] {
            assert!(read(json).is_ok(), "{json}");
        }
    }
}
