//! Blends between peers at the speed of TCP? `cargo bench -p soup-worker --bench peers`
//!
//! One worker holds every shard of a model and has blended them; three others, on a runtime of their own, assemble the
//! model, one over loopback, one over TLS on it, and one over the network inside a process that an embedded cluster has: the
//! service and the fetches of a run. In the same rounds, the same bytes go in the same chunks over plain TCP streams between the same
//! runtimes into the same memory. Best of several rounds, because machines are shared.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, unreachable_pub)]

mod cost;
mod pool;

use std::sync::Arc;

use cost::{Cost, measure};
use pool::Pool;
use soup_core::soup::{Ingredient, Soup};
use soup_proto::CHUNK_BYTES_MAX;
use soup_proto::v1::{Peer, Placement};
use soup_trust::{Connect, Credentials, Dialer, InProcess, Role};
use soup_worker::Tcp;
use soup_worker::bench::BenchWorker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::server::TcpIncoming;

/// Sixteen shards of 64 MiB.
const MODEL_BYTES: usize = 1 << 30;
const SHARD_BYTES: usize = 64 << 20;
const ROUNDS: usize = 5;
const CONNECTIONS_MAX: usize = 64;
const STREAMS: [usize; 3] = [1, 4, 8];

fn main() {
    let (serving, fetching) = (runtime(), runtime());
    let pool = serving.block_on(Pool::write(1, MODEL_BYTES));
    let network = InProcess::default();
    let owner = worker(&serving, &pool, Arc::new(Tcp));
    let over_tcp = worker(&fetching, &pool, Arc::new(Tcp));
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    soup_trust::token::init(&token).unwrap();
    let credentials = Credentials::of_token(&token, Role::Worker, "bench").unwrap();
    let dialer = Dialer::new(Some(credentials.clone()), false, Role::Worker);
    let over_tls = worker(&fetching, &pool, Arc::new(dialer));
    let in_process = worker(&fetching, &pool, Arc::new(network.clone()));
    let soup = Soup::single(Ingredient(0));
    let mut expected = vec![0; MODEL_BYTES];
    serving.block_on(async {
        for load in &pool.loads {
            owner.load(load.clone()).await.unwrap();
        }
        // From its own shards: this makes the blends that are served.
        owner.assemble(&soup, &mut expected).await.unwrap();
    });
    let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    place(&over_tcp, 2, &pool, format!("http://{}", listener.local_addr().unwrap()));
    let secure = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    place(&over_tls, 3, &pool, format!("https://{}", secure.local_addr().unwrap()));
    let inside = network.listen("owner").unwrap();
    place(&in_process, 4, &pool, inside.address());
    serving.block_on(async {
        owner.serve(TcpIncoming::from(listener).with_nodelay(Some(true)));
        owner.serve(soup_trust::listen(secure, Some(credentials), CONNECTIONS_MAX));
        owner.serve(inside);
    });

    let mut raw: Vec<Raw> = STREAMS.iter().map(|&n| Raw::connect(&serving, &fetching, n)).collect();
    let mut out = vec![0; MODEL_BYTES];
    let mut costs = vec![Cost::new(MODEL_BYTES); STREAMS.len() + 3];
    for round in 0..=ROUNDS {
        let mut spent: Vec<(f64, f64)> =
            raw.iter_mut().map(|raw| measure(|| fetching.block_on(raw.fetch(&mut out)))).collect();
        for asker in [&over_tcp, &over_tls, &in_process] {
            out.fill(0);
            spent.push(measure(|| fetching.block_on(asker.assemble(&soup, &mut out)).unwrap()));
            assert!(out == expected, "what was fetched is not what was blended");
        }
        // The first round only warms up.
        if round > 0 {
            costs.iter_mut().zip(spent).for_each(|(cost, spent)| cost.add(spent));
        }
    }
    let (Some(inside), Some(secure), Some(peers)) = (costs.pop(), costs.pop(), costs.pop()) else { return };
    println!("peers: {peers}");
    let (speed, cpu) = (secure.rate() / peers.rate(), peers.cpu() / secure.cpu());
    println!("over TLS: {secure}; {speed:.2} of the speed of plain text, {cpu:.2} by CPU time");
    let (speed, cpu) = (inside.rate() / peers.rate(), peers.cpu() / inside.cpu());
    println!("inside a process: {inside}; {speed:.2} of the speed over TCP, {cpu:.2} by CPU time");
    for (streams, raw) in STREAMS.iter().zip(&costs) {
        let (speed, cpu) = (peers.rate() / raw.rate(), raw.cpu() / peers.cpu());
        println!(
            "raw TCP, {streams} streams: {raw}; peers have {speed:.2} of its speed, {cpu:.2} by CPU time"
        );
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

fn worker(runtime: &Runtime, pool: &Pool, network: Arc<dyn Connect>) -> BenchWorker {
    let _inside = runtime.enter();
    BenchWorker::on(network, 2, pool.begin.clone()).unwrap()
}

/// Tells an asker that all shards are at `address`.
fn place(asker: &BenchWorker, me: u64, pool: &Pool, address: String) {
    let placement = Placement {
        run: pool.begin.run.clone(),
        epoch: pool.begin.epoch,
        owners: vec![1; pool.loads.len()],
        peers: vec![Peer { worker: 1, address }],
    };
    asker.place(placement, me);
}

/// Plain streams over which a task at the other end sends shards when told to.
struct Raw {
    streams: Vec<TcpStream>,
}

impl Raw {
    fn connect(serving: &Runtime, fetching: &Runtime, streams: usize) -> Raw {
        let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        serving.spawn(async move {
            let blend = bytes::Bytes::from(vec![7u8; MODEL_BYTES / streams]);
            for _ in 0..streams {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let blend = blend.clone();
                tokio::spawn(async move {
                    while stream.read_u8().await.is_ok() {
                        for chunk in blend.chunks(CHUNK_BYTES_MAX) {
                            stream.write_all(chunk).await.unwrap();
                        }
                    }
                });
            }
        });
        let connect = |_| fetching.block_on(TcpStream::connect(address)).unwrap();
        Raw { streams: (0..streams).map(connect).collect() }
    }

    async fn fetch(&mut self, out: &mut [u8]) {
        let each = out.len() / self.streams.len();
        assert_eq!(each % SHARD_BYTES, 0);
        let jobs = self.streams.iter_mut().zip(out.chunks_mut(each)).map(|(stream, out)| async move {
            stream.write_u8(1).await.unwrap();
            for chunk in out.chunks_mut(CHUNK_BYTES_MAX) {
                stream.read_exact(chunk).await.unwrap();
            }
        });
        futures::future::join_all(jobs).await;
    }
}
