//! What a coordinator does, for a page that shows it as it happens: who works, what waits, and the events of the run in progress.
//!
//! It is what watchers of a run are sent, cut to what a page shows. Nothing waits for whoever looks: who does not read is left behind, and
//! hears of the run from its first event when they look again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use soup_proto::v1::run_event::Event;
use soup_proto::v1::tally::Kind;
use soup_proto::v1::underway::What;
use soup_proto::v1::{Decided, RunEvent, Tally};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::hub::Handle;

/// How often it is looked who is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Things to show that may wait for a reader.
const WAITING_MAX: usize = 64;
/// How long a reader may take to read one.
const READS_WITHIN: Duration = Duration::from_secs(30);

/// Through which others in its process see what a coordinator does, from when it begins. Clones are the same window.
#[derive(Clone, Default)]
pub struct Window(Arc<OnceLock<Handle>>);

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.get().is_some() { "Window(open)" } else { "Window(shut)" })
    }
}

/// Where a coordinator is.
#[derive(Debug, Serialize)]
pub(crate) struct View {
    /// The run in progress.
    pub(crate) run: Option<String>,
    /// How far that is.
    pub(crate) phase: Option<&'static str>,
    /// Runs that wait for their turn, in that order.
    pub(crate) queued: Vec<String>,
    pub(crate) workers: Vec<WorkerView>,
}

/// A worker, as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerView {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) slots: u32,
    pub(crate) device_bytes: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) leaving: bool,
    /// Shards of the run in progress that it owns.
    pub(crate) shards: u32,
}

impl Window {
    /// Opens it.
    pub(crate) fn open(&self, hub: Handle) {
        // A window belongs to one coordinator.
        let _ = self.0.set(hub);
    }

    /// What there is to show, as JSON objects with a `type`: who is there, again and again, and what happened in the run in progress, from its
    /// first event on.
    pub fn watch(&self) -> impl Stream<Item = String> + Send + 'static {
        let (to, shown) = mpsc::channel(WAITING_MAX);
        let window = self.clone();
        tokio::spawn(async move { window.show(&to).await });
        ReceiverStream::new(shown)
    }

    /// Shows until nobody looks any more.
    async fn show(&self, to: &mpsc::Sender<String>) -> Option<()> {
        let mut run: Option<String> = None;
        let mut events = futures::stream::empty().boxed();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                Some(event) = events.next() => event,
                _ = look.tick() => {
                    let Some(hub) = self.0.get() else {
                        if to.is_closed() {
                            return None;
                        }
                        continue;
                    };
                    let view = hub.view().await.ok()?;
                    if view.run.is_some() && view.run != run {
                        run.clone_from(&view.run);
                        let log = hub.log(run.clone().unwrap_or_default()).await.ok()?;
                        let shown = |event: soup_core::Result<RunEvent>| async { event.ok().and_then(shown) };
                        events = log.map_or_else(|| futures::stream::empty().boxed(), |log| log.watch().filter_map(shown).boxed());
                    }
                    let mut view = serde_json::to_value(view).ok()?;
                    view["type"] = "view".into();
                    view
                }
            };
            let sent = to.send_timeout(next.to_string(), READS_WITHIN).await;
            sent.ok()?;
        }
    }
}

