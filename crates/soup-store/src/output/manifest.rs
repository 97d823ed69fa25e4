//! The manifest of an output on an object store: the one object that says whether there is an output.
//!
//! It only ever changes from what was seen to what follows (compare and swap), so a request that lands late changes nothing. An
//! output that is being replaced has a *tombstone* in its place, which names the run that replaces it.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as StoreError, PutMode, PutPayload, UpdateVersion};
use serde_json::Value;
use soup_core::{Error, Result};

use super::{MANIFEST_FILE, READ_BACK_BYTES_MAX};
use crate::location::Location;
use crate::read;

/// How often a change is tried, and the first pause between.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);
/// The key of a tombstone.
const REPLACED_BY: &str = "replaced_by";

/// The run whose output a manifest describes.
pub fn run_of(manifest: &Value) -> Option<&str> {
    manifest.get("report")?.get("run")?.as_str()
}

/// What was found, and in which version.
pub(super) struct Seen {
    /// Null where it cannot be read: it still is somebody's.
    value: Value,
    version: UpdateVersion,
}

impl Seen {
    /// The manifest of an output; `None` for a tombstone.
    pub(super) fn into_manifest(self) -> Option<Value> {
        match self.value.get(REPLACED_BY) {
            Some(_) => None,
            None => Some(self.value),
        }
    }

    fn is_replaced_by(&self, run: &str) -> bool {
        self.value.get(REPLACED_BY).and_then(Value::as_str) == Some(run)
    }
}

/// What there is now.
///
/// # Errors
/// What the store says.
pub(super) async fn look(target: &Location) -> Result<Option<Seen>> {
    let found = read::read_small_versioned(&target.join(MANIFEST_FILE)?, READ_BACK_BYTES_MAX).await?;
    Ok(found
        .map(|(bytes, version)| Seen { value: serde_json::from_slice(&bytes).unwrap_or_default(), version }))
}

/// Whether `run` may write here without making way: nothing is there, or its own tombstone, or what `keep` says may stay.
///
/// # Errors
/// What the store says.
pub(super) async fn is_free(target: &Location, run: &str, keep: impl Fn(&Value) -> bool) -> Result<bool> {
    let seen = look(target).await?;
    Ok(seen.is_none_or(|seen| seen.is_replaced_by(run) || keep(&seen.value)))
}

/// Makes way for `run`: what is there becomes a tombstone. `keep` says what stays.
///
/// # Errors
/// What the store says.
pub(super) async fn make_way(target: &Location, run: &str, keep: impl Fn(&Value) -> bool) -> Result<()> {
    let tombstone = Bytes::from(serde_json::json!({ REPLACED_BY: run }).to_string());
    change(target, &tombstone, |seen| match seen {
        None => Some(Ok(())),
        Some(seen) => (seen.is_replaced_by(run) || keep(&seen.value)).then_some(Ok(())),
    })
    .await
    .map(|_| ())
}

/// Makes `manifest` of `run` visible, where nothing or its tombstone is. Gives the manifest of the same run that is there
/// already; `taken` is the error for anything else.
///
/// # Errors
/// `taken`; what the store says.
pub(super) async fn publish(
    target: &Location,
    run: &str,
    manifest: &Bytes,
    taken: impl Fn() -> Error,
) -> Result<Option<Value>> {
    let found = change(target, manifest, |seen| match seen {
        Some(seen) if run_of(&seen.value) == Some(run) => Some(Ok(seen.value.clone())),
        Some(seen) if !seen.is_replaced_by(run) => Some(Err(taken())),
        _ => None,
    });
    // What is there is ours, if the answer to an earlier attempt was lost.
    Ok(found.await?.filter(|there| serde_json::from_slice::<Value>(manifest).ok().as_ref() != Some(there)))
}

/// Puts `content` in the place of what is there, until `done` says of that that it may stay.
async fn change<T>(
    target: &Location,
    content: &Bytes,
    done: impl Fn(Option<&Seen>) -> Option<Result<T>>,
) -> Result<Option<T>> {
    let place = target.join(MANIFEST_FILE)?;
    let mut last = Error::unavailable(format!("cannot write {place}: others write there all the time"));
    for attempt in 0..ATTEMPTS {
        let seen = look(target).await?;
        if let Some(done) = done(seen.as_ref()) {
            return done.map(Some);
        }
        let mode = seen.map_or(PutMode::Create, |seen| PutMode::Update(seen.version));
        let put = place.store().put_opts(place.path(), PutPayload::from(content.clone()), mode.into());
        match put.await {
            Ok(_) => return Ok(None),
            // Somebody was faster, or the store says so under contention (S3's 409) or because an answer was lost: look again.
            Err(
                StoreError::AlreadyExists { .. }
                | StoreError::Precondition { .. }
                | StoreError::NotFound { .. },
            ) => {}
            Err(e) => {
                last = place.error("write", e);
                if !last.kind().is_transient() {
                    return Err(last);
                }
            }
        }
        tokio::time::sleep(PAUSE * (attempt + 1)).await;
    }
    Err(last)
}
