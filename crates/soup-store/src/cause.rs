//! Why a store refused, in one line.
//!
//! Servers explain themselves in XML, JSON or whole web pages. What a person needs of it is the code and the message; what
//! may hold secrets (signatures, keys, strings to sign) stays out.

use object_store::Error as StoreError;
use soup_core::ErrorKind;

/// Longest text of a store's error that is passed on.
const CAUSE_CHARS_MAX: usize = 400;
/// What comes before the status in the text of the store's client.
const STATUS: &str = "status code: ";
/// What comes before an error that was sent as a success.
const RESPONSE: &str = "Server returned error response: ";
/// Codes of what may work the next time, whatever the status.
const TRANSIENT: [&str; 8] = [
    "RequestTimeout",
    "InternalError",
    "SlowDown",
    "ServerBusy",
    "IncompleteBody",
    "BadDigest",
    "rateLimitExceeded",
    "userRateLimitExceeded",
];

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Status, code and message.
    pub(crate) text: String,
    /// The server's name for the cause, if it has one.
    code: String,
}

impl Cause {
    /// What a server answered, if `error` is about an answer.
    pub(crate) fn of(error: &StoreError) -> Option<Cause> {
        // The client's own error type is private; its text is "... status code: 403 Forbidden: <the body>".
        let text = error.to_string();
        let (status, reason, body) = match text.find(STATUS) {
            Some(at) => {
                let after = &text[at + STATUS.len()..];
                let status = after.get(..3)?.parse::<u16>().ok()?;
                let (reason, body) = after[3..].split_once(':').unwrap_or((&after[3..], ""));
                (status, reason, body)
            }
            None => (200, "", &text[text.find(RESPONSE)? + RESPONSE.len()..]),
        };
        let (code, message) = code_and_message(body.trim());
        let mut text = format!("{status}{}", shortened(reason.trim_end()));
        for part in [&code, &message] {
            if !part.is_empty() {
                text = format!("{text}: {part}");
            }
        }
        if code.is_empty() && message.is_empty() {
            text += match status {
                301 | 307 => ": the bucket is in another region: set AWS_REGION",
                400 => ": the server does not say why; credentials may have expired, or the region is wrong",
                401 | 403 => ": the server does not say why; the credentials may not read this",
                _ => "",
            };
        }
        Some(Cause { status, text, code })
    }

    /// What the caller should do.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self.status {
            _ if TRANSIENT.contains(&self.code.as_str()) => ErrorKind::Unavailable,
            // A bucket that is not there is not a file that is not there.
            404 if self.is_about_the_bucket() => ErrorKind::Configuration,
            404 | 410 => ErrorKind::Data,
            301 | 302 | 307 | 308 | 400..=403 | 405 | 407 | 411 | 451 => ErrorKind::Configuration,
            _ if self.code == "ExpiredToken" => ErrorKind::Configuration,
            _ => ErrorKind::Unavailable,
        }
    }

    /// Whether the credentials are good and may not do this.
    pub(crate) fn is_denied(&self) -> bool {
        let ours =
            ["AccessDenied", "AllAccessDisabled", "AuthorizationPermissionMismatch", "AuthorizationFailure"];
        let other =
            self.code.contains("Key") || self.code.contains("Signature") || self.code.contains("Token");
        self.status == 403 && (ours.contains(&self.code.as_str()) || !(other || self.code.contains("Time")))
    }

    /// Whether it is the bucket or the container that is not there.
    pub(crate) fn is_about_the_bucket(&self) -> bool {
        ["NoSuchBucket", "ContainerNotFound"].contains(&self.code.as_str())
            || self.text.contains("bucket does not exist")
    }
}

/// The code and the message in an error's body: of XML (S3, Google, Azure), JSON (Google, Azure), or the first line.
fn code_and_message(body: &str) -> (String, String) {
    let element = |tag: &str| {
        // Azure adds lines about the request.
        Some(shortened(text_of(body, tag)?.trim().lines().next().unwrap_or_default()))
    };
    if let Some(code) = element("Code") {
        let mut message = element("Message").unwrap_or_default();
        if let Some(region) = element("Region").filter(|r| !message.contains(r.as_str())) {
            message += &format!(" (the region is {region})");
        }
        return (code, message);
    }
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(body) {
        let error = if json["error"].is_object() { &json["error"] } else { &json };
        let text = |value: &serde_json::Value| value.as_str().map(shortened).unwrap_or_default();
        let code = [&error["status"], &error["code"], &error["errors"][0]["reason"], &json["error"]];
        let message = [&error["message"], &json["error_description"]];
        let first = |of: &[&serde_json::Value]| {
            of.iter().map(|v| text(v)).find(|t| !t.is_empty()).unwrap_or_default()
        };
        return (first(&code), first(&message));
    }
    let line = body.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let more = if body.trim().lines().count() > 1 { " [...]" } else { "" };
    (String::new(), shortened(line) + more)
}

/// The text inside of the first element `tag`.
pub(crate) fn text_of<'a>(xml: &'a str, tag: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{tag}>"))? + tag.len() + 2;
    let length = xml[start..].find(&format!("</{tag}>"))?;
    Some(&xml[start..start + length])
}

