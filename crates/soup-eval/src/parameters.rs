//! Access to a model's parameters by name: flattened bytes in, f32 values out; and of its gradient back.

pub(crate) mod interpolation;
pub(crate) mod unused;
pub(crate) mod visitor;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use soup_core::schema::{Dtype, Schema};
use soup_core::weights::Weights;
use soup_core::{Error, Result};

/// The parameters of a soup (little-endian) with the schema that describes them.
pub(crate) struct Parameters<'a> {
    schema: &'a Schema,
    bytes: Bytes<'a>,
}

/// Where they are. What a device has blended is to be a third place, from which nothing is copied: it lies there as
/// [`Kernels::parameter`](crate::kernels::Kernels::parameter) wants it, tensor by tensor in the checkpoint's own order.
enum Bytes<'a> {
    /// Flattened, in canonical order.
    Flat(&'a [u8]),
    /// In buffers that go as soon as their values are taken, so that a model and what it is made of are never there twice.
    Own(RefCell<Weights>),
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
        Ok(Parameters { schema, bytes: Bytes::Flat(bytes) })
    }

    /// The same of parameters that are used up.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where the sizes disagree.
    pub(crate) fn owned(schema: &'a Schema, weights: Weights) -> Result<Self> {
        match weights.fit(schema) {
            true => Ok(Parameters { schema, bytes: Bytes::Own(RefCell::new(weights)) }),
            false => Err(Error::internal("the parameters are not of the schema's sizes")),
        }
    }

    /// What describes them.
    pub(crate) fn schema(&self) -> &Schema {
        self.schema
    }

    /// Appends the values of tensor `name`, converted to f32, to `values`. Of parameters that are used up they can be had once.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where it is missing or not floating point.
    pub(crate) fn append(&self, name: &str, values: &mut Vec<f32>) -> Result<()> {
        let index = self.schema.index_of(name).ok_or_else(|| missing(name))?;
        let range = self.schema.range(index);
        match &self.bytes {
            // In range: the constructor compared the sizes, and the schema's offsets are ascending.
            Bytes::Flat(bytes) => {
                self.convert(index, &bytes[range.start as usize..range.end as usize], values)
            }
            Bytes::Own(weights) => {
                let bytes = weights.borrow_mut().take(index);
                if bytes.len() as u64 != range.end - range.start {
                    return Err(Error::internal(format!("tensor {name:?} is used twice")));
                }
                self.convert(index, &bytes, values)
            }
        }
    }

    /// Whether tensors `one` and `other`, whose values nobody has taken yet, are of the same type and bytes.
    ///
    /// # Errors
    /// [`Data`](soup_core::ErrorKind::Data) where one is missing.
    pub(crate) fn are_equal(&self, one: &str, other: &str) -> Result<bool> {
        let index = |name: &str| self.schema.index_of(name).ok_or_else(|| missing(name));
        let (one, other) = (index(one)?, index(other)?);
        let tensors = self.schema.tensors();
        if one == other || tensors[one].dtype != tensors[other].dtype {
            return Ok(one == other);
        }
        Ok(match &self.bytes {
            Bytes::Flat(bytes) => {
                let of = |index| {
                    let range = self.schema.range(index);
                    &bytes[range.start as usize..range.end as usize]
                };
                of(one) == of(other)
            }
            Bytes::Own(weights) => weights.borrow().tensor(one) == weights.borrow().tensor(other),
        })
    }

    fn convert(&self, index: usize, bytes: &[u8], values: &mut Vec<f32>) -> Result<()> {
        let name = &self.schema.tensors()[index].name;
        match self.schema.tensors()[index].dtype {
            Dtype::F32 => each(bytes, values, f32::from_le_bytes),
            Dtype::F64 => each(bytes, values, |b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => each(bytes, values, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => each(bytes, values, |b| half::bf16::from_le_bytes(b).to_f32()),
            other => {
                return Err(Error::data(format!(
                    "tensor {name:?} is {other}, expected a floating-point type"
                )));
            }
        }
        Ok(())
    }
}

/// The gradient of a model's flattened parameters: one f32 an element, in the canonical order of the schema. Begins as
/// zeros, and is added to.
pub(crate) struct FlatGradient {
    values: Vec<f32>,
    /// Where the elements of each tensor are in `values`.
    ranges: HashMap<String, Range<usize>>,
}

impl FlatGradient {
    pub(crate) fn zeros(schema: &Schema) -> Self {
        let mut at = 0;
        let ranges = schema.tensors().iter().map(|tensor| {
            // The schema's size in bytes fits, so the number of elements does.
            let first = at;
            at += tensor.elements().unwrap_or(0) as usize;
            (tensor.name.clone(), first..at)
        });
        let ranges = ranges.collect();
        FlatGradient { values: vec![0.0; at], ranges }
    }

    /// Adds the gradient of tensor `name`, in the tensor's own order.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where it has another number of elements, or is not there.
    pub(crate) fn add(&mut self, name: &str, gradient: &[f32]) -> Result<()> {
        let target = self.tensor(name, gradient.len())?;
        target.iter_mut().zip(gradient).for_each(|(t, g)| *t += g);
        Ok(())
    }

    /// Adds to rows of the table `name` the gradient of each, one after the other; `None` for one that has none.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where it has no such row, or the gradient is not of as many rows.
    pub(crate) fn add_rows(
        &mut self,
        name: &str,
        rows: impl Iterator<Item = Option<usize>>,
        gradient: &[f32],
    ) -> Result<()> {
        let rows: Vec<Option<usize>> = rows.collect();
        let width = gradient.len().checked_div(rows.len()).unwrap_or(0);
        let range = self.ranges.get(name).ok_or_else(|| missing(name))?.clone();
        let table = &mut self.values[range];
        for (row, gradient) in rows.into_iter().zip(gradient.chunks_exact(width.max(1))) {
            let Some(row) = row else { continue };
            let target = table.get_mut(row * width..(row + 1) * width);
            let target =
                target.ok_or_else(|| Error::internal(format!("tensor {name:?} has no row {row}")))?;
            target.iter_mut().zip(gradient).for_each(|(t, g)| *t += g);
        }
        Ok(())
    }

    /// Adds the gradients of the matrices `names`, all of one shape `[out, in]`, from that of their transposes side by
    /// side: `[in, names.len() * out]`.
    ///
    /// # Errors
    /// As [`add`](FlatGradient::add).
    pub(crate) fn add_transposed(&mut self, names: &[String], gradient: &[f32], inputs: usize) -> Result<()> {
        let transposed = transpose(gradient, inputs, gradient.len().checked_div(inputs).unwrap_or(0));
        self.add_parts(names, &transposed)
    }

    /// Adds the gradient of filters `name` of so many channels from that of their matrix, `[pixels * channels, outputs]`.
    ///
    /// # Errors
    /// As [`add`](FlatGradient::add).
    pub(crate) fn add_filters(
        &mut self,
        names: &[String],
        gradient: &[f32],
        [inputs, channels]: [usize; 2],
    ) -> Result<()> {
        let by_output = transpose(gradient, inputs, gradient.len().checked_div(inputs).unwrap_or(0));
        self.add_parts(names, &pixels_first(&by_output, inputs.checked_div(channels).unwrap_or(0), channels))
    }

    /// Adds the gradients of the tensors `names`, all of one size, that lie end to end.
    ///
    /// # Errors
    /// As [`add`](FlatGradient::add).
    pub(crate) fn add_parts(&mut self, names: &[String], gradient: &[f32]) -> Result<()> {
        let part = (gradient.len() / names.len().max(1)).max(1);
        names.iter().zip(gradient.chunks(part)).try_for_each(|(name, part)| self.add(name, part))
    }

    /// The gradient, one value an element. It ends there: nothing can be added to what is left.
    pub(crate) fn take_values(&mut self) -> Vec<f32> {
        self.ranges.clear();
        std::mem::take(&mut self.values)
    }

    fn tensor(&mut self, name: &str, elements: usize) -> Result<&mut [f32]> {
        let range = self.ranges.get(name).ok_or_else(|| missing(name))?;
        if range.len() != elements {
            return Err(Error::internal(format!(
                "gradient of {elements} elements for tensor {name:?} of {}",
                range.len()
            )));
        }
        Ok(&mut self.values[range.clone()])
    }
}

fn missing(name: &str) -> Error {
    Error::data(format!("tensor {name:?} is missing"))
}

fn each<const N: usize>(bytes: &[u8], values: &mut Vec<f32>, convert: impl Fn([u8; N]) -> f32) {
    values.extend(bytes.as_chunks::<N>().0.iter().map(|&b| convert(b)));
}

/// `[rows, columns]` to `[columns, rows]`, in square blocks that fit the cache.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for row in top..(top + BLOCK).min(rows) {
                for column in left..(left + BLOCK).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

/// Filters `[outputs, channels, pixels]` as `[outputs, pixels, channels]`; and back, with the two sizes exchanged.
pub(crate) fn pixels_first(values: &[f32], channels: usize, pixels: usize) -> Vec<f32> {
    // No dimension is 0: a config has none.
    values.chunks_exact(channels * pixels).flat_map(|filter| transpose(filter, channels, pixels)).collect()
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use soup_core::schema::TensorSpec;

    fn values(parameters: &Parameters<'_>, name: &str) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        parameters.append(name, &mut values)?;
        Ok(values)
    }

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
            assert_eq!(values(&parameters, name).unwrap(), [1.5, -2.0], "{name}");
        }
        assert!(values(&parameters, "i8").unwrap_err().chain().contains("is I8"));
        assert!(values(&parameters, "w").unwrap_err().chain().contains("\"w\" is missing"));
        assert!(Parameters::new(&schema, &bytes[1..]).is_err());
        // Those that are used up are the same, once.
        let owned = Parameters::owned(&schema, Weights::copied_from(&schema, &bytes).unwrap()).unwrap();
        for name in ["bf16", "f16", "f32", "f64"] {
            assert_eq!(values(&owned, name).unwrap(), [1.5, -2.0], "{name}");
            assert!(values(&owned, name).unwrap_err().chain().contains("is used twice"));
        }
        assert!(Parameters::owned(&schema, Weights::default()).is_err());
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

    #[test]
    fn transposing_swaps_indices() {
        let (rows, columns) = (37, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let out = transpose(&values, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(out[column * rows + row], values[row * columns + column]);
            }
        }
        assert_eq!(transpose(&out, columns, rows), values);
    }

    #[test]
    fn gradients_land_where_their_parameters_are() {
        let schema = Schema::new(vec![
            TensorSpec::new("a", Dtype::F32, [2, 3]),
            TensorSpec::new("b", Dtype::F16, [2, 3]),
            TensorSpec::new("c", Dtype::F64, [2]),
            TensorSpec::new("n", Dtype::I64, []),
        ])
        .unwrap();
        // Canonical order: c, n, a, b.
        let mut flat = FlatGradient::zeros(&schema);
        // Rows are the inputs; columns a's two outputs, then b's.
        let gradient: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let names = ["a".to_owned(), "b".to_owned()];
        for _ in 0..2 {
            flat.add_transposed(&names, &gradient, 3).unwrap();
        }
        flat.add("c", &[-1.0, -2.0]).unwrap();
        assert!(flat.add("c", &[1.0]).unwrap_err().chain().contains("1 elements for tensor \"c\" of 2"));
        assert!(flat.add("d", &[1.0]).unwrap_err().chain().contains("\"d\" is missing"));
        let (a, b) = ([0.0, 8.0, 16.0, 2.0, 10.0, 18.0], [4.0, 12.0, 20.0, 6.0, 14.0, 22.0]);
        let want: Vec<f32> = [-1.0, -2.0, 0.0].into_iter().chain(a).chain(b).collect();
        assert_eq!(flat.take_values(), want);
    }
}
