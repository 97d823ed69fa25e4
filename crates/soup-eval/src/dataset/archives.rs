//! Labelled images in tar files, as WebDataset has them: members that are one after the other and have one name up to its first dot are a
//! sample, and what comes after the dot says what each of them is (`0001.jpg`, `0001.cls`).
//!
//! Opening reads the headers of all members, and so finds where every image and every label is; reading a range reads those, neighbours
//! together. The label is the number of a class (`cls`), a key of a JSON object (`json`), or the name of a class in words (`txt`): the
//! first of these that the first sample has, and then that of all. What numbers stand for may be said beside the archives ([`names`]). A
//! sample that lacks its image or its label is refused by name. What other members there are is nobody's business, and is said.

mod names;
mod tar;

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use bytes::Bytes;
use serde_json::{Map, Value};
use soup_core::companion::named_twice;
use soup_core::run::DatasetOptions;
use soup_core::{Error, Result};

use self::tar::{Member, Members};
use super::folder::{IMAGE_BYTES_MAX, IMAGES, UNREADABLE};
use super::labels::Labels;
use super::{Input, Sample, Target};
use crate::source::{FileEntry, Files};

/// Most members of all archives: where each is has to be remembered.
const MEMBERS_MAX: u64 = 20_000_000;
/// Most samples.
const SAMPLES_MAX: usize = 5_000_000;
/// All names of samples together, in bytes.
const NAMES_BYTES_MAX: usize = 256 << 20;
/// Longest name of a member, in bytes.
const NAME_BYTES_MAX: usize = 4096;
/// Largest label, in bytes.
const LABEL_BYTES_MAX: u64 = 1 << 20;
/// Members of a sample, at most.
const PARTS_MAX: usize = 256;
/// Parts that are so near each other are read together, in bytes: between them are headers, and what nobody looks at.
const GAP_BYTES: u64 = 8 << 10;
/// Read together, in bytes, unless one part is larger.
const SPAN_BYTES_MAX: u64 = 8 << 20;
/// Kinds of members that a note lists.
const LISTED_MAX: usize = 8;
/// Members with labels that are looked for unless one is named.
const LABELS: [&str; 3] = ["cls", "json", "txt"];
/// The key of a label in JSON unless one is named.
const LABEL_KEY: &str = "label";

pub(super) struct Archives {
    /// In order.
    entries: Vec<FileEntry>,
    rows: Vec<Row>,
    form: Form,
    pub(super) labels: Labels,
    /// What its own numbers of classes stand for, where that is said.
    names: Option<Vec<String>>,
    notes: Vec<String>,
}

/// A sample.
struct Row {
    /// Position of its archive.
    archive: u32,
    name: Box<str>,
    image: Range<u64>,
    label: Range<u64>,
}

/// Which members are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    /// What the image's name ends in, where one is named.
    image: Option<String>,
    /// Likewise of the label.
    label: String,
    says: Says,
}

/// How a label is written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    /// The number of a class.
    Number,
    /// The name or the number of a class.
    Text,
    /// As the value of this key.
    Key(String),
}

/// Bytes that are read together.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    archive: u32,
    bytes: Range<u64>,
}

impl Archives {
    /// `entries` are the archives in order, at least one.
    pub(super) fn open(
        files: &dyn Files,
        entries: Vec<FileEntry>,
        options: &DatasetOptions,
    ) -> Result<Archives> {
        let mut opening = Opening {
            options,
            form: None,
            rows: Vec::new(),
            members: 0,
            name_bytes: 0,
            others: BTreeSet::new(),
        };
        for (archive, entry) in (0u32..).zip(&entries) {
            let at = |e: Error| e.context(format!("dataset {} archive {:?}", files.describe(), entry.path));
            opening.read(files, (archive, entry)).map_err(at)?;
        }
        let Opening { form, rows, others, .. } = opening;
        let form = form.ok_or_else(|| {
            Error::data(format!(
                "dataset {} has no samples: there are no members in its archives",
                files.describe()
            ))
        })?;
        Ok(Archives { entries, rows, form, labels: Labels::default(), names: None, notes: noted(&others) })
    }

    /// With what `others`, the files beside the archives, say of their classes.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not understood; the errors of [`Files`].
    pub(super) fn named(self, files: &dyn Files, others: &[FileEntry]) -> Result<Archives> {
        match (names::find(&self.entries, others), &self.form.says) {
            // Labels are names themselves.
            (_, Says::Text) => Ok(self),
            (None, _) => {
                let notes = self.notes.into_iter().chain(names::unread(others)).collect();
                Ok(Archives { notes, ..self })
            }
            (Some(entry), _) => Ok(Archives { names: Some(names::read(files, entry)?), ..self }),
        }
    }

