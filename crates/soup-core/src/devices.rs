//! What there is to compute on, as people see it: what `soupctl devices -o json` prints. Fields may be added, none is renamed or removed.

use serde::{Deserialize, Serialize};

/// A device, and what was found out about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// What `--device` calls it.
    pub device: String,
    /// What its driver calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its memory in bytes, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What of it is free, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// The class of arithmetic of the native judge there: what `--numerics` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<String>,
    /// Bytes a second of a copy within its memory, read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_bytes_per_second: Option<f64>,
    /// Bytes a second of the mean of 16 ingredients in bf16, read and written, and what it takes to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blend_bytes_per_second: Option<f64>,
    /// Why it cannot be used, where it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
