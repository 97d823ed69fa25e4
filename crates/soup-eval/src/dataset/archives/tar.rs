//! What is in a tar file: the names of its members, and where their bytes are.
//!
//! Members are found by their headers, from one to the next; of the members themselves nothing is read. The `tar` crate reads streams, all
//! of each, and has no way to skip over what lies in an object store: so headers are read here, those of ustar with the extensions of PAX
//! and GNU that give long names and large sizes. What is no plain file, whose bytes would be somewhere else or nowhere, is refused by
//! name; so is what is cut off, or goes on after its end.

use std::ops::Range;

use bytes::Bytes;
use soup_core::{Error, Result};

use crate::source::{FileEntry, Files};

/// Headers have this size, and members begin and end at multiples of it.
const BLOCK: u64 = 512;
/// Read at a time, in bytes: small members are skipped without another reading.
const WINDOW_BYTES: u64 = 64 << 10;
/// Longest text that describes a member, in bytes: its name, and whatever PAX has.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Read at a time where headers are near each other.
const AHEAD_BYTES: u64 = 8 << 20;
/// What lies between two headers that are near: to read it costs less than to ask once more.
const NEAR_BYTES: u64 = 256 << 10;
/// More zeros than any writer fills an archive up with are not believed to be that.
const BEHIND_BYTES: u64 = 16 << 20;
/// Shown of a name, in characters.
const SHOWN_MAX: usize = 100;

/// A plain file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes are in the archive, of which they are.
    pub(super) bytes: Range<u64>,
}

/// The members of one archive, one after the other; folders and what describes members are passed over.
pub(super) struct Members<'a> {
    files: &'a dyn Files,
    entry: &'a FileEntry,
    /// Where the next header is.
    at: u64,
    /// What was read last, and where that begins.
    window: (u64, Bytes),
}

/// What a member is said to be before its header.
#[derive(Default)]
struct Described {
    name: Option<String>,
    size: Option<u64>,
}

impl<'a> Members<'a> {
    pub(super) fn new(files: &'a dyn Files, entry: &'a FileEntry) -> Members<'a> {
        Members { files, entry, at: 0, window: (0, Bytes::new()) }
    }

    /// The next one; `None` at the archive's end.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is something that is not understood, or nothing where something has to be; the errors
    /// of [`Files`].
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut described = Described::default();
        loop {
            let begins = self.at;
            let Some(header) = self.header()? else {
                return match described.name.is_some() || described.size.is_some() {
                    true => Err(Error::data("it is cut off: it ends where a member should be")),
                    false => Ok(None),
                };
            };
            let name = header.name();
            let of = |e: Error| e.context(format!("member {} at byte {begins}", shown(&name)));
            let size = header.size().map_err(of)?;
            match header.kind() {
                b'x' => self.pax(size, &mut described).map_err(of)?,
                b'g' => self.pax_of_all(size).map_err(of)?,
                b'L' => described.name = Some(self.long_name(size).map_err(of)?),
                // Old writers told folders by their names alone.
                b'5' => described = Described::default(),
                b'0' | b'\0' | b'7' if described.name.is_none() && name.ends_with(b"/") => {
                    self.take(described.size.unwrap_or(size)).map_err(of)?;
                    described = Described::default();
                }
                b'0' | b'\0' | b'7' => {
                    let name = match described.name {
                        Some(name) => name,
                        None => text(name.clone()).map_err(of)?,
                    };
                    let bytes = self.take(described.size.unwrap_or(size)).map_err(of)?;
                    return Ok(Some(Member { name, bytes }));
                }
                other => return Err(of(Error::data(refused(other)))),
            }
        }
    }

    /// The header at `at`, which is then behind it; `None` where the archive ends.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.at >= self.entry.size_bytes {
            return Err(Error::data("it is cut off: it has no end"));
        }
        let block = self.read(self.at..self.at.saturating_add(BLOCK))?;
        let begins = self.at;
        self.at += BLOCK;
        if block.iter().all(|&b| b == 0) {
            self.check_behind()?;
            return Ok(None);
        }
        let header = Header(block);
        match header.sums() {
            true => Ok(Some(header)),
            false => Err(Error::data(format!(
                "what should be a header at byte {begins} is none: it is no tar file (a compressed one has to be unpacked), or damaged"
            ))),
        }
    }

    /// Nothing but zeros may come after the end: whoever puts two archives into one file has the second one read by nobody.
    fn check_behind(&mut self) -> Result<()> {
        let (end, whole) = (self.at - BLOCK, self.entry.size_bytes);
        let mut more = whole.saturating_sub(self.at) > BEHIND_BYTES;
        while !more && self.at < whole {
            let next = whole.min(self.at.saturating_add(WINDOW_BYTES));
            more = self.read(self.at..next)?.iter().any(|&b| b != 0);
            self.at = next;
        }
        match more {
            true => Err(Error::data(format!(
                "it goes on after its end at byte {end}, such as two archives in one file do: write them as two"
            ))),
            false => Ok(()),
        }
    }

    /// Passes over `size` bytes of the archive, which have to be there: where they are.
    fn take(&mut self, size: u64) -> Result<Range<u64>> {
        let end = self.at.checked_add(size).filter(|&end| end <= self.entry.size_bytes);
        let Some(end) = end else {
            let left = self.entry.size_bytes.saturating_sub(self.at);
            return Err(Error::data(format!("it is cut off: {size} bytes, of which {left} are there")));
        };
        let bytes = self.at..end;
        // A server may say that a file is as large as no file is: what ends there is followed by nothing.
        self.at = end.checked_next_multiple_of(BLOCK).unwrap_or(end);
        Ok(bytes)
    }

    /// The text that describes a member, or all.
    fn extension(&mut self, size: u64) -> Result<Bytes> {
        if size > EXTENSION_BYTES_MAX {
            return Err(Error::data(format!(
                "a description of {size} bytes, and at most {EXTENSION_BYTES_MAX} are read"
            )));
        }
        let bytes = self.take(size)?;
        self.read(bytes)
    }

    /// What PAX says about the next member.
    fn pax(&mut self, size: u64, described: &mut Described) -> Result<()> {
        records(&self.extension(size)?, |key, value| match key {
            "path" => {
                described.name = Some(text(value.to_vec())?);
                Ok(())
            }
            "size" => {
                let size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                described.size =
                    Some(size.ok_or_else(|| Error::data("its size in PAX records is no number"))?);
                Ok(())
            }
            _ if key.starts_with("GNU.sparse.") => Err(Error::data(refused(b'S'))),
            _ => Ok(()),
        })
    }

    /// What PAX says about all members to come: dates and comments, and nothing that gives them names or sizes.
    fn pax_of_all(&mut self, size: u64) -> Result<()> {
        records(&self.extension(size)?, |key, _| match key {
            "path" | "size" => Err(Error::data(format!("PAX records give all members one {key}"))),
            _ if key.starts_with("GNU.sparse.") => Err(Error::data(refused(b'S'))),
            _ => Ok(()),
        })
    }

    /// A name that GNU writes before the member.
    fn long_name(&mut self, size: u64) -> Result<String> {
        text(until_zero(&self.extension(size)?).to_vec())
    }

    /// The bytes `range`.
    fn read(&mut self, range: Range<u64>) -> Result<Bytes> {
        if range.end > self.entry.size_bytes {
            return Err(Error::data("it is cut off within a header"));
        }
        let (start, window) = &self.window;
        let inside = range
            .start
            .checked_sub(*start)
            .filter(|from| from + (range.end - range.start) <= window.len() as u64);
        if let Some(from) = inside {
            let from = from as usize;
            return Ok(window.slice(from..from + (range.end - range.start) as usize));
        }
        let near =
            range.start.saturating_sub(start + window.len() as u64) <= NEAR_BYTES && !window.is_empty();
        let ahead = if near { AHEAD_BYTES } else { WINDOW_BYTES };
        let end = range.end.max(self.entry.size_bytes.min(range.start.saturating_add(ahead)));
        let read = self.files.read(&self.entry.path, range.start..end)?;
        let wanted = (range.end - range.start) as usize;
        if read.len() < wanted {
            return Err(Error::internal(format!("{} bytes were read, {wanted} were asked for", read.len())));
        }
        self.window = (range.start, read.clone());
        Ok(read.slice(..wanted))
    }
}

