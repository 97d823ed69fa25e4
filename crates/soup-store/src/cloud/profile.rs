//! Profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.
//!
//! What the environment says counts first. A profile with keys is read here; for one that needs more (SSO, a role, a login, a
//! process), a command gives the credentials: its own `credential_process`, or `aws configure export-credentials`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use soup_core::{Error, Result};

use super::Settings;
use super::credentials::{Process, ProcessCredentials};

/// Largest file of profiles that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A profile's settings by name; nested ones are `outer.inner`.
type Profile = BTreeMap<String, String>;

/// The settings with what the profile adds, and where credentials come from if that is a command.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) for a profile that is named and not there.
pub(super) fn complete(mut settings: Settings) -> Result<(Settings, Option<ProcessCredentials>)> {
    let files = Files::read(&settings)?;
    let Some(profile) = files.profile()? else { return Ok((settings, None)) };
    let process = add(&mut settings, &files, &profile);
    Ok((settings, process.map(ProcessCredentials::new)))
}

/// Where credentials are looked for, for people.
pub(super) fn looked_for(settings: &Settings) -> String {
    let name = get(settings, &["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]).unwrap_or("default");
    format!(
        "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN, profile {name:?} in \
         ~/.aws/credentials and ~/.aws/config, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, and the metadata service of an EC2 machine, \
         which does not answer or has none; AWS_SKIP_SIGNATURE=true reads what is public"
    )
}

fn get<'a>(settings: &'a Settings, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        settings.iter().rev().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    })
}