    /// Names of its classes by label, where it says them.
    pub(super) fn label_names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// What people should know.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Where a sample is, for messages.
    pub(super) fn place(&self, row: u64) -> String {
        let row_of = usize::try_from(row).ok().and_then(|row| self.rows.get(row));
        match row_of {
            Some(row) => {
                format!("archive {:?} sample {:?}", self.entries[row.archive as usize].path, row.name)
            }
            None => format!("row {row}"),
        }
    }

    /// What is read for the samples `range`, in bytes.
    pub(super) fn bytes(&self, range: Range<u64>) -> u64 {
        spans(self.of(range))
            .iter()
            .map(|span| span.bytes.end - span.bytes.start)
            .fold(0, u64::saturating_add)
    }

    fn of(&self, range: Range<u64>) -> &[Row] {
        &self.rows[range.start as usize..range.end as usize]
    }

    /// `range` is in the dataset.
    pub(super) fn read(&self, files: &dyn Files, range: Range<u64>) -> Result<Vec<Sample>> {
        let rows = self.of(range.clone());
        let mut spans = spans(rows).into_iter();
        // What was read last: parts are asked for in the order in which spans were made of them.
        let mut here: Option<(Span, Bytes)> = None;
        let mut part = |row: &Row, wanted: &Range<u64>| -> Result<Bytes> {
            loop {
                if let Some((span, bytes)) = &here
                    && let Some(own) = span.holds(row.archive, wanted)
                {
                    return Ok(bytes.slice(own));
                }
                let next = spans.next().ok_or_else(|| Error::internal("a part of a sample is in no span"))?;
                let bytes = files.read(&self.entries[next.archive as usize].path, next.bytes.clone())?;
                here = Some((next, bytes));
            }
        };
        let mut read = |row: &Row| {
            let [first, second] = parts(row).map(|wanted| part(row, wanted));
            let (first, second) = (first?, second?);
            let (image, label) =
                if row.image.start < row.label.start { (first, second) } else { (second, first) };
            Ok(Sample { input: Input::Image(image), target: self.target(&label)? })
        };
        let at = |row: u64| format!("dataset {} {}", files.describe(), self.place(row));
        rows.iter().zip(range).map(|(row, nth)| read(row).map_err(|e: Error| e.context(at(nth)))).collect()
    }

    /// What a label says.
    fn target(&self, label: &[u8]) -> Result<Target> {
        let shown = || -> String { String::from_utf8_lossy(label).chars().take(60).collect() };
        match &self.form.says {
            Says::Number => {
                if self.labels.are_numbers() {
                    return self.labels.of_text(text_of(label)?);
                }
                let class: u32 = text_of(label)?.parse().map_err(|e| {
                    Error::data(format!(
                        "{:?} is no number of a class, as .{} should be (names of classes are read from .txt)",
                        shown(),
                        self.form.label
                    ))
                    .with_source(e)
                })?;
                self.labels.of_integer(class.into())
            }
            Says::Text => self.labels.of_cell(text_of(label)?),
            Says::Key(key) => {
                let row: Map<String, Value> = serde_json::from_slice(label).map_err(|e| {
                    Error::data(format!(".{} is not a JSON object", self.form.label)).with_source(e)
                })?;
                if let Some(twice) = named_twice(label) {
                    return Err(Error::data(format!(
                        ".{} has {twice:?} twice in one object",
                        self.form.label
                    )));
                }
                match row.get(key) {
                    Some(Value::String(name)) => self.of_name(name),
                    Some(Value::Number(number)) => {
                        let class = number.as_u64().and_then(|class| u32::try_from(class).ok());
                        class.map_or(Ok(()), |class| self.labels.check_meaning(class))?;
                        let wrong = |_| Error::data(format!("has no label: {key} is {number}"));
                        self.labels.of_json(number).map_err(wrong)
                    }
                    Some(_) => {
                        Err(Error::data(format!("has no label: {key} is neither a number nor a text")))
                    }
                    None => Err(Error::data(format!(
                        "has no label: .{} has no key {key:?} (label-column names another)",
                        self.form.label
                    ))),
                }
            }
        }
    }

    /// What the name of a class says beside others that have numbers.
    fn of_name(&self, name: &str) -> Result<Target> {
        let Some(names) = &self.names else { return self.labels.of_text(name) };
        let mut found = (0u32..).zip(names).filter(|(_, other)| *other == name).map(|(class, _)| class);
        let shown = || name.chars().take(60).collect::<String>();
        match (found.next(), found.next()) {
            (Some(class), None) => Ok(Target::Class(class)),
            (None, _) => {
                Err(Error::data(format!("label {:?} is none of the names in {}", shown(), names::FILE)))
            }
            (Some(_), Some(_)) => {
                Err(Error::data(format!("label {:?} is several of the names in {}", shown(), names::FILE)))
            }
        }
    }
}

