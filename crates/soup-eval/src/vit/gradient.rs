//! The forward pass whose backward pass goes to a [`Sink`]: which tensors of the checkpoint the gradients of the model's
//! belong to, and when each enters the graph.

use burn::tensor::Tensor;

use super::model::{Layer, LayerNames, Linear, Vit, classify, names};
use crate::gradient::sink::{Deposits, Sink};
use crate::kernels::{Kernels, Norm};

impl<B: Kernels + Deposits> Vit<B> {
    /// As [`forward`](Vit::forward); a backward pass from there adds the gradient of every parameter to `sink`, layer
    /// by layer.
    pub(crate) fn forward_into(&self, sink: &Sink, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let [batch, _, _, _] = pixels.dims();
        let start = Tensor::zeros([batch, 1, 1], &pixels.device());
        let entry = Entry { sink, after: &start };
        let ends = Vit {
            patch: entry.linear(&[names::PATCH], &self.patch),
            cls: entry.tensor(names::CLS.to_owned(), &self.cls),
            positions: entry.tensor(names::POSITIONS.to_owned(), &self.positions),
            layers: Vec::new(),
            ..self.clone()
        };
        let mut x = ends.embed(pixels);
        for (index, layer) in self.layers.iter().enumerate() {
            let layer = Entry { sink, after: &x }.layer(index, layer);
            x = self.through(&layer, index, x);
        }
        let entry = Entry { sink, after: &x };
        let norm = entry.norm(names::NORM, &self.norm);
        let classifier = entry.linear(&[names::CLASSIFIER], &self.classifier);
        classify(x, &norm, &classifier)
    }
}

/// Where parameters enter the graph.
struct Entry<'a, B: Deposits> {
    sink: &'a Sink,
    after: &'a Tensor<B, 3>,
}

impl<B: Deposits> Entry<'_, B> {
    fn layer(&self, index: usize, layer: &Layer<B>) -> Layer<B> {
        let at = LayerNames::new(index);
        let [key, value] = &at.key_value;
        Layer {
            norm_before: self.norm(&at.norm_before, &layer.norm_before),
            query: self.linear(&[&at.query], &layer.query),
            key_value: self.linear(&[key, value], &layer.key_value),
            attended: self.linear(&[&at.attended], &layer.attended),
            norm_after: self.norm(&at.norm_after, &layer.norm_after),
            up: self.linear(&[&at.up], &layer.up),
            down: self.linear(&[&at.down], &layer.down),
        }
    }

    /// The linear maps `names`, side by side in `linear`.
    fn linear(&self, names: &[&str], linear: &Linear<B>) -> Linear<B> {
        let with = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect();
        let bias = |bias| B::enter(bias, self.sink.end_to_end(with("bias")), self.after);
        Linear {
            weight: B::enter(&linear.weight, self.sink.transposed(with("weight")), self.after),
            bias: linear.bias.as_ref().map(bias),
        }
    }

    fn norm(&self, name: &str, norm: &Norm<B>) -> Norm<B> {
        Norm {
            gamma: self.tensor(format!("{name}.weight"), &norm.gamma),
            beta: self.tensor(format!("{name}.bias"), &norm.beta),
            epsilon: norm.epsilon,
        }
    }

    fn tensor<const D: usize>(&self, name: String, tensor: &Tensor<B, D>) -> Tensor<B, D> {
        B::enter(tensor, self.sink.end_to_end(vec![name]), self.after)
    }
}
