//! One error type for every crate: a *kind* that says what the caller should do, and text that says what happened.
//!
//! Code reads the kind only (exit code, retry, gRPC status); people read the text. Text is lower case, has no full
//! stop, names the object and, where it helps, says what to do. Context is added from the outside in, so the text of
//! the outermost context comes first when the chain is printed.

use std::fmt;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: fix the flags or the cook file. Exit code 2.
    Usage,
    /// A required quality was not reached. Exit code 3.
    Gate,
    /// The input data is wrong (corrupt, mismatched, missing): fix the data. Exit code 65.
    Data,
    /// A store, a peer or a cluster cannot be reached: trying again later may help. Exit code 69.
    Unavailable,
    /// Interrupted in a way that another attempt will get past. Exit code 75.
    TryAgain,
    /// The environment is wrong (permissions, capacity, settings of a process). Exit code 78.
    Configuration,
    /// Cancelled on request. Exit code 130.
    Cancelled,
    /// A defect of this program, or a failure that fits nothing above. Exit code 1.
    Internal,
}

impl ErrorKind {
    /// All kinds, for tests and tables.
    pub const ALL: [ErrorKind; 8] = [
        ErrorKind::Usage,
        ErrorKind::Gate,
        ErrorKind::Data,
        ErrorKind::Unavailable,
        ErrorKind::TryAgain,
        ErrorKind::Configuration,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// One word, for the wire and for counting.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Usage => "usage",
            ErrorKind::Gate => "gate",
            ErrorKind::Data => "data",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::TryAgain => "try-again",
            ErrorKind::Configuration => "configuration",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }

    /// The process exit code of this kind (the values of BSD's `sysexits.h` where one fits).
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Usage => 2,
            ErrorKind::Gate => 3,
            ErrorKind::Data => 65,
            ErrorKind::Unavailable => 69,
            ErrorKind::TryAgain => 75,
            ErrorKind::Configuration => 78,
            ErrorKind::Cancelled => 130,
            ErrorKind::Internal => 1,
        }
    }

    /// The kind with this exit code; [`Internal`](ErrorKind::Internal) for any other.
    pub fn from_exit_code(code: u8) -> ErrorKind {
        Self::ALL.into_iter().find(|k| k.exit_code() == code).unwrap_or(ErrorKind::Internal)
    }

    /// Whether the same operation may succeed elsewhere or later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, ErrorKind::Unavailable | ErrorKind::TryAgain)
    }
}

/// Longest text of an error that is kept or passed on, in bytes: much of it others wrote.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// `text`, or its start where it has more than `bytes_max` bytes, and that it was cut.
pub fn brief(mut text: String, bytes_max: usize) -> String {
    let bytes = text.len();
    if bytes > bytes_max {
        let note = format!(" [... cut: it had {bytes} bytes]");
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(note.len())));
        text.push_str(&note);
        text.shrink_to_fit();
    }
    text
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error: its kind, its text, and the cause it wraps.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), source: None }))
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::TryAgain`].
    pub fn try_again(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TryAgain, message)
    }

    /// [`ErrorKind::Configuration`].
    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    /// [`ErrorKind::Cancelled`].
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Cancelled, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Attaches the foreign error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error in a message that says what was being done; the kind stays.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let kind = self.0.kind;
        Error(Box::new(Inner { kind, message: message.into(), source: Some(Box::new(self)) }))
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The whole chain on one line, outermost first: what people read, and what crosses the wire.
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let part = cause.to_string();
            // Foreign errors often repeat their cause in their own text.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_say_so() {
        assert_eq!(brief("as it is".to_owned(), 8), "as it is");
        let euros = |n| "\u{20ac}".repeat(n);
        for (bytes_max, left) in [(300, 100), (299, 90), (298, 90), (297, 89), (0, 0)] {
            let cut = if left < 100 { " [... cut: it had 300 bytes]" } else { "" };
            assert_eq!(brief(euros(100), bytes_max), format!("{}{cut}", euros(left)));
        }
        // What was cut once is not cut again.
        let once = brief("x".repeat(1 << 20), TEXT_BYTES_MAX);
        assert_eq!((once.len(), brief(once.clone(), TEXT_BYTES_MAX)), (TEXT_BYTES_MAX, once));
    }

    #[test]
    fn the_chain_reads_from_the_outside_in() {
        let e = Error::data("tensor \"w\" has shape [2], expected [3]").context("ingredient \"b\"");
        assert_eq!(e.chain(), "ingredient \"b\": tensor \"w\" has shape [2], expected [3]");
        assert_eq!(e.kind(), ErrorKind::Data);
    }

    #[test]
    fn a_repeated_cause_is_printed_once() {
        let io = std::io::Error::other("disk full");
        assert_eq!(
            Error::configuration("cannot write: disk full").with_source(io).chain(),
            "cannot write: disk full"
        );
    }

    #[test]
    fn exit_codes_are_distinct() {
        let codes: std::collections::BTreeSet<u8> = ErrorKind::ALL.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(ErrorKind::ALL.iter().all(|&k| ErrorKind::from_exit_code(k.exit_code()) == k));
    }
}
