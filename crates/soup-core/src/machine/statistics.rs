//! Running statistics that judges recompute: every worker's judge does so for itself, for every soup that it is handed, and all have to
//! come to the same bits, since what is judged is what is written.

use super::{Action, BTreeMap, Error, Machine, Result, TaskKey, Work, WorkerId};
use crate::batch_norm::BatchNorm;
use crate::soup::Soup;

/// SHA-256 of the statistics of the soups that were judged or written.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    of: BTreeMap<Soup, [u8; 32]>,
    /// Who has said of which attempt what they are, and is about to say what came of it.
    said: Option<(WorkerId, TaskKey)>,
}

impl Statistics {
    /// What was said is not believed.
    pub(super) fn forget(&mut self) {
        *self = Statistics::default();
    }
}

impl Machine {
    /// Whether judges recompute running statistics in this run.
    pub(super) fn recomputes(&self) -> bool {
        self.plan.calibration.is_some()
    }

    /// SHA-256 of the running statistics of `soup`, one tensor after the other in canonical order, where they were recomputed.
    pub fn statistics(&self, soup: &Soup) -> Option<[u8; 32]> {
        self.statistics.of.get(soup).copied()
    }

    /// A worker's judge has recomputed the statistics of the soup that an attempt is about.
    pub(super) fn recomputed(
        &mut self,
        worker: WorkerId,
        key: TaskKey,
        sha256: [u8; 32],
        out: &mut Vec<Action>,
    ) {
        let soup = match self.tasks.current(worker, key) {
            Some(Work::Evaluate(evaluation, _)) => evaluation.soup,
            Some(Work::Write(soup, _) | Work::Digest(soup)) => soup,
            // Who is wrong about that of a proof is told by most of them.
            _ => return,
        };
        self.statistics.said = Some((worker, key));
        let known = *self.statistics.of.entry(soup.clone()).or_insert(sha256);
        if known != sha256 {
            let text = format!(
                "worker {} recomputed other running statistics of the soup of {} ingredients than were judged before: with \
                 --batch-norm {} a judge has to come to the same bits every time, on every worker",
                worker.0,
                soup.members().len(),
                BatchNorm::Recompute.name()
            );
            self.finish(Err(Error::configuration(text)), out);
        }
    }

    /// Whether the worker that has done `work` in this attempt has said which statistics its soup has, where it has to.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) where it has not.
    pub(super) fn check_recomputed(&mut self, worker: WorkerId, key: TaskKey, work: &Work) -> Result<()> {
        let said = self.statistics.said.take() == Some((worker, key));
        let has_to = matches!(work, Work::Evaluate(..) | Work::Write(..) | Work::Digest(_));
        match self.recomputes() && has_to && !said {
            true => {
                Err(Error::internal("a worker did not say which running statistics its judge recomputed"))
            }
            false => Ok(()),
        }
    }
}
