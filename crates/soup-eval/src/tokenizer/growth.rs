//! How much longer than a text what a `tokenizer.json` makes of it may be, before it is cut.
//!
//! Normalizers and pre-tokenizers replace and insert what the file says, one after the other: a few lines that each double a letter make
//! gigabytes of it. So what they may add is multiplied when the file is read, and texts may be as much shorter. What Unicode's own forms
//! add is left out: they do so once.

use serde::Deserialize;
use serde_json::Value;
use soup_core::{Error, Result};
use tokenizers::{NormalizerWrapper, Tokenizer};

/// Most times longer: what people write is a few times.
const GROWTH_MAX: usize = 1 << 10;
/// Most normalizers and pre-tokenizers: people write a handful.
const STEPS_MAX: usize = 256;

/// How many times as long as a text in bytes what becomes of it may be, where maps of letters alone make it `of_maps` times as long.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is more than any tokenizer needs.
pub(super) fn of(tokenizer: &Tokenizer, of_maps: usize) -> Result<usize> {
    let mut all = Vec::new();
    if let Some(normalizer) = tokenizer.get_normalizer() {
        all.push(json(serde_json::to_value(normalizer))?);
    }
    if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
        all.push(json(serde_json::to_value(pre_tokenizer))?);
    }
    of_steps(&all, of_maps)
}

/// The same of what its normalizer alone makes: the library puts added tokens through that while it reads the file. What is not understood is
/// for the library to refuse.
///
/// # Errors
/// As [`of`].
pub(super) fn of_added(tokenizer_json: &[u8], of_maps: usize) -> Result<usize> {
    #[derive(Deserialize)]
    struct Parts {
        normalizer: Option<NormalizerWrapper>,
    }
    match super::caught(|| serde_json::from_slice(tokenizer_json)) {
        Ok(Ok(Parts { normalizer: Some(normalizer) })) => {
            of_steps(&[json(serde_json::to_value(normalizer))?], of_maps)
        }
        _ => Ok(of_maps),
    }
}

fn json(of: std::result::Result<Value, serde_json::Error>) -> Result<Value> {
    of.map_err(|e| Error::data("tokenizer.json is not understood").with_source(e))
}

fn of_steps(all: &[Value], of_maps: usize) -> Result<usize> {
    let (mut growth, mut steps): (usize, usize) = (of_maps, 0);
    let mut left: Vec<&Value> = all.iter().collect();
    while let Some(step) = left.pop() {
        steps += 1;
        let several = ["normalizers", "pretokenizers"].iter().find_map(|key| step[key].as_array());
        left.extend(several.into_iter().flatten());
        growth = growth.saturating_mul(of_step(step));
    }
    if steps > STEPS_MAX {
        return Err(Error::data(format!(
            "tokenizer.json has {steps} normalizers and pre-tokenizers, expected at most {STEPS_MAX}"
        )));
    }
    if growth > GROWTH_MAX {
        return Err(Error::data(format!(
            "tokenizer.json has normalizers or pre-tokenizers that together may make a text more than {GROWTH_MAX} times as long: replace \
             and insert less"
        )));
    }
    Ok(growth)
}

/// How many times as long one step may make a text.
fn of_step(step: &Value) -> usize {
    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
    match step["type"].as_str() {
        Some("Replace") => {
            let content = bytes(&step["content"]);
            match (&step["pattern"]["String"], &step["pattern"]["Regex"]) {
                (Value::String(text), _) if !text.is_empty() => content.div_ceil(text.len()).max(1),
                (_, Value::String(regex)) if takes_something(regex) => content.max(1),
                // What is between any two letters may be replaced.
                _ => content.saturating_add(1),
            }
        }
        // What is in front of a text that is one letter.
        Some("Prepend") => bytes(&step["prepend"]).saturating_add(1),
        // Of a space.
        Some("Metaspace") => bytes(&step["replacement"]).max(1),
        // Bytes become letters; spaces come around letters.
        Some("ByteLevel" | "BertNormalizer") => 2,
        _ => 1,
    }
}

