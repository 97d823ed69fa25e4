//! Logits of single ingredients, which are compared in the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use soup_core::soup::Soup;

/// Which logits: ingredient, dataset, first sample, end.
type Key = (u32, u32, u64, u64);

/// Logits of single ingredients, kept for comparisons while they fit. What is missing is computed again.
pub(crate) struct Logits {
    kept: Mutex<Kept>,
    bytes_max: u64,
}

#[derive(Default)]
struct Kept {
    rows: BTreeMap<Key, Arc<Vec<f32>>>,
    bytes: u64,
}

impl Logits {
    pub(crate) fn new(bytes_max: u64) -> Logits {
        Logits { kept: Mutex::default(), bytes_max }
    }

    /// Those that are kept.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Vec<f32>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).rows.get(key).cloned()
    }

    /// Keeps the logits of `soup` on a slice, if it is a single ingredient and there is room.
    pub(crate) fn keep(&self, soup: &Soup, slice: (u32, u64, u64), logits: Vec<f32>) {
        let [only] = soup.members() else { return };
        if soup.rows().is_some() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(size_of_val(logits.as_slice()) as u64);
        let key = (only.0, slice.0, slice.1, slice.2);
        if bytes <= self.bytes_max && kept.rows.insert(key, Arc::new(logits)).is_none() {
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
        let logits = Logits::new(16);
        let mean = Soup::mean([Ingredient(0), Ingredient(1)]).unwrap();
        logits.keep(&mean, (0, 0, 1), vec![1.0]);
        logits.keep(&Soup::single(Ingredient(1)), (0, 0, 2), vec![1.0, 2.0]);
        logits.keep(&Soup::single(Ingredient(2)), (0, 0, 2), vec![1.0, 2.0, 3.0]);
        assert_eq!(logits.get(&(1, 0, 0, 2)).as_deref(), Some(&vec![1.0, 2.0]));
        assert_eq!(logits.get(&(2, 0, 0, 2)), None);
        assert_eq!(logits.get(&(0, 0, 0, 1)), None);
    }
}
