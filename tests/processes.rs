//! A cluster of real processes: same soup, also when a worker is killed on the way.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use soup_tests::{Cluster, Soupctl, example, example_json, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

fn submit(cluster: &Cluster, dir: &Path, args: &[&str]) -> Soupctl {
    let file = example().join("cook.yaml");
    let file = file.to_str().unwrap();
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args(["cook", "-f", file, "-o", "json", "--coordinator", &cluster.url, "--no-baselines"])
        .args(args)
}

#[track_caller]
fn check_greedy(result: &Value) {
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert_eq!(strings(&result["ingredients"]), ["m02", "m03", "m10"]);
    assert_eq!(result["score"]["correct"], 1750);
    assert_eq!(result["trials"].as_array().unwrap().len(), 15);
}

#[test]
fn processes_give_the_same_soup_one_run_after_another() {
    let cluster = Cluster::start(SOUPCTL, 3);
    let dir = TempDir::new().unwrap();
    let first = submit(&cluster, dir.path(), &["--output", "first", "--min-workers", "3"]).start();
    let second = submit(&cluster, dir.path(), &["--output", "second", "--recipe", "uniform"]).run().json();
    check_greedy(&first.wait().json());
    assert_eq!(second["sha256"], example_json("soups.json")["uniform"]["sha256"]);
}

#[test]
fn a_killed_worker_changes_nothing() {
    let mut cluster = Cluster::start(SOUPCTL, 3);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup", "--min-workers", "3"]).start();
    cook.line_with("+ m07");
    cluster.workers[1].kill();
    cook.line_with("+ m08");
    cluster.workers[0].kill();
    cluster.add_worker(SOUPCTL);
    let output = cook.wait();
    check_greedy(&output.json());
    assert_eq!(output.stderr.matches("was lost").count(), 2, "{}", output.stderr);
}

/// Its peers do not reach it, and the run needs it for nothing that others cannot do.
#[test]
fn a_worker_that_advertises_a_wrong_address_ends_no_run() {
    for others in [1, 2] {
        let mut cluster = Cluster::start(SOUPCTL, others);
        cluster.add_worker_args(SOUPCTL, "", &["--advertise", "http://127.0.0.1:9"]);
        let dir = TempDir::new().unwrap();
        let workers = (others + 1).to_string();
        let cook = submit(&cluster, dir.path(), &["--output", "soup", "--min-workers", &workers]);
        check_greedy(&cook.run().json());
    }
}

#[test]
fn a_stopped_coordinator_exits_75_and_its_successor_goes_on() {
    let mut cluster = Cluster::start(SOUPCTL, 2);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    cook.line_with("+ m02");
    cluster.coordinator.signal("TERM");
    cook.line_with("the coordinator is gone");
    let stopped = std::mem::replace(&mut cluster.coordinator, Soupctl::new("true").start()).wait();
    assert_eq!(stopped.code, 75, "{}", stopped.stderr);
    assert!(stopped.stderr.contains("will go on with the next coordinator"), "{}", stopped.stderr);
    // Nothing is staged meanwhile.
    assert_eq!(soup_tests::Pool::list(dir.path()), [""; 0]);
    cluster.restart_coordinator();
    let output = cook.wait();
    check_greedy(&output.json());
    assert_eq!(output.stderr.matches("+ m02").count(), 1, "trials are told once: {}", output.stderr);
}

#[test]
fn of_two_coordinators_one_continues() {
    let mut cluster = Cluster::start(SOUPCTL, 2);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    let run = cook.line_with("run greedy-").trim_start_matches("run ").to_owned();
    cook.line_with("+ m02");
    // A second one on the same state takes the run over; the first finds out at its next decision, or when it looks who
    // serves the state.
    let mut second = Cluster::start_on(SOUPCTL, cluster.state());
    second.add_worker(SOUPCTL);
    let first = std::mem::replace(&mut cluster.coordinator, Soupctl::new("true").start()).wait();
    assert_eq!(first.code, 75, "{}", first.stderr);
    let told = ["was taken over by the coordinator on", "is served by the coordinator on"];
    assert!(told.iter().any(|t| first.stderr.contains(t)), "{}", first.stderr);
    let watch = ["watch", &run, "--coordinator", &second.url, "-o", "json"];
    check_greedy(&Soupctl::new(SOUPCTL).args(watch).run().json());
    assert_eq!(soup_tests::Pool::list(dir.path()), ["soup"]);
    let log = ["log", &run, "--verify", "--state-url", cluster.state().to_str().unwrap()];
    let log = Soupctl::new(SOUPCTL).args(log).run();
    assert!(log.stderr.contains("2 epochs") && log.stderr.contains("15 decisions"), "{}", log.stderr);
    // Ingredients and datasets have their names there, and slices that follow each other one line.
    let rows: Vec<&str> = log.stdout.lines().collect();
    for part in ["validation: m10 has ", "validation: m02 + m10 has ", ", m02: accepted"] {
        assert!(rows.iter().any(|row| row.contains(part)), "{part}: {}", log.stdout);
    }
    assert!(!rows.windows(2).any(|two| two.iter().all(|row| row.contains("  slices "))), "{}", log.stdout);
}

