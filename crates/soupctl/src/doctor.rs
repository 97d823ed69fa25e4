//! `soupctl doctor`: what works from here, and what to do about what does not. It changes nothing but a probe in the state, which it removes.
//!
//! Each look is a [`Finding`]; none keeps the others from being made. What is wrong with what somebody named is an error, whose kind is the
//! exit code; what may become a problem is a warning.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use soup_core::reach::WorkerReach;
use soup_core::{Error, ErrorKind, Result};
use soup_store::pool;
use soup_store::state::State;
use soup_trust::Role;

use crate::args::DoctorArgs;
use crate::choices::OutputFormat;
use crate::client::{Client, not_understood};
use crate::cookfile::{absolute, current_folder};
use crate::quantity::{Bytes, count};
use crate::{inspect, print, resources, table};

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clocks that differ by more make tickets and certificates expire where they should not.
const SKEW_MAX_SECONDS: i64 = 30;
/// Fewer open files are soon too few for a worker with many peers and ingredients.
const FILES_MIN: u64 = 4096;
/// What containers have of shared memory where nobody says otherwise.
const SHARED_DEFAULT_BYTES: u64 = 64 << 20;
/// Where judges are handed soups.
const SHARED: &str = "/dev/shm";

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Error,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Error => "ERROR",
        }
    }
}

/// What a look at something gave.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: String,
    verdict: Verdict,
    /// What was found, and what to do about it.
    found: String,
    /// The exit code of an error.
    #[serde(skip)]
    kind: Option<ErrorKind>,
}

impl Finding {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { check: check.into(), verdict: Verdict::Ok, found: found.into(), kind: None }
    }

    fn warning(check: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warning, ..Finding::ok(check, found) }
    }

    fn error(check: impl Into<String>, error: &Error) -> Finding {
        let kind = Some(error.kind());
        Finding { verdict: Verdict::Error, kind, ..Finding::ok(check, error.chain()) }
    }

    fn of(check: impl Into<String>, result: Result<String>) -> Finding {
        match result {
            Ok(found) => Finding::ok(check, found),
            Err(error) => Finding::error(check, &error),
        }
    }
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Examination<'a> {
    findings: &'a [Finding],
    /// The coordinator's workers, and who of them reaches whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WorkerReach>>,
}

/// Looks at everything that is named, and at this machine.
///
/// # Errors
/// Of the kind of the first thing that does not work, once all is printed.
pub(crate) async fn run(args: DoctorArgs) -> Result<()> {
    let mut findings = match (&args.admin, args.names_nothing()) {
        // A health check asks for no more than that.
        (Some(_), true) => Vec::new(),
        _ => machine(&args),
    };
    let mut workers = None;
    if let Some(address) = &args.admin {
        findings.push(Finding::of(format!("admin port {address}"), ready(address).await));
    }
    if args.trust.is_secure() {
        findings.push(Finding::of("credentials", credentials(&args)));
    }
    if let Some(url) = &args.state_url {
        findings.push(Finding::of(format!("state {url}"), timely(state(url)).await));
    }
    for url in &args.pool {
        findings.push(Finding::of(format!("pool {url}"), timely(checkpoints(url)).await));
    }
    if let Some(coordinator) = &args.coordinator {
        let found = timely(ask(coordinator, &args)).await;
        match found {
            Ok((more, reach)) => {
                findings.extend(more);
                workers = Some(reach);
            }
            Err(error) => findings.push(Finding::error(format!("coordinator {coordinator}"), &error)),
        }
    }
    show(&findings, workers, args.format)?;
    let errors = findings.iter().filter(|f| f.verdict == Verdict::Error).count() as u64;
    match findings.iter().find_map(|f| f.kind) {
        Some(kind) => Err(Error::new(kind, format!("{} above", count(errors, "problem")))),
        None => Ok(()),
    }
}

fn show(findings: &[Finding], workers: Option<Vec<WorkerReach>>, format: OutputFormat) -> Result<()> {
    match format {
        OutputFormat::Json => print::json(&Examination { findings, workers }),
        OutputFormat::Table => {
            let row = |f: &Finding| vec![f.verdict.name().to_owned(), f.check.clone(), f.found.clone()];
            let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
            print::result(&table::columns(&["", "CHECK", "FOUND"], &rows))
        }
    }
}

