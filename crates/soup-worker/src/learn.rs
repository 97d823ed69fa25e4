//! Steps of a learned soup: the gradient through one model on a part of a mini-batch, and the products of a gradient with
//! this worker's shards of all ingredients.

use std::ops::Range;
use std::sync::Arc;

use soup_core::machine::PartFigures;
use soup_core::shard::{self, Shard};
use soup_core::{Error, Result};
use soup_proto::v1::{Differentiate, Differentiated, DotShard, Dotted, Gradient, SegmentDots};

use crate::active::Active;
use crate::judge::Loss;
use crate::task::{Context, slot, soup};
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
    let Differentiate { step, part, beta, label_smoothing, scale, dataset, samples, .. } = task;
    let loss = Loss { beta, label_smoothing, scale };
    let gradient =
        run.judge()?.differentiate(parameters, dataset, samples, loss, context.cancelled.clone()).await?;
    run.gradients.keep((step, part), gradient.values);
    let PartFigures { loss, d_beta, correct, total } = gradient.figures;
    Ok(Differentiated { loss, d_beta, correct, total })
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
    let bytes = run.begun.plan.range(Shard(shard));
    let at = |offset| shard::elements_before(&run.begun.schema, offset) as usize;
    at(bytes.start)..at(bytes.end)
}
