//! What `kubectl kustomize` makes of `k8s/`, and ways to ask about it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// What one kustomization renders to.
pub(crate) struct Rendered {
    pub(crate) name: String,
    pub(crate) objects: Vec<Value>,
}

/// The pods that a Job makes, wherever that Job is written down.
pub(crate) struct Pods<'a> {
    /// For messages: kustomization and Job.
    pub(crate) at: String,
    /// The Job's `spec`.
    pub(crate) job: &'a Value,
    pub(crate) labels: &'a Value,
    pub(crate) spec: &'a Value,
}

/// `k8s/`.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s").canonicalize().unwrap()
}

/// The names of the folders in a folder of `k8s/`.
fn names(of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder().join(of)).unwrap().map(|e| e.unwrap());
    let mut names: Vec<String> =
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything that is there to be rendered: each folder as it is, each component alone on a base that it fits, and all of them together.
pub(crate) fn everything() -> &'static [Rendered] {
    static ALL: OnceLock<Vec<Rendered>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all: Vec<Rendered> =
            ["base", "argo", "kubeflow-trainer"].iter().map(|f| render_folder(f)).collect();
        all.extend(names("overlays").iter().map(|o| render_folder(&format!("overlays/{o}"))));
        let components = names("components");
        all.extend(components.iter().map(|c| render_with("overlays/s3", &[c])));
        let mut together: Vec<&String> = components.iter().filter(|c| *c != "jobset").collect();
        all.push(render_with("overlays/s3", &together));
        all.push(render_with("overlays/local", &together));
        let jobset = "jobset".to_owned();
        together.push(&jobset);
        all.push(render_with("overlays/s3", &together));
        all
    })
}

/// The rendering of this name.
pub(crate) fn named(name: &str) -> &'static Rendered {
    everything().iter().find(|r| r.name == name).unwrap_or_else(|| panic!("{name} is not there"))
}

fn render_folder(name: &str) -> Rendered {
    Rendered { name: name.to_owned(), objects: kustomize(&folder().join(name)) }
}

/// As a platform team would write it: an overlay of ours, and components.
fn render_with(overlay: &str, components: &[&String]) -> Rendered {
    let place = TempDir::new().unwrap();
    let place_path = place.path().canonicalize().unwrap();
    let up = "../".repeat(place_path.components().count() - 1);
    let to = |path: String| format!("{up}{}", folder().join(path).to_str().unwrap().trim_start_matches('/'));
    let list: Vec<String> = components.iter().map(|c| to(format!("components/{c}"))).collect();
    let text = serde_json::json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "soup",
        "resources": [to(overlay.to_owned())], "components": list,
    });
    std::fs::write(place_path.join("kustomization.yaml"), text.to_string()).unwrap();
    let names: Vec<&str> = components.iter().map(|c| c.as_str()).collect();
    Rendered { name: format!("{overlay} + {}", names.join(", ")), objects: kustomize(&place_path) }
}

fn kustomize(folder: &Path) -> Vec<Value> {
    let kubectl = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let output = Command::new(&kubectl).arg("kustomize").arg(folder).output().unwrap_or_else(|e| {
        panic!("{kubectl}: {e}: these tests need kubectl, which tests/run installs where it is missing")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", folder.display());
    assert_eq!(errors, "", "{}", folder.display());
    documents(&String::from_utf8(output.stdout).unwrap())
}

/// The documents of a YAML file.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}\n{part}"))).collect()
}

/// The text at this path, empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The list at this path, empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The port of `HOST:PORT`.
pub(crate) fn port_of(address: &str) -> Option<u64> {
    address.rsplit(':').next()?.parse().ok()
}

/// `Kind name`.
pub(crate) fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

impl Rendered {
    /// The objects of this kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |o| text(o, "/kind") == kind)
    }

    /// Whether there is an object of this kind and name.
    pub(crate) fn has(&self, kind: &str, name: &str) -> bool {
        self.of_kind(kind).any(|o| text(o, "/metadata/name") == name)
    }

    /// The pods of all Jobs, and of the Jobs of a JobSet or of a runtime that makes one.
    pub(crate) fn pods(&self) -> Vec<Pods<'_>> {
        let mut found = Vec::new();
        for object in &self.objects {
            let at = format!("{}: {}", self.name, title(object));
            match text(object, "/kind") {
                "Job" => found.push(pods_of(at, &object["spec"])),
                "JobSet" => found.extend(pods_of_set(&at, &object["spec"])),
                "TrainingRuntime" => found.extend(pods_of_set(&at, &object["spec"]["template"]["spec"])),
                _ => {}
            }
        }
        found
    }
}

/// The pods of a JobSet's Jobs.
pub(crate) fn pods_of_set<'a>(at: &str, spec: &'a Value) -> Vec<Pods<'a>> {
    let jobs = list(spec, "/replicatedJobs").iter();
    jobs.map(|job| pods_of(format!("{at}, {}", text(job, "/name")), &job["template"]["spec"])).collect()
}

fn pods_of(at: String, job: &Value) -> Pods<'_> {
    let template = &job["template"];
    assert!(template["spec"].is_object(), "{at} has no pods");
    Pods { at, job, labels: &template["metadata"]["labels"], spec: &template["spec"] }
}

impl<'a> Pods<'a> {
    /// Containers, and those that start first.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        list(self.spec, "/initContainers").iter().chain(list(self.spec, "/containers"))
    }

    /// The container that runs soupctl: the first one.
    pub(crate) fn soup(&self) -> &'a Value {
        &list(self.spec, "/containers")[0]
    }

    /// Which part it plays: `coordinator` or `worker`.
    pub(crate) fn component(&self) -> &'a str {
        text(self.labels, "/app.kubernetes.io~1component")
    }

    /// Whether these labels are among the pods'.
    pub(crate) fn match_labels(&self, wanted: &Value) -> bool {
        let wanted = wanted.as_object().expect("labels");
        !wanted.is_empty() && wanted.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }

    /// The container's variable of this name, where it has a plain value.
    pub(crate) fn variable(&self, name: &str) -> Option<&'a str> {
        list(self.soup(), "/env").iter().find(|v| text(v, "/name") == name).and_then(|v| v["value"].as_str())
    }

    /// The container's port of this name.
    pub(crate) fn port(&self, name: &str) -> Option<u64> {
        let port = list(self.soup(), "/ports").iter().find(|p| text(p, "/name") == name)?;
        port["containerPort"].as_u64()
    }
}
