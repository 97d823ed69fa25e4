//! The harness of the end-to-end tests: the real binary, real processes, the real example pool.
//!
//! # Words
//!
//! - [`Soupctl`] is one call of the binary: arguments in, exit code and output back.
//! - A [`Cluster`] is a coordinator and workers as processes on this host; dropping it kills them.
//! - A [`Pool`] is a folder of checkpoints made for a test, from ingredients of the example pool.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

pub mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing in these tests takes this long; whatever does is hung.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The example pool's folder.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pools/vit-fashion")
}

/// A JSON file of the example pool.
pub fn example_json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(example().join(name)).unwrap()).unwrap()
}

/// A copy of `pool` whose file `name` is changed by `change`, or left out.
pub fn copy_of(pool: &Path, name: &str, change: impl FnOnce(String) -> Option<String>) -> TempDir {
    let dir = TempDir::new().unwrap();
    for part in ["", "ingredients", "data"] {
        let (from, to) = (pool.join(part), dir.path().join(part));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    let at = dir.path().join(name);
    match change(std::fs::read_to_string(&at).unwrap()) {
        Some(text) => std::fs::write(at, text).unwrap(),
        None => std::fs::remove_file(at).unwrap(),
    }
    dir
}

/// A call of the binary.
pub struct Soupctl {
    command: Command,
}

/// What a call gave.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Soupctl {
    /// A call of `binary`, in an environment without settings of its own.
    pub fn new(binary: &str) -> Soupctl {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars()
            .filter(|(n, _)| n.starts_with("SOUP_") || n.starts_with("OTEL_") || n == "RUST_LOG")
        {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        Soupctl { command }
    }

    /// With this argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Soupctl {
        self.command.arg(arg);
        self
    }

    /// With these arguments.
    #[must_use]
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Soupctl {
        self.command.args(args);
        self
    }

    /// With this in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Soupctl {
        self.command.env(name, value);
        self
    }

    /// In this folder.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Soupctl {
        self.command.current_dir(dir);
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.start().wait()
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, seen) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stdout = child.stdout.take().unwrap();
        let out = std::thread::spawn(move || std::io::read_to_string(stdout).unwrap_or_default());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines: seen, seen: Vec::new(), out: Some(out) }
    }
}

/// A call in progress. Dropping it kills the process.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    out: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Waits for a line on standard error that contains `part`.
    pub fn line_with(&mut self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {part:?} in:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sockets of the process that anybody could connect to: of TCP by address, Unix ones by path; `None` once it is over.
    pub fn listening(&self) -> Option<Vec<String>> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        // A descriptor may be closed while they are listed, and with it goes its link.
        let links = std::fs::read_dir(process.join("fd")).ok()?.flatten();
        let links: Vec<PathBuf> = links.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        let inode =
            |link: &PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned());
        let own: BTreeSet<String> = links.iter().filter_map(inode).collect();
        let mut found = Vec::new();
        // The columns of state, inode and name in each, and how a state is called in which one listens.
        for (table, state, inode, name, listens) in
            [("tcp", 3, 9, 1, "0A"), ("tcp6", 3, 9, 1, "0A"), ("unix", 3, 6, 7, "00010000")]
        {
            // A system without IPv6 has no table of it.
            let text = std::fs::read_to_string(process.join("net").join(table)).unwrap_or_default();
            let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let rows = rows.filter(|row| row[state] == listens && own.contains(row[inode]));
            found.extend(rows.map(|row| format!("{table} {}", row.get(name).unwrap_or(&"unnamed"))));
        }
        (!links.is_empty()).then_some(found)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends the process as `kill -9` does.
    pub fn kill(&mut self) {
        // A process that has ended already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name, as `kill -NAME` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "still running; so far:\n{}", self.seen.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        };
        let stdout = self.out.take().and_then(|t| t.join().ok()).unwrap_or_default();
        self.seen.extend(self.lines.iter());
        Output { code: status.code().unwrap_or(-1), stdout, stderr: self.seen.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    /// Demands success and gives standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// Demands a failure with this exit code whose message has all of `parts`, and no panic.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in:\n{}", self.stderr);
        }
        assert!(self.stdout.is_empty(), "data on standard output: {}", self.stdout);
    }
}

