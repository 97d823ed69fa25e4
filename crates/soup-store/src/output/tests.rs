use std::os::unix::fs::symlink;
use std::path::Path;

use soup_core::ErrorKind;

use super::*;
use crate::conformance::{fails, memory, put};

fn tree(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn staged(target: &Location, overwrite: bool) -> Staging {
    let staging = Staging::begin(target, "r", 1, overwrite).await.unwrap();
    staging.put("config.json", Bytes::from_static(b"{}")).await.unwrap();
    staging.put(MANIFEST_FILE, Bytes::from_static(b"{}")).await.unwrap();
    staging
}

#[tokio::test]
async fn local_outputs_leave_nothing_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("new/soup")).unwrap();
    check_target(&target, false).await.unwrap();
    assert_eq!(tree(folder.path()), [""; 0]);
    staged(&target, false).await.discard().await.unwrap();
    assert_eq!(tree(folder.path()), [""; 0]);
    let staging = staged(&target, false).await;
    assert_eq!(tree(&folder.path().join("new")), ["soup.partial-r.e1"]);
    // Left by a writer that died.
    std::fs::write(folder.path().join("new/soup.partial-r.e1/model.safetensors.1-2-3.tmp"), "half").unwrap();
    staging.publish([]).await.unwrap();
    assert_eq!(tree(&folder.path().join("new")), ["soup"]);
    assert_eq!(tree(&folder.path().join("new/soup")), ["config.json", "soup.json"]);
    staged(&target, true).await.publish([]).await.unwrap();
    assert_eq!(tree(&folder.path().join("new")), ["soup"]);
}

#[tokio::test]
async fn what_stays_behind_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("soup")).unwrap();
    let staging = staged(&target, false).await;
    let left = staging.left().unwrap();
    assert!(left.contains("/soup.partial-r.e1: cook the same again with the same state"), "{left}");
    // What cannot be removed is, too.
    let gone = folder.path().join("soup.partial-r.e1.gone");
    std::fs::write(&gone, "").unwrap();
    let error = staging.discard().await.unwrap_err().chain();
    assert!(
        error.contains("delete ") && error.contains("/soup.partial-r.e1.gone, whichever is there"),
        "{error}"
    );
    std::fs::remove_file(&gone).unwrap();
    staging.discard().await.unwrap();
    assert_eq!((staging.left(), tree(folder.path()).len()), (None, 0));
    let target = memory("left behind");
    let left = Staging::begin(&target, "r", 1, false).await.unwrap().left().unwrap();
    assert!(left.contains("other runs are kept out by memory://") && left.contains(CLAIM_FILE), "{left}");
}

#[tokio::test]
async fn what_appears_meanwhile_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("soup")).unwrap();
    for overwrite in [false, true] {
        let staging = staged(&target, overwrite).await;
        put(&target, "mine.txt", "mine").await;
        fails(staging.publish([]).await, ErrorKind::Usage, "soup exists");
        assert_eq!(tree(&folder.path().join("soup")), ["mine.txt"]);
        std::fs::remove_dir_all(folder.path().join("soup")).unwrap();
    }
}

#[tokio::test]
async fn an_empty_folder_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("soup")).unwrap();
    std::fs::create_dir(folder.path().join("soup")).unwrap();
    staged(&target, false).await.publish([]).await.unwrap();
    assert_eq!(tree(&folder.path().join("soup")), ["config.json", "soup.json"]);
}

#[tokio::test]
async fn targets_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let file = Location::local(&folder.path().join("file")).unwrap();
    fails(check_target(&file, true).await, ErrorKind::Usage, "is a file: choose another");
    let below = file.join("soup").unwrap();
    fails(check_target(&below, false).await, ErrorKind::Configuration, "file/soup cannot be written");
    fails(
        Staging::begin(&below, "r", 1, false).await,
        ErrorKind::Configuration,
        "file/soup cannot be written",
    );
    let proc = Location::parse("/proc/soup").unwrap();
    fails(check_target(&proc, false).await, ErrorKind::Configuration, "/proc/soup cannot be written");
    fails(check_target(&Location::parse("/").unwrap(), false).await, ErrorKind::Usage, "name a folder");
}

