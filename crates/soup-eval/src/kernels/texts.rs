//! Texts of different lengths in one batch: their tokens one after the other, none of them padding.
//!
//! Every step but attention is about one token at a time and knows nothing of texts. Attention is within each text, one after the
//! other, so that what a text comes out as does not depend on those beside it, and nothing is computed that nobody looks at.

use std::ops::Range;
use std::sync::Arc;

/// Where texts are among rows that are their tokens. None is without any.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spans {
    /// Row after the last one of each.
    ends: Arc<[usize]>,
    /// Rows after all of them, which nobody looks at.
    beyond: usize,
}

impl Spans {
    /// Of texts with so many tokens each.
    pub(crate) fn new(lengths: impl IntoIterator<Item = usize>) -> Spans {
        let ends = lengths.into_iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        Spans { ends: ends.collect(), beyond: 0 }
    }

    /// The same among so many rows, at least as many as the texts have: what is evaluated where the number of rows has to be known before.
    pub(crate) fn among(self, rows: usize) -> Spans {
        let beyond = rows.saturating_sub(self.ends.last().copied().unwrap_or(0));
        Spans { beyond, ..self }
    }

    /// How many texts there are.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.ends.last().copied().unwrap_or(0) + self.beyond
    }

    /// The rows of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        let firsts = std::iter::once(&0).chain(self.ends.iter());
        firsts.zip(self.ends.iter()).map(|(&first, &end)| first..end)
    }

    /// The first row of each.
    #[cfg(feature = "cube")]
    pub(super) fn firsts(&self) -> Vec<u32> {
        // A batch has far fewer than 2^32 rows.
        self.iter().map(|rows| rows.start as u32).collect()
    }

    /// Of each text the rows of what is asked, of so many in all, and the rows of its tokens: those are the same, or it is one row for
    /// each text.
    pub(super) fn asked(&self, rows: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let all = rows == self.rows();
        self.iter()
            .enumerate()
            .map(move |(nth, tokens)| (if all { tokens.clone() } else { nth..nth + 1 }, tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_end_to_end() {
        let spans = Spans::new([3, 1, 2]);
        assert_eq!((spans.count(), spans.rows()), (3, 6));
        assert_eq!(spans.iter().collect::<Vec<_>>(), [0..3, 3..4, 4..6]);
        assert_eq!(spans.asked(6).collect::<Vec<_>>(), [(0..3, 0..3), (3..4, 3..4), (4..6, 4..6)]);
        assert_eq!(spans.asked(3).collect::<Vec<_>>(), [(0..1, 0..3), (1..2, 3..4), (2..3, 4..6)]);
        let among = spans.among(9);
        assert_eq!((among.count(), among.rows()), (3, 9));
        assert_eq!(among.asked(9).collect::<Vec<_>>(), [(0..3, 0..3), (3..4, 3..4), (4..6, 4..6)]);
        assert_eq!((Spans::new([]).count(), Spans::new([]).rows()), (0, 0));
    }
}
