//! Logits of single ingredients, which are compared in the end, with the labels of their samples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::soup::Soup;
use soup_core::{Error, Result, tally};

use crate::judge::Judged;

/// Which logits: ingredient, dataset, first sample, end.
type Key = (u32, u32, u64, u64);

/// What an ingredient says of a slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    /// The true class of every sample.
    pub(crate) labels: Vec<u32>,
    /// One row a sample.
    pub(crate) logits: Vec<f32>,
}

impl Rows {
    /// Of what was judged with logits.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where that tells of no classes, or has no row a sample.
    pub(crate) fn of(judged: &Judged) -> Result<Rows> {
        let (tally::Judged::Outcomes(outcomes), Some(logits)) = (&judged.said, &judged.logits) else {
            return Err(Error::internal("logits were asked for, and there are none"));
        };
        if outcomes.is_empty() || logits.len() % outcomes.len() != 0 {
            return Err(Error::internal(format!("{} logits of {} samples", logits.len(), outcomes.len())));
        }
        Ok(Rows { labels: outcomes.iter().map(|o| o.label).collect(), logits: logits.clone() })
    }

    fn bytes(&self) -> u64 {
        (size_of_val(self.logits.as_slice()) + size_of_val(self.labels.as_slice())) as u64
    }
}

/// Logits of single ingredients, kept for comparisons while they fit. What is missing is computed again.
pub(crate) struct Logits {
    kept: Mutex<Kept>,
    bytes_max: u64,
}

#[derive(Default)]
struct Kept {
    rows: BTreeMap<Key, Arc<Rows>>,
    bytes: u64,
}

impl Logits {
    pub(crate) fn new(bytes_max: u64) -> Logits {
        Logits { kept: Mutex::default(), bytes_max }
    }

    /// Forgets all of them.
    pub(crate) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Kept::default();
    }

    /// Those that are kept.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Rows>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).rows.get(key).cloned()
    }

    /// Keeps the logits of `soup` on a slice, if it is a single ingredient and there is room.
    pub(crate) fn keep(&self, soup: &Soup, slice: (u32, u64, u64), rows: &Arc<Rows>) {
        let [only] = soup.members() else { return };
        if soup.rows().is_some() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(rows.bytes());
        let key = (only.0, slice.0, slice.1, slice.2);
        if bytes <= self.bytes_max && kept.rows.insert(key, rows.clone()).is_none() {
            kept.bytes = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use soup_core::soup::Ingredient;

    use super::*;

    #[test]
    fn logits_of_single_ingredients_are_kept_while_they_fit() {
        let logits = Logits::new(24);
        let rows = |logits: &[f32]| Arc::new(Rows { labels: vec![0; logits.len()], logits: logits.to_vec() });
        let mean = Soup::mean([Ingredient(0), Ingredient(1)]).unwrap();
        logits.keep(&mean, (0, 0, 1), &rows(&[1.0]));
        logits.keep(&Soup::single(Ingredient(1)), (0, 0, 2), &rows(&[1.0, 2.0]));
        logits.keep(&Soup::single(Ingredient(2)), (0, 0, 2), &rows(&[1.0, 2.0, 3.0]));
        assert_eq!(logits.get(&(1, 0, 0, 2)), Some(rows(&[1.0, 2.0])));
        assert_eq!(logits.get(&(2, 0, 0, 2)), None);
        assert_eq!(logits.get(&(0, 0, 0, 1)), None);
    }
}
