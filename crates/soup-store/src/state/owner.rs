//! Whether somebody else may have put a state where it lies.
//!
//! What a state says is believed: a score that is kept there is not asked for again. In a folder where everybody may write, another user
//! can have made it before, and filled it. So one that everybody may write to, or that lies where everybody may, has to be this user's or
//! the administrator's. What only a group may write to is that group's affair, as are the soups beside it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use soup_core::{Error, Result};

use super::State;

/// What everybody may do: write.
const OTHERS_WRITE: u32 = 0o002;
const ADMINISTRATOR: u32 = 0;

/// What is asked of a folder, or of a link to one.
#[derive(Clone, Copy, Debug)]
struct Seen {
    user: u32,
    /// Whether everybody may write there.
    open: bool,
}

impl Seen {
    fn of(about: &Metadata) -> Seen {
        // The mode of a link says nothing.
        Seen { user: about.uid(), open: !about.is_symlink() && about.mode() & OTHERS_WRITE != 0 }
    }
}

impl State {
    /// Refuses a local state that another user may have put there. One that is not there yet is nobody's.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), naming the user.
    pub fn check_owner(&self) -> Result<()> {
        let Some(path) = self.root.local_path() else { return Ok(()) };
        let Ok((itself, around)) = seen(path) else { return Ok(()) };
        let me = rustix::process::geteuid().as_raw();
        if let Some(user) = stranger(me, &itself, &around) {
            return Err(Error::configuration(format!(
                "state {} belongs to user {user}, and everybody may write there or beside it, so that what it says may be \
                 anybody's: name a folder of your own with --state-url",
                self.root
            )));
        }
        if itself.iter().any(|seen| seen.open) {
            tracing::warn!(state = %self.root, "everybody may write to this state, and what it says is believed");
        }
        Ok(())
    }
}

/// What is at `path` (a link, and where it leads), and the folders that those are in.
fn seen(path: &Path) -> std::io::Result<([Seen; 2], [Seen; 2])> {
    let real = path.canonicalize()?;
    let about = |path: &Path| path.metadata().map(|about| Seen::of(&about));
    let above = |path: &Path| about(path.parent().unwrap_or(Path::new("/")));
    Ok(([Seen::of(&path.symlink_metadata()?), about(&real)?], [above(path)?, above(&real)?]))
}

/// The user who may have put there what `me` is about to believe.
fn stranger(me: u32, itself: &[Seen], around: &[Seen]) -> Option<u32> {
    let exposed = itself.iter().chain(around).any(|seen| seen.open);
    let mut users = itself.iter().map(|seen| seen.user);
    users.rfind(|user| exposed && *user != me && *user != ADMINISTRATOR)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const ME: u32 = 1001;
    const OTHER: u32 = 1003;

    fn folder(user: u32, mode: u32) -> Seen {
        Seen { user, open: mode & OTHERS_WRITE != 0 }
    }

    #[test]
    fn what_anybody_may_have_put_there_is_somebody_s() {
        for (user, mode, above, expect) in [
            // In a folder of one's own, or a group's.
            (ME, 0o755, 0o755, None),
            (OTHER, 0o755, 0o755, None),
            (OTHER, 0o2775, 0o2775, None),
            // In one such as /tmp.
            (ME, 0o755, 0o1777, None),
            (ADMINISTRATOR, 0o755, 0o1777, None),
            (OTHER, 0o755, 0o1777, Some(OTHER)),
            (OTHER, 0o775, 0o1777, Some(OTHER)),
            // One that everybody may write to: some foreign disks have no other modes.
            (ME, 0o777, 0o777, None),
            (OTHER, 0o777, 0o755, Some(OTHER)),
        ] {
            let (itself, around) = ([folder(user, mode); 2], [folder(ADMINISTRATOR, above); 2]);
            assert_eq!(stranger(ME, &itself, &around), expect, "{user} {mode:o} in {above:o}");
        }
        // A stranger's link to something that is well.
        let (link, mine) = (folder(OTHER, 0), folder(ME, 0o755));
        let around = [folder(ADMINISTRATOR, 0o1777), folder(ME, 0o755)];
        assert_eq!(stranger(ME, &[link, mine], &around), Some(OTHER));
    }

    #[test]
    fn folders_and_links_are_seen_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real/state"), dir.path().join("link"));
        std::fs::create_dir_all(&real).unwrap();
        symlink(&real, &link).unwrap();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let modes = |path: &Path| {
            let (itself, around) = seen(path).unwrap();
            (itself.map(|seen| seen.open), around.map(|seen| seen.open))
        };
        open(&real, 0o755);
        assert_eq!(modes(&link), ([false; 2], [false; 2]));
        open(dir.path(), 0o1777);
        assert_eq!((modes(&link).1, modes(&real).1), ([true, false], [false; 2]));
        open(&real, 0o777);
        assert_eq!((modes(&link).0, modes(&real).0), ([false, true], [true; 2]));
        // All of it is this user's, and what is not there is nobody's.
        for name in [&real, &link, &dir.path().join("none")] {
            State::open(name.to_str().unwrap()).unwrap().check_owner().unwrap();
        }
    }
}
