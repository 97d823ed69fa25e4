use super::*;

fn deployment() -> Deployment<'static> {
    Deployment {
        name: "vit",
        namespace: "lab",
        with_namespace: true,
        account: ACCOUNT,
        default_deny: DEFAULT_DENY,
        image: "registry.example.com/soupctl:1.2.3",
        workers: json!(8),
        min_workers: Some("8".to_owned()),
        cpus: Some("2"),
        memory: Some("4Gi"),
        gpus: Some("1"),
        secrets: &[],
        claims: &[],
        cook: "pool: s3://lab/pool\n",
    }
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|o| text(o, "/kind") == kind && text(o, "/metadata/name") == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_files_are_those_of_the_kustomization() {
    let kustomization = parse("kustomization.yaml", KUSTOMIZATION).unwrap();
    assert_eq!(kustomization["resources"], json!(RESOURCES.map(|(file, _)| file)));
    assert_eq!(kustomization["labels"].as_array().unwrap().len(), 1);
    assert_eq!(kustomization["labels"][0]["includeTemplates"], json!(true));
    assert_eq!(kustomization["configMapGenerator"], json!([{"name": "soup-config", "files": [COOK_FILE]}]));
    assert_eq!(kustomization["generatorOptions"], json!({"disableNameSuffixHash": true, "immutable": true}));
    let known =
        ["apiVersion", "kind", "namespace", "labels", "resources", "configMapGenerator", "generatorOptions"];
    let keys = kustomization.as_object().unwrap().keys();
    assert!(keys.clone().all(|key| known.contains(&key.as_str())), "{keys:?}");
}

#[test]
fn a_cook_has_names_of_its_own_everywhere() {
    let objects = objects(&deployment()).unwrap();
    let titles: Vec<String> =
        objects.iter().map(|o| format!("{} {}", text(o, "/kind"), text(o, "/metadata/name"))).collect();
    let wanted = [
        "Namespace lab",
        "ServiceAccount soup",
        "Service vit-coordinator",
        "Service vit-workers",
        "NetworkPolicy default-deny",
        "NetworkPolicy vit",
        "ConfigMap vit-config",
        "Job vit-coordinator",
        "Job vit-workers",
    ];
    assert_eq!(titles, wanted);
    let all = serde_json::to_string(&objects).unwrap();
    for (name, _) in NAMES {
        assert!(!all.contains(name), "{name} is left");
    }
    assert!(!all.contains("\"app.kubernetes.io/instance\":\"soup\""));
    for object in &objects[1..] {
        assert_eq!(text(object, "/metadata/namespace"), "lab");
    }
    let workers = find(&objects, "Job", "vit-workers");
    let env = workers.pointer(&format!("{CONTAINER}/env")).unwrap();
    assert!(
        env.as_array()
            .unwrap()
            .contains(&json!({"name": "SOUP_COORDINATOR", "value": "vit-coordinator:7070"}))
    );
    assert_eq!(text(workers, "/spec/template/spec/subdomain"), "vit-workers");
    // Every selector finds the pods of this cook, and those of no other.
    let selector = &find(&objects, "Service", "vit-workers")["spec"]["selector"];
    let labels = &workers["spec"]["template"]["metadata"]["labels"];
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(labels[label], *value, "{label}");
    }
    assert_eq!(selector[INSTANCE], json!("vit"));
    let policy = find(&objects, "NetworkPolicy", "vit");
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"][INSTANCE], json!("vit"));
    assert_eq!(policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"][INSTANCE], json!("vit"));
    let spread = "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels";
    assert_eq!(workers.pointer(spread).unwrap()[INSTANCE], json!("vit"));
    // What cooks share is marked as nobody's.
    for (kind, name) in [("Namespace", "lab"), ("ServiceAccount", "soup"), ("NetworkPolicy", "default-deny")]
    {
        assert!(find(&objects, kind, name)["metadata"]["labels"].get(INSTANCE).is_none(), "{kind}");
    }
}

#[test]
fn numbers_are_where_they_belong() {
    let objects = objects(&deployment()).unwrap();
    let (coordinator, workers) =
        (find(&objects, "Job", "vit-coordinator"), find(&objects, "Job", "vit-workers"));
    assert_eq!((&workers["spec"]["parallelism"], &workers["spec"]["completions"]), (&json!(8), &json!(8)));
    assert_eq!(coordinator["spec"]["parallelism"], json!(1));
    let resources = |job: &Value| job.pointer(&format!("{CONTAINER}/resources")).unwrap().clone();
    let wanted = json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "1"});
    assert_eq!(resources(workers), json!({"requests": wanted, "limits": wanted}));
    assert!(!resources(coordinator).to_string().contains("gpu"));
    let args = coordinator.pointer(&format!("{CONTAINER}/args")).unwrap().as_array().unwrap();
    assert_eq!(args[args.len() - 2..], [json!("--min-workers"), json!("8")]);
    for job in [coordinator, workers] {
        assert_eq!(text(job, &format!("{CONTAINER}/image")), "registry.example.com/soupctl:1.2.3");
    }
}

#[test]
fn secrets_and_claims_reach_both() {
    let claims = [Claim { name: "soup-data".to_owned(), path: "/data".to_owned() }];
    let secrets = ["soup-s3".to_owned()];
    let wanted = Deployment { claims: &claims, secrets: &secrets, with_namespace: false, ..deployment() };
    let objects = objects(&wanted).unwrap();
    assert!(objects.iter().all(|o| text(o, "/kind") != "Namespace"));
    for name in ["vit-coordinator", "vit-workers"] {
        let spec = &find(&objects, "Job", name)["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["envFrom"], json!([{"secretRef": {"name": "soup-s3"}}]));
        let mount = json!({"name": "claim-0", "mountPath": "/data"});
        assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{name}");
        let volume = json!({"name": "claim-0", "persistentVolumeClaim": {"claimName": "soup-data"}});
        assert!(spec["volumes"].as_array().unwrap().contains(&volume), "{name}");
    }
}

#[test]
fn the_cook_file_is_not_changed_by_a_letter() {
    for cook in [
        "a: 1",
        "# c\na: 1\n\n\n",
        " a: 1\n",
        "a:\t1\n  b \n",
        "a: 1\r\nb: 2\r\n",
        "é: \"\\u{1b}\"\n\u{feff}",
    ] {
        let objects = objects(&Deployment { cook, ..deployment() }).unwrap();
        let back = serde_saphyr::from_multiple::<Value>(&yaml(&objects).unwrap()).unwrap();
        assert_eq!(back, objects, "{cook:?}");
        assert_eq!(find(&back, "ConfigMap", "vit-config")["data"][COOK_FILE], json!(cook));
    }
}

#[test]
fn the_base_says_what_is_used_where_nobody_says_anything() {
    let Defaults { workers, cpus, memory } = defaults().unwrap();
    let objects = objects(&Deployment {
        workers: json!(workers),
        cpus: None,
        memory: None,
        gpus: None,
        ..deployment()
    });
    let objects = objects.unwrap();
    let limits = &find(&objects, "Job", "vit-workers")["spec"]["template"]["spec"]["containers"][0]["resources"]
        ["limits"];
    assert_eq!((text(limits, "/cpu"), text(limits, "/memory")), (cpus.as_str(), memory.as_str()));
    assert!(workers > 1 && limits.get(GPU).is_none());
}
