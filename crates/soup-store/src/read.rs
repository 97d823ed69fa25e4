//! Small reads: stamps, whole small files, and ranges.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStoreExt, UpdateVersion};
use sha2::{Digest as _, Sha256};
use soup_core::instead::{START_BYTES, is_page};
use soup_core::{Error, ErrorKind, Result};

use crate::cause::Cause;
pub use crate::listing::{ENTRIES_MAX, Entry, list, list_recursive};
use crate::local::NotAFile;
use crate::location::{Location, not_a_file};
use crate::upload::HASHED_HERE_BYTES_MAX;

/// Size and version of a file at the moment it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Version, if the store has one; reads can be pinned to it.
    pub etag: Option<String>,
}

impl From<ObjectMeta> for Stamp {
    fn from(meta: ObjectMeta) -> Stamp {
        Stamp { size_bytes: meta.size, etag: meta.e_tag }
    }
}

/// Size and version of a file.
///
/// # Errors
/// [`ErrorKind::Data`] if it does not exist; otherwise what the store says.
pub async fn stat(location: &Location) -> Result<Stamp> {
    match location.store().head(location.path()).await {
        Ok(meta) => Ok(meta.into()),
        Err(e) => Err(location.error("read", explained(location, e).await)),
    }
}

/// A better explained form of the error of a HEAD request, whose answer has no text: that of a GET of the first byte.
async fn explained(location: &Location, error: object_store::Error) -> object_store::Error {
    let wanted = Cause::of(&error).is_some_and(|cause| (400..=404).contains(&cause.status));
    if !wanted || location.is_local() {
        return error;
    }
    let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
    match location.store().get_opts(location.path(), options).await {
        Ok(_) => error,
        Err(better) => better,
    }
}

/// Like [`stat`], with `None` for a file that does not exist: a folder is none.
///
/// # Errors
/// [`ErrorKind::Data`] for what is neither, such as a FIFO; otherwise what the store says.
pub async fn stat_if_exists(location: &Location) -> Result<Option<Stamp>> {
    match location.store().head(location.path()).await {
        Ok(meta) => Ok(Some(meta.into())),
        Err(e) if not_a_file(&e).is_some_and(NotAFile::is_folder) => Ok(None),
        Err(e) if is_headless(&e) => headless(location, e).await,
        Err(e @ object_store::Error::NotFound { .. }) => absent_as_none(location, e),
        Err(e) => absent_as_none(location, explained(location, e).await),
    }
}

/// Whether a web server does not allow the request: for a folder, or because it was HEAD.
fn is_headless(error: &object_store::Error) -> bool {
    Cause::of(error).is_some_and(|cause| cause.status == 405)
}

/// What is to be said where HEAD is not allowed: that is no answer to whether a file is there.
async fn headless(location: &Location, error: object_store::Error) -> Result<Option<Stamp>> {
    let options = GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
    match location.store().get_opts(location.path(), options).await {
        Ok(_) => Err(Error::configuration(format!(
            "{location} is there, and its server does not allow HEAD, which is asked for its size"
        ))),
        Err(_) => absent_as_none(location, error),
    }
}

/// The whole file.
///
/// # Errors
/// [`ErrorKind::Data`] if it does not exist or is larger than `bytes_max`.
pub async fn read_small(location: &Location, bytes_max: u64) -> Result<Bytes> {
    let got = location.store().get(location.path()).await.map_err(|e| location.error("read", e))?;
    collect_small(location, got, bytes_max).await
}

/// Like [`read_small`], with `None` for a file that does not exist.
///
/// # Errors
/// [`ErrorKind::Data`] if it is larger than `bytes_max`, or is no file.
pub async fn read_small_if_exists(location: &Location, bytes_max: u64) -> Result<Option<Bytes>> {
    match location.store().get(location.path()).await {
        Ok(got) => collect_small(location, got, bytes_max).await.map(Some),
        Err(e) => absent_as_none(location, e),
    }
}

