//! Files and digests of a run whose shards are not kept.

use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::ShardPlan;
use soup_proto::tensors_of;
use soup_proto::v1::{BeginRun, OutputFile, Peer, Placement};
use soup_store::layout::plan_files;
use soup_store::load::{Read, ReadFrom};

use super::*;
use crate::sources::{ShardSources, Source};
use crate::{bench, loading};

/// A tensor in each of two files, larger than a shard, so that one shard is in both.
fn schema() -> Schema {
    let tensor = |name: &str, count: u64| TensorSpec::new(name, Dtype::F32, [count]);
    Schema::new(vec![tensor("a", 20_001), tensor("b", 30_000)]).unwrap()
}

/// Has a worker take all shards from a file that is nothing but their data.
async fn load(worker: &crate::active::Worker, run: &Arc<Active>, plan: &ShardPlan, file: &std::path::Path) {
    for shard in plan.shards() {
        let range = plan.range(shard);
        let read = Read { file: 0, file_offset: range.start, dest_offset: 0, len: range.end - range.start };
        let location = Location::parse(file.to_str().unwrap()).unwrap();
        let source =
            Source { files: vec![ReadFrom { location, etag: None }], reads: vec![read], ..Source::default() };
        let task = ShardSources {
            shard: shard.0,
            tier: soup_core::machine::Tier::Memory,
            ingredients: vec![source],
            products: false,
            base: None,
        };
        loading::load_shard(worker, run, task).await.unwrap();
    }
}

#[tokio::test]
async fn several_files_are_digested_from_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let schema = schema();
    let data: Vec<u8> =
        (0..schema.bytes() / 4).flat_map(|i| (i as f32 / 7.0 - 3000.0).to_le_bytes()).collect();
    // The ingredient is its own data, without a header: where its bytes are is said.
    let file = folder.path().join("ingredient");
    std::fs::write(&file, &data).unwrap();
    let output = folder.path().join("soup");
    let target = Location::parse(output.to_str().unwrap()).unwrap();
    let staging = Staging::begin(&target, "r", 1, false).await.unwrap();
    let files = plan_files(&schema, 100_000);
    assert_eq!(files.len(), 2);
    let worker = bench::worker(Arc::new(crate::Tcp), 1).unwrap();
    let plan = ShardPlan::new(schema.bytes());
    let begin = BeginRun {
        digest: soup_proto::v1::DigestKind::Sha256.into(),
        peer_key: vec![7; 32],
        run: "r".into(),
        epoch: 1,
        tensors: tensors_of(&schema),
        shard_bytes: plan.shard_bytes(),
        ingredients: vec!["ingredient".into()],
        streams: true,
        output: output.to_str().unwrap().into(),
        files: files
            .iter()
            .map(|f| OutputFile {
                name: f.name.clone(),
                header: f.header.clone(),
                start: f.range.start,
                end: f.range.end,
            })
            .collect(),
        ..Default::default()
    };
    worker.begin("r".into(), 1, begin.try_into());
    let run = worker.run("r", 1).unwrap();
    let owners = vec![1; plan.count() as usize];
    let peers = vec![Peer { worker: 1, address: "http://127.0.0.1:1".into() }];
    run.place(Placement { run: "r".into(), epoch: 1, owners, peers }.into(), 1);
    load(&worker, &run, &plan, &file).await;
    let soup = Soup::single(soup_core::soup::Ingredient(0));
    for (index, file) in files.iter().enumerate() {
        let Answer::Written(written) = write(&run, &soup, index as u32).await.unwrap().answer else {
            panic!()
        };
        let (start, end) = (file.range.start as usize, file.range.end as usize);
        assert_eq!(written.data_sha256[..], Sha256::digest(&data[start..end])[..]);
        assert_eq!(written.bytes as usize, file.header.len() + end - start);
    }
    // What lies there is read back, and not what was meant to.
    let place = folder.path().join("soup.partial-r.e1").join(&files[1].name);
    let written = std::fs::read(&place).unwrap();
    let found = read_back(&run, 1).await.unwrap();
    assert_eq!((found.bytes, &found.sha256[..]), (written.len() as u64, &Sha256::digest(&written)[..]));
    let mut changed = written.clone();
    changed[50_000] ^= 1;
    std::fs::write(&place, &changed).unwrap();
    assert_eq!(read_back(&run, 1).await.unwrap().sha256[..], Sha256::digest(&changed)[..]);
    std::fs::remove_file(&place).unwrap();
    let error = read_back(&run, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.chain().contains("is not there: is output"), "{}", error.chain());
    std::fs::write(&place, &written).unwrap();
    let Answer::Digested(digest) = digest(&run, &soup).await.unwrap().answer else { panic!() };
    assert_eq!(digest[..], Sha256::digest(&data)[..]);
    // The shard that is in both files was read twice, every other one once.
    let read: u64 =
        plan.shards().map(|s| run.passages.found(s.0).map_or(0, |passed| passed.bytes_read)).sum();
    assert_eq!(read, schema.bytes() + plan.shard_bytes());
    staging.discard().await.unwrap();
}
