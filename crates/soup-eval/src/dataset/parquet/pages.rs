//! Pages of a column, none of which is unpacked before somebody was asked whether it may be.
//!
//! The reader below believes what the header of a page says: so much is allocated, and so many entries of a dictionary are made. So the
//! header is looked at when the reader comes to it ([`Guarded`]), which is before it asks for what follows; and a dictionary is looked at
//! before it gets to whoever makes entries of it ([`Pages`]).

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::basic::{Compression, Encoding};
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::data_type::ByteArray;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use soup_core::Error;

use super::chunks::{Chunks, Stream};
use crate::budget::Reading;
use crate::source::{FileEntry, Files};

/// Enough for what is looked at of a header.
const HEADER_BYTES: u64 = 32;
/// Every entry of a dictionary takes at least so many bytes of its page.
const ENTRY_BYTES_MIN: usize = 4;
/// The second version of pages of data, as headers name it.
const DATA_PAGE_V2: i64 = 3;

/// The pages of one column in one row group.
pub(super) struct Pages {
    pages: SerializedPageReader<Guarded>,
    reading: Reading,
    /// Whether there was a dictionary.
    dictionary: bool,
}

impl Pages {
    pub(super) fn new(
        files: Arc<dyn Files>,
        entry: FileEntry,
        chunk: &ColumnChunkMetaData,
        rows: i64,
        reading: &Reading,
    ) -> Result<Pages> {
        let guarded = Guarded {
            chunks: Chunks::new(files, entry),
            codec: chunk.compression(),
            reading: reading.clone(),
            seen: Mutex::default(),
        };
        let pages = SerializedPageReader::new(Arc::new(guarded), chunk, usize::try_from(rows)?, None)?;
        Ok(Pages { pages, reading: reading.clone(), dictionary: false })
    }

    /// Whether what a page says of itself can be, and may be made.
    fn check(&mut self, page: &Page) -> Result<()> {
        match page {
            Page::DictionaryPage { buf, num_values, .. } => {
                let entries = *num_values as usize;
                if entries > buf.len() / ENTRY_BYTES_MIN {
                    return Err(ParquetError::General(format!(
                        "a dictionary of {} bytes claims {entries} entries",
                        buf.len()
                    )));
                }
                self.dictionary = true;
                may(&self.reading, (entries * size_of::<ByteArray>()) as u64)
            }
            Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. } => match encoding {
                Encoding::DELTA_BYTE_ARRAY | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                    Err(ParquetError::NYI(format!(
                        "a column is encoded as {encoding}, of which nothing says what it unpacks to: write it plain or with a dictionary"
                    )))
                }
                // The reader takes it for granted that there is one.
                Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if !self.dictionary => {
                    Err(ParquetError::General("a page refers to a dictionary that there is not".to_owned()))
                }
                _ => Ok(()),
            },
        }
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

/// Asks for `bytes` more.
pub(super) fn may(reading: &Reading, bytes: u64) -> Result<()> {
    match reading.may(bytes) {
        true => Ok(()),
        // Whoever asked for the samples hears what they take.
        false => Err(ParquetError::External(Box::new(Error::data("a page takes more than there is")))),
    }
}

/// A file, of which nothing is unpacked unasked.
struct Guarded {
    chunks: Chunks,
    codec: Compression,
    reading: Reading,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Where the reader came to what may be headers, the last two times: it comes to what follows one too, where it peeked before.
    headers: [Option<(u64, Header)>; 2],
    /// The largest page as it is stored: of these there is one at a time.
    stored_max: u64,
}

/// What the header of a page begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    kind: i64,
    unpacked: u64,
    stored: u64,
}

impl Guarded {
    /// Asks whether the page at `start` may be unpacked.
    fn ask(&self, start: u64, stored: u64) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.headers.iter().flatten().filter(|(at, _)| *at < start).max_by_key(|(at, _)| *at);
        let header = before.map(|(_, header)| *header).filter(|header| header.stored == stored);
        let header =
            header.ok_or_else(|| ParquetError::General("the header of a page is corrupt".to_owned()))?;
        let packed = self.codec != Compression::UNCOMPRESSED;
        let more = match packed {
            true => header.unpacked.saturating_add(stored.saturating_sub(seen.stored_max)),
            false => stored,
        };
        seen.stored_max = seen.stored_max.max(stored);
        may(&self.reading, more)?;
        if header.kind == DATA_PAGE_V2 && matches!(self.codec, Compression::GZIP(_)) {
            return Err(ParquetError::NYI(
                "gzip in pages of version 2, of which nothing says what they unpack to: write them with zstd or snappy".to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether a page unpacks to what its header says: what is stored with gzip is unpacked to its end, however far that is.
    fn is_as_said(&self, start: u64, bytes: &[u8]) -> Result<()> {
        if !matches!(self.codec, Compression::GZIP(_)) {
            return Ok(());
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.headers.iter().flatten().filter(|(at, _)| *at < start).max_by_key(|(at, _)| *at);
        let said = before.map_or(0, |(_, header)| header.unpacked);
        let mut unpacked = MultiGzDecoder::new(bytes).take(said.saturating_add(1));
        match std::io::copy(&mut unpacked, &mut std::io::sink())? == said {
            true => Ok(()),
            false => {
                Err(ParquetError::General(format!("a page does not unpack to {said} bytes, as it says")))
            }
        }
    }
}

impl Length for Guarded {
    fn len(&self) -> u64 {
        self.chunks.len()
    }
}

impl ChunkReader for Guarded {
    type T = Stream;

    fn get_read(&self, start: u64) -> Result<Stream> {
        let bytes = HEADER_BYTES.min(self.len().saturating_sub(start));
        let header = header(&self.chunks.get_bytes(start, bytes as usize)?);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.headers = [header.map(|header| (start, header)), seen.headers[0]];
        drop(seen);
        self.chunks.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.ask(start, length as u64)?;
        let bytes = self.chunks.get_bytes(start, length)?;
        self.is_as_said(start, &bytes)?;
        Ok(bytes)
    }
}

/// Reads the first three fields of a page's header, in Thrift's compact protocol: all numbers, and all there.
fn header(bytes: &[u8]) -> Option<Header> {
    /// The next field, a 32-bit number.
    const NEXT_NUMBER: u8 = 0x15;
    let mut bytes = bytes.iter().copied();
    let mut field = || -> Option<i64> {
        if bytes.next()? != NEXT_NUMBER {
            return None;
        }
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            match byte & 0x80 {
                0 => return Some((number >> 1) as i64 ^ -((number & 1) as i64)),
                // More than 32 bits.
                _ if shift > 28 => return None,
                _ => {}
            }
        }
    };
    let (kind, unpacked, stored) = (field()?, field()?, field()?);
    Some(Header { kind, unpacked: unpacked.try_into().ok()?, stored: stored.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_pages_unpack_to() {
        let of = |bytes: &[u8]| header(bytes).map(|h| (h.kind, h.unpacked, h.stored));
        // 200 MiB in 20,000 bytes: zigzag, seven bits a byte.
        let bytes = [0x15, 0x00, 0x15, 0x80, 0x80, 0x80, 0xc8, 0x01, 0x15, 0xc0, 0xb8, 0x02, 0x2c];
        assert_eq!(of(&bytes), Some((0, 200 << 20, 20_000)));
        assert_eq!(of(&[0x15, 0x04, 0x15, 0x02, 0x15, 0x02]), Some((2, 1, 1)));
        let endless = [0x15, 0x00, 0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for bad in [&b""[..], b"PAR1", &bytes[..6], &[0x15, 0x00, 0x15, 0x01, 0x15, 0x02], &endless] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
