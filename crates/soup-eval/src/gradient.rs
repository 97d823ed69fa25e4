//! The gradient of a loss over samples with respect to every parameter of a model.
//!
//! The graph that is differentiated ends at the logits, or at the number that a model predicts. The loss is taken from them in f64 on the
//! host, and its derivatives with respect to the logits, the *cotangents*, go back into the graph: the gradient of
//! `sum(logits * cotangents)` is that of the loss. So the loss is as exact as its logits, and no loss needs an operation
//! in burn.
//!
//! ```text
//! batch ─ forward ─► logits ─ loss_of (f64) ─► loss, d/d(beta)
//!                                      └──────► cotangents ─ backward ─► sink (flattened gradient)
//! ```
//!
//! One *micro-batch*, the evaluator's batch size, goes through the graph at a time, and its gradients are added in
//! order in f32, each as soon as it is there ([`sink`]): besides model and gradient, memory holds what one micro-batch
//! needs. The last micro-batch has only the rows that
//! are left, no padding: a sum over samples depends on where it is cut by its rounding anyhow.

pub(crate) mod sink;

use std::ops::Range;

use burn::tensor::backend::AutodiffBackend;
use soup_core::{Error, Result};

use crate::architecture::Architecture;
use crate::dataset::Target;
use crate::device::Precision;
use crate::gradient::sink::Sink;
use crate::kernels::{self, Kernels};
use crate::kind::Kind;
use crate::outcome::outcome;
use crate::parameters::visitor::Loaded;
use crate::prepared::Prepared;

/// How the loss of samples is taken: the cross-entropy, in nats, of `beta * logits` against smoothed labels; of a model that predicts a
/// number the squared error, as in transformers. A number has no temperature, and no label that could be smoothed: beta does nothing
/// there, and what is smoothed is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSpec {
    /// What logits are multiplied by: an inverse temperature.
    pub beta: f64,
    /// Share of a label that is spread evenly over all classes, its own included; 0 to 1.
    pub label_smoothing: f64,
    /// What each sample's loss is multiplied by: for the mean over a mini-batch, 1 / (samples of the mini-batch).
    pub scale: f64,
}

/// A loss summed over samples, with its derivatives.
///
/// Where a sample's logits are not finite, so are neither its loss (`scale` times `+inf`, as in
/// [`Outcome`](soup_core::tally::Outcome)) nor the derivatives (NaN): values to look at, never an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// The derivative of `loss` with respect to every element of the flattened parameters, in the schema's canonical
    /// order: as many as [`Schema::parameters`](soup_core::schema::Schema::parameters). Elements of tensors that the model does not use, and of integers: 0.
    pub values: Vec<f32>,
    /// Sum over the samples, in order, of `scale` times the loss.
    pub loss: f64,
    /// The derivative of `loss` with respect to `beta`.
    pub d_beta: f64,
    /// Samples predicted right, as [`Prepared::outcomes`] predicts. Numbers are neither right nor wrong: none of them.
    pub correct: u64,
    /// Samples in all.
    pub total: u64,
}

impl LossSpec {
    /// # Errors
    /// [`Usage`](soup_core::ErrorKind::Usage) for a label smoothing that is not between 0 and 1, or not 0 where the targets are numbers.
    fn check(&self, numbers: bool) -> Result<()> {
        if numbers && self.label_smoothing != 0.0 {
            return Err(Error::usage("label smoothing spreads classes, and the model predicts a number"));
        }
        if (0.0..=1.0).contains(&self.label_smoothing) {
            return Ok(());
        }
        Err(Error::usage(format!("label smoothing {} is out of range: 0 to 1", self.label_smoothing)))
    }

    /// `scale` times the loss of one sample that comes out as `row`, and its derivative with respect to beta; the derivatives with
    /// respect to the row go to `cotangents`. A class is an index of the row, and a number's row is one value.
    fn loss_of(&self, row: &[f32], target: Target, cotangents: &mut [f32]) -> (f64, f64) {
        match target {
            Target::Class(label) => self.cross_entropy(row, label as usize, cotangents),
            Target::Number(truth) => (self.squared_error(row, truth, cotangents), 0.0),
        }
    }

    fn squared_error(&self, row: &[f32], truth: f64, cotangents: &mut [f32]) -> f64 {
        let mut loss = 0.0;
        for (&predicted, cotangent) in row.iter().zip(cotangents) {
            let error = f64::from(predicted) - truth;
            *cotangent = if error.is_finite() { (2.0 * self.scale * error) as f32 } else { f32::NAN };
            loss += if error.is_finite() { error * error } else { f64::INFINITY };
        }
        self.scale * loss
    }

