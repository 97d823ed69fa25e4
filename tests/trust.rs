//! Whom a cluster of real processes lets do what, and where it reads and writes for them.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use serde_json::Value;
use soup_proto::PROTOCOL_VERSION;
use soup_proto::v1::blends_client::BlendsClient;
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::{
    self, FetchRequest, ListRequest, Recipe, Register, RunSpec, SubmitRequest, WatchRequest, WorkerMessage,
    recipe, worker_message,
};
use soup_tests::{Cluster, EVERYWHERE, Output, Pool, Running, Soupctl, example, example_json, strings};
use tempfile::TempDir;

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// A cook of the example pool on a cluster, as the member with these flags.
fn cook(cluster: &Cluster, dir: &Path, flags: &[String], more: &[&str]) -> Soupctl {
    let file = example().join("cook.yaml");
    Soupctl::new(SOUPCTL)
        .dir(dir)
        .args([
            "cook",
            "-f",
            file.to_str().unwrap(),
            "-o",
            "json",
            "--no-baselines",
            "--coordinator",
            &cluster.url,
        ])
        .args(flags)
        .args(more)
}

/// A question about runs, as the member with these flags.
fn ask(cluster: &Cluster, flags: &[String], args: &[&str]) -> Output {
    Soupctl::new(SOUPCTL).args(args).args(["--coordinator", &cluster.url]).args(flags).run()
}

fn runs(cluster: &Cluster, flags: &[String]) -> Vec<Value> {
    let output = ask(cluster, flags, &["runs", "-o", "json"]);
    output.json().as_array().unwrap().clone()
}

#[test]
fn members_cook_over_tls_and_see_their_own_runs_alone() {
    let mut cluster = Cluster::start_secure(SOUPCTL, "");
    (0..2).for_each(|_| cluster.add_worker(SOUPCTL));
    let (ada, admin) = (cluster.trust("client"), cluster.trust("admin"));
    let bob = cluster.members().unwrap().issue(SOUPCTL, &["client", "bob"], "bob");
    let dir = TempDir::new().unwrap();
    let result = cook(&cluster, dir.path(), &ada, &["--output", "soup", "--min-workers", "2"]).run().json();
    assert_eq!(result["sha256"], example_json("soups.json")["greedy"]["sha256"]);
    assert_eq!(strings(&result["ingredients"]), ["m02", "m03", "m10"]);
    let notes = result["notes"].to_string();
    assert!(!notes.contains("plain text"), "{notes}");
    let run = result["run"].as_str().unwrap();
    // Whoever asked sees it, and admins do; to others there is no such run.
    for flags in [&ada[..], &admin] {
        let seen = runs(&cluster, flags);
        assert_eq!((seen.len(), &seen[0]["client"]), (1, &Value::from("m")));
        assert_eq!(ask(&cluster, flags, &["watch", run, "-o", "json"]).json()["run"], run);
    }
    assert!(runs(&cluster, &bob).is_empty());
    let none = ["watch", "no-such-run"];
    let unknown = ask(&cluster, &bob, &none).stderr.replace("no-such-run", run);
    for args in [&["watch", run][..], &["wait", run], &["cancel", run]] {
        let refused = ask(&cluster, &bob, args);
        refused.fails(2, &["this coordinator knows no run", run]);
        assert_eq!(refused.stderr, unknown);
    }
    // Who asks for the same has asked for it too; it is another's still.
    let joined = cook(&cluster, dir.path(), &bob, &["--output", "soup", "--min-workers", "2"]).run().json();
    assert_eq!(joined["run"], run);
    assert!(runs(&cluster, &bob).is_empty());
    for flags in [&ada[..], &bob] {
        assert_eq!(ask(&cluster, flags, &["watch", run, "-o", "json"]).json()["run"], run);
    }
    // This admin is called as ada is, and its runs are not ada's.
    let others =
        cook(&cluster, dir.path(), &admin, &["--output", "admins", "--min-workers", "2"]).run().json();
    let others = others["run"].as_str().unwrap();
    assert!(runs(&cluster, &admin).iter().any(|seen| seen["run"] == others && seen["client"] == "admin/m"));
    assert_eq!(runs(&cluster, &ada).len(), 1);
    for args in [&["watch", others][..], &["cancel", others]] {
        ask(&cluster, &ada, args).fails(2, &["this coordinator knows no run", others]);
    }
}

