//! The parameters of one soup, in memory: one buffer a tensor, so that whoever makes something else of them can let each go as soon
//! as it has been used.

use crate::error::{Error, Result};
use crate::schema::Schema;
use crate::shard::segments;

/// See the module. The bytes are little-endian, in the schema's dtypes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    tensors: Vec<Vec<u8>>,
}

impl Weights {
    /// Zeros.
    pub fn zeros(schema: &Schema) -> Weights {
        // The schema's size fits, so that of each tensor does.
        let zeros = |tensor: usize| {
            let range = schema.range(tensor);
            vec![0; (range.end - range.start) as usize]
        };
        Weights { tensors: (0..schema.tensors().len()).map(zeros).collect() }
    }

    /// A copy of the flattened parameters.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where those are not of the schema's size.
    pub fn copied_from(schema: &Schema, flat: &[u8]) -> Result<Weights> {
        if flat.len() as u64 != schema.bytes() {
            let bytes = schema.bytes();
            return Err(Error::internal(format!(
                "got {} bytes of parameters for a schema of {bytes}",
                flat.len()
            )));
        }
        let mut weights = Weights::zeros(schema);
        weights.fill(schema, 0, flat)?;
        Ok(weights)
    }

    /// Copies `bytes` to where byte `start` of the flattened parameters is.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) where there is no such place, or these are another schema's.
    pub fn fill(&mut self, schema: &Schema, start: u64, bytes: &[u8]) -> Result<()> {
        let misfit = || Error::internal(format!("{} bytes do not fit parameters at {start}", bytes.len()));
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= schema.bytes());
        let range = start..end.ok_or_else(misfit)?;
        for segment in segments(schema, range) {
            // What a range has of a tensor begins where the range does, if the tensor begins before.
            let within = (start + segment.range.start as u64 - schema.range(segment.tensor).start) as usize;
            let tensor = self.tensors.get_mut(segment.tensor).ok_or_else(misfit)?;
            let place = tensor.get_mut(within..within + segment.range.len()).ok_or_else(misfit)?;
            place.copy_from_slice(&bytes[segment.range]);
        }
        Ok(())
    }

    /// The bytes of tensor `index`; empty where they were taken.
    pub fn tensor(&self, index: usize) -> &[u8] {
        self.tensors.get(index).map_or(&[], Vec::as_slice)
    }

    /// Takes the bytes of tensor `index` away.
    pub fn take(&mut self, index: usize) -> Vec<u8> {
        self.tensors.get_mut(index).map(std::mem::take).unwrap_or_default()
    }

    /// Whether these are of the sizes that `schema` says.
    pub fn fit(&self, schema: &Schema) -> bool {
        let size = |(index, tensor): (usize, &Vec<u8>)| {
            let range = schema.range(index);
            tensor.len() as u64 == range.end - range.start
        };
        self.tensors.len() == schema.tensors().len() && self.tensors.iter().enumerate().all(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Dtype, TensorSpec};

    #[test]
    fn parameters_are_filled_in_wherever_they_are_cut() {
        let tensors = [("a", Dtype::F64, 2), ("b", Dtype::F32, 3), ("c", Dtype::F32, 0), ("d", Dtype::U8, 5)];
        let schema =
            Schema::new(tensors.map(|(n, d, count)| TensorSpec::new(n, d, [count])).to_vec()).unwrap();
        let flat: Vec<u8> = (1..=schema.bytes() as u8).collect();
        let whole = Weights::copied_from(&schema, &flat).unwrap();
        assert!(whole.fit(&schema));
        assert_eq!(whole.tensor(1), &flat[16..28]);
        for cut in 0..=flat.len() {
            let mut weights = Weights::zeros(&schema);
            // In any order.
            weights.fill(&schema, cut as u64, &flat[cut..]).unwrap();
            weights.fill(&schema, 0, &flat[..cut]).unwrap();
            assert_eq!(weights, whole, "{cut}");
        }
        assert!(Weights::zeros(&schema).fill(&schema, 1, &flat).is_err());
        assert!(Weights::default().fill(&schema, 0, &flat).is_err());
        assert!(Weights::copied_from(&schema, &flat[1..]).is_err());
        let mut taken = whole.clone();
        assert_eq!(taken.take(3), &flat[28..]);
        assert!(taken.tensor(3).is_empty() && !taken.fit(&schema));
        assert!(taken.take(9).is_empty());
    }
}
