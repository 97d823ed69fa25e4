//! Messages that wait in memory for somebody to take them: so many bytes of them, and no more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is taken in steps of so many bytes.
pub(crate) const UNIT_BYTES: usize = 1 << 10;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Backlog {
    units: Arc<Semaphore>,
    bytes_max: usize,
}

impl Backlog {
    pub(crate) fn new(bytes_max: usize) -> Backlog {
        Backlog { units: Arc::new(Semaphore::new(bytes_max / UNIT_BYTES)), bytes_max }
    }

    /// Room for a message of so many bytes, once there is, until it is dropped. More than there is takes all there is.
    pub(crate) async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        self.units.clone().acquire_many_owned(self.units_of(bytes)).await.ok()
    }

    /// The same; none where there is not so much now.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.units.clone().try_acquire_many_owned(self.units_of(bytes)).ok()
    }

    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.min(self.bytes_max).div_ceil(UNIT_BYTES);
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}
