//! Connections to peers, and what is fetched over them: blends of their shards, and gradients that they hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::poll_fn;
use http::HeaderMap;
use http_body_util::BodyExt;
use soup_core::error::brief;
use soup_core::{Error, ErrorKind, Result};
use soup_metrics::metrics;
use soup_proto::error_of;
use soup_proto::v1::FetchRequest;
use tokio::time::Instant;
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

/// How often in a row something else may arrive than what was sent, before that is the task's failure.
const CORRUPT_MAX: u32 = 3;
/// A peer has so long until the first byte: what it blends may have to be read, and others may have asked before.
const FIRST_BYTE: Duration = Duration::from_secs(60);
/// Where it has to read a shard of every ingredient for that.
const FIRST_BYTE_STREAMED: Duration = Duration::from_secs(600);
/// And between two bytes, all of which it has by then.
const NEXT_BYTE: Duration = Duration::from_secs(30);
/// Longest text of why a connection broke, in bytes: some of it the peer wrote.
const CAUSE_BYTES_MAX: usize = 1 << 10;

/// The cause of a failure: a peer did not give what it was asked for.
#[derive(Debug)]
pub(crate) struct Unreached {
    /// Its number.
    pub(crate) worker: u64,
    cause: Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// The peer that made a task fail, if one did.
pub(crate) fn unreached(error: &Error) -> Option<u64> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(unreached) = error.downcast_ref::<Unreached>() {
            return Some(unreached.worker);
        }
        cause = error.source();
    }
    None
}

/// Connections to peers, by address and number.
pub(crate) struct Peers {
    connect: Arc<dyn Connect>,
    channels: Mutex<BTreeMap<(String, u32), Channel>>,
    /// How long to wait for the first byte.
    first_byte: Duration,
}

impl Peers {
    /// Where the run `streams`, peers read what they are asked for.
    pub(crate) fn new(connect: Arc<dyn Connect>, streams: bool) -> Peers {
        let first_byte = if streams { FIRST_BYTE_STREAMED } else { FIRST_BYTE };
        Peers { connect, channels: Mutex::default(), first_byte }
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
    /// [`TryAgain`](ErrorKind::TryAgain) where that is not known; whatever breaks on the way, or changes there time and again, as worth
    /// another attempt; what is wrong with an ingredient; what no peer would take.
    pub(crate) async fn fetch(
        &self,
        owners: &Owners,
        source: u64,
        request: &FetchRequest,
        out: &mut [u8],
    ) -> Result<()> {
        frames::check_request(request)?;
        let shard = request.shard;
        let address = owners.address(source);
        let address =
            address.ok_or_else(|| Error::try_again(format!("who has shard {shard} is not known")))?;
        let failed = |e: Error| {
            metrics().worker.failed_fetches.inc();
            match e.kind() {
                // What is wrong with an ingredient is so wherever it is read.
                ErrorKind::Data => e,
                // What it sends, and an address that is none, are its trouble and not this worker's.
                _ => {
                    let cause = transient(e);
                    let text = format!("cannot fetch shard {shard} from worker {source} at {address}");
                    Error::new(cause.kind(), text).with_source(Unreached { worker: source, cause })
                }
            }
        };
        let channel = self.channel(address, shard).map_err(failed)?;
        for _ in 0..CORRUPT_MAX {
            if receive(channel.clone(), request, self.first_byte, out).await.map_err(failed)? {
                metrics().worker.fetched.inc_by(out.len() as u64);
                return Ok(());
            }
            tracing::warn!(shard, source, address, "what a peer sent did not arrive as it was sent");
        }
        Err(failed(Error::unavailable(format!(
            "what arrived was not what it sent, {CORRUPT_MAX} times in a row: memory, a network card or a proxy of one of the two changes \
             bytes"
        ))))
    }
}

/// Asks over `channel` and reads the reply into `out`. Whether that is what was sent.
async fn receive(
    mut channel: Channel,
    request: &FetchRequest,
    first_byte: Duration,
    out: &mut [u8],
) -> Result<bool> {
    let refused = |headers: &HeaderMap| {
        let status = Status::from_header_map(headers).filter(|s| s.code() != Code::Ok);
        status.map_or(Ok(()), |s| Err(transient(error_of(&s))))
    };
    let post = http::Request::post(frames::FETCH_PATH)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(frames::request_body(request))
        .map_err(|e| Error::internal("a fetch is not a request").with_source(e))?;
    let answer = async {
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(broken)?;
        channel.call(post).await.map_err(broken)
    };
    let (head, mut body) = within(first_byte, answer).await??.into_parts();
    refused(&head.headers)?;
    if head.status != http::StatusCode::OK {
        return Err(Error::unavailable(format!("it answered with HTTP status {}", head.status)));
    }
    let (mut chunks, mut trailers) = (ChunkReader::new(out), None);
    // What brings no data is no progress, however fast it comes: frames without a byte, chunks without any.
    let mut until = Instant::now() + NEXT_BYTE;
    while let Some(frame) = within(until.saturating_duration_since(Instant::now()), body.frame()).await? {
        match frame.map_err(|e| transient(error_of(&e)))?.into_data() {
            Ok(data) => {
                let before = chunks.filled();
                chunks.take(&data)?;
                if chunks.filled() > before {
                    until = Instant::now() + NEXT_BYTE;
                } else if Instant::now() >= until {
                    return Err(silent());
                }
            }
            Err(frame) => {
                frame.trailers_ref().map_or(Ok(()), refused)?;
                trailers = frame.into_trailers().ok();
            }
        }
    }
    chunks.finish(trailers.as_ref())
}

/// What comes of `wait`, if anything does in time.
async fn within<T>(time: Duration, wait: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(time, wait).await.map_err(|_| silent())
}

fn silent() -> Error {
    Error::unavailable("it takes connections, and sends nothing")
}

/// Why a connection broke or never came about, down to the cause: a certificate, nobody who listens there, time that was over.
fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let why = Error::unavailable("the connection broke").with_source(error).chain();
    Error::unavailable(brief(why, CAUSE_BYTES_MAX))
}

/// Peers come and go: whatever breaks a stream between them is worth another attempt. What is wrong with an ingredient is not.
fn transient(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Data => error,
        kind if kind.is_transient() => error,
        _ => Error::unavailable(error.chain()),
    }
}

#[cfg(test)]
mod silence;
#[cfg(test)]
mod tests;
