//! Requests to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that goes away, unless `nohup` has it ignored. A file that grows beyond
//! what the process may write is an error of whoever writes it, and no signal that ends the process without a word.

use soup_core::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The requests to stop that this process gets from now on.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where it is ignored, which it stays.
    hang_up: Option<Signal>,
}

/// Number of SIGXFSZ; the same on all Linux but MIPS.
const FILE_SIZE: i32 = 25;
/// Number of SIGHUP.
const HANG_UP: i32 = 1;

/// Whether this process ignores a signal, by what started it.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Ctrl-C: somebody does not want it any more.
    Interrupt,
    /// SIGTERM, SIGHUP: something wants the process to end, and may start it again.
    Terminate,
}

impl Request {
    /// The exit code of whoever ends because of it with something left to do: as shells say that a signal ended a process.
    #[cfg(any(feature = "worker", feature = "k8s"))]
    pub(crate) fn exit_code(self) -> std::process::ExitCode {
        std::process::ExitCode::from(match self {
            Request::Interrupt => 128 + 2,
            Request::Terminate => 128 + 15,
        })
    }
}

fn on(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| Error::internal("signals cannot be handled").with_source(e))
}

/// What is given keeps a file that grows beyond what the process may write from being more than an error of the write.
///
/// # Errors
/// As for [`StopSignals::new`].
pub(crate) fn no_death_by_file_size() -> Result<Signal> {
    on(SignalKind::from_raw(FILE_SIZE))
}

impl StopSignals {
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where signals cannot be handled.
    pub(crate) fn new() -> Result<StopSignals> {
        Ok(StopSignals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: (!is_ignored(HANG_UP)).then(|| on(SignalKind::hangup())).transpose()?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.terminate.recv() => Request::Terminate,
            () = hung_up(&mut self.hang_up) => Request::Terminate,
        }
    }
}

/// Waits for a terminal to go away.
async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}
