//! Which judge gave a score. Scores of different judges, or of different arithmetic, are never compared: the identity is part of the
//! run's, of the keys under which scores are kept, and of the report, and a worker whose judge is another one does not judge.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::survey::Ability;

/// Version of the native judge: raised with every change of decoding, preprocessing, models or counting that can change a
/// count or a loss. Scores that were kept under another one are not recalled.
pub const SCORES_VERSION: u32 = 4;

/// The identity of a judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgeId {
    /// Its name.
    pub name: String,
    /// Version of how it scores.
    pub version: String,
    /// SHA-256 of its code or its configuration, where it has some of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The class of its arithmetic: within one, the same samples and weights give the same bits.
    pub numerics: String,
}

impl JudgeId {
    /// The judge that is built into every worker: f32 on the processor.
    pub fn native() -> JudgeId {
        JudgeId {
            name: "native".to_owned(),
            version: SCORES_VERSION.to_string(),
            digest: None,
            numerics: JudgeId::processors("f32"),
        }
    }

    /// The class of numerics of the native judge on the processor, in a precision of that name.
    pub fn processors(precision: &str) -> String {
        format!("flex-{precision}")
    }
}

impl fmt::Display for JudgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.numerics)?;
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, " of {digest}"))
    }
}

/// What a worker says of a judge that it has, before that is asked about a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which judge.
    #[serde(flatten)]
    pub id: JudgeId,
    /// What it can do besides telling what samples add up to.
    pub abilities: BTreeSet<Ability>,
    /// Names of datasets that it brings along, for people.
    pub datasets: Vec<String>,
}

impl Offer {
    /// Of the judge that is built into every worker.
    pub fn native() -> Offer {
        Offer { id: JudgeId::native(), abilities: Ability::NATIVE.into(), datasets: Vec::new() }
    }
}

/// The judges of a worker, as people see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerJudges {
    /// The worker's name.
    pub worker: String,
    /// Those that it offers.
    pub judges: Vec<Offer>,
}
