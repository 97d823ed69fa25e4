//! Which columns of a table have the texts and the labels: those that are named, else those of the usual names. Where several would
//! do, none is taken.

use soup_core::run::{DatasetOptions, PAIR_COLUMN, TEXT_COLUMN};
use soup_core::{Error, Result};

/// Of GLUE, of the files that it came in, and of most others; a pair is two columns.
const TEXTS: [&[&str]; 9] = [
    &["sentence1", "sentence2"],
    &["question1", "question2"],
    &["premise", "hypothesis"],
    &["question", "sentence"],
    &["text_a", "text_b"],
    &["#1 String", "#2 String"],
    &["text"],
    &["sentence"],
    &["text_a"],
];
const LABELS: [&str; 5] = ["label", "labels", "gold_label", "is_duplicate", "Quality"];
/// Numbers, where there are no labels of other names: STS-B has them.
pub(super) const NUMBERS: &str = "score";
/// Most columns that a message lists.
const LISTED_MAX: usize = 50;
/// Most characters of a name in one.
const SHOWN_CHARS: usize = 100;

/// The columns of texts, by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextColumns {
    pub(super) first: usize,
    /// Of the second texts, where there are pairs.
    pub(super) second: Option<usize>,
    pub(super) label: usize,
    /// Whether the labels are numbers that are taken for some because nothing else is: no classes.
    pub(super) scores: bool,
}

/// What is wrong with labels that are [scores](TextColumns::scores) of a model that has classes.
pub(super) fn no_classes() -> Error {
    Error::data(format!(
        "has no column of labels but {NUMBERS}, which is one for models that predict a number: name it by label-column"
    ))
}

/// The start of a name: what is no table may have one that is as long as the file.
fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}...", &name[..end]),
    }
}

/// A column that may be meant.
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    /// Whether it may have texts.
    pub(super) text: bool,
}

