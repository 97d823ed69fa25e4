//! Room for things that are large: so many at a time, or so many bytes; whoever wants one more waits.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub(crate) struct Room {
    taken: Mutex<u64>,
    left: Notify,
}

/// A place that is taken until this is dropped.
pub(crate) struct Place {
    room: Arc<Room>,
    size: u64,
}

impl Room {
    /// Takes a place where fewer than `max` are taken; how many there are may be another number each time.
    pub(crate) async fn enter(self: &Arc<Self>, max: u64) -> Place {
        self.take(1, max).await
    }

    /// Takes a place of a size, where all together are at most `max`, or nothing is taken.
    pub(crate) async fn take(self: &Arc<Self>, size: u64, max: u64) -> Place {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on nobody leaves unheard.
            left.as_mut().enable();
            {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                if *taken == 0 || taken.saturating_add(size) <= max {
                    *taken = taken.saturating_add(size);
                    return Place { room: self.clone(), size };
                }
            }
            left.await;
        }
    }

    /// The same without waiting: `None` where all together would be more than `max`.
    pub(crate) fn try_take(self: &Arc<Self>, size: u64, max: u64) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.checked_add(size).filter(|&sum| sum <= max)?;
        Some(Place { room: self.clone(), size })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.size;
        self.room.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_wants_one_more_waits_until_somebody_leaves() {
        let room = Arc::new(Room::default());
        let first = room.enter(2).await;
        let second = room.enter(2).await;
        let mut third = std::pin::pin!(room.enter(2));
        let mut fourth = std::pin::pin!(room.enter(2));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(first);
        let _third = third.as_mut().now_or_never().unwrap();
        assert!(fourth.as_mut().now_or_never().is_none());
        // With more room nobody has to leave, and there always is a place.
        assert!(room.enter(3).now_or_never().is_some());
        drop(second);
        assert!(fourth.as_mut().now_or_never().is_some());
        assert!(Arc::new(Room::default()).enter(0).now_or_never().is_some());
    }

    #[test]
    fn whoever_does_not_wait_gets_what_is_left_or_nothing() {
        let room = Arc::new(Room::default());
        let first = room.try_take(60, 100).unwrap();
        assert!(room.try_take(41, 100).is_none() && room.try_take(u64::MAX, u64::MAX).is_none());
        let _second = room.try_take(40, 100).unwrap();
        drop(first);
        let _third = room.try_take(60, 100).unwrap();
        assert!(Arc::new(Room::default()).try_take(101, 100).is_none());
    }

    #[tokio::test]
    async fn large_things_take_more_of_it_and_one_always_fits() {
        let room = Arc::new(Room::default());
        let first = room.take(60, 100).await;
        let mut large = std::pin::pin!(room.take(50, 100));
        assert!(large.as_mut().now_or_never().is_none());
        let second = room.take(40, 100).now_or_never().unwrap();
        drop(second);
        assert!(large.as_mut().now_or_never().is_none());
        drop(first);
        let large = large.as_mut().now_or_never().unwrap();
        assert!(room.take(101, 100).now_or_never().is_none());
        drop(large);
        assert!(room.take(101, 100).now_or_never().is_some());
    }
}
