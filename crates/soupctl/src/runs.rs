//! Runs that there are: `runs`, `status`, `watch`, `wait`, `cancel`.

use std::path::Path;

use serde_json::Value;
use soup_core::{Error, Result};
use soup_store::state::State;

use crate::args::{ListArgs, Lookup, RemoteArgs, RunArgs, WatchArgs};
use crate::choices::{OnInterrupt, OutputFormat};
use crate::client::{Client, not_understood};
use crate::progress::Progress;
use crate::signals::StopSignals;
use crate::spec::coordinator_url;
use crate::{cook, print, table};

/// Where `cook` keeps runs whose output is at its usual place.
const STATE_DEFAULT: &str = "soups/.soup-state";
const COORDINATOR_DEFAULT: &str = "127.0.0.1:7070";

/// The state that is meant where none is named.
pub(crate) fn default_state() -> String {
    STATE_DEFAULT.to_owned()
}

/// All runs, as JSON values of the shape of `RunSummary`, and where they were looked up.
async fn summaries(lookup: &Lookup) -> Result<(Vec<Value>, String)> {
    let local = Path::new(STATE_DEFAULT).exists().then(default_state);
    let state = match (&lookup.state_url, &lookup.coordinator) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(_)) => None,
        (None, None) => local,
    };
    if let Some(url) = state {
        let state = State::open(&url)?;
        // A store cannot tell what is empty from what is not there; a disk can.
        if state.location().local_path().is_some_and(|folder| !folder.exists()) {
            return Err(Error::usage(format!(
                "there is no state at {}: it does not exist; where none is named, a cook keeps its runs in .soup-state beside its output",
                state.location()
            )));
        }
        let all = state.summaries().await?;
        let unwritten = |e| Error::internal("a summary of a run cannot be written as JSON").with_source(e);
        let all = all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(unwritten)?;
        return Ok((all, format!("state {}", state.location())));
    }
    let url = coordinator_url(lookup.coordinator.as_deref().unwrap_or(COORDINATOR_DEFAULT))?;
    let listed = async { Client::connect(&url, &lookup.trust).await?.list().await }.await;
    let named = lookup.coordinator.is_some();
    let listed = listed.map_err(|e| if named { e } else { of_no_name(e) })?;
    let all = serde_json::from_str(&listed).map_err(|e| not_understood(&url, "runs", e))?;
    Ok((all, format!("the coordinator at {url}")))
}

/// An error of a coordinator that nobody named, with why it was asked.
fn of_no_name(error: Error) -> Error {
    error.context(format!("there is no {STATE_DEFAULT} here and no --state-url, so a coordinator was asked"))
}

/// Lists runs.
///
/// # Errors
/// Those of the state or the coordinator.
pub(crate) async fn runs(args: ListArgs) -> Result<()> {
    let (all, _) = summaries(&args.lookup).await?;
    match args.lookup.format {
        OutputFormat::Json => print::json(&all),
        OutputFormat::Table => {
            let row = |run: &Value| {
                let columns = ["run", "state", "trials", "scores", "epoch", "updated_at", "output"];
                columns.map(|c| if c == "state" { state(run) } else { text(&run[c]) }).to_vec()
            };
            let head = ["RUN", "STATE", "TRIALS", "SCORES", "EPOCH", "UPDATED", "OUTPUT"];
            print::result(&table::columns(&head, &all.iter().map(row).collect::<Vec<_>>()))
        }
    }
}

/// Shows one run.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where there is no such run.
pub(crate) async fn status(args: RunArgs) -> Result<()> {
    let (all, place) = summaries(&args.lookup).await?;
    let run = all.into_iter().find(|r| r["run"] == args.run.as_str());
    let missing =
        || Error::usage(format!("there is no run {:?} in {place}; soupctl runs lists them", args.run));
    let run = run.ok_or_else(missing)?;
    match args.lookup.format {
        OutputFormat::Json => print::json(&run),
        OutputFormat::Table => {
            let fields = run.as_object().into_iter().flatten();
            let rows: Vec<Vec<String>> =
                fields.map(|(name, value)| vec![name.clone(), text(value)]).collect();
            print::result(&table::columns(&["FIELD", "VALUE"], &rows))
        }
    }
}

/// The state of a run, with its place in the queue.
fn state(run: &Value) -> String {
    match run["ahead"].as_u64() {
        Some(ahead) if ahead > 0 => format!("queued ({ahead} ahead)"),
        _ => text(&run["state"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Watches a run to its end.
///
/// # Errors
/// The run's own; those of the coordinator.
pub(crate) async fn watch(args: WatchArgs) -> Result<()> {
    let mut progress = Progress::of_any_run();
    let json = follow(&args.remote, &mut progress).await?;
    let report: Value = serde_json::from_str(&json).unwrap_or_default();
    let tests =
        report["test"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    cook::show(&json, &tests, args.format, &progress).map(|_| ())
}

/// Waits for a run to end.
///
/// # Errors
/// As for [`watch`].
pub(crate) async fn wait(args: RemoteArgs) -> Result<()> {
    follow(&args, &mut Progress::Quiet).await.map(|_| ())
}

async fn follow(remote: &RemoteArgs, progress: &mut Progress) -> Result<String> {
    let mut signals = StopSignals::new()?;
    let mut client = Client::connect(&coordinator_url(&remote.coordinator)?, &remote.trust).await?;
    // What answers may be no coordinator, or none without --tls. That is told at once: only one that was there is waited for.
    client.judges().await?;
    client.watch(&remote.run, OnInterrupt::Detach, progress, &mut signals).await
}

/// Cancels a run.
///
/// # Errors
/// Those of the coordinator.
pub(crate) async fn cancel(args: RemoteArgs) -> Result<()> {
    Client::connect(&coordinator_url(&args.coordinator)?, &args.trust).await?.cancel(&args.run).await?;
    print::line(&format!("run {} is cancelled", args.run));
    Ok(())
}
