//! Steps of a learned soup: the gradient through one model on a part of a mini-batch, and the products of a gradient with
//! this worker's shards of all ingredients.

use std::ops::Range;
use std::sync::Arc;

use soup_core::ledger::Dataset;
use soup_core::machine::{Differentiate, Dot, PartFigures, SegmentDots};
use soup_core::shard::{self, Shard};
use soup_core::{Error, Result};

use crate::active::Active;
use crate::judge::Loss;
use crate::task::{Context, slot};
use crate::{assembling, blends};

/// Loss and gradient of a soup on some samples. The gradient is kept, and the figures returned.
///
/// # Errors
/// Where the model cannot be assembled or differentiated, or a sample cannot be decoded.
pub(crate) async fn differentiate(
    context: &Context,
    run: Arc<Active>,
    dataset: Dataset,
    task: Differentiate,
) -> Result<PartFigures> {
    let Differentiate { step, part, soup, beta, label_smoothing, scale, samples } = task;
    run.gradients.begin(step);
    let at = assembling::of_step(&run, &soup).await?;
    let _slot = slot(context).await?;
    let loss = Loss { beta: beta.get(), label_smoothing: label_smoothing.get(), scale: scale.get() };
    let gradient = at.soup.differentiate(dataset.0, samples, loss, context.cancelled.clone()).await?;
    run.gradients.keep((step, part), gradient.values);
    Ok(gradient.figures)
}

/// The products of the gradient that a peer holds with one shard of every ingredient.
///
/// # Errors
/// [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not hold the shard, or the peer not the gradient.
pub(crate) async fn dot(run: &Arc<Active>, task: Dot) -> Result<Vec<SegmentDots>> {
    let Dot { step, part, shard: Shard(shard), source } = task;
    let memory = run.shards.get(shard);
    let memory =
        memory.ok_or_else(|| Error::try_again(format!("this worker does not hold shard {shard}")))?;
    let elements = elements(run, shard);
    let values = blends::gradient(run, shard, (step, part), elements, source.0).await?;
    let product = move || {
        let segments = memory.dots(bytemuck::cast_slice(&values))?;
        let numbered = |s: soup_tensor::SegmentDots| SegmentDots { tensor: s.tensor as u32, dots: s.dots };
        Ok(segments.into_iter().map(numbered).collect())
    };
    // Bound by memory and short, like blending.
    run.compute.beside(product).await
}

/// The elements of a shard, by their positions among those of the flattened parameters.
pub(crate) fn elements(run: &Active, shard: u32) -> Range<usize> {
    let bytes = run.begun.plan.range(Shard(shard));
    let at = |offset| shard::elements_before(&run.begun.schema, offset) as usize;
    at(bytes.start)..at(bytes.end)
}
