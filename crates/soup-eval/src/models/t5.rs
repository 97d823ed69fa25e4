//! `T5ForConditionalGeneration` (Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer") as a
//! classifier, the way it is judged on GLUE: every class has a *label*, the tokens of a text with its end, and what a class scores is
//! the logarithm of the probability that the decoder, given the text, gives to the tokens of its label one after the other.
//!
//! The encoder runs once a text. The decoder sees all labels of all texts as texts of their own: of each the token that it starts with
//! and the label's tokens but the last, from which it is to tell the label's.
//!
//! Where it is taken at its word ([`Decoding::Greedy`]), the same pass says what it writes, as far as that matters: it writes a label
//! exactly if each of the label's tokens is the most probable one after those before it. So nothing is written token by token, and of
//! an answer that is no label nothing more is known.

mod config;
mod labels;
mod stack;

use std::sync::Arc;

use burn::tensor::Tensor;
use soup_core::schema::Schema;
use soup_core::texts::Decoding;
use soup_core::{Error, Result};

use self::config::{Head, T5Config};
use self::labels::Labels;
use self::stack::{Reads, Stack};
use crate::architecture::Architecture;
use crate::config::Settings;
use crate::device::Precision;
use crate::gradient::sink::{Learned, Rows, Sink};
use crate::kernels::relative::Pairs;
use crate::kernels::texts::Spans;
use crate::kernels::{Activation, Kernels, tensor};
use crate::kind::{TextBatch, TextClassifier, Texts};
use crate::parameters::Parameters;
use crate::parameters::visitor::{Form, Listing, Loaded, Loader, Visitor};
use crate::transformer::Linear;

/// Rows whose logits are there at a time: as many as make the most of packing the table that they are products with.
const ROWS_AT_A_TIME: usize = 512;

/// The names that a checkpoint may have the embeddings by. Those of one checkpoint are all the same tensor.
const EMBEDDINGS: [&str; 4] =
    ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", HEAD];
/// The head, which is the embeddings where it is not one of its own.
const HEAD: &str = "lm_head.weight";
/// What to do where a file of transformers 4 says that it is the embeddings, and it is not.
const OTHER_HEAD: &str = " by config.json, and of these transformers 4 takes the former for its head, 5 the latter; with \"tie_word_embeddings\": \
    false the latter is a head of its own";

/// What `config.json` says about a `T5ForConditionalGeneration`.
pub(crate) struct T5 {
    config: T5Config,
    labels: Labels,
    decoding: Decoding,
}

/// A `T5ForConditionalGeneration`.
pub(crate) struct T5Model<F: Form> {
    /// Embeddings of tokens, `[vocabulary, hidden]`, for both stacks.
    embeddings: F::Parameter<2>,
    encoder: Stack<F>,
    decoder: Stack<F>,
    /// From the hidden state to the vocabulary; `None`: the embeddings.
    head: Option<Linear<F>>,
}

impl T5 {
    /// Whether a checkpoint of `schema` has a head of its own.
    fn has_head(&self, schema: &Schema) -> bool {
        let has = |name: &&str| schema.index_of(name).is_some();
        match self.config.head {
            Head::Embeddings => false,
            Head::Own => true,
            // Alone it is the embeddings, too.
            Head::AsStored => has(&HEAD) && EMBEDDINGS.iter().any(|name| *name != HEAD && has(name)),
        }
    }

