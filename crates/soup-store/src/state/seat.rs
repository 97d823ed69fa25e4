//! Which coordinator serves a state: whoever took the last *seat*, an object `coordinators/<n>.json` that is created only where
//! none is.
//!
//! Runs have owners of their own, and nobody needs a seat to be safe. A seat lets a coordinator that has no run find out that
//! workers and people should be with its successor.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use soup_core::journal::Claim;
use soup_core::{Error, Result};

use super::log::{length, slot};
use super::slot::{Created, Patience};
use super::{RECORD_BYTES_MAX, State};
use crate::location::Location;
use crate::read;

/// Coordinators that may take a seat at the same time.
const ATTEMPTS_MAX: u32 = 16;

/// The seat that a coordinator took.
#[derive(Debug)]
pub struct Seat {
    folder: Location,
    number: u64,
    patience: Patience,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// Tells this coordinator from any other.
    writer: String,
    #[serde(flatten)]
    claim: Claim,
}

impl State {
    /// Takes the next seat, for the incarnation `writer`.
    ///
    /// # Errors
    /// What the store says.
    pub async fn take_seat(&self, writer: &str, claim: Claim) -> Result<Seat> {
        let folder = self.root.join("coordinators")?;
        let content = serde_json::to_vec(&Content { writer: writer.to_owned(), claim }).map(Bytes::from);
        let content =
            content.map_err(|e| Error::internal("a seat could not be written as JSON").with_source(e))?;
        let mut number = self.patience.read(|| length(&folder)).await?;
        for _ in 0..ATTEMPTS_MAX {
            let place = slot(&folder, number)?;
            if let Created::Ours = self.patience.create(&place, &content, RECORD_BYTES_MAX).await? {
                return Ok(Seat { folder, number, patience: self.patience });
            }
            number += 1;
        }
        Err(Error::try_again(format!("too many coordinators start on state {} at the same time", self.root)))
    }
}

impl Seat {
    /// Who took the next seat, if somebody did: the state is theirs.
    ///
    /// # Errors
    /// What the store says.
    pub async fn successor(&self) -> Result<Option<Claim>> {
        let next = slot(&self.folder, self.number + 1)?;
        let found = self.patience.read(|| read::read_small_if_exists(&next, RECORD_BYTES_MAX)).await?;
        // One that cannot be read still is somebody's.
        let claim =
            |bytes: Bytes| serde_json::from_slice::<Content>(&bytes).map(|c| c.claim).unwrap_or_default();
        Ok(found.map(claim))
    }
}
