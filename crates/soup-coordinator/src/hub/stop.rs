//! How the hub ends: what is in progress is left to the next coordinator, in good order.

use std::time::Duration;

use soup_core::{Error, Result};
use tokio::sync::mpsc;

use super::ending::{End, Ending};
use super::{Current, Hub, Message};

/// How long publishing, last records and removals may take.
const GRACE: Duration = Duration::from_secs(20);

impl Hub {
    /// Suspends what is in progress, waits for what must not be cut off, and ends all streams. A hub whose journal was
    /// lost touches nothing any more.
    ///
    /// # Errors
    /// Why it had to stop; [`TryAgain`](soup_core::ErrorKind::TryAgain) if it leaves runs that are not done.
    pub(super) async fn stop(mut self, inbox: &mut mpsc::Receiver<Message>) -> Result<()> {
        let mut left: Vec<String> = Vec::new();
        if self.broken.is_none() {
            let orderly = tokio::time::timeout(GRACE, self.suspend_all(inbox, &mut left)).await;
            if orderly.is_err() {
                tracing::warn!("not everything could be ended in time");
            }
        }
        for log in self.logs.values().filter(|l| !l.ended()) {
            log.close();
        }
        self.roster.clear();
        match self.broken.take() {
            Some(error) => Err(error),
            None if left.is_empty() => Ok(()),
            None => Err(Error::try_again(format!(
                "stopped before its time: {} will go on with the next coordinator on state {}",
                left.join(", "),
                self.keeper.state.location()
            ))),
        }
    }

    async fn suspend_all(&mut self, inbox: &mut mpsc::Receiver<Message>, left: &mut Vec<String>) {
        loop {
            match std::mem::replace(&mut self.current, Current::None) {
                Current::Running(running) if !running.publishing() => {
                    left.push(running.run().to_owned());
                    self.end(running.into_ending(End::Suspended));
                }
                other => self.current = other,
            }
            if matches!(self.current, Current::None) && self.endings.is_empty() {
                break;
            }
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(Message::Started(started)) => match *started {
                        Ok(started) if started.visible.is_none() => {
                            left.push(started.owned.prepared.run.clone());
                            self.current = Current::None;
                            self.end(Ending::of_started(started, End::Suspended));
                        }
                        other => self.started(other),
                    },
                    // What arrives from workers now is theirs to hand in again.
                    Some(message @ (Message::Published(..) | Message::JournalLost(..))) => self.take(message),
                    Some(_) => {}
                    None => break,
                },
                Some(_) = self.endings.join_next() => {}
            }
            if self.broken.is_some() {
                return;
            }
        }
        left.extend(self.queue.drain(..).map(|o| o.prepared.run.clone()));
    }
}
