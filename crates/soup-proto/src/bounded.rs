//! Reading messages of others: how much becomes of one is bounded before it is read.
//!
//! A message of two bytes, of which there may be millions in another, becomes hundreds in memory. So what servers are sent is gone through
//! first: everything in it that has a length counts (messages, texts, rows of numbers), and of more than a large true one has, nothing is made.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use soup_core::Error;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// So many parts are taken of any message: a model may have a hundred thousand tensors, and an answer a few parts for each.
const PARTS_MIN: usize = 256 << 10;
/// And one more for so many bytes.
const BYTES_A_PART: usize = 128;
/// How deep messages may lie in each other: deeper ones are not read anyway.
const DEPTH_MAX: usize = 100;

/// A message, of which it is known which fields are messages.
pub trait Shaped {
    /// Where that is noted of one that is bounded.
    const SHAPE: Option<usize>;
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Writes messages `T` and reads messages `U`.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Bounded<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounded(ProstCodec::<T, U>::default().decoder())
    }
}

/// Reads messages.
pub struct Bounded<U>(ProstDecoder<U>);

impl<U: Message + Default + Shaped> Decoder for Bounded<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        match U::SHAPE {
            Some(_) => read(buf.copy_to_bytes(buf.remaining())).map(Some),
            None => self.0.decode(buf),
        }
    }
}

/// A message that others wrote.
///
/// # Errors
/// [`InvalidArgument`](tonic::Code::InvalidArgument) for one of too many parts; [`Internal`](tonic::Code::Internal) for what is none.
pub fn read<U: Message + Default + Shaped>(bytes: Bytes) -> Result<U, Status> {
    U::SHAPE.map_or(Ok(()), |shape| check(&bytes, shape))?;
    U::decode(bytes).map_err(|e| Status::internal(e.to_string()))
}

/// Whether a message can be sent to whoever takes at most so many bytes, and reads it as it is read here. One that cannot be ends the stream that
/// it is sent on, and so would the same one after that: whoever wants to send it has to say something else.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) with its size and what there may be.
pub fn check_sent<T: Message + Shaped>(message: &T, bytes_max: usize) -> soup_core::Result<()> {
    let bytes = message.encoded_len();
    if bytes > bytes_max {
        return Err(Error::data(format!("a message of {bytes} bytes, and at most {bytes_max} are taken")));
    }
    match T::SHAPE {
        // Each part takes two bytes at least.
        Some(shape) if bytes > 2 * PARTS_MIN => {
            check(&message.encode_to_vec(), shape).map_err(|status| Error::data(status.message()))
        }
        _ => Ok(()),
    }
}

/// Refuses a message of too many parts, which it has the next time too.
fn check(bytes: &[u8], shape: usize) -> Result<(), Status> {
    let most = PARTS_MIN + bytes.len() / BYTES_A_PART;
    match left(bytes, shape, 0, most) {
        Some(_) => Ok(()),
        None => Err(Status::invalid_argument(format!(
            "a message of {} bytes in more than {most} parts is not taken here",
            bytes.len()
        ))),
    }
}

/// What is left of `parts` after those of a message; none where there are more. What is malformed ends it, as it ends reading.
fn left(mut bytes: &[u8], shape: usize, depth: usize, mut parts: usize) -> Option<usize> {
    while let Some(key) = varint(&mut bytes) {
        let known = match key & 7 {
            0 => varint(&mut bytes).map(drop),
            1 => taken(&mut bytes, 8).map(drop),
            2 => {
                let Some(part) = varint(&mut bytes).and_then(|length| taken(&mut bytes, length)) else {
                    break;
                };
                parts = parts.checked_sub(1)?;
                let mut fields = MESSAGES.get(shape).copied().unwrap_or_default().iter();
                if let Some((_, shape)) = fields.find(|(field, _)| u64::from(*field) == key >> 3)
                    && depth < DEPTH_MAX
                {
                    parts = left(part, *shape, depth + 1, parts)?;
                }
                Some(())
            }
            // Groups have no length: what is in them counts as if it were not.
            3 | 4 => Some(()),
            5 => taken(&mut bytes, 4).map(drop),
            _ => None,
        };
        if known.is_none() {
            break;
        }
    }
    Some(parts)
}

