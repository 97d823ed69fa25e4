//! The forward pass of a vision transformer, over any backend.
//!
//! A layer keeps key and value as one linear map, apart from the query, because the last layer needs the query of the
//! CLS token only: the classifier looks at nothing else, so that layer's other rows are never computed.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use soup_core::Result;

use super::VitConfig;
use crate::kernels::{Activation, Kernels, Norm};
use crate::parameters::{Parameters, transpose};

/// Names of the tensors outside the layers; those of linear maps and norms less `.weight` and `.bias`.
pub(super) mod names {
    pub(crate) const PATCH: &str = "vit.embeddings.patch_embeddings.projection";
    pub(crate) const CLS: &str = "vit.embeddings.cls_token";
    pub(crate) const POSITIONS: &str = "vit.embeddings.position_embeddings";
    pub(crate) const NORM: &str = "vit.layernorm";
    pub(crate) const CLASSIFIER: &str = "classifier";
}

/// Names of a layer's linear maps and norms, less `.weight` and `.bias`.
pub(super) struct LayerNames {
    pub(super) norm_before: String,
    pub(super) query: String,
    /// The two that are kept side by side, in that order.
    pub(super) key_value: [String; 2],
    pub(super) attended: String,
    pub(super) norm_after: String,
    pub(super) up: String,
    pub(super) down: String,
}

impl LayerNames {
    pub(super) fn new(index: usize) -> Self {
        let at = |name: &str| format!("vit.encoder.layer.{index}.{name}");
        LayerNames {
            norm_before: at("layernorm_before"),
            query: at("attention.attention.query"),
            key_value: [at("attention.attention.key"), at("attention.attention.value")],
            attended: at("attention.output.dense"),
            norm_after: at("layernorm_after"),
            up: at("intermediate.dense"),
            down: at("output.dense"),
        }
    }
}

/// A vision transformer with parameters in it.
#[derive(Clone, Debug)]
pub(crate) struct Vit<B: Backend> {
    pub(super) config: VitConfig,
    pub(super) patch: Linear<B>,
    /// [1, 1, hidden].
    pub(super) cls: Tensor<B, 3>,
    /// [1, tokens, hidden].
    pub(super) positions: Tensor<B, 3>,
    pub(super) layers: Vec<Layer<B>>,
    pub(super) norm: Norm<B>,
    pub(super) classifier: Linear<B>,
}

#[derive(Clone, Debug)]
pub(super) struct Layer<B: Backend> {
    pub(super) norm_before: Norm<B>,
    pub(super) query: Linear<B>,
    /// Key and value side by side.
    pub(super) key_value: Linear<B>,
    pub(super) attended: Linear<B>,
    pub(super) norm_after: Norm<B>,
    pub(super) up: Linear<B>,
    pub(super) down: Linear<B>,
}

#[derive(Clone, Debug)]
pub(super) struct Linear<B: Backend> {
    /// [in, out]: the transpose of the checkpoint's, made once.
    pub(super) weight: Tensor<B, 2>,
    pub(super) bias: Option<Tensor<B, 1>>,
}

impl<B: Kernels> Linear<B> {
    fn matmul(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.weight.clone())
    }

    fn forward(&self, x: Tensor<B, 2>, act: Activation) -> Tensor<B, 2> {
        B::bias_act(self.matmul(x), self.bias.as_ref(), act)
    }

    fn add_to(&self, x: Tensor<B, 2>, residual: &Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.bias {
            Some(bias) => B::bias_residual(self.matmul(x), bias, residual),
            None => self.matmul(x) + residual.clone(),
        }
    }
}

impl<B: Kernels> Vit<B> {
    /// Builds the model; the schema of `parameters` has passed [`VitConfig::check_schema`]. On a backend that
    /// differentiates, every parameter is a leaf whose gradient is kept.
    pub(crate) fn load(config: &VitConfig, parameters: &Parameters<'_>, device: &B::Device) -> Result<Self> {
        let loader = Loader { parameters, hidden: config.hidden, epsilon: config.epsilon, device };
        let tokens = {
            let (rows, columns) = config.grid();
            rows * columns + 1
        };
        let token = |name: &str, count: usize| -> Result<Tensor<B, 3>> {
            let data = TensorData::new(parameters.values(name)?, [1, count, config.hidden]);
            Ok(Tensor::from_data(data, device).require_grad())
        };
        let pixels = config.channels * config.patch.height * config.patch.width;
        Ok(Vit {
            patch: loader.linear(&[names::PATCH], pixels, true)?,
            cls: token(names::CLS, 1)?,
            positions: token(names::POSITIONS, tokens)?,
            layers: (0..config.layers).map(|i| loader.layer(i, config)).collect::<Result<_>>()?,
            norm: loader.norm(names::NORM)?,
            classifier: loader.linear(&[names::CLASSIFIER], config.hidden, true)?,
            config: config.clone(),
        })
    }

