//! One way onto a device for all threads, on which nothing goes wrong in silence.
//!
//! cubecl gives every thread a stream of its own, and each stream memory of its own. So all work of a judge goes to one stream, one
//! piece at a time.
//!
//! It also does most of what it is asked on a thread of the device's. Where that panics, out of memory for one, it writes a line for its log and
//! goes on; whoever waits for a result then gets what happened to be in memory. So panics on such threads are counted, and a piece of work
//! during which its device's had one has failed, whatever it gave.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};

use burn_cubecl::CubeRuntime;
use cubecl::device::{Device, DeviceId};
use cubecl::future::block_on;
use cubecl::stream_id::StreamId;
use soup_core::{Error, Result};

/// The stream of all judging.
const STREAM: StreamId = StreamId { value: 0 };
/// How the names of the devices' threads begin; they end with the device. A test holds cubecl to it.
const DEVICE_THREAD: &str = "DS";

/// Panics on threads of devices so far, by the threads' names.
static PANICS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Runs `work` alone on `device`, and waits until all that it put there is done.
///
/// # Errors
/// Those of `work`, and [`Internal`](soup_core::ErrorKind::Internal) where it or the device panics or says that something failed.
pub(super) fn run<R: CubeRuntime, T>(device: &R::Device, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let lane = lane_of::<R>(device);
    let alone = lane.lock().unwrap_or_else(PoisonError::into_inner);
    count_panics();
    let before = panics_of(&device.to_id());
    let whole = || {
        let out = work()?;
        block_on(R::client(device).sync()).map_err(|e| Error::internal(format!("{device:?} failed: {e}")))?;
        Ok(out)
    };
    let done = catch_unwind(AssertUnwindSafe(|| STREAM.executes(whole)));
    let panics = panics_of(&device.to_id()) - before;
    drop(alone);
    match done {
        Err(panic) => Err(Error::internal(format!("work on {device:?} panicked: {}", text_of(&*panic)))),
        Ok(Ok(_)) if panics > 0 => Err(Error::internal(format!(
            "{device:?} failed {panics} times and went on, so that nothing is known of the result: see the log of this process; most \
             probably its memory is used up"
        ))),
        Ok(done) => done,
    }
}

/// The lock of `device`.
fn lane_of<R: CubeRuntime>(device: &R::Device) -> Arc<Mutex<()>> {
    type Lanes = BTreeMap<(TypeId, DeviceId), Arc<Mutex<()>>>;
    static LANES: Mutex<Lanes> = Mutex::new(BTreeMap::new());
    let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
    lanes.entry((TypeId::of::<R>(), device.to_id())).or_default().clone()
}

/// Has panics on threads of devices counted from now on, besides what is done about panics already.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(name) = std::thread::current().name().filter(|name| name.starts_with(DEVICE_THREAD)) {
                *PANICS.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() +=
                    1;
            }
            before(info);
        }));
    });
}

/// Panics on the threads of device `id` so far.
fn panics_of(id: &DeviceId) -> u64 {
    let its = format!("-{}-{}", id.type_id, id.index_id);
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    panics.iter().filter(|(name, _)| name.ends_with(&its)).map(|(_, count)| count).sum()
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown kind")
}

#[cfg(all(test, feature = "vulkan"))]
mod tests {
    use burn_wgpu::{WgpuDevice, WgpuRuntime};
    use cubecl::Runtime;
    use soup_core::ErrorKind;

    use super::*;

    /// Of its own: other tests must not see what goes wrong here.
    const DEVICE: WgpuDevice = WgpuDevice::DefaultDevice;

    fn run<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, (ErrorKind, String)> {
        super::run::<WgpuRuntime, T>(&DEVICE, work).map_err(|e| (e.kind(), e.chain()))
    }

    #[test]
    fn a_panic_on_the_devices_thread_is_an_error_of_what_was_asked() {
        let (kind, text) = run(|| {
            // As cubecl does: what is given back says nothing of it.
            let _ = WgpuRuntime::client(&DEVICE).exclusive(|| panic!("out of memory, for one"));
            Ok(7)
        })
        .unwrap_err();
        assert_eq!(kind, ErrorKind::Internal);
        assert!(text.contains("failed 1 times and went on"), "{text}");
        // Who comes after that is not concerned.
        assert_eq!(run(|| Ok(8)), Ok(8));
    }

    #[test]
    fn a_panic_on_the_callers_thread_is_an_error() {
        let (kind, text) = run::<()>(|| panic!("no such {}", "shape")).unwrap_err();
        assert_eq!(kind, ErrorKind::Internal);
        assert!(text.ends_with("panicked: no such shape"), "{text}");
        let (_, text) = run::<()>(|| Err(Error::internal("its own"))).unwrap_err();
        assert_eq!(text, "its own");
        assert_eq!(run(|| Ok(8)), Ok(8));
    }

    #[test]
    fn one_piece_of_work_at_a_time_on_one_stream() {
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    run(|| {
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        assert_eq!(StreamId::current(), STREAM);
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
    }
}
