//! A row of JSON lines, of which no more is kept than can be a text or a label: lists and objects in it are passed over, and would take
//! many times their size.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// Most columns of a table, in either form.
pub(super) const COLUMNS_MAX: usize = 1 << 14;

/// The cells of a row by their columns.
#[derive(Debug)]
pub(super) struct Row(pub(super) BTreeMap<String, Cell>);

/// What a cell is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    Number(Number),
    /// Something else, as it is shown.
    Other(&'static str),
}

impl Cell {
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Cell::Text(_))
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut cells = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    // Some readers take the first, some the last.
                    if cells.contains_key(&name) {
                        let shown: String = name.chars().take(60).collect();
                        return Err(A::Error::custom(format_args!("{shown:?} is there twice")));
                    }
                    cells.insert(name, map.next_value()?);
                    if cells.len() > COLUMNS_MAX {
                        return Err(A::Error::custom(format_args!("more than {COLUMNS_MAX} columns")));
                    }
                }
                Ok(Row(cells))
            }
        }
        deserializer.deserialize_map(Rows)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(Cells)
    }
}

struct Cells;

impl<'de> Visitor<'de> for Cells {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Other("null"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Other(if value { "true" } else { "false" }))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(Cell::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Number::from_f64(value).map_or(Cell::Other("no number"), Cell::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_and_no_number_is_not_kept() {
        let line = r#"{"a": "x\n", "b": 1, "c": -1.5, "d": null, "e": true, "f": [1, [{}]], "g": {"h": {}, "h": 1}}"#;
        let Row(row) = serde_json::from_str(line).unwrap();
        let number = |text: &str| Cell::Number(text.parse().unwrap());
        let other = |(name, is): (&str, &'static str)| (name.to_owned(), Cell::Other(is));
        let mut want: BTreeMap<String, Cell> =
            [("d", "null"), ("e", "true"), ("f", "a list"), ("g", "an object")]
                .into_iter()
                .map(other)
                .collect();
        want.insert("a".to_owned(), Cell::Text("x\n".to_owned()));
        want.insert("b".to_owned(), number("1"));
        want.insert("c".to_owned(), number("-1.5"));
        assert_eq!(row, want);
        // However deep: nothing calls itself for it.
        let deep = format!(r#"{{"a": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(serde_json::from_str::<Row>(&deep).is_ok());
        for bad in ["[1]", "", "1", r#"{"a": [}"#, r#"{"a": 1} x"#] {
            assert!(serde_json::from_str::<Row>(bad).is_err(), "{bad}");
        }
        let twice = serde_json::from_str::<Row>(r#"{"label": 1, "text": "a", "label": 0}"#).unwrap_err();
        assert!(twice.to_string().contains("\"label\" is there twice"), "{twice}");
    }

    #[test]
    fn a_row_has_so_many_columns_and_no_more() {
        let row = |columns: usize| {
            let cells: Vec<String> = (0..columns).map(|at| format!(r#""{at}": 0"#)).collect();
            serde_json::from_str::<Row>(&format!("{{{}}}", cells.join(", "))).map(|row| row.0.len())
        };
        assert_eq!(row(COLUMNS_MAX).unwrap(), COLUMNS_MAX);
        assert!(row(COLUMNS_MAX + 1).unwrap_err().to_string().contains("more than 16384 columns"));
    }
}
