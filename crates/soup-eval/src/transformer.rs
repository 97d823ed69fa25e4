//! The parts that transformers are made of, over any backend: those of images here, encoders of texts in [`texts`].
//!
//! Each has a `visit`, which describes its parameters, and a forward pass.

pub(crate) mod config;
pub(crate) mod layer;
pub(crate) mod texts;

use burn::tensor::Tensor;
use soup_core::Result;

use self::config::TransformerConfig;
use self::layer::Causal;
use crate::config::ImageClassifier;
use crate::kernels::{Activation, Kernels, Norm};
use crate::parameters::interpolation::{Interpolation, Resampling};
use crate::parameters::visitor::{Form, Loaded, Visitor};

/// Linear maps of the same inputs, side by side.
pub(crate) struct Linear<F: Form> {
    /// From inputs to outputs, laid out once as the backend takes it.
    weight: F::Parameter<2>,
    /// Of all maps together.
    outputs: usize,
    bias: Option<F::Parameter<1>>,
}

impl<F: Form> Linear<F> {
    /// The maps `names`, less `.weight` and `.bias`, from `inputs` to `outputs` each.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        names: &[&str],
        outputs: usize,
        inputs: &[usize],
        bias: bool,
    ) -> Result<Self> {
        let with = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect();
        Ok(Linear {
            weight: visitor.matrices(with("weight"), outputs, inputs)?,
            outputs: names.len() * outputs,
            bias: bias.then(|| visitor.vectors(with("bias"), outputs)).transpose()?,
        })
    }

    /// The map whose tensor is `name`, stored from inputs to outputs and not the other way round, without a bias.
    pub(crate) fn of_inputs(
        visitor: &mut impl Visitor<Form = F>,
        name: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Self> {
        Ok(Linear { weight: visitor.matrix(name.to_owned(), [inputs, outputs])?, outputs, bias: None })
    }

    /// The map whose tensors are `weight` and `bias`.
    fn of_tensors(
        visitor: &mut impl Visitor<Form = F>,
        [weight, bias]: [String; 2],
        outputs: usize,
        inputs: usize,
    ) -> Result<Self> {
        let weight = visitor.matrices(vec![weight], outputs, &[inputs])?;
        Ok(Linear { weight, outputs, bias: Some(visitor.vectors(vec![bias], outputs)?) })
    }

    /// The classifier `name`, from `inputs` to the logits.
    pub(crate) fn classifier(
        visitor: &mut impl Visitor<Form = F>,
        name: &str,
        inputs: usize,
        classifier: &ImageClassifier,
    ) -> Result<Self> {
        Linear::visit(visitor, &[name], classifier.outputs(), &[inputs], true)
    }
}

impl<B: Kernels> Linear<Loaded<B>> {
    /// The maps, then `act`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, act: Activation) -> Tensor<B, 2> {
        let (weight, bias) = self.on(&x);
        B::linear_act(x, (weight, self.outputs), bias.as_ref(), act)
    }

    /// The maps, then `+ residual`.
    pub(crate) fn add_to(&self, x: Tensor<B, 2>, residual: &Tensor<B, 2>) -> Tensor<B, 2> {
        let (weight, bias) = self.on(&x);
        B::linear_residual(x, (weight, self.outputs), bias.as_ref(), residual)
    }

    /// Weight and bias, for one use.
    fn on(&self, x: &Tensor<B, 2>) -> (Tensor<B, 2>, Option<Tensor<B, 1>>) {
        (self.weight.on(x), self.bias.as_ref().map(|bias| bias.on(x)))
    }
}

/// A factor for each element of a hidden state, which a branch is multiplied by before it is added (Touvron et al., "Going
/// deeper with image transformers").
pub(crate) struct LayerScale<F: Form> {
    scale: F::Parameter<1>,
}

impl<F: Form> LayerScale<F> {
    /// The one whose tensor is `name`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        name: String,
        config: &TransformerConfig,
    ) -> Result<Self> {
        Ok(LayerScale { scale: visitor.tensor(name, [config.hidden])? })
    }
}

impl<B: Kernels> LayerScale<Loaded<B>> {
    /// The factors times `branch`, then `+ residual`.
    pub(crate) fn add_to(&self, branch: Tensor<B, 2>, residual: &Tensor<B, 2>) -> Tensor<B, 2> {
        let scale = self.scale.on(&branch);
        B::scale_residual(branch, &scale, residual)
    }
}

/// A layer normalisation.
pub(crate) struct LayerNorm<F: Form> {
    gamma: F::Parameter<1>,
    beta: F::Parameter<1>,
    epsilon: f64,
}

impl<F: Form> LayerNorm<F> {
    /// The one called `name`, less `.weight` and `.bias`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        name: &str,
        config: &TransformerConfig,
    ) -> Result<Self> {
        LayerNorm::of(visitor, name, config.hidden, config.epsilon)
    }

    /// The same, of rows of `width` elements.
    pub(crate) fn of(
        visitor: &mut impl Visitor<Form = F>,
        name: &str,
        width: usize,
        epsilon: f64,
    ) -> Result<Self> {
        Ok(LayerNorm {
            gamma: visitor.tensor(format!("{name}.weight"), [width])?,
            beta: visitor.tensor(format!("{name}.bias"), [width])?,
            epsilon,
        })
    }
}

