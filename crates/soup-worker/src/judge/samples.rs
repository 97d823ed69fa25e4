//! Decoded samples: each is decoded and preprocessed once, then kept for every soup that is evaluated on it, as far as
//! memory allows. What decoding takes is claimed from the worker's budget; a part of what samples have is for those that are decoded ahead.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use soup_core::Result;
use soup_eval::{Budget, Dataset, Evaluator, Prepared};

use super::files::StoreFiles;
use super::native::Setting;
use crate::compute::Waiting;

/// A block of samples: dataset, first sample.
pub(crate) type BlockKey = (u32, u64);

/// The part of what samples have that is for those decoded ahead by all threads.
const AHEAD_PART: u64 = 4;
/// Samples are decoded ahead as far as they take at most so many bytes: files of tables are read in pages, and each block that is read
/// alone has to find its way through the pages before it.
const AHEAD_BYTES_MAX: u64 = 32 << 20;
/// What is decoded ahead is there twice, until it is cut into blocks.
const AHEAD_COPIES: u64 = 2;

/// What samples may take of a worker's memory.
#[derive(Clone, Debug)]
pub(crate) struct SamplesMemory {
    /// Decoded ones, in bytes.
    pub(crate) kept_bytes: u64,
    /// Threads that decode.
    pub(crate) threads: u32,
    /// While they are decoded.
    pub(crate) decoding: Budget,
}

/// The datasets of a run, opened when first needed, and their decoded samples in blocks of one size, so that any order of samples
/// finds them.
pub(crate) struct Samples {
    datasets: Vec<OnceLock<Arc<Dataset>>>,
    block: u64,
    kept: Mutex<Kept>,
    bytes_max: u64,
    ahead_bytes: u64,
    decoding: Budget,
}

#[derive(Default)]
struct Kept {
    blocks: BTreeMap<BlockKey, Arc<Prepared>>,
    bytes: u64,
}

impl Samples {
    /// Of so many datasets, in blocks of `block` samples.
    pub(crate) fn new(datasets: usize, block: u32, memory: SamplesMemory) -> Samples {
        let SamplesMemory { kept_bytes, threads, decoding } = memory;
        let copies = u64::from(threads.max(1)) * AHEAD_COPIES;
        let ahead_bytes = (kept_bytes / AHEAD_PART / copies).min(AHEAD_BYTES_MAX);
        Samples {
            datasets: vec![OnceLock::new(); datasets],
            block: u64::from(block.max(1)),
            kept: Mutex::default(),
            bytes_max: kept_bytes - ahead_bytes * copies,
            ahead_bytes,
            decoding,
        }
    }

    /// What decoding may take.
    pub(crate) fn decoding(&self) -> &Budget {
        &self.decoding
    }

    /// What one thread may decode ahead, in bytes.
    pub(crate) fn ahead_bytes(&self) -> u64 {
        self.ahead_bytes
    }

    /// Dataset `index`. Blocks; call on a compute thread.
    pub(crate) fn dataset(
        &self,
        index: usize,
        setting: &Setting,
        evaluator: &dyn Evaluator,
        waiting: &Waiting,
    ) -> Result<Arc<Dataset>> {
        if let Some(dataset) = self.datasets[index].get() {
            return Ok(dataset.clone());
        }
        let spec = &setting.datasets[index];
        let pin = setting.fingerprint(index).map(str::to_owned);
        let files = Arc::new(StoreFiles::new(&spec.url, pin, waiting.clone()));
        let mut dataset = Dataset::open_of(files, &spec.options, self.decoding.clone(), evaluator.input())?;
        dataset.align(evaluator.class_names(), setting.class_subset)?;
        Ok(self.datasets[index].get_or_init(|| Arc::new(dataset)).clone())
    }

