//! The order in which the host adds up inner products: blocks in their span, spans in their segment, as on the CPU.

use std::collections::BTreeMap;

use crate::plan::Block;

/// The sums of every segment, from those of its blocks.
#[derive(Default)]
pub(crate) struct Sums {
    segments: BTreeMap<usize, Segment>,
}

struct Segment {
    /// Of the spans that are over.
    closed: Option<Vec<f64>>,
    /// Of the span that is not.
    open: Vec<f64>,
    span: usize,
}

impl Sums {
    /// The sums of the span of `block` so far, which are its next block's to be added to: `width` of them.
    pub(crate) fn open(&mut self, block: &Block, width: usize) -> &mut Vec<f64> {
        let begun = || Segment { closed: None, open: vec![0.0; width], span: block.span };
        let segment = self.segments.entry(block.segment).or_insert_with(begun);
        if segment.span != block.span {
            let over = std::mem::replace(&mut segment.open, vec![0.0; width]);
            segment.span = block.span;
            segment.close(over);
        }
        &mut segment.open
    }

    /// Adds the sums of the next block of its segment.
    pub(crate) fn add(&mut self, block: &Block, sums: &[f64]) {
        let open = self.open(block, sums.len());
        open.iter_mut().zip(sums).for_each(|(open, sum)| *open += sum);
    }

    /// The sums of all segments, by their positions.
    pub(crate) fn finish(self) -> impl Iterator<Item = (usize, Vec<f64>)> {
        self.segments.into_iter().map(|(index, mut segment)| {
            let over = std::mem::take(&mut segment.open);
            segment.close(over);
            (index, segment.closed.unwrap_or_default())
        })
    }
}

impl Segment {
    fn close(&mut self, span: Vec<f64>) {
        match &mut self.closed {
            None => self.closed = Some(span),
            Some(closed) => closed.iter_mut().zip(span).for_each(|(closed, sum)| *closed += sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(segment: usize, span: usize) -> Block {
        Block { segment, span, start: 0, count: 1 }
    }

    #[test]
    fn blocks_are_added_in_their_span_and_spans_in_their_segment() {
        // Numbers for which every other order gives another sum.
        let (big, small) = (2f64.powi(53), 1.0);
        let mut sums = Sums::default();
        for (segment, span, value) in
            [(4, 0, big), (4, 0, small), (1, 7, small), (4, 1, small), (4, 1, small), (4, 2, -big)]
        {
            sums.add(&block(segment, span), &[value, -value]);
        }
        let found: Vec<_> = sums.finish().collect();
        // (big + 1) is big, (1 + 1) is 2 and can be added to big.
        assert_eq!(found, [(1, vec![1.0, -1.0]), (4, vec![2.0, -2.0])]);
    }

    #[test]
    fn a_span_goes_on_from_what_it_has() {
        let mut sums = Sums::default();
        sums.add(&block(0, 0), &[3.0]);
        assert_eq!(sums.open(&block(0, 0), 1), &[3.0]);
        *sums.open(&block(0, 0), 1) = vec![5.0];
        assert_eq!(sums.open(&block(0, 1), 1), &[0.0], "the next one begins");
        assert_eq!(sums.finish().collect::<Vec<_>>(), [(0, vec![5.0])]);
    }

    #[test]
    fn zero_is_never_negative() {
        let mut sums = Sums::default();
        sums.add(&block(0, 0), &[-0.0]);
        let (_, found) = sums.finish().next().unwrap();
        assert_eq!(found[0].to_bits(), 0, "as on the CPU");
    }
}
