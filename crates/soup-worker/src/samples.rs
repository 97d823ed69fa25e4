//! Decoded samples: each is decoded and preprocessed once, then kept for every soup that is evaluated on it, as far as
//! memory allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use soup_core::Result;
use soup_core::run::Split;
use soup_eval::{Dataset, DatasetSpec, Evaluator, Prepared};
use soup_proto::v1;

use crate::compute::Waiting;
use crate::files::StoreFiles;

/// A slice of a dataset: dataset, first sample, end.
pub(crate) type SliceKey = (u32, u64, u64);

/// The datasets of a run, opened when first needed, and their decoded slices.
pub(crate) struct Samples {
    datasets: Vec<OnceLock<Arc<Dataset>>>,
    kept: Mutex<Kept>,
    bytes_max: u64,
}

#[derive(Default)]
struct Kept {
    slices: BTreeMap<SliceKey, Arc<Prepared>>,
    bytes: u64,
}

impl Samples {
    pub(crate) fn new(datasets: usize, bytes_max: u64) -> Samples {
        Samples { datasets: vec![OnceLock::new(); datasets], kept: Mutex::default(), bytes_max }
    }

    /// Dataset `index`. Blocks; call on a compute thread.
    pub(crate) fn dataset(
        &self,
        index: usize,
        spec: &v1::DatasetSpec,
        class_subset: bool,
        evaluator: &dyn Evaluator,
        waiting: &Waiting,
    ) -> Result<Arc<Dataset>> {
        if let Some(dataset) = self.datasets[index].get() {
            return Ok(dataset.clone());
        }
        let files = Arc::new(StoreFiles::new(&spec.url, waiting.clone()));
        let text = |t: &String| Some(t.clone()).filter(|t| !t.is_empty());
        let options = DatasetSpec {
            image_column: text(&spec.image_column),
            label_column: text(&spec.label_column),
            limit: spec.limit,
            split: spec.split.as_ref().map(|s| Split { train: s.train, train_ppm: s.train_ppm }),
            named_split: text(&spec.named_split),
            class_subset,
        };
        let mut dataset = Dataset::open(files, &options)?;
        dataset.align(evaluator.class_names())?;
        Ok(self.datasets[index].get_or_init(|| Arc::new(dataset)).clone())
    }

    /// The samples of a slice, decoded by `decode` if they are not kept. Blocks; call on a compute thread.
    pub(crate) fn slice(
        &self,
        key: SliceKey,
        decode: impl FnOnce() -> Result<Prepared>,
    ) -> Result<Arc<Prepared>> {
        if let Some(prepared) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).slices.get(&key) {
            return Ok(prepared.clone());
        }
        let prepared = Arc::new(decode()?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes.saturating_add(prepared.size_bytes());
        if bytes <= self.bytes_max && kept.slices.insert(key, prepared.clone()).is_none() {
            kept.bytes = bytes;
        }
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_decoded_once_while_they_fit() {
        let one = Prepared::new(vec![0.0; 10], vec![1]).unwrap();
        let samples = Samples::new(1, 2 * one.size_bytes());
        let mut decoded = 0;
        for _ in 0..2 {
            for start in 0..3 {
                let decode = || {
                    decoded += 1;
                    Ok(one.clone())
                };
                samples.slice((0, start, start + 1), decode).unwrap();
            }
        }
        // Two fit and are kept; the third is decoded each time.
        assert_eq!(decoded, 4);
    }
}
