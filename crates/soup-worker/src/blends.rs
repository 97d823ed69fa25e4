//! Blends: computed from this worker's own shards, or fetched from the peers that own the others.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderMap;
use http_body_util::BodyExt;
use soup_core::schema::Schema;
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, ErrorKind, Result};
use soup_eval::Model;
use soup_proto::error_of;
use soup_proto::v1::{FetchRequest, Gradient};
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::active::{Active, Worker};
use crate::connect::Connect;
use crate::frames::{self, ChunkReader};
use crate::passages;
use crate::recent::Recent;

/// Soups whose blends and models are kept: the one in work, the next one, and the one that may be written.
const SOUPS_KEPT: usize = 3;
/// Shards fetched at the same time.
const SHARDS_IN_FLIGHT: usize = 8;
/// Connections to each peer: each is served by one thread at either end.
const CONNECTIONS: u32 = 4;
/// Window of a stream between peers, half that of its connection: covers a round trip of 1 ms at 4 GB/s over all
/// connections, and what is read ahead of the copy into place stays in the processor's cache.
const WINDOW_BYTES: u32 = 1 << 20;
/// Largest HTTP/2 frame, for which the reader allocates: below 128 KiB, from where on malloc maps fresh pages.
const FRAME_BYTES: u32 = 120 << 10;

/// What was blended and assembled lately.
#[derive(Default)]
pub(crate) struct Blends {
    own: Recent<(Soup, u32), Bytes>,
    models: Recent<Soup, Arc<dyn Model>>,
    /// The parameters that a step of a learned soup is differentiated at.
    step: Recent<Soup, Arc<Vec<u8>>>,
}

/// The blend of `soup` on a shard that this worker holds.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it.
pub(crate) async fn own(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    if run.begin.streams {
        return passages::blend(run, shard, soup).await;
    }
    let Some(memory) = run.shards.get(shard) else {
        return Err(Error::try_again(format!("this worker does not hold shard {shard}")));
    };
    let cell = run.blends.own.cell(&(soup.clone(), shard), SOUPS_KEPT * run.shards.count());
    let soup = soup.clone();
    let blend = || {
        // Blending is bound by memory and short: it need not wait for a compute thread.
        run.compute.beside(move || {
            let mut out = vec![0; memory.bytes()];
            memory.blend(&soup, &mut out).map(|()| Bytes::from(out))
        })
    };
    cell.get_or_try_init(blend).await.cloned()
}

/// The blend of `soup` on any shard, from its owner.
pub(crate) async fn any(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    if run.shards.get(shard).is_some() || run.passages.has(shard) {
        return own(run, shard, soup).await;
    }
    let mut out = vec![0; shard_len(run, shard)];
    fetch(run, shard, soup, &mut out).await?;
    Ok(Bytes::from(out))
}

fn shard_len(run: &Active, shard: u32) -> usize {
    let range = run.plan.range(Shard(shard));
    (range.end - range.start) as usize
}

/// Streams the blend of a shard from its owner into `out`.
async fn fetch(run: &Arc<Active>, shard: u32, soup: &Soup, out: &mut [u8]) -> Result<()> {
    let owner = run.placement()?.owners.get(shard as usize).copied().unwrap_or_default();
    let request = FetchRequest {
        run: run.begin.run.clone(),
        epoch: run.begin.epoch,
        shard,
        soup: Some(soup.into()),
        gradient: None,
    };
    fetch_from(run, owner, &request, out).await
}

/// Streams what `request` asks for from worker `source` into `out`.
async fn fetch_from(run: &Arc<Active>, source: u64, request: &FetchRequest, out: &mut [u8]) -> Result<()> {
    let placement = run.placement()?;
    let shard = request.shard;
    let peer = placement.peers.iter().find(|p| p.worker == source);
    let peer = peer.ok_or_else(|| Error::try_again(format!("who has shard {shard} is not known")))?;
    let failed = |e: Error| match e.kind() {
        // What is wrong with an ingredient is so wherever it is read.
        ErrorKind::Data => e,
        _ => e.context(format!("cannot fetch shard {shard} from worker {source} at {}", peer.address)),
    };
    let channel = run.peers.channel(&peer.address, shard).map_err(failed)?;
    receive(channel, request, out).await.map_err(failed)
}

/// The gradient that worker `source` holds, on the elements of a shard, as f32.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it any more.
pub(crate) async fn gradient(
    run: &Arc<Active>,
    shard: u32,
    gradient: Gradient,
    elements: Range<usize>,
    source: u64,
) -> Result<Vec<f32>> {
    let mut values = vec![0f32; elements.len()];
    if source == run.me() {
        let own = run.gradients.range((gradient.step, gradient.part), elements.start, elements.end)?;
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&own);
        return Ok(values);
    }
    let request = FetchRequest {
        run: run.begin.run.clone(),
        epoch: run.begin.epoch,
        shard,
        soup: None,
        gradient: Some(gradient),
    };
    fetch_from(run, source, &request, bytemuck::cast_slice_mut(&mut values)).await?;
    Ok(values)
}

