//! In which arithmetic the products of this thread are made.

use std::cell::Cell;

use crate::device::Precision;

thread_local! {
    /// What is in force on this thread. Backends have no place for it: the products of f32 and TF32 are of the same tensors.
    static IN_FORCE: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `work` with all products of this thread in `precision`.
pub(super) fn within<T>(precision: Precision, work: impl FnOnce() -> T) -> T {
    /// Puts it back, also where `work` panics.
    struct Before(Precision);
    impl Drop for Before {
        fn drop(&mut self) {
            IN_FORCE.set(self.0);
        }
    }
    let _before = Before(IN_FORCE.replace(precision));
    work()
}

/// What is in force.
pub(super) fn in_force() -> Precision {
    IN_FORCE.get()
}
