//! The metric as flags and cook files name it.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use soup_core::metric::MetricName;

/// A metric, or several whose mean it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricFlag(pub(crate) MetricName);

impl FromStr for MetricFlag {
    type Err = String;

    /// What a judge does not know is refused by whoever knows which one it is.
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(MetricFlag).map_err(|e: soup_core::Error| e.chain())
    }
}

impl<'de> Deserialize<'de> for MetricFlag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for MetricFlag {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Metric".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9._-]+(\\+[a-z0-9._-]+)*$",
            "examples": ["accuracy", "accuracy+binary-f1"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_known_by_their_names() {
        for name in ["accuracy", "macro-f1", "binary-f1", "matthews", "loss", "accuracy+binary-f1"] {
            assert_eq!(name.parse::<MetricFlag>().unwrap().0.as_str(), name);
            assert_eq!(serde_json::from_value::<MetricFlag>(name.into()).unwrap().0.as_str(), name);
        }
        // Other judges have others.
        assert!("perplexity".parse::<MetricFlag>().is_ok());
        assert!("a b".parse::<MetricFlag>().is_err());
    }
}
