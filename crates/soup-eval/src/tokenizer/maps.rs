//! The maps of letters in a `tokenizer.json` (`precompiled_charsmap`, SentencePiece's), looked at before the library reads them: it allocates
//! what they say of their size, and they may replace a letter by anything.
//!
//! A map is base64 of the size of a trie in four bytes, the trie, and what letters are replaced by, each with a zero after it.

use serde::Deserialize;
use serde_json::Value;
use soup_core::{Error, Result};

/// The longest replacement of Unicode's own forms, in bytes: it is of a letter of three.
const OWN_BYTES_MAX: usize = 36;

/// What is looked at of a `tokenizer.json`.
#[derive(Deserialize)]
struct Parts {
    normalizer: Option<Value>,
}

/// How many times as long the maps in `tokenizer_json` may make a text, more than Unicode's own forms do. What is not understood is for the
/// library to refuse.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where a map is not as large as it says.
pub(super) fn growth(tokenizer_json: &[u8]) -> Result<usize> {
    let Ok(Parts { normalizer: Some(normalizer) }) = serde_json::from_slice(tokenizer_json) else {
        return Ok(1);
    };
    let (mut growth, mut maps): (usize, usize) = (1, 0);
    let mut left = vec![&normalizer];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(values) => left.extend(values),
            Value::Object(values) => left.extend(values.values()),
            _ => {}
        }
        let map = value.get("precompiled_charsmap").and_then(Value::as_str);
        if let Some(longest) = map.and_then(decoded).map(|map| longest(&map)).transpose()? {
            // One is what SentencePiece has; others would come on top of it.
            let own = if maps == 0 { OWN_BYTES_MAX } else { 1 };
            growth = growth.saturating_mul(longest.div_ceil(own).max(1));
            maps += 1;
        }
    }
    Ok(growth)
}

/// The bytes of the longest replacement in a map.
fn longest(map: &[u8]) -> Result<usize> {
    let wrong = |what: String| {
        Error::data(format!("tokenizer.json: the precompiled_charsmap of its normalizer {what}"))
    };
    let (size, rest) = map.split_first_chunk::<4>().ok_or_else(|| wrong("is empty".to_owned()))?;
    let size = u32::from_le_bytes(*size) as usize;
    let replacements = rest.get(size..).ok_or_else(|| {
        wrong(format!("says that it has a trie of {size} bytes, and has {} bytes", rest.len()))
    })?;
    Ok(replacements.split(|&byte| byte == 0).map(<[u8]>::len).max().unwrap_or(0))
}

/// What `text` is in base64; nothing where it is none.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `tokenizer.json` with such maps.
    fn of(maps: &[&str]) -> std::result::Result<usize, String> {
        let map = |map: &&str| format!(r#"{{"type": "Precompiled", "precompiled_charsmap": "{map}"}}"#);
        let maps = maps.iter().map(map).collect::<Vec<_>>().join(", ");
        let json =
            format!(r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{maps}]}}, "model": {{}}}}"#);
        growth(json.as_bytes()).map_err(|e| e.chain())
    }

    #[test]
    fn base64_is_read() {
        for (text, bytes) in
            [("", &b""[..]), ("TQ==", b"M"), ("TWE=", b"Ma"), ("TWFu", b"Man"), ("+/+/", &[251, 255, 191])]
        {
            assert_eq!(decoded(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(decoded("TW Fu"), None);
    }

    #[test]
    fn maps_are_as_large_as_they_say_and_grow_texts_no_more_than_others() {
        // No trie, and "a" or 74 of it.
        let (short, long) = ("AAAAAGEA".to_owned(), format!("AAAAAGFh{}AA==", "YWFh".repeat(24)));
        assert_eq!(of(&[]), Ok(1));
        assert_eq!(of(&[&short]), Ok(1));
        assert_eq!(of(&[&long]), Ok(3));
        assert!(of(&[&long, &long]).unwrap() > 200);
        // Four bytes that say that gigabytes follow.
        assert!(of(&["/P///w=="]).unwrap_err().contains("a trie of 4294967292 bytes, and has 0 bytes"));
        assert!(of(&[""]).unwrap_err().contains("is empty"));
        assert_eq!(growth(b"{").unwrap(), 1);
    }
}