/// Whether it is plain that a regular expression takes a letter at least wherever it fits.
fn takes_something(regex: &str) -> bool {
    /// What follows a backslash in expressions for a letter.
    const LETTERS: &str = "sSdDwWhHntrfv\\.*+?()[]{}|^$/-";
    let (mut letters, mut takes) = (regex.chars(), false);
    while let Some(letter) = letters.next() {
        match letter {
            '*' | '?' | '|' | '(' | ')' | '^' | '$' => return false,
            '{' => {
                let times: String = letters.by_ref().take_while(|&inner| inner != '}').collect();
                if !times.trim_end_matches(',').parse().is_ok_and(|least: u32| least > 0) {
                    return false;
                }
            }
            '\\' if !letters.next().is_some_and(|next| LETTERS.contains(next)) => return false,
            // What is in brackets is one letter; brackets in brackets are too much for this.
            '[' => {
                if letters.next().is_none_or(|first| matches!(first, ']' | '[' | '\\')) {
                    return false;
                }
                match letters.by_ref().find(|&inner| matches!(inner, ']' | '[' | '\\')) {
                    Some(']') => {}
                    _ => return false,
                }
            }
            _ => {}
        }
        takes = true;
    }
    takes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(normalizer: &str, pre_tokenizer: &str) -> std::result::Result<usize, String> {
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {normalizer},
            "pre_tokenizer": {pre_tokenizer}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "unk_token": "a", "vocab": {{"a": 0}}}}}}"#
        );
        of(&Tokenizer::from_bytes(json).unwrap(), 1).map_err(|e| e.chain())
    }

    fn replace(kind: &str, pattern: &str, content: &str) -> String {
        format!(r#"{{"type": "Replace", "pattern": {{"{kind}": "{pattern}"}}, "content": "{content}"}}"#)
    }

    fn sequence(of: &str, steps: &[String]) -> String {
        format!(r#"{{"type": "Sequence", "{of}": [{}]}}"#, steps.join(", "))
    }

    #[test]
    fn what_people_write_leaves_texts_long() {
        let bytes =
            r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
        let space = r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#;
        let nfc = r#"{"type": "NFC"}"#.to_owned();
        // CLIP, RoBERTa, T5, Llama.
        let clip = sequence("normalizers", &[nfc, replace("Regex", r"\\s+", " ")]);
        assert_eq!(growth(&clip, bytes), Ok(2));
        assert_eq!(growth("null", bytes), Ok(2));
        let t5 = sequence("normalizers", &[replace("Regex", " {2,}", "▁")]);
        assert_eq!(growth(&t5, space), Ok(9));
        let prepend = r#"{"type": "Prepend", "prepend": "▁"}"#.to_owned();
        let llama = sequence("normalizers", &[prepend, replace("String", " ", "▁")]);
        assert_eq!(growth(&llama, "null"), Ok(12));
        // Quotes as ALBERT has them, which become shorter.
        assert_eq!(growth(&replace("String", "``", r#"\""#), "null"), Ok(1));
    }

    #[test]
    fn steps_that_multiply_each_other_are_refused() {
        let doubled = |times: usize| vec![replace("String", "a", "aa"); times];
        assert_eq!(growth(&sequence("normalizers", &doubled(10)), "null"), Ok(1 << 10));
        for many in [11, 100] {
            let error = growth(&sequence("normalizers", &doubled(many)), "null").unwrap_err();
            assert!(error.contains("more than 1024 times as long"), "{error}");
        }
        let nested = sequence(
            "normalizers",
            &[sequence("normalizers", &doubled(6)), sequence("normalizers", &doubled(6))],
        );
        assert!(growth(&nested, "null").is_err());
        let bytes =
            r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
        assert!(growth("null", &sequence("pretokenizers", &vec![bytes.to_owned(); 11])).is_err());
        assert!(growth(&replace("String", "a", &"a".repeat(1025)), "null").is_err());
        let lower = vec![r#"{"type": "Lowercase"}"#.to_owned(); STEPS_MAX];
        assert!(growth(&sequence("normalizers", &lower), "null").unwrap_err().contains("257 normalizers"));
    }

    #[test]
    fn what_added_tokens_become_is_known_before_the_file_is_read() {
        let added = |normalizer: &str| {
            let json =
                format!(r#"{{"normalizer": {normalizer}, "pre_tokenizer": {{"type": "None"}}, "model": 7}}"#);
            of_added(json.as_bytes(), 3).map_err(|e| e.chain())
        };
        assert_eq!(added("null"), Ok(3));
        assert_eq!(added(&replace("String", "a", "aa")), Ok(6));
        let doubled = vec![replace("String", "a", "aa"); 10];
        assert!(added(&sequence("normalizers", &doubled)).unwrap_err().contains("times as long"));
        assert_eq!(added(r#"{"type": "Other"}"#), Ok(3), "for the library to refuse");
    }

    #[test]
    fn expressions_that_may_take_nothing_insert_between_letters() {
        for something in [r"\s+", " {2,}", "a", r"[ab]+", "[^a]", r"\.", "a{3}"] {
            assert!(takes_something(something), "{something}");
        }
        for nothing in ["", "a*", "a?", "a|", "^", "$", r"\b", "(?=a)", "a{0,2}", "a{,2}", r"[a\]]", "[[a]b]"]
        {
            assert!(!takes_something(nothing), "{nothing}");
        }
        assert_eq!(growth(&replace("Regex", "a*", "bbb"), "null"), Ok(4));
    }
}
