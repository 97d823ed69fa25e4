//! Texts become tokens, by the `tokenizer.json` beside a model.
//!
//! What that file says is done by the library that it is of. `tokenizer_config.json` beside it is what transformers goes by besides:
//! where it says something else about tokens, one of the two would have to be believed, and the pair is refused by the setting's name.
//! So is a pair where transformers has something else by the class that it makes of them.
//! A text is never padded. It is cut where the model has no positions for it, or where either file says so; those are counted.

mod class;
mod growth;
mod maps;
mod settings;

use std::panic::{AssertUnwindSafe, catch_unwind};

use soup_core::texts::weight::Weight;
use soup_core::{Error, Result};
use tokenizers::{ModelWrapper, PostProcessor as _, Tokenizer, TruncationParams};

use self::settings::{Settings, Types};
use crate::budget::Budget;

/// Largest `tokenizer.json`, in bytes: that of the largest vocabularies is a third of it.
pub const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Longest text, in bytes: what tokens beyond those that a model takes is read for nothing.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// The same of what `tokenizer.json` may make of a text before it is cut.
const GROWN_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX;
/// What the library holds at most, in bytes, while it makes tokens of a byte: where each of its letters came from, and that of each token. It was
/// 150 to 650 of letters, words and signs.
const HELD_BYTES_A_BYTE: u64 = 768;
/// Texts up to this length are not counted: they take little, and are most.
const COUNTED_FROM_BYTES: usize = 16 << 10;

/// What a tokenizer is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// The `tokenizer.json`.
    pub tokenizer_json: bytes::Bytes,
    /// Text of the `tokenizer_config.json` beside it, where there is one.
    pub config_json: Option<String>,
}

impl std::fmt::Debug for TokenizerFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenizerFiles({} bytes)", self.tokenizer_json.len())
    }
}

/// What a model takes of texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takes {
    /// Most tokens of a text.
    pub(crate) longest: usize,
    /// Whether tokens have types.
    pub(crate) types: bool,
    /// The class that transformers makes of its tokenizer where no file names one.
    pub(crate) class: &'static str,
}

/// See the module.
pub(crate) struct TextTokenizer {
    inner: Tokenizer,
    types: Types,
    /// How many times as long as a text what becomes of it may be, before it is cut.
    growth: usize,
    limit: usize,
    /// What says that `limit`.
    limited_by: &'static str,
}

/// A text, or a pair of texts, as tokens.
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    pub(crate) types: Vec<u8>,
    /// Whether some of it was cut.
    pub(crate) cut: bool,
}

impl TextTokenizer {
    /// Of a model with the `config.json` that is given. Blocks until `budget` has what reading the file takes.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where a file cannot be read, the two contradict each other or what transformers makes of them,
    /// nothing would be left of a text, or `budget` never has what reading takes.
    pub(crate) fn open(
        files: &TokenizerFiles,
        model_json: &str,
        takes: Takes,
        budget: &Budget,
    ) -> Result<TextTokenizer> {
        let settings = Settings::read(files.config_json.as_deref())?;
        let class = settings.class(model_json, takes);
        let weight = Weight::of(&files.tokenizer_json)?;
        let of_maps = maps::growth(&files.tokenizer_json)?;
        let of_added = growth::of_added(&files.tokenizer_json, of_maps)?;
        let _claim = budget.tokenizer(weight.bytes(of_added)?)?;
        let load = || Tokenizer::from_bytes(&files.tokenizer_json);
        let mut inner = caught(load)
            .and_then(|loaded| loaded.map_err(|e| e.to_string()))
            .map_err(|why| Error::data(format!("tokenizer.json is not understood: {why}")))?;
        check_repeatable(inner.get_model())?;
        let growth = growth::of(&inner, of_maps)?;
        settings.check(&inner, &class)?;
        let own = inner.get_truncation().cloned();
        let limits = [
            (takes.longest, "what the model has positions for"),
            (own.as_ref().map_or(usize::MAX, |t| t.max_length), "truncation in tokenizer.json"),
            settings.longest.unwrap_or((usize::MAX, "tokenizer_config.json")),
        ];
        let (limit, limited_by) = limits.into_iter().min_by_key(|(limit, _)| *limit).unwrap_or(limits[0]);
        let added = inner.get_post_processor().map_or(0, |p| p.added_tokens(false).max(p.added_tokens(true)));
        if limit <= added {
            return Err(Error::data(format!(
                "texts are cut to {limit} tokens ({limited_by}), and {added} are added to each: nothing would be left"
            )));
        }
        let truncation = TruncationParams {
            max_length: limit,
            stride: 0,
            direction: settings.direction(own.as_ref())?,
            strategy: own.map(|t| t.strategy).unwrap_or_default(),
        };
        inner.with_padding(None);
        inner
            .with_truncation(Some(truncation))
            .map_err(|e| Error::data(format!("tokenizer.json cannot cut texts to {limit} tokens: {e}")))?;
        let types = settings.types(takes, &class);
        Ok(TextTokenizer { inner, types, growth, limit, limited_by })
    }

