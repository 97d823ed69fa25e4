//! Peers that say nothing, or nonsense.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;

use super::*;
use soup_trust::InProcess;

/// What a peer answers, and never ends.
#[derive(Clone)]
enum Reply {
    /// Nothing at all.
    Nothing,
    /// A reply that begins with this.
    Begins(Bytes),
    /// Chunks that hold nothing, one a second.
    Empty,
}

impl Reply {
    /// The body of the reply; none for nothing at all.
    fn body(self) -> Option<Body> {
        let frame = |bytes: Bytes| Ok::<_, Infallible>(Frame::data(bytes));
        let begins = match self {
            Reply::Nothing => return None,
            Reply::Begins(begins) => begins,
            Reply::Empty => {
                let chunks = futures::stream::unfold((), move |()| async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Some((frame(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0])), ()))
                });
                return Some(Body::new(http_body_util::StreamBody::new(chunks)));
            }
        };
        let first = futures::stream::iter([frame(begins)]);
        Some(Body::new(http_body_util::StreamBody::new(first.chain(futures::stream::pending()))))
    }
}

impl NamedService for Reply {
    const NAME: &'static str = soup_proto::v1::blends_server::SERVICE_NAME;
}

impl tower_service::Service<http::Request<Body>> for Reply {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let reply = self.clone();
        Box::pin(async move {
            match reply.body() {
                Some(body) => Ok(http::Response::new(body)),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_nothing_in_many_chunks_is_given_up_too() {
    let network = InProcess::default();
    let listener = network.listen("peer").unwrap();
    tokio::spawn(Server::builder().add_service(Reply::Empty).serve_with_incoming(listener));
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
    let begins = Reply::Begins(begins);
    for (streams, reply, seconds) in [
        (false, Reply::Nothing, 60),
        (true, Reply::Nothing, 600),
        (false, begins.clone(), 30),
        (true, begins, 30),
    ] {
        let network = InProcess::default();
        let listener = network.listen("peer").unwrap();
        tokio::spawn(Server::builder().add_service(reply).serve_with_incoming(listener));
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
    let nonsense = Reply::Begins(Bytes::from_static(&[9; 64]));
    tokio::spawn(Server::builder().add_service(nonsense).serve_with_incoming(listener));
    let peers = Peers::new(Arc::new(network), false);
    for (address, part) in [
        ("mem://peer", "not a chunk"),
        ("no url", "is not a URL"),
        ("mem://nobody", "the connection broke: "),
        // Down to the cause.
        ("mem://nobody", "nobody listens at mem://nobody"),
    ] {
        let owners = Owners::new(vec![7], [(7, address.to_owned())].into());
        let fetched = peers.fetch(&owners, 7, &FetchRequest::default(), &mut [0; 4]).await;
        let error = fetched.unwrap_err();
        assert!(error.kind().is_transient() && error.chain().contains(part), "{}", error.chain());
        assert_eq!(unreached(&error), Some(7));
    }
}

#[test]
fn why_a_connection_broke_is_said_in_short() {
    let said = |error: std::io::Error| broken(error).chain();
    assert_eq!(said(std::io::Error::other("bad certificate")), "the connection broke: bad certificate");
    assert_eq!(said(std::io::Error::other("x".repeat(1 << 20))).len(), CAUSE_BYTES_MAX);
}

#[tokio::test]
async fn what_no_peer_would_take_is_no_peers_trouble() {
    let owners = Owners::new(vec![7], [(7, "mem://nobody".to_owned())].into());
    let rows = vec![soup_proto::v1::WeightRow { weights: vec![0.5; frames::REQUEST_BYTES_MAX / 8] }];
    let soup = Some(soup_proto::v1::Soup { members: Vec::new(), rows });
    let request = FetchRequest { soup, ..FetchRequest::default() };
    let peers = Peers::new(Arc::new(InProcess::default()), false);
    let error = peers.fetch(&owners, 7, &request, &mut [0; 4]).await.unwrap_err();
    assert_eq!((error.kind(), unreached(&error)), (ErrorKind::Data, None));
    assert!(error.chain().contains("use fewer ingredients"), "{}", error.chain());
}
