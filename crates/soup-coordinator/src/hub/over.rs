//! The end of all work, with a coordinator that is there for one cook: workers are told so, and end. One that is just looking for this
//! coordinator is waited for, so that it need not find out by itself.

use tokio::sync::oneshot;

use super::Hub;
use crate::exchange::Told;
use soup_core::machine::WorkerId;

/// Who was told that the work is over.
pub(super) struct Over {
    told: usize,
    /// How many there were to be.
    expected: usize,
    /// Who waits until all of them are gone.
    waits: Option<oneshot::Sender<()>>,
}

impl Hub {
    /// Tells all workers that the work is over, and `waits` once `expected` of them were told and all are gone.
    pub(super) fn over(&mut self, expected: usize, waits: oneshot::Sender<()>) {
        self.over = Some(Over { told: 0, expected, waits: Some(waits) });
        for worker in self.roster.all() {
            self.tell_over(worker);
        }
        self.look_who_is_left();
    }

    /// Tells a worker, if the work is over.
    pub(super) fn tell_over(&mut self, worker: WorkerId) {
        if let Some(over) = &mut self.over
            && self.roster.send(worker, Told::Over)
        {
            over.told += 1;
        }
    }

    /// Answers whoever waits for the workers to end, once they have.
    pub(super) fn look_who_is_left(&mut self) {
        if let Some(over) = &mut self.over
            && over.told >= over.expected
            && self.roster.all().is_empty()
            && let Some(waits) = over.waits.take()
        {
            // Whoever waited too long is gone.
            let _ = waits.send(());
        }
    }
}
