//! What a worker keeps: itself, and the run it works on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use soup_core::judge::{JudgeId, Offer};
use soup_core::machine::{Space, Tier};
use soup_core::memory::{Cut, DECODING_BYTES_MIN, SHARDS_AHEAD, soups_kept};
use soup_core::{Error, ErrorKind, Result};
use soup_eval::Budget;
use soup_metrics::metrics;
use tokio::sync::watch;

use crate::begun::{Begun, Owners};
use crate::compute::Compute;
use crate::device::OnDevice;
use crate::gradients::Gradients;
use crate::handing_in::HandingIn;
use crate::judge::Judge;
use crate::judge::external::{External, Hosts};
use crate::judge::native::{Native, Place};
use crate::judge::samples::SamplesMemory;
use crate::logits::Logits;
use crate::passages::Passages;
use crate::peers::Peers;
use crate::room::{self, Room};
use crate::shards::Shards;
use crate::soups::Soups;
use crate::task::Cancelled;
use crate::turns::IN_WORK_MAX;
use crate::{DiskCache, WorkerConfig};
use soup_trust::Connect;

/// Blends that peers still read while others are kept in their place.
const UNDER_WAY: u64 = 2;

/// Placements whose shards may be here at a time: those of an earlier one go when a newer one is complete.
const PLACEMENTS: u64 = 2;

/// A worker's fixed parts, and the runs it knows.
pub(crate) struct Worker {
    /// The device besides the host, or the host's other arithmetic, if there is one.
    pub(crate) on_device: Option<Arc<OnDevice>>,
    pub(crate) compute: Compute,
    /// How peers are reached.
    pub(crate) peers: Arc<dyn Connect>,
    pub(crate) slots: u32,
    pub(crate) handing_in: HandingIn,
    memory_bytes: u64,
    /// What shards take of each tier, of whatever run.
    taken: [Arc<Room>; Tier::ALL.len()],
    /// What decoding may take, for all runs and threads.
    decoding: Budget,
    pub(crate) disk_cache: Option<DiskCache>,
    /// The judges that are programs of their own.
    judges: Hosts,
    runs: RwLock<BTreeMap<String, Known>>,
}

/// Shards that are resident, of a run.
pub(crate) struct Held {
    pub(crate) run: String,
    pub(crate) shards: Vec<u32>,
    /// Those of them that are in the disk cache.
    pub(crate) on_disk: Vec<u32>,
    /// Those of them that are in the memory of the device.
    pub(crate) on_device: Vec<u32>,
}

/// Shards of a run that streams which were read.
pub(crate) struct Passes {
    pub(crate) run: String,
    pub(crate) epoch: u64,
    pub(crate) shards: u32,
}

/// A run that this worker was told about.
enum Known {
    Active(Arc<Active>),
    /// It could not be begun, and its tasks are answered with the reason.
    Refused {
        epoch: u64,
        kind: ErrorKind,
        reason: String,
    },
}

impl Known {
    fn epoch(&self) -> u64 {
        match self {
            Known::Active(run) => run.begun.epoch,
            Known::Refused { epoch, .. } => *epoch,
        }
    }
}

impl Worker {
    pub(crate) fn new(
        on_device: Option<OnDevice>,
        config: &WorkerConfig,
        compute: Compute,
        peers: Arc<dyn Connect>,
        judges: Hosts,
    ) -> Worker {
        let (slots, memory_bytes) = (config.slots, config.memory_bytes);
        Worker {
            on_device: on_device.map(Arc::new),
            compute,
            peers,
            slots,
            handing_in: HandingIn::default(),
            memory_bytes,
            taken: Default::default(),
            decoding: Budget::new(Cut::of(memory_bytes, false).decoding.max(DECODING_BYTES_MIN)),
            disk_cache: config.disk_cache.clone(),
            judges,
            runs: RwLock::default(),
        }
    }

    /// What it offers for shards.
    pub(crate) fn space(&self) -> Space {
        Space {
            device: self.on_device.as_ref().map_or(0, |device| device.offered()),
            memory: Cut::of(self.memory_bytes, false).shards,
            disk: self.disk_cache.as_ref().map_or(0, |cache| cache.bytes),
        }
    }

    /// Takes room for `bytes` of shards on a tier.
    ///
    /// # Errors
    /// [`Internal`](ErrorKind::Internal) where no coordinator that goes by what was offered would ask for that.
    pub(crate) fn take(&self, tier: Tier, bytes: u64) -> Result<room::Place> {
        let offered = self.space().of(tier);
        let place = self.taken[tier as usize].try_take(bytes, offered.saturating_mul(PLACEMENTS));
        place.ok_or_else(|| {
            Error::internal(format!(
                "no room for a shard of {bytes} bytes: this worker offers {offered} bytes on tier {}, and has given them away",
                tier.name()
            ))
        })
    }

