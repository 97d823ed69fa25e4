//! Samples that are ready for a model.
//!
//! What a model looks at depends on its kind ([`Inputs`]); how its logits are judged does not.

use std::ops::Range;
use std::sync::{Arc, Weak};

use soup_core::tally::{Judged, Outcome, Value, Values};
use soup_core::{Error, Result};

use crate::classes::Classes;
use crate::dataset::Target;
use crate::outcome::{outcome, outcome_among, outcome_of_answer};

/// Samples ready for a model: what it looks at, and what it should say to each. By default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    inputs: Inputs,
    targets: Targets,
    predictions: Predictions,
    identity: Identity,
}

/// What a model should say to samples, to one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Targets {
    /// The class of each.
    Classes(Vec<u32>),
    /// The number of each.
    Numbers(Vec<f64>),
}

impl Default for Targets {
    fn default() -> Targets {
        Targets::Classes(Vec::new())
    }
}

impl Targets {
    /// None yet, with room for so many, for a model of these classes.
    pub(crate) fn none(classes: &Classes, samples: usize) -> Targets {
        match classes.is_empty() {
            false => Targets::Classes(Vec::with_capacity(samples)),
            true => Targets::Numbers(Vec::with_capacity(samples)),
        }
    }

    /// Adds one. Whether it is of the same kind: otherwise nothing is done.
    pub(crate) fn push(&mut self, target: Target) -> bool {
        match (self, target) {
            (Targets::Classes(all), Target::Class(class)) => all.push(class),
            (Targets::Numbers(all), Target::Number(number)) => all.push(number),
            _ => return false,
        }
        true
    }

    /// Appends `more`. Whether they are of the same kind: otherwise nothing is done.
    fn append(&mut self, more: Targets) -> bool {
        match (self, more) {
            (Targets::Classes(all), Targets::Classes(more)) => all.extend(more),
            (Targets::Numbers(all), Targets::Numbers(more)) => all.extend(more),
            _ => return false,
        }
        true
    }

    fn is_as(&self, other: &Targets) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn len(&self) -> usize {
        match self {
            Targets::Classes(all) => all.len(),
            Targets::Numbers(all) => all.len(),
        }
    }

    /// Those at `positions`, which are there.
    fn pick(&self, positions: &[usize]) -> Targets {
        match self {
            Targets::Classes(all) => Targets::Classes(positions.iter().map(|&at| all[at]).collect()),
            Targets::Numbers(all) => Targets::Numbers(positions.iter().map(|&at| all[at]).collect()),
        }
    }

    /// Memory held, in bytes.
    fn size_bytes(&self) -> usize {
        match self {
            Targets::Classes(all) => size_of_val(all.as_slice()),
            Targets::Numbers(all) => size_of_val(all.as_slice()),
        }
    }
}

/// How the rows that a model gives become predictions.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Predictions {
    /// The class with the largest logit.
    #[default]
    Largest,
    /// The one among these, ascending.
    Among(Arc<[u32]>),
    /// What the row says last, after the logits.
    Answers,
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
        /// Of as many tokens which part of the text they are of: 0, or 1 in the second one of a pair.
        types: Vec<u8>,
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
            Inputs::Tokens { ids, types, ends } => {
                let (mut of_ids, mut of_types) = (Vec::new(), Vec::new());
                let mut picked_ends = Vec::with_capacity(positions.len());
                for &at in positions {
                    let text = start(ends, at)..ends[at];
                    of_ids.extend_from_slice(&ids[text.clone()]);
                    of_types.extend_from_slice(&types[text]);
                    picked_ends.push(of_ids.len());
                }
                Inputs::Tokens { ids: of_ids, types: of_types, ends: picked_ends }
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
            (Inputs::Tokens { ids, types, ends }, Inputs::Tokens { ids: more, types: of_more, ends: at }) => {
                ends.extend(at.into_iter().map(|end| ids.len() + end));
                ids.extend(more);
                types.extend(of_more);
                true
            }
            _ => false,
        }
    }

    /// Memory held, in bytes.
    fn size_bytes(&self) -> usize {
        match self {
            Inputs::Pixels { values, .. } => size_of_val(values.as_slice()),
            Inputs::Tokens { ids, types, ends } => {
                size_of_val(ids.as_slice()) + types.len() + size_of_val(ends.as_slice())
            }
        }
    }
}

