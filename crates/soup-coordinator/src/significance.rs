//! Whether the soup of a run is better than others or only luckier, by what happened to the same samples.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use soup_core::metric::Metric;
use soup_core::report::{Against, Comparison};
use soup_core::tally::Outcome;
use soup_core::{Error, Result};
use soup_store::outcomes::Outcomes;

/// Two soups on one dataset.
pub(crate) struct Pair {
    pub(crate) dataset: String,
    pub(crate) against: Against,
    /// The names of their outcomes.
    pub(crate) candidate: [u8; 32],
    pub(crate) reference: [u8; 32],
    /// Of the dataset.
    pub(crate) samples: u64,
}

/// Compares what is kept. Nothing depends on it: what cannot be read is left out, and the log says so.
pub(crate) async fn compare(pairs: Vec<Pair>, metric: &Metric, kept: &Outcomes) -> Vec<Comparison> {
    // Those of the soup are needed more than once, and one dataset's are there at a time.
    let mut read = BTreeMap::new();
    let mut found = Vec::new();
    for pair in pairs {
        let dataset = pair.dataset.clone();
        match one(pair, metric, kept, &mut read).await {
            Ok(comparison) => found.extend(comparison),
            Err(e) => tracing::warn!(error = e.chain(), dataset, "a soup could not be compared with others"),
        }
    }
    found
}

async fn one(
    pair: Pair,
    metric: &Metric,
    kept: &Outcomes,
    read: &mut BTreeMap<[u8; 32], Arc<Vec<Outcome>>>,
) -> Result<Option<Comparison>> {
    let Pair { dataset, against, candidate, reference, samples } = pair;
    read.retain(|name, _| [candidate, reference].contains(name));
    let mut both = Vec::new();
    for name in [candidate, reference] {
        let outcomes = match read.entry(name) {
            Entry::Occupied(slot) => slot.get().clone(),
            Entry::Vacant(slot) => match kept.get(&name, samples).await? {
                Some(outcomes) => slot.insert(Arc::new(outcomes)).clone(),
                None => return Ok(None),
            },
        };
        both.push(outcomes);
    }
    let metric = metric.clone();
    // Thousands of resamples take a moment.
    tokio::task::spawn_blocking(move || {
        Comparison::of((dataset, against), &metric, &both[0], &both[1]).map(Some)
    })
    .await
    .map_err(|e| Error::internal("a comparison was not finished").with_source(e))?
}
