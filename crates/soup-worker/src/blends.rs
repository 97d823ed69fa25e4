//! Blends: computed from this worker's own shards, or fetched from the peers that own the others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_metrics::metrics;
use soup_proto::v1::{self, FetchRequest, Gradient};
use soup_trust::ticket::{Bearer, Ticket};
use tokio::time::{Instant, timeout_at};

use crate::active::Active;
use crate::room::Place;
use crate::{learn, passing};

/// How long a fetch waits for its turn and for room, where what peers are served takes all there is; then its peer asks again. It waits for the
/// first byte a little longer.
const ROOM: Duration = Duration::from_secs(45);
/// Where others wait for shards to be read.
const ROOM_STREAMED: Duration = Duration::from_secs(540);

/// Bytes that peers are served, and the room that they take until nobody has them any more.
struct Served<T> {
    bytes: T,
    _place: Place,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Served<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Until when a peer waits that asks now: for all there is to wait for here.
pub(crate) fn patience(run: &Active) -> Instant {
    Instant::now() + if run.begun.streams { ROOM_STREAMED } else { ROOM }
}

/// Room for `bytes` bytes that a peer is served, which waits for them `until` then.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where others do not leave any for long.
async fn room(run: &Active, bytes: u64, until: Instant) -> Result<Place> {
    let place = run.soups.serve(bytes, run.served_bytes_max());
    timeout_at(until, place).await.map_err(|_| {
        Error::try_again(format!(
            "what this worker serves takes the {} MiB that there are for it, and is not read",
            run.served_bytes_max() >> 20
        ))
    })
}

/// The blend of `soup` on a shard that this worker holds.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it, or has no room for it.
pub(crate) async fn own(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    own_until(run, shard, soup, patience(run)).await
}

/// The same for a peer that waits `until` then.
///
/// # Errors
/// As for [`own`].
pub(crate) async fn own_until(run: &Arc<Active>, shard: u32, soup: &Soup, until: Instant) -> Result<Bytes> {
    check_fit(run, soup)?;
    if run.begun.streams {
        let place = room(run, shard_len(run, shard) as u64, until).await?;
        let bytes = passing::blend(run, shard, soup).await?;
        return Ok(Bytes::from_owner(Served { bytes, _place: place }));
    }
    let Some(memory) = run.shards.get(shard) else {
        return Err(Error::try_again(format!("this worker does not hold shard {shard}")));
    };
    let of = soup.clone();
    let blend = || async {
        let place = room(run, memory.bytes() as u64, until).await?;
        // Blending is bound by memory and short: it need not wait for a compute thread.
        let blend = move || {
            let mut bytes = vec![0; memory.bytes()];
            memory.blend(&of, &mut bytes)?;
            metrics().worker.blended.inc_by(bytes.len() as u64);
            Ok(Bytes::from_owner(Served { bytes, _place: place }))
        };
        run.compute.beside(blend).await
    };
    if run.is_alone() {
        // Nobody asks for it again.
        return blend().await;
    }
    run.soups.blend(soup, shard, run.blends_kept()).get_or_try_init(blend).await.cloned()
}

/// Refuses a soup of ingredients or tensors that the run has not: before anything is kept of it, a peer may ask for any.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for such a one.
fn check_fit(run: &Active, soup: &Soup) -> Result<()> {
    let (ingredients, tensors) = (run.begun.ingredients.len(), run.begun.schema.tensors().len());
    if soup.fits(ingredients, tensors) {
        return Ok(());
    }
    let (members, rows) = (soup.members().len(), soup.rows().map_or(1, <[_]>::len));
    Err(Error::usage(format!(
        "a soup of {members} members in {rows} rows is none of {ingredients} ingredients with {tensors} tensors"
    )))
}

/// The part of a gradient that this worker holds which is on a shard, for a peer that waits `until` then.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it, or has no room; [`Usage`](soup_core::ErrorKind::Usage) for a shard
/// that there is not.
pub(crate) async fn own_gradient(
    run: &Arc<Active>,
    shard: u32,
    of: Gradient,
    until: Instant,
) -> Result<Bytes> {
    if shard >= run.begun.plan.count() {
        return Err(Error::usage(format!("the run has no shard {shard}")));
    }
    let elements = learn::elements(run, shard);
    let place = room(run, (elements.len() * size_of::<f32>()) as u64, until).await?;
    let bytes = run.gradients.range((of.step, of.part), elements.start, elements.end)?;
    Ok(Bytes::from_owner(Served { bytes, _place: place }))
}

/// The blend of `soup` on any shard, from its owner.
pub(crate) async fn any(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    if run.shards.get(shard).is_some() || run.passages.has(shard) {
        return own(run, shard, soup).await;
    }
    let mut out = vec![0; shard_len(run, shard)];
    fetch(run, shard, soup, &mut out).await?;
    Ok(Bytes::from(out))
}

/// The blend of `soup` on a shard that another worker has, as that one gives it to anybody.
///
/// # Errors
/// Where it does not.
pub(crate) async fn served(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    let mut out = vec![0; shard_len(run, shard)];
    fetch(run, shard, soup, &mut out).await?;
    Ok(Bytes::from(out))
}

/// The same, into `place`, which has the shard's length.
pub(crate) async fn into(run: &Arc<Active>, shard: u32, soup: &Soup, place: &mut [u8]) -> Result<()> {
    if run.shards.get(shard).is_some() {
        place.copy_from_slice(&own(run, shard, soup).await?);
        return Ok(());
    }
    fetch(run, shard, soup, place).await
}

/// What this worker shows its peers.
fn ticket(run: &Active) -> v1::Ticket {
    let worker = run.me();
    let Ticket { until, mac } = run.begun.key.ticket(bearer(run, worker));
    v1::Ticket { worker, until, mac }
}

/// Refuses whoever does not take part in the run. The number of the worker that a ticket is for.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration) without a ticket that holds.
pub(crate) fn check(run: &Active, ticket: Option<v1::Ticket>) -> Result<u64> {
    let missing =
        || Error::configuration("blends are for the run's own workers, and this one shows no ticket");
    let v1::Ticket { worker, until, mac } = ticket.ok_or_else(missing)?;
    run.begun.key.check(bearer(run, worker), &Ticket { until, mac })?;
    Ok(worker)
}

fn bearer(run: &Active, worker: u64) -> Bearer<'_> {
    Bearer { run: &run.begun.run, epoch: run.begun.epoch, worker }
}

