//! `tokenizer_config.json`: what of it is about tokens, and whether `tokenizer.json` says the same.

use serde_json::{Map, Value};
use soup_core::{Error, Result};
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{Tokenizer, TruncationParams};

use super::Takes;
use super::class::{Class, Sets};

/// Settings that name a token, or several.
const TOKENS: [&str; 9] = [
    "unk_token",
    "cls_token",
    "sep_token",
    "pad_token",
    "mask_token",
    "bos_token",
    "eos_token",
    "additional_special_tokens",
    "extra_special_tokens",
];
/// Which types of tokens a model is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Types {
    /// Those that the tokenizer gives.
    Given,
    /// None: all are of type 0.
    None,
    /// That is not known, of a class that is described.
    Unknown(String),
}

impl Types {
    /// Of tokens to which the tokenizer gives the types `given`.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not known, or a type is none.
    pub(super) fn of(&self, given: &[u32]) -> Result<Vec<u8>> {
        match self {
            Types::None => Ok(vec![0; given.len()]),
            Types::Unknown(class) if given.iter().any(|&of| of != 0) => Err(Error::data(format!(
                "of {class} it is not known whether the model is told the types of tokens, or transformers 4 tells it and 5 does not: \
                 name token_type_ids in model_input_names in tokenizer_config.json, or the other inputs without it"
            ))),
            Types::Given | Types::Unknown(_) => given
                .iter()
                .map(|&of| {
                    u8::try_from(of)
                        .map_err(|_| Error::data(format!("a token of type {of}, expected 0 to 255")))
                })
                .collect(),
        }
    }
}

