//! Normalisation of each channel by a mean and a variance (Ioffe and Szegedy, "Batch normalization: accelerating deep network training by
//! reducing internal covariate shift"), and whose these are.
//!
//! In evaluation they are *running* statistics, which training has left in the checkpoint. They can be computed anew: a *block* of samples
//! goes through the network, every layer normalises by the statistics of the block and they are noted ([`Observer`]); what a soup
//! then has is their mean over the blocks. So does `torch.optim.swa_utils.update_bn`, and so do judges in Python.
//!
//! Means and variances of a block are made in f64, in the order of its pixels. A variance that is kept is the unbiased one, that by which
//! the block itself is normalised is not: PyTorch does so too.

use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use half::{bf16, f16};
use soup_core::schema::Dtype;
use soup_core::{Error, Result};

use crate::kernels::{self, Kernels};
use crate::parameters::visitor::{Form, Loaded, Visitor};

/// The last parts of the names of a mean and of a variance.
const MEAN: &str = "running_mean";
const VARIANCE: &str = "running_var";

/// Mean and variance by layer.
pub(crate) type Statistics<B> = HashMap<String, [Tensor<B, 1>; 2]>;

/// Whose statistics normalisations take in a forward pass.
pub(crate) enum Norms<'a, B: Backend> {
    /// The checkpoint's.
    Stored,
    /// Others.
    Given(&'a Statistics<B>),
    /// Those of what they see, which are noted.
    Seen(&'a mut Observer),
}

/// The running statistics of one tensor that a block has, or several on average.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The tensor's name in the checkpoint.
    pub name: String,
    /// One value a channel.
    pub values: Vec<f64>,
}

/// Notes statistics.
#[derive(Default)]
pub(crate) struct Observer {
    observed: Vec<Observed>,
    /// The first thing that went wrong: a forward pass cannot fail itself.
    error: Option<Error>,
}

impl Observer {
    /// What was noted, two tensors a layer.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where there was no variance; where a device gave no values.
    pub(crate) fn take(self) -> Result<Vec<Observed>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.observed),
        }
    }

    /// Notes the statistics of `x`, `[pixels, channels]`, and gives mean and biased variance.
    fn observe<B: Kernels>(&mut self, layer: &str, x: &Tensor<B, 2>) -> Result<[Vec<f64>; 2]> {
        let [pixels, channels] = x.dims();
        if pixels < 2 {
            return Err(Error::data(format!(
                "a block of the calibration set has one value for each channel of {layer:?}, and no variance: take another number of \
                 samples (limit), or another --batch-size, so that no block has one sample"
            )));
        }
        let [mean, deviations] = moments(&kernels::values(x.clone(), "activations")?, channels);
        let variance = |over: usize| deviations.iter().map(|d| d / over as f64).collect::<Vec<f64>>();
        self.observed.push(Observed { name: format!("{layer}.{MEAN}"), values: mean.clone() });
        self.observed.push(Observed { name: format!("{layer}.{VARIANCE}"), values: variance(pixels - 1) });
        Ok([mean, variance(pixels)])
    }
}

/// Mean and sum of squared deviations of every column of rows of so many values.
fn moments(values: &[f32], columns: usize) -> [Vec<f64>; 2] {
    let rows = values.len() / columns;
    let mut mean = vec![0.0f64; columns];
    for row in values.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v));
    }
    mean.iter_mut().for_each(|m| *m /= rows as f64);
    let mut deviations = vec![0.0f64; columns];
    for row in values.chunks_exact(columns) {
        for ((d, &v), m) in deviations.iter_mut().zip(row).zip(&mean) {
            *d += (f64::from(v) - m) * (f64::from(v) - m);
        }
    }
    [mean, deviations]
}

/// Adds what one more block has. Blocks are added in their order; [`averaged`] makes a mean of the sums.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) where it is of other layers.
pub fn add_block(sums: &mut Vec<Observed>, block: Vec<Observed>) -> Result<()> {
    if sums.is_empty() {
        *sums = block;
        return Ok(());
    }
    let same = sums.len() == block.len()
        && sums.iter().zip(&block).all(|(a, b)| a.name == b.name && a.values.len() == b.values.len());
    if !same {
        return Err(Error::internal("blocks have statistics of other layers"));
    }
    for (sum, block) in sums.iter_mut().zip(block) {
        sum.values.iter_mut().zip(block.values).for_each(|(sum, v)| *sum += v);
    }
    Ok(())
}

