//! The memory and processors that a worker offers are those that it really has.

use soup_core::plan::PlanReport;
use soup_tests::{Output, Soupctl};

use crate::fixture::{Place, SOUPCTL, animals};

/// What `plan` says of memory, run by `sh -c 'BEFORE; exec soupctl plan ...'`.
fn plan(before: &str, variables: &[(&str, &str)]) -> (u64, String) {
    let place = Place::with(&["a"]);
    let validation = animals().join("validation.parquet").to_str().unwrap().to_owned();
    let script = format!("{before}; exec \"$@\"");
    let args = [
        "-c",
        &script,
        "sh",
        SOUPCTL,
        "plan",
        "--pool",
        "pool",
        "--validation",
        &validation,
        "--workers",
        "1",
    ];
    let mut shell = Soupctl::new("sh").dir(place.path()).args(args).args(["-o", "json"]);
    for (name, value) in variables {
        shell = shell.env(name, value);
    }
    let output: Output = shell.run();
    let plan: PlanReport = serde_json::from_value(output.json()).unwrap();
    (plan.memory.offered_bytes_per_worker.unwrap(), plan.memory.offered_of.unwrap())
}

#[test]
fn an_address_space_that_is_limited_is_not_offered_twice() {
    let (bytes, of) = plan("ulimit -v 3000000", &[]);
    assert!(of.contains("RLIMIT_AS"), "{of}");
    assert!(bytes < 3_000_000 * 1024 / 100 * 60, "{bytes}");
}

#[test]
fn what_slurm_allotted_is_what_is_offered() {
    let (bytes, of) = plan("true", &[("SLURM_MEM_PER_NODE", "300")]);
    assert_eq!(bytes, (300 << 20) / 100 * 60);
    assert!(of.contains("SLURM_MEM_PER_NODE"), "{of}");
}

/// Removes a control group.
struct Group(std::path::PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn the_limit_of_a_group_of_ones_own_is_seen() {
    let (parent, limit) = match std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
        true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        false => ("/sys/fs/cgroup", "memory.max"),
    };
    let group = Group(std::path::Path::new(parent).join(format!("soupctl-test-{}", std::process::id())));
    let made = std::fs::create_dir(&group.0);
    if made.and_then(|()| std::fs::write(group.0.join(limit), "209715200")).is_err() {
        // Only an administrator may make one; files of made-up systems are tested beside the code.
        return;
    }
    let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
    let (bytes, of) = plan(&enter, &[]);
    assert!(bytes <= 209_715_200 / 100 * 60, "{bytes}");
    assert!(of.contains("/sys/fs/cgroup") && of.contains(limit), "{of}");
}
