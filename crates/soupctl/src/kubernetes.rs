//! `soupctl k8s`: one cook as objects for Kubernetes, and the chart for those who use Helm.
//!
//! All of it is made of `k8s/base` ([render](mod@render)); what cannot work in a pod is refused before anything is made
//! ([fitting](mod@fitting)). [chart](mod@chart) is the same objects with placeholders. `submit`, a feature of its own, applies them and
//! follows the cook.

mod chart;
mod fitting;
mod render;
#[cfg(feature = "k8s")]
mod submit;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use soup_core::journal::sha256_hex;
use soup_core::{Error, Result};

use crate::cookfile::{self, CookOptions};
use crate::print;

use render::{ACCOUNT, Claim, DEFAULT_DENY, Deployment};

/// Longest name of a cook: a pod's name has 63 characters, and the Job's and its own suffixes are among them.
const NAME_CHARS_MAX: usize = 40;
/// Longest name of a namespace, and of most other things.
const LABEL_CHARS_MAX: usize = 63;
const DOTTED_CHARS_MAX: usize = 253;
/// Most workers: their numbers are part of pods' names.
const WORKERS_MAX: i64 = 10_000;
/// Digits of a digest that tell two cooks of one namespace apart.
const DIGEST_SHOWN: usize = 8;

/// What `k8s` does.
#[derive(Debug, Subcommand)]
pub(crate) enum KubernetesCommand {
    /// Print the objects of one cook as YAML, for kubectl apply -f -
    ///
    /// They are those of k8s/base with names of their own, since Jobs cannot change: several cooks fit into one namespace, and share its
    /// service account and the policy default-deny. To delete a cook: kubectl delete jobs,services,configmaps,networkpolicies
    /// -l app.kubernetes.io/instance=NAME.
    #[command(after_help = RENDER_EXAMPLES)]
    Render(RenderArgs),
    /// Write the Helm chart of this version into a folder
    Chart {
        /// The folder; what the chart has there is replaced
        #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// Apply the objects of one cook to the cluster of the kubeconfig, and follow it to its end; the exit code is the run's
    ///
    /// Ctrl-C ends the following and not the cook. The same command again goes on following.
    #[cfg(feature = "k8s")]
    Submit(submit::SubmitArgs),
}

const RENDER_EXAMPLES: &str = "\
Examples:
  soupctl k8s render -f cook.yaml --image lab/soupctl:0.1.0 --workers 8 | kubectl apply --server-side -f -
  soupctl k8s render -f cook.yaml --image lab/soupctl:0.1.0 --workers 8 --secret soup-s3 --memory 64Gi --no-namespace
  soupctl k8s render -f cook.yaml --image lab/soupctl:0.1.0 --workers 2 --claim soup-data=/data";

/// Flags of `k8s render`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RenderArgs {
    /// Cook file (YAML): what is cooked. Its paths are those in pods, so absolute, or URLs
    #[arg(short = 'f', long, value_name = "PATH")]
    file: PathBuf,
    /// Image of coordinator and workers, with a version
    #[arg(long, value_parser = image)]
    image: String,
    /// Number of workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX))]
    workers: u32,
    /// GPUs of each worker (nvidia.com/gpu)
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    gpus: u32,
    /// Processors of each worker, such as 8 or 500m [default: as in k8s/base]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    cpus: Option<String>,
    /// Memory of each worker, such as 64Gi; it takes three quarters of it by itself [default: as in k8s/base]
    #[arg(long, value_name = "QUANTITY", value_parser = quantity)]
    memory: Option<String>,
    /// What the cook's objects are called [default: soup-RECIPE-, and some digits of what is rendered]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// The namespace
    #[arg(long, default_value = "soup", value_name = "NAME", value_parser = label)]
    namespace: String,
    /// Leave the namespace's own object out, for those who have one, or may make none
    #[arg(long)]
    no_namespace: bool,
    /// A secret whose entries become variables of all pods, such as AWS_ACCESS_KEY_ID; repeatable
    #[arg(long = "secret", value_name = "NAME", value_parser = dotted)]
    secrets: Vec<String>,
    /// A PersistentVolumeClaim that all pods have at this path; repeatable
    #[arg(long = "claim", value_name = "NAME=/PATH", value_parser = claim)]
    claims: Vec<Claim>,
}

/// The objects of one cook.
struct Rendered {
    name: String,
    namespace: String,
    objects: Vec<Value>,
}

/// Does it.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) for what cannot work in a pod.
pub(crate) fn render(args: &RenderArgs) -> Result<()> {
    let Rendered { name, namespace, objects } = args.objects()?;
    let by = env!("CARGO_PKG_VERSION");
    print::own(&format!(
        "# Cook {name} in namespace {namespace}, by soupctl {by} k8s render\n{}",
        render::yaml(&objects)?
    ))
}

