//! Running statistics that a judge recomputed of a soup: they take the place of those that were blended, in what it judges and in
//! what is written.

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use soup_core::batch_norm::statistics;
use soup_core::schema::Schema;
use soup_core::{Error, Result};

/// See the module.
#[derive(Debug, PartialEq)]
pub(crate) struct Statistics {
    /// One tensor after the other, in canonical order.
    values: Bytes,
    sha256: [u8; 32],
}

impl Statistics {
    /// What a judge says that they are.
    ///
    /// # Errors
    /// [`Internal`](soup_core::ErrorKind::Internal) where there are too many or too few, or one is not finite.
    pub(crate) fn new(schema: &Schema, values: Vec<u8>) -> Result<Statistics> {
        let mut rest = &values[..];
        for at in statistics(schema) {
            let tensor = &schema.tensors()[at];
            let bytes = tensor.bytes().and_then(|bytes| usize::try_from(bytes).ok());
            let split = bytes.and_then(|bytes| rest.split_at_checked(bytes));
            let (own, others) = split.ok_or_else(|| Error::internal("it recomputed too few statistics"))?;
            if soup_tensor::non_finite(tensor.dtype, own) > 0 {
                let text = format!("it recomputed {:?} to something that is not finite", tensor.name);
                return Err(Error::internal(text));
            }
            rest = others;
        }
        match rest.is_empty() {
            true => Ok(Statistics { sha256: Sha256::digest(&values).into(), values: values.into() }),
            false => Err(Error::internal("it recomputed too many statistics")),
        }
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// The part of a soup's flattened parameters that begins at byte `start`, with these statistics in it.
    pub(crate) fn put_into(&self, schema: &Schema, start: u64, part: Bytes) -> Bytes {
        let end = start + part.len() as u64;
        let mut at = 0;
        let mut changed: Option<BytesMut> = None;
        for tensor in statistics(schema) {
            let of = schema.range(tensor);
            let (from, to) = (of.start.max(start), of.end.min(end));
            if from < to {
                let whole = changed.get_or_insert_with(|| BytesMut::from(&part[..]));
                let own = at + (from - of.start) as usize..at + (to - of.start) as usize;
                whole[(from - start) as usize..(to - start) as usize].copy_from_slice(&self.values[own]);
            }
            at += (of.end - of.start) as usize;
        }
        changed.map_or(part, BytesMut::freeze)
    }
}

#[cfg(test)]
mod tests {
    use soup_core::schema::{Dtype, TensorSpec};

    use super::*;

    fn schema() -> Schema {
        let tensor = |name: &str, dtype, n: u64| TensorSpec::new(name, dtype, [n]);
        Schema::new(vec![
            tensor("a", Dtype::F32, 3),
            tensor("bn.running_mean", Dtype::F32, 2),
            tensor("bn.running_var", Dtype::F32, 2),
            tensor("c", Dtype::F32, 1),
            tensor("h.running_mean", Dtype::F16, 2),
            tensor("bn.num_batches_tracked", Dtype::I64, 1),
        ])
        .unwrap()
    }

    #[test]
    fn they_replace_what_was_blended_wherever_parts_are_cut() {
        let schema = schema();
        let blended: Vec<u8> = (0..schema.bytes()).map(|b| b as u8).collect();
        // 0x20 and what follows: finite in every format.
        let values: Vec<u8> = (0x20..0x20 + 20).collect();
        let statistics = Statistics::new(&schema, values.clone()).unwrap();
        let mut whole = blended.clone();
        for (name, own) in [("bn.running_mean", 0..8), ("bn.running_var", 8..16), ("h.running_mean", 16..20)]
        {
            let range = schema.range(schema.index_of(name).unwrap());
            whole[range.start as usize..range.end as usize].copy_from_slice(&values[own]);
        }
        assert_ne!(whole, blended);
        for cut in 0..=blended.len() {
            let parts = [&blended[..cut], &blended[cut..]].map(Bytes::copy_from_slice);
            let [first, second] = parts;
            let first = statistics.put_into(&schema, 0, first);
            let second = statistics.put_into(&schema, cut as u64, second);
            assert_eq!([&first[..], &second[..]].concat(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_be_statistics_is_refused() {
        let refused = |values: Vec<u8>, why: &str| {
            let error = Statistics::new(&schema(), values).unwrap_err().chain();
            assert!(error.contains(why), "{error}");
        };
        refused(vec![0; 19], "too few");
        refused(vec![0; 21], "too many");
        let nan = [vec![0; 12], f32::NAN.to_le_bytes().to_vec(), vec![0; 4]].concat();
        refused(nan, "\"bn.running_var\" to something that is not finite");
        let infinite = [vec![0; 16], vec![0x00, 0x7c], vec![0; 2]].concat();
        refused(infinite, "h.running_mean");
    }
}
