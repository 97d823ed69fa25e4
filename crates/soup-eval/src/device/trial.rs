//! The trial of a device: every kernel on awkward shapes, and every slope of one, against the processor.
//!
//! What is found out here would otherwise show in scores alone: a driver without its compiler that answers with zeros, products that are
//! rougher than they were said to be, a step that is wrong for rows of odd lengths. Slopes are tried before the first gradient is
//! taken: only learned recipes ask for one, and kernels take a while to compile.

mod steps;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use soup_core::{Error, Result};

use self::steps::{Named, Slopes, Values, steps};
use super::{Differentiable, Precision, Site};
use crate::kernels::Kernels;
use soup_core::devices::DeviceKind;

/// What is tried of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Forward,
    Backward,
}

impl Part {
    /// How far a value may be off, by the largest of its tensor.
    fn tolerance(self, precision: Precision) -> f32 {
        match (self, precision) {
            // A tenth of what TF32 would be off.
            (Part::Forward, Precision::F32) => 1e-5,
            (Part::Forward, Precision::Tf32) => 4e-3,
            (Part::Forward, Precision::Bf16) => 4e-2,
            // A slope is rounded twice, on the way there and back.
            (Part::Backward, Precision::F32) => 3e-5,
            (Part::Backward, Precision::Tf32) => 1e-2,
            (Part::Backward, Precision::Bf16) => 2e-1,
        }
    }

    /// What the largest value of a tensor is at least taken for.
    fn least(self) -> f32 {
        match self {
            // Where nothing but zeros is wanted, nothing else will do.
            Part::Forward => f32::MIN_POSITIVE,
            // What cancels out is rounded nevertheless.
            Part::Backward => 1e-2,
        }
    }
}

/// Tries `device`, once a process and precision.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming it, where it does not compute what the processor does.
pub(super) fn pass<B: Kernels>(
    device: &B::Device,
    (name, title): (DeviceKind, &str),
    precision: Precision,
) -> Result<()> {
    once((name, title), precision, Part::Forward, || {
        let want = steps::<Flex, Values>(&FlexDevice)?;
        let got = B::on(device, precision, || steps::<B, Values>(device))?;
        Ok((got, want))
    })
}

/// Tries the slopes on the device at `site`, once a process and precision.
///
/// # Errors
/// As [`pass`].
pub(super) fn pass_backwards<B: Differentiable>(
    site: &Site<B>,
    (name, title): (DeviceKind, &str),
) -> Result<()> {
    once((name, title), site.precision, Part::Backward, || {
        let want = steps::<Autodiff<Flex>, Slopes>(&FlexDevice)?;
        let got = B::on(&site.device, site.precision, || steps::<B, Slopes>(&site.device))?;
        Ok((got, want))
    })
}

/// Compares what `attempt` got with what it wants, unless that was done before.
fn once(
    (name, title): (DeviceKind, &str),
    precision: Precision,
    part: Part,
    attempt: impl FnOnce() -> Result<(Named, Named)>,
) -> Result<()> {
    type Tried = BTreeMap<(DeviceKind, Precision, Part), std::result::Result<(), String>>;
    static TRIED: Mutex<Tried> = Mutex::new(BTreeMap::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    let result = tried.entry((name, precision, part)).or_insert_with(|| {
        let (got, want) = attempt().map_err(|e| e.chain())?;
        compare_all(&got, &want, precision, part)
    });
    let refused = |why: &String| {
        let what = match part {
            Part::Forward => "judge",
            Part::Backward => "learn",
        };
        Error::configuration(format!("{name} ({title}) is not fit to {what} in {precision}: {why}"))
    };
    result.as_ref().copied().map_err(refused)
}

fn compare_all(
    got: &Named,
    want: &Named,
    precision: Precision,
    part: Part,
) -> std::result::Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} results for {}", got.len(), want.len()));
    }
    for ((what, got), (_, want)) in got.iter().zip(want) {
        compare(got, want, (part.tolerance(precision), part.least()))
            .map_err(|why| format!("{what}: {why}"))?;
    }
    Ok(())
}

