//! Labelled images, and labelled texts.
//!
//! Of both, the Parquet files of Hugging Face datasets are understood (`parquet`); of images, folders with one folder per class
//! (`folder`) and the tar files of WebDataset (`archives`); of texts, JSON lines and tab-separated values (`lines`). Opening reads metadata only, or where lines are; reading a range
//! touches only what holds it.

mod archives;
mod columns;
mod folder;
mod labels;
mod lines;
mod parquet;
mod splits;

use std::collections::HashSet;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use soup_core::run::{DatasetOptions, PAIR_COLUMN, Split, TEXT_COLUMN};
use soup_core::{Error, Result};

use crate::budget::{Budget, Claim, is_too_much};
use crate::classes::{Alignment, Classes, Source};
use crate::dataset::labels::Labels;
use crate::source::{FileEntry, Files};

/// One sample, as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What is shown to a model.
    pub input: Input,
    /// What the model should say to it.
    pub target: Target,
}

/// What is shown to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An encoded image (PNG, JPEG, WebP).
    Image(Bytes),
    /// A text, or a pair of texts.
    Text {
        /// The text, or the first one.
        first: String,
        /// The second one of a pair.
        second: Option<String>,
    },
}

/// What models look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Images.
    Images,
    /// Texts, or pairs of them.
    Texts,
}

/// What a model should say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A class, by its number.
    Class(u32),
    /// A number, which is finite.
    Number(f64),
}

/// Samples, and what is taken from the budget as long as they are there.
#[derive(Debug)]
pub struct Samples {
    samples: Vec<Sample>,
    _claim: Option<Claim>,
}

impl Deref for Samples {
    type Target = [Sample];

    fn deref(&self) -> &[Sample] {
        &self.samples
    }
}

impl PartialEq for Samples {
    fn eq(&self, other: &Samples) -> bool {
        self.samples == other.samples
    }
}

/// What a sample takes besides its image, in bytes.
const SAMPLE_BYTES: u64 = 256;

/// A dataset whose metadata has been read.
pub struct Dataset {
    files: Arc<dyn Files>,
    budget: Budget,
    layout: Layout,
    len: u64,
    split: Option<Split>,
    /// The model's class for every class of the dataset, where those are other numbers.
    classes: Option<Vec<u32>>,
    /// Whether predictions are taken among those alone.
    among_own: bool,
    /// Whether some of the files' samples are none of the dataset's.
    limited: bool,
    notes: Vec<String>,
}

enum Layout {
    Parquet(parquet::Parquet),
    Folder(folder::Folder),
    Archives(archives::Archives),
    Lines(lines::Lines),
}

/// The tables of texts among `entries`, and how they are read.
fn texts(
    (files, budget): (&Arc<dyn Files>, &Budget),
    entries: Vec<FileEntry>,
    options: &DatasetOptions,
    about: &str,
) -> Result<(Layout, Vec<String>)> {
    if options.image_column.is_some() {
        return Err(Error::data(format!("{about} has an image-column, and the model looks at texts")));
    }
    let of = |extensions: &[&str]| -> Vec<FileEntry> {
        let named = |e: &&FileEntry| {
            has_extension(&e.path, extensions)
                && !folder::ABOUT.contains(&e.path.rsplit('/').next().unwrap_or_default())
        };
        entries.iter().filter(named).cloned().collect()
    };
    let [first, second, third] = [of(&["parquet"]), of(&lines::JSON[..2]), of(&lines::TABS)];
    // What ends in .json is mostly about others.
    let json =
        if first.is_empty() && third.is_empty() && second.is_empty() { of(&lines::JSON) } else { second };
    let mut kinds = [first, json, third].into_iter().enumerate().filter(|(_, of)| !of.is_empty());
    let Some((kind, chosen)) = kinds.next() else {
        return Err(Error::data(format!(
            "{about} has neither .parquet nor .jsonl nor .tsv files, of which texts are read: there are {} files{}{}",
            entries.len(),
            entries.first().map_or(String::new(), |first| format!(", such as {:?}", first.path)),
            folder::arrow(&entries)
        )));
    };
    if let Some((_, others)) = kinds.next() {
        return Err(Error::data(format!(
            "{about} has files of several kinds, such as {:?} and {:?}: name those of one by a glob",
            chosen[0].path, others[0].path
        )));
    }
    let left_out = beside(&chosen, &entries);
    let (tables, mut notes) = splits::choose(chosen, options.named_split.as_deref(), about)?;
    notes.extend(left_out);
    if kind == 0 {
        let parquet = parquet::Parquet::open(files, &tables, (options, InputKind::Texts), budget)?;
        notes.extend(parquet.note().map(str::to_owned));
        return Ok((Layout::Parquet(parquet), notes));
    }
    let lines = lines::Lines::open(files.as_ref(), &tables, kind == 2, options)?;
    notes.extend(lines.notes().iter().cloned());
    Ok((Layout::Lines(lines), notes))
}