/// Asks over `channel` and reads the reply into `out`.
async fn receive(mut channel: Channel, request: &FetchRequest, out: &mut [u8]) -> Result<()> {
    let lost =
        |e: &dyn std::error::Error| transient(Error::unavailable(format!("the connection broke: {e}")));
    let refused = |headers: &HeaderMap| {
        let status = Status::from_header_map(headers).filter(|s| s.code() != Code::Ok);
        status.map_or(Ok(()), |s| Err(transient(error_of(&s))))
    };
    let post = http::Request::post(frames::FETCH_PATH)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(frames::request_body(request))
        .map_err(|e| Error::internal("a fetch is not a request").with_source(e))?;
    poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|e| lost(&e))?;
    let (head, mut body) = channel.call(post).await.map_err(|e| lost(&e))?.into_parts();
    refused(&head.headers)?;
    if head.status != http::StatusCode::OK {
        return Err(Error::unavailable(format!("it answered with HTTP status {}", head.status)));
    }
    let mut chunks = ChunkReader::new(out);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| transient(error_of(&e)))?.into_data() {
            Ok(data) => chunks.take(&data)?,
            Err(frame) => frame.trailers_ref().map_or(Ok(()), refused)?,
        }
    }
    chunks.finish()
}

/// Peers come and go: whatever breaks a stream between them is worth another attempt. What is wrong with an ingredient is not.
fn transient(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Data => error,
        kind if kind.is_transient() => error,
        _ => Error::unavailable(error.chain()),
    }
}

/// The flattened parameters of `soup`, from all owners, into `parameters`, which has their length.
pub(crate) async fn assemble(run: &Arc<Active>, soup: &Soup, parameters: &mut [u8]) -> Result<()> {
    // Every shard but the last has this length, so these are exactly the shards.
    let places = parameters.chunks_mut(run.plan.shard_bytes() as usize).zip(0u32..);
    let jobs: Vec<_> = places
        .map(|(place, shard)| async move {
            if run.shards.get(shard).is_some() {
                place.copy_from_slice(&own(run, shard, soup).await?);
                return Ok(());
            }
            fetch(run, shard, soup, place).await
        })
        .collect();
    stream::iter(jobs).buffer_unordered(SHARDS_IN_FLIGHT).try_collect::<()>().await
}

/// The flattened parameters of the soup that a step of a learned soup is differentiated at, assembled once for all parts.
/// What was kept of other soups is forgotten: every step has another one.
pub(crate) async fn parameters_of_step(run: &Arc<Active>, soup: &Soup) -> Result<Arc<Vec<u8>>> {
    run.blends.own.retain(|(of, _)| of == soup);
    run.blends.models.retain(|_| false);
    let cell = run.blends.step.cell(soup, 1);
    let make = || async {
        let mut parameters = vec![0; run.schema.bytes() as usize];
        assemble(run, soup, &mut parameters).await?;
        Ok(Arc::new(parameters))
    };
    cell.get_or_try_init(make).await.cloned()
}

/// The model of `soup`, assembled once for all slices.
pub(crate) async fn model(worker: &Worker, run: &Arc<Active>, soup: &Soup) -> Result<Arc<dyn Model>> {
    // Whoever scores soups does not learn at the same time.
    run.blends.step.retain(|_| false);
    let cell = run.blends.models.cell(soup, SOUPS_KEPT);
    let make = || async {
        let mut parameters = vec![0; run.schema.bytes() as usize];
        assemble(run, soup, &mut parameters).await?;
        let (run, schema) = (run.clone(), run.schema.clone());
        let build = move || run.evaluator()?.load(&schema as &Schema, &parameters).map(Arc::from);
        worker.compute.run(build).await
    };
    cell.get_or_try_init(make).await.cloned()
}

/// Connections to peers, by address and number.
pub(crate) struct Peers {
    connect: Arc<dyn Connect>,
    channels: Mutex<BTreeMap<(String, u32), Channel>>,
}

impl Peers {
    pub(crate) fn new(connect: Arc<dyn Connect>) -> Peers {
        Peers { connect, channels: Mutex::default() }
    }

    /// A connection to `address`; shards take turns on several.
    fn channel(&self, address: &str, shard: u32) -> Result<Channel> {
        let key = (address.to_owned(), shard % CONNECTIONS);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|e| Error::internal(format!("peer address {address:?} is not a URL")).with_source(e))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let channel = self.connect.connect_lazy(&endpoint);
        channels.insert(key, channel.clone());
        Ok(channel)
    }
}