#[test]
fn the_same_cook_goes_on_after_a_cancel_and_is_answered_once_done() {
    let cluster = Cluster::start(SOUPCTL, 2);
    let dir = TempDir::new().unwrap();
    let args = ["--output", "soup"];
    let mut cook = submit(&cluster, dir.path(), &args).start();
    let run = cook.line_with("run greedy-").trim_start_matches("run ").to_owned();
    cook.line_with("+ m02");
    let cancel = Soupctl::new(SOUPCTL).args(["cancel", &run, "--coordinator", &cluster.url]).run();
    assert_eq!(cancel.code, 0, "{}", cancel.stderr);
    assert_eq!(cook.wait().code, 130);
    assert_eq!(soup_tests::Pool::list(dir.path()), [""; 0]);
    let waited = Soupctl::new(SOUPCTL).args(["wait", &run, "--coordinator", &cluster.url]).run();
    assert_eq!(waited.code, 130, "the exit code is the run's: {}", waited.stderr);

    let again = submit(&cluster, dir.path(), &args).run();
    assert!(again.stderr.contains("goes on where it stopped (epoch 2)"), "{}", again.stderr);
    check_greedy(&again.json());
    let once_more = submit(&cluster, dir.path(), &args).run();
    assert_eq!(once_more.json(), again.json());
    assert!(!once_more.stderr.contains("trial"), "{}", once_more.stderr);
    let runs = ["runs", "--coordinator", &cluster.url, "-o", "json"];
    let runs = Soupctl::new(SOUPCTL).args(runs).run().json();
    assert_eq!((&runs[0]["run"], &runs[0]["state"]), (&run.into(), &"published".into()));

    // An output that is not whole any more is no answer: what is known is not found out again, and the soup is written anew.
    let model = dir.path().join("soup/model.safetensors");
    let written = std::fs::read(&model).unwrap();
    let mut changed = written.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damage in [None, Some(&written[1..]), Some(&changed[..])] {
        match damage {
            None => std::fs::remove_file(&model).unwrap(),
            Some(bytes) => std::fs::write(&model, bytes).unwrap(),
        }
        check_greedy(&submit(&cluster, dir.path(), &args).run().json());
        assert!(std::fs::read(&model).unwrap() == written, "{damage:?}");
        assert_eq!(soup_tests::Pool::list(dir.path()), ["soup"]);
    }
}

#[test]
fn a_state_that_is_removed_in_mid_run_is_noticed() {
    let mut cluster = Cluster::start(SOUPCTL, 2);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    cook.line_with("+ m02");
    // What is appended while it is being removed stands in the way.
    while std::fs::remove_dir_all(cluster.state()).is_err() {}
    let ended = std::mem::replace(&mut cluster.coordinator, Soupctl::new("true").start()).wait();
    ended.fails(
        69,
        &["somebody removed the state", "soup.partial-", "cook the same again with the same state"],
    );
    assert!(!cluster.state().join("runs").exists(), "nothing is put into its place");
    cook.kill();
}

#[test]
fn a_place_in_memory_is_none_of_several_processes() {
    let cluster = Cluster::start(SOUPCTL, 1);
    let dir = TempDir::new().unwrap();
    let expect = "is in the memory of one process, and a cluster has several";
    submit(&cluster, dir.path(), &["--output", "memory:///soup"]).run().fails(2, &["memory:///soup", expect]);
    let pool = ["--pool", "MEMORY:///pool", "--output", "soup"];
    submit(&cluster, dir.path(), &pool).run().fails(2, &["MEMORY:///pool", expect]);
}

#[test]
fn a_worker_that_is_told_to_end_finishes_its_slice() {
    let mut cluster = Cluster::start(SOUPCTL, 3);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup", "--min-workers", "3"]).start();
    cook.line_with("+ m02");
    cluster.workers[0].signal("TERM");
    let worker = cluster.workers.remove(0).wait();
    assert_eq!(worker.code, 143, "there is work left: {}", worker.stderr);
    check_greedy(&cook.wait().json());
}