    /// Who can judge here.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        let others = self.judges.values().map(|host| host.about().offer.clone());
        let on_device = self.on_device.iter().map(|device| device.offer());
        std::iter::once(Offer::native()).chain(on_device).chain(others).collect()
    }

    /// The device, where that is what `judge` judges on.
    fn judged_on(&self, judge: Option<&JudgeId>) -> Option<&Arc<OnDevice>> {
        self.on_device.as_ref().filter(|device| judge == Some(&device.offer().id))
    }

    /// A new judge for a run; `None` where this worker has not the one that the run wants.
    fn judge(&self, begun: &Begun, samples_bytes_max: u64) -> Option<Arc<dyn Judge>> {
        let wanted = begun.judge.as_ref()?;
        let (setting, schema) = (begun.judging.clone(), begun.schema.clone());
        let on_device = self.judged_on(Some(wanted));
        if *wanted == JudgeId::native() || on_device.is_some() {
            let memory = SamplesMemory {
                kept_bytes: samples_bytes_max,
                threads: self.slots,
                decoding: self.decoding.clone(),
            };
            let place = on_device.map_or_else(Place::default, |device| device.judging());
            return Some(Arc::new(Native::new(setting, schema, self.compute.clone(), memory, place)));
        }
        let host = self.judges.get(&wanted.name).filter(|host| host.about().offer.id == *wanted)?;
        Some(Arc::new(External::new(host.clone(), setting, schema, self.compute.clone())))
    }

    /// Begins a run; one of the same id but an older epoch is replaced, and leaves its shards to it. Others are forgotten:
    /// a coordinator has one run in progress.
    pub(crate) fn begin(&self, id: String, epoch: u64, begun: Result<Begun>) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        if runs.get(&id).is_some_and(|known| known.epoch() >= epoch) {
            return;
        }
        runs.retain(|other, _| *other == id);
        let earlier = match runs.get(&id) {
            Some(Known::Active(earlier)) => Some(earlier.clone()),
            _ => None,
        };
        let known = match begun {
            Ok(begun) => Known::Active(Arc::new(Active::new(begun, self, earlier.as_deref()))),
            Err(error) => Known::Refused { epoch, kind: error.kind(), reason: error.chain() },
        };
        runs.insert(id, known);
    }

    /// The run `id` under `epoch`.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not know it under that epoch; the reason why it
    /// could not be begun.
    pub(crate) fn run(&self, id: &str, epoch: u64) -> Result<Arc<Active>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        match runs.get(id) {
            Some(run) if run.epoch() != epoch => {
                Err(Error::try_again(format!("run {id:?} is at epoch {}, not at epoch {epoch}", run.epoch())))
            }
            Some(Known::Active(run)) => Ok(run.clone()),
            Some(Known::Refused { kind, reason, .. }) => Err(Error::new(*kind, reason.as_str())),
            None => Err(Error::try_again(format!("this worker does not know run {id:?}"))),
        }
    }

    pub(crate) fn end(&self, id: &str) {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// How far the run in progress has come, if it streams.
    pub(crate) fn passes(&self) -> Option<Passes> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let passes = |(id, known): (&String, &Known)| match known {
            Known::Active(run) if run.begun.streams => Some(Passes {
                run: id.clone(),
                epoch: run.begun.epoch,
                shards: run.passages.numbers().len() as u32,
            }),
            _ => None,
        };
        runs.iter().find_map(passes)
    }

    /// Shows operators what is resident.
    pub(crate) fn show_resident(&self) {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        for tier in Tier::ALL {
            let bytes = runs.values().map(|known| match known {
                Known::Active(run) => run.shards.bytes_on(tier),
                Known::Refused { .. } => 0,
            });
            let gauge = metrics().worker.resident.get_or_create(&[("tier", tier.name())]);
            gauge.set(i64::try_from(bytes.fold(0, u64::saturating_add)).unwrap_or(i64::MAX));
        }
    }

    /// What is resident, for a coordinator that does not know it.
    pub(crate) fn held(&self) -> Vec<Held> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let held = |(id, known): (&String, &Known)| match known {
            Known::Active(run) => {
                let [on_device, on_disk] = [Tier::Device, Tier::Disk].map(|tier| run.shards.on(tier));
                let mut shards = run.shards.numbers();
                shards.extend(run.passages.numbers());
                Some(Held { run: id.clone(), shards, on_disk, on_device })
            }
            Known::Refused { .. } => None,
        };
        runs.iter().filter_map(held).collect()
    }
}

/// What is made ready while shards are loaded.
#[derive(Default)]
struct Readying {
    begun: AtomicBool,
    cancelled: Cancelled,
}

impl Drop for Readying {
    fn drop(&mut self) {
        self.cancelled.set();
    }
}

