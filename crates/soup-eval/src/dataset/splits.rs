//! Splits: the files of a Hub folder are told apart by `train`, `validation`, `test` in their names or folders.
//!
//! The names are those that the datasets library looks for: `train-00000-of-00001.parquet`, `data/test.jsonl`, `dev.tsv`,
//! `validation/0.parquet`, `val/<class>/x.png`. Where files of more than one split are there, one has to be named: a soup that is
//! chosen on what it was trained or will be tested on is worth nothing.

use std::collections::{BTreeMap, BTreeSet};

use soup_core::{Error, Result};

use super::{has_extension, lines};
use crate::source::FileEntry;

/// Names of files that a note has.
const NAMES_MAX: usize = 4;
/// What splits are called, the usual name of each first.
const SPLITS: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "val", "valid", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// What the name of a split may have behind it.
const OF_DATA: [&str; 3] = ["set", "data", "split"];

/// What a split that is called `word` is called, in one spelling.
fn known(word: &str) -> Option<&'static str> {
    let lower = word.to_lowercase();
    let is = |word: &str| SPLITS.iter().flat_map(|names| names.iter()).find(|name| **name == word).copied();
    is(&lower).or_else(|| OF_DATA.iter().find_map(|of| is(lower.strip_suffix(of)?)))
}

/// The usual name of a split that is called `word`.
fn canonical(word: &str) -> Option<&'static str> {
    let word = known(word)?;
    SPLITS.iter().find(|names| names.contains(&word)).map(|names| names[0])
}

/// Whether splits are called so.
pub(super) fn is_split(name: &str) -> bool {
    canonical(name).is_some()
}

/// What `NAME-00000-of-00001.parquet` says: its name, which file it is and of how many. The Hub's may have a digest behind that.
fn sharded(stem: &str) -> Option<(&str, u64, u64)> {
    let (rest, of) = stem.rsplit_once("-of-")?;
    let (name, index) = rest.rsplit_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let of = match of.split_once('-') {
        Some((of, digest)) if digest.len() >= 6 && digest.bytes().all(|b| b.is_ascii_hexdigit()) => of,
        Some(_) => return None,
        None => of,
    };
    Some((name, number(index)?, number(of)?)).filter(|_| !name.is_empty())
}

/// The name of a file up to its first dot.
fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

/// Whether a file holds samples of any class: the name of its folder is none of a class.
fn is_table(file: &str) -> bool {
    [&["parquet", "tar"][..], &lines::JSON, &lines::TABS].iter().any(|of| has_extension(file, of))
}

/// What the name of a sharded file says.
fn shards(path: &str) -> Option<(&str, u64, u64)> {
    if is_table(path) { sharded(stem(path)) } else { None }
}

/// The first word of `name` that is a split: `cifar10_train`, `train-images`, `valset`.
fn word(name: &str) -> Option<&'static str> {
    name.split(|c: char| !c.is_alphabetic()).find_map(known)
}

/// The folder that is called like a split and nearest to the file, and the folder that it is in.
fn by_folder(folders: &str) -> Option<(&'static str, &str)> {
    let mut rest = folders;
    loop {
        let (outer, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        match word(last) {
            Some(word) => return Some((word, outer)),
            None if outer.is_empty() => return None,
            None => rest = outer,
        }
    }
}

/// What the split is called that a file belongs to, as far as its path says.
fn called(path: &str) -> Option<&str> {
    let (folders, _) = path.rsplit_once('/').unwrap_or_default();
    let in_folder = |folders| by_folder(folders).map(|(word, _)| word);
    if !is_table(path) {
        // An image lies in the folder of its class, which may be called like a split, and that in the folder of a split.
        return in_folder(folders.rsplit_once('/')?.0);
    }
    match shards(path) {
        // The datasets library's own pattern: the name of any split, and how many files it has.
        Some((name, ..)) => known(name).or_else(|| in_folder(folders)).or(Some(name)),
        None => word(stem(path)).or_else(|| in_folder(folders)),
    }
}

/// The split that a file belongs to, as far as its path says.
fn split_of(path: &str) -> Option<String> {
    called(path).map(|word| canonical(word).unwrap_or(word).to_owned())
}

/// The files of one split, of `entries`, which are all data; and what people should know.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) where there are several and none is named, or another one is, or where one split is
/// there in several folders or by several names; [`Data`](soup_core::ErrorKind::Data) where it is there twice.
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
    let (chosen, mut notes) = of_one_name(chosen, named, about)?;
    once(&chosen, about)?;
    notes.extend(complete(&chosen, about)?);
    notes.extend(copies(&chosen, about)?);
    notes.extend(put_together(&chosen));
    Ok((chosen, notes))
}

