use std::sync::Arc;

use super::super::{Dataset, InputKind, Target};
use super::*;
use crate::budget::Budget;
use crate::classes::Classes;
use crate::source::LocalFiles;

fn dataset(files: &[(&str, &str)], options: &DatasetOptions) -> Result<(tempfile::TempDir, Dataset)> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let files = Arc::new(LocalFiles::new(dir.path()));
    let mut dataset = Dataset::open_of(files, options, Budget::default(), InputKind::Texts)?;
    let names = ["no", "yes"].map(str::to_owned).to_vec();
    dataset.align(&Classes::new(names, &std::collections::BTreeMap::new()), false)?;
    Ok((dir, dataset))
}

/// `first|second=class` of each sample.
fn rows(dataset: &Dataset, range: Range<u64>) -> Result<Vec<String>> {
    let shown = |sample: &Sample| {
        let Target::Class(class) = sample.target else { panic!("{sample:?}") };
        match &sample.input {
            Input::Text { first, second: None } => format!("{first}={class}"),
            Input::Text { first, second: Some(second) } => format!("{first}|{second}={class}"),
            Input::Image(_) => "image".to_owned(),
        }
    };
    Ok(dataset.read(range)?.iter().map(shown).collect())
}

fn all(files: &[(&str, &str)]) -> std::result::Result<Vec<String>, String> {
    let (_dir, dataset) = dataset(files, &DatasetOptions::default()).map_err(|e| e.chain())?;
    rows(&dataset, 0..dataset.len()).map_err(|e| e.chain())
}

#[test]
fn json_lines_have_texts_and_labels() {
    let text = "{\"text\": \"a\\tb\", \"label\": 1}\r\n{\"label\": \"no\", \"text\": \"\"}\n{\"text\": \"é\", \"label\": \"YES\"}";
    assert_eq!(all(&[("x.jsonl", text)]).unwrap(), ["a\tb=1", "=0", "é=1"]);
    let pair = "{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": 0}\n";
    assert_eq!(all(&[("x.json", pair)]).unwrap(), ["a|b=0"]);
}

#[test]
fn tab_separated_values_have_no_quotes() {
    let text = "\u{feff}index\tsentence1\tsentence2\tlabel\r\n0\t\"a\tb \"\"\tyes\r\n1\tc\t\t0\n";
    assert_eq!(all(&[("x.tsv", text)]).unwrap(), ["\"a|b \"\"=1", "c|=0"]);
}

#[test]
fn numbers_are_read_where_the_model_predicts_one() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        let files = Arc::new(LocalFiles::new(dir.path().join(name)));
        let mut dataset =
            Dataset::open_of(files, &DatasetOptions::default(), Budget::default(), InputKind::Texts).unwrap();
        assert!(dataset.align(&Classes::none(), true).unwrap_err().chain().contains("--class-subset"));
        dataset.align(&Classes::none(), false).unwrap();
        let samples = dataset.read(0..dataset.len()).map_err(|e| e.chain())?;
        Ok::<_, String>(samples.iter().map(|sample| sample.target).collect::<Vec<Target>>())
    };
    let tabs = "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t3.800\n1\tnews\t\"c\td\t5\n";
    assert_eq!(of("x.tsv", tabs).unwrap(), [Target::Number(3.8), Target::Number(5.0)]);
    let json = "{\"text\": \"a\", \"score\": 0.1}\n{\"text\": \"b\", \"score\": -2}\n{\"text\": \"c\", \"score\": \"1e1\"}\n";
    let numbers = [0.1, -2.0, 10.0].map(Target::Number);
    assert_eq!(of("x.jsonl", json).unwrap(), numbers);
    let one = |label: &str| of("y.jsonl", &format!("{{\"text\": \"a\", \"label\": {label}}}\n")).unwrap_err();
    assert!(one("9007199254740993").contains("has no label: it is 9007199254740993"));
    assert!(one("\"inf\"").contains("label \"inf\" is no number"));
    assert!(one("true").contains("has no label: it is true"));
}

