//! Sharing work among threads that live for one call. They sleep or work and never spin: other processes may want the
//! cores.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// Applies `work` to every item, on at most `threads` threads of which the caller's is one. Threads take the next item
/// when they are done with one, so that a slow core does less.
pub(crate) fn share<T: Send>(
    threads: NonZeroUsize,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    let helpers = threads.get().min(items.len()).saturating_sub(1);
    let items = Mutex::new(items);
    let take = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(item) = take() {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            // Without a thread (a limit of the system) the others do its share.
            let _ = std::thread::Builder::new().name("soup-blend".into()).spawn_scoped(scope, run);
        }
        run();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in 1..4 {
            for items in [0u64, 1, 2, 100] {
                let sum = AtomicU64::new(0);
                let count = AtomicU64::new(0);
                let items = (0..items as usize).map(|i| i as u64);
                let expect = (items.clone().sum(), items.len() as u64);
                share(NonZeroUsize::new(threads).unwrap(), items, |i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!((sum.into_inner(), count.into_inner()), expect);
            }
        }
    }
}
