//! Assembling a soup: all of its parameters, from the owners of the shards, once for all that is done with it here.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use soup_core::Result;
use soup_core::schema::Schema;
use soup_core::soup::Soup;
use soup_eval::Model;

use crate::active::{Active, Worker};
use crate::blends;

/// Shards fetched at the same time.
const SHARDS_IN_FLIGHT: usize = 8;

/// The flattened parameters of `soup`, from all owners, into `parameters`, which has their length.
pub(crate) async fn assemble(run: &Arc<Active>, soup: &Soup, parameters: &mut [u8]) -> Result<()> {
    // Every shard but the last has this length, so these are exactly the shards.
    let places = parameters.chunks_mut(run.plan.shard_bytes() as usize).zip(0u32..);
    let jobs: Vec<_> = places.map(|(place, shard)| blends::into(run, shard, soup, place)).collect();
    stream::iter(jobs).buffer_unordered(SHARDS_IN_FLIGHT).try_collect::<()>().await
}

/// The flattened parameters of the soup that a step of a learned soup is differentiated at, assembled once for all parts.
pub(crate) async fn parameters_of_step(run: &Arc<Active>, soup: &Soup) -> Result<Arc<Vec<u8>>> {
    let cell = run.soups.step(soup);
    let make = || async {
        let mut parameters = vec![0; run.schema.bytes() as usize];
        assemble(run, soup, &mut parameters).await?;
        Ok(Arc::new(parameters))
    };
    cell.get_or_try_init(make).await.cloned()
}

/// The model of `soup`, assembled once for all slices.
pub(crate) async fn model(worker: &Worker, run: &Arc<Active>, soup: &Soup) -> Result<Arc<dyn Model>> {
    let cell = run.soups.model(soup);
    let make = || async {
        let mut parameters = vec![0; run.schema.bytes() as usize];
        assemble(run, soup, &mut parameters).await?;
        let (run, schema) = (run.clone(), run.schema.clone());
        let build = move || run.evaluator()?.load(&schema as &Schema, &parameters).map(Arc::from);
        worker.compute.run(build).await
    };
    cell.get_or_try_init(make).await.cloned()
}
