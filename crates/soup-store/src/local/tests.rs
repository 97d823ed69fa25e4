use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use soup_core::ErrorKind;

use super::*;
use crate::conformance::{fails, fifo};
use crate::location::Location;
use crate::read;

/// One of everything that is no file, and a link to it, with what it is.
fn others(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let made = |name: &str| folder.join(name);
    fifo(&made("fifo"));
    // Its name stays when nobody listens any more.
    std::os::unix::net::UnixListener::bind(made("socket")).unwrap();
    std::fs::create_dir(made("folder")).unwrap();
    let mut all = vec![
        (made("fifo"), "a FIFO, not a file"),
        (made("socket"), "a socket, not a file"),
        (made("folder"), "a folder, not a file"),
        (PathBuf::from("/dev/zero"), "a device, not a file"),
    ];
    for (place, what) in all.clone() {
        let link = folder.join(format!("link to {}", place.file_name().unwrap().to_str().unwrap()));
        symlink(place, &link).unwrap();
        all.push((link, what));
    }
    all
}

#[test]
fn nothing_but_files_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (place, what) in others(folder.path()) {
        let error = open(&place).unwrap_err();
        assert_eq!(NotAFile::behind(&error).unwrap().what(), what, "{}", place.display());
        assert!(read_small(&place, 9).unwrap_err().to_string().contains(what));
        // As if it had been a file a moment before.
        let error = open_now(&place).unwrap_err();
        let refused = NotAFile::behind(&error).map(NotAFile::what) == Some(what);
        assert!(refused || what.contains("socket"), "{}: {error}", place.display());
    }
    assert_eq!(open(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_file_is_read_up_to_a_bound_whatever_its_size_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "12345").unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    assert_eq!(read_small(&folder.path().join("link"), 5).unwrap(), b"12345");
    let error = read_small(&file, 4).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (io::ErrorKind::FileTooLarge, "it has more than 4 bytes")
    );
    // Its size is said to be 0.
    assert_eq!(read_small(Path::new("/proc/self/maps"), 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[tokio::test]
async fn no_way_to_read_a_place_waits() {
    let folder = tempfile::tempdir().unwrap();
    for (place, what) in others(folder.path()) {
        let place = Location::local(&place).unwrap();
        let expect = format!("{place} is {what}");
        fails(read::stat(&place).await, ErrorKind::Data, &expect);
        fails(read::read_small(&place, 9).await, ErrorKind::Data, &expect);
        fails(read::read_small_if_exists(&place, 9).await, ErrorKind::Data, &expect);
        fails(read::read_small_if_readable(&place, 9).await, ErrorKind::Data, &expect);
        fails(read::read_small_versioned(&place, 9).await, ErrorKind::Data, &expect);
        fails(read::read_range(&place, 0..9, None).await, ErrorKind::Data, &expect);
        fails(read::read_start(&place, 9).await, ErrorKind::Data, &expect);
        match what.contains("folder") {
            true => assert_eq!(read::stat_if_exists(&place).await.unwrap(), None),
            false => fails(read::stat_if_exists(&place).await, ErrorKind::Data, &expect),
        }
    }
}

#[test]
fn a_file_that_is_written_goes_through_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::fs::create_dir(folder.path().join("to")).unwrap();
    symlink(&victim, folder.path().join("to/name")).unwrap();
    let begin = || Folder::open_itself(&folder.path().join("to")).unwrap().create("name".as_ref()).unwrap();
    let (_file, temporary) = begin();
    assert_eq!(temporary.keep_if_absent().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(temporary);
    let ((mut file, temporary), (_, another)) = (begin(), begin());
    assert_ne!(temporary.temporary, another.temporary);
    drop(another);
    file.write_all(b"new").unwrap();
    temporary.keep().unwrap();
    drop(temporary);
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    assert_eq!(std::fs::read(folder.path().join("to/name")).unwrap(), b"new");
    assert!(!folder.path().join("to/name").is_symlink());
    assert_eq!(std::fs::read_dir(folder.path().join("to")).unwrap().count(), 1);
}

#[test]
fn a_folder_is_where_it_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (own, moved, victim) =
        (folder.path().join("own"), folder.path().join("moved"), folder.path().join("victim"));
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&victim).unwrap();
    let held = Folder::open_itself(&own).unwrap();
    std::fs::rename(&own, &moved).unwrap();
    symlink(&victim, &own).unwrap();
    let (_, temporary) = held.create("name".as_ref()).unwrap();
    temporary.keep().unwrap();
    temporary.folder().sync().unwrap();
    assert!(moved.join("name").exists());
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    assert_eq!(Folder::open_itself(&own).err().unwrap().kind(), io::ErrorKind::NotADirectory);
    assert!(Folder::open(&own).is_ok());
}

#[test]
fn only_what_writers_left_behind_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.1.tmp", "b.tmp", "c.tmp.json", "tmp"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    symlink("tmp", folder.path().join("link.tmp")).unwrap();
    Folder::open_itself(folder.path()).unwrap().remove_temporaries().unwrap();
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["c.tmp.json", "tmp"]);
}

#[test]
fn folders_are_made_where_the_one_above_is_whatever_its_name_leads_to() {
    let outer = tempfile::tempdir().unwrap();
    let place = |name: &str| outer.path().join(name);
    for _ in 0..2 {
        Folder::make(&place("a/b/c")).unwrap().create("file".as_ref()).unwrap();
    }
    std::fs::create_dir(place("elsewhere")).unwrap();
    // Its name leads elsewhere by now.
    let held = Folder::open(&place("a/b")).unwrap();
    std::fs::rename(place("a/b"), place("moved")).unwrap();
    symlink(place("elsewhere"), place("a/b")).unwrap();
    held.make_within("x".as_ref()).unwrap();
    held.rename("x".as_ref(), "y".as_ref()).unwrap();
    assert!(place("moved/y").is_dir() && std::fs::read_dir(place("elsewhere")).unwrap().next().is_none());
    assert_eq!(held.make_within("y".as_ref()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    // A link that leads nowhere is not taken for a folder that is missing.
    symlink(place("nowhere"), place("broken")).unwrap();
    let error = Folder::make(&place("broken/x")).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    assert!(!place("nowhere").exists());
    // Nor one for the folder or the file that it leads to.
    symlink("y", place("moved/link")).unwrap();
    std::fs::write(place("moved/file"), "").unwrap();
    symlink("file", place("moved/file link")).unwrap();
    assert!(held.folder("y".as_ref()).is_ok() && held.folder("link".as_ref()).is_err());
    assert!(held.has_file("file".as_ref()) && !held.has_file("file link".as_ref()));
}

#[test]
fn a_secret_is_not_for_everybody_on_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let created = |name: &str| {
        let (file, _temporary) = Folder::open(folder.path()).unwrap().create(name.as_ref()).unwrap();
        std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()) & 0o777
    };
    assert_eq!(created("secret"), created("plan.json") & 0o660);
}
