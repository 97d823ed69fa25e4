//! What models that compare images with texts have in common: prompts become tokens, and what a text tower makes of these becomes classes.
//!
//! A class with several prompts is the mean of them, each of length one, made of length one again. A logit is a cosine, scaled as the
//! model has it.

use burn::tensor::Tensor;
use soup_core::{Error, Result};

use crate::budget::Budget;
use crate::evaluator::EvaluatorSpec;
use crate::kernels::Kernels;
use crate::prompts::Prompts;
use crate::tokenizer::{Encoded, Takes, TextTokenizer, TokenizerFiles};

/// Tokens that are encoded at a time: what bounds the memory that takes.
const TOKENS_AT_A_TIME: usize = 1024;
/// Tokens of the longest prompt: three times as many as CLIP was trained with. Attention takes memory by their square.
const PROMPT_TOKENS_MAX: usize = 256;

/// What the classes are, and what makes tokens of it.
pub(crate) struct Described<'a> {
    pub(crate) prompts: &'a Prompts,
    files: &'a TokenizerFiles,
    /// The model's `config.json`.
    model_json: &'a str,
    /// What reading the tokenizer may take.
    budget: &'a Budget,
}

impl<'a> Described<'a> {
    /// What an evaluator is told of; `None` where there are no prompts.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are prompts, and no tokenizer.
    pub(crate) fn by(spec: &'a EvaluatorSpec) -> Result<Option<Described<'a>>> {
        let Some(prompts) = &spec.prompts else { return Ok(None) };
        match &spec.tokenizer {
            Some(files) => {
                let (model_json, budget) = (&spec.config_json, &spec.budget);
                Ok(Some(Described { prompts, files, model_json, budget }))
            }
            None => Err(Error::data("how prompts become tokens is not known: there is no tokenizer.json")),
        }
    }

    /// The tokens of all prompts, class by class, with those that are put before and behind each.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming a prompt that cannot be made tokens, or would be cut.
    pub(crate) fn tokens(&self, takes: Takes) -> Result<Vec<Encoded>> {
        let tokenizer = TextTokenizer::open(self.files, self.model_json, takes, self.budget)?;
        let encode = |prompt: &String| {
            let encoded =
                tokenizer.encode(prompt, None).map_err(|e| e.context(format!("prompt {prompt:?}")))?;
            match encoded.cut {
                false => Ok(encoded),
                true => Err(Error::data(format!(
                    "prompt {prompt:?} is too long: it would be cut {}",
                    tokenizer.limit()
                ))),
            }
        };
        self.prompts.texts().iter().map(encode).collect()
    }
}

/// Tokens of the longest prompt of a text tower that has so many positions.
pub(crate) fn longest(positions: usize) -> usize {
    positions.min(PROMPT_TOKENS_MAX)
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where a token of a prompt is none of the `vocabulary` of `model`.
pub(crate) fn check_known(text: &[u32], vocabulary: usize, model: &str) -> Result<()> {
    match text.iter().find(|&&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => {
            Err(Error::data(format!("token {id} of a prompt is not one of the {vocabulary} of {model}")))
        }
    }
}

/// Texts of so many tokens, each by its `length`, some at a time.
pub(crate) fn some_at_a_time<T>(texts: Vec<T>, length: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut all, mut tokens) = (Vec::<Vec<T>>::new(), 0);
    for text in texts {
        let own = length(&text);
        match all.last_mut() {
            Some(some) if tokens + own <= TOKENS_AT_A_TIME => {
                tokens += own;
                some.push(text);
            }
            _ => {
                tokens = own;
                all.push(vec![text]);
            }
        }
    }
    all
}

/// So many classes, of what their prompts come out as, `[prompts, width]`: `[classes, width]`, of length one.
pub(crate) fn classes_of<B: Kernels>(prompts: Vec<Tensor<B, 2>>, classes: usize) -> Tensor<B, 2> {
    let all = Tensor::cat(prompts.into_iter().map(of_length_one).collect(), 0);
    let [texts, width] = all.dims();
    if texts == classes {
        return all;
    }
    of_length_one(all.reshape([classes, texts / classes, width]).mean_dim(1).reshape([classes, width]))
}

/// How well each image fits each class, whose rows have length one: `[images, classes]`.
pub(crate) fn cosines<B: Kernels>(images: Tensor<B, 2>, classes: Tensor<B, 2>) -> Tensor<B, 2> {
    B::matmul(of_length_one(images), classes.transpose())
}

/// Rows divided by their lengths.
fn of_length_one<B: Kernels>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = x.clone().square().sum_dim(1).sqrt();
    x / length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded_some_at_a_time() {
        let of = |lengths: &[usize]| some_at_a_time(lengths.to_vec(), |&length| length);
        assert_eq!(of(&[3, 4]), [vec![3, 4]]);
        assert_eq!(of(&[1000, 24, 1, 2000, 5]), [vec![1000, 24], vec![1], vec![2000], vec![5]]);
    }

    #[test]
    fn prompts_without_a_tokenizer_are_refused() {
        assert!(Described::by(&EvaluatorSpec::default()).unwrap().is_none());
        let class = |name: &str| (name.to_owned(), vec![name.to_owned()]);
        let prompts = Prompts::new(vec![class("a"), class("b")]).unwrap();
        let spec = EvaluatorSpec { prompts: Some(prompts), ..EvaluatorSpec::default() };
        assert!(Described::by(&spec).err().unwrap().chain().contains("there is no tokenizer.json"));
    }
}
