//! Logs, on stderr.

use soup_core::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::choices::LogFormat;
use crate::print;

/// Starts logging what `filter` lets through.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where the filter is malformed.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<()> {
    let wrong = |e| {
        Error::usage(format!("--log {filter:?} is not a filter such as info or soup_worker=debug"))
            .with_source(e)
    };
    let filter = EnvFilter::builder().parse(filter).map_err(wrong)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| print::Stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(print::is_watched()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Error::internal("logging cannot be started").with_source(e))
}
