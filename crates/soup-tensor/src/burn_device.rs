//! Shards resident on a burn device, blended by burn's operations: the door for GPUs.
//!
//! Floating-point elements live on the device, one tensor per *run* (consecutive segments of one dtype) and ingredient;
//! what is not averaged stays in host memory. Sums are in `f64`, so a backend must have it: those without (most of wgpu)
//! would need two-float sums, which may come later, as may storage other than `f32`. Until then both are refused when the
//! shard is made resident.

use std::num::NonZeroUsize;
use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use soup_core::schema::Dtype;
use soup_core::shard::Segment;
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};

use crate::blend::check_fit;
use crate::check::Findings;
use crate::device::{Buffer, ShardBuilder, of_ingredient};
use crate::format::{F32, Format};
use crate::source::Lent;
use crate::{SegmentDots, SegmentGram, ShardMemory, products};

/// A shard of all ingredients on a device of backend `B`.
pub struct BurnShards<B: Backend> {
    segments: Vec<Segment>,
    tensors: usize,
    runs: Vec<Run<B>>,
    /// The first ingredient, for what is not averaged.
    first: Buffer,
    /// Taken before the bytes went to the device.
    digests: Vec<[u8; 32]>,
}

/// Consecutive segments of one floating-point dtype.
struct Run<B: Backend> {
    /// Positions of the segments.
    segments: Range<usize>,
    /// Bytes of the shard.
    range: Range<usize>,
    /// The elements of every ingredient, in pool order.
    ingredients: Vec<Tensor<B, 1>>,
}

impl<B: Backend> BurnShards<B> {
    /// Inspects what was loaded, as [`ShardBuilder::finish`] does, and copies it to `device`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration) where the device cannot sum in `f64`, or a
    /// floating-point tensor is not stored as `f32`.
    pub fn new(
        builder: ShardBuilder,
        device: &B::Device,
        has_tensor: impl Fn(Ingredient, usize) -> bool + Sync,
    ) -> Result<(BurnShards<B>, Findings)> {
        for dtype in [DType::F32, DType::F64] {
            if !B::supports_dtype(device, dtype) {
                return Err(Error::configuration(format!(
                    "device {device:?} of {} has no {dtype:?} arithmetic, which blends need: use the device \"cpu\"",
                    B::name(device)
                )));
            }
        }
        let (segments, tensors, mut buffers, findings) = builder.into_buffers(has_tensor)?;
        if segments.iter().any(|s| s.of_first_member) {
            return Err(Error::configuration(
                "this device takes no tensors that are a soup's first member's: use the device \"cpu\"",
            ));
        }
        let runs = runs(&segments)?
            .into_iter()
            .map(|(segments, range)| {
                let upload = |b: &Buffer| {
                    let elements: Vec<f32> = bytemuck::cast_slice(&b.bytes()[range.clone()]).to_vec();
                    let data = TensorData::new(elements, [range.len() / size_of::<f32>()]);
                    Tensor::from_data(data, (device, DType::F32))
                };
                let ingredients = buffers.iter().map(upload).collect();
                Run { segments, range, ingredients }
            })
            .collect();
        let digests = buffers.iter().map(Buffer::sha256).collect();
        let first = buffers.swap_remove(0);
        Ok((BurnShards { segments, tensors, runs, first, digests }, findings))
    }

