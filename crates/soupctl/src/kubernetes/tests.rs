use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: RenderArgs,
}

const COOK: &str = "pool: s3://lab/pool\nvalidation: s3://lab/val\noutput: s3://lab/soup\n";

fn args(cook: &Path, more: &[&str]) -> std::result::Result<RenderArgs, clap::Error> {
    let flags = ["soupctl", "-f", cook.to_str().unwrap(), "--image", "lab/soupctl:1.2.3", "--workers", "3"];
    Line::try_parse_from(flags.iter().chain(more)).map(|line| line.args)
}

fn cook_file(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("cook.yaml");
    std::fs::write(&path, COOK).unwrap();
    path
}

#[test]
fn a_name_is_that_of_what_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    let path = cook_file(&folder);
    let name = |more: &[&str]| args(&path, more).unwrap().objects().unwrap().name;
    let own = name(&[]);
    assert!(own.starts_with("soup-greedy-") && own.len() <= NAME_CHARS_MAX, "{own}");
    assert_eq!(own, name(&[]));
    for more in [
        &["--cpus", "3"][..],
        &["--gpus", "1"],
        &["--secret", "s"],
        &["--claim", "c=/c"],
        &["--namespace", "n"],
    ] {
        assert_ne!(own, name(more), "{more:?}");
    }
    std::fs::write(&path, format!("{COOK}seed: 1\n")).unwrap();
    assert_ne!(own, name(&[]));
    assert_eq!(name(&["--name", "vit"]), "vit");
    let longest = default_name("best-single", &deployment()).unwrap();
    assert!(longest.len() <= NAME_CHARS_MAX, "{longest}");
}

fn deployment() -> Deployment<'static> {
    Deployment {
        name: "",
        namespace: "soup",
        with_namespace: true,
        account: ACCOUNT,
        default_deny: DEFAULT_DENY,
        image: "soupctl:1",
        workers: json!(1),
        min_workers: None,
        cpus: None,
        memory: None,
        gpus: None,
        secrets: &[],
        claims: &[],
        cook: COOK,
    }
}

#[test]
fn flags_that_kubernetes_would_refuse_are_refused() {
    let cook = Path::new("cook.yaml");
    let long = "a".repeat(NAME_CHARS_MAX + 1);
    for more in [
        &["--name", "Vit"][..],
        &["--name", "1vit"],
        &["--name", "vit-"],
        &["--name", long.as_str()],
        &["--namespace", "a.b"],
        &["--cpus", "8GiB"],
        &["--cpus", "0"],
        &["--memory", "64GiB"],
        &["--memory", "-1Gi"],
        &["--memory", ".Gi"],
        &["--gpus", "-1"],
        &["--claim", "data"],
        &["--claim", "data=data"],
        &["--claim", "data=/"],
        &["--claim", "data=/tmp/data"],
        &["--claim", "data=/a/../tmp"],
        &["--secret", "S"],
    ] {
        assert!(args(cook, more).is_err(), "{more:?}");
    }
    for fits in [
        &["--cpus", "500m"][..],
        &["--cpus", "1.5"],
        &["--memory", "64Gi"],
        &["--claim", "d=/data/a"],
        &["--secret", "lab.s3"],
    ] {
        args(cook, fits).unwrap();
    }
}

#[test]
fn images_have_versions() {
    for good in ["soupctl:0.1.0", "r.example.com:5000/lab/soupctl:0.1.0", "soupctl@sha256:0123"] {
        image(good).unwrap();
    }
    for bad in ["", "soupctl", "soupctl:latest", "r.example.com:5000/soupctl", "soupctl:", "a b:1"] {
        assert!(image(bad).is_err(), "{bad:?}");
    }
}
