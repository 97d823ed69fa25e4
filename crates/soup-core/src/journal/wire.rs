//! How soups and tallies look in records. Numbers in `f64` are written as text that reads back to the same bits: JSON has
//! neither NaN nor infinities, and readers of JSON round as they like.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::ledger::Dataset;
use crate::sequence::SequenceId;
use crate::soup::{Ingredient, Soup, Weight};
use crate::tally::packed::{PACKED_MAX, pack, unpack};
use crate::tally::{Counts, Judged, Sums, Tally, Values};

/// A soup in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoupRecord {
    /// Ingredients by their position in the pool.
    pub members: Vec<u32>,
    /// Explicit weights, one row or one per tensor; absent for a mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<Vec<String>>>,
}

impl From<&Soup> for SoupRecord {
    fn from(soup: &Soup) -> SoupRecord {
        let row = |row: &Vec<Weight>| row.iter().map(|w| text(w.get())).collect();
        SoupRecord {
            members: soup.members().iter().map(|m| m.0).collect(),
            weights: soup.rows().map(|rows| rows.iter().map(row).collect()),
        }
    }
}

impl SoupRecord {
    /// The soup.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) where it is none.
    pub fn soup(&self) -> Result<Soup> {
        let bad = || Error::data(format!("a record has a soup that is none: {self:?}"));
        let members: Vec<Ingredient> = self.members.iter().map(|&m| Ingredient(m)).collect();
        let Some(rows) = &self.weights else {
            // A mean is stored in pool order, each member once.
            let ascending = members.windows(2).all(|w| w[0] < w[1]);
            return Soup::mean(members).filter(|_| ascending).ok_or_else(bad);
        };
        let weight = |t: &String| t.parse().ok().and_then(Weight::new).ok_or_else(bad);
        let row = |row: &Vec<String>| row.iter().map(weight).collect::<Result<Vec<_>>>();
        let rows = rows.iter().map(row).collect::<Result<Vec<_>>>()?;
        Soup::weighted(members, rows).map_err(|e| bad().with_source(e))
    }
}

/// What happened to a soup's samples of one slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredSlice {
    /// Position of the dataset.
    pub dataset: u32,
    /// The soup.
    pub soup: SoupRecord,
    /// Which slice of the dataset.
    pub slice: u32,
    /// The order in which the dataset is cut into slices.
    #[serde(default, with = "sequence", skip_serializing_if = "SequenceId::is_natural")]
    pub sequence: SequenceId,
    /// What happened to its samples, or what they add up to.
    #[serde(flatten, with = "judged")]
    pub judged: Judged,
}

impl ScoredSlice {
    /// The dataset.
    pub fn dataset(&self) -> Dataset {
        Dataset(self.dataset)
    }

    /// Whether what happened to every sample is known.
    pub fn has_outcomes(&self) -> bool {
        matches!(self.judged, Judged::Outcomes(_))
    }
}

/// The name of a sequence in a record.
mod sequence {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &SequenceId, to: S) -> Result<S::Ok, S::Error> {
        format!("{:016x}", id.0).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SequenceId, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map(SequenceId).map_err(de::Error::custom)
    }
}

/// What was judged, in a record: a tally, or packed outcomes as base64.
mod judged {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum JudgedRecord {
        Outcomes { outcomes: String },
        Tally { score: super::TallyRecord },
    }

