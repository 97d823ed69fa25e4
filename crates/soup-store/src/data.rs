//! The files of a dataset: what a URL names, be it one file, all that is below a folder, or what a glob matches.

use soup_core::journal::sha256_hex;
use soup_core::{Error, ErrorKind, Result};

use crate::glob;
use crate::listing::{self, Entry, Odd, with_left_out};
use crate::location::Location;
use crate::read::{self, Stamp};

/// Most files of a folder.
const FILES_MAX: usize = 4_000_000;

/// What numbers of classes in archives stand for, beside or above them.
const CLASS_NAMES: &str = "classnames.txt";

/// The files that `url` names, with their names relative to it, and in the order of those. A file that is named itself goes by
/// its own name. Hidden files are left out. Where there are archives, `classnames.txt` is among them, though it lies in a folder above
/// (`../classnames.txt`: in the one around what is named).
///
/// # Errors
/// [`ErrorKind::Data`] where there is nothing, and for what is there and cannot be read: broken links, FIFOs,
/// folders without rights, names that are none; otherwise what the store says.
pub async fn files(url: &str) -> Result<Vec<Entry>> {
    // A file that is called like a glob is that file.
    let literal = Location::parse(url).ok().filter(|l| l.local_path().is_some_and(std::path::Path::exists));
    if literal.is_none()
        && let Some(matches) = glob::expand(url).await?
    {
        refuse_odd(url, &matches.odd)?;
        let base = glob::Glob::parse(url)?.map(|glob| glob.base()).transpose()?;
        return with_class_names(matches.entries, base, true).await;
    }
    let location = match literal {
        Some(location) => location,
        None => Location::parse(url)?,
    };
    if let Some(stamp) = read::stat_if_exists(&location).await? {
        let around = location.parent();
        let file = Entry { name: location.name().to_owned(), location, stamp: Some(stamp) };
        return with_class_names(vec![file], around, true).await;
    }
    let listing = match location.is_http() {
        true => listing::Listing::default(),
        false => look(&location).await?,
    };
    refuse_odd(&location.to_string(), &listing.odd)?;
    let mut entries = listing.entries;
    entries.retain(|e| e.stamp.is_some());
    if entries.is_empty() {
        let none = glob::no_wildcards(url);
        return Err(Error::data(format!("{location} does not exist, or holds no files{none}")));
    }
    with_class_names(entries, Some(location), false).await
}

/// With the names of the classes in the nearest folder above all archives, where these lack them. Names of `entries` are relative to
/// `base`, and `some` says whether others may be there.
async fn with_class_names(mut entries: Vec<Entry>, base: Option<Location>, some: bool) -> Result<Vec<Entry>> {
    let Some(base) = base else { return Ok(entries) };
    let is_archive = |e: &&Entry| e.name.len() > 4 && e.name.to_ascii_lowercase().ends_with(".tar");
    let folder =
        |e: &Entry| e.name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let Some(mut above) = entries.iter().filter(is_archive).map(folder).reduce(common) else {
        return Ok(entries);
    };
    loop {
        let name = format!("{above}{CLASS_NAMES}");
        if entries.iter().any(|e| e.name == name) {
            return Ok(entries);
        }
        let found = if some { class_names(&base.join(&name)?).await? } else { None };
        if let Some((location, stamp)) = found {
            entries.push(Entry { name, location, stamp: Some(stamp) });
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(entries);
        }
        match above.trim_end_matches('/').rsplit_once('/') {
            _ if above.is_empty() => break,
            Some((outer, _)) => above = format!("{outer}/"),
            None => above.clear(),
        }
    }
    let Some(around) = base.parent() else { return Ok(entries) };
    if let Some((location, stamp)) = class_names(&around.join(CLASS_NAMES)?).await? {
        entries.insert(0, Entry { name: format!("../{CLASS_NAMES}"), location, stamp: Some(stamp) });
    }
    Ok(entries)
}

