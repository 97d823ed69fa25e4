//! Signatures: that records of a journal and the manifest of an output are what a coordinator wrote.
//!
//! A coordinator with a *signing key* (Ed25519) signs what it writes; whoever has the *public key* checks it. What is signed is a JSON
//! object as it lies in the store, byte for byte: the signature is its last member, and is of the object without that member. So no
//! reader has to agree with the writer on how JSON is written, and one that knows nothing of signatures reads past them.
//!
//! A signature is of a [`Subject`] too, so that nothing that was signed as one thing passes for another.
//!
//! Keys are files: PEM with PKCS #8 for the signing key, as `openssl genpkey -algorithm ed25519` writes it too, readable by its owner
//! alone; PEM with the SubjectPublicKeyInfo for the public one. Nothing here shows or logs a signing key.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use soup_core::journal::sha256_hex;
use soup_core::{Error, Result};

use crate::local;

/// Largest key file.
const KEY_BYTES_MAX: u64 = 16 << 10;
/// What a key file of anybody but its owner's may not allow.
const MODE_OF_OTHERS: u32 = 0o077;
const PRIVATE_TAG: &str = "PRIVATE KEY";
const PUBLIC_TAG: &str = "PUBLIC KEY";
/// What the SubjectPublicKeyInfo of an Ed25519 key has before the key (RFC 8410).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PUBLIC_BYTES: usize = 32;
/// Digits of a key's id.
const ID_DIGITS: usize = 16;
const ALGORITHM: &str = "ed25519";
/// The text of a signature: `ed25519:<id>:<128 digits>`.
const SIGNATURE_CHARS: usize = ALGORITHM.len() + 1 + ID_DIGITS + 1 + 128;

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A record of the journal of a run, whose plan has this SHA-256 in hexadecimal.
    Record {
        /// The run.
        run: &'a str,
        /// Of its plan.
        plan_sha256: &'a str,
    },
    /// The manifest of an output.
    Manifest,
}

impl Subject<'_> {
    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let about = match self {
            Subject::Record { run, plan_sha256 } => format!("soupctl record 1\n{run}\n{plan_sha256}\n"),
            Subject::Manifest => "soupctl manifest 1\n".to_owned(),
        };
        [about.as_bytes(), bytes].concat()
    }
}

/// How the last member of a JSON object is written, and what closes the object.
struct Form {
    before: &'static str,
    after: &'static str,
    close: &'static str,
}

/// As JSON is written in one line, and on lines of its own.
const FORMS: [Form; 2] = [
    Form { before: ",\"signature\":\"", after: "\"}", close: "}" },
    Form { before: ",\n  \"signature\": \"", after: "\"\n}", close: "\n}" },
];

/// What a coordinator signs with.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signing key {}", self.public.id())
    }
}

impl SigningKey {
    /// A new one, in the new file `path`, and its public key in `path` with `.pub` after it, which is given back.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where one of the files is there already;
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where one cannot be written.
    pub fn create(path: &Path) -> Result<(SigningKey, PathBuf)> {
        let broken = |_| Error::internal("no key could be made");
        let pair = Ed25519KeyPair::generate().map_err(broken)?;
        let private = pair.to_pkcs8v1().map_err(broken)?;
        let key = SigningKey::of(pair)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        let beside = PathBuf::from(beside);
        if beside.symlink_metadata().is_ok() {
            return Err(taken(&beside));
        }
        create(path, 0o600, &pem::encode(&pem::Pem::new(PRIVATE_TAG, private.as_ref())))?;
        create(&beside, 0o644, &key.public.to_pem())?;
        Ok((key, beside))
    }