    pub(super) fn serialize<S: Serializer>(judged: &Judged, to: S) -> Result<S::Ok, S::Error> {
        match judged {
            Judged::Outcomes(outcomes) => {
                JudgedRecord::Outcomes { outcomes: STANDARD.encode(pack(outcomes)) }.serialize(to)
            }
            Judged::Tally(tally) => {
                JudgedRecord::Tally { score: super::TallyRecord(tally.clone()) }.serialize(to)
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Judged, D::Error> {
        match JudgedRecord::deserialize(from)? {
            JudgedRecord::Outcomes { outcomes } => {
                let bytes = STANDARD.decode(outcomes).map_err(de::Error::custom)?;
                let outcomes = unpack(&bytes, PACKED_MAX).map_err(|e| de::Error::custom(e.chain()))?;
                Ok(Judged::Outcomes(outcomes))
            }
            JudgedRecord::Tally { score } => Ok(Judged::Tally(score.0)),
        }
    }
}

/// A tally as records hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TallyRecord(#[serde(with = "tally")] pub Tally);

/// Shortest text that reads back to the same value.
fn text(value: f64) -> String {
    format!("{value:?}")
}

/// A tally in a record.
pub(super) mod tally {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum TallyRecord {
        Classes {
            correct: u64,
            total: u64,
            /// In nats.
            loss_sum: String,
            /// Label, prediction and how often, where it occurred.
            confusion: Vec<(u32, u32, u64)>,
        },
        Values {
            /// Their bytes as base64.
            values: String,
        },
        Sums {
            samples: u64,
            figures: BTreeMap<String, String>,
        },
    }

    pub(in super::super) fn serialize<S: Serializer>(tally: &Tally, to: S) -> Result<S::Ok, S::Error> {
        match tally {
            Tally::Classes(counts) => TallyRecord::Classes {
                correct: counts.correct,
                total: counts.total,
                loss_sum: text(counts.loss_sum),
                confusion: counts.confusion.iter().map(|(&(label, got), &n)| (label, got, n)).collect(),
            },
            Tally::Values(values) => TallyRecord::Values { values: STANDARD.encode(values.to_bytes()) },
            Tally::Sums(sums) => TallyRecord::Sums {
                samples: sums.samples,
                figures: sums.figures.iter().map(|(name, sum)| (name.clone(), text(*sum))).collect(),
            },
        }
        .serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Tally, D::Error> {
        let number = |text: &String| text.parse::<f64>().map_err(de::Error::custom);
        Ok(match TallyRecord::deserialize(from)? {
            TallyRecord::Classes { correct, total, loss_sum, confusion } => Tally::Classes(Counts {
                correct,
                total,
                loss_sum: number(&loss_sum)?,
                confusion: confusion.into_iter().map(|(label, got, n)| ((label, got), n)).collect(),
            }),
            TallyRecord::Values { values } => {
                let bytes = STANDARD.decode(values).map_err(de::Error::custom)?;
                Tally::Values(Values::from_bytes(&bytes).map_err(|e| de::Error::custom(e.chain()))?)
            }
            TallyRecord::Sums { samples, figures } => {
                let sum = |(name, sum): (String, String)| Ok((name, number(&sum)?));
                Tally::Sums(Sums {
                    samples,
                    figures: figures.into_iter().map(sum).collect::<Result<_, _>>()?,
                })
            }
        })
    }
}

/// The gradients of a step in a record.
pub(super) mod gradients {
    use super::*;
    use crate::ledger::Gradients;

    #[derive(Serialize, Deserialize)]
    struct GradientsRecord {
        /// In nats.
        loss: String,
        d_beta: String,
        correct: u64,
        total: u64,
        /// By group and ingredient.
        dots: Vec<Vec<String>>,
    }

    pub(in super::super) fn serialize<S: Serializer>(g: &Gradients, to: S) -> Result<S::Ok, S::Error> {
        GradientsRecord {
            loss: text(g.loss),
            d_beta: text(g.d_beta),
            correct: g.correct,
            total: g.total,
            dots: g.dots.iter().map(|row| row.iter().map(|d| text(*d)).collect()).collect(),
        }
        .serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Gradients, D::Error> {
        let record = GradientsRecord::deserialize(from)?;
        let number = |text: &String| text.parse::<f64>().map_err(de::Error::custom);
        let row = |row: &Vec<String>| row.iter().map(number).collect::<Result<Vec<_>, _>>();
        Ok(Gradients {
            loss: number(&record.loss)?,
            d_beta: number(&record.d_beta)?,
            correct: record.correct,
            total: record.total,
            dots: record.dots.iter().map(row).collect::<Result<_, _>>()?,
        })
    }
}
