//! Samples on a device: each batch is sent there once, and serves every model.
//!
//! They are kept beside the decoded ones of the host as long as those are, as far as there is room. Nothing is evicted for others:
//! every model looks at all samples in the same order, and the least recently used batch is always the one that is needed next.

use std::sync::{Mutex, MutexGuard, PoisonError};

use soup_core::Result;

use crate::prepared::{Identity, Mark};

/// The batches that are on a device, each as a `T`.
pub(crate) struct Uploads<T> {
    bytes_max: u64,
    kept: Mutex<Vec<Kept<T>>>,
}

struct Kept<T> {
    samples: Mark,
    /// The first one of the batch.
    first: usize,
    rows: usize,
    batch: T,
    bytes: u64,
}

impl<T: Clone> Uploads<T> {
    /// Keeps up to `bytes_max` bytes of samples.
    pub(crate) fn new(bytes_max: u64) -> Uploads<T> {
        Uploads { bytes_max, kept: Mutex::default() }
    }

    /// The batch of `rows` samples from `first` on of those with the identity `samples`: as it is kept, or as `upload` makes it, of
    /// `bytes` bytes.
    ///
    /// # Errors
    /// Those of `upload`.
    pub(crate) fn batch(
        &self,
        (samples, first, rows): (&Identity, usize, usize),
        bytes: u64,
        upload: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let is = |kept: &Kept<T>| kept.first == first && kept.rows == rows && kept.samples.is(samples);
        if let Some(kept) = self.lock().iter().find(|kept| is(kept)) {
            return Ok(kept.batch.clone());
        }
        let batch = upload()?;
        let mut all = self.lock();
        // What the host has given up is of no use any more.
        all.retain(|kept| kept.samples.is_alive());
        let taken: u64 = all.iter().map(|kept| kept.bytes).sum();
        if taken.saturating_add(bytes) <= self.bytes_max && !all.iter().any(is) {
            all.push(Kept { samples: samples.mark(), first, rows, batch: batch.clone(), bytes });
        }
        Ok(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::Prepared;

    fn samples() -> Prepared {
        Prepared::from_pixels(vec![1.0, 2.0, 3.0, 4.0], vec![0; 4]).unwrap()
    }

    /// Asks for a batch of ten bytes; whether it had to be made.
    fn made(uploads: &Uploads<usize>, of: &Prepared, first: usize, rows: usize) -> bool {
        let mut made = false;
        let upload = || {
            made = true;
            Ok(rows)
        };
        let batch = uploads.batch((of.identity(), first, rows), 10, upload).unwrap();
        assert_eq!(batch, rows);
        made
    }

    #[test]
    fn a_batch_is_made_once_while_it_fits() {
        let (uploads, of) = (Uploads::new(20), samples());
        assert!(made(&uploads, &of, 0, 2) && made(&uploads, &of, 2, 2));
        assert!(!made(&uploads, &of, 0, 2) && !made(&uploads, &of.clone(), 2, 2));
        // There is no room for a third one.
        assert!(made(&uploads, &of, 0, 1) && made(&uploads, &of, 0, 1));
        assert!(!made(&uploads, &of, 0, 2));
    }

    #[test]
    fn other_samples_have_other_batches() {
        let (uploads, one) = (Uploads::new(20), samples());
        assert!(made(&uploads, &one, 0, 2));
        assert!(made(&uploads, &samples(), 0, 2));
        let mut longer = one.clone();
        longer.append(samples()).unwrap();
        assert!(made(&uploads, &longer, 0, 2) && !made(&uploads, &one, 0, 2));
        assert!(made(&uploads, &one.pick([0, 1]).unwrap(), 0, 2));
    }

    #[test]
    fn samples_that_are_gone_make_room() {
        let (uploads, one, other) = (Uploads::new(10), samples(), samples());
        assert!(made(&uploads, &one, 0, 2) && made(&uploads, &other, 0, 2) && made(&uploads, &other, 0, 2));
        drop(one);
        assert!(made(&uploads, &other, 0, 2) && !made(&uploads, &other, 0, 2));
    }

    #[test]
    fn an_upload_that_fails_is_not_kept() {
        let (uploads, of) = (Uploads::<usize>::new(10), samples());
        let failed = uploads.batch((of.identity(), 0, 2), 10, || Err(soup_core::Error::internal("no")));
        assert!(failed.is_err() && made(&uploads, &of, 0, 2));
    }
}
