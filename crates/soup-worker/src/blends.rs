//! Blends: computed from this worker's own shards, or fetched from the peers that own the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use soup_core::schema::Schema;
use soup_core::shard::Shard;
use soup_core::soup::Soup;
use soup_core::{Error, Result};
use soup_eval::Model;
use soup_proto::v1::FetchRequest;
use soup_proto::v1::blends_client::BlendsClient;
use soup_proto::{CHUNK_BYTES_MAX, error_of};
use tonic::transport::{Channel, Endpoint};

use crate::active::{Active, Worker};
use crate::connect::Connect;
use crate::recent::Recent;

/// Soups whose blends and models are kept: the one in work, the next one, and the one that may be written.
const SOUPS_KEPT: usize = 3;
/// Shards fetched at the same time.
const SHARDS_IN_FLIGHT: usize = 8;
/// Window of a stream between peers: enough for a chunk in flight and one being copied.
const WINDOW_BYTES: u32 = 8 << 20;

/// What was blended and assembled lately.
#[derive(Default)]
pub(crate) struct Blends {
    own: Recent<(Soup, u32), Bytes>,
    models: Recent<Soup, Arc<dyn Model>>,
}

/// The blend of `soup` on a shard that this worker holds.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where it does not hold it.
pub(crate) async fn own(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    let Some(memory) = run.shards.get(shard) else {
        return Err(Error::try_again(format!("this worker does not hold shard {shard}")));
    };
    let cell = run.blends.own.cell(&(soup.clone(), shard), SOUPS_KEPT * run.shards.count());
    let soup = soup.clone();
    let blend = || {
        // Blending is bound by memory and short: it need not wait for a compute thread.
        run.compute.beside(move || {
            let mut out = vec![0; memory.bytes()];
            memory.blend(&soup, &mut out).map(|()| Bytes::from(out))
        })
    };
    cell.get_or_try_init(blend).await.cloned()
}

/// The blend of `soup` on any shard, from its owner.
pub(crate) async fn any(run: &Arc<Active>, shard: u32, soup: &Soup) -> Result<Bytes> {
    if run.shards.get(shard).is_some() {
        return own(run, shard, soup).await;
    }
    let mut out = vec![0; shard_len(run, shard)];
    fetch(run, shard, soup, &mut out).await?;
    Ok(Bytes::from(out))
}

fn shard_len(run: &Active, shard: u32) -> usize {
    let range = run.plan.range(Shard(shard));
    (range.end - range.start) as usize
}

/// Streams the blend of a shard from its owner into `out`.
async fn fetch(run: &Arc<Active>, shard: u32, soup: &Soup, out: &mut [u8]) -> Result<()> {
    let placement = run.placement()?;
    let owner = placement.owners.get(shard as usize).copied().unwrap_or_default();
    let peer = placement.peers.iter().find(|p| p.worker == owner);
    let peer = peer.ok_or_else(|| Error::try_again(format!("the owner of shard {shard} is not known")))?;
    let failed =
        |e: Error| e.context(format!("cannot fetch shard {shard} from worker {owner} at {}", peer.address));
    let request =
        FetchRequest { run: run.begin.run.clone(), epoch: run.begin.epoch, shard, soup: Some(soup.into()) };
    let mut client = run.peers.client(&peer.address).map_err(failed)?;
    let reply = client.fetch(request).await.map_err(|s| failed(transient(error_of(&s))))?;
    let mut chunks = reply.into_inner();
    let mut filled = 0;
    while let Some(chunk) = chunks.message().await.map_err(|s| failed(transient(error_of(&s))))? {
        let end = filled + chunk.data.len();
        let place =
            out.get_mut(filled..end).ok_or_else(|| failed(Error::internal("it sent too many bytes")))?;
        place.copy_from_slice(&chunk.data);
        filled = end;
    }
    if filled < out.len() {
        return Err(failed(Error::try_again(format!("it sent {filled} of {} bytes", out.len()))));
    }
    Ok(())
}

/// Peers come and go: whatever breaks a stream between them is worth another attempt.
fn transient(error: Error) -> Error {
    if error.kind().is_transient() { error } else { Error::unavailable(error.chain()) }
}

/// The flattened parameters of `soup`, from all owners.
async fn assemble(run: &Arc<Active>, soup: &Soup) -> Result<Vec<u8>> {
    let mut parameters = vec![0; run.schema.bytes() as usize];
    // Every shard but the last has this length, so these are exactly the shards.
    let places = parameters.chunks_mut(run.plan.shard_bytes() as usize).zip(0u32..);
    let jobs: Vec<_> = places
        .map(|(place, shard)| async move {
            if run.shards.get(shard).is_some() {
                place.copy_from_slice(&own(run, shard, soup).await?);
                return Ok(());
            }
            fetch(run, shard, soup, place).await
        })
        .collect();
    stream::iter(jobs).buffer_unordered(SHARDS_IN_FLIGHT).try_collect::<()>().await?;
    Ok(parameters)
}

/// The model of `soup`, assembled once for all slices.
pub(crate) async fn model(worker: &Worker, run: &Arc<Active>, soup: &Soup) -> Result<Arc<dyn Model>> {
    let cell = run.blends.models.cell(soup, SOUPS_KEPT);
    let make = || async {
        let parameters = assemble(run, soup).await?;
        let (run, schema) = (run.clone(), run.schema.clone());
        let build = move || run.evaluator()?.load(&schema as &Schema, &parameters).map(Arc::from);
        worker.compute.run(build).await
    };
    cell.get_or_try_init(make).await.cloned()
}

/// Cuts a blend into the chunks that are sent.
pub(crate) fn chunks(mut blend: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        (!blend.is_empty()).then(|| blend.split_to(blend.len().min(CHUNK_BYTES_MAX - (64 << 10))))
    })
}

/// Connections to peers, by address.
pub(crate) struct Peers {
    connect: Arc<dyn Connect>,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    pub(crate) fn new(connect: Arc<dyn Connect>) -> Peers {
        Peers { connect, channels: Mutex::default() }
    }

    fn client(&self, address: &str) -> Result<BlendsClient<Channel>> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(BlendsClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|e| Error::internal(format!("peer address {address:?} is not a URL")).with_source(e))?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES);
        let channel = self.connect.connect_lazy(&endpoint);
        channels.insert(address.to_owned(), channel.clone());
        Ok(BlendsClient::new(channel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fit_a_message_and_add_up() {
        let blend = Bytes::from(vec![7; 5 << 20]);
        let parts: Vec<Bytes> = chunks(blend.clone()).collect();
        assert!(parts.iter().all(|c| c.len() < CHUNK_BYTES_MAX && !c.is_empty()));
        assert_eq!(parts.concat(), blend);
        assert_eq!(chunks(Bytes::new()).count(), 0);
    }
}
