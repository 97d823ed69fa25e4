//! `k8s/`: every kustomization renders, and what it renders to keeps its promises to the cluster, to the operator and to the program.
//!
//! `tests/k8s/validate` holds the same objects against Kubernetes' schemas, and `tests/k8s/run` applies them to a cluster.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod objects;
mod rendered;

use std::collections::BTreeSet;

use objects::{Pods, Rendered, documents, everything, folder, list, named, port_of, text, title};
use serde_json::{Value, json};
use soup_core::ErrorKind;
use soup_tests::Soupctl;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// Asks something of every pod that is rendered anywhere.
fn for_all_pods(check: impl Fn(&Rendered, &Pods<'_>)) {
    for rendered in everything() {
        let pods = rendered.pods();
        assert!(pods.len() == 2 || rendered.name == "argo", "{}: {} Jobs", rendered.name, pods.len());
        for pods in pods {
            check(rendered, &pods);
        }
    }
}

#[test]
fn all_objects_are_in_one_namespace() {
    for rendered in everything() {
        for object in &rendered.objects {
            let namespace =
                if text(object, "/kind") == "Namespace" { "/metadata/name" } else { "/metadata/namespace" };
            assert_eq!(text(object, namespace), "soup", "{}: {}", rendered.name, title(object));
        }
        let names: Vec<String> = rendered.objects.iter().map(title).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}

#[test]
fn images_have_versions() {
    for_all_pods(|_, pods| {
        for container in pods.containers() {
            let image = text(container, "/image");
            let version = image.rsplit('/').next().unwrap().split_once(':').map(|(_, version)| version);
            assert!(version.is_some_and(|v| !v.is_empty() && v != "latest"), "{}: {image:?}", pods.at);
            assert_eq!(text(container, "/imagePullPolicy"), "IfNotPresent", "{}", pods.at);
        }
    });
    for rendered in everything() {
        let images = rendered.pods().iter().map(|p| text(p.soup(), "/image")).collect::<BTreeSet<_>>();
        assert!(
            images.len() < 2,
            "{}: coordinator and workers are of one version: {images:?}",
            rendered.name
        );
        let own = concat!(":", env!("CARGO_PKG_VERSION"));
        assert!(
            images.iter().all(|image| image.ends_with(own)),
            "{}: {images:?} is not {own}",
            rendered.name
        );
    }
}

#[test]
fn what_is_asked_for_is_what_may_be_used() {
    for_all_pods(|_, pods| {
        for container in pods.containers() {
            let resources = &container["resources"];
            assert_eq!(resources["requests"], resources["limits"], "{}", pods.at);
            for resource in ["cpu", "memory", "ephemeral-storage"] {
                assert!(resources["limits"].get(resource).is_some(), "{}: no {resource}", pods.at);
            }
        }
    });
}

#[test]
fn pods_fit_the_restricted_profile() {
    for_all_pods(|_, pods| {
        let security = &pods.spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], json!(true), "{}", pods.at);
        assert!(security["runAsUser"].as_u64() > Some(0), "{}", pods.at);
        assert_eq!(text(security, "/seccompProfile/type"), "RuntimeDefault", "{}", pods.at);
        assert_eq!(pods.spec["automountServiceAccountToken"], json!(false), "{}", pods.at);
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pods.spec.get(name).is_none(), "{}: {name}", pods.at);
        }
        for container in pods.containers() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], json!(false), "{}", pods.at);
            assert_eq!(security["readOnlyRootFilesystem"], json!(true), "{}", pods.at);
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{}", pods.at);
            let allowed = ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"];
            assert!(
                security.as_object().unwrap().keys().all(|k| allowed.contains(&k.as_str())),
                "{}",
                pods.at
            );
        }
        let allowed = ["configMap", "secret", "emptyDir", "persistentVolumeClaim", "ephemeral"];
        for volume in list(pods.spec, "/volumes") {
            let kinds = volume.as_object().unwrap().keys().filter(|k| *k != "name");
            assert!(kinds.clone().all(|k| allowed.contains(&k.as_str())), "{}: {volume}", pods.at);
        }
    });
    for rendered in everything() {
        let labels = &rendered.of_kind("Namespace").next().unwrap()["metadata"]["labels"];
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], json!("restricted"));
        assert_eq!(labels["pod-security.kubernetes.io/warn"], json!("restricted"));
        assert!(text(labels, "/pod-security.kubernetes.io~1enforce-version").starts_with("v1."));
        for account in rendered.of_kind("ServiceAccount").filter(|a| text(a, "/metadata/name") == "soup") {
            assert_eq!(account["automountServiceAccountToken"], json!(false));
        }
    }
}