#[tokio::test]
async fn two_runs_cannot_write_one_folder_of_an_object_store() {
    let target = memory("two runs");
    let first = Staging::begin(&target, "first", 1, false).await.unwrap();
    // Not even with leave to overwrite; whoever knows that the first is dead deletes its claim.
    let expect = "written by run \"first\"";
    fails(Staging::begin(&target, "second", 1, false).await, ErrorKind::Usage, expect);
    fails(Staging::begin(&target, "second", 1, true).await, ErrorKind::Usage, expect);
    first.put(MANIFEST_FILE, Bytes::from_static(b"{}")).await.unwrap();
    delete(&target.join(CLAIM_FILE).unwrap()).await.unwrap();
    let second = Staging::begin(&target, "second", 1, true).await.unwrap();
    second.put("config.json", Bytes::from_static(b"{}")).await.unwrap();
    // The first is not dead after all, and does no harm.
    fails(first.publish([]).await, ErrorKind::Usage, "written by run \"second\"");
    first.discard().await.unwrap();
    second.put(MANIFEST_FILE, Bytes::from_static(b"{\"run\":2}")).await.unwrap();
    second.publish([]).await.unwrap();
    let names: Vec<String> = read::list(&target).await.unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["config.json", "soup.json"]);
}

const MANIFEST: &str = r#"{"report":{"run":"r"},"epoch":1}"#;
const LATER_MANIFEST: &str = r#"{"report":{"run":"r"},"epoch":2}"#;

async fn written(target: &Location, epoch: u64, manifest: &'static str) -> Staging {
    let staging = Staging::begin(target, "r", epoch, false).await.unwrap();
    staging.put("config.json", Bytes::from_static(b"{}")).await.unwrap();
    staging.put(MANIFEST_FILE, Bytes::from_static(manifest.as_bytes())).await.unwrap();
    staging
}

async fn names(target: &Location) -> Vec<String> {
    read::list(target).await.unwrap().into_iter().map(|e| e.name).collect()
}

#[tokio::test]
async fn coordinators_of_one_run_share_an_object_store_and_publish_once() {
    let target = memory("one run twice");
    let first = written(&target, 1, MANIFEST).await;
    let second = written(&target, 2, LATER_MANIFEST).await;
    // The first was superseded, does not know it, and publishes: what is visible is whole, whatever the second does.
    assert_eq!(first.publish([]).await.unwrap(), None);
    second.leave().await.unwrap();
    assert_eq!(names(&target).await, ["config.json", "soup.json"]);
    let visible = second.publish([]).await.unwrap().unwrap();
    assert_eq!(visible, serde_json::from_str::<Value>(MANIFEST).unwrap());
    // A third one that came too late for the claim finds the output in its way, and its run in the manifest.
    fails(Staging::begin(&target, "r", 3, false).await, ErrorKind::Usage, "one%20run%20twice exists");
    assert_eq!(run_of(&Staging::visible(&target, "r").await.unwrap().unwrap()), Some("r"));
    assert_eq!(names(&target).await, ["config.json", "soup.json"]);
}

