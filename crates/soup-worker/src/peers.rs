//! Connections to peers, and what is fetched over them: blends of their shards, and gradients that they hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::poll_fn;
use http::HeaderMap;
use http_body_util::BodyExt;
use soup_core::{Error, ErrorKind, Result};
use soup_proto::error_of;
use soup_proto::v1::FetchRequest;
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::begun::Owners;
use crate::frames::{self, ChunkReader};
use soup_trust::Connect;

/// Connections to each peer: each is served by one thread at either end.
const CONNECTIONS: u32 = 4;
/// Window of a stream between peers, half that of its connection: covers a round trip of 1 ms at 4 GB/s over all
/// connections, and what is read ahead of the copy into place stays in the processor's cache.
const WINDOW_BYTES: u32 = 1 << 20;
/// Largest HTTP/2 frame, for which the reader allocates: below 128 KiB, from where on malloc maps fresh pages.
const FRAME_BYTES: u32 = 120 << 10;

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

    /// Streams what `request` asks for from worker `source`, which is where `owners` says, into `out`.
    ///
    /// # Errors
    /// [`TryAgain`](ErrorKind::TryAgain) where that is not known; whatever breaks on the way, as worth another attempt; what is wrong
    /// with an ingredient.
    pub(crate) async fn fetch(
        &self,
        owners: &Owners,
        source: u64,
        request: &FetchRequest,
        out: &mut [u8],
    ) -> Result<()> {
        let shard = request.shard;
        let address = owners.address(source);
        let address =
            address.ok_or_else(|| Error::try_again(format!("who has shard {shard} is not known")))?;
        let failed = |e: Error| match e.kind() {
            // What is wrong with an ingredient is so wherever it is read.
            ErrorKind::Data => e,
            _ => e.context(format!("cannot fetch shard {shard} from worker {source} at {address}")),
        };
        let channel = self.channel(address, shard).map_err(failed)?;
        receive(channel, request, out).await.map_err(failed)
    }
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