#[test]
fn several_files_are_one_dataset() {
    let line = |text: &str, label: u32| format!("{{\"text\": \"{text}\", \"label\": {label}}}\n");
    let many: String = (0..1000).map(|i| line(&format!("t{i}"), i % 2)).collect();
    let (_dir, dataset) =
        dataset(&[("b.jsonl", &line("last", 1)), ("a.jsonl", &many)], &DatasetOptions::default()).unwrap();
    assert_eq!(dataset.len(), 1001);
    for range in [0..1, 255..258, 511..769, 998..1001, 1000..1001, 4..4] {
        let want: Vec<String> = range
            .clone()
            .map(|i| if i == 1000 { "last=1".to_owned() } else { format!("t{i}={}", i % 2) })
            .collect();
        assert_eq!(rows(&dataset, range).unwrap(), want);
    }
    assert!(dataset.place(1000).ends_with("file \"b.jsonl\" line 1"), "{}", dataset.place(1000));
}

#[test]
fn files_with_their_samples_in_other_columns_are_refused() {
    let json = |text: &str, label: &str| format!("{{\"{text}\": \"a\", \"{label}\": 1}}\n");
    let refused = |one: (&str, String), other: (&str, String)| {
        let error = all(&[(one.0, one.1.as_str()), (other.0, other.1.as_str())]).unwrap_err();
        let expect = format!("{:?} and {:?} have their samples in other columns", one.0, other.0);
        assert!(error.contains(&expect), "{error}");
    };
    refused(("a.jsonl", json("text", "label")), ("b.jsonl", json("sentence", "label")));
    refused(("a.jsonl", json("text", "label")), ("b.jsonl", json("text", "gold_label")));
    let tabs = |names: &str| format!("{names}\na\tb\t1\n");
    refused(("a.tsv", tabs("sentence1\tsentence2\tlabel")), ("b.tsv", tabs("sentence\tsentence2\tlabel")));
    // The order of columns is nobody's business.
    let swapped = "label\tsentence2\tsentence1\n0\tc\td\n".to_owned();
    let both = [("a.tsv", &*tabs("sentence1\tsentence2\tlabel")), ("b.tsv", &*swapped)];
    assert_eq!(all(&both).unwrap(), ["a|b=1", "d|c=0"]);
}

#[test]
fn what_stands_in_the_place_of_a_file_is_called_what_it_is() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for name in ["x.jsonl", "x.tsv", "x.parquet"] {
        let error = all(&[(name, pointer)]).unwrap_err();
        let expect = format!("file {name:?} is not what it is called but a Git LFS pointer");
        assert!(error.contains(&expect), "{error}");
        let error = all(&[(name, "<!DOCTYPE html>\n<html>\n")]).unwrap_err();
        assert!(error.contains("but a web page: the download failed"), "{error}");
    }
}

#[test]
fn quotes_that_csv_writes_are_part_of_a_text_and_noted() {
    let notes = |cell: &str| {
        let text = format!("text\tlabel\na\tno\n{cell}\tyes\n");
        let (_dir, dataset) = dataset(&[("x.tsv", &text)], &DatasetOptions::default()).unwrap();
        assert_eq!(rows(&dataset, 1..2).unwrap(), [format!("{cell}=1")]);
        dataset.notes().to_vec()
    };
    for cell in [r#""she said ""no"" to it""#, r#""""quoted""""#] {
        let noted = notes(cell);
        assert!(
            noted.len() == 1 && noted[0].starts_with("line 3 of \"x.tsv\" has a cell in quotes"),
            "{noted:?}"
        );
    }
    for cell in [r#""plain""#, r#""one" and "two""#, r#"a "" b"#, r#"""#, r#""""#, "\"a \"\" b"] {
        assert_eq!(notes(cell), [""; 0], "{cell}");
    }
}