/// Those of one name: val and dev are both what is usually called validation, and may be one split or two.
fn of_one_name(
    entries: Vec<FileEntry>,
    named: Option<&str>,
    about: &str,
) -> Result<(Vec<FileEntry>, Vec<String>)> {
    let names: BTreeSet<String> = entries.iter().filter_map(|e| called(&e.path)).map(str::to_owned).collect();
    let mut others = names.iter().map(String::as_str);
    let Some(first) = others.next().filter(|_| names.len() > 1) else { return Ok((entries, Vec::new())) };
    let Some(wanted) = named.and_then(known).filter(|name| names.contains(*name)) else {
        let all = names.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
        return Err(Error::usage(format!(
            "{about} has files of {all}, which are names of one split: name one of them, as in URL#{first}"
        )));
    };
    let (chosen, left_out): (Vec<FileEntry>, Vec<FileEntry>) =
        entries.into_iter().partition(|e| called(&e.path) == Some(wanted));
    let note = left_out.first().map(|other| {
        format!(
            "is read from its files of {wanted:?}; {} of other names were left out, such as {:?}",
            left_out.len(),
            other.path
        )
    });
    Ok((chosen, note.into_iter().collect()))
}

/// What names a file in every configuration of a dataset, and the folder that it has in one of them.
fn in_configuration(path: &str) -> Option<(&str, &str)> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    if !is_table(file) {
        return None;
    }
    // All files of a sharded split lie together, whatever their number.
    if let Some((split, ..)) = shards(path) {
        return Some((split, folder));
    }
    if word(stem(file)).is_some() {
        return Some((file, folder));
    }
    let (_, outer) = by_folder(folder)?;
    Some((path[outer.len()..].trim_start_matches('/'), outer))
}

/// Refuses the files of several configurations: the same names in several folders.
fn once(entries: &[FileEntry], about: &str) -> Result<()> {
    let mut folders: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, folder) in entries.iter().filter_map(|e| in_configuration(&e.path)) {
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
    let mut splits: BTreeMap<&str, (u64, BTreeMap<u64, &str>)> = BTreeMap::new();
    for entry in entries {
        let Some((split, index, total)) = shards(&entry.path) else { continue };
        let (of, there) = splits.entry(split).or_insert_with(|| (total, BTreeMap::new()));
        if *of != total {
            return Err(Error::data(format!(
                "{about} has files of split {split:?} of {of} and of {total}, which are the same samples twice: remove one kind, or \
                 name the other by a glob"
            )));
        }
        if let Some(other) = there.insert(index, &entry.path) {
            return Err(twice(other, &entry.path, about));
        }
    }
    for entry in entries.iter().filter(|e| is_table(&e.path) && shards(&e.path).is_none()) {
        if let Some(other) = splits.get(stem(&entry.path)).and_then(|(_, there)| there.values().next()) {
            return Err(twice(other, &entry.path, about));
        }
    }
    let lacking = splits.iter().map(|(split, (of, there))| (split, of, there.len() as u64));
    Ok(lacking
        .filter(|(_, of, there)| there < *of)
        .map(|(split, of, there)| format!("has {there} of the {of} files of split {split:?}"))
        .collect())
}

fn twice(one: &str, other: &str, about: &str) -> Error {
    Error::data(format!(
        "{about} has {one:?} and {other:?}, which are the same samples twice by their names: remove one, or name the other by a glob"
    ))
}

