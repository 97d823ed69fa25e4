//! Samples that are ready for a model.
//!
//! What a model looks at depends on its kind ([`Inputs`]); how its logits are judged does not.

use std::ops::Range;
use std::sync::{Arc, Weak};

use soup_core::tally::Outcome;
use soup_core::{Error, Result};

use crate::outcome::{outcome, outcome_among};

/// Samples ready for a model: what it looks at, and the class of each. By default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    inputs: Inputs,
    labels: Vec<u32>,
    /// The classes that predictions are taken among, ascending; `None`: all.
    among: Option<Arc<[u32]>>,
    identity: Identity,
}

/// Which samples these are: those and their clones are the same ones, others are not, whatever is in them. What is made of samples is kept
/// by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity(Arc<()>);

/// Samples that something was made of.
#[derive(Debug)]
pub(crate) struct Mark(Weak<()>);

impl Identity {
    pub(crate) fn mark(&self) -> Mark {
        Mark(Arc::downgrade(&self.0))
    }
}

/// Samples are equal by what is in them.
impl PartialEq for Identity {
    fn eq(&self, _: &Identity) -> bool {
        true
    }
}

impl Mark {
    /// Whether it was made of these samples.
    pub(crate) fn is(&self, samples: &Identity) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&samples.0))
    }

    /// Whether those samples are still there.
    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// What models look at, of one sample after the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Images, all of one shape.
    Pixels {
        /// `[samples, channels, height, width]`, normalised.
        values: Vec<f32>,
        /// Values of one image.
        stride: usize,
    },
    /// Texts of any lengths.
    Tokens {
        /// The ids of all tokens, text after text.
        ids: Vec<u32>,
        /// Where in `ids` each text ends.
        ends: Vec<usize>,
    },
}

impl Default for Inputs {
    fn default() -> Inputs {
        Inputs::Pixels { values: Vec::new(), stride: 0 }
    }
}

impl Inputs {
    /// Those at `positions`, which are there.
    fn pick(&self, positions: &[usize]) -> Inputs {
        match self {
            Inputs::Pixels { values, stride } => {
                let mut picked = Vec::with_capacity(positions.len() * stride);
                for at in positions {
                    picked.extend_from_slice(&values[at * stride..][..*stride]);
                }
                Inputs::Pixels { values: picked, stride: *stride }
            }
            Inputs::Tokens { ids, ends } => {
                let (mut picked, mut picked_ends) = (Vec::new(), Vec::with_capacity(positions.len()));
                for &at in positions {
                    let first = at.checked_sub(1).map_or(0, |before| ends[before]);
                    picked.extend_from_slice(&ids[first..ends[at]]);
                    picked_ends.push(picked.len());
                }
                Inputs::Tokens { ids: picked, ends: picked_ends }
            }
        }
    }

    /// Appends `more`. Whether they are of the same kind and shape: otherwise nothing is done.
    fn append(&mut self, more: Inputs) -> bool {
        match (self, more) {
            (Inputs::Pixels { values, stride }, Inputs::Pixels { values: more, stride: of_more })
                if *stride == of_more =>
            {
                values.extend(more);
                true
            }
            (Inputs::Tokens { ids, ends }, Inputs::Tokens { ids: more, ends: ends_of_more }) => {
                ends.extend(ends_of_more.into_iter().map(|end| ids.len() + end));
                ids.extend(more);
                true
            }
            _ => false,
        }
    }

    /// Memory held, in bytes.
    fn size_bytes(&self) -> usize {
        match self {
            Inputs::Pixels { values, .. } => size_of_val(values.as_slice()),
            Inputs::Tokens { ids, ends } => size_of_val(ids.as_slice()) + size_of_val(ends.as_slice()),
        }
    }
}

impl Prepared {
    /// Images whose pixels were normalised elsewhere: `[labels.len(), channels, height, width]`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the pixels do not divide into as many samples.
    pub fn from_pixels(values: Vec<f32>, labels: Vec<u32>) -> Result<Prepared> {
        let stride = values.len().checked_div(labels.len()).unwrap_or(0);
        if stride * labels.len() != values.len() {
            return Err(Error::data(format!("{} pixels are not {} samples", values.len(), labels.len())));
        }
        Ok(Prepared { inputs: Inputs::Pixels { values, stride }, labels, ..Prepared::default() })
    }

    /// Texts as the ids of their tokens.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are not as many texts as labels.
    pub fn from_tokens(texts: &[&[u32]], labels: Vec<u32>) -> Result<Prepared> {
        if texts.len() != labels.len() {
            return Err(Error::data(format!("{} texts are not {} samples", texts.len(), labels.len())));
        }
        let ends = texts.iter().scan(0, |end, text| {
            *end += text.len();
            Some(*end)
        });
        let inputs = Inputs::Tokens { ids: texts.concat(), ends: ends.collect() };
        Ok(Prepared { inputs, labels, ..Prepared::default() })
    }

