//! A pool on the local disk, and the messages by which a coordinator would have workers load it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use soup_core::shard::{Shard, ShardPlan};
use soup_proto::v1::{BeginRun, IngredientReads, LoadShard, Object, Read};
use soup_store::checkpoint::Checkpoint;
use soup_store::load::plan_reads;
use soup_store::pool::open_pool;

/// Tensors of an ingredient, of equal size.
const TENSORS: usize = 64;

/// A pool that is deleted when it is dropped.
pub struct Pool {
    /// One file an ingredient.
    #[allow(dead_code)] // not every benchmark reads them
    pub files: Vec<PathBuf>,
    /// The run that cooks it.
    pub begin: BeginRun,
    /// One task a shard.
    pub loads: Vec<LoadShard>,
    _folder: tempfile::TempDir,
}

impl Pool {
    /// Writes `ingredients` checkpoints of `bytes` bytes of BF16 parameters each.
    pub async fn write(ingredients: usize, bytes: usize) -> Pool {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            (0..ingredients).map(|i| folder.path().join(format!("m{i:02}.safetensors"))).collect();
        files.iter().zip(1..).for_each(|(file, seed)| write_checkpoint(file, bytes, seed));
        let checkpoints = open_pool(&[folder.path().to_str().unwrap().to_owned()]).await.unwrap().checkpoints;
        let schema = &checkpoints[0].schema;
        let plan = ShardPlan::new(schema.bytes());
        let reads = |c: &Checkpoint, shard| ingredient_reads(c, plan_reads(c, schema, plan.range(shard)));
        let load = |shard: Shard| LoadShard {
            shard: shard.0,
            tier: soup_proto::v1::Tier::Memory.into(),
            ingredients: checkpoints.iter().map(|c| reads(c, shard)).collect(),
            ..LoadShard::default()
        };
        let begin = BeginRun {
            digest: soup_proto::v1::DigestKind::Sha256.into(),
            peer_key: vec![7; 32],
            run: "bench".to_owned(),
            epoch: 1,
            tensors: soup_proto::tensors_of(schema),
            shard_bytes: plan.shard_bytes(),
            ingredients: checkpoints.iter().map(|c| c.name.clone()).collect(),
            ..BeginRun::default()
        };
        Pool { files, begin, loads: plan.shards().map(load).collect(), _folder: folder }
    }
}

fn ingredient_reads(checkpoint: &Checkpoint, reads: Vec<soup_store::load::Read>) -> IngredientReads {
    let object = |f: &soup_store::checkpoint::FileStamp| Object {
        url: f.location.to_string(),
        etag: f.etag.clone().unwrap_or_default(),
    };
    let read = |r: soup_store::load::Read| Read {
        object: r.file as u32,
        object_offset: r.file_offset,
        shard_offset: r.dest_offset,
        bytes: r.len,
    };
    IngredientReads {
        objects: checkpoint.files.iter().map(object).collect(),
        reads: reads.into_iter().map(read).collect(),
        stored: Vec::new(),
    }
}

fn write_checkpoint(path: &PathBuf, bytes: usize, seed: u32) {
    let each = bytes / TENSORS;
    let tensor = |i: usize| {
        let (start, end) = (i * each, (i + 1) * each);
        format!(r#""t{i:03}":{{"dtype":"BF16","shape":[{}],"data_offsets":[{start},{end}]}}"#, each / 2)
    };
    let mut header = format!("{{{}}}", (0..TENSORS).map(tensor).collect::<Vec<_>>().join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let mut state = seed;
    for _ in 0..each * TENSORS / 4 {
        // Ordinary numbers: the exponent's top bits are those of values around one, the rest is noise.
        state = state.wrapping_mul(0x9e37_79b1).wrapping_add(0x85eb_ca6b);
        file.write_all(&((state & 0x80ff_80ff) | 0x3c00_3c00).to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}
