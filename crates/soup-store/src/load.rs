//! Loading: exactly the bytes of a shard, from wherever a checkpoint keeps them, straight into place.
//!
//! [`plan_reads`] turns a range of the flattened parameters into [`Read`]s; [`load`] cuts those into parts, keeps many
//! parts in flight, and copies each byte once from the connection (or the page cache) into its own part of the
//! destination. A part that fails half-way goes on from the byte where it stopped. Every request is pinned to the ETag
//! that was seen when the header was read, so a shard is never a mix of two versions of a file. Who has a thread to spare for
//! files on a local disk takes [`open_local`] instead, which spares the copy.

mod local;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::GetResultPayload;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::{Segment, Stored, segments};
use soup_core::{Error, Result};

pub use self::local::{LocalFiles, open_local};
use crate::checkpoint::{Checkpoint, FileStamp, TensorPlace};
use crate::location::Location;
use crate::read;

/// A run of bytes to be copied from a file of a checkpoint into a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Position in [`Checkpoint::files`].
    pub file: usize,
    /// First byte in that file.
    pub file_offset: u64,
    /// First byte in the shard.
    pub dest_offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// A file, pinned to the version that was seen at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// Its place.
    pub location: Location,
    /// The version; `None` where the store has none.
    pub etag: Option<String>,
}

impl From<&FileStamp> for ReadFrom {
    fn from(stamp: &FileStamp) -> ReadFrom {
        ReadFrom { location: stamp.location.clone(), etag: stamp.etag.clone() }
    }
}

/// Bounds of one [`load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Largest request, in bytes.
    pub part_bytes: u64,
    /// Requests at a time.
    pub in_flight: usize,
}

impl Default for LoadLimits {
    fn default() -> LoadLimits {
        LoadLimits { part_bytes: 16 << 20, in_flight: 16 }
    }
}

/// Times a part is tried before its error is passed on.
const ATTEMPTS_MAX: u32 = 8;
/// Pause after the first failure of a part; doubled after each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
/// Longest such pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Local files are read on blocking threads in pieces of this many bytes, which stay in the processor's cache on their
/// way into the destination.
const LOCAL_PIECE_BYTES: usize = 1 << 20;

/// The reads that fill the byte range `range` of the flattened parameters of `schema` from `checkpoint`, in the layout of
/// [`Stored`]: ascending and disjoint, with neighbours in both file and shard joined. Tensors that the checkpoint lacks
/// (which are taken from another ingredient) are not covered.
pub fn plan_reads(checkpoint: &Checkpoint, schema: &Schema, range: Range<u64>) -> Vec<Read> {
    let segments = segments(schema, range.clone());
    let placed = |s: &Segment| placement(checkpoint, s.tensor, &schema.tensors()[s.tensor]);
    let stored = Stored::new(&segments, |s| placed(s).map_or(s.dtype, |(t, _)| t.dtype));
    let mut reads: Vec<Read> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let Some((_, placement)) = placed(segment) else { continue };
        let width = segment.dtype.width_bytes();
        let before = (range.start + segment.range.start as u64 - schema.range(segment.tensor).start) / width;
        let dest = stored.range(index, 0, segment.elements());
        let read = Read {
            file: placement.file,
            file_offset: placement.offset + before * stored.dtype(index).width_bytes(),
            dest_offset: dest.start as u64,
            len: dest.len() as u64,
        };
        match reads.last_mut() {
            Some(last)
                if last.file == read.file
                    && last.file_offset + last.len == read.file_offset
                    && last.dest_offset + last.len == read.dest_offset =>
            {
                last.len += read.len;
            }
            _ => reads.push(read),
        }
    }
    reads
}

/// The tensors of `schema` that reach into `range`, by position, which `checkpoint` stores in another dtype, and in which.
pub fn stored_dtypes(checkpoint: &Checkpoint, schema: &Schema, range: Range<u64>) -> BTreeMap<usize, Dtype> {
    let stored = |s: &Segment| {
        let (stored, _) = placement(checkpoint, s.tensor, &schema.tensors()[s.tensor])?;
        let dtype = stored.dtype;
        (dtype != s.dtype).then_some((s.tensor, dtype))
    };
    segments(schema, range).iter().filter_map(stored).collect()
}

