//! Where a dataset's bytes come from.
//!
//! [`Files`] is blocking: it is called on compute threads. Whoever runs a cluster implements it over object storage;
//! [`LocalFiles`] reads a local file or folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use soup_core::{Error, Result};

/// One file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Path relative to the dataset's root, with `/` between its parts.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// The files of one dataset. Calls block.
pub trait Files: Send + Sync {
    /// All files, in any order. A dataset that is a single file lists just that file, under its file name.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is nothing;
    /// [`Unavailable`](soup_core::ErrorKind::Unavailable) where the store cannot be reached.
    fn list(&self) -> Result<Vec<FileEntry>>;

    /// The bytes `range` of the file `path`: exactly as many as asked for.
    ///
    /// # Errors
    /// As [`list`](Files::list), and [`Data`](soup_core::ErrorKind::Data) where the file is shorter than the range.
    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes>;

    /// The dataset's URL, for messages; without credentials.
    fn describe(&self) -> String;
}

/// How many files a folder may hold.
const FILES_MAX: usize = 5_000_000;
/// How deep folders may be nested.
const DEPTH_MAX: usize = 16;

/// A local file, or a local folder with everything in it.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    root: PathBuf,
}

impl LocalFiles {
    /// The dataset at `path`, a file or a folder; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> LocalFiles {
        LocalFiles { root: path.into() }
    }

    fn error(&self, path: &Path, cause: std::io::Error) -> Error {
        let text = format!("cannot read {:?}", path.display());
        match cause.kind() {
            std::io::ErrorKind::PermissionDenied => Error::configuration(text),
            _ => Error::data(text),
        }
        .with_source(cause)
    }

    fn walk(&self, folder: &Path, prefix: &str, depth: usize, out: &mut Vec<FileEntry>) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::data(format!("folder {:?} is nested too deeply", folder.display())));
        }
        for entry in std::fs::read_dir(folder).map_err(|e| self.error(folder, e))? {
            let entry = entry.map_err(|e| self.error(folder, e))?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(Error::data(format!("file name {:?} is not UTF-8", path.display())));
            };
            let relative = format!("{prefix}{name}");
            // Follows links, so that a folder of links to images works; the depth bound ends any cycle.
            let about = std::fs::metadata(&path).map_err(|e| self.error(&path, e))?;
            if about.is_dir() {
                self.walk(&path, &format!("{relative}/"), depth + 1, out)?;
            } else if about.is_file() {
                out.push(FileEntry { path: relative, size_bytes: about.len() });
            }
            if out.len() > FILES_MAX {
                return Err(Error::data(format!(
                    "{:?} has more than {FILES_MAX} files",
                    self.root.display()
                )));
            }
        }
        Ok(())
    }

    fn locate(&self, path: &str) -> Result<PathBuf> {
        let inside = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !inside {
            return Err(Error::data(format!("path {path:?} leaves the dataset")));
        }
        Ok(if self.root.is_file() { self.root.clone() } else { self.root.join(path) })
    }
}

/// Opens a file and nothing else: neither a FIFO, which it does not wait for, nor a device, which never ends.
fn open(path: &Path) -> std::io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::other("it is not a file")),
    }
}

impl Files for LocalFiles {
    fn list(&self) -> Result<Vec<FileEntry>> {
        let about = std::fs::metadata(&self.root).map_err(|e| self.error(&self.root, e))?;
        if about.is_file() {
            let name = self.root.file_name().and_then(|n| n.to_str());
            let name = name.ok_or_else(|| Error::data(format!("{:?} has no name", self.root.display())))?;
            return Ok(vec![FileEntry { path: name.to_owned(), size_bytes: about.len() }]);
        }
        let mut out = Vec::new();
        self.walk(&self.root, "", 0, &mut out)?;
        Ok(out)
    }

    fn read(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        let at = self.locate(path)?;
        let mut file = open(&at).map_err(|e| self.error(&at, e))?;
        let size_bytes = file.metadata().map_err(|e| self.error(&at, e))?.len();
        if range.start > range.end || range.end > size_bytes {
            return Err(Error::data(format!(
                "{:?} has {size_bytes} bytes, cannot read {} to {}",
                at.display(),
                range.start,
                range.end
            )));
        }
        file.seek(SeekFrom::Start(range.start)).map_err(|e| self.error(&at, e))?;
        let mut buffer = vec![0; (range.end - range.start) as usize];
        file.read_exact(&mut buffer).map_err(|e| self.error(&at, e))?;
        Ok(buffer.into())
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lists_everything_below_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/x.png"), b"12345").unwrap();
        std::fs::write(dir.path().join("y"), b"").unwrap();
        let files = LocalFiles::new(dir.path());
        let mut list = files.list().unwrap();
        list.sort();
        let entry = |path: &str, size_bytes| FileEntry { path: path.into(), size_bytes };
        assert_eq!(list, [entry("a/x.png", 5), entry("y", 0)]);
        assert_eq!(files.read("a/x.png", 1..3).unwrap(), "23");
        assert!(files.read("a/x.png", 3..6).is_err());
    }

    #[test]
    fn a_file_lists_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.parquet");
        std::fs::write(&path, b"abc").unwrap();
        let files = LocalFiles::new(&path);
        assert_eq!(files.list().unwrap(), [FileEntry { path: "one.parquet".into(), size_bytes: 3 }]);
        assert_eq!(files.read("one.parquet", 0..3).unwrap(), "abc");
    }

    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("zero.png")).unwrap();
        let error = LocalFiles::new(dir.path()).read("zero.png", 0..1).unwrap_err();
        assert!(error.chain().ends_with("zero.png\": it is not a file"), "{}", error.chain());
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b"] {
            assert!(LocalFiles::new(dir.path()).read(path, 0..0).is_err(), "{path}");
        }
    }

    #[test]
    fn a_missing_dataset_is_named() {
        let e = LocalFiles::new("/nowhere/at/all").list().unwrap_err();
        assert!(e.chain().contains("/nowhere/at/all"), "{e:?}");
    }
}