#[tokio::test]
async fn a_replaced_output_is_hidden_until_all_of_the_new_one_is_there() {
    let target = memory("replaced");
    let old = Staging::begin(&target, "old", 1, false).await.unwrap();
    old.put("old.txt", Bytes::from_static(b"old")).await.unwrap();
    old.put(MANIFEST_FILE, Bytes::from_static(b"{}")).await.unwrap();
    old.publish([]).await.unwrap();
    let begin = async |epoch| Staging::begin(&target, "r", epoch, true).await.unwrap();
    let (first, second) = (begin(1).await, begin(2).await);
    assert!(Staging::visible(&target, "r").await.unwrap().is_none());
    fails(Staging::begin(&target, "other", 1, true).await, ErrorKind::Usage, "written by run \"r\"");
    for (staging, manifest) in [(&first, MANIFEST), (&second, LATER_MANIFEST)] {
        staging.put("config.json", Bytes::from_static(b"{}")).await.unwrap();
        staging.put(MANIFEST_FILE, Bytes::from_static(manifest.as_bytes())).await.unwrap();
    }
    assert_eq!(first.publish([]).await.unwrap(), None);
    assert_eq!(names(&target).await, ["config.json", "soup.json"]);
    let found = second.publish([]).await.unwrap();
    assert_eq!(found, Some(serde_json::from_str(MANIFEST).unwrap()));
    // The run that is over is done again: the same claim, and its own output makes way.
    let third = begin(3).await;
    assert!(Staging::visible(&target, "r").await.unwrap().is_none());
    third.discard().await.unwrap();
    assert_eq!(names(&target).await, [""; 0]);
}

#[cfg(feature = "faults")]
#[tokio::test]
async fn a_request_to_make_way_that_lands_late_hides_nothing() {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::faults::{Effect, FaultyStore, Op, Script, set_memory_store};

    let late = Duration::from_millis(300);
    // The first put of a manifest is the old one; the second asks it to make way.
    let script = Script::new().nth(Op::Put, "soup.json", 2, Effect::LateWrite(late));
    let store = FaultyStore::new(Arc::new(object_store::memory::InMemory::new()), script.decide());
    set_memory_store(Arc::new(store) as Arc<dyn object_store::ObjectStore>);
    let target = Location::parse("memory:///late").unwrap();
    let old = Staging::begin(&target, "old", 1, false).await.unwrap();
    old.put(MANIFEST_FILE, Bytes::from_static(b"{}")).await.unwrap();
    old.publish([]).await.unwrap();
    let new = Staging::begin(&target, "r", 1, true).await.unwrap();
    new.put(MANIFEST_FILE, Bytes::from_static(MANIFEST.as_bytes())).await.unwrap();
    assert_eq!(new.publish([]).await.unwrap(), None);
    tokio::time::sleep(2 * late).await;
    let visible = Staging::visible(&target, "r").await.unwrap();
    set_memory_store(None);
    assert_eq!(visible, Some(serde_json::from_str(MANIFEST).unwrap()));
}

#[tokio::test]
async fn an_output_without_one_of_its_files_is_not_published() {
    let target = memory("file gone");
    let staging = written(&target, 1, MANIFEST).await;
    delete(&target.join("config.json").unwrap()).await.unwrap();
    fails(staging.publish([]).await, ErrorKind::Unavailable, "config.json of output");
    let staging = written(&target, 1, MANIFEST).await;
    fails(
        staging.publish([("model.safetensors", 7)]).await,
        ErrorKind::Unavailable,
        "model.safetensors of output",
    );
    assert!(Staging::visible(&target, "r").await.unwrap().is_none());
}

#[tokio::test]
async fn a_local_staging_that_is_left_cannot_be_published() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("soup")).unwrap();
    let first = written(&target, 1, MANIFEST).await;
    Staging::resume(&target, "r", 1).unwrap().leave().await.unwrap();
    let second = written(&target, 2, LATER_MANIFEST).await;
    fails(
        first.publish([]).await,
        ErrorKind::Configuration,
        "soup is not on storage that this worker shares",
    );
    second.publish([]).await.unwrap();
    assert_eq!(tree(folder.path()), ["soup"]);
}

