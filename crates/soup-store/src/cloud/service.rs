//! What is between the store's client and the network.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use http::StatusCode;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use soup_metrics::{metrics, observe};
use tracing::{info, warn};

use super::keys;
use crate::places;

/// Longest that a request waits for a store that asks for patience. Signatures are valid for longer.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first pause of a request, which doubles each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest that a metadata service takes; it is in the same machine or nowhere.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Bounds of a client of plain HTTP servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an error's text that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Largest page of a listing: stores tell of a thousand keys at a time, or of five thousand.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// Most odd keys of a page that are logged.
const ODD_KEYS_LOGGED: usize = 4;

/// There are no credentials, and why. What commands print may be secret and is not in it, apart from their complaints.
#[derive(Debug)]
pub(crate) struct NoCredentials {
    why: String,
}

impl NoCredentials {
    pub(super) fn new(why: String) -> NoCredentials {
        NoCredentials { why }
    }
}

impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are no credentials: {}", self.why)
    }
}

impl std::error::Error for NoCredentials {}

/// Makes [`Service`]s.
#[derive(Debug)]
pub(super) struct Connector {
    looked_for: String,
}

impl Connector {
    /// For a store whose credentials are looked for in the places that `looked_for` names.
    pub(super) fn new(looked_for: String) -> Connector {
        Connector { looked_for }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        // Which of them is used shows with each request: places are read, and their stores made, before anything is confined to them.
        let staying = if self.looked_for.is_empty() { Some(staying()?) } else { None };
        Ok(HttpClient::new(Service { inner, staying, looked_for: self.looked_for.clone() }))
    }
}

/// A client that goes nowhere else than where it is sent: a server of the operator's choice is not asked which other one to read from.
fn staying() -> object_store::Result<HttpClient> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build();
    client
        .map(HttpClient::new)
        .map_err(|e| object_store::Error::Generic { store: "HTTP", source: Box::new(e) })
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    /// For a plain web server: what asks it where redirections are refused.
    staying: Option<HttpClient>,
    looked_for: String,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !self.looked_for.is_empty() && is_metadata(&request) {
            return self.ask_metadata(request).await;
        }
        let staying = self.staying.as_ref().filter(|_| places::confined());
        let inner = staying.unwrap_or(&self.inner);
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            let is_head = request.method() == http::Method::HEAD;
            let lists = request.method() == http::Method::GET
                && is_listing(request.uri().query().unwrap_or_default());
            let sent = Instant::now();
            let answered = inner.execute(request.clone()).await;
            show(request.method(), answered.as_ref().ok().map(HttpResponse::status), sent.elapsed());
            let response = answered?;
            let status = response.status();
            if status.is_success() {
                return if lists { without_odd_keys(response).await } else { Ok(response) };
            }
            if !(status.is_client_error() || status.is_server_error() || status.is_redirection()) {
                return Ok(response);
            }
            if staying.is_some() && status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                return Ok(elsewhere());
            }
            let asked = retry_after(&response);
            let response = with_whole_error(response, is_head).await?;
            let throttled = status == StatusCode::TOO_MANY_REQUESTS
                || (status == StatusCode::SERVICE_UNAVAILABLE && (is_head || asked.is_some() || response.1));
            let wait = asked.unwrap_or_default().max(jittered(pause));
            if !throttled || begun.elapsed() + wait > PATIENCE {
                return Ok(response.0);
            }
            info!("the store answers {status}: waiting {:.1} s", wait.as_secs_f64());
            metrics().store.waits.inc();
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Shows operators what became of a request: the answer's class, where there was an answer.
fn show(method: &http::Method, status: Option<StatusCode>, took: Duration) {
    let method = match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::PUT => "PUT",
        http::Method::POST => "POST",
        http::Method::DELETE => "DELETE",
        _ => "other",
    };
    let class = match status.map(|status| status.as_u16() / 100) {
        None => "none",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        Some(_) => "other",
    };
    let of = &metrics().store;
    of.requests.get_or_create(&[("method", method), ("status", class)]).inc();
    observe(&of.seconds, ("method", method), took);
}

