//! Loading from local files in one go, on the thread that wants the bytes: no copy between, and whoever wants to digest them
//! gets them while they are in the processor's cache.

use std::fs::File;

use object_store::GetResultPayload;
use soup_core::{Error, Result};

use super::{Read, ReadFrom, cut, read_at, short};
use crate::read;

/// Bytes that are read, and then shown, at a time: they fit into a processor's own cache.
const PIECE_BYTES: u64 = 512 << 10;

/// Open local files, pinned to the versions that were seen at first.
pub struct LocalFiles {
    files: Vec<ReadFrom>,
    /// `None` for a file that is not read.
    opened: Vec<Option<File>>,
}

/// Opens what `reads` need of `files`; `None` where some are not local.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a file that is gone, changed or too short, naming it.
pub async fn open_local(files: &[ReadFrom], reads: &[Read]) -> Result<Option<LocalFiles>> {
    if !files.iter().all(|f| f.location.is_local()) {
        return Ok(None);
    }
    let mut opened = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let own = || reads.iter().filter(|r| r.file == index);
        let start = own().map(|r| r.file_offset).min().unwrap_or(0);
        let end = own().map(|r| r.file_offset.saturating_add(r.len)).max().unwrap_or(0);
        if start >= end {
            opened.push(None);
            continue;
        }
        let got = read::open_range(&file.location, start..end, file.etag.as_deref()).await?;
        let GetResultPayload::File(file, _) = got.payload else { return Ok(None) };
        opened.push(Some(file));
    }
    Ok(Some(LocalFiles { files: files.to_vec(), opened }))
}

impl LocalFiles {
    /// Fills `dest` by `reads`; blocks. Bytes that no read covers are left as they are. `filled` is shown all of `dest`, part by
    /// part, in order. Returns how many bytes were read.
    ///
    /// # Errors
    /// Where a file cannot be read or is too short, naming it. `dest` is then partly filled.
    pub fn load(&self, reads: &[Read], dest: &mut [u8], mut filled: impl FnMut(&[u8])) -> Result<u64> {
        let mut shown = 0;
        let mut bytes_read = 0;
        for read in reads {
            // Where a read goes is checked as for any load.
            cut(&self.files, &[*read], dest, read.len.max(1))?;
            let start = read.dest_offset as usize;
            if start < shown {
                return Err(Error::internal(format!("{read:?} overlaps the one before it")));
            }
            filled(&dest[shown..start]);
            for at in (0..read.len).step_by(PIECE_BYTES as usize) {
                let bytes = PIECE_BYTES.min(read.len - at) as usize;
                let piece = &mut dest[start + at as usize..][..bytes];
                self.fill(read, at, piece)?;
                filled(piece);
            }
            shown = start + read.len as usize;
            bytes_read += read.len;
        }
        filled(&dest[shown..]);
        Ok(bytes_read)
    }

    fn fill(&self, read: &Read, at: u64, piece: &mut [u8]) -> Result<()> {
        let opened = self.opened.get(read.file).and_then(Option::as_ref);
        let opened = opened.ok_or_else(|| Error::internal(format!("the file of {read:?} was not opened")))?;
        let location = &self.files[read.file].location;
        let got = read_at(opened, piece, read.file_offset + at).map_err(|e| location.io_error("read", e))?;
        match piece.len() - got {
            0 => Ok(()),
            missing => Err(short(location, missing)),
        }
    }

    /// Requires that no file was written to meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for one that was, naming it.
    pub async fn check_unchanged(&self) -> Result<()> {
        for (file, opened) in self.files.iter().zip(&self.opened) {
            if opened.is_some() {
                super::check_unchanged(file).await?;
            }
        }
        Ok(())
    }
}