    fn cross_entropy(&self, logits: &[f32], label: usize, cotangents: &mut [f32]) -> (f64, f64) {
        if !logits.iter().all(|l| l.is_finite()) {
            cotangents.fill(f32::NAN);
            return (self.scale * f64::INFINITY, f64::NAN);
        }
        let spread = self.label_smoothing / logits.len() as f64;
        let target = |class: usize| if class == label { 1.0 - self.label_smoothing + spread } else { spread };
        let scaled = |class: usize| self.beta * f64::from(logits[class]);
        let classes = 0..logits.len();
        let largest = classes.clone().map(scaled).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = classes.clone().map(|c| (scaled(c) - largest).exp()).sum();
        let log_sum = largest + sum.ln();
        let (mut loss, mut d_beta) = (0.0, 0.0);
        for class in classes {
            let excess = (scaled(class) - log_sum).exp() - target(class);
            loss += target(class) * (log_sum - scaled(class));
            d_beta += excess * f64::from(logits[class]);
            cotangents[class] = (self.scale * self.beta * excess) as f32;
        }
        (self.scale * loss, self.scale * d_beta)
    }
}

/// What samples go through: a model on a backend that differentiates, and how they are fed to it.
pub(crate) struct Graph<'a, A: Architecture, B: AutodiffBackend> {
    pub(crate) architecture: &'a A,
    pub(crate) kind: &'a A::Kind,
    pub(crate) model: A::Model<Loaded<B>>,
    /// What the gradients of the model's parameters are added to.
    pub(crate) sink: Sink,
    /// Largest number of samples of a micro-batch.
    pub(crate) batch_size: usize,
    /// Values that a sample comes out as.
    pub(crate) outputs: usize,
    pub(crate) device: B::Device,
    pub(crate) precision: Precision,
}

