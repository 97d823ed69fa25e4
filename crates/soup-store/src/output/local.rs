//! Outputs on the local disk: plain file operations, each short enough for one blocking call.

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
    use std::io::ErrorKind::{AlreadyExists, NotADirectory};
    std::fs::create_dir_all(place.parent().unwrap_or(Path::new("/"))).map_err(|e| match e.kind() {
        AlreadyExists => NotADirectory.into(),
        _ => e,
    })?;
    match std::fs::create_dir(place) {
        Err(e) if e.kind() == AlreadyExists => Folder::open_itself(place).map(drop).map_err(|_| e),
        made => made,
    }
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

pub(super) fn publish_local(place: &Path, target: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    let staged = Folder::open_itself(place)?;
    staged.remove_temporaries()?;
    staged.sync()?;
    // Replaces nothing but an empty folder.
    let renamed = std::fs::rename(place, target);
    match (renamed, aside) {
        (Err(e), Some(aside)) if is_taken(&e) && !target.is_symlink() && has_manifest(target) => {
            std::fs::rename(target, aside)?;
            if let Err(e) = std::fs::rename(place, target) {
                if let Err(error) = std::fs::rename(aside, target) {
                    tracing::warn!(%error, at = %aside.display(), "the replaced output could not be put back");
                }
                return Err(e);
            }
            settle(target);
            if let Err(error) = std::fs::remove_dir_all(aside) {
                tracing::warn!(%error, at = %aside.display(), "the replaced output could not be removed");
            }
            Ok(())
        }
        (Err(e), _) => Err(e),
        (Ok(()), _) => {
            settle(target);
            Ok(())
        }
    }
}

/// Makes a published name durable. The output is there either way, so a failure is no failure of the publish.
fn settle(target: &Path) {
    let synced = Folder::open(target.parent().unwrap_or(Path::new("/"))).and_then(|above| above.sync());
    if let Err(error) = synced {
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
