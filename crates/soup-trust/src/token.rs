//! One secret for a whole cluster, instead of certificates: a file with 256 bits that is copied to all members.
//!
//! The key of an authority is derived from it (HKDF-SHA-256, RFC 5869; Ed25519, RFC 8032), in every process anew, and each issues itself a
//! certificate. So both ends prove that they have the token, in the handshake of TLS: it is never sent, not even compared, and who does not have
//! it learns nothing to try guesses against. From there on it is as with certificates, but that whoever has the token is whom it says: a
//! token tells members from strangers, and no member from another.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::PrivatePkcs8KeyDer;
use soup_core::{Error, Result};

use crate::authority::{Authority, create, unmade};
use crate::credentials::{Material, is_everybodys, small};
use crate::identity::{Identity, Role};

/// A token's bytes.
const TOKEN_BYTES: usize = 32;
/// How long a certificate holds that a process issues itself.
const DAYS: u32 = 30;
/// After how long it issues itself another one.
const RENEWED: Duration = Duration::from_secs(10 * 24 * 3600);
/// What is derived: the salt names the scheme, so that no other use of the same secret comes to the same keys.
const SCHEME: &[u8] = b"soup token 1";

/// A cluster's secret.
pub(crate) struct Token([u8; TOKEN_BYTES]);

/// Makes a token, in a file that only its owner may read.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration) where a file is there already or cannot be written.
pub fn init(path: &Path) -> Result<()> {
    let mut token = [0; TOKEN_BYTES];
    getrandom::fill(&mut token)
        .map_err(|e| Error::internal("the system gives no random bytes").with_source(e))?;
    create(path, &format!("{}\n", hex::encode(token)), 0o600)
}

/// Which certificate of those that a process issues itself one after the other is in use.
pub(crate) fn generation(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / RENEWED.as_secs()
}

impl Token {
    /// The token in a file.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for a file that holds none, or that everybody may read.
    pub(crate) fn read(path: &Path) -> Result<Token> {
        // What is wrong with a token is not said: that may be a part of it.
        let none = || {
            Error::configuration(format!(
                "{} holds no token, which is {} hexadecimal digits: soupctl ca token makes one",
                path.display(),
                2 * TOKEN_BYTES
            ))
        };
        let text = small(path)?;
        if is_everybodys(path) {
            let text =
                format!("everybody on this host may use {}: take that away (chmod o= …)", path.display());
            return Err(Error::configuration(text));
        }
        let mut token = [0; TOKEN_BYTES];
        hex::decode_to_slice(text.trim_ascii(), &mut token).map_err(|_| none())?;
        Ok(Token(token))
    }

    /// Whoever has it, as one that is called so in a role.
    pub(crate) fn member(&self, role: Role, name: &str) -> Result<Material> {
        let cluster = format!("token-{}", hex::encode(self.derive::<8>(b"cluster")?));
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.derive::<32>(b"authority")?);
        let pkcs8 = pair.map_err(|_| underivable())?.to_pkcs8v1().map_err(|_| underivable())?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.as_ref());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).map_err(unmade)?;
        let identity = Identity::new(&cluster, role, name)?;
        Authority::with_key(&cluster, key)?.member(&identity, DAYS)
    }

    fn derive<const N: usize>(&self, of: &[u8]) -> Result<[u8; N]> {
        struct Length(usize);
        impl KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut derived = [0; N];
        Salt::new(HKDF_SHA256, SCHEME)
            .extract(&self.0)
            .expand(&[of], Length(N))
            .and_then(|key| key.fill(&mut derived))
            .map_err(|_| underivable())?;
        Ok(derived)
    }
}

fn underivable() -> Error {
    Error::internal("keys cannot be derived from the token")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_one_file_of_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        init(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = Token::read(&path).unwrap();
        // Never overwritten, and never the same.
        let error = init(&path).err().unwrap().chain();
        assert!(error.contains("token is there already"), "{error}");
        let other = folder.path().join("other");
        init(&other).unwrap();
        assert_ne!(Token::read(&other).unwrap().0, token.0);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let error = Token::read(&path).err().unwrap();
        assert!(error.chain().contains("everybody"), "{}", error.chain());
    }

    #[test]
    fn what_has_expired_is_said_with_whose_it_is() {
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::{ServerName, UnixTime};
        let of = |role| Token([7; TOKEN_BYTES]).member(role, "m").unwrap();
        let (client, server) = (of(Role::Client), of(Role::Coordinator));
        let now = UnixTime::now();
        let later = now.as_secs() + 24 * 3600 * u64::from(DAYS + 1);
        let later = UnixTime::since_unix_epoch(Duration::from_secs(later));
        client.check_time(now).unwrap();
        let error = client.check_time(later).unwrap_err();
        assert!(error.contains("client \"m\" of cluster") && error.contains("has expired"), "{error}");
        let (verifier, host) =
            (client.verifier(Role::Coordinator), ServerName::try_from("localhost").unwrap());
        let seen = |now| verifier.verify_server_cert(&server.chain[0], &server.chain[1..], &host, &[], now);
        seen(now).unwrap();
        let error = seen(later).unwrap_err().to_string();
        assert!(error.contains("coordinator \"m\" of cluster") && error.contains("has expired"), "{error}");
    }

    #[test]
    fn what_is_no_token_is_refused_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let digits = "0123456789abcdef".repeat(4);
        for text in ["", "hunter2", &digits[1..], &format!("{digits}0"), &digits.replace('f', "g")] {
            let _ = std::fs::remove_file(&path);
            create(&path, text, 0o600).unwrap();
            let error = Token::read(&path).err().unwrap().chain();
            assert!(error.contains("holds no token"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        for text in [digits.clone(), format!("{digits}\n"), digits.to_uppercase()] {
            std::fs::remove_file(&path).unwrap();
            create(&path, &text, 0o600).unwrap();
            Token::read(&path).unwrap();
        }
    }

    #[test]
    fn keys_stay_what_they_are() {
        // HKDF-SHA-256 as RFC 5869 has it, made with Python's hmac: other keys would keep members of different versions apart.
        let token = Token([7; TOKEN_BYTES]);
        assert_eq!(hex::encode(token.derive::<8>(b"cluster").unwrap()), "c926e5bca032898e");
        assert_eq!(
            hex::encode(token.derive::<32>(b"authority").unwrap()),
            "614e482f007af6ecfc145b0f27f5335a5e1af5ce8e03fd4fe4d7ed6f9edc5000"
        );
    }

    #[test]
    fn certificates_are_renewed_long_before_they_end() {
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
        assert_ne!(generation(at(20_000)), generation(at(20_010)));
        assert_eq!(generation(at(20_000)), generation(at(20_009)));
        assert!(RENEWED.as_secs() * 2 < u64::from(DAYS) * 24 * 3600);
    }
}
