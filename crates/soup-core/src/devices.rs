//! What there is to compute on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The host.
    #[default]
    Cpu,
    /// The card of NVIDIA's with this number.
    Cuda(u32),
    /// The device of Vulkan's with this number.
    Vulkan(u32),
}

impl DeviceKind {
    /// The cargo feature that a build of this program needs for it.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            DeviceKind::Cpu => None,
            DeviceKind::Cuda(_) => Some("cuda"),
            DeviceKind::Vulkan(_) => Some("vulkan"),
        }
    }

    /// That this build of the program has not got it.
    pub fn not_built(self) -> Error {
        let feature = self.feature().unwrap_or("cpu");
        Error::configuration(format!(
            "this build of the program has no device \"{self}\": use \"cpu\", or a build with the cargo feature {feature:?}"
        ))
    }
}

/// What `--device` calls it.
impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            DeviceKind::Vulkan(ordinal) => write!(f, "vulkan:{ordinal}"),
        }
    }
}

/// A device as people see it: what `soupctl devices -o json` prints. Fields may be added, none is renamed or removed.
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
