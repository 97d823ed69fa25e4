//! Who of a cluster's workers reaches whom, as people see it. Workers fetch blends from each other, so each has to reach all others.

use serde::{Deserialize, Serialize};

/// What a worker found when it connected to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The other worker's name.
    pub worker: String,
    /// Where that says it is reached.
    pub address: String,
    /// How long connecting took, in milliseconds.
    pub milliseconds: u32,
    /// Why it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A worker, and whom it reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReach {
    /// Its name.
    pub worker: String,
    /// Where it says that peers reach it.
    pub address: String,
    /// Tasks that it computes at the same time.
    pub slots: u32,
    /// Bytes of parameters that it may keep in the memory of its device; 0 where it computes on the processor.
    #[serde(default)]
    pub device_bytes: u64,
    /// In its host's memory.
    pub capacity_bytes: u64,
    /// In a disk cache.
    pub disk_bytes: u64,
    /// Whom it reaches; none where it did not answer in time.
    pub reaches: Option<Vec<Reach>>,
}
