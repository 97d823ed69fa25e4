//! Small reads: stamps, whole small files, ranges, and what a folder holds.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStoreExt, UpdateVersion};
use soup_core::{Error, ErrorKind, Result};

use crate::location::{Location, one_line};

/// Most entries that one listing may have.
pub const ENTRIES_MAX: usize = 100_000;

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

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name relative to the folder that was listed.
    pub name: String,
    /// Its place.
    pub location: Location,
    /// Its stamp; `None` for a folder.
    pub stamp: Option<Stamp>,
}

/// Size and version of a file.
///
/// # Errors
/// [`ErrorKind::Data`] if it does not exist; otherwise what the store says.
pub async fn stat(location: &Location) -> Result<Stamp> {
    location.store().head(location.path()).await.map(Stamp::from).map_err(|e| location.error("read", e))
}

/// Like [`stat`], with `None` for a file that does not exist.
///
/// # Errors
/// What the store says.
pub async fn stat_if_exists(location: &Location) -> Result<Option<Stamp>> {
    match location.store().head(location.path()).await {
        Ok(meta) => Ok(Some(meta.into())),
        Err(e) => absent_as_none(location, e),
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
/// [`ErrorKind::Data`] if it is larger than `bytes_max`.
pub async fn read_small_if_exists(location: &Location, bytes_max: u64) -> Result<Option<Bytes>> {
    match location.store().get(location.path()).await {
        Ok(got) => collect_small(location, got, bytes_max).await.map(Some),
        Err(e) => absent_as_none(location, e),
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
    if error.kind() == ErrorKind::Unavailable
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

/// What a folder holds, one level deep, sorted by name. A folder that does not exist is empty: object stores have none.
///
/// # Errors
/// [`ErrorKind::Usage`] for plain HTTP servers, which cannot list; [`ErrorKind::Data`] for more than [`ENTRIES_MAX`] entries.
pub async fn list(folder: &Location) -> Result<Vec<Entry>> {
    let listed =
        folder.store().list_with_delimiter(Some(folder.path())).await.map_err(|e| list_error(folder, e))?;
    if listed.objects.len() + listed.common_prefixes.len() > ENTRIES_MAX {
        return Err(too_many(folder));
    }
    let files = listed.objects.into_iter().map(|meta| (meta.location.clone(), Some(Stamp::from(meta))));
    let folders = listed.common_prefixes.into_iter().map(|path| (path, None));
    entries(folder, files.chain(folders))
}

/// All files below a folder, at any depth, sorted by relative name.
///
/// # Errors
/// As for [`list`].
pub async fn list_recursive(folder: &Location) -> Result<Vec<Entry>> {
    let files = folder.store().list(Some(folder.path())).take(ENTRIES_MAX + 1);
    let files: Vec<ObjectMeta> = files.try_collect().await.map_err(|e| list_error(folder, e))?;
    if files.len() > ENTRIES_MAX {
        return Err(too_many(folder));
    }
    entries(folder, files.into_iter().map(|meta| (meta.location.clone(), Some(Stamp::from(meta)))))
}

fn entries(
    folder: &Location,
    found: impl Iterator<Item = (object_store::path::Path, Option<Stamp>)>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (path, stamp) in found {
        let prefix = folder.path().as_ref();
        let below = path.as_ref().strip_prefix(prefix).map(|p| p.trim_start_matches('/'));
        // Some stores list the folder itself.
        let Some(name) = below.filter(|n| !n.is_empty()) else { continue };
        // Object stores allow keys such as `a//b`; nothing of ours is called that.
        let Ok(location) = folder.join(name) else { continue };
        entries.push(Entry { name: name.to_string(), location, stamp });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn too_many(folder: &Location) -> Error {
    Error::data(format!("{folder} holds more than {ENTRIES_MAX} files"))
}

fn list_error(folder: &Location, error: object_store::Error) -> Error {
    if folder.is_http() {
        return Error::usage(format!(
            "{folder}: plain HTTP servers cannot be listed: give the URL of every file"
        ))
        .with_source(one_line(error));
    }
    folder.error("list", error)
}
/// Most files of a folder that is fingerprinted.
const FINGERPRINT_FILES_MAX: usize = 4_000_000;

/// A digest of a file's or a folder's content as far as the store tells without reading it: names, sizes and ETags. Equal
/// content under other ETags has another fingerprint; what is there is never mistaken for something else.
///
/// # Errors
/// [`ErrorKind::Data`] for more files than can be; otherwise what the store says.
pub async fn fingerprint(location: &Location) -> Result<String> {
    let line = |name: &str, stamp: &Stamp| {
        format!("{name}\0{}\0{}\n", stamp.size_bytes, stamp.etag.as_deref().unwrap_or_default())
    };
    let mut lines = Vec::new();
    if let Some(stamp) = stat_if_exists(location).await? {
        lines.push(line("", &stamp));
    } else if !location.is_http() {
        let mut listed = location.store().list(Some(location.path()));
        while let Some(meta) = listed.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                Err(object_store::Error::NotFound { .. }) => break,
                Err(e) => return Err(location.error("list", e)),
            };
            if lines.len() >= FINGERPRINT_FILES_MAX {
                return Err(Error::data(format!("{location} has more than {FINGERPRINT_FILES_MAX} files")));
            }
            let name = meta.location.as_ref().trim_start_matches(location.path().as_ref()).to_owned();
            lines.push(line(&name, &meta.into()));
        }
    }
    lines.sort_unstable();
    Ok(soup_core::journal::sha256_hex(lines.concat().as_bytes()))
}
