//! Loading shards: each worker reads exactly its own bytes of every ingredient, straight into the place where they stay.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use soup_core::machine::Tier;
use soup_core::schema::Schema;
use soup_core::shard::{Segment, Shard};
use soup_core::soup::Ingredient;
use soup_core::{Error, Result};
use soup_store::load::{LoadLimits, load, open_local};
use soup_tensor::{Device, DifferingIntegers, Findings, ShardBuilder};

use crate::active::{Active, Worker};
use crate::compute::Compute;
use crate::passing;
use crate::shards::Loaded;
use crate::sources::{ShardSources, Source};

/// Ingredients whose shards are read or digested at the same time, within one task.
const INGREDIENTS_IN_FLIGHT: usize = 4;
/// Notes about one shard; further ones are counted.
const NOTES_MAX: usize = 20;
/// What PyTorch calls a counter of the batches that a normalisation layer has seen.
const COUNTER: &str = "num_batches_tracked";

/// Loads one shard of every ingredient and keeps it, or knows where it is, where shards are not kept.
///
/// # Errors
/// Where an ingredient cannot be read, changed, or has elements that are not finite and must be.
pub(crate) async fn load_shard(worker: &Worker, run: &Arc<Active>, task: ShardSources) -> Result<Loaded> {
    if run.begun.streams {
        passing::know(run, task);
        return Ok(Loaded::default());
    }
    if let Some(loaded) = run.shards.loaded(task.shard) {
        return Ok(Loaded { bytes_read: 0, ..loaded });
    }
    soup_store::failpoint::reach("before-load");
    let range = run.begun.plan.range(Shard(task.shard));
    let count = task.ingredients.len() as u32;
    let place = worker.take(task.tier, (range.end - range.start).saturating_mul(count.into()))?;
    run.make_ready();
    let (schema, host) = (&run.begun.schema, Device::cpu(NonZeroUsize::MIN));
    let without = |what: &str| Error::internal(format!("a shard for the {what} of a worker without one"));
    let builder = match task.tier {
        Tier::Memory => host.builder(schema, range, count)?,
        Tier::Disk => {
            let cache = worker.disk_cache.as_ref().ok_or_else(|| without("disk cache"))?;
            host.disk_builder(schema, range, count, &cache.folder)?
        }
        Tier::Device => {
            let device = worker.on_device.as_ref().ok_or_else(|| without("device"))?;
            device.builder(schema, range, count)?
        }
    };
    let builder = Arc::new(builder.digested_by(run.begun.digest));
    let compute = &worker.compute;
    let jobs = (0..count).zip(&task.ingredients).map(|(index, source)| {
        let builder = builder.clone();
        async move {
            let read = read_ingredient(compute, &builder, Ingredient(index), source).await;
            read.map_err(|e| e.context(source.name.clone()))
        }
    });
    let jobs: Vec<_> = jobs.collect();
    let read: Vec<u64> = stream::iter(jobs).buffer_unordered(INGREDIENTS_IN_FLIGHT).try_collect().await?;
    let bytes_read = read.iter().sum();
    let builder = Arc::into_inner(builder).ok_or_else(|| Error::internal("a shard is still being loaded"))?;
    let covered: Vec<Vec<Range<u64>>> = task.ingredients.iter().map(|s| s.covered().collect()).collect();
    let run = run.clone();
    compute
        .run(move || {
            let segments = builder.segments().to_vec();
            let has = |i: Ingredient, tensor: usize| is_covered(&segments, tensor, &covered[i.index()]);
            let (memory, findings) = builder.finish(has)?;
            let notes = judge(&findings, &run.begun.ingredients, &run.begun.schema, run.begun.allow_nan)?;
            let ingredients = 0..run.begun.ingredients.len() as u32;
            let digests = ingredients.map(|i| memory.digest(Ingredient(i))).collect::<Result<_>>()?;
            tracing::debug!(
                run = run.begun.run,
                shard = task.shard,
                bytes = memory.resident_bytes(),
                device_bytes = memory.device_bytes(),
                disk_bytes = memory.disk_bytes(),
                "shard resident"
            );
            let loaded = Loaded { digests, notes, bytes_read };
            run.shards.keep(task.shard, memory, place, &loaded);
            Ok(loaded)
        })
        .await
}

/// Reads the shard of one ingredient, digests it, and hands it to `builder`; gives the number of bytes that were read.
async fn read_ingredient(
    compute: &Compute,
    builder: &Arc<ShardBuilder>,
    ingredient: Ingredient,
    Source { files, reads, .. }: &Source,
) -> Result<u64> {
    let (builder, mut buffer) = (builder.clone(), builder.buffer()?);
    let Some(local) = open_local(files, reads).await? else {
        let bytes = load(files, reads, buffer.bytes_mut(), LoadLimits::default()).await?;
        // Hashing may take longer than reading: it goes on beside the reads of other ingredients.
        let kept = compute.beside(move || builder.keep(ingredient, buffer));
        return kept.await.map(|()| bytes);
    };
    let reads = reads.clone();
    let read = compute.beside(move || {
        let mut inspection = builder.inspection();
        let bytes = local.load(&reads, buffer.bytes_mut(), |part| inspection.update(part))?;
        builder.keep_shown(ingredient, buffer, inspection)?;
        Ok((bytes, local))
    });
    let (bytes, local) = read.await?;
    local.check_unchanged().await?;
    Ok(bytes)
}

/// Reads the shard of one checkpoint.
pub(crate) async fn read_checkpoint(source: &Source, buffer: &mut [u8]) -> Result<u64> {
    load(&source.files, &source.reads, buffer, LoadLimits::default()).await
}

fn is_covered(segments: &[Segment], tensor: usize, covered: &[Range<u64>]) -> bool {
    let segment = segments.iter().find(|s| s.tensor == tensor);
    segment.is_some_and(|s| {
        covered.iter().any(|c| c.start <= s.range.start as u64 && s.range.end as u64 <= c.end)
    })
}

/// What people should know about freshly loaded ingredients.
///
/// # Errors
/// For elements that are NaN or infinite, unless allowed.
pub(crate) fn judge(
    findings: &Findings,
    names: &[String],
    schema: &Schema,
    allow_nan: bool,
) -> Result<Vec<String>> {
    let tensor = |t: usize| &schema.tensors()[t].name;
    let mut notes = Vec::new();
    for f in &findings.non_finite {
        let text = format!(
            "ingredient {:?}: tensor {:?} has {} NaN or infinite values",
            names[f.ingredient.index()],
            tensor(f.tensor),
            f.elements
        );
        if !allow_nan {
            return Err(Error::data(format!("{text}: leave the ingredient out, or pass --allow-nan")));
        }
        notes.push(text);
    }
    let counts = |f: &&DifferingIntegers| tensor(f.tensor).ends_with(COUNTER);
    if findings.differing_integers.iter().any(|f| counts(&f)) {
        // One for all: every layer has such a counter, and only training reads it.
        notes.push(format!(
            "counters of batches ({COUNTER}) differ: the soup has those of ingredient {:?}",
            names[0]
        ));
    }
    for f in findings.differing_integers.iter().filter(|f| !counts(f)) {
        notes.push(format!(
            "ingredient {:?}: integer tensor {:?} differs from that of ingredient {:?}, whose values the soup gets",
            names[f.ingredient.index()],
            tensor(f.tensor),
            names[0]
        ));
    }
    if notes.len() > NOTES_MAX {
        let more = notes.len() - NOTES_MAX;
        notes.truncate(NOTES_MAX);
        notes.push(format!("… and {more} more like the above"));
    }
    Ok(notes)
}