fn shard_len(run: &Active, shard: u32) -> usize {
    let range = run.begun.plan.range(Shard(shard));
    (range.end - range.start) as usize
}

/// Streams the blend of a shard from its owner into `out`.
async fn fetch(run: &Arc<Active>, shard: u32, soup: &Soup, out: &mut [u8]) -> Result<()> {
    let owners = run.owners()?;
    let owner = owners.of(shard).unwrap_or_default();
    let request = FetchRequest {
        run: run.begun.run.clone(),
        epoch: run.begun.epoch,
        shard,
        soup: Some(soup.into()),
        gradient: None,
        ticket: Some(ticket(run)),
    };
    run.peers.fetch(&owners, owner, &request, out).await
}

/// The gradient of a step and part that worker `source` holds, on the elements of a shard, as f32.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it any more.
pub(crate) async fn gradient(
    run: &Arc<Active>,
    shard: u32,
    (step, part): (u32, u32),
    elements: Range<usize>,
    source: u64,
) -> Result<Vec<f32>> {
    let mut values = vec![0f32; elements.len()];
    if source == run.me() {
        let own = run.gradients.range((step, part), elements.start, elements.end)?;
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&own);
        return Ok(values);
    }
    let request = FetchRequest {
        run: run.begun.run.clone(),
        epoch: run.begun.epoch,
        shard,
        soup: None,
        gradient: Some(Gradient { step, part }),
        ticket: Some(ticket(run)),
    };
    let owners = run.owners()?;
    run.peers.fetch(&owners, source, &request, bytemuck::cast_slice_mut(&mut values)).await?;
    Ok(values)
}
