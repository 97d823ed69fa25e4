//! Whether a cook file can be cooked by pods: what it says is checked as its coordinator would, and so are the places it names.

use std::path::Path;

use soup_core::recipe::RecipeKind;
use soup_core::{Error, Result};

use super::render::Claim;
use crate::cookfile::{CookOptions, absolute, is_own, is_url};
use crate::spec::{Cook, Purpose};

/// Where pods have the cook file.
const FOLDER: &str = "/etc/soup";
/// Where the coordinator listens.
const LISTEN: &str = "0.0.0.0:7070";
/// The scheme of URLs that are paths.
const FILE: &str = "file://";

/// What a cook file that fits says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fits {
    /// The recipe's name.
    pub(super) recipe: &'static str,
    /// Whether it says how many workers there are.
    pub(super) says_workers: bool,
}

/// Checks the text of a cook file for so many workers, whose pods have these claims.
///
/// # Errors
/// [`ErrorKind::Usage`](soup_core::ErrorKind::Usage) naming the key, and what to write instead.
pub(super) fn check(text: &str, workers: u32, claims: &[Claim]) -> Result<Fits> {
    let options = CookOptions::parse(text)?;
    for (key, given) in [("coordinator", options.coordinator.is_some()), ("listen", options.listen.is_some())]
    {
        if given {
            return Err(Error::usage(format!(
                "{key} says who works, which the pods of this cook do: leave it out"
            )));
        }
    }
    if let Some(least) = options.min_workers.filter(|least| *least != workers) {
        return Err(Error::usage(format!(
            "min-workers is {least}, but there are to be {workers} workers: leave it out, or make them the same"
        )));
    }
    if options.output.is_none() {
        return Err(Error::usage(
            "output is missing, and what pods write beside themselves is lost: name a URL",
        ));
    }
    places(&options, claims)?;
    let recipe = options.recipe.map(RecipeKind::from).unwrap_or_default();
    let fits = Fits { recipe: recipe.name(), says_workers: options.min_workers.is_some() };
    whole(options, workers)?;
    Ok(fits)
}

/// What the coordinator will make of it, as far as that needs no file that is not here.
fn whole(mut options: CookOptions, workers: u32) -> Result<()> {
    if options.weights_file.take().is_some() {
        return Ok(());
    }
    options.ranked_by = None;
    options.resolve(Path::new(FOLDER), options.judge.clone().as_ref())?;
    let flags =
        CookOptions { listen: Some(LISTEN.to_owned()), min_workers: Some(workers), ..CookOptions::default() };
    Cook::new(flags, options, Path::new(FOLDER), Purpose::Cook).map(|_| ())
}

/// Refuses paths that lead nowhere in a pod.
fn places(options: &CookOptions, claims: &[Claim]) -> Result<()> {
    let CookOptions {
        pool,
        validation,
        train,
        test,
        calibration,
        model_config,
        preprocessor_config,
        base,
        output,
        state_url,
        weights_file,
        ranked_by,
        signing_key,
        judge,
        ..
    } = options;
    let sets = [("validation", validation), ("train", train), ("calibration", calibration)].into_iter();
    let sets = sets.filter_map(|(key, set)| Some((key, set.as_ref()?)));
    let sets = sets.chain(test.iter().map(|(_, set)| ("test", set))).map(|(key, set)| (key, &set.url));
    let sets = sets.filter(|(_, url)| !is_own(judge.as_ref(), url));
    let others = [
        ("model-config", model_config),
        ("preprocessor-config", preprocessor_config),
        ("base", base),
        ("output", output),
        ("state-url", state_url),
        ("weights-file", weights_file),
        ("ranked-by", ranked_by),
        ("signing-key", signing_key),
    ];
    let others = others.into_iter().filter_map(|(key, url)| Some((key, url.as_ref()?)));
    for (key, url) in pool.iter().map(|url| ("pool", url)).chain(sets).chain(others) {
        place(key, url, claims)?;
    }
    Ok(())
}

fn place(key: &str, url: &str, claims: &[Claim]) -> Result<()> {
    let path = match url.strip_prefix(FILE) {
        Some(path) => path,
        None if is_url(url) => return Ok(()),
        None => url,
    };
    if !path.starts_with('/') {
        return Err(Error::usage(format!(
            "{key} {url:?} is relative to the cook file, which pods have in {FOLDER}: write a URL of a store, or a path of a claim"
        )));
    }
    let path = absolute(Path::new(FOLDER), path)?;
    if claims.iter().any(|claim| Path::new(&path).starts_with(&claim.path)) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{key} {url:?} is on no volume that pods have: write a URL of a store, or give them one with --claim NAME=/PATH"
    )))
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;

    const GOOD: &str =
        "pool: s3://lab/pool\nvalidation: s3://lab/val\noutput: s3://lab/soup\nstate-url: s3://lab/state\n";

    fn claims() -> Vec<Claim> {
        vec![Claim { name: "soup-data".to_owned(), path: "/data".to_owned() }]
    }

    #[test]
    fn what_fits_says_its_recipe_and_its_workers() {
        let fits = check(GOOD, 4, &[]).unwrap();
        assert_eq!(fits, Fits { recipe: "greedy", says_workers: false });
        let fits = check(&format!("{GOOD}recipe: best-single\nmin-workers: 4\n"), 4, &[]).unwrap();
        assert_eq!(fits, Fits { recipe: "best-single", says_workers: true });
        check("pool: /data/pool\nrecipe: uniform\noutput: file:///data/soup\n", 4, &claims()).unwrap();
        // What is about an embedded cluster says nothing where there is another one.
        check(&format!("{GOOD}workers: 2\nmemory: 8GiB\n"), 4, &[]).unwrap();
        // What only pods have is read there.
        check(&format!("{GOOD}ranked-by: /data/scores.csv\n"), 4, &claims()).unwrap();
    }

    #[test]
    fn what_cannot_work_in_a_pod_is_refused_by_name() {
        let check = |more: &str, named: &str| {
            let error = check(&format!("{GOOD}{more}"), 4, &claims()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{more}");
            assert!(error.chain().contains(named), "{more}: {}", error.chain());
        };
        check("coordinator: node0:7070\n", "coordinator");
        check("listen: 0.0.0.0:7070\n", "listen");
        check("min-workers: 3\n", "min-workers is 3");
        check("test: {sketch: data/sketch}\n", "test \"data/sketch\" is relative");
        check("train: /home/ada/train\n", "train \"/home/ada/train\" is on no volume");
        check("base: /data/../home/base\n", "base");
        check("base: /database/base\n", "base");
        check("signing-key: key.pem\n", "signing-key");
        check("ranked-by: scores.csv\n", "ranked-by");
        check("calibration: file:///tmp/x\nbatch-norm: recompute\n", "calibration");
        check("recipe: stew\n", "stew");
        check("batch-size: 0\n", "batch");
    }

    #[test]
    fn an_output_has_to_be_named() {
        let error = check("pool: s3://lab/pool\nrecipe: uniform\n", 4, &[]).unwrap_err();
        assert!(error.chain().contains("output is missing"), "{}", error.chain());
    }
}
