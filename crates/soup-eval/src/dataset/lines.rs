//! Tables of texts with a line for each sample: JSON lines, and tab-separated values as GLUE's files are.
//!
//! Opening reads the files once, for where their lines are; every so many are noted. Reading a range reads from the noted line before
//! it. In JSON lines every line is an object with the columns as keys. Tab-separated files name their columns in the first line, and have
//! no quotes: what looks like one is part of the text.

mod row;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use soup_core::instead;
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};

use self::row::{COLUMNS_MAX, Cell, Row};
use super::columns::{self, Column, TextColumns, choose, no_classes, same_columns};
use super::labels::Labels;
use super::{Input, Sample};
use crate::budget::Reading;
use crate::classes::Classes;
use crate::source::{FileEntry, Files};

/// Extensions of JSON lines.
pub(super) const JSON: [&str; 3] = ["jsonl", "ndjson", "json"];
/// Extensions of tab-separated values.
pub(super) const TABS: [&str; 1] = ["tsv"];
/// All files of a dataset, in bytes: they have to be read once to find their lines.
const FILES_BYTES_MAX: u64 = 4 << 30;
/// Longest line, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Read at a time, in bytes.
const CHUNK_BYTES: u64 = 4 << 20;
/// Every so many lines are noted.
const NOTED: u64 = 256;
/// First lines that are looked at for the columns, at most.
const HEAD_LINES: usize = 100;
/// The same in bytes, but for the first line.
const HEAD_BYTES: usize = 1 << 20;

pub(super) struct Lines {
    tables: Vec<Table>,
    pub(super) labels: Labels,
    notes: Vec<String>,
}

/// One file.
struct Table {
    entry: FileEntry,
    form: Form,
    /// Rows of the dataset.
    rows: Range<u64>,
    /// Where rows 0, `NOTED` and so on begin, in bytes; and the end.
    starts: Vec<u64>,
    /// The columns of the first lines, and whether they have texts.
    known: BTreeMap<String, bool>,
    options: DatasetOptions,
}

enum Form {
    /// The keys of the first text, the second one and the label.
    Json { keys: Keys, scores: bool },
    /// Their columns, of so many, and what those are called.
    Tabs { columns: TextColumns, of: usize, keys: Keys },
}

/// What is read of an object.
#[derive(PartialEq)]
struct Keys {
    first: String,
    second: Option<String>,
    label: String,
}

impl Lines {
    /// `entries` are the files in order, at least one, all JSON lines or all `tabs`.
    pub(super) fn open(
        files: &dyn Files,
        entries: &[FileEntry],
        tabs: bool,
        options: &DatasetOptions,
    ) -> Result<Lines> {
        let bytes = entries.iter().map(|e| e.size_bytes).fold(0, u64::saturating_add);
        if bytes > FILES_BYTES_MAX {
            return Err(Error::data(format!(
                "dataset {} has {} MiB of lines, and at most {} MiB are read: make Parquet of them",
                files.describe(),
                bytes >> 20,
                FILES_BYTES_MAX >> 20
            )));
        }
        let (mut tables, mut notes): (Vec<Table>, Vec<String>) = Default::default();
        for entry in entries {
            let first_row = tables.last().map_or(0, |t| t.rows.end);
            let (table, said) = Table::open(files, entry, tabs, options, first_row)?;
            let new: Vec<String> = said.into_iter().filter(|note| !notes.contains(note)).collect();
            notes.extend(new);
            tables.push(table);
        }
        same_columns(tables.iter().map(|t| (t.entry.path.as_str(), t.columns())), &files.describe())?;
        Ok(Lines { tables, labels: Labels::default(), notes })
    }

    /// Whether labels may be what a model of these classes should say.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) naming the file.
    pub(super) fn check_labels(&self, model: &Classes) -> Result<()> {
        let scores = |table: &&Table| match &table.form {
            Form::Json { scores, .. } => *scores,
            Form::Tabs { columns, .. } => columns.scores,
        };
        match self.tables.iter().find(scores).filter(|_| !model.is_empty()) {
            Some(table) => Err(no_classes().context(format!("file {:?}", table.entry.path))),
            None => Ok(()),
        }
    }

