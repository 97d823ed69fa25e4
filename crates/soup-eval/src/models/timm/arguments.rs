//! The arguments of timm's `VisionTransformer`: what an architecture stands for, what `model_args` has instead, and what follows from
//! `pretrained_cfg` where neither says. In this order, as timm has it.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use soup_core::{Error, Result};

use crate::config::{Numbers, OneOrTwo, check_number, check_size, wrong};
use crate::kernels::Activation;
use crate::transformer::layer::MlpConfig;

/// What every architecture stands for.
const ARCHITECTURES: &str = include_str!("architectures.json");

/// Arguments that training alone looks at, and one that only images of another size show.
const WITHOUT_EFFECT: [&str; 9] = [
    "dynamic_img_size",
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "weight_init",
    "fix_init",
];

/// Arguments that are not supported but for a value at which they do nothing.
fn idle() -> [(&'static str, Value); 11] {
    [
        ("pos_embed", json!("learn")),
        ("qk_norm", json!(false)),
        ("scale_attn_norm", json!(false)),
        ("scale_mlp_norm", json!(false)),
        ("proj_bias", json!(true)),
        ("dynamic_img_pad", json!(false)),
        ("distilled", json!(false)),
        ("use_naflex", json!(false)),
        ("block_fn", json!("Block")),
        ("embed_layer", json!("PatchEmbed")),
        ("attn_layer", json!("attn")),
    ]
}

/// A `config.json` of timm's hub, by its parts.
pub(super) struct Source {
    architecture: String,
    whole: Map<String, Value>,
    /// `pretrained_cfg`: in old files, which have none, all of it.
    pub(super) pretrained: Map<String, Value>,
    given: Map<String, Value>,
}

impl Source {
    pub(super) fn parse(text: &str) -> Result<Source> {
        let not_understood = |e| wrong("not understood").with_source(e);
        let whole: Map<String, Value> = serde_json::from_str(text).map_err(not_understood)?;
        let object = |key: &str| match whole.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(part)) => Ok(Some(part.clone())),
            Some(other) => Err(wrong(format!("{key} is {other}, expected settings"))),
        };
        let mut pretrained = object("pretrained_cfg")?.unwrap_or_else(|| whole.clone());
        if let Some(count) = whole.get("num_classes") {
            pretrained.insert("num_classes".to_owned(), count.clone());
        }
        if let Some(offset) = pretrained.get("label_offset").filter(|v| !v.is_null() && v.as_u64() != Some(0))
        {
            return Err(wrong(format!(
                "label_offset is {offset}: classes that are left out are not supported"
            )));
        }
        let given = object("model_args")?.unwrap_or_default();
        let Some(architecture) = whole.get("architecture").and_then(Value::as_str).map(str::to_owned) else {
            return Err(wrong("there is no architecture"));
        };
        Ok(Source { architecture, pretrained, given, whole })
    }

    /// Names of the classes by number, where there are any.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where they are not those of numbers from 0 on.
    pub(super) fn class_names(&self) -> Result<Option<Vec<String>>> {
        let Some(names) = self.of_classes("label_names") else { return Ok(None) };
        let bad = || wrong("label_names is neither a list of names nor has a name for each class");
        let names: Option<Vec<&Value>> = match names {
            Value::Array(names) => Some(names.iter().collect()),
            Value::Object(names) => (0..names.len()).map(|id| names.get(&id.to_string())).collect(),
            _ => None,
        };
        let names = names.ok_or_else(bad)?.into_iter().map(|name| name.as_str().map(str::to_owned));
        names.collect::<Option<_>>().map(Some).ok_or_else(bad)
    }

    /// What the classes of some names are called besides.
    pub(super) fn descriptions(&self) -> Option<&Map<String, Value>> {
        self.of_classes("label_descriptions")?.as_object()
    }

    fn of_classes(&self, key: &str) -> Option<&Value> {
        let found = |map: &'_ Map<String, Value>| map.get(key).is_some_and(|value| !value.is_null());
        [&self.whole, &self.pretrained].into_iter().find(|map| found(map))?.get(key)
    }

    /// All arguments, each where it is said first.
    fn arguments(&self) -> Result<Map<String, Value>> {
        let mut arguments = self.stands_for()?;
        // timm leaves out those that are null.
        let given = self.given.iter().filter(|(_, value)| !value.is_null());
        arguments.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        let count = self.pretrained.get("num_classes").filter(|v| !v.is_null()).cloned();
        let input = self.input_size()?;
        arguments.entry("num_classes").or_insert(count.unwrap_or(json!(1000)));
        arguments.entry("in_chans").or_insert(json!(input[0]));
        if self.has_fixed_input() {
            arguments.entry("img_size").or_insert(json!(&input[1..]));
        }
        Ok(arguments)
    }

    /// What the architecture stands for. What stands behind a dot says where parameters come from.
    fn stands_for(&self) -> Result<Map<String, Value>> {
        let mut known: Map<String, Value> = serde_json::from_str(ARCHITECTURES)
            .map_err(|e| Error::internal("the table of timm's architectures").with_source(e))?;
        let name = self.architecture.split('.').next().unwrap_or_default();
        match known.remove(name) {
            Some(Value::Object(arguments)) => Ok(arguments),
            _ => Err(Error::data(format!(
                "unknown architecture {:?} of timm: supported are its VisionTransformer, vit_* and deit*, of version 1.0.31",
                self.architecture
            ))),
        }
    }

    /// Channels, height, width.
    fn input_size(&self) -> Result<[usize; 3]> {
        match self.pretrained.get("input_size").filter(|v| !v.is_null()) {
            None => Ok([3, 224, 224]),
            Some(size) => <[usize; 3]>::deserialize(size)
                .map_err(|_| wrong(format!("input_size is {size}, expected channels, height and width"))),
        }
    }

    /// Whether the model's images have the size that `pretrained_cfg` says.
    fn has_fixed_input(&self) -> bool {
        let is = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
        is(&self.pretrained, "fixed_input_size") && !is(&self.given, "dynamic_img_size")
    }
}

