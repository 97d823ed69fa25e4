//! How samples become what a model takes, by what a run's coordinator says of it; and the tokenizer, which is read for that.

use soup_core::journal::sha256_hex;
use soup_core::texts::{PinnedFile, PromptProcessing, TextProcessing, is_of_prompts, is_of_texts};
use soup_core::{Error, Result};
use soup_eval::{EvaluatorSpec, Prompts, TOKENIZER_BYTES_MAX, TokenizerFiles};
use soup_store::location::Location;
use soup_store::read;

use super::Setting;
use crate::compute::Waiting;

/// How samples become what the model takes, as a run's coordinator says.
enum Processing {
    /// Text of `preprocessor_config.json`.
    Images(String),
    Texts(TextProcessing),
    Prompts(PromptProcessing),
}

impl Processing {
    /// What `json` says of the model of `model_json`; none where it says nothing.
    fn of(model_json: &str, json: &str) -> Result<Option<Processing>> {
        if json.is_empty() {
            return Ok(None);
        }
        let of = match () {
            () if is_of_texts(model_json) => Processing::Texts(TextProcessing::parse(json)?),
            () if is_of_prompts(model_json) => Processing::Prompts(PromptProcessing::parse(json)?),
            () => Processing::Images(json.to_owned()),
        };
        Ok(Some(of))
    }
}

/// Where the tokenizer is that this judge would read; none where it would read none, which what it does not understand is too.
pub(crate) fn tokenizer_url(model_json: &str, preprocessor_json: &str) -> Option<String> {
    match Processing::of(model_json, preprocessor_json).ok()?? {
        Processing::Images(_) => None,
        Processing::Texts(texts) | Processing::Prompts(PromptProcessing { texts, .. }) => {
            Some(texts.tokenizer.url)
        }
    }
}

/// How samples, and prompts, become what the model takes: what an evaluator is made of besides the model itself.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is not understood; those of [`tokenizer`].
pub(super) fn processing(setting: &Setting, waiting: &Waiting) -> Result<EvaluatorSpec> {
    let nothing = EvaluatorSpec::default();
    Ok(match Processing::of(&setting.model_json, &setting.preprocessor_json)? {
        None => nothing,
        Some(Processing::Images(json)) => EvaluatorSpec { preprocessor_json: Some(json), ..nothing },
        Some(Processing::Texts(texts)) => {
            let decoding = texts.decoding;
            EvaluatorSpec { tokenizer: Some(tokenizer(texts, waiting)?), decoding, ..nothing }
        }
        Some(Processing::Prompts(PromptProcessing { images, texts, prompts })) => EvaluatorSpec {
            preprocessor_json: Some(images).filter(|images| !images.is_empty()),
            tokenizer: Some(tokenizer(texts, waiting)?),
            prompts: Some(Prompts::from_json(&prompts)?),
            ..nothing
        },
    })
}

/// The tokenizer that a run's document tells of: what is in the file has to be what it was when the run was submitted.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where it is not; otherwise what the store says.
fn tokenizer(texts: TextProcessing, waiting: &Waiting) -> Result<TokenizerFiles> {
    let TextProcessing { tokenizer: PinnedFile { url, size_bytes, sha256 }, tokenizer_config, decoding: _ } =
        texts;
    if size_bytes > TOKENIZER_BYTES_MAX {
        return Err(Error::data(format!(
            "{url} has {size_bytes} bytes, expected at most {TOKENIZER_BYTES_MAX}"
        )));
    }
    let content =
        waiting.wait(async { read::read_small(&Location::parse(&url)?, TOKENIZER_BYTES_MAX).await })?;
    if content.len() as u64 != size_bytes || sha256_hex(&content) != sha256 {
        return Err(Error::data(format!("{url} is another file than when the run was submitted")));
    }
    Ok(TokenizerFiles { tokenizer_json: content, config_json: tokenizer_config })
}
