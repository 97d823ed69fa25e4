//! Where models are evaluated, and in which arithmetic: chosen at run time, among what this build has.
//!
//! A device is opened once a process and precision. Before anything is judged there, what it computes is compared with the
//! processor ([`trial`]): a device that differs, or that answers with nothing, is refused by its name. What it is then called, its
//! *class of numerics*, is part of who judges: within one class the same weights and samples give the same bits, and scores of two
//! classes are never compared.
//!
//! ```text
//! DeviceKind, Precision ─ open() ─► trial ─► a backend of burn, its device, its class ─► With
//! ```

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cube")]
mod trial;
pub(crate) mod uploads;
#[cfg(feature = "vulkan")]
mod vulkan;

use std::fmt;

use burn::backend::flex::FlexDevice;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::AutodiffBackend;
use soup_core::devices::DeviceKind;
use soup_core::judge::JudgeId;
use soup_core::{Error, Result};

use crate::kernels::Kernels;

/// The arithmetic of a model's matrix products; sums are in f32 in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// f32, without any shortcut.
    #[default]
    F32,
    /// Parameters and activations in f32, factors rounded to the 11 bits of TF32.
    Tf32,
    /// Factors rounded to bf16. On a device parameters and activations are bf16 besides; on the processor parameters of linear maps and
    /// convolutions are, filters of one channel each aside, and all else is in f32.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// The class of numerics of a device: what [`Evaluator::numerics`](crate::Evaluator::numerics) says of every evaluator there. Opens the
/// device, so that one that cannot be judged on is refused here already; call it where nothing waits.
///
/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration), naming the device, where it is not there, this build has no such, it has no such
/// precision, or does not compute what the processor does.
pub fn numerics(device: DeviceKind, precision: Precision) -> Result<String> {
    struct Name;
    impl With for Name {
        type Out = String;
        fn with<B: Differentiable>(self, site: Site<B>) -> String {
            site.numerics
        }
    }
    open(device, precision, Name)
}

/// A backend that differentiates, over one that has the fused kernels too.
pub(crate) trait Differentiable: Kernels + AutodiffBackend<InnerBackend: Kernels> {}

impl<B: Kernels + AutodiffBackend<InnerBackend: Kernels>> Differentiable for B {}

/// An opened device.
pub(crate) struct Site<B: Differentiable> {
    pub(crate) device: B::Device,
    pub(crate) precision: Precision,
    /// The class of numerics.
    pub(crate) numerics: String,
    /// What it is and calls itself, unless it is the processor.
    pub(crate) tried: Option<(DeviceKind, String)>,
}

impl<B: Differentiable> Site<B> {
    /// Whether gradients are taken there: the processor takes them in f32 alone.
    pub(crate) fn has_gradients(&self) -> bool {
        self.tried.is_some() || self.precision == Precision::F32
    }

    /// Tries whether gradients are what they are on the processor, once a process; call it before one is taken.
    ///
    /// # Errors
    /// [`Configuration`](soup_core::ErrorKind::Configuration), naming the device, where they are not, and for the processor in bf16, which
    /// has none.
    pub(crate) fn try_gradients(&self) -> Result<()> {
        if !self.has_gradients() {
            return Err(Error::configuration("cpu has gradients in f32 alone, not in bf16"));
        }
        #[cfg(feature = "cube")]
        if let Some((name, title)) = &self.tried {
            return trial::pass_backwards(self, (*name, title));
        }
        Ok(())
    }
}

/// What is done with a backend that is known at run time only.
pub(crate) trait With {
    /// What comes of it.
    type Out;

    /// Does it.
    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out;
}