/// What a file is a copy of, as file managers and browsers call those.
fn original(stem: &str) -> Option<&str> {
    let numbered = |stem: &str| {
        let (name, number) = stem.strip_suffix(')')?.rsplit_once(" (")?;
        number.bytes().all(|b| b.is_ascii_digit()).then_some(name.len())
    };
    let copied = [" - Copy", " copy", "-copy", "_copy"].iter().find_map(|end| stem.strip_suffix(end));
    copied.or_else(|| stem.strip_prefix("Copy of ")).or_else(|| Some(&stem[..numbered(stem)?]))
}

/// A file that is there, and one that is a copy of it by its name.
fn copy<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Option<(&'a str, &'a str)> {
    let of = |path: &str, stem: &str| -> Option<String> {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        Some(format!("{folder}/{stem}{}", file.strip_prefix(self::stem(path))?))
    };
    let mut copies =
        paths.clone().filter_map(|path| Some((of(path, original(stem(path))?)?, path))).peekable();
    copies.peek()?;
    let there: BTreeMap<String, &str> =
        paths.filter_map(|path| Some((of(path, stem(path))?, path))).collect();
    copies.find_map(|(original, path)| Some((*there.get(&original)?, path)))
}

/// Refuses copies of tables beside what they are copies of. Of images the names say less, and it is noted.
fn copies(entries: &[FileEntry], about: &str) -> Result<Option<String>> {
    let tables = entries.iter().map(|e| e.path.as_str()).filter(|path| is_table(path));
    if let Some((one, other)) = copy(tables) {
        return Err(twice(one, other, about));
    }
    let images = entries.iter().map(|e| e.path.as_str()).filter(|path| !is_table(path));
    Ok(copy(images).map(|(one, other)| {
        format!("has images that are copies of others by their names, such as {other:?} of {one:?}: they may count twice")
    }))
}