/// What a `tokenizer_config.json` says; by default nothing.
#[derive(Default)]
pub(super) struct Settings {
    all: Map<String, Value>,
    /// Most tokens of a text, and what says so.
    pub(super) longest: Option<(usize, &'static str)>,
}

fn wrong(text: impl std::fmt::Display) -> Error {
    Error::data(format!("tokenizer_config.json: {text}"))
}

impl Settings {
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is no JSON object, or a setting has a value that is not understood.
    pub(super) fn read(text: Option<&str>) -> Result<Settings> {
        let Some(text) = text else { return Ok(Settings::default()) };
        let all: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| wrong("not understood").with_source(e))?;
        let longest = longest(&all)?;
        for (name, usual) in [("split_special_tokens", false), ("do_basic_tokenize", true)] {
            match all.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Bool(value)) if *value == usual => {}
                Some(other) => return Err(wrong(format!("{name} is {other}: only {usual} is supported"))),
            }
        }
        Ok(Settings { all, longest })
    }

    /// The class that transformers makes of the tokenizer of a model.
    pub(super) fn class(&self, model_json: &str, takes: Takes) -> Class {
        Class::of(&self.all, model_json, takes.class)
    }

    /// Checks that `tokenizer` does what is said here, and what its class does where it is not said.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data), naming the setting and both values.
    pub(super) fn check(&self, tokenizer: &Tokenizer, class: &Class) -> Result<()> {
        let json = |of: std::result::Result<Value, serde_json::Error>| {
            of.map_err(|e| Error::data("tokenizer.json is not understood").with_source(e))
        };
        let normalizer = match tokenizer.get_normalizer() {
            Some(normalizer) => json(serde_json::to_value(normalizer))?,
            None => Value::Null,
        };
        let pre_tokenizer = match tokenizer.get_pre_tokenizer() {
            Some(pre_tokenizer) => json(serde_json::to_value(pre_tokenizer))?,
            None => Value::Null,
        };
        let bert = part(&normalizer, "BertNormalizer");
        let lowercases = bert.map_or_else(
            || Value::Bool(part(&normalizer, "Lowercase").is_some()),
            |bert| bert["lowercase"].clone(),
        );
        self.same("do_lower_case", &lowercases)?;
        if let Some(bert) = bert {
            self.same("tokenize_chinese_chars", &bert["handle_chinese_chars"])?;
            self.same("strip_accents", &bert["strip_accents"])?;
        }
        if let Some(bytes) = part(&pre_tokenizer, "ByteLevel") {
            self.same("add_prefix_space", &bytes["add_prefix_space"])?;
        }
        self.check_unsaid(&normalizer, &pre_tokenizer, class)?;
        self.check_tokens(tokenizer)
    }

    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the setting `name` is said to be another than `is`.
    fn same(&self, name: &str, is: &Value) -> Result<()> {
        match self.all.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(said) if said == is => Ok(()),
            Some(said) => Err(wrong(format!("{name} is {said}, and tokenizer.json beside it does {is}"))),
        }
    }

    /// Where nothing is said, transformers has what the class sets, and not what `tokenizer.json` says: of parts that are no sequence of
    /// several.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the two are not the same.
    fn check_unsaid(&self, normalizer: &Value, pre_tokenizer: &Value, class: &Class) -> Result<()> {
        let parts = [
            (normalizer, "BertNormalizer", "lowercase", "do_lower_case", Sets::LowerCase),
            (normalizer, "BertNormalizer", "strip_accents", "strip_accents", Sets::Accents),
            (normalizer, "BertNormalizer", "handle_chinese_chars", "tokenize_chinese_chars", Sets::Chinese),
            (pre_tokenizer, "ByteLevel", "add_prefix_space", "add_prefix_space", Sets::Space),
        ];
        for (part, kind, field, name, sets) in parts {
            // With null, transformers leaves the space as it is.
            let said = match self.all.get(name) {
                None => false,
                Some(Value::Null) => matches!(sets, Sets::Space),
                Some(_) => true,
            };
            if said || part["type"] != kind {
                continue;
            }
            if let Some(instead) = class.instead(sets, &part[field]) {
                return Err(Error::data(format!(
                    "tokenizer.json has {field} {is}, and transformers takes {instead} unless it is told otherwise: {class}; say it with \
                     {name} {is} in tokenizer_config.json, or change tokenizer.json",
                    is = part[field],
                    class = class.described()
                )));
            }
        }
        Ok(())
    }

    /// Every token that is named has to be one.
    fn check_tokens(&self, tokenizer: &Tokenizer) -> Result<()> {
        let unknown = |name: &str, token: &str| {
            wrong(format!(
                "{name} has the token {token:?}, which tokenizer.json beside it has not, or with another id"
            ))
        };
        for name in TOKENS {
            let Some(value) = self.all.get(name) else { continue };
            let several: Vec<&Value> = match value {
                Value::Array(several) => several.iter().collect(),
                Value::Object(by_name) if !by_name.contains_key("content") => by_name.values().collect(),
                one => vec![one],
            };
            for token in several.into_iter().filter_map(content) {
                tokenizer.token_to_id(token).ok_or_else(|| unknown(name, token))?;
            }
        }
        let added = self.all.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in added.into_iter().flatten() {
            let token = content(token).unwrap_or_default();
            if tokenizer.token_to_id(token).map(|known| known.to_string()).as_deref() != Some(id) {
                return Err(unknown("added_tokens_decoder", token));
            }
        }
        Ok(())
    }

    /// From which end texts are cut.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is not understood, or both files say something else.
    pub(super) fn direction(&self, own: Option<&TruncationParams>) -> Result<TruncationDirection> {
        let said = match self.all.get("truncation_side") {
            None | Some(Value::Null) => return Ok(own.map_or(TruncationDirection::Right, |t| t.direction)),
            Some(Value::String(side)) if side == "right" => TruncationDirection::Right,
            Some(Value::String(side)) if side == "left" => TruncationDirection::Left,
            Some(other) => {
                return Err(wrong(format!("truncation_side is {other}, expected \"left\" or \"right\"")));
            }
        };
        match own {
            Some(own) if own.direction.as_ref() != said.as_ref() => {
                let own = own.direction.as_ref();
                Err(wrong(format!(
                    "truncation_side is {}, and tokenizer.json beside it cuts {own}",
                    said.as_ref()
                )))
            }
            _ => Ok(said),
        }
    }

    /// Which types of tokens a model that takes such texts is told.
    pub(super) fn types(&self, takes: Takes, class: &Class) -> Types {
        if !takes.types {
            return Types::None;
        }
        let told = match self.all.get("model_input_names") {
            Some(Value::Array(names)) => Some(names.iter().any(|name| name == "token_type_ids")),
            _ => class.types(),
        };
        match told {
            Some(true) => Types::Given,
            Some(false) => Types::None,
            None => Types::Unknown(class.described()),
        }
    }
}

/// Most tokens of a text, and what says so: by the older name only where the other is not there, as transformers reads them.
fn longest(all: &Map<String, Value>) -> Result<Option<(usize, &'static str)>> {
    let names = [
        ("model_max_length", "model_max_length in tokenizer_config.json"),
        ("max_len", "max_len in tokenizer_config.json"),
    ];
    let said = names.iter().find_map(|&(name, place)| Some((name, place, all.get(name)?)));
    match said {
        None | Some((.., Value::Null)) => Ok(None),
        Some((name, place, value)) => match value.as_f64() {
            // What is not known is said to be as long as can be.
            Some(tokens) if tokens >= 1.0 => Ok(Some((tokens.min(usize::MAX as f64) as usize, place))),
            _ => Err(wrong(format!("{name} is {value}, expected a number of tokens"))),
        },
    }
}

/// The part of type `name` in the description of a normalizer or a pre-tokenizer, which may be a sequence of several.
fn part<'a>(of: &'a Value, name: &str) -> Option<&'a Value> {
    if of["type"] == name {
        return Some(of);
    }
    let several = ["normalizers", "pretokenizers"].iter().find_map(|key| of[key].as_array());
    several?.iter().find_map(|one| part(one, name))
}

/// The text of a token.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content").and_then(Value::as_str))
}
