//! Values: the true number of each sample, and the predicted one.
//!
//! How they correlate is no sum over samples, so all are kept, in the order of the dataset. Copies share them, and what they
//! [agree](Agreement) in is computed once.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::agreement::Agreement;
use crate::error::{Error, Result};

/// Most samples of a dataset whose values are kept: every score has them all, and so has its record.
pub const VALUES_MAX: u64 = 1 << 16;
/// Bytes of one sample.
const VALUE_BYTES: usize = 16;

/// What was predicted of a sample whose truth is a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The true number.
    pub truth: f64,
    /// The predicted one. Not a number is a prediction, and the worst.
    pub prediction: f64,
}

/// The values of samples, in their order.
#[derive(Clone, Default)]
pub struct Values(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    samples: Vec<Value>,
    agreement: OnceLock<Agreement>,
}

impl Values {
    /// The values, one a sample.
    pub fn samples(&self) -> &[Value] {
        &self.0.samples
    }

    /// How predictions agree with the truth.
    pub fn agreement(&self) -> Agreement {
        *self.0.agreement.get_or_init(|| Agreement::of(&self.0.samples))
    }

    /// Appends those of the samples that follow.
    pub fn append(&mut self, more: &Values) {
        let inner = Arc::make_mut(&mut self.0);
        inner.samples.extend_from_slice(&more.0.samples);
        inner.agreement = OnceLock::new();
    }

    /// As records keep them: of each sample the truth and the prediction, eight bytes each with the lowest first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.0.samples.iter().flat_map(|value| [value.truth, value.prediction]);
        numbers.flat_map(|number| number.to_bits().to_le_bytes()).collect()
    }

    /// The values of which these are the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for bytes of anything else, and of more than [`VALUES_MAX`] samples.
    pub fn from_bytes(bytes: &[u8]) -> Result<Values> {
        let (samples, beyond) = bytes.as_chunks::<VALUE_BYTES>();
        if !beyond.is_empty() || samples.len() as u64 > VALUES_MAX {
            return Err(Error::data("kept values of samples cannot be read"));
        }
        let number = |bytes: &[u8; VALUE_BYTES], at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            f64::from_bits(u64::from_le_bytes(eight))
        };
        Ok(samples.iter().map(|of| Value { truth: number(of, 0), prediction: number(of, 8) }).collect())
    }
}

impl FromIterator<Value> for Values {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        Values(Arc::new(Inner { samples: values.into_iter().collect(), agreement: OnceLock::new() }))
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Values").field(&self.0.samples).finish()
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Values) -> bool {
        self.0.samples == other.0.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(f64, f64)]) -> Values {
        of.iter().map(|&(truth, prediction)| Value { truth, prediction }).collect()
    }

    #[test]
    fn values_are_put_one_after_the_other() {
        let first = values(&[(1.0, 2.0), (3.0, 1.0)]);
        assert_eq!(first.agreement().pearson, -1.0);
        let mut all = first.clone();
        all.append(&values(&[(9.0, 9.0)]));
        assert_eq!(all, values(&[(1.0, 2.0), (3.0, 1.0), (9.0, 9.0)]));
        assert!(all.agreement().pearson > 0.9, "what is appended counts");
        assert_eq!((first.samples().len(), first.agreement().pearson), (2, -1.0), "copies are as they were");
    }

    #[test]
    fn bytes_read_back_to_the_same_bits() {
        let all = values(&[(0.1 + 0.2, f64::INFINITY), (-0.0, 5e-324), (3.8, f64::NAN)]);
        let bytes = all.to_bytes();
        let read = Values::from_bytes(&bytes).unwrap();
        assert_eq!((read.samples().len(), read.to_bytes()), (3, bytes.clone()));
        assert!(read.samples()[2].prediction.is_nan());
        assert!(Values::from_bytes(&bytes[..40]).is_err());
        assert!(Values::from_bytes(&vec![0; (VALUES_MAX as usize + 1) * 16]).is_err());
        assert!(Values::from_bytes(&[]).unwrap().samples().is_empty());
    }
}