/// The start of `text` as one line, which says whether there is more.
pub(crate) fn shortened(text: &str) -> String {
    match is_long(text) {
        true => cut(text),
        false => one_line_of(text),
    }
}

/// The start of `text` as one line, which says that there is more.
fn cut(text: &str) -> String {
    format!("{} [...]", one_line_of(text).trim_end())
}

fn one_line_of(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CAUSE_CHARS_MAX).collect()
}

fn is_long(text: &str) -> bool {
    text.chars().nth(CAUSE_CHARS_MAX).is_some()
}

/// `error`, or what matters of it where it is an answer, is long, or has several lines.
pub(crate) fn one_line(error: StoreError) -> Box<dyn std::error::Error + Send + Sync> {
    if let Some(cause) = Cause::of(&error) {
        return cause.text.into();
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && !line.contains(char::is_control) && !is_long(line) {
        return error.into();
    }
    cut(line).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> StoreError {
        StoreError::Generic { store: "S3", source: std::io::Error::other(text.to_owned()).into() }
    }

    #[track_caller]
    fn answers(status: &str, body: &str, kind: ErrorKind, expect: &str) {
        let text = format!(
            "Error performing GET http://h/b?sig=SECRET in 1ms - Server returned non-2xx status code: {status}: {body}"
        );
        let cause = Cause::of(&error(&text)).unwrap();
        assert_eq!((cause.text.as_str(), cause.kind()), (expect, kind));
        assert_eq!(one_line(error(&text)).to_string(), expect);
    }

    #[test]
    fn the_servers_code_and_message_are_passed_on() {
        let xml = |code: &str, message: &str| {
            format!(
                "<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><StringToSign>SECRET</StringToSign></Error>"
            )
        };
        let configuration = ErrorKind::Configuration;
        answers(
            "400 Bad Request",
            &xml("ExpiredToken", "It has expired."),
            configuration,
            "400 Bad Request: ExpiredToken: It has expired.",
        );
        answers(
            "403 Forbidden",
            &xml("AccessDenied", "Access\nDenied"),
            configuration,
            "403 Forbidden: AccessDenied: Access",
        );
        answers(
            "403 Forbidden",
            &xml("RequestTimeTooSkewed", "too large"),
            configuration,
            "403 Forbidden: RequestTimeTooSkewed: too large",
        );
        answers(
            "404 Not Found",
            &xml("NoSuchBucket", "none"),
            configuration,
            "404 Not Found: NoSuchBucket: none",
        );
        answers(
            "404 Not Found",
            &xml("NoSuchKey", "none"),
            ErrorKind::Data,
            "404 Not Found: NoSuchKey: none",
        );
        answers(
            "503 Service Unavailable",
            &xml("SlowDown", "slow"),
            ErrorKind::Unavailable,
            "503 Service Unavailable: SlowDown: slow",
        );
        answers("500 Internal Server Error", "", ErrorKind::Unavailable, "500 Internal Server Error");
        let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-west-1</Region></Error>";
        let expect = "400 Bad Request: AuthorizationHeaderMalformed: wrong (the region is eu-west-1)";
        answers("400 Bad Request", region, configuration, expect);
    }

    #[test]
    fn what_may_work_the_next_time_is_an_outage_whatever_its_status() {
        let xml = "<Error><Code>RequestTimeout</Code><Message>too slow</Message></Error>";
        answers("400 Bad Request", xml, ErrorKind::Unavailable, "400 Bad Request: RequestTimeout: too slow");
        let text = format!("Error performing GET x - Server returned error response: {xml}");
        let cause = Cause::of(&error(&text)).unwrap();
        assert_eq!(
            (cause.text.as_str(), cause.kind()),
            ("200: RequestTimeout: too slow", ErrorKind::Unavailable)
        );
    }

    #[test]
    fn errors_in_json_and_web_pages_are_understood_too() {
        let json = r#"{"error": {"code": 403, "message": "no access", "status": "PERMISSION_DENIED"}}"#;
        answers(
            "403 Forbidden",
            json,
            ErrorKind::Configuration,
            "403 Forbidden: PERMISSION_DENIED: no access",
        );
        let json = r#"{"error": "invalid_grant", "error_description": "Bad\u0007 Request"}"#;
        answers(
            "400 Bad Request",
            json,
            ErrorKind::Configuration,
            "400 Bad Request: invalid_grant: Bad  Request",
        );
        answers("502 Bad Gateway", "<html>\n<body>", ErrorKind::Unavailable, "502 Bad Gateway: <html> [...]");
    }

    #[test]
    fn a_status_alone_says_what_it_means() {
        let text = Cause::of(&error("non-2xx status code: 403 Forbidden: ")).unwrap().text;
        assert_eq!(text, "403 Forbidden: the server does not say why; the credentials may not read this");
    }

    #[test]
    fn causes_are_one_short_line() {
        let cause = |text: &str| one_line(error(text)).to_string();
        assert!(cause("refused").ends_with("refused"));
        let page = cause("broken: <html>\n<body>\nno\n");
        assert!(page.ends_with("broken: <html> [...]"), "{page}");
        assert!(cause(&"x".repeat(10_000)).chars().count() < CAUSE_CHARS_MAX + 10);
    }
}
