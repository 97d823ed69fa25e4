//! A run in a table: what its plan and its log say.

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use soup_core::error::brief;
use soup_core::journal::Fold;
use soup_core::{Error, ErrorKind, Result};

use super::State;

/// Longest text of a failure in a table, in bytes; all of it is in the log.
const FAILURE_BYTES_MAX: usize = 2 << 10;
/// Logs read at the same time.
const LOGS_IN_FLIGHT: usize = 8;

/// What people want to know of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Its id.
    pub run: String,
    /// `queued`, `running`, `suspended`, `published`, `failed` or `cancelled`, as far as its log tells; `broken` where that is not what a
    /// log is, and `unreadable` where it may not be read.
    pub state: String,
    /// Runs ahead of it, where a coordinator has it in its queue; 0 where it is being worked on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// The recipe.
    pub recipe: String,
    /// Where the soup goes.
    pub output: String,
    /// Coordinators that it has had.
    pub epoch: u64,
    /// Host and process of the last one.
    pub owner: String,
    /// Who asked for it, where its coordinator knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Soups scored so far, on all datasets.
    pub scores: usize,
    /// Trials decided so far.
    pub trials: u32,
    /// When its log began and when it went on last.
    pub began_at: String,
    /// See `began_at`.
    pub updated_at: String,
    /// Why it failed, or cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl State {
    /// All runs, the oldest first. One that is broken, or may not be read, is listed as such, and stops none of the others.
    ///
    /// # Errors
    /// What the store says.
    pub async fn summaries(&self) -> Result<Vec<RunSummary>> {
        let one = |run: String| async move { self.summary(&run).await };
        let runs = self.runs().await?;
        let mut all: Vec<RunSummary> =
            stream::iter(runs.into_iter().map(one)).buffered(LOGS_IN_FLIGHT).try_collect().await?;
        all.sort_by(|a, b| (&a.began_at, &a.run).cmp(&(&b.began_at, &b.run)));
        Ok(all)
    }

    /// One run.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if there is no such run; otherwise what the store says.
    pub async fn summary(&self, run: &str) -> Result<RunSummary> {
        let (fold, broken) = match own_trouble(self.read(run).await)? {
            Ok((fold, _)) => (fold, None),
            Err(e) => (Fold::default(), Some(e)),
        };
        let (plan, broken) = match own_trouble(self.plan(run).await)? {
            Ok(bytes) => (bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default(), broken),
            Err(e) => (serde_json::Value::Null, Some(e)),
        };
        let state = match broken.as_ref().map(Error::kind) {
            None => fold.state.name(),
            Some(ErrorKind::Configuration) => "unreadable",
            Some(_) => "broken",
        };
        let text = |path: &str| plan.pointer(path).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let (began_at, updated_at) = fold.times.clone().unwrap_or_default();
        Ok(RunSummary {
            run: run.to_owned(),
            state: state.to_owned(),
            ahead: None,
            recipe: text("/spec/recipe/kind"),
            output: text("/spec/output"),
            epoch: fold.epoch,
            owner: fold.owner.map_or_else(String::new, |o| format!("{}:{}", o.claim.host, o.claim.pid)),
            client: fold.operation.and_then(|operation| operation.client),
            scores: fold.scores.len(),
            trials: fold.decisions,
            began_at,
            updated_at,
            failure: broken
                .map(|e| e.chain())
                .or(fold.failure.map(|(_, text)| text))
                .map(|text| brief(text, FAILURE_BYTES_MAX)),
        })
    }
}

/// What is wrong with one run, where that is nothing to others; what the store says of itself is an error.
fn own_trouble<T>(read: Result<T>) -> Result<Result<T>> {
    match read {
        Err(e) if !matches!(e.kind(), ErrorKind::Data | ErrorKind::Configuration) => Err(e),
        read => Ok(read),
    }
}
