//! Whether what answers at an address is the member that is wanted there.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use crate::identity::{Identity, Role};

/// Wants a certificate of this cluster's authority, for a member with a certain role, and for the host that was dialled. A certificate that
/// names no host at all, as SPIFFE's do, is believed by its role.
#[derive(Debug)]
pub(crate) struct MemberVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    cluster: String,
    role: Role,
}

impl MemberVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        cluster: &str,
        role: Role,
    ) -> MemberVerifier {
        MemberVerifier { roots, provider, cluster: cluster.to_owned(), role }
    }
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)
            .map_err(|e| if has_expired(&e) { expired(end_entity) } else { e })?;
        if names_hosts(end_entity) {
            verify_server_name(&certificate, server_name)?;
        }
        let identity = Identity::of_certificate(end_entity).map_err(|e| refused(e.chain()))?;
        if identity.cluster != self.cluster || identity.role != self.role {
            let wanted = format!("a {} of cluster {:?} is wanted there", self.role.name(), self.cluster);
            return Err(refused(format!("it is the {identity}, and {wanted}")));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether that is what is wrong with a certificate.
pub(crate) fn has_expired(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
}

fn expired(certificate: &CertificateDer<'_>) -> Error {
    let whose =
        Identity::of_certificate(certificate).map_or_else(|_| "somebody".to_owned(), |of| of.to_string());
    refused(format!("the certificate that answers there, of the {whose}, has expired"))
}

/// Whether a certificate is for certain hosts.
pub(crate) fn names_hosts(certificate: &CertificateDer<'_>) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return true };
    // The library lists names only where it is asked for one that is not among them.
    let nowhere = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    match certificate.verify_is_valid_for_subject_name(&nowhere) {
        Err(webpki::Error::CertNotValidForName(context)) => context
            .presented
            .iter()
            .any(|name| ["DnsName", "IpAddress"].iter().any(|kind| name.starts_with(kind))),
        Ok(()) | Err(_) => true,
    }
}

/// Whether `host` is one of those that the certificate is for; true for one that names none.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    if !names_hosts(certificate) {
        return true;
    }
    let Ok(name) = ServerName::try_from(host.trim_matches(['[', ']'])) else { return false };
    EndEntityCert::try_from(certificate).is_ok_and(|c| c.verify_is_valid_for_subject_name(&name).is_ok())
}

fn refused(why: String) -> Error {
    struct Why(String);
    // The library shows it so, and people read that.
    impl std::fmt::Debug for Why {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.0)
        }
    }
    impl std::fmt::Display for Why {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.0)
        }
    }
    impl std::error::Error for Why {}
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Why(why)))))
}
