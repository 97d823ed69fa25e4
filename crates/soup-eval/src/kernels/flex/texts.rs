//! Attention within texts of different lengths.

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::Tensor;

use super::attention::{Attention, Sizes};
use super::{contiguous_owned, values, vectorised};
use crate::kernels::tensor;
use crate::kernels::texts::Spans;

/// [`Kernels::attend_texts`](crate::kernels::Kernels::attend_texts); how much of every token each query takes goes to `shares`, where
/// that is wanted: `[heads, asked, tokens]` of one text after the other, [`shares_len`] in all.
pub(in crate::kernels) fn attend_texts(
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    texts: &Spans,
    heads: usize,
    mut shares: Option<&mut [f32]>,
) -> Tensor<Flex, 2> {
    let [rows, hidden] = query.dims();
    let (query, key_value) = (contiguous_owned(query), contiguous_owned(key_value));
    let (query, key_value) = (values(&query), values(&key_value));
    let mut out = vec![0.0; rows * hidden];
    for (asked, tokens) in texts.asked(rows) {
        let sizes =
            Sizes { batch: 1, heads, asked: asked.len(), tokens: tokens.len(), width: hidden / heads };
        let of_text = match shares.take() {
            None => None,
            Some(all) => {
                let (of_text, others) = all.split_at_mut(heads * asked.len() * tokens.len());
                shares = Some(others);
                Some(of_text)
            }
        };
        vectorised(Attention {
            sizes,
            query: &query[asked.start * hidden..asked.end * hidden],
            key_value: &key_value[tokens.start * 2 * hidden..tokens.end * 2 * hidden],
            out: &mut out[asked.start * hidden..asked.end * hidden],
            scale: sizes.scale(),
            bias: None,
            shares: of_text,
        });
    }
    tensor(out, [rows, hidden], &FlexDevice)
}

/// How many shares there are of queries that have so many rows.
pub(in crate::kernels) fn shares_len(texts: &Spans, rows: usize, heads: usize) -> usize {
    texts.asked(rows).map(|(asked, tokens)| heads * asked.len() * tokens.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::kernels::Kernels;

    /// The bits of each text's rows are those of the text alone, whatever is beside it.
    #[test]
    fn a_text_comes_out_as_if_it_were_alone() {
        let (lengths, heads, hidden) = ([5usize, 1, 17, 33, 2], 3, 24);
        let texts = Spans::new(lengths);
        for rows in [texts.rows(), texts.count()] {
            let query = noise([rows, hidden], 1.0, 1);
            let key_value = noise([texts.rows(), 2 * hidden], 1.0, 2);
            let all = Flex::attend_texts(query.clone(), key_value.clone(), &texts, heads);
            for (asked, tokens) in texts.asked(rows) {
                let query = query.clone().slice([asked.clone(), 0..hidden]);
                let key_value = key_value.clone().slice([tokens, 0..2 * hidden]);
                let alone = Flex::attend(query, key_value, [1, heads]).into_data();
                let here = all.clone().slice([asked, 0..hidden]).into_data();
                assert_eq!(here.to_vec::<f32>().unwrap(), alone.to_vec::<f32>().unwrap());
            }
        }
    }
}