/// What is said where files are put together that differ in more than numbers.
fn put_together(entries: &[FileEntry]) -> Option<String> {
    let letters = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let kind = |path: &str| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let name = shards(path).map_or_else(|| letters(stem(path)), |(name, ..)| name.to_owned());
        (letters(folder), name)
    };
    let mut kinds: BTreeMap<(String, String), &str> = BTreeMap::new();
    for entry in entries.iter().filter(|e| is_table(&e.path)) {
        kinds.entry(kind(&entry.path)).or_insert(&entry.path);
    }
    let shown: Vec<String> = kinds.values().take(NAMES_MAX).map(|path| format!("{path:?}")).collect();
    let more = if kinds.len() > NAMES_MAX {
        format!(" and {} more", kinds.len() - NAMES_MAX)
    } else {
        String::new()
    };
    (kinds.len() > 1).then(|| {
        format!(
            "is put together from files of {} names: {}{more} (a glob names fewer)",
            kinds.len(),
            shown.join(", ")
        )
    })
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
    fn a_configuration_is_a_folder_around_that_of_the_split() {
        for two in [
            ["en/test/0000.parquet", "fr/test/0000.parquet"],
            ["en/test/data.jsonl", "fr/test/data.jsonl"],
            ["en/test/x-0-of-1.tar", "fr/test/x-0-of-1.tar"],
        ] {
            let error = chosen(&two, Some("test")).unwrap_err();
            assert!(error.contains("\"en") && error.contains("\"fr"), "{error}");
        }
        let one = ["en/test/0000.parquet", "en/test/0001.parquet"];
        assert_eq!(chosen(&one, Some("test")).unwrap(), one);
    }

    #[test]
    fn names_of_one_split_are_not_mixed() {
        let all = ["eval.parquet", "test.parquet", "train.parquet"];
        assert_eq!(chosen(&all, Some("eval")).unwrap(), all[..1]);
        let (test, notes) = choose(entries(&all), Some("test"), "dataset URL").unwrap();
        assert_eq!(test, entries(&all[1..2]));
        assert_eq!(
            notes,
            ["is read from its files of \"test\"; 1 of other names were left out, such as \"eval.parquet\""]
        );
        let both = ["dev.parquet", "val.parquet"];
        for named in [None, Some("validation")] {
            let error = chosen(&both, named).unwrap_err();
            assert!(error.contains("dev and val") && error.contains("URL#dev"), "{error}");
        }
        assert_eq!(chosen(&both, Some("VAL")).unwrap(), both[1..]);
        let sets = ["testset.parquet", "trainData.parquet", "valset.parquet"];
        assert!(chosen(&sets, None).unwrap_err().contains("(test, train, validation)"));
        assert_eq!(chosen(&sets, Some("validation")).unwrap(), sets[2..]);
    }

    #[test]
    fn what_is_put_together_is_said() {
        let notes = |paths: &[&str]| choose(entries(paths), None, "dataset URL").unwrap().1;
        let two = notes(&["test.parquet", "test_noisy.parquet"]);
        let expect = "is put together from files of 2 names: \"test.parquet\", \"test_noisy.parquet\" (a glob names fewer)";
        assert_eq!(two, [expect]);
        assert_eq!(notes(&["validation_matched.tsv", "validation_mismatched.tsv"]).len(), 1);
        let many = notes(&["a.tar", "b.tar", "c.tar", "d.tar", "e.tar"]);
        assert!(many[0].contains("5 names") && many[0].contains("\"d.tar\" and 1 more"), "{many:?}");
        // As programs number them.
        for shards in [
            &["test/0.parquet", "test/1.parquet"][..],
            &["data-1/test_00.tar", "data-2/test_01.tar"],
            &["part-00000-5b7e-c000.snappy.parquet", "part-00001-5b7e-c000.snappy.parquet"],
            &[
                "en/test-00000-of-00002-b42a775f407cee45.parquet",
                "en/test-00001-of-00002-0c1e2d3b4a596877.parquet",
            ],
            &["cat/a.png", "dog/b.png"],
        ] {
            assert_eq!(notes(shards), [""; 0], "{shards:?}");
        }
    }

    #[test]
    fn images_that_are_copies_by_their_names_are_noted() {
        let notes = |paths: &[&str]| choose(entries(paths), None, "dataset URL").unwrap().1;
        let said = notes(&["cat/x (1).png", "cat/x.png", "dog/x.png"]);
        assert!(said.len() == 1 && said[0].contains(r#""cat/x (1).png" of "cat/x.png""#), "{said:?}");
        for others in [["cat/x (1).png", "cat/x (2).png"], ["cat/x (1).png", "dog/x.png"]] {
            assert_eq!(notes(&others), [""; 0]);
        }
    }

    #[test]
    fn the_same_samples_are_not_read_twice() {
        for two in [
            ["validation-00000-of-00001.parquet", "validation.parquet"],
            ["validation-00000-of-00001.parquet", "validation-00000-of-00001-b42a775f407cee45.parquet"],
            ["data1 (1).parquet", "data1.parquet"],
            ["a/data1 copy.jsonl", "a/data1.jsonl"],
            ["Copy of x.tar", "x.tar"],
        ] {
            let error = chosen(&two, None).unwrap_err();
            assert!(error.contains("same samples twice"), "{error}");
        }
        for more in [["a/data1 (1).parquet", "b/data1.parquet"], ["cat/x (1).png", "cat/x.png"]] {
            assert_eq!(chosen(&more, None).unwrap(), more);
        }
    }

    #[test]
    fn a_split_is_there_once_and_whole() {
        let twice = ["test-0-of-1.parquet", "test-0-of-2.parquet", "test-1-of-2.parquet"];
        assert!(chosen(&twice, None).unwrap_err().contains("same samples twice"));
        let notes = |paths: &[&str]| choose(entries(paths), None, "dataset URL").unwrap().1;
        assert_eq!(notes(&["a/x-0-of-2.parquet", "a/x-1-of-2.parquet"]), [""; 0]);
        assert_eq!(notes(&["a/x-1-of-2.parquet"]), ["has 1 of the 2 files of split \"x\""]);
        let with_digest = "validation-00000-of-00002-b42a775f407cee45.parquet";
        assert_eq!(notes(&[with_digest]), ["has 1 of the 2 files of split \"validation\""]);
    }
}
