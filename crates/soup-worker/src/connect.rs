//! How a worker reaches the coordinator and its peers.

use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::transport::{Channel, Endpoint, Error};

/// Opens connections for HTTP/2.
pub trait Connect: Send + Sync {
    /// Connects now.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Channel, Error>>;

    /// A channel that connects when it is used, and again whenever its connection is lost.
    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel;
}

/// The host's own network.
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Channel, Error>> {
        endpoint.connect().boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}