#[tokio::test]
async fn a_claim_that_is_gone_is_taken_again_if_nobody_else_was_there() {
    let target = memory("claim gone");
    let staging = staged(&target, false).await;
    delete(&target.join(CLAIM_FILE).unwrap()).await.unwrap();
    staging.publish([]).await.unwrap();
    assert_eq!(names(&target).await, ["config.json", "soup.json"]);
    let target = memory("claim gone to another");
    let staging = staged(&target, false).await;
    delete(&target.join(CLAIM_FILE).unwrap()).await.unwrap();
    delete(&target.join("config.json").unwrap()).await.unwrap();
    let other = Staging::begin(&target, "other", 1, false).await.unwrap();
    fails(staging.publish([]).await, ErrorKind::Usage, "written by run \"other\"");
    other.discard().await.unwrap();
    fails(staging.publish([]).await.map(|_| ()), ErrorKind::Internal, "has no soup.json");
    assert!(Staging::visible(&target, "r").await.unwrap().is_none());
}

#[tokio::test]
async fn folders_that_others_use_by_now_stay() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("a/b/c")).unwrap();
    let staging = staged(&target, false).await;
    std::fs::write(folder.path().join("a/mine"), "x").unwrap();
    staging.discard().await.unwrap();
    assert_eq!(tree(&folder.path().join("a")), ["mine"]);
}

#[tokio::test]
async fn a_worker_without_the_folder_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let target = Location::local(&folder.path().join("soup")).unwrap();
    let elsewhere = Staging::resume(&target, "r", 1).unwrap();
    let written = elsewhere.writer("model.safetensors").await.map(|_| ());
    fails(written, ErrorKind::Configuration, "soup is not on storage that this worker shares");
}

#[tokio::test]
async fn an_output_needs_its_manifest() {
    let staging = Staging::begin(&memory("no manifest"), "r", 1, false).await.unwrap();
    fails(staging.publish([]).await, ErrorKind::Internal, "has no soup.json");
}

#[tokio::test]
async fn a_large_file_is_uploaded_in_parts() {
    let target = memory("large");
    let mut writer = Staging::resume(&target, "r", 1).unwrap().writer("model.safetensors").await.unwrap();
    let chunk = Bytes::from((0..3 << 20).map(|i| (i % 253) as u8).collect::<Vec<_>>());
    for _ in 0..12 {
        writer.write(chunk.clone()).await.unwrap();
    }
    let digest = writer.finish().await.unwrap();
    let back = read::read_small(&target.join("model.safetensors").unwrap(), 1 << 30).await.unwrap();
    assert_eq!(digest.bytes, 36 << 20);
    assert!(back.chunks(3 << 20).all(|c| c == chunk));
    assert_eq!(back.len(), 36 << 20);
}

/// A folder of somebody else's with a file in it, which nothing here may touch.
fn victim(folder: &Path) -> std::path::PathBuf {
    let victim = folder.join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("config.json"), "mine").unwrap();
    victim
}

fn is_untouched(victim: &Path) -> bool {
    tree(victim) == ["config.json"] && std::fs::read(victim.join("config.json")).unwrap() == b"mine"
}

#[tokio::test]
async fn an_output_goes_where_the_link_leads_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("disk/x")).unwrap();
    symlink("disk/x", folder.path().join("scratch")).unwrap();
    symlink("disk", folder.path().join("above")).unwrap();
    for (name, overwrite) in [("scratch", false), ("above/soup", false), ("above/soup", true)] {
        let target = Location::local(&folder.path().join(name)).unwrap();
        staged(&target, overwrite).await.publish([]).await.unwrap();
    }
    assert_eq!(tree(folder.path()), ["above", "disk", "scratch"]);
    assert_eq!(tree(&folder.path().join("disk")), ["soup", "x"]);
    assert_eq!(tree(&folder.path().join("disk/x")), ["config.json", "soup.json"]);
    assert!(folder.path().join("scratch").is_symlink());
    // What is there by now is replaced under its own name only.
    let named = Location::local(&folder.path().join("scratch")).unwrap();
    fails(check_target(&named, false).await, ErrorKind::Usage, "scratch exists");
    let real = folder.path().canonicalize().unwrap().join("disk/x").display().to_string();
    let expect = format!("is a link to {real}, and nothing is replaced through a link: name {real} itself");
    fails(check_target(&named, true).await, ErrorKind::Usage, &expect);
    fails(Staging::begin(&named, "r", 1, true).await, ErrorKind::Usage, &expect);
    assert_eq!(tree(&folder.path().join("disk")), ["soup", "x"]);
}

