use std::collections::BTreeMap;

use proptest::prelude::*;
use soup_core::ErrorKind;
use soup_core::schema::{ALIGN_BYTES, Dtype};

use super::*;
use crate::checkpoint::{INDEX_FILE, open_checkpoint};
use crate::conformance::{fails, memory, put, safetensors, small_schema};
use crate::layout::{index_json, plan_files};

/// A schema, the size its files are cut at, a byte range of it, and the positions of tensors that a checkpoint lacks.
fn cases() -> impl Strategy<Value = (Schema, u64, Range<u64>, Vec<usize>)> {
    let tensor = (proptest::sample::select(Dtype::ALL.to_vec()), proptest::collection::vec(0u64..7, 0..3));
    (proptest::collection::vec(tensor, 1..10), 1u64..400, any::<[proptest::sample::Index; 3]>()).prop_map(
        |(tensors, file_bytes_max, [a, b, lacks])| {
            let tensors = tensors.into_iter().enumerate();
            let specs = tensors.map(|(i, (d, s))| TensorSpec::new(format!("t{}", 99 - i), d, s)).collect();
            let schema = Schema::new(specs).unwrap();
            let (a, b) =
                (a.index(schema.bytes() as usize + 1) as u64, b.index(schema.bytes() as usize + 1) as u64);
            let lacks = lacks.index(schema.tensors().len() + 1);
            // Shards are cut between elements of any dtype.
            let cut = |at: u64| if at == schema.bytes() { at } else { at - at % ALIGN_BYTES };
            let range = cut(a.min(b))..cut(a.max(b));
            (schema, file_bytes_max, range, vec![lacks])
        },
    )
}

/// Byte `i` of the flattened parameters.
fn byte(i: u64) -> u8 {
    (i % 251) as u8 + 1
}

/// Writes `schema` without the tensors `lacks`, as one file or several; the bytes are those of the whole schema.
async fn write(folder: &Location, schema: &Schema, file_bytes_max: u64, lacks: &[usize]) {
    let kept = |i: &usize| !lacks.contains(i);
    let kept: Vec<usize> = (0..schema.tensors().len()).filter(kept).collect();
    let ours = Schema::new(kept.iter().map(|&i| schema.tensors()[i].clone()).collect()).unwrap();
    let bytes: Vec<u8> = kept.iter().flat_map(|&i| schema.range(i)).map(byte).collect();
    let files = plan_files(&ours, file_bytes_max);
    for file in &files {
        let data = &bytes[file.range.start as usize..file.range.end as usize];
        put(folder, &file.name, [&file.header, data].concat()).await;
    }
    if files.len() > 1 {
        put(folder, INDEX_FILE, index_json(&ours, &files)).await;
    }
}

async fn loads_what_a_copy_would(
    folder: &Location,
    case: &(Schema, u64, Range<u64>, Vec<usize>),
    part_bytes: u64,
) {
    let (schema, file_bytes_max, range, lacks) = case;
    write(folder, schema, *file_bytes_max, lacks).await;
    let checkpoint = match open_checkpoint(folder).await {
        // An index of nothing is refused.
        Err(_) if lacks.len() == schema.tensors().len() => return,
        other => other.unwrap(),
    };
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let reads = plan_reads(&checkpoint, schema, range.clone());
    let mut shard = vec![0; (range.end - range.start) as usize];
    let bytes_read = load(&files, &reads, &mut shard, LoadLimits { part_bytes, in_flight: 3 }).await.unwrap();
    assert_eq!(bytes_read, reads.iter().map(|r| r.len).sum::<u64>());
    let lacking = |i: u64| lacks.iter().any(|&t| t < schema.tensors().len() && schema.range(t).contains(&i));
    let expect: Vec<u8> = range.clone().map(|i| if lacking(i) { 0 } else { byte(i) }).collect();
    assert_eq!(shard, expect);
    // A part of it, wherever it is cut.
    let inside = expect.len() as u64 / 3..expect.len() as u64 - expect.len() as u64 / 5;
    let mut part = vec![0; (inside.end - inside.start) as usize];
    let clipped = clip(&reads, inside.clone());
    load(&files, &clipped, &mut part, LoadLimits { part_bytes, in_flight: 3 }).await.unwrap();
    assert_eq!(part, expect[inside.start as usize..inside.end as usize]);
    // Joined as far as possible: one read a run of bytes.
    let splits = lacks.iter().filter(|&&t| t < schema.tensors().len() && !schema.range(t).is_empty()).count();
    assert!(reads.len() <= checkpoint.files.len() + splits);
}

#[tokio::test]
async fn other_dtypes_are_read_as_they_are_stored() {
    let folder = memory("other-dtypes");
    let spec = |name: &str, dtype, count: u64| TensorSpec::new(name, dtype, [count]);
    let stored = Schema::new(vec![
        spec("a", Dtype::BF16, 5),
        spec("b", Dtype::F64, 3),
        spec("c", Dtype::F32, 4),
        spec("n", Dtype::I64, 1),
    ]);
    write(&folder, &stored.unwrap(), u64::MAX, &[]).await;
    let checkpoint = open_checkpoint(&folder).await.unwrap();
    // An average in f32, which also has what the checkpoint lacks.
    let soup = ["a", "b", "c", "d"].iter().zip([5, 3, 4, 2]).map(|(n, count)| spec(n, Dtype::F32, count));
    let soup = Schema::new(soup.chain([spec("n", Dtype::I64, 1)]).collect()).unwrap();
    // n, a, b, c, d: from the third element of a to the second of c.
    let range = 16..8 + 5 * 4 + 3 * 4 + 8;
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let reads = plan_reads(&checkpoint, &soup, range.clone());
    let dtypes = stored_dtypes(&checkpoint, &soup, range);
    assert_eq!(dtypes, BTreeMap::from([(1, Dtype::BF16), (2, Dtype::F64)]));
    let mut shard = vec![0; 3 * 2 + 3 * 8 + 2 * 4];
    load(&files, &reads, &mut shard, LoadLimits::default()).await.unwrap();
    // Stored are b, n, c, a.
    let bytes = |range: Range<u64>| range.map(byte).collect::<Vec<_>>();
    assert_eq!(shard, [bytes(52..58), bytes(0..24), bytes(32..40)].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn loading_is_copying(case in cases(), part_bytes in 1u64..50) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            loads_what_a_copy_would(&Location::local(local.path()).unwrap(), &case, part_bytes).await;
            let folder = memory("loading is copying");
            for old in read::list(&folder).await.unwrap() {
                object_store::ObjectStoreExt::delete(&**old.location.store(), old.location.path()).await.unwrap();
            }
            loads_what_a_copy_would(&folder, &case, part_bytes).await;
        });
    }
}

