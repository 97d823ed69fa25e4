//! What reading a `tokenizer.json` takes, found before anybody does.
//!
//! A few bytes of such a file become hundreds in memory. Each value is held several times over while the library reads it: as it came, as JSON,
//! and as what it becomes. Tokens with scores become a tree, in which each beginning that no other token has is a table of its own. So the file is
//! gone through first, and nothing is kept of it but numbers, and for a moment where the tokens of such a tree are.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{Error, Result};

/// What a value takes while it is read, in bytes. It was 190 at most, of merges.
const BYTES_A_VALUE: u64 = 256;
/// A byte of a text.
const BYTES_A_LETTER: u64 = 16;
/// A byte of an added token, for each that the normalizer makes of it: where each of these came from, and the automaton that finds them.
const BYTES_AN_ADDED_LETTER: u64 = 128;
/// A beginning of a token that has a score: the smallest table there is, of one beginning that is one byte longer. It was 365.
const BYTES_A_BEGINNING: u64 = 400;
/// Longest token that has a score, in bytes: the tree is as deep, and what goes down it takes a stack.
const SCORED_BYTES_MAX: u64 = 1 << 10;
/// Most bytes that a normalizer may make of an added token: finding those that are longer takes time by their square to get ready.
const ADDED_BYTES_MAX: u64 = 16 << 10;
/// Most values besides those of the model and of added tokens: people write some dozens.
const SETTINGS_MAX: u64 = 1 << 16;
/// Most values of added tokens: 14 for each.
const ADDED_MAX: u64 = 1 << 20;
/// Tokens whose beginnings are compared with each other; those of more count as if no other token had them.
const COMPARED_MAX: usize = 1 << 20;

/// How much there is in a `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    values: u64,
    letters: u64,
    added_letters: u64,
    /// Bytes of the longest text among added tokens.
    added_longest: u64,
    beginnings: u64,
}

impl Weight {
    /// Of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) for what is no JSON object, has one of its parts twice, more settings or added tokens than any, or a
    /// token that is longer than any.
    pub fn of(tokenizer_json: &[u8]) -> Result<Weight> {
        let mut parts = Parts::default();
        let mut json = serde_json::Deserializer::from_slice(tokenizer_json);
        let read = json.deserialize_map(&mut parts).and_then(|()| json.end());
        read.map_err(|e| Error::data("tokenizer.json is not understood").with_source(e))?;
        let Parts { settings, normalizer, added, model, scored } = parts;
        let [normalizer, added, model] = [normalizer, added, model].map(Option::unwrap_or_default);
        for (what, values, max) in [
            ("settings besides its model", settings.values + normalizer.values, SETTINGS_MAX),
            ("added tokens", added.values, ADDED_MAX),
        ] {
            if values > max {
                return Err(Error::data(format!(
                    "tokenizer.json has {what} of {values} values, expected at most {max}"
                )));
            }
        }
        if scored.longest > SCORED_BYTES_MAX {
            return Err(Error::data(format!(
                "tokenizer.json has a token of {} bytes in its vocabulary, expected at most {SCORED_BYTES_MAX}",
                scored.longest
            )));
        }
        let all = [settings, normalizer, added, model];
        Ok(Weight {
            values: all.iter().map(|counts| counts.values).sum(),
            letters: all.iter().map(|counts| counts.letters).sum(),
            added_letters: added.letters,
            added_longest: added.longest,
            beginnings: scored.beginnings(),
        })
    }

    /// What reading it takes at most, in bytes, where its normalizer makes a text so many times as long.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) where that makes an added token longer than any.
    pub fn bytes(&self, growth: usize) -> Result<u64> {
        let growth = growth as u64;
        if self.added_longest.saturating_mul(growth) > ADDED_BYTES_MAX {
            return Err(Error::data(format!(
                "tokenizer.json has an added token of {} bytes, of which its normalizer may make {growth} times as many, expected at most \
                 {ADDED_BYTES_MAX} of those",
                self.added_longest
            )));
        }
        let added = self.added_letters.saturating_mul(growth).saturating_mul(BYTES_AN_ADDED_LETTER);
        let all = [
            self.values.saturating_mul(BYTES_A_VALUE),
            self.letters.saturating_mul(BYTES_A_LETTER),
            self.beginnings.saturating_mul(BYTES_A_BEGINNING),
        ];
        Ok(all.into_iter().fold(added, u64::saturating_add))
    }
}