/// Opens `device`, and hands it over.
///
/// # Errors
/// As [`numerics`].
pub(crate) fn open<W: With>(device: DeviceKind, precision: Precision, with: W) -> Result<W::Out> {
    match device {
        DeviceKind::Cpu => {
            if precision == Precision::Tf32 {
                return Err(Error::configuration("cpu computes in f32 and bf16, not in tf32"));
            }
            // The same bits on every processor, in bf16 too: with AVX512-BF16 only sooner.
            let numerics = JudgeId::processors(&precision.to_string());
            Ok(with.with::<Autodiff<Flex>>(Site { device: FlexDevice, precision, numerics, tried: None }))
        }
        #[cfg(feature = "cuda")]
        DeviceKind::Cuda(index) => cuda::open(index, precision, with),
        #[cfg(not(feature = "cuda"))]
        DeviceKind::Cuda(_) => not_built(device, "cuda"),
        #[cfg(feature = "vulkan")]
        DeviceKind::Vulkan(index) => vulkan::open(index, precision, with),
        #[cfg(not(feature = "vulkan"))]
        DeviceKind::Vulkan(_) => not_built(device, "vulkan"),
    }
}

/// # Errors
/// [`Configuration`](soup_core::ErrorKind::Configuration) for any other precision than f32.
#[cfg(feature = "vulkan")]
fn only_f32(device: DeviceKind, precision: Precision) -> Result<()> {
    if precision == Precision::F32 {
        return Ok(());
    }
    Err(Error::configuration(format!("{device} computes in f32 alone, not in {precision}")))
}

#[cfg(not(all(feature = "cuda", feature = "vulkan")))]
fn not_built<T>(device: DeviceKind, feature: &str) -> Result<T> {
    Err(Error::configuration(format!(
        "{device} is not in this build of the program: it was built without the feature {feature}"
    )))
}

/// What a device calls itself, in letters, digits, points and dashes.
#[cfg(feature = "vulkan")]
fn sanitised(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;

    #[test]
    fn the_processor_is_the_native_judge() {
        assert_eq!(
            numerics(DeviceKind::default(), Precision::default()).unwrap(),
            JudgeId::native().numerics
        );
        assert_eq!(numerics(DeviceKind::Cpu, Precision::Bf16).unwrap(), "flex-bf16");
    }

    #[track_caller]
    fn check_refused(device: DeviceKind, precision: Precision, text: &str) {
        let error = numerics(device, precision).unwrap_err();
        assert_eq!((error.kind(), error.chain().as_str()), (ErrorKind::Configuration, text));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        check_refused(DeviceKind::Cpu, Precision::Tf32, "cpu computes in f32 and bf16, not in tf32");
        #[cfg(not(feature = "cuda"))]
        check_refused(
            DeviceKind::Cuda(1),
            Precision::Tf32,
            "cuda:1 is not in this build of the program: it was built without the feature cuda",
        );
        #[cfg(not(feature = "vulkan"))]
        check_refused(
            DeviceKind::Vulkan(0),
            Precision::F32,
            "vulkan:0 is not in this build of the program: it was built without the feature vulkan",
        );
        #[cfg(feature = "vulkan")]
        check_refused(DeviceKind::Vulkan(0), Precision::Tf32, "vulkan:0 computes in f32 alone, not in tf32");
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn devices_that_are_not_there_are_told_from_those_that_are() {
        let error = numerics(DeviceKind::Vulkan(99), Precision::F32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.chain().starts_with("vulkan:99 is not there: Vulkan has 0: "), "{error:?}");
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn a_device_that_judges_may_learn() {
        struct Try;
        impl With for Try {
            type Out = Result<()>;
            fn with<B: Differentiable>(self, site: Site<B>) -> Result<()> {
                site.try_gradients()
            }
        }
        open(DeviceKind::Vulkan(0), Precision::F32, Try).unwrap().unwrap();
    }

    #[cfg(feature = "vulkan")]
    #[test]
    fn a_class_has_no_strange_characters() {
        assert_eq!(sanitised("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe-llvm-15.0.6-256-bits");
        assert_eq!(sanitised("  NVIDIA H200 "), "nvidia-h200");
    }
}
