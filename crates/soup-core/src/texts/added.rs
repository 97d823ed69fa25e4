//! Tokens that transformers adds to those of `tokenizer.json` by itself.
//!
//! An added token is one wherever a text has its characters; any other is found by the model of the vocabulary alone. transformers adds what
//! `tokenizer_config.json` names, and what `special_tokens_map.json` and `added_tokens.json` name where that file has no
//! `added_tokens_decoder`, and the usual special tokens of the tokenizer's class. Only texts with such characters become other tokens: this
//! is noted, not refused.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Names of settings that name a special token.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Those that name several.
const SEVERAL: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// Tokens that are named in a note.
const NAMED_MAX: usize = 5;
/// Most tokens for what is left out of a text: ten times as many as a T5 has.
const EXTRA_IDS_MAX: u64 = 1000;

/// Names of classes less `TokenizerFast`, and their tokens by the settings that name others.
type Usual = (&'static [&'static str], &'static [(&'static str, &'static str)]);

/// What classes of tokenizers take for special tokens unless they are told otherwise.
const USUAL: [Usual; 6] = [
    (
        &["Bert", "DistilBert", "Electra", "MobileBert", "SqueezeBert", "ConvBert", "LayoutLM", "Lxmert"],
        &[
            ("unk_token", "[UNK]"),
            ("sep_token", "[SEP]"),
            ("pad_token", "[PAD]"),
            ("cls_token", "[CLS]"),
            ("mask_token", "[MASK]"),
        ],
    ),
    (
        &["Roberta", "Bart", "Longformer"],
        &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "<unk>"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
    ),
    (
        &["MPNet"],
        &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
            ("unk_token", "[UNK]"),
            ("pad_token", "<pad>"),
            ("mask_token", "<mask>"),
        ],
    ),
    (&["T5"], &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")]),
    (&["GPT2"], &[("eos_token", "<|endoftext|>")]),
    (&["CLIP"], &[("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>")]),
];
/// Those whose usual token that hides another one takes the space before it.
const MASK_TAKES_SPACE: [&str; 4] = ["Roberta", "Bart", "Longformer", "MPNet"];
/// Classes by model types, where no file names one.
const BY_TYPE: [(&str, &str); 6] = [
    ("bert", "Bert"),
    ("roberta", "Roberta"),
    ("distilbert", "DistilBert"),
    ("t5", "T5"),
    ("clip", "CLIP"),
    ("align", "Bert"),
];

