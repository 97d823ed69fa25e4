//! Outputs on the local disk: plain file operations, each short enough for one blocking call.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MANIFEST_FILE;
use crate::fresh;
use crate::local::Folder;

/// A worker may still be taking back a file while its folder is removed: how often, and how long apart, that is tried.
const REMOVE_ATTEMPTS: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// Checks that the folder in which `target` will appear takes new files. `false` if `target` itself is a file.
pub(super) fn check_local(target: &Path) -> std::io::Result<bool> {
    if target.exists() && !target.is_dir() {
        return Ok(false);
    }
    let above = target.ancestors().skip(1).find(|p| p.exists()).unwrap_or(Path::new("/"));
    // It is gone with its owner.
    Folder::open(above)?.create(".soup-probe".as_ref())?;
    Ok(true)
}

/// Makes the folder in which an output is staged, and those above it that are missing. It may be there, but as no link: others
/// can foresee its name.
///
/// # Errors
/// [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) for something else at its name; otherwise what the system says.
pub(super) fn stage(place: &Path) -> std::io::Result<()> {
    let (above, name) = parts(place)?;
    let above = Folder::make(above)?;
    match above.make_within(name) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            above.folder(name).map(drop).map_err(|_| e)
        }
        made => made,
    }
}

/// The folder that a place is in, and its name there.
fn parts(place: &Path) -> std::io::Result<(&Path, &OsStr)> {
    let parts = place.parent().zip(place.file_name());
    parts.ok_or_else(|| std::io::ErrorKind::IsADirectory.into())
}

/// Whether `folder` is an output: a link in it is no manifest.
pub(super) fn has_manifest(folder: &Path) -> bool {
    folder.join(MANIFEST_FILE).symlink_metadata().is_ok_and(|about| about.is_file())
}

/// Where a replaced output waits for its end: a name at which nothing can be in the way.
pub(super) fn aside(target: &Path, run: &str) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(format!(".replaced-{run}-{}", fresh::name()));
    PathBuf::from(path)
}

/// Gives what is staged at `place` the name `target`. They are in one folder, as is `aside`; that is held open, so that none of the three
/// becomes another folder's meanwhile.
pub(super) fn publish_local(place: &Path, target: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    let (above, name) = parts(target)?;
    let (above, staged) = (Folder::open(above)?, parts(place)?.1);
    let content = above.folder(staged)?;
    content.remove_temporaries()?;
    content.sync()?;
    let is_output = || above.folder(name).is_ok_and(|folder| folder.has_file(MANIFEST_FILE.as_ref()));
    // Replaces nothing but an empty folder.
    match (above.rename(staged, name), aside) {
        (Err(e), Some(aside)) if is_taken(&e) && is_output() => {
            let waits = parts(aside)?.1;
            above.rename(name, waits)?;
            if let Err(e) = above.rename(staged, name) {
                if let Err(error) = above.rename(waits, name) {
                    tracing::error!(%error, at = %aside.display(), "the replaced output could not be put back: give it its name again");
                }
                return Err(e);
            }
            settle(&above, target);
            if let Err(error) = std::fs::remove_dir_all(aside) {
                tracing::error!(%error, at = %aside.display(), "the replaced output could not be removed: delete it");
            }
            Ok(())
        }
        (Err(e), _) => Err(e),
        (Ok(()), _) => {
            settle(&above, target);
            Ok(())
        }
    }
}

/// Makes a published name durable. The output is there either way, so a failure is no failure of the publish.
fn settle(above: &Folder, target: &Path) {
    if let Err(error) = above.sync() {
        tracing::warn!(%error, at = %target.display(), "the folder of a published output could not be synced");
    }
}

/// Removes a folder that others may still be writing to, or about to publish: it loses its name first, at once. One that is
/// gone is fine.
pub(super) fn remove_folder(folder: &Path) -> std::io::Result<()> {
    let mut gone = folder.as_os_str().to_owned();
    gone.push(".gone");
    let gone = PathBuf::from(gone);
    // A removal that died may have left it.
    remove_all(&gone)?;
    match std::fs::rename(folder, &gone) {
        Ok(()) => remove_all(&gone),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn remove_all(folder: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    for _ in 1..REMOVE_ATTEMPTS {
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() == DirectoryNotEmpty => std::thread::sleep(REMOVE_PAUSE),
            Err(e) if e.kind() != NotFound => return Err(e),
            _ => return Ok(()),
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() == NotFound => Ok(()),
        result => result,
    }
}

/// Removes `folders`, the innermost first, up to the first that somebody else uses by now.
pub(super) fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        match std::fs::remove_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return,
            _ => {}
        }
    }
}

pub(super) fn is_taken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}
