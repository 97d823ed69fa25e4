//! Slices that were scored for a coordinator that was gone by then: kept, and handed to its successor.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use soup_proto::v1::task_done::Result as Answer;
use soup_proto::v1::worker_message::Message as Up;
use soup_proto::v1::{Evaluated, HandedIn, JudgeSlice, TaskDone, WorkerMessage};
use tokio::sync::mpsc;

/// Slices kept; the oldest go first, and are scored again.
const KEPT_MAX: usize = 256;

/// What is kept, and where it goes.
#[derive(Default)]
pub(crate) struct HandingIn {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: VecDeque<(String, JudgeSlice, Evaluated)>,
    /// The run that the coordinator has begun here, its epoch, and the way there.
    to: Option<(String, u64, mpsc::Sender<WorkerMessage>)>,
}

impl HandingIn {
    /// A coordinator has begun `run` here: it is handed what there is of it, and the rest is forgotten.
    pub(crate) fn connect(&self, run: &str, epoch: u64, outbox: &mpsc::Sender<WorkerMessage>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.kept.retain(|(of, ..)| of == run);
        inner.to = Some((run.to_owned(), epoch, outbox.clone()));
        inner.send();
    }

    /// The coordinator is gone.
    pub(crate) fn disconnect(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).to = None;
    }

    /// Keeps the answer to a task that scored `slice`, which could not be sent.
    pub(crate) fn keep(&self, run: &str, slice: Option<JudgeSlice>, unsent: WorkerMessage) {
        let (Some(slice), Some(Up::Done(TaskDone { result: Some(Answer::Evaluated(evaluated)), .. }))) =
            (slice, unsent.message)
        else {
            return;
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.kept.len() >= KEPT_MAX {
            inner.kept.pop_front();
        }
        inner.kept.push_back((run.to_owned(), slice, evaluated));
        inner.send();
    }
}

impl Inner {
    /// Hands over what there is, as far as there is room on the way.
    fn send(&mut self) {
        let Some((run, epoch, outbox)) = &self.to else { return };
        while let Some((of, slice, evaluated)) = self.kept.pop_front() {
            if of != *run {
                continue;
            }
            let work = Some(slice.clone());
            let message =
                HandedIn { run: of.clone(), epoch: *epoch, work, evaluated: Some(evaluated.clone()) };
            if outbox.try_send(WorkerMessage { message: Some(Up::HandedIn(message)) }).is_err() {
                self.kept.push_front((of, slice, evaluated));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(start: u64) -> (Option<JudgeSlice>, WorkerMessage) {
        let slice = JudgeSlice { start, end: start + 1, ..JudgeSlice::default() };
        let result = Some(Answer::Evaluated(Evaluated::default()));
        (Some(slice), WorkerMessage { message: Some(Up::Done(TaskDone { result, ..TaskDone::default() })) })
    }

    #[tokio::test]
    async fn a_successor_is_handed_the_slices_of_its_run_once() {
        let handing_in = HandingIn::default();
        for (run, start) in [("r", 1), ("other", 2), ("r", 3)] {
            let (slice, message) = done(start);
            handing_in.keep(run, slice, message);
        }
        let (outbox, mut sent) = mpsc::channel(8);
        handing_in.connect("r", 7, &outbox);
        // One that is finished later goes at once.
        let (slice, message) = done(4);
        handing_in.keep("r", slice, message);
        let mut got = Vec::new();
        while let Ok(WorkerMessage { message: Some(Up::HandedIn(m)) }) = sent.try_recv() {
            got.push((m.run, m.epoch, m.work.unwrap().start));
        }
        assert_eq!(got, [("r".into(), 7, 1), ("r".into(), 7, 3), ("r".into(), 7, 4)]);
        // Anything but a slice is not kept.
        let (_, message) = done(5);
        handing_in.keep("r", None, message);
        assert!(sent.try_recv().is_err());
    }
}
