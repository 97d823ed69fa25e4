//! Parts of a tokenizer that transformers 5 makes anew.
//!
//! transformers 4 goes by `tokenizer.json`, but for some options that whoever judges compares. 5 takes the vocabulary from there, and has the
//! tokenizer's class make the rest, whatever the file says. Where that is something else the two versions make other tokens of one text. A
//! model that was saved by 5 learned from the latter, or from the former under another class: that is refused. Others are judged by what
//! the file says, as 4 does, and it is noted.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::added::{Said, TokenizerCompanions, object};
use crate::error::{Error, Result};

/// What classes make: names of classes less `Tokenizer`, of those that do not take the file as it is.
const MADE: [(&[&str], Made); 4] = [
    (&["Bert", "DistilBert", "Electra", "MobileBert", "SqueezeBert", "LayoutLM", "Lxmert"], Made::Bert),
    (&["Roberta", "Bart", "Longformer"], Made::Roberta),
    (&["T5"], Made::T5),
    (&["CLIP"], Made::Clip),
];

/// The first version that makes parts anew.
const FIRST_VERSION: u32 = 5;
/// What stands for a space in a vocabulary of SentencePiece's.
const SPACE: &str = "\u{2581}";
/// The words that CLIP splits a text into.
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Its special tokens, which are found before: it may also name them there.
const CLIP_SPECIAL: &str = r"<\|startoftext\|>|<\|endoftext\|>|";

#[derive(Clone, Copy)]
enum Made {
    Bert,
    Roberta,
    T5,
    Clip,
}