    /// Those names of the embeddings that are tensors of `schema`.
    fn embeddings_in(&self, schema: &Schema) -> impl Iterator<Item = &'static str> {
        let own = self.has_head(schema);
        EMBEDDINGS.into_iter().filter(move |&name| !(own && name == HEAD) && schema.index_of(name).is_some())
    }

    /// The parameters, with the embeddings by the name `embeddings`, and a head where it `has` one of its own.
    fn visit<V: Visitor>(&self, visitor: &mut V, embeddings: &str, has: bool) -> Result<T5Model<V::Form>> {
        let config = &self.config;
        let (vocabulary, hidden) = (config.classifier.vocabulary, config.hidden);
        let head = |visitor: &mut V| Linear::visit(visitor, &["lm_head"], vocabulary, &[hidden], false);
        Ok(T5Model {
            embeddings: visitor.tensor(embeddings.to_owned(), [vocabulary, hidden])?,
            encoder: Stack::visit(visitor, "encoder", config)?,
            decoder: Stack::visit(visitor, "decoder", config)?,
            head: if has { Some(head(visitor)?) } else { None },
        })
    }

    /// The name by which the embeddings of a checkpoint of `schema` are read: its first.
    fn embeddings_read(&self, schema: &Schema) -> &'static str {
        self.embeddings_in(schema).next().unwrap_or(EMBEDDINGS[0])
    }

    /// What the decoder's last states say of the labels' tokens `targets`.
    fn said<B: Kernels>(&self, model: &T5Model<Loaded<B>>, state: Tensor<B, 2>, targets: &[u32]) -> Said<B> {
        let [rows, hidden] = state.dims();
        let (mut likelihoods, mut hits) = (Vec::new(), Vec::new());
        let at_a_time = rows_at_a_time(rows);
        for first in (0..rows).step_by(at_a_time) {
            let part = first..rows.min(first + at_a_time);
            let some = state.clone().slice([part.clone(), 0..hidden]);
            let logits = match &model.head {
                Some(head) => head.forward(some, Activation::Linear),
                None => B::against_rows(some, model.embeddings.on(&state)),
            };
            let targets = Arc::from(&targets[part]);
            if self.says_answers() {
                hits.push(B::most_probable(logits.clone(), &targets));
            }
            likelihoods.push(B::log_likelihoods(logits, &targets));
        }
        let hits = if hits.is_empty() { None } else { Some(Tensor::cat(hits, 0)) };
        Said { likelihoods: Tensor::cat(likelihoods, 0), hits }
    }

    /// The class of each answer, or the number of classes where it is no label: `[count, 1]`, by the tokens that are what is written.
    /// Arithmetic of whole numbers, which is exact on every device: products are of zeros and ones alone.
    fn answers<B: Kernels>(&self, hits: Tensor<B, 2>, of_class: Tensor<B, 2>) -> Tensor<B, 2> {
        let (device, lengths) = (hits.device(), self.labels.lengths());
        let classes = lengths.len();
        let row = |values: Vec<f32>| tensor::<B, 2>(values, [1, classes], &device);
        // One more than are missing is none.
        let written = B::matmul(hits, of_class) - row(lengths.iter().map(|&l| l as f32 - 1.0).collect());
        let numbers = row((0..classes).map(|class| class as f32 - classes as f32).collect());
        // No two labels are written at once: the sum is of one number, or of none.
        (written.clamp_min(0.0) * numbers).sum_dim(1) + classes as f64
    }
}

/// So many that all parts are alike, where there is such a number: nothing depends on where in a batch a text is then.
fn rows_at_a_time(rows: usize) -> usize {
    let divisors = (ROWS_AT_A_TIME / 8..=ROWS_AT_A_TIME.min(rows)).rev();
    divisors.into_iter().find(|&n| rows.is_multiple_of(n)).unwrap_or(ROWS_AT_A_TIME)
}

/// What the decoder says of the tokens of all labels of all texts, `[rows, 1]`.
struct Said<B: Kernels> {
    /// The logarithms of their probabilities.
    likelihoods: Tensor<B, 2>,
    /// One where the token is the most probable one, else zero; only where answers are asked for.
    hits: Option<Tensor<B, 2>>,
}

impl Architecture for T5 {
    const NAME: &str = "T5ForConditionalGeneration";
    const MODEL_TYPE: &str = "t5";

