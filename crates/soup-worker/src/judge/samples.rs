//! Decoded samples: each is decoded and preprocessed once, then kept for every soup that is evaluated on it, as far as
//! memory allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use soup_core::Result;
use soup_core::run::DatasetSpec;
use soup_eval::{Dataset, Evaluator, Prepared};

use super::files::StoreFiles;
use crate::compute::Waiting;

/// A block of samples: dataset, first sample.
pub(crate) type BlockKey = (u32, u64);

/// The datasets of a run, opened when first needed, and their decoded samples in blocks of one size, so that any order of samples
/// finds them.
pub(crate) struct Samples {
    datasets: Vec<OnceLock<Arc<Dataset>>>,
    block: u64,
    kept: Mutex<Kept>,
    bytes_max: u64,
}

#[derive(Default)]
struct Kept {
    blocks: BTreeMap<BlockKey, Arc<Prepared>>,
    bytes: u64,
}

impl Samples {
    /// Of so many datasets, in blocks of `block` samples; kept are at most `bytes_max` bytes.
    pub(crate) fn new(datasets: usize, block: u32, bytes_max: u64) -> Samples {
        Samples {
            datasets: vec![OnceLock::new(); datasets],
            block: u64::from(block.max(1)),
            kept: Mutex::default(),
            bytes_max,
        }
    }

    /// Dataset `index`. Blocks; call on a compute thread.
    pub(crate) fn dataset(
        &self,
        index: usize,
        spec: &DatasetSpec,
        class_subset: bool,
        evaluator: &dyn Evaluator,
        waiting: &Waiting,
    ) -> Result<Arc<Dataset>> {
        if let Some(dataset) = self.datasets[index].get() {
            return Ok(dataset.clone());
        }
        let files = Arc::new(StoreFiles::new(&spec.url, waiting.clone()));
        let mut dataset = Dataset::open(files, &spec.options)?;
        dataset.align(evaluator.class_names(), class_subset)?;
        Ok(self.datasets[index].get_or_init(|| Arc::new(dataset)).clone())
    }

    /// The samples of a block, decoded by `decode` if they are not kept; it is told how many there are in a block. Blocks; call on
    /// a compute thread.
    pub(crate) fn block(
        &self,
        key: BlockKey,
        decode: impl FnOnce(u64) -> Result<Prepared>,
    ) -> Result<Arc<Prepared>> {
        if let Some(prepared) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).blocks.get(&key) {
            return Ok(prepared.clone());
        }
        let prepared = Arc::new(decode(self.block)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(prepared.size_bytes());
        if bytes <= self.bytes_max && kept.blocks.insert(key, prepared.clone()).is_none() {
            kept.bytes = bytes;
        }
        Ok(prepared)
    }

    /// Cuts `positions` into runs of the same block, in their order: the block's first sample, and positions in it.
    pub(crate) fn by_block(&self, positions: &[u64]) -> std::vec::IntoIter<(u64, Vec<usize>)> {
        let mut runs: Vec<(u64, Vec<usize>)> = Vec::new();
        for &position in positions {
            let first = position - position % self.block;
            let within = (position - first) as usize;
            match runs.last_mut().filter(|(block, _)| *block == first) {
                Some((_, run)) => run.push(within),
                None => runs.push((first, vec![within])),
            }
        }
        runs.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_decoded_once_while_they_fit() {
        let one = Prepared::from_pixels(vec![0.0; 10], vec![1]).unwrap();
        let samples = Samples::new(1, 4, 2 * one.size_bytes());
        let mut decoded = 0;
        for _ in 0..2 {
            for first in [0, 4, 8] {
                let decode = |length| {
                    assert_eq!(length, 4);
                    decoded += 1;
                    Ok(one.clone())
                };
                samples.block((0, first), decode).unwrap();
            }
        }
        // Two fit and are kept; the third is decoded each time.
        assert_eq!(decoded, 4);
    }

    #[test]
    fn positions_are_cut_by_block_in_their_order() {
        let samples = Samples::new(1, 4, 0);
        let runs: Vec<_> = samples.by_block(&[1, 3, 4, 9, 8, 2]).collect();
        assert_eq!(runs, [(0, vec![1, 3]), (4, vec![0]), (8, vec![1, 0]), (0, vec![2])]);
        assert_eq!(samples.by_block(&[]).len(), 0);
    }
}
