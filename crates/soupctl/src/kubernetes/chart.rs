//! The Helm chart: the objects of [render](mod@super::render) with placeholders, which become what Helm puts in their place.
//!
//! What the chart says in words (values, checks, notes) is in `chart/`; what its objects are is in `k8s/base` alone. `deploy/helm/soupctl`
//! is what this writes, and a test holds that it is.

use serde_json::{Value, json};
use soup_core::{Error, Result};

use super::render::{self, Claim, Defaults, Deployment};

/// A name that is expanded in place wherever it stands, and what it is expanded to.
const PLACES: [(&str, &str); 9] = [
    ("HELM-NAMESPACE", "{{ .Release.Namespace | quote }}"),
    ("HELM-NAME", "{{ include \"soupctl.name\" . }}"),
    ("HELM-ACCOUNT", "{{ include \"soupctl.account\" . | quote }}"),
    ("HELM-IMAGE", "{{ required \"image: which one? --set image=NAME:VERSION\" .Values.image | quote }}"),
    ("HELM-MIN-WORKERS", "{{ include \"soupctl.workers\" . | quote }}"),
    ("HELM-WORKERS", "{{ include \"soupctl.workers\" . }}"),
    ("HELM-CPUS", "{{ .Values.cpus | quote }}"),
    ("HELM-MEMORY", "{{ .Values.memory | quote }}"),
    ("HELM-COOK", "{{ include \"soupctl.cook\" . | toJson }}"),
];

/// A line of YAML that becomes several of a template, as far in as it was.
const BLOCKS: [(&str, &str); 4] = [
    (
        "nvidia.com/gpu: HELM-GPUS",
        "{{- with .Values.gpus }}\nnvidia.com/gpu: {{ . | int | quote }}\n{{- end }}",
    ),
    (
        "envFrom: HELM-SECRETS",
        "{{- with .Values.secrets }}\nenvFrom:\n{{- range . }}\n- secretRef:\n    name: {{ . | quote }}\n{{- end }}\n{{- end }}",
    ),
    (
        "- mountPath: HELM-CLAIM-PATH",
        "{{- range $i, $claim := .Values.claims }}\n- mountPath: {{ $claim.path | quote }}\n  name: claim-{{ $i }}\n{{- end }}",
    ),
    (
        "- name: HELM-CLAIM",
        "{{- range $i, $claim := .Values.claims }}\n- name: claim-{{ $i }}\n  persistentVolumeClaim:\n    claimName: {{ $claim.name | quote }}\n{{- end }}",
    ),
];

/// The files that say what objects do not.
const WORDS: [(&str, &str); 4] = [
    ("Chart.yaml", include_str!("chart/Chart.yaml")),
    ("values.yaml", include_str!("chart/values.yaml")),
    ("templates/_helpers.tpl", include_str!("chart/_helpers.tpl")),
    ("templates/NOTES.txt", include_str!("chart/NOTES.txt")),
];

/// The first line of every template.
const HEAD: &str = "{{- /* Made of k8s/base by soupctl k8s chart. */ -}}\n";

/// The files of the chart: their names, and what is in them.
///
/// # Errors
/// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where `k8s/base` is not what this expects.
pub(super) fn files() -> Result<Vec<(String, String)>> {
    let Defaults { workers, cpus, memory } = render::defaults()?;
    let mut files = Vec::new();
    for (name, text) in WORDS {
        let text =
            text.replace("@VERSION@", env!("CARGO_PKG_VERSION")).replace("@WORKERS@", &workers.to_string());
        files.push((name.to_owned(), text.replace("@CPUS@", &cpus).replace("@MEMORY@", &memory)));
    }
    let mut objects = placeholders()?;
    for (kind, file) in [
        ("ServiceAccount", "serviceaccount.yaml"),
        ("Service", "services.yaml"),
        ("NetworkPolicy", "networkpolicies.yaml"),
        ("ConfigMap", "config.yaml"),
        ("Job", "jobs.yaml"),
    ] {
        let (these, others) = objects.into_iter().partition::<Vec<_>, _>(|object| object["kind"] == kind);
        objects = others;
        let mut text = template(&render::yaml(&these)?);
        if kind == "ServiceAccount" {
            text = format!("{{{{- if .Values.serviceAccount.create }}}}\n{text}{{{{- end }}}}\n");
        }
        files.push((format!("templates/{file}"), format!("{HEAD}{text}")));
    }
    match objects.first() {
        Some(object) => Err(Error::internal(format!("no file of the chart is for {}", object["kind"]))),
        None => Ok(files),
    }
}

