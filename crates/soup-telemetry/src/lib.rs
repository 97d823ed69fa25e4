//! Traces and logs for a collector of [OpenTelemetry](https://opentelemetry.io/docs/specs/otel/), where the environment names one:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and the other variables of its specification. Without them nothing is made, sent or waited for.
//!
//! # Words
//!
//! - A *span* is something that takes time: a run, a trial in it, a slice or another task for that.
//! - Where it belongs travels from a coordinator to its workers as a [`traceparent`](https://www.w3.org/TR/trace-context/) beside each task.
//!
//! Spans are those of `tracing` with the target [`TARGET`]: whoever makes them needs nothing of this crate but, where they cross processes,
//! [`traceparent`] and [`follow`].

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use soup_core::{Error, Result};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Target of the spans that are sent.
pub const TARGET: &str = "soup::trace";
/// How long a process that ends waits for what is not sent yet.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// What sends: to be dropped when the process ends, which sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

/// What feeds it.
pub type Layers<S> = Vec<Box<dyn Layer<S> + Send + Sync>>;

/// The variable of the specification for everything, and for one kind of things.
fn is_named(kind: &str) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let off = |name: &str, value: &str| std::env::var(name).is_ok_and(|v| v.eq_ignore_ascii_case(value));
    let named = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set(&format!("OTEL_EXPORTER_OTLP_{kind}_ENDPOINT"));
    named && !off("OTEL_SDK_DISABLED", "true") && !off(&format!("OTEL_{kind}_EXPORTER"), "none")
}

/// Whether the protocol for one kind of things is gRPC, and not what the specification has as its default.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for one that is not spoken here.
fn is_grpc(kind: &str) -> Result<bool> {
    let names = [format!("OTEL_EXPORTER_OTLP_{kind}_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned()];
    let Some((name, value)) = names.iter().find_map(|name| Some((name, std::env::var(name).ok()?))) else {
        return Ok(false);
    };
    match value.as_str() {
        "grpc" => Ok(true),
        "http/protobuf" => Ok(false),
        _ => Err(Error::configuration(format!("{name}={value:?}: it can be grpc or http/protobuf"))),
    }
}

fn wrong(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::configuration(format!("{what} cannot be sent to the collector that OTEL_EXPORTER_OTLP_… names"))
        .with_source(error)
}

/// What the process is called, with its role, unless the environment says more.
fn resource(role: &str) -> Resource {
    let builder = Resource::builder();
    let builder = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => builder,
        None => builder.with_service_name("soupctl"),
    };
    let of = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.role", role.to_owned()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    builder.with_attributes(of).build()
}

fn is_span(of: &Metadata<'_>) -> bool {
    of.target() == TARGET
}

/// Only what this program says itself: what senders say about sending would be sent in turn.
fn is_ours(of: &Metadata<'_>) -> bool {
    of.target().starts_with("soup") && of.target() != TARGET
}

/// Everything but [spans](TARGET), for logs that people read.
#[must_use]
pub fn is_for_people(of: &Metadata<'_>) -> bool {
    of.target() != TARGET
}

impl Telemetry {
    /// What the environment asks for, of a process with this role; and the layers that feed it, if there are any.
    /// To be called in a tokio runtime, which has to outlive it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for an endpoint or protocol that cannot be used.
    pub fn of_environment<S>(role: &str) -> Result<(Telemetry, Layers<S>)>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let (mut telemetry, mut layers) = (Telemetry::default(), Layers::<S>::new());
        if is_named("TRACES") {
            let exporter = match is_grpc("TRACES")? {
                true => SpanExporter::builder().with_tonic().build(),
                false => SpanExporter::builder().with_http().build(),
            };
            let exporter = exporter.map_err(|e| wrong("traces", e))?;
            let provider = SdkTracerProvider::builder()
                .with_resource(resource(role))
                .with_batch_exporter(exporter)
                .build();
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("soupctl"));
            layers.push(layer.with_filter(filter_fn(is_span)).boxed());
            telemetry.spans = Some(provider);
        }
        if is_named("LOGS") {
            let exporter = match is_grpc("LOGS")? {
                true => LogExporter::builder().with_tonic().build(),
                false => LogExporter::builder().with_http().build(),
            };
            let exporter = exporter.map_err(|e| wrong("logs", e))?;
            let provider = SdkLoggerProvider::builder()
                .with_resource(resource(role))
                .with_batch_exporter(exporter)
                .build();
            let ours = filter_fn(|of| is_ours(of) && *of.level() <= tracing::Level::INFO);
            layers.push(OpenTelemetryTracingBridge::new(&provider).with_filter(ours).boxed());
            telemetry.logs = Some(provider);
        }
        Ok((telemetry, layers))
    }

    /// Whether anything is sent.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.spans.is_some() || self.logs.is_some()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // A collector that is away is not this process's failure.
        if let Some(spans) = &self.spans {
            let _ = spans.shutdown_with_timeout(FLUSH_WITHIN);
        }
        if let Some(logs) = &self.logs {
            let _ = logs.shutdown_with_timeout(FLUSH_WITHIN);
        }
    }
}

/// Where a span belongs, for another process; empty where nothing is sent.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    if span.is_disabled() {
        return String::new();
    }
    let context = span.context();
    let of = context.span().span_context().clone();
    match of.is_valid() {
        true => format!("00-{}-{}-{:02x}", of.trace_id(), of.span_id(), of.trace_flags().to_u8()),
        false => String::new(),
    }
}

/// Makes a span belong to where `traceparent`, of another process, says. What is malformed is not followed.
pub fn follow(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent).filter(|_| !span.is_disabled()) {
        // It fails where nothing is sent, or the span has begun to be.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let whole = version == "00"
        && is_hex(trace, 32)
        && is_hex(span, 16)
        && is_hex(flags, 2)
        && parts.next().is_none();
    let of = whole.then(|| {
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        Some(SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            flags,
            true,
            TraceState::default(),
        ))
    });
    of.flatten().filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_it_is_written_and_nothing_else_is() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = parse(text).unwrap();
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(parent.is_remote() && parent.is_sampled());
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn without_a_collector_spans_are_nowhere() {
        let span = tracing::info_span!(target: TARGET, "slice");
        assert_eq!(traceparent(&span), "");
        follow(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    }
}
