//! A cook that is its own coordinator (`soupctl cook --listen`), the workers that join it, and how those end; what operators see of all.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;
use soup_tests::{Cluster, EVERYWHERE, Members, Running, Soupctl, example, example_json, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// An address on this host at which nobody listens.
fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn cook(dir: &Path, listen: &str, more: &[&str]) -> Soupctl {
    let file = example().join("cook.yaml");
    let file = file.to_str().unwrap();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "-f", file, "-o", "json", "--output", "soup", "--no-baselines", "--listen", listen])
        .args(more)
}

fn worker(coordinator: &str, more: &[&str]) -> Running {
    let args = ["worker", "--coordinator", coordinator, "--threads", "1", "--memory", "256MiB"];
    Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE).args(more).start()
}

#[track_caller]
fn check_greedy(result: &Value) {
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert_eq!(strings(&result["ingredients"]), ["m02", "m03", "m10"]);
}

#[track_caller]
fn over(worker: Running) {
    let ended = worker.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("the work is over"), "{}", ended.stderr);
}

#[test]
fn workers_end_with_the_cook_that_they_joined() {
    let dir = TempDir::new().unwrap();
    let message = dir.path().join("message");
    let more = ["--min-workers", "2", "--termination-message", message.to_str().unwrap()];
    let mut cook = cook(dir.path(), "127.0.0.1:0", &more).start();
    let address = cook.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let workers = [worker(&address, &[]), worker(&address, &[])];
    cook.line_with("+ m02");
    // It cooks this, and nothing else.
    let other = ["cook", "--recipe", "uniform", "--output", "other", "--coordinator", &address, "--pool"];
    let other = Soupctl::new(SOUPCTL).dir(dir.path()).args(other).args([example()]).run();
    other.fails(2, &["this coordinator is there for one cook"]);
    check_greedy(&cook.wait().json());
    workers.into_iter().for_each(over);
    let left = std::fs::read_to_string(message).unwrap();
    assert_eq!(left, format!("the soup is in {}", dir.path().join("soup").display()));
}

#[test]
fn members_of_a_cluster_cook_together() {
    let dir = TempDir::new().unwrap();
    let members = Members::new(SOUPCTL);
    let of = |role: &str| members.flags(role);
    let tls = of("coordinator");
    let mut cook = cook(dir.path(), "127.0.0.1:0", &[&tls[0], &tls[1]]).start();
    let address = cook.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let tls = of("worker");
    let member = worker(&address, &[&tls[0], &tls[1]]);
    // What has no certificate, and what has that of a client, takes no part.
    worker(&address, &["--connect-timeout", "1s"]).wait().fails(69, &[]);
    let tls = of("client");
    worker(&address, &[&tls[0], &tls[1]]).wait().fails(78, &["worker"]);
    check_greedy(&cook.wait().json());
    over(member);
}

#[test]
fn the_same_command_goes_on_after_a_kill_and_workers_wait_for_it() {
    let dir = TempDir::new().unwrap();
    let address = address();
    for end in ["KILL", "TERM"] {
        let mut first = cook(dir.path(), &address, &["--overwrite"]).start();
        first.line_with("listening on ");
        let workers = [worker(&address, &[]), worker(&address, &[])];
        first.line_with("+ m02");
        first.signal(end);
        let ended = first.wait();
        assert_eq!(ended.code, if end == "KILL" { -1 } else { 75 }, "{}", ended.stderr);
        let second = cook(dir.path(), &address, &["--overwrite"]).run();
        assert!(second.stderr.contains("goes on where it stopped"), "{}", second.stderr);
        check_greedy(&second.json());
        workers.into_iter().for_each(over);
        std::fs::remove_dir_all(dir.path().join("soup")).unwrap();
        std::fs::remove_dir_all(dir.path().join(".soup-state")).unwrap();
    }
}