#[tokio::test]
async fn a_broken_link_is_no_output() {
    let folder = tempfile::tempdir().unwrap();
    symlink("gone", folder.path().join("soup")).unwrap();
    symlink("circle", folder.path().join("circle")).unwrap();
    for (name, to) in [("soup", "gone"), ("circle", "circle")] {
        let target = Location::local(&folder.path().join(name)).unwrap();
        let expect = format!("{name} is a broken link to {to}: make that folder, or name another");
        fails(check_target(&target, true).await, ErrorKind::Usage, &expect);
        fails(Staging::begin(&target, "r", 1, true).await, ErrorKind::Usage, &expect);
    }
}

#[tokio::test]
async fn nothing_is_staged_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let victim = victim(folder.path());
    let target = Location::local(&folder.path().join("soup")).unwrap();
    let place = folder.path().join("soup.partial-r.e1");
    symlink(&victim, &place).unwrap();
    let refused = Staging::begin(&target, "r", 1, false).await;
    fails(
        refused,
        ErrorKind::Configuration,
        "soup.partial-r.e1 is there and is no folder of this run's: remove it",
    );
    let worker = Staging::resume(&target, "r", 1).unwrap();
    let written = worker.writer("config.json").await.map(|_| ());
    fails(written, ErrorKind::Configuration, "somebody replaced the folder in which its files are staged");
    worker.leave().await.unwrap();
    assert!(is_untouched(&victim) && !place.is_symlink());
    // A file, and a link that comes while files are being written.
    std::fs::write(&place, "x").unwrap();
    let refused = Staging::begin(&target, "r", 1, false).await;
    fails(refused, ErrorKind::Configuration, "is there and is no folder of this run's");
    std::fs::remove_file(&place).unwrap();
    let staging = staged(&target, false).await;
    let mut writer = staging.writer("model.safetensors").await.unwrap();
    std::fs::rename(&place, folder.path().join("moved")).unwrap();
    symlink(&victim, &place).unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    writer.finish().await.unwrap();
    fails(staging.publish([]).await, ErrorKind::Configuration, "somebody replaced the folder");
    staging.discard().await.unwrap();
    assert!(is_untouched(&victim) && !target.local_path().unwrap().exists());
    assert_eq!(tree(&folder.path().join("moved")), ["config.json", "model.safetensors"]);
}

#[tokio::test]
async fn what_is_replaced_is_not_emptied_through_its_links() {
    let folder = tempfile::tempdir().unwrap();
    let victim = victim(folder.path());
    let target = Location::local(&folder.path().join("soup")).unwrap();
    staged(&target, false).await.publish([]).await.unwrap();
    let soup = folder.path().join("soup");
    symlink(&victim, soup.join("folder")).unwrap();
    std::fs::remove_file(soup.join("config.json")).unwrap();
    symlink(victim.join("config.json"), soup.join("config.json")).unwrap();
    // Names that could be foreseen.
    for name in ["soup.partial-r.e1.gone", "soup.replaced-r"] {
        symlink(&victim, folder.path().join(name)).unwrap();
    }
    staged(&target, true).await.publish([]).await.unwrap();
    staged(&target, true).await.discard().await.unwrap();
    assert!(is_untouched(&victim));
    assert_eq!(tree(&soup), ["config.json", "soup.json"]);
}

#[tokio::test]
async fn a_link_is_no_manifest() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("home")).unwrap();
    std::fs::write(folder.path().join("a manifest"), "{}").unwrap();
    symlink("../a manifest", folder.path().join("home/soup.json")).unwrap();
    let target = Location::local(&folder.path().join("home")).unwrap();
    fails(check_target(&target, true).await, ErrorKind::Usage, "has no soup.json, so it is not replaced");
}
