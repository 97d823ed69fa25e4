//! What a server takes in and gives out, bounded: how large a request may be by its method, how much of unfinished requests is held in
//! all, how many requests are open, and how long a reply may lie there unread.
//!
//! gRPC libraries make room for a message as soon as its length has come, for one bound of the whole service. Here each method has its own,
//! and the first message of a stream too ([`Sizes`]): it is looked at as it arrives, before anything is made of it.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Frame;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use crate::listen::Peer;
use crate::shares::Shares;
use crate::unread::{Held, Reply, Unread};

/// Requests that are open at the same time, on all connections.
const REQUESTS_MAX: usize = 8192;
/// Bytes of requests that have not arrived whole, on all connections.
const UNFINISHED_BYTES_MAX: usize = 512 << 20;
/// A message that small is taken whatever else is held: as many as there are requests are half of that.
const SMALL_BYTES_MAX: usize = 32 << 10;
/// What gRPC puts before a message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;

/// How large the messages of a method may be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The first one.
    pub first: usize,
    /// Those after it.
    pub others: usize,
}

impl Sizes {
    /// All of them alike.
    #[must_use]
    pub const fn of_all(bytes: usize) -> Sizes {
        Sizes { first: bytes, others: bytes }
    }
}

/// The layer of a server. Clones share what they count.
#[derive(Clone)]
pub struct Intake {
    sizes: fn(&str) -> Sizes,
    unfinished: Arc<AtomicUsize>,
    requests: Arc<Semaphore>,
    shares: Arc<Shares>,
    unread: Arc<Unread>,
}

impl Intake {
    /// Takes messages of the `sizes` that the method at a path has, and ends a connection on which somebody leaves a reply unread for
    /// so long. Call on the runtime of the server.
    #[must_use]
    pub fn new(sizes: fn(&str) -> Sizes, patience: Duration) -> Intake {
        Intake {
            sizes,
            unfinished: Arc::default(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            shares: Shares::of(REQUESTS_MAX),
            unread: Unread::watched(patience),
        }
    }
}

impl<S> Layer<S> for Intake {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { intake: self.clone(), inner }
    }
}

/// A service behind an intake.
#[derive(Clone)]
pub struct Bounded<S> {
    intake: Intake,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Ok(permit) = self.intake.requests.clone().try_acquire_owned() else {
            tracing::warn!("denied: as many requests are open as may be");
            let full = format!("{REQUESTS_MAX} requests are open here, and no more may be: try again later");
            return std::future::ready(Ok(Status::resource_exhausted(full).into_http())).boxed();
        };
        let peer = request.extensions().get::<Peer>().cloned();
        let member = peer.as_ref().and_then(|peer| peer.member.as_ref());
        // Who has no connection has no certificate either.
        let address = peer.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.address.ip());
        let Some(share) = self.intake.shares.take(member, address) else {
            let who = member.map(ToString::to_string).unwrap_or_default();
            tracing::warn!(who, "denied: as many requests are open as one member may have");
            let full = format!("the {who} has as many requests open as one may have: try again later");
            return std::future::ready(Ok(Status::resource_exhausted(full).into_http())).boxed();
        };
        let sizes = (self.intake.sizes)(request.uri().path());
        let (closing, open) = (peer.as_ref().map(Peer::closing), peer.as_ref().map(Peer::begin));
        let unfinished = Unfinished { all: self.intake.unfinished.clone(), own: 0 };
        let request = request.map(|body| Body::new(Incoming::new(body, sizes, unfinished)));
        let unread = self.intake.unread.clone();
        let answer = self.inner.call(request);
        async move {
            let mut response = answer.await?;
            let held = response.extensions_mut().remove::<Held>();
            let reply = unread.reply(closing, (permit, share, open, held));
            Ok(response.map(|body| Body::new(Reply::new(body, reply))))
        }
        .boxed()
    }
}

/// Bytes of one request that has not arrived whole.
struct Unfinished {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Unfinished {
    /// Whether so many bytes more may be held.
    fn add(&mut self, bytes: usize) -> bool {
        self.own += bytes;
        let all = self.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        all <= UNFINISHED_BYTES_MAX || self.own <= SMALL_BYTES_MAX
    }

