//! The forward pass of a vision transformer, over any backend.
//!
//! A layer keeps key and value as one linear map, apart from the query, because the last layer needs the query of the
//! CLS token only: the classifier looks at nothing else, so that layer's other rows are never computed.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use soup_core::Result;

use super::VitConfig;
use crate::kernels::{Activation, Kernels, Norm};
use crate::parameters::Parameters;

/// A vision transformer with parameters in it.
#[derive(Clone, Debug)]
pub(crate) struct Vit<B: Backend> {
    config: VitConfig,
    patch: Linear<B>,
    /// [1, 1, hidden].
    cls: Tensor<B, 3>,
    /// [1, tokens, hidden].
    positions: Tensor<B, 3>,
    layers: Vec<Layer<B>>,
    norm: Norm<B>,
    classifier: Linear<B>,
}

#[derive(Clone, Debug)]
struct Layer<B: Backend> {
    norm_before: Norm<B>,
    query: Linear<B>,
    /// Key and value side by side.
    key_value: Linear<B>,
    attended: Linear<B>,
    norm_after: Norm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

#[derive(Clone, Debug)]
struct Linear<B: Backend> {
    /// [in, out]: the transpose of the checkpoint's, made once.
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
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
    /// Builds the model; the schema of `parameters` has passed [`VitConfig::check_schema`].
    pub(crate) fn load(config: &VitConfig, parameters: &Parameters<'_>, device: &B::Device) -> Result<Self> {
        let loader = Loader { parameters, hidden: config.hidden, epsilon: config.epsilon, device };
        let tokens = {
            let (rows, columns) = config.grid();
            rows * columns + 1
        };
        let token = |name: &str, count: usize| -> Result<Tensor<B, 3>> {
            let values = parameters.values(&format!("vit.embeddings.{name}"))?;
            Ok(Tensor::from_data(TensorData::new(values, [1, count, config.hidden]), device))
        };
        let pixels = config.channels * config.patch.height * config.patch.width;
        Ok(Vit {
            patch: loader.linear(&["vit.embeddings.patch_embeddings.projection"], pixels, true)?,
            cls: token("cls_token", 1)?,
            positions: token("position_embeddings", tokens)?,
            layers: (0..config.layers).map(|i| loader.layer(i, config)).collect::<Result<_>>()?,
            norm: loader.norm("vit.layernorm")?,
            classifier: loader.linear(&["classifier"], config.hidden, true)?,
            config: config.clone(),
        })
    }

    /// Logits `[batch, classes]` of normalised pixels `[batch, channels, height, width]`.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut x = self.embed(pixels);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, self.config.heads, self.config.activation, index + 1 == self.layers.len());
        }
        let [batch, _, hidden] = x.dims();
        let cls = x.slice([0..batch, 0..1]).reshape([batch, hidden]);
        self.classifier.forward(B::norm_rows(&cls, &self.norm), Activation::Linear)
    }

    /// Cuts images into patches and turns them into tokens `[batch, 1 + patches, hidden]`.
    fn embed(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
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

impl<B: Kernels> Layer<B> {
    /// One layer over `[batch, tokens, hidden]`; with `cls_only`, only the first token of the result is computed.
    fn forward(&self, x: Tensor<B, 3>, heads: usize, act: Activation, cls_only: bool) -> Tensor<B, 3> {
        let [batch, tokens, hidden] = x.dims();
        let (asked, width) = (if cls_only { 1 } else { tokens }, hidden / heads);
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
        let query = query.reshape([batch, asked, heads, width]).swap_dims(1, 2);
        let key_value = key_value.reshape([batch, tokens, 2 * heads, width]).swap_dims(1, 2);
        let key = key_value.clone().slice([0..batch, 0..heads]);
        let value = key_value.slice([0..batch, heads..2 * heads]);

        let scale = 1.0 / (width as f32).sqrt();
        let shares = B::softmax_scaled(query.matmul(key.swap_dims(2, 3)), scale);
        let context = shares.matmul(value).swap_dims(1, 2).reshape([batch * asked, hidden]);

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
            weight: Tensor::from_data(weight, self.device),
            bias: bias.then(|| Tensor::from_data(TensorData::new(biases, [outputs]), self.device)),
        })
    }

    fn norm(&self, name: &str) -> Result<Norm<B>> {
        let load = |part: &str| -> Result<Tensor<B, 1>> {
            let values = self.parameters.values(&format!("{name}.{part}"))?;
            Ok(Tensor::from_data(TensorData::new(values, [self.hidden]), self.device))
        };
        Ok(Norm { gamma: load("weight")?, beta: load("bias")?, epsilon: self.epsilon })
    }

    fn layer(&self, index: usize, config: &VitConfig) -> Result<Layer<B>> {
        let at = |name: &str| format!("vit.encoder.layer.{index}.{name}");
        let (hidden, bias) = (config.hidden, config.qkv_bias);
        let (key, value) = (at("attention.attention.key"), at("attention.attention.value"));
        Ok(Layer {
            norm_before: self.norm(&at("layernorm_before"))?,
            query: self.linear(&[&at("attention.attention.query")], hidden, bias)?,
            key_value: self.linear(&[&key, &value], hidden, bias)?,
            attended: self.linear(&[&at("attention.output.dense")], hidden, true)?,
            norm_after: self.norm(&at("layernorm_after"))?,
            up: self.linear(&[&at("intermediate.dense")], hidden, true)?,
            down: self.linear(&[&at("output.dense")], config.intermediate, true)?,
        })
    }
}

/// `[rows, columns]` to `[columns, rows]`, in square blocks that fit the cache.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for row in top..(top + BLOCK).min(rows) {
                for column in left..(left + BLOCK).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_indices() {
        let (rows, columns) = (37, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let out = transpose(&values, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(out[column * rows + row], values[row * columns + column]);
            }
        }
        assert_eq!(transpose(&out, columns, rows), values);
    }
}