#[test]
fn data_of_other_kinds_beside_lines_is_noted() {
    let line = "{\"text\": \"a\", \"label\": 1}\n";
    for more in ["part-1.jsonl.gz", "part-1.json", "part-1.csv"] {
        let files = [("part-0.jsonl", line), (more, line), ("README.md", ""), ("dataset_infos.json", "{}")];
        let (_dir, dataset) = dataset(&files, &DatasetOptions::default()).unwrap();
        let expect =
            format!("is read from its .jsonl files; 1 other files with data were left out, such as {more:?}");
        assert_eq!(dataset.notes(), [expect]);
    }
}

#[test]
fn texts_that_nobody_looks_at_are_noted() {
    let notes = |name: &str, text: &str| {
        let (_dir, dataset) = dataset(&[(name, text)], &DatasetOptions::default()).unwrap();
        dataset.notes().to_vec()
    };
    let pair = notes("x.tsv", "index\ttext\ttext_pair\tscore\tlabel\n0\ta\tb\t0.5\tyes\n");
    assert_eq!(pair, ["is read from the columns text, and not from text_pair"]);
    let second = notes("x.tsv", "sentence\tsentence2\tlabel\na\tb\tno");
    assert_eq!(second, ["is read from the columns sentence, and not from sentence2"]);
    assert_eq!(notes("x.tsv", "index\tsentence\tlabel\n0\ta\tno\n"), [""; 0]);
    let later = "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\", \"label\": 1, \"text_pair\": \"b\"}\n";
    assert_eq!(notes("x.jsonl", later), pair);
}

#[test]
fn columns_that_come_later_are_columns() {
    let line = |more: &str| format!("{{\"text\": \"a\", \"label\": 1{more}}}\n");
    for before in [1, HEAD_LINES + 5] {
        let of = |more: &str| all(&[("x.jsonl", &(line("").repeat(before) + &line(more)))]);
        for (more, part) in [
            (", \"sentence\": \"b\"", "which text is meant is not known"),
            (", \"labels\": 0", "several columns of labels among"),
        ] {
            let error = of(more).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert_eq!(error.contains(&format!("line {}", before + 1)), before > HEAD_LINES, "{error}");
        }
        assert_eq!(of(", \"source\": \"b\"").unwrap().len(), before + 1);
        // A column that is named is that one.
        let options = DatasetOptions {
            label_column: Some("label".to_owned()),
            others: [("text-column".to_owned(), "text".to_owned())].into(),
            ..DatasetOptions::default()
        };
        let text = line("").repeat(before) + &line(", \"sentence\": \"b\", \"labels\": 0");
        let (_dir, dataset) = dataset(&[("x.jsonl", &text)], &options).unwrap();
        assert_eq!(rows(&dataset, 0..dataset.len()).unwrap().len(), before + 1);
    }
}

#[test]
fn a_blank_line_at_the_very_end_is_none() {
    let line = "{\"text\": \"a\", \"label\": 1}\n";
    for many in [1, 2, 255, 256, 257, 512] {
        for end in ["", "\n", "\r\n"] {
            assert_eq!(
                all(&[("x.jsonl", &(line.repeat(many) + end))]).unwrap().len(),
                many,
                "{many} {end:?}"
            );
        }
    }
    for end in ["\n", "\r\n"] {
        assert_eq!(all(&[("x.tsv", &format!("text\tlabel\r\na\t1\r\n{end}"))]).unwrap(), ["a=1"]);
        assert!(all(&[("x.tsv", &format!("text\tlabel\n{end}"))]).unwrap_err().contains("has no samples"));
    }
    let error = all(&[("x.jsonl", &format!("{line}\n\n"))]).unwrap_err();
    assert!(error.contains("line 2: not a JSON object"), "{error}");
    let error = all(&[("x.jsonl", &format!("{line}\n{line}"))]).unwrap_err();
    assert!(error.contains("line 2: not a JSON object"), "{error}");
}