#[test]
fn reads_must_fit_the_shard() {
    let file = [ReadFrom { location: memory("x"), etag: None }];
    let read = |dest_offset, len| Read { file: 0, file_offset: 0, dest_offset, len };
    let check = |reads: &[Read], expect: Option<&[usize]>| {
        let mut dest = [0; 10];
        let parts =
            cut(&file, reads, &mut dest, 4).map(|p| p.iter().map(|p| p.dest.len()).collect::<Vec<_>>());
        match expect {
            Some(lens) => assert_eq!(parts.unwrap(), lens),
            None => fails(parts, ErrorKind::Internal, "does not fit"),
        }
    };
    check(&[read(0, 10)], Some(&[4, 4, 2]));
    check(&[read(1, 3), read(4, 0), read(8, 2)], Some(&[3, 2]));
    check(&[read(0, 11)], None);
    check(&[read(4, 2), read(3, 1)], None);
    check(&[read(11, 0)], None);
    check(&[read(0, u64::MAX), read(1, u64::MAX)], None);
    check(&[Read { file: 1, ..read(0, 1) }], None);
    check(&[Read { file_offset: u64::MAX, ..read(0, 1) }], None);
}

#[tokio::test]
async fn a_local_file_that_changes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = Location::local(folder.path()).unwrap();
    let place = put(&root, "m.safetensors", safetensors(&small_schema(), byte)).await;
    let checkpoint = open_checkpoint(&place).await.unwrap();
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let reads = plan_reads(&checkpoint, &checkpoint.schema, 0..checkpoint.schema.bytes());
    let mut shard = vec![0; checkpoint.schema.bytes() as usize];
    load(&files, &reads, &mut shard, LoadLimits::default()).await.unwrap();
    let mut longer = safetensors(&small_schema(), byte);
    longer.push(0);
    put(&root, "m.safetensors", longer).await;
    let again = load(&files, &reads, &mut shard, LoadLimits::default()).await;
    fails(again, ErrorKind::Data, "m.safetensors changed while it was being read");
}

#[cfg(feature = "cloud")]
mod over_http {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::http_fixture::Server;

    async fn load_with(cuts: u32) -> (Result<u64>, bool, Arc<Server>) {
        let server = Arc::new(Server { cuts: AtomicU32::new(cuts), ..Default::default() });
        let content: Vec<u8> = (0..10_000).map(byte).collect();
        server.files.lock().unwrap().insert("f".into(), content.clone());
        let location = Location::parse(&format!("{}/f", server.start().await)).unwrap();
        let file = [ReadFrom { location, etag: None }];
        let mut dest = vec![0; 9_000];
        let read = [Read { file: 0, file_offset: 500, dest_offset: 0, len: 9_000 }];
        let limits = LoadLimits { part_bytes: 10_000, in_flight: 1 };
        let result = load(&file, &read, &mut dest, limits).await;
        (result, dest == content[500..9_500], server)
    }

    #[tokio::test]
    async fn a_body_that_stops_early_is_resumed() {
        let (result, complete, server) = load_with(3).await;
        assert_eq!(result.unwrap(), 9_000, "no byte is read again");
        assert!(complete);
        assert_eq!(server.ranges.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_store_that_keeps_failing_is_given_up() {
        let (result, complete, server) = load_with(u32::MAX).await;
        fails(result, ErrorKind::Unavailable, "/f");
        assert!(!complete);
        assert_eq!(server.ranges.load(Ordering::SeqCst), ATTEMPTS_MAX);
    }
}

#[tokio::test]
async fn the_example_pool_is_read_as_the_formats_own_crate_reads_it() {
    let pool = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/pools/vit-fashion/ingredients");
    let checkpoint =
        open_checkpoint(&Location::parse(&format!("{pool}/m00.safetensors")).unwrap()).await.unwrap();
    let files: Vec<ReadFrom> = checkpoint.files.iter().map(ReadFrom::from).collect();
    let schema = &checkpoint.schema;
    let mut all = vec![0; schema.bytes() as usize];
    load(&files, &plan_reads(&checkpoint, schema, 0..schema.bytes()), &mut all, LoadLimits::default())
        .await
        .unwrap();
    let file = std::fs::read(format!("{pool}/m00.safetensors")).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
    let expect: BTreeMap<&str, &[u8]> = theirs.iter().map(|(name, view)| (name, view.data())).collect();
    assert_eq!(expect.len(), schema.tensors().len());
    for (index, spec) in schema.tensors().iter().enumerate() {
        let range = schema.range(index);
        assert_eq!(&all[range.start as usize..range.end as usize], expect[spec.name.as_str()]);
    }
}
