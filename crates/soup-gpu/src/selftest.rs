//! Holds a device against the CPU before anybody trusts it.
//!
//! Every kernel is run once on 65,536 elements and compared bit for bit: on numbers of any bits, on such that show a product which is
//! contracted with its sum (weights that nearly cancel on equal elements), and on tensors that end anywhere. That is also when kernels
//! are compiled, and what a compiler does wrong, or a driver in silence, is seen here.

use std::num::NonZeroUsize;
use std::sync::Arc;

use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_core::{Error, Result};
use soup_tensor::{Layout, Place, ShardBuilder, ShardMemory};

use crate::gpu::Opened;
use crate::plan::Format;
use crate::resident::GpuPlace;

/// More than kernels take in a turn, and no multiple.
const INGREDIENTS: u32 = 9;
/// Of each format.
const ELEMENTS: u64 = 16_384;

/// Compares the device with the CPU.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where it differs; where it fails.
pub(crate) fn run(device: &Arc<Opened>) -> Result<()> {
    let schema = schema()?;
    let layout = Layout::new(&schema, 0..schema.bytes(), INGREDIENTS, NonZeroUsize::MIN)?;
    let host =
        soup_tensor::Device::cpu(NonZeroUsize::MIN).builder(&schema, 0..schema.bytes(), INGREDIENTS)?;
    let place: Box<dyn Place> = Box::new(GpuPlace::new(device.clone(), layout.clone())?);
    let (host, shard) = (loaded(host)?, loaded(ShardBuilder::new(layout.clone(), place))?);
    let mut wrong = Vec::new();
    for (name, soup) in soups(schema.tensors().len())? {
        let mut out = [vec![0; layout.bytes()], vec![1; layout.bytes()]];
        let [expected, found] = &mut out;
        host.blend(&soup, expected)?;
        note(&mut wrong, name, shard.blend(&soup, found).map(|()| found.as_slice()), expected)?;
    }
    let elements: usize = layout.segments().iter().map(|s| s.elements()).sum();
    let mut next = noise(3);
    let gradient: Vec<f32> = (0..elements).map(|_| number(next()) as f32).collect();
    let sums = |dots: Vec<soup_tensor::SegmentDots>| bits(dots.into_iter().flat_map(|d| d.dots));
    let expected = sums(host.dots(&gradient)?);
    note(&mut wrong, "products with a gradient", shard.dots(&gradient).map(sums), &expected)?;
    let mut base = vec![0; layout.bytes()];
    host.blend(&Soup::single(Ingredient(2)), &mut base)?;
    for (name, base) in
        [("products around the mean", None), ("products around a base", Some(base.as_slice()))]
    {
        let sums = |grams: Vec<soup_tensor::SegmentGram>| bits(grams.into_iter().flat_map(|g| g.packed));
        let expected = sums(host.gram(base)?);
        note(&mut wrong, name, shard.gram(base).map(sums), &expected)?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(device.named(Error::configuration(format!(
        "it does not give the processor's bits: {}; use the device \"cpu\"",
        wrong.join("; ")
    ))))
}

/// Notes what differs. A kernel that was not run is one more of it, so that all are tried.
fn note<T: AsRef<[u8]>>(
    wrong: &mut Vec<String>,
    name: &str,
    found: Result<T>,
    expected: &[u8],
) -> Result<()> {
    match found {
        Ok(found) if found.as_ref() == expected => {}
        Ok(found) => {
            let differ = found.as_ref().iter().zip(expected).filter(|(a, b)| a != b).count();
            wrong.push(format!("{differ} of {} bytes of {name}", expected.len()));
        }
        Err(error) if error.kind() == soup_core::ErrorKind::TryAgain => {
            wrong.push(format!("{name}: {}", error.chain()));
        }
        Err(error) => return Err(error.context(format!("{name} could not be computed"))),
    }
    Ok(())
}

/// The bits of sums. Of those that are NaN the CPU's are its own.
fn bits(sums: impl Iterator<Item = f64>) -> Vec<u8> {
    let one = |sum: f64| if sum.is_nan() { f64::NAN } else { sum };
    sums.flat_map(|sum| one(sum).to_le_bytes()).collect()
}

fn schema() -> Result<Schema> {
    let tensors = Format::ALL.iter().flat_map(|format| {
        let name = format.dtype().name();
        // Together so many, and the second ends where no unit does.
        [("a", ELEMENTS - 101), ("b", 101)]
            .map(|(which, n)| TensorSpec::new(format!("{name}.{which}"), format.dtype(), [n]))
    });
    Schema::new(tensors.collect())
}

fn soups(tensors: usize) -> Result<Vec<(&'static str, Soup)>> {
    let weight = |w: f64| Weight::new(w).ok_or_else(|| Error::internal("a weight that is none"));
    let all = || (0..INGREDIENTS).map(Ingredient).collect::<Vec<_>>();
    let mut next = noise(2);
    let mut row = || (0..INGREDIENTS).map(|_| weight(number(next()))).collect::<Result<Vec<Weight>>>();
    let rows = (0..tensors).map(|_| row()).collect::<Result<Vec<_>>>()?;
    let w = 0.1f64;
    let cancelling = vec![vec![weight(w)?, weight(-w.next_up())?]];
    let none = || Error::internal("a soup of none");
    Ok(vec![
        ("a mean", Soup::mean(all()).ok_or_else(none)?),
        ("a mean of finite numbers", Soup::mean((0..INGREDIENTS - 1).map(Ingredient)).ok_or_else(none)?),
        ("a blend whose weights cancel", Soup::weighted(vec![Ingredient(0), Ingredient(1)], cancelling)?),
        ("a blend with weights for every tensor", Soup::weighted(all(), rows)?),
        ("a blend with one row of weights", Soup::weighted(all(), vec![row()?])?),
        ("a copy", Soup::single(Ingredient(INGREDIENTS - 1))),
    ])
}

/// Fills a shard: the second ingredient is the first one, the last has any bits, the others numbers around zero.
fn loaded(builder: ShardBuilder) -> Result<Box<dyn ShardMemory>> {
    for index in 0..INGREDIENTS {
        let mut next = noise(10 + u64::from(index.saturating_sub(1)));
        let mut buffer = builder.buffer()?;
        let segments = builder.segments().to_vec();
        for segment in &segments {
            let width = segment.dtype.width_bytes() as usize;
            for element in buffer.bytes_mut()[segment.range.clone()].chunks_exact_mut(width) {
                let word = next();
                let bits = if index == INGREDIENTS - 1 { word } else { near_zero(segment.dtype, word) };
                element.copy_from_slice(&bits.to_le_bytes()[..width]);
            }
        }
        builder.keep(Ingredient(index), buffer)?;
    }
    Ok(builder.finish(|_, _| true)?.0)
}

/// The bits of a number of at most 1, by cutting off what the dtype cannot hold.
fn near_zero(dtype: Dtype, word: u64) -> u64 {
    let value = number(word);
    match dtype {
        Dtype::F64 => value.to_bits(),
        Dtype::F32 => u64::from((value as f32).to_bits()),
        Dtype::BF16 => u64::from((value as f32).to_bits() >> 16),
        // An exponent of 8 to 14, below 1, and any sign and mantissa.
        _ => (word & 0x83ff) | ((8 + (word >> 20) % 7) << 10),
    }
}

/// A number of at most 1.
fn number(word: u64) -> f64 {
    (word >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