    /// What people should know.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn len(&self) -> u64 {
        self.tables.last().map_or(0, |t| t.rows.end)
    }

    /// Where a row is, for messages: lines are counted from 1.
    pub(super) fn place(&self, row: u64) -> String {
        match self.tables.iter().find(|t| row < t.rows.end) {
            Some(table) => {
                let heads = u64::from(matches!(table.form, Form::Tabs { .. }));
                let line = row - table.rows.start + 1 + heads;
                if self.tables.len() > 1 {
                    format!("file {:?} line {line}", table.entry.path)
                } else {
                    format!("line {line}")
                }
            }
            None => format!("row {row}"),
        }
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
            let wanted = range.start.max(table.rows.start)..range.end.min(table.rows.end);
            if wanted.start < wanted.end {
                let at = |row: u64| format!("dataset {} {}", files.describe(), self.place(row));
                table.read(files.as_ref(), wanted, reading, (&self.labels, &at), &mut out)?;
            }
        }
        Ok(out)
    }
}

impl Table {
    fn open(
        files: &dyn Files,
        entry: &FileEntry,
        tabs: bool,
        options: &DatasetOptions,
        first_row: u64,
    ) -> Result<(Table, Vec<String>)> {
        let about = format!("dataset {} file {:?}", files.describe(), entry.path);
        let Scanned { head, starts, rows, quoted } = scan(files, entry, tabs, &about)?;
        if let Some(line) = head.first() {
            instead::check(&about, line)?;
        }
        let Head { form, known, note } =
            if tabs { tab_form(&head, options, &about)? } else { json_form(&head, options, &about)? };
        let rows = first_row..first_row.saturating_add(rows);
        let options = options.clone();
        let quoted = quoted.map(|line| {
            format!(
                "line {line} of {:?} has a cell in quotes with doubled ones in it, as CSV writes texts with quotes: tab-separated values are \
                 read as they are, with all quotes; write JSON lines or Parquet where these are no part of the texts",
                entry.path
            )
        });
        let notes = note.into_iter().chain(quoted).collect();
        Ok((Table { entry: entry.clone(), form, rows, starts, known, options }, notes))
    }

    /// Names of the columns that samples are in.
    fn columns(&self) -> Vec<String> {
        let (Form::Json { keys, .. } | Form::Tabs { keys, .. }) = &self.form;
        [Some(&keys.first), keys.second.as_ref(), Some(&keys.label)].into_iter().flatten().cloned().collect()
    }

    /// Appends the rows `range`, of the dataset's.
    fn read(
        &self,
        files: &dyn Files,
        range: Range<u64>,
        reading: &Reading,
        (labels, at): (&Labels, &dyn Fn(u64) -> String),
        out: &mut Vec<Sample>,
    ) -> Result<()> {
        let own = range.start - self.rows.start..range.end - self.rows.start;
        let (block, last) = ((own.start / NOTED) as usize, own.end.div_ceil(NOTED) as usize);
        let bytes = self.starts[block]..self.starts[last.min(self.starts.len() - 1)];
        // The bytes, and the texts in them.
        if !reading.may(bytes.end.saturating_sub(bytes.start).saturating_mul(2)) {
            return Err(Error::data("the lines do not fit"));
        }
        let bytes = files.read(&self.entry.path, bytes)?;
        let lines = bytes.split(|&b| b == b'\n').skip((own.start - block as u64 * NOTED) as usize);
        let before = out.len();
        for (line, row) in lines.zip(range.clone()) {
            let sample = self.sample(line, labels).map_err(|e| e.context(at(row)))?;
            out.push(sample);
        }
        match (out.len() - before) as u64 == range.end - range.start {
            true => Ok(()),
            false => Err(Error::data(format!("{}: fewer lines than there were", at(range.start)))),
        }
    }

    fn sample(&self, line: &[u8], labels: &Labels) -> Result<Sample> {
        let line = std::str::from_utf8(line).map_err(|e| Error::data("not UTF-8").with_source(e))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches('\u{feff}');
        let (input, target) = match &self.form {
            Form::Json { keys: Keys { first, second, label }, .. } => {
                let Row(row) = serde_json::from_str(line)
                    .map_err(|e| Error::data("not a JSON object").with_source(e))?;
                self.check_keys(&row)?;
                let text = |key: &String| match row.get(key) {
                    Some(Cell::Text(text)) => Ok(text.clone()),
                    other => Err(Error::data(format!("{key} is {}, no text", shown(other)))),
                };
                let target = match row.get(label) {
                    Some(Cell::Text(name)) => labels.of_text(name)?,
                    Some(Cell::Number(number)) => labels.of_json(number)?,
                    other => return Err(Error::data(format!("has no label: it is {}", shown(other)))),
                };
                let second = second.as_ref().map(text).transpose()?;
                (Input::Text { first: text(first)?, second }, target)
            }
            Form::Tabs { columns, of, .. } => {
                let count = columns_of(line);
                if count != *of {
                    return Err(Error::data(format!("{count} columns, and the first line names {of}")));
                }
                let cells: Vec<&str> = line.split('\t').collect();
                let second = columns.second.map(|at| cells[at].to_owned());
                let target = labels.of_cell(cells[columns.label])?;
                (Input::Text { first: cells[columns.first].to_owned(), second }, target)
            }
        };
        Ok(Sample { input, target })
    }

