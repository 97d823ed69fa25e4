//! The client of a world: submits the run, watches it to its end over whatever becomes of its connections, and looks at
//! the output.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_proto::error_of;
use soup_proto::v1::coordinator_client::CoordinatorClient;
use soup_proto::v1::run_event::Event;
use soup_proto::v1::{RunEvent, SubmitRequest, WatchRequest};
use soup_store::location::Location;
use soup_store::read;
use soup_trust::Connect;
use tonic::transport::{Channel, Endpoint};

use crate::network::Network;
use crate::pool;
use crate::witness::Witness;

/// Wait between attempts to reach the coordinator.
const RETRY: Duration = Duration::from_millis(200);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(40);
const KEEPALIVE: Duration = Duration::from_secs(5);
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Has the run cooked; gives its report. Asks for it again after whatever may pass, as the exit code tells people to.
pub async fn cook(coordinator: &str, network: &Network, spec: &RunSpec, witness: &Witness) -> Result<Value> {
    loop {
        match attempt(coordinator, network, spec, witness).await {
            Ok(report) => return Ok(report),
            Err(error) if error.kind().is_transient() => {
                tracing::info!(target: "simulation", "client: {}", error.chain());
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(coordinator: &str, network: &Network, spec: &RunSpec, witness: &Witness) -> Result<Value> {
    let endpoint = Endpoint::from_shared(coordinator.to_owned())
        .map_err(|e| Error::internal("not a URL").with_source(e))?
        .connect_timeout(REQUEST_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let unreachable = |e| Error::unavailable("the coordinator cannot be reached").with_source(e);
    let channel: Channel = network.connect(&endpoint).await.map_err(unreachable)?;
    let mut client = CoordinatorClient::new(channel);
    // The same request is the same run, however often it is made.
    let spec = Some(spec.clone().into());
    let protocol = soup_proto::PROTOCOL_VERSION;
    let submit = client.submit(SubmitRequest { spec, protocol, ..SubmitRequest::default() });
    let silent = |_| Error::unavailable("the coordinator did not answer");
    let answer = tokio::time::timeout(SUBMIT_TIMEOUT, submit).await.map_err(silent)?;
    let run = answer.map_err(|s| error_of(&s))?.into_inner().run;
    let mut events =
        client.watch(WatchRequest { run: run.clone() }).await.map_err(|s| error_of(&s))?.into_inner();
    let lost = |s: tonic::Status| Error::unavailable(error_of(&s).chain());
    while let Some(RunEvent { event }) = events.message().await.map_err(lost)? {
        match event {
            Some(Event::FinishedJson(json)) => {
                let report: Value = serde_json::from_str(&json)
                    .map_err(|e| Error::internal("a report is not JSON").with_source(e))?;
                witness.finished(&run, &report)?;
                return Ok(report);
            }
            Some(Event::Failed(failure)) => return Err(failure.into()),
            Some(Event::Decided(decided)) => {
                tracing::info!(target: "simulation", "client sees {decided:?}");
                witness.decided(&run, decided.trial)?;
            }
            Some(event) => tracing::info!(target: "simulation", "client sees {event:?}"),
            None => {}
        }
    }
    Err(Error::unavailable("the stream of events ended"))
}

/// SHA-256 of the tensors of the published soup; an output that is not visible has no manifest.
pub async fn published_sha256(output: &str) -> Result<String> {
    let output = Location::parse(output)?;
    let manifest = read::read_small(&output.join("soup.json")?, FILE_BYTES_MAX).await?;
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    if manifest["report"]["run"] == "other" || !manifest["report"]["sha256"].is_string() {
        return Err(Error::data(format!("what is visible is {manifest}")));
    }
    if read::stat_if_exists(&output.join(pool::LEFT)?).await?.is_some() {
        return Err(Error::data("a file of the replaced output was left"));
    }
    let file = read::read_small(&output.join("model.safetensors")?, FILE_BYTES_MAX).await?;
    let header = file.first_chunk::<8>().map(|len| u64::from_le_bytes(*len) as usize);
    let data =
        header.and_then(|len| file.get(8 + len..)).ok_or_else(|| Error::data("no safetensors file"))?;
    Ok(Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect())
}
