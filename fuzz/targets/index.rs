//! Indices of checkpoints of several files: one that is accepted names files of its folder, and each tensor's.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use soup_store::checkpoint::{INDEX_FILE, open_checkpoint};
use soup_store::location::Location;

/// A folder with two files of one tensor each, in a folder with one more.
static MODEL: LazyLock<PathBuf> = LazyLock::new(|| {
    let outer = tempfile::Builder::new().prefix("fuzz-index").tempdir().unwrap().keep();
    let folder = outer.join("model");
    fs::create_dir_all(folder.join("deep")).unwrap();
    let file = |tensor: &str| {
        let json = format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[7]].concat()
    };
    fs::write(folder.join("a.safetensors"), file("a")).unwrap();
    fs::write(folder.join("deep/b.safetensors"), file("b")).unwrap();
    fs::write(outer.join("x.safetensors"), file("x")).unwrap();
    folder
});

fuzz_target!(|json: &[u8]| {
    fs::write(MODEL.join(INDEX_FILE), json).unwrap();
    let folder = Location::local(&MODEL).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let Ok(checkpoint) = runtime.block_on(open_checkpoint(&folder)) else { return };
    for file in &checkpoint.files {
        assert!(file.location.local_path().unwrap().starts_with(&*MODEL), "{file:?}");
    }
    for (tensor, place) in checkpoint.tensors() {
        let file = checkpoint.files[place.file].location.name();
        assert_eq!(file, format!("{}.safetensors", tensor.name));
    }
});