    /// The one in the file `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where it cannot be read, is none, or may be read by others
    /// than its owner.
    pub fn read(path: &Path) -> Result<SigningKey> {
        let wrong = |why: &str| Error::configuration(format!("signing key {}: {why}", path.display()));
        let unreadable = |e| wrong("it cannot be read").with_source(e);
        let file = local::open(path).map_err(unreadable)?;
        // Of the file that is open, not of what has its name by now.
        let mode = file.metadata().map_err(unreadable)?.mode();
        if mode & MODE_OF_OTHERS != 0 {
            return Err(wrong(&format!(
                "others than its owner may use the file (mode {:04o}): chmod 600 it, and make a new key if anybody could have read it",
                mode & 0o7777
            )));
        }
        let mut text = Vec::new();
        file.take(KEY_BYTES_MAX).read_to_end(&mut text).map_err(unreadable)?;
        // What cannot be read is not quoted.
        let no_key = || wrong("it is no Ed25519 key in PEM (PKCS #8); soupctl keys new makes one");
        let parsed = pem::parse(&text).ok().filter(|pem| pem.tag() == PRIVATE_TAG).ok_or_else(no_key)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(parsed.contents()).map_err(|_| no_key())?;
        SigningKey::of(pair)
    }

    fn of(pair: Ed25519KeyPair) -> Result<SigningKey> {
        let public = pair.public_key().as_ref().try_into();
        let public = public.map_err(|_| Error::internal("a key has no public half"))?;
        Ok(SigningKey { pair, public: PublicKey(public) })
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The JSON object `json`, signed.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for text that is no object with members.
    pub fn seal(&self, subject: Subject<'_>, json: &[u8]) -> Result<Vec<u8>> {
        let form = FORMS.iter().rev().find(|form| json.ends_with(form.close.as_bytes()));
        let form = form.filter(|form| json.len() > form.close.len() + 1);
        let form = form.ok_or_else(|| Error::internal("what is to be signed is no object"))?;
        let signature = hex::encode(self.pair.sign(&subject.message(json)));
        let mut sealed = json[..json.len() - form.close.len()].to_vec();
        let id = self.public.id();
        sealed.extend_from_slice(
            format!("{}{ALGORITHM}:{id}:{signature}{}", form.before, form.after).as_bytes(),
        );
        Ok(sealed)
    }
}

/// What signatures are checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

impl PublicKey {
    /// The one in the file `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) where it cannot be read or is none.
    pub fn read(path: &Path) -> Result<PublicKey> {
        let wrong = |why: &str| Error::usage(format!("public key {}: {why}", path.display()));
        let text =
            local::read_small(path, KEY_BYTES_MAX).map_err(|e| wrong("it cannot be read").with_source(e))?;
        let key = pem::parse(&text).ok().filter(|pem| pem.tag() == PUBLIC_TAG).and_then(|pem| {
            let key = pem.contents().strip_prefix(&PUBLIC_PREFIX)?;
            key.try_into().ok().map(PublicKey)
        });
        key.ok_or_else(|| wrong("it is no public Ed25519 key in PEM; that of a key FILE is in FILE.pub"))
    }

    /// What people tell it by.
    pub fn id(&self) -> String {
        let mut digest = sha256_hex(&self.0);
        digest.truncate(ID_DIGITS);
        digest
    }

    fn to_pem(self) -> String {
        pem::encode(&pem::Pem::new(PUBLIC_TAG, [&PUBLIC_PREFIX[..], &self.0].concat()))
    }

    /// Whether the JSON object `sealed` has the signature of this key.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](soup_core::ErrorKind::Data) where it has not, in words that follow what it is.
    pub fn check(&self, subject: Subject<'_>, sealed: &[u8]) -> Result<()> {
        let (json, signature) = split(sealed).ok_or_else(|| Error::data("it is not signed"))?;
        let (by, digits) = signature[ALGORITHM.len() + 1..].split_at(ID_DIGITS);
        if by != self.id() {
            let text = format!("it says that it is signed by key {by}, and not by key {}", self.id());
            return Err(Error::data(text));
        }
        let signature = hex::decode(&digits[1..]).unwrap_or_default();
        let checked = UnparsedPublicKey::new(&ED25519, &self.0).verify(&subject.message(&json), &signature);
        let altered = match subject {
            Subject::Record { .. } => {
                "it was changed after it was signed, or it is of another run or another plan"
            }
            Subject::Manifest => "it was changed after it was signed",
        };
        checked.map_err(|_| Error::data(altered))
    }
}

/// A JSON object without its signature, and that.
fn split(sealed: &[u8]) -> Option<(Vec<u8>, &str)> {
    FORMS.iter().find_map(|form| {
        let rest = sealed.strip_suffix(form.after.as_bytes())?;
        let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(SIGNATURE_CHARS)?)?;
        let json = rest.strip_suffix(form.before.as_bytes())?;
        let signature = std::str::from_utf8(signature).ok().filter(|text| text.is_ascii())?;
        let shaped = signature.starts_with(ALGORITHM) && signature.matches(':').count() == 2;
        shaped.then(|| ([json, form.close.as_bytes()].concat(), signature))
    })
}

