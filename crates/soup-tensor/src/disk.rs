//! Shards on a local disk: room for pools that do not fit into memory.
//!
//! One file a shard, the ingredients one after the other. It has no name, so it is gone when its owner is, however that ends.
//! Space is taken before anything is loaded. What is read comes through the system's page cache, which gives way when memory
//! gets scarce.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, ErrorKind, Result};

use crate::buffer::Buffer;
use crate::builder::{Place, all_of};
use crate::layout::Layout;
use crate::source::{Scratch, Source};
use crate::{SegmentDots, SegmentGram, ShardMemory, blend, products};

/// The shard of every ingredient, in one file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    folder: PathBuf,
    /// Of the shard of one ingredient.
    bytes: usize,
    ingredients: usize,
}

impl DiskFile {
    /// Takes the space for `ingredients` times `bytes` bytes in `folder`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the folder cannot be written to or has no room.
    pub(crate) fn create(folder: &Path, bytes: usize, ingredients: usize) -> Result<DiskFile> {
        let file = tempfile::tempfile_in(folder).map_err(|e| {
            Error::configuration(format!("disk cache {} cannot be written to", folder.display()))
                .with_source(e)
        })?;
        let made = DiskFile { file, folder: folder.to_path_buf(), bytes, ingredients };
        let total = made.offset(ingredients);
        let taken = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&made.file, FallocateFlags::empty(), 0, total.max(1))
        });
        match taken {
            // File systems that cannot take space beforehand run full later, which is noticed then.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(made),
            // More than a file can have, to the system.
            Err(Errno::INVAL) => Err(made.error("take space in", Io::FileTooLarge.into())),
            Err(e) => Err(made.error("take space in", e.into())),
        }
    }

    fn offset(&self, ingredient: usize) -> u64 {
        (self.bytes.next_multiple_of(size_of::<u64>()) as u64).saturating_mul(ingredient as u64)
    }

    /// Writes the shard of an ingredient.
    ///
    /// # Errors
    /// Where it cannot be written, or is not a shard of an ingredient.
    pub(crate) fn write(&self, ingredient: usize, bytes: &[u8]) -> Result<()> {
        if ingredient >= self.ingredients || bytes.len() != self.bytes {
            return Err(Error::internal("what is written to a disk cache is no shard of its ingredients"));
        }
        self.file.write_all_at(bytes, self.offset(ingredient)).map_err(|e| self.error("write to", e))
    }

    fn error(&self, doing: &str, error: std::io::Error) -> Error {
        let folder = self.folder.display();
        match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Error::configuration(format!(
                "disk cache {folder} has no room for a shard of {} ingredients of {} bytes each: free some space, \
                 choose another folder, or use more workers",
                self.ingredients, self.bytes
            )),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                Error::configuration(format!("cannot {doing} disk cache {folder}"))
            }
            _ => Error::new(ErrorKind::Unavailable, format!("cannot {doing} disk cache {folder}")),
        }
        .with_source(error)
    }
}

impl Source for DiskFile {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn ingredients(&self) -> usize {
        self.ingredients
    }

    fn lend<'a>(
        &'a self,
        ingredients: &[usize],
        range: Range<usize>,
        scratch: &'a mut Scratch,
    ) -> Result<Vec<&'a [u8]>> {
        let parts = scratch.parts(ingredients.len(), range.len());
        let read = |(&ingredient, part): (&usize, &'a mut [u8])| {
            let offset = self.offset(ingredient) + range.start as u64;
            self.file.read_exact_at(part, offset).map_err(|e| self.error("read from", e))?;
            Ok(&*part)
        };
        ingredients.iter().zip(parts).map(read).collect()
    }
}

/// Writes what it is given to the disk.
pub(crate) struct DiskPlace {
    layout: Layout,
    file: DiskFile,
    /// One an ingredient, taken before its bytes go to the disk.
    digests: Vec<Mutex<Option<[u8; 32]>>>,
}

impl DiskPlace {
    /// Takes the space in `folder`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the folder cannot be written to or has no room.
    pub(crate) fn create(layout: Layout, folder: &Path) -> Result<DiskPlace> {
        let file = DiskFile::create(folder, layout.bytes(), layout.ingredients())?;
        let digests = (0..layout.ingredients()).map(|_| Mutex::default()).collect();
        Ok(DiskPlace { layout, file, digests })
    }
}

impl Place for DiskPlace {
    fn keep(&self, ingredient: Ingredient, buffer: Buffer) -> Result<()> {
        let slot = self.layout.of(&self.digests, ingredient)?;
        self.file.write(ingredient.index(), buffer.bytes())?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffer.digest());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn ShardMemory>> {
        let DiskPlace { layout, file, digests } = *self;
        Ok(Box::new(DiskShards { layout, file, digests: all_of(digests)? }))
    }
}

/// See the module.
struct DiskShards {
    layout: Layout,
    file: DiskFile,
    /// One an ingredient.
    digests: Vec<[u8; 32]>,
}

impl ShardMemory for DiskShards {
    fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        blend::blend(&self.file, &self.layout, soup, out)
    }

    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        products::dots(self.layout.segments(), &self.file, gradient, self.layout.threads())
    }

    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        products::grams(self.layout.segments(), &self.file, base, self.layout.threads())
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        self.layout.of(&self.digests, ingredient).copied()
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn disk_bytes(&self) -> u64 {
        self.file.offset(self.file.ingredients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_named_before_anything_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [1 << 60, 1 << 62] {
            let error = DiskFile::create(folder.path(), bytes, 4).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{}", error.chain());
            let expect =
                format!("disk cache {} has no room for a shard of 4 ingredients", folder.path().display());
            assert!(error.chain().starts_with(&expect), "{}", error.chain());
        }
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for bad in [file, folder.path().join("missing")] {
            let error = DiskFile::create(&bad, 8, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.chain().contains(&bad.display().to_string()), "{}", error.chain());
        }
    }

    #[test]
    fn nothing_is_left_in_the_folder_not_even_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let file = DiskFile::create(folder.path(), 12, 3).unwrap();
        file.write(2, b"twelve bytes").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut scratch = Scratch::default();
        assert_eq!(file.lend(&[2, 2], 8..11, &mut scratch).unwrap(), [b"yte", b"yte"]);
        assert!(file.write(3, b"twelve bytes").is_err());
        assert!(file.write(0, b"less").is_err());
    }
}
