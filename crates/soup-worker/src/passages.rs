//! The shards that this worker owns of a run that streams: where they are, and what was found in them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use soup_core::machine::LayerGram;
use soup_core::{Error, Result};
use soup_tensor::Passing;
use tokio::sync::Semaphore;

use crate::sources::Source;

/// The shards that this worker owns.
pub(crate) struct Passages {
    known: RwLock<BTreeMap<u32, Arc<Passage>>>,
    /// What was found in them.
    passed: RwLock<BTreeMap<u32, Passed>>,
    /// Passes at a time.
    pub(crate) permits: Semaphore,
}

/// A shard, and where its parts are.
pub(crate) struct Passage {
    /// Of every ingredient, and then of the base if there is one.
    pub(crate) sources: Vec<Source>,
    pub(crate) passing: Arc<Passing>,
}

/// What was found in a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Passed {
    /// SHA-256 of the shard of every ingredient, in pool order.
    pub(crate) digests: Vec<[u8; 32]>,
    /// The inner products of all ingredients, where they are wanted.
    pub(crate) grams: Vec<LayerGram>,
    /// What people should know.
    pub(crate) notes: Vec<String>,
    /// Bytes that were read for this, in all passes.
    pub(crate) bytes_read: u64,
}

impl Passages {
    /// None yet; so many are read at a time.
    pub(crate) fn new(at_a_time: u32) -> Passages {
        Passages {
            known: RwLock::default(),
            passed: RwLock::default(),
            permits: Semaphore::new(at_a_time.max(1) as usize),
        }
    }

    /// None yet, but what was found under an earlier epoch of the run.
    pub(crate) fn after(self, earlier: &Passages) -> Passages {
        let passed = earlier.passed.read().unwrap_or_else(PoisonError::into_inner).clone();
        Passages { passed: RwLock::new(passed), ..self }
    }

    /// The numbers of those in which something was found.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.passed.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Whether it is known where a shard is.
    pub(crate) fn has(&self, shard: u32) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(&shard)
    }

    /// Forgets the shards that `keep` does not want.
    pub(crate) fn retain(&self, keep: impl Fn(u32) -> bool) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|&shard, _| keep(shard));
        self.passed.write().unwrap_or_else(PoisonError::into_inner).retain(|&shard, _| keep(shard));
    }

    /// Where a shard is.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not own it.
    pub(crate) fn get(&self, shard: u32) -> Result<Arc<Passage>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned();
        known.ok_or_else(|| Error::try_again(format!("this worker does not own shard {shard}")))
    }

    /// Notes where a shard is.
    pub(crate) fn know(&self, shard: u32, passage: Passage) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(shard, Arc::new(passage));
    }

    /// What was found in a shard.
    pub(crate) fn found(&self, shard: u32) -> Option<Passed> {
        self.passed.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    /// Notes what a pass has found, and how much all passes have read.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where an earlier pass has found something else: not every store says so.
    pub(crate) fn note(&self, shard: u32, passed: &Passed) -> Result<()> {
        let mut all = self.passed.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(shard).or_insert_with(|| Passed { bytes_read: 0, ..passed.clone() });
        known.bytes_read += passed.bytes_read;
        match known.digests == passed.digests {
            true => Ok(()),
            false => Err(Error::data(format!(
                "an ingredient changed while the run was reading shard {shard} of it: run again"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_twice_has_to_be_the_same() {
        let passages = Passages::new(1);
        let passed = |digest: u8| Passed { digests: vec![[digest; 32]], bytes_read: 7, ..Passed::default() };
        passages.note(3, &passed(1)).unwrap();
        passages.note(3, &passed(1)).unwrap();
        assert_eq!((passages.numbers(), passages.found(3).unwrap().bytes_read), (vec![3], 14));
        assert_eq!(passages.note(3, &passed(2)).unwrap_err().kind(), soup_core::ErrorKind::Data);
        assert_eq!(passages.get(3).err().unwrap().kind(), soup_core::ErrorKind::TryAgain);
        // What is not this worker's any more is forgotten.
        passages.retain(|_| false);
        assert!(passages.found(3).is_none());
    }
}