    /// Whole blocks from the first of `positions` on that are asked for one after the other and are not kept, at most `blocks_max`: the
    /// samples of them, which may go beyond the dataset's end.
    pub(crate) fn missing(&self, dataset: u32, positions: &[u64], blocks_max: u64) -> Range<u64> {
        let Some(&first) = positions.first().filter(|&&p| p.is_multiple_of(self.block)) else { return 0..0 };
        let most = blocks_max.saturating_mul(self.block);
        let asked = positions
            .iter()
            .zip(first..first.saturating_add(most))
            .take_while(|(asked, next)| *asked == next);
        let asked = asked.count() as u64;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = (0..asked.div_ceil(self.block).min(blocks_max))
            .take_while(|nth| !kept.blocks.contains_key(&(dataset, first.saturating_add(nth * self.block))))
            .count() as u64;
        first..first.saturating_add(blocks * self.block)
    }

    /// Cuts samples `range`, which begins with a block, into blocks: the first sample of each, and where it is in `range`.
    pub(crate) fn blocks_of(&self, range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
        let block = self.block;
        range.clone().step_by(block as usize).map(move |first| {
            let end = first.saturating_add(block).min(range.end);
            (first, (first - range.start) as usize..(end - range.start) as usize)
        })
    }

    /// Keeps a block, as far as there is room.
    pub(crate) fn keep(&self, key: BlockKey, prepared: &Arc<Prepared>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(prepared.size_bytes());
        if bytes <= self.bytes_max && kept.blocks.insert(key, prepared.clone()).is_none() {
            kept.bytes = bytes;
        }
    }

    /// Whether a block is kept.
    pub(crate) fn has(&self, key: BlockKey) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).blocks.contains_key(&key)
    }

    /// Whether so many bytes more would be kept.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// Samples in a block.
    pub(crate) fn block_len(&self) -> u64 {
        self.block
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
        self.keep(key, &prepared);
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

    fn samples(block: u32, kept_bytes: u64) -> Samples {
        Samples::new(1, block, SamplesMemory { kept_bytes, threads: 1, decoding: Budget::default() })
    }

    #[test]
    fn what_is_decoded_ahead_is_taken_from_what_is_kept() {
        let of = |kept_bytes, threads| {
            let memory = SamplesMemory { kept_bytes, threads, decoding: Budget::default() };
            let samples = Samples::new(1, 4, memory);
            (samples.ahead_bytes, samples.bytes_max)
        };
        assert_eq!(of(800, 1), (100, 600));
        assert_eq!(of(800, 4), (25, 600));
        assert_eq!(of(1 << 40, 4), (AHEAD_BYTES_MAX, (1 << 40) - 8 * AHEAD_BYTES_MAX));
        assert_eq!((of(0, 4), of(3, 0)), ((0, 0), (0, 3)));
    }

    #[test]
    fn blocks_are_decoded_once_while_they_fit() {
        let one = Prepared::from_pixels(vec![0.0; 10], vec![1]).unwrap();
        let samples = samples(4, 3 * one.size_bytes());
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
    fn blocks_that_are_asked_for_in_a_row_are_decoded_together() {
        let samples = samples(4, u64::MAX);
        let asked = |range: Range<u64>| samples.missing(0, &range.collect::<Vec<_>>(), 3);
        assert_eq!(asked(4..16), 4..16);
        assert_eq!(asked(4..11), 4..12, "whole blocks");
        assert_eq!(asked(0..40), 0..12, "and not too many");
        assert_eq!((asked(5..16), asked(0..0)), (0..0, 0..0));
        assert_eq!(samples.missing(0, &[0, 1, 2, 3, 5, 4], 3), 0..4);
        samples.keep((0, 8), &Arc::default());
        assert_eq!((asked(4..16), asked(8..16)), (4..8, 8..8), "none that is kept");
        let cut: Vec<_> = samples.blocks_of(4..10).collect();
        assert_eq!(cut, [(4, 0..4), (8, 4..6)]);
    }

    #[test]
    fn positions_are_cut_by_block_in_their_order() {
        let samples = samples(4, 0);
        let runs: Vec<_> = samples.by_block(&[1, 3, 4, 9, 8, 2]).collect();
        assert_eq!(runs, [(0, vec![1, 3]), (4, vec![0]), (8, vec![1, 0]), (0, vec![2])]);
        assert_eq!(samples.by_block(&[]).len(), 0);
    }
}