    /// Every ingredient's averaged elements, in its layout; the rest is zeros.
    fn on_host(&self) -> Result<Vec<Vec<u64>>> {
        let failed = |e| Error::internal(format!("the device failed: {e:?}"));
        let mut buffers = vec![vec![0u64; self.first.bytes().len().div_ceil(8)]; self.digests.len()];
        for run in &self.runs {
            for (buffer, elements) in buffers.iter_mut().zip(&run.ingredients) {
                let data = elements.clone().try_into_data().map_err(failed)?;
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer);
                bytes[run.range.clone()].copy_from_slice(data.as_bytes());
            }
        }
        Ok(buffers)
    }

    fn lent<'a>(&self, words: &'a [Vec<u64>]) -> Lent<'a> {
        Lent(words.iter().map(|w| &bytemuck::cast_slice(w)[..self.first.bytes().len()]).collect())
    }

    /// The blend of the segments `segments` of `run`, under the weights `row` or as a mean.
    fn blend_part(
        &self,
        run: &Run<B>,
        segments: Range<usize>,
        soup: &Soup,
        row: Option<&[f64]>,
        out: &mut [u8],
    ) -> Result<()> {
        let range = self.segments[segments.start].range.start..self.segments[segments.end - 1].range.end;
        let within = |at: usize| (at - run.range.start) / size_of::<f32>();
        let elements = within(range.start)..within(range.end);
        let part = |member: Ingredient| run.ingredients[member.index()].clone().slice([elements.clone()]);
        let blend = match (soup.members(), row) {
            ([only], None) => part(*only),
            (members, row) => {
                let mut sum: Option<Tensor<B, 1>> = None;
                for (at, &member) in members.iter().enumerate() {
                    let wide = part(member).cast(DType::F64);
                    let term = match row {
                        None => wide,
                        Some(row) => wide.mul_scalar(row[at]),
                    };
                    sum = Some(match sum {
                        None => term,
                        Some(sum) => sum + term,
                    });
                }
                let sum = sum.ok_or_else(|| Error::internal("a soup has no ingredients"))?;
                let whole = if row.is_none() { sum.div_scalar(members.len() as f64) } else { sum };
                whole.cast(DType::F32)
            }
        };
        let data = blend.try_into_data().map_err(|e| Error::internal(format!("the device failed: {e:?}")))?;
        let blend: &[f32] = data
            .as_slice()
            .map_err(|e| Error::internal(format!("the device answered in another dtype: {e:?}")))?;
        let copy = row.is_none() && soup.members().len() == 1;
        for (&x, out) in blend.iter().zip(out[range].chunks_exact_mut(size_of::<f32>())) {
            // One pattern for NaN, as everywhere, but for copies.
            let bits = if copy { x.to_bits() } else { F32::narrow(f64::from(x)) };
            out.copy_from_slice(&bits.to_le_bytes());
        }
        Ok(())
    }
}

/// The runs of consecutive `f32` segments, as ranges of segments and of bytes.
fn runs(segments: &[Segment]) -> Result<Vec<(Range<usize>, Range<usize>)>> {
    let mut runs: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for (index, segment) in segments.iter().enumerate().filter(|(_, s)| s.dtype.is_float()) {
        if segment.dtype != Dtype::F32 {
            return Err(Error::configuration(format!(
                "tensors of {} cannot be blended on this device yet: use the device \"cpu\"",
                segment.dtype
            )));
        }
        match runs.last_mut() {
            Some((part, bytes)) if part.end == index => {
                (part.end, bytes.end) = (index + 1, segment.range.end)
            }
            _ => runs.push((index..index + 1, segment.range.clone())),
        }
    }
    Ok(runs)
}

impl<B: Backend> ShardMemory for BurnShards<B> {
    fn bytes(&self) -> usize {
        self.first.bytes().len()
    }

    fn blend(&self, soup: &Soup, out: &mut [u8]) -> Result<()> {
        check_fit(soup, self.digests.len(), self.tensors, [self.bytes(), out.len()])?;
        for segment in self.segments.iter().filter(|s| !s.dtype.is_float()) {
            out[segment.range.clone()].copy_from_slice(&self.first.bytes()[segment.range.clone()]);
        }
        let values = |row: &[soup_core::soup::Weight]| row.iter().map(|w| w.get()).collect::<Vec<f64>>();
        for run in &self.runs {
            match soup.rows() {
                None => self.blend_part(run, run.segments.clone(), soup, None, out)?,
                Some([row]) => self.blend_part(run, run.segments.clone(), soup, Some(&values(row)), out)?,
                Some(rows) => {
                    for segment in run.segments.clone() {
                        let row = values(&rows[self.segments[segment].tensor]);
                        self.blend_part(run, segment..segment + 1, soup, Some(&row), out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Elements come to the host for this, run by run: dots are a small part of a step of a learned soup.
    fn dots(&self, gradient: &[f32]) -> Result<Vec<SegmentDots>> {
        let words = self.on_host()?;
        products::dots(&self.segments, &self.lent(&words), gradient, NonZeroUsize::MIN)
    }

    /// Likewise.
    fn gram(&self, base: Option<&[u8]>) -> Result<Vec<SegmentGram>> {
        let words = self.on_host()?;
        products::grams(&self.segments, &self.lent(&words), base, NonZeroUsize::MIN)
    }

    fn digest(&self, ingredient: Ingredient) -> Result<[u8; 32]> {
        of_ingredient(&self.digests, ingredient).copied()
    }

    fn resident_bytes(&self) -> u64 {
        self.runs.iter().map(|r| r.range.len() as u64 * r.ingredients.len() as u64).sum()
    }
}
