//! Texts: tokens, of any lengths.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use soup_core::devices::DeviceKind;
use soup_core::{Error, Result};

use super::Kind;
use crate::architecture::Architecture;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::dataset::{Input, InputKind};
use crate::evaluator::EvaluatorSpec;
use crate::kernels::texts::Spans;
use crate::prepared::{Inputs, Prepared, Tokens};

/// What goes into a classifier of texts, and what comes out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextClassifier {
    pub(crate) classes: Classes,
    /// Ids of tokens are below.
    pub(crate) vocabulary: usize,
    /// Types of tokens are below; `None`: the model does not look at them.
    pub(crate) types: Option<usize>,
    /// Tokens of the longest text that it has positions for.
    pub(crate) longest: usize,
}

impl TextClassifier {
    /// Number of classes: that of the logits.
    pub(crate) fn outputs(&self) -> usize {
        self.classes.count() as usize
    }
}

/// The tokens of some texts, one text after the other.
#[derive(Clone, Debug)]
pub(crate) struct TextBatch {
    pub(crate) ids: Arc<[u32]>,
    /// Of as many tokens.
    pub(crate) types: Arc<[u32]>,
    pub(crate) texts: Spans,
}

/// See the module.
pub(crate) struct Texts {
    classifier: TextClassifier,
}

impl Texts {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for a text that `model` cannot take.
    fn check_tokens(&self, tokens: &Tokens<'_>, model: &str) -> Result<()> {
        let TextClassifier { vocabulary, types, longest, .. } = self.classifier;
        if let Some(length) = tokens.lengths().find(|&length| length == 0 || length > longest) {
            return Err(Error::data(format!("a text of {length} tokens, {model} takes 1 to {longest}")));
        }
        if let Some(id) = tokens.ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(Error::data(format!("token {id} is not one of the {vocabulary} of {model}")));
        }
        let known = types.unwrap_or(usize::MAX);
        match tokens.types.iter().find(|&&of| usize::from(of) >= known) {
            None => Ok(()),
            Some(of) => Err(Error::data(format!(
                "a token of type {of}, and {model} has {known} of them: type_vocab_size in config.json"
            ))),
        }
    }
}

impl Kind for Texts {
    const INPUT: InputKind = InputKind::Texts;

    type Classifier = TextClassifier;

    type Batch<B: Backend> = TextBatch;

    fn open<A: Architecture<Kind = Self>>(architecture: A, spec: &EvaluatorSpec) -> Result<(A, Self)> {
        if spec.device != DeviceKind::Cpu {
            return Err(Error::configuration(format!(
                "{} is judged on the processor alone, not on {}",
                A::NAME,
                spec.device
            )));
        }
        let classifier = architecture.classifier().clone();
        Ok((architecture, Texts { classifier }))
    }

    fn classes(classifier: &TextClassifier) -> &Classes {
        &classifier.classes
    }

    fn sample_bytes(&self) -> u64 {
        let token = size_of::<u32>() + size_of::<u8>();
        (self.classifier.longest * token + size_of::<usize>() + size_of::<u32>()) as u64
    }

    fn none(&self, samples: usize) -> Inputs {
        Inputs::Tokens { ids: Vec::new(), types: Vec::new(), ends: Vec::with_capacity(samples) }
    }

    fn add(&self, _: &Input, _: &Budget, _: &mut Inputs) -> Result<()> {
        Err(Error::data("how texts become tokens is not known"))
    }

    fn check(&self, prepared: &Prepared, range: Range<usize>, model: &str) -> Result<()> {
        self.check_tokens(&prepared.tokens_of(range, model)?, model)
    }

    /// Nothing is padded: what a text comes out as depends on its tokens alone.
    fn batch<B: Backend>(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        _: usize,
        _: &B::Device,
    ) -> Result<TextBatch> {
        let tokens = prepared.tokens_of(range, "the model")?;
        Ok(TextBatch {
            ids: tokens.ids.into(),
            types: tokens.types.iter().map(|&of| u32::from(of)).collect(),
            texts: Spans::new(tokens.lengths()),
        })
    }

    fn batch_bytes<B: Backend>(&self, rows: usize) -> u64 {
        rows as u64 * self.sample_bytes()
    }
}
