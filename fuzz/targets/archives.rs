//! Tar files of samples: the last byte says how many are wanted, the others are the file. As many samples come out as were asked for, and
//! their images are parts of the file.
#![no_main]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};
use soup_eval::{Classes, Dataset, FileEntry, Files, Input};

/// Samples that are read, at most.
const READ_MAX: u64 = 16;

struct OneFile(Bytes);

impl Files for OneFile {
    fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(vec![FileEntry { path: "v.tar".into(), size_bytes: self.0.len() as u64 }])
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
    let Ok(mut dataset) = Dataset::open(Arc::new(OneFile(Bytes::copy_from_slice(file))), &options) else {
        return;
    };
    let names = ["cat", "dog", "owl"].map(str::to_owned).to_vec();
    let _ = dataset.align(&Classes::new(names, &BTreeMap::new()), false);
    let len = dataset.len();
    for start in [0, len.saturating_sub(READ_MAX)] {
        let range = start..len.min(start.saturating_add(READ_MAX));
        let wanted = range.end - range.start;
        if let Ok(samples) = dataset.read(range) {
            assert_eq!(samples.len() as u64, wanted);
            let fits = |input: &Input| matches!(input, Input::Image(image) if image.len() < file.len());
            assert!(samples.iter().all(|sample| fits(&sample.input)));
        }
    }
    let _ = dataset.place(len.saturating_sub(1));
});
