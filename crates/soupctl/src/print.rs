//! The one module that prints: results go to stdout, everything else to stderr.
//!
//! Much of what is printed was written by others: names in files, texts of stores, workers and judges. A terminal obeys control
//! characters and believes marks that turn the direction of a text; so none of either leaves this module as it is ([`plain`]).
//!
//! A reader of stdout that goes away (`| head`) is no error. Lines on stderr and progress bars share the terminal, so
//! lines are written while the bars are away for a moment.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;
use serde::Serialize;
pub(crate) use soup_core::plain::plain;
use soup_core::plain::spelled;
use soup_core::{Error, Result};

/// All progress bars of this process.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether people look at stderr as it is written.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Most characters of a line on stderr.
const LINE_CHARS_MAX: usize = 8000;

/// A character as JSON has it in texts. Controls of ASCII come spelled out already.
fn in_json(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// `text`, which is one line, as it may be shown: ends of lines in it are spelled out too.
pub(crate) fn plain_line(text: &str) -> String {
    let (text, end) = text.strip_suffix('\n').map_or((text, ""), |text| (text, "\n"));
    plain(text).replace('\n', "\\n") + end
}

/// JSON as it may be shown.
pub(crate) fn plain_json(text: &str) -> Cow<'_, str> {
    spelled(text, in_json)
}

/// Prints a result to stdout, with a line's end.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where stdout cannot be written, a reader that went
/// away excepted.
pub(crate) fn result(text: &str) -> Result<()> {
    written(&plain(text))
}

/// Prints what this program has made of nothing but itself, as it is: scripts for shells have tabs.
///
/// # Errors
/// As [`result`].
pub(crate) fn own(text: &str) -> Result<()> {
    written(text)
}

fn written(text: &str) -> Result<()> {
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
    written(&plain_json(&text))
}

/// Prints a line to stderr. Where stderr is closed there is nobody to tell.
pub(crate) fn line(text: &str) {
    let shown = match text.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}… (cut)", &text[..end]),
        None => text.to_owned(),
    };
    let _ = Stderr.write_all(format!("{}\n", plain(&shown)).as_bytes());
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

#[cfg(test)]
mod tests {
    use soup_core::plain::is_odd;

    use super::*;

    #[test]
    fn json_stays_json() {
        let text = "a\u{1b}\u{9b}\u{202e}\u{7f}";
        let json = serde_json::to_string(text).unwrap();
        let shown = plain_json(&json);
        assert!(!shown.contains(is_odd), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
    }
}
