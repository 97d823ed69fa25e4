//! Whether a run stays where it may read and write.

use soup_core::Result;
use soup_core::run::RunSpec;
use soup_store::places::{Use, check};

/// Refuses a run that names a place which is not allowed here. What a judge brings along is the judge's.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming the place.
pub(crate) fn check_run(spec: &RunSpec) -> Result<()> {
    let sets = spec.datasets().filter(|set| spec.judges_own(set).is_none());
    let configs = [&spec.model_config, &spec.preprocessor_config].into_iter().flatten();
    let pool = spec.pool.iter().chain(&spec.diagnosis.base).map(|url| (Use::Pool, url));
    let read = pool.chain(sets.map(|set| (Use::Data, &set.url))).chain(configs.map(|url| (Use::Config, url)));
    read.chain([(Use::Output, &spec.output)]).try_for_each(|(what, url)| check(what, url))
}
