//! What happened in a run, for watchers: every event from the first one, then live ones until the run ends.
//!
//! Events are kept as they are sent: that is little of what a report holds, and the same for every watcher. A watcher is given a copy when it
//! has read what came before; of those that are large, so many bytes are under way at a time, to all watchers of all runs.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures::{Stream, stream};
use soup_core::machine::Report;
use soup_core::metric::Metric;
use soup_core::{Error, Result};
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{Planned, Queued, RunEvent};
use soup_proto::{CONTROL_BYTES_MAX, message_bytes, report_event};
use soup_trust::Caller;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::backlog::Backlog;
use crate::prepare::PreparedRun;

/// Events kept of one run, and their bytes; beyond that, events other than the last one are dropped.
const EVENTS_MAX: usize = 200_000;
const EVENTS_BYTES_MAX: usize = 64 << 20;
/// Larger events are under way to few watchers at a time.
const LARGE_BYTES: usize = 32 << 10;
/// Bytes of those that are under way, in the whole process.
const UNDER_WAY_BYTES_MAX: usize = 64 << 20;

static UNDER_WAY: LazyLock<Backlog> = LazyLock::new(|| Backlog::new(UNDER_WAY_BYTES_MAX));

/// Clients that may watch one run, beyond admins.
const CLIENTS_MAX: usize = 256;

/// The events of one run.
#[derive(Debug)]
pub(crate) struct EventLog {
    events: Mutex<Events>,
    /// The clients that asked for the run: the first of them is who it is recorded for.
    clients: Mutex<Vec<Option<String>>>,
    /// How many events there are, and whether there will be more.
    state: watch::Sender<(usize, bool)>,
}

#[derive(Debug, Default)]
struct Events {
    all: Vec<Arc<RunEvent>>,
    bytes: usize,
    /// They are not kept any more.
    forgotten: bool,
}

/// A copy of an event for a watcher, as soon as it may be under way, and what says that until the watcher asks for the next one.
pub(crate) async fn give(event: &RunEvent) -> (RunEvent, Option<OwnedSemaphorePermit>) {
    let bytes = message_bytes(event);
    if bytes > CONTROL_BYTES_MAX {
        return (too_large(bytes), None);
    }
    if bytes <= LARGE_BYTES {
        return (event.clone(), None);
    }
    let room = UNDER_WAY.room(bytes).await;
    (event.clone(), room)
}

