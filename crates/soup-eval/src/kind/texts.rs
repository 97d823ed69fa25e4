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
    /// The class that transformers makes of its tokenizer where no file names one.
    pub(crate) tokenizer: &'static str,
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

/// Tokens for each text of a batch of one shape: most batches of short texts have all of theirs.
const TOKENS_A_TEXT: usize = 64;

/// How many tokens are in every batch of up to `samples` texts that a text of `length` tokens is in, where batches have one shape: that
/// follows from this text alone, and not from those beside it. A longer one than has room in the usual batches is in larger ones.
fn rows_of_batches(length: usize, samples: usize) -> usize {
    let (usual, alone) = (TOKENS_A_TEXT * samples, length + samples - 1);
    if alone <= usual { usual } else { alone.next_power_of_two() }
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

    fn encode(&self, input: &Input, budget: &Budget) -> Result<Encoded> {
        let Input::Text { first, second } = input else {
            return Err(Error::internal("an image was handed to a model of texts"));
        };
        let encoded = self.tokenizer()?.encode_within(first, second.as_deref(), budget)?;
        let vocabulary = self.classifier.vocabulary;
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
    type Classifier = TextClassifier;

    type Batch<B: Backend> = TextBatch;

    fn open<A: Architecture<Kind = Self>>(architecture: A, spec: &EvaluatorSpec) -> Result<(A, Self)> {
        let classifier = architecture.classifier().clone();
        let takes = Takes {
            longest: classifier.longest,
            types: classifier.types.is_some(),
            class: classifier.tokenizer,
        };
        let open =
            |files: &TokenizerFiles| TextTokenizer::open(files, &spec.config_json, takes, &spec.budget);
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

    fn add(&self, input: &Input, budget: &Budget, to: &mut Inputs) -> Result<()> {
        let Inputs::Tokens { ids, types, ends } = to else {
            return Err(Error::internal("a text was put beside images"));
        };
        let encoded = self.encode(input, budget)?;
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
                let encoded = self.encode(&sample.input, dataset.budget());
                let encoded = encoded.map_err(|e| e.context(dataset.place(at)))?;
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

    fn fitting(&self, prepared: &Prepared, range: Range<usize>, samples: usize) -> Result<usize> {
        let (mut rows, mut tokens, mut count) = (None, 0, 0);
        for length in prepared.tokens_of(range, "the model")?.lengths().take(samples) {
            let own = rows_of_batches(length, samples);
            tokens += length;
            // The texts that are missing have a token each.
            if tokens + (samples - count - 1) > own || own != *rows.get_or_insert(own) {
                break;
            }
            count += 1;
        }
        Ok(count)
    }

    /// No text is padded: what it comes out as depends on its tokens alone.
    fn batch<B: Backend>(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        of: Option<usize>,
        _: &B::Device,
    ) -> Result<TextBatch> {
        let tokens = prepared.tokens_of(range, "the model")?;
        let mut lengths: Vec<usize> = tokens.lengths().collect();
        let (mut ids, mut types) =
            (tokens.ids.to_vec(), tokens.types.iter().map(|&of| u32::from(of)).collect::<Vec<_>>());
        if let (Some(samples), Some(&first)) = (of, lengths.first()) {
            let rows = rows_of_batches(first, samples);
            lengths.resize(samples.max(lengths.len()), 1);
            // Any token will do.
            ids.resize(rows.max(ids.len()), 0);
            types.resize(rows.max(types.len()), 0);
        }
        let texts = Spans::new(lengths).among(ids.len());
        Ok(TextBatch { ids: ids.into(), types: types.into(), texts })
    }

    fn batch_bytes<B: Backend>(&self, rows: usize) -> u64 {
        rows as u64 * self.sample_bytes()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;

    use super::*;

    fn texts() -> Texts {
        let classifier = TextClassifier {
            classes: Classes::new(vec!["a".to_owned(), "b".to_owned()], &Default::default()),
            vocabulary: 9,
            types: None,
            tokenizer: "BertTokenizer",
            longest: 4096,
        };
        Texts { classifier, tokenizer: None }
    }

    fn prepared(lengths: &[usize]) -> Prepared {
        let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![7; length]).collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        Prepared::from_tokens(&texts, vec![0; lengths.len()]).unwrap()
    }

    /// The lengths of the texts of each batch of one shape, and how many rows it has.
    fn batches(lengths: &[usize], samples: usize) -> Vec<(Vec<usize>, usize)> {
        let (texts, prepared) = (texts(), prepared(lengths));
        let (mut first, mut all) = (0, Vec::new());
        while first < lengths.len() {
            let count = texts.fitting(&prepared, first..lengths.len(), samples).unwrap();
            let range = first..first + count;
            let batch = texts.batch::<Flex>(&prepared, range.clone(), Some(samples), &FlexDevice).unwrap();
            assert_eq!(batch.texts.count(), samples);
            assert_eq!((batch.ids.len(), batch.types.len()), (batch.texts.rows(), batch.texts.rows()));
            let own: Vec<usize> = batch.texts.iter().take(count).map(|rows| rows.len()).collect();
            assert_eq!(own, lengths[range]);
            all.push((own, batch.texts.rows()));
            first += count;
        }
        all
    }

    #[test]
    fn batches_of_one_shape_have_the_texts_that_fit() {
        assert_eq!(batches(&[5, 64, 3], 2), [(vec![5, 64], 128), (vec![3], 128)]);
        // 127 tokens leave one for the other text.
        assert_eq!(
            batches(&[127, 1, 126, 2, 3], 2),
            [(vec![127, 1], 128), (vec![126, 2], 128), (vec![3], 128)]
        );
        assert_eq!(batches(&[100, 100], 2), [(vec![100], 128), (vec![100], 128)]);
        assert_eq!(batches(&[64, 65, 4096], 1), [(vec![64], 64), (vec![65], 128), (vec![4096], 4096)]);
    }

    #[test]
    fn a_long_text_is_not_among_short_ones() {
        assert_eq!(
            batches(&[9, 128, 9, 128, 129, 4000], 2),
            [
                (vec![9], 128),
                (vec![128], 256),
                (vec![9], 128),
                (vec![128], 256),
                (vec![129], 256),
                (vec![4000], 4096)
            ]
        );
    }
}
