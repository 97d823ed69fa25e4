//! The folder through which a worker and its judges hand each other what is large: weights and gradients as files, in memory where
//! the system has a file system for that.
//!
//! It is for this user alone. A worker that is killed leaves its folder behind, and with it gigabytes of memory: so every folder is
//! locked by whoever made it, and whoever makes a new one removes those beside it that nobody holds any more.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;
use soup_core::{Error, Result};
use soup_store::fresh;

/// What folders are called, and what they are called before they are locked.
const PREFIX: &str = "soup-judge-";
const UNLOCKED: &str = "soup-new-";
/// What is in every one of them: others may call their folders so too.
const MARKER: &str = "of-soupctl";
/// Digits of a name.
const DIGITS: usize = 12;
/// The system's file system in memory.
const IN_MEMORY: &str = "/dev/shm";
/// What makes room.
const ADVICE: &str =
    "give it more room (in a container: a larger /dev/shm), or name another folder with --judge-dir";

/// See the module. It goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Held open, and so locked.
    _lock: File,
}

impl Folder {
    /// A new folder in `parent`, by default where memory is.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) where none can be made there.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Folder> {
        let parent = match parent {
            Some(parent) => parent.to_path_buf(),
            None if Path::new(IN_MEMORY).is_dir() => IN_MEMORY.into(),
            None => std::env::temp_dir(),
        };
        let create = || -> io::Result<Folder> {
            remove_abandoned(&parent)?;
            let name = fresh::name();
            let before = parent.join(format!("{UNLOCKED}{name}"));
            DirBuilder::new().mode(0o700).create(&before)?;
            let lock = lock(&before)?.ok_or(io::ErrorKind::WouldBlock)?;
            File::create_new(before.join(MARKER))?;
            let path = parent.join(format!("{PREFIX}{}", &name[..DIGITS]));
            std::fs::rename(&before, &path)?;
            Ok(Folder { path, _lock: lock })
        };
        create().map_err(|e| {
            let text = format!(
                "no folder for judges can be made in {}: name another with --judge-dir",
                parent.display()
            );
            Error::configuration(text).with_source(e)
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file of `bytes` bytes has room now.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) saying how much there is.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        let about =
            rustix::fs::statvfs(&self.path).map_err(|e| self.failed("cannot be looked at", e.into()))?;
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        match free >= bytes {
            true => Ok(()),
            false => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                Err(Error::configuration(format!(
                    "judges get a soup of {} MiB through the folder {}, which has {} MiB free: {ADVICE}",
                    mib(bytes),
                    self.path.display(),
                    mib(free)
                )))
            }
        }
    }

    /// A new file of `bytes` zeros, for which there is room from now on.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where there is none: what was handed over before may be about to go.
    pub(crate) fn file(&self, name: &str, bytes: u64) -> Result<Handed> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|e| self.failed("takes no file", e))?;
        let handed = Handed { path, file, bytes };
        match rustix::fs::fallocate(&handed.file, FallocateFlags::empty(), 0, bytes.max(1)) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => {
                handed.file.set_len(bytes).map_err(|e| self.failed("takes no file of this size", e))?;
            }
            Err(e) => {
                let text = format!("takes no file of {} MiB: {ADVICE}", bytes.div_ceil(1 << 20));
                return Err(self.failed(&text, e.into()));
            }
        }
        Ok(handed)
    }

    /// The file `spare`, of `bytes` bytes of anything, under a new name; `None` where it is not what it was. Its pages are there
    /// already: filling it is several times as fast as filling a new one.
    pub(crate) fn file_of(&self, mut spare: Handed, name: &str, bytes: u64) -> Option<Handed> {
        if !spare.is_the_same() || spare.bytes != bytes {
            return None;
        }
        let path = self.path.join(name);
        // Nothing is replaced: names are new.
        rustix::fs::renameat_with(CWD, &spare.path, CWD, &path, RenameFlags::NOREPLACE).ok()?;
        spare.path = path;
        Some(spare)
    }

    fn failed(&self, how: &str, source: io::Error) -> Error {
        Error::try_again(format!("the judges' folder {} {how}", self.path.display())).with_source(source)
    }
}

impl Folder {
    /// Removes it with all that is in it; nothing can be handed over any more.
    pub(crate) fn remove(&self) {
        match std::fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, folder = %self.path.display(), "a folder for judges was not removed");
            }
            _ => {}
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The folder at `path`, locked; `None` where somebody else has it locked.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Removes the folders of this user in `parent` that nobody holds any more.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let named = digits.is_some_and(|d| d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()));
        if !named || !entry.path().join(MARKER).is_file() {
            continue;
        }
        // It may be gone by now, or be somebody else's, or be no folder at all: then it is none of ours.
        let ours = std::fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_dir() && m.uid() == me);
        if ours && let Ok(Some(_held)) = lock(&entry.path()) {
            match std::fs::remove_dir_all(entry.path()) {
                Ok(()) => {
                    tracing::info!(folder = %entry.path().display(), "removed what a killed worker left")
                }
                Err(error) => tracing::warn!(%error, folder = %entry.path().display(), "was not removed"),
            }
        }
    }
    Ok(())
}

