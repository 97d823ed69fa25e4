//! How far a run that streams has come: what its workers say between their answers, for whoever watches.

use std::collections::BTreeMap;

use soup_core::machine::WorkerId;

/// Shards that were read.
pub(crate) struct Progress {
    shards: u32,
    by_worker: BTreeMap<WorkerId, u32>,
    told: u32,
}

impl Progress {
    /// Of so many.
    pub(crate) fn of(shards: u32) -> Progress {
        Progress { shards, by_worker: BTreeMap::new(), told: 0 }
    }

    /// A worker says how many it has read. Gives how many there are now and in all, if those are more than were told before: what
    /// was lost with a worker is read again without a word.
    pub(crate) fn says(&mut self, worker: WorkerId, shards: u32) -> Option<(u32, u32)> {
        self.by_worker.insert(worker, shards);
        let read = self.by_worker.values().fold(0u32, |sum, n| sum.saturating_add(*n)).min(self.shards);
        if read <= self.told {
            return None;
        }
        self.told = read;
        Some((read, self.shards))
    }

    /// Whether so many were told of already, and those were all.
    pub(crate) fn is_told(&self, read: u32) -> bool {
        read == self.shards && read == self.told
    }

    /// A worker is gone, and what it has read with it.
    pub(crate) fn lost(&mut self, worker: WorkerId) {
        self.by_worker.remove(&worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_once_and_never_beyond_the_end() {
        let mut progress = Progress::of(10);
        let (a, b) = (WorkerId(1), WorkerId(2));
        assert_eq!(progress.says(a, 0), None);
        assert_eq!(progress.says(a, 3), Some((3, 10)));
        assert_eq!(progress.says(b, 2), Some((5, 10)));
        assert_eq!(progress.says(b, 2), None);
        progress.lost(a);
        assert_eq!(progress.says(b, 4), None, "less than was told");
        assert!(!progress.is_told(10));
        assert_eq!(progress.says(b, u32::MAX), Some((10, 10)));
        assert!(progress.is_told(10) && !progress.is_told(5));
    }
}