    /// Refuses a row with columns that the first ones do not have, if it is not known with them which are meant.
    fn check_keys(&self, row: &BTreeMap<String, Cell>) -> Result<()> {
        let Form::Json { keys, .. } = &self.form else { return Ok(()) };
        if row.keys().all(|key| self.known.contains_key(key)) {
            return Ok(());
        }
        // A row that lacks a column says so itself.
        let others = row.iter().filter(|(key, _)| !self.known.contains_key(*key));
        let all = self.known.iter().map(|(name, text)| Column { name, text: *text });
        let others = others.map(|(name, value)| Column { name, text: value.is_text() });
        let columns: Vec<Column<'_>> = all.chain(others).collect();
        let (chosen, _) = choose(&columns, &self.options, "its row")?;
        match Keys::of(&columns, &chosen) == *keys {
            true => Ok(()),
            false => Err(Error::data("has other columns of texts or labels than the first lines")),
        }
    }
}

impl Keys {
    fn of(columns: &[Column<'_>], chosen: &TextColumns) -> Keys {
        let name = |at: usize| columns[at].name.to_owned();
        Keys { first: name(chosen.first), second: chosen.second.map(name), label: name(chosen.label) }
    }
}

fn shown(cell: Option<&Cell>) -> String {
    match cell {
        None => "not there".to_owned(),
        Some(Cell::Other(is)) => (*is).to_owned(),
        Some(Cell::Number(number)) => number.to_string(),
        Some(Cell::Text(text)) => format!("{:?}", text.chars().take(60).collect::<String>()),
    }
}

/// The columns of a line of tab-separated values.
fn columns_of(line: &str) -> usize {
    line.bytes().filter(|&b| b == b'\t').count() + 1
}

/// What was found by reading a file once.
struct Scanned {
    /// Its first lines.
    head: Vec<Vec<u8>>,
    /// As a table has them.
    starts: Vec<u64>,
    rows: u64,
    /// The first line of a table that has a cell as CSV [quotes](is_quoted) it, counted from 1.
    quoted: Option<u64>,
}

/// Whether a cell is one as CSV writes texts with quotes in them: in quotes, and those within doubled.
fn is_quoted(cell: &[u8]) -> bool {
    let Some(text) = cell.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else { return false };
    let mut quotes = text.split(|&b| b != b'"').map(<[u8]>::len).filter(|&run| run > 0).peekable();
    quotes.peek().is_some() && quotes.all(|run| run.is_multiple_of(2))
}

/// The first lines of a file, as they are put together.
#[derive(Default)]
struct HeadLines {
    whole: Vec<Vec<u8>>,
    last: Vec<u8>,
    bytes: usize,
}

impl HeadLines {
    /// Whether no more of it is wanted. The first line always is.
    fn is_full(&self) -> bool {
        !self.whole.is_empty() && (self.whole.len() >= HEAD_LINES || self.bytes > HEAD_BYTES)
    }

    /// Of a line, whose end it is or not.
    fn push(&mut self, part: &[u8], ends: bool) {
        if self.is_full() {
            return;
        }
        self.last.extend_from_slice(part);
        self.bytes += part.len();
        if ends {
            self.whole.push(std::mem::take(&mut self.last));
        }
    }

