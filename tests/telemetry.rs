//! A cook that a collector of OpenTelemetry hears of: a run, its trials and their slices as one trace over all processes, and their logs.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use soup_tests::{EVERYWHERE, Soupctl, example, example_json};
use tempfile::TempDir;
use tonic::{Request, Response, Status};

const SOUPCTL: &str = env!("CARGO_BIN_EXE_soupctl-under-test");

/// What a collector has heard: spans with the role of the process that they are from, and texts of logs.
#[derive(Clone, Default)]
struct Heard {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    logs: Arc<Mutex<Vec<String>>>,
}

/// An attribute as text.
fn attribute(of: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let value = of.iter().find(|a| a.key == key).and_then(|a| a.value.as_ref()?.value.clone());
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn role(of: Option<&Resource>) -> String {
    let of = &of.unwrap().attributes;
    assert_eq!(attribute(of, "service.name"), "soupctl");
    attribute(of, "service.instance.role")
}

#[tonic::async_trait]
impl TraceService for Heard {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of in request.into_inner().resource_spans {
            let role = role(of.resource.as_ref());
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (role.clone(), span)));
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Heard {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        for of in request.into_inner().resource_logs {
            for record in of.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                if let Some(Value::StringValue(text)) = record.body.and_then(|body| body.value) {
                    self.logs.lock().unwrap().push(text);
                }
            }
        }
        Ok(Response::new(Default::default()))
    }
}

/// A collector on this host: its URL, and what it hears.
fn collector() -> (String, Heard) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let (traces, logs) = (TraceServiceServer::new(heard.clone()), LogsServiceServer::new(heard.clone()));
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(traces).add_service(logs);
            server.serve_with_incoming(incoming).await.unwrap();
        });
    });
    (url, heard)
}

/// Cooks with one worker, each with this environment, and gives the result's digest.
fn cook(environment: &[(&str, &str)]) -> String {
    let dir = TempDir::new().unwrap();
    let with = |soupctl: Soupctl| {
        environment.iter().fold(soupctl, |soupctl, (name, value)| soupctl.env(name, value))
    };
    let file = example().join("cook.yaml");
    let args = ["cook", "-o", "json", "--output", "soup", "--no-baselines", "--listen", "127.0.0.1:0", "-f"];
    let mut cook = with(Soupctl::new(SOUPCTL).dir(dir.path()).args(args).args([file])).start();
    let address = cook.line_with("listening on ").trim_start_matches("listening on ").to_owned();
    let args = ["worker", "--coordinator", &address, "--threads", "1", "--memory", "256MiB"];
    let worker = with(Soupctl::new(SOUPCTL).args(args).args(EVERYWHERE)).start();
    let result = cook.wait().json();
    assert_eq!(worker.wait().code, 0);
    result["sha256"].as_str().unwrap().to_owned()
}

#[test]
fn a_collector_hears_of_runs_trials_and_slices_as_one_trace() {
    let (url, heard) = collector();
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    assert_eq!(cook(&environment), example_json("soups.json")["greedy"]["sha256"].as_str().unwrap());
    let spans = heard.spans.lock().unwrap().clone();
    let by_id: BTreeMap<&[u8], &(String, Span)> = spans.iter().map(|of| (&of.1.span_id[..], of)).collect();
    let named = |name: &str| spans.iter().filter(|(_, span)| span.name == name).collect::<Vec<_>>();
    let parent = |span: &Span| by_id.get(&span.parent_span_id[..]).copied();
    let [(role, run)] = named("run")[..] else { panic!("not one run") };
    assert_eq!((role.as_str(), run.parent_span_id.len()), ("cook", 0));
    assert!(attribute(&run.attributes, "run").starts_with("greedy-"));
    assert_eq!(attribute(&run.attributes, "ingredients"), "16");
    assert!(spans.iter().all(|(_, span)| span.trace_id == run.trace_id));
    // The sixteen by themselves, and what the recipe tried after the best of them.
    let trials = named("trial");
    assert!(trials.len() >= 16 + 15, "{}", trials.len());
    for (role, trial) in &trials {
        assert_eq!((role.as_str(), &parent(trial).unwrap().1.name[..]), ("cook", "run"));
    }
    let slices = named("slice");
    assert!(slices.len() > trials.len());
    for (role, slice) in &slices {
        let (_, of) = parent(slice).unwrap();
        assert_eq!(role, "worker");
        assert!(["trial", "score"].contains(&&of.name[..]), "{}", of.name);
        // Clocks are the same here.
        assert!(of.start_time_unix_nano <= slice.start_time_unix_nano, "{slice:?} in {of:?}");
    }
    let kinds: Vec<String> =
        named("task").iter().map(|(_, task)| attribute(&task.attributes, "kind")).collect();
    assert!(["load", "survey", "write"].iter().all(|kind| kinds.iter().any(|k| k == kind)), "{kinds:?}");
    let logs = heard.logs.lock().unwrap().clone();
    for text in ["worker joined", "trial decided", "run finished"] {
        assert!(logs.iter().any(|log| log.contains(text)), "no {text:?} in {logs:?}");
    }
}

#[test]
fn a_collector_that_is_away_is_nothing_to_a_cook() {
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    assert_eq!(cook(&environment), example_json("soups.json")["greedy"]["sha256"].as_str().unwrap());
}

#[test]
fn a_protocol_that_is_not_spoken_is_named() {
    let run = |name: &str, value: &str| {
        Soupctl::new(SOUPCTL)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
            .env(name, value)
            .args(["worker", "--coordinator", "127.0.0.1:9", "--connect-timeout", "1ms"])
            .run()
    };
    run("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        .fails(78, &["OTEL_EXPORTER_OTLP_PROTOCOL=\"http/json\"", "grpc"]);
    // Turned off, it is not looked at.
    run("OTEL_SDK_DISABLED", "true").fails(69, &[]);
}