/// A run as a worker sees it.
pub(crate) struct Active {
    pub(crate) begun: Begun,
    pub(crate) shards: Shards,
    /// Those that stream.
    pub(crate) passages: Passages,
    pub(crate) soups: Soups,
    pub(crate) gradients: Gradients,
    pub(crate) logits: Logits,
    /// Who scores its soups; `None` where this worker has not the judge that the run wants.
    judge: Option<Arc<dyn Judge>>,
    readying: Readying,
    /// Those that this worker has, for people.
    offered: Vec<String>,
    owners: watch::Sender<Option<Arc<Owners>>>,
    me: AtomicU64,
    /// How this worker's memory is cut.
    cut: Cut,
    /// Tasks that are computed at the same time.
    slots: u32,
    /// Soups that there is room for: known with the placement, since all shards are there by then.
    soups_kept: AtomicU64,
    pub(crate) peers: Peers,
    pub(crate) compute: Compute,
    /// The device, where the run's judge judges there.
    on_device: Option<Arc<OnDevice>>,
}

impl Active {
    /// A run, with the shards and the judge of an `earlier` epoch of it, if they are of the same tensors and data.
    fn new(begun: Begun, worker: &Worker, earlier: Option<&Active>) -> Active {
        let earlier = earlier.filter(|e| e.begun.schema == begun.schema);
        let cut = Cut::of(worker.memory_bytes, begun.keep_logits);
        Active {
            shards: earlier.map_or_else(Shards::default, |e| e.shards.handed_on()),
            passages: match (Passages::new(worker.slots), earlier) {
                (new, Some(earlier)) => new.after(&earlier.passages),
                (new, None) => new,
            },
            soups: earlier.map_or_else(Soups::default, |e| Soups::after(&e.soups)),
            gradients: Gradients::default(),
            logits: Logits::new(cut.logits),
            judge: match earlier.filter(|e| e.begun.judging == begun.judging && e.begun.judge == begun.judge)
            {
                Some(earlier) => earlier.judge.clone(),
                None => worker.judge(&begun, cut.samples),
            },
            readying: Readying::default(),
            offered: worker.offers().into_iter().map(|offer| offer.id.to_string()).collect(),
            owners: watch::Sender::new(None),
            me: AtomicU64::new(0),
            cut,
            slots: worker.slots,
            soups_kept: AtomicU64::new(1),
            peers: Peers::new(worker.peers.clone(), begun.streams),
            compute: worker.compute.clone(),
            on_device: worker.judged_on(begun.judge.as_ref()).cloned(),
            begun,
        }
    }

    /// Who scores its soups.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) where the run wants a judge that this worker has not: it only holds shards.
    pub(crate) fn judge(&self) -> Result<&Arc<dyn Judge>> {
        self.judge.as_ref().ok_or_else(|| match &self.begun.judge {
            Some(wanted) => Error::configuration(format!(
                "the run is judged by {wanted}, and this worker has {}: give it that judge, or start workers of the coordinator's \
                 version",
                self.offered.join(", ")
            )),
            None => Error::internal("something is to be judged in a run without data"),
        })
    }

    /// Has the judge make ready what is judged first, while shards are loaded; once.
    pub(crate) fn make_ready(&self) {
        let Readying { begun, cancelled } = &self.readying;
        let Some(judge) = self.judge.clone().filter(|_| self.compute.is_concurrent()) else { return };
        if !begun.swap(true, Ordering::Relaxed) {
            let cancelled = cancelled.clone();
            tokio::spawn(async move { judge.make_ready(cancelled).await });
        }
    }

    /// What is needed is asked for by itself from now on.
    pub(crate) fn is_ready(&self) {
        self.readying.cancelled.set();
    }

    /// Takes a newer placement. `me` keeps the shards that are its own, and no others.
    pub(crate) fn place(&self, owners: Owners, me: u64) {
        self.me.store(me, Ordering::Relaxed);
        let mine = |shard: u32| owners.of(shard) == Some(me);
        self.shards.retain(mine);
        self.passages.retain(mine);
        let resident = self.shards.bytes_on(Tier::Memory);
        // Of a soup that peers ask for, the blends of this worker's shards are kept too.
        let blends = match owners.all_with(me) {
            true => 0,
            false => self.shards.bytes() / (self.begun.ingredients.len() as u64).max(1),
        };
        let soup = self.begun.schema.bytes().saturating_add(blends);
        let most = self.judge.as_ref().map_or(u64::MAX, |judge| judge.soups_max());
        let on_device = self.on_device.as_ref().map_or(u64::MAX, |device| {
            device.models_kept(self.begun.schema.parameters(), self.shards.bytes_on(Tier::Device))
        });
        let kept = soups_kept(self.cut.shards.saturating_sub(resident), soup).min(most).min(on_device);
        self.soups_kept.store(kept, Ordering::Relaxed);
        self.owners.send_replace(Some(Arc::new(owners)));
    }