/// Where the vector comes from that is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// The first token.
    Token,
    /// The mean of the tokens from `first` on.
    Mean { first: usize },
}

/// The file's own form: timm's names and defaults.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    img_size: OneOrTwo,
    patch_size: OneOrTwo,
    pub(super) in_chans: usize,
    pub(super) num_classes: usize,
    global_pool: String,
    pub(super) embed_dim: usize,
    pub(super) depth: usize,
    pub(super) num_heads: usize,
    mlp_ratio: f64,
    pub(super) qkv_bias: bool,
    init_values: f64,
    pub(super) class_token: bool,
    pub(super) no_embed_class: bool,
    pub(super) reg_tokens: usize,
    pub(super) pre_norm: bool,
    pub(super) final_norm: bool,
    fc_norm: Option<bool>,
    pool_include_prefix: bool,
    norm_layer: Norm,
    act_layer: String,
    mlp_layer: String,
}

/// A normalisation, by its name alone or with an epsilon of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Norm {
    Name(String),
    Bound { name: String, eps: f64 },
}

impl Default for Raw {
    fn default() -> Self {
        Raw {
            img_size: OneOrTwo::One(224),
            patch_size: OneOrTwo::One(16),
            in_chans: 3,
            num_classes: 1000,
            global_pool: "token".to_owned(),
            embed_dim: 768,
            depth: 12,
            num_heads: 12,
            mlp_ratio: 4.0,
            qkv_bias: true,
            init_values: 0.0,
            class_token: true,
            no_embed_class: false,
            reg_tokens: 0,
            pre_norm: false,
            final_norm: true,
            fc_norm: None,
            pool_include_prefix: false,
            norm_layer: Norm::Name("layernorm".to_owned()),
            act_layer: "gelu".to_owned(),
            mlp_layer: "Mlp".to_owned(),
        }
    }
}

/// Most registers of any model.
const REGISTERS_MAX: usize = 1024;

/// The arguments that change the forward pass.
pub(super) struct Arguments {
    /// Height and width.
    pub(super) image: [usize; 2],
    /// Height and width.
    pub(super) patch: [usize; 2],
    pub(super) pool: Pool,
    pub(super) raw: Raw,
}

impl Arguments {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one is not known, out of range or not supported.
    pub(super) fn read(source: &Source) -> Result<Arguments> {
        let mut all = source.arguments()?;
        WITHOUT_EFFECT.iter().for_each(|key| drop(all.remove(*key)));
        for (key, nothing) in idle() {
            if let Some(value) = all.remove(key).filter(|value| *value != nothing) {
                return Err(wrong(format!(
                    "{key} is {value}: only {nothing} is supported (architecture, model_args)"
                )));
            }
        }
        if let Some(value) = all.remove("embed_norm_layer") {
            return Err(wrong(format!("embed_norm_layer is {value}: it is not supported")));
        }
        let raw =
            Raw::deserialize(&all).map_err(|e| wrong("model_args are not understood").with_source(e))?;
        let (image, patch) = (raw.img_size.checked("img_size")?, raw.patch_size.checked("patch_size")?);
        if raw.reg_tokens > REGISTERS_MAX {
            return Err(wrong(format!("reg_tokens is {}, expected at most {REGISTERS_MAX}", raw.reg_tokens)));
        }
        let arguments = Arguments {
            image: [image.height, image.width],
            patch: [patch.height, patch.width],
            pool: raw.pool()?,
            raw,
        };
        arguments.check_against(source)?;
        Ok(arguments)
    }

