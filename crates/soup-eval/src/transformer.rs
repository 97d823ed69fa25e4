//! The parts that transformers are made of, over any backend: those of images here, encoders of texts in [`texts`].
//!
//! Each has a `visit`, which describes its parameters, and a forward pass.

pub(crate) mod config;
pub(crate) mod texts;

use burn::tensor::Tensor;
use soup_core::Result;

use self::config::TransformerConfig;
use crate::config::ImageClassifier;
use crate::kernels::{Activation, Kernels, Norm};
use crate::parameters::interpolation::Interpolation;
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

/// What turns images into tokens: one a patch, and before them some that stand for the whole.
pub(crate) struct Embedding<F: Form> {
    patch: Linear<F>,
    /// [1, 1, hidden] each.
    whole: Vec<F::Parameter<3>>,
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
        let patch = [config.classifier.channels, config.patch.height, config.patch.width];
        let (name, hidden) = (|name: &str| format!("{at}.{name}"), config.hidden);
        let (stored, grid) = (config.positions, config.grid());
        Ok(Embedding {
            whole: whole
                .iter()
                .map(|token| visitor.tensor(name(token), [1, 1, hidden]))
                .collect::<Result<_>>()?,
            positions: match stored == grid {
                true => {
                    let tokens = whole.len() + grid.0 * grid.1;
                    visitor.tensor(name("position_embeddings"), [1, tokens, hidden])?
                }
                false => {
                    let map = Interpolation::new(whole.len(), stored, grid);
                    visitor.interpolated(name("position_embeddings"), map, hidden)?
                }
            },
            patch: Linear::visit(visitor, &[&name("patch_embeddings.projection")], hidden, &patch, true)?,
        })
    }
}

impl<B: Kernels> Embedding<Loaded<B>> {
    /// Cuts images `[batch, channels, height, width]` into patches and turns them into tokens `[batch, tokens, hidden]`.
    pub(crate) fn forward(&self, pixels: Tensor<B, 4>, config: &TransformerConfig) -> Tensor<B, 3> {
        let (rows, columns) = config.grid();
        let patches = B::patches(pixels, [rows, columns], [config.patch.height, config.patch.width]);
        let tokens = self.patch.forward(patches, Activation::Linear);
        let positions = self.positions.on(&tokens);
        let whole = self.whole.iter().map(|token| token.on(&tokens)).collect();
        B::tokens(whole, tokens, positions)
    }
}

/// Attention of the tokens of an image to each other.
///
/// Key and value are kept as one linear map, apart from the query, because a last layer needs the queries of those tokens
/// only that a classifier looks at: the other rows of that layer are never computed.
pub(crate) struct Attention<F: Form> {
    query: Linear<F>,
    key_value: Linear<F>,
    heads: usize,
}

impl<F: Form> Attention<F> {
    /// The one whose maps are called `at.query`, `at.key` and `at.value`.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        at: &str,
        config: &TransformerConfig,
    ) -> Result<Self> {
        let [query, key, value] = ["query", "key", "value"].map(|name| format!("{at}.{name}"));
        let mut linear =
            |names: &[&str]| Linear::visit(visitor, names, config.hidden, &[config.hidden], config.qkv_bias);
        Ok(Attention { query: linear(&[&query])?, key_value: linear(&[&key, &value])?, heads: config.heads })
    }
}

impl<B: Kernels> Attention<Loaded<B>> {
    /// What the first `asked` tokens of each of `batch` images take from all `tokens` of theirs:
    /// `[batch * tokens, hidden]` to `[batch * asked, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, [batch, tokens]: [usize; 2], asked: usize) -> Tensor<B, 2> {
        let key_value = self.key_value.forward(x.clone(), Activation::Linear);
        let query = self.query.forward(first(x, [batch, tokens], asked), Activation::Linear);
        B::attend(query, key_value, [batch, self.heads])
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
