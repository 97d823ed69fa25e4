//! What happened to every sample, of soups that were scored: each beside its score, and named by its content.
//!
//! Scores say what samples add up to. Which ones a soup had wrong decides in which order the next one is judged, so they are there after any
//! restart, and for later runs that recall the score.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use soup_core::tally::Outcome;
use soup_core::tally::packed::{PACKED_MAX, Packed, unpack};
use soup_core::{Error, Result};

use crate::location::Location;
use crate::read;
use crate::state::slot::{Created, Patience};

/// Most bytes that one sample takes: two numbers of at most five bytes, and a loss.
const SAMPLE_BYTES_MAX: u64 = 18;
/// Bytes before the first sample, at most.
const HEAD_BYTES_MAX: u64 = 11;

/// Outcomes in a state.
#[derive(Clone)]
pub struct Outcomes {
    folder: Location,
    patience: Patience,
}

impl Outcomes {
    pub(crate) fn new(state: &Location, patience: Patience) -> Result<Outcomes> {
        Ok(Outcomes { folder: state.join("outcomes")?, patience })
    }

    /// Those with this name, of at most `samples_max` samples, if they are there; what is there and is not what the name says is as good as
    /// nothing.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, sha256: &[u8; 32], samples_max: u64) -> Result<Option<Vec<Outcome>>> {
        let place = self.place(sha256)?;
        let bytes_max = HEAD_BYTES_MAX + samples_max.min(PACKED_MAX) * SAMPLE_BYTES_MAX;
        let bytes = self.patience.read(|| read::read_small_if_exists(&place, bytes_max)).await?;
        let Some(bytes) = bytes else { return Ok(None) };
        if Sha256::digest(&bytes)[..] != sha256[..] {
            tracing::warn!(%place, "kept outcomes are not what their name says, and are not used");
            return Ok(None);
        }
        unpack(&bytes, samples_max).map(Some)
    }

    /// Keeps some; durable when this returns.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, packed: Packed) -> Result<()> {
        let place = self.place(&packed.sha256)?;
        let bytes = Bytes::from(packed.bytes);
        match self.patience.create(&place, &bytes, bytes.len() as u64).await? {
            Created::Ours => Ok(()),
            Created::Other(_) => {
                Err(Error::data(format!("{place} is not what its name says: remove it, and cook again")))
            }
        }
    }

    fn place(&self, sha256: &[u8; 32]) -> Result<Location> {
        self.folder.join(&hex::encode(sha256))
    }
}