    /// All of them, at the end of the file.
    fn lines(mut self) -> Vec<Vec<u8>> {
        if !self.last.is_empty() && !self.is_full() {
            self.whole.push(self.last);
        }
        self.whole
    }
}

/// The first lines of a file, and where its rows are: the first line is none of them where it is a `head`, and one without anything in it
/// at the very end is none.
fn scan(files: &dyn Files, entry: &FileEntry, head: bool, about: &str) -> Result<Scanned> {
    let mut lines = HeadLines::default();
    let (mut starts, mut rows) = (Vec::new(), 0u64);
    // Where the line begins that is being read, and whether it is a row.
    let (mut start, mut is_row) = (0u64, !head);
    let mut end_of = |start: u64, is_row: bool| {
        if is_row {
            if rows.is_multiple_of(NOTED) {
                starts.push(start);
            }
            rows += 1;
        }
    };
    let (mut at, mut is_blank) = (0, false);
    let (mut line, mut quoted) = (0u64, None);
    while at < entry.size_bytes {
        let end = entry.size_bytes.min(at + CHUNK_BYTES);
        let chunk = files.read(&entry.path, at..end)?;
        let mut from = 0;
        for newline in chunk.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at) {
            lines.push(&chunk[from..newline], true);
            end_of(start, is_row);
            line += 1;
            // One that began before is looked at in part, which is none of these.
            if head && quoted.is_none() && start >= at {
                let mut cells = chunk[from..newline].trim_ascii_end().split(|&b| b == b'\t');
                quoted = cells.any(is_quoted).then_some(line);
            }
            let is_return = newline > 0 && chunk[newline - 1] == b'\r';
            is_blank = is_row && at + newline as u64 - start <= u64::from(is_return);
            (start, is_row, from) = (at + newline as u64 + 1, true, newline + 1);
        }
        lines.push(&chunk[from..], false);
        at = end;
        if at - start > LINE_BYTES_MAX {
            return Err(Error::data(format!(
                "{about} has a line of more than {} MiB: is it JSON lines, or a table with one row a line?",
                LINE_BYTES_MAX >> 20
            )));
        }
    }
    // What comes after the last newline is a line where there is something.
    if start < entry.size_bytes {
        end_of(start, is_row);
    } else if is_blank {
        rows -= 1;
        starts.truncate(rows.div_ceil(NOTED) as usize);
    }
    starts.push(entry.size_bytes);
    Ok(Scanned { head: lines.lines(), starts, rows, quoted })
}

fn line_of(head: &[u8], about: &str) -> Result<String> {
    let text =
        std::str::from_utf8(head).map_err(|e| Error::data(format!("{about} is not UTF-8")).with_source(e))?;
    Ok(text.trim_start_matches('\u{feff}').trim_end_matches('\r').to_owned())
}

/// What the first lines say of a file.
struct Head {
    form: Form,
    known: BTreeMap<String, bool>,
    note: Option<String>,
}

fn json_form(head: &[Vec<u8>], options: &DatasetOptions, about: &str) -> Result<Head> {
    let first = head.first().map_or(&[][..], Vec::as_slice);
    let line = line_of(first, about)?;
    if line.trim_start().starts_with('[') {
        return Err(Error::data(format!(
            "{about} is one JSON array: write a line for each sample, with an object in it"
        )));
    }
    let Row(mut row) = serde_json::from_str(&line)
        .map_err(|e| Error::data(format!("{about}: its first line is not a JSON object")).with_source(e))?;
    // Columns that others of the first lines have are columns. Those that are no objects are refused as rows.
    for line in head.iter().skip(1) {
        let Ok(Row(other)) = serde_json::from_slice(line) else { continue };
        for (name, value) in other {
            if value.is_text() || !row.contains_key(&name) {
                row.insert(name, value);
            }
        }
    }
    let columns: Vec<Column<'_>> =
        row.iter().map(|(name, value)| Column { name, text: value.is_text() }).collect();
    let (chosen, note) = choose(&columns, options, about)?;
    let form = Form::Json { keys: Keys::of(&columns, &chosen), scores: chosen.scores };
    let known = columns.iter().map(|c| (c.name.to_owned(), c.text)).collect();
    Ok(Head { form, known, note })
}

fn tab_form(head: &[Vec<u8>], options: &DatasetOptions, about: &str) -> Result<Head> {
    let line = line_of(head.first().map_or(&[][..], Vec::as_slice), about)?;
    if columns_of(&line) > COLUMNS_MAX {
        return Err(Error::data(format!("{about}: its first line names more than {COLUMNS_MAX} columns")));
    }
    let columns: Vec<Column<'_>> = line.split('\t').map(|name| Column { name, text: true }).collect();
    let names: BTreeSet<&str> = columns.iter().map(|c| c.name).collect();
    if names.len() != columns.len() {
        return Err(Error::data(format!("{about}: its first line names a column twice, or no columns")));
    }
    let (chosen, _) =
        choose(&columns, options, about).map_err(|e| e.context("its first line has to name the columns"))?;
    // Everything may be a text; what looks like a number is no loss.
    let row = head.get(1).map(|row| String::from_utf8_lossy(row).into_owned()).unwrap_or_default();
    let is_text = |cell: &str| !cell.trim().is_empty() && cell.trim().parse::<f64>().is_err();
    let cells = row.split('\t').map(is_text).chain(std::iter::repeat(false));
    let shown: Vec<Column<'_>> =
        columns.iter().zip(cells).map(|(column, text)| Column { name: column.name, text }).collect();
    let (note, of) = (columns::unread(&shown, &chosen), columns.len());
    let keys = Keys::of(&columns, &chosen);
    Ok(Head { form: Form::Tabs { columns: chosen, of, keys }, known: BTreeMap::new(), note })
}

#[cfg(test)]
mod tests;