#[test]
fn an_embedded_cook_that_is_told_to_end_goes_on_with_the_same_command() {
    let dir = TempDir::new().unwrap();
    let file = example().join("cook.yaml");
    let file = file.to_str().unwrap();
    let cook = || {
        let args = ["cook", "-f", file, "-o", "json", "--no-baselines", "--output", "soup"];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(args).start()
    };
    let mut first = cook();
    first.line_with("+ m02");
    first.signal("TERM");
    let first = first.wait();
    assert_eq!(first.code, 75, "{}", first.stderr);
    let mut second = cook();
    second.line_with("goes on where it stopped");
    second.kill();
    drop(second);
    let third = cook().wait();
    assert!(third.stderr.contains("(epoch 3)"), "{}", third.stderr);
    check_greedy(&third.json());
}

#[test]
fn an_embedded_cook_listens_nowhere() {
    let dir = TempDir::new().unwrap();
    let file = example().join("cook.yaml");
    let args = ["cook", "-o", "json", "--no-baselines", "--workers", "2", "--output", "soup", "-f"];
    let mut cook = Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args([file]).start();
    // By then both workers hold shards, and fetch from each other.
    cook.line_with("+ m02");
    let mut looks = 0;
    while let Some(listening) = cook.listening() {
        assert_eq!(listening, [""; 0], "after {looks} looks");
        looks += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(looks > 10, "{looks} looks");
    check_greedy(&cook.wait().json());
    // The same look finds what does listen.
    let cluster = Cluster::start(SOUPCTL, 0);
    let listening = cluster.coordinator.listening().unwrap();
    let port: u16 = cluster.url.rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!(listening, [format!("tcp 0100007F:{port:04X}")]);
}

#[test]
fn an_interrupted_cook_cancels_its_run() {
    let cluster = Cluster::start(SOUPCTL, 1);
    let dir = TempDir::new().unwrap();
    let mut cook = submit(&cluster, dir.path(), &["--output", "soup"]).start();
    cook.line_with("+ m02");
    cook.signal("INT");
    let output = cook.wait();
    assert_eq!(output.code, 130, "{}", output.stderr);
    assert_eq!(soup_tests::Pool::list(dir.path()), [""; 0]);
    // The cluster takes the next run.
    submit(&cluster, dir.path(), &["--output", "next", "--recipe", "uniform"]).run().json();
}

/// A copy of the example's validation set, and a cook that decides by it.
fn submit_with_own_data(cluster: &Cluster, dir: &Path, recipe: &str) -> (std::path::PathBuf, Soupctl) {
    let data = dir.join("val.parquet");
    if !data.exists() {
        std::fs::copy(example().join("data/val.parquet"), &data).unwrap();
    }
    let of = ["--validation", data.to_str().unwrap(), "--recipe", recipe, "--output", "soup"];
    let cook = submit(cluster, dir, &of);
    (data, cook)
}

/// A dataset that is replaced after a run was submitted and put back later: its scores would be kept as those of what is back.
#[test]
fn a_dataset_that_is_replaced_while_a_run_waits_is_noticed() {
    let mut cluster = Cluster::start(SOUPCTL, 0);
    let dir = TempDir::new().unwrap();
    let (data, cook) = submit_with_own_data(&cluster, dir.path(), "uniform");
    let mut cook = cook.start();
    cook.line_with("run uniform-");
    let aside = dir.path().join("aside");
    std::fs::rename(&data, &aside).unwrap();
    std::fs::copy(example().join("data/test.parquet"), &data).unwrap();
    cluster.add_worker(SOUPCTL);
    cook.wait().fails(65, &["val.parquet is not what it was when the run was submitted"]);
    std::fs::rename(&aside, &data).unwrap();
    let (_, again) = submit_with_own_data(&cluster, dir.path(), "uniform");
    assert_eq!(again.run().json()["sha256"], example_json("soups.json")["uniform"]["sha256"]);
}

/// Samples that are decoded again, since a worker cannot keep all, are of the file that was submitted or of none.
#[test]
fn a_dataset_that_changes_in_mid_run_ends_it() {
    let mut cluster = Cluster::start(SOUPCTL, 0);
    cluster.add_worker_args(SOUPCTL, "", &["--memory", "17MiB"]);
    let dir = TempDir::new().unwrap();
    let (data, cook) = submit_with_own_data(&cluster, dir.path(), "best-single");
    let mut cook = cook.start();
    cook.line_with("ranking  m02");
    std::fs::copy(example().join("data/test.parquet"), &data).unwrap();
    cook.wait().fails(65, &["val.parquet"]);
    assert!(!dir.path().join("soup").exists());
}

/// A defect that a run meets ends that run, and nothing else: not the coordinator, and not what comes after.
#[test]
fn a_defect_ends_the_run_that_meets_it_and_no_other() {
    let mut cluster = Cluster::start_with(SOUPCTL, "defect-in-run:40");
    cluster.add_worker(SOUPCTL);
    let dir = TempDir::new().unwrap();
    let failed = submit(&cluster, dir.path(), &["--output", "first", "--recipe", "best-single"]).run();
    failed.fails(1, &["a defect of this program ended the run"]);
    assert!(!dir.path().join("first").exists());
    let second = submit(&cluster, dir.path(), &["--output", "second", "--recipe", "uniform"]).run().json();
    assert_eq!(second["sha256"], example_json("soups.json")["uniform"]["sha256"]);
    let runs = Soupctl::new(SOUPCTL).args(["runs", "--coordinator", &cluster.url, "-o", "json"]).run().json();
    let states: Vec<&str> =
        runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "published"]);
}

