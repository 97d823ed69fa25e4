//! Claims: who is writing an output on an object store.
//!
//! A claim is an object beside the files, created only where none is. It names the run and not which of its coordinators: they
//! write the same bytes under the same names, so one goes on where another stopped.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutPayload};
use soup_core::{Error, Result};

use super::READ_BACK_BYTES_MAX;
use crate::location::Location;
use crate::read;

/// Who is writing an output on an object store.
pub(super) const CLAIM_FILE: &str = "soup.partial.json";
/// How often something is created that a store says exists and does not show, and the first pause between.
const CREATE_ATTEMPTS: u32 = 8;
const CREATE_PAUSE: Duration = Duration::from_millis(50);

/// Claims `target` for `run`, unless it has it already.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) if another run has it; otherwise what the store says.
pub(super) async fn claim(target: &Location, run: &str) -> Result<()> {
    let place = target.join(CLAIM_FILE)?;
    create_or_find(&place, serde_json::json!({ "run": run }).to_string().into()).await?;
    match claimant(target).await? {
        // What was there is ours, if the answer to an earlier attempt was lost.
        Some(by) if by == run => Ok(()),
        Some(by) => Err(claimed(target, &by)),
        None => Err(Error::unavailable(format!("the claim of {target} was deleted as soon as it was there"))),
    }
}

/// Takes the claim of `run` away, if it is there.
///
/// # Errors
/// What the store says.
pub(super) async fn release(target: &Location, run: &str) -> Result<()> {
    if claimant(target).await?.as_deref() == Some(run) {
        delete(&target.join(CLAIM_FILE)?).await?;
    }
    Ok(())
}

/// Creates `place`, or gives what is there. A store under contention may say that something exists and have written nothing
/// (S3's 409): that is tried again.
async fn create_or_find(place: &Location, bytes: Bytes) -> Result<Option<Bytes>> {
    for attempt in 0..CREATE_ATTEMPTS {
        match create(place, bytes.clone()).await {
            Ok(()) => return Ok(None),
            Err(StoreError::AlreadyExists { .. }) => {
                if let Some(found) = read::read_small_if_exists(place, READ_BACK_BYTES_MAX).await? {
                    return Ok(Some(found));
                }
            }
            Err(e) => return Err(place.error("write", e)),
        }
        tokio::time::sleep(CREATE_PAUSE * (attempt + 1)).await;
    }
    Err(Error::unavailable(format!(
        "cannot create {place}: the store says that it exists, but there is nothing to read"
    )))
}

/// What is looked at of a claim.
#[derive(serde::Deserialize)]
struct Claim {
    run: String,
}

/// The run that is writing to the object store's folder `target`, if one is.
///
/// # Errors
/// What the store says.
pub async fn claimant(target: &Location) -> Result<Option<String>> {
    let claim = target.join(CLAIM_FILE)?;
    let bytes = read::read_small_if_exists(&claim, READ_BACK_BYTES_MAX).await?;
    let Some(bytes) = bytes else { return Ok(None) };
    // One that cannot be read still is somebody's; no run is called like this.
    Ok(Some(serde_json::from_slice(&bytes).map_or_else(|_| "?".to_owned(), |claim: Claim| claim.run)))
}

pub(super) fn claimed(target: &Location, run: &str) -> Error {
    Error::usage(format!(
        "output {target} is being written by run {run:?}: choose another, or, if that run is dead, delete \
         {target}/{CLAIM_FILE} and what it left there"
    ))
}

async fn create(place: &Location, bytes: Bytes) -> Result<(), StoreError> {
    place.store().put_opts(place.path(), PutPayload::from(bytes), PutMode::Create.into()).await.map(|_| ())
}

/// Deletes a file that may be gone already.
pub(super) async fn delete(place: &Location) -> Result<()> {
    match place.store().delete(place.path()).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(e) => Err(place.error("delete", e)),
    }
}
