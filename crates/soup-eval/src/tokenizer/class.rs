//! The class that transformers makes of a tokenizer, and what that class goes by where no file says it.
//!
//! It is the one that `tokenizer_config.json` names, else the one that `config.json` names, else that of the model's type. What a class
//! sets unless it is told otherwise counts in transformers, whatever `tokenizer.json` says.

use serde_json::{Map, Value};

/// What a class does with the fields of a `BertNormalizer`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Normalizes {
    /// They stay.
    AsItIs,
    /// Sets those about case and accents.
    Letters,
    /// Sets those and the one about Chinese characters.
    All,
}

/// What is known of a class.
struct Known {
    /// Its name less `Fast`.
    name: &'static str,
    /// Whether it tells a model which of a pair's texts a token is of; `None` where transformers 4 does and 5 does not.
    types: Option<bool>,
    normalizes: Normalizes,
    /// Whether it has `ByteLevel` put no space before a text.
    no_space: bool,
}

const fn known(name: &'static str, types: bool, normalizes: Normalizes) -> Known {
    Known { name, types: Some(types), normalizes, no_space: true }
}

/// As transformers 4.57 and 5.24 have them.
const KNOWN: [Known; 20] = [
    known("BertTokenizer", true, Normalizes::All),
    known("ElectraTokenizer", true, Normalizes::All),
    known("MobileBertTokenizer", true, Normalizes::All),
    known("SqueezeBertTokenizer", true, Normalizes::All),
    known("ConvBertTokenizer", true, Normalizes::All),
    known("LayoutLMTokenizer", true, Normalizes::All),
    known("LxmertTokenizer", true, Normalizes::All),
    Known { types: None, ..known("FunnelTokenizer", true, Normalizes::All) },
    known("DistilBertTokenizer", false, Normalizes::All),
    known("MPNetTokenizer", false, Normalizes::Letters),
    known("RobertaTokenizer", false, Normalizes::AsItIs),
    known("BartTokenizer", false, Normalizes::AsItIs),
    known("LongformerTokenizer", false, Normalizes::AsItIs),
    known("XLMRobertaTokenizer", false, Normalizes::AsItIs),
    known("DebertaTokenizer", true, Normalizes::AsItIs),
    known("GPT2Tokenizer", false, Normalizes::AsItIs),
    known("CLIPTokenizer", false, Normalizes::AsItIs),
    Known { no_space: false, ..known("T5Tokenizer", false, Normalizes::AsItIs) },
    Known { types: None, ..known("PreTrainedTokenizer", true, Normalizes::AsItIs) },
    // What 5 calls the one before, and leaves the space of as it is.
    Known { no_space: false, ..known("TokenizersBackend", false, Normalizes::AsItIs) },
];

/// A setting of a tokenizer that a class sets.
#[derive(Clone, Copy)]
pub(super) enum Sets {
    /// `do_lower_case`.
    LowerCase,
    /// `strip_accents`.
    Accents,
    /// `tokenize_chinese_chars`.
    Chinese,
    /// `add_prefix_space`.
    Space,
}

impl Sets {
    /// What the classes that set it set it to unless they are told otherwise.
    fn usual(self) -> Value {
        match self {
            Sets::LowerCase | Sets::Chinese => Value::Bool(true),
            Sets::Accents => Value::Null,
            Sets::Space => Value::Bool(false),
        }
    }
}

/// See the module.
pub(super) struct Class {
    name: String,
    /// What says so.
    from: &'static str,
}

impl Class {
    /// Of a tokenizer with a `tokenizer_config.json`, and a model with a `config.json`; `own` is that of the model's type.
    pub(super) fn of(tokenizer_config: &Map<String, Value>, model_json: &str, own: &str) -> Class {
        let named = |config: &Map<String, Value>| {
            config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned)
        };
        if let Some(name) = named(tokenizer_config) {
            return Class { name, from: "tokenizer_config.json" };
        }
        let model: Map<String, Value> = serde_json::from_str(model_json).unwrap_or_default();
        match named(&model) {
            Some(name) => Class { name, from: "config.json" },
            None => Class { name: own.to_owned(), from: "the model's type" },
        }
    }

    fn known(&self) -> Option<&'static Known> {
        let stem = self.name.strip_suffix("Fast").unwrap_or(&self.name);
        KNOWN.iter().find(|known| known.name == stem)
    }

    /// Its name, and what says so.
    pub(super) fn described(&self) -> String {
        format!("tokenizer class {:?} (of {})", self.name, self.from)
    }

    /// Whether a model is told the types of tokens; `None` where that is not known, or versions of transformers do not agree.
    pub(super) fn types(&self) -> Option<bool> {
        self.known().and_then(|known| known.types)
    }

    /// What transformers sets where nothing tells it what, and `tokenizer.json` says what `is`: nothing where that stays as it is.
    pub(super) fn instead(&self, sets: Sets, is: &Value) -> Option<Value> {
        let does = self.known().is_none_or(|known| match sets {
            Sets::LowerCase | Sets::Accents => known.normalizes != Normalizes::AsItIs,
            Sets::Chinese => known.normalizes == Normalizes::All,
            Sets::Space => known.no_space,
        });
        // Of a class that is not known, too: it may be any.
        Some(sets.usual()).filter(|usual| does && usual != is)
    }
}
