//! The device that a worker computes on besides its host, where it has one: shards are kept in its memory and blended there, and the
//! native judge judges there, in an arithmetic of its own.
//!
//! The host itself may have an arithmetic of its own besides f32, too.
//!
//! It is opened once, when the worker starts, and compared with the host before anything is kept or judged there: one that gives other
//! blends, or other logits, is refused. The host keeps its own tiers and its own arithmetic: which of both a run is judged by is the run's.

use std::num::NonZeroUsize;
use std::ops::Range;

use soup_core::devices::{DeviceKind, DeviceReport};
use soup_core::judge::Offer;
use soup_core::memory::{Cut, soups_kept};
use soup_core::schema::Schema;
use soup_core::survey::Ability;
use soup_core::{Error, Result};
use soup_eval::Precision;
use soup_gpu::Gpu;
use soup_tensor::{Device, ShardBuilder};

use crate::judge::native::Place;

/// What stands for the first card that works, or the host.
const AUTO: &str = "auto";
/// Of what is free of a device's memory this part is left alone, unless it is said how much may be used.
const FREE_PART: u64 = 10;
/// Bytes that are moved to find out how fast a device is.
const SPEED_BYTES: u64 = 256 << 20;

/// Where to compute, as the command line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// `cpu`, `cuda:N` or `vulkan:N`; or `auto`, which is the first card of NVIDIA's that works, or else the host.
    pub name: String,
    /// Bytes of its memory that may be used; by default most of what is free. It has to be there, and the host has none of its own.
    pub memory_bytes: Option<u64>,
    /// How many workers share it; each has its part of what is free.
    pub sharers: u32,
    /// The arithmetic of its native judge: `f32`, `tf32` or `bf16`.
    pub precision: String,
}

impl Default for DeviceConfig {
    /// The host.
    fn default() -> DeviceConfig {
        let precision = Precision::default().to_string();
        DeviceConfig { name: "cpu".to_owned(), memory_bytes: None, sharers: 1, precision }
    }
}

impl DeviceConfig {
    fn precision(&self) -> Result<Precision> {
        let all = [Precision::F32, Precision::Tf32, Precision::Bf16];
        all.into_iter().find(|p| p.to_string() == self.precision).ok_or_else(|| {
            let names = all.map(|p| p.to_string()).join(", ");
            Error::usage(format!("unknown precision {:?}: expected one of {names}", self.precision))
        })
    }

    /// The same, with what `auto` stands for here. Looks at the devices, and blocks.
    ///
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for a name that is no device's.
    pub fn resolved(mut self) -> Result<DeviceConfig> {
        if self.name == AUTO {
            let cards = soup_gpu::devices();
            let mut cards = cards.iter().filter(|found| matches!(found.kind, DeviceKind::Cuda(_)));
            self.name = match cards.find(|found| found.device.is_ok()) {
                Some(card) => card.kind.to_string(),
                None => DeviceKind::Cpu.to_string(),
            };
            tracing::info!(device = self.name, "chosen, since --device is auto");
        }
        Device::parse(&self.name)?;
        Ok(self)
    }
}

/// A device besides the host, or the host in another arithmetic than f32.
pub(crate) struct OnDevice {
    /// None on the host.
    card: Option<Card>,
    kind: DeviceKind,
    precision: Precision,
    /// The class of its arithmetic.
    numerics: String,
}

/// A device that has memory of its own.
struct Card {
    gpu: Gpu,
    /// That may be used of it.
    memory_bytes: u64,
}

impl OnDevice {
    /// The device of that name, ready to be used; `None` for the host in f32. Compiles kernels and compares what they give, and blocks meanwhile.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration) where this build has not got it, it is not there, differs from the host, or has not so
    /// much memory; [`Usage`](soup_core::ErrorKind::Usage) for names that are none, and for what only a device has where it is the host.
    pub(crate) fn open(config: &DeviceConfig) -> Result<Option<OnDevice>> {
        let config = config.clone().resolved()?;
        let (kind, precision) = (Device::parse(&config.name)?.kind(), config.precision()?);
        if kind == DeviceKind::Cpu {
            if config.memory_bytes.is_some() {
                return Err(Error::usage(
                    "--device-memory is about a device, and --device is the host: name one",
                ));
            }
            let numerics = soup_eval::numerics(kind, precision)?;
            let other = precision != Precision::default();
            return Ok(other.then_some(OnDevice { card: None, kind, precision, numerics }));
        }
        let gpu = Gpu::open(kind)?;
        let numerics = soup_eval::numerics(kind, precision)?;
        let free = gpu.free_bytes()?;
        let memory_bytes =
            config.memory_bytes.unwrap_or((free - free / FREE_PART) / u64::from(config.sharers.max(1)));
        if memory_bytes > free {
            return Err(Error::configuration(format!(
                "device {kind} ({}) has {} MiB of memory free, and --device-memory says {} MiB",
                gpu.info().name,
                free >> 20,
                memory_bytes >> 20
            )));
        }
        tracing::info!(device = %kind, name = gpu.info().name, numerics, memory_bytes, "the device gives what the host does");
        Ok(Some(OnDevice { card: Some(Card { gpu, memory_bytes }), kind, precision, numerics }))
    }