/// Flags of a server that reads and writes where the system lets it.
pub const EVERYWHERE: [&str; 4] = ["--allow-read", "everywhere", "--allow-write", "everywhere"];

/// A coordinator and workers as processes on this host.
pub struct Cluster {
    /// The coordinator's URL; it has the same one after a restart.
    pub url: String,
    /// The coordinator.
    pub coordinator: Running,
    /// The workers.
    pub workers: Vec<Running>,
    binary: String,
    address: String,
    state: TempDir,
    members: Option<Members>,
}

/// The members of a cluster that speaks TLS, each with a folder that is called after its role.
pub struct Members(TempDir);

impl Members {
    /// An authority, and one member of each role, on this host.
    pub fn new(binary: &str) -> Members {
        let members = Members(TempDir::new().unwrap());
        let ca = |args: &[&str]| {
            let made = Soupctl::new(binary).dir(members.0.path()).arg("ca").args(args).run();
            assert_eq!(made.code, 0, "{}", made.stderr);
        };
        ca(&["init", "--cluster", "lab"]);
        for role in ["coordinator", "worker", "client", "admin"] {
            let is_reached = ["coordinator", "worker"].contains(&role);
            let hosts: &[&str] = if is_reached { &["--host", "127.0.0.1"] } else { &[] };
            ca(&[&["issue", role, "m", "--out", role][..], hosts].concat());
        }
        members
    }

    /// Issues one more certificate, and gives the flags with which it is used.
    pub fn issue(&self, binary: &str, args: &[&str], folder: &str) -> [String; 2] {
        let made = Soupctl::new(binary)
            .dir(self.0.path())
            .args(["ca", "issue"])
            .args(args)
            .args(["--out", folder])
            .run();
        assert_eq!(made.code, 0, "{}", made.stderr);
        self.flags(folder)
    }

    /// The flags of the member with a role.
    pub fn flags(&self, role: &str) -> [String; 2] {
        ["--tls".to_owned(), self.0.path().join(role).display().to_string()]
    }
}

impl Cluster {
    /// A coordinator and `workers` workers, each with one thread.
    pub fn start(binary: &str, workers: usize) -> Cluster {
        let mut cluster = Cluster::start_with(binary, "");
        (0..workers).for_each(|_| cluster.add_worker(binary));
        cluster
    }

    /// A coordinator without workers, which is killed at `failpoint` unless that is empty.
    pub fn start_with(binary: &str, failpoint: &str) -> Cluster {
        Cluster::start_among(binary, failpoint, None)
    }

    /// The same, of a cluster that speaks TLS.
    pub fn start_secure(binary: &str, failpoint: &str) -> Cluster {
        Cluster::start_among(binary, failpoint, Some(Members::new(binary)))
    }

