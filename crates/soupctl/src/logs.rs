//! Logs, on stderr; and where the environment names a collector, logs and traces to that.

use std::borrow::Cow;
use std::io::{self, Write};

use soup_core::{Error, Result};
use soup_telemetry::{Layers, Telemetry};
use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::choices::LogFormat;
use crate::print;

/// Starts logging what `filter` lets through: levels by target, as in `info,soup_worker=debug`. What sends to a collector, as a process with
/// this role, does so until it is dropped. To be called in a tokio runtime.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where the filter is malformed; those of a collector that is named wrongly.
pub(crate) fn start(filter: &str, format: LogFormat, role: &str) -> Result<Telemetry> {
    let wrong = |e| {
        Error::usage(format!("--log {filter:?} is not a filter such as info or soup_worker=debug"))
            .with_source(e)
    };
    let targets: Targets = filter.parse().map_err(wrong)?;
    let (telemetry, sent) = Telemetry::of_environment(role)?;
    let started = subscriber(targets, sent, format, || print::Stderr).try_init();
    started.map_err(|e| Error::internal("logging cannot be started").with_source(e))?;
    Ok(telemetry)
}

/// What hands lines to whoever is made by `to`, and everything to the layers `sent`.
fn subscriber<W: Write + 'static>(
    targets: Targets,
    sent: Layers<Registry>,
    format: LogFormat,
    to: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    // What is written is made plain, which colours are not.
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.with_writer(move || Plain { to: to(), format }).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_writer(move || Plain { to: to(), format }).boxed()
        }
    };
    let lines = lines.with_filter(targets.and(filter_fn(soup_telemetry::is_for_people)));
    // No layers at all are one that wants nothing, and then nobody is asked: they are none.
    let sent = (!sent.is_empty()).then_some(sent);
    tracing_subscriber::registry().with(sent).with(lines)
}

/// Writes lines of a log, one at a time: what others wrote is in them too, and neither turns a terminal's colours nor looks like a line.
struct Plain<W> {
    to: W,
    format: LogFormat,
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let shown = match self.format {
            LogFormat::Text => Cow::Owned(print::plain_line(&text)),
            LogFormat::Json => print::plain_json(&text),
        };
        self.to.write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{debug, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of `say` where nothing is sent to a collector.
    fn logged(filter: &str, format: LogFormat, say: impl FnOnce()) -> String {
        let (kept, targets) = (Kept::default(), filter.parse().unwrap());
        let to = kept.clone();
        with_default(subscriber(targets, Vec::new(), format, move || to.clone()), say);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_the_filter_lets_through_is_logged_without_a_collector() {
        let say = || {
            warn!(place = "/etc", "denied");
            debug!("in detail");
            warn!(target: soup_telemetry::TARGET, "of a span");
        };
        let lines = logged("warn", LogFormat::Text, say);
        assert!(lines.ends_with("denied place=\"/etc\"\n") && lines.lines().count() == 1, "{lines}");
        let lines = logged("debug", LogFormat::Text, say);
        assert!(lines.lines().count() == 2 && lines.contains("in detail"), "{lines}");
        assert_eq!(logged("off", LogFormat::Text, say), "");
    }

    #[test]
    fn what_others_wrote_is_spelled_out_and_stays_in_its_line() {
        let name = "a\u{1b}[31m\u{9b}\u{202e}\n2026 INFO all is well";
        let lines = logged("warn", LogFormat::Text, || warn!(%name, "lost {name}"));
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(!lines.contains(['\u{1b}', '\u{9b}', '\u{202e}']) && lines.contains("\\u{202e}"), "{lines}");
        let lines = logged("warn", LogFormat::Json, || warn!(%name, "lost"));
        assert!(!lines.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{lines}");
        let read: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(read["name"], name);
    }
}
