//! A layer of an encoder that normalises first, mostly of images; what is between its attention and its end may be gated.

use burn::tensor::Tensor;
use soup_core::Result;

use super::config::TransformerConfig;
use super::{Attention, LayerNorm, LayerScale, Linear, Maps, first};
use crate::gradient::sink::{Learned, Rows};
use crate::kernels::texts::Spans;
use crate::kernels::{Activation, Kernels};
use crate::parameters::visitor::{Form, Loaded, Visitor};

/// What the tensors of a layer are called, each relative to its place.
pub(crate) struct Names {
    /// Before the attention.
    pub(crate) norm1: &'static str,
    pub(crate) maps: Maps,
    pub(crate) attended: &'static str,
    /// Before the MLP.
    pub(crate) norm2: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    /// What the two branches are scaled by, where they are.
    pub(crate) scales: Option<[&'static str; 2]>,
}

/// What follows the attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MlpConfig {
    Plain {
        intermediate: usize,
        activation: Activation,
    },
    /// SwiGLU: `intermediate` gates and as many values.
    Gated {
        intermediate: usize,
    },
}

/// Layers, one after the other.
pub(crate) struct Layers<F: Form>(Vec<Layer<F>>);

impl<F: Form> Layers<F> {
    /// The layers whose tensors are called `at.0.*`, `at.1.*` and so on.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        names: &Names,
        (config, mlp): (&TransformerConfig, MlpConfig),
    ) -> Result<Self> {
        let layers = (0..config.layers)
            .map(|index| Layer::visit(visitor, &format!("{at}.{index}"), names, (config, mlp)));
        Ok(Layers(layers.collect::<Result<_>>()?))
    }
}

impl<B: Kernels> Layers<Loaded<B>> {
    /// From the tokens `[batch, tokens, hidden]` of images to the last hidden state of the first `asked` of each,
    /// `[batch * asked, hidden]`: nothing else is computed in the last layer.
    pub(crate) fn forward(&self, x: Tensor<B, 3>, asked: usize) -> Tensor<B, 2> {
        let [batch, tokens, hidden] = x.dims();
        let mut x: Tensor<B, 2> = x.reshape([batch * tokens, hidden]);
        let Some((last, others)) = self.0.split_last() else {
            return first(x, [batch, tokens], asked);
        };
        for layer in others {
            x = layer.forward(x, [batch, tokens], tokens);
        }
        last.forward(x, [batch, tokens], asked)
    }

    /// From the tokens `[tokens of all, hidden]` of texts to their last hidden state, each by those up to itself.
    pub(crate) fn forward_causal(&self, x: Tensor<B, 2>, causal: &Causal) -> Tensor<B, 2> {
        self.0.iter().fold(x, |x, layer| {
            let context = layer.attention.causal(layer.norm1.forward(&x), causal);
            layer.after(context, &x)
        })
    }
}

/// Which tokens of texts look at which: each at those of its text up to itself, as if it were the last of a text of its own.
pub(crate) struct Causal {
    /// The rows of all of these texts.
    rows: Rows,
    spans: Spans,
}

impl Causal {
    /// Of the tokens of `texts`.
    pub(crate) fn new(texts: &Spans) -> Causal {
        let prefixes = || texts.iter().flat_map(|text| text.clone().map(move |last| text.start..last + 1));
        // Texts have far less than 2^16 tokens, and there are not many at a time.
        let rows: Vec<u32> = prefixes().flatten().map(|row| row as u32).collect();
        Causal {
            rows: Rows::new(rows.into(), Learned::All),
            spans: Spans::new(prefixes().map(|prefix| prefix.len())),
        }
    }

    /// What each token takes by its query, of all of which `key_value` has keys and values.
    pub(super) fn attend<B: Kernels>(
        &self,
        query: Tensor<B, 2>,
        key_value: &Tensor<B, 2>,
        heads: usize,
    ) -> Tensor<B, 2> {
        B::attend_texts(query, self.rows.of(key_value), &self.spans, heads)
    }
}

struct Layer<F: Form> {
    norm1: LayerNorm<F>,
    attention: Attention<F>,
    attended: Linear<F>,
    norm2: LayerNorm<F>,
    mlp: MlpConfig,
    /// Of a gated MLP, gates and values side by side: so they are in the checkpoint.
    up: Linear<F>,
    down: Linear<F>,
    scales: Option<[LayerScale<F>; 2]>,
}

impl<F: Form> Layer<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        names: &Names,
        (config, mlp): (&TransformerConfig, MlpConfig),
    ) -> Result<Self> {
        let (name, hidden) = (|name: &str| format!("{at}.{name}"), config.hidden);
        let (outputs, intermediate) = match mlp {
            MlpConfig::Plain { intermediate, .. } => (intermediate, intermediate),
            MlpConfig::Gated { intermediate } => (2 * intermediate, intermediate),
        };
        let scale = |visitor: &mut _, of: &str| LayerScale::visit(visitor, name(of), config);
        Ok(Layer {
            norm1: LayerNorm::visit(visitor, &name(names.norm1), config)?,
            attention: Attention::visit(visitor, at, &names.maps, config)?,
            attended: Linear::visit(visitor, &[&name(names.attended)], hidden, &[hidden], true)?,
            norm2: LayerNorm::visit(visitor, &name(names.norm2), config)?,
            mlp,
            up: Linear::visit(visitor, &[&name(names.up)], outputs, &[hidden], true)?,
            down: Linear::visit(visitor, &[&name(names.down)], hidden, &[intermediate], true)?,
            scales: match names.scales {
                Some([one, two]) => Some([scale(visitor, one)?, scale(visitor, two)?]),
                None => None,
            },
        })
    }
}

impl<B: Kernels> Layer<Loaded<B>> {
    /// One layer over `[batch * tokens, hidden]`; of each image, the first `asked` tokens come out: `[batch * asked, hidden]`.
    fn forward(&self, x: Tensor<B, 2>, [batch, tokens]: [usize; 2], asked: usize) -> Tensor<B, 2> {
        let context = self.attention.forward(self.norm1.forward(&x), [batch, tokens], asked);
        self.after(context, &first(x, [batch, tokens], asked))
    }

    /// What follows the attention, whose context is of the rows `x`.
    fn after(&self, context: Tensor<B, 2>, x: &Tensor<B, 2>) -> Tensor<B, 2> {
        let attended = self.branch(0, &self.attended, context, x);
        let normed = self.norm2.forward(&attended);
        let between = match self.mlp {
            MlpConfig::Plain { activation, .. } => self.up.forward(normed, activation),
            MlpConfig::Gated { .. } => B::swiglu(self.up.forward(normed, Activation::Linear)),
        };
        self.branch(1, &self.down, between, &attended)
    }

    /// The end of a branch, `map`, and what it is added to.
    fn branch(
        &self,
        nth: usize,
        map: &Linear<Loaded<B>>,
        x: Tensor<B, 2>,
        residual: &Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        match &self.scales {
            Some(scales) => scales[nth].add_to(map.forward(x, Activation::Linear), residual),
            None => map.add_to(x, residual),
        }
    }
}
