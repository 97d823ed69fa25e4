//! Shards of which nothing is kept but what was found in reading them: those of a run that streams, and those that are read again to
//! audit their owners.
//!
//! The coordinator tells an owner where a shard is; the owner reads it when somebody wants its blend, in one *pass*
//! ([`soup_tensor::Pass`]), and notes what it finds for the coordinator, who asks for that in the end. Files on a local disk are
//! read by the thread that computes, tile by tile, while each is in its cache; from stores larger groups of tiles are read, the next
//! one while this one is computed.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};
use sha2::{Digest as _, Sha256};
use soup_core::layer::Layers;
use soup_core::machine::Reread;
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_metrics::metrics;
use soup_store::load::{LoadLimits, LocalFiles, Read, clip, load, open_local};
use soup_tensor::{Having, Pass, Passing};

use crate::active::Active;
use crate::passages::{Passage, Passed};
use crate::sources::{ShardSources, Source};
use crate::{blends, diagnose, loading};

/// What is read from stores at a time, all ingredients together, as far as [`GROUP_BYTES_MIN`] allows; twice that is in memory.
const GROUP_BYTES: u64 = 64 << 20;
/// Of one ingredient.
const GROUP_BYTES_MIN: u64 = 1 << 20;
/// Of one ingredient.
const GROUP_BYTES_MAX: u64 = 16 << 20;
/// Ingredients read at the same time.
const INGREDIENTS_IN_FLIGHT: usize = 16;

/// Notes where a shard is.
pub(crate) fn know(run: &Active, task: ShardSources) {
    run.passages.know(task.shard, passage(run, task));
}

fn passage(run: &Active, task: ShardSources) -> Passage {
    let having = |source: &Source| Having {
        dtypes: source.stored.clone(),
        covered: source.covered().map(|r| r.start as usize..r.end as usize).collect(),
    };
    let ingredients: Vec<Having> = task.ingredients.iter().map(having).collect();
    let base = task.base.as_ref().map(having);
    let range = run.begun.plan.range(Shard(task.shard));
    let passing = Passing::new(&run.begun.schema, range, &ingredients, base.as_ref(), task.products)
        .digested_by(run.begun.digest);
    let sources = task.ingredients.into_iter().chain(task.base).collect();
    Passage { sources, passing: Arc::new(passing) }
}

/// The blend of `soup` on a shard, which is read for it.
///
/// # Errors
/// Where an ingredient cannot be read, changed, or has elements that are not finite and must be; where the soup's dtype cannot hold
/// its elements; [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not own the shard.
pub(crate) async fn blend(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    let (blend, _) = pass(run, shard, Some(soup)).await?;
    metrics().worker.blended.inc_by(blend.len() as u64);
    Ok(blend)
}

/// What was found in a shard, which is read if it was not before.
///
/// # Errors
/// As for [`blend`].
pub(crate) async fn found(run: &Arc<Active>, shard: u32) -> Result<Passed> {
    match run.passages.found(shard) {
        Some(passed) => Ok(passed),
        None => pass(run, shard, None).await.map(|(_, passed)| passed),
    }
}

async fn pass(run: &Arc<Active>, shard: u32, soup: Option<&Soup>) -> Result<(Bytes, Passed)> {
    let passage = run.passages.get(shard)?;
    let (blend, passed) = go_over(run, &passage, soup).await?;
    run.passages.note(shard, &passed)?;
    Ok((blend, passed))
}