/// Archives whose headers are being read.
struct Opening<'a> {
    options: &'a DatasetOptions,
    /// That of the first sample.
    form: Option<Form>,
    rows: Vec<Row>,
    members: u64,
    name_bytes: usize,
    /// What the names of members end in that nobody looks at.
    others: BTreeSet<String>,
}

/// The members that have one name.
struct Group {
    name: String,
    /// By what their names end in.
    parts: Vec<(String, Range<u64>)>,
}

impl Opening<'_> {
    fn read(&mut self, files: &dyn Files, (archive, entry): (u32, &FileEntry)) -> Result<()> {
        let mut members = Members::new(files, entry);
        let mut names: HashSet<String> = HashSet::new();
        let mut group: Option<Group> = None;
        while let Some(Member { name, bytes }) = members.next()? {
            self.members += 1;
            if self.members > MEMBERS_MAX {
                return Err(Error::data(format!("more than {MEMBERS_MAX} members are too many")));
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Error::data(format!(
                    "a name of {} bytes, at most {NAME_BYTES_MAX} are possible",
                    name.len()
                )));
            }
            let Some((name, ending)) = named(&name) else { continue };
            if group.as_ref().is_some_and(|group| group.name != name) {
                self.add(archive, group.take(), &mut names)?;
            }
            let group = group.get_or_insert_with(|| Group { name: name.to_owned(), parts: Vec::new() });
            if group.parts.iter().any(|(other, _)| *other == ending) {
                return Err(Error::data(format!("sample {name:?} has .{ending} twice")));
            }
            if group.parts.len() == PARTS_MAX {
                return Err(Error::data(format!("sample {name:?} has more than {PARTS_MAX} members")));
            }
            group.parts.push((ending, bytes));
        }
        self.add(archive, group, &mut names)
    }

    /// A sample of all its members.
    fn add(&mut self, archive: u32, group: Option<Group>, names: &mut HashSet<String>) -> Result<()> {
        let Some(group) = group else { return Ok(()) };
        let of = |e: Error| e.context(format!("sample {:?}", group.name));
        let form = match &self.form {
            Some(form) => form,
            None => self.form.insert(Form::of(&group, self.options).map_err(of)?),
        };
        let (image, label) = form.parts(&group).map_err(of)?;
        self.name_bytes += group.name.len();
        if self.rows.len() == SAMPLES_MAX || self.name_bytes > NAMES_BYTES_MAX {
            return Err(Error::data(format!(
                "more than {SAMPLES_MAX} samples, or than {} MiB of their names, are too many: name fewer archives by a glob",
                NAMES_BYTES_MAX >> 20
            )));
        }
        for (ending, bytes) in &group.parts {
            if bytes != &image && bytes != &label && self.others.len() <= LISTED_MAX {
                self.others.insert(ending.clone());
            }
        }
        let name = group.name.as_str().into();
        if !names.insert(group.name.clone()) {
            return Err(of(Error::data("it is there twice: members of one sample lie one after the other")));
        }
        self.rows.push(Row { archive, name, image, label });
        Ok(())
    }
}

impl Group {
    fn part(&self, ending: &str) -> Option<&Range<u64>> {
        self.parts.iter().find(|(other, _)| other == ending).map(|(_, bytes)| bytes)
    }

    /// What the names of its members end in.
    fn endings(&self) -> String {
        let shown: Vec<String> = self.parts.iter().take(LISTED_MAX).map(|(e, _)| format!(".{e}")).collect();
        shown.join(", ")
    }
}

impl Form {
    /// As the first sample has it.
    fn of(group: &Group, options: &DatasetOptions) -> Result<Form> {
        let plain = |name: &String| name.trim_start_matches('.').to_lowercase();
        let image = options.image_column.as_ref().map(plain);
        let Some(column) = &options.label_column else {
            let found = LABELS.into_iter().find(|ending| group.part(ending).is_some());
            let Some(label) = found else {
                return Err(Error::data(format!(
                    "has no label: none of .{} among {} (label-column names another)",
                    LABELS.join(", ."),
                    group.endings()
                )));
            };
            let says = match label {
                "cls" => Says::Number,
                "json" => Says::Key(LABEL_KEY.to_owned()),
                _ => Says::Text,
            };
            return Ok(Form { image, label: label.to_owned(), says });
        };
        let ending = plain(column);
        Ok(match group.part(&ending) {
            Some(_) if ending == "cls" => Form { image, label: ending, says: Says::Number },
            Some(_) if ending == "json" => {
                Form { image, label: ending, says: Says::Key(LABEL_KEY.to_owned()) }
            }
            Some(_) => Form { image, label: ending, says: Says::Text },
            None if group.part("json").is_some() => {
                Form { image, label: "json".to_owned(), says: Says::Key(column.clone()) }
            }
            None => {
                return Err(Error::data(format!(
                    "has no label: neither .{ending} nor .json with a key {column:?} among {}",
                    group.endings()
                )));
            }
        })
    }