/// What comes of a look, unless it takes too long.
async fn timely<T>(look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| {
        let seconds = PATIENCE.as_secs();
        Err(Error::unavailable(format!(
            "no answer within {seconds} s: look at what is between (firewalls, proxies)"
        )))
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(late)
}

/// What this machine offers.
fn machine(args: &DoctorArgs) -> Vec<Finding> {
    let version = format!("soupctl {}, {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let mut findings = vec![
        Finding::ok("version", version),
        Finding::ok("processors", resources::threads_share(1)),
        Finding::ok(
            "memory",
            format!(
                "a worker uses {} ({})",
                Bytes(resources::memory_per_worker(1)),
                resources::memory_share()
            ),
        ),
        files(),
        shared(args.judge_dir.as_deref()),
    ];
    if let Some(folder) = &args.disk_cache {
        let bytes = resources::disk_per_worker(folder, 1);
        let check = format!("disk cache {}", folder.display());
        findings.push(match bytes {
            0 => Finding::warning(check, "nothing is free there: give another folder on a local disk"),
            bytes => Finding::ok(check, format!("a worker keeps {} there", Bytes(bytes))),
        });
    }
    findings
}

/// How many files may be open.
fn files() -> Finding {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES_MIN => Finding::warning(
            "open files",
            format!(
                "{limit} at a time: raise it (ulimit -n {FILES_MIN}), connections to peers and files of ingredients count"
            ),
        ),
        Some(limit) => Finding::ok("open files", format!("{limit} at a time")),
        None => Finding::ok("open files", "any number"),
    }
}

/// Where judges that are programs are handed soups.
fn shared(folder: Option<&Path>) -> Finding {
    let folder = folder.unwrap_or(Path::new(SHARED));
    let check = format!("judges' folder {}", folder.display());
    let Ok(of) = rustix::fs::statvfs(folder) else {
        return Finding::warning(
            check,
            "it is not there: judges that are programs need one, see --judge-dir",
        );
    };
    let (size, free) = (of.f_blocks.saturating_mul(of.f_frsize), of.f_bavail.saturating_mul(of.f_frsize));
    let found = format!("{} free of {}", Bytes(free), Bytes(size));
    match size <= SHARED_DEFAULT_BYTES {
        true => Finding::warning(
            check,
            format!(
                "{found}: too little for judges that are programs, which are handed soups there (docker: --shm-size, Kubernetes: an emptyDir of medium Memory)"
            ),
        ),
        false => Finding::ok(check, found),
    }
}

async fn ready(address: &str) -> Result<String> {
    let begun = Instant::now();
    match soup_admin::ask(address, "/readyz").await? {
        (200, _) => Ok(format!("ready, after {} ms", begun.elapsed().as_millis())),
        (503, _) => Err(Error::unavailable(
            "it lives, and is not ready: a worker is once a coordinator has welcomed it and its shards are loaded, a coordinator once it knows \
             the runs of its state; its log says more",
        )),
        (status, _) => Err(Error::configuration(format!(
            "what answers there with {status} is no admin port of soupctl: see its --admin"
        ))),
    }
}

fn credentials(args: &DoctorArgs) -> Result<String> {
    let roles = [Role::Coordinator, Role::Worker, Role::Client, Role::Admin];
    let credentials = args.trust.credentials(&roles)?;
    Ok(credentials.map_or_else(String::new, |own| own.identity().to_string()))
}

async fn state(url: &str) -> Result<String> {
    let cwd = current_folder()?;
    let state = State::open(&absolute(&cwd, url)?)?;
    let begun = Instant::now();
    state.probe().await?;
    let probed = begun.elapsed().as_millis();
    let runs = state.summaries().await?.len() as u64;
    Ok(format!("creates only what is absent, as it has to ({probed} ms); {} in it", count(runs, "run")))
}

async fn checkpoints(url: &str) -> Result<String> {
    let cwd = current_folder()?;
    let begun = Instant::now();
    let pool = pool::open_pool(&[absolute(&cwd, url)?]).await?;
    let bytes: u64 = pool.checkpoints.iter().map(soup_store::checkpoint::Checkpoint::size_bytes).sum();
    let read = begun.elapsed().as_millis();
    // As inspect and plan say it.
    inspect::agreement(&pool.checkpoints).await.1?;
    let many = pool.checkpoints.len() as u64;
    let agree = if many > 1 { ", which agree" } else { "" };
    Ok(format!("{}, {}{agree}; headers read in {read} ms", count(many, "checkpoint"), Bytes(bytes)))
}

