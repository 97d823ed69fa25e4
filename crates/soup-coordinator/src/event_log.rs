//! What happened in a run, for watchers: every event from the first one, then live ones until the run ends.
//!
//! Events are kept as they are sent: that is little of what a report holds, and the same for every watcher.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, stream};
use soup_core::Error;
use soup_core::machine::Report;
use soup_core::tally::Tally;
use soup_proto::report_event;
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{Planned, Queued, RunEvent};
use soup_trust::Caller;
use tokio::sync::watch;

use crate::prepare::PreparedRun;

/// Events kept of one run; beyond that, events other than the last one are dropped.
const EVENTS_MAX: usize = 200_000;

/// Clients that may watch one run, beyond admins.
const CLIENTS_MAX: usize = 256;

/// The events of one run.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: Mutex<Vec<RunEvent>>,
    /// The clients that asked for the run: the first of them is who it is recorded for.
    clients: Mutex<Vec<Option<String>>>,
    /// How many events there are, and whether there will be more.
    state: watch::Sender<(usize, bool)>,
}

impl EventLog {
    /// The log of a run that `client` asked for.
    pub(crate) fn new(client: Option<String>) -> Arc<EventLog> {
        let clients = Mutex::new(vec![client]);
        Arc::new(EventLog { events: Mutex::default(), clients, state: watch::Sender::new((0, false)) })
    }

    /// Another client asked for the same.
    pub(crate) fn asked_by(&self, client: Option<&str>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() < CLIENTS_MAX && !clients.iter().any(|c| c.as_deref() == client) {
            clients.push(client.map(str::to_owned));
        }
    }

    /// Whether a caller may watch: whoever asked for it.
    pub(crate) fn may_watch(&self, caller: &Caller) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().any(|client| caller.may_touch(client.as_deref()))
    }

    /// Whether a caller may end it: whoever asked first, since others wait for it too.
    pub(crate) fn may_cancel(&self, caller: &Caller) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.first().is_some_and(|client| caller.may_touch(client.as_deref()))
    }

    /// Whether it is recorded for a client.
    pub(crate) fn is_of(&self, client: &str) -> bool {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.first().is_some_and(|c| c.as_deref() == Some(client))
    }

    /// The run waits for so many others.
    pub(crate) fn queued(&self, ahead: u32) {
        self.push(Event::Queued(Queued { ahead }));
    }

    /// Its turn has come: what there is to do.
    pub(crate) fn planned(&self, prepared: &PreparedRun) {
        self.push(Event::Planned(Planned {
            ingredients: prepared.names.clone(),
            parameters: prepared.schema.parameters(),
            bytes_per_ingredient: prepared.schema.bytes(),
            shards: prepared.shards.count(),
            workers_min: prepared.spec.workers_min,
            datasets: prepared.reported().to_vec(),
        }));
    }

    /// Something worth knowing.
    pub(crate) fn note(&self, text: &str) {
        self.push(Event::Note(text.to_owned()));
    }

    /// What the machine tells. `datasets` are the names, `value` the run's metric of a score.
    pub(crate) fn report(&self, report: &Report, datasets: &[String], value: &dyn Fn(&Tally) -> f64) {
        self.append(report_event(report, datasets, value), false);
    }

    /// The last event of a run that succeeded: its report.
    pub(crate) fn finished(&self, json: String) {
        self.append(RunEvent { event: Some(Event::FinishedJson(json)) }, true);
    }

    /// The last event of a run that failed.
    pub(crate) fn failed(&self, error: &Error) {
        self.append(RunEvent { event: Some(Event::Failed(error.into())) }, true);
    }

    /// Ends the log as it is, where the coordinator stops.
    pub(crate) fn close(&self) {
        self.state.send_modify(|s| s.1 = true);
    }

    pub(crate) fn ended(&self) -> bool {
        self.state.borrow().1
    }

    fn push(&self, event: Event) {
        self.append(RunEvent { event: Some(event) }, false);
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

    use super::*;

    fn note(text: &str) -> RunEvent {
        RunEvent { event: Some(Event::Note(text.into())) }
    }

    #[tokio::test]
    async fn watchers_see_everything_whenever_they_come() {
        let log = EventLog::new(None);
        log.note("a");
        let early = tokio::spawn(log.watch().collect::<Vec<_>>());
        log.note("b");
        log.finished("c".to_owned());
        let late: Vec<_> = log.watch().collect().await;
        let finished = RunEvent { event: Some(Event::FinishedJson("c".to_owned())) };
        assert_eq!(late, [note("a"), note("b"), finished]);
        assert_eq!(early.await.unwrap(), late);
    }

    #[tokio::test]
    async fn a_closed_log_ends() {
        let log = EventLog::new(None);
        log.note("a");
        log.close();
        assert_eq!(log.watch().collect::<Vec<_>>().await, [note("a")]);
    }
}
