//! Hugging Face Parquet: one file or several (in the order of their names), a column of images or of texts, or two of pairs, and a column
//! of labels.
//!
//! An image column is a group with a `bytes` field (the `Image` feature of datasets) or plain binary. Opening reads the
//! footers. Reading a range decodes, of the row groups that hold it, the two columns, and skips whole pages before the
//! range; [`chunks`] turns the reader's many small reads into few requests, and [`pages`] asks before any of them is unpacked. Images are
//! lent from the pages that they are in; texts are copied, and labels that are texts are names of the model's classes.

mod chunks;
mod found;
mod pages;
mod schema;
mod unbroken;

use std::ops::Range;
use std::sync::Arc;

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::statistics::Statistics;
use bytes::Bytes;
use serde_json::Value;
use soup_core::instead;
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};

use self::chunks::{Chunks, Stream};
use self::found::Found;
use self::pages::Pages;
use self::unbroken::unbroken;
use super::columns::{self, same_columns};
use super::labels::Labels;
use super::{Input, InputKind, Sample};
use crate::budget::{Budget, Reading};
use crate::classes::Classes;
use crate::source::{FileEntry, Files};

/// What the metadata of all files of a dataset may take, as it is kept.
const METADATA_BYTES_MAX: usize = 256 << 20;
/// What a byte of metadata may become when it is parsed: some 25 bytes tell of a column in a row group.
const METADATA_UNPACKED: u64 = 16;

pub(super) struct Parquet {
    tables: Vec<Table>,
    names: Option<Vec<String>>,
    /// What labels mean.
    pub(super) labels: Labels,
}

/// The leaf columns that samples are in.
#[derive(Clone, Copy)]
enum Inputs {
    Image(usize),
    Text { first: usize, second: Option<usize> },
}

impl Inputs {
    fn leaves(self) -> impl Iterator<Item = usize> {
        let [first, second] = match self {
            Inputs::Image(leaf) => [Some(leaf), None],
            Inputs::Text { first, second } => [Some(first), second],
        };
        first.into_iter().chain(second)
    }
}

/// A label, as stored.
enum Label {
    Integer(i64),
    Number(f64),
    Text(Bytes),
}

/// One file.
struct Table {
    entry: FileEntry,
    metadata: ParquetMetaData,
    inputs: Inputs,
    /// A leaf column.
    label: usize,
    /// Whether the labels are numbers that are taken for some because nothing else is: no classes.
    scores: bool,
    /// What people should know of its columns.
    note: Option<String>,
    /// First row of every row group in the dataset; one more at the end.
    starts: Vec<u64>,
}

impl Parquet {
    /// `entries` are the files in order, at least one.
    pub(super) fn open(
        files: &Arc<dyn Files>,
        entries: &[FileEntry],
        options: (&DatasetOptions, InputKind),
        budget: &Budget,
    ) -> Result<Parquet> {
        let mut tables: Vec<Table> = Vec::new();
        let mut kept = 0;
        for entry in entries {
            let first_row = tables.last().and_then(|t| t.starts.last().copied()).unwrap_or(0);
            let table = Table::open((files, budget), entry, options, first_row)?;
            kept += table.metadata.memory_size();
            if kept > METADATA_BYTES_MAX {
                return Err(Error::data(format!(
                    "dataset {}: the metadata of its files up to {:?} takes more than {} MiB: write larger row groups, or name fewer files \
                     by a glob",
                    files.describe(),
                    entry.path,
                    METADATA_BYTES_MAX >> 20
                )));
            }
            tables.push(table);
        }
        same_columns(tables.iter().map(|t| (t.entry.path.as_str(), t.columns())), &files.describe())?;
        let names = |table: &Table| {
            let label = table.metadata.file_metadata().schema_descr().column(table.label);
            let at = || format!("dataset {} file {:?}", files.describe(), table.entry.path);
            let column = label.path().parts().first().map_or("", String::as_str);
            label_names(&table.metadata, column).map_err(|e| e.context(at()))
        };
        let all = tables.iter().map(names).collect::<Result<Vec<_>>>()?;
        let of_first = all.first().cloned().flatten();
        if let Some((other, _)) = tables.iter().zip(&all).find(|(_, names)| **names != of_first) {
            return Err(Error::data(format!(
                "dataset {}: its files {:?} and {:?} number their classes differently",
                files.describe(),
                entries[0].path,
                other.entry.path
            )));
        }
        Ok(Parquet { tables, names: of_first, labels: Labels::default() })
    }

    /// What people should know of the columns.
    pub(super) fn note(&self) -> Option<&str> {
        self.tables.iter().find_map(|table| table.note.as_deref())
    }

