//! By which algorithm the content of ingredients is told apart.
//!
//! Workers digest every shard as they read it, and that may take longer than reading. Whoever has to show what was shipped by SHA-256
//! keeps that; BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020) is as hard to forge and takes a fraction of the time where the
//! processor has wide vectors. An ingredient's digest is the SHA-256 of its shards' digests in order, whichever these are, so that
//! two algorithms never give the same. Everything else (files that are written, records, outcomes) has SHA-256.

use serde::{Deserialize, Serialize};

/// An algorithm whose digests have 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestKind {
    /// SHA-256 (FIPS 180-4).
    #[default]
    Sha256,
    /// BLAKE3, without a key.
    Blake3,
}

impl DigestKind {
    /// Both.
    pub const ALL: [DigestKind; 2] = [DigestKind::Sha256, DigestKind::Blake3];

    /// The name in texts.
    pub fn name(self) -> &'static str {
        match self {
            DigestKind::Sha256 => "SHA-256",
            DigestKind::Blake3 => "BLAKE3",
        }
    }

    /// Whether nobody asked for another.
    pub fn is_default(&self) -> bool {
        *self == DigestKind::default()
    }
}
