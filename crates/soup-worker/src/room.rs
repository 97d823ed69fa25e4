//! Room for things that are large: so many at a time, whoever wants one more waits.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub(crate) struct Room {
    taken: Mutex<u64>,
    left: Notify,
}

/// A place that is taken until this is dropped.
pub(crate) struct Place(Arc<Room>);

impl Room {
    /// Takes a place where fewer than `max` are taken; how many there are may be another number each time.
    pub(crate) async fn enter(self: &Arc<Self>, max: u64) -> Place {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on nobody leaves unheard.
            left.as_mut().enable();
            {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                if *taken < max.max(1) {
                    *taken += 1;
                    return Place(self.clone());
                }
            }
            left.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_waiters();
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
}
