//! Which samples make a mini-batch, and how it is cut into parts. Depends on sizes and the seed alone.
//!
//! In order, a mini-batch is a run of consecutive samples, cut into consecutive parts. Shuffled, the dataset is cut into as
//! many *stripes* as there are parts, and part p of every mini-batch is drawn from stripe p, without repeats within an
//! epoch: a worker that keeps doing the same part needs to decode its stripe only, and a dataset that is sorted by class
//! still gives mixed mini-batches.

use super::super::ranking::shuffle;

/// Most parts of a mini-batch.
pub const PARTS_MAX: u32 = 1024;

/// The mini-batches of a dataset.
pub(super) struct Batches {
    samples: u64,
    batch: u64,
    parts: u64,
    seed: Option<u64>,
}

impl Batches {
    /// Mini-batches of `batch_size` samples out of `samples`, each in up to `parts` parts; shuffled by `seed`, or in order.
    pub(super) fn new(samples: u64, batch_size: u32, parts: u32, seed: Option<u64>) -> Batches {
        let batch = u64::from(batch_size).min(samples).max(1);
        Batches { samples, batch, parts: u64::from(parts).clamp(1, batch), seed }
    }

    /// Mini-batches in one pass over the dataset.
    pub(super) fn per_epoch(&self) -> u64 {
        self.samples.div_ceil(self.batch)
    }

    /// The samples of mini-batch `index` (counted from 0 over all epochs), by part; parts without samples are left out.
    pub(super) fn parts(&self, index: u64) -> Vec<Vec<u64>> {
        let per_epoch = self.per_epoch().max(1);
        let (epoch, place) = (index / per_epoch, index % per_epoch);
        let part = |part: u64| match self.seed {
            None => self.in_order(place, part),
            Some(seed) => self.shuffled(seed, epoch, place, part),
        };
        (0..self.parts).map(part).filter(|samples| !samples.is_empty()).collect()
    }

    fn in_order(&self, place: u64, part: u64) -> Vec<u64> {
        let start = place * self.batch;
        let length = self.batch.min(self.samples - start);
        cut(length, self.parts, part).map(|sample| start + sample).collect()
    }

    fn shuffled(&self, seed: u64, epoch: u64, place: u64, part: u64) -> Vec<u64> {
        let stripe = cut(self.samples, self.parts, part);
        let mut order: Vec<u64> = stripe.collect();
        // Numbers of their own for every epoch and stripe; the constants spread them over all bits.
        let own = seed
            ^ epoch.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ part.wrapping_add(1).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        shuffle(&mut order, own);
        let range = cut(order.len() as u64, self.per_epoch().max(1), place);
        let mut samples = order[range.start as usize..range.end as usize].to_vec();
        // In the dataset's order within a part, so that reading is, too.
        samples.sort_unstable();
        samples
    }
}

/// Piece `index` of 0..`length` in `pieces` pieces of almost the same length.
fn cut(length: u64, pieces: u64, index: u64) -> std::ops::Range<u64> {
    let at = |i: u64| (u128::from(length) * u128::from(i) / u128::from(pieces)) as u64;
    at(index)..at(index + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn in_order_means_the_order_of_the_file() {
        let batches = Batches::new(10, 4, 2, None);
        assert_eq!(batches.per_epoch(), 3);
        assert_eq!(batches.parts(0), [vec![0, 1], vec![2, 3]]);
        assert_eq!(batches.parts(2), [vec![8], vec![9]]);
        assert_eq!(batches.parts(3), batches.parts(0));
    }

    #[test]
    fn shuffles_differ_by_epoch_and_seed() {
        let epoch = |seed: u64, epoch: u64| Batches::new(1000, 100, 4, Some(seed)).parts(epoch * 10);
        assert_ne!(epoch(0, 0), epoch(0, 1));
        assert_ne!(epoch(0, 0), epoch(1, 0));
        assert_eq!(epoch(7, 2), epoch(7, 2));
    }

    proptest! {
        #[test]
        fn every_epoch_has_every_sample_once(
            samples in 1u64..500, batch in 1u32..64, parts in 1u32..20, seed in prop::option::of(any::<u64>()), epoch in 0u64..3
        ) {
            let batches = Batches::new(samples, batch, parts, seed);
            let steps = batches.per_epoch();
            let mut all: Vec<u64> = Vec::new();
            for step in 0..steps {
                let parts = batches.parts(epoch * steps + step);
                prop_assert!(!parts.is_empty() || seed.is_some());
                let size: usize = parts.iter().map(Vec::len).sum();
                // Shuffled, every part rounds on its own.
                let slack = if seed.is_some() { parts.len() } else { 0 };
                prop_assert!(size <= batch as usize + slack);
                all.extend(parts.into_iter().flatten());
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..samples).collect::<Vec<_>>());
        }
    }
}