/// Writes the chart.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where it cannot be written.
pub(crate) fn chart(folder: &Path) -> Result<()> {
    for (name, text) in chart::files()? {
        let path = folder.join(name);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        written.map_err(|e| {
            Error::configuration(format!("{:?} cannot be written", path.display().to_string())).with_source(e)
        })?;
    }
    Ok(())
}

/// Applies, and follows.
///
/// # Errors
/// As for [`render`]; those of the API server; and where the cook cannot be followed to its end.
#[cfg(feature = "k8s")]
pub(crate) async fn submit(args: submit::SubmitArgs) -> Result<std::process::ExitCode> {
    let rendered = args.render.objects()?;
    submit::run(&args, &rendered).await
}

impl RenderArgs {
    fn objects(&self) -> Result<Rendered> {
        let cook = CookOptions::text(&self.file)?;
        let fits = fitting::check(&cook, self.workers, &self.claims);
        let fits = fits.map_err(|e| e.context(cookfile::about(&self.file)))?;
        let gpus = (self.gpus > 0).then(|| self.gpus.to_string());
        let mut wanted = Deployment {
            name: "",
            namespace: &self.namespace,
            with_namespace: !self.no_namespace,
            account: ACCOUNT,
            default_deny: DEFAULT_DENY,
            image: &self.image,
            workers: json!(self.workers),
            min_workers: (!fits.says_workers).then(|| self.workers.to_string()),
            cpus: self.cpus.as_deref(),
            memory: self.memory.as_deref(),
            gpus: gpus.as_deref(),
            secrets: &self.secrets,
            claims: &self.claims,
            cook: &cook,
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => default_name(fits.recipe, &wanted)?,
        };
        wanted.name = &name;
        let objects = render::objects(&wanted)?;
        Ok(Rendered { objects, namespace: self.namespace.clone(), name })
    }
}

/// A name for what cannot change: another one as soon as anything else is rendered, the same one for the same.
fn default_name(recipe: &str, wanted: &Deployment<'_>) -> Result<String> {
    let objects = render::objects(&Deployment { with_namespace: false, ..wanted.clone() })?;
    let digest = sha256_hex(Value::from(objects).to_string().as_bytes());
    Ok(format!("soup-{recipe}-{}", &digest[..DIGEST_SHOWN]))
}

/// A cook's name: that of services, too, which begin with a letter.
fn name(text: &str) -> std::result::Result<String, String> {
    if text.len() > NAME_CHARS_MAX || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!(
            "{text:?} is not a name: a letter, then letters, digits and -, at most {NAME_CHARS_MAX}"
        ));
    }
    label(text)
}

/// A DNS label.
fn label(text: &str) -> std::result::Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=LABEL_CHARS_MAX).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    fits.then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is not a name: small letters, digits, and - between them"))
}

/// What most objects may be called: labels with dots between them.
fn dotted(text: &str) -> std::result::Result<String, String> {
    text.split('.').try_for_each(|part| label(part).map(|_| ()))?;
    match text.len() > DOTTED_CHARS_MAX {
        true => Err(format!("{text:?} is longer than {DOTTED_CHARS_MAX}")),
        false => Ok(text.to_owned()),
    }
}

/// An image whose name says which one it is.
fn image(text: &str) -> std::result::Result<String, String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{text:?} is not the name of an image"));
    }
    let last = text.rsplit('/').next().unwrap_or_default();
    let version = last.split_once('@').or_else(|| last.split_once(':')).map(|(_, version)| version);
    match version {
        Some(version) if !version.is_empty() && version != "latest" => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?} names no version, so pods that are replaced may get another one: name it as {}:VERSION",
            text.trim_end_matches(":latest").trim_end_matches(':')
        )),
    }
}

/// A quantity of Kubernetes.
fn quantity(text: &str) -> std::result::Result<String, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let units = ["", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let positive = number.parse::<f64>().is_ok_and(|n| n.is_finite() && n > 0.0);
    if positive && number.starts_with(|c: char| c.is_ascii_digit()) && units.contains(&unit) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a quantity such as 8, 500m or 64Gi"))
}

/// A claim and its path.
fn claim(text: &str) -> std::result::Result<Claim, String> {
    let (name, path) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=/PATH, such as soup-data=/data"))?;
    let parts = path.strip_prefix('/').unwrap_or_default().split('/');
    if !parts.clone().all(|part| !part.is_empty() && part != "." && part != "..") || path.contains(':') {
        return Err(format!("{path:?} is not an absolute path, such as /data"));
    }
    if ["etc", "tmp", "dev", "proc", "sys", "var"].contains(&parts.clone().next().unwrap_or_default()) {
        return Err(format!(
            "{path:?} is where pods have something else: mount the claim elsewhere, such as at /data"
        ));
    }
    Ok(Claim { name: dotted(name)?, path: path.to_owned() })
}

#[cfg(test)]
mod tests;
