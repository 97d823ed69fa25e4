//! What an operator and the systems of an operator ask a process: whether it lives, whether it is ready, what it counts.
//!
//! This is plain HTTP/1.1, off unless an address is given. It takes no orders: whoever reaches it can look, and nothing else. It depends on
//! nothing that may be away: no store, no coordinator, no peer.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 as long as the process answers at all |
//! | `/readyz` | 200 if it does what it is there for, else 503: see [`Metrics::ready`](soup_metrics::Metrics::ready) |
//! | `/metrics` | all that it counts, for Prometheus |
//! | `/` | what a coordinator does, as it happens ([`live`]); elsewhere these paths |
//!
//! Probes always get through: a connection is for one question, streams of events are at most half of all, and of the others the oldest
//! makes room where there is none.

mod live;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
pub use live::Watch;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use soup_core::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// Streams of events among them.
const STREAMS_MAX: usize = CONNECTIONS_MAX / 2;
/// How long a connection may take to ask for something.
const ASKS_WITHIN: Duration = Duration::from_secs(5);
/// How long one that is no stream of events may last: whoever asks reads the answer, too.
const LASTS: Duration = Duration::from_secs(30);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after connections could not be taken, mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that listens already, so that a wrong address ends a process when it begins.
pub struct Admin {
    listener: TcpListener,
}

impl Admin {
    /// Listens on `address`, HOST:PORT.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where that cannot be had.
    pub async fn listen(address: &str) -> Result<Admin> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Error::configuration(format!("cannot listen on {address:?} for --admin")).with_source(e)
        })?;
        Ok(Admin { listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where the system does not say.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|e| Error::internal("a listener has no address").with_source(e))
    }

    /// Answers for as long as this is polled; where there is something to watch, with a page that shows it.
    pub async fn serve(self, watch: Option<Watch>) -> Infallible {
        let routes = match watch {
            Some(watch) => routes().merge(live::routes(watch)),
            None => routes().route("/", get(paths)),
        };
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut open = Open::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot take a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if places.available_permits() == 0 {
                open.make_room();
            }
            // Never closed, and given back as soon as there is room.
            let Ok(place) = places.clone().acquire_owned().await else { continue };
            let streams = Streams::default();
            let answering = answer(stream, routes.clone(), streams.clone());
            let task = tokio::spawn(async move {
                answering.await;
                drop(place);
            });
            open.add(task.abort_handle(), streams);
        }
    }
}

/// Whether a connection has become a stream of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<AtomicBool>);

impl Streams {
    /// It has.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connections that are open, the oldest first.
#[derive(Default)]
struct Open(VecDeque<(AbortHandle, Streams)>);

impl Open {
    fn add(&mut self, task: AbortHandle, streams: Streams) {
        self.0.retain(|(task, _)| !task.is_finished());
        self.0.push_back((task, streams));
    }

    /// Ends the oldest one that is no stream of events: those are not all.
    fn make_room(&mut self) {
        let oldest = self.0.iter().position(|(task, streams)| !task.is_finished() && !streams.is());
        if let Some((task, _)) = oldest.and_then(|at| self.0.remove(at)) {
            tracing::debug!("a connection to the admin port made room for another");
            task.abort();
        }
    }
}

/// How long an admin port may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read: what is asked for has a few.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What the admin port of a process at HOST:PORT answers when it is asked for `path`: the status, and the text.
///
/// # Errors
/// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where nothing answers in time;
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where what answers is no web server.
pub async fn ask(address: &str, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
        // What speaks something else may answer and hang up.
        if answer.is_empty() {
            read?;
        }
        Ok::<_, std::io::Error>(answer)
    };
    let silent = || Error::unavailable(format!("nothing answers at {address}"));
    let answer = tokio::time::timeout(ANSWERS_WITHIN, exchange).await;
    let answer = answer.map_err(|_| silent())?.map_err(|e| silent().with_source(e))?;
    let answer = String::from_utf8_lossy(&answer);
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| Error::configuration(format!("what answers at {address} is no admin port")))
}

/// Answers what is asked over one connection, which `streams` says more of.
async fn answer(stream: TcpStream, routes: Router, streams: Streams) {
    let routes = routes.layer(Extension(streams.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKS_WITHIN)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let too_long = async {
        tokio::time::sleep(LASTS).await;
        if streams.is() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the admin port ended");
        },
        () = too_long => tracing::debug!("a connection to the admin port took too long"),
    }
}

fn routes() -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

async fn paths() -> &'static str {
    "/livez\n/readyz\n/metrics\n"
}

async fn ready() -> (StatusCode, &'static str) {
    match soup_metrics::metrics().ready.get() {
        0 => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => (StatusCode::OK, "ready\n"),
    }
}