    /// How its memory is cut; of the host's nothing is its own.
    fn cut(&self) -> Cut {
        Cut::of(self.card.as_ref().map_or(0, |card| card.memory_bytes), false)
    }

    /// Bytes of parameters that it offers for shards. What is left is for soups that are judged, samples and what is under way.
    pub(crate) fn offered(&self) -> u64 {
        self.cut().shards
    }

    /// How the native judge judges there.
    pub(crate) fn judging(&self) -> Place {
        Place { device: self.kind, precision: self.precision, samples_bytes: self.cut().samples }
    }

    /// Room there for a shard.
    ///
    /// # Errors
    /// Where there is none; [`Internal`](soup_core::ErrorKind::Internal) on the host, which offers none.
    pub(crate) fn builder(
        &self,
        schema: &Schema,
        range: Range<u64>,
        ingredients: u32,
    ) -> Result<ShardBuilder> {
        let card = self.card.as_ref();
        let card = card.ok_or_else(|| Error::internal("a shard for the device of a worker without one"))?;
        card.gpu.builder(schema, range, ingredients)
    }

    /// The native judge, as it is there. On the host gradients are in f32 alone.
    pub(crate) fn offer(&self) -> Offer {
        let mut offer = Offer::native();
        offer.id.numerics.clone_from(&self.numerics);
        if self.card.is_none() {
            offer.abilities.remove(&Ability::Gradients);
        }
        offer
    }

    /// Models of `parameters` parameters that it has room for beside shards that take `resident` bytes, and always one; on the host as many
    /// as that has room for.
    pub(crate) fn models_kept(&self, parameters: u64, resident: u64) -> u64 {
        if self.card.is_none() {
            return u64::MAX;
        }
        let element = if self.precision == Precision::Bf16 { 2 } else { 4 };
        soups_kept(self.offered().saturating_sub(resident), parameters.saturating_mul(element))
    }
}

/// All devices that this build can look for, the host first; opened, compared with the host and measured. Takes seconds, and blocks.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for a precision that is none.
pub fn devices(precision: &str) -> Result<Vec<DeviceReport>> {
    let config = DeviceConfig { precision: precision.to_owned(), ..DeviceConfig::default() };
    let precision = config.precision()?;
    let mut all = vec![host(precision)];
    all.extend(soup_gpu::devices().into_iter().map(|found| report(&found, precision)));
    Ok(all)
}

fn report(found: &soup_gpu::Found, precision: Precision) -> DeviceReport {
    let mut report = DeviceReport { device: found.kind.to_string(), ..DeviceReport::default() };
    let judged = |report: &mut DeviceReport| -> Result<()> {
        let info = found.device.as_ref().map_err(|e| Error::new(e.kind(), e.chain()))?;
        (report.name, report.driver) = (Some(info.name.clone()), Some(info.driver.clone()));
        (report.memory_bytes, report.free_bytes) =
            (info.memory.map(|m| m.total), info.memory.map(|m| m.free));
        let gpu = Gpu::open(found.kind)?;
        let speed = gpu.speed(SPEED_BYTES)?;
        report.copy_bytes_per_second = Some(speed.copy);
        report.blend_bytes_per_second = Some(speed.blend);
        report.numerics = Some(soup_eval::numerics(found.kind, precision)?);
        Ok(())
    };
    if let Err(error) = judged(&mut report) {
        report.error = Some(error.chain());
    }
    report
}

/// The host, whose f32 is always there.
fn host(precision: Precision) -> DeviceReport {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let (speed, error) = match soup_gpu::host_speed(SPEED_BYTES, threads) {
        Ok(speed) => (Some(speed), None),
        Err(error) => (None, Some(error.chain())),
    };
    let (numerics, refused) = match soup_eval::numerics(DeviceKind::Cpu, precision) {
        Ok(numerics) => (Some(numerics), None),
        Err(error) => (None, Some(error.chain())),
    };
    DeviceReport {
        device: DeviceKind::Cpu.to_string(),
        name: Some(format!("{threads} threads")),
        numerics,
        copy_bytes_per_second: speed.map(|s| s.copy),
        blend_bytes_per_second: speed.map(|s| s.blend),
        error: error.or(refused),
        ..DeviceReport::default()
    }
}