/// The files that tell of a tokenizer; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerCompanions<'a> {
    /// `config.json`.
    pub model: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`.
    pub config: &'a [u8],
    /// `special_tokens_map.json`.
    pub special: &'a [u8],
    /// `added_tokens.json`.
    pub added: &'a [u8],
}

/// What is needed of a `tokenizer.json`.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    added_tokens: Vec<Map<String, Value>>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Vocabulary,
}

/// The tokens of a vocabulary that some class takes for special ones: nothing else is asked of it, and the rest may be millions.
#[derive(Default)]
struct Vocabulary(BTreeSet<String>);

impl Vocabulary {
    fn add(&mut self, token: String) {
        if USUAL.iter().any(|(_, usual)| usual.iter().any(|(_, name)| *name == token)) {
            self.0.insert(token);
        }
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tokens)
    }
}

/// Reads a table of ids by tokens, or a list of tokens with their weights.
struct Tokens;

impl<'de> Visitor<'de> for Tokens {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut all = Vocabulary::default();
        while let Some((token, IgnoredAny)) = map.next_entry()? {
            all.add(token);
        }
        Ok(all)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
        let mut all = Vocabulary::default();
        while let Some((token, IgnoredAny)) = list.next_element()? {
            all.add(token);
        }
        Ok(all)
    }
}

/// What people should know of tokens that transformers would add to those of a `tokenizer.json`, or add in another way. What cannot be read
/// is said by whoever has to read it.
pub fn notes(files: TokenizerCompanions<'_>) -> Vec<String> {
    let Ok(tokenizer) = serde_json::from_slice::<Tokenizer>(files.tokenizer) else { return Vec::new() };
    let content = |token: &Map<String, Value>| Some(token.get("content")?.as_str()?.to_owned());
    let added: Added<'_> =
        tokenizer.added_tokens.iter().filter_map(|token| Some((content(token)?, token))).collect();
    let said = Said::by(files);
    let wanted = said.wanted(&tokenizer.model.vocab);
    let missing: Vec<&String> = wanted.iter().filter(|token| !added.contains_key(*token)).collect();
    let otherwise = said.otherwise(&added);
    let mut notes = Vec::new();
    if !missing.is_empty() {
        notes.push(format!(
            "transformers adds {} to the tokens of tokenizer.json, which does not: texts that have such characters become other tokens here",
            listed(&missing)
        ));
    }
    if !otherwise.is_empty() {
        notes.push(format!(
            "transformers finds {} in texts by other rules (lstrip, rstrip, single_word, normalized) than tokenizer.json has: texts that \
             have such characters become other tokens here",
            listed(&otherwise)
        ));
    }
    notes
}

/// The tokens that a `tokenizer.json` adds, by their characters.
type Added<'a> = BTreeMap<String, &'a Map<String, Value>>;

/// What the files beside a `tokenizer.json` say about tokens, as transformers puts it together.
pub(super) struct Said {
    settings: Map<String, Value>,
    /// The keys of `added_tokens.json`, where it counts.
    added: Vec<String>,
    /// The name of the tokenizer's class, less what all end in.
    class: String,
}

impl Said {
    pub(super) fn by(files: TokenizerCompanions<'_>) -> Said {
        let mut settings = object(files.config);
        let class = class_of(&settings, &object(files.model));
        if settings.contains_key("added_tokens_decoder") {
            return Said { settings, added: Vec::new(), class };
        }
        for (key, mut value) in object(files.special) {
            if SEVERAL.contains(&key.as_str())
                && let (Some(Value::Array(before)), Value::Array(all)) = (settings.get(&key), &mut value)
            {
                all.extend(before.iter().cloned());
            }
            settings.insert(key, value);
        }
        let added = object(files.added).into_iter().map(|(token, _)| token).collect();
        Said { settings, added, class }
    }

    /// The name of the tokenizer's class, less what all end in.
    pub(super) fn class(&self) -> &str {
        &self.class
    }

    /// The special token that the setting `name` names, or the `usual` one.
    pub(super) fn token<'a>(&'a self, name: &str, usual: &'a str) -> &'a str {
        let named = self
            .settings
            .get(name)
            .and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
        named.unwrap_or(usual)
    }

    /// All tokens that are to be added, of a tokenizer with a `vocabulary`.
    fn wanted(&self, vocabulary: &Vocabulary) -> BTreeSet<String> {
        let usual = USUAL.iter().find(|(of, _)| of.contains(&self.class.as_str()));
        let usual = usual.map_or(&[][..], |(_, usual)| usual).iter();
        let unsaid = usual.filter(|(key, _)| !self.settings.contains_key(*key));
        // What is in no vocabulary and no file would be a token that no model has seen.
        let unsaid =
            unsaid.map(|(_, token)| (*token).to_owned()).filter(|token| vocabulary.0.contains(token));
        let mut wanted = self.named();
        wanted.extend(self.extra_ids());
        wanted.extend(unsaid);
        wanted
    }

    /// All tokens that are named.
    fn named(&self) -> BTreeSet<String> {
        let of = |name: &&str| self.settings.get(*name);
        let several = SEVERAL.iter().filter_map(of).flat_map(|value| match value {
            Value::Array(all) => all.iter().collect(),
            Value::Object(by_name) => by_name.values().collect(),
            _ => Vec::new(),
        });
        let added = self.settings.get("added_tokens_decoder").and_then(Value::as_object);
        let named =
            SPECIAL.iter().filter_map(of).chain(several).chain(added.into_iter().flat_map(Map::values));
        let content =
            |token: &Value| token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned);
        named
            .filter_map(content)
            .chain(self.added.iter().cloned())
            .filter(|token| !token.is_empty())
            .collect()
    }

    /// The tokens that a T5 has for what is left out of a text, unless it is told how many or which.
    fn extra_ids(&self) -> Vec<String> {
        let named = self.named().iter().any(|token| token.contains("<extra_id_"));
        let count = self.settings.get("extra_ids").and_then(Value::as_u64).unwrap_or(100).min(EXTRA_IDS_MAX);
        match self.class.as_str() {
            "T5" if !named => (0..count).map(|id| format!("<extra_id_{id}>")).collect(),
            _ => Vec::new(),
        }
    }

    /// Tokens that are `added`, and that transformers adds with other rules: those of `added_tokens_decoder`, or of the class.
    fn otherwise<'a>(&self, added: &'a Added<'_>) -> Vec<&'a String> {
        let rules = ["lstrip", "rstrip", "single_word", "normalized"];
        let decoder = self.settings.get("added_tokens_decoder").and_then(Value::as_object);
        let differs = |token: &Value| {
            let (name, own) = added.get_key_value(token.get("content")?.as_str()?)?;
            let other = |rule: &str| matches!((token.get(rule), own.get(rule)), (Some(a), Some(b)) if a != b);
            rules.into_iter().any(other).then_some(name)
        };
        let mut all: Vec<&String> = decoder.into_iter().flat_map(Map::values).filter_map(differs).collect();
        let takes_space =
            MASK_TAKES_SPACE.contains(&self.class.as_str()) && !self.settings.contains_key("mask_token");
        let mask = added.get_key_value("<mask>").filter(|_| takes_space);
        let mask = mask.filter(|(_, own)| own.get("lstrip") == Some(&Value::Bool(false)));
        all.extend(mask.map(|(name, _)| name).filter(|name| !all.contains(name)));
        all
    }
}

/// The name of the class of a tokenizer with these settings, less what all end in, of a model with those.
fn class_of(settings: &Map<String, Value>, model: &Map<String, Value>) -> String {
    let named = |of: &Map<String, Value>| {
        let name = of.get("tokenizer_class")?.as_str()?;
        let name = name.strip_suffix("Fast").unwrap_or(name);
        Some(name.strip_suffix("Tokenizer").unwrap_or(name).to_owned())
    };
    let by_type = || {
        let of = model.get("model_type")?.as_str()?;
        Some(BY_TYPE.iter().find(|(model_type, _)| *model_type == of)?.1.to_owned())
    };
    named(settings).or_else(|| named(model)).or_else(by_type).unwrap_or_default()
}

/// The object in a file; an empty one where there is none.
pub(super) fn object(text: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(text).unwrap_or_default()
}

/// Tokens by name, the first of them where there are many.
fn listed(tokens: &[&String]) -> String {
    let named: Vec<String> = tokens.iter().take(NAMED_MAX).map(|token| format!("{token:?}")).collect();
    match tokens.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `tokenizer.json` with these tokens in its vocabulary, and these added ones.
    fn tokenizer(vocabulary: &str, added: &[&str]) -> String {
        let added: Vec<Value> = added
            .iter()
            .map(|token| {
                serde_json::json!({
                    "id": 0, "content": token, "lstrip": false, "rstrip": false, "single_word": false, "normalized": false,
                    "special": true
                })
            })
            .collect();
        format!(
            r#"{{"added_tokens": {}, "normalizer": null, "model": {{"vocab": {vocabulary}}}}}"#,
            Value::Array(added)
        )
    }

    fn notes_of(model: &str, tokenizer: &str, config: &str, special: &str, added: &str) -> Vec<String> {
        notes(TokenizerCompanions {
            model: model.as_bytes(),
            tokenizer: tokenizer.as_bytes(),
            config: config.as_bytes(),
            special: special.as_bytes(),
            added: added.as_bytes(),
        })
    }

    const BERT: &str = r#"{"model_type": "bert"}"#;
    const WORDS: &str = r#"{"[UNK]": 0, "[SEP]": 1, "good": 2}"#;

    #[test]
    fn tokens_that_files_name_and_tokenizer_json_does_not_add_are_noted() {
        let all = tokenizer(WORDS, &["[UNK]", "[SEP]"]);
        let of = |config: &str, special: &str, added: &str| notes_of(BERT, &all, config, special, added);
        assert_eq!(of("", "", ""), [""; 0]);
        assert_eq!(of(r#"{"sep_token": "[SEP]"}"#, r#"{"unk_token": {"content": "[UNK]"}}"#, "{}"), [""; 0]);
        for (config, special, added) in [
            (r#"{"additional_special_tokens": ["good"]}"#, "", ""),
            (r#"{"cls_token": {"content": "good"}}"#, "", ""),
            (r#"{"added_tokens_decoder": {"2": {"content": "good"}}}"#, "", ""),
            ("{}", r#"{"additional_special_tokens": [{"content": "good"}, "[SEP]"]}"#, ""),
            ("", "", r#"{"good": 2}"#),
        ] {
            let notes = of(config, special, added);
            assert!(
                notes.len() == 1 && notes[0].starts_with("transformers adds \"good\" to the"),
                "{notes:?}"
            );
        }
        // Where this is there, transformers looks at nothing else.
        let decoder = r#"{"added_tokens_decoder": {}}"#;
        assert_eq!(of(decoder, r#"{"cls_token": "good"}"#, r#"{"good": 2}"#), [""; 0]);
    }

    #[test]
    fn usual_tokens_that_are_in_the_vocabulary_are_noted() {
        let none = tokenizer(WORDS, &[]);
        let notes = notes_of(BERT, &none, "", "", "");
        assert!(notes.len() == 1 && notes[0].contains(r#"adds "[SEP]", "[UNK]" to"#), "{notes:?}");
        let base = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
        assert_eq!(notes_of(BERT, &none, base, "", ""), [""; 0]);
        let without = r#"{"sep_token": null, "unk_token": null}"#;
        assert_eq!(notes_of(BERT, &none, without, "", ""), [""; 0]);
        let pieces = tokenizer(r#"[["<pad>", 0.0], ["</s>", -1.5]]"#, &["</s>"]);
        let t5 = r#"{"model_type": "t5"}"#;
        let notes = notes_of(t5, &pieces, r#"{"extra_ids": 7}"#, "", "");
        assert!(notes[0].contains(r#""<extra_id_4>" and 3 more"#), "{notes:?}");
        assert!(notes_of(t5, &pieces, r#"{"extra_ids": 0}"#, "", "")[0].contains(r#"adds "<pad>" to"#));
    }

    #[test]
    fn tokens_with_other_rules_are_noted() {
        let mask = tokenizer(r#"{"<mask>": 0}"#, &["<mask>"]);
        let noted = |model: &str, config: &str| {
            let notes = notes_of(model, &mask, config, "", "");
            notes.iter().filter(|note| note.contains("finds \"<mask>\" in texts by other rules")).count()
        };
        let roberta = r#"{"model_type": "roberta"}"#;
        assert_eq!(noted(roberta, ""), 1);
        assert_eq!(noted(roberta, r#"{"mask_token": "<mask>"}"#), 0);
        assert_eq!(noted(BERT, ""), 0);
        let decoder = |lstrip: bool| {
            format!(r#"{{"added_tokens_decoder": {{"0": {{"content": "<mask>", "lstrip": {lstrip}}}}}}}"#)
        };
        assert_eq!((noted(BERT, &decoder(true)), noted(BERT, &decoder(false))), (1, 0));
        let spaced = mask.replace(r#""lstrip":false"#, r#""lstrip":true"#);
        assert_eq!(notes_of(roberta, &spaced, "", "", ""), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_said_elsewhere() {
        assert_eq!(notes_of(BERT, "{", "[]", "", ""), [""; 0]);
        // Nothing is made of what nobody reads.
        let none = tokenizer(WORDS, &[]);
        assert_eq!(notes_of(BERT, &none, "", "", "").len(), 1);
        let many = none.replacen("[]", &format!("[{}{{}}]", "{},".repeat(1 << 20)), 1);
        let files = TokenizerCompanions {
            model: BERT.as_bytes(),
            tokenizer: many.as_bytes(),
            ..TokenizerCompanions::default()
        };
        assert_eq!(crate::texts::tokenizer_notes(files).unwrap(), [""; 0]);
    }
}
