//! Where a name leads, found out without opening anything: for what is said where it cannot be opened.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Links that one name leads through at most, as the kernel has it.
const LINKS_MAX: u32 = 40;

/// Where a path leads: through links where there are any, and as it is written from there on where nothing is, or nothing can be
/// looked at.
pub(super) fn leads_to(path: &Path) -> PathBuf {
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let mut left = parts(path);
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        at.push(name);
        let Ok(to) = std::fs::read_link(&at) else { continue };
        links += 1;
        // A circle, which nobody gets through.
        if links > LINKS_MAX {
            break;
        }
        at.pop();
        if to.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(parts(&to));
    }
    at
}

/// The names that a path is made of, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<OsString> = names.map(|part| part.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_lead_where_the_kernel_would_go_and_on_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("../a/b/./..", root.join("a/back")).unwrap();
        symlink(root.join("a/back"), root.join("far")).unwrap();
        symlink("/no/such/../place", root.join("gone")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let leads = |from: &str, to: &Path| assert_eq!(leads_to(&root.join(from)), to, "{from}");
        leads("a/b", &root.join("a/b"));
        leads("a/back", &root.join("a"));
        leads("far/b/x", &root.join("a/b/x"));
        leads("far/none/x", &root.join("a/none/x"));
        leads("gone", Path::new("/no/place"));
        leads("gone/x", Path::new("/no/place/x"));
        leads("circle", &root.join("circle"));
        leads("circle/x", &root.join("circle"));
        assert_eq!(leads_to(Path::new("/")), Path::new("/"));
    }
}