/// A number, of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127).checked_shl(shift).unwrap_or(0);
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

fn taken<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn checked<U: Message + Default + Shaped>(message: &U) -> Result<(), Status> {
        check(&message.encode_to_vec(), U::SHAPE.unwrap())
    }

    fn submitted(spec: v1::RunSpec) -> v1::SubmitRequest {
        v1::SubmitRequest { spec: Some(spec), ..Default::default() }
    }

    fn measured(grams: Vec<v1::LayerGram>) -> v1::WorkerMessage {
        let result = Some(v1::task_done::Result::Measured(v1::Measured { grams }));
        let done = v1::TaskDone { result, ..Default::default() };
        v1::WorkerMessage { message: Some(v1::worker_message::Message::Done(done)) }
    }

    #[test]
    fn many_small_parts_are_refused_however_deep_they_lie() {
        let many = 2 * PARTS_MIN;
        let tests = vec![v1::DatasetSpec::default(); many];
        let refused = checked(&submitted(v1::RunSpec { tests, ..Default::default() })).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        let pool = vec![String::new(); many];
        checked(&submitted(v1::RunSpec { pool, ..Default::default() })).unwrap_err();
        checked(&measured(vec![v1::LayerGram::default(); many])).unwrap_err();
        // A message that ends too early is read as far as it goes, and so is counted.
        let cut = measured(vec![v1::LayerGram::default(); many]).encode_to_vec();
        check(&[&cut[..], &[0x0a, 9]].concat(), v1::WorkerMessage::SHAPE.unwrap()).unwrap_err();
    }

    #[test]
    fn what_is_large_and_has_few_parts_is_taken() {
        let gram = v1::LayerGram { layer: 1, matrix: true, packed: vec![0.5; 1 << 20] };
        checked(&measured(vec![gram; 4])).unwrap();
        let segment = |tensor| v1::SegmentDots { tensor, dots: vec![0.5; 3] };
        let segments = (0..120_000).map(segment).collect();
        let result = Some(v1::task_done::Result::Dotted(v1::Dotted { segments }));
        let done = v1::TaskDone { result, ..Default::default() };
        checked(&v1::WorkerMessage { message: Some(v1::worker_message::Message::Done(done)) }).unwrap();
        checked(&submitted(v1::RunSpec { pool: vec!["/p".into(); 1000], ..Default::default() })).unwrap();
    }

    #[test]
    fn whoever_sends_knows_before_what_would_not_be_taken() {
        let gram = |bytes: usize| v1::LayerGram { packed: vec![0.5; bytes / 8], ..Default::default() };
        let (few, many) =
            (measured(vec![gram(1 << 20)]), measured(vec![v1::LayerGram::default(); 2 * PARTS_MIN]));
        check_sent(&few, few.encoded_len()).unwrap();
        let error = check_sent(&few, few.encoded_len() - 1).unwrap_err();
        let bytes = few.encoded_len();
        let text = format!("a message of {bytes} bytes, and at most {} are taken", bytes - 1);
        assert_eq!((error.kind(), error.chain()), (soup_core::ErrorKind::Data, text));
        let error = check_sent(&many, usize::MAX).unwrap_err();
        assert!(error.chain().contains("parts is not taken"), "{}", error.chain());
        checked(&many).unwrap_err();
        // Of what no server reads the size alone counts.
        check_sent(&v1::RunEvent::default(), 0).unwrap();
        check_sent(&v1::ListResponse { runs_json: "[]".into() }, 3).unwrap_err();
    }

    #[test]
    fn what_is_malformed_ends_where_reading_ends() {
        for bytes in [&[0x80_u8; 11][..], &[0x0a, 0xff], &[0x09, 1], &[0x0f], &[0x0d, 1]] {
            let shape = v1::SubmitRequest::SHAPE.unwrap();
            assert_eq!(left(bytes, shape, 0, 5), Some(5), "{bytes:?}");
            assert!(v1::SubmitRequest::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