/// The example's ingredients on a web server, which can fall silent. Gives its URL.
fn web_server(silent: std::sync::Arc<std::sync::atomic::AtomicBool>) -> String {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |stream: std::net::TcpStream| {
        let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(request) = lines.next() else { return };
        let headers: Vec<String> =
            lines.take_while(|line| !line.is_empty()).map(|l| l.to_lowercase()).collect();
        while silent.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
        }
        let mut parts = request.split(' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let name = Path::new(path).file_name().unwrap();
        let Ok(body) = std::fs::read(example().join("ingredients").join(name)) else {
            let _ =
                write!(&stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        };
        let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")).map(|range| {
            let (first, last) = range.split_once('-').unwrap();
            let last: usize = last.parse().unwrap_or(body.len() - 1);
            (first.parse::<usize>().unwrap(), last.min(body.len() - 1))
        });
        let (status, more, part) = match range.filter(|_| method == "GET") {
            Some((first, last)) => {
                let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len());
                ("206 Partial Content", range, &body[first..=last])
            }
            None => ("200 OK", String::new(), &body[..]),
        };
        let _ = write!(
            &stream,
            "HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nETag: \"x\"\r\n\
             Last-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\nConnection: close\r\n\r\n",
            part.len()
        );
        if method == "GET" {
            let _ = (&stream).write_all(part);
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
    url
}

/// A run whose pool's store has fallen silent is no run's trouble but its own when a coordinator takes over.
#[test]
fn a_silent_store_delays_its_own_run_only() {
    let mut cluster = Cluster::start(SOUPCTL, 0);
    let dir = TempDir::new().unwrap();
    let silent = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let url = web_server(silent.clone());
    let config = example().join("config.json");
    let pool = [format!("{url}/m00.safetensors"), format!("{url}/m01.safetensors")];
    let mut slow = Soupctl::new(SOUPCTL)
        .dir(dir.path())
        .args(["cook", "--recipe", "uniform", "--output", "slow", "--coordinator", &cluster.url])
        .args(["--pool", &pool[0], "--pool", &pool[1], "--model-config", config.to_str().unwrap()])
        .start();
    slow.line_with("planned:");
    let mut quick = submit(&cluster, dir.path(), &["--output", "quick", "--recipe", "uniform"]).start();
    quick.line_with("run uniform-");
    cluster.coordinator.kill();
    silent.store(true, std::sync::atomic::Ordering::Relaxed);
    cluster.restart_coordinator();
    cluster.add_worker(SOUPCTL);
    assert_eq!(quick.wait().json()["sha256"], example_json("soups.json")["uniform"]["sha256"]);
    // And one that nobody knew before.
    let new = submit(&cluster, dir.path(), &["--output", "new", "--recipe", "uniform"]).run().json();
    assert_eq!(new["sha256"], example_json("soups.json")["uniform"]["sha256"]);
    assert!(!slow.has_ended());
    slow.kill();
}

/// A terminal that goes away ends what it started as SIGTERM does, but for what `nohup` has started.
#[test]
fn a_hangup_ends_what_nohup_did_not_start() {
    let cluster = Cluster::start(SOUPCTL, 0);
    let worker = ["worker", "--coordinator", &cluster.url];
    // These tests may have been started by `nohup` themselves.
    let plain = Soupctl::new("env").args(["--default-signal=HUP", SOUPCTL]).args(worker).start();
    let mut kept = Soupctl::new("nohup").args([SOUPCTL]).args(worker).start();
    std::thread::sleep(Duration::from_secs(2));
    plain.signal("HUP");
    kept.signal("HUP");
    let ended = plain.wait();
    assert!(ended.code >= 0, "it ended by the signal itself: {}", ended.stderr);
    assert!(!kept.has_ended());
    kept.kill();
}
