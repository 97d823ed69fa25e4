//! Whether the soup of a run is better than others or only luckier, by what happened to the same samples.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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

/// What is to be compared, and by what; by nothing where nothing was judged.
pub(crate) struct Pairs {
    pub(crate) metric: Option<Metric>,
    pub(crate) pairs: Vec<Pair>,
}

impl Pairs {
    pub(crate) fn none() -> Pairs {
        Pairs { metric: None, pairs: Vec::new() }
    }

    /// Compares what is kept. Nothing depends on it: what cannot be read is left out, and the log says so.
    pub(crate) async fn compare(self, kept: &Outcomes) -> Vec<Comparison> {
        let Some(metric) = self.metric else { return Vec::new() };
        // Those of the soup are needed more than once, and one dataset's are there at a time.
        let mut read: BTreeMap<[u8; 32], Vec<Outcome>> = BTreeMap::new();
        let mut found = Vec::new();
        for pair in self.pairs {
            let dataset = pair.dataset.clone();
            match one(pair, &metric, kept, &mut read).await {
                Ok(comparison) => found.extend(comparison),
                Err(e) => {
                    tracing::warn!(error = e.chain(), dataset, "a soup could not be compared with others")
                }
            }
        }
        found
    }
}

async fn one(
    pair: Pair,
    metric: &Metric,
    kept: &Outcomes,
    read: &mut BTreeMap<[u8; 32], Vec<Outcome>>,
) -> Result<Option<Comparison>> {
    read.retain(|name, _| [pair.candidate, pair.reference].contains(name));
    for name in [pair.candidate, pair.reference] {
        if let Entry::Vacant(slot) = read.entry(name) {
            let Some(outcomes) = kept.get(&name, pair.samples).await? else { return Ok(None) };
            slot.insert(outcomes);
        }
    }
    let of = |name| read.get(&name).cloned().unwrap_or_default();
    let (candidate, reference) = (of(pair.candidate), of(pair.reference));
    let (named, metric) = ((pair.dataset, pair.against), metric.clone());
    // Thousands of resamples take a moment.
    tokio::task::spawn_blocking(move || Comparison::of(named, &metric, &candidate, &reference).map(Some))
        .await
        .map_err(|e| Error::internal("a comparison was not finished").with_source(e))?
}
