//! Stores over a network: S3, Google Cloud Storage, Azure, plain HTTP.
//!
//! Between the store's client and the network is a [service](service) of our own, which waits as long as a store asks, keeps
//! odd keys from stopping a listing, and says why there are no credentials. The [settings](profile) come from the environment
//! and from the files of the AWS command line.

use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreScheme};
use soup_core::{Error, Result};
use url::Url;

mod credentials;
mod keys;
mod profile;
mod service;

pub(crate) use service::{Endless, NoCredentials, with_left_out, within_pages};

/// Settings by name, as the environment has them; the last one of a name counts.
pub(crate) type Settings = Vec<(String, String)>;

/// What the environment says about stores.
pub(crate) fn environment() -> Settings {
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, v)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| k.starts_with(p)) && !v.is_empty())
        .collect()
}

/// The store at `base`, with `settings`.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for settings that are no use.
pub(crate) fn new_store(base: &Url, settings: Settings) -> Result<Arc<dyn ObjectStore>> {
    let failed = |e: object_store::Error| {
        Error::configuration(format!("cannot set up the store of {base}"))
            .with_source(crate::cause::one_line(e))
    };
    let (scheme, _) = ObjectStoreScheme::parse(base)
        .map_err(|e| Error::usage(format!("{base} is not a usable place")).with_source(e))?;
    let mut settings = settings;
    if base.scheme() == "http" {
        settings.push(("allow_http".to_owned(), "true".to_owned()));
    }
    let url = base.to_string();
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let (settings, credentials) = profile::complete(settings)?;
            refuse_plain_http(base, &settings, "AWS_ALLOW_HTTP")?;
            let looked_for = profile::looked_for(&settings);
            let mut builder =
                AmazonS3Builder::new().with_url(url).with_http_connector(service::Connector::new(looked_for));
            for (key, value) in options(settings) {
                if let Ok(key) = key.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            if let Some(credentials) = credentials {
                builder = builder.with_credentials(Arc::new(credentials));
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            refuse_plain_http(base, &settings, "GOOGLE_ALLOW_HTTP")?;
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_url(url)
                .with_http_connector(service::Connector::new(GOOGLE_LOOKED_FOR.to_owned()));
            for (key, value) in options(settings) {
                if let Ok(key) = key.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            refuse_plain_http(base, &settings, "AZURE_ALLOW_HTTP")?;
            let mut builder = MicrosoftAzureBuilder::new()
                .with_url(url)
                .with_http_connector(service::Connector::new(AZURE_LOOKED_FOR.to_owned()));
            for (key, value) in options(settings) {
                if let Ok(key) = key.parse() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.build().map_err(failed)?)
        }
        _ => {
            let mut builder = HttpBuilder::new()
                .with_url(&base[..url::Position::BeforePath])
                .with_http_connector(service::Connector::new(String::new()));
            for (key, value) in options(settings) {
                if let Ok(key) = key.parse::<ClientConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            Arc::new(builder.build().map_err(failed)?)
        }
    })
}

const GOOGLE_LOOKED_FOR: &str = "GOOGLE_SERVICE_ACCOUNT, GOOGLE_SERVICE_ACCOUNT_KEY, GOOGLE_APPLICATION_CREDENTIALS, \
    ~/.config/gcloud/application_default_credentials.json (`gcloud auth application-default login`) and the metadata service \
    of a Google machine, which does not answer; GOOGLE_SKIP_SIGNATURE=true reads what is public";
const AZURE_LOOKED_FOR: &str = "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_KEY, AZURE_STORAGE_TOKEN, AZURE_CLIENT_ID with \
    AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE, AZURE_USE_AZURE_CLI=true and the metadata service of an Azure machine, \
    which does not answer; AZURE_SKIP_SIGNATURE=true reads what is public";

/// The settings by the names that the store's client knows, after our own bounds.
fn options(settings: Settings) -> impl Iterator<Item = (String, String)> {
    // The total timeout of the store's client (30 s) includes the body, which would cut every large read on a slow link; a
    // stalled connection is what has to be noticed. Retries of what fails stay at its bounds: 10 within 180 s.
    let bounds = [("timeout", "1 day"), ("read_timeout", "60 seconds"), ("connect_timeout", "10 seconds")];
    let known = |(key, value): (String, String)| {
        let key = key.to_ascii_lowercase();
        let key = if key.ends_with("_allow_http") { "allow_http".to_owned() } else { key };
        (key, value)
    };
    bounds.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().chain(settings.into_iter().map(known))
}

/// Refuses an endpoint without TLS that was not allowed, by the name of the variable that does.
fn refuse_plain_http(base: &Url, settings: &Settings, variable: &str) -> Result<()> {
    let yes = |v: &str| ["1", "true", "yes", "on", "y"].contains(&v.trim().to_ascii_lowercase().as_str());
    let allowed = settings.iter().rev().find(|(k, _)| k.to_ascii_lowercase().ends_with("allow_http"));
    if allowed.is_some_and(|(_, v)| yes(v)) {
        return Ok(());
    }
    let own = variable.split('_').next().unwrap_or_default();
    let endpoints = [
        "AWS_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "GOOGLE_BASE_URL",
        "AZURE_ENDPOINT",
        "AZURE_STORAGE_ENDPOINT",
    ];
    let plain = settings.iter().find(|(key, value)| {
        key.starts_with(own)
            && endpoints.contains(&key.as_str())
            && value.trim().to_ascii_lowercase().starts_with("http://")
    });
    match plain {
        None => Ok(()),
        Some((key, _)) => Err(Error::configuration(format!(
            "{base}: {key} begins with http://, and connections without TLS are refused: set {variable}=true to allow them"
        ))),
    }
}

#[cfg(test)]
mod tests;
