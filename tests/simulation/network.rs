//! The simulated network, as tonic takes it: connections for servers, channels for clients.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use hyper_util::rt::TokioIo;
use soup_trust::Connect;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use turmoil::net::{TcpListener, TcpStream};

/// One end of a connection.
pub struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connections to `port` of this host.
pub async fn listen(port: u16) -> io::Result<impl Stream<Item = io::Result<Connection>> + Send + 'static> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    Ok(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| Connection(stream));
        Some((accepted, listener))
    }))
}

/// Opens channels over the simulated network. The name `coordinator` means the host of that number.
#[derive(Clone, Default)]
pub struct Network {
    pub coordinator: Arc<AtomicUsize>,
}

async fn dial(network: Network, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
    let host = match uri.host().unwrap_or_default() {
        "coordinator" => format!("coordinator{}", network.coordinator.load(Ordering::Relaxed)),
        other => other.to_owned(),
    };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
    Ok(TokioIo::new(stream))
}

impl Connect for Network {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Channel, Error>> {
        let network = self.clone();
        endpoint.connect_with_connector(tower::service_fn(move |uri| dial(network.clone(), uri))).boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        let network = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| dial(network.clone(), uri)))
    }
}