/// Like [`read_small_if_exists`], for a file that nothing depends on: one that may not be read is absent too. S3 answers so for
/// whatever is not there, where listing is not allowed.
///
/// # Errors
/// [`ErrorKind::Data`] if it is larger than `bytes_max`.
pub async fn read_small_if_readable(location: &Location, bytes_max: u64) -> Result<Option<Bytes>> {
    let got = match location.store().get(location.path()).await {
        Ok(got) => got,
        Err(e) if !location.is_local() && Cause::of(&e).is_some_and(|cause| cause.is_denied()) => {
            return Ok(None);
        }
        Err(e) => return absent_as_none(location, e),
    };
    collect_small(location, got, bytes_max).await.map(Some)
}

/// Whether what a web server sent with success is what it has for a file that is not there: a page, or nothing.
pub(crate) fn is_no_file(start: &[u8]) -> bool {
    start.is_empty() || is_page(start)
}

/// [`stat_if_exists`] of a file that need not be there, on a server that may have a page for that.
///
/// # Errors
/// Those of [`stat_if_exists`].
pub(crate) async fn stat_if_a_file(location: &Location) -> Result<Option<Stamp>> {
    let stamp = stat_if_exists(location).await?;
    if stamp.is_none() || !location.is_http() {
        return Ok(stamp);
    }
    // Pages are often made for whoever asks, and then have no parts to be read.
    match read_start(location, START_BYTES as u64).await {
        Ok((start, _)) if !is_no_file(&start) => Ok(stamp),
        _ => Ok(None),
    }
}

/// Like [`read_small_if_exists`], with the version that a later write can be made to depend on.
///
/// # Errors
/// [`ErrorKind::Data`] if it is larger than `bytes_max`.
pub(crate) async fn read_small_versioned(
    location: &Location,
    bytes_max: u64,
) -> Result<Option<(Bytes, UpdateVersion)>> {
    match location.store().get(location.path()).await {
        Ok(got) => {
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            collect_small(location, got, bytes_max).await.map(|bytes| Some((bytes, version)))
        }
        Err(e) => absent_as_none(location, e),
    }
}

fn absent_as_none<T>(location: &Location, error: object_store::Error) -> Result<Option<T>> {
    if not_a_file(&error).is_some() {
        return Err(location.error("read", error));
    }
    // A path below a file is absent too; the mapping knows.
    let absent = location.error("read", error);
    match absent.kind() {
        ErrorKind::Data => Ok(None),
        _ => Err(absent),
    }
}

async fn collect_small(location: &Location, got: GetResult, bytes_max: u64) -> Result<Bytes> {
    let size = got.meta.size;
    if size > bytes_max {
        return Err(Error::data(format!("{location} has {size} bytes, at most {bytes_max} are expected")));
    }
    collect(location, got, size).await
}

