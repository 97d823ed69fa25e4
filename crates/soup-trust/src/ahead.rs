//! What TLS reads from: connections, of which more is taken at a time than TLS asks for. By itself it asks the system for four thousand bytes,
//! four times a record.
//!
//! Of a stranger little is taken: until hands are shaken the buffer is small, and so is all that a handshake may have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are taken from a connection at a time.
const AHEAD_BYTES: usize = 128 << 10;
/// The same, of a stranger.
const STRANGERS_BYTES: usize = 4 << 10;
/// Most bytes that a stranger says before it is none: a greeting, and a few certificates.
const HANDSHAKE_BYTES_MAX: usize = 32 << 10;

/// Reads ahead.
pub(crate) struct ReadAhead<S> {
    stream: S,
    buffer: Box<[u8]>,
    /// Where what was read and not taken lies in it.
    start: usize,
    end: usize,
    /// What a stranger may say yet; none where nobody counts.
    left: Option<usize>,
}

impl<S> ReadAhead<S> {
    /// From somebody that was looked for.
    pub(crate) fn new(stream: S) -> ReadAhead<S> {
        ReadAhead { stream, buffer: vec![0; AHEAD_BYTES].into(), start: 0, end: 0, left: None }
    }

    /// From a stranger.
    pub(crate) fn of_stranger(stream: S) -> ReadAhead<S> {
        let left = Some(HANDSHAKE_BYTES_MAX);
        ReadAhead { stream, buffer: vec![0; STRANGERS_BYTES].into(), start: 0, end: 0, left }
    }

    /// It is none any more.
    pub(crate) fn is_known(&mut self) {
        let mut buffer = vec![0; AHEAD_BYTES];
        let kept = &self.buffer[self.start..self.end];
        buffer[..kept.len()].copy_from_slice(kept);
        (self.start, self.end) = (0, kept.len());
        (self.buffer, self.left) = (buffer.into(), None);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end {
            let most = this.left.unwrap_or(usize::MAX).min(this.buffer.len());
            if most == 0 {
                return Poll::Ready(Err(io::Error::other("more is said than shaking hands takes")));
            }
            let mut read = ReadBuf::new(&mut this.buffer[..most]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            (this.start, this.end) = (0, read.filled().len());
            this.left = this.left.map(|left| left - this.end);
        }
        let taken = (this.end - this.start).min(buf.remaining());
        buf.put_slice(&this.buffer[this.start..this.start + taken]);
        this.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn all_that_is_said_comes_in_its_order_and_of_strangers_no_more_than_a_handshake() {
        let said: Vec<u8> = (0..HANDSHAKE_BYTES_MAX + 1).map(|at| (at % 251) as u8).collect();
        let mut stranger = ReadAhead::of_stranger(&said[..]);
        let mut heard = vec![0; 1000];
        stranger.read_exact(&mut heard).await.unwrap();
        let mut all = heard.clone();
        let error = stranger.read_to_end(&mut all).await.unwrap_err();
        assert!(error.to_string().contains("shaking hands"), "{error}");
        assert_eq!(all, &said[..HANDSHAKE_BYTES_MAX]);
        // What was read of a stranger is not lost.
        let mut known = ReadAhead::of_stranger(&said[..]);
        known.read_exact(&mut heard).await.unwrap();
        assert!(known.end > known.start);
        known.is_known();
        known.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, said);
        let mut heard = Vec::new();
        ReadAhead::new(&said[..]).read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, said);
    }
}
