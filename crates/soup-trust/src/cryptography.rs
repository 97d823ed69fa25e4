//! The cryptography that connections use: AWS-LC's, and *ring*'s for sealing records where that is the faster one.
//!
//! Blends are many bytes, and what seals and opens them is most of what TLS costs. Both libraries do it with instructions that take several
//! blocks at a time (VAES, VPCLMULQDQ), AWS-LC those of 512 bits alone, *ring* those of 256: where a processor has only the latter, it is
//! nearly twice as fast (docs/figures.md). What is said on the wire is the same.

use std::sync::{Arc, OnceLock};

use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

/// Who seals records, and opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    AwsLc,
    Ring,
}

impl Records {
    /// The faster one here.
    fn here() -> Records {
        #[cfg(target_arch = "x86_64")]
        {
            let narrow = is_x86_feature_detected!("vaes")
                && is_x86_feature_detected!("vpclmulqdq")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi2");
            // All four are what AWS-LC asks for.
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if narrow && !wide {
                return Records::Ring;
            }
        }
        Records::AwsLc
    }
}

/// The cryptography that everything here uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(provider_with(Records::here()))).clone()
}

/// The same, with records sealed by one of them.
pub(crate) fn provider_with(records: Records) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if records == Records::Ring {
        provider.cipher_suites = ring::ALL_CIPHER_SUITES.to_vec();
    }
    // As safe as the one that takes a third longer.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
