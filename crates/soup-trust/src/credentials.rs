//! What a member proves itself with: a folder with three files, under the names that a Kubernetes secret of type `kubernetes.io/tls` has; or
//! a [token](crate::token), of which the same is made.
//!
//! Files are read again when they change, at most once a second, and what is made of them is used for connections from then on; those that
//! are open stay as long as what they proved [holds](crate::believed). Files that cannot be used are told of in the log, and what was there before goes on: a certificate is not lost because its
//! successor is half written.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use soup_core::{Error, Result};

use crate::cryptography::provider;
use crate::identity::{Identity, Role};
use crate::token::{self, Token};
use crate::verify::{MemberVerifier, has_expired};

/// Certificates of the authorities, PEM.
pub const AUTHORITY_FILE: &str = "ca.crt";
/// The member's certificate and what leads from it to an authority, PEM.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// Its private key, PEM.
pub const KEY_FILE: &str = "tls.key";

/// Largest of these files.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What everybody may do with a file.
const OTHERS: u32 = 0o007;
/// How often files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What both ends speak over TLS.
const ALPN: &[u8] = b"h2";

/// A member's credentials. Clones are the same ones.
#[derive(Clone)]
pub struct Credentials {
    source: Arc<Source>,
    now: Arc<Mutex<Now>>,
}

/// Where they come from.
enum Source {
    /// The files in a folder.
    Folder(PathBuf),
    /// A token's file, and as whom whoever has it wants to be known.
    Token { path: PathBuf, role: Role, name: String },
}

/// What was made of the files, and when they were looked at.
struct Now {
    material: Arc<Material>,
    stamp: Stamp,
    looked: Instant,
}

/// Sizes and times of the files, and since when what was made of a token is in use; other ones are another version of them.
type Stamp = (Vec<Option<(u64, SystemTime)>>, u64);

/// What connections are made with.
pub(crate) struct Material {
    pub(crate) identity: Identity,
    pub(crate) server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads the files in `folder`. The certificate has to be of one of `roles`, and later ones of the same.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration), naming the file that cannot be used.
    pub fn open(folder: &Path, roles: &[Role]) -> Result<Credentials> {
        let credentials = Credentials::of(Source::Folder(folder.to_owned()))?;
        let identity = credentials.identity();
        if !roles.contains(&identity.role) {
            let wanted = roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" or ");
            return Err(Error::configuration(format!(
                "{} is the certificate of the {identity}, and one of a {wanted} is needed",
                folder.join(CERTIFICATE_FILE).display(),
            )));
        }
        Ok(credentials)
    }

    /// Reads the token in a file. Whoever has it is believed to be whom it says.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for a file that holds no token or that everybody may read;
    /// [`Usage`](soup_core::ErrorKind::Usage) for a name that is none.
    pub fn of_token(path: &Path, role: Role, name: &str) -> Result<Credentials> {
        Credentials::of(Source::Token { path: path.to_owned(), role, name: name.to_owned() })
    }

    fn of(source: Source) -> Result<Credentials> {
        let stamp = source.stamp();
        let now = Now { material: Arc::new(source.read()?), stamp, looked: Instant::now() };
        Ok(Credentials { source: Arc::new(source), now: Arc::new(Mutex::new(now)) })
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.material().identity.clone()
    }

    /// What connections are made with now.
    pub(crate) fn material(&self) -> Arc<Material> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= LOOK_EVERY {
            now.looked = Instant::now();
            let stamp = self.source.stamp();
            if stamp != now.stamp {
                match self.renewed(&now.material.identity) {
                    Ok(material) => {
                        tracing::info!(from = %self.source.path().display(), "certificates were renewed");
                        (now.material, now.stamp) = (Arc::new(material), stamp);
                    }
                    // Looked at again in a second: they may be half written.
                    Err(error) => tracing::warn!(
                        from = %self.source.path().display(),
                        error = error.chain(),
                        "certificates have changed and cannot be used: the ones before are"
                    ),
                }
            }
        }
        now.material.clone()
    }

    fn renewed(&self, before: &Identity) -> Result<Material> {
        let material = self.source.read()?;
        if (material.identity.role, &material.identity.cluster) != (before.role, &before.cluster) {
            return Err(Error::configuration(format!(
                "they are of {} and were of {before}",
                material.identity
            )));
        }
        Ok(material)
    }
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Source::Folder(path) | Source::Token { path, .. } => path,
        }
    }

    fn stamp(&self) -> Stamp {
        let of = |path: PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.len(), meta.modified().ok()?))
        };
        match self {
            Source::Folder(folder) => {
                let names = [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE];
                (names.map(|name| of(folder.join(name))).into(), 0)
            }
            Source::Token { path, .. } => (vec![of(path.clone())], token::generation(SystemTime::now())),
        }
    }

    fn read(&self) -> Result<Material> {
        match self {
            Source::Folder(folder) => Material::read(folder),
            Source::Token { path, role, name } => Token::read(path)?.member(*role, name),
        }
    }
}

