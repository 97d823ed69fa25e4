//! What says which model an ingredient is, and how its images become pixels: files beside the ingredients, or those that were
//! named instead.

use bytes::Bytes;
use soup_core::companion::{CONFIG, PREPROCESSOR};
use soup_core::run::RunSpec;
use soup_core::{Error, Result};
use soup_store::checkpoint::Checkpoint;
use soup_store::location::Location;
use soup_store::{pool, read};

/// Largest `config.json` or `preprocessor_config.json`.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The model's configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Text of `config.json`; empty where there is none and nothing is judged.
    pub model_json: String,
    /// Text of `preprocessor_config.json`; empty where there is none and nothing is judged.
    pub preprocessor_json: String,
    /// Files that go with the model: name and content.
    pub companions: Vec<(String, Bytes)>,
}

/// The configuration of a pool whose first ingredient is `first`.
///
/// # Errors
/// [`ErrorKind::Data`](soup_core::ErrorKind::Data) for a file that is missing or not UTF-8; otherwise what the store says.
pub async fn configuration(spec: &RunSpec, first: &Checkpoint) -> Result<Configuration> {
    let mut companions = pool::companions(first).await?;
    let model = named(&spec.model_config, CONFIG, &mut companions).await?;
    let preprocessor = named(&spec.preprocessor_config, PREPROCESSOR, &mut companions).await?;
    // Averaging needs neither.
    let (model_json, preprocessor_json) = match &spec.validation {
        Some(_) => {
            may_be_read(first, CONFIG, model.is_some()).await?;
            may_be_read(first, PREPROCESSOR, preprocessor.is_some()).await?;
            (model.ok_or_else(|| no_config(first))?, preprocessor.ok_or_else(|| no_preprocessor(first))?)
        }
        None => (model.unwrap_or_default(), preprocessor.unwrap_or_default()),
    };
    Ok(Configuration { model_json, preprocessor_json, companions })
}

/// Says so if a file that is needed is missing because it may not be read.
async fn may_be_read(first: &Checkpoint, name: &str, found: bool) -> Result<()> {
    if found {
        return Ok(());
    }
    match pool::why_missing(first, name).await {
        None => Ok(()),
        Some(denied) => Err(denied.context(match name {
            CONFIG => "let it be read, or name a configuration with --model-config",
            _ => "let it be read, or name one with --preprocessor-config",
        })),
    }
}

fn no_config(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no config.json beside ingredient {:?} or in the folder above it: name one with --model-config",
        first.name
    ))
}

fn no_preprocessor(first: &Checkpoint) -> Error {
    Error::data(format!(
        "found no preprocessor_config.json (nor a processor_config.json with an image processor) beside ingredient {:?} or in \
         the folder above it, so how images become pixels is not known: name one with --preprocessor-config",
        first.name
    ))
}

/// A configuration file: from the URL given, which then replaces the one found beside the pool, else the found one.
async fn named(
    url: &Option<String>,
    name: &str,
    companions: &mut Vec<(String, Bytes)>,
) -> Result<Option<String>> {
    if let Some(url) = url {
        let content = read::read_small(&Location::parse(url)?, CONFIG_BYTES_MAX).await?;
        companions.retain(|(n, _)| n != name);
        companions.push((name.to_owned(), content));
    }
    let Some((_, content)) = companions.iter().find(|(n, _)| n == name) else { return Ok(None) };
    let text = std::str::from_utf8(content)
        .map_err(|e| Error::data(format!("{name} is not UTF-8")).with_source(e))?;
    Ok(Some(text.to_owned()))
}
