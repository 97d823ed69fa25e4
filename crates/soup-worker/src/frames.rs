//! `Blends.Fetch` on the wire, framed here and not by generated code.
//!
//! gRPC libraries copy a message into a buffer of their own when it is sent, and again when it arrives. Weights are the one
//! thing large enough for that to matter: it halves the speed of a transfer. So chunks leave as slices of the blend
//! ([`ChunkBody`]), and are copied once on arrival, from the connection's buffer to their place ([`ChunkReader`]). What is
//! on the wire is plain gRPC, as `blends.proto` says; generated clients and servers understand it.
//!
//! With the status goes a *checksum* of all data, which the reader holds against what lies in its place: TCP's own sums miss what
//! memories, network cards and proxies do to bytes, and a blend with one wrong bit is another soup. A CRC finds that at a small part of the
//! cost of a cryptographic hash. It is no defence against a peer that lies: that one has the blend and the checksum in its hands.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, Limited};
use soup_core::{Error, Result};
use soup_proto::v1::FetchRequest;
use soup_proto::{CHUNK_BYTES_MAX, bounded, error_of};

/// Where requests go.
pub(crate) const FETCH_PATH: &str = "/soup.v1.Blends/Fetch";
/// The trailer with the checksum of a reply's data, in 16 hexadecimal digits.
const CHECKSUM: &str = "soup-crc64nvme";
/// Largest request, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;
/// What gRPC puts before a message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;
/// What protobuf puts before `Chunk.data`: field 1, bytes.
const DATA_TAG: u8 = 0x0a;

/// A request as a body.
pub(crate) fn request_body(request: &FetchRequest) -> tonic::body::Body {
    let message = prost::Message::encode_to_vec(request);
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    body.put_u8(0);
    // What is larger is not sent ([`check_request`]).
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    tonic::body::Body::new(Full::new(body.freeze()))
}

/// Checks that a peer takes a request. One that it does not take is no trouble of that peer's.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) for a soup of too many weights.
pub(crate) fn check_request(request: &FetchRequest) -> Result<()> {
    bounded::check_sent(request, REQUEST_BYTES_MAX).map_err(|e| {
        e.context(
            "the weights of a soup are too many to ask a peer for its blend: use fewer ingredients, or weights for fewer parts of them",
        )
    })
}

/// The request in a body.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for anything but one uncompressed message of a bounded size.
pub(crate) async fn read_request(body: tonic::body::Body) -> Result<FetchRequest> {
    let malformed = || Error::usage("a fetch is not one uncompressed message");
    let collected = Limited::new(body, PREFIX_BYTES + REQUEST_BYTES_MAX).collect().await;
    let mut bytes = collected.map_err(|_| malformed())?.to_bytes();
    if bytes.len() < PREFIX_BYTES || bytes.get_u8() != 0 || bytes.get_u32() as usize != bytes.len() {
        return Err(malformed());
    }
    bounded::read(bytes).map_err(|status| malformed().with_source(error_of(&status)))
}