/// Reads a shard that another worker has, keeps nothing of it, and tells what was found; with a soup, what the blend of it is, and what
/// the shard's owner gives for it. The number of bytes that were read comes with it.
///
/// # Errors
/// As for [`blend`]; where the owner gives no blend.
pub(crate) async fn reread(
    run: &Arc<Active>,
    task: ShardSources,
    soup: Option<&Soup>,
) -> Result<(Reread, u64)> {
    let shard = task.shard;
    let (blend, Passed { digests, bytes_read, .. }) =
        go_over(run, &Arc::new(passage(run, task)), soup).await?;
    let Some(soup) = soup else { return Ok((Reread { digests, ..Reread::default() }, bytes_read)) };
    let served = blends::served(run, shard, soup).await?;
    let both = run.compute.beside(move || Ok((digest(&blend), digest(&served))));
    let (blend, served) = both.await?;
    Ok((Reread { digests, blend: Some(blend), served: Some(served) }, bytes_read))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

async fn go_over(run: &Arc<Active>, passage: &Arc<Passage>, soup: Option<&Soup>) -> Result<(Bytes, Passed)> {
    let permit = run.passages.permits.acquire().await;
    let _permit = permit.map_err(|_| Error::internal("the worker is stopping"))?;
    soup_store::failpoint::reach("before-pass");
    let bytes = if soup.is_some() { passage.passing.bytes() } else { 0 };
    let work = Work { pass: Pass::new(passage.passing.clone(), soup)?, blend: vec![0; bytes] };
    let work = match local(passage).await? {
        Some(files) => {
            let of = passage.clone();
            let work = run.compute.run(move || work.locally(&of, &files).map(|work| (work, files)));
            let (work, files) = work.await?;
            for (files, source) in files.iter().zip(&passage.sources) {
                files.check_unchanged().await.map_err(|e| e.context(source.name.clone()))?;
            }
            work
        }
        None => remotely(run, passage, work).await?,
    };
    let Work { pass, blend } = work;
    let mut passed = answer(run, pass)?;
    passed.bytes_read = passage.sources.iter().map(Source::bytes).sum();
    Ok((Bytes::from(blend), passed))
}

/// What a pass found.
fn answer(run: &Active, pass: Pass) -> Result<Passed> {
    let found = pass.finish();
    let begin = &run.begun;
    let mut notes = loading::judge(&found.findings, &begin.ingredients, &run.begun.schema, begin.allow_nan)?;
    for &tensor in &found.overflown {
        let tensor = &run.begun.schema.tensors()[tensor];
        let text =
            format!("tensor {:?} of the soup has values that {} cannot hold", tensor.name, tensor.dtype);
        if !begin.allow_nan {
            let advice = "choose another --out-dtype or smaller weights, or pass --allow-nan";
            return Err(Error::data(format!("{text}: {advice}")));
        }
        notes.push(format!("{text}, and infinite ones there"));
    }
    let grams = diagnose::by_layer(&Layers::new(&run.begun.schema), found.grams);
    Ok(Passed { digests: found.digests, notes, bytes_read: 0, grams })
}

/// The files of a shard, open; `None` where some are not on a local disk.
async fn local(passage: &Passage) -> Result<Option<Vec<LocalFiles>>> {
    let mut opened = Vec::new();
    for source in &passage.sources {
        let files = open_local(&source.files, &source.reads).await;
        match files.map_err(|e| e.context(source.name.clone()))? {
            Some(files) => opened.push(files),
            None => return Ok(None),
        }
    }
    Ok(Some(opened))
}

/// A pass, and the blend that it fills.
struct Work {
    pass: Pass,
    blend: Vec<u8>,
}

/// Bytes of one source that were read, aligned for every dtype.
#[derive(Default)]
struct Words {
    words: Vec<u64>,
    bytes: usize,
}

impl Words {
    /// So many bytes, for `reads` to fill: zeros where they leave gaps, and else whatever was there.
    fn for_reads(&mut self, bytes: usize, reads: &[Read]) -> &mut [u8] {
        if reads.iter().map(|r| r.len).sum::<u64>() < bytes as u64 {
            self.words.clear();
        }
        self.words.resize(bytes.div_ceil(size_of::<u64>()), 0);
        self.bytes = bytes;
        &mut bytemuck::cast_slice_mut(&mut self.words)[..bytes]
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
}

impl Work {
    /// Reads and takes all tiles. Blocks; call on a compute thread.
    fn locally(mut self, passage: &Passage, files: &[LocalFiles]) -> Result<Work> {
        let mut read: Vec<Words> = passage.sources.iter().map(|_| Words::default()).collect();
        for tile in 0..passage.passing.tiles() {
            for (at, ((words, files), source)) in read.iter_mut().zip(files).zip(&passage.sources).enumerate()
            {
                let range = passage.passing.stored_range(at, tile..tile + 1);
                let reads = clip(&source.reads, range.start as u64..range.end as u64);
                let dest = words.for_reads(range.len(), &reads);
                files.load(&reads, dest, |_| {}).map_err(|e| e.context(source.name.clone()))?;
            }
            self.take(&passage.passing, tile..tile + 1, &read)?;
        }
        Ok(self)
    }

    /// Takes the tiles `group`, of which `read` is what every source has.
    fn take(&mut self, passing: &Passing, group: Range<usize>, read: &[Words]) -> Result<()> {
        for tile in group.clone() {
            let part = |(at, words): (usize, &'_ Words)| {
                let start = passing.stored_range(at, group.clone()).start;
                let range = passing.stored_range(at, tile..tile + 1);
                range.start - start..(range.end - start).min(words.bytes)
            };
            let parts: Vec<&[u8]> =
                read.iter().enumerate().map(|(at, words)| &words.bytes()[part((at, words))]).collect();
            let (parts, base) = match passing.has_base() {
                true => parts.split_last().map_or((&parts[..], None), |(base, parts)| (parts, Some(*base))),
                false => (&parts[..], None),
            };
            let place = if self.blend.is_empty() { 0..0 } else { passing.blend_range(tile) };
            self.pass.tile(tile, parts, base, &mut self.blend[place])?;
        }
        Ok(())
    }
}

/// Reads group after group, each while the one before is taken.
async fn remotely(run: &Arc<Active>, passage: &Arc<Passage>, mut work: Work) -> Result<Work> {
    let tiles = passage.passing.tiles();
    let bytes = passage.sources.iter().map(Source::bytes).max().unwrap_or(0);
    let wanted = (GROUP_BYTES / passage.sources.len().max(1) as u64).clamp(GROUP_BYTES_MIN, GROUP_BYTES_MAX);
    let step = (tiles as u64 * wanted / bytes.max(1)).clamp(1, tiles.max(1) as u64) as usize;
    let group = move |first: usize| first..tiles.min(first + step);
    let mut read = read_group(passage, group(0)).await?;
    for first in (0..tiles).step_by(step) {
        let (of, this) = (passage.clone(), std::mem::take(&mut read));
        let taken = run.compute.run(move || work.take(&of.passing, group(first), &this).map(|()| work));
        let next = read_group(passage, group(tiles.min(first + step)));
        (work, read) = future::try_join(taken, next).await?;
    }
    Ok(work)
}

/// What every source has of some tiles.
async fn read_group(passage: &Passage, group: Range<usize>) -> Result<Vec<Words>> {
    let read = |(at, source): (usize, &'_ Source)| {
        let range = passage.passing.stored_range(at, group.clone());
        let reads = clip(&source.reads, range.start as u64..range.end as u64);
        let (files, name) = (source.files.clone(), source.name.clone());
        async move {
            let mut words = Words::default();
            let dest = words.for_reads(range.len(), &reads);
            load(&files, &reads, dest, LoadLimits::default()).await.map_err(|e| e.context(name))?;
            Ok(words)
        }
    };
    let jobs: Vec<_> = passage.sources.iter().enumerate().map(read).collect();
    stream::iter(jobs).buffered(INGREDIENTS_IN_FLIGHT).try_collect().await
}
