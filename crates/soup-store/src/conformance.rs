//! What every kind of store must do, as one list of checks; and the fixtures of the other tests.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::{Error, ErrorKind, Result};

mod journal_faults;
mod journals;
#[cfg(feature = "cloud")]
mod s3;

use crate::checkpoint::open_checkpoint;
use crate::header::write_header;
use crate::load::{LoadLimits, LocalFiles, ReadFrom, clip, load, open_local, plan_reads};
use crate::location::Location;
use crate::output::{MANIFEST_FILE, Staging, check_target};
use crate::read;

pub(crate) async fn put(folder: &Location, name: &str, bytes: impl Into<Bytes>) -> Location {
    let place = folder.join(name).unwrap();
    place.store().put(place.path(), bytes.into().into()).await.unwrap();
    place
}

/// Makes a FIFO: whoever opens it waits for somebody who writes to it.
pub(crate) fn fifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// A folder of its own in the process's memory.
pub(crate) fn memory(test: &str) -> Location {
    Location::parse(&format!("memory:///{test}")).unwrap()
}

/// A safetensors file of all tensors of `schema`; byte `i` of the data is `fill(i)`.
pub(crate) fn safetensors(schema: &Schema, fill: impl Fn(u64) -> u8) -> Vec<u8> {
    let mut file = write_header(schema, 0..schema.tensors().len());
    file.extend((0..schema.bytes()).map(fill));
    file
}

pub(crate) fn small_schema() -> Schema {
    Schema::new(vec![TensorSpec::new("w", Dtype::F32, [3, 5]), TensorSpec::new("n", Dtype::I64, [])]).unwrap()
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, expect: &str) {
    let e: Error = result.unwrap_err();
    assert!(e.chain().contains(expect), "{}", e.chain());
    assert_eq!(e.kind(), kind, "{}", e.chain());
}