impl<B: Kernels> LayerNorm<Loaded<B>> {
    pub(crate) fn forward(&self, x: &Tensor<B, 2>) -> Tensor<B, 2> {
        let norm = Norm { gamma: self.gamma.on(x), beta: self.beta.on(x), epsilon: self.epsilon };
        B::norm_rows(x, &norm)
    }
}

/// Tokens of a checkpoint that stand before those of the patches.
pub(crate) struct Before {
    /// Name of their tensor.
    pub(crate) name: String,
    /// Its shape.
    pub(crate) stored: Vec<usize>,
    /// How many they are.
    pub(crate) count: usize,
}

impl Before {
    /// One token, stored as `[1, 1, hidden]`.
    pub(crate) fn one(name: String, hidden: usize) -> Before {
        Before { name, stored: vec![1, 1, hidden], count: 1 }
    }
}

/// What the tensors of an [`Embedding`] are called, and which of them there are.
pub(crate) struct EmbeddingNames {
    /// The map of the patches, less `.weight` and `.bias`.
    pub(crate) patch: String,
    pub(crate) patch_bias: bool,
    pub(crate) positions: String,
    /// Whether positions are stored as `[tokens, hidden]`, not `[1, tokens, hidden]`.
    pub(crate) flat_positions: bool,
    /// Tokens that have positions.
    pub(crate) placed: Vec<Before>,
    /// Tokens that have none. They come after the others.
    pub(crate) unplaced: Vec<Before>,
    /// How positions are interpolated, where images have another size.
    pub(crate) resampling: Resampling,
}

/// What turns images into tokens: one a patch, and before them some that stand for the whole, or for nothing (registers).
pub(crate) struct Embedding<F: Form> {
    patch: Linear<F>,
    /// [1, count, hidden] each.
    placed: Vec<F::Parameter<3>>,
    /// As those.
    unplaced: Vec<F::Parameter<3>>,
    /// [1, tokens, hidden]: of the images' grid of patches, whichever is in the checkpoint.
    positions: F::Parameter<3>,
}

impl<F: Form> Embedding<F> {
    /// The one whose tensors are called `at.*`; `whole` are the last parts of the names of the tokens for the whole.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        whole: &[&str],
        config: &TransformerConfig,
    ) -> Result<Self> {
        let name = |name: &str| format!("{at}.{name}");
        let names = EmbeddingNames {
            patch: name("patch_embeddings.projection"),
            patch_bias: true,
            positions: name("position_embeddings"),
            flat_positions: false,
            placed: whole.iter().map(|token| Before::one(name(token), config.hidden)).collect(),
            unplaced: Vec::new(),
            resampling: Resampling::Plain,
        };
        Embedding::of(visitor, names, config)
    }

    /// The one of those names.
    pub(crate) fn of(
        visitor: &mut impl Visitor<Form = F>,
        names: EmbeddingNames,
        config: &TransformerConfig,
    ) -> Result<Self> {
        let patch = [config.classifier.channels, config.patch.height, config.patch.width];
        let (hidden, stored, grid) = (config.hidden, config.positions, config.grid());
        let placed: usize = names.placed.iter().map(|token| token.count).sum();
        Ok(Embedding {
            placed: Before::visit(visitor, names.placed, hidden)?,
            unplaced: Before::visit(visitor, names.unplaced, hidden)?,
            positions: match stored == grid {
                true => {
                    let tokens = placed + grid.0 * grid.1;
                    let shape =
                        if names.flat_positions { vec![tokens, hidden] } else { vec![1, tokens, hidden] };
                    visitor.reshaped(names.positions, shape, [1, tokens, hidden])?
                }
                false => {
                    let map = Interpolation::by(names.resampling, placed, stored, grid);
                    visitor.interpolated(names.positions, map, hidden)?
                }
            },
            patch: Linear::visit(visitor, &[&names.patch], hidden, &patch, names.patch_bias)?,
        })
    }
}

impl Before {
    /// All `tokens`, `[1, count, hidden]` each.
    fn visit<V: Visitor>(
        visitor: &mut V,
        tokens: Vec<Before>,
        hidden: usize,
    ) -> Result<Vec<<V::Form as Form>::Parameter<3>>> {
        tokens
            .into_iter()
            .map(|token| visitor.reshaped(token.name, token.stored, [1, token.count, hidden]))
            .collect()
    }
}

