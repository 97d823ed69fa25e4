//! The tensors of a run, and in which dtypes an ingredient stores them.

use std::collections::BTreeMap;

use soup_core::batch_norm::BatchNorm;
use soup_core::schema::{Dtype, Schema, TensorSpec};
use soup_core::soup::Ingredient;
use soup_core::texts::Decoding;
use soup_core::{Error, Result};

use super::malformed;
use crate::v1;

/// The dtype of a safetensors name.
pub(super) fn dtype(name: &str) -> Result<Dtype> {
    Dtype::from_name(name).ok_or_else(|| malformed(&format!("unknown dtype {name:?}")))
}

/// What becomes of running statistics, by its name; `None` where nobody said so.
pub(super) fn batch_norm(name: String) -> Result<Option<BatchNorm>> {
    let known = |name: String| {
        let unknown = || malformed(&format!("unknown handling of running statistics {name:?}"));
        BatchNorm::from_name(&name).ok_or_else(unknown)
    };
    super::non_empty(name).map(known).transpose()
}

/// What becomes of answers; what nobody says is what was always done.
pub(super) fn decoding(name: String) -> Result<Decoding> {
    let known = |name: String| {
        let unknown = || malformed(&format!("unknown decoding {name:?}"));
        Decoding::from_name(&name).ok_or_else(unknown)
    };
    Ok(super::non_empty(name).map(known).transpose()?.unwrap_or_default())
}

/// The same as it travels: nothing where it is what was always done.
pub(super) fn decoding_to_wire(decoding: Decoding) -> String {
    if decoding.is_labels() { String::new() } else { decoding.name().to_owned() }
}

/// The tensors of `schema`, as they travel.
pub fn tensors_of(schema: &Schema) -> Vec<v1::Tensor> {
    let tensor = |(index, t): (usize, &TensorSpec)| v1::Tensor {
        name: t.name.clone(),
        dtype: t.dtype.name().to_owned(),
        shape: t.shape.clone(),
        taken_from: schema.taken_from(index).map(|i| i.0),
    };
    schema.tensors().iter().enumerate().map(tensor).collect()
}

impl TryFrom<v1::Tensor> for TensorSpec {
    type Error = Error;
    fn try_from(t: v1::Tensor) -> Result<Self> {
        let dtype = dtype(&t.dtype).map_err(|e| e.context(format!("tensor {:?}", t.name)))?;
        Ok(TensorSpec::new(t.name, dtype, t.shape))
    }
}

impl v1::BeginRun {
    /// Checks that the message may be sent.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where the model has too many tensors for one message.
    pub fn check_size(&self) -> Result<()> {
        let bytes = prost::Message::encoded_len(self);
        if bytes <= crate::CONTROL_BYTES_MAX {
            return Ok(());
        }
        let tensors = self.tensors.len();
        Err(Error::data(format!(
            "a model of {tensors} tensors takes {bytes} bytes to describe, which is too much"
        )))
    }

    /// The schema of the run's soups.
    ///
    /// # Errors
    /// Where a dtype is unknown, a name repeats, or a tensor is taken from an ingredient that there is not.
    pub fn schema(&self) -> Result<Schema> {
        let taken: BTreeMap<&str, Ingredient> =
            self.tensors.iter().filter_map(|t| Some((t.name.as_str(), Ingredient(t.taken_from?)))).collect();
        if let Some((name, _)) = taken.iter().find(|(_, i)| i.index() >= self.ingredients.len()) {
            return Err(malformed(&format!("tensor {name:?} is taken from an ingredient that there is not")));
        }
        let specs = self.tensors.iter().cloned().map(TensorSpec::try_from).collect::<Result<Vec<_>>>()?;
        Ok(Schema::new(specs)?.taking(&taken).normalised(batch_norm(self.batch_norm.clone())?))
    }
}

impl v1::IngredientReads {
    /// The dtypes in which the ingredient stores tensors of a model of so many, where they are not the model's; by position.
    ///
    /// # Errors
    /// Where a dtype is unknown or none to average, or a tensor is none.
    pub fn stored(&self, tensors: usize) -> Result<BTreeMap<usize, Dtype>> {
        let one = |t: &v1::StoredTensor| {
            let dtype = dtype(&t.dtype)?;
            let index = t.tensor as usize;
            match dtype.is_float() && index < tensors {
                true => Ok((index, dtype)),
                false => Err(malformed("a tensor is stored in a way that cannot be")),
            }
        };
        self.stored.iter().map(one).collect()
    }
}
