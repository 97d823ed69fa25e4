//! How much there may be in a file of settings: what is a few bytes in it takes many times that as a value.

use soup_core::{Error, Result};

use crate::location::Location;

/// Largest file of settings, and most bytes of all files of one name: they are compared with each other.
pub(super) const BYTES_MAX: u64 = 16 << 20;
pub(super) const ALL_BYTES_MAX: u64 = 256 << 20;
/// Most values in a file of settings: tens of thousands of classes, each with its name and its number, or of tokens are a third of it.
const VALUES_MAX: usize = 1 << 19;
/// Most values in all files of one name that differ from the first of them.
pub(super) const ALL_VALUES_MAX: usize = 1 << 22;

/// Checks the file of settings at `location`, and gives how many values are in it.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where it is larger than any, or has more values.
pub(crate) fn check(location: &Location, json: &[u8]) -> Result<usize> {
    let bytes = json.len() as u64;
    if bytes > BYTES_MAX {
        return Err(Error::data(format!(
            "{location} has {bytes} bytes, and files of settings have at most {} MiB",
            BYTES_MAX >> 20
        )));
    }
    match values(json) {
        values if values > VALUES_MAX => Err(Error::data(format!(
            "{location} has {values} values, and files of settings have at most {VALUES_MAX}"
        ))),
        values => Ok(values),
    }
}

/// How many values are in `json` at most: each but the first comes after a comma, or begins a list or an object.
pub(crate) fn values(json: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (json, count) in [
            (r#"{"a": 1}"#, 2),
            (r#"{"a": [1, 2, {}], "b": [[]]}"#, 9),
            (r#"{"a, [b\",": "c, \\"}"#, 2),
            ("7", 1),
        ] {
            assert_eq!(values(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn settings_that_are_none_are_refused_by_name() {
        let location = Location::parse("/pool/a/config.json").unwrap();
        let most = format!("[{}0]", "0,".repeat(VALUES_MAX - 2));
        assert_eq!(check(&location, most.as_bytes()).unwrap(), VALUES_MAX);
        for (json, part) in [
            (most.replacen('0', "0,0", 1), "config.json has 524289 values"),
            (" ".repeat(BYTES_MAX as usize + 1), "at most 16 MiB"),
        ] {
            let error = check(&location, json.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), soup_core::ErrorKind::Data);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
    }
}