    /// What it cuts texts to, and what says so: `to 512 tokens (...)`.
    pub(crate) fn limit(&self) -> String {
        format!("to {} tokens ({})", self.limit, self.limited_by)
    }

    /// Makes tokens of a text that may be long. Blocks until `budget` has what that takes.
    ///
    /// # Errors
    /// Those of [`encode`](TextTokenizer::encode), and [`Data`](soup_core::ErrorKind::Data) where `budget` never has that.
    pub(crate) fn encode_within(
        &self,
        first: &str,
        second: Option<&str>,
        budget: &Budget,
    ) -> Result<Encoded> {
        let bytes = first.len().saturating_add(second.map_or(0, str::len));
        let claim = || {
            let held = (bytes as u64).saturating_mul(HELD_BYTES_A_BYTE);
            budget.text(|| format!("a text of {bytes} bytes"), held)
        };
        let _claim = (COUNTED_FROM_BYTES..=TEXT_BYTES_MAX).contains(&bytes).then(claim).transpose()?;
        self.encode(first, second)
    }

    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it cannot be done, or there is nothing left.
    pub(crate) fn encode(&self, first: &str, second: Option<&str>) -> Result<Encoded> {
        let bytes = first.len().saturating_add(second.map_or(0, str::len));
        if bytes > TEXT_BYTES_MAX {
            let max = TEXT_BYTES_MAX >> 20;
            return Err(Error::data(format!("a text of {bytes} bytes, expected at most {max} MiB")));
        }
        if bytes.saturating_mul(self.growth) > GROWN_BYTES_MAX {
            return Err(Error::data(format!(
                "a text of {bytes} bytes, of which the normalizers and pre-tokenizers in tokenizer.json may make {} times as many, \
                 expected at most {} MiB of those",
                self.growth,
                GROWN_BYTES_MAX >> 20
            )));
        }
        let encode = || match second {
            None => self.inner.encode_fast(first, true),
            Some(second) => self.inner.encode_fast((first, second), true),
        };
        let encoding = caught(encode)
            .and_then(|encoded| encoded.map_err(|e| e.to_string()))
            .map_err(|why| Error::data(format!("the text cannot be made tokens: {why}")))?;
        if encoding.is_empty() {
            return Err(Error::data("the text has no tokens"));
        }
        let types = self.types.of(encoding.get_type_ids())?;
        Ok(Encoded { cut: !encoding.get_overflowing().is_empty(), ids: encoding.get_ids().to_vec(), types })
    }
}

/// Refuses a model that makes other tokens of the same text every time.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) naming the setting.
fn check_repeatable(model: &ModelWrapper) -> Result<()> {
    match model {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|dropout| dropout != 0.0) => {
            Err(Error::data(format!(
                "tokenizer.json has a dropout of {} in its model, which makes other tokens of a text every time, so that no score is the \
                 same twice: set it to null",
                bpe.dropout.unwrap_or_default()
            )))
        }
        _ => Ok(()),
    }
}

/// What `work` gives; why, where the library trips over what it is given.
fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        format!("its reader stumbles: {}", text.unwrap_or("it does not say why"))
    })
}

#[cfg(test)]
mod tests;
