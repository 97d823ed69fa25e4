//! Logs, on stderr; and where the environment names a collector, logs and traces to that.

use soup_core::{Error, Result};
use soup_telemetry::Telemetry;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
    let lines = tracing_subscriber::fmt::layer().with_writer(|| print::Stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(print::is_watched()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(targets.and(filter_fn(soup_telemetry::is_for_people)));
    let started = tracing_subscriber::registry().with(sent).with(lines).try_init();
    started.map_err(|e| Error::internal("logging cannot be started").with_source(e))?;
    Ok(telemetry)
}