    /// Where a row is, for messages.
    pub(super) fn place(&self, row: u64) -> String {
        let of = self.tables.iter().find(|t| t.starts.last().is_some_and(|&end| row < end));
        match of {
            Some(table) if self.tables.len() > 1 => {
                format!("file {:?} row {}", table.entry.path, row - table.starts[0])
            }
            _ => format!("row {row}"),
        }
    }

    /// Whether labels may be what a model of these classes should say.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the column and its type.
    pub(super) fn check_labels(&self, model: &Classes) -> Result<()> {
        self.tables.iter().try_for_each(|table| table.check_label(model))
    }

    /// The largest label that the footers tell of, and the file that has it.
    pub(super) fn largest_label(&self) -> Option<(i64, &str)> {
        self.tables.iter().filter_map(|table| Some((table.largest_label()?, table.entry.path.as_str()))).max()
    }

    pub(super) fn len(&self) -> u64 {
        self.tables.last().and_then(|t| t.starts.last().copied()).unwrap_or(0)
    }

    pub(super) fn label_names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// `range` is in the dataset.
    pub(super) fn read(
        &self,
        files: &Arc<dyn Files>,
        range: Range<u64>,
        reading: &Reading,
    ) -> Result<Vec<Sample>> {
        let mut out = Vec::new();
        for table in &self.tables {
            for (group, bounds) in table.starts.windows(2).enumerate() {
                let (start, end) = (range.start.max(bounds[0]), range.end.min(bounds[1]));
                if start < end {
                    table.read(
                        (files, reading),
                        group,
                        start - bounds[0]..end - bounds[0],
                        (&self.labels, &mut out),
                    )?;
                }
            }
        }
        Ok(out)
    }
}

impl Table {
    fn open(
        (files, budget): (&Arc<dyn Files>, &Budget),
        entry: &FileEntry,
        (options, input): (&DatasetOptions, InputKind),
        first_row: u64,
    ) -> Result<Table> {
        let at = || format!("dataset {} file {:?}", files.describe(), entry.path);
        let read = budget.reading(
            || format!("the metadata of {}", at()),
            0,
            |reading| {
                let footer = Footer(Chunks::new(files.clone(), entry.clone()), reading);
                unbroken(|| ParquetMetaDataReader::new().parse_and_finish(&footer))
                    .map_err(|e| e.context(at()))
            },
        );
        let (metadata, _) = read.map_err(|e| {
            // Where its first bytes tell what it is instead, that says more.
            let start = files.read(&entry.path, 0..entry.size_bytes.min(instead::START_BYTES as u64));
            start.ok().and_then(|start| instead::check(at(), &start).err()).unwrap_or(e)
        })?;
        let schema = metadata.file_metadata().schema_descr();
        let url = files.describe();
        let Found { inputs, label, scores, note } = match input {
            InputKind::Images => found::images(schema, options, &url)?,
            InputKind::Texts => found::texts(schema, options, &at())?,
        };
        let mut starts = vec![first_row];
        let mut row = first_row;
        for group in metadata.row_groups() {
            // The reader asserts what is checked here.
            let sound = |leaf: usize| {
                group.columns().get(leaf).is_some_and(|chunk| {
                    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                    start >= 0 && chunk.compressed_size() >= 0
                })
            };
            if !sound(label) || !inputs.leaves().all(sound) {
                return Err(Error::data(format!("{}: corrupt row group metadata", at())));
            }
            row = u64::try_from(group.num_rows())
                .ok()
                .and_then(|rows| row.checked_add(rows))
                .filter(|&row| row <= i64::MAX as u64)
                .ok_or_else(|| Error::data(format!("{}: row group of {} rows", at(), group.num_rows())))?;
            starts.push(row);
        }
        Ok(Table { entry: entry.clone(), metadata, inputs, label, scores, note, starts })
    }

    /// Names of the columns that samples are in.
    fn columns(&self) -> Vec<String> {
        let schema = self.metadata.file_metadata().schema_descr();
        let name = |leaf| schema.column(leaf).path().parts().first().cloned().unwrap_or_default();
        self.inputs.leaves().chain([self.label]).map(name).collect()
    }

