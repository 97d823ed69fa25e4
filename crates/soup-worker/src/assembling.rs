//! Assembling a soup: all of its parameters, from the owners of the shards, once for all that is done with it here.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, Result};

use crate::active::Active;
use crate::blends;
use crate::judge::{Loaded, Purpose};
use crate::soups::InMemory;

/// Shards fetched at the same time.
const SHARDS_IN_FLIGHT: usize = 8;

/// The flattened parameters of `soup`, from all owners, into `parameters`, which has their length.
pub(crate) async fn assemble(run: &Arc<Active>, soup: &Soup, parameters: &mut [u8]) -> Result<()> {
    // Every shard but the last has this length, so these are exactly the shards.
    let places = parameters.chunks_mut(run.begun.plan.shard_bytes() as usize).zip(0u32..);
    let jobs: Vec<_> = places.map(|(place, shard)| blends::into(run, shard, soup, place)).collect();
    stream::iter(jobs).buffer_unordered(SHARDS_IN_FLIGHT).try_collect::<()>().await
}

/// `soup` with the judge of its run, its parameters from all owners.
async fn load(run: &Arc<Active>, soup: &Soup, purpose: Purpose) -> Result<Arc<dyn Loaded>> {
    let mut vessel = run.judge()?.vessel(purpose).await?;
    if let Some(parameters) = vessel.flat() {
        assemble(run, soup, parameters).await?;
        return vessel.load().await;
    }
    let shard = |shard: Shard| async move {
        let blend = blends::any(run, shard.0, soup).await?;
        Ok::<_, Error>((run.begun.plan.range(shard).start, blend))
    };
    let jobs: Vec<_> = run.begun.plan.shards().map(shard).collect();
    let mut blends = std::pin::pin!(stream::iter(jobs).buffer_unordered(SHARDS_IN_FLIGHT));
    while let Some((start, blend)) = blends.try_next().await? {
        vessel.fill(start, blend).await?;
    }
    vessel.load().await
}

/// The soup that a step of a learned soup is differentiated at, assembled once for all parts.
pub(crate) async fn of_step(run: &Arc<Active>, soup: &Soup) -> Result<Arc<InMemory>> {
    let cell = run.soups.step(soup);
    cell.get_or_try_init(|| entered(run, soup, Purpose::Learning)).await.cloned()
}

/// `soup` with the judge of its run, assembled once for all slices.
pub(crate) async fn loaded(run: &Arc<Active>, soup: &Soup) -> Result<Arc<InMemory>> {
    let cell = run.soups.loaded(soup, run.soups_kept());
    cell.get_or_try_init(|| entered(run, soup, Purpose::Judging)).await.cloned()
}

/// `soup` with the judge of its run, once there is room for it.
async fn entered(run: &Arc<Active>, soup: &Soup, purpose: Purpose) -> Result<Arc<InMemory>> {
    let place = run.soups.enter(run.soups_kept()).await;
    let soup = load(run, soup, purpose).await?;
    run.is_ready();
    Ok(Arc::new(InMemory { soup, _place: place }))
}
