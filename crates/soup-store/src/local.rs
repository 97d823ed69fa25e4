//! The local disk, where nothing is believed of a name: others may write to the same folders.
//!
//! - A name that is to be read may be a FIFO, which blocks whoever opens it, or a device, which never ends: [`open`] gives files
//!   and nothing else.
//! - A name that is to be created may be a link to somebody's file by then: files are created in a [`Folder`] that is held open,
//!   under a name that nobody can foresee, and only where nothing is.

mod disk;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

pub(crate) use self::disk::LocalDisk;
use crate::fresh;
use crate::places::{self, Whose};
use crate::state::SECRET_FILE;

/// Ending of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Something that is there, where a file was expected.
#[derive(Debug)]
pub(crate) struct NotAFile(FileType);

impl NotAFile {
    /// What else `about` is of.
    pub(crate) fn seen(about: &Metadata) -> Option<NotAFile> {
        (!about.is_file()).then(|| NotAFile(about.file_type()))
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.0.is_dir()
    }

    /// In words that follow "is".
    pub(crate) fn what(&self) -> &'static str {
        match self.0 {
            of if of.is_dir() => "a folder, not a file",
            of if of.is_fifo() => "a FIFO, not a file",
            of if of.is_socket() => "a socket, not a file",
            of if of.is_char_device() || of.is_block_device() => "a device, not a file",
            _ => "not a file",
        }
    }

    /// The one that `error` is about.
    pub(crate) fn behind(error: &io::Error) -> Option<&NotAFile> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for NotAFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}", self.what())
    }
}

impl std::error::Error for NotAFile {}

/// Opens the file at `path` to read it. Never waits.
///
/// # Errors
/// What the system says, and for anything but a file an error that says what it is.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening a device may already do something to it, and a socket cannot be opened at all.
    only_a_file(&std::fs::metadata(path)?)?;
    open_now(path)
}

/// The name may be something else's by now: nothing is believed that was seen of it before.
fn open_now(path: &Path) -> io::Result<File> {
    // A FIFO without a writer does not block then, and a terminal does not become this process's.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    only_a_file(&file.metadata()?)?;
    Ok(file)
}

fn only_a_file(about: &Metadata) -> io::Result<()> {
    NotAFile::seen(about).map_or(Ok(()), |other| Err(io::Error::other(other)))
}

/// The whole content of a file. Never waits.
///
/// # Errors
/// As for [`open`]; [`io::ErrorKind::FileTooLarge`] for one of more than `bytes_max` bytes.
pub fn read_small(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What a file's size is said to be is not believed either: those of /proc have none.
    open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")))
        }
        false => Ok(bytes),
    }
}

/// A folder that is held open: what is done in it is done there, whatever becomes of its name meanwhile.
pub(crate) struct Folder(OwnedFd, Whose);

impl Folder {
    /// The folder that `path` leads to.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        Folder::open_with(path, Whose::Run, OFlags::empty())
    }

    /// The folder that `path` leads to. Where it is missing it is made, with those above it, durably: each in the one above it, which is
    /// held open and is where it may be written, whatever becomes of names meanwhile.
    pub(crate) fn make(path: &Path) -> io::Result<Folder> {
        Folder::make_for(path, Whose::Run)
    }

    /// [`make`](Folder::make), for what may be the process's own.
    pub(crate) fn make_for(path: &Path, whose: Whose) -> io::Result<Folder> {
        let opened = Folder::open_with(path, whose, OFlags::empty());
        match (opened, path.parent(), path.file_name()) {
            (Err(e), Some(above), Some(name)) if e.kind() == io::ErrorKind::NotFound => {
                let above = Folder::make_for(above, whose)?;
                match above.make_within(name) {
                    // Somebody else was faster.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.and_then(|()| above.sync())?,
                }
                above.folder(name)
            }
            (opened, ..) => opened,
        }
    }

    /// Makes the folder `name` in it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where something is there; what the system says.
    pub(crate) fn make_within(&self, name: &OsStr) -> io::Result<()> {
        places::may_make(&self.0, self.1, name)?;
        Ok(rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777))?)
    }

    /// The folder in it that is called `name`: no link to one.
    pub(crate) fn folder(&self, name: &OsStr) -> io::Result<Folder> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::openat(&self.0, name, flags, Mode::empty())?, self.1))
    }

    /// Whether `name` in it is a file: no link to one.
    pub(crate) fn has_file(&self, name: &OsStr) -> bool {
        let about = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        about.is_ok_and(|about| rustix::fs::FileType::from_raw_mode(about.st_mode).is_file())
    }

    /// Renames what is in it.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        places::within(&self.0, self.1, true)?;
        places::may_make(&self.0, self.1, to)?;
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// The folder that is called `path`: no link to one.
    pub(crate) fn open_itself(path: &Path) -> io::Result<Folder> {
        Folder::open_with(path, Whose::Run, OFlags::NOFOLLOW)
    }

    fn open_with(path: &Path, whose: Whose, flags: OFlags) -> io::Result<Folder> {
        // By itself this asks for no right to list the folder.
        let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Folder(rustix::fs::open(path, flags, Mode::empty())?, whose))
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let folder = self.to_read()?;
        rustix::io::retry_on_intr(|| rustix::fs::fsync(&folder))?;
        Ok(())
    }

    /// The same folder, open to be listed and synced.
    fn to_read(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, ".", flags, Mode::empty())?)
    }

    /// Removes what writers that died left behind.
    pub(crate) fn remove_temporaries(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::new(self.to_read()?)? {
            let entry = entry?;
            if entry.file_name().to_bytes().ends_with(TEMPORARY.as_bytes()) {
                rustix::fs::unlinkat(&self.0, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Creates a file that is to be called `name` when it is whole.
    pub(crate) fn create(self, name: &OsStr) -> io::Result<(File, Temporary)> {
        places::within(&self.0, self.1, true)?;
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}{TEMPORARY}", fresh::name()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Those of one group may keep a state together.
        let mode = if name == SECRET_FILE { 0o660 } else { 0o666 };
        let file = rustix::fs::openat(&self.0, &temporary, flags, Mode::from_raw_mode(mode))?;
        Ok((File::from(file), Temporary { folder: self, temporary, name: name.to_owned() }))
    }
}

/// A file under a name of its own, which is removed again. Two attempts at the same file, even on two machines, so never write
/// into each other.
pub(crate) struct Temporary {
    folder: Folder,
    temporary: OsString,
    name: OsString,
}

impl Temporary {
    /// Gives the file its name; a file that has it loses it.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let (from, folder) = (&self.temporary, &self.folder.0);
        Ok(rustix::fs::renameat(folder, from, folder, &self.name)?)
    }

    /// Gives the file its name, if nothing has it.
    pub(crate) fn keep_if_absent(&self) -> io::Result<()> {
        let (from, folder) = (&self.temporary, &self.folder.0);
        Ok(rustix::fs::linkat(folder, from, folder, &self.name, AtFlags::empty())?)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.folder.0, &self.temporary, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests;