/// What a redirection is answered with where none is followed.
fn elsewhere() -> HttpResponse {
    let text = "it redirects elsewhere, which is not followed for others: name the place itself";
    let mut response = HttpResponse::new(text.to_owned().into());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

impl Service {
    /// One quick try: where there is no metadata service, connections often hang instead of failing.
    async fn ask_metadata(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let none = || {
            let why = format!("looked for {}", self.looked_for);
            Err(HttpError::new(HttpErrorKind::Unknown, NoCredentials::new(why)))
        };
        match tokio::time::timeout(METADATA_TIMEOUT, self.inner.execute(request)).await {
            Ok(Ok(response)) if response.status().is_client_error() && !falls_back(&response) => none(),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if e.kind() == HttpErrorKind::Interrupted => Err(e),
            Ok(Err(_)) | Err(_) => none(),
        }
    }
}

/// Whether the store's client takes a refusal of the metadata service as a reason to ask in the older way.
fn falls_back(response: &HttpResponse) -> bool {
    response.status() == StatusCode::FORBIDDEN && std::env::var_os("AWS_IMDSV1_FALLBACK").is_some()
}

/// Whether a request asks a cloud machine's metadata service for credentials.
fn is_metadata(request: &HttpRequest) -> bool {
    let path = request.uri().path();
    ["/latest/api/token", "/latest/meta-data/", "/computeMetadata/v1/", "/metadata/identity/"]
        .iter()
        .any(|p| path.starts_with(p))
        && request.uri().scheme_str() == Some("http")
}

fn is_listing(query: &str) -> bool {
    query.split('&').any(|p| p == "list-type=2" || p == "comp=list")
}

/// How long the store asks to wait.
fn retry_after(response: &HttpResponse) -> Option<Duration> {
    let seconds: u64 = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(PATIENCE.as_secs())))
}

/// Between half of `pause` and all of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    pause.mul_f64(0.5 + 0.5 * f64::from(now.subsec_micros() % 1000) / 1000.0)
}

/// The response with the start of its error in memory, and whether that asks for fewer requests.
async fn with_whole_error(response: HttpResponse, is_head: bool) -> Result<(HttpResponse, bool), HttpError> {
    let (mut parts, body) = response.into_parts();
    let mut text = Vec::new();
    let mut chunks = body.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        text.extend_from_slice(&chunk?);
        if text.len() > ERROR_BYTES_MAX {
            text.truncate(ERROR_BYTES_MAX);
            break;
        }
    }
    // S3 sends those who ask in the wrong region somewhere else without saying where; the client then drops what it says.
    if parts.status.is_redirection()
        && !parts.headers.contains_key("location")
        && parts.status != StatusCode::NOT_MODIFIED
    {
        let region = parts.headers.get("x-amz-bucket-region").and_then(|r| r.to_str().ok());
        text = wrong_region(region).into_bytes();
        parts.status = StatusCode::BAD_REQUEST;
    }
    let slow = [
        "SlowDown",
        "ServerBusy",
        "Throttl",
        "RequestLimitExceeded",
        "reduce your request rate",
        "TooManyRequests",
    ];
    let shown = String::from_utf8_lossy(&text);
    let throttled = slow.iter().any(|s| shown.contains(s));
    if is_head {
        parts.headers.remove("content-length");
    }
    Ok((HttpResponse::from_parts(parts, text.into()), throttled))
}

fn wrong_region(region: Option<&str>) -> String {
    let is_name = |r: &&str| r.len() <= 32 && r.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let advice = match region.filter(is_name) {
        Some(region) => format!("the bucket is in region {region}: set AWS_REGION={region}"),
        None => "the bucket is in another region: set AWS_REGION".to_owned(),
    };
    format!("<Error><Code>PermanentRedirect</Code><Message>{advice}</Message></Error>")
}

tokio::task_local! {
    /// Keys that listings of this task left out.
    static LEFT_OUT: Mutex<Vec<String>>;
}

