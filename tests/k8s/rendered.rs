//! `soupctl k8s render` and the Helm chart, which are both made of `k8s/base`: they are what kustomize makes of it, but for names.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use soup_tests::Soupctl;

use crate::SOUPCTL;
use crate::objects::{Rendered, documents, folder, list, named, text, title};

const INSTANCE: &str = "app.kubernetes.io/instance";

/// What `soupctl k8s render` makes of the cook file of an overlay, with these flags.
fn rendered(overlay: &str, flags: &[&str]) -> Vec<Value> {
    let cook = folder().join(overlay).join("cook.yaml");
    let done = Soupctl::new(SOUPCTL).args(["k8s", "render", "-f", cook.to_str().unwrap()]).args(flags).run();
    assert_eq!(done.code, 0, "{}", done.stderr);
    documents(&done.stdout)
}

/// In one order, and without what is different for a reason.
fn comparable(objects: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut objects: Vec<Value> = objects.into_iter().map(without_reasons).collect();
    objects.sort_by_key(title);
    objects
}

fn without_reasons(mut object: Value) -> Value {
    // What cooks share is nobody's instance.
    let shared = ["Namespace", "ServiceAccount"].contains(&text(&object, "/kind"))
        || text(&object, "/metadata/name") == "default-deny";
    if shared {
        object["metadata"]["labels"].as_object_mut().unwrap().remove(INSTANCE);
    }
    if let Some(spec) = object.pointer_mut("/spec/template/spec") {
        spec["containers"][0].as_object_mut().unwrap().remove("image");
        for (place, key) in [("/volumes", "name"), ("/containers/0/volumeMounts", "mountPath")] {
            let volumes = spec.pointer_mut(place).unwrap().as_array_mut().unwrap();
            for volume in volumes.iter_mut().filter(|v| v["name"] == json!("claim-0")) {
                volume["name"] = json!("data");
            }
            volumes.sort_by_key(|volume| volume[key].to_string());
        }
    }
    object
}

fn as_kustomize(overlay: &Rendered, ours: Vec<Value>) {
    let theirs = overlay.objects.iter().filter(|o| text(o, "/kind") != "PersistentVolumeClaim").cloned();
    for (theirs, ours) in comparable(theirs).into_iter().zip(comparable(ours)) {
        assert_eq!(ours, theirs, "{}: {}", overlay.name, title(&theirs));
    }
}

#[test]
fn a_cook_is_rendered_as_kustomize_does() {
    let s3 = named("overlays/s3");
    let flags = ["--name", "soup", "--image", "soupctl:0.1.0", "--workers", "4", "--secret", "soup-s3"];
    let ours = rendered("overlays/s3", &flags);
    assert_eq!(ours.len(), s3.objects.len());
    as_kustomize(s3, ours);

    let local = named("overlays/local");
    let flags =
        ["--name", "soup", "--image", "soupctl:0.1.0", "--workers", "2", "--claim", "soup-data=/data"];
    let mut ours = rendered("overlays/local", &[&flags[..], &["--cpus", "500m", "--memory", "2Gi"]].concat());
    // That overlay's coordinator is small, too.
    for coordinator in ours.iter_mut().filter(|o| title(o) == "Job soup-coordinator") {
        let theirs = local.objects.iter().find(|o| title(o) == "Job soup-coordinator").unwrap();
        let place = "/spec/template/spec/containers/0/resources";
        *coordinator.pointer_mut(place).unwrap() = theirs.pointer(place).unwrap().clone();
    }
    assert_eq!(ours.len(), local.objects.len() - 1);
    as_kustomize(local, ours);
}

#[test]
fn what_is_rendered_has_another_name_as_soon_as_it_is_another_cook() {
    let name = |flags: &[&str]| {
        let objects =
            rendered("overlays/s3", &[&["--image", "soupctl:0.1.0", "--workers", "4"], flags].concat());
        let job = objects.iter().find(|o| text(o, "/kind") == "Job").unwrap();
        text(job, &format!("/metadata/labels/{}", INSTANCE.replace('/', "~1"))).to_owned()
    };
    let own = name(&[]);
    assert!(own.starts_with("soup-greedy-") && own == name(&[]), "{own}");
    assert_ne!(own, name(&["--gpus", "1"]));
}

