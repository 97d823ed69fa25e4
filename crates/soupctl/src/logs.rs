//! Logs, on stderr.

use soup_core::{Error, Result};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::choices::LogFormat;
use crate::print;

/// Starts logging what `filter` lets through: levels by target, as in `info,soup_worker=debug`.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where the filter is malformed.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<()> {
    let wrong = |e| {
        Error::usage(format!("--log {filter:?} is not a filter such as info or soup_worker=debug"))
            .with_source(e)
    };
    let targets: Targets = filter.parse().map_err(wrong)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(|| print::Stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(print::is_watched()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    started.map_err(|e| Error::internal("logging cannot be started").with_source(e))
}