#[test]
fn what_a_run_is_made_of_is_told_to_its_client_alone() {
    let cluster = Cluster::start_secure(SOUPCTL, "");
    let ada = cluster.trust("client");
    let bob = cluster.members().unwrap().issue(SOUPCTL, &["client", "bob"], "bob");
    let (pool, dir) = (Pool::of(&["m02", "m03"]), TempDir::new().unwrap());
    let output = dir.path().join("soup");
    let [folder, output] = [pool.path(), &*output].map(|path| path.to_str().unwrap());
    let cook = ["cook", "--recipe", "uniform", "--pool", folder, "--output", output];
    // No worker is there, so that it waits for one.
    let mut running =
        Soupctl::new(SOUPCTL).args(cook).args(["--coordinator", &cluster.url]).args(&ada).start();
    let run = running.line_with("run ").trim_start_matches("run ").to_owned();
    std::fs::rename(pool.file("m03"), pool.file("m04")).unwrap();
    let resume = ["cook", "--resume", &run, "--state-url", cluster.state().to_str().unwrap()];
    ask(&cluster, &ada, &resume).fails(65, &["is made of changed since it was submitted", "\"m03\" is gone"]);
    ask(&cluster, &bob, &resume).fails(2, &["this coordinator knows no run", &run]);
    running.kill();
}

#[test]
fn who_is_no_member_does_nothing_and_roles_are_kept_apart() {
    let mut cluster = Cluster::start_secure(SOUPCTL, "");
    let worker = cluster.trust("worker");
    // Plain text, no credentials, another authority.
    let plain = cluster.url.replace("https", "http");
    for args in [&["runs"][..], &["watch", "no-such-run"], &["cancel", "no-such-run"]] {
        let asked = Soupctl::new(SOUPCTL).args(args).args(["--coordinator", &plain]).run();
        asked.fails(69, &["without --tls or --token-file"]);
    }
    ask(&cluster, &[], &["runs"]).fails(2, &["--tls"]);
    let other = soup_tests::Members::new(SOUPCTL);
    ask(&cluster, &other.flags("client"), &["runs"]).fails(69, &["invalid peer certificate"]);
    let mut args = vec!["worker".to_owned(), "--connect-timeout".to_owned(), "1s".to_owned()];
    args.extend(["--coordinator".to_owned(), cluster.url.clone()]);
    let stranger = Soupctl::new(SOUPCTL).args(&args).args(EVERYWHERE).args(other.flags("worker")).run();
    stranger.fails(69, &["invalid peer certificate"]);
    // A client is no worker, and the other way round.
    let client = cluster.trust("client");
    Soupctl::new(SOUPCTL).args(&args).args(EVERYWHERE).args(&client).run().fails(78, &["the client \"m\""]);
    ask(&cluster, &worker, &["runs"]).fails(78, &["the worker \"m\""]);
    // One that wants to be reached where its certificate is not for.
    let elsewhere = ["--advertise", "https://10.1.2.3:7071"];
    let lost = Soupctl::new(SOUPCTL).args(&args).args(EVERYWHERE).args(&worker).args(elsewhere).run();
    lost.fails(78, &["https://10.1.2.3:7071", "--advertise"]);
    cluster.coordinator.kill();
}

