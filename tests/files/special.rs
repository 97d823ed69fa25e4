//! Where a file is expected, something that would block for ever or never end is refused at once, by name.

use std::path::Path;
use std::process::Command;

use soup_tests::{Cluster, Soupctl};

use crate::fixture::{Place, SOUPCTL, animals};

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_cook_file_and_a_weights_file() {
    let place = Place::with(&["a"]);
    fifo(&place.path().join("fifo"));
    let kinds =
        [("fifo", "a FIFO"), ("/dev/zero", "a device"), ("/dev/null", "a device"), ("pool", "a folder")];
    for (path, what) in kinds {
        let what = format!("it is {what}, not a file");
        place.call(&["cook", "-f", path]).fails(2, &["cook file", path, &what]);
        place.call(&["plan", "-f", path]).fails(2, &["cook file", path, &what]);
        let weights = ["cook", "--pool", "pool", "--recipe", "weighted", "--weights-file", path];
        place.call(&weights).fails(2, &["weights file", path, &what]);
    }
}

#[test]
fn a_checkpoint_and_what_goes_along_with_it() {
    let place = Place::with(&["a", "b"]);
    let validation = animals().join("validation.parquet");
    let known = ["--validation", validation.to_str().unwrap()];
    fifo(&place.path().join("fifo.safetensors"));
    let expect = ["fifo.safetensors is a FIFO, not a file"];
    place.call(&["inspect", "fifo.safetensors"]).fails(65, &expect);
    place.call(&["inspect", "/dev/zero"]).fails(65, &["/dev/zero is a device, not a file"]);
    for flag in ["--base=", "--validation=", "--test=t=", "--model-config=", "--preprocessor-config="] {
        let named = format!("{flag}fifo.safetensors");
        let known = if flag == "--validation=" { &[][..] } else { &known };
        let cook = ["cook", "--pool", "pool", "--recipe", "uniform", "--output", "soup", &named];
        place.call(&[&cook, known].concat()).fails(65, &expect);
    }
    for name in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        let place = Place::with(&["a", "b"]);
        std::fs::remove_file(place.ingredient("b").join(name)).unwrap();
        fifo(&place.ingredient("b").join(name));
        place.cook_all(&[]).fails(65, &[name, "is a FIFO, not a file"]);
    }
}

#[test]
fn a_run_of_a_coordinator_which_goes_on_serving() {
    let cluster = Cluster::start(SOUPCTL, 1);
    let place = Place::with(&["a", "b"]);
    fifo(&place.path().join("fifo.safetensors"));
    let validation = animals().join("validation.parquet");
    let cook = |pool: &str| {
        let set =
            ["cook", "--pool", pool, "--validation", validation.to_str().unwrap(), "--recipe", "uniform"];
        let rest = ["--output", "soup", "--coordinator", &cluster.url, "-o", "json", "--diagnose", "none"];
        Soupctl::new(SOUPCTL).dir(place.path()).args(set).args(rest).run()
    };
    cook("fifo.safetensors").fails(65, &["fifo.safetensors is a FIFO, not a file"]);
    // A run of which only the name is left, and that is a FIFO.
    let broken = cluster.state().join("runs/broken");
    std::fs::create_dir_all(&broken).unwrap();
    fifo(&broken.join("plan.json"));
    cook("pool").json();
    let runs = place.call(&["runs", "--coordinator", &cluster.url, "-o", "json"]).json().to_string();
    assert!(runs.contains("plan.json is a FIFO, not a file") && runs.contains("published"), "{runs}");
}