    /// The number of this worker in the current placement.
    pub(crate) fn me(&self) -> u64 {
        self.me.load(Ordering::Relaxed)
    }

    /// Whether this worker owns all shards, so that nobody asks it for a blend.
    pub(crate) fn is_alone(&self) -> bool {
        self.owners.borrow().as_ref().is_some_and(|owners| owners.all_with(self.me()))
    }

    /// Soups that there is room for at a time.
    pub(crate) fn soups_kept(&self) -> u64 {
        self.soups_kept.load(Ordering::Relaxed)
    }

    /// What peers may be served at a time, in bytes: the blends that are kept, and a few that are under way and not kept any more. Where
    /// shards stream, and nothing is kept, those of the passes that are made and those that this worker itself fetches ahead.
    pub(crate) fn served_bytes_max(&self) -> u64 {
        let shards = match self.begun.streams {
            true => u64::from(self.slots) * (1 + SHARDS_AHEAD) + 2 * SHARDS_AHEAD,
            false => self.blends_kept() as u64 + UNDER_WAY,
        };
        self.begun.plan.shard_bytes().saturating_mul(shards)
    }

    /// Fetches of one peer that are in work at a time. Where shards stream each takes long, and there are as many as there is room for.
    pub(crate) fn fetches_max(&self) -> u64 {
        match self.begun.streams {
            true => (self.served_bytes_max() / self.begun.plan.shard_bytes().max(1)).max(IN_WORK_MAX),
            false => IN_WORK_MAX,
        }
    }

    /// Blends of this worker's own shards that are kept for peers.
    pub(crate) fn blends_kept(&self) -> usize {
        self.soups_kept() as usize * self.shards.count()
    }

    /// Who holds what.
    ///
    /// # Errors
    /// [`TryAgain`](soup_core::ErrorKind::TryAgain) where nobody has said so yet.
    pub(crate) fn owners(&self) -> Result<Arc<Owners>> {
        self.owners.borrow().clone().ok_or_else(|| Error::try_again("no placement has arrived yet"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;

    #[test]
    fn no_more_shards_are_kept_than_two_placements_of_what_is_offered() {
        let mut worker = crate::bench::worker(Arc::new(crate::Tcp), 1).unwrap();
        worker.memory_bytes = 1000;
        let offered = worker.space().memory;
        let first = worker.take(Tier::Memory, offered).unwrap();
        let _second = worker.take(Tier::Memory, offered - 1).unwrap();
        for bytes in [2, u64::MAX] {
            let error = worker.take(Tier::Memory, bytes).err().unwrap();
            assert!(error.chain().contains("offers 800 bytes on tier memory"), "{}", error.chain());
        }
        drop(first);
        let _third = worker.take(Tier::Memory, offered).unwrap();
        assert!(worker.take(Tier::Disk, 1).is_err() && worker.take(Tier::Device, 1).is_err());
    }

    #[test]
    fn a_worker_with_another_judge_holds_shards_and_does_not_judge() {
        let worker = bench::worker(Arc::new(crate::Tcp), 1).unwrap();
        let tensor = soup_proto::v1::Tensor {
            name: "w".into(),
            dtype: "F32".into(),
            shape: vec![4],
            taken_from: None,
        };
        let judge_of = |judge: Option<JudgeId>| {
            let run = format!("{judge:?}");
            let begin = soup_proto::v1::BeginRun {
                digest: soup_proto::v1::DigestKind::Sha256.into(),
                peer_key: vec![7; 32],
                run: run.clone(),
                epoch: 1,
                tensors: vec![tensor.clone()],
                shard_bytes: soup_core::shard::ShardPlan::new(16).shard_bytes(),
                judge: judge.as_ref().map(Into::into),
                ..Default::default()
            };
            worker.begin(run.clone(), 1, begin.try_into());
            // The run is begun in any case.
            worker.run(&run, 1).unwrap().judge().map(|_| ())
        };
        assert!(judge_of(Some(JudgeId::native())).is_ok());
        let others = [
            JudgeId { name: "lm".into(), ..JudgeId::native() },
            JudgeId { version: "0".into(), ..JudgeId::native() },
            JudgeId { numerics: "cuda-sm90-tf32".into(), ..JudgeId::native() },
            JudgeId { digest: Some("abc".into()), ..JudgeId::native() },
        ];
        for other in others {
            let error = judge_of(Some(other.clone())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.chain().contains(&format!("judged by {other}")), "{}", error.chain());
        }
        assert_eq!(judge_of(None).unwrap_err().kind(), ErrorKind::Internal);
    }
}