    /// The same samples, with predictions taken among `classes`, ascending; `None`: all.
    pub(crate) fn among(self, classes: Option<Vec<u32>>) -> Prepared {
        Prepared { among: classes.map(Arc::from), ..self }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels, in order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// What a model looks at, in the same order.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Which samples these are.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where the samples `range` are not there.
    fn check(&self, range: &Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::internal(format!("samples {range:?} of {} prepared ones", self.len())));
        }
        Ok(())
    }

    /// The pixels of the samples `range`, for the model `model`, which takes `stride` values of each.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are not there,
    /// [`Data`](soup_core::ErrorKind::Data) where samples have another number of values, or are no images.
    pub(crate) fn pixels_of(&self, range: Range<usize>, stride: usize, model: &str) -> Result<&[f32]> {
        self.check(&range)?;
        match &self.inputs {
            Inputs::Tokens { .. } => {
                Err(Error::data(format!("the samples are tokens of texts, {model} looks at images")))
            }
            Inputs::Pixels { .. } if range.is_empty() => Ok(&[]),
            Inputs::Pixels { stride: other, .. } if *other != stride => {
                Err(Error::data(format!("samples of {other} values, the model takes {stride}")))
            }
            Inputs::Pixels { values, .. } => Ok(&values[range.start * stride..range.end * stride]),
        }
    }

    /// The labels of the samples `range`, which are there.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one is not below `classes`.
    pub(crate) fn labels_of(&self, range: Range<usize>, classes: usize) -> Result<&[u32]> {
        let labels = &self.labels[range];
        match labels.iter().find(|&&l| l as usize >= classes) {
            Some(label) => {
                Err(Error::data(format!("label {label} is not one of the model's {classes} classes")))
            }
            None => Ok(labels),
        }
    }

    /// Some of these samples, in the order given; positions may repeat.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) for a position that is not there.
    pub fn pick(&self, positions: impl IntoIterator<Item = usize>) -> Result<Prepared> {
        let positions: Vec<usize> = positions.into_iter().collect();
        positions.iter().try_for_each(|&at| self.check(&(at..at.saturating_add(1))))?;
        Ok(Prepared {
            inputs: self.inputs.pick(&positions),
            labels: positions.iter().map(|&at| self.labels[at]).collect(),
            among: self.among.clone(),
            identity: Identity::default(),
        })
    }

    /// Appends the samples of `more`, which are of the same dataset.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are of another kind or shape, or have other classes to be predicted.
    pub fn append(&mut self, more: Prepared) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        if self.is_empty() {
            *self = more;
            return Ok(());
        }
        if self.among != more.among || !self.inputs.append(more.inputs) {
            return Err(Error::internal("samples of two datasets were put together"));
        }
        self.labels.extend(more.labels);
        self.identity = Identity::default();
        Ok(())
    }

    /// The outcomes of the samples `range` by their logits, of which each has `logits.len() / range.len()`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a label is not one of the classes,
    /// [`Internal`](soup_core::ErrorKind::Internal) where samples or logits are not there.
    pub fn outcomes(&self, range: Range<usize>, logits: &[f32]) -> Result<Vec<Outcome>> {
        let classes = logits.len().checked_div(range.len()).unwrap_or(0);
        if range.end > self.len() || classes * range.len() != logits.len() {
            return Err(Error::internal(format!("{} logits for the samples {range:?}", logits.len())));
        }
        let labels = self.labels_of(range, classes)?;
        let rows = logits.chunks_exact(classes.max(1)).zip(labels);
        Ok(match &self.among {
            None => rows.map(|(row, &label)| outcome(row, label)).collect(),
            Some(among) => rows.map(|(row, &label)| outcome_among(row, label, among)).collect(),
        })
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> u64 {
        (self.inputs.size_bytes() + size_of_val(self.labels.as_slice())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(prepared: &Prepared) -> &[f32] {
        match prepared.inputs() {
            Inputs::Pixels { values, .. } => values,
            Inputs::Tokens { .. } => panic!("{prepared:?}"),
        }
    }

    /// The tokens of each text.
    fn texts(prepared: &Prepared) -> Vec<Vec<u32>> {
        let Inputs::Tokens { ids, ends } = prepared.inputs() else { panic!("{prepared:?}") };
        let firsts = std::iter::once(&0).chain(ends);
        firsts.zip(ends).map(|(&first, &end)| ids[first..end].to_vec()).collect()
    }

    #[test]
    fn samples_are_picked_in_any_order_and_put_together() {
        let block =
            |first: f32| Prepared::from_pixels(vec![first, -first, first + 1.0, -first - 1.0], vec![7, 8]);
        let mut all = block(1.0).unwrap().pick([1, 0, 1]).unwrap();
        assert_eq!((pixels(&all), all.labels()), (&[2.0, -2.0, 1.0, -1.0, 2.0, -2.0][..], &[8, 7, 8][..]));
        all.append(block(5.0).unwrap().pick([0]).unwrap()).unwrap();
        assert_eq!((all.len(), pixels(&all)[6], all.labels()[3]), (4, 5.0, 7));
        assert!(block(1.0).unwrap().pick([2]).is_err());
        assert!(all.append(Prepared::from_pixels(vec![0.0; 3], vec![1]).unwrap()).is_err());
        let mut none = block(1.0).unwrap().pick([]).unwrap();
        none.append(all.clone()).unwrap();
        assert_eq!(none, all);
        all.append(Prepared::default()).unwrap();
        assert_eq!(none, all);
    }

    #[test]
    fn texts_of_any_lengths_are_picked_and_put_together() {
        let some = Prepared::from_tokens(&[&[5, 6, 7], &[], &[8]], vec![0, 1, 2]).unwrap();
        let mut all = some.pick([2, 0, 1, 2]).unwrap();
        assert_eq!(
            (texts(&all), all.labels()),
            (vec![vec![8], vec![5, 6, 7], vec![], vec![8]], &[2, 0, 1, 2][..])
        );
        all.append(some.pick([0, 2]).unwrap()).unwrap();
        assert_eq!((all.len(), &texts(&all)[4..]), (6, &[vec![5, 6, 7], vec![8]][..]));
        let mut none = some.pick([]).unwrap();
        none.append(all.clone()).unwrap();
        assert_eq!(none, all);
        let position = some.pick([0, 3]).unwrap_err();
        assert_eq!(position.chain(), "samples 3..4 of 3 prepared ones");
        assert!(some.pick([usize::MAX]).is_err());
        let few = Prepared::from_tokens(&[&[5]], vec![0, 1]).unwrap_err();
        assert_eq!(few.chain(), "1 texts are not 2 samples");
        // Four bytes an id and a label, eight an end.
        assert_eq!(some.size_bytes(), 4 * 4 + 3 * 8 + 3 * 4);
    }

    #[test]
    fn images_and_texts_are_never_mixed() {
        let texts = Prepared::from_tokens(&[&[1, 2]], vec![0]).unwrap();
        let images = Prepared::from_pixels(vec![1.0, 2.0], vec![0]).unwrap();
        for (mut one, other) in [(texts.clone(), images.clone()), (images.clone(), texts.clone())] {
            let before = one.clone();
            let error = one.append(other).unwrap_err();
            assert_eq!(error.chain(), "samples of two datasets were put together");
            assert_eq!(one, before);
        }
        assert_eq!(images.pixels_of(0..1, 2, "M").unwrap(), [1.0, 2.0]);
        let refused = |samples: &Prepared, stride| samples.pixels_of(0..1, stride, "M").unwrap_err().chain();
        assert_eq!(refused(&texts, 2), "the samples are tokens of texts, M looks at images");
        assert_eq!(refused(&images, 3), "samples of 2 values, the model takes 3");
        assert!(images.pixels_of(0..2, 2, "M").is_err());
    }

    #[test]
    fn outcomes_are_taken_among_the_classes_of_the_dataset() {
        let samples = Prepared::from_pixels(vec![0.0; 2], vec![0, 2]).unwrap();
        let logits = [1.0, 9.0, 2.0, 1.0, 9.0, 2.0];
        let predictions = |samples: &Prepared| {
            let outcomes = samples.outcomes(0..2, &logits).unwrap();
            outcomes.iter().map(|o| o.prediction).collect::<Vec<_>>()
        };
        assert_eq!(predictions(&samples), [1, 1]);
        let samples = samples.among(Some(vec![0, 2]));
        assert_eq!(predictions(&samples), [2, 2]);
        assert!(samples.outcomes(0..2, &logits[..5]).is_err());
        assert!(samples.outcomes(1..3, &logits).is_err());
        // Others of the same dataset are judged in the same way, and only those.
        let mut both = samples.pick([0]).unwrap();
        both.append(samples.clone()).unwrap();
        assert!(both.append(samples.among(None)).is_err());
    }

    #[test]
    fn prepared_samples_know_their_size() {
        let prepared = Prepared::from_pixels(vec![0.0; 12], vec![1, 2, 3]).unwrap();
        assert_eq!((prepared.len(), prepared.size_bytes()), (3, 60));
        assert!(Prepared::from_pixels(vec![0.0; 11], vec![1, 2, 3]).is_err());
        assert!(Prepared::from_pixels(vec![0.0; 11], vec![]).is_err());
        assert!(Prepared::from_pixels(vec![], vec![]).unwrap().is_empty());
    }
}
