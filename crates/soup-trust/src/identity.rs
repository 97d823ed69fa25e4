//! What a certificate says of its owner.
//!
//! It is one URI among the certificate's alternative names, `soup://CLUSTER/ROLE/NAME`. Where certificates have to be SPIFFE's, it is
//! `spiffe://CLUSTER/soup/ROLE/NAME`: there the cluster is the trust domain. A certificate with none of these, or with more than one, is
//! nobody's: nothing is guessed from common names.

use std::fmt;

use rustls::pki_types::CertificateDer;
use soup_core::{Error, Result};
use webpki::EndEntityCert;

/// Longest name of a cluster or of a member, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// What a member of a cluster is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes runs from clients and gives work to workers.
    Coordinator,
    /// Holds shards, serves blends to its peers, evaluates.
    Worker,
    /// Submits runs, and sees and cancels its own.
    Client,
    /// A client to whom everybody's runs are its own.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Coordinator, Role::Worker, Role::Client, Role::Admin];

    /// As certificates and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Client => "client",
            Role::Admin => "admin",
        }
    }

    /// The role that is spelled so.
    pub fn of(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: String,
    /// What it is there for.
    pub role: Role,
    /// Its name in that role.
    pub name: String,
}

impl Identity {
    /// A member.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for a name that is not one of letters, digits, `-`, `_` and `.`.
    pub fn new(cluster: &str, role: Role, name: &str) -> Result<Identity> {
        for (what, text) in [("cluster", cluster), ("name", name)] {
            if !is_name(text) {
                return Err(Error::usage(format!(
                    "{what} {text:?} has to be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', and to begin with a letter or a digit"
                )));
            }
        }
        Ok(Identity { cluster: cluster.to_owned(), role, name: name.to_owned() })
    }

    /// The URI that says so.
    pub fn uri(&self) -> String {
        format!("soup://{}/{}/{}", self.cluster, self.role.name(), self.name)
    }

    /// What a URI says, if it is about a member of a cluster at all.
    pub fn of_uri(uri: &str) -> Option<Identity> {
        let (cluster, rest) = match uri.strip_prefix("soup://") {
            Some(rest) => rest.split_once('/')?,
            None => {
                let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
                (cluster, path.strip_prefix("soup/")?)
            }
        };
        let (role, name) = rest.split_once('/')?;
        Identity::new(cluster, Role::of(role)?, name).ok()
    }

    /// What a certificate says. Whether it may is for whoever checks the certificate.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) for a certificate that names no member, or several.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Identity> {
        let unreadable = |e| Error::configuration(format!("the certificate cannot be read: {e}"));
        let certificate = EndEntityCert::try_from(certificate).map_err(unreadable)?;
        let uris: Vec<&str> = certificate.valid_uri_names().collect();
        let found: Vec<Identity> = uris.iter().filter_map(|uri| Identity::of_uri(uri)).collect();
        match <[Identity; 1]>::try_from(found) {
            Ok([identity]) => Ok(identity),
            Err(found) => Err(Error::configuration(format!(
                "the certificate names {} members of a cluster and has to name one, as the URI soup://CLUSTER/ROLE/NAME or \
                 spiffe://CLUSTER/soup/ROLE/NAME",
                found.len()
            ))),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of cluster {:?}", self.role.name(), self.name, self.cluster)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_its_uri() {
        for role in Role::ALL {
            let member = Identity::new("lab-1", role, "node0.rack_3").unwrap();
            assert_eq!(Identity::of_uri(&member.uri()), Some(member.clone()));
            let spiffe = format!("spiffe://lab-1/soup/{}/node0.rack_3", role.name());
            assert_eq!(Identity::of_uri(&spiffe), Some(member));
        }
    }

    #[test]
    fn what_is_no_member_is_not_made_one() {
        for uri in [
            "",
            "soup://",
            "soup://lab",
            "soup://lab/worker",
            "soup://lab/worker/",
            "soup:///worker/w",
            "soup://lab/cook/w",
            "soup://lab/Worker/w",
            "soup://lab/worker/w/x",
            "soup://lab/worker/..",
            "soup://lab/worker/w w",
            "soup://lab/worker/w\u{202e}",
            "soup://lab@x/worker/w",
            "soups://lab/worker/w",
            "https://lab/soup/worker/w",
            "spiffe://lab/worker/w",
            "spiffe://lab/ns/soup/worker/w",
        ] {
            assert_eq!(Identity::of_uri(uri), None, "{uri}");
        }
        let long = "w".repeat(NAME_BYTES_MAX);
        assert!(Identity::new("lab", Role::Worker, &long).is_ok());
        assert!(Identity::new("lab", Role::Worker, &format!("{long}w")).is_err());
    }
}
