use soup_core::ErrorKind;
use soup_core::schema::Dtype;

use super::*;
use crate::conformance::{fails, memory, put, safetensors, small_schema};

fn one(name: &str) -> Vec<u8> {
    safetensors(&Schema::new(vec![TensorSpec::new(name, Dtype::F32, [2])]).unwrap(), |_| 1)
}

/// A folder of the files `a` (tensor `ta`) and `b` (tensor `tb`) under the given index.
async fn indexed(test: &str, index: &str) -> Result<Checkpoint> {
    let folder = memory(test);
    put(&folder, "a", one("ta")).await;
    put(&folder, "b", one("tb")).await;
    put(&folder, INDEX_FILE, index.to_string()).await;
    open_checkpoint(&folder).await
}

#[tokio::test]
async fn an_index_spreads_tensors_over_files() {
    let c = indexed("spread", r#"{"metadata":{"total_size":16},"weight_map":{"tb":"b","ta":"a"}}"#)
        .await
        .unwrap();
    assert_eq!(c.name, "spread");
    assert_eq!(c.files.iter().map(|f| f.location.name()).collect::<Vec<_>>(), ["a", "b"]);
    let places: Vec<_> = c.tensors().map(|(spec, place)| (spec.name.as_str(), place.file)).collect();
    assert_eq!(places, [("ta", 0), ("tb", 1)]);
    assert_eq!(c.size_bytes(), 2 * one("ta").len() as u64);
}

#[tokio::test]
async fn an_index_that_is_wrong_is_refused() {
    let cases = [
        ("missing file", r#"{"weight_map":{"ta":"a","tc":"c"}}"#, "missing%20file/c does not exist"),
        ("absolute", r#"{"weight_map":{"ta":"/a"}}"#, r#""/a" is not a name below"#),
        ("above", r#"{"weight_map":{"ta":"../above/a"}}"#, r#""../above/a" is not a name below"#),
        ("wrong file", r#"{"weight_map":{"ta":"b","tb":"a"}}"#, r#"tensor "ta" is not in "b""#),
        ("not there", r#"{"weight_map":{"ta":"a","tc":"b"}}"#, r#"tensor "tc" is not in "b""#),
        ("not named", r#"{"weight_map":{"ta":"a","t":"b"}}"#, r#"tensor "t" is not in "b""#),
        ("twice", r#"{"weight_map":{"ta":"a","ta":"b"}}"#, r#""ta" appears twice"#),
        ("nothing", r#"{"weight_map":{}}"#, "names no tensors"),
        ("no map", r#"{"metadata":{}}"#, "missing field `weight_map`"),
        ("no json", "weights", "the index is corrupt"),
    ];
    for (test, index, expect) in cases {
        fails(indexed(test, index).await, ErrorKind::Data, expect);
    }
    put(&memory("both"), "b", one("ta")).await;
    let folder = memory("both");
    put(&folder, "a", one("ta")).await;
    put(&folder, INDEX_FILE, r#"{"weight_map":{"ta":"a","x":"b"}}"#).await;
    fails(open_checkpoint(&folder).await, ErrorKind::Data, r#"tensor "ta" is in two files"#);
    let folder = memory("more");
    let two = vec![TensorSpec::new("ta", Dtype::F32, [2]), TensorSpec::new("extra", Dtype::F32, [2])];
    put(&folder, "a", safetensors(&Schema::new(two).unwrap(), |_| 1)).await;
    put(&folder, INDEX_FILE, r#"{"weight_map":{"ta":"a"}}"#).await;
    fails(
        open_checkpoint(&folder).await,
        ErrorKind::Data,
        r#"does not name tensor "extra", which is in "a""#,
    );
}

#[tokio::test]
async fn a_folder_of_one_file() {
    let folder = memory("folder of one");
    put(&folder, MODEL_FILE, safetensors(&small_schema(), |_| 1)).await;
    put(&folder, INDEX_FILE, "ignored where there is one file").await;
    let c = open_checkpoint(&folder).await.unwrap();
    assert_eq!((c.name.as_str(), &*c.schema), ("folder of one", &small_schema()));
    assert_eq!(c.location, folder);
}

#[tokio::test]
async fn a_truncated_file_is_named() {
    let folder = memory("truncated");
    let whole = safetensors(&small_schema(), |_| 1);
    for bytes in 0..whole.len() {
        let place = put(&folder, "m.safetensors", whole[..bytes].to_vec()).await;
        fails(open_checkpoint(&place).await, ErrorKind::Data, "truncated/m.safetensors");
    }
}

#[tokio::test]
async fn a_long_header_takes_a_second_read() {
    let tensor = |i| TensorSpec::new(format!("a tensor with quite a long name, number {i}"), Dtype::U8, [0]);
    let schema = Schema::new((0..5000).map(tensor).collect()).unwrap();
    let file = safetensors(&schema, |_| 1);
    assert!(file.len() > 256 << 10);
    let place = put(&memory("long"), "m.safetensors", file).await;
    assert_eq!(open_checkpoint(&place).await.unwrap().schema.as_ref(), &schema);
}