/// Reading `folder`, which holds `a b.bin` with the bytes 0 to 9, an empty file `empty`, and `m.safetensors`.
async fn reads(folder: &Location) {
    let file = folder.join("a b.bin").unwrap();
    let missing = folder.join("missing").unwrap();
    let stamp = read::stat(&file).await.unwrap();
    assert_eq!(stamp.size_bytes, 10);
    let etag = stamp.etag.as_deref();
    assert!(read::stat_if_exists(&missing).await.unwrap().is_none());
    fails(read::stat(&missing).await, ErrorKind::Data, "does not exist");
    fails(read::read_small(&missing, 9).await, ErrorKind::Data, "does not exist");
    fails(read::read_range(&missing, 0..1, None).await, ErrorKind::Data, "missing does not exist");
    assert_eq!(read::read_small(&file, 10).await.unwrap()[..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    fails(read::read_small(&file, 9).await, ErrorKind::Data, "has 10 bytes, at most 9");
    assert!(read::read_small_if_exists(&missing, 9).await.unwrap().is_none());
    assert_eq!(read::read_range(&file, 3..6, etag).await.unwrap()[..], [3, 4, 5]);
    assert_eq!(read::read_range(&file, 3..3, etag).await.unwrap().len(), 0);
    fails(read::read_range(&file, 3..11, etag).await, ErrorKind::Data, "has 10 bytes, but bytes 3 to 11");
    fails(read::read_range(&file, 30..31, etag).await, ErrorKind::Data, "has 10 bytes, but bytes 30 to 31");
    fails(
        read::read_range(&file, 3..6, Some("\"other\"")).await,
        ErrorKind::Data,
        "changed while it was being read",
    );
    fails(
        read::read_range(&file, 3..6, Some("W/\"o\"")).await,
        ErrorKind::Data,
        "changed while it was being read",
    );
    let (start, stamp) = read::read_start(&file, 4).await.unwrap();
    assert_eq!((start.len(), stamp.size_bytes), (4, 10));
    assert_eq!(read::read_start(&file, 400).await.unwrap().0.len(), 10);
    assert_eq!(read::read_start(&folder.join("empty").unwrap(), 4).await.unwrap().0.len(), 0);
    fails(open_checkpoint(&file).await, ErrorKind::Data, "is not a .safetensors file");
    fails(open_checkpoint(&missing).await, ErrorKind::Data, "is no checkpoint");
}

/// Loading `m.safetensors`, whose byte `i` of the flattened parameters is `i`.
async fn loads(folder: &Location) {
    let checkpoint = open_checkpoint(&folder.join("m.safetensors").unwrap()).await.unwrap();
    assert_eq!(checkpoint.name, "m");
    assert_eq!(checkpoint.folder().as_ref(), Some(folder));
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let reads = clip(&plan_reads(&checkpoint, &checkpoint.schema, 0..68), 5..60);
    assert_eq!(reads.len(), 1);
    let limits = LoadLimits { part_bytes: 7, in_flight: 3 };
    let mut shard = vec![0; 55];
    load(&files, &reads, &mut shard, limits).await.unwrap();
    assert_eq!(shard, Vec::from_iter(5..60));
    let local = open_local(&files, &reads).await.unwrap();
    assert_eq!(local.is_some(), folder.is_local());
    if let Some(local) = local {
        loads_locally(&local, &reads);
    }
    let other = [ReadFrom { etag: Some("\"other\"".into()), ..files[0].clone() }];
    fails(load(&other, &reads, &mut shard, limits).await, ErrorKind::Data, "m.safetensors changed");
    let gone = [ReadFrom { location: folder.join("gone").unwrap(), etag: None }];
    fails(load(&gone, &reads, &mut shard, limits).await, ErrorKind::Data, "gone does not exist");
    let long = [crate::load::Read { len: 56, ..reads[0] }];
    fails(load(&files, &long, &mut shard, limits).await, ErrorKind::Internal, "does not fit");
    let beyond = [crate::load::Read { file_offset: 1 << 40, ..reads[0] }];
    fails(load(&files, &beyond, &mut shard, limits).await, ErrorKind::Data, "m.safetensors has ");
}

async fn lists(folder: &Location) {
    put(folder, "sub folder/x/y.bin", vec![1]).await;
    let names = |entries: Vec<read::Entry>| {
        entries.into_iter().map(|e| (e.name, e.stamp.map(|s| s.size_bytes))).collect::<Vec<_>>()
    };
    let model = safetensors(&small_schema(), |i| i as u8).len() as u64;
    let (a, e, m) = (
        ("a b.bin".to_string(), Some(10)),
        ("empty".to_string(), Some(0)),
        ("m.safetensors".to_string(), Some(model)),
    );
    let one = read::list(folder).await.unwrap();
    assert_eq!(one[3].location, folder.join("sub folder").unwrap());
    assert_eq!(names(one), [a.clone(), e.clone(), m.clone(), ("sub folder".to_string(), None)]);
    let all = names(read::list_recursive(folder).await.unwrap());
    assert_eq!(all, [a, e, m, ("sub folder/x/y.bin".to_string(), Some(1))]);
    assert_eq!(read::list(&folder.join("nothing").unwrap()).await.unwrap(), []);
}

/// The same on the caller's thread: all of the shard is shown in order, what no read covers included.
fn loads_locally(files: &LocalFiles, reads: &[crate::load::Read]) {
    let (mut shard, mut shown) = (vec![0; 55], Vec::new());
    assert_eq!(files.load(reads, &mut shard, |part| shown.extend_from_slice(part)).unwrap(), 55);
    assert_eq!((&shard, &shown), (&Vec::from_iter(5..60), &shard));
    let some = [
        crate::load::Read { dest_offset: 2, len: 3, ..reads[0] },
        crate::load::Read { dest_offset: 7, len: 2, file_offset: reads[0].file_offset + 20, ..reads[0] },
    ];
    let (mut shard, mut shown) = (vec![1; 12], Vec::new());
    assert_eq!(files.load(&some, &mut shard, |part| shown.extend_from_slice(part)).unwrap(), 5);
    assert_eq!(shard, [1, 1, 5, 6, 7, 1, 1, 25, 26, 1, 1, 1]);
    assert_eq!(shown, shard);
    let twice = [some[0], some[0]];
    fails(files.load(&twice, &mut shard, |_| ()), ErrorKind::Internal, "overlaps the one before it");
    let long = [crate::load::Read { len: 13, ..reads[0] }];
    fails(files.load(&long, &mut shard, |_| ()), ErrorKind::Internal, "does not fit");
    let beyond = [crate::load::Read { file_offset: 1 << 40, len: 5, ..reads[0] }];
    fails(files.load(&beyond, &mut shard, |_| ()), ErrorKind::Unavailable, "stopped 5 bytes early");
}

async fn names(folder: &Location) -> Vec<String> {
    read::list_recursive(folder).await.unwrap().into_iter().map(|e| e.name).collect()
}

async fn staged(target: &Location, run: &str, overwrite: bool, model: &'static [u8]) -> Staging {
    let staging = Staging::begin(target, run, 1, overwrite).await.unwrap();
    staging.put(MANIFEST_FILE, Bytes::from_static(b"{}")).await.unwrap();
    let mut writer = Staging::resume(target, run, 1).unwrap().writer("model.safetensors").await.unwrap();
    writer.write_header(Bytes::from_static(b"header")).await.unwrap();
    writer.write(Bytes::from_static(model)).await.unwrap();
    let digest = writer.finish().await.unwrap();
    assert_eq!(digest.bytes, 6 + model.len() as u64);
    let sha256 = |b: &[u8]| -> [u8; 32] {
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(b)).into()
    };
    assert_eq!(digest.file_sha256, sha256(&[b"header", model].concat()));
    assert_eq!(digest.data_sha256, sha256(model));
    staging
}

async fn outputs(folder: &Location) {
    let target = folder.join("my soup").unwrap();
    check_target(&target, false).await.unwrap();
    assert_eq!(names(folder).await, [""; 0]);
    // Nothing is an output before it is published, nothing is left after it is discarded.
    let staging = staged(&target, "r1", false, b"one").await;
    assert!(read::stat_if_exists(&target.join(MANIFEST_FILE).unwrap()).await.unwrap().is_none());
    staging.discard().await.unwrap();
    assert_eq!(names(folder).await, [""; 0]);
    // A writer that is dropped leaves no file.
    let staging = staged(&target, "r2", false, b"two").await;
    let mut dropped = staging.writer("half").await.unwrap();
    dropped.write(Bytes::from_static(b"half")).await.unwrap();
    drop(dropped);
    // The same run goes on after a restart.
    drop(staging);
    staged(&target, "r2", false, b"two").await.publish([("model.safetensors", 9)]).await.unwrap();
    assert_eq!(names(folder).await, ["my soup/model.safetensors", "my soup/soup.json"]);
    // What is there stays, unless it is to be replaced.
    fails(check_target(&target, false).await, ErrorKind::Usage, "choose another or pass --overwrite");
    fails(
        Staging::begin(&target, "r3", 1, false).await,
        ErrorKind::Usage,
        "choose another or pass --overwrite",
    );
    put(&target, "old.txt", "old").await;
    staged(&target, "r4", true, b"four").await.publish([("model.safetensors", 10)]).await.unwrap();
    assert_eq!(names(folder).await, ["my soup/model.safetensors", "my soup/soup.json"]);
    let model = read::read_small(&target.join("model.safetensors").unwrap(), 100).await.unwrap();
    assert_eq!(&model[..], b"headerfour");
    // Nor does a manifest that cannot be read keep an output from being replaced, or pass for one of this run.
    put(&target, "soup.json", "{").await;
    fails(
        Staging::begin(&target, "r4", 2, false).await,
        ErrorKind::Usage,
        "choose another or pass --overwrite",
    );
    staged(&target, "r4", true, b"four").await.publish([("model.safetensors", 10)]).await.unwrap();
    // What is no output is never replaced.
    put(folder, "home/thesis.tex", "years").await;
    let home = folder.join("home").unwrap();
    fails(
        Staging::begin(&home, "r5", 1, true).await,
        ErrorKind::Usage,
        "has no soup.json, so it is not replaced",
    );
    // Names that lead elsewhere.
    let staging = Staging::resume(&target, "r6", 1).unwrap();
    fails(staging.writer("../x").await.map(|_| ()), ErrorKind::Data, "is not the name of a file");
    fails(Staging::resume(&target, "../r7", 1).map(|_| ()), ErrorKind::Usage, "cannot be the id of a run");
    fails(Staging::begin(&home, "r8", 1, false).await.map(|_| ()), ErrorKind::Usage, "home exists");
    assert_eq!(names(folder).await, ["home/thesis.tex", "my soup/model.safetensors", "my soup/soup.json"]);
}

async fn fill(folder: &Location) {
    put(folder, "a b.bin", Vec::from_iter(0..10)).await;
    put(folder, "empty", Vec::new()).await;
    put(folder, "m.safetensors", safetensors(&small_schema(), |i| i as u8)).await;
}

async fn conforms(root: &Location) {
    let data = root.join("some data").unwrap();
    fill(&data).await;
    reads(&data).await;
    loads(&data).await;
    lists(&data).await;
    outputs(&root.join("outputs").unwrap()).await;
    journals::conforms(&root.join("my state").unwrap()).await;
}

#[tokio::test]
async fn local_disk() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("with space")).unwrap();
    conforms(&Location::local(&folder.path().join("with space")).unwrap()).await;
}

