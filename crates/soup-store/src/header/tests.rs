use proptest::prelude::*;
use soup_core::ErrorKind;

use super::*;

const F: &str = r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#;

/// The header of a file that has `data` bytes of data.
fn parse(json: &str, data: u64) -> Result<Header> {
    parse_header("m.safetensors", json.as_bytes(), 8 + json.len() as u64 + data)
}

#[track_caller]
fn refused(json: &str, data: u64, expect: &str) {
    let e = parse(json, data).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Data);
    assert!(e.chain().starts_with("m.safetensors: "), "{}", e.chain());
    assert!(e.chain().contains(expect), "{}", e.chain());
}

#[track_caller]
fn accepted(json: &str, data: u64, names: &[&str]) {
    let header = parse(json, data).unwrap();
    assert_eq!(header.tensors.iter().map(|(t, _)| t.name.as_str()).collect::<Vec<_>>(), names);
}

#[test]
fn good_headers() {
    accepted("{}", 0, &[]);
    accepted(&format!(r#"{{"w":{{{F}}}}}   "#), 8, &["w"]);
    accepted(
        r#"{"b":{"dtype":"I64","shape":[],"data_offsets":[4,12]},"a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}}"#,
        12,
        &["a", "b"],
    );
    // Empty tensors lie between others.
    accepted(
        r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}"#,
        4,
        &["a", "e"],
    );
    let json = format!(r#"{{"__metadata__":{{"format":"pt"}},"w":{{{F}}}}}"#);
    let header = parse(&json, 8).unwrap();
    let data_start = 8 + json.len() as u64;
    assert_eq!(header.metadata["format"], "pt");
    assert_eq!(header.tensors[0].1, data_start..data_start + 8);
}

#[test]
fn repeated_keys() {
    refused(&format!(r#"{{"w":{{{F}}},"w":{{{F}}}}}"#), 8, r#""w" appears twice"#);
    refused(&format!(r#"{{"w":{{{F}}},"\u0077":{{{F}}}}}"#), 8, r#""w" appears twice"#);
    refused(&format!(r#"{{"w":{{{F},"dtype":"F32"}}}}"#), 8, r#"tensor "w": "dtype" appears twice"#);
    refused(&format!(r#"{{"w":{{{F},"shape":[2]}}}}"#), 8, r#""shape" appears twice"#);
    refused(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0, r#""a" appears twice"#);
    refused(r#"{"__metadata__":{},"__metadata__":{}}"#, 0, r#""__metadata__" appears twice"#);
}

#[test]
fn corrupt_json() {
    refused("", 0, "header is corrupt");
    refused("[]", 0, "header is corrupt");
    refused(&format!(r#"{{"w":{{{F}"#), 8, "header is corrupt");
    refused(&format!(r#"{{"w":{{{F}}}}} x"#), 8, "trailing characters");
    refused(r#"{"w":{"dtype":"F32"}}"#, 0, "missing field `shape`");
    refused(&format!(r#"{{"w":{{{F},"extra":1}}}}"#), 8, r#"unknown field "extra""#);
    refused(r#"{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "invalid value");
    refused(r#"{"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#, 8, "invalid type");
    refused(
        r#"{"w":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}}"#,
        8,
        "invalid type",
    );
    refused(r#"{"__metadata__":{"a":1}}"#, 0, "expected a string");
    let deep = format!(r#"{{"w":{}"#, "[".repeat(100_000));
    refused(&deep, 0, "header is corrupt");
    let deep = format!(r#"{{"w":{{"dtype":"F32","shape":[0,0,0,0,0,0,0,0,{}"#, "[".repeat(100_000));
    refused(&deep, 0, "header is corrupt");
    let e = parse_header("m.safetensors", b"{\"\xff\":1}", 15).unwrap_err();
    assert!(e.chain().contains("not UTF-8"));
}

#[test]
fn shapes_beyond_the_caps() {
    let with = |shape: &str| format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,0]}}}}"#);
    refused(&with("[9223372036854775808,0]"), 0, r#"tensor "w" has a dimension of 9223372036854775808"#);
    refused(&with("[1099511627776,1099511627776,0]"), 0, "is too large");
    refused(&with("[1099511627776,8388608]"), 0, "is too large");
    refused(&with("[0,0,0,0,0,0,0,0,0]"), 0, "more than 8 dimensions");
    accepted(&with("[0,0,0,0,0,0,0,0]"), 0, &["w"]);
    accepted(&with("[1099511627776,0]"), 0, &["w"]);
}

#[test]
fn dtypes() {
    refused(
        r#"{"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#,
        2,
        r#"tensor "w" has dtype "F8_E4M3", which is not supported"#,
    );
    refused(r#"{"w":{"dtype":"f32","shape":[2],"data_offsets":[0,8]}}"#, 8, r#"dtype "f32""#);
}

#[test]
fn data_that_does_not_fit() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry = |r: [u64; 2]| {
            format!(
                r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}"#,
                r[1].saturating_sub(r[0]),
                r[0],
                r[1]
            )
        };
        format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b))
    };
    accepted(&two([4, 6], [0, 4]), 6, &["b", "a"]);
    refused(
        &two([0, 4], [5, 6]),
        6,
        r#"tensor "b" starts at byte 5 of the data, expected 4: it leaves a hole"#,
    );
    refused(&two([0, 4], [3, 6]), 6, "overlaps");
    refused(&two([1, 4], [4, 6]), 6, r#"tensor "a" starts at byte 1"#);
    refused(&two([0, 4], [4, 6]), 5, "only 5 bytes follow the header: the file is truncated");
    refused(&two([0, 4], [4, 6]), 7, "take 6 bytes, but 7 bytes follow");
    refused(&two([0, 4], [6, 4]), 6, r#"tensor "b" of shape [0] and dtype U8 takes 0 bytes"#);
    refused(&two([0, 4], [18446744073709551615, 2]), 6, "data_offsets are");
    refused(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "takes 8 bytes");
    refused(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, 8, "has 1 data_offsets, expected 2");
    refused(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,16]}}"#, 8, "has 3 data_offsets");
}

#[test]
fn names_beyond_the_cap() {
    let with = |bytes: usize| format!(r#"{{"{}":{{{F}}}}}"#, "n".repeat(bytes));
    accepted(&with(512), 8, &[&"n".repeat(512)]);
    refused(&with(513), 8, "has 513 bytes, at most 512");
}

#[test]
fn too_many_tensors() {
    let entry = |i: usize| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let with = |n: usize| format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(parse(&with(TENSORS_MAX), 0).unwrap().tensors.len(), TENSORS_MAX);
    refused(&with(TENSORS_MAX + 1), 0, "more than 200000 tensors");
}

#[test]
fn lengths() {
    let check = |start: &[u8], size: u64, expect: &str| {
        let e = header_bytes("m", start, size).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Data);
        assert!(e.chain().contains(expect), "{}", e.chain());
    };
    check(b"", 0, "m has 0 bytes: not a safetensors file");
    check(b"1234567", 7, "not a safetensors file");
    check(&u64::MAX.to_le_bytes(), 1 << 30, "claims a header of 18446744073709551615 bytes");
    check(&(HEADER_BYTES_MAX + 1).to_le_bytes(), 1 << 30, "at most 33554432");
    check(&100u64.to_le_bytes(), 107, "the file is truncated");
    assert_eq!(header_bytes("m", &100u64.to_le_bytes(), 108).unwrap(), 100);
}

fn dtype_there(dtype: Dtype) -> safetensors::Dtype {
    serde_json::from_str(&format!("{:?}", dtype.name())).unwrap()
}

prop_compose! {
    fn tensor()(name in "[a-zA-Z0-9._\" é\\\\-]{1,12}", dtype in proptest::sample::select(Dtype::ALL.to_vec()),
        shape in proptest::collection::vec(0u64..5, 0..4)) -> TensorSpec {
        TensorSpec { name, dtype, shape }
    }
}

fn tensors() -> impl Strategy<Value = BTreeMap<String, TensorSpec>> {
    proptest::collection::vec(tensor(), 0..12)
        .prop_map(|t| t.into_iter().map(|t| (t.name.clone(), t)).collect())
}

proptest! {
    #[test]
    fn we_read_what_the_formats_own_crate_writes(tensors in tensors()) {
        let data = vec![7u8; 8 * 64];
        let views: Vec<(&String, safetensors::tensor::TensorView<'_>)> = tensors.iter().map(|(name, t)| {
            let shape = t.shape.iter().map(|&d| d as usize).collect();
            let bytes = &data[..t.bytes().unwrap() as usize];
            (name, safetensors::tensor::TensorView::new(dtype_there(t.dtype), shape, bytes).unwrap())
        }).collect();
        let metadata = std::collections::HashMap::from([("k\"".to_string(), "v".to_string())]);
        let file = safetensors::serialize(views, Some(metadata)).unwrap();
        let length = header_bytes("m", &file, file.len() as u64).unwrap() as usize;
        let header = parse_header("m", &file[8..8 + length], file.len() as u64).unwrap();
        prop_assert_eq!(&header.metadata["k\""], "v");
        let ours: BTreeMap<String, TensorSpec> = header.tensors.iter().map(|(t, _)| (t.name.clone(), t.clone())).collect();
        prop_assert_eq!(ours, tensors);
        let (_, theirs) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        for (spec, range) in &header.tensors {
            let offsets = theirs.info(&spec.name).unwrap().data_offsets;
            prop_assert_eq!(range.clone(), (8 + length + offsets.0) as u64..(8 + length + offsets.1) as u64);
        }
    }

    #[test]
    fn the_formats_own_crate_reads_what_we_write(tensors in tensors()) {
        let schema = Schema::new(tensors.into_values().collect()).unwrap();
        let mut file = write_header(&schema, 0..schema.tensors().len());
        prop_assert_eq!(file.len() % 8, 0);
        let ours = parse_header("m", &file[8..], file.len() as u64 + schema.bytes()).unwrap();
        prop_assert_eq!(ours.tensors.len(), schema.tensors().len());
        file.extend((0..schema.bytes()).map(|i| i as u8));
        let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
        for (index, spec) in schema.tensors().iter().enumerate() {
            let view = theirs.tensor(&spec.name).unwrap();
            prop_assert_eq!(view.dtype(), dtype_there(spec.dtype));
            let range = schema.range(index);
            prop_assert_eq!(view.data(), (range.start..range.end).map(|i| i as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(mut json in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
        let _ = parse_header("m", &json, size);
        json.splice(0..0, *b"{\"w\":{\"dtype\":\"F32\",");
        let _ = parse_header("m", &json, size);
        let _ = header_bytes("m", &json, size);
    }
}