impl<B: Kernels> Embedding<Loaded<B>> {
    /// Cuts images `[batch, channels, height, width]` into patches and turns them into tokens `[batch, tokens, hidden]`.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>, config: &TransformerConfig) -> Tensor<B, 3> {
        let (rows, columns) = config.grid();
        let patches = B::patches(pixels, [rows, columns], [config.patch.height, config.patch.width]);
        let tokens = self.patch.forward(patches, Activation::Linear);
        let positions = self.positions.on(&tokens);
        let placed = self.placed.iter().map(|token| token.on(&tokens)).collect();
        let x = B::tokens(placed, tokens, positions);
        match self.unplaced.is_empty() {
            true => x,
            false => self.with_unplaced(x, rows * columns),
        }
    }

    /// Puts the tokens without a position before those of the `patches`.
    fn with_unplaced(&self, x: Tensor<B, 3>, patches: usize) -> Tensor<B, 3> {
        let [batch, tokens, hidden] = x.dims();
        let placed = tokens - patches;
        let mut parts = Vec::new();
        if placed > 0 {
            parts.push(x.clone().slice([0..batch, 0..placed]));
        }
        for token in &self.unplaced {
            let token = token.on(&x);
            let [_, count, _] = token.dims();
            parts.push(token.expand([batch, count, hidden]));
        }
        parts.push(x.slice([0..batch, placed..tokens]));
        Tensor::cat(parts, 1)
    }
}

/// What the maps to queries, keys and values are called, each relative to its layer.
pub(crate) enum Maps {
    Apart([&'static str; 3]),
    /// All in one tensor, in that order.
    Fused(&'static str),
    /// The same, by the names of its tensors.
    Packed {
        weight: &'static str,
        bias: &'static str,
    },
}

/// Attention of the tokens of an image to each other.
pub(crate) struct Attention<F: Form> {
    maps: Projection<F>,
    heads: usize,
}

/// Where queries, keys and values come from.
///
/// Key and value are kept as one linear map, apart from the query, because a last layer needs the queries of those tokens
/// only that a classifier looks at: the other rows of that layer are never computed. Those that a checkpoint has in one tensor stay one
/// map: it is looked at once, and all rows of it are.
enum Projection<F: Form> {
    Apart { query: Linear<F>, key_value: Linear<F> },
    Fused(Linear<F>),
}

impl<F: Form> Attention<F> {
    /// The one of the layer at `at`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        maps: &Maps,
        config: &TransformerConfig,
    ) -> Result<Self> {
        let name = |name: &str| format!("{at}.{name}");
        let mut linear = |names: &[&str], outputs| {
            Linear::visit(visitor, names, outputs, &[config.hidden], config.qkv_bias)
        };
        let maps = match maps {
            Maps::Apart(names) => {
                let [query, key, value] = names.map(name);
                let query = linear(&[&query], config.hidden)?;
                Projection::Apart { query, key_value: linear(&[&key, &value], config.hidden)? }
            }
            Maps::Fused(all) => Projection::Fused(linear(&[&name(all)], 3 * config.hidden)?),
            Maps::Packed { weight, bias } => {
                let names = [name(weight), name(bias)];
                Projection::Fused(Linear::of_tensors(visitor, names, 3 * config.hidden, config.hidden)?)
            }
        };
        Ok(Attention { maps, heads: config.heads })
    }
}

impl<B: Kernels> Attention<Loaded<B>> {
    /// What the first `asked` tokens of each of `batch` images take from all `tokens` of theirs:
    /// `[batch * tokens, hidden]` to `[batch * asked, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, [batch, tokens]: [usize; 2], asked: usize) -> Tensor<B, 2> {
        let (query, key_value) = self.maps.forward(x, [batch, tokens], asked);
        B::attend(query, key_value, [batch, self.heads])
    }

    /// What each token of some texts takes from those that `causal` says: `[tokens of all, hidden]` to as many.
    pub(crate) fn causal(&self, x: Tensor<B, 2>, causal: &Causal) -> Tensor<B, 2> {
        let [tokens, _] = x.dims();
        let (query, key_value) = self.maps.forward(x, [1, tokens], tokens);
        causal.attend(query, &key_value, self.heads)
    }
}

impl<B: Kernels> Projection<Loaded<B>> {
    /// Queries of the first `asked` tokens of each of `batch` images, keys and values of all `tokens` side by side.
    fn forward(
        &self,
        x: Tensor<B, 2>,
        [batch, tokens]: [usize; 2],
        asked: usize,
    ) -> (Tensor<B, 2>, Tensor<B, 2>) {
        match self {
            Projection::Apart { query, key_value } => {
                let key_value = key_value.forward(x.clone(), Activation::Linear);
                (query.forward(first(x, [batch, tokens], asked), Activation::Linear), key_value)
            }
            Projection::Fused(all) => {
                let all = all.forward(x, Activation::Linear);
                let [rows, columns] = all.dims();
                let query = all.clone().slice([0..rows, 0..columns / 3]);
                (first(query, [batch, tokens], asked), all.slice([0..rows, columns / 3..columns]))
            }
        }
    }
}

/// The rows of the first `asked` of the tokens of each image: `[batch * tokens, hidden]` to `[batch * asked, hidden]`.
pub(crate) fn first<B: Kernels>(x: Tensor<B, 2>, [batch, tokens]: [usize; 2], asked: usize) -> Tensor<B, 2> {
    if asked == tokens {
        return x;
    }
    let [_, hidden] = x.dims();
    x.reshape([batch, tokens, hidden]).slice([0..batch, 0..asked]).reshape([batch * asked, hidden])
}
