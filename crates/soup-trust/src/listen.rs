//! Taking connections: as many as there are descriptors for, and none from whoever says nothing.
//!
//! Every connection that is open holds a permit. One that has not said anything within [`GREETING`] is closed, over TLS one that has not
//! shaken hands by then: whoever only opens connections holds up others for seconds. Where there are no permits left, the connection that
//! has been shaking hands for longest makes room: who can shake hands does so in a fraction of the time in which somebody who cannot could
//! open as many others as there are permits. A member has a [share](crate::shares) of them, and a client's connection over which nothing is
//! asked for a while is closed; so is one whose certificate is [believed](crate::believed) no more. Where descriptors run out all the same,
//! taking connections pauses and goes on.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::ahead::ReadAhead;
use crate::believed::Believed;
use crate::credentials::Credentials;
use crate::identity::{Identity, Role};
use crate::idle::{Idle, Open, Requests};
use crate::shares::{Share, Shares};
use crate::unread::Closing;
use crate::verify::is_for;

/// How long shaking hands may take, and how long a connection may say nothing after it.
const GREETING: Duration = Duration::from_secs(5);
/// Pauses where no connection can be taken: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Connections that are ready and wait for the server to take them.
const READY_MAX: usize = 64;
/// Descriptors that a process needs for what is no connection to it: files, stores, peers.
const DESCRIPTORS_KEPT: u64 = 512;
/// Connections that are open at the same time, whatever the system allows.
const CONNECTIONS_MAX: u64 = 4096;

/// Who is at the other end of a connection; a request's extensions have it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Who it is, where it had to prove that; none for a certificate that names no member.
    pub member: Option<Identity>,
    certificate: Option<Arc<rustls::pki_types::CertificateDer<'static>>>,
    closing: Closing,
    requests: Requests,
}

impl Peer {
    fn new(address: SocketAddr) -> Peer {
        let (closing, requests) = (Closing::default(), Requests::default());
        Peer { address, member: None, certificate: None, closing, requests }
    }

    #[cfg(test)]
    pub(crate) fn of_member(member: Identity) -> Peer {
        Peer { member: Some(member), ..Peer::of_nobody() }
    }

    #[cfg(test)]
    pub(crate) fn of_nobody() -> Peer {
        Peer::new(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    /// How its connection can be ended.
    pub(crate) fn closing(&self) -> Closing {
        self.closing.clone()
    }

    /// A request over its connection begins.
    pub(crate) fn begin(&self) -> Open {
        self.requests.begin()
    }

    /// When its connection has had no request for too long. Workers have one all the time at a coordinator, and at each other they keep
    /// connections for when they need them; and in plain text nobody knows who is who.
    fn idle(&self) -> Option<Idle> {
        let is_worker = self.member.as_ref().is_some_and(|member| member.role == Role::Worker);
        (self.certificate.is_some() && !is_worker).then(|| Idle::new(self.requests.clone()))
    }

    /// Whether it may say that it is reached at `host`. What is in its certificate is believed; without hosts in that only the address
    /// that it comes from, and without certificate anything.
    #[must_use]
    pub fn may_be_at(&self, host: &str) -> bool {
        let Some(certificate) = &self.certificate else { return true };
        if crate::verify::names_hosts(certificate) {
            return is_for(certificate, host);
        }
        host.trim_matches(['[', ']']).parse() == Ok(self.address.ip().to_canonical())
    }
}

/// A connection that somebody opened.
pub struct Connection {
    stream: Transport,
    peer: Peer,
    /// Until when it has to say something.
    greeting: Option<Pin<Box<Sleep>>>,
    /// Until when it has to ask something.
    idle: Option<Idle>,
    /// What it proved.
    believed: Option<Believed>,
    _permit: (OwnedSemaphorePermit, Share),
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

/// How many connections a process can hold open. Raises the limit on descriptors as far as it may.
#[must_use]
pub fn connections_max() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let wanted = limit.maximum.unwrap_or(DESCRIPTORS_KEPT + CONNECTIONS_MAX);
        let raised =
            rustix::process::Rlimit { current: Some(wanted.max(limit.current.unwrap_or(0))), ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    let descriptors = limit.current.unwrap_or(DESCRIPTORS_KEPT + CONNECTIONS_MAX);
    // Of few descriptors half are for connections.
    let left = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(descriptors / 2).min(CONNECTIONS_MAX);
    usize::try_from(left).unwrap_or(usize::MAX).max(1)
}

/// The connections of a listener, at most `max` open at a time: with credentials over TLS, with members of their cluster alone.
pub fn listen(
    listener: TcpListener,
    credentials: Option<Credentials>,
    max: usize,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let (ready, connections) = mpsc::channel(READY_MAX);
    let room = Room { permits: Arc::new(Semaphore::new(max)), shares: Shares::of(max) };
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, credentials, room, ready.clone()) => {}
            () = ready.closed() => {}
        }
    });
    ReceiverStream::new(connections).map(Ok)
}