/// What of `entries` may hold samples and is none of those `chosen`, counted.
fn beside(chosen: &[FileEntry], entries: &[FileEntry]) -> Option<String> {
    let paths: HashSet<&str> = chosen.iter().map(|e| e.path.as_str()).collect();
    let kind = chosen.first()?.path.rsplit_once('.').map_or("", |(_, kind)| kind).to_ascii_lowercase();
    folder::beside_tables(entries.iter().filter(|e| !paths.contains(e.path.as_str())), &format!(".{kind}"))
}

/// The tables, the archives or the folders of images among `entries`, and how they are read.
fn images(
    (files, budget): (&Arc<dyn Files>, &Budget),
    entries: Vec<FileEntry>,
    options: &DatasetOptions,
    about: &str,
) -> Result<(Layout, Vec<String>)> {
    if let Some(option) = [TEXT_COLUMN, PAIR_COLUMN].iter().find(|name| options.others.contains_key(**name)) {
        return Err(Error::data(format!("{about} has the option {option}, and the model looks at images")));
    }
    let (tables, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|e| has_extension(&e.path, &["parquet"]));
    let named = options.named_split.as_deref();
    let (archives, others): (Vec<_>, Vec<_>) = match tables.is_empty() && !folder::has_images(&others) {
        true => others.into_iter().partition(|e| has_extension(&e.path, &["tar"])),
        false => (Vec::new(), others),
    };
    if !archives.is_empty() {
        let (archives, mut notes) = splits::choose(archives, named, about)?;
        notes.extend(folder::beside_tables(&others, ".tar"));
        let archives = archives::Archives::open(files.as_ref(), archives, options)?;
        let archives = archives.named(files.as_ref(), &others)?;
        notes.extend(archives.notes().iter().cloned());
        return Ok((Layout::Archives(archives), notes));
    }
    // What tells of archives.
    let others: Vec<FileEntry> = others.into_iter().filter(|e| !e.path.starts_with("../")).collect();
    if tables.is_empty() {
        let folder = folder::Folder::new(&others, named, about)?;
        let mut notes = folder.notes().to_vec();
        notes.extend(options.limit.and_then(|limit| folder.note_of_limit(limit)));
        return Ok((Layout::Folder(folder), notes));
    }
    let (tables, mut notes) = splits::choose(tables, named, about)?;
    notes.extend(folder::beside_tables(&others, ".parquet"));
    let parquet = parquet::Parquet::open(files, &tables, (options, InputKind::Images), budget)?;
    Ok((Layout::Parquet(parquet), notes))
}

impl Dataset {
    /// Opens the dataset in `files`: Parquet if there is any `.parquet` file, else a folder of images by class, else archives of samples.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there is neither, where there are no labels, or where the metadata is
    /// corrupt; the errors of [`Files`].
    pub fn open(files: Arc<dyn Files>, options: &DatasetOptions) -> Result<Dataset> {
        Dataset::open_within(files, options, Budget::default())
    }

    /// Opens a dataset of which no more is unpacked at a time than `budget` has. Blocks until it has what the metadata takes.
    ///
    /// # Errors
    /// Those of [`open`](Dataset::open), and [`Data`](soup_core::ErrorKind::Data) for metadata that takes more than the budget has.
    pub fn open_within(files: Arc<dyn Files>, options: &DatasetOptions, budget: Budget) -> Result<Dataset> {
        Dataset::open_of(files, options, budget, InputKind::Images)
    }

    /// Opens the dataset in `files` for models that look at `input`. Of texts: Parquet, JSON lines or tab-separated values.
    ///
    /// # Errors
    /// Those of [`open_within`](Dataset::open_within).
    pub fn open_of(
        files: Arc<dyn Files>,
        options: &DatasetOptions,
        budget: Budget,
        input: InputKind,
    ) -> Result<Dataset> {
        let about = format!("dataset {}", files.describe());
        let mut entries = files.list().map_err(|e| e.context(&*about))?;
        entries.retain(|e| !hidden(&e.path));
        entries.sort();
        let (layout, notes) = match input {
            InputKind::Images => images((&files, &budget), entries, options, &about)?,
            InputKind::Texts => texts((&files, &budget), entries, options, &about)?,
        };
        let len = match &layout {
            Layout::Parquet(parquet) => parquet.len(),
            Layout::Folder(folder) => folder.len(),
            Layout::Archives(archives) => archives.len(),
            Layout::Lines(lines) => lines.len(),
        };
        if len == 0 {
            return Err(Error::data(format!("dataset {} has no samples", files.describe())));
        }
        let len = len.min(options.limit.unwrap_or(u64::MAX));
        let (split, classes, among_own) = (options.split, None, false);
        let len = split.map_or(len, |split| split.len(len));
        let limited = options.limit.is_some() || split.is_some();
        Ok(Dataset { files, budget, layout, len, split, classes, among_own, limited, notes })
    }