    /// Refuses what timm would not build the same from: a size of images that the model does not have, and a pooling that is told of in
    /// passing alone.
    fn check_against(&self, source: &Source) -> Result<()> {
        let [_, height, width] = source.input_size()?;
        let says = source.has_fixed_input() && source.given.contains_key("img_size");
        if !says && self.image != [height, width] {
            return Err(wrong(format!(
                "input_size is of {width} x {height} pixels, the model takes {} x {} (position embeddings are not interpolated)",
                self.image[1], self.image[0]
            )));
        }
        let told = source.whole.get("global_pool").and_then(Value::as_str);
        match told.filter(|told| *told != self.raw.global_pool) {
            None => Ok(()),
            Some(told) => Err(wrong(format!(
                "global_pool is {told:?}, but architecture and model_args, which timm builds the model from, say {:?}: put it into \
                 model_args",
                self.raw.global_pool
            ))),
        }
    }

    /// Whether branches are scaled.
    pub(super) fn is_scaled(&self) -> bool {
        self.raw.init_values != 0.0
    }

    /// Whether the last normalisation is of what is pooled, not of each token.
    pub(super) fn normalises_pooled(&self) -> bool {
        self.raw.fc_norm.unwrap_or(self.pool != Pool::Token)
    }

    /// What normalisations add to a variance.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for a normalisation of another kind.
    pub(super) fn epsilon(&self) -> Result<f64> {
        let (name, epsilon) = match &self.raw.norm_layer {
            Norm::Name(name) => (name, 1e-6),
            Norm::Bound { name, eps } => (name, *eps),
        };
        check_number("norm_layer.eps", epsilon, Numbers::Epsilons)?;
        match name.replace('_', "").eq_ignore_ascii_case("layernorm") {
            true => Ok(epsilon),
            false => Err(wrong(format!("norm_layer is {name:?}: only \"layernorm\" is supported"))),
        }
    }

    /// What follows the attentions.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is of another kind or out of range.
    pub(super) fn mlp(&self) -> Result<MlpConfig> {
        let Raw { mlp_ratio, act_layer, mlp_layer, .. } = &self.raw;
        check_number("mlp_ratio", *mlp_ratio, Numbers::Factors)?;
        // Truncated, in floating point, as the original does.
        let intermediate = (self.raw.embed_dim as f64 * mlp_ratio) as usize;
        check_size("embed_dim * mlp_ratio", intermediate)?;
        let activation = activation(act_layer)?;
        match (&mlp_layer[..], activation) {
            ("Mlp", activation) => Ok(MlpConfig::Plain { intermediate, activation }),
            // Gates and values together are as wide.
            ("SwiGLUPacked", Activation::Silu) if intermediate.is_multiple_of(2) => {
                Ok(MlpConfig::Gated { intermediate: intermediate / 2 })
            }
            _ => Err(wrong(format!(
                "mlp_layer is {mlp_layer:?} with act_layer {act_layer:?} and embed_dim * mlp_ratio {intermediate}: supported are \"Mlp\", and \
                 \"SwiGLUPacked\" with \"silu\" of an even width"
            ))),
        }
    }
}

impl Raw {
    fn pool(&self) -> Result<Pool> {
        let before = usize::from(self.class_token) + self.reg_tokens;
        match &self.global_pool[..] {
            "token" if self.class_token => Ok(Pool::Token),
            "token" => Err(wrong("global_pool is \"token\", and class_token is false")),
            "avg" => Ok(Pool::Mean { first: if self.pool_include_prefix { 0 } else { before } }),
            other => Err(wrong(format!("global_pool is {other:?}: supported are \"token\" and \"avg\""))),
        }
    }
}

/// The activation that timm calls `name`.
fn activation(name: &str) -> Result<Activation> {
    Ok(match name {
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        "sigmoid" => Activation::Sigmoid,
        "identity" => Activation::Linear,
        _ => {
            return Err(wrong(format!(
                "unknown act_layer {name:?}: known are gelu, gelu_tanh, quick_gelu, relu, silu, swish, tanh, sigmoid, identity"
            )));
        }
    })
}
