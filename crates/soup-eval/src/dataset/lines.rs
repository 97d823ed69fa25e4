//! Tables of texts with a line for each sample: JSON lines, and tab-separated values as GLUE's files are.
//!
//! Opening reads the files once, for where their lines are; every so many are noted. Reading a range reads from the noted line before
//! it. In JSON lines every line is an object with the columns as keys. Tab-separated files name their columns in the first line, and have
//! no quotes: what looks like one is part of the text.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};

use super::columns::{Column, TextColumns, choose, no_classes};
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
}

enum Form {
    /// The keys of the first text, the second one and the label.
    Json { first: String, second: Option<String>, label: String, scores: bool },
    /// Their columns, of so many.
    Tabs { columns: TextColumns, of: usize },
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
            let (table, note) = Table::open(files, entry, tabs, options, first_row)?;
            notes.extend(note.filter(|note| !notes.contains(note)));
            tables.push(table);
        }
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
    ) -> Result<(Table, Option<String>)> {
        let about = format!("dataset {} file {:?}", files.describe(), entry.path);
        let (head, starts, rows) = scan(files, entry, tabs, &about)?;
        let (form, note) =
            if tabs { tab_form(&head, options, &about)? } else { json_form(&head, options, &about)? };
        let rows = first_row..first_row.saturating_add(rows);
        Ok((Table { entry: entry.clone(), form, rows, starts }, note))
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
            Form::Json { first, second, label, .. } => {
                let row: Map<String, Value> = serde_json::from_str(line)
                    .map_err(|e| Error::data("not a JSON object").with_source(e))?;
                let text = |key: &String| match row.get(key) {
                    Some(Value::String(text)) => Ok(text.clone()),
                    other => Err(Error::data(format!("{key} is {}, no text", shown(other)))),
                };
                let target = match row.get(label) {
                    Some(Value::String(name)) => labels.of_text(name)?,
                    Some(Value::Number(number)) => labels.of_json(number)?,
                    other => return Err(Error::data(format!("has no label: it is {}", shown(other)))),
                };
                let second = second.as_ref().map(text).transpose()?;
                (Input::Text { first: text(first)?, second }, target)
            }
            Form::Tabs { columns, of } => {
                let cells: Vec<&str> = line.split('\t').collect();
                if cells.len() != *of {
                    return Err(Error::data(format!(
                        "{} columns, and the first line names {of}",
                        cells.len()
                    )));
                }
                let second = columns.second.map(|at| cells[at].to_owned());
                let target = labels.of_cell(cells[columns.label])?;
                (Input::Text { first: cells[columns.first].to_owned(), second }, target)
            }
        };
        Ok(Sample { input, target })
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "not there".to_owned(),
        Some(Value::Array(_)) => "a list".to_owned(),
        Some(Value::Object(_)) => "an object".to_owned(),
        Some(other) => other.to_string().chars().take(60).collect(),
    }
}

/// The first line of a file, where its rows are (the first line is none of them where it is a `head`), and how many there are.
fn scan(files: &dyn Files, entry: &FileEntry, head: bool, about: &str) -> Result<(Vec<u8>, Vec<u64>, u64)> {
    let (mut first, mut has_first) = (Vec::new(), false);
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
    let mut at = 0;
    while at < entry.size_bytes {
        let end = entry.size_bytes.min(at + CHUNK_BYTES);
        let chunk = files.read(&entry.path, at..end)?;
        let mut from = 0;
        for newline in chunk.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at) {
            if !has_first {
                first.extend_from_slice(&chunk[from..newline]);
                has_first = true;
            }
            end_of(start, is_row);
            (start, is_row, from) = (at + newline as u64 + 1, true, newline + 1);
        }
        if !has_first {
            first.extend_from_slice(&chunk[from..]);
        }
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
    }
    starts.push(entry.size_bytes);
    Ok((first, starts, rows))
}

fn line_of(head: &[u8], about: &str) -> Result<String> {
    let text =
        std::str::from_utf8(head).map_err(|e| Error::data(format!("{about} is not UTF-8")).with_source(e))?;
    Ok(text.trim_start_matches('\u{feff}').trim_end_matches('\r').to_owned())
}

fn json_form(head: &[u8], options: &DatasetOptions, about: &str) -> Result<(Form, Option<String>)> {
    let line = line_of(head, about)?;
    if line.trim_start().starts_with('[') {
        return Err(Error::data(format!(
            "{about} is one JSON array: write a line for each sample, with an object in it"
        )));
    }
    let row: Map<String, Value> = serde_json::from_str(&line)
        .map_err(|e| Error::data(format!("{about}: its first line is not a JSON object")).with_source(e))?;
    let columns: Vec<Column<'_>> =
        row.iter().map(|(name, value)| Column { name, text: value.is_string() }).collect();
    let (chosen, note) = choose(&columns, options, about)?;
    let name = |at: usize| columns[at].name.to_owned();
    let form = Form::Json {
        first: name(chosen.first),
        second: chosen.second.map(name),
        label: name(chosen.label),
        scores: chosen.scores,
    };
    Ok((form, note))
}

fn tab_form(head: &[u8], options: &DatasetOptions, about: &str) -> Result<(Form, Option<String>)> {
    let line = line_of(head, about)?;
    let columns: Vec<Column<'_>> = line.split('\t').map(|name| Column { name, text: true }).collect();
    let names: std::collections::BTreeSet<&str> = columns.iter().map(|c| c.name).collect();
    if names.len() != columns.len() {
        return Err(Error::data(format!("{about}: its first line names a column twice, or no columns")));
    }
    let (chosen, _) =
        choose(&columns, options, about).map_err(|e| e.context("its first line has to name the columns"))?;
    Ok((Form::Tabs { columns: chosen, of: columns.len() }, None))
}

#[cfg(test)]
mod tests;
