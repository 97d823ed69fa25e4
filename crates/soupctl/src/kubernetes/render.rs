//! The objects of one cook: `k8s/base`, read as data and changed as data, with names of their own.
//!
//! Everything here is a function of what is asked for. What kustomize does for the overlays (labels, the namespace, the map with the
//! cook file) is done here by what `k8s/base/kustomization.yaml` says, and a test holds the two against each other.

use serde_json::{Map, Value, json};
use soup_core::{Error, Result};

/// The files of `k8s/base`, in the order in which they are listed there.
const RESOURCES: [(&str, &str); 6] = [
    ("namespace.yaml", include_str!("../../../../k8s/base/namespace.yaml")),
    ("serviceaccount.yaml", include_str!("../../../../k8s/base/serviceaccount.yaml")),
    ("services.yaml", include_str!("../../../../k8s/base/services.yaml")),
    ("networkpolicies.yaml", include_str!("../../../../k8s/base/networkpolicies.yaml")),
    ("coordinator.yaml", include_str!("../../../../k8s/base/coordinator.yaml")),
    ("workers.yaml", include_str!("../../../../k8s/base/workers.yaml")),
];
const KUSTOMIZATION: &str = include_str!("../../../../k8s/base/kustomization.yaml");

/// What a cook's own objects are called in `k8s/base`, and what others know them by.
const NAMES: [(&str, &str); 3] =
    [("soup-coordinator", "coordinator"), ("soup-workers", "workers"), ("soup-config", "config")];
/// The label that tells one cook's objects from another's.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// The account that cooks share, which clouds know, and the policies that `k8s/base` has: one keeps everybody else out.
pub(super) const ACCOUNT: &str = "soup";
const POLICY: &str = "soup";
pub(super) const DEFAULT_DENY: &str = "default-deny";
/// The cook file in its map.
const COOK_FILE: &str = "cook.yaml";
/// What a GPU is called among resources.
pub(super) const GPU: &str = "nvidia.com/gpu";

/// What one cook's objects are made for. Numbers are values, since a chart has placeholders for them.
#[derive(Clone, Debug)]
pub(super) struct Deployment<'a> {
    /// What its own objects are called: NAME-coordinator, NAME-workers, NAME-config, and the policy NAME.
    pub(super) name: &'a str,
    /// Where all of them are.
    pub(super) namespace: &'a str,
    /// Whether the namespace is among them.
    pub(super) with_namespace: bool,
    /// The account that pods run under, and the policy that keeps everybody from speaking to anybody: cooks may share both.
    pub(super) account: &'a str,
    pub(super) default_deny: &'a str,
    pub(super) image: &'a str,
    pub(super) workers: Value,
    /// The same as an argument of the coordinator, where the cook file does not say it.
    pub(super) min_workers: Option<String>,
    /// What a worker asks for, and may use; as in `k8s/base` where nothing is said.
    pub(super) cpus: Option<&'a str>,
    pub(super) memory: Option<&'a str>,
    pub(super) gpus: Option<&'a str>,
    /// Secrets whose entries become variables of both.
    pub(super) secrets: &'a [String],
    /// Claims on volumes, and where both have them.
    pub(super) claims: &'a [Claim],
    /// The text of the cook file.
    pub(super) cook: &'a str,
}

/// A PersistentVolumeClaim, and where pods have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) path: String,
}

/// What `k8s/base` says of numbers, for whoever says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) workers: u64,
    pub(super) cpus: String,
    pub(super) memory: String,
}

/// The objects, those that others need first.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where `k8s/base` is not what this expects.
pub(super) fn objects(wanted: &Deployment<'_>) -> Result<Vec<Value>> {
    let kustomization: Value = parse("kustomization.yaml", KUSTOMIZATION)?;
    let labels = kustomization.pointer("/labels/0/pairs").and_then(Value::as_object);
    let labels = labels.ok_or_else(|| unexpected("kustomization.yaml has no labels"))?;
    let mut made = Vec::new();
    for object in base()?.into_iter().chain([config(&kustomization, wanted)]) {
        let kind = text(&object, "/kind").to_owned();
        if kind == "Namespace" && !wanted.with_namespace {
            continue;
        }
        made.push(own(object, &kind, labels, wanted)?);
    }
    // A Job that is there before its map only waits for it, but says so.
    made.sort_by_key(|object| text(object, "/kind") == "Job");
    Ok(made)
}

/// The numbers that `k8s/base` has.
///
/// # Errors
/// As for [`objects`].
pub(super) fn defaults() -> Result<Defaults> {
    let base = base()?;
    let workers = base.iter().find(|o| text(o, "/spec/completionMode") == "Indexed");
    let workers = workers.ok_or_else(|| unexpected("there are no workers"))?;
    let limits = "/spec/template/spec/containers/0/resources/limits";
    Ok(Defaults {
        workers: workers["spec"]["parallelism"].as_u64().unwrap_or_default(),
        cpus: text(workers, &format!("{limits}/cpu")).to_owned(),
        memory: text(workers, &format!("{limits}/memory")).to_owned(),
    })
}

/// Objects as a YAML stream.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where they cannot be written.
pub(super) fn yaml(objects: &[Value]) -> Result<String> {
    let options = serde_saphyr::ser_options! { compact_list_indent: true };
    serde_saphyr::to_string_multiple_with_options(objects, options)
        .map_err(|e| Error::internal("objects cannot be written as YAML").with_source(e))
}

