//! The manifest of an output on an object store: the one object that says whether there is an output.
//!
//! It only ever changes from what was seen to what follows (compare and swap), so a request that lands late changes nothing. An
//! output that is being replaced has a *tombstone* in its place, which names the run that replaces it.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as StoreError, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use soup_core::{Error, Result};

use super::{MANIFEST_FILE, READ_BACK_BYTES_MAX};
use crate::companion::bounds;
use crate::location::Location;
use crate::read;

/// How often a change is tried, and the first pause between.
const ATTEMPTS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(50);
/// The key of a tombstone.
const REPLACED_BY: &str = "replaced_by";

/// Most values in the manifest of a run: its report has several thousand trials, each with up to as many ingredients.
const VALUES_MAX: usize = 1 << 24;

/// What is looked at of a manifest, whoever's it is.
#[derive(Deserialize, Serialize)]
struct Head {
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Run>,
}

#[derive(Deserialize, Serialize)]
struct Run {
    run: Option<String>,
}

/// The run whose output a manifest describes.
pub fn run_of(manifest: &Value) -> Option<&str> {
    manifest.get("report")?.get("run")?.as_str()
}

/// What was found, and in which version.
pub(super) struct Seen {
    /// Null where it cannot be read: it still is somebody's. Of another run's, no more than whose it is.
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

/// What there is now, for `run`.
///
/// # Errors
/// What the store says; [`Data`](soup_core::ErrorKind::Data) for one that says it is this run's and is larger than any.
pub(super) async fn look(target: &Location, run: &str) -> Result<Option<Seen>> {
    let place = target.join(MANIFEST_FILE)?;
    let Some((bytes, version)) = read::read_small_versioned(&place, READ_BACK_BYTES_MAX).await? else {
        return Ok(None);
    };
    let value = read_by(&bytes, run).map_err(|e| e.context(place.to_string()))?;
    Ok(Some(Seen { value, version }))
}

/// What `run` reads of a manifest: all of its own.
fn read_by(bytes: &[u8], run: &str) -> Result<Value> {
    // A list would be taken for the fields in their order.
    let head = bytes.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice::<Head>(bytes));
    let Some(Ok(head)) = head else { return Ok(Value::Null) };
    let own = head.report.as_ref().is_some_and(|report| report.run.as_deref() == Some(run));
    if !own {
        return Ok(serde_json::to_value(head).unwrap_or_default());
    }
    match bounds::values(bytes) {
        values if values > VALUES_MAX => {
            Err(Error::data(format!("it has {values} values, and no manifest has more than {VALUES_MAX}")))
        }
        _ => Ok(serde_json::from_slice(bytes).unwrap_or_default()),
    }
}

/// Whether `run` may write here without making way: nothing is there, or its own tombstone, or what `keep` says may stay.
///
/// # Errors
/// What the store says.
pub(super) async fn is_free(target: &Location, run: &str, keep: impl Fn(&Value) -> bool) -> Result<bool> {
    let seen = look(target, run).await?;
    Ok(seen.is_none_or(|seen| seen.is_replaced_by(run) || keep(&seen.value)))
}

/// Makes way for `run`: what is there becomes a tombstone. `keep` says what stays.
///
/// # Errors
/// What the store says.
pub(super) async fn make_way(target: &Location, run: &str, keep: impl Fn(&Value) -> bool) -> Result<()> {
    let tombstone = Bytes::from(serde_json::json!({ REPLACED_BY: run }).to_string());
    change((target, run), &tombstone, |seen| match seen {
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
    let found = change((target, run), manifest, |seen| match seen {
        Some(seen) if run_of(&seen.value) == Some(run) => Some(Ok(seen.value.clone())),
        Some(seen) if !seen.is_replaced_by(run) => Some(Err(taken())),
        _ => None,
    });
    // What is there is ours, if the answer to an earlier attempt was lost.
    Ok(found.await?.filter(|there| serde_json::from_slice::<Value>(manifest).ok().as_ref() != Some(there)))
}

/// Puts `content` in the place of what is there, until `done` says of that that it may stay.
async fn change<T>(
    (target, run): (&Location, &str),
    content: &Bytes,
    done: impl Fn(Option<&Seen>) -> Option<Result<T>>,
) -> Result<Option<T>> {
    let place = target.join(MANIFEST_FILE)?;
    let mut last = Error::unavailable(format!("cannot write {place}: others write there all the time"));
    for attempt in 0..ATTEMPTS {
        let seen = look(target, run).await?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(manifest: &str) -> Value {
        read_by(manifest.as_bytes(), "r").unwrap()
    }

    #[test]
    fn of_another_runs_manifest_no_more_is_kept_than_whose_it_is() {
        let of = |run: &str| {
            format!(r#"{{"version": 1, "report": {{"run": "{run}", "trials": [1, 2]}}, "files": [[]]}}"#)
        };
        assert_eq!(read(&of("r")), serde_json::from_str::<Value>(&of("r")).unwrap());
        assert_eq!(read(&of("s")), json!({ "report": { "run": "s" } }));
        assert_eq!(read(r#"{"replaced_by": "r"}"#), json!({ "replaced_by": "r" }));
        assert_eq!(read(r#"{"x": [1, 2]}"#), json!({}));
        for unread in ["", "[", "7", r#"["r"]"#, r#"{"report": 7}"#] {
            assert_eq!(read(unread), Value::Null, "{unread}");
        }
    }

    #[test]
    fn what_claims_to_be_this_runs_and_is_larger_than_any_is_refused() {
        let large = format!(r#"{{"report": {{"run": "r"}}, "x": [{}0]}}"#, "0,".repeat(VALUES_MAX));
        let error = read_by(large.as_bytes(), "r").unwrap_err();
        assert!(error.chain().contains("and no manifest has more than 16777216"), "{}", error.chain());
        assert_eq!(read_by(large.as_bytes(), "s").unwrap(), json!({ "report": { "run": "r" } }));
    }
}
