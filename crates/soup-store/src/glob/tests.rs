use soup_core::ErrorKind;

use super::*;
use crate::conformance::{fails, memory, put};

/// The names that `glob` matches in a folder with `tree`, on local disk and in memory.
async fn check(test: &str, tree: &[&str], glob: &str, expect: &[&str]) {
    let local = tempfile::tempdir().unwrap();
    for root in [Location::local(local.path()).unwrap(), memory(&format!("glob-{test}"))] {
        for file in tree {
            put(&root, file, "x").await;
        }
        let glob = Glob::parse(&format!("{root}/{glob}")).unwrap().unwrap();
        let found: Vec<String> = glob.matches().await.unwrap().entries.into_iter().map(|e| e.name).collect();
        assert_eq!(found, expect, "{glob:?}");
    }
}

const RUNS: [&str; 7] = [
    "out/a/checkpoint-500/model.safetensors",
    "out/b/checkpoint-500/model.safetensors",
    "out/b/checkpoint-900/model.safetensors",
    "out/b/.cache/checkpoint-500/model.safetensors",
    "out/b/model.safetensors",
    "out/model.safetensors",
    "out/c/log",
];

#[tokio::test]
async fn wildcards_are_allowed_in_any_component() {
    let found = ["a/checkpoint-500/model.safetensors", "b/checkpoint-500/model.safetensors"];
    check("w1", &RUNS, "out/*/checkpoint-500/model.safetensors", &found).await;
    check("w2", &RUNS, "out/*/*-900", &["b/checkpoint-900"]).await;
    check("w3", &RUNS, "o?t/b/model.*", &["out/b/model.safetensors"]).await;
    check("w4", &RUNS, "out/*/", &["a", "b", "c", "model.safetensors"]).await;
    check("w5", &RUNS, "out/x*/model.safetensors", &[]).await;
}

#[tokio::test]
async fn two_stars_are_any_number_of_folders() {
    let all = [
        "a/checkpoint-500/model.safetensors",
        "b/checkpoint-500/model.safetensors",
        "b/checkpoint-900/model.safetensors",
        "b/model.safetensors",
        "model.safetensors",
    ];
    check("d1", &RUNS, "out/**/model.safetensors", &all).await;
    check("d2", &RUNS, "out/**/**/checkpoint-9*/**/model.safetensors", &all[2..3]).await;
    check("d3", &RUNS, "out/c/**", &["log"]).await;
    check("d4", &RUNS, "out/**/c/*", &["c/log"]).await;
}

#[tokio::test]
async fn what_is_hidden_has_to_be_asked_for() {
    check("h1", &RUNS, "out/b/.c*/*/model.safetensors", &[".cache/checkpoint-500/model.safetensors"]).await;
}

#[tokio::test]
async fn files_are_expanded_and_folders_are_not() {
    let root = memory("glob-expand");
    put(&root, "d/train-0.parquet", "x").await;
    put(&root, "d/train-1.parquet", "x").await;
    put(&root, "d/train-x/y", "x").await;
    let found = expand(&format!("{root}/d/train-*")).await.unwrap().unwrap();
    let names: Vec<&str> = found.entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["train-0.parquet", "train-1.parquet"]);
    assert!(expand(&format!("{root}/d")).await.unwrap().is_none());
    fails(expand(&format!("{root}/d/test-*")).await, ErrorKind::Data, "no file matches");
}

#[track_caller]
fn split(url: &str, expect: Option<(&str, &[&str])>) {
    let glob = Glob::parse(url).unwrap();
    let found = glob.as_ref().map(|g| (g.base.as_str(), g.parts.iter().map(String::as_str).collect()));
    assert_eq!(found, expect.map(|(b, p)| (b, p.to_vec())), "{url}");
}

#[test]
fn a_glob_begins_at_its_first_wildcard() {
    split("a/b", None);
    split("*", Some(("", &["*"])));
    split("/*", Some(("/", &["*"])));
    split("a/*/", Some(("a/", &["*"])));
    split("a/b*/c", Some(("a/", &["b*", "c"])));
    split("*/c?", Some(("", &["*", "c?"])));
    split("s3://b/*", Some(("s3://b/", &["*"])));
    split("s3://b/a/*/c", Some(("s3://b/a/", &["*", "c"])));
    split("a/**/**/b/./c", Some(("a/", &["**", "b", "c"])));
    split("https://h/a?sig=1", None);
    fails(Glob::parse("a/*/../b"), ErrorKind::Usage, "no \"..\" after wildcards");
    for bad in ["s3://*/a", "s3://*"] {
        fails(Glob::parse(bad), ErrorKind::Usage, "in the path only");
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

#[tokio::test]
async fn links_in_a_circle_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), "x").unwrap();
    let glob = || Glob::parse(&format!("{}/**/x", dir.path().display())).unwrap().unwrap();
    let link = |name: &str| std::os::unix::fs::symlink(".", dir.path().join(name)).unwrap();
    link("latest");
    let found = glob().matches().await.unwrap();
    assert!((2..=DEPTH_MAX).contains(&found.entries.len()), "{}", found.entries.len());
    // Each one more is more paths by far than there are folders on any disk.
    ["a", "b", "c"].into_iter().for_each(link);
    fails(glob().matches().await, ErrorKind::Data, "to the same folders again and again");
}

#[test]
fn what_becomes_too_much_is_refused_at_once() {
    let glob = Glob::parse("/data/*").unwrap().unwrap();
    let bounded = |looked: Looked, matches: &Matches, next| glob.bounded(&looked, matches, next);
    let looked = || Looked { folders: FOLDERS_MAX, again: FOLDERS_AGAIN_MAX, ..Looked::default() };
    let mut matches = Matches::default();
    bounded(looked(), &matches, 0).unwrap();
    fails(bounded(looked(), &matches, 1), ErrorKind::Data, "more than 20000 folders");
    let one = || Odd::new("x", "odd");
    matches.odd = (0..MATCHES_MAX).map(|_| one()).collect();
    bounded(looked(), &matches, 0).unwrap();
    matches.unseen.push(one());
    fails(bounded(looked(), &matches, 0), ErrorKind::Data, "cannot be read");
    let location = Location::parse("/data/x").unwrap();
    let entry = Entry { name: "x".to_owned(), location, stamp: None };
    let matches = Matches { entries: vec![entry; MATCHES_MAX + 1], ..Matches::default() };
    fails(bounded(looked(), &matches, 0), ErrorKind::Data, "matches more than 100000 places");
}