/// The objects of a cook of which nothing is known.
fn placeholders() -> Result<Vec<Value>> {
    let claims = [Claim { name: "HELM-CLAIM-NAME".to_owned(), path: "HELM-CLAIM-PATH".to_owned() }];
    let secrets = ["SECRET".to_owned()];
    let mut objects = render::objects(&Deployment {
        name: "HELM-NAME",
        namespace: "HELM-NAMESPACE",
        with_namespace: false,
        account: "HELM-ACCOUNT",
        // Releases share nothing: Helm deletes what it made.
        default_deny: "HELM-NAME-default-deny",
        image: "HELM-IMAGE",
        workers: json!("HELM-WORKERS"),
        min_workers: Some("HELM-MIN-WORKERS".to_owned()),
        cpus: Some("HELM-CPUS"),
        memory: Some("HELM-MEMORY"),
        gpus: Some("HELM-GPUS"),
        secrets: &secrets,
        claims: &claims,
        cook: "HELM-COOK",
    })?;
    objects.iter_mut().for_each(fold);
    Ok(objects)
}

/// Makes one line of what becomes a block.
fn fold(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(secrets) = map.get_mut("envFrom") {
                *secrets = json!("HELM-SECRETS");
            }
            map.values_mut().for_each(fold);
        }
        Value::Array(list) => {
            for value in list {
                if value.pointer("/mountPath") == Some(&json!("HELM-CLAIM-PATH")) {
                    *value = json!({"mountPath": "HELM-CLAIM-PATH"});
                } else if value.pointer("/persistentVolumeClaim/claimName") == Some(&json!("HELM-CLAIM-NAME"))
                {
                    *value = json!({"name": "HELM-CLAIM"});
                }
                fold(value);
            }
        }
        _ => {}
    }
}

/// YAML with placeholders as a template.
fn template(yaml: &str) -> String {
    let mut text = String::new();
    for line in yaml.lines() {
        let shown = line.trim_start();
        let indent = &line[..line.len() - shown.len()];
        match BLOCKS.iter().find(|(placeholder, _)| *placeholder == shown) {
            Some((_, block)) => block.lines().for_each(|line| text.extend([indent, line, "\n"])),
            None => {
                // A name of its own may be `true` or `null`; with anything behind it, it is text.
                let line = line.strip_suffix(": HELM-NAME").map_or_else(
                    || line.to_owned(),
                    |key| format!("{key}: {{{{ include \"soupctl.name\" . | quote }}}}"),
                );
                let places = PLACES.iter();
                let line = places.fold(line, |line, (name, place)| line.replace(name, place));
                text.extend([line.as_str(), "\n"]);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_placeholders_is_replaced_and_all_of_them_are() {
        let files = files().unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 9, "{names:?}");
        for (name, text) in &files {
            assert!(!text.contains("HELM-") && !text.contains('@'), "{name}");
            assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}");
            assert!(text.ends_with('\n') && text.lines().all(|line| line == line.trim_end()), "{name}");
        }
        let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
        for (_, made) in BLOCKS {
            let last = made.lines().nth(1).unwrap();
            assert!(all.contains(last), "{last}");
        }
    }

    #[test]
    fn what_is_as_far_in_stays_so() {
        let made = template("a:\n  - name: HELM-CLAIM\n  b: HELM-NAME-workers\n");
        assert!(made.contains("\n  {{- range"), "{made}");
        assert!(made.contains("\n    persistentVolumeClaim:\n"), "{made}");
        assert!(made.ends_with("  b: {{ include \"soupctl.name\" . }}-workers\n"), "{made}");
    }
}
