//! A page that shows what a process does while it does it, and what it is made of: one document, one script, one sheet of styles, and a
//! stream of events. All of it comes from this process, and nothing else is let into the page.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use tokio::sync::Semaphore;

use crate::{STREAMS_MAX, Streams};

/// How often a stream that has nothing to say says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// What a page may load: from here alone, and pictures that it has in itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What can be watched: gives a stream of JSON objects, from their first on, to everybody who asks.
pub type Watch = Arc<dyn Fn() -> BoxStream<'static, String> + Send + Sync>;

/// The page and what it asks for.
pub(crate) fn routes(watch: Watch) -> Router {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    let events = move |Extension(streams): Extension<Streams>| {
        let stream = places.clone().try_acquire_owned().ok().map(|place| {
            streams.begin();
            watch().map(move |json| {
                let _kept = &place;
                Ok::<_, Infallible>(Event::default().data(json))
            })
        });
        async move {
            let full = (StatusCode::SERVICE_UNAVAILABLE, "as many look on as may: try again later\n");
            let alive = KeepAlive::new().interval(ALIVE_EVERY);
            stream.map(|events| Sse::new(events).keep_alive(alive)).ok_or(full)
        }
    };
    Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", include_str!("live/page.html"))))
        .route("/live.js", get(async || file("text/javascript; charset=utf-8", include_str!("live/live.js"))))
        .route("/live.css", get(async || file("text/css; charset=utf-8", include_str!("live/live.css"))))
        .route("/events", get(events))
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}