/// The folder that both are in; each ends in a slash, unless it is the outermost.
fn common(one: String, other: String) -> String {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    one.as_bytes()[..same]
        .iter()
        .rposition(|&b| b == b'/')
        .map_or(String::new(), |slash| one[..=slash].to_owned())
}

/// A file of names of classes, if it is there. What may not be seen is as good as absent.
async fn class_names(location: &Location) -> Result<Option<(Location, Stamp)>> {
    match read::stat_if_a_file(location).await {
        Ok(stamp) => Ok(stamp.map(|stamp| (location.clone(), stamp))),
        Err(e) if e.kind() == ErrorKind::Unavailable && !location.is_http() => Err(e),
        Err(_) => Ok(None),
    }
}

/// All that is below a folder, and the keys of an object store that are no path.
async fn look(location: &Location) -> Result<listing::Listing> {
    let (listed, left_out) = with_left_out(listing::look_deep_up_to(location, FILES_MAX)).await;
    let mut listing = listed?;
    let below = |key: &str| key.strip_prefix(location.path().as_ref()).unwrap_or(key).to_owned();
    let shown = left_out.into_iter().filter(|key| !listing::is_hidden(&below(key)));
    let odd = shown.map(|key| Odd::new(key, "a key that is no path"));
    listing.odd.extend(odd);
    Ok(listing)
}

/// Files that tell of data and hold none.
const ABOUT: [&str; 12] =
    ["md", "rst", "py", "ipynb", "sh", "yaml", "yml", "toml", "pdf", "cff", "bib", "lock"];

/// Whether samples may be in it.
fn may_hold_data(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let tells = |ending: &str| ABOUT.iter().any(|about| about.eq_ignore_ascii_case(ending));
    file != listing::LOST_AND_FOUND && !file.rsplit_once('.').is_some_and(|(_, ending)| tells(ending))
}

/// Without what cannot be read the dataset would be another one, and nobody would know.
fn refuse_odd(place: &str, odd: &[Odd]) -> Result<()> {
    match odd.iter().find(|odd| odd.special || may_hold_data(&odd.name)) {
        Some(odd) if odd.away => Err(odd.refusal(format!("dataset {place}"))),
        Some(odd) if odd.special => {
            Err(Error::data(format!("{:?} in dataset {place} is {}", odd.name, odd.what)))
        }
        Some(odd) => Err(Error::data(format!(
            "{:?} in dataset {place} is {}: repair or remove it, or name the others by a glob",
            odd.name, odd.what
        ))),
        None => Ok(()),
    }
}

/// A digest of what `url` names as far as the store tells without reading it: names, sizes and ETags. Equal content under other
/// ETags has another fingerprint; what is there is never mistaken for something else.
///
/// # Errors
/// As for [`files`].
pub async fn fingerprint(url: &str) -> Result<String> {
    files(url).await.map(|files| fingerprint_of(&files))
}

/// The same of files that were listed.
pub fn fingerprint_of(files: &[Entry]) -> String {
    let line = |name: &str, stamp: &Stamp| {
        format!("{name}\0{}\0{}\n", stamp.size_bytes, stamp.etag.as_deref().unwrap_or_default())
    };
    let mut lines: Vec<String> =
        files.iter().filter_map(|e| Some(line(&e.name, e.stamp.as_ref()?))).collect();
    lines.sort_unstable();
    sha256_hex(lines.concat().as_bytes())
}