/// What is told instead of an event that no message can have. That can only be a report: of all others less is kept.
fn too_large(bytes: usize) -> RunEvent {
    let error = Error::configuration(format!(
        "the run has finished, and its report has {bytes} bytes, where a message has at most {CONTROL_BYTES_MAX}: it is in soup.json, in the \
         run's output"
    ));
    RunEvent { event: Some(Event::Failed((&error).into())) }
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
            metric: prepared.spec.recipe.metric.to_string(),
        }));
    }

    /// Something worth knowing.
    pub(crate) fn note(&self, text: &str) {
        self.push(Event::Note(text.to_owned()));
    }

    /// What the machine tells. `datasets` are the names, `value` the run's metric of a score.
    pub(crate) fn report(&self, report: &Report, datasets: &[String], metric: Option<&Metric>) {
        if let Some(event) = report_event(report, datasets, metric) {
            self.append(event, false);
        }
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
        let bytes = events.bytes.saturating_add(message_bytes(&event));
        if events.all.len() < EVENTS_MAX && bytes <= EVENTS_BYTES_MAX || last {
            events.all.push(Arc::new(event));
            events.bytes = bytes;
        }
        let count = events.all.len();
        drop(events);
        self.state.send_modify(|s| *s = (count, s.1 || last));
    }

    /// Forgets the events, whoever has not read them: those who come later are not shown this log any more.
    pub(crate) fn forget(&self) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        *events = Events { forgotten: true, ..Events::default() };
    }

    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it was forgotten.
    fn get(&self, index: usize) -> Result<Option<Arc<RunEvent>>> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        match events.forgotten {
            true => Err(Error::try_again(
                "cut off: the run ended long ago, and its events were not read while they were kept; watch it again",
            )),
            false => Ok(events.all.get(index).cloned()),
        }
    }

    /// All events, from the first, until the log ends. Who does not read them while they are kept gets an error.
    pub(crate) fn watch(self: &Arc<Self>) -> impl Stream<Item = Result<RunEvent>> + Send + use<> {
        let start = Some((self.clone(), self.state.subscribe(), 0, None));
        stream::unfold(start, |watcher| async move {
            let (log, mut state, index, under_way) = watcher?;
            // The watcher has read what it was given.
            drop(under_way);
            loop {
                match log.get(index) {
                    Ok(Some(event)) => {
                        let (event, under_way) = give(&event).await;
                        return Some((Ok(event), Some((log, state, index + 1, under_way))));
                    }
                    Ok(None) => {}
                    Err(error) => return Some((Err(error), None)),
                }
                if state.wait_for(|(count, ended)| *count > index || *ended).await.is_err()
                    || matches!(log.get(index), Ok(None))
                {
                    return None;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    async fn read(log: &Arc<EventLog>) -> Vec<RunEvent> {
        log.watch().map(Result::unwrap).collect().await
    }

    fn note(text: &str) -> RunEvent {
        RunEvent { event: Some(Event::Note(text.into())) }
    }

    #[tokio::test]
    async fn watchers_see_everything_whenever_they_come() {
        let log = EventLog::new(None);
        log.note("a");
        let early = tokio::spawn({
            let log = log.clone();
            async move { read(&log).await }
        });
        log.note("b");
        log.finished("c".to_owned());
        let late = read(&log).await;
        let finished = RunEvent { event: Some(Event::FinishedJson("c".to_owned())) };
        assert_eq!(late, [note("a"), note("b"), finished]);
        assert_eq!(early.await.unwrap(), late);
    }

    #[tokio::test]
    async fn a_closed_log_ends() {
        let log = EventLog::new(None);
        log.note("a");
        log.close();
        assert_eq!(read(&log).await, [note("a")]);
    }

    #[tokio::test]
    async fn who_has_not_read_what_is_forgotten_hears_that() {
        let log = EventLog::new(None);
        log.note("a");
        log.finished("b".to_owned());
        let mut watcher = Box::pin(log.watch());
        assert_eq!(watcher.next().await.unwrap().unwrap(), note("a"));
        log.forget();
        let error = watcher.next().await.unwrap().unwrap_err();
        assert!(error.chain().starts_with("cut off: "), "{}", error.chain());
        assert!(watcher.next().await.is_none());
    }

    #[tokio::test]
    async fn large_events_are_under_way_to_few_who_do_not_read() {
        let log = EventLog::new(None);
        let half = "x".repeat(UNDER_WAY_BYTES_MAX / 2 - 100);
        log.finished(half);
        let mut watchers: Vec<_> = (0..3).map(|_| Box::pin(log.watch())).collect();
        for watcher in &mut watchers[..2] {
            watcher.next().await.unwrap().unwrap();
        }
        assert!(watchers[2].next().now_or_never().is_none());
        // One has read it to its end.
        assert!(watchers[0].next().await.is_none());
        watchers[2].next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_report_that_no_message_can_have_is_said_to_be_elsewhere() {
        const { assert!(EVENTS_BYTES_MAX <= CONTROL_BYTES_MAX) };
        let log = EventLog::new(None);
        log.note("a");
        log.finished("x".repeat(CONTROL_BYTES_MAX));
        let events = read(&log).await;
        assert_eq!(events[0], note("a"));
        let Some(Event::Failed(failure)) = &events[1].event else { panic!() };
        assert!(failure.message.contains("in soup.json, in the run's output"), "{}", failure.message);
        assert!(log.ended());
    }

    #[test]
    fn events_are_kept_within_a_bound_and_the_last_one_always() {
        let log = EventLog::new(None);
        let large = "x".repeat(20 << 20);
        (0..5).for_each(|_| log.note(&large));
        log.finished(large);
        let events = log.events.lock().unwrap();
        assert_eq!(events.all.len(), 4);
        assert!(matches!(events.all[3].event, Some(Event::FinishedJson(_))));
    }
}
