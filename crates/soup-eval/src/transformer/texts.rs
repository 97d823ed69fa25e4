//! Encoders of texts: embeddings of tokens, their positions and their types, and layers that normalise last (Vaswani et al., "Attention
//! is all you need"; Devlin et al., "BERT").
//!
//! The hidden state has a row for every token of every text of a batch, and nothing else ([`Spans`](crate::kernels::texts::Spans)).

use burn::tensor::Tensor;
use soup_core::Result;

use super::{LayerNorm, Linear};
use crate::gradient::sink::{Learned, Rows};
use crate::kernels::texts::Spans;
use crate::kernels::{Activation, Kernels};
use crate::kind::{TextBatch, TextClassifier};
use crate::parameters::visitor::{Form, Loaded, Visitor};

pub(crate) mod config;

use self::config::{Positions, TextConfig};

/// What the tensors of an encoder are called, each relative to its place.
pub(crate) struct Names {
    /// Of the layers, before their numbers.
    pub(crate) layers: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) attended: &'static str,
    pub(crate) attended_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) norm: &'static str,
}

/// From texts to the last hidden state.
pub(crate) struct Encoder<F: Form> {
    embedding: Embedding<F>,
    layers: Vec<Layer<F>>,
}

impl<F: Form> Encoder<F> {
    /// The encoder whose tensors are called `at.*`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        names: &Names,
        config: &TextConfig,
    ) -> Result<Self> {
        let embedding = Embedding::visit(visitor, &format!("{at}.embeddings"), config)?;
        let layers = (0..config.layers)
            .map(|index| Layer::visit(visitor, &format!("{at}.{}.{index}", names.layers), names, config));
        Ok(Encoder { embedding, layers: layers.collect::<Result<_>>()? })
    }
}

impl<B: Kernels> Encoder<Loaded<B>> {
    /// The last hidden state `[texts, hidden]` of the first token of each text.
    pub(crate) fn first(&self, batch: &TextBatch, config: &TextConfig) -> Tensor<B, 2> {
        let mut x = self.embedding.forward(batch, config);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &batch.texts, index + 1 == self.layers.len());
        }
        if self.layers.is_empty() { B::first_of_each(x, &batch.texts) } else { x }
    }
}

/// What turns tokens into rows of the hidden state.
struct Embedding<F: Form> {
    words: F::Parameter<2>,
    positions: F::Parameter<2>,
    types: Option<F::Parameter<2>>,
    norm: LayerNorm<F>,
}

impl<F: Form> Embedding<F> {
    fn visit(visitor: &mut impl Visitor<Form = F>, at: &str, config: &TextConfig) -> Result<Self> {
        let TextClassifier { vocabulary, types, .. } = config.classifier;
        let hidden = config.hidden;
        let mut table =
            |name: &str, rows| visitor.tensor(format!("{at}.{name}_embeddings.weight"), [rows, hidden]);
        Ok(Embedding {
            words: table("word", vocabulary)?,
            positions: table("position", config.positions_max)?,
            types: types.map(|types| table("token_type", types)).transpose()?,
            norm: LayerNorm::of(visitor, &format!("{at}.LayerNorm"), hidden, config.epsilon)?,
        })
    }
}

impl<B: Kernels> Embedding<Loaded<B>> {
    /// The sum of the embeddings of each token, normalised: `[tokens, hidden]`.
    fn forward(&self, batch: &TextBatch, config: &TextConfig) -> Tensor<B, 2> {
        let of_pad = |pad: Option<u32>| pad.map_or(Learned::All, Learned::AllBut);
        let words = self.words.rows(&Rows::new(batch.ids.clone(), of_pad(config.pad)));
        let sum = match &self.types {
            Some(types) => words + types.rows(&Rows::new(batch.types.clone(), Learned::All)),
            None => words,
        };
        let learned = match config.positions {
            Positions::FromZero => Learned::All,
            Positions::Constant => Learned::Nothing,
            Positions::AfterPad(pad) => Learned::AllBut(pad),
        };
        let positions = config.positions.of(batch).into();
        self.norm.forward(&(sum + self.positions.rows(&Rows::new(positions, learned))))
    }
}

struct Layer<F: Form> {
    query: Linear<F>,
    /// Apart from the query, because a last layer asks for the first token of each text alone.
    key_value: Linear<F>,
    heads: usize,
    attended: Linear<F>,
    attended_norm: LayerNorm<F>,
    up: Linear<F>,
    activation: Activation,
    down: Linear<F>,
    norm: LayerNorm<F>,
}

impl<F: Form> Layer<F> {
    fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        names: &Names,
        config: &TextConfig,
    ) -> Result<Self> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let name = |name: &str| format!("{at}.{name}");
        let norm = |visitor: &mut _, of: &str| LayerNorm::of(visitor, &name(of), hidden, config.epsilon);
        let key_value = [name(names.key), name(names.value)];
        let key_value = key_value.each_ref().map(String::as_str);
        Ok(Layer {
            query: Linear::visit(visitor, &[&name(names.query)], hidden, &[hidden], true)?,
            key_value: Linear::visit(visitor, &key_value, hidden, &[hidden], true)?,
            heads: config.heads,
            attended: Linear::visit(visitor, &[&name(names.attended)], hidden, &[hidden], true)?,
            attended_norm: norm(visitor, names.attended_norm)?,
            up: Linear::visit(visitor, &[&name(names.up)], intermediate, &[hidden], true)?,
            activation: config.activation,
            down: Linear::visit(visitor, &[&name(names.down)], hidden, &[intermediate], true)?,
            norm: norm(visitor, names.norm)?,
        })
    }
}

impl<B: Kernels> Layer<Loaded<B>> {
    /// One layer over `[tokens, hidden]`; of the result, only the first row of each text where nothing else is `last` asked for.
    fn forward(&self, x: Tensor<B, 2>, texts: &Spans, last: bool) -> Tensor<B, 2> {
        let key_value = self.key_value.forward(x.clone(), Activation::Linear);
        let asked = if last { B::first_of_each(x, texts) } else { x };
        let query = self.query.forward(asked.clone(), Activation::Linear);
        let context = B::attend_texts(query, key_value, texts, self.heads);
        let attended = self.attended_norm.forward(&self.attended.add_to(context, &asked));
        let up = self.up.forward(attended.clone(), self.activation);
        self.norm.forward(&self.down.add_to(up, &attended))
    }
}