impl<A: Architecture, B: Kernels + AutodiffBackend> Graph<'_, A, B> {
    /// See [`Evaluator::differentiate`](crate::Evaluator::differentiate).
    pub(crate) fn differentiate(
        &self,
        prepared: &Prepared,
        range: Range<usize>,
        loss: &LossSpec,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Gradient> {
        loss.check(prepared.are_numbers())?;
        self.kind.check(prepared, range.clone(), A::NAME)?;
        let targets = prepared.targets_of(range.clone(), self.outputs)?;
        let mut sum = Gradient { values: Vec::new(), loss: 0.0, d_beta: 0.0, correct: 0, total: 0 };
        for (first, targets) in range.step_by(self.batch_size).zip(targets.chunks(self.batch_size)) {
            if cancel() {
                return Err(Error::cancelled("differentiation was cancelled"));
            }
            let batch = first..first + targets.len();
            B::on(&self.device, self.precision, || {
                self.add_batch(prepared, batch, targets, (loss, &mut sum))
            })?;
        }
        Ok(Gradient { values: self.sink.take()?, ..sum })
    }

    /// Adds a micro-batch's part to the sink and to the sums.
    fn add_batch(
        &self,
        prepared: &Prepared,
        batch: Range<usize>,
        targets: &[Target],
        (loss, sum): (&LossSpec, &mut Gradient),
    ) -> Result<()> {
        let batch = self.kind.batch::<B>(prepared, batch, None, &self.device)?;
        let logits = self.architecture.forward(&self.model, batch);
        let values = kernels::values(logits.clone(), "logits")?;
        let mut cotangents = vec![0.0; values.len()];
        let rows = values.chunks_exact(self.outputs).zip(cotangents.chunks_exact_mut(self.outputs));
        for ((row, cotangents), &target) in rows.zip(targets) {
            let (scaled_loss, d_beta) = loss.loss_of(row, target, cotangents);
            sum.loss += scaled_loss;
            sum.d_beta += d_beta;
            sum.correct += match target {
                Target::Class(label) => u64::from(outcome(row, label).prediction == label),
                Target::Number(_) => 0,
            };
            sum.total += 1;
        }
        let product =
            logits * kernels::tensor::<B, 2>(cotangents, [targets.len(), self.outputs], &self.device);
        // Nobody asks what the sum is: a device may add it up in any order.
        product.sum().backward();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spec: LossSpec, logits: &[f32], label: usize) -> (f64, f64, Vec<f32>) {
        let mut cotangents = vec![0.0; logits.len()];
        let (loss, d_beta) = spec.loss_of(logits, Target::Class(label as u32), &mut cotangents);
        (loss, d_beta, cotangents)
    }

    #[test]
    fn the_loss_is_the_smoothed_cross_entropy() {
        let logits = [2.0f32, -1.0, 0.5];
        let spec = LossSpec { beta: 1.3, label_smoothing: 0.3, scale: 0.25 };
        let log_sum = logits.iter().map(|&l| (1.3 * f64::from(l)).exp()).sum::<f64>().ln();
        // 0.7 of the label, and a tenth of each class.
        let want: f64 =
            [0.1, 0.8, 0.1].iter().zip(logits).map(|(t, l)| t * (log_sum - 1.3 * f64::from(l))).sum();
        let (loss, _, cotangents) = of(spec, &logits, 1);
        assert!((loss - 0.25 * want).abs() < 1e-15, "{loss}");
        // Probabilities and targets both add up to one.
        assert!(cotangents.iter().sum::<f32>().abs() < 1e-7);
    }

    #[test]
    fn a_number_has_the_squared_error_and_no_temperature() {
        let of = |predicted: f32, beta: f64| {
            let mut cotangents = [f32::NAN];
            let spec = LossSpec { beta, label_smoothing: 0.0, scale: 0.25 };
            let (loss, d_beta) = spec.loss_of(&[predicted], Target::Number(3.5), &mut cotangents);
            (loss, d_beta, cotangents[0])
        };
        assert_eq!(of(2.0, 1.0), (0.25 * 2.25, 0.0, -0.25 * 3.0));
        assert_eq!(of(2.0, 7.0), of(2.0, 1.0));
        let (loss, d_beta, slope) = of(f32::INFINITY, 1.0);
        assert!(loss == f64::INFINITY && d_beta == 0.0 && slope.is_nan());
        assert!(of(f32::NAN, 1.0).0 == f64::INFINITY);
        let smoothed = LossSpec { beta: 1.0, label_smoothing: 0.1, scale: 1.0 };
        assert!(smoothed.check(true).unwrap_err().chain().contains("the model predicts a number"));
        smoothed.check(false).unwrap();
    }

    #[test]
    fn the_derivatives_are_those_of_the_loss() {
        let logits = [2.0f32, -1.0, 0.5, 0.25];
        for (beta, label_smoothing) in [(1.0, 0.0), (1.3, 0.1), (0.4, 1.0), (-1.0, 0.5)] {
            let spec = LossSpec { beta, label_smoothing, scale: 0.5 };
            let (_, d_beta, cotangents) = of(spec, &logits, 2);
            let step = 1.0 / 1024.0;
            let at = |beta: f64, logits: &[f32]| of(LossSpec { beta, ..spec }, logits, 2).0;
            let beta_slope = (at(beta + step, &logits) - at(beta - step, &logits)) / (2.0 * step);
            assert!((d_beta - beta_slope).abs() < 2e-6, "{d_beta} for {beta_slope}");
            for class in 0..logits.len() {
                let moved = |by: f32| {
                    let mut logits = logits;
                    logits[class] += by;
                    at(beta, &logits)
                };
                let slope = (moved(step as f32) - moved(-step as f32)) / (2.0 * step);
                assert!((f64::from(cotangents[class]) - slope).abs() < 1e-6, "class {class}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let spec = LossSpec { beta: 1.0, label_smoothing: 0.0, scale: 0.5 };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (loss, d_beta, cotangents) = of(spec, &[bad, 1.0], 1);
            assert!(loss == f64::INFINITY && d_beta.is_nan() && cotangents.iter().all(|c| c.is_nan()));
        }
        let (loss, _, cotangents) = of(LossSpec { beta: f64::NAN, ..spec }, &[0.0, 1.0], 1);
        assert!(loss.is_nan() && cotangents.iter().all(|c| c.is_nan()));
        // Far apart, yet finite.
        let (loss, d_beta, cotangents) = of(spec, &[-3e38, 3e38], 1);
        assert_eq!((loss, d_beta, cotangents), (0.0, 0.0, vec![0.0, 0.0]));
    }

    #[test]
    fn smoothing_is_a_share() {
        for (label_smoothing, good) in
            [(0.0, true), (1.0, true), (-0.1, false), (1.1, false), (f64::NAN, false)]
        {
            let spec = LossSpec { beta: 1.0, label_smoothing, scale: 1.0 };
            assert_eq!(spec.check(false).is_ok(), good, "{label_smoothing}");
        }
    }
}
