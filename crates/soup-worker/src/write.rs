//! Writing a soup: one file of the output, or the digest of all its parameters; and reading back what others wrote. Blends stream through in order; no worker
//! ever holds a file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256};
use soup_core::memory::SHARDS_AHEAD;
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, ErrorKind, Result};
use soup_store::location::Location;
use soup_store::output::Staging;
use soup_store::read::Digest;

use crate::active::Active;
use crate::begun::OutputFile;
use crate::judge::statistics::Statistics;
use crate::messages::{Answer, Done};
use crate::soups::InMemory;
use crate::{assembling, blends};

/// Of a file that was written, read at a time.
const READ_BACK_BYTES: u64 = 16 << 20;

/// Writes file `file` of `soup` to its staging place.
///
/// # Errors
/// Where a blend cannot be had or the store does not take the file.
pub(crate) async fn write(run: &Arc<Active>, soup: &Soup, file: u32) -> Result<Done> {
    let (planned, staging) = (planned(run, file)?, staging(run)?);
    soup_store::failpoint::reach("before-write");
    // Before the file is begun: a judge may take its time.
    let judged = recomputed(run, soup).await?;
    let mut writer = staging.writer(&planned.name).await?;
    writer.write_header(Bytes::from(planned.header.clone())).await?;
    let mut parts = std::pin::pin!(parameters(run, (soup, judged.as_deref()), planned.range.clone()));
    while let Some(part) = parts.try_next().await? {
        writer.write(part).await?;
    }
    Ok(Done::of(Answer::Written(writer.finish().await?), statistics_of(judged.as_deref())))
}

fn planned(run: &Active, file: u32) -> Result<&OutputFile> {
    let planned = run.begun.files.get(file as usize);
    planned.ok_or_else(|| Error::internal(format!("the run has no output file {file}")))
}

fn staging(run: &Active) -> Result<Staging> {
    Staging::resume(&Location::parse(&run.begun.output)?, &run.begun.run, run.begun.epoch)
}

/// Size and SHA-256 of file `file` as it lies in its staging place, whoever wrote it.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration) where it is not there as this worker sees it; otherwise what the store says.
pub(crate) async fn read_back(run: &Arc<Active>, file: u32) -> Result<Digest> {
    let planned = planned(run, file)?;
    soup_store::failpoint::reach("before-read-back");
    staging(run)?.digest(&planned.name).await.map_err(|e| match e.kind() {
        // That a file changes is no end of the run: it is being written again.
        ErrorKind::Data => Error::unavailable(e.chain()),
        _ => e,
    })
}

/// `soup` with its judge, where that has recomputed its running statistics.
async fn recomputed(run: &Arc<Active>, soup: &Soup) -> Result<Option<Arc<InMemory>>> {
    match run.begun.judging.calibration {
        Some(_) => assembling::loaded(run, soup).await.map(Some),
        None => Ok(None),
    }
}

fn statistics_of(judged: Option<&InMemory>) -> Option<&Statistics> {
    judged.and_then(|judged| judged.soup.statistics())
}

/// SHA-256 of the flattened parameters of `soup`. Where shards are not kept that is of what was written, so that no ingredient is
/// read again.
///
/// # Errors
/// Where a blend cannot be had, or a file that was written cannot be read.
pub(crate) async fn digest(run: &Arc<Active>, soup: &Soup) -> Result<Done> {
    let mut data = Sha256::new();
    let judged = recomputed(run, soup).await?;
    let parts = match run.begun.streams {
        true => written(run)?.boxed(),
        false => parameters(run, (soup, judged.as_deref()), 0..run.begun.schema.bytes()).boxed(),
    };
    let mut parts = std::pin::pin!(parts);
    while let Some(part) = parts.try_next().await? {
        // Hashing runs beside the runtime: a shard takes tens of milliseconds.
        data = run
            .compute
            .beside(move || {
                data.update(&part);
                Ok(data)
            })
            .await?;
    }
    Ok(Done::of(Answer::Digested(data.finalize().into()), statistics_of(judged.as_deref())))
}

/// All data of the files that were written, in order.
fn written(run: &Arc<Active>) -> Result<impl Stream<Item = Result<Bytes>> + Send> {
    let staging = Arc::new(staging(run)?);
    let mut parts = Vec::new();
    for file in &run.begun.files {
        let (header, bytes) = (file.header.len() as u64, file.range.end - file.range.start);
        for at in (0..bytes).step_by(READ_BACK_BYTES as usize) {
            let range = header + at..header + bytes.min(at + READ_BACK_BYTES);
            let (staging, name) = (staging.clone(), file.name.clone());
            parts.push(async move { staging.read(&name, range).await });
        }
    }
    Ok(stream::iter(parts).buffered(SHARDS_AHEAD as usize))
}

/// The byte range `range` of the flattened parameters of `soup`, in order, shard by shard; with the running statistics that its judge
/// recomputed, where it did.
fn parameters<'a>(
    run: &'a Arc<Active>,
    (soup, judged): (&'a Soup, Option<&'a InMemory>),
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes>> + Send + 'a {
    let overlap = move |shard: Shard| {
        let s = run.begun.plan.range(shard);
        let (start, end) = (s.start.max(range.start), s.end.min(range.end));
        (start < end).then(|| (shard, (start - s.start) as usize..(end - s.start) as usize))
    };
    let part = move |(shard, within): (Shard, Range<usize>)| async move {
        let start = run.begun.plan.range(shard).start + within.start as u64;
        let part = blends::any(run, shard.0, soup).await?.slice(within);
        Ok(match statistics_of(judged) {
            Some(statistics) => statistics.put_into(&run.begun.schema, start, part),
            None => part,
        })
    };
    let parts: Vec<_> = run.begun.plan.shards().filter_map(overlap).map(part).collect();
    stream::iter(parts).buffered(SHARDS_AHEAD as usize)
}

#[cfg(test)]
mod tests;