/// The part of `reads` that fills the byte range `range` of what they fill, which then begins at 0.
pub fn clip(reads: &[Read], range: Range<u64>) -> Vec<Read> {
    let first = reads.partition_point(|r| r.dest_offset.saturating_add(r.len) <= range.start);
    let part = |r: &Read| {
        let start = r.dest_offset.max(range.start);
        let end = r.dest_offset.saturating_add(r.len).min(range.end);
        let file_offset = r.file_offset.saturating_add(start - r.dest_offset);
        Read { file: r.file, file_offset, dest_offset: start - range.start, len: end - start }
    };
    reads[first..].iter().take_while(|r| r.dest_offset < range.end).map(part).collect()
}

/// The tensor that is at `index` of the pool's schema as `checkpoint` has it, and where: nearly always at the same position.
fn placement<'c>(
    checkpoint: &'c Checkpoint,
    index: usize,
    spec: &TensorSpec,
) -> Option<(&'c TensorSpec, TensorPlace)> {
    let is = |t: &TensorSpec| t.name == spec.name && t.shape == spec.shape;
    let tensors = checkpoint.schema.tensors();
    let at = |index: usize| Some((tensors.get(index)?, *checkpoint.places.get(index)?));
    if let Some(placed) = at(index).filter(|(t, _)| is(t)) {
        return Some(placed);
    }
    // Canonical order is by width, widest first, then by name, and an average may have another dtype than what it is of.
    let at_width = |width: u64| {
        let order = |t: &TensorSpec| {
            std::cmp::Reverse(t.dtype.width_bytes())
                .cmp(&std::cmp::Reverse(width))
                .then_with(|| t.name.cmp(&spec.name))
        };
        at(tensors.binary_search_by(order).ok()?)
    };
    let floats = |t: &TensorSpec| t.dtype == spec.dtype || t.dtype.is_float() && spec.dtype.is_float();
    [8, 4, 2, 1].into_iter().filter_map(at_width).find(|(t, _)| is(t) && floats(t))
}

/// Part of a read, with the bytes of the destination that it fills.
struct Part<'a> {
    file: &'a ReadFrom,
    offset: u64,
    dest: &'a mut [u8],
}

/// Fills `dest` by `reads`, whose `file` is the position in `files`. Bytes that no read covers are left as they are. Returns
/// how many bytes arrived: as many as `reads` cover, whatever failed on the way.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a file that is gone, changed or too short, naming it;
/// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) for a store that keeps failing. `dest` is then partly filled.
pub async fn load(files: &[ReadFrom], reads: &[Read], dest: &mut [u8], limits: LoadLimits) -> Result<u64> {
    let parts = cut(files, reads, dest, limits.part_bytes.max(1))?;
    let bytes_read = futures::stream::iter(parts.into_iter().map(boxed))
        .buffer_unordered(limits.in_flight.max(1))
        .try_fold(0, |sum, bytes| std::future::ready(Ok(sum + bytes)))
        .await?;
    // A local file can be written while it is being read; objects cannot.
    let mut used: Vec<usize> = reads.iter().map(|r| r.file).collect();
    used.sort_unstable();
    used.dedup();
    for file in used.into_iter().filter_map(|f| files.get(f)).filter(|f| f.location.is_local()) {
        check_unchanged(file).await?;
    }
    Ok(bytes_read)
}

/// Requires that a file is the version that was seen at first.
async fn check_unchanged(file: &ReadFrom) -> Result<()> {
    let now = read::stat(&file.location).await?;
    if file.etag.is_some() && file.etag != now.etag {
        return Err(Error::data(format!("{} changed while it was being read", file.location)));
    }
    Ok(())
}

