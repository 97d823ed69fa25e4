//! Error kinds and gRPC status codes.
//!
//! The status code carries the kind for tools that know nothing of us; the exact kind travels in a metadata entry, since
//! there are fewer fitting codes than kinds.

use soup_core::error::brief;
use soup_core::{Error, ErrorKind};
use tonic::{Code, Status};

const KIND_KEY: &str = "soup-error-kind";
/// Longest text of a status, in bytes. It travels in a header, where three characters stand for a byte that is no plain sign, and whose
/// headers have more than 16 KiB in all is not heard at all: the connection seems to be broken, which is worth another try.
const TEXT_BYTES_MAX: usize = 4 << 10;

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Usage => Code::InvalidArgument,
        ErrorKind::Gate | ErrorKind::Configuration => Code::FailedPrecondition,
        ErrorKind::Data => Code::DataLoss,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::TryAgain => Code::Aborted,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The status that carries `error` over the wire: its kind, and its chain as text, of which the end is cut where it is long.
pub fn status_of(error: &Error) -> Status {
    status(code(error.kind()), error)
}

/// The status of an error that says that there is enough of something: to come again later is all there is to do.
pub fn exhausted(error: &Error) -> Status {
    status(Code::ResourceExhausted, error)
}

fn status(code: Code, error: &Error) -> Status {
    let mut status = Status::new(code, brief(error.chain(), TEXT_BYTES_MAX));
    if let Ok(value) = error.kind().name().parse() {
        status.metadata_mut().insert(KIND_KEY, value);
    }
    status
}

/// The error that a status carries; for statuses of other origin, the nearest kind.
pub fn error_of(status: &Status) -> Error {
    let named = status.metadata().get(KIND_KEY).and_then(|v| v.to_str().ok());
    let kind = ErrorKind::ALL.into_iter().find(|&k| Some(k.name()) == named).unwrap_or(match status.code() {
        // What is out of range is the size of a message, which is what it is the next time too.
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Usage,
        Code::DataLoss => ErrorKind::Data,
        // A connection that breaks cancels what goes over it; that is nobody's wish.
        Code::Cancelled if std::error::Error::source(status).is_none() => ErrorKind::Cancelled,
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
            ErrorKind::Configuration
        }
        Code::Aborted | Code::NotFound | Code::ResourceExhausted | Code::DeadlineExceeded => {
            ErrorKind::TryAgain
        }
        // tonic reports broken connections as Unknown or Internal too; our own internal errors are named.
        _ => ErrorKind::Unavailable,
    });
    match no_http2(status) {
        true => Error::unavailable(
            "what answers there does not speak HTTP/2: it is no coordinator, worker or judge",
        ),
        false => Error::new(kind, with_causes(status)),
    }
}

/// The error of a connection that a status ended after it had been made, whatever that says: making it again is all there is to do.
pub fn lost(status: &Status) -> Error {
    Error::unavailable(brief(error_of(status).chain(), TEXT_BYTES_MAX))
}

/// What a status says, and where it is of a connection why that is so.
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let part = error.to_string();
        // Errors often repeat their cause in their own text.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// Whether what answered is something else, a web server for one: what it sent cannot be a frame of HTTP/2.
pub fn no_http2(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.to_string().contains("frame with invalid size") {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_says_is_not_the_peers_word() {
        let broken = |mut status: Status, cause: &str| {
            status.set_source(std::sync::Arc::new(std::io::Error::other(cause.to_owned())));
            error_of(&status)
        };
        assert_eq!(error_of(&Status::cancelled("")).kind(), ErrorKind::Cancelled);
        let cancelled = broken(Status::cancelled("operation was canceled"), "connection closed");
        assert_eq!(cancelled.kind(), ErrorKind::Unavailable);
        assert_eq!(cancelled.chain(), "operation was canceled: connection closed");
        let error = broken(Status::unknown("h2 protocol error"), "connection error: frame with invalid size");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.chain().contains("does not speak HTTP/2"), "{}", error.chain());
    }

    #[test]
    fn a_connection_that_is_lost_says_why_and_is_made_again() {
        let mut status = Status::cancelled("h2 protocol error");
        status.set_source(std::sync::Arc::new(std::io::Error::other("received fatal alert: UnknownCA")));
        let error = lost(&status);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.chain(), "h2 protocol error: received fatal alert: UnknownCA");
        assert_eq!(lost(&status_of(&Error::usage("x".repeat(1 << 20)))).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_long_text_is_cut_to_what_headers_may_have() {
        for of in ["x", " ", "\u{e9}", "\u{1f35c}"] {
            let error = Error::configuration(of.repeat(1 << 20)).context("places");
            let status = status_of(&error);
            let headers = status.clone().into_http::<()>();
            let bytes: usize = headers.headers().iter().map(|(k, v)| k.as_str().len() + v.len() + 32).sum();
            assert!(bytes < 16 << 10, "{bytes}");
            let heard = error_of(&status);
            assert_eq!(heard.kind(), ErrorKind::Configuration);
            assert!(
                heard.chain().starts_with("places: ") && heard.chain().contains("cut"),
                "{}",
                heard.chain()
            );
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_not_worth_another_try() {
        let status = Status::out_of_range("Error, decoded message length too large");
        assert_eq!(error_of(&status).kind(), ErrorKind::Usage);
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::ALL {
            let error = error_of(&status_of(&Error::new(kind, "why").context("what")));
            assert_eq!((error.kind(), error.chain()), (kind, "what: why".to_owned()));
        }
    }
}
