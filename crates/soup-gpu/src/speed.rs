//! How fast devices are, the host among them: all of them move the same bytes.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Instant;

use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};
use soup_tensor::{Device, ShardBuilder};

/// Of a blend.
const INGREDIENTS: u32 = 16;
const ROUNDS: usize = 5;

/// How fast a device is, in bytes read and written a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// A copy on the device.
    pub copy: f64,
    /// The mean of 16 ingredients of `bf16`, what it takes to the host included.
    pub blend: f64,
}

/// How fast the host is with so many threads a blend, by a copy and a blend that read about `bytes` bytes each; the copy takes one thread.
///
/// # Errors
/// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where there is not enough memory.
pub fn host_speed(bytes: u64, threads: NonZeroUsize) -> Result<Speed> {
    let blend =
        blend(bytes, |schema, range, ingredients| Device::cpu(threads).builder(schema, range, ingredients))?;
    let (from, mut to) = (vec![1u8; bytes as usize], vec![0u8; bytes as usize]);
    let copy = best(2 * bytes, || {
        black_box(&mut to).copy_from_slice(black_box(&from));
        Ok(())
    })?;
    Ok(Speed { copy, blend })
}

/// Bytes a second of the mean of 16 ingredients in bf16 of about `bytes` bytes in all, where `builder` has them kept.
///
/// # Errors
/// Those of `builder`, and of what it makes.
pub(crate) fn blend(
    bytes: u64,
    builder: impl FnOnce(&Schema, Range<u64>, u32) -> Result<ShardBuilder>,
) -> Result<f64> {
    let elements = bytes / u64::from(INGREDIENTS) / 2;
    let schema = Schema::new(vec![TensorSpec::new("w", Dtype::BF16, [elements])])?;
    let builder = builder(&schema, 0..schema.bytes(), INGREDIENTS)?;
    for ingredient in (0..INGREDIENTS).map(Ingredient) {
        builder.keep(ingredient, builder.buffer()?)?;
    }
    let (shard, _) = builder.finish(|_, _| true)?;
    let soup = Soup::uniform(INGREDIENTS).ok_or_else(|| Error::internal("a soup of none"))?;
    let mut out = vec![0; shard.bytes()];
    best(schema.bytes() * u64::from(INGREDIENTS + 1), || shard.blend(&soup, &mut out))
}

/// Bytes a second of the fastest of some rounds.
pub(crate) fn best(bytes: u64, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        work()?;
        least = least.min(begun.elapsed().as_secs_f64());
    }
    Ok(bytes as f64 / least)
}
