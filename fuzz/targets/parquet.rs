//! Parquet files of samples: the last byte says how many are wanted, the others are the file. As many samples come out as were asked for.
#![no_main]

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};
use soup_eval::{Dataset, FileEntry, Files};

/// Samples that are read, at most: files may claim any number.
const READ_MAX: u64 = 16;

struct OneFile(Bytes);

impl Files for OneFile {
    fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(vec![FileEntry { path: "v.parquet".into(), size_bytes: self.0.len() as u64 }])
    }

    fn read(&self, _: &str, range: Range<u64>) -> Result<Bytes> {
        let inside = range.start <= range.end && range.end <= self.0.len() as u64;
        let range = range.start as usize..range.end as usize;
        if inside { Ok(self.0.slice(range)) } else { Err(Error::data("past the end")) }
    }

    fn describe(&self) -> String {
        "fuzz".into()
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((limit, file)) = input.split_last() else { return };
    let limit = (*limit > 0).then_some(u64::from(*limit));
    let options = DatasetOptions { limit, ..DatasetOptions::default() };
    let Ok(dataset) = Dataset::open(Arc::new(OneFile(Bytes::copy_from_slice(file))), &options) else {
        return;
    };
    let len = dataset.len();
    for start in [0, len.saturating_sub(READ_MAX)] {
        let range = start..len.min(start.saturating_add(READ_MAX));
        let wanted = range.end - range.start;
        if let Ok(samples) = dataset.read(range) {
            assert_eq!(samples.len() as u64, wanted);
        }
    }
    let _ = (dataset.label_names().map(<[String]>::len), dataset.place(len.saturating_sub(1)));
});