/// Where text `at` begins among the tokens of all.
fn start(ends: &[usize], at: usize) -> usize {
    at.checked_sub(1).map_or(0, |before| ends[before])
}

/// The tokens of some texts, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tokens<'a> {
    pub(crate) ids: &'a [u32],
    /// Of as many tokens.
    pub(crate) types: &'a [u8],
    /// Where the first text begins among the tokens of all that were prepared.
    first: usize,
    /// Where each ends among those.
    ends: &'a [usize],
}

impl Tokens<'_> {
    /// How many tokens each text has.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let firsts = std::iter::once(&self.first).chain(self.ends);
        firsts.zip(self.ends).map(|(first, end)| end - first)
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
        let targets = Targets::Classes(labels);
        Ok(Prepared { inputs: Inputs::Pixels { values, stride }, targets, ..Prepared::default() })
    }

    /// Texts as the ids of their tokens.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are not as many texts as labels.
    pub fn from_tokens(texts: &[&[u32]], labels: Vec<u32>) -> Result<Prepared> {
        let types = vec![0; texts.iter().map(|text| text.len()).max().unwrap_or(0)];
        let with_types: Vec<(&[u32], &[u8])> =
            texts.iter().map(|text| (*text, &types[..text.len()])).collect();
        Prepared::from_pairs(&with_types, labels)
    }

    /// Texts, or pairs of them, as the ids and the types of their tokens.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there are not as many texts as labels, or types as tokens.
    pub fn from_pairs(texts: &[(&[u32], &[u8])], labels: Vec<u32>) -> Result<Prepared> {
        if texts.len() != labels.len() {
            return Err(Error::data(format!("{} texts are not {} samples", texts.len(), labels.len())));
        }
        let (mut ids, mut types, mut ends) = (Vec::new(), Vec::new(), Vec::with_capacity(texts.len()));
        for (of_ids, of_types) in texts {
            if of_ids.len() != of_types.len() {
                return Err(Error::data(format!("{} types of {} tokens", of_types.len(), of_ids.len())));
            }
            ids.extend_from_slice(of_ids);
            types.extend_from_slice(of_types);
            ends.push(ids.len());
        }
        Prepared::new(Inputs::Tokens { ids, types, ends }, Targets::Classes(labels))
    }

    /// As many samples as `targets`, whose `inputs` are these.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where there are not as many inputs.
    pub(crate) fn new(inputs: Inputs, targets: Targets) -> Result<Prepared> {
        let samples = match &inputs {
            Inputs::Pixels { values, stride } => values.len().checked_div(*stride).unwrap_or(0),
            Inputs::Tokens { ends, .. } => ends.len(),
        };
        match samples == targets.len() {
            true => Ok(Prepared { inputs, targets, ..Prepared::default() }),
            false => Err(Error::internal(format!("{samples} inputs are not {} samples", targets.len()))),
        }
    }

    /// The same samples, with predictions made in this way.
    pub fn predicting(self, predictions: Predictions) -> Prepared {
        Prepared { predictions, ..self }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels, in order; none of samples of which a number is predicted.
    pub fn labels(&self) -> &[u32] {
        match &self.targets {
            Targets::Classes(labels) => labels,
            Targets::Numbers(_) => &[],
        }
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

    /// The tokens of the samples `range`, for the model `model`.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are not there,
    /// [`Data`](soup_core::ErrorKind::Data) where samples are no texts.
    pub(crate) fn tokens_of(&self, range: Range<usize>, model: &str) -> Result<Tokens<'_>> {
        self.check(&range)?;
        let Inputs::Tokens { ids, types, ends } = &self.inputs else {
            return Err(Error::data(format!("the samples are pixels of images, {model} looks at texts")));
        };
        let first = start(ends, range.start);
        let last = start(ends, range.end);
        Ok(Tokens { ids: &ids[first..last], types: &types[first..last], first, ends: &ends[range] })
    }

    /// The labels of the samples `range`, which are there.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one is not below `classes`, or they are numbers.
    pub(crate) fn labels_of(&self, range: Range<usize>, classes: usize) -> Result<&[u32]> {
        let Targets::Classes(labels) = &self.targets else {
            return Err(Error::data(
                "a number is predicted of the samples, and the classes of them were asked for",
            ));
        };
        let labels = &labels[range];
        match labels.iter().find(|&&l| l as usize >= classes) {
            Some(label) => {
                Err(Error::data(format!("label {label} is not one of the model's {classes} classes")))
            }
            None => Ok(labels),
        }
    }

    /// Whether what a model should say to the samples are numbers.
    pub(crate) fn are_numbers(&self) -> bool {
        matches!(self.targets, Targets::Numbers(_))
    }

    /// What a model that gives `outputs` values of a sample should say to the samples `range`, which are there.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) for a class that is none of as many, and for numbers beside several values.
    pub(crate) fn targets_of(&self, range: Range<usize>, outputs: usize) -> Result<Vec<Target>> {
        match &self.targets {
            Targets::Classes(_) => {
                Ok(self.labels_of(range, outputs)?.iter().copied().map(Target::Class).collect())
            }
            Targets::Numbers(numbers) if outputs == 1 => {
                Ok(numbers[range].iter().copied().map(Target::Number).collect())
            }
            Targets::Numbers(_) => Err(Error::data(format!(
                "a number should be predicted of the samples, and the model gives {outputs} values"
            ))),
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
            targets: self.targets.pick(&positions),
            predictions: self.predictions.clone(),
            identity: Identity::default(),
        })
    }

    /// Appends the samples of `more`, which are of the same dataset.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are of another kind or shape, or predictions are made in another way.
    pub fn append(&mut self, more: Prepared) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        if self.is_empty() {
            *self = more;
            return Ok(());
        }
        let alike = self.predictions == more.predictions && self.targets.is_as(&more.targets);
        if !alike || !self.inputs.append(more.inputs) || !self.targets.append(more.targets) {
            return Err(Error::internal("samples of two datasets were put together"));
        }
        self.identity = Identity::default();
        Ok(())
    }

    /// The outcomes of the samples `range` by the rows that a model gives, of which each has `logits.len() / range.len()` values.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a label is not one of the classes,
    /// [`Internal`](soup_core::ErrorKind::Internal) where samples or logits are not there.
    pub fn outcomes(&self, range: Range<usize>, logits: &[f32]) -> Result<Vec<Outcome>> {
        let values = logits.len().checked_div(range.len()).unwrap_or(0);
        if range.end > self.len() || values * range.len() != logits.len() {
            return Err(Error::internal(format!("{} logits for the samples {range:?}", logits.len())));
        }
        let classes = values.saturating_sub(usize::from(self.predictions == Predictions::Answers));
        let labels = self.labels_of(range, classes)?;
        let rows = logits.chunks_exact(values.max(1)).zip(labels);
        Ok(match &self.predictions {
            Predictions::Largest => rows.map(|(row, &label)| outcome(row, label)).collect(),
            Predictions::Among(classes) => {
                rows.map(|(row, &label)| outcome_among(row, label, classes)).collect()
            }
            Predictions::Answers => rows.map(|(row, &label)| outcome_of_answer(row, label)).collect(),
        })
    }

    /// What a model that gives these logits says of the samples `range`.
    ///
    /// # Errors
    /// As [`outcomes`](Prepared::outcomes).
    pub fn judged(&self, range: Range<usize>, logits: &[f32]) -> Result<Judged> {
        let Targets::Numbers(numbers) = &self.targets else {
            return self.outcomes(range, logits).map(Judged::Outcomes);
        };
        match numbers.get(range.clone()).filter(|numbers| numbers.len() == logits.len()) {
            Some(numbers) => {
                let pairs = numbers.iter().zip(logits);
                let value = |(&truth, &logit): (&f64, &f32)| Value { truth, prediction: logit.into() };
                Ok(Judged::Tally(pairs.map(value).collect::<Values>().into()))
            }
            None => Err(Error::internal(format!("{} numbers for the samples {range:?}", logits.len()))),
        }
    }

    /// Memory held, in bytes.
    pub fn size_bytes(&self) -> u64 {
        (self.inputs.size_bytes() + self.targets.size_bytes()) as u64
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
        let Inputs::Tokens { ids, ends, .. } = prepared.inputs() else { panic!("{prepared:?}") };
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
        // Four bytes an id and a label, one a type, eight an end.
        assert_eq!(some.size_bytes(), 4 * 4 + 4 + 3 * 8 + 3 * 4);
    }

    #[test]
    fn types_stay_with_their_tokens() {
        let texts: [(&[u32], &[u8]); 2] = [(&[5, 6, 7], &[0, 0, 1]), (&[8, 9], &[0, 1])];
        let some = Prepared::from_pairs(&texts, vec![0, 1]).unwrap();
        let mut all = some.pick([1, 0]).unwrap();
        all.append(some.pick([1]).unwrap()).unwrap();
        let tokens = all.tokens_of(1..3, "M").unwrap();
        assert_eq!((tokens.ids, tokens.types), (&[5, 6, 7, 8, 9][..], &[0, 0, 1, 0, 1][..]));
        assert_eq!(tokens.lengths().collect::<Vec<_>>(), [3, 2]);
        assert_eq!(all.tokens_of(0..0, "M").unwrap().lengths().count(), 0);
        assert!(all.tokens_of(1..4, "M").is_err());
        let uneven = Prepared::from_pairs(&[(&[5, 6], &[0])], vec![0]).unwrap_err();
        assert_eq!(uneven.chain(), "1 types of 2 tokens");
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
        let error = images.tokens_of(0..1, "M").unwrap_err();
        assert_eq!(error.chain(), "the samples are pixels of images, M looks at texts");
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
        let samples = samples.predicting(Predictions::Among([0, 2].into()));
        assert_eq!(predictions(&samples), [2, 2]);
        assert!(samples.outcomes(0..2, &logits[..5]).is_err());
        assert!(samples.outcomes(1..3, &logits).is_err());
        // Others of the same dataset are judged in the same way, and only those.
        let mut both = samples.pick([0]).unwrap();
        both.append(samples.clone()).unwrap();
        assert!(both.append(samples.clone().predicting(Predictions::Largest)).is_err());
        // An answer is no class that a sample may have.
        let answers = |labels| {
            let samples = Prepared::from_pixels(vec![0.0; 2], labels).unwrap();
            samples.predicting(Predictions::Answers).outcomes(0..2, &logits)
        };
        let outcomes = answers(vec![0, 1]).unwrap();
        assert_eq!(outcomes.iter().map(|o| o.prediction).collect::<Vec<_>>(), [2, 2]);
        assert!(answers(vec![0, 2]).is_err());
    }

    #[test]
    fn numbers_are_kept_beside_what_is_predicted() {
        let tokens = |count: usize| Inputs::Tokens {
            ids: vec![5; count],
            types: vec![0; count],
            ends: (1..=count).collect(),
        };
        let some = Prepared::new(tokens(3), Targets::Numbers(vec![0.5, 3.8, -1.0])).unwrap();
        let mut all = some.pick([2, 0]).unwrap();
        all.append(some.pick([1]).unwrap()).unwrap();
        let Judged::Tally(said) = all.judged(1..3, &[0.25, f32::NAN]).unwrap() else { unreachable!() };
        let soup_core::tally::Tally::Values(said) = said else { unreachable!() };
        let values: Vec<(f64, f64)> = said.samples().iter().map(|v| (v.truth, v.prediction)).collect();
        assert_eq!((values[0], values[1].0), ((0.5, 0.25), 3.8));
        assert!(values[1].1.is_nan() && all.labels().is_empty());
        assert!(all.judged(1..3, &[0.25]).is_err() && all.judged(2..4, &[0.25; 2]).is_err());
        let error = all.outcomes(0..3, &[0.0; 6]).unwrap_err().chain();
        assert!(error.contains("a number is predicted"), "{error}");
        let labelled = Prepared::new(tokens(1), Targets::Classes(vec![1])).unwrap();
        assert!(all.append(labelled).is_err());
        assert_eq!((all.len(), all.size_bytes()), (3, 3 * 4 + 3 + 3 * 8 + 3 * 8));
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
