//! What the reader of Parquet trips over is an error: it asserts some of what it reads, so that a file with a changed bit can make it panic.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use ::parquet::errors::ParquetError;
use soup_core::{Error, Result};

use super::foreign;

thread_local! {
    /// Whether this thread reads what may make it panic.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives; a data error where it panics, of which nothing is printed.
///
/// # Errors
/// Those of `read`; [`Data`](soup_core::ErrorKind::Data) where it panics.
pub(super) fn unbroken<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !READING.get() {
                others(panic);
            }
        }));
    });
    let before = READING.replace(true);
    let read = catch_unwind(AssertUnwindSafe(read));
    READING.set(before);
    read.map_or_else(|panic| Err(stumbled(&*panic)), |read| read.map_err(foreign))
}

fn stumbled(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::data(format!(
        "not a readable Parquet file: its reader stumbles: {}",
        text.unwrap_or("it does not say why")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_data_error_and_only_there() {
        assert_eq!(unbroken(|| Ok(1)).unwrap(), 1);
        let error = unbroken::<()>(|| panic!("on {}", "purpose")).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Data);
        assert!(error.chain().ends_with("its reader stumbles: on purpose"), "{}", error.chain());
        assert!(!READING.get());
    }
}