/// The mean of what so many blocks add up to.
pub fn averaged(mut sums: Vec<Observed>, blocks: u64) -> Vec<Observed> {
    sums.iter_mut().flat_map(|sum| &mut sum.values).for_each(|v| *v /= blocks as f64);
    sums
}

/// Values as a checkpoint has them in tensors of `dtype`, little-endian, rounded once; and as a model that is made of it has them.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data) where that is no floating-point type that models are made of.
pub fn rounded(values: &[f64], dtype: Dtype) -> Result<(Vec<u8>, Vec<f32>)> {
    fn each<const N: usize>(values: &[f64], of: impl Fn(f64) -> ([u8; N], f32)) -> (Vec<u8>, Vec<f32>) {
        let (bytes, values): (Vec<[u8; N]>, Vec<f32>) = values.iter().map(|&v| of(v)).unzip();
        (bytes.concat(), values)
    }
    Ok(match dtype {
        Dtype::F32 => each(values, |v| ((v as f32).to_le_bytes(), v as f32)),
        Dtype::F64 => each(values, |v| (v.to_le_bytes(), v as f32)),
        Dtype::F16 => each(values, |v| (f16::from_f64(v).to_le_bytes(), f16::from_f64(v).to_f32())),
        Dtype::BF16 => each(values, |v| (bf16::from_f64(v).to_le_bytes(), bf16::from_f64(v).to_f32())),
        other => {
            return Err(Error::data(format!(
                "running statistics are {other}, expected a floating-point type"
            )));
        }
    })
}

/// By layer, as a forward pass takes them.
///
/// # Errors
/// [`Internal`](soup_core::ErrorKind::Internal) where a name is not that of a running statistic, or one of a layer's is missing.
pub(crate) fn by_layer<B: Backend>(all: &[(String, Vec<f32>)], device: &B::Device) -> Result<Statistics<B>> {
    let of = |layer: &str, leaf: &str| {
        let name = format!("{layer}.{leaf}");
        let found = all.iter().find(|(own, _)| *own == name);
        let (_, values) = found.ok_or_else(|| Error::internal(format!("no {name:?} was computed")))?;
        Ok(kernels::tensor::<B, 1>(values.clone(), [values.len()], device))
    };
    let layers = all.iter().filter_map(|(name, _)| name.strip_suffix(MEAN)?.strip_suffix('.'));
    layers.map(|layer| Ok((layer.to_owned(), [of(layer, MEAN)?, of(layer, VARIANCE)?]))).collect()
}

/// A normalisation of each channel.
pub(crate) struct BatchNorm<F: Form> {
    /// Its name in the checkpoint.
    name: String,
    gamma: F::Parameter<1>,
    beta: F::Parameter<1>,
    mean: F::Parameter<1>,
    variance: F::Parameter<1>,
    epsilon: f64,
}

impl<F: Form> BatchNorm<F> {
    /// The one called `name`, of so many channels.
    pub(crate) fn visit(
        visitor: &mut impl Visitor<Form = F>,
        name: &str,
        channels: usize,
        epsilon: f64,
    ) -> Result<Self> {
        let mut vector = |leaf: &str| visitor.tensor(format!("{name}.{leaf}"), [channels]);
        Ok(BatchNorm {
            name: name.to_owned(),
            gamma: vector("weight")?,
            beta: vector("bias")?,
            mean: vector(MEAN)?,
            variance: vector(VARIANCE)?,
            epsilon,
        })
    }
}

impl<B: Kernels> BatchNorm<Loaded<B>> {
    /// The factor and the summand of each channel, where its statistics are there before it sees anything. No gradient is wanted of
    /// statistics. `after` is what the graph has come to.
    pub(crate) fn known(&self, after: &Tensor<B, 2>, norms: &Norms<'_, B>) -> Option<[Tensor<B, 1>; 2]> {
        let [mean, variance] = match norms {
            Norms::Stored => [self.mean.constant(), self.variance.constant()],
            Norms::Given(statistics) => match statistics.get(&self.name) {
                Some(given) => given.clone(),
                None => [self.mean.constant(), self.variance.constant()],
            },
            Norms::Seen(_) => return None,
        };
        let scale = self.gamma.on(after) / (variance + self.epsilon).sqrt();
        Some([scale.clone(), self.beta.on(after) - mean * scale])
    }

