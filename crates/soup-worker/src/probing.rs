//! Whether this worker reaches its peers: it connects to them as it does to fetch from them, and fetches nothing.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use soup_core::Error;
use soup_core::error::brief;
use soup_proto::v1::{Peer, Reached};
use soup_trust::Connect;
use tokio::time::Instant;
use tonic::transport::Endpoint;

/// How long connecting to one may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are tried at a time.
const AT_ONCE: usize = 64;
/// Peers that are tried; a cluster has fewer.
const PEERS_MAX: usize = 4096;
/// Longest text of why one is not reached, in bytes: those of all peers are one message.
const WHY_BYTES_MAX: usize = 1 << 10;

/// What comes of connecting to each of `peers`.
pub(crate) async fn reach(connect: &dyn Connect, peers: Vec<Peer>) -> Vec<Reached> {
    let tries = peers.into_iter().take(PEERS_MAX).map(|Peer { worker, address }| async move {
        let begun = Instant::now();
        let error = try_one(connect, address).await.err().map(|why| brief(why, WHY_BYTES_MAX));
        let milliseconds = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        Reached { worker, milliseconds, error }
    });
    stream::iter(tries).buffer_unordered(AT_ONCE).collect().await
}

/// Why a peer cannot be reached.
async fn try_one(connect: &dyn Connect, address: String) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(address).map_err(|_| "it says that it is where no URL leads")?;
    let endpoint = endpoint.connect_timeout(PATIENCE);
    match tokio::time::timeout(PATIENCE, connect.connect(&endpoint)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::unavailable("it cannot be reached").with_source(error).chain()),
        Err(_) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use soup_trust::{Dialer, InProcess, Role};

    use super::*;

    fn peer(worker: u64, address: &str) -> Peer {
        Peer { worker, address: address.to_owned() }
    }

    #[tokio::test]
    async fn what_is_there_is_told_from_what_is_not() {
        let network = InProcess::default();
        let listener = network.listen("w1").unwrap();
        let serve = tonic::transport::Server::builder()
            .add_routes(tonic::service::Routes::default())
            .serve_with_incoming(listener);
        tokio::spawn(serve);
        let peers = vec![peer(1, "mem://w1"), peer(2, "mem://w2"), peer(3, "no url")];
        let mut reached = reach(&network, peers).await;
        reached.sort_by_key(|r| r.worker);
        let errors: Vec<Option<&str>> = reached.iter().map(|r| r.error.as_deref()).collect();
        assert_eq!(errors[0], None);
        assert!(errors[1].unwrap().contains("nobody listens at mem://w2"), "{errors:?}");
        assert!(errors[2].unwrap().contains("no URL"), "{errors:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_connections_and_says_nothing_is_not_there() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", silent.local_addr().unwrap());
        let dialer = Dialer::new(None, false, Role::Worker);
        let reached = reach(&dialer, vec![peer(1, &address)]).await;
        assert!(reached[0].error.is_some(), "{reached:?}");
    }
}