/// A reply that sends `blend`.
pub(crate) fn reply(blend: Bytes) -> http::Response<tonic::body::Body> {
    let mut response = http::Response::new(tonic::body::Body::new(ChunkBody::new(blend)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The messages of a reply: `Chunk`s, each as its head and a slice of the blend, then the status.
pub(crate) struct ChunkBody {
    rest: Bytes,
    /// What follows the head that was given out last.
    data: Bytes,
    /// Of what was given out.
    sum: Sum,
    ended: bool,
}

/// A checksum of data that comes in parts.
struct Sum(Digest);

impl Sum {
    fn new() -> Sum {
        Sum(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    fn add(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn text(&self) -> String {
        format!("{:016x}", self.0.finalize())
    }
}

impl ChunkBody {
    fn new(blend: Bytes) -> ChunkBody {
        ChunkBody { rest: blend, data: Bytes::new(), sum: Sum::new(), ended: false }
    }
}

impl Body for ChunkBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let frame = if !self.data.is_empty() {
            Frame::data(std::mem::take(&mut self.data))
        } else if !self.rest.is_empty() {
            let bytes = self.rest.len().min(CHUNK_BYTES_MAX);
            let data = self.rest.split_to(bytes);
            self.sum.add(&data);
            self.data = data;
            Frame::data(head(bytes))
        } else if !self.ended {
            self.ended = true;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            // Hexadecimal digits are a value that any header may have.
            trailers.extend(
                HeaderValue::try_from(self.sum.text()).map(|sum| (HeaderName::from_static(CHECKSUM), sum)),
            );
            Frame::trailers(trailers)
        } else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

/// What goes before the `bytes` bytes of a chunk.
fn head(bytes: usize) -> Bytes {
    let mut field = BytesMut::with_capacity(PREFIX_BYTES);
    field.put_u8(DATA_TAG);
    prost::encoding::encode_varint(bytes as u64, &mut field);
    let mut head = BytesMut::with_capacity(2 * PREFIX_BYTES);
    head.put_u8(0);
    // A chunk is at most CHUNK_BYTES_MAX, so this fits.
    head.put_u32((field.len() + bytes) as u32);
    head.put_slice(&field);
    head.freeze()
}

/// Puts the data of a reply's chunks into place, however the connection cut them.
pub(crate) struct ChunkReader<'a> {
    place: &'a mut [u8],
    filled: usize,
    /// What has arrived of a head.
    head: Vec<u8>,
    /// What is missing of a chunk's data.
    left: usize,
    /// Of what is in its place.
    sum: Sum,
}

impl<'a> ChunkReader<'a> {
    pub(crate) fn new(place: &'a mut [u8]) -> ChunkReader<'a> {
        ChunkReader { place, filled: 0, head: Vec::with_capacity(2 * PREFIX_BYTES), left: 0, sum: Sum::new() }
    }

    /// How much data there is.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Takes the next bytes of a reply.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) for bytes that are no chunks, or that do not fit the place.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<()> {
        while let Some(&first) = bytes.first() {
            if self.left == 0 {
                self.head.push(first);
                bytes = &bytes[1..];
                self.left = chunk_bytes(&self.head)?.inspect(|_| self.head.clear()).unwrap_or(0);
                continue;
            }
            let (data, rest) = bytes.split_at(bytes.len().min(self.left));
            let place = self.place.get_mut(self.filled..self.filled + data.len());
            let place = place.ok_or_else(|| Error::internal("it sent too many bytes"))?;
            place.copy_from_slice(data);
            self.sum.add(place);
            self.filled += data.len();
            self.left -= data.len();
            bytes = rest;
        }
        Ok(())
    }

    /// The reply has ended, with these trailers. Whether what is in its place is what was sent.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where bytes are missing, or their checksum is.
    pub(crate) fn finish(self, trailers: Option<&HeaderMap>) -> Result<bool> {
        if self.filled < self.place.len() {
            let text = format!("it sent {} of {} bytes", self.filled, self.place.len());
            return Err(Error::try_again(text));
        }
        let sum = trailers.and_then(|trailers| trailers.get(CHECKSUM));
        let sum = sum.ok_or_else(|| Error::try_again("it sent no checksum"))?;
        Ok(sum.as_bytes() == self.sum.text().as_bytes())
    }
}

/// The size of the data that follows `head`; `None` while the head is not complete.
fn chunk_bytes(head: &[u8]) -> Result<Option<usize>> {
    let malformed = || Error::internal("it sent something that is not a chunk");
    let Some((mut prefix, mut field)) = head.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
    let (compressed, message) = (prefix.get_u8(), prefix.get_u32() as usize);
    if compressed != 0 || field.first().is_some_and(|&tag| tag != DATA_TAG) {
        return Err(malformed());
    }
    // A message without fields is a chunk without data.
    if message == 0 {
        return Ok(Some(0));
    }
    // The last byte of a number has its top bit clear.
    if field.len() < 2 || field.last().is_some_and(|last| last & 0x80 != 0 && field.len() < PREFIX_BYTES) {
        return Ok(None);
    }
    let before = field.len();
    field.advance(1);
    let bytes = prost::encoding::decode_varint(&mut field).map_err(|_| malformed())? as usize;
    if bytes > CHUNK_BYTES_MAX || before + bytes != message {
        return Err(malformed());
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use soup_proto::v1::{Chunk, Soup, WeightRow};

    use super::*;

    fn blend(bytes: usize) -> Bytes {
        (0..bytes).map(|i| (i % 251) as u8).collect()
    }

    /// What a reply puts on the wire.
    async fn wire(blend: Bytes) -> (Bytes, Option<HeaderMap>) {
        let sent = ChunkBody::new(blend).collect().await.unwrap();
        let trailers = sent.trailers().cloned();
        (sent.to_bytes(), trailers)
    }

    /// The same as generated code has it.
    fn generated(blend: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for data in blend.chunks(CHUNK_BYTES_MAX) {
            let message = prost::Message::encode_to_vec(&Chunk { data: Bytes::copy_from_slice(data) });
            out.put_u8(0);
            out.put_u32(message.len() as u32);
            out.put_slice(&message);
        }
        out
    }

    #[tokio::test]
    async fn a_reply_is_what_generated_code_would_send() {
        for bytes in [0, 1, 127, 128, 70_000, CHUNK_BYTES_MAX, 2 * CHUNK_BYTES_MAX + 5] {
            let (sent, trailers) = wire(blend(bytes)).await;
            assert!(sent == generated(&blend(bytes)), "{bytes} bytes");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    }

    #[test]
    fn chunks_find_their_place_however_the_connection_cuts_them() {
        let sent: Vec<u8> =
            [1, 127, 128, 300, 70_000].into_iter().flat_map(|n| generated(&blend(n))).collect();
        let expected = [1, 127, 128, 300, 70_000].map(blend).concat();
        for cut in [1, 2, 3, 7, 8, 9, 500, 1 << 20] {
            let mut place = vec![0; expected.len()];
            let mut reader = ChunkReader::new(&mut place);
            sent.chunks(cut).for_each(|part| reader.take(part).unwrap());
            assert!(reader.finish(Some(&trailers(&expected))).unwrap());
            assert!(place == expected, "cut every {cut} bytes");
        }
    }

    #[test]
    fn an_empty_chunk_is_one_too() {
        let mut place = [0; 2];
        let mut reader = ChunkReader::new(&mut place);
        reader.take(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x0a, 0]).unwrap();
        reader.take(&generated(&[5, 6])).unwrap();
        assert!(reader.finish(Some(&trailers(&[5, 6]))).unwrap());
        assert_eq!(place, [5, 6]);
    }

    #[test]
    fn what_is_not_a_chunk_or_does_not_fit_is_refused() {
        let refused = |sent: &[u8]| ChunkReader::new(&mut [0; 4]).take(sent).unwrap_err().chain();
        assert_eq!(refused(&generated(&[1, 2, 3, 4, 5])), "it sent too many bytes");
        for sent in [
            // Compressed; another field; a length that is not the message's; a number that does not end; too large.
            &[1, 0, 0, 0, 3, 0x0a, 1, 7][..],
            &[0, 0, 0, 0, 3, 0x12, 1, 7],
            &[0, 0, 0, 0, 9, 0x0a, 1, 7],
            &[0, 0, 0, 0, 9, 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0x20, 0, 5, 0x0a, 0x81, 0x80, 0x80, 0x01],
        ] {
            assert_eq!(refused(sent), "it sent something that is not a chunk", "{sent:?}");
        }
        let mut place = [0; 4];
        let mut reader = ChunkReader::new(&mut place);
        reader.take(&generated(&[1, 2])).unwrap();
        assert!(reader.finish(Some(&trailers(&[1, 2]))).unwrap_err().kind().is_transient());
    }

    /// What a reply with `data` ends with.
    fn trailers(data: &[u8]) -> HeaderMap {
        let mut sum = Sum::new();
        sum.add(data);
        HeaderMap::from_iter([(HeaderName::from_static(CHECKSUM), sum.text().parse().unwrap())])
    }

    #[tokio::test]
    async fn a_bit_that_changes_on_the_way_is_found() {
        let blend = blend(3 * 1000 + 7);
        let (sent, ended) = wire(blend.clone()).await;
        let receive = |sent: &[u8], trailers: Option<&HeaderMap>| {
            let mut place = vec![0; blend.len()];
            let mut reader = ChunkReader::new(&mut place);
            sent.chunks(700).try_for_each(|part| reader.take(part)).and_then(|()| reader.finish(trailers))
        };
        assert!(receive(&sent, ended.as_ref()).unwrap());
        for at in (sent.len() - blend.len()..sent.len()).step_by(11) {
            let mut other = sent.to_vec();
            other[at] ^= 1 << (at % 8);
            assert!(!receive(&other, ended.as_ref()).unwrap(), "byte {at}");
        }
        // Bytes that changed places, and a checksum that changed itself.
        let mut other = sent.to_vec();
        other.swap(1000, 1001);
        assert!(!receive(&other, ended.as_ref()).unwrap());
        assert!(!receive(&sent, Some(&trailers(&[]))).unwrap());
        let none = receive(&sent, None).unwrap_err();
        assert!(none.kind().is_transient() && none.chain() == "it sent no checksum");
    }

    /// The check value of the catalogue of CRCs: other programs come to the same.
    #[test]
    fn the_checksum_is_crc_64_nvme() {
        assert_eq!(trailers(b"123456789")[CHECKSUM], "ae8b14860a799888");
    }

    #[tokio::test]
    async fn requests_arrive() {
        let request = FetchRequest {
            run: "r".to_owned(),
            epoch: 3,
            shard: 7,
            soup: None,
            gradient: None,
            ticket: None,
        };
        assert_eq!(read_request(request_body(&request)).await.unwrap(), request);
        let many = Soup { members: Vec::new(), rows: vec![WeightRow::default(); 300_000] };
        let many =
            read_request(request_body(&FetchRequest { soup: Some(many), ..request })).await.unwrap_err();
        assert!(many.chain().contains("parts is not taken here"), "{}", many.chain());
        let torn = tonic::body::Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 9, 1])));
        assert_eq!(read_request(torn).await.unwrap_err().kind(), soup_core::ErrorKind::Usage);
    }
}