    /// The same by the statistics of `x`, which are noted.
    pub(crate) fn observe(&self, x: &Tensor<B, 2>, norms: &mut Norms<'_, B>) -> [Tensor<B, 1>; 2] {
        let found = match norms {
            Norms::Seen(observer) => match self.by_block(x, observer) {
                Ok(found) => Some(found),
                Err(error) => {
                    observer.error.get_or_insert(error);
                    None
                }
            },
            _ => None,
        };
        found.unwrap_or_else(|| [self.gamma.constant(), self.beta.constant()])
    }

    fn by_block(&self, x: &Tensor<B, 2>, observer: &mut Observer) -> Result<[Tensor<B, 1>; 2]> {
        let [mean, variance] = observer.observe(&self.name, x)?;
        let of = |parameter: Tensor<B, 1>| kernels::values(parameter, "parameters of a normalisation");
        let (gamma, beta) = (of(self.gamma.constant())?, of(self.beta.constant())?);
        let scale = gamma.iter().zip(&variance).map(|(&g, v)| f64::from(g) / (v + self.epsilon).sqrt());
        let scale: Vec<f64> = scale.collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((&b, m), s)| (f64::from(b) - m * s) as f32);
        let (shift, scale) = (shift.collect::<Vec<_>>(), scale.iter().map(|&s| s as f32).collect::<Vec<_>>());
        let vector = |values: Vec<f32>| {
            let shape = [values.len()];
            kernels::tensor(values, shape, &x.device())
        };
        Ok([vector(scale), vector(shift)])
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;

    use super::*;

    fn observed(values: Vec<f32>, shape: [usize; 2]) -> Result<Vec<Observed>> {
        let mut observer = Observer::default();
        observer.observe::<Flex>("n", &kernels::tensor(values, shape, &FlexDevice))?;
        observer.take()
    }

    #[test]
    fn a_block_has_its_mean_and_its_unbiased_variance() {
        let got = observed(vec![1.0, 10.0, 2.0, 10.0, 6.0, 10.0], [3, 2]).unwrap();
        assert_eq!(got[0], Observed { name: "n.running_mean".into(), values: vec![3.0, 10.0] });
        assert_eq!(got[1], Observed { name: "n.running_var".into(), values: vec![7.0, 0.0] });
    }

    #[test]
    fn one_value_has_no_variance() {
        let error = observed(vec![1.0, 2.0], [1, 2]).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        assert!(error.chain().contains("--batch-size") && error.chain().contains("\"n\""), "{error:?}");
    }

    #[test]
    fn blocks_count_alike() {
        let block = |v: f64| vec![Observed { name: "n.running_mean".into(), values: vec![v, 2.0 * v] }];
        let mut sums = Vec::new();
        for v in [1.0, 2.0, 6.0] {
            add_block(&mut sums, block(v)).unwrap();
        }
        assert_eq!(averaged(sums.clone(), 3)[0].values, [3.0, 6.0]);
        let other = vec![Observed { name: "m.running_mean".into(), values: vec![1.0, 2.0] }];
        assert!(add_block(&mut sums, other).is_err());
    }

    #[test]
    fn values_are_rounded_once_to_what_a_checkpoint_has() {
        // Between two neighbours of each type.
        for (dtype, step) in [(Dtype::F32, 23), (Dtype::F16, 10), (Dtype::BF16, 7)] {
            let above = 1.0 + 2f64.powi(-step);
            let (bytes, values) = rounded(&[1.0 + 0.6 * 2f64.powi(-step)], dtype).unwrap();
            assert_eq!(
                (bytes.len() as u64, f64::from(values[0])),
                (if dtype == Dtype::F32 { 4 } else { 2 }, above),
                "{dtype}"
            );
        }
        assert_eq!(rounded(&[0.1], Dtype::F64).unwrap(), (0.1f64.to_le_bytes().to_vec(), vec![0.1]));
        assert!(rounded(&[1.0], Dtype::I64).is_err());
    }

    #[test]
    fn a_layer_has_both_statistics() {
        let (mean, variance) =
            (("n.running_mean".to_owned(), vec![1.0]), ("n.running_var".to_owned(), vec![2.0]));
        assert_eq!(by_layer::<Flex>(&[mean.clone(), variance], &FlexDevice).unwrap().len(), 1);
        assert!(by_layer::<Flex>(&[mean], &FlexDevice).unwrap_err().chain().contains("\"n.running_var\""));
    }
}