#[test]
fn selectors_find_pods() {
    for rendered in everything().iter().filter(|r| r.name != "argo") {
        let pods = rendered.pods();
        let found = |labels: &Value| pods.iter().any(|p| p.match_labels(labels));
        for object in &rendered.objects {
            let selector = match text(object, "/kind") {
                "Service" => &object["spec"]["selector"],
                "PodDisruptionBudget" | "PodMonitor" => &object["spec"]["selector"]["matchLabels"],
                "NetworkPolicy" if object["spec"]["podSelector"] != json!({}) => {
                    &object["spec"]["podSelector"]["matchLabels"]
                }
                _ => continue,
            };
            assert!(found(selector), "{}: {} selects no pod", rendered.name, title(object));
        }
        for pods in &pods {
            for spread in list(pods.spec, "/topologySpreadConstraints") {
                assert!(pods.match_labels(&spread["labelSelector"]["matchLabels"]), "{}", pods.at);
            }
            assert_eq!(text(pods.spec, "/serviceAccountName"), "soup", "{}", pods.at);
        }
        assert!(rendered.has("ServiceAccount", "soup"), "{}", rendered.name);
    }
}

#[test]
fn ports_that_are_named_are_there() {
    for_all_pods(|rendered, pods| {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &pods.soup()[probe]["httpGet"];
            assert!(pods.port(text(get, "/port")).is_some(), "{}: {probe}", pods.at);
            let path = if probe == "readinessProbe" { "/readyz" } else { "/livez" };
            assert_eq!(text(get, "/path"), path, "{}: {probe}", pods.at);
        }
        for service in rendered.of_kind("Service").filter(|s| pods.match_labels(&s["spec"]["selector"])) {
            for port in list(service, "/spec/ports") {
                assert_eq!(pods.port(text(port, "/targetPort")), port["port"].as_u64(), "{}", pods.at);
            }
        }
        for monitor in rendered.of_kind("PodMonitor") {
            for endpoint in list(monitor, "/spec/podMetricsEndpoints") {
                assert!(pods.port(text(endpoint, "/port")).is_some(), "{}", pods.at);
            }
        }
    });
}