#[test]
fn plain_text_stays_on_this_host_unless_that_is_wanted() {
    let beyond = ["--insecure", "--tls"];
    let state = TempDir::new().unwrap();
    let coordinator = |more: &[&str]| {
        let args = ["coordinator", "--listen", "0.0.0.0:0", "--state-url", state.path().to_str().unwrap()];
        Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE).args(more)
    };
    coordinator(&[]).run().fails(78, &beyond);
    for args in [
        &["worker", "--coordinator", "192.0.2.1:7070"][..],
        &["worker", "--coordinator", "127.0.0.1:7070", "--listen", "0.0.0.0:0"],
        &["runs", "--coordinator", "192.0.2.1:7070"],
        &[
            "cook",
            "--pool",
            "/p",
            "--recipe",
            "uniform",
            "--output",
            "/o",
            "--coordinator",
            "http://192.0.2.1:7070",
        ],
    ] {
        Soupctl::new(SOUPCTL).args(args).run().fails(78, &beyond);
    }
    // Wanted, it is noted in every report.
    let mut insecure = coordinator(&["--insecure"]).start();
    let port = insecure.line_with("listening on ").rsplit(':').next().unwrap().to_owned();
    let address = format!("127.0.0.1:{port}");
    let args = ["worker", "--threads", "1", "--memory", "256MiB", "--coordinator", &address];
    let _worker = Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE).start();
    let dir = TempDir::new().unwrap();
    let pool = Pool::of(&["m02", "m03"]);
    let args = [
        "cook",
        "--pool",
        pool.path().to_str().unwrap(),
        "--recipe",
        "uniform",
        "--output",
        "soup",
        "-o",
        "json",
    ];
    let cooked =
        Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args(["--coordinator", &address]).run().json();
    assert!(cooked["notes"].to_string().contains("plain text"), "{}", cooked["notes"]);
}

/// A coordinator and a worker that are confined, and what they are confined to.
struct Confined {
    _coordinator: Running,
    _worker: Running,
    address: String,
    dir: TempDir,
}

impl Confined {
    /// Both may read below `pools` and `data` and write below `soups`; the worker with these flags instead, if there are some.
    fn start(worker: Option<&[&str]>) -> Confined {
        Confined::start_with(worker, &[])
    }

    /// Both may read there too.
    fn start_reading(place: &str) -> Confined {
        Confined::start_with(None, &["--allow-read", place])
    }