fn compare(got: &[f32], want: &[f32], (tolerance, least): (f32, f32)) -> std::result::Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} values for {}", got.len(), want.len()));
    }
    let largest = want.iter().fold(least, |m, v| m.max(v.abs()));
    for (got, want) in got.iter().zip(want) {
        let off = (got - want).abs() / largest;
        // NaN is not within anything.
        if off.is_nan() || off > tolerance {
            return Err(format!(
                "{got:e} for {want:e}, which is off by {off:.1e} of the largest, and may be by {tolerance:e}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::steps::noise;
    use super::*;
    use crate::kernels::{tensor, values};

    /// The product of factors of which `round` made something.
    fn product(round: impl Fn(f32) -> f32) -> Vec<f32> {
        let factor = |seed, rows, columns| {
            let values: Vec<f32> = noise(rows * columns, seed).into_iter().map(&round).collect();
            tensor::<Flex, 2>(values, [rows, columns], &FlexDevice)
        };
        values(Flex::matmul(factor(3, 50, 192), factor(4, 192, 64)), "values").unwrap()
    }

    fn of(precision: Precision) -> (f32, f32) {
        (Part::Forward.tolerance(precision), Part::Forward.least())
    }

    #[test]
    fn rough_products_are_no_f32() {
        let exact = product(|v| v);
        let tf32 = product(|v| f32::from_bits(v.to_bits() & !0x1fff));
        let bf16 = product(|v| half::bf16::from_f32(v).to_f32());
        for (got, is) in [(&exact, Precision::F32), (&tf32, Precision::Tf32), (&bf16, Precision::Bf16)] {
            compare(got, &exact, of(is)).unwrap();
            let as_f32 = compare(got, &exact, of(Precision::F32));
            assert_eq!(as_f32.is_ok(), is == Precision::F32, "{is}: {as_f32:?}");
        }
    }

    #[test]
    fn nothing_is_no_result() {
        let want = [1.0, -2.0];
        for got in [&[0.0, 0.0][..], &[1.0], &[1.0, f32::NAN], &[f32::INFINITY, -2.0]] {
            assert!(compare(got, &want, of(Precision::Bf16)).is_err(), "{got:?}");
        }
        let exactly = (0.0, f32::MIN_POSITIVE);
        assert!(compare(&want, &want, exactly).is_ok());
        assert!(compare(&[0.0], &[0.0], exactly).is_ok());
        assert!(compare(&[1e-9], &[0.0], (1e-2, f32::MIN_POSITIVE)).is_err());
        assert!(compare(&[1e-9], &[0.0], (1e-2, 1e-2)).is_ok());
    }

    #[test]
    fn a_slope_that_is_missing_or_another_is_found() {
        let want = steps::<Autodiff<Flex>, Slopes>(&FlexDevice).unwrap();
        let tried = |got: &Named| compare_all(got, &want, Precision::Bf16, Part::Backward);
        tried(&want).unwrap();
        assert!(tried(&want[1..].to_vec()).is_err());
        for at in 0..want.len() {
            let mut got = want.clone();
            got[at].1.fill(0.0);
            // What is zero by right is the only thing that cannot be told from nothing.
            let zero = want[at].1.iter().all(|v| v.abs() < 1e-5);
            assert_eq!(tried(&got).is_ok(), zero, "{}", want[at].0);
        }
    }

    /// What comes out is not looked at: a driver that executes nothing will do, and refuses what no card would take.
    #[cfg(feature = "cuda")]
    #[test]
    #[ignore = "needs a driver of CUDA's: `tests/gpu/compile` has one"]
    fn every_step_is_compiled_and_launched_on_a_card() {
        use burn_cubecl::CubeBackend;
        use burn_cuda::CudaDevice;
        use cubecl::cuda::CudaRuntime;

        type Cuda<F> = CubeBackend<CudaRuntime, F, i32, u8>;

        fn launched<B: Kernels, T: super::steps::Take<B>>(device: &B::Device, precision: Precision) {
            let done = B::on(device, precision, || steps::<B, T>(device)).map(|_| ());
            assert_eq!(done.map_err(|e| e.chain()), Ok(()), "{precision}");
        }

        let device = CudaDevice::new(0);
        for precision in [Precision::F32, Precision::Tf32] {
            launched::<Cuda<f32>, Values>(&device, precision);
            launched::<Autodiff<Cuda<f32>>, Slopes>(&device, precision);
        }
        launched::<Cuda<half::bf16>, Values>(&device, Precision::Bf16);
        launched::<Autodiff<Cuda<half::bf16>>, Slopes>(&device, Precision::Bf16);
    }
}