    /// The image and the label of a sample.
    fn parts(&self, group: &Group) -> Result<(Range<u64>, Range<u64>)> {
        let image = self.image_in(group)?.clone();
        let Some(label) = group.part(&self.label).cloned() else {
            return Err(Error::data(format!(
                "has no label: no .{}, which the first sample has, among {}",
                self.label,
                group.endings()
            )));
        };
        for (what, bytes, most) in [("image", &image, IMAGE_BYTES_MAX), ("label", &label, LABEL_BYTES_MAX)] {
            let bytes = bytes.end - bytes.start;
            if bytes > most {
                return Err(Error::data(format!(
                    "its {what} has {bytes} bytes, at most {most} are possible"
                )));
            }
        }
        Ok((image, label))
    }

    fn image_in<'a>(&self, group: &'a Group) -> Result<&'a Range<u64>> {
        if let Some(ending) = &self.image {
            return group.part(ending).ok_or_else(|| {
                Error::data(format!("has no image: no .{ending} (image-column) among {}", group.endings()))
            });
        }
        let of = |endings: &[&str]| -> Vec<&'a (String, Range<u64>)> {
            group.parts.iter().filter(|(ending, _)| endings.contains(&ending.as_str())).collect()
        };
        match (&of(&IMAGES)[..], of(&UNREADABLE).first()) {
            ([(_, bytes)], _) => Ok(bytes),
            ([], Some((ending, _))) => Err(Error::data(format!(
                "its image is .{ending}, of a kind that cannot be decoded: convert it to PNG, JPEG or WebP"
            ))),
            ([], None) => Err(Error::data(format!(
                "has no image: none of .{} among {}",
                IMAGES.join(", ."),
                group.endings()
            ))),
            ([(first, _), (second, _), ..], _) => Err(Error::data(format!(
                "which image is meant is not known, it has .{first} and .{second}: name one by image-column"
            ))),
        }
    }
}

impl Span {
    /// Where in it `wanted` of `archive` is, if it is.
    fn holds(&self, archive: u32, wanted: &Range<u64>) -> Option<Range<usize>> {
        let inside = self.archive == archive
            && self.bytes.start <= wanted.start
            && wanted.start <= wanted.end
            && wanted.end <= self.bytes.end;
        inside.then(|| (wanted.start - self.bytes.start) as usize..(wanted.end - self.bytes.start) as usize)
    }
}

/// The image and the label of a sample, in the order in which they lie.
fn parts(row: &Row) -> [&Range<u64>; 2] {
    if row.image.start < row.label.start { [&row.image, &row.label] } else { [&row.label, &row.image] }
}

/// What is read together for samples one after the other.
fn spans(rows: &[Row]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (row, part) in rows.iter().flat_map(|row| parts(row).map(|part| (row, part))) {
        match spans.last_mut() {
            Some(last)
                if last.archive == row.archive
                    && part.start <= last.bytes.end.saturating_add(GAP_BYTES)
                    && part.end - last.bytes.start <= SPAN_BYTES_MAX =>
            {
                last.bytes.end = part.end;
            }
            _ => spans.push(Span { archive: row.archive, bytes: part.clone() }),
        }
    }
    spans
}

/// The name of the sample that a member is of, and what its own name ends in; `None` for what is of none: hidden files, and those
/// without a dot.
fn named(member: &str) -> Option<(&str, String)> {
    let file = member.rfind('/').map_or(0, |slash| slash + 1);
    let dot = member[file..].find('.').filter(|&dot| dot > 0)?;
    let (name, ending) = member.split_at(file + dot);
    Some((name, ending[1..].to_lowercase()))
}

fn text_of(label: &[u8]) -> Result<&str> {
    std::str::from_utf8(label)
        .map(str::trim)
        .map_err(|e| Error::data("its label is not UTF-8").with_source(e))
}

/// What is left out.
fn noted(others: &BTreeSet<String>) -> Vec<String> {
    if others.is_empty() {
        return Vec::new();
    }
    let shown: Vec<String> = others.iter().take(LISTED_MAX).map(|ending| format!(".{ending}")).collect();
    let more = if others.len() > LISTED_MAX { ", ..." } else { "" };
    vec![format!(
        "members of its archives that are neither image nor label were left out: {}{more}",
        shown.join(", ")
    )]
}

#[cfg(test)]
mod tests;
