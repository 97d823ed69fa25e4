//! The schema of a file, looked at before the reader makes a tree of it.
//!
//! In a footer the schema is a list of elements, each with the number of those that are its fields. The reader follows these numbers by
//! calling itself, and allocates what they say: so a small file could take all of a stack, which nothing catches, or all memory. Here the
//! list is walked as it is stored (Thrift's compact protocol). The reader does not look at the types of the fields that it knows, and takes
//! them for what they should be; so does this, since it would look at something else than what is read otherwise.

use soup_core::{Error, Result};

/// Deepest nesting of columns: what people write is a tenth of it.
const DEPTH_MAX: usize = 64;
/// Deepest nesting of what is skipped.
const SKIPPED_DEPTH_MAX: usize = 16;

/// Types of fields, as headers name them; a truth value is in its type.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;

/// Fields of the metadata, and of an element of its schema.
const SCHEMA: i16 = 2;
const NAME: i16 = 4;
const CHILDREN: i16 = 5;
const LOGICAL: i16 = 10;

/// Checks that the schema in a file's `metadata` is a tree of which everything is there, and not too deep; gives the bytes that the
/// paths of its columns take, in which the name of a group is once for each of its columns.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) saying what is wrong.
pub(super) fn check(metadata: &[u8]) -> Result<u64> {
    let mut left = Compact(metadata);
    let unread = || {
        Error::data("not a readable Parquet file: its metadata does not begin with a schema, or is encrypted")
    };
    let count = left.schema().ok_or_else(unread)?;
    let mut tree = Tree { count, open: Vec::new(), owed: 1, paths: 0 };
    for at in 0..count {
        let (name, children) = left.element().ok_or_else(unread)?;
        tree.add(name as u64, children, count - at - 1)?;
    }
    match tree.owed {
        0 => Ok(tree.paths),
        _ => Err(Error::data("not a readable Parquet file: its schema is empty")),
    }
}

/// What was seen of a schema.
struct Tree {
    /// All its elements.
    count: u64,
    /// The groups around the next element: how many of their fields are to come, and how long their paths are.
    open: Vec<(u64, u64)>,
    /// Elements that have to come.
    owed: u64,
    paths: u64,
}

impl Tree {
    /// Adds the next element, after which there are `left`.
    fn add(&mut self, name: u64, children: u64, left: u64) -> Result<()> {
        let Some(owed) = self.owed.checked_sub(1) else {
            return Err(Error::data("not a readable Parquet file: its schema has several roots"));
        };
        let Some(owed) = owed.checked_add(children).filter(|&owed| owed <= left) else {
            return Err(Error::data(format!(
                "not a readable Parquet file: its schema has {} elements, and one of them claims {children} fields",
                self.count
            )));
        };
        self.owed = owed;
        while self.open.last().is_some_and(|&(fields, _)| fields == 0) {
            self.open.pop();
        }
        let mut path = name.saturating_add(size_of::<String>() as u64);
        if let Some((fields, around)) = self.open.last_mut() {
            *fields -= 1;
            path = path.saturating_add(*around);
        }
        if children == 0 {
            self.paths = self.paths.saturating_add(path);
        } else if self.open.len() >= DEPTH_MAX {
            return Err(Error::data(format!("its columns are nested more than {DEPTH_MAX} deep")));
        } else {
            self.open.push((children, path));
        }
        Ok(())
    }
}

