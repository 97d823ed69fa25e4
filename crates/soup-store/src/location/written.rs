//! Paths as people write them: with `~`, with `.` and `..`.

use std::path::{Component, Path, PathBuf};

use soup_core::{Error, Result};

/// The absolute path that somebody means by `text`, where relative ones start at `base`: without `.` and `..`.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for `~` and `$`, which a shell was to replace, and for `..` after a link that leads
/// nowhere or after wildcards.
pub fn absolute(base: &Path, text: &str) -> Result<PathBuf> {
    refuse_unexpanded(text)?;
    without_dots(&base.join(text))
}

/// Refuses what a shell would have replaced, and none has: in a cook file, in quotes, after `--output=`.
pub(super) fn refuse_unexpanded(text: &str) -> Result<()> {
    let first = text.split('/').next().unwrap_or_default();
    if first != "~" && !first.starts_with('$') {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{text:?} begins with {first}, which no shell has replaced: write the whole path, or ./{text} if it is called so"
    )))
}

/// `path` without `.` and `..`. A link before `..` is followed first, as the system does.
pub(super) fn without_dots(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => out = around(&out, path)?,
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Ok(out)
}

/// The folder around `folder`, of which the next component of `path` is `..`. What is not there yet may be made: it is no link.
fn around(folder: &Path, path: &Path) -> Result<PathBuf> {
    let refuse = |what: &str| Error::usage(format!("{path:?} has \"..\" after {folder:?}, {what}"));
    let mut real = folder.to_owned();
    match std::fs::symlink_metadata(folder) {
        Ok(about) if about.is_symlink() => {
            real = folder.canonicalize().map_err(|e| refuse("a link that leads nowhere").with_source(e))?;
        }
        Ok(_) => {}
        Err(_) if folder.file_name().is_some_and(|name| name.to_string_lossy().contains(['*', '?'])) => {
            return Err(refuse("which has wildcards: there is no \"..\" after those"));
        }
        Err(_) => {}
    }
    real.pop();
    Ok(real)
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;
    use crate::location::Location;

    #[test]
    fn dots_after_a_link_are_what_they_are_to_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("x/y/z")).unwrap();
        for (name, to) in [("link", "x/y"), ("broken", "nowhere")] {
            std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        }
        let cases = [
            ("link/../pool", "x/pool"),
            ("link/z/../pool", "link/pool"),
            ("link/z/../../pool", "x/pool"),
            ("./x/../link/./pool", "link/pool"),
            ("new/../pool", "pool"),
        ];
        for (text, expect) in cases {
            assert_eq!(absolute(&root, text).unwrap(), root.join(expect), "{text}");
            let whole = root.join(text);
            assert_eq!(Location::local(&whole).unwrap().local_path().unwrap(), root.join(expect), "{text}");
        }
        for (text, expect) in [
            ("broken/../pool", "a link that leads nowhere"),
            ("*/../pool", "there is no \"..\" after those"),
            ("~/pool", "begins with ~, which no shell has replaced"),
            ("~", "./~ if it is called so"),
            ("$HOME/pool", "begins with $HOME, which"),
            ("${X}", "begins with ${X}, which"),
        ] {
            let error = absolute(&root, text).unwrap_err();
            assert!(error.kind() == ErrorKind::Usage && error.chain().contains(expect), "{}", error.chain());
        }
        for text in ["./~/x", "./$x", "a~/~", "~x/y"] {
            assert!(absolute(&root, text).is_ok() && Location::parse(text).is_ok(), "{text}");
        }
        for text in ["~/x", "$HOME"] {
            let error = Location::parse(text).unwrap_err();
            assert!(error.chain().contains("which no shell has replaced"), "{}", error.chain());
        }
    }
}
