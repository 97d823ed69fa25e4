//! The one module that prints: results go to stdout, everything else to stderr.
//!
//! A reader of stdout that goes away (`| head`) is no error. Lines on stderr and progress bars share the terminal, so
//! lines are written while the bars are away for a moment.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;
use serde::Serialize;
use soup_core::{Error, Result};

/// All progress bars of this process.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether people look at stderr as it is written.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Prints a result to stdout, with a line's end.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where stdout cannot be written, a reader that went
/// away excepted.
pub(crate) fn result(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::configuration("cannot write to stdout").with_source(e))
        }
        _ => Ok(()),
    }
}

/// Prints a result to stdout as JSON.
///
/// # Errors
/// As [`result`].
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal("the result cannot be written as JSON").with_source(e))?;
    result(&text)
}

/// Prints a line to stderr. Where stderr is closed there is nobody to tell.
pub(crate) fn line(text: &str) {
    let _ = Stderr.write_all(format!("{text}\n").as_bytes());
}

/// Stderr, beside the progress bars.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write(buffer))
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