/// Cuts the reads into parts of at most `part_bytes`, each with its own bytes of `dest`.
fn cut<'a>(
    files: &'a [ReadFrom],
    reads: &[Read],
    mut dest: &'a mut [u8],
    part_bytes: u64,
) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::new();
    let mut at = 0;
    for read in reads {
        let misplaced =
            || Error::internal(format!("{read:?} does not fit into a shard or overlaps the one before it"));
        let file = files.get(read.file).ok_or_else(misplaced)?;
        let gap = read.dest_offset.checked_sub(at).ok_or_else(misplaced)?;
        let end = read.dest_offset.checked_add(read.len).ok_or_else(misplaced)?;
        read.file_offset.checked_add(read.len).ok_or_else(misplaced)?;
        if end - at > dest.len() as u64 {
            return Err(misplaced());
        }
        let (mut bytes, rest) = dest.split_at_mut(gap as usize).1.split_at_mut(read.len as usize);
        let mut offset = read.file_offset;
        while !bytes.is_empty() {
            let (part, others) = bytes.split_at_mut(part_bytes.min(bytes.len() as u64) as usize);
            parts.push(Part { file, offset, dest: part });
            offset += parts.last().map_or(0, |p| p.dest.len() as u64);
            bytes = others;
        }
        (dest, at) = (rest, end);
    }
    Ok(parts)
}

/// A function rather than a closure, so that the compiler sees it for every lifetime and the whole future is `Send`.
fn boxed(part: Part<'_>) -> BoxFuture<'_, Result<u64>> {
    load_part(part).boxed()
}

/// Fills a part; returns how many bytes arrived.
async fn load_part(part: Part<'_>) -> Result<u64> {
    let (mut done, mut attempt, mut pause) = (0, 1, BACKOFF_FIRST);
    while let Err(error) = load_rest(part.file, part.offset, part.dest, &mut done).await {
        if attempt >= ATTEMPTS_MAX || !error.kind().is_transient() {
            return Err(error);
        }
        tracing::warn!(
            file = %part.file.location, offset = part.offset, done, attempt, error = %error.chain(),
            "a read failed and is resumed"
        );
        tokio::time::sleep(pause).await;
        (attempt, pause) = (attempt + 1, (pause * 2).min(BACKOFF_MAX));
    }
    // What was there already was not asked for again.
    Ok(done as u64)
}

/// Fills `dest[done..]` and moves `done` on as bytes arrive.
async fn load_rest(file: &ReadFrom, offset: u64, dest: &mut [u8], done: &mut usize) -> Result<()> {
    let location = &file.location;
    if *done == dest.len() {
        return Ok(());
    }
    let range = offset + *done as u64..offset + dest.len() as u64;
    let got = read::open_range(location, range.clone(), file.etag.as_deref()).await?;
    match got.payload {
        GetResultPayload::File(opened, _) => load_local(location, opened, range.start, dest, done).await,
        GetResultPayload::Stream(mut body) => {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|e| location.error("read", e))?;
                let Some(place) = dest.get_mut(*done..*done + chunk.len()) else {
                    return Err(Error::data(format!("{location}: the store sent more bytes than asked for")));
                };
                place.copy_from_slice(&chunk);
                *done += chunk.len();
            }
            if *done < dest.len() {
                return Err(short(location, dest.len() - *done));
            }
            Ok(())
        }
    }
}

async fn load_local(
    location: &Location,
    opened: File,
    start: u64,
    dest: &mut [u8],
    done: &mut usize,
) -> Result<()> {
    let opened = Arc::new(opened);
    let first = *done;
    let mut piece = Vec::new();
    while *done < dest.len() {
        let (opened, offset) = (Arc::clone(&opened), start + (*done - first) as u64);
        let wanted = (dest.len() - *done).min(LOCAL_PIECE_BYTES);
        piece.resize(wanted, 0);
        let read = tokio::task::spawn_blocking(move || {
            let read = read_at(&opened, &mut piece, offset);
            (piece, read)
        });
        let (filled, read) = read.await.map_err(|e| Error::internal("a read was cut off").with_source(e))?;
        piece = filled;
        let read = read.map_err(|e| location.io_error("read", e))?;
        dest[*done..*done + read].copy_from_slice(&piece[..read]);
        *done += read;
        if read < wanted {
            return Err(short(location, dest.len() - *done));
        }
    }
    Ok(())
}

/// Fills `piece` from `offset` on; fewer bytes at the end of the file.
fn read_at(file: &File, piece: &mut [u8], offset: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt;

    let mut filled = 0;
    while filled < piece.len() {
        match file.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn short(location: &Location, missing: usize) -> Error {
    Error::unavailable(format!("{location}: the store stopped {missing} bytes early"))
}

#[cfg(test)]
mod tests;
