//! Headers of safetensors files: one that is accepted describes the whole file, the format's own crate reads the same of it, and what this
//! program writes for its tensors says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use serde_json::Value;
use soup_core::schema::Schema;
use soup_store::header::{header_bytes, parse_header, write_header};

/// Files up to this size are made, for the other crate to read.
const FILE_BYTES_MAX: u64 = 1 << 20;

fuzz_target!(|json: &[u8]| {
    // No file is long enough by chance for what its header says: it is as long as that claims.
    let ends = |table: &Value| {
        let end = |tensor: &Value| tensor["data_offsets"][1].as_u64();
        table.as_object().and_then(|tensors| tensors.values().filter_map(end).max())
    };
    let data = serde_json::from_slice(json).ok().as_ref().and_then(ends).unwrap_or(0);
    let Some(size) = data.checked_add(8 + json.len() as u64) else { return };
    let mut file = [&(json.len() as u64).to_le_bytes(), json].concat();
    let _ = header_bytes("the file", &file, size);
    let Ok(header) = parse_header("the file", json, size) else { return };

    let covered: u64 = header.tensors.iter().map(|(_, range)| range.end - range.start).sum();
    assert_eq!(covered, data);
    if size <= FILE_BYTES_MAX {
        file.resize(size as usize, 0);
        let theirs =
            SafeTensors::deserialize(&file).expect("the format's own crate accepts what is accepted here");
        assert_eq!(theirs.len(), header.tensors.len());
        for (spec, range) in &header.tensors {
            let tensor = theirs.tensor(&spec.name).unwrap();
            assert_eq!(tensor.shape().iter().map(|d| *d as u64).collect::<Vec<_>>(), spec.shape);
            assert_eq!(tensor.data().len() as u64, range.end - range.start);
        }
    }

    let specs: Vec<_> = header.tensors.into_iter().map(|(spec, _)| spec).collect();
    let schema = Schema::new(specs).expect("names are told apart and sizes add up to that of a file");
    let written = write_header(&schema, 0..schema.tensors().len());
    let size = written.len() as u64 + schema.bytes();
    let again = parse_header("what was written", &written[8..], size).expect("what was written can be read");
    let again: Vec<_> = again.tensors.into_iter().map(|(spec, _)| spec).collect();
    assert_eq!(Schema::new(again).unwrap(), schema);
});
