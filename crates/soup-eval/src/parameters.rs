//! Access to a model's parameters by name: flattened bytes in, f32 values out.

use soup_core::schema::{Dtype, Schema};
use soup_core::{Error, Result};

/// The flattened parameters (canonical order of the schema, little-endian) with the schema that describes them.
pub(crate) struct Parameters<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where the sizes disagree.
    pub(crate) fn new(schema: &'a Schema, bytes: &'a [u8]) -> Result<Self> {
        if schema.bytes() != bytes.len() as u64 {
            return Err(Error::internal(format!(
                "got {} bytes of parameters for a schema of {}",
                bytes.len(),
                schema.bytes()
            )));
        }
        Ok(Parameters { schema, bytes })
    }

    /// The values of tensor `name`, converted to f32.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is missing or not floating point.
    pub(crate) fn values(&self, name: &str) -> Result<Vec<f32>> {
        let index = self.schema.index_of(name).ok_or_else(|| missing(name))?;
        let range = self.schema.range(index);
        // In range: the constructor compared the sizes, and the schema's offsets are ascending.
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        match self.schema.tensors()[index].dtype {
            Dtype::F32 => Ok(each(bytes, f32::from_le_bytes)),
            Dtype::F64 => Ok(each(bytes, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Ok(each(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(each(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            other => Err(Error::data(format!("tensor {name:?} is {other}, expected a floating-point type"))),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::data(format!("tensor {name:?} is missing"))
}

fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&b| convert(b)).collect()
}

/// Checks that `schema` has each of `expected`, of that shape and floating point; names the first that it has not.
///
/// # Errors
/// [`Data`](soup_core::ErrorKind::Data), naming the tensor.
pub(crate) fn check_schema(
    schema: &Schema,
    expected: &[(String, Vec<u64>)],
    architecture: &str,
) -> Result<()> {
    let have: std::collections::HashMap<&str, usize> =
        schema.tensors().iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    for (name, shape) in expected {
        let Some(&index) = have.get(name.as_str()) else {
            return Err(Error::data(format!(
                "tensor {name:?} is missing: {architecture} needs it, of shape {shape:?}"
            )));
        };
        let tensor = &schema.tensors()[index];
        if &tensor.shape != shape {
            return Err(Error::data(format!(
                "tensor {name:?} has shape {:?}, expected {shape:?} by config.json",
                tensor.shape
            )));
        }
        if !tensor.dtype.is_float() {
            return Err(Error::data(format!(
                "tensor {name:?} is {}, expected a floating-point type",
                tensor.dtype
            )));
        }
    }
    if have.len() > expected.len() {
        let used: std::collections::HashSet<&str> = expected.iter().map(|(n, _)| n.as_str()).collect();
        let mut extra: Vec<&str> = have.keys().copied().filter(|n| !used.contains(n)).collect();
        extra.sort_unstable();
        tracing::info!(
            count = extra.len(),
            first = extra[0],
            "tensors that {architecture} does not use are ignored"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use soup_core::schema::TensorSpec;

    #[test]
    fn every_float_dtype_becomes_f32() {
        let spec = |name: &str, dtype| TensorSpec::new(name, dtype, [2]);
        let schema = Schema::new(vec![
            spec("bf16", Dtype::BF16),
            spec("f16", Dtype::F16),
            spec("f32", Dtype::F32),
            spec("f64", Dtype::F64),
            spec("i8", Dtype::I8),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        [1.5f64, -2.0].iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        [1.5f32, -2.0].iter().for_each(|v| bytes.extend(v.to_le_bytes()));
        [1.5, -2.0].iter().for_each(|&v| bytes.extend(half::bf16::from_f32(v).to_le_bytes()));
        [1.5, -2.0].iter().for_each(|&v| bytes.extend(half::f16::from_f32(v).to_le_bytes()));
        bytes.extend([1, 2]);
        let parameters = Parameters::new(&schema, &bytes).unwrap();
        for name in ["bf16", "f16", "f32", "f64"] {
            assert_eq!(parameters.values(name).unwrap(), [1.5, -2.0], "{name}");
        }
        assert!(parameters.values("i8").unwrap_err().chain().contains("is I8"));
        assert!(parameters.values("w").unwrap_err().chain().contains("\"w\" is missing"));
        assert!(Parameters::new(&schema, &bytes[1..]).is_err());
    }

    #[test]
    fn the_first_difference_is_named() {
        let schema = Schema::new(vec![
            TensorSpec::new("a", Dtype::F32, [2, 3]),
            TensorSpec::new("b", Dtype::I64, [1]),
            TensorSpec::new("extra", Dtype::F32, [9]),
        ])
        .unwrap();
        let check = |name: &str, shape: &[u64]| {
            check_schema(&schema, &[(name.to_owned(), shape.to_vec())], "X").map_err(|e| e.chain())
        };
        assert_eq!(check("a", &[2, 3]), Ok(()));
        assert_eq!(
            check("a", &[3, 2]).unwrap_err(),
            "tensor \"a\" has shape [2, 3], expected [3, 2] by config.json"
        );
        assert_eq!(check("b", &[1]).unwrap_err(), "tensor \"b\" is I64, expected a floating-point type");
        assert_eq!(check("c", &[1]).unwrap_err(), "tensor \"c\" is missing: X needs it, of shape [1]");
    }
}