#[test]
fn workers_hear_that_a_cook_was_done_before_they_came_back() {
    let dir = TempDir::new().unwrap();
    let address = address();
    let first = cook(dir.path(), &address, &[]).start();
    over(worker(&address, &[]));
    check_greedy(&first.wait().json());
    // Nobody is there when the same is asked for again; a worker that is just looking for it is waited for.
    let waiting = worker(&address, &[]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let again = cook(dir.path(), &address, &[]).run();
    check_greedy(&again.json());
    over(waiting);
}

#[test]
fn workers_end_with_a_cook_that_fails() {
    let dir = TempDir::new().unwrap();
    let address = address();
    let of = ["--validation", "nothing.parquet"];
    std::fs::write(dir.path().join("nothing.parquet"), "PAR1 this is none PAR1").unwrap();
    let failing = cook(dir.path(), &address, &of).start();
    over(worker(&address, &[]));
    failing.wait().fails(65, &["nothing.parquet"]);
    let (file, pool) = (dir.path().join("message"), example());
    let wrong = ["--listen", "256.0.0.1:1", "--termination-message", file.to_str().unwrap()];
    let wrong = [&["cook", "--recipe", "uniform", "--pool", pool.to_str().unwrap()][..], &wrong].concat();
    Soupctl::new(SOUPCTL).dir(dir.path()).args(wrong).run().fails(78, &["256.0.0.1:1"]);
    assert!(std::fs::read_to_string(file).unwrap().contains("error: cannot listen on \"256.0.0.1:1\""));
}

#[test]
fn what_contradicts_a_listening_cook_is_refused() {
    let dir = TempDir::new().unwrap();
    for (more, expect) in [
        (&["--workers", "2"][..], "--workers is about an embedded cluster"),
        (&["--judge", "j=cmd:true"], "--judge NAME=SOURCE is about an embedded cluster"),
        (&["--coordinator", "node:1"], "--listen makes this process the coordinator"),
    ] {
        cook(dir.path(), "127.0.0.1:0", more).run().fails(2, &[expect]);
    }
    cook(dir.path(), "0.0.0.0:0", &[]).run().fails(78, &["--insecure"]);
}

/// Whoever stops a worker decides what its exit code says: that there is work left, unless that is nothing to the supervisor.
#[test]
fn a_worker_that_is_stopped_says_that_there_is_work_left() {
    let cluster = Cluster::start(SOUPCTL, 0);
    for (signal, more, code) in
        [("TERM", &[][..], 143), ("INT", &[], 130), ("TERM", &["--stop-is-success"], 0)]
    {
        let mut stopped = worker(&cluster.url, &[&["--admin", "127.0.0.1:0"][..], more].concat());
        ready(&mut stopped);
        stopped.signal(signal);
        let stopped = stopped.wait();
        assert_eq!(stopped.code, code, "{}", stopped.stderr);
    }
}

#[test]
fn a_worker_gives_up_on_a_coordinator_that_stays_away() {
    let mut cluster = Cluster::start(SOUPCTL, 0);
    let mut orphan = worker(&cluster.url, &["--orphan-timeout", "1s", "--admin", "127.0.0.1:0"]);
    ready(&mut orphan);
    cluster.coordinator.kill();
    orphan.wait().fails(75, &["the coordinator at", "has been away for 1 s"]);
    // One that there never was is another matter.
    worker(&address(), &["--connect-timeout", "1s"]).wait().fails(69, &["no coordinator has answered at"]);
}

/// What an admin port answers: the status, and the body.
fn ask(port: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(port).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits until a process says that it is ready, and gives its admin port.
fn ready(process: &mut Running) -> String {
    let line = process.line_with("operators are answered on http://");
    let port = line.rsplit('/').next().unwrap().to_owned();
    assert_eq!(ask(&port, "/livez").0, 200);
    while ask(&port, "/readyz").0 != 200 {
        assert!(!process.has_ended());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    port
}

#[test]
fn a_page_shows_a_cook_while_it_happens() {
    let dir = TempDir::new().unwrap();
    let mut cook = cook(dir.path(), "127.0.0.1:0", &["--admin", "127.0.0.1:0"]).start();
    let port = ready(&mut cook);
    let address = cook.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    assert!(ask(&port, "/").1.contains("<script src=\"live.js\">"));
    let mut events = TcpStream::connect(&port).unwrap();
    write!(events, "GET /events HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n").unwrap();
    let worker = worker(&address, &[]);
    let mut lines = std::io::BufReader::new(events).lines().map_while(Result::ok);
    let mut next = |kind: &str| loop {
        let line = lines.next().unwrap_or_else(|| panic!("no event of type {kind:?} came"));
        let event = line.strip_prefix("data: ").and_then(|json| serde_json::from_str::<Value>(json).ok());
        if let Some(event) = event.filter(|event| event["type"] == kind) {
            break event;
        }
    };
    assert_eq!(next("planned")["ingredients"].as_array().unwrap().len(), 16);
    let trial = next("trial");
    assert_eq!(
        (&trial["trial"], &trial["candidate"], &trial["accepted"]),
        (&1.into(), &2.into(), &true.into())
    );
    let view = next("view");
    assert_eq!((&view["phase"], view["workers"].as_array().unwrap().len()), (&"cook".into(), 1));
    check_greedy(&cook.wait().json());
    over(worker);
}

/// The sum of all samples of a metric that have all of `labels`.
#[track_caller]
fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let samples = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (called, of) = series.split_once('{').unwrap_or((series, ""));
        let is_it = called == name && labels.iter().all(|label| of.contains(label));
        is_it.then(|| value.parse::<f64>().unwrap())
    });
    samples.fold(0.0, |sum, value| sum + value)
}

