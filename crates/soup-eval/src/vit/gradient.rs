//! From the gradients of the forward pass's tensors to those of the checkpoint's.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use soup_core::{Error, Result};

use super::model::{LayerNames, Linear, Vit, names};
use crate::kernels::Norm;
use crate::parameters::FlatGradient;

impl<B: AutodiffBackend> Vit<B> {
    /// Moves the gradient of every parameter out of `gradients` and adds it to `flat`.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where they are not of the shapes that `flat` expects.
    pub(crate) fn collect(&self, gradients: &mut B::Gradients, flat: &mut FlatGradient<'_>) -> Result<()> {
        let mut collector = Collector::<B> { gradients, flat };
        collector.linear(&[names::PATCH], &self.patch)?;
        collector.tensor(&[names::CLS], "", &self.cls)?;
        collector.tensor(&[names::POSITIONS], "", &self.positions)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let at = LayerNames::new(index);
            let [key, value] = &at.key_value;
            collector.norm(&at.norm_before, &layer.norm_before)?;
            collector.linear(&[&at.query], &layer.query)?;
            collector.linear(&[key, value], &layer.key_value)?;
            collector.linear(&[&at.attended], &layer.attended)?;
            collector.norm(&at.norm_after, &layer.norm_after)?;
            collector.linear(&[&at.up], &layer.up)?;
            collector.linear(&[&at.down], &layer.down)?;
        }
        collector.norm(names::NORM, &self.norm)?;
        collector.linear(&[names::CLASSIFIER], &self.classifier)
    }
}

struct Collector<'a, 'b, B: AutodiffBackend> {
    gradients: &'a mut B::Gradients,
    flat: &'a mut FlatGradient<'b>,
}

impl<B: AutodiffBackend> Collector<'_, '_, B> {
    /// The linear maps `names`, side by side in `linear`.
    fn linear(&mut self, names: &[&str], linear: &Linear<B>) -> Result<()> {
        let [inputs, _] = linear.weight.dims();
        if let Some(gradient) = self.take(&linear.weight)? {
            self.flat.add_transposed(&with(names, ".weight"), &gradient, inputs)?;
        }
        linear.bias.as_ref().map_or(Ok(()), |bias| self.tensor(names, ".bias", bias))
    }

    fn norm(&mut self, name: &str, norm: &Norm<B>) -> Result<()> {
        self.tensor(&[name], ".weight", &norm.gamma)?;
        self.tensor(&[name], ".bias", &norm.beta)
    }

    /// The tensors `names` with `suffix`, end to end in `tensor`.
    fn tensor<const D: usize>(&mut self, names: &[&str], suffix: &str, tensor: &Tensor<B, D>) -> Result<()> {
        match self.take(tensor)? {
            Some(gradient) => self.flat.add_parts(&with(names, suffix), &gradient),
            None => Ok(()),
        }
    }

    /// The gradient of `tensor`; none where the loss does not depend on it.
    fn take<const D: usize>(&mut self, tensor: &Tensor<B, D>) -> Result<Option<Vec<f32>>> {
        let Some(gradient) = tensor.grad_remove(self.gradients) else {
            return Ok(None);
        };
        let values = gradient.into_data().convert::<f32>().into_vec::<f32>();
        values.map(Some).map_err(|e| Error::internal(format!("a gradient is not f32: {e:?}")))
    }
}

fn with(names: &[&str], suffix: &str) -> Vec<String> {
    names.iter().map(|name| format!("{name}{suffix}")).collect()
}
