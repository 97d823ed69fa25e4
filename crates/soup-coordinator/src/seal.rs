//! Seals: what tells a slice that a coordinator of this run gave to this worker from one that somebody made up.
//!
//! A worker hands in what it finished for a coordinator that was gone by then. The successor does not know what that one assigned: to
//! record every slice that is given out would cost a write each, for what is a cache. So every slice is given out with a *seal*, an
//! HMAC-SHA256 of run, worker, soup and slice under a key that is kept in the run's state and that no worker sees; and it is handed in
//! with it. Whoever was asked for nothing has no seal, and one that was asked for a slice has none for another, nor for another worker.
//! What is said of a slice is believed of whoever was asked, as an answer in time is: seals say no more than that.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use soup_core::journal::SoupRecord;
use soup_core::ledger::{Evaluation, Slice};
use soup_core::{Error, Result};

use crate::exchange::HandedIn;

/// Makes the seals of one run, and knows them again.
#[derive(Clone)]
pub(crate) struct Seals(Hmac<Sha256>);

impl Seals {
    /// Those of `run`, by its key.
    ///
    /// # Errors
    /// None that happens: a key of any length will do.
    pub(crate) fn new(run: &str, key: &[u8]) -> Result<Seals> {
        let mac = Hmac::<Sha256>::new_from_slice(key);
        let mut seals = Seals(mac.map_err(|e| Error::internal("seals need a key").with_source(e))?);
        seals.take(run.as_bytes());
        Ok(seals)
    }

    /// The seal of a slice that `worker` is given.
    pub(crate) fn seal(&self, worker: &str, evaluation: &Evaluation, slice: &Slice) -> Vec<u8> {
        self.over(worker, evaluation, slice).finalize().into_bytes().to_vec()
    }

    /// Whether what `worker` hands in was given to it; compared in constant time.
    pub(crate) fn is_sealed(&self, worker: &str, handed: &HandedIn) -> bool {
        let HandedIn { evaluation, slice, seal, judged: _ } = handed;
        self.over(worker, evaluation, slice).verify_slice(seal).is_ok()
    }

    /// From what it follows which answers of the run are audited: workers must not know.
    pub(crate) fn audits(&self) -> [u8; 32] {
        let mut seals = self.clone();
        seals.take(b"audits");
        seals.0.finalize().into_bytes().into()
    }

    fn over(&self, worker: &str, evaluation: &Evaluation, slice: &Slice) -> Hmac<Sha256> {
        let mut seals = self.clone();
        seals.take(worker.as_bytes());
        seals.take(&evaluation.dataset.0.to_le_bytes());
        for number in [slice.start, slice.end, slice.sequence.0] {
            seals.take(&number.to_le_bytes());
        }
        let soup = SoupRecord::from(&evaluation.soup);
        // Numbers by position, and weights as text: as in the journal.
        for member in &soup.members {
            seals.take(&member.to_le_bytes());
        }
        for row in soup.weights.iter().flatten() {
            seals.take(b"row");
            row.iter().for_each(|weight| seals.take(weight.as_bytes()));
        }
        seals.0
    }

    /// One thing after the other, each with its length, so that no two come to the same bytes.
    fn take(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use soup_core::ledger::Dataset;
    use soup_core::sequence::SequenceId;
    use soup_core::soup::{Ingredient, Soup};
    use soup_core::tally::Judged;

    use super::*;

    #[test]
    fn a_seal_is_of_one_slice_and_one_worker() {
        let soup = |members: &[u32]| Soup::mean(members.iter().map(|i| Ingredient(*i))).unwrap();
        let of = |dataset, members: &[u32]| Evaluation { dataset: Dataset(dataset), soup: soup(members) };
        let slice = |start, end| Slice { index: u32::MAX, start, end, sequence: SequenceId::NATURAL };
        let handed = |evaluation: Evaluation, start, end, seal: &[u8]| HandedIn {
            evaluation,
            slice: slice(start, end),
            judged: Judged::Outcomes(vec![]),
            seal: seal.to_vec(),
        };
        let seals = Seals::new("r", b"key").unwrap();
        let seal = seals.seal("w1", &of(0, &[1, 2]), &slice(0, 32));
        let right = handed(of(0, &[1, 2]), 0, 32, &seal);
        assert!(seals.is_sealed("w1", &right));
        assert!(!seals.is_sealed("w2", &right));
        for other in [
            handed(of(0, &[1, 2]), 0, 64, &seal),
            handed(of(0, &[1, 2]), 16, 32, &seal),
            handed(of(1, &[1, 2]), 0, 32, &seal),
            handed(of(0, &[1, 2, 3]), 0, 32, &seal),
            handed(of(0, &[2]), 0, 32, &seal),
        ] {
            assert!(!seals.is_sealed("w1", &other), "{other:?}");
        }
        for wrong in [&[][..], &seal[1..], &[&seal[..], &[0]].concat(), &[0; 32]] {
            assert!(!seals.is_sealed("w1", &handed(of(0, &[1, 2]), 0, 32, wrong)));
        }
        let mut ordered = right.clone();
        ordered.slice.sequence = SequenceId(1);
        assert!(!seals.is_sealed("w1", &ordered));
        let others = [Seals::new("r", b"other").unwrap(), Seals::new("s", b"key").unwrap()];
        for other in others {
            assert!(!other.is_sealed("w1", &right));
            assert_ne!(other.audits(), seals.audits());
        }
    }
}