async fn metrics() -> Response {
    ([(CONTENT_TYPE, soup_metrics::CONTENT_TYPE)], soup_metrics::text()).into_response()
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::ask as ask_port;
    use super::*;

    /// Sends `request` over `stream` and reads what comes back until the other end closes.
    async fn send(mut stream: TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // What is closed before all was read counts too.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    async fn get_path(address: SocketAddr, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        send(TcpStream::connect(address).await.unwrap(), &request).await
    }

    async fn start() -> SocketAddr {
        let admin = Admin::listen("127.0.0.1:0").await.unwrap();
        let address = admin.address().unwrap();
        tokio::spawn(admin.serve(None));
        address
    }

    #[tokio::test]
    async fn it_says_whether_it_lives_and_is_ready_and_what_it_counts() {
        let address = start().await;
        assert!(get_path(address, "/livez").await.starts_with("HTTP/1.1 200 OK"));
        assert!(get_path(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        soup_metrics::metrics().ready.set(1);
        assert!(get_path(address, "/readyz").await.ends_with("\r\n\r\nready\n"));
        soup_metrics::metrics().ready.set(0);
        let metrics = get_path(address, "/metrics").await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
        assert!(metrics.contains("\nsoup_ready 0\n"), "{metrics}");
        assert!(get_path(address, "/").await.ends_with("/livez\n/readyz\n/metrics\n"));
        assert!(get_path(address, "/other").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn a_page_shows_what_is_watched_and_loads_nothing_from_elsewhere() {
        let admin = Admin::listen("127.0.0.1:0").await.unwrap();
        let address = admin.address().unwrap();
        let watch: Watch = Arc::new(|| futures::stream::iter([r#"{"type":"note"}"#.to_owned()]).boxed());
        tokio::spawn(admin.serve(Some(watch)));
        let page = get_path(address, "/").await;
        assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{page}");
        assert!(!page.contains("://"), "{page}");
        for (path, kind) in [("/live.js", "text/javascript"), ("/live.css", "text/css")] {
            let file = get_path(address, path).await;
            assert!(file.contains(&format!("content-type: {kind}")) && page.contains(&path[1..]), "{file}");
        }
        let events = get_path(address, "/events").await;
        assert!(events.contains("content-type: text/event-stream"), "{events}");
        assert!(events.contains("data: {\"type\":\"note\"}\n\n"), "{events}");
        assert!(get_path(address, "/livez").await.ends_with("ok\n"));
    }

    #[tokio::test]
    async fn others_can_ask_it() {
        let address = start().await.to_string();
        assert_eq!(ask_port(&address, "/livez").await.unwrap(), (200, "ok\n".to_owned()));
        let gone = ask_port("127.0.0.1:1", "/livez").await.unwrap_err();
        assert_eq!(gone.kind(), soup_core::ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let address = start().await;
        let connect = || async { TcpStream::connect(address).await.unwrap() };
        let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert!(send(connect().await, post).await.starts_with("HTTP/1.1 405 "));
        assert!(send(connect().await, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        assert!(send(connect().await, &large).await.starts_with("HTTP/1.1 431 "));
    }

    #[tokio::test]
    async fn silent_connections_keep_nobody_out() {
        let address = start().await;
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get_path(address, "/livez").await.ends_with("ok\n"));
        // The oldest one made room.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn who_watches_keeps_no_probe_out() {
        let admin = Admin::listen("127.0.0.1:0").await.unwrap();
        let address = admin.address().unwrap();
        let watch: Watch = Arc::new(|| futures::stream::pending().boxed());
        tokio::spawn(admin.serve(Some(watch)));
        let mut watching = Vec::new();
        for nth in 0..CONNECTIONS_MAX + 1 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            let expect = if nth < STREAMS_MAX { &b"HTTP/1.1 200" } else { &b"HTTP/1.1 503" };
            assert_eq!(&status, *expect, "{nth}");
            watching.push(stream);
        }
        assert!(get_path(address, "/livez").await.ends_with("ok\n"));
        // Where one goes, another one can watch.
        watching.clear();
        let mut again = String::new();
        while !again.starts_with("HTTP/1.1 200") {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            again = String::from_utf8_lossy(&status).into_owned();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_connection_is_for_one_question() {
        let address = start().await;
        let twice = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
        let answer = send(TcpStream::connect(address).await.unwrap(), &twice).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_named() {
        let error = Admin::listen("256.0.0.1:0").await.err().unwrap();
        assert_eq!(error.kind(), soup_core::ErrorKind::Configuration);
        assert!(error.chain().contains("256.0.0.1:0"), "{}", error.chain());
    }
}
