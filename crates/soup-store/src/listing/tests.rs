use super::*;
use crate::conformance::put;

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

#[test]
fn hidden_names() {
    for hidden in ["._x.parquet", ".DS_Store", "a/.ipynb_checkpoints/b", "__MACOSX/x", "a/Thumbs.db"] {
        assert!(is_hidden(hidden), "{hidden}");
    }
    for shown in ["a.b", "_orig", "a/b.safetensors", "thumbs"] {
        assert!(!is_hidden(shown), "{shown}");
    }
}