impl Material {
    fn read(folder: &Path) -> Result<Material> {
        let [authority, certificate, key] =
            [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE].map(|name| folder.join(name));
        let unusable = |path: &Path, why: String| {
            Error::configuration(format!("{} cannot be used: {why}", path.display()))
        };
        let roots = certificates(&authority)?;
        let chain = certificates(&certificate)?;
        let pem = small(&key)?;
        if is_everybodys(&key) {
            // Secrets that Kubernetes mounts are so by default, in a file system that nobody else has.
            tracing::warn!(
                file = %key.display(),
                "everybody on this host may use this key: take that away (chmod o= …; defaultMode: 0440)"
            );
        }
        // What is wrong with a key is not said: that may be a part of it.
        let key_der = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| unusable(&key, "it holds no private key in PEM".to_owned()))?;
        Material::new(&roots, chain, key_der).map_err(|(part, why)| match part {
            Part::Authority => unusable(&authority, why),
            Part::Certificate => unusable(&certificate, why),
            Part::Key => unusable(&key, format!("it does not fit {}: {why}", certificate.display())),
        })
    }

    /// What is made of certificates of authorities, a member's own and what leads from it to them, and its key. Else which of them cannot be
    /// used, and why.
    pub(crate) fn new(
        authorities: &[CertificateDer<'static>],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Material, (Part, String)> {
        let mut roots = RootCertStore::empty();
        for root in authorities {
            roots.add(root.clone()).map_err(|e| (Part::Authority, e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let owner = chain.first().ok_or((Part::Certificate, "it holds no certificate".to_owned()))?;
        let identity = Identity::of_certificate(owner).map_err(|e| (Part::Certificate, e.chain()))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| (Part::Authority, e.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| (Part::Authority, e.to_string()))?
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| (Part::Key, e.to_string()))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Who resumes a session shows no certificate, and would be believed for as long as it likes by one that has expired.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Material { identity, server: Arc::new(server), roots, clients, chain, key })
    }

    /// What believes a member with this role.
    pub(crate) fn verifier(&self, role: Role) -> MemberVerifier {
        MemberVerifier::new(self.roots.clone(), provider(), &self.identity.cluster, role)
    }

    /// Refuses whoever has shown this certificate, and what leads from it to an authority, where that does not hold at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (own, above) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.clients.verify_client_cert(own, above, now).map(drop)
    }

    /// Refuses to prove anything with a certificate that has expired: the other end hangs up and does not say why.
    ///
    /// # Errors
    /// Text that says whose it is.
    pub(crate) fn check_time(&self, now: UnixTime) -> Result<(), String> {
        let Some((own, above)) = self.chain.split_first() else { return Ok(()) };
        let Ok(own) = ParsedCertificate::try_from(own) else { return Ok(()) };
        let algorithms = provider().signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&own, &self.roots, above, now, algorithms) {
            Err(error) if has_expired(&error) => {
                Err(format!("the own certificate, of the {}, has expired: get a new one", self.identity))
            }
            // Whatever else is odd, whoever is shown it says so.
            _ => Ok(()),
        }
    }

    /// How to reach a member with this role.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where the library refuses what it took before.
    pub(crate) fn client(&self, role: Role) -> Result<ClientConfig> {
        let refused = |e: rustls::Error| Error::internal("TLS cannot be set up").with_source(e);
        let verifier = self.verifier(role);
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(refused)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(client)
    }
}

/// A part of what a member proves itself with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Authority,
    Certificate,
    Key,
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = small(path)?;
    let unreadable =
        |e| Error::configuration(format!("{} holds no certificates in PEM: {e}", path.display()));
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(Error::configuration(format!("{} holds no certificate in PEM", path.display())));
    }
    Ok(found)
}

/// Whether others than a file's owner and group may use it.
pub(crate) fn is_everybodys(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0)
}

/// The content of a file that is small.
pub(crate) fn small(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let cannot = |e| Error::configuration(format!("{} cannot be read", path.display())).with_source(e);
    let meta = std::fs::metadata(path).map_err(cannot)?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        let text = format!("{} has to be a file of at most {FILE_BYTES_MAX} bytes", path.display());
        return Err(Error::configuration(text));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rcgen::KeyPair;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::authority::Authority;
    use crate::cryptography::{Records, provider_with};

    /// Larger than a record.
    const BYTES: usize = 100_000;

    fn ends(material: &Material, client: Records, server: Records) -> (ClientConnection, ServerConnection) {
        let server = ServerConfig::builder_with_provider(provider_with(server).into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(material.chain.clone(), material.key.clone_key())
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider_with(client).into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(material.verifier(Role::Worker)))
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        (
            ClientConnection::new(Arc::new(client), name).unwrap(),
            ServerConnection::new(Arc::new(server)).unwrap(),
        )
    }

    #[test]
    fn records_are_opened_whoever_sealed_them() {
        let authority = Authority::with_key("lab", KeyPair::generate().unwrap()).unwrap();
        let material = authority.member(&Identity::new("lab", Role::Worker, "w").unwrap(), 1).unwrap();
        let said: Vec<u8> = (0..BYTES).map(|i| i as u8).collect();
        for (asker, owner) in [
            (Records::AwsLc, Records::AwsLc),
            (Records::AwsLc, Records::Ring),
            (Records::Ring, Records::AwsLc),
            (Records::Ring, Records::Ring),
        ] {
            let (mut client, mut server) = ends(&material, asker, owner);
            let (mut sent, mut heard) = (0, Vec::new());
            while heard.len() < BYTES {
                if !server.is_handshaking() && sent < BYTES {
                    sent += server.writer().write(&said[sent..]).unwrap();
                }
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().unwrap();
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut wire = wire.as_slice();
                while !wire.is_empty() {
                    client.read_tls(&mut wire).unwrap();
                    client.process_new_packets().unwrap();
                    let mut part = vec![0; BYTES];
                    while let Ok(n) = client.reader().read(&mut part)
                        && n > 0
                    {
                        heard.extend_from_slice(&part[..n]);
                    }
                }
            }
            assert!(heard == said, "{asker:?} asked {owner:?}");
            let suite = client.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256, "{asker:?} asked {owner:?}");
        }
    }
}