#[test]
fn programs_listen_on_the_ports_that_are_let_through() {
    for_all_pods(|rendered, pods| {
        let name = if pods.component() == "coordinator" { "grpc" } else { "peer" };
        let args: Vec<&str> = list(pods.soup(), "/args").iter().filter_map(Value::as_str).collect();
        let listen = args.iter().skip_while(|a| **a != "--listen").nth(1).copied().and_then(port_of);
        assert!(listen.is_some() && listen == pods.port(name), "{}", pods.at);
        let admin = pods.variable("SOUP_ADMIN").and_then(port_of);
        assert!(admin.is_some() && admin == pods.port("admin"), "{}", pods.at);
        let policy = rendered.of_kind("NetworkPolicy").find(|p| text(p, "/metadata/name") == "soup").unwrap();
        let open = |rule: &Value, port| list(rule, "/ports").iter().any(|p| p["port"].as_u64() == port);
        let from_soup =
            list(policy, "/spec/ingress").iter().filter(|r| r.pointer("/from/0/podSelector").is_some());
        assert!(from_soup.clone().any(|rule| open(rule, listen)), "{}", pods.at);
        assert!(!from_soup.clone().any(|rule| open(rule, admin)), "{}", pods.at);
        let others =
            list(policy, "/spec/ingress").iter().filter(|r| r.pointer("/from/0/namespaceSelector").is_some());
        assert!(
            others.clone().any(|rule| open(rule, admin)) && !others.clone().any(|r| open(r, listen)),
            "{}",
            pods.at
        );
        let to_soup =
            list(policy, "/spec/egress").iter().filter(|r| r.pointer("/to/0/podSelector").is_some());
        assert!(to_soup.clone().any(|rule| open(rule, listen)), "{}", pods.at);
        if pods.component() == "worker" {
            assert_eq!(pods.variable("SOUP_COORDINATOR").and_then(port_of), Some(7070), "{}", pods.at);
        }
    });
    for rendered in everything() {
        let deny =
            rendered.of_kind("NetworkPolicy").find(|p| text(p, "/metadata/name") == "default-deny").unwrap();
        assert_eq!(deny["spec"], json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    }
}

#[test]
fn the_coordinator_is_reached_by_a_name_that_is_there() {
    for rendered in everything() {
        for pods in rendered.pods().iter().filter(|p| p.component() == "worker") {
            let coordinator = pods.variable("SOUP_COORDINATOR").unwrap();
            if let Some(service) = coordinator.strip_suffix(":7070").filter(|_| !coordinator.contains('$')) {
                assert!(rendered.has("Service", service), "{}: {coordinator}", pods.at);
                assert!(rendered.has("Service", text(pods.spec, "/subdomain")), "{}", pods.at);
            } else {
                // Of the first pod of the first Job of a JobSet's `coordinator`, which has a host name where the Job is indexed.
                assert_eq!(coordinator, "$(JOBSET_NAME)-coordinator-0-0.$(JOBSET_NAME):7070", "{}", pods.at);
                assert!(rendered.of_kind("Service").next().is_none(), "{}", pods.at);
                assert!(
                    rendered.pods().iter().all(|p| text(p.job, "/completionMode") == "Indexed"),
                    "{}",
                    pods.at
                );
            }
        }
    }
}

#[test]
fn variables_that_values_are_made_of_stand_before_them() {
    for_all_pods(|_, pods| {
        let mut known = BTreeSet::new();
        for variable in list(pods.soup(), "/env") {
            for used in text(variable, "/value").split("$(").skip(1) {
                let used = used.split(')').next().unwrap();
                assert!(known.contains(used), "{}: {used} comes after {}", pods.at, text(variable, "/name"));
            }
            assert!(known.insert(text(variable, "/name")), "{}: {variable} twice", pods.at);
        }
    });
}

#[test]
fn exit_codes_that_end_a_job_are_those_of_errors_that_stay() {
    let codes = |stays: fn(&ErrorKind) -> bool| {
        let mut codes: Vec<u8> = ErrorKind::ALL.into_iter().filter(stays).map(ErrorKind::exit_code).collect();
        codes.sort_unstable();
        codes
    };
    // A coordinator that ends with one of these has told its workers that the work is over. A defect of one worker is none of
    // the next one.
    let coordinator = codes(|kind| !kind.is_transient());
    let worker = codes(|kind| !kind.is_transient() && *kind != ErrorKind::Internal);
    for kind in [ErrorKind::Usage, ErrorKind::Data, ErrorKind::Configuration] {
        assert!(worker.contains(&kind.exit_code()));
    }
    for_all_pods(|_, pods| {
        let rules = list(pods.job, "/podFailurePolicy/rules");
        assert_eq!(rules.len(), 2, "{}", pods.at);
        assert_eq!(text(&rules[0], "/action"), "FailJob", "{}", pods.at);
        let stay = if pods.component() == "worker" { &worker } else { &coordinator };
        assert_eq!(rules[0]["onExitCodes"]["values"], json!(stay), "{}", pods.at);
        assert_eq!(rules[0]["onExitCodes"]["containerName"], pods.soup()["name"], "{}", pods.at);
        let disruption =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(rules[1], disruption, "{}", pods.at);
        // What the policy above needs, and what makes trying again possible.
        assert_eq!(text(pods.spec, "/restartPolicy"), "Never", "{}", pods.at);
        assert_eq!(text(pods.job, "/podReplacementPolicy"), "Failed", "{}", pods.at);
        assert!(pods.spec["terminationGracePeriodSeconds"].as_u64() >= Some(20), "{}", pods.at);
        let tries = if pods.component() == "worker" { "backoffLimitPerIndex" } else { "backoffLimit" };
        assert!(pods.job[tries].as_u64() > Some(5), "{}: {tries}", pods.at);
        // A worker ends with 0 where all are done; one that was replaced too late for that is not waited for.
        let done = json!({"rules": [{"succeededCount": 1}]});
        assert_eq!(
            pods.job.get("successPolicy"),
            (pods.component() == "worker").then_some(&done),
            "{}",
            pods.at
        );
        // A Job that is deleted by itself inside a JobSet would be made again.
        assert!(pods.job.get("ttlSecondsAfterFinished").is_none(), "{}", pods.at);
    });
}

#[test]
fn jobs_have_as_many_workers_as_the_cook_waits_for() {
    for rendered in everything().iter().filter(|r| !["argo", "kubeflow-trainer"].contains(&r.name.as_str())) {
        let config =
            rendered.of_kind("ConfigMap").find(|c| text(c, "/metadata/name") == "soup-config").unwrap();
        assert_eq!(config["immutable"], json!(true), "{}", rendered.name);
        let cook: Value = serde_saphyr::from_str(text(config, "/data/cook.yaml")).unwrap();
        for pods in rendered.pods().iter().filter(|p| p.component() == "worker") {
            for number in ["parallelism", "completions"] {
                assert_eq!(pods.job[number], cook["min-workers"], "{}: {number}", pods.at);
            }
        }
        let workers = cook["min-workers"].as_u64().unwrap();
        for budget in rendered.of_kind("PodDisruptionBudget") {
            // A percentage, or maxUnavailable, never allows anything for pods of Jobs.
            let least = budget["spec"]["minAvailable"].as_u64().expect("an integer");
            let local = rendered.name.starts_with("overlays/local");
            assert!(least >= 1 && (least <= workers || local), "{}", rendered.name);
        }
    }
}

#[test]
fn what_is_mounted_is_there_and_what_is_there_is_mounted() {
    for_all_pods(|rendered, pods| {
        let volumes = list(pods.spec, "/volumes").iter().map(|v| text(v, "/name")).collect::<BTreeSet<_>>();
        let mounts = pods.containers().flat_map(|c| list(c, "/volumeMounts"));
        let mounted = mounts.map(|m| text(m, "/name")).collect::<BTreeSet<_>>();
        assert_eq!(volumes, mounted, "{}", pods.at);
        for container in pods.containers() {
            let places: Vec<&str> =
                list(container, "/volumeMounts").iter().map(|m| text(m, "/mountPath")).collect();
            assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len(), "{}: {places:?}", pods.at);
        }
        for volume in list(pods.spec, "/volumes") {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            assert!(claim.is_empty() || rendered.has("PersistentVolumeClaim", claim), "{}: {claim}", pods.at);
            let config = text(volume, "/configMap/name");
            let brought = rendered.name == "kubeflow-trainer";
            assert!(
                config.is_empty() || brought || rendered.has("ConfigMap", config),
                "{}: {config}",
                pods.at
            );
            let secret = text(volume, "/secret/secretName");
            let mut certificates = rendered.of_kind("Certificate").map(|c| text(c, "/spec/secretName"));
            assert!(secret.is_empty() || certificates.any(|c| c == secret), "{}: {secret}", pods.at);
        }
    });
}