#[test]
fn what_cannot_work_in_a_pod_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let cook = place.path().join("cook.yaml");
    for (text, named) in [
        ("pool: checkpoints/\nrecipe: uniform\noutput: s3://lab/soup\n", "pool \"checkpoints/\" is relative"),
        ("pool: s3://lab/pool\nrecipe: uniform\n", "output"),
        ("pool: s3://lab/pool\nrecipe: uniform\noutput: s3://lab/soup\ncoordinator: a:1\n", "coordinator"),
        ("pool: s3://lab/pool\nrecipe: uniform\noutput: s3://lab/soup\nmin-workers: 3\n", "min-workers is 3"),
    ] {
        std::fs::write(&cook, text).unwrap();
        let flags =
            ["k8s", "render", "--image", "soupctl:0.1.0", "--workers", "4", "-f", cook.to_str().unwrap()];
        let done = Soupctl::new(SOUPCTL).args(flags).run();
        assert_eq!(done.code, 2, "{text}");
        assert!(done.stderr.contains(named), "{text}: {}", done.stderr);
    }
}

/// `deploy/helm/soupctl`.
fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/soupctl")
}

/// The files below a folder, by their names there.
fn files(below: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(below, &path, found);
        } else {
            let name = path.strip_prefix(below).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn the_chart_is_what_soupctl_writes() {
    let place = tempfile::tempdir().unwrap();
    let done = Soupctl::new(SOUPCTL).args(["k8s", "chart", place.path().to_str().unwrap()]).run();
    assert_eq!(done.code, 0, "{}", done.stderr);
    let (mut made, mut there) = (Vec::new(), Vec::new());
    files(place.path(), place.path(), &mut made);
    files(&chart(), &chart(), &mut there);
    assert_eq!(made, there, "soupctl k8s chart deploy/helm/soupctl writes it anew");
}

/// What Helm makes of a template, where nothing is said that is not needed: lines of blocks are left out, the rest is put in place.
fn helm(template: &str, cook: &str) -> Vec<Value> {
    let (mut made, mut depth) = (String::new(), 0);
    for line in template.lines() {
        let shown = line.trim_start();
        if shown.starts_with("{{- if .Values.serviceAccount.create") || shown.starts_with("{{- /*") {
            continue;
        }
        if shown.starts_with("{{- with") || shown.starts_with("{{- range") {
            depth += 1;
        } else if shown.starts_with("{{- end") {
            depth = i32::max(depth - 1, 0);
        } else if depth == 0 {
            made.extend([line, "\n"]);
        }
    }
    let cook = serde_json::to_string(cook).unwrap();
    for (place, value) in [
        ("{{ include \"soupctl.name\" . | quote }}", "\"vit\""),
        ("{{ include \"soupctl.name\" . }}", "vit"),
        ("{{ include \"soupctl.account\" . | quote }}", "\"soup\""),
        ("{{ include \"soupctl.workers\" . | quote }}", "\"4\""),
        ("{{ include \"soupctl.workers\" . }}", "4"),
        ("{{ include \"soupctl.cook\" . | toJson }}", &cook),
        ("{{ .Release.Namespace | quote }}", "\"lab\""),
        ("{{ .Values.cpus | quote }}", "\"4\""),
        ("{{ .Values.memory | quote }}", "\"16Gi\""),
    ] {
        made = made.replace(place, value);
    }
    // The image, which is not compared.
    let lines: Vec<&str> = made.lines().map(|l| l.split("{{ required").next().unwrap()).collect();
    let made = lines.join("\n");
    assert!(!made.contains("{{"), "{made}");
    documents(&made)
}

#[test]
fn the_chart_has_the_objects_that_are_rendered() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("cook.yaml");
    let cook = "pool: s3://lab/pool # <&>\nrecipe: uniform\noutput: s3://lab/soup\n";
    std::fs::write(&file, cook).unwrap();
    let flags = [
        "k8s",
        "render",
        "--image",
        "soupctl:0.1.0",
        "--workers",
        "4",
        "--name",
        "vit",
        "--namespace",
        "lab",
    ];
    let done = Soupctl::new(SOUPCTL).args(flags).args(["--no-namespace", "-f", file.to_str().unwrap()]).run();
    let ours = comparable(documents(&done.stdout));
    let mut templates = Vec::new();
    files(&chart(), &chart().join("templates"), &mut templates);
    let templates = templates.iter().filter(|(name, _)| name.ends_with(".yaml"));
    let mut charts: Vec<Value> = templates.flat_map(|(_, template)| helm(template, cook)).collect();
    for object in &mut charts {
        // Releases share nothing.
        if text(object, "/metadata/name") == "vit-default-deny" {
            object["metadata"]["name"] = json!("default-deny");
        }
        if text(object, "/kind") == "ServiceAccount" {
            object["metadata"]["name"] = json!("soup");
        }
    }
    let charts = comparable(charts);
    assert_eq!(list(&json!(charts), "").len(), ours.len());
    for (ours, theirs) in ours.iter().zip(&charts) {
        assert_eq!(theirs, ours, "{}", title(ours));
    }
}