/// What there is so far.
#[derive(Default)]
struct Parts<'de> {
    settings: Counts,
    normalizer: Option<Counts>,
    added: Option<Counts>,
    model: Option<Counts>,
    scored: Scored<'de>,
}

impl<'de> Visitor<'de> for &mut Parts<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.settings.letters += key.len() as u64;
            match key.as_str() {
                "normalizer" => map.next_value_seed(once::<A::Error>(&mut self.normalizer, &key)?)?,
                "added_tokens" => map.next_value_seed(once::<A::Error>(&mut self.added, &key)?)?,
                "model" => {
                    let counts = once::<A::Error>(&mut self.model, &key)?;
                    map.next_value_seed(Model { counts, scored: &mut self.scored })?;
                }
                _ => map.next_value_seed(&mut self.settings)?,
            }
        }
        Ok(())
    }
}

/// Where a part is counted that there may be once: of two the last one counts, and both are read.
fn once<'a, E: serde::de::Error>(part: &'a mut Option<Counts>, key: &str) -> Result<&'a mut Counts, E> {
    if part.is_some() {
        return Err(E::custom(format_args!("it has {key:?} twice")));
    }
    Ok(part.insert(Counts::default()))
}

/// Values, and the bytes of all texts among them, and of the longest one.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    values: u64,
    letters: u64,
    longest: u64,
}

impl Counts {
    fn one(&mut self, letters: usize) {
        self.values += 1;
        self.letters += letters as u64;
        self.longest = self.longest.max(letters as u64);
    }
}

impl<'de> DeserializeSeed<'de> for &mut Counts {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Counts {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.one(0);
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.one(0);
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.one(0);
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.one(0);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.one(0);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.one(text.len());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.one(0);
        while list.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.one(0);
        while map.next_key_seed(&mut *self)?.is_some() {
            map.next_value_seed(&mut *self)?;
        }
        Ok(())
    }
}

/// The tokens of a vocabulary that has scores.
#[derive(Default)]
struct Scored<'de> {
    compared: Vec<Cow<'de, str>>,
    /// Bytes of those that are not.
    others: u64,
    /// Of the longest one.
    longest: u64,
}

impl<'de> Scored<'de> {
    fn add(&mut self, token: Cow<'de, str>) {
        self.longest = self.longest.max(token.len() as u64);
        match self.compared.len() < COMPARED_MAX {
            true => self.compared.push(token),
            false => self.others += token.len() as u64,
        }
    }

    /// How many beginnings they have, each counted once.
    fn beginnings(mut self) -> u64 {
        self.compared.sort_unstable();
        let (mut count, mut before) = (self.others, "");
        for token in &self.compared {
            let shared = before.bytes().zip(token.bytes()).take_while(|(a, b)| a == b).count();
            count += (token.len() - shared) as u64;
            before = token;
        }
        count
    }
}

/// Counts a model.
struct Model<'a, 'de> {
    counts: &'a mut Counts,
    scored: &'a mut Scored<'de>,
}

impl<'de> DeserializeSeed<'de> for Model<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Model { counts, scored } = self;
        counts.one(0);
        while let Some(key) = map.next_key::<String>()? {
            counts.one(key.len());
            match key.as_str() {
                "vocab" => {
                    map.next_value_seed(Vocabulary { counts: &mut *counts, scored: &mut *scored })?;
                }
                _ => map.next_value_seed(&mut *counts)?,
            }
        }
        Ok(())
    }
}

/// Counts a vocabulary: a table of ids by tokens, or a list of tokens with their scores.
struct Vocabulary<'a, 'de> {
    counts: &'a mut Counts,
    scored: &'a mut Scored<'de>,
}

impl<'de> DeserializeSeed<'de> for Vocabulary<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocabulary<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.counts.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Vocabulary { counts, scored } = self;
        counts.one(0);
        let mut next = || list.next_element_seed(Entry { counts: &mut *counts, scored: &mut *scored });
        while next()?.is_some() {}
        Ok(())
    }
}

/// Counts a token with its score.
struct Entry<'a, 'de> {
    counts: &'a mut Counts,
    scored: &'a mut Scored<'de>,
}

impl<'de> DeserializeSeed<'de> for Entry<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token and its score")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Entry { counts, scored } = self;
        counts.one(0);
        if let Some(token) = list.next_element_seed(Token)? {
            counts.one(token.len());
            scored.add(token);
        }
        while list.next_element_seed(&mut *counts)?.is_some() {}
        Ok(())
    }
}

