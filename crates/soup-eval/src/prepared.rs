//! Samples that are ready for a model.

use std::ops::Range;
use std::sync::Arc;

use soup_core::tally::Outcome;
use soup_core::{Error, Result};

use crate::outcome::{outcome, outcome_among};

/// Samples ready for a model: pixels of one fixed shape, and labels. By default none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// `[samples, channels, height, width]`, normalised.
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<u32>,
    /// Values of one sample.
    pub(crate) stride: usize,
    /// The classes that predictions are taken among, ascending; `None`: all.
    pub(crate) among: Option<Arc<[u32]>>,
}

impl Prepared {
    /// Samples whose pixels were normalised elsewhere: `[labels.len(), channels, height, width]`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the pixels do not divide into as many samples.
    pub fn new(pixels: Vec<f32>, labels: Vec<u32>) -> Result<Prepared> {
        let stride = pixels.len().checked_div(labels.len()).unwrap_or(0);
        if stride * labels.len() != pixels.len() {
            return Err(Error::data(format!("{} pixels are not {} samples", pixels.len(), labels.len())));
        }
        Ok(Prepared { pixels, labels, stride, among: None })
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

    /// The normalised pixels, sample after sample, channel first.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// The pixels of the samples `range`, of `stride` values each.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are not there,
    /// [`Data`](soup_core::ErrorKind::Data) where samples have another number of values.
    pub(crate) fn pixels_of(&self, range: Range<usize>, stride: usize) -> Result<&[f32]> {
        if range.start > range.end || range.end > self.len() {
            return Err(Error::internal(format!("samples {range:?} of {} prepared ones", self.len())));
        }
        if range.is_empty() {
            return Ok(&[]);
        }
        if self.stride != stride {
            return Err(Error::data(format!("samples of {} values, the model takes {stride}", self.stride)));
        }
        Ok(&self.pixels[range.start * stride..range.end * stride])
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
        let mut picked = self.none_of_them();
        for at in positions {
            picked.pixels.extend_from_slice(self.pixels_of(at..at.saturating_add(1), self.stride)?);
            picked.labels.push(self.labels[at]);
        }
        Ok(picked)
    }

    /// Appends the samples of `more`, which are of the same dataset.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are of another shape or have other classes to be predicted.
    pub fn append(&mut self, more: Prepared) -> Result<()> {
        if !self.is_empty() && !more.is_empty() && (self.stride != more.stride || self.among != more.among) {
            return Err(Error::internal("samples of two datasets were put together"));
        }
        if self.is_empty() {
            (self.stride, self.among) = (more.stride, more.among);
        }
        self.pixels.extend(more.pixels);
        self.labels.extend(more.labels);
        Ok(())
    }

    /// The same kind of samples, and none of them.
    fn none_of_them(&self) -> Prepared {
        Prepared { pixels: Vec::new(), labels: Vec::new(), stride: self.stride, among: self.among.clone() }
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
        (size_of_val(self.pixels.as_slice()) + size_of_val(self.labels.as_slice())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_picked_in_any_order_and_put_together() {
        let block = |first: f32| Prepared::new(vec![first, -first, first + 1.0, -first - 1.0], vec![7, 8]);
        let mut all = block(1.0).unwrap().pick([1, 0, 1]).unwrap();
        assert_eq!((all.pixels(), all.labels()), (&[2.0, -2.0, 1.0, -1.0, 2.0, -2.0][..], &[8, 7, 8][..]));
        all.append(block(5.0).unwrap().pick([0]).unwrap()).unwrap();
        assert_eq!((all.len(), all.pixels()[6], all.labels()[3]), (4, 5.0, 7));
        assert!(block(1.0).unwrap().pick([2]).is_err());
        assert!(all.append(Prepared::new(vec![0.0; 3], vec![1]).unwrap()).is_err());
        let mut none = block(1.0).unwrap().pick([]).unwrap();
        none.append(all.clone()).unwrap();
        assert_eq!(none, all);
    }

    #[test]
    fn outcomes_are_taken_among_the_classes_of_the_dataset() {
        let mut samples = Prepared::new(vec![0.0; 2], vec![0, 2]).unwrap();
        let logits = [1.0, 9.0, 2.0, 1.0, 9.0, 2.0];
        let predictions = |samples: &Prepared| {
            let outcomes = samples.outcomes(0..2, &logits).unwrap();
            outcomes.iter().map(|o| o.prediction).collect::<Vec<_>>()
        };
        assert_eq!(predictions(&samples), [1, 1]);
        samples.among = Some(Arc::from([0, 2]));
        assert_eq!(predictions(&samples), [2, 2]);
        assert!(samples.outcomes(0..2, &logits[..5]).is_err());
        assert!(samples.outcomes(1..3, &logits).is_err());
    }

    #[test]
    fn prepared_samples_know_their_size() {
        let prepared = Prepared::new(vec![0.0; 12], vec![1, 2, 3]).unwrap();
        assert_eq!((prepared.len(), prepared.stride, prepared.size_bytes()), (3, 4, 60));
        assert!(Prepared::new(vec![0.0; 11], vec![1, 2, 3]).is_err());
        assert!(Prepared::new(vec![0.0; 11], vec![]).is_err());
        assert!(Prepared::new(vec![], vec![]).unwrap().is_empty());
    }
}