#[test]
fn lines_that_cannot_be_used_are_named() {
    let good = "{\"text\": \"a\", \"label\": 1}\n";
    for (line, part) in [
        ("", "line 2: not a JSON object"),
        ("[1]", "line 2: not a JSON object"),
        ("{\"text\": 7, \"label\": 1}", "line 2: text is 7, no text"),
        ("{\"text\": \"a\"}", "line 2: has no label: it is not there"),
        ("{\"text\": \"a\", \"label\": null}", "line 2: has no label: it is null"),
        ("{\"text\": \"a\", \"label\": -1}", "line 2: has no label: it is -1"),
        ("{\"text\": \"a\", \"label\": 0.5}", "line 2: has no label: it is 0.5"),
        ("{\"text\": \"a\", \"label\": 0.0}", "it is 0.0, and classes are numbered by integers"),
        ("{\"text\": \"a\", \"label\": \"maybe\"}", "line 2: label \"maybe\" is no class of the model"),
    ] {
        let error = all(&[("x.jsonl", &format!("{good}{line}\n{good}"))]).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let error = all(&[("x.tsv", "sentence\tlabel\na\t1\nb\n")]).unwrap_err();
    assert!(error.contains("line 3: 1 columns, and the first line names 2"), "{error}");
    let error = all(&[("x.tsv", "gj04\t1\t\tOur friends.\n")]).unwrap_err();
    assert!(error.contains("its first line has to name the columns"), "{error}");
    let error = all(&[("x.json", "[{\"text\": \"a\", \"label\": 1}]")]).unwrap_err();
    assert!(error.contains("is one JSON array"), "{error}");
    let error = all(&[("x.jsonl", good), ("x.tsv", "text\tlabel\n")]).unwrap_err();
    assert!(error.contains("files of several kinds"), "{error}");
    assert!(all(&[("x.tsv", "text\tlabel\n")]).unwrap_err().contains("has no samples"));
    assert!(all(&[("x.md", "text")]).unwrap_err().contains("neither .parquet"));
    let saved = all(&[("dataset_dict.json", "{\"splits\": [\"test\"]}"), ("data-00000-of-00001.arrow", "x")]);
    let saved = saved.unwrap_err();
    assert!(saved.contains("neither .parquet") && saved.contains("Arrow, as save_to_disk"), "{saved}");
}

#[test]
fn columns_may_be_named() {
    let text = "{\"text\": \"a\", \"body\": \"b\", \"stars\": 1, \"label\": 0}\n";
    let options = DatasetOptions {
        label_column: Some("stars".to_owned()),
        others: [("text-column".to_owned(), "body".to_owned())].into(),
        ..DatasetOptions::default()
    };
    let (_dir, named) = dataset(&[("x.jsonl", text)], &options).unwrap();
    assert_eq!(rows(&named, 0..1).unwrap(), ["b=1"]);
    assert!(named.notes()[0].contains("not from text"), "{:?}", named.notes());
    let images = DatasetOptions { image_column: Some("i".to_owned()), ..DatasetOptions::default() };
    let error = dataset(&[("x.jsonl", text)], &images).err().unwrap().chain();
    assert!(error.contains("image-column"), "{error}");
}

#[test]
fn what_is_beside_texts_and_labels_is_passed_over_and_columns_are_counted() {
    let lists = format!(r#"{{"text": "a", "label": 1, "x": [{}0], "y": {{"z": []}}}}"#, "0, ".repeat(1000));
    assert_eq!(all(&[("x.jsonl", &lists)]).unwrap(), ["a=1"]);
    let wide: String = (0..=COLUMNS_MAX).map(|at| format!(r#", "{at}": 0"#)).collect();
    let error = all(&[("x.jsonl", &format!(r#"{{"text": "a", "label": 1{wide}}}"#))]).unwrap_err();
    assert!(error.contains("x.jsonl") && error.contains("more than 16384 columns"), "{error}");
    let head: String = (0..COLUMNS_MAX - 2).map(|at| format!("\t{at}")).collect();
    let row = format!("text\tlabel{head}\na\t1{}\n", "\t".repeat(COLUMNS_MAX - 2));
    assert_eq!(all(&[("x.tsv", &row)]).unwrap(), ["a=1"]);
    let error = all(&[("x.tsv", &format!("text\tlabel{head}\tx\na\t1\n"))]).unwrap_err();
    assert!(error.contains("x.tsv") && error.contains("names more than 16384 columns"), "{error}");
}
