//! What memory of a device may be taken: cubecl does not say so when there is not enough, so it is asked before.

use soup_core::{Error, Result};

const GIB: u64 = 1 << 30;

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What nobody has taken.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

impl Memory {
    /// What is left alone: for what blends give, for kernels, and for who else uses the device.
    fn reserve(&self) -> u64 {
        (self.total / 16).clamp(GIB / 2, 2 * GIB)
    }

    /// What may be taken now.
    pub(crate) fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserve())
    }

    /// Refuses `bytes` that may not be taken of `device`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](soup_core::ErrorKind::Configuration), with what there is.
    pub(crate) fn check(&self, device: &str, bytes: u64) -> Result<()> {
        if bytes <= self.available() {
            return Ok(());
        }
        Err(Error::configuration(format!(
            "device {device} has no room for {}: of {} are {} free, of which {} stay free; use more workers, or give them a disk cache",
            size(bytes),
            size(self.total),
            size(self.free),
            size(self.reserve())
        )))
    }
}

/// Bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..MIB => format!("{bytes} bytes"),
        MIB..GIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use soup_core::ErrorKind;

    use super::*;

    #[test]
    fn a_part_stays_free() {
        let memory = Memory { free: 10 * GIB, total: 80 * GIB };
        assert_eq!(memory.available(), 8 * GIB);
        assert!(memory.check("cuda:0", 8 * GIB).is_ok());
        let error = memory.check("cuda:0", 8 * GIB + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(
            error.chain(),
            "device cuda:0 has no room for 8.0 GiB: of 80.0 GiB are 10.0 GiB free, of which 2.0 GiB stay free; use more workers, \
             or give them a disk cache"
        );
        let small = Memory { free: 612 << 20, total: 1600 << 20 };
        assert_eq!(small.available(), 100 << 20);
        assert_eq!(Memory { free: 1, total: 80 * GIB }.available(), 0);
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!([3, 3 << 19, 3 * GIB / 2].map(size), ["3 bytes", "1.5 MiB", "1.5 GiB"]);
    }
}