/// The help of a subcommand, whole.
fn help(subcommand: &str) -> String {
    Soupctl::new(SOUPCTL).args([subcommand, "--help"]).run().stdout
}

#[test]
fn flags_and_variables_are_soupctls() {
    let helps = [("cook", help("cook")), ("worker", help("worker"))];
    for_all_pods(|_, pods| {
        let args: Vec<&str> = list(pods.soup(), "/args").iter().filter_map(Value::as_str).collect();
        let (_, help) = helps.iter().find(|(subcommand, _)| *subcommand == args[0]).unwrap();
        let words: BTreeSet<&str> =
            help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').collect();
        for flag in args.iter().filter(|a| a.starts_with('-')) {
            assert!(words.contains(flag), "{}: soupctl {} has no {flag}", pods.at, args[0]);
        }
        let variables = list(pods.soup(), "/env").iter().map(|v| text(v, "/name"));
        for variable in variables.filter(|v| v.starts_with("SOUP_")) {
            assert!(words.contains(variable), "{}: soupctl {} does not read {variable}", pods.at, args[0]);
        }
    });
}

#[test]
fn cook_files_have_keys_that_soupctl_knows() {
    let schema: Value = serde_json::from_str(&Soupctl::new(SOUPCTL).arg("schema").run().stdout).unwrap();
    let known = schema["properties"].as_object().unwrap();
    let mut texts: Vec<String> = Vec::new();
    for rendered in everything() {
        let configs = rendered.of_kind("ConfigMap").filter(|c| c.pointer("/data/cook.yaml").is_some());
        texts.extend(configs.map(|c| text(c, "/data/cook.yaml").to_owned()));
        let parameters =
            rendered.of_kind("WorkflowTemplate").flat_map(|w| list(w, "/spec/arguments/parameters"));
        texts.extend(parameters.filter(|p| text(p, "/name") == "cook").map(|p| text(p, "/value").to_owned()));
    }
    texts.extend(
        documents(&std::fs::read_to_string(folder().join("kubeflow-trainer/trainjob.yaml")).unwrap())
            .iter()
            .filter(|o| text(o, "/kind") == "ConfigMap")
            .map(|o| text(o, "/data/cook.yaml").to_owned()),
    );
    assert!(texts.len() > 5);
    for cook in texts {
        let keys: Value = serde_saphyr::from_str(&cook).unwrap();
        for key in keys.as_object().unwrap().keys() {
            assert!(known.contains_key(key), "soupctl knows no {key}:\n{cook}");
        }
    }
}

