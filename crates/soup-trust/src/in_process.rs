//! A network inside this process, for the roles of an embedded cluster: they speak gRPC over it as over any other, and nobody
//! else, on this host or another, has anything to connect to.
//!
//! Addresses are names, `mem://w1`. A connection is a pair of pipes in memory.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use hyper_util::rt::TokioIo;
use soup_core::{Error, Result};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Connect;

/// Scheme of the addresses.
const SCHEME: &str = "mem";
/// Connections that may wait for a listener to take them; whoever opens one more waits.
const BACKLOG: usize = 64;
/// Bytes that may be under way in each direction of a connection; whoever writes more waits. Two of the largest frames between
/// peers, so that one is written while another is read; a pipe through which nothing went yet holds none.
const PIPE_BYTES: usize = 256 << 10;

/// Listeners by name, each as the way to hand it a connection.
type Listeners = Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>;

/// A network. Clones are the same one; whoever has none cannot reach anybody on it.
#[derive(Clone, Default)]
pub struct InProcess {
    listeners: Arc<Listeners>,
}

impl InProcess {
    /// Listens as `name`, until the listener is dropped.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where somebody has that name.
    pub fn listen(&self, name: &str) -> Result<Listener> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.contains_key(name) {
            return Err(Error::internal(format!("{} has a listener already", address(name))));
        }
        let (handed, incoming) = mpsc::channel(BACKLOG);
        listeners.insert(name.to_owned(), handed);
        Ok(Listener { network: self.clone(), name: name.to_owned(), incoming })
    }

    /// Connects to whoever listens at `uri`, as soon as there is room among the connections that wait for it.
    ///
    /// # Errors
    /// Like a network's: refused where nobody listens there, or does so no longer.
    async fn dial(self, uri: Uri) -> io::Result<DuplexStream> {
        let refused = || {
            let text = format!("nobody listens at {uri} in this process");
            io::Error::new(io::ErrorKind::ConnectionRefused, text)
        };
        let listener = {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            let name = uri.host().filter(|_| uri.scheme_str() == Some(SCHEME));
            name.and_then(|name| listeners.get(name)).cloned().ok_or_else(refused)?
        };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        listener.send(theirs).await.map_err(|_| refused())?;
        Ok(ours)
    }
}

impl Connect for InProcess {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, std::result::Result<Channel, tonic::transport::Error>> {
        endpoint.connect_with_connector(Dialer(self.clone())).boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Dialer(self.clone()))
    }
}

/// The connections that are opened to a name, as tonic takes them.
pub struct Listener {
    network: InProcess,
    name: String,
    incoming: mpsc::Receiver<DuplexStream>,
}

impl Listener {
    /// The URL at which it is reached.
    #[must_use]
    pub fn address(&self) -> String {
        address(&self.name)
    }
}

impl Stream for Listener {
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.incoming.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.network.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn address(name: &str) -> String {
    format!("{SCHEME}://{name}")
}

/// The network as tonic asks for connections.
struct Dialer(InProcess);

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.0.clone().dial(uri).map(|dialled| dialled.map(TokioIo::new)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use futures::future::join_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What is still waiting after so long waits for somebody.
    const LONG: Duration = Duration::from_millis(50);

    fn uri(address: &str) -> Uri {
        address.parse().unwrap()
    }

    #[track_caller]
    fn refuses(dialled: io::Result<DuplexStream>, address: &str) {
        let error = dialled.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(address), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_refused_by_name() {
        let network = InProcess::default();
        let _listener = network.listen("w1").unwrap();
        refuses(network.clone().dial(uri("mem://w2")).await, "mem://w2");
        // Nor is another network's address taken for one here, nor this one's name known to another.
        refuses(network.clone().dial(uri("http://w1")).await, "http://w1");
        refuses(InProcess::default().dial(uri("mem://w1")).await, "mem://w1");
        // Through all of tonic the name is still there.
        let endpoint = Endpoint::from_static("mem://w2");
        let error = Error::unavailable("no").with_source(network.connect(&endpoint).await.unwrap_err());
        assert!(error.chain().contains("nobody listens at mem://w2"), "{}", error.chain());
    }

    #[tokio::test]
    async fn a_listener_that_is_gone_ends_what_waited_for_it_and_leaves_its_name() {
        let network = InProcess::default();
        let listener = network.listen("w1").unwrap();
        let taken = network.listen("w1").err().unwrap();
        assert!(taken.chain().contains("mem://w1"), "{}", taken.chain());
        let mut waited = network.clone().dial(uri("mem://w1")).await.unwrap();
        drop(listener);
        assert_eq!(waited.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(waited.write(&[1]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        refuses(network.clone().dial(uri("mem://w1")).await, "mem://w1");
        let _next = network.listen("w1").unwrap();
        network.dial(uri("mem://w1")).await.unwrap();
    }

    #[tokio::test]
    async fn many_connect_at_a_time_and_each_hears_its_own() {
        let network = InProcess::default();
        let mut listener = network.listen("w1").unwrap();
        tokio::spawn(async move {
            while let Some(Ok(mut connection)) = listener.next().await {
                tokio::spawn(async move {
                    let said = connection.read_u32().await.unwrap();
                    connection.write_u32(said + 1).await.unwrap();
                });
            }
        });
        let ask = async |number: u32| {
            let mut connection = network.clone().dial(uri("mem://w1")).await.unwrap();
            connection.write_u32(number).await.unwrap();
            connection.read_u32().await.unwrap()
        };
        let heard = join_all((0..10 * BACKLOG as u32).map(ask)).await;
        assert!(heard.into_iter().eq(1..=10 * BACKLOG as u32));
    }

    #[tokio::test]
    async fn whoever_opens_too_many_connections_waits() {
        let network = InProcess::default();
        let mut listener = network.listen("w1").unwrap();
        let dial = || network.clone().dial(uri("mem://w1"));
        let _waiting = join_all((0..BACKLOG).map(|_| dial())).await;
        let mut one_more = Box::pin(dial());
        tokio::time::timeout(LONG, &mut one_more).await.unwrap_err();
        listener.next().await.unwrap().unwrap();
        one_more.await.unwrap();
        // And is refused where the listener ends instead.
        let mut one_more = Box::pin(dial());
        tokio::time::timeout(LONG, &mut one_more).await.unwrap_err();
        drop(listener);
        refuses(one_more.await, "mem://w1");
    }

    #[tokio::test]
    async fn whoever_writes_too_much_waits_for_the_reader() {
        let network = InProcess::default();
        let mut listener = network.listen("w1").unwrap();
        let mut near = network.dial(uri("mem://w1")).await.unwrap();
        let mut far = listener.next().await.unwrap().unwrap();
        assert_eq!(near.write(&vec![7; 2 * PIPE_BYTES]).await.unwrap(), PIPE_BYTES);
        tokio::time::timeout(LONG, near.write(&[8])).await.unwrap_err();
        far.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(near.write(&[8; 9]).await.unwrap(), 3);
    }
}
