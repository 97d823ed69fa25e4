//! What the name of an image processor means in a version of transformers.

use serde_json::{Map, Value};
use soup_core::transformers::Version;
use soup_core::{Error, Result};

/// The version that the text of a `config.json` says.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is no version.
pub(super) fn of_config(text: &str) -> Result<Version> {
    let wrong = |text: String| Error::data(format!("config.json: {text}"));
    let config: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| wrong("not a JSON object".into()).with_source(e))?;
    let said = config.get("transformers_version");
    Version::of(said).ok_or_else(|| {
        wrong(format!(
            "transformers_version is {}, expected a version as \"4.57.6\": it says what preprocessor_config.json means",
            said.unwrap_or(&Value::Null)
        ))
    })
}

/// Whether a processor of that name works on tensors.
pub(super) fn works_on_tensors(name: &str, version: Version) -> bool {
    name.ends_with("Fast") || version >= Version::PLAIN_IS_TENSORS && !name.ends_with("Pil")
}

/// What people should know of a file of a processor of that name, which the file `said` or which follows from the model's type: which of two
/// is meant by it is not known.
pub(super) fn one_of_two(name: &str, said: bool, version: Version) -> Option<String> {
    let kind = name.strip_suffix("ImageProcessor").or_else(|| name.strip_suffix("FeatureExtractor"))?;
    let (how, where_not, ending) = if version >= Version::PLAIN_IS_TENSORS {
        let how = format!(
            "torchvision, as transformers {version} (config.json) reads the file of their processor unless asked otherwise"
        );
        (how, "backend=\"pil\" was asked for", "Pil")
    } else if version >= Version::FIFTH && said {
        let how = format!(
            "Pillow, as {kind}ImageProcessor does, which wrote the file; AutoImageProcessor of transformers {version} (config.json) takes \
             {kind}ImageProcessorFast instead, unless use_fast=False is said"
        );
        (how, "it did", "Fast")
    } else {
        return None;
    };
    Some(format!(
        "images are resized and cut by {how}; where {where_not}, name a copy with \"image_processor_type\": \"{kind}ImageProcessor{ending}\" with \
         --preprocessor-config"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_version_is_refused() {
        assert_eq!(of_config("{}").unwrap(), Version::UNSAID);
        assert_eq!(of_config(r#"{"transformers_version": "5.21.3"}"#).unwrap(), Version::ON_WHITE);
        let error = of_config(r#"{"transformers_version": "main"}"#).unwrap_err().chain();
        assert!(
            error.contains(r#"config.json: transformers_version is "main", expected a version"#),
            "{error}"
        );
        assert!(of_config("[]").unwrap_err().chain().contains("config.json: not a JSON object"));
    }
}
