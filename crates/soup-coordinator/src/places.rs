//! Whether a run stays where it may read and write.

use soup_core::Result;
use soup_core::run::RunSpec;
use soup_store::places::{Use, check, check_for};

/// Refuses a run that names a place which is not allowed here, or not to this client. What a judge brings along is the judge's.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming the place.
pub(crate) fn check_run(spec: &RunSpec, client: Option<&str>) -> Result<()> {
    let sets = spec.datasets().filter(|set| spec.judges_own(set).is_none());
    let pool = spec.pool.iter().chain(&spec.diagnosis.base).map(|url| (Use::Pool, url));
    let read = pool.chain(sets.map(|set| (Use::Data, &set.url)));
    read.chain([(Use::Output, &spec.output)]).try_for_each(|(what, url)| {
        check(what, url)?;
        client.map_or(Ok(()), |client| check_for(client, what, url))
    })
}
