//! Texts in lines: the first byte says in which form, the others are the file. As many samples come out as were asked for, whose texts are not
//! longer than the file, and a part of them is the same as when all are read.
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
const READ_MAX: u64 = 64;
const NAMES: [&str; 3] = ["v.jsonl", "v.tsv", "dev.tsv"];

struct OneFile(&'static str, Bytes);

impl Files for OneFile {
    fn list(&self) -> Result<Vec<FileEntry>> {
        Ok(vec![FileEntry { path: self.0.into(), size_bytes: self.1.len() as u64 }])
    }

    fn read(&self, _: &str, range: Range<u64>) -> Result<Bytes> {
        let inside = range.start <= range.end && range.end <= self.1.len() as u64;
        let range = range.start as usize..range.end as usize;
        if inside { Ok(self.1.slice(range)) } else { Err(Error::data("past the end")) }
    }

    fn describe(&self) -> String {
        "fuzz".into()
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, file)) = input.split_first() else { return };
    let name = NAMES[usize::from(*which) % NAMES.len()];
    let files = Arc::new(OneFile(name, Bytes::copy_from_slice(file)));
    let Ok(mut dataset) = Dataset::open(files, &DatasetOptions::default()) else { return };
    let names = ["negative", "positive"].map(str::to_owned).to_vec();
    let _ = dataset.align(&Classes::new(names, &BTreeMap::new()), false);
    let len = dataset.len().min(READ_MAX);
    let Ok(all) = dataset.read(0..len) else { return };
    assert_eq!(all.len() as u64, len);
    // A character of three bytes may stand for one that is none.
    let longest = file.len().saturating_mul(3);
    for sample in all.iter() {
        let Input::Text { first, second } = &sample.input else { panic!("{:?}", sample.input) };
        assert!(first.len() + second.as_ref().map_or(0, String::len) <= longest);
    }
    let part = dataset.read(len / 2..len).expect("what was read once is read twice");
    assert!(part.iter().zip(all.iter().skip((len / 2) as usize)).all(|(a, b)| a.input == b.input));
});
