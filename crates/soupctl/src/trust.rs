//! Whom this process believes: credentials, plain text, and how a coordinator is reached with either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use soup_core::{Error, Result};
use soup_store::local;
use soup_store::location::Location;
use soup_store::places::{self, Places};
use soup_trust::{Connect, Credentials, Dialer, Identity, Role, plain_beyond_loopback};
use tonic::transport::{Channel, Endpoint};

use crate::print;

const TRUST: &str = "Trust";

/// Flags of everything that speaks to a cluster.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TrustArgs {
    /// Folder with ca.crt, tls.crt and tls.key (soupctl ca issue makes one): TLS, and with members of that cluster alone
    #[arg(long, env = "SOUP_TLS", value_name = "FOLDER", value_hint = clap::ValueHint::DirPath, help_heading = TRUST, conflicts_with = "insecure")]
    pub(crate) tls: Option<PathBuf>,
    /// File with the cluster's token (soupctl ca token makes one), instead of --tls: TLS with whoever has the same one, who may do everything
    #[arg(long, env = "SOUP_TOKEN_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = TRUST, conflicts_with_all = ["insecure", "tls"])]
    pub(crate) token_file: Option<PathBuf>,
    /// Speak plain text beyond this host: whoever is on the way can read along, take part and decide
    #[arg(long, env = "SOUP_INSECURE", help_heading = TRUST)]
    pub(crate) insecure: bool,
}

/// Flags of everything that works for others.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PlaceArgs {
    /// Read below this folder or URL for runs, and nowhere else; after pool= or data= for that alone; or everywhere [repeatable]
    #[arg(long, value_name = "[KIND=]PREFIX", help_heading = TRUST)]
    pub(crate) allow_read: Vec<String>,
    /// Write outputs below this folder or URL, and nowhere else; or everywhere [repeatable]
    #[arg(long, value_name = "PREFIX", help_heading = TRUST)]
    pub(crate) allow_write: Vec<String>,
}

impl PlaceArgs {
    /// Confines this process to these places, and to `own`; and its clients, where a file says so. Says so where they allow nothing.
    ///
    /// # Errors
    /// Those of places that are none.
    pub(crate) fn confine(&self, own: Option<&str>, clients: Option<&Path>) -> Result<()> {
        let mut places = Places::new(&self.allow_read, &self.allow_write)?;
        if let Some(file) = clients {
            places = places.with_clients(places_of_clients(file)?);
        }
        if let Some(own) = own {
            places = places.with_own(Location::parse(own)?);
        }
        if self.allow_read.is_empty() || self.allow_write.is_empty() {
            print::line(
                "warning: runs may read below --allow-read and write below --allow-write, and without one of them they can do nothing here",
            );
        }
        places::confine(places)
    }
}

impl TrustArgs {
    /// What this process proves itself with, as one of `roles`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for files that cannot be used.
    pub(crate) fn credentials(&self, roles: &[Role]) -> Result<Option<Credentials>> {
        if let Some(folder) = &self.tls {
            return Credentials::open(folder, roles).map(Some);
        }
        let Some(token) = &self.token_file else { return Ok(None) };
        // Whoever has the token may be anything, so also who may most.
        let role = roles.iter().copied().max().unwrap_or(Role::Client);
        Credentials::of_token(token, role, &own_name(role)).map(Some)
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some() || self.token_file.is_some()
    }

    /// The URL of a coordinator that is named as `HOST:PORT`, or as a URL, which has to fit.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for `http` with credentials, and for `https` without.
    pub(crate) fn url(&self, coordinator: &str) -> Result<String> {
        let scheme = if self.is_secure() { "https" } else { "http" };
        match coordinator.split_once("://") {
            None => Ok(format!("{scheme}://{coordinator}")),
            Some((given, _)) if given == scheme => Ok(coordinator.to_owned()),
            Some(("https", _)) => Err(Error::usage(format!(
                "coordinator {coordinator} speaks TLS, which needs --tls or --token-file"
            ))),
            Some(_) => Err(Error::usage(format!(
                "coordinator {coordinator} is said to speak plain text, and TLS is wanted: write HOST:PORT or https://"
            ))),
        }
    }

