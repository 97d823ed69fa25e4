//! Peers that say nothing, or nonsense.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;

use super::*;
use soup_trust::InProcess;

/// A reply that begins with this, if with anything, and never ends.
#[derive(Clone)]
struct Stuck(Option<Bytes>);

impl HttpBody for Stuck {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

impl NamedService for Stuck {
    const NAME: &'static str = soup_proto::v1::blends_server::SERVICE_NAME;
}

impl tower_service::Service<http::Request<Body>> for Stuck {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let stuck = self.clone();
        Box::pin(async move {
            match stuck.0 {
                Some(_) => Ok(http::Response::new(Body::new(stuck))),
                None => std::future::pending().await,
            }
        })
    }
}

/// Replies with chunks that hold nothing, one a second, and never ends.
#[derive(Clone)]
struct Empty;

impl NamedService for Empty {
    const NAME: &'static str = soup_proto::v1::blends_server::SERVICE_NAME;
}

impl tower_service::Service<http::Request<Body>> for Empty {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let chunks = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let chunk = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0]));
            Some((Ok::<_, Infallible>(chunk), ()))
        });
        let body = Body::new(http_body_util::StreamBody::new(chunks));
        Box::pin(std::future::ready(Ok(http::Response::new(body))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_nothing_in_many_chunks_is_given_up_too() {
    let network = InProcess::default();
    let listener = network.listen("peer").unwrap();
    tokio::spawn(Server::builder().add_service(Empty).serve_with_incoming(listener));
    let peers = Peers::new(Arc::new(network), false);
    let owners = Owners::new(vec![7], [(7, "mem://peer".to_owned())].into());
    let begun = Instant::now();
    let fetched = peers.fetch(&owners, 7, &FetchRequest::default(), &mut [0; 4]).await;
    let error = fetched.unwrap_err();
    assert_eq!((error.kind(), unreached(&error)), (ErrorKind::Unavailable, Some(7)));
    assert!(error.chain().contains("sends nothing"), "{}", error.chain());
    assert!((30..=32).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_nothing_any_more_is_given_up_and_named() {
    // A chunk's head, and the first of its bytes.
    let begins = Bytes::from_static(&[0, 0, 0, 0, 6, 0x0a, 4, 7]);
    for (streams, reply, seconds) in
        [(false, None, 60), (true, None, 600), (false, Some(begins.clone()), 30), (true, Some(begins), 30)]
    {
        let network = InProcess::default();
        let listener = network.listen("peer").unwrap();
        tokio::spawn(Server::builder().add_service(Stuck(reply)).serve_with_incoming(listener));
        let peers = Peers::new(Arc::new(network), streams);
        let owners = Owners::new(vec![7], [(7, "mem://peer".to_owned())].into());
        let begun = Instant::now();
        let fetched = peers.fetch(&owners, 7, &FetchRequest::default(), &mut [0; 4]).await;
        let error = fetched.unwrap_err().context("a soup");
        assert_eq!((error.kind(), unreached(&error)), (ErrorKind::Unavailable, Some(7)));
        assert!(error.chain().contains("cannot fetch shard 0 from worker 7 at mem://peer: it takes"));
        assert_eq!(begun.elapsed().as_secs(), seconds, "{}", error.chain());
    }
    assert_eq!(unreached(&Error::unavailable("the store is away").context("a soup")), None);
}

/// What a peer sends, and an address that is none, are its trouble.
#[tokio::test]
async fn a_peer_that_sends_nonsense_is_blamed_for_it() {
    let network = InProcess::default();
    let listener = network.listen("peer").unwrap();
    let nonsense = Stuck(Some(Bytes::from_static(&[9; 64])));
    tokio::spawn(Server::builder().add_service(nonsense).serve_with_incoming(listener));
    let peers = Peers::new(Arc::new(network), false);
    for (address, part) in [("mem://peer", "not a chunk"), ("no url", "is not a URL"), ("mem://nobody", "")] {
        let owners = Owners::new(vec![7], [(7, address.to_owned())].into());
        let fetched = peers.fetch(&owners, 7, &FetchRequest::default(), &mut [0; 4]).await;
        let error = fetched.unwrap_err();
        assert!(error.kind().is_transient() && error.chain().contains(part), "{}", error.chain());
        assert_eq!(unreached(&error), Some(7));
    }
}
