//! Files with scores of ingredients: JSON, or lines of names and scores (CSV).

use std::path::Path;

use soup_core::recipe::ranking::{self, ScoreTable};
use soup_core::{Error, Result};

/// Largest file of scores.
const SCORES_BYTES_MAX: u64 = 16 << 20;

/// The scores in the file at `path`: CSV where its name ends in `.csv`, else JSON.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for a file that cannot be read or understood.
pub(super) fn read(path: &str) -> Result<ScoreTable> {
    let about = format!("file of scores {path:?}");
    let bytes = super::small_file(&about, path, SCORES_BYTES_MAX)?;
    let csv = Path::new(path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let table = if csv { lines(&bytes) } else { json(&bytes) }.map_err(|e| e.context(&*about))?;
    match table.is_empty() {
        true => Err(Error::usage(format!("{about} has no scores"))),
        false => Ok(table),
    }
}

fn json(bytes: &[u8]) -> Result<ScoreTable> {
    let wrong = |e| Error::usage("it is not a JSON object from ingredients to scores").with_source(e);
    ranking::parse(bytes).map_err(wrong)
}

/// A name and a score in each line. The first line may name the columns: its second field then is no number, nor begins like one.
fn lines(bytes: &[u8]) -> Result<ScoreTable> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).flexible(true).from_reader(bytes);
    let mut table = ScoreTable::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|e| Error::usage("it is not CSV in UTF-8").with_source(e))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |why: String| Err(Error::usage(format!("line {line} {why}")));
        let (Some(name), Some(score), 2) = (record.get(0), record.get(1), record.len()) else {
            return wrong(format!("has {} fields: give a name and a score", record.len()));
        };
        match score.parse::<f64>() {
            Ok(score) if table.insert(name.to_owned(), score).is_some() => {
                return wrong(format!("ranks {name:?}, which is ranked above"));
            }
            Ok(_) => {}
            Err(_) if index == 0 && names_a_column(score) => {}
            Err(_) => return wrong(format!("ranks {name:?} by {score:?}, which is no number")),
        }
    }
    Ok(table)
}

/// Whether a field that is no number may be what a column is called: `accuracy`, and not `85%`, `0x10` or nothing.
fn names_a_column(field: &str) -> bool {
    let begins_a_number = |c: char| c.is_ascii_digit() || "+-.,%".contains(c);
    field.chars().next().is_some_and(|first| !begins_a_number(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read_as(file: &str, text: &str) -> Result<Vec<(String, f64)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        read(path.to_str().unwrap()).map(|table| table.into_iter().collect()).map_err(|e| e.chain())
    }

    #[test]
    fn scores_are_read_from_json_and_csv() {
        let expected = Ok(vec![("a".to_owned(), 0.5), ("b, c".to_owned(), 81.0)]);
        assert_eq!(read_as("s.json", r#"{"b, c": 81, "a": 0.5}"#), expected);
        assert_eq!(read_as("s.CSV", "model,accuracy\n\"b, c\", 81\na,5e-1\n"), expected);
        assert_eq!(read_as("s.csv", "\"b, c\",81\r\na,0.5"), expected);
    }

    #[test]
    fn what_is_no_score_is_refused_by_its_line() {
        let refused = |file: &str, text: &str, part: &str| {
            let error = read_as(file, text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        };
        refused("s.json", r#"{"a": 1, "a": 2}"#, "\"a\" is named twice");
        refused("s.json", r#"{"a": "x"}"#, "not a JSON object from ingredients to scores");
        refused("s.json", r#"[1]"#, "not a JSON object");
        refused("s.json", "{}", "has no scores");
        refused("s.csv", "a,1\na,2\n", "line 2 ranks \"a\", which is ranked above");
        refused("s.csv", "a,1\nb,x\n", "line 2 ranks \"b\" by \"x\"");
        // Not the names of columns.
        for score in ["85%", "0x10", "1_000", "-", ""] {
            let expected = format!("line 1 ranks \"a\" by {score:?}, which is no number");
            refused("s.csv", &format!("a,{score}\nb,2\n"), &expected);
        }
        refused("s.csv", "name,accuracy,loss\na,1,2\n", "line 1 has 3 fields");
        refused("s.csv", "a\n", "line 1 has 1 fields");
        refused("s.csv", "name,accuracy\n", "has no scores");
        assert!(read("/nowhere/s.csv").unwrap_err().chain().contains("cannot be read"));
    }
}