    /// What is claimed from where its samples are unpacked.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Number of samples.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none (only with a limit of 0).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is, for messages.
    pub fn describe(&self) -> String {
        self.files.describe()
    }

    /// Names of the classes by label, where the dataset has them.
    pub fn label_names(&self) -> Option<&[String]> {
        match &self.layout {
            Layout::Parquet(parquet) => parquet.label_names(),
            Layout::Folder(folder) => Some(folder.label_names()),
            Layout::Archives(archives) => archives.label_names(),
            Layout::Lines(_) => None,
        }
    }

    /// Numbers the classes as the model does, by their names, where both have names; for a model that has none, labels are numbers.
    /// `among_own`: predictions are taken among the dataset's classes alone.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the dataset and the classes that the model does not have.
    pub fn align(&mut self, model: &Classes, among_own: bool) -> Result<()> {
        let labels = match &self.layout {
            Layout::Parquet(parquet) => parquet.check_labels(model),
            Layout::Lines(lines) => lines.check_labels(model),
            Layout::Folder(_) | Layout::Archives(_) => Ok(()),
        };
        labels.map_err(|e| e.context(format!("dataset {}", self.files.describe())))?;
        let meant = Labels::of(model).numbered(self.label_names().is_some());
        match &mut self.layout {
            Layout::Parquet(parquet) => parquet.labels = meant,
            Layout::Archives(archives) => archives.labels = meant,
            Layout::Lines(lines) => lines.labels = meant,
            // Its labels are folders.
            Layout::Folder(_) => {}
        }
        if model.is_empty() {
            return self.check_numbers(among_own);
        }
        let source = match self.layout {
            Layout::Folder(_) => Source::Folders,
            _ => Source::Labels,
        };
        let about = format!("dataset {}", self.files.describe());
        let alignment = match self.label_names() {
            Some(names) => model.align(names, source).map_err(|e| e.context(&*about))?,
            None => Alignment { map: None, notes: texts_are_names(model) },
        };
        if among_own && alignment.map.is_none() {
            return Err(Error::data(format!(
                "{about} has no class names that the model knows: --class-subset cannot know which classes it has"
            )));
        }
        self.notes.extend(alignment.notes);
        let own = alignment.map.as_ref().map_or(model.count() as usize, Vec::len);
        if own < model.count() as usize {
            let among = if among_own { "those" } else { "all (--class-subset: among those)" };
            self.notes.push(format!(
                "has {own} of the model's {} classes; predictions are taken among {among}",
                model.count()
            ));
        }
        (self.classes, self.among_own) = (alignment.map, among_own);
        self.check_largest_label(model)
    }

    /// Whether labels can be numbers.
    fn check_numbers(&self, among_own: bool) -> Result<()> {
        let refused = |what: &str| Err(Error::data(format!("dataset {} {what}", self.files.describe())));
        if among_own {
            return refused("has numbers for the model: --class-subset is about classes");
        }
        if let Some(names) = self.label_names() {
            let first = names.first().map_or("", String::as_str);
            return refused(&format!("has classes, such as {first:?}, and the model predicts a number"));
        }
        Ok(())
    }

    /// Refuses labels that are no class as far as metadata tells of them. What a limit leaves out is no sample.
    fn check_largest_label(&self, model: &Classes) -> Result<()> {
        let Layout::Parquet(parquet) = &self.layout else { return Ok(()) };
        let known = self.classes.as_ref().map_or(model.count() as usize, Vec::len);
        match parquet.largest_label() {
            Some((label, file)) if !self.limited && label >= known as i64 => Err(Error::data(format!(
                "dataset {} file {file:?}: label {label} is not one of the {known} classes (0 to {})",
                self.files.describe(),
                known.saturating_sub(1)
            ))),
            _ => Ok(()),
        }
    }

    /// What people should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The model's classes that predictions are taken among, ascending; `None`: all.
    pub fn subset(&self) -> Option<Vec<u32>> {
        let mut classes = self.classes.clone().filter(|_| self.among_own)?;
        classes.sort_unstable();
        Some(classes)
    }