/// What is needed of a `tokenizer.json`.
#[derive(Deserialize)]
struct Tokenizer {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

/// What is needed of its model, which has the vocabulary besides.
#[derive(Deserialize)]
struct Model {
    /// Early files do not say.
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    unk_id: Option<u64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<u64>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// What people should know of a tokenizer of which transformers 5 makes another one. What cannot be read is
/// said by whoever has to read it.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) where such a version saved the model.
pub(super) fn check(files: TokenizerCompanions<'_>) -> Result<Option<String>> {
    let Ok(tokenizer) = serde_json::from_slice::<Tokenizer>(files.tokenizer) else { return Ok(None) };
    let said = Said::by(files);
    let made = MADE.iter().find(|(names, _)| names.contains(&said.class()));
    let Some((_, made)) = made else { return Ok(None) };
    let others = tokenizer.others(*made, &said);
    if others.is_empty() {
        return Ok(None);
    }
    let (class, parts) = (said.class(), others.join(", "));
    match saved_by(&object(files.model)) {
        Some(version) => Err(Error::data(format!(
            "tokenizer.json has another {parts} than transformers {version}, of which config.json is, makes of a {class}Tokenizer whatever \
             that file says: which of them the model learned from is not known; have {class}Tokenizer save the tokenizer that it makes, or \
             say \"tokenizer_class\": \"PreTrainedTokenizerFast\" in tokenizer_config.json, which takes tokenizer.json as it is"
        ))),
        None => Ok(Some(format!(
            "transformers 5 makes another {parts} of a {class}Tokenizer than tokenizer.json has, and other tokens of some texts; here the \
             file counts, as in transformers 4 (and in 5 with \"tokenizer_class\": \"PreTrainedTokenizerFast\" in tokenizer_config.json)"
        ))),
    }
}

/// The version of transformers that saved a model, if it is one that makes parts anew.
fn saved_by(model: &Map<String, Value>) -> Option<&str> {
    let version = model.get("transformers_version")?.as_str()?;
    let major: u32 = version.split('.').next()?.parse().ok()?;
    (major >= FIRST_VERSION).then_some(version)
}

impl Tokenizer {
    /// The names of the parts that a class makes otherwise.
    fn others(&self, made: Made, said: &Said) -> Vec<&'static str> {
        let parts = [
            ("normalizer", is_normalizer(made, &self.normalizer)),
            ("pre_tokenizer", is_pre_tokenizer(made, &self.pre_tokenizer)),
            ("model", self.model.is(made, said)),
            ("post_processor", is_post_processor(made, &self.post_processor, said)),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

impl Model {
    fn is(&self, made: Made, said: &Said) -> bool {
        let kind = |name: &str| self.kind.as_deref().is_none_or(|kind| kind == name);
        let empty = |affix: &Option<String>| affix.as_deref().is_none_or(str::is_empty);
        let unknown = |usual: &str| self.unk_token.as_deref() == Some(said.token("unk_token", usual));
        let bpe = kind("BPE")
            && empty(&self.continuing_subword_prefix)
            && !(self.fuse_unk || self.byte_fallback || self.ignore_merges);
        match made {
            Made::Bert => {
                kind("WordPiece")
                    && unknown("[UNK]")
                    && self.continuing_subword_prefix.as_deref() == Some("##")
                    && self.max_input_chars_per_word == Some(100)
            }
            Made::Roberta => bpe && empty(&self.end_of_word_suffix) && self.unk_token.is_none(),
            Made::Clip => {
                bpe && self.end_of_word_suffix.as_deref() == Some("</w>") && unknown("<|endoftext|>")
            }
            Made::T5 => kind("Unigram") && self.unk_id == Some(2) && !self.byte_fallback,
        }
    }
}

fn is_normalizer(made: Made, is: &Value) -> bool {
    match made {
        // Its other options are compared with the settings that they have.
        Made::Bert => is["type"] == "BertNormalizer" && is["clean_text"] == true,
        Made::Roberta => is.is_null(),
        Made::T5 => {
            let one = match is["normalizers"].as_array().map(Vec::as_slice) {
                Some([one]) => one,
                _ => is,
            };
            is.is_null() || one["type"] == "Precompiled"
        }
        Made::Clip => {
            let Some([form, spaces, case]) = is["normalizers"].as_array().map(Vec::as_slice) else {
                return false;
            };
            form["type"] == "NFC"
                && spaces["pattern"]["Regex"] == r"\s+"
                && spaces["content"] == " "
                && case["type"] == "Lowercase"
        }
    }
}

fn is_pre_tokenizer(made: Made, is: &Value) -> bool {
    let bytes = |is: &Value| is["type"] == "ByteLevel" && is["use_regex"] != false;
    let two = match is["pretokenizers"].as_array().map(Vec::as_slice) {
        Some([first, second]) => Some((first, second)),
        _ => None,
    };
    match (made, two) {
        (Made::Bert, _) => is["type"] == "BertPreTokenizer",
        // Whether it puts a space before a text is compared with the setting.
        (Made::Roberta, _) => bytes(is),
        (Made::T5, Some((words, spaces))) => {
            let always = match &spaces["prepend_scheme"] {
                Value::Null => spaces["add_prefix_space"] != false,
                scheme => scheme == "always",
            };
            words["type"] == "WhitespaceSplit"
                && spaces["type"] == "Metaspace"
                && spaces["replacement"] == SPACE
                && spaces["split"] != false
                && always
        }
        (Made::Clip, Some((words, letters))) => {
            let pattern = words["pattern"]["Regex"].as_str().unwrap_or_default();
            let pattern = pattern.strip_prefix(CLIP_SPECIAL).unwrap_or(pattern);
            words["type"] == "Split"
                && pattern == CLIP_WORDS
                && words["invert"] == true
                && words["behavior"] == "Removed"
                && bytes(letters)
                && letters["add_prefix_space"] == false
        }
        (Made::T5 | Made::Clip, None) => false,
    }
}

/// Texts and special tokens in their order, each with its type.
type Pieces<'a> = Vec<(&'a str, u64)>;

fn is_post_processor(made: Made, is: &Value, said: &Said) -> bool {
    let (first, last) = match made {
        Made::Bert => (Some(said.token("cls_token", "[CLS]")), said.token("sep_token", "[SEP]")),
        Made::Roberta => (Some(said.token("cls_token", "<s>")), said.token("sep_token", "</s>")),
        Made::Clip => {
            (Some(said.token("bos_token", "<|startoftext|>")), said.token("eos_token", "<|endoftext|>"))
        }
        Made::T5 => (None, said.token("eos_token", "</s>")),
    };
    let twice = [last, last];
    let between = match made {
        Made::Roberta => &twice[..],
        Made::Bert | Made::T5 | Made::Clip => &twice[..1],
    };
    // Prompts come one by one.
    let forms: &[bool] = if matches!(made, Made::Clip) { &[false] } else { &[false, true] };
    forms.iter().all(|&pair| {
        let second = u64::from(matches!(made, Made::Bert));
        let mut want: Pieces<'_> = first.into_iter().chain(["A"]).map(|piece| (piece, 0)).collect();
        if pair {
            want.extend(between.iter().map(|piece| (*piece, 0)));
            want.extend([("B", second), (last, second)]);
        } else {
            want.push((last, 0));
        }
        pieces(is, pair).is_some_and(|is| is == want)
    })
}

/// What a post-processor makes of a text, or of a pair of them; `None` where that is not known.
fn pieces(of: &Value, pair: bool) -> Option<Pieces<'_>> {
    let named = |key: &str| of[key][0].as_str();
    match of["type"].as_str()? {
        "TemplateProcessing" => {
            let template = of[if pair { "pair" } else { "single" }].as_array()?;
            template.iter().map(|piece| piece_of_template(piece, &of["special_tokens"])).collect()
        }
        kind @ ("BertProcessing" | "RobertaProcessing") => {
            let (cls, sep) = (named("cls")?, named("sep")?);
            let one = vec![(cls, 0), ("A", 0), (sep, 0)];
            let second = match kind {
                "BertProcessing" => vec![("B", 1), (sep, 1)],
                _ => vec![(sep, 0), ("B", 0), (sep, 0)],
            };
            Some(if pair { [one, second].concat() } else { one })
        }
        _ => None,
    }
}

/// A text or a special token; `None` for one that is several, or has another name, which no class makes.
fn piece_of_template<'a>(piece: &'a Value, special_tokens: &Value) -> Option<(&'a str, u64)> {
    let (_, piece) = piece.as_object()?.iter().next()?;
    let (id, type_id) = (piece["id"].as_str()?, piece["type_id"].as_u64()?);
    let tokens = special_tokens[id]["tokens"].as_array();
    tokens.is_none_or(|tokens| matches!(&tokens[..], [one] if one == id)).then_some((id, type_id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bert() -> Value {
        json!({
            "normalizer": { "type": "BertNormalizer", "clean_text": true, "lowercase": false },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": { "[UNK]": 0 }
            }
        })
    }

    fn byte_level() -> Value {
        json!({
            "normalizer": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
            "post_processor": { "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0] },
            "model": { "type": "BPE", "unk_token": null, "vocab": {}, "merges": [], "continuing_subword_prefix": "" }
        })
    }

    fn special(id: &str, of: u64) -> Value {
        json!({ "SpecialToken": { "id": id, "type_id": of } })
    }

    fn sequence(id: &str, of: u64) -> Value {
        json!({ "Sequence": { "id": id, "type_id": of } })
    }

    fn t5() -> Value {
        let (a, b, end) = (sequence("A", 0), sequence("B", 0), special("</s>", 0));
        json!({
            "normalizer": { "type": "Precompiled", "precompiled_charsmap": "" },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "WhitespaceSplit" },
                { "type": "Metaspace", "replacement": "\u{2581}", "add_prefix_space": true }
            ] },
            "post_processor": {
                "type": "TemplateProcessing", "single": [a, end], "pair": [a, end, b, end],
                "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } }
            },
            "model": { "type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0.0]] }
        })
    }

    fn clip() -> Value {
        json!({
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "NFC" }, { "type": "Replace", "pattern": { "Regex": "\\s+" }, "content": " " }, { "type": "Lowercase" }
            ] },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": CLIP_WORDS }, "behavior": "Removed", "invert": true },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true }
            ] },
            "post_processor": {
                "type": "RobertaProcessing", "sep": ["<|endoftext|>", 1], "cls": ["<|startoftext|>", 0]
            },
            "model": {
                "type": "BPE", "unk_token": "<|endoftext|>", "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "vocab": {},
                "merges": []
            }
        })
    }

    /// The note, or the error, of a model with such a tokenizer.
    fn found(
        model: &Value,
        tokenizer: &Value,
        config: &Value,
    ) -> std::result::Result<Option<String>, String> {
        let [model, tokenizer, config] = [model, tokenizer, config].map(Value::to_string);
        let files = TokenizerCompanions {
            model: model.as_bytes(),
            tokenizer: tokenizer.as_bytes(),
            config: config.as_bytes(),
            ..TokenizerCompanions::default()
        };
        check(files).map_err(|e| e.chain())
    }

    fn note(model_type: &str, tokenizer: &Value) -> String {
        found(&json!({ "model_type": model_type }), tokenizer, &json!({})).unwrap().unwrap_or_default()
    }

    #[test]
    fn what_the_class_would_make_is_no_news() {
        let templates = json!({
            "type": "TemplateProcessing", "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [
                special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1), special("[SEP]", 1)
            ]
        });
        let mut with_templates = bert();
        with_templates["post_processor"] = templates;
        let mut named = clip();
        named["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
            format!("{CLIP_SPECIAL}{CLIP_WORDS}").into();
        for (model_type, tokenizer) in [
            ("bert", bert()),
            ("bert", with_templates),
            ("distilbert", bert()),
            ("roberta", byte_level()),
            ("t5", t5()),
            ("clip", clip()),
            ("clip", named),
        ] {
            assert_eq!(note(model_type, &tokenizer), "", "{model_type}: {tokenizer}");
        }
        // Others take the file as it is, or nothing is known of them.
        for class in ["PreTrainedTokenizerFast", "TokenizersBackend", "MyTokenizer"] {
            let config = json!({ "tokenizer_class": class });
            assert_eq!(found(&json!({ "model_type": "bert" }), &byte_level(), &config), Ok(None), "{class}");
        }
        assert_eq!(found(&json!({}), &json!({}), &json!({})), Ok(None));
    }

    #[test]
    fn what_it_would_make_otherwise_is_noted_by_name() {
        let changed = |mut tokenizer: Value, at: &str, to: Value| {
            *tokenizer.pointer_mut(at).unwrap() = to;
            tokenizer
        };
        for (model_type, tokenizer, at, to, part) in [
            ("bert", bert(), "/normalizer", json!({ "type": "Lowercase" }), "normalizer"),
            ("bert", bert(), "/normalizer/clean_text", json!(false), "normalizer"),
            ("bert", bert(), "/pre_tokenizer/type", json!("Whitespace"), "pre_tokenizer"),
            ("bert", bert(), "/model/max_input_chars_per_word", json!(50), "model"),
            ("bert", bert(), "/model/unk_token", json!("<unk>"), "model"),
            ("bert", bert(), "/post_processor/type", json!("RobertaProcessing"), "post_processor"),
            ("bert", bert(), "/post_processor", json!(null), "post_processor"),
            ("roberta", byte_level(), "/normalizer", json!({ "type": "NFC" }), "normalizer"),
            ("roberta", byte_level(), "/post_processor/type", json!("BertProcessing"), "post_processor"),
            ("roberta", byte_level(), "/model/unk_token", json!("<unk>"), "model"),
            ("t5", t5(), "/normalizer/type", json!("NFKC"), "normalizer"),
            ("t5", t5(), "/pre_tokenizer/pretokenizers/1/add_prefix_space", json!(false), "pre_tokenizer"),
            ("t5", t5(), "/pre_tokenizer/pretokenizers/0/type", json!("Whitespace"), "pre_tokenizer"),
            ("t5", t5(), "/model/unk_id", json!(0), "model"),
            ("t5", t5(), "/post_processor/pair/1", sequence("B", 0), "post_processor"),
            ("clip", clip(), "/normalizer/normalizers/2/type", json!("NFD"), "normalizer"),
            ("clip", clip(), "/pre_tokenizer/pretokenizers/0/invert", json!(false), "pre_tokenizer"),
            ("clip", clip(), "/model/end_of_word_suffix", json!(null), "model"),
        ] {
            let note = note(model_type, &changed(tokenizer, at, to));
            assert!(
                note.starts_with(&format!("transformers 5 makes another {part} of a ")),
                "{at} of {model_type}: {note}"
            );
        }
        let both =
            changed(changed(bert(), "/normalizer", json!(null)), "/pre_tokenizer/type", json!("Whitespace"));
        assert!(note("bert", &both).contains("another normalizer, pre_tokenizer of a BertTokenizer"));
        // Special tokens are those that are named.
        let config = json!({ "cls_token": { "content": "[C]" }, "tokenizer_class": "BertTokenizerFast" });
        let note = found(&json!({}), &bert(), &config).unwrap().unwrap();
        assert!(note.contains("another post_processor"), "{note}");
    }

    #[test]
    fn models_that_learned_under_such_a_version_are_refused() {
        let of = |version: &str| {
            let mut tokenizer = bert();
            tokenizer["normalizer"] = json!(null);
            found(&json!({ "model_type": "bert", "transformers_version": version }), &tokenizer, &json!({}))
        };
        for version in ["4.57.6", "?", ""] {
            assert!(of(version).unwrap().is_some(), "{version}");
        }
        let error = of("5.24.0").unwrap_err();
        assert!(
            error.starts_with("tokenizer.json has another normalizer than transformers 5.24.0"),
            "{error}"
        );
        assert!(of("10.0.0.dev0").is_err());
    }
}
