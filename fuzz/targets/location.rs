//! Names of places, and globs: a place is shown as it can be named again, what is below one is, and what a glob matches is below where its
//! wildcards begin.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use soup_store::glob::Glob;
use soup_store::location::Location;

static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
    let outer = tempfile::Builder::new().prefix("fuzz-glob").tempdir().unwrap().keep();
    let root = outer.join("root");
    for folder in ["a/b/c", "run-1/checkpoint-1", ".hidden/x"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("m.safetensors"), b"").unwrap();
    }
    fs::write(outer.join("outside"), b"").unwrap();
    root
});

fuzz_target!(|text: &str| {
    if let Ok(place) = Location::parse(text) {
        let shown = place.to_string();
        assert_eq!(Location::parse(&shown).expect("a place is shown as it can be named"), place, "{shown}");
        if let Ok(below) = place.join(text) {
            assert!(below.is_below(&place));
        }
    }
    let root = TREE.to_str().unwrap();
    let Ok(Some(glob)) = Glob::parse(&format!("{root}/{text}")) else { return };
    // What looks like a URL of no store that there is has none.
    let Ok(base) = glob.base() else { return };
    // Before wildcards `..` leads elsewhere, to folders that are large.
    if !base.is_below(&Location::local(&TREE).unwrap()) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let Ok(matches) = runtime.block_on(glob.matches()) else { return };
    for entry in matches.entries {
        assert!(entry.location.is_below(&base), "{entry:?}");
    }
});
