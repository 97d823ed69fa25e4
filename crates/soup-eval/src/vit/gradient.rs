//! Which tensors of the checkpoint the gradients of the forward pass's tensors belong to.

use burn::tensor::Tensor;

use super::model::{Layer, LayerNames, Linear, Vit, names};
use crate::gradient::sink::{Deposits, Sink};
use crate::kernels::Norm;

impl<B: Deposits> Vit<B> {
    /// This model for one pass through the graph, which adds the gradient of every parameter to `sink`.
    pub(crate) fn entered(&self, sink: &Sink) -> Self {
        let layer = |(index, layer): (usize, &Layer<B>)| {
            let at = LayerNames::new(index);
            let [key, value] = &at.key_value;
            Layer {
                norm_before: norm(sink, &at.norm_before, &layer.norm_before),
                query: linear(sink, &[&at.query], &layer.query),
                key_value: linear(sink, &[key, value], &layer.key_value),
                attended: linear(sink, &[&at.attended], &layer.attended),
                norm_after: norm(sink, &at.norm_after, &layer.norm_after),
                up: linear(sink, &[&at.up], &layer.up),
                down: linear(sink, &[&at.down], &layer.down),
            }
        };
        Vit {
            config: self.config.clone(),
            patch: linear(sink, &[names::PATCH], &self.patch),
            cls: tensor(sink, names::CLS.to_owned(), &self.cls),
            positions: tensor(sink, names::POSITIONS.to_owned(), &self.positions),
            layers: self.layers.iter().enumerate().map(layer).collect(),
            norm: norm(sink, names::NORM, &self.norm),
            classifier: linear(sink, &[names::CLASSIFIER], &self.classifier),
        }
    }
}

/// The linear maps `names`, side by side in `linear`.
fn linear<B: Deposits>(sink: &Sink, names: &[&str], linear: &Linear<B>) -> Linear<B> {
    let with = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect();
    Linear {
        weight: B::enter(&linear.weight, sink.transposed(with("weight"))),
        bias: linear.bias.as_ref().map(|bias| B::enter(bias, sink.end_to_end(with("bias")))),
    }
}

fn norm<B: Deposits>(sink: &Sink, name: &str, norm: &Norm<B>) -> Norm<B> {
    Norm {
        gamma: tensor(sink, format!("{name}.weight"), &norm.gamma),
        beta: tensor(sink, format!("{name}.bias"), &norm.beta),
        epsilon: norm.epsilon,
    }
}

fn tensor<B: Deposits, const D: usize>(sink: &Sink, name: String, tensor: &Tensor<B, D>) -> Tensor<B, D> {
    B::enter(tensor, sink.end_to_end(vec![name]))
}