    /// Refuses plain text with a coordinator beyond this host, unless it is wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), saying what to do.
    pub(crate) async fn check_reach(&self, url: &str) -> Result<()> {
        let Some(address) = url.strip_prefix("http://") else { return Ok(()) };
        let port =
            if address.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()) { "" } else { ":80" };
        // A name that does not resolve yet is no reason to fail here: connecting says it better, and looks again.
        let found = tokio::net::lookup_host(format!("{address}{port}")).await;
        let found: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
        plain_beyond_loopback("would speak to the coordinator at", &found, self.insecure)
    }

    /// A connection to a coordinator, as a client of it.
    ///
    /// # Errors
    /// As for [`credentials`](TrustArgs::credentials) and [`check_reach`](TrustArgs::check_reach);
    /// [`ErrorKind::Unavailable`](soup_core::ErrorKind::Unavailable) where nobody answers, or somebody else than is wanted.
    pub(crate) async fn connect(&self, url: &str, endpoint: &Endpoint) -> Result<Channel> {
        let credentials = self.credentials(&[Role::Client, Role::Admin])?;
        self.check_reach(url).await?;
        let dialer = Dialer::new(credentials, self.insecure, Role::Coordinator);
        let unreachable =
            |e| Error::unavailable(format!("the coordinator at {url} cannot be reached")).with_source(e);
        dialer.connect(endpoint).await.map_err(unreachable)
    }
}

/// Largest file of the places of clients.
const CLIENTS_BYTES_MAX: u64 = 1 << 20;

/// What such a file says of one client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientPlaces {
    #[serde(default)]
    read: Vec<String>,
    #[serde(default)]
    write: Vec<String>,
}

/// The places of clients, by name.
fn places_of_clients(file: &Path) -> Result<BTreeMap<String, Places>> {
    let about = |what: &str| format!("{} {what}", file.display());
    let unreadable = |e| Error::configuration(about("cannot be read")).with_source(e);
    let bytes = local::read_small(file, CLIENTS_BYTES_MAX).map_err(unreadable)?;
    let text =
        String::from_utf8(bytes).map_err(|e| Error::configuration(about("is not UTF-8")).with_source(e))?;
    let options = serde_saphyr::options! { with_snippet: false };
    let wrong = "does not say who may read and write where";
    // The parser takes an empty file for a table without entries.
    let clients: BTreeMap<String, ClientPlaces> = serde_saphyr::from_str_with_options(&text, options)
        .map_err(|e| Error::configuration(about(wrong)).with_source(e))?;
    if clients.is_empty() {
        return Err(Error::configuration(about(wrong)));
    }
    clients.into_iter().map(|(name, of)| Ok((name, Places::new(&of.read, &of.write)?))).collect()
}

/// How whoever has a token is called, for people: after the user, and after the host where it works for others.
fn own_name(role: Role) -> String {
    let name = match role {
        Role::Client | Role::Admin => std::env::var("USER").ok(),
        Role::Coordinator | Role::Worker => {
            Some(rustix::system::uname().nodename().to_string_lossy().into_owned())
        }
    };
    let is_name = |name: &String| Identity::new("token", role, name).is_ok();
    name.filter(is_name).unwrap_or_else(|| role.name().to_owned())
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;

    #[test]
    fn a_coordinator_is_reached_as_credentials_say() {
        let plain = TrustArgs::default();
        let tls = TrustArgs { tls: Some("/creds".into()), ..TrustArgs::default() };
        let token = TrustArgs { token_file: Some("/token".into()), ..TrustArgs::default() };
        assert_eq!(token.url("host:1").unwrap(), "https://host:1");
        assert_eq!(plain.url("host:1").unwrap(), "http://host:1");
        assert_eq!(tls.url("host:1").unwrap(), "https://host:1");
        assert_eq!(plain.url("http://host:1").unwrap(), "http://host:1");
        assert_eq!(tls.url("https://host:1").unwrap(), "https://host:1");
        for (args, url) in [(&plain, "https://host:1"), (&tls, "http://host:1")] {
            assert_eq!(args.url(url).unwrap_err().kind(), ErrorKind::Usage);
        }
    }

    #[tokio::test]
    async fn plain_text_stays_on_this_host() {
        let here = TrustArgs::default();
        for url in [
            "http://127.0.0.1:7070",
            "http://[::1]:7070",
            "http://127.0.0.1",
            "http://no.such.host.invalid:7070",
        ] {
            here.check_reach(url).await.unwrap();
        }
        for url in ["http://192.0.2.1:7070", "http://192.0.2.1", "http://[2001:db8::1]:7070"] {
            let error = here.check_reach(url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.chain().contains("--insecure"), "{}", error.chain());
            TrustArgs { insecure: true, ..TrustArgs::default() }.check_reach(url).await.unwrap();
        }
        here.check_reach("https://192.0.2.1:7070").await.unwrap();
    }
}
