//! Which transformers saved a model. Names of processors, and what these do where their file does not say, changed with it, and their file
//! does not name it: `config.json` beside it does.

use serde_json::{Map, Value};
use soup_core::{Error, Result};

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    /// What is taken where nothing is said: 5 always says it.
    pub(super) const UNSAID: Version = Version(4, 0);
    /// From here on, processors of ConvNext and EfficientNet resize in another way where their file does not say how, and ConvNext's that work on
    /// tensors cut as the others do.
    pub(super) const FIFTH: Version = Version(5, 0);
    /// From here on, processors that work on tensors have the plain names, and those that work on PIL images end in "Pil", which they do not write
    /// into their file.
    pub(super) const PLAIN_IS_TENSORS: Version = Version(5, 4);
    /// From here on, what is transparent is laid on white where a processor makes images RGB.
    pub(super) const ON_WHITE: Version = Version(5, 21);

    /// As the text of a `config.json` says.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where that is no version.
    pub(super) fn of_config(text: &str) -> Result<Version> {
        let wrong = |text: String| Error::data(format!("config.json: {text}"));
        let config: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| wrong("not a JSON object".into()).with_source(e))?;
        match config.get("transformers_version") {
            None | Some(Value::Null) => Ok(Version::UNSAID),
            Some(said) => said.as_str().and_then(Version::parse).ok_or_else(|| {
                wrong(format!("transformers_version is {said}, expected a version as \"4.57.6\": it says what preprocessor_config.json means"))
            }),
        }
    }

    /// Whether a processor of that name works on tensors.
    pub(super) fn works_on_tensors(self, name: &str) -> bool {
        name.ends_with("Fast") || self >= Version::PLAIN_IS_TENSORS && !name.ends_with("Pil")
    }

    /// What people should know of a file with that name: which of two processors it is of, it does not say.
    pub(super) fn one_of_two(self, name: &str) -> Option<String> {
        let kind = name.strip_suffix("ImageProcessor").or_else(|| name.strip_suffix("FeatureExtractor"))?;
        (self >= Version::PLAIN_IS_TENSORS).then(|| {
            format!(
                "preprocessor_config.json was read as transformers {self} (config.json) reads it unless asked otherwise: images are resized by \
                 torchvision; where backend=\"pil\" was asked for, name a copy with \"image_processor_type\": \"{kind}ImageProcessorPil\" with \
                 --preprocessor-config"
            )
        })
    }

    /// Of "5.24.0", "5.0.0rc1", "4.57.0.dev0".
    fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some(Version(parts.next()??, parts.next()??))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let of = |said: &str| Version::of_config(&format!(r#"{{"transformers_version": {said}}}"#));
        assert_eq!(of(r#""5.24.0""#).unwrap(), Version(5, 24));
        assert_eq!(of(r#""4.6.0.dev0""#).unwrap(), Version(4, 6));
        assert_eq!(of(r#""5.0.0rc1""#).unwrap(), Version::FIFTH);
        assert_eq!(of("null").unwrap(), Version::UNSAID);
        assert_eq!(Version::of_config("{}").unwrap(), Version::UNSAID);
        assert!(Version(4, 57) < Version::FIFTH && Version(5, 3) < Version::PLAIN_IS_TENSORS);
        assert!(Version(5, 20) < Version::ON_WHITE && Version::ON_WHITE < Version(6, 0));
        for said in ["5", r#""5""#, r#""main""#, r#""-1.5""#, r#""""#, "[5,24]"] {
            let error = of(said).unwrap_err().chain();
            assert!(error.contains(&format!("transformers_version is {said}")), "{error}");
        }
        assert!(Version::of_config("[]").unwrap_err().chain().contains("config.json: not a JSON object"));
    }
}
