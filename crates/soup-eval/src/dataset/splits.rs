//! Splits: the files of a Hub folder are told apart by `train`, `validation`, `test` in their names or folders.
//!
//! The names are those that the datasets library looks for: `train-00000-of-00001.parquet`, `data/test.jsonl`, `dev.tsv`,
//! `validation/0.parquet`, `val/<class>/x.png`. Where files of more than one split are there, one has to be named: a soup that is
//! chosen on what it was trained or will be tested on is worth nothing.

use std::collections::BTreeMap;

use soup_core::{Error, Result};

use super::{has_extension, lines};
use crate::source::FileEntry;

/// What splits are called, the usual name of each first.
const SPLITS: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "val", "valid", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// The usual name of a split that is called `word`.
fn canonical(word: &str) -> Option<&'static str> {
    let lower = word.to_lowercase();
    SPLITS.iter().find(|names| names.contains(&lower.as_str())).map(|names| names[0])
}

/// Whether splits are called so.
pub(super) fn is_split(name: &str) -> bool {
    canonical(name).is_some()
}

/// The name in `NAME-00000-of-00001.parquet`.
fn sharded(stem: &str) -> Option<&str> {
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (name, index) = rest.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(index) && digits(of) && !name.is_empty()).then_some(name)
}

/// Whether a file holds samples of any class: the name of its folder is none of a class.
fn is_table(file: &str) -> bool {
    [&["parquet", "tar"][..], &lines::JSON, &lines::TABS].iter().any(|of| has_extension(file, of))
}

/// How many files the split of a sharded file has, as its name says.
fn shards(path: &str) -> Option<(&str, u64)> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    if !is_table(file) {
        return None;
    }
    Some((sharded(stem)?, stem.rsplit_once("-of-")?.1.parse().ok()?))
}

/// The first word of `name` that is a split: `cifar10_train`, `train-images`.
fn word(name: &str) -> Option<&'static str> {
    name.split(|c: char| !c.is_alphabetic()).find_map(canonical)
}

/// The split that a file belongs to, as far as its path says.
fn split_of(path: &str) -> Option<String> {
    let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.split('.').next().unwrap_or(file);
    let by_folder = |folders: &str| folders.rsplit('/').find_map(word);
    if !is_table(file) {
        // An image lies in the folder of its class, which may be called like a split, and that in the folder of a split.
        return by_folder(folders.rsplit_once('/')?.0).map(str::to_owned);
    }
    let found = match sharded(stem) {
        // The datasets library's own pattern: the name of any split, and how many files it has.
        Some(name) => return Some(canonical(name).or_else(|| by_folder(folders)).unwrap_or(name).to_owned()),
        None => word(stem),
    };
    found.or_else(|| by_folder(folders)).map(str::to_owned)
}

/// The files of one split, of `entries`, which are all data; and what people should know.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) where there are several and none is named, or another one is, or where one split is
/// there in several folders; [`Data`](soup_core::ErrorKind::Data) where it is there twice.
pub(super) fn choose(
    entries: Vec<FileEntry>,
    named: Option<&str>,
    about: &str,
) -> Result<(Vec<FileEntry>, Vec<String>)> {
    let mut splits: BTreeMap<Option<String>, Vec<FileEntry>> = BTreeMap::new();
    for entry in entries {
        splits.entry(split_of(&entry.path)).or_default().push(entry);
    }
    let names: Vec<String> = splits.keys().flatten().cloned().collect();
    let there = || match &names[..] {
        [] => "it has no splits".to_owned(),
        names => format!("it has {}", names.join(", ")),
    };
    let chosen = match named {
        Some(wanted) => {
            let wanted = canonical(wanted).unwrap_or(wanted);
            let found = splits.remove(&Some(wanted.to_owned()));
            found.ok_or_else(|| Error::usage(format!("{about} has no split {wanted:?}: {}", there())))?
        }
        None if names.len() > 1 => {
            return Err(Error::usage(format!(
                "{about} has several splits ({}): name one, as in URL#{}, or split: in a cook file",
                names.join(", "),
                names.iter().find(|n| *n == "validation").unwrap_or(&names[0])
            )));
        }
        None if names.len() == 1 && splits.contains_key(&None) => {
            let other = splits[&None].first().map_or("", |e| e.path.as_str());
            return Err(Error::usage(format!(
                "{about} has files of split {:?} and others, such as {other:?}: name the split, as in URL#{0}",
                names[0]
            )));
        }
        None => splits.into_values().flatten().collect(),
    };
    once(&chosen, about)?;
    let notes = complete(&chosen, about)?;
    Ok((chosen, notes))
}

