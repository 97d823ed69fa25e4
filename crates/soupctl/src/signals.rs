//! Requests to stop: Ctrl-C and SIGTERM.

use soup_core::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The requests to stop that this process gets from now on.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Ctrl-C: somebody does not want it any more.
    Interrupt,
    /// SIGTERM: something wants the process to end, and may start it again.
    Terminate,
}

impl StopSignals {
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where signals cannot be handled.
    pub(crate) fn new() -> Result<StopSignals> {
        let on = |kind| signal(kind).map_err(|e| Error::internal("signals cannot be handled").with_source(e));
        Ok(StopSignals { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.interrupt.recv() => Request::Interrupt,
            _ = self.terminate.recv() => Request::Terminate,
        }
    }
}
