//! Images in one folder per class: `<class>/<file>.png`.
//!
//! Classes are numbered by the order of their names, unless [`Folder::align_labels`] takes a model's numbers. Samples are
//! ordered by path. Files of other kinds, and hidden ones, are ignored.

use std::ops::Range;

use soup_core::{Error, Result};

use super::{Sample, has_extension};
use crate::source::{FileEntry, Files};

const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Larger files are refused before they are read.
const IMAGE_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Folder {
    /// By label.
    names: Vec<String>,
    images: Vec<Image>,
}

struct Image {
    path: String,
    size_bytes: u64,
    label: u32,
}

impl Folder {
    /// From the sorted list of all files.
    pub(super) fn new(entries: &[FileEntry], url: &str) -> Result<Folder> {
        let found = || entries.iter().filter(|e| has_extension(&e.path, &IMAGES) && !hidden(&e.path));
        let mut names: Vec<String> = Vec::new();
        let mut images = Vec::new();
        for entry in found() {
            let Some((class, file)) = entry.path.split_once('/') else { continue };
            if file.contains('/') {
                return Err(Error::data(format!(
                    "dataset {url}: image {:?} lies too deep, expected <class>/<file>",
                    entry.path
                )));
            }
            if names.last().is_none_or(|last| last != class) {
                names.push(class.to_owned());
            }
            // As many classes as there are files at most, and files are bounded.
            let label = (names.len() - 1) as u32;
            images.push(Image { path: entry.path.clone(), size_bytes: entry.size_bytes, label });
        }
        if images.is_empty() {
            return Err(Error::data(if found().next().is_some() {
                format!(
                    "dataset {url} has no labels: images must lie in one folder per class (<class>/<file>)"
                )
            } else {
                format!(
                    "dataset {url} has neither .parquet files nor images ({}) in class folders",
                    IMAGES.join(", ")
                )
            }));
        }
        // The list is sorted by whole path, where "a b/" may come between "a/" files: sort the names themselves.
        let folder = Folder { names, images };
        Ok(folder.sorted())
    }

    /// Numbers the classes by the order of their names, each once.
    fn sorted(mut self) -> Folder {
        let mut names = self.names.clone();
        names.sort_unstable();
        names.dedup();
        self.renumber(&names);
        self.images.sort_by(|a, b| (a.label, &a.path).cmp(&(b.label, &b.path)));
        self.names = names;
        self
    }

    /// Gives every image the position of its class in `names`, which has them all.
    fn renumber(&mut self, names: &[String]) {
        let position: std::collections::HashMap<&str, u32> =
            names.iter().enumerate().map(|(i, n)| (n.as_str(), i as u32)).collect();
        let map: Vec<u32> = self.names.iter().map(|n| position[n.as_str()]).collect();
        for image in &mut self.images {
            image.label = map[image.label as usize];
        }
    }

    pub(super) fn align_labels(&mut self, names: &[String]) -> bool {
        if !self.names.iter().all(|n| names.contains(n)) {
            return false;
        }
        self.renumber(names);
        self.names = names.to_vec();
        true
    }

    pub(super) fn len(&self) -> u64 {
        self.images.len() as u64
    }

    pub(super) fn label_names(&self) -> &[String] {
        &self.names
    }

    /// `range` is in the dataset.
    pub(super) fn read(&self, files: &dyn Files, range: Range<u64>) -> Result<Vec<Sample>> {
        let images = &self.images[range.start as usize..range.end as usize];
        let read = |image: &Image| {
            let at = || format!("dataset {} image {:?}", files.describe(), image.path);
            if image.size_bytes > IMAGE_BYTES_MAX {
                return Err(Error::data(format!("{} has {} bytes, too many", at(), image.size_bytes)));
            }
            let bytes = files.read(&image.path, 0..image.size_bytes).map_err(|e| e.context(at()))?;
            Ok(Sample { image: bytes, label: image.label })
        };
        images.iter().map(read).collect()
    }
}

fn hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(paths: &[&str]) -> Result<Folder> {
        let mut entries: Vec<_> =
            paths.iter().map(|p| FileEntry { path: (*p).to_owned(), size_bytes: 1 }).collect();
        entries.sort();
        Folder::new(&entries, "URL")
    }

    fn check(paths: &[&str], names: &[&str], images: &[(&str, u32)]) {
        let folder = folder(paths).unwrap();
        assert_eq!(folder.names, names);
        let got: Vec<_> = folder.images.iter().map(|i| (i.path.as_str(), i.label)).collect();
        assert_eq!(got, images);
    }

    #[test]
    fn classes_are_numbered_by_name() {
        check(
            &["b/1.png", "a/2.JPG", "a/1.webp"],
            &["a", "b"],
            &[("a/1.webp", 0), ("a/2.JPG", 0), ("b/1.png", 1)],
        );
        check(&["a/x.png", "a!/x.png"], &["a", "a!"], &[("a/x.png", 0), ("a!/x.png", 1)]);
        check(&["a/x.png", "a/x.txt", ".git/x.png", "a/.x.png", "README.md"], &["a"], &[("a/x.png", 0)]);
    }

    #[test]
    fn errors_name_the_dataset() {
        let error = |paths: &[&str]| folder(paths).err().unwrap().chain();
        assert!(error(&[]).starts_with("dataset URL has neither .parquet files nor images"));
        assert!(error(&["x.png"]).starts_with("dataset URL has no labels"));
        assert!(error(&["train/a/x.png"]).contains("lies too deep"));
    }

    #[test]
    fn labels_follow_the_model_if_all_names_are_known() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut some = folder(&["cat/1.png", "dog/1.png"]).unwrap();
        assert!(!some.align_labels(&names(&["dog", "cow"])));
        assert_eq!(some.images[1].label, 1);
        assert!(some.align_labels(&names(&["dog", "cow", "cat"])));
        assert_eq!((some.images[0].label, some.images[1].label), (2, 0));
        assert_eq!(some.label_names().len(), 3);
        assert!(
            some.align_labels(&names(&["cat", "cow", "dog"])),
            "aligning again maps from the current names"
        );
        assert_eq!((some.images[0].label, some.images[1].label), (0, 2));
    }
}