/// Refuses the files of several configurations: the same names in several folders.
fn once(entries: &[FileEntry], about: &str) -> Result<()> {
    let mut folders: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in entries {
        let (folder, file) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        let key = match shards(&entry.path) {
            // All files of a sharded split lie together, whatever their number.
            Some((split, _)) => split,
            None if is_table(file) && word(file.split('.').next().unwrap_or(file)).is_some() => file,
            None => continue,
        };
        if let Some(other) = folders.insert(key, folder).filter(|other| *other != folder) {
            return Err(Error::usage(format!(
                "{about} has {key:?} in the folders {other:?} and {folder:?}: name one of them"
            )));
        }
    }
    Ok(())
}

/// Refuses a split that is there in two generations of files, and says where it lacks some.
fn complete(entries: &[FileEntry], about: &str) -> Result<Vec<String>> {
    let mut splits: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (split, total) in entries.iter().filter_map(|e| shards(&e.path)) {
        let (of, there) = splits.entry(split).or_insert((total, 0));
        *there += 1;
        if *of != total {
            return Err(Error::data(format!(
                "{about} has files of split {split:?} of {of} and of {total}, which are the same samples twice: remove one kind, or \
                 name the other by a glob"
            )));
        }
    }
    let lacking = splits.iter().filter(|(_, (of, there))| there < of);
    Ok(lacking
        .map(|(split, (of, there))| format!("has {there} of the {of} files of split {split:?}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<FileEntry> {
        paths.iter().map(|p| FileEntry { path: (*p).to_owned(), size_bytes: 1 }).collect()
    }

    fn chosen(paths: &[&str], named: Option<&str>) -> std::result::Result<Vec<String>, String> {
        let (chosen, _) = choose(entries(paths), named, "dataset URL").map_err(|e| e.chain())?;
        Ok(chosen.into_iter().map(|e| e.path).collect())
    }

    #[test]
    fn names_and_folders_say_which_split_a_file_is_of() {
        let check = |path: &str, split: Option<&str>| assert_eq!(split_of(path).as_deref(), split, "{path}");
        check("train-00000-of-00001.parquet", Some("train"));
        check("data/validation-00000-of-00003.parquet", Some("validation"));
        check("default/val.parquet", Some("validation"));
        check("test_noisy.parquet", Some("test"));
        check("challenge-00000-of-00001.parquet", Some("challenge"));
        check("dev/0000.parquet", Some("validation"));
        check("train/cat/1.png", Some("train"));
        check("Test/cat/1.png", Some("test"));
        check("cat/train.png", None);
        check("train/x.png", None);
        check("images/val/cat/1.png", Some("validation"));
        check("0.parquet", None);
        check("training_set.parquet", Some("train"));
        check("trainer.parquet", None);
        check("cifar10_train.parquet", Some("train"));
        check("my-test-01.parquet", Some("test"));
        check("imagenet-val-00000-of-00002.parquet", Some("imagenet-val"));
        check("train_images/cat/1.png", Some("train"));
        check("train/images/cat/1.png", Some("train"));
        check("set/split=test/0.parquet", Some("test"));
        check("latest/0.parquet", None);
        check("val/data-0-of-1.parquet", Some("validation"));
        check("cat/x-0-of-1.png", None);
        check("imagenet-val-000007.tar", Some("validation"));
        check("imagenet1k-train-0012.tar", Some("train"));
        check("test/0.tar", Some("test"));
        check("0.tar", None);
        check("validation.jsonl", Some("validation"));
        check("GLUE/SST-2/dev.tsv", Some("validation"));
        check("test/data.ndjson", Some("test"));
        check("data/train.json", Some("train"));
        check("validation-00000-of-00002.jsonl", Some("validation"));
        check("cat/train.jpeg", None);
    }

    #[test]
    fn of_several_splits_one_has_to_be_named() {
        let all = ["data/test-0-of-1.parquet", "data/train-0-of-1.parquet", "data/val.parquet"];
        let error = chosen(&all, None).unwrap_err();
        assert!(error.contains("(test, train, validation)") && error.contains("URL#validation"), "{error}");
        assert_eq!(chosen(&all, Some("validation")).unwrap(), ["data/val.parquet"]);
        assert_eq!(chosen(&all, Some("val")).unwrap(), ["data/val.parquet"]);
        let error = chosen(&all, Some("dev2")).unwrap_err();
        assert!(error.contains("no split \"dev2\"") && error.contains("it has test, train"), "{error}");
    }

    #[test]
    fn lines_have_splits_as_tables_do() {
        for all in [
            ["test.jsonl", "train.jsonl", "validation.jsonl"],
            ["test/data.jsonl", "train/data.jsonl", "validation/data.jsonl"],
            ["test.tsv", "train.tsv", "dev.tsv"],
        ] {
            assert!(chosen(&all, None).unwrap_err().contains("(test, train, validation)"));
            assert_eq!(chosen(&all, Some("validation")).unwrap(), all[2..]);
        }
        let error = chosen(&["en/test.jsonl", "fr/test.jsonl"], None).unwrap_err();
        assert!(error.contains("\"en\"") && error.contains("\"fr\""), "{error}");
        let notes = choose(entries(&["validation-00000-of-00002.jsonl"]), None, "dataset URL").unwrap().1;
        assert_eq!(notes, ["has 1 of the 2 files of split \"validation\""]);
    }

    #[test]
    fn one_split_or_none_needs_no_name() {
        let one = ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"];
        assert_eq!(chosen(&one, None).unwrap(), one);
        assert_eq!(chosen(&["0.parquet", "1.parquet"], None).unwrap().len(), 2);
        // Trains are a class of CIFAR-100.
        assert_eq!(chosen(&["cat/1.png", "train/1.png"], None).unwrap().len(), 2);
        assert!(chosen(&["0.parquet"], Some("test")).unwrap_err().contains("no splits"));
        assert!(chosen(&["train.parquet", "more.parquet"], None).unwrap_err().contains("more.parquet"));
    }

    #[test]
    fn configurations_are_not_mixed() {
        let two = ["en/test-0-of-1.parquet", "fr/test-0-of-1.parquet"];
        let error = chosen(&two, None).unwrap_err();
        assert!(error.contains("\"en\"") && error.contains("\"fr\""), "{error}");
        assert_eq!(chosen(&["a/0.parquet", "b/0.parquet"], None).unwrap().len(), 2);
        let other_counts = ["en/test-0-of-1.parquet", "fr/test-0-of-2.parquet", "fr/test-1-of-2.parquet"];
        assert!(chosen(&other_counts, Some("test")).unwrap_err().contains("\"fr\""));
    }

    #[test]
    fn a_split_is_there_once_and_whole() {
        let twice = ["test-0-of-1.parquet", "test-0-of-2.parquet", "test-1-of-2.parquet"];
        assert!(chosen(&twice, None).unwrap_err().contains("same samples twice"));
        let notes = |paths: &[&str]| choose(entries(paths), None, "dataset URL").unwrap().1;
        assert_eq!(notes(&["a/x-0-of-2.parquet", "a/x-1-of-2.parquet"]), [""; 0]);
        assert_eq!(notes(&["a/x-1-of-2.parquet"]), ["has 1 of the 2 files of split \"x\""]);
    }
}
