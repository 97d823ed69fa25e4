//! The name of a metric, as flags, files and reports spell it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most metrics in a mean.
const PARTS_MAX: usize = 8;
/// Longest name of one, in bytes.
const PART_BYTES_MAX: usize = 64;

/// Tasks of GLUE (Wang et al., 2019), and what they are judged by.
const GLUE: [(&str, &str); 11] = [
    ("glue/cola", "matthews"),
    ("glue/sst2", "accuracy"),
    ("glue/mrpc", "accuracy+binary-f1"),
    ("glue/stsb", "pearson+spearman"),
    ("glue/qqp", "accuracy+binary-f1"),
    ("glue/mnli", "accuracy"),
    ("glue/mnli_matched", "accuracy"),
    ("glue/mnli_mismatched", "accuracy"),
    ("glue/qnli", "accuracy"),
    ("glue/rte", "accuracy"),
    ("glue/wnli", "accuracy"),
];

/// The name of a metric, or of several whose mean it is: `accuracy+binary-f1`. Whether there is such a metric, the survey tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MetricName(String);

impl Default for MetricName {
    fn default() -> MetricName {
        MetricName("accuracy".to_owned())
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<MetricName> for String {
    fn from(name: MetricName) -> String {
        name.0
    }
}

impl TryFrom<String> for MetricName {
    type Error = Error;
    fn try_from(name: String) -> Result<MetricName> {
        name.parse()
    }
}

impl FromStr for MetricName {
    type Err = Error;

    /// A task of GLUE stands for what it is judged by: `glue/mrpc` is `accuracy+binary-f1`.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for what can be no metric's name, for a metric that is named twice, and for a task that is none of
    /// GLUE's.
    fn from_str(name: &str) -> Result<MetricName> {
        if name.starts_with("glue/") {
            let found = GLUE.iter().find(|(task, _)| *task == name);
            let known = || GLUE.map(|(task, _)| task).join(", ");
            return match found {
                Some((_, metric)) => Ok(MetricName((*metric).to_owned())),
                None => {
                    Err(Error::usage(format!("metric {name:?} is no task of GLUE: there are {}", known())))
                }
            };
        }
        let parts: Vec<&str> = name.split('+').collect();
        let refused = |why: String| Err(Error::usage(format!("metric {name:?} {why}")));
        if parts.len() > PARTS_MAX {
            return refused(format!("is the mean of {}; at most {PARTS_MAX} are possible", parts.len()));
        }
        for (index, part) in parts.iter().enumerate() {
            check_word(part).or_else(|why| refused(why.to_owned()).map(|_: MetricName| ()))?;
            if parts[..index].contains(part) {
                return refused(format!("has {part:?} twice"));
            }
        }
        Ok(MetricName(name.to_owned()))
    }
}

/// Whether a byte may be in a name.
pub(crate) fn is_in_words(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
}

/// Whether `word` may name a metric or a figure.
///
/// # Errors
/// Why not.
pub fn check_word(word: &str) -> Result<(), &'static str> {
    match word.len() {
        0 => Err("has an empty name"),
        1..=PART_BYTES_MAX if word.bytes().all(is_in_words) => Ok(()),
        1..=PART_BYTES_MAX => Err("has other characters than a-z, 0-9, '-', '_' and '.'"),
        _ => Err("has a name of more than 64 characters"),
    }
}

impl MetricName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the metrics whose mean it is; of a single one, its own.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('+')
    }

    /// The metrics of this name, each by `find`, where all have one direction.
    pub(super) fn resolve<'a, T>(
        &self,
        find: impl Fn(&str) -> Option<T>,
        known: impl IntoIterator<Item = &'a str>,
        lower_is_better: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>> {
        let known: Vec<&str> = known.into_iter().collect();
        let one = |part: &str| {
            find(part).ok_or_else(|| {
                Error::usage(format!(
                    "there is no metric {part:?}, there are {}: name one with --metric",
                    known.join(", ")
                ))
            })
        };
        let found = self.parts().map(one).collect::<Result<Vec<T>>>()?;
        let lower = found.iter().filter(|m| lower_is_better(m)).count();
        if lower != 0 && lower != found.len() {
            return Err(Error::usage(format!(
                "metric {:?} is the mean of what is better when it is high and what is better when it is low",
                self.0
            )));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_glue_stand_for_what_they_are_judged_by() {
        for (task, metric) in GLUE {
            assert_eq!(task.parse::<MetricName>().unwrap(), metric.parse().unwrap());
        }
        let error = "glue/ax".parse::<MetricName>().unwrap_err().chain();
        assert!(error.contains("\"glue/ax\" is no task of GLUE: there are glue/cola"), "{error}");
    }
}
