//! A judge that the worker starts: a command with a process group of its own, which ends with all that it started.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) use rustix::process::{Pid, Signal};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};
use soup_core::{Error, Result};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Where a judge finds the path of the socket that it is to serve on.
const SOCKET_VARIABLE: &str = "SOUP_JUDGE_SOCKET";
/// How long a judge may take to end once it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest line of what it prints that is kept and logged, and lines that are kept to be quoted.
const LINE_BYTES_MAX: usize = 2048;
const LINES_KEPT: usize = 3;

/// See the module. What is left of it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Pid,
    said: LastWords,
    /// Held open: its end is how the judge learns that its worker is gone, however that ended.
    _stdin: Option<ChildStdin>,
}

/// The last lines that a judge printed.
#[derive(Clone, Debug, Default)]
struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl Process {
    /// Starts `command` by the shell, as the judge `name` that is to serve on `socket`.
    ///
    /// # Errors
    /// Where the system starts no process.
    pub(super) fn start(name: &str, command: &str, socket: &Path) -> Result<Process> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).env(SOCKET_VARIABLE, socket).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed =
            |e: std::io::Error| Error::unavailable(format!("judge {name} cannot be started")).with_source(e);
        let mut child = shell.spawn().map_err(failed)?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let group = group.ok_or_else(|| Error::unavailable(format!("judge {name} has ended at once")))?;
        let said = LastWords::default();
        if let Some(out) = child.stdout.take() {
            tokio::spawn(listen(name.to_owned(), out, said.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(listen(name.to_owned(), err, said.clone()));
        }
        let stdin = child.stdin.take();
        Ok(Process { child, group, said, _stdin: stdin })
    }

    /// Whether it has ended. It is not reaped yet, so that its group stays its own.
    pub(super) fn ended(&self) -> bool {
        self.status().is_some()
    }

    /// How it has ended, as far as the system says; `None` where it has not.
    fn status(&self) -> Option<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.group), options) {
            Ok(None) => None,
            Ok(status) => Some(status),
            Err(_) => Some(None),
        }
    }

    /// What it printed last, for messages.
    pub(super) fn last_words(&self) -> String {
        let lines = self.said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = match lines.is_empty() {
            true => "it printed nothing".to_owned(),
            false => format!("it printed last: {}", lines.iter().cloned().collect::<Vec<_>>().join(" | ")),
        };
        match self.status().flatten().and_then(|status| status.terminating_signal()) {
            Some(signal) => format!("it was killed by signal {signal}; {printed}"),
            None => printed,
        }
    }

    /// Asks it to end, and ends it where it does not, with all that it started.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let ended = async {
            while !self.ended() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Whoever does not hear is not asked again.
        let _ = tokio::time::timeout(GRACE, ended).await;
        self.signal(Signal::KILL);
        // One that waits for a device does not end before that answers.
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
    }

    /// Its process group.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    fn signal(&self, signal: Signal) {
        // Nobody may be left to hear it.
        let _ = rustix::process::kill_process_group(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After it was reaped its number may be somebody else's.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// Logs what a judge prints, line by line.
async fn listen(name: String, from: impl AsyncRead + Unpin, said: LastWords) {
    let mut from = BufReader::new(from);
    while let Some(line) = next_line(&mut from).await {
        let line = super::answers::plain(&String::from_utf8_lossy(&line));
        if line.trim().is_empty() {
            continue;
        }
        tracing::info!(judge = name, "{line}");
        let mut lines = said.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        while lines.len() > LINES_KEPT {
            lines.pop_front();
        }
    }
}

/// The next line, the rest of which is dropped where it is too long. `None` at the end.
async fn next_line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let some = from.fill_buf().await.ok()?;
        if some.is_empty() {
            return (!line.is_empty()).then_some(line);
        }
        let (text, used, whole) = match some.iter().position(|b| *b == b'\n') {
            Some(end) => (&some[..end], end + 1, true),
            None => (some, some.len(), false),
        };
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&text[..text.len().min(room)]);
        from.consume(used);
        if whole {
            return Some(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: &str) -> bool {
        // A process that was killed and not reaped is dead.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..500 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it did not come to that");
    }

    /// A judge that prints its process, that of one that it started, and that ignores what it is asked.
    async fn stubborn() -> (Process, Vec<String>) {
        let command = "trap '' TERM; sleep 600 & echo $$ $!; while :; do sleep 0.05; done";
        let process = Process::start("lm", command, Path::new("/nowhere")).unwrap();
        until(|| process.last_words().contains("last: ")).await;
        let words = process.last_words();
        let pids = words.rsplit(": ").next().unwrap().split(' ').map(str::to_owned).collect();
        (process, pids)
    }

    #[tokio::test]
    async fn a_judge_ends_with_all_that_it_started_whatever_it_ignores() {
        let (process, pids) = stubborn().await;
        assert!(pids.len() == 2 && pids.iter().all(|pid| alive(pid)) && !process.ended());
        process.stop().await;
        until(|| !pids.iter().any(|pid| alive(pid))).await;
        let (process, pids) = stubborn().await;
        drop(process);
        until(|| !pids.iter().any(|pid| alive(pid))).await;
    }

    #[tokio::test]
    async fn what_it_printed_last_is_kept_plain_and_short() {
        let command = r"printf 'one\ntwo\n\033[31mred\n'; echo $SOUP_JUDGE_SOCKET; head -c 9000 /dev/zero | tr '\0' x >&2";
        let process = Process::start("lm", command, Path::new("/run/lm.sock")).unwrap();
        until(|| process.ended() && process.last_words().contains("xxx")).await;
        until(|| process.last_words().contains("/run/lm.sock")).await;
        let words = process.last_words();
        assert!(!words.contains('\u{1b}') && words.len() < 3 * LINE_BYTES_MAX, "{words}");
    }

    #[tokio::test]
    async fn a_judge_that_ends_is_seen_to() {
        let process = Process::start("lm", "exec true", Path::new("/nowhere")).unwrap();
        until(|| process.ended()).await;
        assert_eq!(process.last_words(), "it printed nothing");
        process.stop().await;
    }
}
