//! Images in one folder per class: `<class>/<file>.png`.
//!
//! Classes are numbered by the order of their names, and then aligned with the model's by whoever knows that. Samples are
//! ordered by path. Hidden files are left out, as everybody does. An image of a kind that cannot be decoded is a sample that would
//! be missing, and is refused; what is no image is counted and said.

use std::ops::Range;

use soup_core::{Error, Result};

use super::{Input, Sample, Target, has_extension, splits};
use crate::source::{FileEntry, Files};

pub(super) const IMAGES: [&str; 6] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp"];
/// Images that cannot be decoded: each is a sample that would be missing.
pub(super) const UNREADABLE: [&str; 17] = [
    "gif", "bmp", "dib", "tif", "tiff", "heic", "heif", "avif", "jp2", "j2k", "jxl", "ppm", "pgm", "pbm",
    "pnm", "ico", "tga",
];
/// What the names of files that hold data have after a dot.
const DATA: [&str; 31] = [
    "parquet",
    "pq",
    "parq",
    "arrow",
    "feather",
    "orc",
    "avro",
    "csv",
    "tsv",
    "json",
    "jsonl",
    "ndjson",
    "tar",
    "tgz",
    "gz",
    "zst",
    "zip",
    "bz2",
    "xz",
    "lz4",
    "7z",
    "rar",
    "npy",
    "npz",
    "pkl",
    "h5",
    "hdf5",
    "tfrecord",
    "tfrecords",
    "lmdb",
    "beton",
];
/// Files that describe data of the Hub.
pub(super) const ABOUT: [&str; 4] =
    ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"];
/// What file managers leave in folders.
const LITTER: [&str; 2] = ["thumbs.db", "desktop.ini"];
/// Larger files are refused before they are read.
pub(super) const IMAGE_BYTES_MAX: u64 = 256 << 20;

pub(super) struct Folder {
    /// By label.
    names: Vec<String>,
    images: Vec<Image>,
    notes: Vec<String>,
}

struct Image {
    path: String,
    size_bytes: u64,
    label: u32,
}

impl Folder {
    /// From the sorted list of all files that are not hidden; of the split `named`, if one is. `about` is the dataset, for
    /// messages.
    pub(super) fn new(entries: &[FileEntry], named: Option<&str>, about: &str) -> Result<Folder> {
        let unreadable = |e: &FileEntry| has_extension(&e.path, &UNREADABLE);
        let (images, others): (Vec<&FileEntry>, Vec<&FileEntry>) =
            entries.iter().partition(|e| has_extension(&e.path, &IMAGES) || unreadable(e));
        if images.is_empty() {
            return Err(nothing(&others, about));
        }
        let (images, loose): (Vec<&FileEntry>, Vec<&FileEntry>) =
            images.into_iter().partition(|e| e.path.contains('/'));
        let mut notes = notes(&others, &loose);
        if images.is_empty() {
            return Err(Error::data(format!(
                "{about} has no labels: images must lie in one folder per class (<class>/<file>)"
            )));
        }
        let (chosen, of_split) = splits::choose(images.into_iter().cloned().collect(), named, about)?;
        notes.extend(of_split);
        if let Some(other) = chosen.iter().find(|e| unreadable(e)) {
            return Err(Error::data(format!(
                "{about}: image {:?} is of a kind that cannot be decoded: convert it to PNG, JPEG or WebP, or remove it",
                other.path
            )));
        }
        let mut names: Vec<String> = Vec::new();
        let mut images = Vec::new();
        let mut around: Option<&str> = None;
        for entry in &chosen {
            let (folder, _) = entry.path.rsplit_once('/').unwrap_or_default();
            let (outer, class) = folder.rsplit_once('/').unwrap_or(("", folder));
            if *around.get_or_insert(outer) != outer {
                return Err(apart(entry, (around.unwrap_or_default(), outer), about));
            }
            if names.last().is_none_or(|last| last != class) {
                names.push(class.to_owned());
            }
            // As many classes as there are files at most, and files are bounded.
            let label = (names.len() - 1) as u32;
            images.push(Image { path: entry.path.clone(), size_bytes: entry.size_bytes, label });
        }
        if let Some(outer) = around.filter(|o| !o.is_empty()) {
            notes.push(format!("its classes are the folders in {outer:?}"));
        }
        if names.len() > 1 && names.iter().all(|name| splits::is_split(name)) {
            return Err(Error::data(format!(
                "{about} has no labels: its folders are splits ({}) with images right in them, expected <split>/<class>/<file>",
                names.join(", ")
            )));
        }
        // The list is sorted by whole path, where "a b/" may come between "a/" files: sort the names themselves.
        let folder = Folder { names, images, notes };
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

    /// What people should know of the first `limit` samples: classes lie one after the other.
    pub(super) fn note_of_limit(&self, limit: u64) -> Option<String> {
        let first = self.images.get(..usize::try_from(limit).ok()?)?;
        // Ascending, and without a gap.
        let seen = first.last().map_or(0, |image| image.label as usize + 1);
        let all = self.names.len();
        (seen < all).then(|| {
            format!(
                "is limited to {limit} samples, which are in the order of the classes' folders: {} of its {all} classes have none",
                all - seen
            )
        })
    }

    /// What people should know.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where an image is, for messages.
    pub(super) fn place(&self, row: u64) -> String {
        let image = usize::try_from(row).ok().and_then(|row| self.images.get(row));
        image.map_or_else(|| format!("row {row}"), |image| format!("image {:?}", image.path))
    }

    pub(super) fn len(&self) -> u64 {
        self.images.len() as u64
    }

    pub(super) fn label_names(&self) -> &[String] {
        &self.names
    }

    /// Size of the images `range`, as far as each is not refused.
    pub(super) fn bytes(&self, range: Range<u64>) -> u64 {
        let images = &self.images[range.start as usize..range.end as usize];
        images.iter().map(|image| image.size_bytes.min(IMAGE_BYTES_MAX)).fold(0, u64::saturating_add)
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
            Ok(Sample { input: Input::Image(bytes), target: Target::Class(image.label) })
        };
        images.iter().map(read).collect()
    }
}

