//! What the tensors of a pool look like: names, dtypes, shapes, and the order in which they are flattened.
//!
//! *Canonical order* is by element width, widest first, then by name. Laid end to end in that order the tensors form
//! the *flattened parameters*: one array of bytes in which every multiple of [`ALIGN_BYTES`] is an element boundary,
//! so that shards can be cut by bytes. It is also the order in which outputs are written, and hashed.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::batch_norm::{BatchNorm, is_statistic};
use crate::error::{Error, Result};
use crate::soup::Ingredient;

/// Every multiple of this many bytes in the flattened parameters is an element boundary (the widest dtype is 8 bytes).
pub const ALIGN_BYTES: u64 = 8;

/// Element type of a tensor, by the names of the safetensors format.
#[allow(missing_docs)] // the variants are the format's own names
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// All dtypes this program knows.
    pub const ALL: [Dtype; 13] = [
        Dtype::F64,
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U64,
        Dtype::U32,
        Dtype::U16,
        Dtype::U8,
        Dtype::Bool,
    ];

    /// Bytes of one element.
    pub fn width_bytes(self) -> u64 {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }

    /// Whether elements are averaged (floating point) or copied from the first ingredient (everything else).
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I64 => "I64",
            Dtype::I32 => "I32",
            Dtype::I16 => "I16",
            Dtype::I8 => "I8",
            Dtype::U64 => "U64",
            Dtype::U32 => "U32",
            Dtype::U16 => "U16",
            Dtype::U8 => "U8",
            Dtype::Bool => "BOOL",
        }
    }

    /// The dtype of that safetensors name, if this program knows it.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|d| d.name() == name)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Name, dtype and shape of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Name, as in the checkpoint (Hugging Face names).
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// A spec; for tests and readers.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<u64>>) -> Self {
        TensorSpec { name: name.into(), dtype, shape: shape.into() }
    }

    /// Number of elements, or `None` where it overflows.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
    }

    /// Size in bytes, or `None` where it overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.elements()?.checked_mul(self.dtype.width_bytes())
    }
}

/// The tensors of a checkpoint in canonical order, with the offset of each in the flattened parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    tensors: Vec<TensorSpec>,
    /// `offsets[i]` is where tensor `i` begins; one more at the end: the total.
    offsets: Vec<u64>,
    /// Tensors that are one ingredient's, though they could be averaged, by position: others lack them.
    taken: BTreeMap<usize, Ingredient>,
    /// What becomes of running statistics, where there are some.
    batch_norm: Option<BatchNorm>,
}

impl Schema {
    /// Sorts `tensors` canonically and lays them out.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for a repeated name or a size that overflows 64 bits.
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Schema> {
        tensors.sort_by(|a, b| {
            b.dtype.width_bytes().cmp(&a.dtype.width_bytes()).then_with(|| a.name.cmp(&b.name))
        });
        let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::data(format!("tensor {:?} appears twice", pair[0])));
        }
        let mut offsets = Vec::with_capacity(tensors.len() + 1);
        let mut at = 0u64;
        for t in &tensors {
            offsets.push(at);
            at = t.bytes().and_then(|b| at.checked_add(b)).ok_or_else(|| {
                Error::data(format!("tensor {:?} of shape {:?} is too large", t.name, t.shape))
            })?;
        }
        offsets.push(at);
        Ok(Schema { tensors, offsets, taken: BTreeMap::new(), batch_norm: None })
    }

    /// The same tensors, of which some, by name, are one ingredient's and not averaged. Other names are none of them.
    #[must_use]
    pub fn taking(mut self, taken: &BTreeMap<&str, Ingredient>) -> Schema {
        let whose = |t: &TensorSpec| taken.get(t.name.as_str()).copied();
        self.taken = self.tensors.iter().enumerate().filter_map(|(at, t)| Some((at, whose(t)?))).collect();
        self
    }

    /// The same tensors, of which the running statistics become `what` in every soup.
    #[must_use]
    pub fn normalised(self, what: Option<BatchNorm>) -> Schema {
        Schema { batch_norm: what, ..self }
    }

    /// What becomes of running statistics in every soup, where that was said.
    pub fn batch_norm(&self) -> Option<BatchNorm> {
        self.batch_norm
    }

    /// Whether tensor `index` is, in every soup, that of its first member.
    pub fn is_of_first_member(&self, index: usize) -> bool {
        self.batch_norm == Some(BatchNorm::First) && self.tensors.get(index).is_some_and(is_statistic)
    }

    /// Whose tensor `index` is in every soup, where it is taken from one ingredient because others lack it.
    pub fn taken_from(&self, index: usize) -> Option<Ingredient> {
        self.taken.get(&index).copied()
    }

    /// Whether tensor `index` is averaged; else it is copied, from the first ingredient where it is not
    /// [taken](Self::taken_from) from another one.
    pub fn is_averaged(&self, index: usize) -> bool {
        self.tensors.get(index).is_some_and(|t| t.dtype.is_float()) && !self.taken.contains_key(&index)
    }

    /// The tensors in canonical order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Positions of the tensors that may reach into the byte range `range` of the flattened parameters.
    pub fn tensors_in(&self, range: &Range<u64>) -> Range<usize> {
        let ends = &self.offsets[1..];
        let first = ends.partition_point(|end| *end <= range.start);
        let end = self.offsets[..ends.len()].partition_point(|start| *start < range.end);
        first..end.max(first)
    }

    /// Byte range of tensor `index` in the flattened parameters.
    pub fn range(&self, index: usize) -> Range<u64> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// Size of the flattened parameters in bytes.
    pub fn bytes(&self) -> u64 {
        self.offsets[self.tensors.len()]
    }

    /// Number of elements in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter_map(TensorSpec::elements).sum()
    }

    /// Index of the tensor called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|t| t.name == name)
    }
}
