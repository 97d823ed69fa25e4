//! A lab's own authority: a folder with its key and certificate, and certificates that it issues.
//!
//! The authority's certificate says its cluster, as the URI `soup://CLUSTER`, and what it issues is for members of that alone. Keys are
//! ECDSA on P-256. Files with private keys are readable by their owner alone, and nothing is ever overwritten.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use soup_core::{Error, Result};
use webpki::EndEntityCert;

use crate::credentials::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Material};
use crate::identity::{Identity, Role};

/// The authority's private key, beside its certificate.
pub const AUTHORITY_KEY_FILE: &str = "ca.key";
/// How long an authority's certificate holds.
const AUTHORITY_DAYS: u32 = 3650;
/// Longest life of a member's certificate.
pub const DAYS_MAX: u32 = 3650;
/// By how much a clock may be behind that of whoever issued a certificate.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Most hosts in one certificate.
const HOSTS_MAX: usize = 256;
/// Bits of a serial number, in bytes.
const SERIAL_BYTES: usize = 16;

/// An authority.
pub struct Authority {
    cluster: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority for a cluster, in a folder where none is.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for a name that is none; [`Configuration`](soup_core::ErrorKind::Configuration) where
    /// one of the files is there already or cannot be written.
    pub fn init(folder: &Path, cluster: &str) -> Result<Authority> {
        let authority = Authority::with_key(cluster, KeyPair::generate().map_err(unmade)?)?;
        create_folder(folder)?;
        create(&folder.join(AUTHORITY_KEY_FILE), &authority.issuer.key().serialize_pem(), 0o600)?;
        create(&folder.join(AUTHORITY_FILE), &authority.certificate, 0o644)?;
        Ok(authority)
    }

    /// The authority in a folder.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for a folder without one that was made here.
    pub fn open(folder: &Path) -> Result<Authority> {
        let (certificate, key) = (folder.join(AUTHORITY_FILE), folder.join(AUTHORITY_KEY_FILE));
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|e| {
                let text = format!("{} cannot be read: soupctl ca init makes an authority", path.display());
                Error::configuration(text).with_source(e)
            })
        };
        let certificate_pem = read(&certificate)?;
        let cluster = cluster_of(&certificate_pem).ok_or_else(|| {
            Error::configuration(format!(
                "{} is no authority's that soupctl ca init made",
                certificate.display()
            ))
        })?;
        // What is wrong with a key is not said: that may be a part of it.
        let key_pair = KeyPair::from_pem(&read(&key)?)
            .map_err(|_| Error::configuration(format!("{} holds no private key", key.display())))?;
        let issuer = Issuer::new(authority_params(&cluster)?, key_pair);
        Ok(Authority { cluster, certificate: certificate_pem, issuer })
    }

    /// The cluster that it is the authority of.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Issues a certificate for `days` and writes it, its key and the authority's certificate into `folder`. Whoever is connected to
    /// (coordinators and workers) is so at `hosts`: names or addresses.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for a name or a host that is none;
    /// [`Configuration`](soup_core::ErrorKind::Configuration) where one of the files is there already or cannot be written.
    pub fn issue(
        &self,
        role: Role,
        name: &str,
        hosts: &[String],
        days: u32,
        folder: &Path,
    ) -> Result<Identity> {
        let identity = Identity::new(&self.cluster, role, name)?;
        let (certificate, key) = self.sign(&identity, hosts, days)?;
        create_folder(folder)?;
        create(&folder.join(KEY_FILE), &key.serialize_pem(), 0o600)?;
        create(&folder.join(CERTIFICATE_FILE), &certificate.pem(), 0o644)?;
        create(&folder.join(AUTHORITY_FILE), &self.certificate, 0o644)?;
        Ok(identity)
    }

    /// A new key, and a certificate that says whose it is.
    fn sign(&self, identity: &Identity, hosts: &[String], days: u32) -> Result<(Certificate, KeyPair)> {
        if hosts.len() > HOSTS_MAX || days == 0 || days > DAYS_MAX {
            return Err(Error::usage(format!(
                "a certificate is for at most {HOSTS_MAX} hosts and for 1 to {DAYS_MAX} days"
            )));
        }
        let mut params = CertificateParams::new(hosts).map_err(|e| {
            Error::usage(format!("one of the hosts {hosts:?} is no name and no address: {e}"))
        })?;
        let uri = identity.uri().try_into().map_err(unmade)?;
        params.subject_alt_names.push(SanType::URI(uri));
        let name = format!("{} {}", identity.role.name(), identity.name);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        hold(&mut params, days)?;
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        Ok((certificate, key))
    }

    /// The authority of a cluster with a key that is known: there may be many of it, in as many processes.
    pub(crate) fn with_key(cluster: &str, key: KeyPair) -> Result<Authority> {
        let params = authority_params(cluster)?;
        let certificate = params.self_signed(&key).map_err(unmade)?.pem();
        Ok(Authority { cluster: cluster.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// What a member proves itself with that needs no files.
    pub(crate) fn member(&self, identity: &Identity, days: u32) -> Result<Material> {
        let (certificate, key) = self.sign(identity, &[], days)?;
        let root = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|e| Error::internal("a certificate cannot be read").with_source(e))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Material::new(&[root], vec![certificate.der().clone()], key)
            .map_err(|(_, why)| Error::internal(format!("a certificate cannot be used: {why}")))
    }
}

/// What an authority's certificate says: the same for the same cluster, so that it can be made again to sign with.
fn authority_params(cluster: &str) -> Result<CertificateParams> {
    // Names of clusters are as those of members.
    let cluster = Identity::new(cluster, Role::Coordinator, "c")?.cluster;
    let mut params = CertificateParams::default();
    let uri = format!("{AUTHORITY_SCHEME}{cluster}").try_into().map_err(unmade)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("authority of soup cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hold(&mut params, AUTHORITY_DAYS)?;
    Ok(params)
}

const AUTHORITY_SCHEME: &str = "soup://";

fn cluster_of(pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    let mut uris = certificate.valid_uri_names();
    let cluster = uris.next()?.strip_prefix(AUTHORITY_SCHEME)?.to_owned();
    Identity::new(&cluster, Role::Coordinator, "c").ok().map(|identity| identity.cluster)
}

/// Sets from when to when a certificate holds, and its number.
fn hold(params: &mut CertificateParams, days: u32) -> Result<()> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial)
        .map_err(|e| Error::internal("the system gives no random bytes").with_source(e))?;
    // A positive number.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 24 * 3600)).into();
    Ok(())
}

pub(crate) fn unmade(e: rcgen::Error) -> Error {
    Error::internal("a certificate cannot be made").with_source(e)
}

fn create_folder(folder: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| {
        Error::configuration(format!("folder {} cannot be created", folder.display())).with_source(e)
    })
}

pub(crate) fn create(path: &Path, text: &str, mode: u32) -> Result<()> {
    let cannot = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::configuration(format!(
            "{} is there already, and what is in use is not replaced: choose another place, or remove it",
            path.display()
        )),
        _ => Error::configuration(format!("{} cannot be created", path.display())).with_source(e),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)
}