/// Room for connections: in all, and for each member.
struct Room {
    permits: Arc<Semaphore>,
    shares: Arc<Shares>,
}

async fn accept(
    listener: TcpListener,
    credentials: Option<Credentials>,
    room: Room,
    ready: mpsc::Sender<Connection>,
) {
    let mut pause = PAUSE_MIN;
    let mut shaking = Shaking::default();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = PAUSE_MIN;
        let permit = match room.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                shaking.make_room();
                // Never closed.
                let Ok(permit) = room.permits.clone().acquire_owned().await else { return };
                permit
            }
        };
        let (credentials, ready, shares) = (credentials.clone(), ready.clone(), room.shares.clone());
        let task = tokio::spawn(async move {
            match timeout(GREETING, greet(stream, address, credentials.as_ref())).await {
                Ok(Ok((stream, peer, believed))) => {
                    let Some(share) = shares.take(peer.member.as_ref(), address.ip()) else {
                        let who = peer.member.map(|member| member.to_string()).unwrap_or_default();
                        return tracing::warn!(%address, who, "denied: as many connections as one member may have");
                    };
                    let greeting = Some(Box::pin(tokio::time::sleep(GREETING)));
                    let (idle, _permit) = (peer.idle(), (permit, share));
                    let connection = Connection { stream, peer, greeting, idle, believed, _permit };
                    // Where the server is gone, so is what it was for.
                    let _ = timeout(GREETING, ready.send(connection)).await;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%address, %error, "denied: a connection that proves nothing")
                }
                Err(_) => tracing::warn!(%address, "denied: a connection that does not shake hands"),
            }
        });
        shaking.add(task.abort_handle(), address);
    }
}

/// The connections that are not the server's yet, the oldest first.
#[derive(Default)]
struct Shaking(VecDeque<(AbortHandle, SocketAddr)>);

impl Shaking {
    fn add(&mut self, task: AbortHandle, address: SocketAddr) {
        // Each of those that go on holds a permit, so this is seldom, and leaves few.
        if self.0.len() >= 2 * CONNECTIONS_MAX as usize {
            self.0.retain(|(task, _)| !task.is_finished());
        }
        self.0.push_back((task, address));
    }

    /// Ends the one that has been at it for longest, if there is one.
    fn make_room(&mut self) {
        while let Some((task, address)) = self.0.pop_front() {
            if !task.is_finished() {
                tracing::warn!(%address, "denied: a connection that did not shake hands and made room for another");
                task.abort();
                return;
            }
        }
    }
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    credentials: Option<&Credentials>,
) -> io::Result<(Transport, Peer, Option<Believed>)> {
    stream.set_nodelay(true)?;
    let Some(credentials) = credentials else {
        return Ok((Transport::Plain(stream), Peer::new(address), None));
    };
    let material = credentials.material();
    let stream = ReadAhead::of_stranger(stream);
    let mut stream = TlsAcceptor::from(material.server.clone()).accept(stream).await?;
    stream.get_mut().0.is_known();
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let certificate = chain.first().ok_or_else(|| io::Error::other("no certificate was shown"))?.clone();
    // Who is nobody hears that from the gate, which has words for it.
    let member = Identity::of_certificate(&certificate).ok();
    let peer = Peer { member, certificate: Some(Arc::new(certificate)), ..Peer::new(address) };
    let believed = Believed::new(credentials.clone(), chain);
    Ok((Transport::Tls(Box::new(stream)), peer, Some(believed)))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.peer.closing.is_closed(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Some(believed) = &mut self.believed
            && let Poll::Ready(error) = believed.is_over(cx)
        {
            let (address, who) = (self.peer.address, self.peer.member.as_ref().map(ToString::to_string));
            tracing::warn!(%address, who, %error, "denied: what a connection proved does not hold any more");
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let read = match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        };
        if read.is_ready() && buf.filled().len() > before {
            self.greeting = None;
        }
        if read.is_pending()
            && let Some(greeting) = &mut self.greeting
            && greeting.as_mut().poll(cx).is_ready()
        {
            tracing::debug!(address = %self.peer.address, "closed a connection that says nothing");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if read.is_pending()
            && let Some(idle) = &mut self.idle
            && idle.is_over(cx).is_ready()
        {
            tracing::debug!(address = %self.peer.address, "closed a connection over which nothing is asked");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
