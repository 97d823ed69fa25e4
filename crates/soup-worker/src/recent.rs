//! Values that are made once and kept while they are recent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

type Entries<K, V> = VecDeque<(K, Arc<OnceCell<V>>)>;

/// The most recently used values by key. Whoever asks for a cell that is being filled waits for that, so that nothing is
/// made twice; a cell whose making failed is made again by the next one.
pub(crate) struct Recent<K, V> {
    entries: Mutex<Entries<K, V>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { entries: Mutex::default() }
    }
}

impl<K: PartialEq + Clone, V> Recent<K, V> {
    /// The cell of `key`, which becomes the most recent one; only the `max` most recent are kept. A cell that is dropped
    /// here lives on for as long as somebody holds it.
    pub(crate) fn cell(&self, key: &K, max: usize) -> Arc<OnceCell<V>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().position(|(k, _)| k == key).and_then(|at| entries.remove(at));
        let entry = found.unwrap_or_else(|| (key.clone(), Arc::new(OnceCell::new())));
        let cell = entry.1.clone();
        entries.push_front(entry);
        entries.truncate(max.max(1));
        cell
    }

    /// Forgets the values whose key `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).retain(|(key, _)| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recent_goes() {
        let recent = Recent::<u32, u32>::default();
        recent.cell(&1, 2).set(10).unwrap();
        recent.cell(&2, 2).set(20).unwrap();
        assert_eq!(recent.cell(&1, 2).get(), Some(&10));
        recent.cell(&3, 2);
        assert_eq!(recent.cell(&2, 2).get(), None);
        assert_eq!(recent.cell(&3, 2).get(), None);
    }
}
