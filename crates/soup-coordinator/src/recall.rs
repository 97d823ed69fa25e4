//! Scores of earlier runs: looked up before a soup is scored, kept after.

use std::collections::BTreeSet;

use soup_core::Result;
use soup_core::ledger::Evaluation;
use soup_store::scores::{KeptScore, Scores};
use soup_store::state::State;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::identity::soup_key;

/// Scores that may wait to be kept. Beyond that they are not: it costs a later run their evaluation, no more.
const PUTS_MAX: usize = 1024;

/// The scores that a run may find, and those it leaves.
pub(crate) struct Recall {
    /// One per dataset; none for a run that is to know of no others.
    contexts: Vec<Context>,
    puts: mpsc::Sender<(Scores, String, KeptScore)>,
    keeper: JoinHandle<()>,
}

struct Context {
    scores: Scores,
    known: BTreeSet<String>,
}

impl Recall {
    /// Finds out what there is.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn open(state: &State, contexts: &[String]) -> Result<Recall> {
        let mut found = Vec::new();
        for context in contexts {
            let scores = state.scores(context)?;
            found.push(Context { known: scores.known().await?, scores });
        }
        let (puts, mut queue) = mpsc::channel::<(Scores, String, KeptScore)>(PUTS_MAX);
        let keeper = tokio::spawn(async move {
            while let Some((scores, key, score)) = queue.recv().await {
                if let Err(e) = scores.put(&key, &score).await {
                    tracing::warn!(error = e.chain(), "a score could not be kept for later runs");
                }
            }
        });
        Ok(Recall { contexts: found, puts, keeper })
    }

    /// Whether there is anything to be found.
    pub(crate) fn looks(&self) -> bool {
        self.contexts.iter().any(|c| !c.known.is_empty())
    }

    /// Where the score of an evaluation is, if there is one.
    pub(crate) fn find(&self, evaluation: &Evaluation, ingredients: &[String]) -> Option<(Scores, String)> {
        let context = self.contexts.get(evaluation.dataset.index())?;
        let key = soup_key(&evaluation.soup, ingredients)?;
        context.known.contains(&key).then(|| (context.scores.clone(), key))
    }

    /// Keeps a score.
    pub(crate) fn keep(&mut self, evaluation: &Evaluation, score: KeptScore, ingredients: &[String]) {
        let Some(context) = self.contexts.get_mut(evaluation.dataset.index()) else { return };
        let Some(key) = soup_key(&evaluation.soup, ingredients) else { return };
        if context.known.insert(key.clone()) {
            // Where too many wait, this one is not kept.
            let _ = self.puts.try_send((context.scores.clone(), key, score));
        }
    }

    /// Waits until all is kept.
    pub(crate) async fn close(self) {
        drop(self.puts);
        // The keeper ends once its queue is empty; it cannot panic on input.
        let _ = self.keeper.await;
    }
}