/// Why an image is none of the dataset: its class lies in the folder `outer`, and others' in `around`.
fn apart(entry: &FileEntry, (around, outer): (&str, &str), about: &str) -> Error {
    let depth = |folder: &str| folder.split('/').filter(|part| !part.is_empty()).count();
    if depth(around) != depth(outer) {
        return Error::data(format!(
            "{about}: image {:?} lies at another depth than others, expected <class>/<file>",
            entry.path
        ));
    }
    Error::data(format!(
        "{about}: the folders of classes lie in {around:?} and in {outer:?} (image {:?}): name one of these folders",
        entry.path
    ))
}

/// What is left out, counted.
fn notes(others: &[&FileEntry], loose: &[&FileEntry]) -> Vec<String> {
    let litter = |e: &FileEntry| {
        let name = e.path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        LITTER.contains(&name.as_str())
    };
    let told = |e: &&&FileEntry| (e.path.contains('/') || is_data(&e.path)) && !litter(e);
    let others: Vec<&&FileEntry> = others.iter().filter(told).collect();
    let mut notes = Vec::new();
    if let Some(first) = others.first() {
        notes.push(format!(
            "{} files are no images by their names and were left out, such as {:?}",
            others.len(),
            first.path
        ));
    }
    if let Some(first) = loose.first() {
        notes.push(format!(
            "{} images lie in no class's folder and were left out, such as {:?}",
            loose.len(),
            first.path
        ));
    }
    notes
}

/// Whether there are images in folders among `entries`, be they of a kind that cannot be decoded.
pub(super) fn has_images(entries: &[FileEntry]) -> bool {
    let is_image = |e: &FileEntry| has_extension(&e.path, &IMAGES) || has_extension(&e.path, &UNREADABLE);
    entries.iter().any(|e| e.path.contains('/') && is_image(e))
}

/// Whether a file holds data by its name, be it packed (`1.jsonl.gz`) or half there (`1.parquet.part`).
fn is_data(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let is = |ending: &str| DATA.iter().any(|data| data.eq_ignore_ascii_case(ending));
    !ABOUT.contains(&file) && file.split('.').skip(1).any(is)
}

/// What is left out beside the files `of` one kind, counted: only what may hold samples.
pub(super) fn beside_tables<'a>(others: impl IntoIterator<Item = &'a FileEntry>, of: &str) -> Option<String> {
    let data = |e: &&FileEntry| {
        let image = e.path.contains('/') && has_extension(&e.path, &[&IMAGES[..], &UNREADABLE].concat());
        image || is_data(&e.path)
    };
    let left_out: Vec<&FileEntry> = others.into_iter().filter(data).collect();
    let first = left_out.first()?;
    Some(format!(
        "is read from its {of} files; {} other files with data were left out, such as {:?}",
        left_out.len(),
        first.path
    ))
}

/// What is said of Arrow files, which datasets' `save_to_disk` writes, where there are some.
pub(super) fn arrow<'a>(files: impl IntoIterator<Item = &'a FileEntry>) -> &'static str {
    match files.into_iter().any(|e| has_extension(&e.path, &["arrow"])) {
        true => "; Arrow, as save_to_disk writes it, is not read: write Parquet (to_parquet)",
        false => "",
    }
}

