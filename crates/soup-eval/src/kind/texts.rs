//! Texts: tokens, of any lengths.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use soup_core::{Error, Result};

use super::Kind;
use crate::architecture::Architecture;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::dataset::{Dataset, Input, InputKind, Target};
use crate::evaluator::{EvaluatorSpec, check_target};
use crate::kernels::texts::Spans;
use crate::prepared::{Inputs, Prepared, Tokens};
use crate::tokenizer::{Encoded, Takes, TextTokenizer, TokenizerFiles};

/// What goes into a classifier of texts, and what comes out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextClassifier {
    pub(crate) classes: Classes,
    /// Ids of tokens are below.
    pub(crate) vocabulary: usize,
    /// Types of tokens are below; `None`: the model does not look at them.
    pub(crate) types: Option<usize>,
    /// Whether it is told the types of tokens where no file says whether it is.
    pub(crate) types_unless_told: bool,
    /// Tokens of the longest text that it has positions for.
    pub(crate) longest: usize,
}

impl TextClassifier {
    /// Logits of a text.
    pub(crate) fn outputs(&self) -> usize {
        self.classes.outputs()
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
    /// Nothing where only prepared texts are judged.
    tokenizer: Option<TextTokenizer>,
}

/// Texts that are looked over at a time.
const LOOKED_OVER: u64 = 1024;

impl Texts {
    fn tokenizer(&self) -> Result<&TextTokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::data(
                "how texts become tokens is not known: there is no tokenizer.json beside the ingredients or in the folder above them",
            )
        })
    }

    fn encode(&self, input: &Input) -> Result<Encoded> {
        let Input::Text { first, second } = input else {
            return Err(Error::internal("an image was handed to a model of texts"));
        };
        let (encoded, vocabulary) =
            (self.tokenizer()?.encode(first, second.as_deref())?, self.classifier.vocabulary);
        match encoded.ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(encoded),
            Some(id) => Err(Error::data(format!(
                "its token {id} is not one of the model's {vocabulary}: the tokenizer is another model's"
            ))),
        }
    }

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

/// The tokens of the names of `classes`, which are the texts that a model answers with.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the names are made up, or cannot be made tokens.
fn labels_of(classes: &Classes, tokenizer: &TextTokenizer) -> Result<Vec<Vec<u32>>> {
    let names = classes.names();
    if names.iter().enumerate().all(|(id, name)| *name == format!("LABEL_{id}")) {
        return Err(Error::data(format!(
            "config.json: id2label has no names for the {} classes, and they are the texts that the model answers with",
            names.len()
        )));
    }
    let tokens = |name: &String| {
        let of = || format!("the name of class {name:?} (id2label in config.json)");
        let encoded = tokenizer.encode(name, None).map_err(|e| e.context(of()))?;
        match encoded.cut {
            true => Err(Error::data(format!("{} is cut {}", of(), tokenizer.limit()))),
            false => Ok(encoded.ids),
        }
    };
    names.iter().map(tokens).collect()
}

impl Kind for Texts {
    const INPUT: InputKind = InputKind::Texts;
    /// Attention within texts is the processor's.
    const ON_DEVICES: bool = false;

    type Classifier = TextClassifier;

    type Batch<B: Backend> = TextBatch;

    fn open<A: Architecture<Kind = Self>>(architecture: A, spec: &EvaluatorSpec) -> Result<(A, Self)> {
        let classifier = architecture.classifier().clone();
        let takes = Takes {
            longest: classifier.longest,
            types: classifier.types.is_some(),
            types_unless_told: classifier.types_unless_told,
        };
        let open = |files: &TokenizerFiles| TextTokenizer::open(files, takes);
        let tokenizer = spec.tokenizer.as_ref().map(open).transpose()?;
        let architecture = match &tokenizer {
            Some(tokenizer) if A::ANSWERS && spec.label_tokens.is_empty() => {
                architecture.with_labels(&labels_of(&classifier.classes, tokenizer)?, spec.decoding)?
            }
            _ => architecture.with_labels(&spec.label_tokens, spec.decoding)?,
        };
        Ok((architecture, Texts { classifier, tokenizer }))
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

    fn add(&self, input: &Input, _: &Budget, to: &mut Inputs) -> Result<()> {
        let Inputs::Tokens { ids, types, ends } = to else {
            return Err(Error::internal("a text was put beside images"));
        };
        let encoded = self.encode(input)?;
        ids.extend(encoded.ids);
        types.extend(encoded.types);
        ends.push(ids.len());
        Ok(())
    }

    fn look_over(&self, dataset: &Dataset) -> Result<Vec<String>> {
        let mut cut = 0u64;
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        dataset.read_in_parts(0..dataset.len(), LOOKED_OVER, |first, samples| {
            for (sample, at) in samples.iter().zip(first..) {
                // What cannot be taken is found here, before anything is loaded.
                let encoded = self.encode(&sample.input).map_err(|e| e.context(dataset.place(at)))?;
                check_target(sample.target, &self.classifier.classes, || dataset.place(at))?;
                if let Target::Number(number) = sample.target {
                    (least, most) = (least.min(number), most.max(number));
                }
                cut += u64::from(encoded.cut);
            }
            Ok(())
        })?;
        let mut notes = Vec::new();
        if cut > 0 {
            let limit = self.tokenizer()?.limit();
            notes.push(format!("has {cut} texts of {} that are cut {limit}", dataset.len()));
        }
        if least == most {
            notes.push(format!("has the number {least} for all of its texts: nothing correlates with it"));
        }
        Ok(notes)
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
