//! Holds a device against the CPU before anybody trusts it.
//!
//! Every kernel is run once on 65,536 elements and compared bit for bit: on numbers of any bits, on such that show a product which is
//! contracted with its sum (weights that nearly cancel on equal elements), and on tensors that end anywhere. That is also when kernels
//! are compiled, and what a compiler does wrong, or a driver in silence, is seen here.

use std::num::NonZeroUsize;
use std::sync::Arc;

use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup, Weight};
use soup_core::{Error, ErrorKind, Result};
use soup_tensor::{Layout, Place, SegmentDots, SegmentGram, ShardBuilder, ShardMemory};

use crate::gpu::Opened;
use crate::plan::Format;
use crate::resident::GpuPlace;

/// More than kernels take in a turn, and no multiple.
const INGREDIENTS: u32 = 9;
/// Differences that are told; further ones are counted.
const TOLD_MAX: usize = 3;
/// Of each format.
const ELEMENTS: u64 = 16_384;

/// Compares the device with the CPU.
///
/// # Errors
/// [`ErrorKind::Configuration`] where it differs; where it fails.
pub(crate) fn run(device: &Arc<Opened>) -> Result<()> {
    let mut wrong = Vec::new();
    for format in Format::ALL {
        compare(device, format, &mut wrong)?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(TOLD_MAX);
    wrong.truncate(TOLD_MAX);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    Err(device.named(Error::configuration(format!(
        "it does not give the processor's bits: {}; use the device \"cpu\"",
        wrong.join("; ")
    ))))
}

/// Compares tensors of one format, and notes what differs.
fn compare(device: &Arc<Opened>, format: Format, wrong: &mut Vec<String>) -> Result<()> {
    let mut note = |name: &str, found, expected: &[u8]| note(wrong, format, name, found, expected);
    let schema = schema(format)?;
    let layout = Layout::new(&schema, 0..schema.bytes(), INGREDIENTS, NonZeroUsize::MIN)?;
    let host =
        soup_tensor::Device::cpu(NonZeroUsize::MIN).builder(&schema, 0..schema.bytes(), INGREDIENTS)?;
    let place: Box<dyn Place> = Box::new(GpuPlace::new(device.clone(), layout.clone())?);
    let (host, shard) = (loaded(host)?, loaded(ShardBuilder::new(layout.clone(), place))?);
    for (name, soup) in soups(schema.tensors().len())? {
        let (mut expected, mut found) = (vec![0; layout.bytes()], vec![1; layout.bytes()]);
        host.blend(&soup, &mut expected)?;
        let found = shard.blend(&soup, &mut found).map(|()| found);
        note(name, found, &expected)?;
    }
    let mut next = noise(3);
    let gradient: Vec<f32> = (0..ELEMENTS).map(|_| number(next()) as f32).collect();
    let sums = |dots: Vec<SegmentDots>| bits(dots.into_iter().flat_map(|d| d.dots));
    note("products with a gradient", shard.dots(&gradient).map(sums), &sums(host.dots(&gradient)?))?;
    let mut base = vec![0; layout.bytes()];
    host.blend(&Soup::single(Ingredient(2)), &mut base)?;
    for (name, base) in
        [("products around the mean", None), ("products around a base", Some(base.as_slice()))]
    {
        let sums = |grams: Vec<SegmentGram>| bits(grams.into_iter().flat_map(|g| g.packed));
        note(name, shard.gram(base).map(sums), &sums(host.gram(base)?))?;
    }
    Ok(())
}

/// Notes what differs. A kernel that was not run is one more of it, so that all are tried.
fn note(
    wrong: &mut Vec<String>,
    format: Format,
    name: &str,
    found: Result<Vec<u8>>,
    expected: &[u8],
) -> Result<()> {
    let dtype = format.dtype();
    match found {
        Ok(found) if found == expected => {}
        Ok(found) => {
            let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
            wrong.push(format!("{differ} of {} bytes of {name} of {dtype}", expected.len()));
        }
        Err(error) if error.kind() == ErrorKind::TryAgain => {
            wrong.push(format!("{name} of {dtype} was not computed, though no error was told"));
        }
        Err(error) => return Err(error.context(format!("{name} of {dtype} could not be computed"))),
    }
    Ok(())
}

/// The bits of sums. Of those that are NaN the CPU's are its own.
fn bits(sums: impl Iterator<Item = f64>) -> Vec<u8> {
    let one = |sum: f64| if sum.is_nan() { f64::NAN } else { sum };
    sums.flat_map(|sum| one(sum).to_le_bytes()).collect()
}

fn schema(format: Format) -> Result<Schema> {
    // The second ends where no unit does.
    let tensors = [("a", ELEMENTS - 101), ("b", 101)];
    Schema::new(tensors.map(|(name, n)| TensorSpec::new(name, format.dtype(), [n])).to_vec())
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
