//! The metric as flags and cook files name it.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _};
use soup_core::metric::{ClassMetric, Metric, MetricName};

/// A metric, or several whose mean it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricFlag(pub(crate) MetricName);

impl FromStr for MetricFlag {
    type Err = String;

    /// What the native judge does not know is refused at once, and not when somebody asks it.
    fn from_str(text: &str) -> Result<Self, String> {
        let name: MetricName = text.parse().map_err(|e: soup_core::Error| e.chain())?;
        Metric::of_classes(&name, 1).map_err(|e| e.chain())?;
        Ok(MetricFlag(name))
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
        let known = ClassMetric::ALL.map(ClassMetric::name).join("|");
        json_schema!({
            "type": "string",
            "pattern": format!("^({known})(\\+({known}))*$"),
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
        let refused = |name: &str| name.parse::<MetricFlag>().unwrap_err();
        assert_eq!(
            refused("acuracy"),
            "there is no metric \"acuracy\", there are accuracy, macro-f1, binary-f1, matthews, loss"
        );
        assert!(
            refused("accuracy+loss").contains("better when it is high and what is better when it is low")
        );
    }
}
