//! What soups scored, by content: a soup that was scored on some data is never scored on it again, by any run.
//!
//! The *context* of a score is everything but the soup that it depends on (evaluator, dataset), its *key* the soup itself
//! (the content of its ingredients and its weights). Both are digests, made by whoever knows what goes into them.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soup_core::journal::TallyRecord;
use soup_core::tally::Tally;
use soup_core::{Error, Result};

use crate::location::Location;
use crate::read;
use crate::state::RECORD_BYTES_MAX;
use crate::state::slot::Patience;

/// A score as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptScore {
    /// What all samples add up to.
    pub score: Tally,
    /// SHA-256 of the [outcomes](crate::outcomes) that it adds up, where those are kept.
    pub outcomes_sha256: Option<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    score: TallyRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcomes_sha256: Option<String>,
}

/// Scores of one context.
#[derive(Clone)]
pub struct Scores {
    folder: Location,
    patience: Patience,
}

impl Scores {
    pub(crate) fn new(state: &Location, context: &str, patience: Patience) -> Result<Scores> {
        Ok(Scores { folder: state.join("scores")?.join(hexadecimal(context)?)?, patience })
    }

    /// The keys that there are scores for: one listing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn known(&self) -> Result<BTreeSet<String>> {
        let entries = self.patience.read(|| read::list(&self.folder)).await?;
        let keys = entries.iter().filter_map(|e| e.name.strip_suffix(".json"));
        Ok(keys.filter(|k| hexadecimal(k).is_ok()).map(str::to_owned).collect())
    }

    /// The score with this key. One that cannot be read is as good as none.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, key: &str) -> Result<Option<KeptScore>> {
        let place = self.place(key)?;
        let bytes = self.patience.read(|| read::read_small_if_exists(&place, RECORD_BYTES_MAX)).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(Kept { score, outcomes_sha256 }) => {
                // A name that is none leads to no outcomes.
                let mut name = [0; 32];
                let named = |text: String| hex::decode_to_slice(text, &mut name).ok().map(|()| name);
                Ok(Some(KeptScore { score: score.0, outcomes_sha256: outcomes_sha256.and_then(named) }))
            }
            Err(error) => {
                tracing::warn!(%place, %error, "a kept score cannot be read; the soup is scored again");
                Ok(None)
            }
        }
    }

    /// Keeps a score. There may be one already: it is the same.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, key: &str, score: &KeptScore) -> Result<()> {
        let place = self.place(key)?;
        let KeptScore { score, outcomes_sha256 } = score;
        let record =
            Kept { score: TallyRecord(score.clone()), outcomes_sha256: outcomes_sha256.map(hex::encode) };
        let bytes = serde_json::to_vec(&record)
            .map_err(|e| Error::internal("a score could not be written as JSON").with_source(e))?;
        self.patience.create(&place, &Bytes::from(bytes), RECORD_BYTES_MAX).await.map(drop)
    }

    fn place(&self, key: &str) -> Result<Location> {
        self.folder.join(&format!("{}.json", hexadecimal(key)?))
    }
}

fn hexadecimal(text: &str) -> Result<&str> {
    let good =
        !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(text) } else { Err(Error::internal(format!("{text:?} is no digest"))) }
}
