//! What happened in a run, for watchers: every event from the first one, then live ones until the run ends.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, stream};
use soup_proto::v1::RunEvent;
use tokio::sync::watch;

/// Events kept of one run; beyond that, events other than the last one are dropped.
const EVENTS_MAX: usize = 200_000;

/// The events of one run.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: Mutex<Vec<RunEvent>>,
    /// How many events there are, and whether there will be more.
    state: watch::Sender<(usize, bool)>,
}

impl EventLog {
    pub(crate) fn new() -> Arc<EventLog> {
        Arc::new(EventLog { events: Mutex::default(), state: watch::Sender::new((0, false)) })
    }

    /// Adds an event.
    pub(crate) fn push(&self, event: RunEvent) {
        self.append(event, false);
    }

    /// Adds the last event.
    pub(crate) fn finish(&self, event: RunEvent) {
        self.append(event, true);
    }

    /// Ends the log as it is, where the coordinator stops.
    pub(crate) fn close(&self) {
        self.state.send_modify(|s| s.1 = true);
    }

    pub(crate) fn ended(&self) -> bool {
        self.state.borrow().1
    }

    fn append(&self, event: RunEvent, last: bool) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() < EVENTS_MAX || last {
            events.push(event);
        }
        let count = events.len();
        drop(events);
        self.state.send_modify(|s| *s = (count, s.1 || last));
    }

    fn get(&self, index: usize) -> Option<RunEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).get(index).cloned()
    }

    /// All events, from the first, until the log ends.
    pub(crate) fn watch(self: &Arc<Self>) -> impl Stream<Item = RunEvent> + Send + use<> {
        let start = (self.clone(), self.state.subscribe(), 0);
        stream::unfold(start, |(log, mut state, index)| async move {
            loop {
                if let Some(event) = log.get(index) {
                    return Some((event, (log, state, index + 1)));
                }
                if state.wait_for(|(count, ended)| *count > index || *ended).await.is_err()
                    || log.get(index).is_none()
                {
                    return None;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use soup_proto::v1::run_event::Event;

    use super::*;

    fn note(text: &str) -> RunEvent {
        RunEvent { event: Some(Event::Note(text.into())) }
    }

    #[tokio::test]
    async fn watchers_see_everything_whenever_they_come() {
        let log = EventLog::new();
        log.push(note("a"));
        let early = tokio::spawn(log.watch().collect::<Vec<_>>());
        log.push(note("b"));
        log.finish(note("c"));
        let late: Vec<_> = log.watch().collect().await;
        assert_eq!(late, [note("a"), note("b"), note("c")]);
        assert_eq!(early.await.unwrap(), late);
    }

    #[tokio::test]
    async fn a_closed_log_ends() {
        let log = EventLog::new();
        log.push(note("a"));
        log.close();
        assert_eq!(log.watch().collect::<Vec<_>>().await, [note("a")]);
    }
}