    fn start_with(worker: Option<&[&str]>, more: &[&str]) -> Confined {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for folder in ["pools", "data", "soups", "secret"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        let allowed = [
            "--allow-read",
            &path("pools"),
            "--allow-read",
            &format!("data={}", path("data")),
            "--allow-write",
            &path("soups"),
        ]
        .map(str::to_owned);
        let (state, listen) = (path("soups/.state"), "127.0.0.1:0");
        let mut coordinator = Soupctl::new(SOUPCTL)
            .args(["coordinator", "--listen", listen, "--state-url", &state])
            .args(&allowed)
            .args(more)
            .start();
        let address = coordinator.line_with("listening on ").trim_start_matches("listening on ").to_owned();
        let args = ["worker", "--threads", "1", "--memory", "256MiB", "--coordinator", &address];
        let soupctl = Soupctl::new(SOUPCTL).args(args);
        let worker = match worker {
            Some(flags) => soupctl.args(flags).start(),
            None => soupctl.args(&allowed).args(more).start(),
        };
        Confined { _coordinator: coordinator, _worker: worker, address, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn cook(&self, pool: &str, output: &str, more: &[&str]) -> Output {
        let args =
            ["cook", "--pool", &self.path(pool), "--recipe", "uniform", "-o", "json", "--batch-size", "16"];
        let to = ["--output", &self.path(output), "--coordinator", &self.address];
        Soupctl::new(SOUPCTL).args(args).args(to).args(more).run()
    }
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn servers_read_and_write_where_they_are_allowed_to() {
    let confined = with_pools();
    let with = |file: &str| ["--validation".to_owned(), confined.path(file)];
    let val = with("data/val.parquet");
    let val: Vec<&str> = val.iter().map(String::as_str).collect();
    confined.cook("pools/good", "soups/good", &val).json();
    let refused = |output: &Output, flag: &str| output.fails(78, &["is no place for", flag]);
    refused(&confined.cook("secret/pool", "soups/x", &[]), "--allow-read");
    refused(&confined.cook("pools/../secret/pool", "soups/x", &[]), "--allow-read");
    refused(&confined.cook("data", "soups/x", &[]), "--allow-read");
    for output in ["secret/x", "pools/x", "soups/../secret/x", "soups/.state/runs/x", "soups"] {
        refused(&confined.cook("pools/good", output, &[]), "--allow-write");
    }
    for set in ["secret/val.parquet", "soups/good"] {
        let set = with(set);
        refused(&confined.cook("pools/good", "soups/x", &[&set[0], &set[1]]), "--allow-read");
    }
    // What a client names as configuration it reads itself: a server opens nothing for it, and gets the text.
    let own = TempDir::new().unwrap();
    let config = own.path().join("named.json");
    std::fs::rename(confined.path("pools/good/config.json"), &config).unwrap();
    let named = |config: &str| ["--model-config".to_owned(), config.to_owned(), "--overwrite".to_owned()];
    let with_config = |config: &str| {
        let named = named(config);
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        confined.cook("pools/good", "soups/good", &[&named[..], &val].concat())
    };
    with_config(config.to_str().unwrap()).json();
    let written = std::fs::read(confined.path("soups/good/config.json")).unwrap();
    assert_eq!(written, std::fs::read(&config).unwrap());
    with_config("/no/such/config.json").fails(65, &["/no/such/config.json"]);
    std::fs::write(&config, "").unwrap();
    with_config(config.to_str().unwrap()).fails(65, &["named.json is empty"]);
    std::fs::write(&config, [0xff]).unwrap();
    with_config(config.to_str().unwrap()).fails(65, &["named.json is not UTF-8"]);
    std::fs::write(confined.path("pools/good/config.json"), written).unwrap();
}

/// Folders with pools and data that a confined cluster may read, and others.
fn with_pools() -> Confined {
    let confined = Confined::start(None);
    let pool = Pool::of(&["m02", "m03"]);
    for folder in ["pools/good", "pools/linked", "secret/pool"] {
        copy(pool.path(), Path::new(&confined.path(folder)));
    }
    let data = example().join("data/val.parquet");
    for file in ["data/val.parquet", "secret/val.parquet"] {
        std::fs::copy(&data, confined.path(file)).unwrap();
    }
    confined
}

/// What is opened is below the places that are allowed, whatever a link is called.
#[test]
fn links_lead_nowhere_else() {
    let confined = with_pools();
    let with = |file: &str| ["--validation".to_owned(), confined.path(file)];
    let val = with("data/val.parquet");
    confined.cook("pools/good", "soups/good", &[&val[0], &val[1]]).json();
    // A name that is allowed and leads away: a file, a folder, and where the soup would go.
    let leads = |from: &str, to: &str| {
        let from = confined.path(from);
        let _ = std::fs::remove_file(&from);
        std::os::unix::fs::symlink(confined.path(to), from).unwrap();
    };
    leads("pools/linked/ingredients/m02.safetensors", "secret/pool/ingredients/m02.safetensors");
    leads("pools/away", "secret/pool");
    leads("data/linked.parquet", "secret/val.parquet");
    leads("soups/away", "secret");
    let away = "leads out of the places that are allowed here";
    confined.cook("pools/linked", "soups/x", &[]).fails(78, &[away]);
    confined.cook("pools/away", "soups/x", &[]).fails(78, &[away]);
    let linked = with("data/linked.parquet");
    confined.cook("pools/good", "soups/x", &[&linked[0], &linked[1]]).fails(78, &[away]);
    confined.cook("pools/good", "soups/away/x", &[]).fails(78, &[away]);
    // So does one to what is not there, or is no file, which nobody is told; and to the coordinator's state, though that lies where soups
    // may be written.
    for (to, hint) in [
        ("secret/none", "is a broken link"),
        ("secret/pool", "is a folder"),
        ("soups/.state/runs", "is a folder"),
    ] {
        leads("pools/away", to);
        leads("data/linked.parquet", to);
        for refused in [
            confined.cook("pools/away", "soups/x", &[]),
            confined.cook("pools/good", "soups/x", &[&linked[0], &linked[1]]),
        ] {
            refused.fails(78, &[away]);
            assert!(!refused.stderr.contains(hint), "{}", refused.stderr);
        }
    }
    leads("soups/away", "soups/.state");
    confined.cook("pools/good", "soups/away/x", &[]).fails(78, &[away]);
    assert!(!Path::new(&confined.path("soups/.state/x")).exists());
    assert_eq!(Pool::list(Path::new(&confined.path("secret"))), ["pool", "val.parquet"]);
    assert_eq!(Pool::list(Path::new(&confined.path("soups"))), [".state", "away", "good"]);
}

/// A web server that answers every request like this; tells how many it was sent.
fn web_server(answer: String) -> (u16, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, asked)
}

#[test]
fn a_web_server_leads_nobody_elsewhere() {
    let (inner, reached) =
        web_server("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret".to_owned());
    let elsewhere = format!("http://127.0.0.1:{inner}/val.parquet");
    let redirects = format!(
        "HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let (outer, asked) = web_server(redirects);
    let confined = Confined::start_reading(&format!("data=http://127.0.0.1:{outer}"));
    copy(Pool::of(&["m02", "m03"]).path(), Path::new(&confined.path("pools/good")));
    let set = format!("http://127.0.0.1:{outer}/val.parquet");
    let cooked = confined.cook("pools/good", "soups/x", &["--validation", &set]);
    assert_ne!(cooked.code, 0);
    assert!(cooked.stderr.contains(&set) && !cooked.stderr.contains("secret"), "{}", cooked.stderr);
    assert!(asked.load(Ordering::SeqCst) > 0);
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    confined.cook("pools/good", "soups/x", &["--validation", &elsewhere]).fails(78, &["--allow-read"]);
    assert_eq!(reached.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_has_so_many_runs_and_not_more() {
    let cluster = Cluster::start_secure(SOUPCTL, "");
    let (ada, bob) = (cluster.trust("client"), cluster.members().unwrap());
    let bob = bob.issue(SOUPCTL, &["client", "bob"], "bob");
    let dir = TempDir::new().unwrap();
    // No worker is there, so none of them ends.
    let submit = |flags: &[String], n: usize| {
        let output = format!("soup-{n}");
        let mut running = cook(&cluster, dir.path(), flags, &["--output", &output]).start();
        running.line_with("run ");
        running
    };
    let _going: Vec<Running> = (0..8).map(|n| submit(&ada, n)).collect();
    let refused = cook(&cluster, dir.path(), &ada, &["--output", "soup-8"]).run();
    refused.fails(75, &["8 of your runs", "try again when one is done"]);
    // Others are not kept waiting for it, and where a run stands is seen.
    let _bobs = submit(&bob, 8);
    let seen = runs(&cluster, &bob);
    assert_eq!((seen.len(), &seen[0]["ahead"]), (1, &Value::from(8)));
    // Asking for one that is there already is asking for no more.
    drop(submit(&ada, 0));
}

#[test]
fn clients_are_kept_to_their_own_places() {
    let members = soup_tests::Members::new(SOUPCTL);
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let places = path("places.yaml");
    let start = |text: &str| {
        std::fs::write(&places, text).unwrap();
        let args = ["coordinator", "--listen", "127.0.0.1:0", "--state-url", &path("state")];
        let soupctl = Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE).args(["--client-places", &places]);
        soupctl.args(members.flags("coordinator")).start()
    };
    for wrong in ["", "m: {raed: [/tmp]}", "m: [/tmp]", "m: {read: [/no/such/folder]}"] {
        start(wrong).wait().fails(78, &[]);
    }
    let pool = Pool::of(&["m02", "m03"]);
    let pool = pool.path().to_str().unwrap();
    let mut coordinator = start(&format!("m: {{read: [\"pool={pool}\"], write: [{:?}]}}", dir.path()));
    let address = coordinator.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let cook = |flags: &[String], pool: &str, output: &str| {
        let args = ["cook", "--recipe", "uniform", "--coordinator", &address, "--pool", pool];
        Soupctl::new(SOUPCTL).args(args).args(["--output", output]).args(flags).start()
    };
    let (ada, admin) = (members.flags("client"), members.flags("admin"));
    let bob = members.issue(SOUPCTL, &["client", "bob"], "bob");
    cook(&ada, pool, &path("soup")).line_with("run ");
    let own = ["\"m\"", "--client-places"];
    cook(&ada, example().to_str().unwrap(), &path("soup")).wait().fails(78, &own);
    cook(&ada, pool, "/tmp/soup").wait().fails(78, &own);
    cook(&bob, pool, &path("soup")).wait().fails(78, &["\"bob\"", "--client-places"]);
    cook(&admin, example().to_str().unwrap(), &path("other")).line_with("run ");
}

#[test]
fn whoever_has_the_token_takes_part() {
    let dir = TempDir::new().unwrap();
    let token = |name: &str| {
        let path = dir.path().join(name).to_str().unwrap().to_owned();
        let made = Soupctl::new(SOUPCTL).args(["ca", "token", &path]).run();
        assert_eq!((made.code, made.stdout.as_str()), (0, ""), "{}", made.stderr);
        ["--token-file".to_owned(), path]
    };
    let (own, other) = (token("own"), token("other"));
    let state = dir.path().join("state");
    let args = ["coordinator", "--listen", "127.0.0.1:0", "--state-url", state.to_str().unwrap()];
    let mut coordinator = Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE).args(&own).start();
    let address = coordinator.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let args = ["worker", "--threads", "1", "--memory", "256MiB", "--connect-timeout", "1s"];
    let worker = |token: &[String]| {
        let soupctl = Soupctl::new(SOUPCTL).args(args).args(["--coordinator", &address]);
        soupctl.args(EVERYWHERE).args(token).start()
    };
    let _worker = worker(&own);
    let pool = Pool::of(&["m02", "m03"]);
    let cook = |token: &[String]| {
        let args = ["cook", "--pool", pool.path().to_str().unwrap(), "--recipe", "uniform", "-o", "json"];
        let to = ["--output", "soup", "--overwrite", "--coordinator", &address];
        Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args(to).args(token).run()
    };
    let cooked = cook(&own).json();
    assert!(!cooked["notes"].to_string().contains("plain text"), "{}", cooked["notes"]);
    // Everybody else is a stranger, whatever they have.
    let members = soup_tests::Members::new(SOUPCTL);
    for stranger in [&other, &members.flags("admin")] {
        cook(stranger).fails(69, &["invalid peer certificate"]);
    }
    cook(&[]).fails(69, &[]);
    worker(&other).wait().fails(69, &["invalid peer certificate"]);
    let secret = std::fs::read_to_string(&own[1]).unwrap();
    assert!(!cooked.to_string().contains(secret.trim()));
    // One that everybody on the host can read is none.
    std::fs::set_permissions(&own[1], std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    cook(&own).fails(78, &["everybody on this host"]);
}

#[test]
fn a_worker_does_not_believe_its_coordinator_about_places() {
    let nowhere = TempDir::new().unwrap();
    let nowhere = nowhere.path().to_str().unwrap();
    let confined = Confined::start(Some(&["--allow-read", nowhere, "--allow-write", nowhere]));
    copy(Pool::of(&["m02", "m03"]).path(), Path::new(&confined.path("pools/good")));
    confined.cook("pools/good", "soups/x", &[]).fails(78, &["is no place for", "worker"]);
}

#[tokio::test]
async fn a_blend_is_given_to_nobody_without_a_ticket() {
    let mut cluster = Cluster::start_with(SOUPCTL, "");
    cluster.add_worker(SOUPCTL);
    let address =
        cluster.workers[0].line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let dir = TempDir::new().unwrap();
    let mut running = cook(&cluster, dir.path(), &[], &["--output", "soup"]).start();
    let run = running.line_with("run ").trim_start_matches("run ").to_owned();
    running.line_with("+ m");
    let mut blends = BlendsClient::connect(format!("http://{address}")).await.unwrap();
    let fetch = |ticket| FetchRequest {
        run: run.clone(),
        epoch: 1,
        shard: 0,
        soup: Some(soup_proto::v1::Soup { members: vec![0], ..Default::default() }),
        gradient: None,
        ticket,
    };
    let forged = soup_proto::v1::Ticket { worker: 1, until: u64::MAX, mac: vec![0; 32] };
    for ticket in [None, Some(forged)] {
        let denied = blends.fetch(fetch(ticket)).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::FailedPrecondition, "{denied:?}");
        assert!(denied.message().contains("ticket"), "{denied:?}");
        // Whoever runs the worker reads it there.
        cluster.workers[0].line_with("denied a fetch");
    }
    running.kill();
}

#[test]
fn a_key_that_everybody_may_read_is_told_of() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = Cluster::start_secure(SOUPCTL, "");
    let admin = cluster.trust("admin");
    let warned =
        || ask(&cluster, &admin, &["runs"]).stderr.contains("everybody on this host may use this key");
    assert!(!warned());
    let key = Path::new(&admin[1]).join("tls.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(warned());
}

#[tokio::test]
async fn what_somebody_says_is_bounded_before_it_is_kept() {
    let cluster = Cluster::start_with(SOUPCTL, "");
    let client = CoordinatorClient::connect(cluster.url.clone()).await.unwrap();
    // A worker introduces itself.
    let register = async |register: Register| {
        let first = WorkerMessage { message: Some(worker_message::Message::Register(register)) };
        client.clone().work(futures::stream::iter([first])).await.map(|_| ()).unwrap_err()
    };
    let known = || Register { protocol: PROTOCOL_VERSION, ..Register::default() };
    let refused = register(Register { name: "n".repeat(1 << 20), ..known() }).await;
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().ends_with("and at most 262144 are taken here"), "{refused:?}");
    let refused = register(Register { name: "n".repeat(1000), ..known() }).await;
    assert!(refused.message().contains("1000 bytes in its name, and at most 256"), "{refused:?}");
    // Somebody asks for a run, or about one.
    let spec = RunSpec {
        pool: vec!["p".repeat(9000)],
        recipe: Some(Recipe {
            kind: recipe::Kind::Uniform.into(),
            order: recipe::Order::Sorted.into(),
            accept: recipe::Accept::Better.into(),
            passes: 1,
            metric: "accuracy".to_owned(),
            ..Recipe::default()
        }),
        output: "/o".to_owned(),
        batch_size: 1,
        workers_min: 1,
        missing: v1::Missing::Refuse.into(),
        evaluate: v1::Evaluate::Early.into(),
        digest: v1::DigestKind::Sha256.into(),
        ..RunSpec::default()
    };
    let submit = |protocol| SubmitRequest { spec: Some(spec.clone()), protocol, ..SubmitRequest::default() };
    let refused = client.clone().submit(submit(PROTOCOL_VERSION)).await.unwrap_err();
    assert!(refused.message().contains("--pool has 9000 bytes in a URL"), "{refused:?}");
    let mut crowded = submit(PROTOCOL_VERSION);
    crowded.spec.as_mut().unwrap().tests = vec![v1::DatasetSpec::default(); 600_000];
    let refused = client.clone().submit(crowded).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("parts"), "{refused:?}");
    // Options of another version might mean something else, or be dropped.
    let refused = client.clone().submit(submit(PROTOCOL_VERSION - 1)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().starts_with("the client (version ) speaks protocol"), "{refused:?}");
    let refused = client.clone().watch(WatchRequest { run: "r".repeat(5000) }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().ends_with("and at most 4096 are taken here"), "{refused:?}");
    // And it serves on.
    client.clone().list(ListRequest {}).await.unwrap();
}

#[tokio::test]
async fn so_many_workers_register_from_one_address_and_not_more() {
    let cluster = Cluster::start_with(SOUPCTL, "");
    let alive = || {
        futures::stream::unfold((), |()| async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let heartbeat = worker_message::Message::Heartbeat(v1::Heartbeat { passes: None });
            Some((WorkerMessage { message: Some(heartbeat) }, ()))
        })
    };
    // One connection has 64 requests at most.
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(CoordinatorClient::connect(cluster.url.clone()).await.unwrap());
    }
    let register = async |number: usize| {
        let address = "http://127.0.0.1:1".to_owned();
        let register = Register { protocol: PROTOCOL_VERSION, address, ..Register::default() };
        let first = WorkerMessage { message: Some(worker_message::Message::Register(register)) };
        // It speaks for as long as this is kept.
        let (worker, gone) = tokio::sync::oneshot::channel::<()>();
        let said = futures::stream::iter([first]).chain(alive().take_until(gone));
        let told = clients[number % clients.len()].clone().work(said).await?;
        Ok::<_, tonic::Status>((told, worker))
    };
    let mut workers = Vec::new();
    for number in 0..512 {
        workers.push(register(number).await.unwrap());
    }
    let refused = register(512).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().starts_with("512 workers are registered from 127.0.0.1"), "{refused:?}");
    // Who goes makes room.
    workers.pop();
    let came = async {
        while register(511).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), came).await.unwrap();
}
