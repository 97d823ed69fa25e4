//! Running statistics of a soup, computed anew on the calibration set.
//!
//! Blocks of it, as many samples as in a forward pass, go through the network one by one, on whichever compute threads are free. In each,
//! normalisations are by the block's own statistics; the soup's are the mean of those over all blocks, added in f64 in the order of the
//! blocks and rounded once to what the checkpoints have. So they are the same bits however many threads and workers there are.

use std::sync::Arc;

use futures::{StreamExt, stream};
use soup_core::batch_norm;
use soup_core::{Error, Result};
use soup_eval::{Evaluator, Observed, add_block, averaged, rounded};

use super::{Inner, NativeSoup};
use crate::judge::statistics::Statistics;

/// Blocks that are asked for at the same time: as many as threads may be free.
const BLOCKS_IN_FLIGHT: usize = 64;

impl Inner {
    /// Whether all running statistics of the pool can be computed.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where they are to be, and one is of no layer of the model.
    pub(super) fn can_recompute(&self, evaluator: &dyn Evaluator) -> Result<bool> {
        let own = evaluator.statistics()?;
        let mut all = batch_norm::statistics(&self.schema).map(|at| &self.schema.tensors()[at].name);
        match all.find(|name| !own.contains(name)) {
            Some(name) if self.setting.calibration.is_some() && !own.is_empty() => Err(Error::data(format!(
                "{name:?} is a running statistic of no layer that is evaluated, and cannot be recomputed: take --batch-norm average \
                 or first"
            ))),
            Some(_) => Ok(false),
            None => Ok(!own.is_empty()),
        }
    }
}

impl NativeSoup {
    /// Has the soup normalise by the statistics that it has on `dataset`.
    pub(super) async fn recompute(&mut self, dataset: u32) -> Result<()> {
        let samples = self.of.compute(move |of, waiting| of.samples_of(dataset, waiting)).await?;
        let block = self.of.samples.block_len();
        let blocks = (0..samples).step_by(block as usize).map(|first| self.observe(dataset, first));
        let mut blocks = stream::iter(blocks.collect::<Vec<_>>()).buffered(BLOCKS_IN_FLIGHT);
        let (mut sums, mut count) = (Vec::new(), 0);
        while let Some(observed) = blocks.next().await {
            add_block(&mut sums, observed?)?;
            count += 1;
        }
        drop(blocks);
        self.take(averaged(sums, count))
    }

    /// What the block that begins at `first` has.
    fn observe(
        &self,
        dataset: u32,
        first: u64,
    ) -> impl Future<Output = Result<Vec<Observed>>> + Send + use<> {
        let (of, model) = (self.of.clone(), self.model.clone());
        async move {
            of.compute(move |of, waiting| {
                let samples = of.block(dataset, first, waiting)?;
                model.observe(&samples, 0..samples.len())
            })
            .await
        }
    }

    fn take(&mut self, observed: Vec<Observed>) -> Result<()> {
        let schema = &self.of.schema;
        let (mut bytes, mut given) = (Vec::new(), Vec::new());
        for at in batch_norm::statistics(schema) {
            let tensor = &schema.tensors()[at];
            let own = observed.iter().find(|own| own.name == tensor.name);
            let own = own.ok_or_else(|| Error::internal(format!("no {:?} was computed", tensor.name)))?;
            let (mut stored, values) = rounded(&own.values, tensor.dtype)?;
            bytes.append(&mut stored);
            given.push((tensor.name.clone(), values));
        }
        // The blocks are done, so that nobody else has it.
        let model =
            Arc::get_mut(&mut self.model).ok_or_else(|| Error::internal("a model is still observed"))?;
        model.normalise_by(&given)?;
        self.statistics = Some(Statistics::new(schema, bytes)?);
        Ok(())
    }
}
