//! Sharing work among threads that live for one call. They sleep or work and never spin: other processes may want the
//! cores.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use soup_core::Result;

/// Applies `work` to every item, on at most `threads` threads of which the caller's is one; each has a `state` of its own.
/// Threads take the next item when they are done with one, so that a slow core does less. After a failure nobody takes
/// another one.
///
/// # Errors
/// The first failure.
pub(crate) fn share<T: Send, S>(
    threads: NonZeroUsize,
    items: impl ExactSizeIterator<Item = T> + Send,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> Result<()> + Sync,
) -> Result<()> {
    let helpers = threads.get().min(items.len()).saturating_sub(1);
    let left = Mutex::new((items, Ok(())));
    let take = || {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.1.is_ok() { left.0.next() } else { None }
    };
    let run = || {
        let mut state = state();
        while let Some(item) = take() {
            if let Err(error) = work(&mut state, item) {
                let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                left.1 = std::mem::replace(&mut left.1, Ok(())).and(Err(error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            // Without a thread (a limit of the system) the others do its share.
            let _ = std::thread::Builder::new().name("soup-blend".into()).spawn_scoped(scope, run);
        }
        run();
    });
    left.into_inner().unwrap_or_else(PoisonError::into_inner).1
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use soup_core::Error;

    use super::*;

    #[test]
    fn every_item_is_done_once() {
        for threads in 1..4 {
            for items in [0u64, 1, 2, 100] {
                let sum = AtomicU64::new(0);
                let count = AtomicU64::new(0);
                let items = (0..items as usize).map(|i| i as u64);
                let expect = (items.clone().sum(), items.len() as u64);
                let work = |_: &mut (), i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                share(NonZeroUsize::new(threads).unwrap(), items, || (), work).unwrap();
                assert_eq!((sum.into_inner(), count.into_inner()), expect);
            }
        }
    }

    #[test]
    fn a_failure_ends_it() {
        for threads in 1..4 {
            let work = |_: &mut (), i: i32| match i {
                3 => Err(Error::internal("three")),
                _ => Ok(()),
            };
            let result = share(NonZeroUsize::new(threads).unwrap(), 0..100, || (), work);
            assert_eq!(result.unwrap_err().chain(), "three");
        }
    }
}
