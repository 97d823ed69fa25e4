//! Safetensors headers: eight bytes of length, then JSON that says where every tensor is.
//!
//! The format's own crate accepts repeated keys (the last one wins, silently), shapes that overflow and headers that
//! take gigabytes to hold. A header decides what is averaged with what, so this reader is strict: every key once, every
//! byte of the data section in exactly one tensor, everything within the caps below, nothing allocated by a size that
//! the file claims.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use soup_core::instead::instead;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::{Error, Result};
use tokio::sync::SemaphorePermit;

use crate::kept;
use crate::location::Location;
use crate::read::{self, Stamp};

/// Largest header, without its eight bytes of length.
pub const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Most tensors of one file, and of one checkpoint.
pub const TENSORS_MAX: usize = 200_000;
/// Most dimensions of a tensor.
pub const RANK_MAX: usize = 8;
/// Largest dimension.
pub const DIMENSION_MAX: u64 = 1 << 40;
/// Longest name of a tensor.
pub const NAME_BYTES_MAX: usize = 512;
/// Most entries of the free text.
const METADATA_ENTRIES_MAX: usize = 10_000;

/// Bytes before the JSON: its length, little endian.
const LENGTH_BYTES: u64 = 8;
/// Read at first: enough for nearly every model, and cheaper than a second request.
const FIRST_READ_BYTES: u64 = 256 << 10;

/// What a header says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tensors in the order of their bytes, each with its byte range in the file (not in the data section).
    pub tensors: Vec<(TensorSpec, Range<u64>)>,
    /// The free text of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header of a safetensors file, with one request where it is short and two where it is not.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) naming the file and, where it can, the tensor.
pub async fn read_header(location: &Location) -> Result<(Header, Stamp)> {
    read_with_permit(location).await.map(|(header, stamp, _)| (header, stamp))
}

/// The same, and the permit for its bytes, to be given back once what it says is where it stays.
pub(crate) async fn read_with_permit(
    location: &Location,
) -> Result<(Header, Stamp, SemaphorePermit<'static>)> {
    let object = location.to_string();
    let (start, stamp) = read::read_start(location, FIRST_READ_BYTES).await?;
    let length = header_bytes(&object, &start, stamp.size_bytes)?;
    let range = LENGTH_BYTES..LENGTH_BYTES + length;
    let permit = kept::header_permit(length).await?;
    let header = match start.get(range.start as usize..range.end as usize) {
        Some(json) => parse_header(&object, json, stamp.size_bytes)?,
        None => {
            let json = read::read_range(location, range, stamp.etag.as_deref()).await?;
            parse_header(&object, &json, stamp.size_bytes)?
        }
    };
    Ok((header, stamp, permit))
}

/// Size of the JSON in bytes, from the first bytes of a file of `object_bytes` bytes.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) if the file is too small to have that header, or the header is too large.
pub fn header_bytes(object: &str, start: &[u8], object_bytes: u64) -> Result<u64> {
    let Some(length) = start.first_chunk::<8>() else {
        return Err(Error::data(format!("{object} has {object_bytes} bytes: not a safetensors file")));
    };
    let length = u64::from_le_bytes(*length);
    if let Some(other) = other_format(start, object_bytes) {
        return Err(Error::data(format!("{object} is not a safetensors file but {other}")));
    }
    if length > HEADER_BYTES_MAX {
        return Err(Error::data(format!(
            "{object} claims a header of {length} bytes, at most {HEADER_BYTES_MAX} are allowed: not a safetensors file?"
        )));
    }
    if length > object_bytes.saturating_sub(LENGTH_BYTES) {
        return Err(Error::data(format!(
            "{object} has {object_bytes} bytes, but its header alone takes {length}: the file is truncated"
        )));
    }
    Ok(length)
}

/// What a file is that begins like something else than a safetensors file, and what to do about it. The length of a header that
/// began like this would be past all bounds.
fn other_format(start: &[u8], object_bytes: u64) -> Option<&'static str> {
    let known: [(&[u8], &'static str); 6] = [
        (
            b"PK\x03\x04",
            "a ZIP archive, as PyTorch writes: load it there and save it with `safetensors.torch.save_file`",
        ),
        (
            b"\x80\x02",
            "a pickle, as PyTorch writes: load it there and save it with `safetensors.torch.save_file`",
        ),
        (b"GGUF", "a GGUF file: take the model that it was converted from"),
        (b"\x89HDF", "an HDF5 file: load it and save it as safetensors"),
        (b"\x1f\x8b", "gzip data: unpack it"),
        (b"\x28\xb5\x2f\xfd", "zstd data: unpack it"),
    ];
    let plausible = start.get(8) == Some(&b'{');
    let found = known.iter().find(|(magic, _)| start.starts_with(magic) && !plausible);
    // Where links are copied as files, the file holds the path of what it should have been.
    let path = object_bytes < 4096 && start.starts_with(b"../");
    let found = found.map(|(_, what)| *what).or_else(|| instead(start).filter(|_| !plausible));
    found.or(path.then_some("the text of a link: copy with links followed (`cp -L`)"))
}