/// The body of `got`, which must have exactly `bytes` bytes.
async fn collect(location: &Location, got: GetResult, bytes: u64) -> Result<Bytes> {
    let mut body = BytesMut::new();
    let mut stream = got.into_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| location.error("read", e))?;
        if body.len() as u64 + chunk.len() as u64 > bytes {
            return Err(Error::unavailable(format!(
                "{location}: the store sent more than the {bytes} bytes asked for"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    if (body.len() as u64) < bytes {
        return Err(Error::unavailable(format!(
            "{location}: the store sent {} of the {bytes} bytes asked for",
            body.len()
        )));
    }
    Ok(body.freeze())
}

/// Bytes `range` of a file, of the version `etag` if one is given.
///
/// # Errors
/// [`ErrorKind::Data`] if the file does not exist, is another version, or is shorter.
pub async fn read_range(location: &Location, range: Range<u64>, etag: Option<&str>) -> Result<Bytes> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let got = open_range(location, range.clone(), etag).await?;
    collect(location, got, range.end - range.start).await
}

/// Size and SHA-256 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Size in bytes.
    pub bytes: u64,
    /// Of all of it.
    pub sha256: [u8; 32],
}

/// Of a file that is digested, read at a time; [`DIGEST_AHEAD`] times that are in memory.
const DIGEST_BYTES: u64 = 16 << 20;
/// One is digested while the next one is read.
const DIGEST_AHEAD: usize = 2;

/// Reads a file and digests it.
///
/// # Errors
/// [`ErrorKind::Data`] if the file does not exist or changes meanwhile; otherwise what the store says.
pub async fn digest(location: &Location) -> Result<Digest> {
    let stamp = stat(location).await?;
    let bytes = stamp.size_bytes;
    let part = |start: u64| {
        let (range, etag) = (start..bytes.min(start + DIGEST_BYTES), stamp.etag.as_deref());
        async move { read_range(location, range, etag).await }
    };
    let starts = (0..bytes).step_by(DIGEST_BYTES as usize);
    let mut parts = std::pin::pin!(futures::stream::iter(starts).map(part).buffered(DIGEST_AHEAD));
    let mut hash = Sha256::new();
    while let Some(part) = parts.next().await {
        let part = part?;
        if part.len() <= HASHED_HERE_BYTES_MAX {
            hash.update(&part);
            continue;
        }
        let hashed = tokio::task::spawn_blocking(move || {
            hash.update(&part);
            hash
        });
        hash = hashed.await.map_err(|e| Error::internal("a digest was cut off").with_source(e))?;
    }
    Ok(Digest { bytes, sha256: hash.finalize().into() })
}

/// At most the first `bytes_max` bytes of a file and its stamp: one request.
///
/// # Errors
/// [`ErrorKind::Data`] if the file does not exist.
pub(crate) async fn read_start(location: &Location, bytes_max: u64) -> Result<(Bytes, Stamp)> {
    let options = GetOptions { range: Some(GetRange::Bounded(0..bytes_max)), ..GetOptions::default() };
    match location.store().get_opts(location.path(), options).await {
        Ok(got) => {
            let (stamp, bytes) = (Stamp::from(got.meta.clone()), got.range.end - got.range.start);
            Ok((collect(location, got, bytes.min(bytes_max)).await?, stamp))
        }
        // No range of an empty file can be read.
        Err(e) => match stat(location).await? {
            stamp if stamp.size_bytes == 0 => Ok((Bytes::new(), stamp)),
            _ => Err(location.error("read", e)),
        },
    }
}

/// Opens bytes `range` (not empty) of the version `etag`; the body is not read yet.
pub(crate) async fn open_range(
    location: &Location,
    range: Range<u64>,
    etag: Option<&str>,
) -> Result<GetResult> {
    // A weak ETag never matches by the rules of HTTP; it is compared below.
    let if_match = etag.filter(|e| !e.starts_with("W/")).map(str::to_string);
    let options =
        GetOptions { range: Some(GetRange::Bounded(range.clone())), if_match, ..GetOptions::default() };
    let got = match location.store().get_opts(location.path(), options).await {
        Ok(got) => got,
        Err(e) => return Err(out_of_range(location, &range, e).await),
    };
    if let (Some(expected), Some(found)) = (etag, &got.meta.e_tag)
        && expected != found
    {
        return Err(changed(location, expected, found));
    }
    if got.range != range {
        return Err(too_short(location, &range, got.meta.size));
    }
    Ok(got)
}

/// Stores answer a range past the end in many ways: look at the size before the error is passed on.
async fn out_of_range(location: &Location, range: &Range<u64>, error: object_store::Error) -> Error {
    let error = location.error("read", error);
    if error.kind() != ErrorKind::Data
        && let Ok(stamp) = stat(location).await
        && stamp.size_bytes < range.end
    {
        return too_short(location, range, stamp.size_bytes);
    }
    error
}

fn too_short(location: &Location, range: &Range<u64>, size: u64) -> Error {
    Error::data(format!("{location} has {size} bytes, but bytes {} to {} are needed", range.start, range.end))
}

fn changed(location: &Location, expected: &str, found: &str) -> Error {
    Error::data(format!(
        "{location} changed while it was being read: its ETag is no longer {expected} but {found}"
    ))
}
