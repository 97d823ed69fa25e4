//! Whether anything is asked over a connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A connection without a request for so long, or for twice as long at most, is closed. Whoever has more to ask opens another one.
const IDLE: Duration = Duration::from_secs(60);

/// The requests of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// A request that has not ended.
pub(crate) struct Open(Requests);

impl Requests {
    /// One more.
    pub(crate) fn begin(&self) -> Open {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// How many there were, and how many are there.
    fn counts(&self) -> (usize, usize) {
        let ended = self.0.ended.load(Ordering::Acquire);
        let begun = self.0.begun.load(Ordering::Relaxed);
        (begun, begun.wrapping_sub(ended))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// Finds out when a connection has had none for too long.
pub(crate) struct Idle {
    requests: Requests,
    begun: usize,
    look: Pin<Box<Sleep>>,
}

impl Idle {
    /// Of a connection with these.
    pub(crate) fn new(requests: Requests) -> Idle {
        Idle { requests, begun: 0, look: Box::pin(tokio::time::sleep(IDLE)) }
    }

    /// Whether it has; whoever asks is woken to ask again.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            let (begun, open) = self.requests.counts();
            if open == 0 && begun == self.begun {
                return Poll::Ready(());
            }
            self.begun = begun;
            self.look.as_mut().reset(Instant::now() + IDLE);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_when_nothing_is_asked_and_not_before() {
        let requests = Requests::default();
        let mut idle = Idle::new(requests.clone());
        let begun = Instant::now();
        let open = requests.begin();
        let over = async |idle: &mut Idle, within: Duration| {
            tokio::time::timeout(within, std::future::poll_fn(|cx| idle.is_over(cx))).await.is_ok()
        };
        // For as long as something is under way.
        assert!(!over(&mut idle, 100 * IDLE).await);
        drop(open);
        // And whoever asks now and then.
        for _ in 0..10 {
            assert!(!over(&mut idle, IDLE * 9 / 10).await);
            drop(requests.begin());
        }
        assert!(over(&mut idle, 3 * IDLE).await);
        assert!(begun.elapsed() > 100 * IDLE);
        assert!(over(&mut Idle::new(Requests::default()), IDLE * 11 / 10).await);
    }
}
