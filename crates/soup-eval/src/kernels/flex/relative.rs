//! Attention of some rows to others, pair by pair: within texts of different lengths, and by relative position.

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::Tensor;

use super::attention::{Attention, Sizes};
use super::{contiguous, contiguous_owned, values, vectorised};
use crate::kernels::relative::{Buckets, Pairs, Scores};
use crate::kernels::tensor;

/// [`Kernels::attend_texts`](crate::kernels::Kernels::attend_texts) and [`Kernels::attend_pairs`](crate::kernels::Kernels::attend_pairs);
/// how much of every token each query takes goes to `shares`, where that is wanted: `[heads, asking, asked]` of one pair after the
/// other, [`Pairs::shares_len`] in all.
pub(in crate::kernels) fn attend_pairs(
    query: Tensor<Flex, 2>,
    key_value: Tensor<Flex, 2>,
    (pairs, heads): (&Pairs, usize),
    scores: &Scores<'_, Flex>,
    mut shares: Option<&mut [f32]>,
) -> Tensor<Flex, 2> {
    let [rows, width] = query.dims();
    let (query, key_value) = (contiguous_owned(query), contiguous_owned(key_value));
    let (query, key_value) = (values(&query), values(&key_value));
    let table = match scores {
        Scores::And(Some(relative)) => Some((contiguous(&relative.table), relative.buckets)),
        Scores::And(None) | Scores::Scaled => None,
    };
    let mut out = vec![0.0; rows * width];
    for (asking, asked) in pairs.iter() {
        let sizes = Sizes { batch: 1, heads, asked: asking.len(), tokens: asked.len(), width: width / heads };
        let bias = table.as_ref().map(|(table, buckets)| by_place(values(table), *buckets, sizes));
        let of_pair = match shares.take() {
            None => None,
            Some(all) => {
                let (of_pair, others) = all.split_at_mut(heads * asking.len() * asked.len());
                shares = Some(others);
                Some(of_pair)
            }
        };
        vectorised(Attention {
            sizes,
            query: &query[asking.start * width..asking.end * width],
            key_value: &key_value[asked.start * 2 * width..asked.end * 2 * width],
            out: &mut out[asking.start * width..asking.end * width],
            scale: if matches!(scores, Scores::Scaled) { sizes.scale() } else { 1.0 },
            bias: bias.as_deref(),
            shares: of_pair,
        });
    }
    tensor(out, [rows, width], &FlexDevice)
}

/// From a table `[buckets, heads]`, what is added by place: `[heads, asked + tokens - 1]`.
fn by_place(table: &[f32], buckets: Buckets, Sizes { heads, asked, tokens, .. }: Sizes) -> Vec<f32> {
    let places: Vec<Option<usize>> = buckets.places(asked, tokens).collect();
    let of_head = |head: usize| {
        let of_place = move |bucket: &Option<usize>| match bucket {
            Some(bucket) => table[bucket * heads + head],
            None => f32::NEG_INFINITY,
        };
        places.iter().map(of_place)
    };
    (0..heads).flat_map(of_head).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::kernels::relative::Relative;
    use crate::kernels::texts::Spans;
    use crate::kernels::{Kernels, relative};

    /// To rounding that of plain operations, and to the bit that of each pair alone.
    #[test]
    fn a_pair_comes_out_as_if_it_were_alone() {
        let (heads, width) = (3, 24);
        let texts = Spans::new([5, 1, 17, 33]);
        for (pairs, causal) in [
            (Pairs::new(Spans::new([2, 3, 1, 7]), texts.clone()), None),
            (Pairs::within(texts.clone()), Some(false)),
            (Pairs::within(texts.clone()), Some(true)),
        ] {
            let rows = pairs.iter().last().map_or(0, |(asking, _)| asking.end);
            let query = noise([rows, width], 1.0, 1);
            let key_value = noise([texts.rows(), 2 * width], 1.0, 2);
            let buckets = |causal| Buckets { count: 9, farthest: 20, causal };
            let relative =
                causal.map(|causal| Relative { table: noise([9, heads], 1.0, 3), buckets: buckets(causal) });
            let relative = relative.as_ref();
            let all = Flex::attend_pairs(query.clone(), key_value.clone(), (&pairs, heads), relative);
            let plain = relative::attend_pairs(query.clone(), key_value.clone(), (&pairs, heads), relative);
            let host = |x: Tensor<Flex, 2>| x.into_data().to_vec::<f32>().unwrap();
            for (got, want) in host(all.clone()).iter().zip(host(plain)) {
                assert!((got - want).abs() < 2e-6, "{got} for {want}");
            }
            for (asking, asked) in pairs.iter() {
                let alone = Pairs::new(Spans::new([asking.len()]), Spans::new([asked.len()]));
                let query = query.clone().slice([asking.clone(), 0..width]);
                let key_value = key_value.clone().slice([asked, 0..2 * width]);
                let alone = Flex::attend_pairs(query, key_value, (&alone, heads), relative);
                assert_eq!(host(alone), host(all.clone().slice([asking, 0..width])));
            }
        }
    }

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