/// A file that is handed to a judge. It goes when this is dropped, whoever still maps it.
#[derive(Debug)]
pub(crate) struct Handed {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Handed {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `bytes` at `at`. Into a file and not into a map of it: a judge that cuts the file short so costs its own soup, and
    /// not this process.
    ///
    /// # Errors
    /// What the system says; where there is no such place.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if at.checked_add(bytes.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(Error::internal(format!("{} bytes do not fit a file at {at}", bytes.len())));
        }
        self.file.write_all_at(bytes, at).map_err(|e| {
            Error::try_again(format!("{} cannot be written", self.path.display())).with_source(e)
        })
    }

    /// All of it, as f32.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(crate) fn read_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0f32; (self.bytes / 4) as usize];
        self.read_into(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// All of it.
    ///
    /// # Errors
    /// Where it is not the same file, or not of its size, any more.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes as usize];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether what is at its path is this file, in its size.
    fn is_the_same(&self) -> bool {
        let (Ok(own), Ok(named)) = (self.file.metadata(), std::fs::symlink_metadata(&self.path)) else {
            return false;
        };
        (own.dev(), own.ino(), own.len()) == (named.dev(), named.ino(), self.bytes)
    }

    fn read_into(&self, bytes: &mut [u8]) -> Result<()> {
        let same = |named: &std::fs::Metadata| {
            self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (named.dev(), named.ino()))
        };
        if !std::fs::symlink_metadata(&self.path).is_ok_and(|named| same(&named)) {
            let text =
                format!("put another file in the place of {}: it is to be written", self.path.display());
            return Err(super::answers::wrong(text));
        }
        self.file
            .read_exact_at(bytes, 0)
            .map_err(|e| Error::internal(format!("{} was cut short", self.path.display())).with_source(e))
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %e, file = %self.path.display(), "a file for a judge was not removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_killed_worker_left_is_removed_and_what_others_hold_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let held = Folder::create(Some(parent.path())).unwrap();
        assert_eq!(std::fs::metadata(held.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let abandoned = parent.path().join("soup-judge-0123456789ab");
        std::fs::create_dir(&abandoned).unwrap();
        std::fs::write(abandoned.join("1.safetensors"), "x").unwrap();
        std::fs::write(abandoned.join(MARKER), "").unwrap();
        // Others call their folders so too.
        for other in ["soup-judge-clip", "soup-judge-ba9876543210"] {
            std::fs::create_dir(parent.path().join(other)).unwrap();
        }
        let other = parent.path().join("soup-judges");
        std::fs::create_dir(&other).unwrap();
        let link = parent.path().join("soup-judge-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let second = Folder::create(Some(parent.path())).unwrap();
        assert!(held.path().is_dir() && second.path().is_dir() && other.is_dir());
        assert!(!abandoned.exists() && link.is_symlink());
        assert!(parent.path().join("soup-judge-clip").is_dir());
        assert!(parent.path().join("soup-judge-ba9876543210").is_dir());
        let gone = second.path().to_path_buf();
        drop(second);
        assert!(!gone.exists());
    }

    #[test]
    fn a_file_has_its_room_and_takes_nothing_beyond() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(Some(parent.path())).unwrap();
        let file = folder.file("a", 8).unwrap();
        file.write(4, &1f32.to_le_bytes()).unwrap();
        assert!(file.write(5, &[0; 4]).is_err() && file.write(u64::MAX, &[0]).is_err());
        assert_eq!(file.read_f32().unwrap(), [0.0, 1.0]);
        assert!(folder.file("a", 8).is_err(), "what is there is not taken");
        let renamed = folder.file("b", 8).unwrap();
        std::fs::write(folder.path().join("c"), [1; 8]).unwrap();
        std::fs::rename(folder.path().join("c"), renamed.path()).unwrap();
        assert!(renamed.read_f32().unwrap_err().chain().contains("put another file in the place"));
        let old = renamed.path().to_path_buf();
        assert!(folder.file_of(renamed, "d", 8).is_none() && !old.exists(), "it is another file");
        let spare = folder.file("spare", 8).unwrap();
        spare.write(0, &[7; 8]).unwrap();
        let (old, inode) = (spare.path().to_path_buf(), std::fs::metadata(spare.path()).unwrap().ino());
        let again = folder.file_of(spare, "again", 8).unwrap();
        assert_eq!(std::fs::metadata(again.path()).unwrap().ino(), inode);
        assert!(!old.exists() && again.path().ends_with("again") && again.read().unwrap() == [7; 8]);
        assert!(folder.file_of(again, "larger", 9).is_none(), "it is of another size");
        // A judge that cuts it short costs its own soup.
        OpenOptions::new().write(true).open(file.path()).unwrap().set_len(3).unwrap();
        assert!(file.read_f32().unwrap_err().chain().contains("cut short"));
        let path = file.path().to_path_buf();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn too_little_room_is_said_with_the_flag() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::create(Some(parent.path())).unwrap();
        folder.check_room(1 << 20).unwrap();
        let error = folder.check_room(1 << 60).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
        assert!(error.chain().contains("--judge-dir"), "{}", error.chain());
        let error = folder.file("a", 1 << 60).unwrap_err();
        assert!(error.kind().is_transient() && error.chain().contains("--judge-dir"), "{}", error.chain());
        assert!(!folder.path().join("a").exists());
        let nowhere = Folder::create(Some(&parent.path().join("missing"))).unwrap_err();
        assert!(nowhere.chain().contains("--judge-dir"), "{}", nowhere.chain());
    }
}
