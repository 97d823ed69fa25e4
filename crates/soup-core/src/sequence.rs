//! In which order the samples of a trial are judged: those first on which it may fall short of its bar.
//!
//! A trial that is rejected is rejected because it loses more samples than it gains. Gains are possible on samples that the incumbent has
//! wrong, so these come first: after them what can be gained is known. Then come the others, the ones with the highest loss first, which are
//! the ones most easily lost. As soon as what is lost exceeds what is gained, the verdict is [certain](crate::metric::Metric::falls_short),
//! mostly after a small part of the samples.
//!
//! A *sequence* follows from the outcomes of the incumbent, and has its name from them. It is cut into slices as the samples themselves
//! are, so which slices there are depends on the size of the dataset and of a batch alone; and a verdict is that of the shortest run of
//! slices from the first on that makes it certain, never of those which happened to be judged. So it is the same on any cluster.

use crate::ledger::Slice;
use crate::tally::Outcome;

/// Which sequence: the first bytes of the SHA-256 of the outcomes that it follows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

impl SequenceId {
    /// The order in which a dataset has its samples.
    pub const NATURAL: SequenceId = SequenceId(0);

    /// That of outcomes with this SHA-256.
    pub fn of(sha256: &[u8; 32]) -> SequenceId {
        SequenceId(sha256.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }

    /// Whether samples are in their own order.
    pub fn is_natural(&self) -> bool {
        *self == SequenceId::NATURAL
    }
}

/// An order of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    id: SequenceId,
    /// The samples by their positions in the dataset, each once.
    positions: Vec<u32>,
}

impl Sequence {
    /// The sequence for trials that have to reach the score of a soup with these outcomes. Where the loss itself is what is compared, those
    /// with the highest loss come first, right or wrong. Of equal ones the first comes first.
    pub fn after(outcomes: &[Outcome], id: SequenceId, by_loss: bool) -> Sequence {
        let mut positions: Vec<u32> = (0..outcomes.len() as u32).collect();
        // A loss that is no number is the highest.
        let loss = |o: &Outcome| if o.loss.is_nan() { f64::INFINITY } else { o.loss };
        let key = |&at: &u32| {
            let outcome = &outcomes[at as usize];
            let right = outcome.label == outcome.prediction;
            match by_loss {
                true => (false, loss(outcome)),
                false if right => (true, loss(outcome)),
                false => (false, 0.0),
            }
        };
        positions.sort_by(|a, b| {
            let ((last_a, a), (last_b, b)) = (key(a), key(b));
            last_a.cmp(&last_b).then(b.total_cmp(&a))
        });
        Sequence { id, positions }
    }

    /// Its name.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// The samples of a slice of it, by their positions in the dataset.
    pub fn samples(&self, slice: &Slice) -> &[u32] {
        self.positions.get(slice.start as usize..slice.end as usize).unwrap_or_default()
    }

    /// Puts what is known of the samples, in this order, into their own; `None` where that is not as many.
    pub fn restore<T: Copy>(&self, in_sequence: &[T]) -> Option<Vec<T>> {
        let mut natural = vec![*in_sequence.first()?; self.positions.len()];
        if in_sequence.len() != natural.len() {
            return None;
        }
        self.positions.iter().zip(in_sequence).for_each(|(at, of)| natural[*at as usize] = *of);
        Some(natural)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::slices;

    fn outcomes() -> Vec<Outcome> {
        let of = |right: bool, loss| Outcome { label: 1, prediction: u32::from(right), loss };
        vec![
            of(true, 0.1),
            of(false, 0.2),
            of(true, 0.5),
            of(true, f64::NAN),
            of(false, 3.0),
            of(true, 0.5),
            of(true, 0.0),
        ]
    }

    #[test]
    fn what_the_bar_has_wrong_comes_first_then_what_is_most_easily_lost() {
        let id = SequenceId(7);
        assert_eq!(Sequence::after(&outcomes(), id, false).positions, [1, 4, 3, 2, 5, 0, 6]);
        assert_eq!(Sequence::after(&outcomes(), id, true).positions, [3, 4, 2, 5, 1, 0, 6]);
        assert_eq!(Sequence::after(&[], id, false).positions, [0u32; 0]);
    }

    #[test]
    fn slices_of_a_sequence_hold_every_sample_once_and_find_their_way_back() {
        let sequence = Sequence::after(&outcomes(), SequenceId(7), false);
        let cut = slices(7, 2);
        let in_sequence: Vec<u32> = cut.iter().flat_map(|slice| sequence.samples(slice).to_vec()).collect();
        assert_eq!(in_sequence, sequence.positions);
        assert_eq!(sequence.restore(&in_sequence), Some((0..7).collect()));
        assert_eq!(sequence.restore(&in_sequence[1..]), None);
        assert_eq!(sequence.samples(&Slice { end: 9, ..cut[0] }), [0u32; 0]);
    }

    #[test]
    fn a_sequence_has_its_name_from_outcomes() {
        let mut sha256 = [0; 32];
        assert!(SequenceId::of(&sha256).is_natural());
        (sha256[0], sha256[7], sha256[8]) = (1, 2, 3);
        assert_eq!(SequenceId::of(&sha256), SequenceId(0x0100_0000_0000_0002));
    }
}
