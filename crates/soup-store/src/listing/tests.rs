use super::*;
use crate::conformance::{memory, put};

fn names(listing: &Listing) -> (Vec<&str>, Vec<(&str, &str)>) {
    let entries = listing.entries.iter().map(|e| e.name.as_str()).collect();
    (entries, listing.odd.iter().map(|o| (o.name.as_str(), o.what.as_str())).collect())
}

#[cfg(unix)]
#[tokio::test]
async fn odd_names_do_not_stop_a_listing() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let root = Location::local(dir.path()).unwrap();
    for file in ["a", "sub/x", "sub/y%2Fz", "._a", ".cache/b", "a+ b~{}", "Thumbs.db", "sub/x#12", "run#2/x"]
    {
        put(&root, "a", "x").await;
        std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(file), "x").unwrap();
    }
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt")), "x").unwrap();
    std::fs::write(dir.path().join("tab\there"), "x").unwrap();
    std::os::unix::fs::symlink("../nowhere", dir.path().join("gone")).unwrap();
    std::os::unix::fs::symlink("..", dir.path().join("sub/up")).unwrap();
    std::os::unix::fs::symlink("self", dir.path().join("self")).unwrap();
    std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();

    let one = look(&root).await.unwrap();
    let (entries, odd) = names(&one);
    assert_eq!(entries, ["._a", ".cache", "Thumbs.db", "a", "a+ b~{}", "run#2", "sub"]);
    let expect = [
        ("caf\u{fffd}.txt", "not named in UTF-8"),
        ("gone", "a broken link to ../nowhere"),
        ("self", "a broken link to self"),
        ("socket", "a socket, not a file"),
        ("tab\there", "not usable as a name"),
    ];
    assert_eq!(odd, expect);
    let all = look_deep(&root).await.unwrap();
    let (entries, odd) = names(&all);
    assert_eq!(entries, ["a", "a+ b~{}", "run#2/x", "sub/x", "sub/x#12", "sub/y%2Fz"]);
    assert_eq!(odd, [&expect[..4], &[("sub/up", "a link in a circle")], &expect[4..]].concat());
    for entry in &all.entries {
        assert_eq!(crate::read::stat(&entry.location).await.unwrap(), entry.stamp.clone().unwrap());
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for name in ["nowhere", "file", "file/x"] {
        let place = Location::local(&dir.path().join(name)).unwrap();
        assert_eq!(look(&place).await.unwrap(), Listing::default());
        assert_eq!(look_deep(&place).await.unwrap(), Listing::default());
    }
}

/// Folders that each hold two links to the next one, which are 2^40 paths; a file is in the last.
fn ladder(root: &Path) {
    for step in 0..=40 {
        std::fs::create_dir(root.join(format!("{step}"))).unwrap();
    }
    for step in 0..40 {
        for name in ["a", "b"] {
            let to = format!("../{}", step + 1);
            std::os::unix::fs::symlink(to, root.join(format!("{step}/{name}"))).unwrap();
        }
    }
    std::fs::write(root.join("40/x"), "x").unwrap();
}

#[tokio::test]
async fn a_ladder_of_links_is_no_endless_tree() {
    let dir = tempfile::tempdir().unwrap();
    ladder(dir.path());
    let top = Location::local(&dir.path().join("0")).unwrap();
    crate::conformance::fails(
        look_deep(&top).await,
        soup_core::ErrorKind::Data,
        "lead to the same folders again and again",
    );
    // Who wants only some gets what was found until then.
    let some = some_below(&top, 100_000).await.unwrap();
    assert!(!some.is_empty() && some.len() <= FOLDERS_AGAIN_MAX + 41, "{}", some.len());
    assert_eq!(look(&top).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_folder_by_two_names_is_listed_by_both() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("cat")).unwrap();
    std::fs::write(dir.path().join("cat/1"), "x").unwrap();
    std::os::unix::fs::symlink("cat", dir.path().join("kitten")).unwrap();
    let listed = look_deep(&Location::local(dir.path()).unwrap()).await.unwrap();
    assert_eq!(names(&listed).0, ["cat/1", "kitten/1"]);
}

#[test]
fn nobody_walks_on_for_who_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), "x").unwrap();
    let root = Location::local(dir.path()).unwrap();
    let caller = Arc::new(());
    let listed = local_blocking(&root, true, ENTRIES_MAX, false, Arc::downgrade(&caller)).unwrap();
    assert_eq!(listed.entries.len(), 1);
    let stopped = local_blocking(&root, true, ENTRIES_MAX, false, Weak::new());
    crate::conformance::fails(stopped, soup_core::ErrorKind::Cancelled, "nobody waits");
}

#[test]
fn hidden_names() {
    for hidden in ["._x.parquet", ".DS_Store", "a/.ipynb_checkpoints/b", "__MACOSX/x", "a/Thumbs.db"] {
        assert!(is_hidden(hidden), "{hidden}");
    }
    for shown in ["a.b", "_orig", "a/b.safetensors", "thumbs"] {
        assert!(!is_hidden(shown), "{shown}");
    }
}

#[test]
fn keys_that_are_no_path_have_names_below_their_folder() {
    let folder = memory("keys").join("p").unwrap();
    let of = |key: &str| {
        let odd = no_path(&folder, key);
        assert_eq!(odd.what, "a key that is no path");
        (odd.name, odd.may_be_folder)
    };
    let path = folder.path().to_string();
    assert_eq!(of(&format!("{path}//")), ("/".to_owned(), false));
    assert_eq!(of(&format!("{path}/a\tb/")), ("a\tb".to_owned(), true));
    assert_eq!(of(&format!("{path}/m\t.safetensors")), ("m\t.safetensors".to_owned(), false));
}
