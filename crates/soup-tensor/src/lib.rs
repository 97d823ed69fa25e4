//! Shards resident on a device, and the one primitive over them: the blend.
//!
//! # Words
//!
//! A *shard* is a byte range of the flattened parameters ([`soup_core::schema`] defines their order). A [`ShardMemory`]
//! holds that range of ALL ingredients of a pool, somewhere: host memory, a device's, or a file on a local disk. Its *blend*
//! of a soup is that range of the soup's tensors.
//!
//! # Flow
//!
//! [`Device::builder`] and [`Device::disk_builder`] make a [`ShardBuilder`]. It gives a zeroed [`Buffer`] for each
//! ingredient; the loader reads straight into it and hands it back. It is inspected then and goes to a [`Place`]: one of this
//! crate's, in memory or on a disk, or a device's ([`ShardBuilder::new`]). [`ShardBuilder::finish`] says what was found
//! ([`Findings`]) and gives the [`ShardMemory`], which from then on only answers. Computations on the host get their bytes from a
//! source (`source.rs`), whatever it is, and all are the same to the bit.
//!
//! A shard that is needed once is not kept: a [`Pass`] over it digests, inspects, multiplies and blends what is read of it,
//! to the same bits.
//!
//! # What a blend is, exactly
//!
//! For every element of a floating-point tensor:
//!
//! - the mean of one ingredient is that ingredient, bit for bit;
//! - the mean of n is the sum of the members' elements in pool order in `f64`, divided by n, rounded once to the dtype;
//! - under explicit weights it is the sum of weight x element in `f64` in the same order (no fused multiply-add), rounded
//!   once to the dtype.
//!
//! Rounding is to nearest, ties to even, straight from `f64`. Results that are NaN have one bit pattern (the positive
//! quiet NaN without payload), because processors disagree on NaNs. Other tensors are those of the pool's first
//! ingredient. So the bits of a soup depend on its ingredients alone: not on the device, the number of threads, or how
//! shards were cut.

mod blend;
mod buffer;
mod builder;
mod check;
mod device;
mod digests;
mod disk;
mod format;
mod host;
mod kernel;
mod layout;
mod pass;
mod products;
mod simd;
mod source;
mod threads;

use soup_core::soup::{Ingredient, Soup};

pub use buffer::Buffer;
pub use builder::{Inspection, Place, ShardBuilder};
pub use check::{DifferingIntegers, Findings, NonFinite};
pub use device::Device;
pub use layout::Layout;
pub use pass::{Having, Pass, Passed, Passing, non_finite};

// Checkpoints are little-endian, and elements are read in place.
#[cfg(not(target_endian = "little"))]
compile_error!("soup-tensor reads checkpoints in place and therefore needs a little-endian target");

/// The products of a gradient with every ingredient on a part of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentDots {
    /// Position of the tensor in the schema.
    pub tensor: usize,
    /// One an ingredient, in pool order.
    pub dots: Vec<f64>,
}

/// Inner products on a part of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentGram {
    /// Position of the tensor in the schema.
    pub tensor: usize,
    /// The upper triangle, row by row, of the inner products of d_1 ... d_k, o: the ingredients minus the origin, and the
    /// origin.
    pub packed: Vec<f64>,
}

/// One shard of all ingredients, resident somewhere.
pub trait ShardMemory: Send + Sync {
    /// Size of the shard of one ingredient, in bytes.
    fn bytes(&self) -> usize;

    /// Writes the blend of `soup` to `out`: the whole shard, raw little-endian bytes in the schema's dtypes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where `out` is not [`bytes`](Self::bytes) long, or the soup
    /// has an ingredient or tensor that the shard has not.
    fn blend(&self, soup: &Soup, out: &mut [u8]) -> soup_core::Result<()>;

    /// The products of `gradient` with every ingredient, for each part of a tensor in the shard that is averaged, in order:
    /// the sum of gradient x element in `f64`, in an order that depends on the shard alone. `gradient` has one value an
    /// element of the shard, those that are copied included.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where it has not.
    fn dots(&self, gradient: &[f32]) -> soup_core::Result<Vec<SegmentDots>>;

    /// The inner products of all ingredients minus an origin, and of the origin, for each part of a tensor in the shard that
    /// is averaged, in order: in `f64`, in an order that depends on the shard alone. The origin is `base`, a shard in the
    /// same layout, or else the mean of the ingredients.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) where `base` is not [`bytes`](Self::bytes) long.
    fn gram(&self, base: Option<&[u8]>) -> soup_core::Result<Vec<SegmentGram>>;

    /// The digest of the shard of `ingredient`, as it was loaded, by the algorithm of its [builder](ShardBuilder::digested_by).
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](soup_core::ErrorKind::Internal) for an ingredient that the shard has not.
    fn digest(&self, ingredient: Ingredient) -> soup_core::Result<[u8; 32]>;

    /// Memory of the host that is held, in bytes.
    fn resident_bytes(&self) -> u64;

    /// Memory of a device that is held, in bytes, where that is not the host's.
    fn device_bytes(&self) -> u64 {
        0
    }

    /// Space taken on the disk, in bytes.
    fn disk_bytes(&self) -> u64 {
        0
    }
}