#[tokio::test]
async fn the_memory_of_the_process() {
    conforms(&memory("conformance")).await;
}

#[cfg(feature = "cloud")]
#[tokio::test]
async fn plain_http() {
    use std::sync::Arc;

    let source = memory("conformance of http");
    fill(&source).await;
    let server = Arc::new(crate::http_fixture::Server { etags: true, ..Default::default() });
    for entry in read::list(&source).await.unwrap() {
        let bytes = read::read_small(&entry.location, 1 << 20).await.unwrap();
        server.files.lock().unwrap().insert(format!("d/{}", entry.name), bytes.to_vec());
    }
    let folder = Location::parse(&format!("{}/d", server.start().await)).unwrap();
    reads(&folder).await;
    loads(&folder).await;
    fails(read::list(&folder).await, ErrorKind::Usage, "plain HTTP servers cannot be listed");
    fails(check_target(&folder, false).await, ErrorKind::Configuration, "cannot be written to");
}

#[test]
fn everything_can_be_awaited_on_any_thread() {
    fn send<T: Send>(_: T) {}
    let here = memory("send");
    let staging = Staging::resume(&here, "r", 1).unwrap();
    send(crate::pool::open_pool(&[]));
    send(load(&[], &[], &mut [], LoadLimits::default()));
    send(Staging::begin(&here, "r", 1, false));
    send(async {
        let mut writer = staging.writer("w").await?;
        writer.write(Bytes::new()).await?;
        writer.finish().await?;
        staging.put("a", Bytes::new()).await?;
        staging.publish([]).await
    });
}