/// Chooses among `columns`, and says which others have texts that nobody looks at. `about` is the file, for messages.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where a column is not there, or several may be meant, with those that there are.
pub(super) fn choose(
    columns: &[Column<'_>],
    options: &DatasetOptions,
    about: &str,
) -> Result<(TextColumns, Option<String>)> {
    let all = columns.iter().take(LISTED_MAX).map(|c| shown(c.name)).collect::<Vec<_>>().join(", ");
    let at = |name: &str| columns.iter().position(|c| c.name == name);
    let texts_at = |name: &str| columns.iter().position(|c| c.name == name && c.text);
    let (text, pair) = (options.others.get(TEXT_COLUMN), options.others.get(PAIR_COLUMN));
    let named: Vec<&str> = match (text, pair) {
        (None, Some(_)) => {
            return Err(Error::data(format!("{about}: {PAIR_COLUMN} is named, and {TEXT_COLUMN} is not")));
        }
        (Some(text), pair) => std::iter::once(text).chain(pair).map(String::as_str).collect(),
        (None, None) => usual(columns, about, &all)?,
    };
    let found = |name: &&str| {
        texts_at(name).ok_or_else(|| Error::data(format!("{about}: no column {name} of texts among {all}")))
    };
    let found = named.iter().map(found).collect::<Result<Vec<usize>>>()?;
    let (label, scores) = match &options.label_column {
        Some(name) => {
            let none = || Error::data(format!("{about} has no labels: no column {name} among {all}"));
            (at(name).ok_or_else(none)?, false)
        }
        None => {
            let mut found: Vec<usize> = LABELS.iter().filter_map(|name| at(name)).collect();
            let scores = found.is_empty();
            if scores {
                found.extend(at(NUMBERS));
            }
            let [label] = found[..] else {
                let what = if found.is_empty() { "no column of labels" } else { "several columns of labels" };
                return Err(Error::data(format!("{about} has {what} among {all}: name it by label-column")));
            };
            (label, scores)
        }
    };
    let Some(&first) = found.first() else { return Err(Error::internal("no column of texts")) };
    let chosen = TextColumns { first, second: found.get(1).copied(), label, scores };
    Ok((chosen, unread(columns, &chosen)))
}

/// The columns of the usual names.
fn usual(columns: &[Column<'_>], about: &str, all: &str) -> Result<Vec<&'static str>> {
    let there = |name: &&str| columns.iter().any(|c| c.name == *name && c.text);
    let found: Vec<&[&'static str]> = TEXTS.into_iter().filter(|names| names.iter().all(&there)).collect();
    // The sentence of a question is no text of its own.
    let part = |names: &&[&str]| {
        found.iter().any(|other| other.len() > names.len() && names.iter().all(|n| other.contains(n)))
    };
    let whole: Vec<&[&'static str]> = found.iter().copied().filter(|names| !part(names)).collect();
    match whole[..] {
        [one] => Ok(one.to_vec()),
        [] => Err(Error::data(format!(
            "{about} has no texts: none of the usual columns among {all}: name it by {TEXT_COLUMN} (and {PAIR_COLUMN}, of pairs) in the \
             dataset's options"
        ))),
        _ => Err(Error::data(format!(
            "{about}: which text is meant is not known, it has the columns {all}: name it by {TEXT_COLUMN} (and {PAIR_COLUMN}, of \
             pairs) in the dataset's options"
        ))),
    }
}

/// Refuses files, given with the columns that their samples are in, of which one has others than the first: they may be no parts of one
/// set. `url` is the dataset, for messages.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data), naming the two files and their columns.
pub(super) fn same_columns<'a>(
    mut files: impl Iterator<Item = (&'a str, Vec<String>)>,
    url: &str,
) -> Result<()> {
    let Some((first, columns)) = files.next() else { return Ok(()) };
    match files.find(|(_, others)| *others != columns) {
        None => Ok(()),
        Some((other, others)) => Err(Error::data(format!(
            "dataset {url}: its files {first:?} and {other:?} have their samples in other columns ({}; {}): name those of one kind by a \
             glob, or columns that all have",
            columns.join(", "),
            others.join(", ")
        ))),
    }
}

/// What people should know of columns with texts that are not looked at.
pub(super) fn unread(columns: &[Column<'_>], chosen: &TextColumns) -> Option<String> {
    let used = [Some(chosen.first), chosen.second, Some(chosen.label)];
    let others = columns.iter().enumerate().filter(|(at, c)| c.text && !used.contains(&Some(*at)));
    let others: Vec<String> = others.map(|(_, c)| shown(c.name)).take(LISTED_MAX).collect();
    if others.is_empty() {
        return None;
    }
    let names = [Some(chosen.first), chosen.second].into_iter().flatten().map(|at| columns[at].name);
    Some(format!(
        "is read from the columns {}, and not from {}",
        names.collect::<Vec<_>>().join(" and "),
        others.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        names: &[&str],
        options: &[(&str, &str)],
        label: Option<&str>,
    ) -> std::result::Result<String, String> {
        let columns: Vec<Column<'_>> = names
            .iter()
            .map(|name| match name.strip_suffix(":i") {
                Some(name) => Column { name, text: false },
                None => Column { name, text: true },
            })
            .collect();
        let options = DatasetOptions {
            others: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            label_column: label.map(str::to_owned),
            ..DatasetOptions::default()
        };
        let (chosen, note) = choose(&columns, &options, "dataset d").map_err(|e| e.chain())?;
        let name = |at: usize| columns[at].name;
        let second = chosen.second.map_or(String::new(), |at| format!("+{}", name(at)));
        let note = note.map_or(String::new(), |note| format!(" {note}"));
        Ok(format!("{}{second} {}{note}", name(chosen.first), name(chosen.label)))
    }

    #[test]
    fn the_usual_names_are_known() {
        for (names, want) in [
            (&["sentence", "label:i", "idx:i"][..], "sentence label"),
            (&["sentence1", "sentence2", "label:i"], "sentence1+sentence2 label"),
            (&["question1", "question2", "is_duplicate:i"], "question1+question2 is_duplicate"),
            (&["question", "sentence", "label:i"], "question+sentence label"),
            (&["premise", "hypothesis", "label:i"], "premise+hypothesis label"),
            (&["text_a", "text_b", "labels:i"], "text_a+text_b labels"),
            (&["Quality", "#1 ID:i", "#2 ID:i", "#1 String", "#2 String"], "#1 String+#2 String Quality"),
            (&["text", "label:i"], "text label"),
            (&["sentence1", "sentence2", "score:i"], "sentence1+sentence2 score"),
            (&["text", "label:i", "score:i"], "text label"),
            (&["text", "label:i", "title"], "text label is read from the columns text, and not from title"),
        ] {
            assert_eq!(of(names, &[], None).unwrap(), want);
        }
    }

    #[test]
    fn what_is_not_known_is_asked_for() {
        let refused = |names: &[&str], options: &[(&str, &str)], part: &str| {
            let error = of(names, options, None).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(&["text", "sentence", "label:i"], &[], "which text is meant is not known");
        let long = "x".repeat(1000);
        let shown = format!("among {}..., label: name it", &long[..100]);
        refused(&[long.as_str(), "label:i"], &[], &shown);
        refused(&["review", "label:i"], &[], "no texts: none of the usual columns among review, label");
        refused(&["text:i", "label:i"], &[], "no texts");
        refused(&["text", "label:i", "labels:i"], &[], "several columns of labels");
        refused(&["text", "stars:i"], &[], "no column of labels among text, stars: name it by label-column");
        refused(&["text", "label:i"], &[("text-pair-column", "text")], "text-column is not");
        refused(
            &["text", "label:i"],
            &[("text-column", "body")],
            "no column body of texts among text, label",
        );
        let named = [("text-column", "a"), ("text-pair-column", "b")];
        assert_eq!(of(&["a", "b", "stars:i", "label:i"], &named, Some("stars")).unwrap(), "a+b stars");
    }
}
