//! Gradients that this worker computed, kept for the owners of the shards until they are released.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use soup_core::{Error, Result};

/// Which gradient: step and part of its mini-batch.
pub(crate) type Key = (u32, u32);

/// The gradients of the step in work: one f32 for each element of the flattened parameters.
#[derive(Default)]
pub(crate) struct Gradients {
    kept: Mutex<BTreeMap<Key, Arc<Vec<f32>>>>,
}

/// A range of a gradient as bytes, without a copy.
struct Part {
    values: Arc<Vec<f32>>,
    first: usize,
    end: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.values[self.first..self.end])
    }
}

impl Gradients {
    /// Keeps a gradient, and none of any other step.
    pub(crate) fn keep(&self, key: Key, values: Vec<f32>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(step, _), _| *step == key.0);
        kept.insert(key, Arc::new(values));
    }

    /// Forgets what is not of `step`.
    pub(crate) fn begin(&self, step: u32) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| *of == step);
    }

    /// Forgets a gradient.
    pub(crate) fn release(&self, key: Key) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// The elements `first` to `end` of a gradient, little-endian.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not hold it.
    pub(crate) fn range(&self, key: Key, first: usize, end: usize) -> Result<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, part) = key;
        let values = kept.get(&key).cloned().ok_or_else(|| {
            Error::try_again(format!("this worker does not hold the gradient of step {step}, part {part}"))
        })?;
        if first > end || end > values.len() {
            return Err(Error::internal(format!(
                "elements {first} to {end} of a gradient of {}",
                values.len()
            )));
        }
        Ok(Bytes::from_owner(Part { values, first, end }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_stays_until_it_is_released_or_the_next_step_begins() {
        let gradients = Gradients::default();
        gradients.keep((1, 0), vec![1.0, 2.0, 3.0]);
        gradients.keep((1, 1), vec![4.0]);
        let bytes = gradients.range((1, 0), 1, 3).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes), [2.0, 3.0]);
        assert!(gradients.range((1, 0), 2, 4).is_err());
        gradients.release((1, 1));
        let gone = gradients.range((1, 1), 0, 1).unwrap_err();
        assert_eq!(gone.kind(), soup_core::ErrorKind::TryAgain);
        gradients.keep((2, 0), vec![5.0]);
        assert!(gradients.range((1, 0), 0, 1).is_err());
    }
}