    /// Logits `[batch, classes]` of normalised pixels `[batch, channels, height, width]`.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut x = self.embed(pixels);
        for (index, layer) in self.layers.iter().enumerate() {
            x = self.through(layer, index, x);
        }
        classify(x, &self.norm, &self.classifier)
    }

    /// What `layer`, the one of that index, makes of `[batch, tokens, hidden]`.
    pub(super) fn through(&self, layer: &Layer<B>, index: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        layer.forward(x, self.config.heads, self.config.activation, index + 1 == self.layers.len())
    }

    /// Cuts images into patches and turns them into tokens `[batch, 1 + patches, hidden]`.
    pub(super) fn embed(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, channels, _, _] = pixels.dims();
        let (rows, columns) = self.config.grid();
        let (height, width) = (self.config.patch.height, self.config.patch.width);
        // What lies beyond the last whole patch is dropped, as a strided convolution does.
        let whole = pixels.slice([0..batch, 0..channels, 0..rows * height, 0..columns * width]);
        let patches = whole
            .reshape([batch, channels, rows, height, columns, width])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch * rows * columns, channels * height * width]);
        let tokens = self.patch.forward(patches, Activation::Linear);
        let tokens = tokens.reshape([batch, rows * columns, self.config.hidden]);
        let cls = self.cls.clone().expand([batch, 1, self.config.hidden]);
        Tensor::cat(vec![cls, tokens], 1) + self.positions.clone()
    }
}

/// Logits `[batch, classes]` of tokens `[batch, tokens, hidden]`.
pub(super) fn classify<B: Kernels>(x: Tensor<B, 3>, norm: &Norm<B>, classifier: &Linear<B>) -> Tensor<B, 2> {
    let [batch, _, hidden] = x.dims();
    let cls = x.slice([0..batch, 0..1]).reshape([batch, hidden]);
    classifier.forward(B::norm_rows(&cls, norm), Activation::Linear)
}

impl<B: Kernels> Layer<B> {
    /// One layer over `[batch, tokens, hidden]`; with `cls_only`, only the first token of the result is computed.
    fn forward(&self, x: Tensor<B, 3>, heads: usize, act: Activation, cls_only: bool) -> Tensor<B, 3> {
        let [batch, tokens, hidden] = x.dims();
        let asked = if cls_only { 1 } else { tokens };
        let flat: Tensor<B, 2> = x.clone().reshape([batch * tokens, hidden]);
        let normed = B::norm_rows(&flat, &self.norm_before);
        let key_value = self.key_value.forward(normed.clone(), Activation::Linear);
        let (normed, flat) = if cls_only {
            let first = |t: Tensor<B, 2>| {
                t.reshape([batch, tokens, hidden]).slice([0..batch, 0..1]).reshape([batch, hidden])
            };
            (first(normed), first(flat))
        } else {
            (normed, flat)
        };
        let query = self.query.forward(normed, Activation::Linear);
        let context = B::attend(query, key_value, [batch, heads]);

        let attended = self.attended.add_to(context, &flat);
        let normed = B::norm_rows(&attended, &self.norm_after);
        let out = self.down.add_to(self.up.forward(normed, act), &attended);
        out.reshape([batch, asked, hidden])
    }
}

/// Turns named parameters into layers.
struct Loader<'a, B: Backend> {
    parameters: &'a Parameters<'a>,
    hidden: usize,
    epsilon: f64,
    device: &'a B::Device,
}

impl<B: Backend> Loader<'_, B> {
    /// The linear maps `names` of `inputs` inputs each, side by side.
    fn linear(&self, names: &[&str], inputs: usize, bias: bool) -> Result<Linear<B>> {
        let (mut rows, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            rows.append(&mut self.parameters.values(&format!("{name}.weight"))?);
            if bias {
                biases.append(&mut self.parameters.values(&format!("{name}.bias"))?);
            }
        }
        let outputs = rows.len() / inputs;
        let weight = TensorData::new(transpose(&rows, outputs, inputs), [inputs, outputs]);
        Ok(Linear {
            weight: Tensor::from_data(weight, self.device).require_grad(),
            bias: bias
                .then(|| Tensor::from_data(TensorData::new(biases, [outputs]), self.device).require_grad()),
        })
    }

    fn norm(&self, name: &str) -> Result<Norm<B>> {
        let load = |part: &str| -> Result<Tensor<B, 1>> {
            let values = self.parameters.values(&format!("{name}.{part}"))?;
            Ok(Tensor::from_data(TensorData::new(values, [self.hidden]), self.device).require_grad())
        };
        Ok(Norm { gamma: load("weight")?, beta: load("bias")?, epsilon: self.epsilon })
    }

    fn layer(&self, index: usize, config: &VitConfig) -> Result<Layer<B>> {
        let at = LayerNames::new(index);
        let (hidden, bias) = (config.hidden, config.qkv_bias);
        let [key, value] = &at.key_value;
        Ok(Layer {
            norm_before: self.norm(&at.norm_before)?,
            query: self.linear(&[&at.query], hidden, bias)?,
            key_value: self.linear(&[key, value], hidden, bias)?,
            attended: self.linear(&[&at.attended], hidden, true)?,
            norm_after: self.norm(&at.norm_after)?,
            up: self.linear(&[&at.up], hidden, true)?,
            down: self.linear(&[&at.down], config.intermediate, true)?,
        })
    }
}