/// Why there is no dataset among `others`.
fn nothing(others: &[&FileEntry], about: &str) -> Error {
    let found = match others.first() {
        None => "there is nothing".to_owned(),
        Some(first) => format!("there are {} other files, such as {:?}", others.len(), first.path),
    };
    let arrow = arrow(others.iter().copied());
    Error::data(format!(
        "{about} has neither .parquet files nor images ({}) in class folders, nor .tar files with such: {found}{arrow}",
        IMAGES.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(paths: &[&str]) -> Result<Folder> {
        let mut entries: Vec<_> =
            paths.iter().map(|p| FileEntry { path: (*p).to_owned(), size_bytes: 1 }).collect();
        entries.sort();
        Folder::new(&entries, None, "dataset URL")
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
        check(&["a/x.png", "a/x.txt", "README.md"], &["a"], &[("a/x.png", 0)]);
        check(&["val/b/1.png", "val/a/1.png"], &["a", "b"], &[("val/a/1.png", 0), ("val/b/1.png", 1)]);
    }

    #[test]
    fn errors_name_the_dataset() {
        let error = |paths: &[&str]| folder(paths).err().unwrap().chain();
        assert!(error(&[]).starts_with("dataset URL has neither .parquet files nor images"));
        assert!(error(&["x.png"]).starts_with("dataset URL has no labels"));
        assert!(error(&["a/x.png", "b/c/x.png"]).contains("\"b/c/x.png\" lies at another depth"));
        let apart = error(&["part1/a/x.png", "part2/a/x.png"]);
        assert!(apart.contains("lie in \"part1\" and in \"part2\""), "{apart}");
        let saved = error(&["dataset_dict.json", "validation/data-00000-of-00001.arrow"]);
        assert!(saved.contains("Arrow, as save_to_disk writes it, is not read"), "{saved}");
        assert!(!error(&["a/x.txt"]).contains("Arrow"));
        assert!(error(&["a/x.png", "b/x.gif"]).contains("\"b/x.gif\" is of a kind that cannot be decoded"));
        assert!(error(&["train/1.png", "val/2.png"]).contains("its folders are splits (train, val)"));
        assert!(error(&["a/x.tar.gz"]).contains("1 other files, such as \"a/x.tar.gz\""));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_where_it_is_a_sample() {
        let of_split = |split| {
            let mut entries: Vec<_> = ["logo.gif", "train/a/x.tif", "val/a/x.png"]
                .map(|path| FileEntry { path: path.to_owned(), size_bytes: 1 })
                .into();
            entries.sort();
            Folder::new(&entries, Some(split), "dataset URL").map(|folder| folder.len())
        };
        assert!(of_split("train").unwrap_err().chain().contains("train/a/x.tif"));
        assert_eq!(of_split("val").unwrap(), 1);
    }

    #[test]
    fn classes_that_a_limit_leaves_without_a_sample_are_counted() {
        let folder = folder(&["a/1.png", "a/2.png", "b/1.png", "c/1.png"]).unwrap();
        let note = |limit| folder.note_of_limit(limit);
        assert!(note(2).unwrap().ends_with("2 of its 3 classes have none"));
        assert!(note(3).unwrap().starts_with("is limited to 3 samples"));
        assert_eq!((note(4), note(5), note(u64::MAX)), (None, None, None));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let notes = folder(&[
            "a/x.png",
            "a/x.txt",
            "b/y.json",
            "b/Thumbs.db",
            "z.png",
            "README.md",
            "dataset_infos.json",
        ])
        .unwrap()
        .notes;
        assert_eq!(
            notes,
            [
                "2 files are no images by their names and were left out, such as \"a/x.txt\"",
                "1 images lie in no class's folder and were left out, such as \"z.png\""
            ]
        );
        for more in ["more.tar", "more.zip", "metadata.csv", "more.tar.gz", "b.pq"] {
            let notes = folder(&["a/x.png", more]).unwrap().notes;
            let expect = format!("1 files are no images by their names and were left out, such as {more:?}");
            assert_eq!(notes, [expect]);
        }
    }

    #[test]
    fn data_of_other_kinds_is_counted() {
        let beside = |paths: &[&str]| {
            let entry = |path: &&str| FileEntry { path: (*path).to_owned(), size_bytes: 1 };
            beside_tables(&paths.iter().map(entry).collect::<Vec<_>>(), ".parquet")
        };
        for name in
            ["1.pq", "1.parq", "1.parquet.part", "1.TFRECORD", "1.arrow", "d/1.csv", "1.jsonl.gz", "c/1.png"]
        {
            let note = beside(&["README.md", name]).unwrap();
            assert!(note.contains("1 other files with data") && note.contains(name), "{note}");
        }
        for name in
            ["README.md", "load.py", "dataset_infos.json", "data/dataset_info.json", "logo.png", "csv"]
        {
            assert_eq!(beside(&[name]), None, "{name}");
        }
    }
}