fn taken(path: &Path) -> Error {
    Error::usage(format!("{} is there already, and no key is replaced: choose another name", path.display()))
}

/// Creates a file where nothing is.
fn create(path: &Path, mode: u32, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => taken(path),
        _ => Error::configuration(format!("{} cannot be written", path.display())).with_source(e),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use soup_core::ErrorKind;

    use super::*;

    const RECORD: Subject<'_> = Subject::Record { run: "greedy-1", plan_sha256: "ab" };

    fn key() -> SigningKey {
        SigningKey::of(Ed25519KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn what_is_signed_is_found_changed() {
        let key = key();
        for json in [&b"{\"a\":1}"[..], b"{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}"] {
            let sealed = key.seal(RECORD, json).unwrap();
            let check = |sealed: &[u8]| key.public().check(RECORD, sealed).map_err(|e| e.chain());
            check(&sealed).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
            assert!(
                value["signature"].as_str().unwrap().starts_with(&format!("ed25519:{}:", key.public().id()))
            );
            assert_eq!(split(&sealed).unwrap().0, json);
            // Every byte counts.
            for at in 0..sealed.len() {
                let mut other = sealed.clone();
                other[at] ^= 1;
                check(&other).unwrap_err();
            }
            assert_eq!(check(json).unwrap_err(), "it is not signed");
            assert!(
                super::tests::key().public().check(RECORD, &sealed).unwrap_err().chain().contains("by key")
            );
            for other in [Subject::Manifest, Subject::Record { run: "greedy-2", plan_sha256: "ab" }] {
                assert!(key.public().check(other, &sealed).unwrap_err().chain().contains("was changed"));
            }
        }
    }

    #[test]
    fn keys_are_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (made, beside) = SigningKey::create(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = SigningKey::read(&path).unwrap().seal(RECORD, b"{\"a\":1}").unwrap();
        assert_eq!(PublicKey::read(&beside).unwrap(), *made.public());
        PublicKey::read(&beside).unwrap().check(RECORD, &sealed).unwrap();
        assert!(!format!("{made:?}").contains(&std::fs::read_to_string(&path).unwrap()[30..60]));

        assert_eq!(SigningKey::create(&path).unwrap_err().kind(), ErrorKind::Usage);
        std::fs::remove_file(&path).unwrap();
        let error = SigningKey::create(&path).unwrap_err();
        assert!(error.chain().contains("key.pub is there already"), "{}", error.chain());
        assert!(!path.exists());
    }

    #[test]
    fn files_that_hold_no_key_or_are_open_to_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let (_, beside) = SigningKey::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = SigningKey::read(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.chain().contains(&format!("mode {mode:04o}")), "{}", error.chain());
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        SigningKey::read(&path).unwrap();
        assert!(PublicKey::read(&path).unwrap_err().chain().contains("FILE.pub"));
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(SigningKey::read(&beside).unwrap_err().chain().contains("no Ed25519 key"));
        assert!(
            SigningKey::read(&folder.path().join("none")).unwrap_err().chain().contains("cannot be read")
        );
    }

    /// The examples of RFC 8410.
    #[test]
    fn keys_of_other_programs_are_keys() {
        const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("key"), folder.path().join("key.pub"));
        create(&private, 0o600, PRIVATE).unwrap();
        create(&public, 0o644, PUBLIC).unwrap();
        let sealed = SigningKey::read(&private).unwrap().seal(Subject::Manifest, b"{\"a\":1}").unwrap();
        PublicKey::read(&public).unwrap().check(Subject::Manifest, &sealed).unwrap();
    }
}