/// One header.
struct Header(Bytes);

impl Header {
    fn field(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    /// Its name, which goes on from another field where it is of ustar.
    fn name(&self) -> Vec<u8> {
        let name = until_zero(self.field(0..100));
        let prefix = until_zero(self.field(345..500));
        match self.field(257..263) == b"ustar\0" && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    fn size(&self) -> Result<u64> {
        number(self.field(124..136)).ok_or_else(|| Error::data("its size is no number"))
    }

    /// Whether its sum is what it says; old writers summed bytes with their signs.
    fn sums(&self) -> bool {
        let said = number(self.field(148..156));
        let bytes =
            || self.0.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { b' ' } else { b });
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b as i8)).sum();
        said.is_some_and(|said| said == unsigned || i64::try_from(said) == Ok(signed))
    }
}

/// A number in octal digits, or where those do not suffice in bytes; `None`: none, or one below zero.
fn number(field: &[u8]) -> Option<u64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Negative ones begin with all bits.
        let high = u64::from(first & 0x7f);
        let add = |sum: u64, &b: &u8| sum.checked_mul(256)?.checked_add(u64::from(b));
        return if first == 0xff { None } else { rest.iter().try_fold(high, add) };
    }
    let digits = until_zero(field).trim_ascii();
    let add = |sum: u64, &b: &u8| match b {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(b - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, add)
}

/// Calls `take` with every `LENGTH KEY=VALUE\n` of PAX records.
fn records(mut left: &[u8], mut take: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let wrong = || Error::data("its PAX records are not understood");
    while !left.is_empty() {
        let space = left.iter().take(20).position(|&b| b == b' ').ok_or_else(wrong)?;
        let length = std::str::from_utf8(&left[..space]).ok().and_then(|digits| digits.parse::<usize>().ok());
        let record = length.and_then(|length| left.get(space + 1..length)).ok_or_else(wrong)?;
        let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(wrong)?;
        take(std::str::from_utf8(&record[..equals]).map_err(|_| wrong())?, &record[equals + 1..])?;
        left = &left[space + 1 + record.len() + 1..];
    }
    Ok(())
}

/// Why a member of this type is none.
fn refused(kind: u8) -> String {
    let what = match kind {
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' | b'4' => "a device",
        b'6' => "a FIFO",
        b'K' => "a link with a long name",
        b'S' => "a sparse file",
        b'M' => "the rest of a file in another archive",
        b'V' => "the name of a volume",
        other => return format!("it is of type {:?}, which is not known", char::from(other)),
    };
    format!("it is {what}, and no plain file: write an archive of plain files")
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

fn text(name: Vec<u8>) -> Result<String> {
    String::from_utf8(name).map_err(|e| Error::data("its name is not UTF-8").with_source(e))
}

fn shown(name: &[u8]) -> String {
    let name: String = String::from_utf8_lossy(name).chars().take(SHOWN_MAX).collect();
    format!("{name:?}")
}

#[cfg(test)]
pub(super) mod tests;