/// Adds what the profile says to what the environment says; a command, if credentials come from one.
fn add(settings: &mut Settings, files: &Files, profile: &Profile) -> Option<Process> {
    let mut push = |names: &[&str], value: Option<&String>| {
        if let (None, Some(value)) = (get(settings, names), value) {
            settings.push((names[0].to_owned(), value.clone()));
        }
    };
    push(&["AWS_REGION", "AWS_DEFAULT_REGION", "region"], profile.get("region"));
    let endpoints = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "endpoint", "endpoint_url"];
    let service = profile.get("services").and_then(|name| files.config.get(&format!("services {name}")));
    let endpoint = service.and_then(|s| s.get("s3.endpoint_url")).or(profile.get("endpoint_url"));
    push(&endpoints, endpoint);
    if profile.get("s3.addressing_style").is_some_and(|style| style == "virtual") && endpoint.is_none() {
        push(&["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"], Some(&"true".to_owned()));
    }
    let own = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE", "access_key_id"];
    let others = [
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ];
    if get(settings, &own).is_some() || (!files.named && get(settings, &others).is_some()) {
        return None;
    }
    let text = |name: &str| profile.get(name).filter(|v| !v.is_empty());
    if let (Some(role), Some(token)) = (text("role_arn"), text("web_identity_token_file")) {
        settings.push(("AWS_ROLE_ARN".to_owned(), role.clone()));
        settings.push(("AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(), token.clone()));
        return None;
    }
    let about = format!("profile {:?} of {}", files.name, files.config_path.display());
    if text("role_arn").is_none()
        && let (Some(id), Some(secret)) = (text("aws_access_key_id"), text("aws_secret_access_key"))
    {
        settings.push(("AWS_ACCESS_KEY_ID".to_owned(), id.clone()));
        settings.push(("AWS_SECRET_ACCESS_KEY".to_owned(), secret.clone()));
        if let Some(token) = text("aws_session_token") {
            settings.push(("AWS_SESSION_TOKEN".to_owned(), token.clone()));
        }
        return None;
    }
    if let Some(command) = text("credential_process") {
        return Some(Process { command: ["sh", "-c", command].map(str::to_owned).to_vec(), about });
    }
    let needs = ["role_arn", "sso_session", "sso_start_url", "login_session", "credential_source"];
    needs.iter().find(|n| text(n).is_some()).map(|needs| Process {
        command: ["aws", "configure", "export-credentials", "--format", "process", "--profile", &files.name]
            .map(str::to_owned)
            .to_vec(),
        about: format!(
            "{about} has {needs}, for which `aws configure export-credentials` of the AWS command line, version 2, is asked"
        ),
    })
}

/// The two files, by section.
#[derive(Debug, Default)]
struct Files {
    /// The profile that is looked for.
    name: String,
    /// Whether the environment names it.
    named: bool,
    config_path: PathBuf,
    credentials: BTreeMap<String, Profile>,
    config: BTreeMap<String, Profile>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Files> {
        let home = || std::env::var_os("HOME").map(PathBuf::from);
        let at = |variable: &str, file: &str| {
            get(settings, &[variable]).map(expand_home).or_else(|| Some(home()?.join(".aws").join(file)))
        };
        let named = get(settings, &["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let mut files =
            Files { name: named.unwrap_or("default").to_owned(), named: named.is_some(), ..Files::default() };
        if let Some(path) = at("AWS_SHARED_CREDENTIALS_FILE", "credentials") {
            files.credentials = sections(&path)?;
        }
        if let Some(path) = at("AWS_CONFIG_FILE", "config") {
            files.config = sections(&path)?;
            files.config_path = path;
        }
        Ok(files)
    }

    /// The profile, from both files; keys of the credentials file count first.
    fn profile(&self) -> Result<Option<Profile>> {
        let config = self.config.get(&format!("profile {}", self.name));
        let config = config.or_else(|| self.config.get("default").filter(|_| self.name == "default"));
        let credentials = self.credentials.get(&self.name);
        if config.is_none() && credentials.is_none() {
            return match self.named {
                true => Err(Error::configuration(format!(
                    "AWS_PROFILE names profile {:?}, which is neither in ~/.aws/credentials nor in ~/.aws/config",
                    self.name
                ))),
                false => Ok(None),
            };
        }
        let mut profile = config.cloned().unwrap_or_default();
        profile.extend(credentials.cloned().unwrap_or_default());
        Ok(Some(profile))
    }
}

fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

fn sections(path: &std::path::Path) -> Result<BTreeMap<String, Profile>> {
    use std::io::Read;
    let unreadable =
        |e: std::io::Error| Error::configuration(format!("cannot read {}", path.display())).with_source(e);
    let file = match crate::local::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(e) => return Err(unreadable(e)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(parse(&text))
}

/// Sections of `name = value` lines; indented lines belong to the name before them.
fn parse(text: &str) -> BTreeMap<String, Profile> {
    let mut sections: BTreeMap<String, Profile> = BTreeMap::new();
    let (mut section, mut outer) = (None, String::new());
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(inside) = trimmed.strip_prefix('[') {
            let name = inside.split(']').next().unwrap_or_default();
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ").replace('"', "");
            sections.entry(name.clone()).or_default();
            section = Some(name);
            outer.clear();
            continue;
        }
        let (Some(section), Some((key, value))) = (&section, trimmed.split_once('=')) else { continue };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let value = value.split(" #").next().unwrap_or_default().trim_end().to_owned();
        let nested = line.starts_with([' ', '\t']) && !outer.is_empty();
        if !nested {
            outer = if value.is_empty() { key.clone() } else { String::new() };
        }
        let key = if nested { format!("{outer}.{key}") } else { key };
        sections.entry(section.clone()).or_default().insert(key, value);
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[default]\nregion = eu-west-1\n\n# a comment\n[profile lab]\nregion=us-west-2\nendpoint_url = https://minio\n\
        s3 =\n  addressing_style = virtual\n[profile sso]\nsso_session = x\n[profile proc]\ncredential_process = \"/opt/x\" --a b\n\
        [profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n[profile web]\nrole_arn = r\nweb_identity_token_file = /t\n\
        [services s]\ns3 =\n  endpoint_url = https://s3.lab\n[profile svc]\nservices = s\naws_access_key_id = k\naws_secret_access_key = s\n";
    const CREDENTIALS: &str = "[default]\naws_access_key_id = a\naws_secret_access_key = b\n[lab]\naws_access_key_id=c\naws_secret_access_key=d\naws_session_token=e\n";

    /// What the profile adds to `environment`, and the command.
    fn added(name: Option<&str>, environment: &[(&str, &str)]) -> (Settings, Option<Vec<String>>) {
        let files = Files {
            name: name.unwrap_or("default").to_owned(),
            named: name.is_some(),
            config_path: PathBuf::from("/c"),
            credentials: parse(CREDENTIALS),
            config: parse(CONFIG),
        };
        let given: Settings = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut settings = given.clone();
        let process = add(&mut settings, &files, &files.profile().unwrap().unwrap());
        (settings.split_off(given.len()), process.map(|p| p.command))
    }

    #[track_caller]
    fn adds(name: Option<&str>, environment: &[(&str, &str)], expect: &[(&str, &str)]) {
        let expect: Settings = expect.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(added(name, environment), (expect, None));
    }

    #[test]
    fn a_profile_completes_the_environment() {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        adds(None, &[], &[&[("AWS_REGION", "eu-west-1")], &keys[..]].concat());
        adds(None, &[("AWS_REGION", "x")], &keys);
        adds(None, &[("AWS_ACCESS_KEY_ID", "x"), ("AWS_DEFAULT_REGION", "y")], &[]);
        adds(None, &[("AWS_SKIP_SIGNATURE", "true")], &[("AWS_REGION", "eu-west-1")]);
        let lab = [
            ("AWS_REGION", "us-west-2"),
            ("AWS_ENDPOINT_URL", "https://minio"),
            ("AWS_ACCESS_KEY_ID", "c"),
            ("AWS_SECRET_ACCESS_KEY", "d"),
            ("AWS_SESSION_TOKEN", "e"),
        ];
        adds(Some("lab"), &[], &lab);
        adds(Some("lab"), &[("AWS_ENDPOINT_URL_S3", "x"), ("AWS_REGION", "y")], &lab[2..]);
        adds(Some("web"), &[], &[("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]);
        let own = [
            ("AWS_ENDPOINT_URL", "https://s3.lab"),
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        adds(Some("svc"), &[], &own);
    }

    #[test]
    fn profiles_that_need_more_are_asked_for_by_a_command() {
        let command = |name: &str| added(Some(name), &[]).1.unwrap().join(" ");
        assert_eq!(command("sso"), "aws configure export-credentials --format process --profile sso");
        assert_eq!(command("role"), "aws configure export-credentials --format process --profile role");
        assert_eq!(command("proc"), "sh -c \"/opt/x\" --a b");
    }

    #[test]
    fn a_profile_that_is_not_there_is_refused_where_it_is_named() {
        let files = |named| Files { name: "nobody".to_owned(), named, ..Files::default() };
        assert!(files(false).profile().unwrap().is_none());
        let e = files(true).profile().unwrap_err();
        assert!(e.chain().contains("AWS_PROFILE names profile \"nobody\""), "{}", e.chain());
    }
}
