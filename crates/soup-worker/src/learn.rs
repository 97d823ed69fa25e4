//! Steps of a learned soup: the gradient through one model on a part of a mini-batch, and the products of a gradient with
//! this worker's shards of all ingredients.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use soup_core::schema::Schema;
use soup_core::shard::{self, Shard};
use soup_core::{Error, Result};
use soup_eval::{LossSpec, Prepared};
use soup_proto::v1::{Differentiate, Differentiated, DotShard, Dotted, Gradient, SegmentDots};

use crate::active::Active;
use crate::task::{Context, prepared, slot, soup};
use crate::{assembling, blends};

/// Loss and gradient of a soup on some samples. The gradient is kept, and the figures returned.
///
/// # Errors
/// Where the model cannot be assembled or differentiated, or a sample cannot be decoded.
pub(crate) async fn differentiate(
    context: &Context,
    run: Arc<Active>,
    task: Differentiate,
) -> Result<Differentiated> {
    let soup = soup(task.soup)?;
    run.gradients.begin(task.step);
    let parameters = assembling::parameters_of_step(&run, &soup).await?;
    let _slot = slot(context).await?;
    let (waiting, cancelled) = (context.worker.compute.waiting(), context.cancelled.clone());
    let loss = LossSpec { beta: task.beta, label_smoothing: task.label_smoothing, scale: task.scale };
    let work = move || {
        let dataset = task.dataset;
        let samples =
            gather(&task.samples, run.begin.batch_size, |range| prepared(&run, dataset, range, &waiting))?;
        let evaluator = run.evaluator()?;
        let schema: &Schema = &run.schema;
        let all = 0..samples.len();
        let gradient =
            evaluator.differentiate(schema, &parameters, &samples, all, &loss, &|| cancelled.get())?;
        run.gradients.keep((task.step, task.part), gradient.values);
        Ok(Differentiated {
            loss: gradient.loss,
            d_beta: gradient.d_beta,
            correct: gradient.correct,
            total: gradient.total,
        })
    };
    context.worker.compute.run(work).await
}

/// The samples `wanted` of a dataset, out of decoded blocks of `block` samples; `decoded` gives the samples of a range that
/// begins at a block, as far as there are any.
fn gather(
    wanted: &[u64],
    block: u32,
    mut decoded: impl FnMut(Range<u64>) -> Result<Arc<Prepared>>,
) -> Result<Prepared> {
    let block = u64::from(block.max(1));
    let mut blocks: BTreeMap<u64, Arc<Prepared>> = BTreeMap::new();
    let (mut pixels, mut labels) = (Vec::new(), Vec::with_capacity(wanted.len()));
    for &sample in wanted {
        let first = sample - sample % block;
        if !blocks.contains_key(&first) {
            // Samples mostly come in order, so that one block at a time is enough.
            blocks.clear();
            blocks.insert(first, decoded(first..first.saturating_add(block))?);
        }
        let missing = || Error::internal(format!("sample {sample} is not in the dataset"));
        let samples = blocks.get(&first).ok_or_else(missing)?;
        let at = (sample - first) as usize;
        let label = samples.labels().get(at).ok_or_else(missing)?;
        let stride = samples.pixels().len() / samples.len();
        pixels.extend_from_slice(&samples.pixels()[at * stride..(at + 1) * stride]);
        labels.push(*label);
    }
    Prepared::new(pixels, labels)
}

/// The products of the gradient that a peer holds with one shard of every ingredient.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not hold the shard, or the peer not the gradient.
pub(crate) async fn dot(run: &Arc<Active>, task: DotShard) -> Result<Dotted> {
    let memory = run.shards.get(task.shard);
    let memory =
        memory.ok_or_else(|| Error::try_again(format!("this worker does not hold shard {}", task.shard)))?;
    let gradient = Gradient { step: task.step, part: task.part };
    let elements = elements(run, task.shard);
    let values = blends::gradient(run, task.shard, gradient, elements, task.source).await?;
    let product = move || {
        let segments = memory.dots(bytemuck::cast_slice(&values))?;
        let wire = |s: soup_tensor::SegmentDots| SegmentDots { tensor: s.tensor as u32, dots: s.dots };
        Ok(Dotted { segments: segments.into_iter().map(wire).collect() })
    };
    // Bound by memory and short, like blending.
    run.compute.beside(product).await
}

/// The elements of a shard, by their positions among those of the flattened parameters.
pub(crate) fn elements(run: &Active, shard: u32) -> Range<usize> {
    let bytes = run.plan.range(Shard(shard));
    let at = |offset| shard::elements_before(&run.schema, offset) as usize;
    at(bytes.start)..at(bytes.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_gathered_from_blocks_in_the_order_asked_for() {
        let mut asked = Vec::new();
        let decoded = |range: Range<u64>| {
            asked.push(range.clone());
            let samples = range.start..range.end.min(10);
            let pixels = samples.clone().flat_map(|s| [s as f32, -(s as f32)]).collect();
            Prepared::new(pixels, samples.map(|s| s as u32 * 7).collect()).map(Arc::new)
        };
        let got = gather(&[1, 3, 4, 9], 4, decoded).unwrap();
        assert_eq!(got.labels(), [7, 21, 28, 63]);
        assert_eq!(got.pixels(), [1.0, -1.0, 3.0, -3.0, 4.0, -4.0, 9.0, -9.0]);
        assert_eq!(asked, [0..4, 4..8, 8..12]);
        let beyond = gather(&[10], 4, |_| Prepared::new(vec![], vec![]).map(Arc::new));
        assert!(beyond.is_err());
    }
}
