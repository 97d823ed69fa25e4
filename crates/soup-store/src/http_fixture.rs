//! A plain HTTP server for tests: files, ranges, ETags, and bodies that stop early as often as they are told to.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
pub(crate) struct Server {
    pub(crate) files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Without ETags nothing can be pinned, and `object_store` itself does not resume.
    pub(crate) etags: bool,
    /// Whether there is a page, sent with success, for whatever is not there.
    pub(crate) pages: bool,
    /// Whether HEAD is not allowed.
    pub(crate) headless: bool,
    /// Bodies still to be cut in half.
    pub(crate) cuts: AtomicU32,
    /// Ranged requests that were answered.
    pub(crate) ranges: AtomicU32,
}

impl Server {
    /// Serves until the runtime of the test ends; returns the URL of its root.
    pub(crate) async fn start(self: &Arc<Server>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        url
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let (head, body) = self.answer(&String::from_utf8(request).unwrap());
        // One request a connection keeps this simple; a cut body is a connection closed early.
        let _ = stream.write_all(format!("HTTP/1.1 {head}Connection: close\r\n\r\n").as_bytes()).await;
        let _ = stream.write_all(&body).await;
        let _ = stream.shutdown().await;
    }

    fn answer(&self, request: &str) -> (String, Vec<u8>) {
        let header = |name: &str| {
            request.lines().find_map(|l| {
                l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
            })
        };
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap().replace("%20", " "));
        if !matches!(method, "GET" | "HEAD") || (self.headless && method == "HEAD") {
            return ("405 Method Not Allowed\r\nContent-Length: 0\r\n".into(), Vec::new());
        }
        let files = self.files.lock().unwrap();
        let Some(file) = files.get(path.trim_start_matches('/')) else {
            if self.pages {
                let page = b"<!DOCTYPE html><html><body>Not found</body></html>";
                let body = if method == "HEAD" { Vec::new() } else { page.to_vec() };
                return (format!("200 OK\r\nContent-Length: {}\r\n", page.len()), body);
            }
            return ("404 Not Found\r\nContent-Length: 0\r\n".into(), Vec::new());
        };
        let etag = format!("\"{}-{}\"", file.len(), file.iter().map(|&b| u64::from(b)).sum::<u64>());
        if header("if-match").is_some_and(|e| e != etag) {
            return ("412 Precondition Failed\r\nContent-Length: 0\r\n".into(), Vec::new());
        }
        let etag = if self.etags { format!("ETag: {etag}\r\n") } else { String::new() };
        let Some((from, to)) = header("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) else {
            let body = if method == "HEAD" { Vec::new() } else { file.clone() };
            return (format!("200 OK\r\nContent-Length: {}\r\n{etag}", file.len()), body);
        };
        let (from, to) =
            (from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap().min(file.len().max(1) - 1));
        if from >= file.len() {
            return ("416 Range Not Satisfiable\r\nContent-Length: 0\r\n".into(), Vec::new());
        }
        self.ranges.fetch_add(1, Ordering::SeqCst);
        let mut body = file[from..=to].to_vec();
        let head = format!(
            "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{}\r\n{etag}",
            body.len(),
            file.len()
        );
        if self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            body.truncate(body.len() / 2);
        }
        (head, body)
    }
}