/// Asks a coordinator how it is, and how its workers are.
async fn ask(coordinator: &str, args: &DoctorArgs) -> Result<(Vec<Finding>, Vec<WorkerReach>)> {
    let url = crate::spec::coordinator_url(coordinator)?;
    let begun = Instant::now();
    let client = Client::connect(&url, &args.trust).await?;
    let (json, skew) = client.probe().await?;
    let workers: Vec<WorkerReach> =
        serde_json::from_str(&json).map_err(|e| not_understood(&url, "workers", e))?;
    let found =
        format!("{}, asked in {} ms", count(workers.len() as u64, "worker"), begun.elapsed().as_millis());
    let check = format!("coordinator {coordinator}");
    let mut findings = vec![match workers.is_empty() {
        true => {
            Finding::warning(check, "no worker has joined it: start some with soupctl worker --coordinator")
        }
        false => Finding::ok(check, found),
    }];
    findings.extend(skew.map(clock));
    findings.extend(workers.iter().map(peers));
    Ok((findings, workers))
}

/// By how many seconds this host's clock is ahead of the coordinator's.
fn clock(ahead: i64) -> Finding {
    let found = format!("{} s from the coordinator's", ahead.abs());
    match ahead.abs() > SKEW_MAX_SECONDS {
        true => Finding::warning(
            "clock",
            format!("{found}: certificates and tickets expire by it, so set both (NTP)"),
        ),
        false => Finding::ok("clock", found),
    }
}

/// Whom a worker reaches.
fn peers(of: &WorkerReach) -> Finding {
    let check = format!("worker {} at {}", of.worker, of.address);
    let Some(reaches) = &of.reaches else {
        return Finding::warning(check, "it did not say in time whom it reaches: is it busy, or cut off?");
    };
    let lost = reaches.iter().find_map(|reach| Some((reach, reach.error.as_ref()?)));
    let (all, slowest) = (reaches.len() as u64, reaches.iter().map(|reach| reach.milliseconds).max());
    match lost {
        Some((reach, why)) => Finding::error(
            check,
            &Error::unavailable(format!(
                "it does not reach {} of {}; worker {} at {}: {why}: see --advertise and what is between them",
                reaches.iter().filter(|reach| reach.error.is_some()).count(),
                count(all, "other"),
                reach.worker,
                reach.address
            )),
        ),
        None => Finding::ok(
            check,
            format!(
                "{}, {}{} for shards; reaches {} within {} ms",
                count(of.slots.into(), "thread"),
                match of.device_bytes {
                    0 => String::new(),
                    bytes => format!("{} of device memory and ", Bytes(bytes)),
                },
                Bytes(of.capacity_bytes),
                count(all, "other"),
                slowest.unwrap_or_default()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use soup_core::reach::Reach;

    use super::*;

    fn worker(reaches: Option<Vec<Reach>>) -> WorkerReach {
        let (worker, address) = ("w".to_owned(), "http://h:1".to_owned());
        WorkerReach {
            worker,
            address,
            slots: 2,
            device_bytes: 0,
            capacity_bytes: 1 << 30,
            disk_bytes: 0,
            reaches,
        }
    }

    fn reach(error: Option<&str>) -> Reach {
        let (worker, address) = ("v".to_owned(), "http://i:2".to_owned());
        Reach { worker, address, milliseconds: 3, error: error.map(str::to_owned) }
    }

    #[test]
    fn a_worker_that_does_not_reach_a_peer_is_an_error_that_names_it() {
        let good = peers(&worker(Some(vec![reach(None)])));
        assert_eq!(good.verdict, Verdict::Ok);
        assert!(good.found.contains("reaches 1 other within 3 ms"), "{}", good.found);
        let bad = peers(&worker(Some(vec![reach(None), reach(Some("refused"))])));
        assert_eq!((bad.verdict, bad.kind), (Verdict::Error, Some(ErrorKind::Unavailable)));
        assert!(bad.found.contains("1 of 2 others; worker v at http://i:2: refused"), "{}", bad.found);
        assert_eq!(peers(&worker(None)).verdict, Verdict::Warning);
    }

    #[tokio::test]
    async fn a_pool_whose_classes_differ_is_not_well() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let put = |name: &str, class: &str| {
            let of = folder.path().join(name);
            std::fs::create_dir_all(&of).unwrap();
            std::fs::write(of.join("model.safetensors"), &bytes).unwrap();
            let config = serde_json::json!({ "model_type": "vit", "id2label": { "0": class, "1": "dog" } });
            std::fs::write(of.join("config.json"), config.to_string()).unwrap();
        };
        put("a", "cat");
        put("b", "cat");
        let url = folder.path().to_str().unwrap();
        let found = checkpoints(url).await.unwrap();
        assert!(found.starts_with("2 checkpoints, ") && found.contains(", which agree;"), "{found}");
        put("b", "cow");
        let error = checkpoints(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.chain().contains("id2label.0"), "{}", error.chain());
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert_eq!(clock(-SKEW_MAX_SECONDS).verdict, Verdict::Ok);
        assert_eq!(clock(SKEW_MAX_SECONDS + 1).verdict, Verdict::Warning);
    }
}