/// Refuses files that are not those of `fingerprint`, where there is one to compare with.
///
/// # Errors
/// [`ErrorKind::Data`], naming the dataset.
pub fn check_pin(url: &str, files: &[Entry], fingerprint: Option<&str>) -> Result<()> {
    match fingerprint.is_some_and(|pin| pin != fingerprint_of(files)) {
        true => Err(Error::data(format!(
            "dataset {url} is not what it was when the run was submitted, and scores would be those of other data: it has changed \
             (submit the run again), or this worker sees other files there than the coordinator (of copies on local disks the times \
             differ: name a place that all share)"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(url: &str) -> std::result::Result<Vec<String>, String> {
        let files = files(url).await.map_err(|e| e.chain())?;
        Ok(files.into_iter().map(|e| e.name).collect())
    }

    #[tokio::test]
    async fn a_file_a_folder_and_a_glob() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        for path in [
            "a/1.parquet",
            "a/2.parquet",
            "b/1.parquet",
            "b/x.txt",
            ".git/1.parquet",
            "b/._1.parquet",
            "c#1/x",
            "d/x#1",
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        assert_eq!(names(&format!("{root}/a/1.parquet")).await.unwrap(), ["1.parquet"]);
        assert_eq!(
            names(root).await.unwrap(),
            ["a/1.parquet", "a/2.parquet", "b/1.parquet", "b/x.txt", "c#1/x", "d/x#1"]
        );
        assert_eq!(names(&format!("{root}/d/x#1")).await.unwrap(), ["x#1"]);
        assert_eq!(names(&format!("{root}/*/1.parquet")).await.unwrap(), ["a/1.parquet", "b/1.parquet"]);
        assert_eq!(names(&format!("{root}/**/*.txt")).await.unwrap(), ["b/x.txt"]);
        assert!(names(&format!("{root}/c")).await.unwrap_err().contains("does not exist"));
        assert!(names(&format!("{root}/c/*")).await.unwrap_err().contains("no file matches"));
        for url in ["a/{1,2}.parquet", "[ab]/*"] {
            let error = names(&format!("{root}/{url}")).await.unwrap_err();
            assert!(error.contains("braces and brackets are none"), "{error}");
        }
        std::fs::write(folder.path().join("odd*name"), "x").unwrap();
        assert_eq!(names(&format!("{root}/odd*name")).await.unwrap(), ["odd*name"]);
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_left_out_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        std::fs::create_dir(folder.path().join("cats")).unwrap();
        std::fs::write(folder.path().join("cats/1.png"), "x").unwrap();
        crate::conformance::fifo(&folder.path().join("cats/2.png"));
        let expect = "\"cats/2.png\" in dataset";
        for url in [root.to_owned(), format!("{root}/*/*.png")] {
            let error = names(&url).await.unwrap_err();
            assert!(error.contains(expect) && error.contains("is a FIFO, not a file"), "{error}");
        }
        let error = names(&format!("{root}/cats/2.png")).await.unwrap_err();
        assert!(error.contains("cats/2.png is a FIFO, not a file"), "{error}");
        assert!(names("/dev/zero").await.unwrap_err().contains("/dev/zero is a device, not a file"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_left_out_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        std::fs::create_dir(folder.path().join("cats")).unwrap();
        std::fs::write(folder.path().join("cats/1.png"), "x").unwrap();
        let link =
            |name: &str| std::os::unix::fs::symlink("/nowhere/blob", folder.path().join(name)).unwrap();
        // These tell of data, and hold none.
        link("README.md");
        link("lost+found");
        assert_eq!(names(root).await.unwrap(), ["cats/1.png"]);
        link("cats/2.png");
        let all = [root.to_owned(), format!("{root}/*/*.png"), format!("{root}/**/*.png")];
        for url in &all {
            let error = names(url).await.unwrap_err();
            assert!(error.contains("\"cats/2.png\" in dataset"), "{error}");
            assert!(error.contains("is a broken link to /nowhere/blob"), "{error}");
        }
        // What is named besides needs none of it.
        assert_eq!(names(&format!("{root}/*/1.*")).await.unwrap(), ["cats/1.png"]);
        std::fs::remove_file(folder.path().join("cats/2.png")).unwrap();
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"cats/caf\xe9.png");
        std::fs::write(folder.path().join(name), "x").unwrap();
        for url in &all {
            let error = names(url).await.unwrap_err();
            assert!(error.contains("is not named in UTF-8"), "{error}");
        }
    }

    #[test]
    fn a_folder_without_rights_is_refused_by_name() {
        let odd = |name: &str| [Odd::new(name, "a folder that cannot be read")];
        let error = refuse_odd("d", &odd("part1")).unwrap_err().chain();
        assert!(error.contains("\"part1\" in dataset d is a folder that cannot be read"), "{error}");
        for harmless in ["lost+found", "README.md", "data/load.PY"] {
            assert!(refuse_odd("d", &odd(harmless)).is_ok(), "{harmless}");
        }
    }

    #[tokio::test]
    async fn names_of_classes_are_found_above_archives() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("wds");
        std::fs::create_dir_all(root.join("test")).unwrap();
        for path in ["classnames.txt", "test/0.tar", "test/1.tar", "test/x.parquet"] {
            std::fs::write(root.join(path), "x").unwrap();
        }
        let root = root.to_str().unwrap();
        for (url, want) in [
            ("", "classnames.txt"),
            ("/test", "../classnames.txt"),
            ("/test/0.tar", "../classnames.txt"),
            ("/test/*.tar", "../classnames.txt"),
            ("/*/0.tar", "classnames.txt"),
            ("/**/*.tar", "classnames.txt"),
        ] {
            let names = names(&format!("{root}{url}")).await.unwrap();
            assert!(names.iter().any(|name| name == want), "{url}: {names:?}");
            assert_eq!(names.iter().filter(|name| name.ends_with("classnames.txt")).count(), 1, "{names:?}");
        }
        assert_eq!(names(&format!("{root}/test/x.parquet")).await.unwrap(), ["x.parquet"]);
        // The nearest one is theirs, and what is read has to stay what it was.
        let before = fingerprint(&format!("{root}/test/*.tar")).await.unwrap();
        std::fs::write(format!("{root}/test/classnames.txt"), "x").unwrap();
        for url in ["/test/0.tar", "/test/*.tar", "/test"] {
            let names = names(&format!("{root}{url}")).await.unwrap();
            assert!(
                names.contains(&"classnames.txt".to_owned()) && !names[0].starts_with("../"),
                "{names:?}"
            );
        }
        assert_eq!(names(&format!("{root}/*/0.tar")).await.unwrap(), ["test/0.tar", "test/classnames.txt"]);
        assert_ne!(fingerprint(&format!("{root}/test/*.tar")).await.unwrap(), before);
    }

    #[test]
    fn the_folder_that_all_are_in() {
        for (one, other, want) in [
            ("a/b/", "a/c/", "a/"),
            ("a/", "a/", "a/"),
            ("ab/", "ac/", ""),
            ("", "a/", ""),
            ("é/x/", "è/x/", ""),
        ] {
            assert_eq!(common(one.to_owned(), other.to_owned()), want);
        }
    }

    #[tokio::test]
    async fn a_dataset_that_was_replaced_is_another_one_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("v.parquet"), folder.path().join("aside"));
        let url = file.to_str().unwrap();
        std::fs::write(&file, "labels").unwrap();
        let pin = fingerprint(url).await.unwrap();
        let check = async || check_pin(url, &files(url).await.unwrap(), Some(&pin)).map_err(|e| e.chain());
        check().await.unwrap();
        std::fs::rename(&file, &aside).unwrap();
        std::fs::write(&file, "slabel").unwrap();
        let error = check().await.unwrap_err();
        assert!(error.contains("v.parquet is not what it was when the run was submitted"), "{error}");
        std::fs::rename(&aside, &file).unwrap();
        check().await.unwrap();
        assert!(check_pin(url, &[], None).is_ok());
    }

    #[tokio::test]
    async fn a_fingerprint_is_of_the_files_that_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("1.parquet"), "x").unwrap();
        let (all, some) = (root.to_owned(), format!("{root}/*.parquet"));
        let before = (fingerprint(&all).await.unwrap(), fingerprint(&some).await.unwrap());
        std::fs::write(folder.path().join("readme"), "x").unwrap();
        assert_ne!(fingerprint(&all).await.unwrap(), before.0);
        assert_eq!(fingerprint(&some).await.unwrap(), before.1);
    }
}