/// What `listing` comes to, and the first keys that were left out of it because they are no path.
pub(crate) async fn with_left_out<T>(listing: impl Future<Output = T>) -> (T, Vec<String>) {
    let all = async {
        let listed = listing.await;
        let left_out = LEFT_OUT.with(|left_out| left_out.lock().map(|keys| keys.clone()).unwrap_or_default());
        (listed, left_out)
    };
    LEFT_OUT.scope(Mutex::default(), all).await
}

tokio::task_local! {
    /// Pages that the listing of this task may have yet.
    static PAGES_LEFT: AtomicUsize;
}

/// What `listing` comes to, which may have so many pages: where a store always tells of one more it would go on for ever.
pub(crate) async fn within_pages<T>(most: usize, listing: impl Future<Output = T>) -> T {
    PAGES_LEFT.scope(AtomicUsize::new(most), listing).await
}

/// A listing, or a page of one, goes on and on.
#[derive(Debug)]
pub(crate) struct Endless {
    what: &'static str,
}

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Endless {}

/// A page of a listing, where one more may be.
async fn page_of(body: HttpResponseBody) -> Result<Vec<u8>, HttpError> {
    let endless = |what| HttpError::new(HttpErrorKind::Unknown, Endless { what });
    let one_less = |left: &AtomicUsize| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    // Nobody may be counting.
    if !PAGES_LEFT.try_with(one_less).unwrap_or(true) {
        return Err(endless("its listing has too many pages: name a folder that holds less"));
    }
    let (mut page, mut chunks) = (Vec::new(), body.bytes_stream());
    while let Some(chunk) = chunks.next().await {
        page.extend_from_slice(&chunk?);
        if page.len() > PAGE_BYTES_MAX {
            return Err(endless("a page of its listing does not end"));
        }
    }
    Ok(page)
}

/// The page without keys that the store's client would stop at.
async fn without_odd_keys(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = response.into_parts();
    let page = page_of(body).await?;
    let Ok(text) = std::str::from_utf8(&page) else {
        return Ok(HttpResponse::from_parts(parts, page.into()));
    };
    let (kept, odd) = keys::usable(text);
    if odd.is_empty() && kept.len() == text.len() {
        return Ok(HttpResponse::from_parts(parts, page.into()));
    }
    if !odd.is_empty() {
        let shown = &odd[..odd.len().min(ODD_KEYS_LOGGED)];
        warn!("keys that are no path are left out of a listing ({}), such as {shown:?}", odd.len());
        // Nobody may be listening.
        let _ = LEFT_OUT.try_with(|left_out| {
            if let Ok(mut left_out) = left_out.lock() {
                left_out.extend(shown.iter().cloned());
            }
        });
    }
    parts.headers.remove("content-length");
    Ok(HttpResponse::from_parts(parts, kept.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_that_are_left_out_of_a_page_are_told() {
        let page = "<L><Contents><Key>val//1.parquet</Key></Contents><Contents><Key>val/2.parquet</Key></Contents></L>";
        let answer = || HttpResponse::new(page.to_owned().into());
        let (listed, left_out) = with_left_out(without_odd_keys(answer())).await;
        let kept = listed.unwrap().into_body().bytes().await.unwrap();
        assert_eq!(&kept[..], b"<L><Contents><Key>val/2.parquet</Key></Contents></L>");
        assert_eq!(left_out, ["val//1.parquet"]);
        // Where nobody asks, a listing is none the worse.
        assert!(without_odd_keys(answer()).await.is_ok());
    }

    #[tokio::test]
    async fn listings_and_pages_of_them_have_an_end() {
        let pages = async |count: usize| {
            for _ in 0..count {
                without_odd_keys(HttpResponse::new("<L></L>".to_owned().into())).await?;
            }
            Ok::<_, HttpError>(())
        };
        within_pages(3, pages(3)).await.unwrap();
        let error = within_pages(3, pages(4)).await.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("too many pages"));
        // Where nobody counts there may be any.
        pages(4).await.unwrap();
        let large = HttpResponse::new(vec![b' '; PAGE_BYTES_MAX + 1].into());
        without_odd_keys(large).await.unwrap_err();
    }
}