#[test]
fn what_is_counted_adds_up_to_the_report() {
    let dir = TempDir::new().unwrap();
    let members = Members::new(SOUPCTL);
    let flags = |role: &str| members.flags(role).to_vec();
    let state = dir.path().join("state");
    let coordinator = ["coordinator", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-url"];
    let mut coordinator = Soupctl::new(SOUPCTL)
        .args(coordinator)
        .args([&state])
        .args(EVERYWHERE)
        .args(flags("coordinator"))
        .start();
    let port = ready(&mut coordinator);
    let address = coordinator.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let tls = flags("worker");
    let more = ["--admin", "127.0.0.1:0", &tls[0], &tls[1]];
    let mut workers = [worker(&address, &more), worker(&address, &more)];
    let ports = workers.each_mut().map(ready);
    let file = example().join("cook.yaml");
    let args =
        ["cook", "-o", "json", "--output", "soup", "--min-workers", "2", "--coordinator", &address, "-f"];
    let cook = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args([file]).args(flags("client"));
    let report = cook.run().json();
    check_greedy(&report);

    let counted = ask(&port, "/metrics").1;
    let all = |name: &str| sum(&counted, name, &[]);
    let trials = report["trials"].as_array().unwrap();
    let accepted = trials.iter().filter(|trial| trial["verdict"] == "accepted").count() as f64;
    assert_eq!(sum(&counted, "soup_trials_total", &["verdict=\"accepted\""]), accepted);
    assert_eq!(all("soup_trials_total"), trials.len() as f64);
    assert_eq!(sum(&counted, "soup_runs_total", &["outcome=\"published\""]), 1.0);
    assert_eq!(all("soup_pool_read_bytes_total"), report["pool_bytes_read"].as_f64().unwrap());
    assert_eq!((all("soup_workers"), all("soup_workers_joined_total")), (2.0, 2.0));
    let tried: f64 = trials.iter().map(|trial| trial["evaluated"].as_f64().unwrap()).sum();
    assert!(all("soup_judged_samples_total") >= 2000.0 * 16.0 + tried);
    // Scores of slices, and not of what was judged and not wanted any more.
    let theirs = ports.map(|port| ask(&port, "/metrics").1);
    let of_all = |name: &str| theirs.iter().map(|text| sum(text, name, &[])).sum::<f64>();
    assert!(of_all("soup_worker_judged_samples_total") >= all("soup_judged_samples_total"));
    assert_eq!(of_all("soup_worker_loaded_bytes_total"), all("soup_pool_read_bytes_total"));
    assert_eq!(of_all("soup_worker_sent_bytes_total"), of_all("soup_worker_fetched_bytes_total"));
    assert!(of_all("soup_worker_fetched_bytes_total") > 0.0);
    for (phase, spent) in
        report["seconds"].as_object().unwrap().iter().filter(|(phase, _)| *phase != "prepare")
    {
        let seen = sum(&counted, "soup_phase_seconds_sum", &[&format!("phase=\"{phase}\"")]);
        let spent = spent.as_f64().unwrap();
        // The report is part of what is written, so that writing has not ended when it is made.
        let more = if phase == "write" { 60.0 } else { 0.001 };
        assert!((spent - 0.001..=spent + more).contains(&seen), "{phase}: {seen} and {spent}");
    }
    // What is said of it has a type and a help.
    for line in counted.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let known = |name: &str| {
            counted.contains(&format!("# TYPE {name} ")) && counted.contains(&format!("# HELP {name} "))
        };
        let ends = ["", "_total", "_bucket", "_sum", "_count"];
        assert!(ends.iter().any(|end| name.strip_suffix(end).is_some_and(known)), "{line}");
    }
}