    const ANSWERS: bool = true;
    const DEPTH: &str = "num_layers or num_decoder_layers";

    type Kind = Texts;
    type Model<F: Form> = T5Model<F>;

    fn from_json(text: &str) -> Result<Self> {
        let config = T5Config::read(&Settings::parse(text)?)?;
        Ok(T5 { config, labels: Labels::default(), decoding: Decoding::default() })
    }

    fn with_labels(self, labels: &[Vec<u32>], decoding: Decoding) -> Result<Self> {
        let labels = Labels::new(labels, &self.config, decoding).map_err(|e| e.context(Self::NAME))?;
        Ok(T5 { labels, decoding, ..self })
    }

    fn says_answers(&self) -> bool {
        self.decoding == Decoding::Greedy
    }

    fn classifier(&self) -> &TextClassifier {
        &self.config.classifier
    }

    fn parameters<V: Visitor>(&self, visitor: &mut V) -> Result<T5Model<V::Form>> {
        self.visit(visitor, EMBEDDINGS[0], matches!(self.config.head, Head::Own))
    }

    fn tensors(&self, schema: &Schema) -> Result<Vec<(String, Vec<u64>)>> {
        let mut listing = Listing::default();
        self.visit(&mut listing, self.embeddings_read(schema), self.has_head(schema))?;
        Ok(listing.tensors)
    }

    fn is_known(&self, tensor: &str) -> bool {
        EMBEDDINGS.contains(&tensor)
    }

    /// The embeddings are those of the first of their names that the checkpoint has, which alone has a gradient.
    fn load<B: Kernels>(
        &self,
        parameters: &Parameters<'_>,
        sink: Option<&Sink>,
        (device, precision): (&B::Device, Precision),
    ) -> Result<T5Model<Loaded<B>>> {
        let schema = parameters.schema();
        self.check_schema(schema)?;
        let read = self.embeddings_read(schema);
        for other in self.embeddings_in(schema) {
            if !parameters.are_equal(read, other)? {
                return Err(Error::data(format!(
                    "tensors {read:?} and {other:?} differ: {} has the same embeddings in both{}",
                    Self::NAME,
                    if other == HEAD { OTHER_HEAD } else { "" }
                )));
            }
        }
        self.visit(&mut Loader::<B> { parameters, sink, device, precision }, read, self.has_head(schema))
    }

    fn forward<B: Kernels>(&self, model: &T5Model<Loaded<B>>, batch: TextBatch) -> Tensor<B, 2> {
        let (texts, labels) = (batch.texts, &self.labels);
        let count = texts.count();
        let embed = |ids: Arc<[u32]>| model.embeddings.rows(&Rows::new(ids, Learned::All));
        let of_all = |of_one: &[u32]| -> Arc<[u32]> { of_one.repeat(count).into() };
        let encoded = model.encoder.forward(embed(batch.ids), &Pairs::within(texts.clone()), None);
        let asking = Spans::new(std::iter::repeat_n(labels.tokens(), count));
        let reads = Reads { encoded, pairs: Pairs::new(asking, texts) };
        let steps = Pairs::within(Spans::new(labels.lengths().repeat(count)));
        let state = model.decoder.forward(embed(of_all(labels.starts())), &steps, Some(&reads));
        let state = if self.config.scaled { state * (self.config.hidden as f64).powf(-0.5) } else { state };
        let Said { likelihoods, hits } = self.said(model, state, &of_all(labels.targets()));
        let device = likelihoods.device();
        let of_class = tensor::<B, 2>(labels.of_class(), [labels.tokens(), labels.lengths().len()], &device);
        let logits = B::matmul(likelihoods.reshape([count, labels.tokens()]), of_class.clone());
        match hits {
            None => logits,
            Some(hits) => {
                let answers = self.answers(hits.reshape([count, labels.tokens()]), of_class);
                Tensor::cat(vec![logits, answers], 1)
            }
        }
    }
}
