//! Opening connections: with credentials over TLS, to a member with a certain role.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{ServerName, UnixTime};
use soup_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::ahead::ReadAhead;
use crate::credentials::Credentials;
use crate::identity::Role;

/// Opens connections for HTTP/2.
pub trait Connect: Send + Sync {
    /// Connects now.
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Channel, tonic::transport::Error>>;

    /// A channel that connects when it is used, and again whenever its connection is lost.
    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel;
}

/// The host's own network, to members with one role: `http` in plain text, `https` with credentials.
#[derive(Clone)]
pub struct Dialer {
    credentials: Option<Credentials>,
    /// Plain text is spoken to other hosts too.
    insecure: bool,
    role: Role,
}

impl Dialer {
    /// A dialer to members with `role`. Without credentials it reaches nobody beyond loopback, unless it is meant to be insecure.
    #[must_use]
    pub fn new(credentials: Option<Credentials>, insecure: bool, role: Role) -> Dialer {
        Dialer { credentials, insecure, role }
    }

    async fn dial(self, uri: Uri) -> io::Result<TokioIo<Pin<Box<dyn Duplex>>>> {
        let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let host = uri.host().ok_or_else(|| wrong(format!("{uri} has no host")))?;
        let host = host.trim_matches(['[', ']']);
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong(format!("{uri} is neither http nor https"))),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = self.reach(host, port, secure).await?;
        stream.set_nodelay(true)?;
        if !secure {
            return Ok(TokioIo::new(Box::pin(stream)));
        }
        let credentials = self
            .credentials
            .ok_or_else(|| wrong(format!("{uri} needs credentials: give --tls or --token-file")))?;
        let material = credentials.material();
        material.check_time(UnixTime::now()).map_err(io::Error::other)?;
        let config = material.client(self.role).map_err(|e| io::Error::other(e.chain()))?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| wrong(format!("{host:?} is no name of a host")))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, ReadAhead::new(stream)).await?;
        Ok(TokioIo::new(Box::pin(stream)))
    }

    /// Connects to the first of a host's addresses that answers.
    async fn reach(&self, host: &str, port: u16, secure: bool) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{host:?} has no address"));
        for address in tokio::net::lookup_host((host, port)).await? {
            if !secure && !self.insecure && !address.ip().to_canonical().is_loopback() {
                let text = format!(
                    "{address} is beyond loopback, and plain text is spoken there with --insecure only"
                );
                failed = io::Error::new(io::ErrorKind::PermissionDenied, text);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Connect for Dialer {
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Channel, tonic::transport::Error>> {
        endpoint.connect_with_connector(self.clone()).boxed()
    }

    fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(self.clone())
    }
}

/// A connection of either kind.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<Pin<Box<dyn Duplex>>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.clone().dial(uri).boxed()
    }
}

/// Refuses plain text with what is beyond loopback, unless that is wanted. `what` is what speaks it, with a verb.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), saying what to do.
pub fn plain_beyond_loopback(what: &str, addresses: &[SocketAddr], insecure: bool) -> Result<()> {
    match addresses.iter().find(|a| !a.ip().to_canonical().is_loopback()) {
        Some(address) if !insecure => Err(Error::configuration(format!(
            "{what} {address}, beyond this host, in plain text: anybody there could read along, take part and decide. Give --tls FOLDER \
             or --token-file FILE (soupctl ca makes either), or --insecure where only friends can reach it"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_host_unless_that_is_wanted() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let here = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"].map(address);
        plain_beyond_loopback("listens on", &here, false).unwrap();
        for there in
            ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "169.254.1.1:1", "[::ffff:10.0.0.1]:1"].map(address)
        {
            let error = plain_beyond_loopback("listens on", &[here[0], there], false).unwrap_err();
            assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
            assert!(error.chain().contains(&there.to_string()), "{}", error.chain());
            plain_beyond_loopback("listens on", &[there], true).unwrap();
        }
    }

    #[tokio::test]
    async fn a_dialer_without_credentials_stays_on_this_host() {
        let dialer = Dialer::new(None, false, Role::Coordinator);
        let dial = |uri: &'static str| dialer.clone().dial(Uri::from_static(uri));
        let error = dial("http://192.0.2.1:7070").await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        for uri in ["ftp://127.0.0.1:1", "mem://w1"] {
            assert_eq!(dial(uri).await.err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let error = dialer.dial(uri).await.err().unwrap();
        assert!(error.to_string().contains("--tls"), "{error}");
    }
}
