//! What has to be true of a world's store at every moment: read past all faults, at once.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures::FutureExt;
use serde_json::Value;
use soup_core::journal::{Entry, Fold, Record, Rejected, RunState, Scored, verify};
use soup_core::recipe::{RecipeSpec, Setting};
use soup_core::{Error, Result};
use soup_store::state::State;
use tokio::runtime::Runtime;

use crate::pool;

/// Looks at the state, and remembers what was there.
#[derive(Clone)]
pub struct Witness {
    state: State,
    seen: Arc<Mutex<BTreeMap<String, Vec<Record>>>>,
}

/// What a store in memory answers.
fn at_once<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    // Reading sets timers, although nothing here waits.
    static TIMERS: LazyLock<Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let _timers = TIMERS.enter();
    answer.now_or_never().unwrap_or_else(|| Err(broken("the memory does not answer at once".to_owned())))
}

fn broken(text: String) -> Error {
    Error::internal(text)
}

impl Witness {
    /// Of a state whose store does not fail.
    pub fn new(state: State) -> Witness {
        Witness { state, seen: Arc::default() }
    }

    /// The log as it is: contiguous, chained, its epochs rising (the fold demands that), and still beginning with all that
    /// was ever seen of it.
    fn log(&self, run: &str) -> Result<(Fold, Vec<Record>)> {
        let (fold, records) = at_once(self.state.read(run))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.entry(run.to_owned()).or_default();
        if !records.starts_with(before) {
            return Err(broken(format!("the log of run {run} was {before:#?} and became {records:#?}")));
        }
        before.clone_from(&records);
        Ok((fold, records))
    }

    /// Looks at every run.
    pub fn look(&self) -> Result<()> {
        for run in at_once(self.state.runs())? {
            self.log(&run)?;
        }
        Ok(())
    }

    /// Somebody was told of a decision: it has to be durable, though it may have been taken back since.
    pub fn decided(&self, run: &str, trial: u32) -> Result<()> {
        let (_, records) = self.log(run)?;
        let decisions = |record: &Record| match &record.entry {
            Entry::Scored(Scored { decisions, .. }) | Entry::Rejected(Rejected { decisions, .. }) => {
                decisions.iter().map(|d| d.trial).max()
            }
            _ => None,
        };
        let durable = records.iter().filter_map(decisions).max().unwrap_or(0);
        match durable < trial {
            true => Err(broken(format!("trial {trial} was told, but {durable} decisions are durable"))),
            false => Ok(()),
        }
    }

    /// Somebody was told the result: it has to be durable.
    pub fn finished(&self, run: &str, report: &Value) -> Result<()> {
        let (fold, _) = self.log(run)?;
        if fold.state != RunState::Published || fold.report.as_ref() != Some(report) {
            return Err(broken(format!(
                "a result was told, but the log says {:?}: {:?}",
                fold.state, fold.report
            )));
        }
        Ok(())
    }

    /// What the log of the world's one run adds up to: its decisions are those of its scores, and nothing else was published.
    /// Gives how many epochs it had.
    pub fn verdict(&self, recipe: &RecipeSpec, ingredients: u32, report: &Value) -> Result<u64> {
        self.look()?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (1, Some((run, records))) = (seen.len(), seen.iter().next()) else {
            return Err(broken(format!("the state has the runs {:?}", seen.keys())));
        };
        let verified = verify(
            recipe,
            &Setting::of(ingredients),
            pool::spec(recipe.kind, Some(0)).deciding_set(),
            records,
        )?;
        let trials = report["trials"].as_array().map_or(0, Vec::len) as u64;
        if verified.decisions != trials {
            return Err(broken(format!(
                "{} decisions in the log, {trials} in the report",
                verified.decisions
            )));
        }
        // A coordinator that was superseded may say it once more, just before the claim of its successor: of the same output.
        let published = |r: &&Record| matches!(r.entry, Entry::Published { .. });
        let digest = |r: &Record| match &r.entry {
            Entry::Published { report } => report["sha256"].clone(),
            _ => Value::Null,
        };
        let published: Vec<Value> = records.iter().filter(published).map(digest).collect();
        let same = published.iter().all(|sha256| *sha256 == report["sha256"]);
        if published.is_empty() || !same || report["run"] != run.as_str() {
            return Err(broken(format!("run {run} was published as {published:?}")));
        }
        Ok(verified.epochs)
    }
}
