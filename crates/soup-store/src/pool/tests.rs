use soup_core::ErrorKind;

use super::*;
use crate::conformance::{fails, memory, put, safetensors, small_schema};

/// Puts a model, or for other names a few bytes, at each of `files`.
async fn files(root: &Location, files: &[&str]) {
    for file in files {
        let bytes = if file.ends_with(EXTENSION) {
            safetensors(&small_schema(), |_| 1)
        } else {
            file.as_bytes().to_vec()
        };
        put(root, file, bytes).await;
    }
}

async fn pool(root: &Location, urls: &[&str]) -> Result<Vec<String>> {
    let urls: Vec<String> = urls.iter().map(|u| format!("{root}/{u}")).collect();
    open_pool(&urls).await.map(|pool| pool.into_iter().map(|c| c.name).collect())
}

/// The names that `urls` lead to, on local disk and in memory.
async fn check(test: &str, tree: &[&str], urls: &[&str], expect: &[&str]) {
    let local = tempfile::tempdir().unwrap();
    for root in [Location::local(local.path()).unwrap(), memory(&format!("pool-{test}"))] {
        files(&root, tree).await;
        assert_eq!(pool(&root, urls).await.unwrap(), expect);
    }
}

#[tokio::test]
async fn a_folder_of_files() {
    let tree = ["p/b.safetensors", "p/a b.safetensors", "p/readme.md", "p/.hidden.safetensors", "p/logs/x"];
    check("files", &tree, &["p"], &["a b", "b"]).await;
    check("files2", &tree, &["p/"], &["a b", "b"]).await;
    check("files3", &tree, &["p/b.safetensors", "p/a b.safetensors"], &["b", "a b"]).await;
}

#[tokio::test]
async fn a_folder_of_folders() {
    let tree = [
        "p/two/model.safetensors",
        "p/one/model.safetensors",
        "p/logs/x",
        "p/m.safetensors",
        "p/config.json",
    ];
    check("folders", &tree, &["p"], &["m", "one", "two"]).await;
}

#[tokio::test]
async fn a_checkpoint_folder_is_one_ingredient() {
    let tree = ["p/model.safetensors", "p/other.safetensors", "p/sub/model.safetensors"];
    check("one", &tree, &["p"], &["p"]).await;
    check("two", &tree, &["p", "p/sub"], &["p", "sub"]).await;
}

#[tokio::test]
async fn ingredients_count_instead() {
    let tree = [
        "p/theta0.safetensors",
        "p/ingredients/m1.safetensors",
        "p/ingredients/m0.safetensors",
        "p/config.json",
    ];
    check("ingredients", &tree, &["p"], &["m0", "m1"]).await;
}

#[tokio::test]
async fn globs() {
    let tree = [
        "r/a/model.safetensors",
        "r/b/model.safetensors",
        "r/b/x1.safetensors",
        "r/b/x2.safetensors",
        "r/c/log",
        "r/m01.safetensors",
        "r/m02.safetensors",
    ];
    check("g1", &tree, &["r/*.safetensors"], &["m01", "m02"]).await;
    check("g2", &tree, &["r/*/model.safetensors"], &["a", "b"]).await;
    check("g3", &tree, &["r/*"], &["a", "b", "m01", "m02"]).await;
    check("g4", &tree, &["r/m?2.safetensors"], &["m02"]).await;
    check("g5", &tree, &["r/b*/x*"], &["b/x1", "b/x2"]).await;
    check("g6", &tree, &["r/b/x*", "r/a*"], &["x1", "x2", "a"]).await;
}

#[tokio::test]
async fn what_is_no_pool_is_refused() {
    let local = tempfile::tempdir().unwrap();
    std::fs::create_dir(local.path().join("empty")).unwrap();
    let root = Location::local(local.path()).unwrap();
    files(&root, &["a/m.safetensors", "b/m.safetensors", "c/x", "notes.txt"]).await;
    fails(pool(&root, &["empty"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["c"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["c/*"]).await, ErrorKind::Data, "c/*\"");
    fails(pool(&root, &["notes.txt"]).await, ErrorKind::Data, "no checkpoints in ");
    fails(pool(&root, &["nowhere"]).await, ErrorKind::Data, "nowhere does not exist");
    fails(pool(&root, &["*/a/b/m.safetensors"]).await, ErrorKind::Usage, "last two components");
    let clash = pool(&root, &["a", "b"]).await;
    fails(clash, ErrorKind::Data, "two ingredients are called \"m\"");
    put(&root, "a/broken.safetensors", "no header").await;
    fails(pool(&root, &["a"]).await, ErrorKind::Data, "a/broken.safetensors claims a header");
}

#[tokio::test]
async fn companions_come_from_the_own_folder_first() {
    let root = memory("companions");
    files(
        &root,
        &["p/ingredients/m.safetensors", "p/ingredients/vocab.txt", "p/vocab.txt", "p/config.json", "p/x"],
    )
    .await;
    let pool = open_pool(&[format!("{root}/p")]).await.unwrap();
    let found = companions(&pool[0]).await.unwrap();
    let found: Vec<_> = found.iter().map(|(n, b)| (n.as_str(), std::str::from_utf8(b).unwrap())).collect();
    assert_eq!(found, [("config.json", "p/config.json"), ("vocab.txt", "p/ingredients/vocab.txt")]);
}

#[track_caller]
fn split(url: &str, expect: Option<(&str, Option<&str>, &str)>) {
    let glob = Glob::parse(url).unwrap();
    assert_eq!(glob.map(|g| (g.base, g.folder, g.last)), expect, "{url}");
}

#[test]
fn globs_are_the_last_two_components() {
    split("a/b", None);
    split("*", Some(("", None, "*")));
    split("/*", Some(("/", None, "*")));
    split("a/*/", Some(("a/", None, "*")));
    split("a/b*/c", Some(("a/", Some("b*"), "c")));
    split("*/c?", Some(("", Some("*"), "c?")));
    split("s3://b/*", Some(("s3://b/", None, "*")));
    split("s3://b/a/*/c", Some(("s3://b/a/", Some("*"), "c")));
    split("https://h/a?sig=1", None);
    for bad in ["*/a/b", "s3://*/a", "s3://*"] {
        fails(Glob::parse(bad), ErrorKind::Usage, "last two components");
    }
}

#[test]
fn wildcards() {
    let check = |pattern: &str, name: &str, expect: bool| {
        assert_eq!(matches(pattern, name), expect, "{pattern} {name}")
    };
    check("*", "", true);
    check("?", "", false);
    check("a*c", "abbc", true);
    check("a*c", "abcb", false);
    check("*a*b", "xaxaxb", true);
    check("m??.safetensors", "m01.safetensors", true);
    check("m?.safetensors", "m01.safetensors", false);
    check("**é?", "aéb", true);
    check("abc", "ab", false);
}
