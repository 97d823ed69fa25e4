//! Looking at the pool itself: inner products of its ingredients on this worker's shards, and other uses of all ingredients,
//! from their logits.

use std::collections::BTreeMap;
use std::sync::Arc;

use soup_core::diagnosis::ensemble::{self, Alternatives, Asked};
use soup_core::layer::Layers;
use soup_core::machine::LayerGram;
use soup_core::soup::{Ingredient, Soup};
use soup_core::{Error, Result};
use soup_tensor::SegmentGram;

use crate::active::Active;
use crate::logits::Rows;
use crate::messages::Samples;
use crate::sources::Source;
use crate::task::{Context, slot};
use crate::{assembling, loading};

/// The inner products of all ingredients on a shard, by layer.
///
/// # Errors
/// Where the base cannot be read; [`TryAgain`](soup_core::ErrorKind::TryAgain) where this worker does not hold the shard.
pub(crate) async fn gram(
    context: &Context,
    run: Arc<Active>,
    shard: u32,
    base: Option<Source>,
) -> Result<Vec<LayerGram>> {
    let memory = run.shards.get(shard);
    let memory =
        memory.ok_or_else(|| Error::try_again(format!("this worker does not hold shard {shard}")))?;
    let base = match &base {
        Some(source) => {
            let mut bytes = vec![0; memory.bytes()];
            let read = loading::read_checkpoint(source, &mut bytes).await;
            read.map_err(|e| e.context(source.name.clone()))?;
            Some(bytes)
        }
        None => None,
    };
    let _slot = slot(context).await?;
    let work = move || {
        let segments = memory.gram(base.as_deref())?;
        Ok(by_layer(&Layers::new(&run.begun.schema), segments))
    };
    context.worker.compute.run(work).await
}

/// Sums the products of segments by layer, matrices apart from vectors, in the order of the tensors.
pub(crate) fn by_layer(layers: &Layers, segments: Vec<SegmentGram>) -> Vec<LayerGram> {
    let mut sums: BTreeMap<(u32, bool), Vec<f64>> = BTreeMap::new();
    for segment in segments {
        let Some(layer) = layers.of.get(segment.tensor).copied().flatten() else { continue };
        let sum = sums
            .entry((layer, layers.matrix[segment.tensor]))
            .or_insert_with(|| vec![0.0; segment.packed.len()]);
        sum.iter_mut().zip(&segment.packed).for_each(|(sum, product)| *sum += product);
    }
    sums.into_iter().map(|((layer, matrix), packed)| LayerGram { layer, matrix, packed }).collect()
}

/// Compares other uses of all ingredients on a slice.
///
/// # Errors
/// Where logits are missing and the ingredient's model cannot be assembled.
pub(crate) async fn compare(
    context: &Context,
    run: Arc<Active>,
    samples: Samples,
    asked: Asked,
) -> Result<Alternatives> {
    let slice = (samples.dataset, samples.start, samples.end);
    let ingredients = run.begun.ingredients.len() as u32;
    let mut rows = Vec::with_capacity(ingredients as usize);
    for ingredient in 0..ingredients {
        rows.push(match run.logits.get(&(ingredient, slice.0, slice.1, slice.2)) {
            Some(known) => known,
            None => computed(context, &run, Ingredient(ingredient), slice).await?,
        });
    }
    let _slot = slot(context).await?;
    let work = move || {
        let first = rows.first().ok_or_else(|| Error::internal("nothing is to be compared"))?;
        let like_first = |of: &Arc<Rows>| of.labels == first.labels && of.logits.len() == first.logits.len();
        if !rows.iter().all(like_first) {
            return Err(Error::internal("the judge told other labels of the same samples"));
        }
        let classes = first.logits.len() / first.labels.len().max(1);
        let logits: Vec<&[f32]> = rows.iter().map(|of| of.logits.as_slice()).collect();
        ensemble::compare(&logits, &first.labels, classes, &asked)
    };
    context.worker.compute.run(work).await
}

async fn computed(
    context: &Context,
    run: &Arc<Active>,
    ingredient: Ingredient,
    slice: (u32, u64, u64),
) -> Result<Arc<Rows>> {
    let soup = Soup::single(ingredient);
    let loaded = assembling::loaded(run, &soup).await?;
    let _slot = slot(context).await?;
    let positions = (slice.1..slice.2).collect();
    let judged = loaded.soup.judge(slice.0, positions, true, context.cancelled.clone()).await?;
    let rows = Arc::new(Rows::of(&judged)?);
    run.logits.keep(&soup, slice, &rows);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_summed_by_layer_matrices_apart() {
        let layers = Layers {
            names: vec!["a".into(), "b".into()],
            of: vec![Some(1), None, Some(1), Some(0)],
            matrix: vec![true, false, true, false],
        };
        let segment = |tensor, value| SegmentGram { tensor, packed: vec![value] };
        let sums =
            by_layer(&layers, vec![segment(0, 1.0), segment(1, 9.0), segment(2, 2.0), segment(3, 4.0)]);
        let expected = [(0, false, 4.0), (1, true, 3.0)];
        assert_eq!(sums.iter().map(|g| (g.layer, g.matrix, g.packed[0])).collect::<Vec<_>>(), expected);
    }
}