#[test]
fn plain_text_and_certificates_exclude_each_other() {
    for_all_pods(|rendered, pods| {
        let secure = rendered.of_kind("Certificate").next().is_some();
        assert_eq!(pods.variable("SOUP_INSECURE"), (!secure).then_some("true"), "{}", pods.at);
        let folder = pods.variable("SOUP_TLS");
        assert_eq!(folder.is_some(), secure, "{}", pods.at);
        if let Some(folder) = folder {
            let mounts = list(pods.soup(), "/volumeMounts");
            assert!(mounts.iter().any(|m| text(m, "/mountPath") == folder), "{}", pods.at);
            // The member that the certificate in that volume names has the pod's role.
            let role = format!("soup://soup/{}/", pods.component());
            let mut secrets = list(pods.spec, "/volumes").iter().map(|v| text(v, "/secret/secretName"));
            let secret = secrets.find(|s| !s.is_empty()).unwrap();
            let certificate =
                rendered.of_kind("Certificate").find(|c| text(c, "/spec/secretName") == secret).unwrap();
            assert!(text(certificate, "/spec/uris/0").starts_with(&role), "{}", pods.at);
        }
    });
}

/// The `spec`s of JobSets in what is rendered.
fn jobsets(rendered: &Rendered) -> Vec<&Value> {
    let runtimes = rendered.of_kind("TrainingRuntime").map(|r| &r["spec"]["template"]["spec"]);
    rendered.of_kind("JobSet").map(|j| &j["spec"]).chain(runtimes).collect()
}