    fn start_among(binary: &str, failpoint: &str, members: Option<Members>) -> Cluster {
        let flags = members.as_ref().map(|members| members.flags("coordinator"));
        let flags = flags.as_ref().map_or(&[][..], |flags| &flags[..]);
        let state = TempDir::new().unwrap();
        let start = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            drop(listener);
            (Cluster::coordinator(binary, &address, (state.path(), flags), failpoint), address)
        };
        let (coordinator, address) = start();
        let scheme = if members.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        Cluster { url, coordinator, workers: Vec::new(), binary: binary.to_owned(), address, state, members }
    }

    /// A coordinator on the state of another cluster.
    pub fn start_on(binary: &str, state: &Path) -> Cluster {
        let mut cluster = Cluster::start_with(binary, "");
        cluster.coordinator.kill();
        cluster.coordinator = Cluster::coordinator(binary, &cluster.address, (state, &[]), "");
        cluster
    }

    /// Starts a coordinator process on this state.
    fn coordinator(
        binary: &str,
        address: &str,
        (state, trust): (&Path, &[String]),
        failpoint: &str,
    ) -> Running {
        let args =
            ["coordinator", "--listen", address, "--lease", "3s", "--state-url", state.to_str().unwrap()];
        let soupctl = Soupctl::new(binary).env("SOUP_FAILPOINT", failpoint);
        let mut coordinator = soupctl.args(args).args(EVERYWHERE).args(trust).start();
        coordinator.line_with("listening on ");
        coordinator
    }

    /// The flags with which the member with a role speaks to it; none in plain text.
    pub fn trust(&self, role: &str) -> Vec<String> {
        self.members.as_ref().map_or_else(Vec::new, |members| members.flags(role).to_vec())
    }

    /// Its members, where it speaks TLS.
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Where its runs are kept.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Starts the coordinator again at the same address, after it has ended.
    pub fn restart_coordinator(&mut self) {
        self.coordinator = Cluster::coordinator(
            &self.binary,
            &self.address,
            (self.state.path(), &self.trust("coordinator")),
            "",
        );
    }

    /// One more worker.
    pub fn add_worker(&mut self, binary: &str) {
        self.add_worker_with(binary, "");
    }

    /// One more worker, which is killed at `failpoint` unless that is empty.
    pub fn add_worker_with(&mut self, binary: &str, failpoint: &str) {
        self.add_worker_args(binary, failpoint, &[]);
    }

    /// The same, with these arguments too.
    pub fn add_worker_args(&mut self, binary: &str, failpoint: &str, more: &[&str]) {
        let memory = if more.contains(&"--memory") { &[][..] } else { &["--memory", "256MiB"] };
        let args = ["worker", "--coordinator", &self.url, "--threads", "1"];
        let worker = Soupctl::new(binary).env("SOUP_FAILPOINT", failpoint).args(args).args(EVERYWHERE);
        let worker = worker.args(memory).args(self.trust("worker")).args(more);
        self.workers.push(worker.start());
    }

    /// One more worker with so much memory for shards, and a disk cache.
    pub fn add_worker_on_disk(&mut self, binary: &str, memory: &str, cache: &Path) {
        let args =
            ["worker", "--coordinator", &self.url, "--threads", "1", "--memory", memory, "--disk-cache"];
        self.workers.push(Soupctl::new(binary).args(args).args([cache]).args(EVERYWHERE).start());
    }
}

/// A folder of checkpoints made for a test, laid out like the example pool.
pub struct Pool {
    dir: TempDir,
}

impl Pool {
    /// These ingredients of the example pool, with its configuration and data.
    pub fn of(names: &[&str]) -> Pool {
        let pool = Pool { dir: TempDir::new().unwrap() };
        std::fs::create_dir(pool.path().join("ingredients")).unwrap();
        for name in names {
            let file = format!("ingredients/{name}.safetensors");
            std::fs::copy(example().join(&file), pool.path().join(&file)).unwrap();
        }
        for file in ["config.json", "preprocessor_config.json"] {
            std::fs::copy(example().join(file), pool.path().join(file)).unwrap();
        }
        pool
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The file of an ingredient.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(format!("ingredients/{name}.safetensors"))
    }

    /// Changes the bytes of an ingredient.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        std::fs::write(self.file(name), bytes).unwrap();
    }

    /// Changes the header of an ingredient, keeping its data.
    pub fn change_header(&self, name: &str, change: impl FnOnce(String) -> String) {
        self.change(name, |bytes| {
            let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header = change(String::from_utf8(bytes[8..8 + len].to_vec()).unwrap());
            let mut new = (header.len() as u64).to_le_bytes().to_vec();
            new.extend(header.as_bytes());
            new.extend(&bytes[8 + len..]);
            *bytes = new;
        });
    }

    /// Names of what is in a folder, if it exists, aside from the state of runs.
    pub fn list(dir: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".soup-state");
        names.sort();
        names
    }
}

/// The correct counts of a result's test sets.
pub fn test_counts(result: &Value) -> BTreeMap<String, u64> {
    let sets = result["test"].as_object().unwrap();
    sets.iter().map(|(name, f)| (name.clone(), f["correct"].as_u64().unwrap())).collect()
}

/// A list of strings.
pub fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}
