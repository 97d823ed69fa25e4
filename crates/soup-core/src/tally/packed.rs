//! Outcomes as bytes: how records and the state keep what happened to every sample.
//!
//! One byte for the form, then the number of samples, then the label and the prediction of each, all as LEB128 numbers; then the losses,
//! eight bytes each with the lowest first. Labels and predictions are small numbers, and losses have no two bits in common: a compressor
//! would find nothing that this does not. Equal outcomes have equal bytes, so that their digest names them.

use std::fmt;

use sha2::{Digest, Sha256};

use super::Outcome;
use crate::error::{Error, Result};

/// The form that is described here.
const FORM: u8 = 1;
/// Bytes of the longest number.
const NUMBER_BYTES_MAX: usize = 10;

/// Most samples whose outcomes are kept, in one piece of a dataset and in the whole.
pub const PACKED_MAX: u64 = 1 << 23;

/// The bytes of outcomes.
pub fn pack(outcomes: &[Outcome]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + NUMBER_BYTES_MAX + 10 * outcomes.len());
    bytes.push(FORM);
    push_number(&mut bytes, outcomes.len() as u64);
    for outcome in outcomes {
        push_number(&mut bytes, outcome.label.into());
        push_number(&mut bytes, outcome.prediction.into());
    }
    outcomes.iter().for_each(|outcome| bytes.extend(outcome.loss.to_bits().to_le_bytes()));
    bytes
}

/// The outcomes of which these are the bytes, at most `samples_max`.
///
/// # Errors
/// [`ErrorKind::Data`](crate::ErrorKind::Data) for bytes of anything else.
pub fn unpack(bytes: &[u8], samples_max: u64) -> Result<Vec<Outcome>> {
    let broken = || Error::data("kept outcomes of samples cannot be read");
    let mut rest = bytes.strip_prefix(&[FORM]).ok_or_else(broken)?;
    let count = take_number(&mut rest).filter(|count| *count <= samples_max).ok_or_else(broken)?;
    // Every sample takes ten bytes at least: what is allocated follows from what is there.
    let count = usize::try_from(count).ok().filter(|count| count.saturating_mul(10) <= rest.len());
    let count = count.ok_or_else(broken)?;
    let class = |rest: &mut &[u8]| take_number(rest).and_then(|class| u32::try_from(class).ok());
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        let (label, prediction) = class(&mut rest).zip(class(&mut rest)).ok_or_else(broken)?;
        outcomes.push(Outcome { label, prediction, loss: 0.0 });
    }
    let (losses, beyond) = rest.as_chunks::<8>();
    if losses.len() != count || !beyond.is_empty() {
        return Err(broken());
    }
    for (outcome, loss) in outcomes.iter_mut().zip(losses) {
        outcome.loss = f64::from_bits(u64::from_le_bytes(*loss));
    }
    Ok(outcomes)
}

/// Outcomes as bytes, and the name of these.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// See [`pack`].
    pub bytes: Vec<u8>,
}

impl Packed {
    /// Those of `outcomes`.
    pub fn of(outcomes: &[Outcome]) -> Packed {
        let bytes = pack(outcomes);
        Packed { sha256: Sha256::digest(&bytes).into(), bytes }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("sha256", &hex::encode(self.sha256)).finish_non_exhaustive()
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A number in its shortest form.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for nth in 0..NUMBER_BYTES_MAX {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        let shifted = bits << (7 * nth);
        if shifted >> (7 * nth) != bits {
            return None;
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            // A last byte of nothing would be a second way to write the same.
            return (byte != 0 || nth == 0).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(label: u32, prediction: u32, loss: f64) -> Outcome {
        Outcome { label, prediction, loss }
    }

    #[test]
    fn the_form_never_changes() {
        let packed = pack(&[outcome(1, 300, 0.5), outcome(0, 0, -0.0)]);
        let expected = [&[1, 2, 1, 0xac, 2, 0, 0][..], &0.5f64.to_le_bytes(), &(-0.0f64).to_le_bytes()];
        assert_eq!(packed, expected.concat());
        assert_eq!(pack(&[]), [1, 0]);
    }

    #[test]
    fn what_is_no_packing_is_refused() {
        let good = pack(&[outcome(1, 300, 0.5), outcome(0, 0, f64::NAN)]);
        assert!(unpack(&good, 2).is_ok());
        assert!(unpack(&good, 1).is_err(), "more than there can be");
        for end in 0..good.len() {
            assert!(unpack(&good[..end], 2).is_err());
        }
        let long = [&good[..], &[0]].concat();
        let form = [&[2], &good[1..]].concat();
        let second_way = [&[1, 0x81, 0x00], &[0; 10][..]].concat();
        let many = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let too_large = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        for bad in [&long[..], &form, &second_way, &many, &too_large] {
            assert!(unpack(bad, u64::MAX).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(of in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 0..50)) {
            let outcomes: Vec<_> =
                of.iter().map(|&(l, p, bits)| outcome(l, p, f64::from_bits(bits))).collect();
            let back = unpack(&pack(&outcomes), 50).unwrap();
            prop_assert_eq!(pack(&back), pack(&outcomes));
        }

        #[test]
        fn bytes_of_anything_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(outcomes) = unpack(&bytes, 1 << 20) {
                prop_assert_eq!(pack(&outcomes), bytes);
            }
        }
    }
}