#[test]
fn a_jobset_is_as_good_as_its_coordinator() {
    let mut seen = 0;
    for rendered in everything() {
        for spec in jobsets(rendered) {
            seen += 1;
            let jobs: Vec<&str> = list(spec, "/replicatedJobs").iter().map(|j| text(j, "/name")).collect();
            assert_eq!(jobs[0], "coordinator", "{}", rendered.name);
            assert_eq!(
                spec["successPolicy"]["targetReplicatedJobs"],
                json!(["coordinator"]),
                "{}",
                rendered.name
            );
            let rules = list(spec, "/failurePolicy/rules");
            assert_eq!(
                rules[0],
                json!({"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]})
            );
            // Without a rule that fits, everything is started again.
            let restarts: BTreeSet<&str> =
                rules[1..].iter().map(|r| text(r, "/targetReplicatedJobs/0")).collect();
            assert_eq!(restarts, jobs.iter().copied().collect(), "{}", rendered.name);
            assert!(rules[1..].iter().all(|r| text(r, "/action") == "RestartJob"), "{}", rendered.name);
        }
    }
    assert!(seen >= 5, "{seen}");
    let queued = &named("overlays/jobset-kueue").of_kind("JobSet").next().unwrap();
    assert_eq!(queued["spec"]["suspend"], json!(true));
    assert_ne!(text(queued, "/metadata/labels/kueue.x-k8s.io~1queue-name"), "");
}

/// The JobSet that a step of the WorkflowTemplate creates, with the parameters' own values.
fn jobset_of_workflow() -> Value {
    let template = named("argo").of_kind("WorkflowTemplate").next().unwrap();
    let step = list(template, "/spec/templates").iter().find(|t| text(t, "/name") == "jobset").unwrap();
    assert_eq!(text(step, "/resource/successCondition"), "status.terminalState == Completed");
    assert_eq!(text(step, "/resource/failureCondition"), "status.terminalState == Failed");
    let mut manifest = text(step, "/resource/manifest").to_owned();
    for parameter in list(template, "/spec/arguments/parameters") {
        let name = format!("{{{{workflow.parameters.{}}}}}", text(parameter, "/name"));
        manifest = manifest.replace(&name, text(parameter, "/value"));
    }
    serde_saphyr::from_str(&manifest).unwrap()
}

#[test]
fn workflows_create_the_jobset_that_the_overlay_has() {
    let mut own = named("overlays/jobset").of_kind("JobSet").next().unwrap().clone();
    own["metadata"].as_object_mut().unwrap().remove("namespace");
    own["metadata"]["name"] = json!("{{workflow.name}}");
    let volumes = own.pointer_mut("/spec/replicatedJobs/0/template/spec/template/spec/volumes").unwrap();
    let config = volumes.as_array_mut().unwrap().iter_mut().find(|v| text(v, "/name") == "config").unwrap();
    config["configMap"]["name"] = json!("{{workflow.name}}");
    assert_eq!(jobset_of_workflow(), own);
}

#[test]
fn the_dashboard_is_whole() {
    let rendered = named("overlays/s3 + monitoring");
    let config =
        rendered.of_kind("ConfigMap").find(|c| text(c, "/metadata/name") == "soup-dashboard").unwrap();
    assert_eq!(text(config, "/metadata/labels/grafana_dashboard"), "1");
    let dashboard: Value = serde_json::from_str(text(config, "/data/soup.json")).unwrap();
    let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "/panels") {
        let title = text(panel, "/title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: an id twice");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap());
        assert!(x + w <= 24, "{title}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "{title} lies on another panel");
        }
        let targets = list(panel, "/targets");
        assert!(text(panel, "/type") == "row" || !targets.is_empty(), "{title}");
        for target in targets {
            let query = text(target, "/expr");
            assert!(query.contains("namespace=\"$namespace\""), "{title}: {query}");
            assert!(query.contains("soup_") || query.contains("process_"), "{title}: {query}");
            assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{title}");
        }
    }
    assert!(ids.len() > 20);
}