fn base() -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (file, source) in RESOURCES {
        let found = serde_saphyr::from_multiple::<Value>(source);
        objects.extend(found.map_err(|e| unexpected(file).with_source(e))?);
    }
    Ok(objects)
}

fn parse(file: &str, source: &str) -> Result<Value> {
    serde_saphyr::from_str(source).map_err(|e| unexpected(file).with_source(e))
}

fn unexpected(what: &str) -> Error {
    Error::internal(format!("k8s/base, which this program was built with, is not what it expects: {what}"))
}

/// The text at this path, empty where there is none.
fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn at<'a>(object: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    let about = format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
    object.pointer_mut(path).ok_or_else(|| unexpected(&format!("{about} has no {path}")))
}

/// The list at this path, made where there is none.
fn list<'a>(object: &'a mut Value, (parent, name): (&str, &str)) -> Result<&'a mut Vec<Value>> {
    let list = at(object, parent)?.as_object_mut().map(|map| map.entry(name).or_insert_with(|| json!([])));
    let list = list.and_then(Value::as_array_mut);
    list.ok_or_else(|| unexpected(&format!("{parent}/{name} is no list")))
}

/// The map that the coordinator reads its cook file from.
fn config(kustomization: &Value, wanted: &Deployment<'_>) -> Value {
    let mut data = Map::new();
    data.insert(COOK_FILE.to_owned(), json!(wanted.cook));
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": kustomization["configMapGenerator"][0]["name"]},
        "data": data,
        "immutable": kustomization["generatorOptions"]["immutable"],
    })
}

/// An object of `k8s/base` as this cook's.
fn own(mut object: Value, kind: &str, labels: &Map<String, Value>, wanted: &Deployment<'_>) -> Result<Value> {
    let name = text(&object, "/metadata/name").to_owned();
    // Cooks in one namespace have these in common, so they are nobody's own.
    let shared = kind == "Namespace" || kind == "ServiceAccount" || name == DEFAULT_DENY;
    label(at(&mut object, "/metadata")?, labels, shared);
    if kind == "Job" {
        label(at(&mut object, "/spec/template/metadata")?, labels, false);
        job(&mut object, wanted)?;
    }
    rename(&mut object, wanted);
    let metadata = at(&mut object, "/metadata")?;
    match (kind, name.as_str()) {
        ("Namespace", _) => metadata["name"] = json!(wanted.namespace),
        ("ServiceAccount", ACCOUNT) => metadata["name"] = json!(wanted.account),
        ("NetworkPolicy", DEFAULT_DENY) => metadata["name"] = json!(wanted.default_deny),
        ("NetworkPolicy", POLICY) => metadata["name"] = json!(wanted.name),
        _ => {}
    }
    if kind != "Namespace" {
        metadata["namespace"] = json!(wanted.namespace);
    }
    Ok(object)
}

fn label(metadata: &mut Value, labels: &Map<String, Value>, shared: bool) {
    for (label, value) in labels.iter().filter(|(label, _)| !shared || *label != INSTANCE) {
        metadata["labels"][label] = value.clone();
    }
}

/// Gives what is this cook's own its names, wherever they stand: in the object itself, and where another one refers to it.
fn rename(value: &mut Value, wanted: &Deployment<'_>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == INSTANCE {
                    *value = json!(wanted.name);
                }
                rename(value, wanted);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, wanted)),
        Value::String(text) => {
            // Alone, or before a port.
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            if let Some((_, part)) = NAMES.iter().find(|(name, _)| *name == host) {
                *text = format!("{}-{part}{rest}", wanted.name);
            }
        }
        _ => {}
    }
}

/// The container that runs soupctl.
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn job(job: &mut Value, wanted: &Deployment<'_>) -> Result<()> {
    if text(job, "/spec/completionMode") == "Indexed" {
        for number in ["/spec/parallelism", "/spec/completions"] {
            *at(job, number)? = wanted.workers.clone();
        }
        let resources = [("cpu", wanted.cpus), ("memory", wanted.memory), (GPU, wanted.gpus)];
        for (resource, amount) in resources.into_iter().filter_map(|(r, amount)| Some((r, amount?))) {
            for part in ["requests", "limits"] {
                at(job, &format!("{CONTAINER}/resources/{part}"))?[resource] = json!(amount);
            }
        }
    } else if let Some(workers) = &wanted.min_workers {
        list(job, (CONTAINER, "args"))?.extend([json!("--min-workers"), json!(workers)]);
    }
    at(job, CONTAINER)?["image"] = json!(wanted.image);
    *at(job, "/spec/template/spec/serviceAccountName")? = json!(wanted.account);
    for secret in wanted.secrets {
        list(job, (CONTAINER, "envFrom"))?.push(json!({"secretRef": {"name": secret}}));
    }
    for (i, Claim { name, path }) in wanted.claims.iter().enumerate() {
        let volume = format!("claim-{i}");
        list(job, (CONTAINER, "volumeMounts"))?.push(json!({"name": volume, "mountPath": path}));
        let claim = json!({"name": volume, "persistentVolumeClaim": {"claimName": name}});
        list(job, ("/spec/template/spec", "volumes"))?.push(claim);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