/// Checks the JSON of a header (without its eight bytes of length) of a file of `object_bytes` bytes.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) naming `object` and, where it can, the tensor.
pub fn parse_header(object: &str, json: &[u8], object_bytes: u64) -> Result<Header> {
    let text = std::str::from_utf8(json)
        .map_err(|e| Error::data(format!("{object}: the safetensors header is not UTF-8")).with_source(e))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let parsed = TableSeed.deserialize(&mut reader).and_then(|table| reader.end().map(|()| table));
    let table = parsed
        .map_err(|e| Error::data(format!("{object}: the safetensors header is corrupt")).with_source(e))?;
    let data_start = LENGTH_BYTES + json.len() as u64;
    let data_bytes = object_bytes.saturating_sub(data_start);
    let mut tensors = Vec::with_capacity(table.tensors.len());
    for (name, entry) in table.tensors {
        tensors.push(entry.check(object, name)?);
    }
    tile(object, &mut tensors, data_bytes)?;
    // No overflow: all ranges lie within the file now.
    tensors.iter_mut().for_each(|(_, r)| *r = r.start + data_start..r.end + data_start);
    Ok(Header { tensors, metadata: table.metadata })
}

/// Sorts by place and checks that the tensors fill the data section without holes and overlaps.
fn tile(object: &str, tensors: &mut [(TensorSpec, Range<u64>)], data_bytes: u64) -> Result<()> {
    tensors.sort_by(|(a, r), (b, s)| (r.start, r.end, &a.name).cmp(&(s.start, s.end, &b.name)));
    let mut at = 0;
    for (tensor, range) in tensors.iter() {
        if range.start != at {
            let what =
                if range.start < at { "overlaps the one before it" } else { "leaves a hole before it" };
            return Err(Error::data(format!(
                "{object}: tensor {:?} starts at byte {} of the data, expected {at}: it {what}",
                tensor.name, range.start
            )));
        }
        at = range.end;
    }
    if at > data_bytes {
        return Err(Error::data(format!(
            "{object}: its tensors take {at} bytes, but only {data_bytes} bytes follow the header: the file is truncated"
        )));
    }
    if at < data_bytes {
        return Err(Error::data(format!(
            "{object}: its tensors take {at} bytes, but {data_bytes} bytes follow the header"
        )));
    }
    Ok(())
}

/// A header for the tensors `tensors` (positions in `schema`), whose bytes follow it in canonical order. The eight
/// bytes of length are included; spaces pad it to a multiple of eight bytes, so that the data is aligned.
pub fn write_header(schema: &Schema, tensors: Range<usize>) -> Vec<u8> {
    let start = tensors.clone().next().map_or(0, |first| schema.range(first).start);
    let mut json = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    for index in tensors {
        let (spec, range) = (&schema.tensors()[index], schema.range(index));
        let name = serde_json::Value::from(spec.name.as_str());
        let shape = serde_json::Value::from(spec.shape.as_slice());
        json.push_str(&format!(
            r#",{name}:{{"dtype":"{}","shape":{shape},"data_offsets":[{},{}]}}"#,
            spec.dtype,
            range.start - start,
            range.end - start
        ));
    }
    json.push('}');
    while json.len() % 8 != 0 {
        json.push(' ');
    }
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(json.as_bytes());
    out
}

/// The JSON object of a header.
struct Table {
    tensors: BTreeMap<String, TensorEntry>,
    metadata: BTreeMap<String, String>,
}

struct TensorEntry {
    /// Where it is not known, its name.
    dtype: Result<Dtype, Box<str>>,
    shape: Vec<u64>,
    /// The first two, and how many there are.
    data_offsets: ([u64; 2], usize),
}

