//! The two stacks of layers, which normalise first: an encoder's, and a decoder's, which also reads what was encoded.

use burn::tensor::Tensor;
use soup_core::Result;

use super::config::T5Config;
use crate::kernels::relative::{Buckets, Pairs, Relative};
use crate::kernels::{Activation, Kernels};
use crate::parameters::visitor::{Form, Loaded, Visitor};
use crate::transformer::Linear;

/// What a decoder reads.
pub(super) struct Reads<B: Kernels> {
    /// The encoder's last state.
    pub(super) encoded: Tensor<B, 2>,
    /// Rows of the decoder, and of the encoder's those that they ask.
    pub(super) pairs: Pairs,
}

/// Layers with one normalisation after them.
pub(super) struct Stack<F: Form> {
    /// What distances add to products, of all layers: `[buckets, heads]`.
    relative: F::Parameter<2>,
    buckets: Buckets,
    layers: Vec<Layer<F>>,
    norm: Norm<F>,
}

impl<F: Form> Stack<F> {
    /// The stack whose tensors are called `at.*`: `encoder` or `decoder`.
    pub(super) fn visit(visitor: &mut impl Visitor<Form = F>, at: &str, config: &T5Config) -> Result<Self> {
        let decodes = at == "decoder";
        let count = if decodes { config.decoder_layers } else { config.encoder_layers };
        let relative = format!("{at}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        Ok(Stack {
            relative: visitor.tensor(relative, [config.buckets.count, config.heads])?,
            buckets: Buckets { causal: decodes, ..config.buckets },
            layers: (0..count)
                .map(|index| Layer::visit(visitor, &format!("{at}.block.{index}.layer"), config, decodes))
                .collect::<Result<_>>()?,
            norm: Norm::visit(visitor, &format!("{at}.final_layer_norm"), config)?,
        })
    }
}

impl<B: Kernels> Stack<Loaded<B>> {
    /// The last state of embeddings `[tokens, hidden]`, each `within` its own text, and of a decoder of what it `reads`.
    pub(super) fn forward(
        &self,
        mut x: Tensor<B, 2>,
        within: &Pairs,
        reads: Option<&Reads<B>>,
    ) -> Tensor<B, 2> {
        let relative = Relative { table: self.relative.on(&x), buckets: self.buckets };
        for layer in &self.layers {
            x = layer.attention.forward(x, None, within, Some(&relative));
            if let (Some(reading), Some(reads)) = (&layer.reading, reads) {
                x = reading.forward(x, Some(&reads.encoded), &reads.pairs, None);
            }
            x = layer.feed_forward.forward(x);
        }
        self.norm.forward(&x)
    }
}

struct Layer<F: Form> {
    attention: Attention<F>,
    /// A decoder's.
    reading: Option<Attention<F>>,
    feed_forward: FeedForward<F>,
}

impl<F: Form> Layer<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        config: &T5Config,
        decodes: bool,
    ) -> Result<Self> {
        let attention = Attention::visit(visitor, (&format!("{at}.0"), "SelfAttention"), config)?;
        let mut reading = || Attention::visit(visitor, (&format!("{at}.1"), "EncDecAttention"), config);
        let reading = if decodes { Some(reading()?) } else { None };
        let last = if decodes { 2 } else { 1 };
        let feed_forward = FeedForward::visit(visitor, &format!("{at}.{last}"), config)?;
        Ok(Layer { attention, reading, feed_forward })
    }
}

struct Attention<F: Form> {
    norm: Norm<F>,
    query: Linear<F>,
    key_value: Linear<F>,
    out: Linear<F>,
    heads: usize,
}

impl<F: Form> Attention<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        (at, name): (&str, &str),
        config: &T5Config,
    ) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.inner());
        let [query, key, value, out] = ["q", "k", "v", "o"].map(|map| format!("{at}.{name}.{map}"));
        Ok(Attention {
            norm: Norm::visit(visitor, &format!("{at}.layer_norm"), config)?,
            query: Linear::visit(visitor, &[&query], inner, &[hidden], false)?,
            key_value: Linear::visit(visitor, &[&key, &value], inner, &[hidden], false)?,
            out: Linear::visit(visitor, &[&out], hidden, &[inner], false)?,
            heads: config.heads,
        })
    }
}

impl<B: Kernels> Attention<Loaded<B>> {
    /// `x`, and what its rows take of `others`, or of each other.
    fn forward(
        &self,
        x: Tensor<B, 2>,
        others: Option<&Tensor<B, 2>>,
        pairs: &Pairs,
        relative: Option<&Relative<B>>,
    ) -> Tensor<B, 2> {
        let normed = self.norm.forward(&x);
        let asked = others.unwrap_or(&normed).clone();
        let key_value = self.key_value.forward(asked, Activation::Linear);
        let query = self.query.forward(normed, Activation::Linear);
        self.out.add_to(B::attend_pairs(query, key_value, (pairs, self.heads), relative), &x)
    }
}

struct FeedForward<F: Form> {
    norm: Norm<F>,
    up: Linear<F>,
    activation: Activation,
    /// What the activation is multiplied by.
    gated: Option<Linear<F>>,
    down: Linear<F>,
}

impl<F: Form> FeedForward<F> {
    fn visit(visitor: &mut impl Visitor<Form = F>, at: &str, config: &T5Config) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let norm = Norm::visit(visitor, &format!("{at}.layer_norm"), config)?;
        let mut linear = |name: &str, outputs, inputs| {
            Linear::visit(visitor, &[&format!("{at}.DenseReluDense.{name}")], outputs, &[inputs], false)
        };
        Ok(FeedForward {
            norm,
            up: linear(if config.gated { "wi_0" } else { "wi" }, intermediate, hidden)?,
            activation: config.activation,
            gated: if config.gated { Some(linear("wi_1", intermediate, hidden)?) } else { None },
            down: linear("wo", hidden, intermediate)?,
        })
    }
}

impl<B: Kernels> FeedForward<Loaded<B>> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.norm.forward(&x);
        let up = self.up.forward(normed.clone(), self.activation);
        let up = match &self.gated {
            Some(gated) => up * gated.forward(normed, Activation::Linear),
            None => up,
        };
        self.down.add_to(up, &x)
    }
}

/// A normalisation by the root mean square.
struct Norm<F: Form> {
    gamma: F::Parameter<1>,
    epsilon: f64,
}

impl<F: Form> Norm<F> {
    fn visit(visitor: &mut impl Visitor<Form = F>, name: &str, config: &T5Config) -> Result<Self> {
        let gamma = visitor.tensor(format!("{name}.weight"), [config.hidden])?;
        Ok(Norm { gamma, epsilon: config.epsilon })
    }
}

impl<B: Kernels> Norm<Loaded<B>> {
    fn forward(&self, x: &Tensor<B, 2>) -> Tensor<B, 2> {
        B::rms_rows(x, &self.gamma.on(x), self.epsilon)
    }
}