/// Bytes in Thrift's compact protocol; nothing where they are not what they should be.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    /// The number of elements of the schema, which come next.
    fn schema(&mut self) -> Option<u64> {
        let mut last = 0;
        loop {
            let (id, kind) = self.field(last)??;
            match id {
                SCHEMA => break,
                1 | 3 => self.skip(I64, 0)?,
                6 => self.skip(BINARY, 0)?,
                // Lists that the reader reads whatever their type is said to be.
                4 | 5 | 7 => return None,
                _ => self.skip(kind, 0)?,
            }
            last = id;
        }
        let header = self.byte()?;
        if header & 0xf != STRUCT {
            return None;
        }
        let count = match header >> 4 {
            0xf => self.varint()?,
            few => u64::from(few),
        };
        // Each takes a byte at least.
        (count <= self.0.len() as u64).then_some(count)
    }

    /// The length of an element's name, and how many fields it has.
    fn element(&mut self) -> Option<(usize, u64)> {
        let (mut name, mut children, mut last) = (0, 0, 0);
        while let Some((id, kind)) = self.field(last)? {
            match id {
                NAME => name = self.binary()?,
                CHILDREN => children = u64::from(u32::try_from(self.number()?).ok()?),
                LOGICAL => self.logical()?,
                1..LOGICAL => self.skip(I32, 0)?,
                _ => self.skip(kind, 0)?,
            }
            last = id;
        }
        Some((name, children))
    }

    /// A logical type: one field, which is a structure.
    fn logical(&mut self) -> Option<()> {
        let (of, kind) = self.field(0)??;
        match of {
            5 | 7 | 8 | 10 | 16..=18 => self.parts(of)?,
            1..=19 if of != 9 => self.empty()?,
            _ => self.skip(kind, 0)?,
        }
        self.field(of)?.is_none().then_some(())
    }

    /// What the logical type `of` consists of.
    fn parts(&mut self, of: i16) -> Option<()> {
        let mut last = 0;
        while let Some((id, kind)) = self.field(last)? {
            match (of, id) {
                (5, 1 | 2) | (18, 2) => self.skip(I32, 0)?,
                (7 | 8, 1) | (10, 2) if kind != TRUE && kind != FALSE => return None,
                (7 | 8, 2) => {
                    let (unit, _) = self.field(0)??;
                    self.empty()?;
                    self.field(unit)?.is_none().then_some(())?;
                }
                (10 | 16, 1) => self.skip(BYTE, 0)?,
                (17 | 18, 1) => self.skip(BINARY, 0)?,
                _ => self.skip(kind, 0)?,
            }
            last = id;
        }
        Some(())
    }

    /// A structure without any field.
    fn empty(&mut self) -> Option<()> {
        (self.byte()? == 0).then_some(())
    }

    /// Skips a value, but no list: none has to be here.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            TRUE | FALSE => Some(()),
            BYTE => self.take(1),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            DOUBLE => self.take(8),
            BINARY => self.binary().map(|_| ()),
            STRUCT if depth < SKIPPED_DEPTH_MAX => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    self.skip(kind, depth + 1)?;
                    last = id;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// The next field of a structure and its type, after the field `last`; `Some(None)` at the end.
    fn field(&mut self, last: i16) -> Option<Option<(i16, u8)>> {
        let header = self.byte()?;
        let kind = header & 0xf;
        if kind == 0 {
            return Some(None);
        }
        let id = match header >> 4 {
            0 => i16::try_from(self.number()?).ok()?,
            more => last.checked_add(i16::from(more))?,
        };
        Some(Some((id, kind)))
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Skips bytes that come with their number, and gives it.
    fn binary(&mut self) -> Option<usize> {
        let bytes = usize::try_from(self.varint()?).ok()?;
        self.take(bytes)?;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            match byte & 0x80 {
                0 => return Some(number),
                _ if shift > 63 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while number > 0x7f {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
        out
    }

    /// An element with a name of one letter, and so many children.
    fn element(children: u32) -> Vec<u8> {
        [&[0x35, 0, 0x18, 1, b'a', 0x15][..], &varint(u64::from(children) * 2), &[0]].concat()
    }

    fn metadata(elements: &[Vec<u8>]) -> Vec<u8> {
        [
            &[0x15, 2, 0x19, 0xfc][..],
            &varint(elements.len() as u64),
            &elements.concat(),
            &[0x16, 0, 0x19, 0xc, 0],
        ]
        .concat()
    }

    fn nested(groups: usize) -> Vec<u8> {
        metadata(&[vec![element(1); groups], vec![element(0)]].concat())
    }

    fn refused(metadata: &[u8]) -> String {
        let error = check(metadata).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        error.chain()
    }

    #[test]
    fn schemas_that_would_take_a_stack_or_all_memory_are_refused() {
        assert!(check(&nested(DEPTH_MAX)).is_ok());
        for deep in [DEPTH_MAX + 1, 100_000] {
            assert!(refused(&nested(deep)).contains("nested more than 64 deep"));
        }
        let claims = metadata(&[element(i32::MAX as u32), element(0)]);
        assert!(refused(&claims).contains("has 2 elements, and one of them claims 2147483647 fields"));
        // What the inner group claims is owed to the outer one.
        let inner = metadata(&[element(2), element(2), element(0), element(0)]);
        assert!(refused(&inner).contains("claims 2 fields"));
        assert!(refused(&metadata(&[element(0), element(1), element(0)])).contains("several roots"));
        assert!(refused(&metadata(&[])).contains("is empty"));
    }

    #[test]
    fn elements_are_what_the_reader_takes_them_for() {
        // What is left after an element with such a logical type.
        let left = |kind: &[u8]| {
            let bytes = [&[0x35, 0, 0x18, 1, b'a', 0x6c][..], kind, &[0, 0x77]].concat();
            let mut left = Compact(&bytes);
            left.element().map(|_| left.0.to_vec())
        };
        for kind in [
            // A text, a decimal, a time in milliseconds, an integer of 8 bits, and a type that is not known yet.
            &[0x1c, 0, 0][..],
            &[0x5c, 0x15, 2, 0x15, 4, 0, 0],
            &[0x8c, 0x11, 0x1c, 0x1c, 0, 0, 0, 0],
            &[0xac, 0x13, 8, 0x11, 0, 0],
            &[0x0c, 0x3c, 0x15, 2, 0, 0],
            // A number and a unit that are said to be truth values, which have no bytes.
            &[0x5c, 0x11, 0, 0, 0],
            &[0x8c, 0x11, 0x1c, 0x11, 0, 0, 0, 0],
        ] {
            assert_eq!(left(kind).unwrap(), [0x77], "{kind:?}");
        }
        // A text that consists of something, a truth value that is a number, and a list.
        for bad in [
            &[0x1c, 0x15, 2, 0, 0][..],
            &[0x8c, 0x15, 2, 0x1c, 0x1c, 0, 0, 0, 0],
            &[0x0c, 0x3c, 0x19, 0, 0, 0],
        ] {
            assert_eq!(left(bad), None, "{bad:?}");
        }
        // A repetition that is said to be a list is a number.
        let root = [0x39, 0, 0x18, 1, b'a', 0x15, 2, 0].to_vec();
        assert!(check(&metadata(&[root, element(0)])).is_ok());
    }

    #[test]
    fn metadata_that_does_not_begin_with_a_schema_is_refused() {
        for bad in [
            &b""[..],
            b"{}",
            &[0x55, 0, 0xd5, 2],
            &[0x1c, 0x1c, 0, 0, 0],
            &[0x11, 0x19, 0xfc],
            &nested(3)[..20],
        ] {
            assert!(refused(bad).contains("does not begin with a schema"), "{bad:?}");
        }
        let endless = [0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07];
        assert!(refused(&endless).contains("does not begin with a schema"));
    }

    #[test]
    fn what_is_written_is_understood() {
        let columns = "required group image { optional binary bytes; optional binary path (UTF8); } required int64 label;
            optional int32 a (DECIMAL(5,1)); optional int64 b (TIMESTAMP(NANOS,true)); optional int64 c (TIME(MICROS,false));
            optional int32 d (INTEGER(8,true)); optional binary e (JSON); optional int32 f (DATE);
            optional group l (LIST) { repeated group list { optional int32 element; } }";
        let schema = Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap());
        let mut file = Vec::new();
        let writer =
            SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::builder().build()));
        writer.unwrap().close().unwrap();
        let end = file.len() - 8;
        let bytes = u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
        let paths = check(&file[end - bytes..end]).unwrap();
        // Ten columns, three of which lie deeper.
        assert!((10 * size_of::<String>() as u64..4 << 10).contains(&paths), "{paths}");
    }
}
