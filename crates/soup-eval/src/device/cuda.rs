//! NVIDIA cards: kernels in CUDA, compiled where they run.

use std::ffi::c_int;

use burn::backend::Autodiff;
use burn_cubecl::CubeBackend;
use burn_cuda::CudaDevice;
use cubecl::cuda::CudaRuntime;
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, DriverError};
use soup_core::{Error, Result};

use super::{Precision, Site, With, trial};
use soup_core::devices::DeviceKind;

type Cuda<F> = CubeBackend<CudaRuntime, F, i32, u8>;

/// As [`open`](super::open), device `index` of the driver's list.
pub(super) fn open<W: With>(index: u32, precision: Precision, with: W) -> Result<W::Out> {
    let (device, name) = (CudaDevice::new(index as usize), DeviceKind::Cuda(index));
    let Card { title, class } =
        card(index).map_err(|e| Error::configuration(format!("{name} is not there: {e}")))?;
    let numerics = format!("cuda-{class}-{precision}");
    let (tried, name) = (Some((name, title.clone())), (name, title.as_str()));
    match precision {
        Precision::F32 | Precision::Tf32 => {
            trial::pass::<Cuda<f32>>(&device, name, precision)?;
            Ok(with.with::<Autodiff<Cuda<f32>>>(Site { device, precision, numerics, tried }))
        }
        Precision::Bf16 => {
            trial::pass::<Cuda<half::bf16>>(&device, name, precision)?;
            Ok(with.with::<Autodiff<Cuda<half::bf16>>>(Site { device, precision, numerics, tried }))
        }
    }
}

struct Card {
    /// What it calls itself.
    title: String,
    /// What its bits depend on: the architecture, the number of its multiprocessors, by which products are cut, and the compiler.
    class: String,
}

/// Card `index`, or why there is none.
fn card(index: u32) -> std::result::Result<Card, String> {
    let said = |e: DriverError| e.to_string();
    let compiler = compiler()?;
    let context = CudaContext::new(index as usize).map_err(said)?;
    let (major, minor) = context.compute_capability().map_err(said)?;
    let processors = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let processors = context.attribute(processors).map_err(said)?;
    let title = context.name().map_err(said)?;
    Ok(Card { title, class: format!("sm{major}{minor}-{processors}-nvrtc{compiler}") })
}

/// The version of the compiler, once driver and compiler are there: they are loaded at run time, and cudarc panics where they are not.
#[allow(unsafe_code)]
fn compiler() -> std::result::Result<String, String> {
    // SAFETY: it loads a library of that name and looks for the functions in it.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err("there is no driver for CUDA (libcuda.so)".to_owned());
    }
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err("there is no compiler for CUDA (libnvrtc.so), which is part of its toolkit".to_owned());
    }
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    // SAFETY: it writes to both, which live as long as the call.
    let status = unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    status.result().map_err(|e| format!("the compiler for CUDA does not tell its version: {e:?}"))?;
    Ok(format!("{major}.{minor}"))
}
