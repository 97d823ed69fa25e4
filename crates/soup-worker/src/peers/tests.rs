//! Blends over a network that changes bits.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::shard::ShardPlan;
use soup_core::soup::{Ingredient, Soup};
use soup_proto::tensors_of;
use soup_proto::v1::{BeginRun, Peer, Placement};
use soup_store::load::{Read, ReadFrom};
use soup_store::location::Location;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Error as TransportError, Server, Uri};

use super::*;
use crate::active::{Active, Worker};
use crate::sources::{ShardSources, Source};
use crate::{bench, blends, loading, service};

/// What the parameters are full of: 1.5 as f32.
const VALUE: [u8; 4] = [0, 0, 0xc0, 0x3f];
const PARAMETERS: u64 = 200_000;
/// A request takes so many bytes at least, with its ticket; acknowledgements and windows take fewer.
const REQUEST_BYTES_MIN: usize = 60;

/// The host's network, which changes a bit of so many transfers of parameters.
#[derive(Clone)]
struct Faulty(Arc<AtomicU32>);

impl Connect for Faulty {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, std::result::Result<Channel, TransportError>> {
        endpoint.connect_with_connector(self.clone()).boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self.clone())
    }
}

impl tower_service::Service<Uri> for Faulty {
    type Response = TokioIo<FaultyStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let faults = self.0.clone();
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok(TokioIo::new(FaultyStream { stream, faults, asked: false }))
        }
        .boxed()
    }
}

struct FaultyStream {
    stream: TcpStream,
    faults: Arc<AtomicU32>,
    /// Something was asked for since: one fault a transfer.
    asked: bool,
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        let read = &mut into.filled_mut()[before..];
        let parameters = VALUE.repeat(4);
        let at = read.windows(parameters.len()).position(|window| window == parameters);
        match at {
            Some(at) if self.asked && self.faults.load(Ordering::Relaxed) > 0 => {
                self.faults.fetch_sub(1, Ordering::Relaxed);
                read[at + 5] ^= 0x10;
                self.asked = false;
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.asked |= from.len() >= REQUEST_BYTES_MIN;
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A worker with the run, in which worker 1 at `owner` has the one shard.
fn worker(network: Arc<dyn Connect>, schema: &Schema, owner: &str, me: u64) -> (Arc<Worker>, Arc<Active>) {
    let worker = Arc::new(bench::worker(network, 1).unwrap());
    let begin = BeginRun {
        digest: soup_proto::v1::DigestKind::Sha256.into(),
        peer_key: vec![7; 32],
        run: "r".into(),
        epoch: 1,
        tensors: tensors_of(schema),
        shard_bytes: ShardPlan::new(schema.bytes()).shard_bytes(),
        ingredients: vec!["ingredient".into()],
        ..Default::default()
    };
    worker.begin("r".into(), 1, begin.try_into());
    let run = worker.run("r", 1).unwrap();
    let peers = vec![Peer { worker: 1, address: owner.to_owned() }];
    let shards = ShardPlan::new(schema.bytes()).count() as usize;
    run.place(Placement { run: "r".into(), epoch: 1, owners: vec![1; shards], peers }.into(), me);
    (worker, run)
}

#[tokio::test]
async fn a_blend_that_changed_on_the_way_is_fetched_again_and_its_source_named() {
    let schema = Schema::new(vec![TensorSpec::new("a", Dtype::F32, [PARAMETERS])]).unwrap();
    let plan = ShardPlan::new(schema.bytes());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (owner, owned) = worker(Arc::new(crate::Tcp), &schema, &address, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingredient");
    std::fs::write(&file, VALUE.repeat(PARAMETERS as usize)).unwrap();
    for shard in plan.shards() {
        let range = plan.range(shard);
        let location = Location::parse(file.to_str().unwrap()).unwrap();
        let read = Read { file: 0, file_offset: range.start, dest_offset: 0, len: range.end - range.start };
        let source =
            Source { files: vec![ReadFrom { location, etag: None }], reads: vec![read], ..Source::default() };
        let ingredients = vec![source];
        let task = ShardSources {
            shard: shard.0,
            tier: soup_core::machine::Tier::Memory,
            ingredients,
            products: false,
            base: None,
        };
        loading::load_shard(&owner, &owned, task).await.unwrap();
    }
    let service = service::Service::new(owner);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));

    let faults = Arc::new(AtomicU32::new(0));
    let (_asker, run) = worker(Arc::new(Faulty(faults.clone())), &schema, &address, 2);
    let soup = Soup::single(Ingredient(0));
    let shard = plan.range(soup_core::shard::Shard(0));
    let expected = VALUE.repeat((shard.end - shard.start) as usize / VALUE.len());
    for times in [0, 1, CORRUPT_MAX - 1] {
        faults.store(times, Ordering::Relaxed);
        assert!(blends::any(&run, 0, &soup).await.unwrap() == expected, "changed {times} times");
        assert_eq!(faults.load(Ordering::Relaxed), 0);
    }
    faults.store(CORRUPT_MAX, Ordering::Relaxed);
    let error = blends::any(&run, 0, &soup).await.unwrap_err();
    assert!(error.kind().is_transient());
    let expected = format!(
        "cannot fetch shard 0 from worker 1 at {address}: what arrived was not what it sent, 3 times"
    );
    assert!(error.chain().starts_with(&expected), "{}", error.chain());
}

#[tokio::test]
async fn what_peers_are_served_takes_room_for_as_long_as_somebody_has_it() {
    let schema = Schema::new(vec![TensorSpec::new("a", Dtype::F32, [PARAMETERS])]).unwrap();
    let plan = ShardPlan::new(schema.bytes());
    let (owner, run) = worker(Arc::new(crate::Tcp), &schema, "http://127.0.0.1:1", 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ingredient");
    std::fs::write(&file, VALUE.repeat(PARAMETERS as usize)).unwrap();
    let range = plan.range(soup_core::shard::Shard(0));
    let location = Location::parse(file.to_str().unwrap()).unwrap();
    let read = Read { file: 0, file_offset: 0, dest_offset: 0, len: range.end - range.start };
    let source =
        Source { files: vec![ReadFrom { location, etag: None }], reads: vec![read], ..Source::default() };
    let task = ShardSources {
        shard: 0,
        tier: soup_core::machine::Tier::Memory,
        ingredients: vec![source],
        products: false,
        base: None,
    };
    loading::load_shard(&owner, &run, task).await.unwrap();
    let (soup, bytes, max) = (Soup::single(Ingredient(0)), range.end - range.start, run.served_bytes_max());
    let mut served = Vec::new();
    for _ in 0..max / bytes {
        served.push(blends::own(&run, 0, &soup).await.unwrap());
    }
    let wanted = || run.soups.serve(bytes, max);
    assert!(wanted().now_or_never().is_none());
    let slice = served.pop().unwrap().slice(3..9);
    assert!(wanted().now_or_never().is_none(), "a part of it is under way");
    drop(slice);
    assert!(wanted().now_or_never().is_some());
}