impl TensorEntry {
    fn check(self, object: &str, name: String) -> Result<(TensorSpec, Range<u64>)> {
        let fail = |name: &str, what: String| Error::data(format!("{object}: tensor {name:?} {what}"));
        let dtype = match self.dtype {
            Ok(dtype) => dtype,
            Err(other) => return Err(fail(&name, format!("has dtype {other:?}, which is not supported"))),
        };
        if let Some(d) = self.shape.iter().find(|&&d| d > DIMENSION_MAX) {
            return Err(fail(&name, format!("has a dimension of {d}, at most {DIMENSION_MAX} is allowed")));
        }
        let ([start, end], 2) = self.data_offsets else {
            return Err(fail(&name, format!("has {} data_offsets, expected 2", self.data_offsets.1)));
        };
        let spec = TensorSpec { name, dtype, shape: self.shape };
        let Some(bytes) = spec.bytes() else {
            return Err(fail(&spec.name, format!("of shape {:?} is too large", spec.shape)));
        };
        if end.checked_sub(start) != Some(bytes) {
            return Err(fail(
                &spec.name,
                format!(
                    "of shape {:?} and dtype {dtype} takes {bytes} bytes, but its data_offsets are [{start}, {end}]",
                    spec.shape
                ),
            ));
        }
        Ok((spec, start..end))
    }
}

struct TableSeed;

impl<'de> DeserializeSeed<'de> for TableSeed {
    type Value = Table;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Table, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TableSeed {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut metadata = None;
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > NAME_BYTES_MAX {
                let start: String = name.chars().take(32).collect();
                return Err(A::Error::custom(format!(
                    "the name {start:?}… has {} bytes, at most {NAME_BYTES_MAX} are allowed",
                    name.len()
                )));
            }
            let is_metadata = name == "__metadata__";
            if tensors.contains_key(&name) || is_metadata && metadata.is_some() {
                return Err(A::Error::custom(format!("{name:?} appears twice")));
            }
            if is_metadata {
                let seed = StringMapSeed { entries_max: METADATA_ENTRIES_MAX, value_bytes_max: usize::MAX };
                metadata = Some(map.next_value_seed(seed)?);
                continue;
            }
            if tensors.len() == TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            }
            let entry = map
                .next_value_seed(TensorSeed)
                .map_err(|e| A::Error::custom(format!("tensor {name:?}: {e}")))?;
            tensors.insert(name, entry);
        }
        Ok(Table { tensors, metadata: metadata.unwrap_or_default() })
    }
}

struct TensorSeed;

impl<'de> DeserializeSeed<'de> for TensorSeed {
    type Value = TensorEntry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TensorEntry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed {
    type Value = TensorEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TensorEntry, A::Error> {
        let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let repeated = match &*key {
                "dtype" => {
                    let name = map.next_value::<Cow<'de, str>>()?;
                    dtype.replace(Dtype::from_name(&name).ok_or_else(|| name.into())).is_some()
                }
                "shape" => shape.replace(map.next_value_seed(NumbersSeed)?).is_some(),
                "data_offsets" => data_offsets.replace(map.next_value_seed(NumbersSeed)?).is_some(),
                other => return Err(A::Error::custom(format!("unknown field {other:?}"))),
            };
            if repeated {
                return Err(A::Error::custom(format!("{key:?} appears twice")));
            }
        }
        Ok(TensorEntry {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            data_offsets: {
                let offsets: Vec<u64> =
                    data_offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?;
                let at = |nth: usize| offsets.get(nth).copied().unwrap_or(0);
                ([at(0), at(1)], offsets.len())
            },
        })
    }
}

/// At most [`RANK_MAX`] numbers.
struct NumbersSeed;

impl<'de> DeserializeSeed<'de> for NumbersSeed {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for NumbersSeed {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers that are not negative")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut numbers = Vec::new();
        while numbers.len() < RANK_MAX {
            let Some(number) = seq.next_element()? else { return Ok(numbers) };
            numbers.push(number);
        }
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(numbers),
            Some(_) => Err(A::Error::custom(format!("more than {RANK_MAX} dimensions"))),
        }
    }
}

/// An object of strings, every key once and of at most [`NAME_BYTES_MAX`] bytes.
pub(crate) struct StringMapSeed {
    pub(crate) entries_max: usize,
    pub(crate) value_bytes_max: usize,
}

impl<'de> DeserializeSeed<'de> for StringMapSeed {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StringMapSeed {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut strings = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if key.len() > NAME_BYTES_MAX || value.len() > self.value_bytes_max {
                let (start, bytes) = (key.chars().take(32).collect::<String>(), key.len().max(value.len()));
                return Err(A::Error::custom(format!(
                    "the entry {start:?} has a text of {bytes} bytes, which is too long"
                )));
            }
            if strings.len() == self.entries_max {
                return Err(A::Error::custom(format!("more than {} entries", self.entries_max)));
            }
            if strings.contains_key(&key) {
                return Err(A::Error::custom(format!("{key:?} appears twice")));
            }
            strings.insert(key, value);
        }
        Ok(strings)
    }
}

#[cfg(test)]
mod tests;