/// What of an event is shown, if anything.
fn shown(event: RunEvent) -> Option<Value> {
    Some(match event.event? {
        Event::Queued(queued) => json!({"type": "queued", "ahead": queued.ahead}),
        Event::Planned(planned) => json!({
            "type": "planned", "ingredients": planned.ingredients, "parameters": planned.parameters, "shards": planned.shards,
            "datasets": planned.datasets, "bytes": planned.bytes_per_ingredient,
        }),
        Event::Workers(changed) => json!({"type": "note", "text": changed.what}),
        Event::Loading(loading) => {
            json!({"type": "loading", "resident": loading.shards_resident, "shards": loading.shards})
        }
        Event::Scored(scored) => {
            json!({"type": "scored", "dataset": scored.dataset, "value": finite(scored.value)})
        }
        Event::Decided(trial) => json!({
            "type": "trial", "trial": trial.trial, "candidate": trial.candidate, "value": finite(trial.value),
            "bar": finite(trial.bar_value), "accepted": trial.accepted, "early": early(&trial),
        }),
        Event::Writing(writing) => {
            json!({"type": "writing", "written": writing.files_written, "files": writing.files})
        }
        Event::Stepped(step) => {
            json!({"type": "step", "step": step.step, "steps": step.steps, "loss": finite(step.loss)})
        }
        Event::Underway(underway) => {
            let what = match underway.what() {
                What::Products => "shards multiplied",
                What::Scores => "soups of the diagnosis",
                What::Uses => "slices compared, at most",
                What::ReadingBack => "files read back",
                What::Unspecified => return None,
            };
            json!({"type": "underway", "what": what, "done": underway.done, "of": underway.of})
        }
        Event::Note(text) => json!({"type": "note", "text": text}),
        Event::Retracted(retracted) => json!({
            "type": "retracted", "trials": retracted.trials, "text": "what a worker did that is not believed was taken back",
        }),
        Event::FinishedJson(report) => {
            let report: Value = serde_json::from_str(&report).ok()?;
            json!({"type": "finished", "output": report["output"], "sha256": report["sha256"], "ingredients": report["ingredients"]})
        }
        Event::Failed(failure) => json!({"type": "failed", "text": soup_core::Error::from(failure).chain()}),
    })
}

/// After how many samples of how many the verdict on a trial was certain, if before all were judged: its value is none then, but the best that
/// it could have been.
fn early(trial: &Decided) -> Option<Value> {
    let samples = |tally: &Option<Tally>| match tally.as_ref().and_then(|tally| tally.kind.as_ref()) {
        Some(Kind::Classes(counts)) => counts.total,
        Some(Kind::Sums(sums)) => sums.samples,
        Some(Kind::Values(values)) => values.truths.len() as u64,
        None => 0,
    };
    trial.early.then(|| json!({"judged": samples(&trial.score), "of": samples(&trial.bar)}))
}

/// A number that JSON has.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use soup_proto::v1::{Counts, Retracted, Underway};

    #[test]
    fn what_takes_long_is_shown_with_its_unit() {
        let underway = Underway { what: What::Uses.into(), done: 3, of: 68 };
        let shown = shown(RunEvent { event: Some(Event::Underway(underway)) }).unwrap();
        let expected = r#"{"done":3,"of":68,"type":"underway","what":"slices compared, at most"}"#;
        assert_eq!(shown.to_string(), expected);
    }

    #[test]
    fn what_is_no_number_is_shown_as_none() {
        let trial = Decided {
            trial: 3,
            candidate: 1,
            value: f64::NAN,
            bar_value: 0.5,
            accepted: true,
            ..Decided::default()
        };
        let shown = shown(RunEvent { event: Some(Event::Decided(trial)) }).unwrap();
        assert_eq!(
            shown.to_string(),
            r#"{"accepted":true,"bar":0.5,"candidate":1,"early":null,"trial":3,"type":"trial","value":null}"#
        );
    }

    #[test]
    fn what_could_have_been_reached_is_not_shown_as_a_score() {
        let tally = |total| {
            let counts = Counts { total, ..Counts::default() };
            Some(Tally { kind: Some(Kind::Classes(counts)) })
        };
        let trial = Decided { early: true, score: tally(320), bar: tally(2000), ..Decided::default() };
        let shown = shown(RunEvent { event: Some(Event::Decided(trial)) }).unwrap();
        assert_eq!(shown["early"], json!({"judged": 320, "of": 2000}));
    }

    #[test]
    fn what_is_taken_back_is_shown_with_what_remains() {
        let retracted = Retracted { scores: 2, trials: 5, steps: 0 };
        let shown = shown(RunEvent { event: Some(Event::Retracted(retracted)) }).unwrap();
        assert_eq!((&shown["type"], &shown["trials"]), (&json!("retracted"), &json!(5)));
    }
}