/// A text where it lies in the file, if it lies there as it is.
struct Token;

impl<'de> DeserializeSeed<'de> for Token {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Token {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `tokenizer.json` with these added tokens, this normalizer, and this in its model.
    fn of(added: &str, normalizer: &str, model: &str) -> Result<Weight, String> {
        let json =
            format!(r#"{{"added_tokens": [{added}], "normalizer": {normalizer}, "model": {{{model}}}}}"#);
        Weight::of(json.as_bytes()).map_err(|e| e.chain())
    }

    #[test]
    fn values_and_letters_are_counted_wherever_they_are() {
        let bare = of("", "null", "").unwrap();
        // A list, nothing and an object, and three keys.
        assert_eq!((bare.values, bare.letters, bare.added_letters), (3, 27, 0));
        let more = of(r#"{"id": 7}, "é""#, r#"[true, -1, 0.5]"#, r#""merges": [["a", "b"], "c d"]"#).unwrap();
        // An object, its key, its number and a text; a list and three values in the place of one; a key, two lists and three texts.
        assert_eq!((more.values, more.letters), (3 + 4 + 3 + 6, 27 + 4 + 11));
        assert_eq!((more.added_letters, more.beginnings), (4, 0));
        let bytes = |growth| more.bytes(growth).unwrap();
        assert_eq!(bytes(3) - bytes(2), 4 * BYTES_AN_ADDED_LETTER);
        assert_eq!(Weight { values: u64::MAX, ..bare }.bytes(usize::MAX).unwrap(), u64::MAX);
    }

    #[test]
    fn tokens_with_scores_count_by_what_no_other_begins_with() {
        let beginnings = |vocab: &str| of("", "null", &format!(r#""vocab": {vocab}"#)).unwrap().beginnings;
        assert_eq!(beginnings(r#"[["abc", 0], ["abd", -1.5], ["ab", 0], ["x", 0], ["abc", 0]]"#), 5);
        // As it is written, too.
        assert_eq!(beginnings(r#"[["\u0061b", 0], ["a", 0]]"#), 2);
        assert_eq!(beginnings(r#"{"abc": 0, "abd": 1}"#), 0);
        let mut most = Scored { compared: vec![Cow::Borrowed("x"); COMPARED_MAX], others: 0, longest: 1 };
        most.add(Cow::Borrowed("xx"));
        assert_eq!(most.beginnings(), 3);
    }

    #[test]
    fn what_no_tokenizer_has_is_refused() {
        let settings = format!("[{}0]", "0,".repeat(SETTINGS_MAX as usize));
        let error = of("", &settings, "").unwrap_err();
        assert!(
            error.starts_with("tokenizer.json has settings besides its model of 65538 values"),
            "{error}"
        );
        let error = of(&format!("{}0", "0,".repeat(ADDED_MAX as usize)), "null", "").unwrap_err();
        assert!(error.contains("has added tokens of 1048578 values, expected at most 1048576"), "{error}");
        let token =
            |bytes: u64| of("", "null", &format!(r#""vocab": [["{}", 0]]"#, "x".repeat(bytes as usize)));
        assert_eq!(token(SCORED_BYTES_MAX).unwrap().beginnings, SCORED_BYTES_MAX);
        let error = token(SCORED_BYTES_MAX + 1).unwrap_err();
        assert!(
            error.contains("has a token of 1025 bytes in its vocabulary, expected at most 1024"),
            "{error}"
        );
        let added = of(&format!(r#""{}""#, "x".repeat(6000)), "null", "").unwrap();
        added.bytes(2).unwrap();
        let error = added.bytes(3).unwrap_err().chain();
        assert!(
            error.contains("an added token of 6000 bytes, of which its normalizer may make 3 times"),
            "{error}"
        );
        for (json, part) in [
            ("{", "tokenizer.json is not understood: "),
            ("[]", "expected a tokenizer"),
            ("{} x", "trailing"),
            (r#"{"model": {}, "model": {}}"#, "it has \"model\" twice"),
            (r#"{"normalizer": 1, "normalizer": 2}"#, "it has \"normalizer\" twice"),
            (r#"{"model": {"vocab": [7]}}"#, "expected a token and its score"),
        ] {
            let error = Weight::of(json.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Data);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        // Most of what there is in a file is in its model, and bounded by who reads it.
        let merges = format!(r#""merges": [{}"b c"]"#, r#""a b","#.repeat(100_000));
        assert_eq!(of("", "null", &merges).unwrap().values, 100_006);
    }
}