    fn clear(&mut self) {
        self.all.fetch_sub(std::mem::take(&mut self.own), Ordering::Relaxed);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The body of a request, whose messages are looked at as they come.
struct Incoming {
    body: Body,
    sizes: Sizes,
    unfinished: Unfinished,
    /// What has come of a prefix.
    prefix: [u8; PREFIX_BYTES],
    prefixed: usize,
    /// What is missing of a message.
    left: usize,
    messages: usize,
}

impl Incoming {
    fn new(body: Body, sizes: Sizes, unfinished: Unfinished) -> Incoming {
        let (prefix, prefixed, left, messages) = ([0; PREFIX_BYTES], 0, 0, 0);
        Incoming { body, sizes, unfinished, prefix, prefixed, left, messages }
    }

    /// Takes what came.
    ///
    /// # Errors
    /// [`InvalidArgument`](tonic::Code::InvalidArgument) where the first message is larger than it may be, as it is the next time too;
    /// [`ResourceExhausted`](tonic::Code::ResourceExhausted) where a later one is, or there is too much of others.
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while let Some(&byte) = bytes.first() {
            if self.left > 0 {
                let come = bytes.len().min(self.left);
                self.left -= come;
                bytes = &bytes[come..];
                if !self.unfinished.add(come) {
                    return Err(Status::resource_exhausted(
                        "the server holds as much of unfinished requests as it may: try again later",
                    ));
                }
                if self.left == 0 {
                    self.unfinished.clear();
                }
                continue;
            }
            self.prefix[self.prefixed] = byte;
            self.prefixed += 1;
            bytes = &bytes[1..];
            if self.prefixed == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.prefixed = 0;
                self.begin(u32::from_be_bytes(length) as usize)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: usize) -> Result<(), Status> {
        let max = if self.messages == 0 { self.sizes.first } else { self.sizes.others };
        self.messages += 1;
        self.left = length;
        match length <= max {
            true => Ok(()),
            false => {
                tracing::warn!(length, max, "denied: a message that is too large");
                let why = format!("a message of {length} bytes, and at most {max} are taken here");
                Err(match self.messages {
                    1 => Status::invalid_argument(why),
                    _ => Status::resource_exhausted(why),
                })
            }
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        Poll::Ready(Some(match frame.data_ref().map(|data| this.take(data)) {
            None | Some(Ok(())) => Ok(frame),
            Some(Err(status)) => Err(status),
        }))
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming(first: usize, others: usize, all: &Arc<AtomicUsize>) -> Incoming {
        let unfinished = Unfinished { all: all.clone(), own: 0 };
        Incoming::new(Body::empty(), Sizes { first, others }, unfinished)
    }

    fn message(bytes: usize) -> Vec<u8> {
        [&[0][..], &(bytes as u32).to_be_bytes(), &vec![7; bytes]].concat()
    }

    #[test]
    fn messages_are_as_large_as_their_method_allows_however_they_are_cut() {
        for cut in [1, 3, 5, 6, 1000] {
            let all = Arc::default();
            let mut body = incoming(10, 20, &all);
            let sent = [message(10), message(0), message(20), message(3)].concat();
            sent.chunks(cut).for_each(|part| body.take(part).unwrap());
            assert_eq!((body.left, all.load(Ordering::Relaxed)), (0, 0));
            let refused = message(21).chunks(cut).find_map(|part| body.take(part).err()).unwrap();
            assert_eq!(refused.message(), "a message of 21 bytes, and at most 20 are taken here");
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
            // Whoever asks like that does so again with the same.
            let refused = incoming(10, 20, &all).take(&message(11)[..5]).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    }

    #[test]
    fn what_has_not_arrived_whole_is_bounded_together() {
        let all = Arc::default();
        let large = message(UNFINISHED_BYTES_MAX / 2 + 10);
        let most = &large[..large.len() - 1];
        let mut first = incoming(usize::MAX, 0, &all);
        first.take(most).unwrap();
        let mut second = incoming(usize::MAX, 0, &all);
        let refused = second.take(most).unwrap_err();
        assert!(refused.message().contains("unfinished requests"));
        // Small ones get through, and large ones again as soon as others are done.
        incoming(usize::MAX, 0, &all).take(&message(SMALL_BYTES_MAX)).unwrap();
        drop((first, second));
        assert_eq!(all.load(Ordering::Relaxed), 0);
        incoming(usize::MAX, 0, &all).take(most).unwrap();
    }
}
