//! Reads of the Parquet reader, over [`Files`]: page headers come with what follows them in one request.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use crate::source::{FileEntry, Files};

/// At least this much is fetched at once, where the file has it.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// One file, with the part that was fetched last.
pub(super) struct Chunks {
    files: Arc<dyn Files>,
    entry: FileEntry,
    last: Mutex<Fetched>,
}

#[derive(Clone, Default)]
struct Fetched {
    start: u64,
    bytes: Bytes,
}

impl Chunks {
    pub(super) fn new(files: Arc<dyn Files>, entry: FileEntry) -> Chunks {
        Chunks { files, entry, last: Mutex::default() }
    }

    /// Bytes from `start`: at least `length` of them.
    fn at_least(&self, start: u64, length: u64) -> Result<Bytes> {
        let size_bytes = self.entry.size_bytes;
        let end = start.checked_add(length).filter(|&end| end <= size_bytes).ok_or_else(|| {
            ParquetError::EOF(format!("{length} bytes at {start} of a file of {size_bytes} bytes"))
        })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let held = last.start..last.start + last.bytes.len() as u64;
        if start < held.start || end > held.end {
            // What is held already is not fetched again: a page begins where its header ended.
            let kept = match held.contains(&start) {
                true => last.bytes.slice((start - held.start) as usize..),
                false => Bytes::new(),
            };
            let from = start + kept.len() as u64;
            let to = end.max(from.saturating_add(READ_AHEAD_BYTES)).min(size_bytes);
            let fetched = self
                .files
                .read(&self.entry.path, from..to)
                .map_err(|e| ParquetError::External(Box::new(e)))?;
            if fetched.len() as u64 != to - from {
                return Err(ParquetError::EOF(format!("{} bytes instead of {}", fetched.len(), to - from)));
            }
            let bytes = if kept.is_empty() { fetched } else { [kept, fetched].concat().into() };
            *last = Fetched { start, bytes };
        }
        Ok(last.bytes.slice((start - last.start) as usize..))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.entry.size_bytes
    }
}

impl ChunkReader for Chunks {
    type T = Stream;

    fn get_read(&self, start: u64) -> Result<Stream> {
        Ok(Stream {
            files: self.files.clone(),
            entry: self.entry.clone(),
            at: start,
            left: HEADER_BYTES_MAX,
            held: self.at_least(start, 1.min(self.entry.size_bytes.saturating_sub(start)))?,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        Ok(self.at_least(start, length as u64)?.slice(..length))
    }
}

/// Most that is read as a header of a page, with the smallest and largest value of the page in it.
const HEADER_BYTES_MAX: u64 = 64 << 20;

/// The file from some position on, where a header is. That one would go on behind the file's end is an error: the reader takes its
/// word for how many things are in it, and would read nothing as often as that.
pub(super) struct Stream {
    files: Arc<dyn Files>,
    entry: FileEntry,
    /// Position of the first byte of `held`.
    at: u64,
    held: Bytes,
    /// What a header may still have.
    left: u64,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            return Err(std::io::Error::other("the header of a page is larger than any"));
        }
        if self.held.is_empty() {
            let end = self.at.saturating_add(READ_AHEAD_BYTES).min(self.entry.size_bytes);
            if self.at >= end {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.held = self.files.read(&self.entry.path, self.at..end).map_err(std::io::Error::other)?;
        }
        let count = buffer.len().min(self.held.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= count as u64;
        self.held.copy_to_slice(&mut buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}
