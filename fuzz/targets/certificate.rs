//! Certificates and the URIs in them: who one names is named by its own URI again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use soup_trust::Identity;

fuzz_target!(|bytes: &[u8]| {
    let named = std::str::from_utf8(bytes).ok().and_then(Identity::of_uri);
    let certified = Identity::of_certificate(&CertificateDer::from(bytes)).ok();
    for identity in [named, certified].into_iter().flatten() {
        assert_eq!(Identity::of_uri(&identity.uri()), Some(identity.clone()));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        assert!([&identity.cluster, &identity.name].iter().all(|name| name.chars().all(plain)));
    }
});
