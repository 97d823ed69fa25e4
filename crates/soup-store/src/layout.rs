//! How a soup is cut into the files of a Hugging Face folder.

use std::collections::BTreeMap;
use std::ops::Range;

use soup_core::schema::Schema;

use crate::checkpoint::MODEL_FILE;
use crate::header;

/// Largest size of the data of one output file, unless a single tensor is larger.
pub const FILE_BYTES_MAX: u64 = 5_000_000_000;

/// One safetensors file of an output: `header`, then bytes `range` of the flattened parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name in the folder.
    pub name: String,
    /// Byte range of its data in the flattened parameters.
    pub range: Range<u64>,
    /// Its tensors, by position in the schema.
    pub tensors: Range<usize>,
    /// Everything before the data, the eight bytes of length included.
    pub header: Vec<u8>,
}

/// Cuts a model at tensor boundaries into files of at most `file_bytes_max` bytes of data: one `model.safetensors`, or
/// `model-00001-of-0000N.safetensors` and so on, which need an [`index_json`].
pub fn plan_files(schema: &Schema, file_bytes_max: u64) -> Vec<OutputFile> {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for index in 0..schema.tensors().len() {
        let (tensor, start) = (schema.range(index), schema.range(first).start);
        // An empty tensor needs no file of its own.
        if index > first && !tensor.is_empty() && tensor.end - start > file_bytes_max {
            cuts.push(first..index);
            first = index;
        }
    }
    cuts.push(first..schema.tensors().len());
    let count = cuts.len();
    let file = |(position, tensors): (usize, Range<usize>)| {
        let start = tensors.clone().next().map_or(0, |i| schema.range(i).start);
        let end = tensors.clone().next_back().map_or(start, |i| schema.range(i).end);
        let name = match count {
            1 => MODEL_FILE.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", position + 1),
        };
        let header = header::write_header(schema, tensors.clone());
        OutputFile { name, range: start..end, tensors, header }
    };
    cuts.into_iter().enumerate().map(file).collect()
}

/// The content of `model.safetensors.index.json`, which says in which of `files` each tensor is.
pub fn index_json(schema: &Schema, files: &[OutputFile]) -> Vec<u8> {
    let tensors = files.iter().flat_map(|f| f.tensors.clone().map(|t| (t, f.name.as_str())));
    let weight_map: BTreeMap<&str, &str> =
        tensors.map(|(t, file)| (schema.tensors()[t].name.as_str(), file)).collect();
    let index = serde_json::json!({ "metadata": { "total_size": schema.bytes() }, "weight_map": weight_map });
    let mut out = format!("{index:#}").into_bytes();
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use soup_core::schema::{Dtype, TensorSpec};

    use super::*;

    fn schema(sizes: &[u64]) -> Schema {
        let tensor = |(i, &n): (usize, &u64)| TensorSpec::new(format!("t{i:02}"), Dtype::U8, [n]);
        Schema::new(sizes.iter().enumerate().map(tensor).collect()).unwrap()
    }

    #[track_caller]
    fn check(sizes: &[u64], file_bytes_max: u64, expect: &[Range<u64>]) {
        let schema = schema(sizes);
        let files = plan_files(&schema, file_bytes_max);
        assert_eq!(files.iter().map(|f| f.range.clone()).collect::<Vec<_>>(), expect);
        assert_eq!(
            files.iter().flat_map(|f| f.tensors.clone()).collect::<Vec<_>>(),
            Vec::from_iter(0..sizes.len())
        );
        for f in &files {
            let size = f.header.len() as u64 + f.range.end - f.range.start;
            let header = header::parse_header("f", &f.header[8..], size).unwrap();
            assert_eq!(header.tensors.len(), f.tensors.len());
        }
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // they are ranges
    fn files_are_cut_between_tensors() {
        check(&[3, 3, 3], 9, &[0..9]);
        check(&[3, 3, 3], 8, &[0..6, 6..9]);
        check(&[3, 9, 3, 3], 6, &[0..3, 3..12, 12..18]);
        check(&[9, 0, 0], 6, &[0..9]);
        check(&[3, 3], 0, &[0..3, 3..6]);
        check(&[], 6, &[0..0]);
    }

    #[test]
    fn several_files_have_an_index() {
        let schema = schema(&[3, 3, 3]);
        let files = plan_files(&schema, 6);
        assert_eq!(files[0].name, "model-00001-of-00002.safetensors");
        let index: serde_json::Value = serde_json::from_slice(&index_json(&schema, &files)).unwrap();
        let expect = serde_json::json!({
            "metadata": {"total_size": 9},
            "weight_map": {
                "t00": "model-00001-of-00002.safetensors",
                "t01": "model-00001-of-00002.safetensors",
                "t02": "model-00002-of-00002.safetensors",
            },
        });
        assert_eq!(index, expect);
        assert_eq!(plan_files(&schema, 100)[0].name, "model.safetensors");
    }
}