fn doctor(args: &[&str]) -> soup_tests::Output {
    Soupctl::new(SOUPCTL).args(["doctor", "-o", "json"]).args(args).run()
}

/// What doctor found of something.
#[track_caller]
fn found(output: &soup_tests::Output, check: &str) -> (String, String) {
    let all: Value = serde_json::from_str(&output.stdout).unwrap();
    let of =
        all["findings"].as_array().unwrap().iter().find(|f| f["check"].as_str().unwrap().starts_with(check));
    let of = of.unwrap_or_else(|| panic!("nothing about {check:?} in {all}"));
    (of["verdict"].as_str().unwrap().to_owned(), of["found"].as_str().unwrap().to_owned())
}

#[test]
fn doctor_says_what_works_and_what_does_not() {
    let mut cluster = Cluster::start(SOUPCTL, 1);
    let state = cluster.state().to_str().unwrap().to_owned();
    let pool = example();
    let all = ["--state-url", &state, "--pool", pool.to_str().unwrap(), "--coordinator", &cluster.url];
    // The worker may take a moment to be there.
    let mut well = doctor(&all);
    while found(&well, "coordinator").0 == "warning" {
        well = doctor(&all);
    }
    assert_eq!(well.code, 0, "{}", well.stderr);
    assert!(found(&well, "state").1.contains("creates only what is absent"));
    assert!(found(&well, "pool").1.starts_with("16 checkpoints, 12.7 MiB"));
    assert_eq!(found(&well, "clock").0, "ok");
    assert!(found(&well, "worker ").1.contains("reaches 0 others"));
    // One that others do not reach is named, and so is what is not there.
    cluster.add_worker_args(SOUPCTL, "", &["--advertise", "http://127.0.0.1:9", "--name", "lost"]);
    let of_cluster = ["--coordinator", &cluster.url];
    let ill = loop {
        let ill = doctor(&of_cluster);
        if ill.code != 0 {
            break ill;
        }
    };
    assert_eq!(ill.code, 69, "{}", ill.stderr);
    assert!(
        ill.stdout.contains("it does not reach 1 of 1 other; worker lost at http://127.0.0.1:9"),
        "{}",
        ill.stdout
    );
    assert!(ill.stderr.contains("error: 1 problem above"), "{}", ill.stderr);
    let nowhere = doctor(&["--coordinator", "127.0.0.1:9", "--pool", "/nothing/here"]);
    assert_eq!(nowhere.code, 65, "the first problem's: {}", nowhere.stderr);
    assert_eq!(found(&nowhere, "coordinator").0, "error");
}

/// As a health check it asks for one thing alone.
#[test]
fn doctor_is_a_health_check() {
    let address = address();
    let mut waiting = Soupctl::new(SOUPCTL)
        .args(["worker", "--coordinator", &address, "--admin", "127.0.0.1:0"])
        .args(EVERYWHERE)
        .start();
    let port = waiting.line_with("operators are answered on http://").rsplit('/').next().unwrap().to_owned();
    let early = doctor(&["--admin", &port]);
    assert_eq!(early.code, 69, "{}", early.stderr);
    let all: Value = serde_json::from_str(&early.stdout).unwrap();
    assert_eq!(all["findings"].as_array().unwrap().len(), 1);
    let text = found(&early, "admin port").1;
    assert!(text.starts_with("it lives, and is not ready: a worker is once a coordinator"), "{text}");
    waiting.kill();
    assert!(found(&doctor(&["--admin", &port]), "admin port").1.starts_with("nothing answers at"));
    let cluster = Cluster::start(SOUPCTL, 0);
    let other = cluster.url.trim_start_matches("http://");
    assert_eq!(doctor(&["--admin", other]).code, 78, "what speaks gRPC is no admin port");
}