    /// Reads the samples `range` in parts of at most `at_a_time`, and of fewer where those take more than the budget has: `take` gets each
    /// part, with the number of its first sample.
    ///
    /// # Errors
    /// Those of [`read`](Dataset::read), and of `take`.
    pub(crate) fn read_in_parts(
        &self,
        range: Range<u64>,
        mut at_a_time: u64,
        mut take: impl FnMut(u64, &[Sample]) -> Result<()>,
    ) -> Result<()> {
        let mut first = range.start;
        while first < range.end {
            let end = range.end.min(first.saturating_add(at_a_time));
            match self.read(first..end) {
                Ok(samples) => {
                    take(first, &samples)?;
                    first = end;
                }
                // Fewer of them may fit.
                Err(error) if is_too_much(&error) && end - first > 1 => at_a_time = (end - first) / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where sample `sample` is, for messages.
    pub fn place(&self, sample: u64) -> String {
        let row = self.row(sample);
        let at = match &self.layout {
            Layout::Parquet(parquet) => parquet.place(row),
            Layout::Folder(folder) => folder.place(row),
            Layout::Archives(archives) => archives.place(row),
            Layout::Lines(lines) => lines.place(row),
        };
        format!("dataset {} {at}", self.files.describe())
    }

    /// Position of a sample among all that the files hold.
    pub fn row(&self, sample: u64) -> u64 {
        self.split.map_or(sample, |split| split.row(sample))
    }

    /// The samples `range`, as stored. Blocks until what they take is free.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a sample lacks its image or its label, naming the row, and where they take more than the
    /// budget has; [`Internal`](soup_core::ErrorKind::Internal) where `range` is not in the dataset; the errors of [`Files`].
    pub fn read(&self, range: Range<u64>) -> Result<Samples> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::internal(format!("rows {range:?} of a dataset of {}", self.len)));
        }
        let Some(last) = range.clone().next_back() else {
            return Ok(Samples { samples: Vec::new(), _claim: None });
        };
        let rows = self.row(range.start)..self.row(last) + 1;
        let first = rows.start;
        let what = || match range.end - range.start {
            1 => self.place(range.start),
            _ => format!("dataset {}", self.files.describe()),
        };
        let known = (rows.end - rows.start).saturating_mul(SAMPLE_BYTES).saturating_add(match &self.layout {
            Layout::Parquet(_) | Layout::Lines(_) => 0,
            Layout::Folder(folder) => folder.bytes(rows.clone()),
            Layout::Archives(archives) => archives.bytes(rows.clone()),
        });
        let (samples, claim) = self.budget.reading(what, known, |reading| match &self.layout {
            Layout::Parquet(parquet) => parquet.read(&self.files, rows.clone(), reading),
            Layout::Folder(folder) => folder.read(self.files.as_ref(), rows.clone()),
            Layout::Archives(archives) => archives.read(self.files.as_ref(), rows.clone()),
            Layout::Lines(lines) => lines.read(&self.files, rows.clone(), reading),
        })?;
        let mut samples: Vec<Sample> = match self.split {
            None => samples,
            Some(_) => {
                // What lies between belongs to the other part.
                let mut wanted = range.clone().map(|sample| self.row(sample) - first).peekable();
                let mine = |(at, sample)| wanted.next_if_eq(&at).map(|_| sample);
                (0u64..).zip(samples).filter_map(mine).collect()
            }
        };
        if let Some(classes) = &self.classes {
            for (sample, number) in samples.iter_mut().zip(range) {
                let Target::Class(class) = &mut sample.target else { continue };
                *class = *classes.get(*class as usize).ok_or_else(|| {
                    let (at, count) = (self.place(number), classes.len());
                    Error::data(format!("{at}: label {class} is not one of its {count} classes"))
                })?;
            }
        }
        Ok(Samples { samples, _claim: Some(claim) })
    }
}

/// What is said of labels that may be texts, where the classes of `model` are called by numbers that are not their own.
fn texts_are_names(model: &Classes) -> Vec<String> {
    let note = "has no names for its classes, and the model's are called by numbers that are not their own (id2label): labels that are texts \
                were taken for those names";
    if model.has_other_numbers() { vec![note.to_owned()] } else { Vec::new() }
}

/// Whether the name ends in one of `extensions`, in any case.
fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, e)| extensions.iter().any(|x| x.eq_ignore_ascii_case(e)))
}

/// Whether a file, or a folder around it, is hidden: macOS leaves `._x.parquet` beside every file.
fn hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') && part != "..")
}
