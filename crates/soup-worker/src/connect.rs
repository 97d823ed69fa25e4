//! How a worker reaches judges on its host.

use futures::FutureExt;
use futures::future::BoxFuture;
use soup_trust::Connect;
use tonic::transport::{Channel, Endpoint, Error};

/// Plain connections, to addresses and to sockets in the file system.
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Channel, Error>> {
        endpoint.connect().boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}
