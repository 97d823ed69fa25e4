//! What the numbers of classes in archives stand for: `classnames.txt` above them, a line for each class, as the datasets of CLIP's
//! benchmark have it on the Hub.

use soup_core::{Error, Result};

use crate::source::{FileEntry, Files};

pub(super) const FILE: &str = "classnames.txt";
/// Largest such file, in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// The folder of a file, with a slash at its end unless it is the dataset's own.
fn folder(path: &str) -> &str {
    &path[..path.rfind('/').map_or(0, |slash| slash + 1)]
}

/// Files that others keep the names in, and that are not read.
const OTHERS: [&str; 8] = [
    "classes.txt",
    "class_names.txt",
    "class-names.txt",
    "labels.txt",
    "label_names.txt",
    "synsets.txt",
    "synset.txt",
    "classnames",
];
/// The folder around the dataset.
const AROUND: &str = "../";

/// The file of names among `others` that is nearest above all `archives`.
pub(super) fn find<'a>(archives: &[FileEntry], others: &'a [FileEntry]) -> Option<&'a FileEntry> {
    let is_above = |own: &str| own == AROUND || archives.iter().all(|archive| archive.path.starts_with(own));
    let above = |entry: &&FileEntry| {
        let own = folder(&entry.path);
        entry.path[own.len()..] == *FILE && is_above(own)
    };
    let nearness = |entry: &&FileEntry| (folder(&entry.path) != AROUND, entry.path.len());
    others.iter().filter(above).max_by_key(nearness)
}

/// What people should know of a file that may have names, and is not read.
pub(super) fn unread(others: &[FileEntry]) -> Option<String> {
    let may = |entry: &&FileEntry| {
        let file = entry.path[folder(&entry.path).len()..].to_lowercase();
        file == FILE || OTHERS.contains(&file.as_str())
    };
    let other = others.iter().find(may)?;
    Some(format!("{:?} is not read: names of classes are read from {FILE} above all archives", other.path))
}

/// The names, by class.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where a class has none; the errors of [`Files`].
pub(super) fn read(files: &dyn Files, entry: &FileEntry) -> Result<Vec<String>> {
    let at = |e: Error| e.context(format!("dataset {} file {:?}", files.describe(), entry.path));
    if entry.size_bytes > BYTES_MAX {
        return Err(at(Error::data(format!("{} bytes, at most {BYTES_MAX} are read", entry.size_bytes))));
    }
    let bytes = files.read(&entry.path, 0..entry.size_bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| at(Error::data("it is not UTF-8").with_source(e)))?;
    let names: Vec<String> =
        text.trim_start_matches('\u{feff}').trim_end().lines().map(|line| line.trim().to_owned()).collect();
    match names.iter().position(String::is_empty) {
        None if !names.is_empty() => Ok(names),
        empty => Err(at(Error::data(format!(
            "class {} has no name: every line is the name of a class",
            empty.unwrap_or(0)
        )))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<FileEntry> {
        paths.iter().map(|path| FileEntry { path: (*path).to_owned(), size_bytes: 1 }).collect()
    }

    #[test]
    fn the_nearest_above_all_archives_is_theirs() {
        for (archives, others, want) in [
            (&["0.tar"][..], &["classnames.txt", "README.md"][..], Some("classnames.txt")),
            (&["test/0.tar", "test/1.tar"], &["classnames.txt"], Some("classnames.txt")),
            (&["test/0.tar"], &["classnames.txt", "test/classnames.txt"], Some("test/classnames.txt")),
            (
                &["test/0.tar", "more/0.tar"],
                &["classnames.txt", "test/classnames.txt"],
                Some("classnames.txt"),
            ),
            (&["test/0.tar"], &["train/classnames.txt", "te/classnames.txt", "notclassnames.txt"], None),
            (&["test/0.tar"], &["nshards.txt"], None),
            (&["0.tar"], &["../classnames.txt"], Some("../classnames.txt")),
            (&["0.tar"], &["../classnames.txt", "classnames.txt"], Some("classnames.txt")),
        ] {
            let (archives, others) = (entries(archives), entries(others));
            assert_eq!(find(&archives, &others).map(|entry| &*entry.path), want);
        }
    }

    #[test]
    fn other_spellings_are_told() {
        for name in ["ClassNames.txt", "classes.txt", "meta/labels.TXT", "other/classnames.txt"] {
            let note = unread(&entries(&["README.md", name])).unwrap();
            assert!(note.contains(name) && note.contains("read from classnames.txt"), "{note}");
        }
        assert_eq!(unread(&entries(&["README.md", "nshards.txt"])), None);
    }
}