    fn check_label(&self, model: &Classes) -> Result<()> {
        let column = self.metadata.file_metadata().schema_descr().column(self.label);
        let stored = column.physical_type();
        let wrong = |is: &dyn std::fmt::Display, expected: &str| {
            let (file, name) = (&self.entry.path, column.name());
            Err(Error::data(format!(
                "file {file:?} has no labels: column {name:?} is {is}, expected {expected}"
            )))
        };
        if !model.is_empty() && self.scores {
            return Err(columns::no_classes().context(format!("file {:?}", self.entry.path)));
        }
        let classes = match self.inputs {
            Inputs::Image(_) => "integers",
            Inputs::Text { .. } => "integers, or names of classes",
        };
        let numbers = "signed integers or floating-point numbers";
        match (model.is_empty(), stored) {
            (regression, Type::INT32 | Type::INT64) => match found::integers(&column) {
                Ok(signed) if signed || !regression => Ok(()),
                Ok(_) => wrong(&column.converted_type(), numbers),
                Err(other) => wrong(&other, if regression { numbers } else { classes }),
            },
            (false, Type::FLOAT | Type::DOUBLE) => wrong(&stored, classes),
            _ => Ok(()),
        }
    }

    /// The largest label, where the footer has it for some of the rows.
    fn largest_label(&self) -> Option<i64> {
        let largest = |statistics: &Statistics| match statistics {
            Statistics::Int32(of) => of.max_opt().map(|&max| i64::from(max)),
            Statistics::Int64(of) => of.max_opt().copied(),
            _ => None,
        };
        let groups = self.metadata.row_groups().iter();
        groups.filter_map(|group| group.column(self.label).statistics().and_then(largest)).max()
    }

    /// Appends the rows `range` of one row group.
    fn read(
        &self,
        (files, reading): (&Arc<dyn Files>, &Reading),
        group: usize,
        range: Range<u64>,
        (labels, out): (&Labels, &mut Vec<Sample>),
    ) -> Result<()> {
        let first_row = self.starts[group] + range.start;
        let at = || format!("dataset {} file {:?}", files.describe(), self.entry.path);
        let row = |index: usize| format!("dataset {} row {}", files.describe(), first_row + index as u64);
        let of_leaf = |leaf: usize, what: &str| {
            self.bytes((files, reading), group, leaf, &range, what).map_err(|e| e.context(at()))
        };
        let targets = self.labels((files, reading), group, &range).map_err(|e| e.context(at()))?;
        let targets = targets.into_iter().enumerate().map(|(index, label)| {
            let target = match label {
                Some(Label::Text(text)) => std::str::from_utf8(&text)
                    .map_err(|e| Error::data("its label is not UTF-8").with_source(e))
                    .and_then(|text| labels.of_text(text)),
                Some(Label::Integer(number)) => labels.of_integer(number),
                Some(Label::Number(number)) => labels.of_number(number),
                None => Err(Error::data("has no label: it is null")),
            };
            target.map_err(|e| e.context(row(index)))
        });
        let samples: Vec<Result<Input>> = match self.inputs {
            Inputs::Image(leaf) => {
                let missing = |index| {
                    Error::data(format!("{} has no image bytes (a path alone cannot be read)", row(index)))
                };
                let images = of_leaf(leaf, "images")?.into_iter().enumerate();
                images.map(|(index, image)| Ok(Input::Image(image.ok_or_else(|| missing(index))?))).collect()
            }
            Inputs::Text { first, second } => {
                let firsts = of_leaf(first, "texts")?;
                let seconds = second.map(|leaf| of_leaf(leaf, "texts")).transpose()?;
                let text = |index: usize, bytes: Option<Bytes>| {
                    let bytes = bytes
                        .ok_or_else(|| Error::data(format!("{} has no text: it is null", row(index))))?;
                    if !reading.may(bytes.len() as u64) {
                        return Err(Error::data("the texts do not fit"));
                    }
                    String::from_utf8(bytes.to_vec()).map_err(|e| {
                        Error::data(format!("{}: its text is not UTF-8", row(index))).with_source(e)
                    })
                };
                let mut seconds = seconds.map(Vec::into_iter);
                let both = |(index, bytes): (usize, Option<Bytes>)| {
                    let second = seconds.as_mut().map(|seconds| text(index, seconds.next().flatten()));
                    Ok(Input::Text { first: text(index, bytes)?, second: second.transpose()? })
                };
                firsts.into_iter().enumerate().map(both).collect()
            }
        };
        for (input, target) in samples.into_iter().zip(targets) {
            out.push(Sample { target: target?, input: input? });
        }
        Ok(())
    }

    /// The labels of the rows `range` of a row group.
    fn labels(
        &self,
        of: (&Arc<dyn Files>, &Reading),
        group: usize,
        range: &Range<u64>,
    ) -> Result<Vec<Option<Label>>> {
        let level = self.level(self.label);
        let reader = unbroken(|| self.column(of, group, self.label))?;
        unbroken(|| match reader {
            ColumnReader::Int32ColumnReader(reader) => {
                cells(reader, level, range, |v| Label::Integer(i64::from(v)))
            }
            ColumnReader::Int64ColumnReader(reader) => cells(reader, level, range, Label::Integer),
            ColumnReader::FloatColumnReader(reader) => {
                cells(reader, level, range, |v| Label::Number(v.into()))
            }
            ColumnReader::DoubleColumnReader(reader) => cells(reader, level, range, Label::Number),
            ColumnReader::ByteArrayColumnReader(reader) => {
                cells(reader, level, range, |v| Label::Text(Bytes::from_owner(Lent(v))))
            }
            _ => Err(ParquetError::General("labels are neither integers nor numbers".to_owned())),
        })
    }

