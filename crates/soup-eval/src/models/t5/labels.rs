//! What classes are called in tokens.

use soup_core::texts::Decoding;
use soup_core::{Error, Result};

use super::config::T5Config;

/// Most tokens of a label.
const LABEL_TOKENS_MAX: usize = 64;
/// Most tokens of all labels together: the decoder has a row for each of them and of every text.
const TOKENS_MAX: usize = 4096;

/// The labels of all classes, one after the other. By default there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Labels {
    /// How many tokens each has.
    lengths: Vec<usize>,
    /// What the decoder sees before each token.
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Labels {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is not one a class, and none like another, or one is not of the vocabulary's
    /// tokens with an end. Where the model writes its answers, they have to end where it does.
    pub(super) fn new(labels: &[Vec<u32>], config: &T5Config, decoding: Decoding) -> Result<Labels> {
        let classes = config.classifier.classes.names();
        if labels.is_empty() {
            return Err(Error::data(
                "classes are told apart by the texts of their labels, and it is not known what tokens those have",
            ));
        }
        if labels.len() != classes.len() {
            return Err(Error::data(format!(
                "there are {} texts of labels for {} classes (id2label in config.json)",
                labels.len(),
                classes.len()
            )));
        }
        let tokens: usize = labels.iter().map(Vec::len).sum();
        if tokens > TOKENS_MAX {
            return Err(Error::data(format!("{tokens} tokens of labels are too many, at most {TOKENS_MAX}")));
        }
        for (nth, (label, class)) in labels.iter().zip(classes).enumerate() {
            let of = |e: Error| e.context(format!("the label of class {class:?}"));
            check(label, config).map_err(of)?;
            if decoding == Decoding::Greedy {
                check_end(label, config).map_err(of)?;
            }
            if let Some(other) = labels[..nth].iter().position(|other| other == label) {
                return Err(Error::data(format!(
                    "classes {:?} and {class:?} cannot be told apart: their labels have the same tokens",
                    classes[other]
                )));
            }
        }
        let starts = labels.iter().flat_map(|label| {
            let before = label[..label.len() - 1].iter().copied();
            std::iter::once(config.start).chain(before)
        });
        Ok(Labels {
            lengths: labels.iter().map(Vec::len).collect(),
            starts: starts.collect(),
            targets: labels.concat(),
        })
    }

    /// How many tokens each has.
    pub(super) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How many tokens all have.
    pub(super) fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// What the decoder sees before each token.
    pub(super) fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The tokens.
    pub(super) fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// One where a token is of a class, else zero: `[tokens, classes]`.
    pub(super) fn of_class(&self) -> Vec<f32> {
        let classes = self.lengths.len();
        let rows = self.lengths.iter().enumerate().flat_map(|(class, &length)| {
            let row = (0..classes).map(move |other| if other == class { 1.0 } else { 0.0 });
            std::iter::repeat_n(row, length).flatten()
        });
        rows.collect()
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is no label.
fn check(label: &[u32], config: &T5Config) -> Result<()> {
    let vocabulary = config.classifier.vocabulary;
    let Some(last) = label.last() else {
        return Err(Error::data("it has no tokens"));
    };
    if label.len() > LABEL_TOKENS_MAX {
        return Err(Error::data(format!("{} tokens are too many, at most {LABEL_TOKENS_MAX}", label.len())));
    }
    if let Some(id) = label.iter().find(|&&id| id as usize >= vocabulary) {
        return Err(Error::data(format!("token {id} is not one of the model's {vocabulary}")));
    }
    match config.ends.is_empty() || config.ends.contains(last) {
        true => Ok(()),
        false => Err(Error::data(format!(
            "it ends with token {last}, and not with the end of a text: eos_token_id in config.json is {:?}",
            config.ends
        ))),
    }
}

/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the model cannot write it: it stops after the first end.
fn check_end(label: &[u32], config: &T5Config) -> Result<()> {
    let &[end] = config.ends.as_slice() else {
        return Err(Error::data(format!(
            "where answers end has to be known, and only one end can be that of a label: eos_token_id in config.json is {:?}",
            config.ends
        )));
    };
    match label.iter().position(|&id| id == end) {
        Some(at) if at + 1 < label.len() => Err(Error::data(format!(
            "its token {at} is the end of an answer already: nothing is written after it"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn labels(of: &[&[u32]]) -> Result<Labels> {
        labels_of(of, "1", Decoding::Labels)
    }

    fn labels_of(labels: &[&[u32]], ends: &str, decoding: Decoding) -> Result<Labels> {
        let json = format!(
            r#"{{"vocab_size": 20, "num_labels": 3, "decoder_start_token_id": 7, "eos_token_id": {ends}}}"#
        );
        let config = T5Config::read(&Settings::parse(&json)?)?;
        Labels::new(&labels.iter().map(|label| label.to_vec()).collect::<Vec<_>>(), &config, decoding)
    }

    #[test]
    fn what_is_written_has_one_end() {
        let (good, within) = ([&[5, 6, 1][..], &[5, 1], &[1]], [&[5, 1, 6, 1][..], &[5, 1], &[1]]);
        let greedy = |of: &[&[u32]], ends| labels_of(of, ends, Decoding::Greedy).map_err(|e| e.chain());
        assert_eq!(greedy(&good, "1").unwrap(), labels(&good).unwrap());
        assert!(labels(&within).is_ok() && labels_of(&good, "[1, 2]", Decoding::Labels).is_ok());
        for (of, ends, part) in [
            (&within, "1", "the label of class \"LABEL_0\": its token 1 is the end of an answer already"),
            (&good, "[1, 2]", "eos_token_id in config.json is [1, 2]"),
            (&good, "null", "eos_token_id in config.json is []"),
        ] {
            let error = greedy(of, ends).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_decoder_sees_what_comes_before() {
        let labels = labels(&[&[5, 6, 1], &[5, 1], &[1]]).unwrap();
        assert_eq!((labels.lengths(), labels.tokens()), (&[3, 2, 1][..], 6));
        assert_eq!(labels.starts(), [7, 5, 6, 7, 5, 7]);
        assert_eq!(labels.targets(), [5, 6, 1, 5, 1, 1]);
        let [a, b, c] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        assert_eq!(labels.of_class(), [a, a, a, b, b, c].concat());
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let long = [vec![5; LABEL_TOKENS_MAX], vec![1]].concat();
        for (of, part) in [
            (&[] as &[&[u32]], "told apart by the texts of their labels"),
            (&[&[1][..], &[5, 1]], "2 texts of labels for 3 classes"),
            (&[&[1], &[5, 1], &[]], "the label of class \"LABEL_2\": it has no tokens"),
            (&[&[1], &[20, 1], &[5, 1]], "token 20 is not one of the model's 20"),
            (&[&[1], &[6, 1], &[5]], "ends with token 5, and not with the end"),
            (&[&[6, 1], &[5, 1], &[6, 1]], "\"LABEL_0\" and \"LABEL_2\" cannot be told apart"),
            (&[&[6, 1], &[5, 1], &long], "65 tokens are too many"),
        ] {
            let error = labels(of).unwrap_err().chain();
            assert!(error.contains(part), "{error}");
        }
    }
}
