//! The small pool, copied so that it can be changed, and one call of `cook` on it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use soup_tests::{Output, Soupctl};
use tempfile::TempDir;

pub(crate) const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// The twelve classes of the model, by number.
pub(crate) const CLASSES: [&str; 12] =
    ["zebra", "yak", "wolf", "vole", "tiger", "seal", "rat", "puma", "otter", "newt", "mole", "lynx"];

/// The folder of the small pool's files.
pub(crate) fn animals() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/animals")
}

/// Copies a file or a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

/// A place for one test: a pool of copies of the model, and whatever the test adds.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    /// With a pool of these ingredients, all of them the same model, in `pool/NAME`.
    pub(crate) fn with(names: &[&str]) -> Place {
        let place = Place { dir: TempDir::new().unwrap() };
        for name in names {
            copy(&animals().join("m0"), &place.ingredient(name));
        }
        place
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of an ingredient.
    pub(crate) fn ingredient(&self, name: &str) -> PathBuf {
        self.path().join("pool").join(name)
    }

    /// Writes a file, and the folders around it.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Changes a JSON file.
    pub(crate) fn change_json(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path().join(path);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
    }

    /// A folder of images by class, where class `c` of the model is called `name(c)`; classes without a name are left out.
    pub(crate) fn images(&self, folder: &str, name: impl Fn(usize) -> Option<String>) {
        for (class, animal) in CLASSES.iter().enumerate() {
            if let Some(name) = name(class) {
                let image = std::fs::read(animals().join(format!("images/{animal}.png"))).unwrap();
                self.write(&format!("{folder}/{name}/x.png"), image);
            }
        }
    }

    /// `soupctl COMMAND` in this place with these arguments.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        Soupctl::new(SOUPCTL).dir(self.path()).args(args).run()
    }

    /// The uniform soup of `pool`, on one worker and without anything besides; its result as JSON on standard output.
    pub(crate) fn cook(&self, args: &[&str]) -> Output {
        let common = ["cook", "--pool", "pool", "--recipe", "uniform", "--workers", "1", "--threads", "1"];
        let lean = ["--memory", "100MiB", "--fresh", "--no-baselines", "--diagnose", "none", "--quiet"];
        let out = ["-o", "json", "--output", "soup", "--overwrite"];
        let call = Soupctl::new(SOUPCTL).dir(self.path()).args(common).args(lean).args(out);
        call.args(args).run()
    }

    /// [`cook`](Place::cook) on the Parquet file of all twelve images.
    pub(crate) fn cook_all(&self, args: &[&str]) -> Output {
        let validation = animals().join("validation.parquet");
        let set = ["--validation", validation.to_str().unwrap()];
        self.cook(&[&set[..], args].concat())
    }
}

/// The notes of a result that contain all of `parts`: there has to be one.
#[track_caller]
pub(crate) fn noted(result: &Value, parts: &[&str]) {
    let notes: Vec<&str> = result["notes"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(notes.iter().any(|n| parts.iter().all(|p| n.contains(p))), "no {parts:?} in {notes:?}");
}
