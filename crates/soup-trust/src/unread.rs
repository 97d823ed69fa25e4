//! Replies that nobody reads. HTTP/2 sends as much as the reader has room for, and asks for more of a reply only then. So a reply of which
//! a part was given out and that is not asked for the next one lies there, with all that it keeps; and whoever lets it lie costs the server
//! that, for as long as it looks on. It does so for a while ([`Unread`]) and then ends the connection: nothing could be said to a
//! reader that does not read.

use std::any::Any;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::Frame;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

/// A response's extension: what is kept until its body was read or is given up.
#[derive(Clone)]
pub struct Held {
    _what: Arc<dyn Any + Send + Sync>,
}

impl Held {
    /// Keeps `what`.
    pub fn new(what: impl Any + Send + Sync) -> Held {
        Held { _what: Arc::new(what) }
    }
}

/// A connection that can be ended from elsewhere.
#[derive(Clone, Default)]
pub(crate) struct Closing(Arc<Closed>);

#[derive(Default)]
struct Closed {
    closed: AtomicBool,
    reader: AtomicWaker,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Closing").field(&self.0.closed).finish()
    }
}

impl Closing {
    /// Ends it.
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.reader.wake();
    }

    /// Whether it was ended; whoever asks is woken when it is.
    pub(crate) fn is_closed(&self, cx: &Context<'_>) -> bool {
        self.0.reader.register(cx.waker());
        self.0.closed.load(Ordering::Acquire)
    }
}

/// The replies of a server that are under way.
pub(crate) struct Unread {
    patience: Duration,
    replies: Mutex<Vec<Weak<UnderWay>>>,
}

/// A reply that is under way.
pub(crate) struct UnderWay {
    /// Since when a part of it is given out and no other one was asked for.
    given: Mutex<Option<Instant>>,
    connection: Option<Closing>,
    _held: Box<dyn Any + Send + Sync>,
}

impl Unread {
    /// Looks after replies on a task of its own, for as long as anybody holds this.
    pub(crate) fn watched(patience: Duration) -> Arc<Unread> {
        let unread = Arc::new(Unread { patience, replies: Mutex::default() });
        let watched = Arc::downgrade(&unread);
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(patience / 4);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let Some(unread) = watched.upgrade() else { return };
                unread.look(Instant::now());
            }
        });
        unread
    }

    /// A reply on a connection, which keeps `held`.
    pub(crate) fn reply(&self, connection: Option<Closing>, held: impl Any + Send + Sync) -> Arc<UnderWay> {
        let reply = Arc::new(UnderWay { given: Mutex::new(None), connection, _held: Box::new(held) });
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        if replies.len() == replies.capacity() {
            replies.retain(|reply| reply.strong_count() > 0);
        }
        replies.push(Arc::downgrade(&reply));
        reply
    }

    /// Ends the connections of those that nobody reads.
    fn look(&self, now: Instant) {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.retain(|reply| {
            let Some(reply) = reply.upgrade() else { return false };
            let given = *reply.given.lock().unwrap_or_else(PoisonError::into_inner);
            let unread = given.is_some_and(|since| now.duration_since(since) >= self.patience);
            if let (true, Some(connection)) = (unread, &reply.connection) {
                tracing::warn!(
                    seconds = self.patience.as_secs(),
                    "cut off: nothing of a reply was read for so long"
                );
                connection.close();
            }
            true
        });
    }
}

/// The body of a reply.
pub(crate) struct Reply {
    body: Body,
    reply: Arc<UnderWay>,
}

impl Reply {
    pub(crate) fn new(body: Body, reply: Arc<UnderWay>) -> Reply {
        Reply { body, reply }
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        let given = matches!(frame, Poll::Ready(Some(Ok(_))));
        *this.reply.given.lock().unwrap_or_else(PoisonError::into_inner) = given.then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use http_body_util::{BodyExt, Full};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_leaves_a_reply_unread_is_cut_off_and_who_waits_for_it_is_not() {
        let patience = Duration::from_secs(60);
        let unread = Unread { patience, replies: Mutex::default() };
        let (permits, closing) = (Arc::new(Semaphore::new(1)), Closing::default());
        let permit = permits.clone().try_acquire_owned().unwrap();
        let under_way = unread.reply(Some(closing.clone()), permit);
        let mut reply = Reply::new(Body::new(Full::new(Bytes::from_static(b"all of it"))), under_way);
        let closed = || std::future::poll_fn(|cx| Poll::Ready(closing.is_closed(cx))).now_or_never().unwrap();
        // Nothing was asked for yet: that is for keepalives to find.
        let begun = Instant::now();
        unread.look(begun + 2 * patience);
        assert!(!closed());
        reply.frame().await.unwrap().unwrap();
        unread.look(begun + patience / 2);
        assert!(!closed());
        unread.look(Instant::now() + patience);
        assert!(closed());
        // With its body goes what it kept.
        assert_eq!(permits.available_permits(), 0);
        drop(reply);
        assert_eq!(permits.available_permits(), 1);
        unread.look(Instant::now());
        assert!(unread.replies.lock().unwrap().is_empty());
    }
}