    /// The cells of a leaf of `what`, which are bytes, in the rows `range` of a row group.
    fn bytes(
        &self,
        of: (&Arc<dyn Files>, &Reading),
        group: usize,
        leaf: usize,
        range: &Range<u64>,
        what: &str,
    ) -> Result<Vec<Option<Bytes>>> {
        let reader = unbroken(|| self.column(of, group, leaf))?;
        unbroken(|| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                cells(reader, self.level(leaf), range, |v| Bytes::from_owner(Lent(v)))
            }
            _ => Err(ParquetError::General(format!("{what} are not binary"))),
        })
    }

    /// The definition level of a leaf's cells that are there.
    fn level(&self, leaf: usize) -> i16 {
        self.metadata.file_metadata().schema_descr().column(leaf).max_def_level()
    }

    fn column(
        &self,
        (files, reading): (&Arc<dyn Files>, &Reading),
        group: usize,
        leaf: usize,
    ) -> Result<ColumnReader, ParquetError> {
        let group = self.metadata.row_group(group);
        let chunk = group.column(leaf);
        let pages = Pages::new(files.clone(), self.entry.clone(), chunk, group.num_rows(), reading)?;
        Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
    }
}

/// A file whose metadata is read: what that takes is claimed when it is known how long it is, and its schema is looked at before it gets
/// to the reader.
struct Footer<'r>(Chunks, &'r Reading);

impl Length for Footer<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Footer<'_> {
    type T = Stream;

    fn get_read(&self, start: u64) -> Result<Stream, ParquetError> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // What is not in the file is refused there.
        pages::may(self.1, (length as u64).min(self.len()).saturating_mul(METADATA_UNPACKED))?;
        let bytes = self.0.get_bytes(start, length)?;
        let paths = schema::check(&bytes).map_err(|e| ParquetError::External(Box::new(e)))?;
        pages::may(self.1, paths)?;
        Ok(bytes)
    }
}

/// The bytes of a cell, which are those of its page.
struct Lent(ByteArray);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.data()
    }
}

/// The cells `range` of a column without repetition; `None` for null. `level` is the column's definition level: the one
/// of cells that are there.
fn cells<T: DataType, V>(
    mut reader: ColumnReaderImpl<T>,
    level: i16,
    range: &Range<u64>,
    convert: impl Fn(T::T) -> V,
) -> Result<Vec<Option<V>>, ParquetError> {
    let (skip, count) = (range.start as usize, (range.end - range.start) as usize);
    let short = || ParquetError::General("column has fewer rows than its row group".to_owned());
    if reader.skip_records(skip)? != skip {
        return Err(short());
    }
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(count, Some(&mut levels), None, &mut values)?;
    if level == 0 {
        levels = vec![0; records];
    }
    if records != count || levels.len() != count {
        return Err(short());
    }
    let mut values = values.into_iter();
    Ok(levels.iter().map(|&l| if l == level { values.next().map(&convert) } else { None }).collect())
}

/// Class names from the metadata that datasets writes into the footer.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where the labels are said to have names, and those are not understood.
fn label_names(metadata: &ParquetMetaData, column: &str) -> Result<Option<Vec<String>>> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"));
    let Some(text) = pair.and_then(|pair| pair.value.as_deref()) else { return Ok(None) };
    let value: Value =
        serde_json::from_str(text).map_err(|e| Error::data("its metadata is not JSON").with_source(e))?;
    names_of(&value["info"]["features"][column], column)
}

/// Class names in the description of a column.
fn names_of(feature: &Value, column: &str) -> Result<Option<Vec<String>>> {
    let text = |name: &Value| name.as_str().map(str::to_owned);
    let names: Option<Vec<String>> = match &feature["names"] {
        Value::Null => return Ok(None),
        Value::Array(names) => names.iter().map(text).collect(),
        _ => None,
    };
    names.map(Some).ok_or_else(|| {
        Error::data(format!("the names of the classes in column {column:?} are not understood"))
    })
}

/// Our own errors travel through the reader as external ones; everything else is corrupt data.
fn foreign(error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::data(other.to_string()),
        },
        other => Error::data(format!("not a readable Parquet file: {other}")),
    }
}
