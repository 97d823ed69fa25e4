//! The crates' arrows and the dependencies' licences, held by a test over `cargo metadata`.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Who may use whom (normal and build dependencies). soupctl uses core and store directly for `plan` and `inspect`.
const ARROWS: [(&str, &[&str]); 14] = [
    ("soup-core", &[]),
    ("soup-metrics", &[]),
    ("soup-telemetry", &["soup-core"]),
    ("soup-admin", &["soup-core", "soup-metrics"]),
    ("soup-store", &["soup-core", "soup-metrics"]),
    ("soup-tensor", &["soup-core"]),
    ("soup-gpu", &["soup-core", "soup-tensor"]),
    ("soup-eval", &["soup-core"]),
    ("soup-proto", &["soup-core"]),
    ("soup-report", &["soup-core"]),
    ("soup-trust", &["soup-core", "soup-proto"]),
    (
        "soup-coordinator",
        &[
            "soup-core",
            "soup-metrics",
            "soup-proto",
            "soup-report",
            "soup-store",
            "soup-telemetry",
            "soup-trust",
        ],
    ),
    (
        "soup-worker",
        &[
            "soup-core",
            "soup-metrics",
            "soup-proto",
            "soup-store",
            "soup-telemetry",
            "soup-tensor",
            "soup-eval",
            "soup-gpu",
            "soup-trust",
        ],
    ),
    (
        "soupctl",
        &[
            "soup-admin",
            "soup-core",
            "soup-proto",
            "soup-store",
            "soup-telemetry",
            "soup-coordinator",
            "soup-trust",
            "soup-worker",
        ],
    ),
];

/// The only crate that may depend on burn, directly.
const BURN: [&str; 1] = ["soup-eval"];

/// What is under devices, and the only crates that may depend on it, with a feature.
const DEVICES: [&str; 8] =
    ["cubecl", "cubek", "cudarc", "wgpu", "ash", "burn-cubecl", "burn-cuda", "burn-wgpu"];
const ON_DEVICES: [&str; 2] = ["soup-gpu", "soup-eval"];

/// What soup-core must not depend on, at any distance: it is pure.
const IMPURE: [&str; 6] = ["tokio", "tonic", "object_store", "rand", "burn", "chrono"];

fn metadata() -> Metadata {
    MetadataCommand::new().current_dir(env!("CARGO_MANIFEST_DIR")).exec().unwrap()
}

#[test]
fn arrows_point_only_where_they_may() {
    let metadata = metadata();
    let ours: BTreeSet<String> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(ours.len(), allowed.len() + 1, "a crate is missing from the table (soup-tests is not in it)");
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed.get(package.name.as_str()) else { continue };
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let name = dependency.name.as_str();
            assert!(!ours.contains(name) || allowed.contains(&name), "{} must not use {name}", package.name);
            assert!(
                name != "burn" || BURN.contains(&package.name.as_str()),
                "{} must not use burn",
                package.name
            );
            assert!(
                !DEVICES.contains(&name)
                    || (ON_DEVICES.contains(&package.name.as_str()) && dependency.optional),
                "{} must not use {name}",
                package.name
            );
        }
    }
}

#[test]
fn the_core_is_pure() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let core = metadata.workspace_packages().into_iter().find(|p| p.name == "soup-core").unwrap();
    let (mut open, mut seen) = (vec![&core.id], BTreeSet::new());
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let normal =
                |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            open.extend(nodes[id].deps.iter().filter(normal).map(|d| &d.pkg));
        }
    }
    for id in seen {
        let name = metadata[id].name.as_str();
        assert!(!IMPURE.contains(&name), "soup-core depends on {name}");
    }
}

/// The licences that `deny.toml` allows: one list for both checks.
fn allowed_licences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml")).unwrap();
    let list = text.split("allow = [").nth(1).unwrap().split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn licences_are_compatible() {
    let allowed = allowed_licences();
    assert!(allowed.contains("Apache-2.0"));
    for package in metadata().packages {
        let licence = package.license.clone().unwrap_or_default();
        // Good enough for SPDX as crates write it: some alternative consists of allowed licences only.
        let fits = licence.replace('/', " OR ").split(" OR ").any(|alternative| {
            alternative.split(" AND ").all(|l| allowed.contains(l.trim_matches(['(', ')', ' '])))
        });
        assert!(fits, "{} {} has licence {licence:?}", package.name, package.version);
    }
}

/// The project's documents.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !["target", "soups", "node_modules"].contains(&name) {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn documents_link_to_what_is_there() {
    let mut found = Vec::new();
    documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    assert!(found.len() > 8, "{found:?}");
    for document in found {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let place = link.split('#').next().unwrap_or_default();
            if place.is_empty() || place.contains("://") {
                continue;
            }
            assert!(document.parent().unwrap().join(place).exists(), "{}: {link}", document.display());
        }
    }
}
