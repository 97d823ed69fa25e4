//! What is done with texts: attention within them and by pairs, and choices among many.

use super::*;
use crate::kernels::relative::{Buckets, Pairs, Relative};
use crate::kernels::texts::Spans;

/// Lengths of texts, among which one is longer than a device has units for a query.
const LENGTHS: [&[usize]; 4] = [&[1], &[3, 1, 2], &[17, 70, 1, 33], &[5, 200]];
const HEADS: usize = 2;

step!(
    Within { texts: Spans, rows: usize, width: usize },
    |l, self| {
        let query = shaped(&l[0], [self.rows, self.width]);
        B::attend_texts(query, shaped(&l[1], [self.texts.rows(), 2 * self.width]), &self.texts, HEADS)
    },
    {
        // Each text alone, in plain operations.
        let query = shaped(&l[0], [self.rows, self.width]);
        let both = shaped(&l[1], [self.texts.rows(), 2 * self.width]);
        let parts = self.texts.asked(self.rows).map(|(asked, tokens)| {
            let (rows, count, width) = (asked.len(), tokens.len(), self.width / HEADS);
            let query = query.clone().slice_dim(0, asked).reshape([1, rows, HEADS, width]).swap_dims(1, 2);
            let both = both.clone().slice_dim(0, tokens).reshape([1, count, 2, HEADS, width]);
            let both = both.permute([2, 0, 3, 1, 4]);
            let part = |nth: usize| both.clone().slice(nth..nth + 1).reshape([1, HEADS, count, width]);
            let shares = plain::softmax(query.matmul(part(0).swap_dims(2, 3)), 1.0 / (width as f32).sqrt());
            shares.matmul(part(1)).swap_dims(1, 2).reshape([rows, self.width])
        });
        Tensor::cat(parts.collect(), 0)
    }
);

/// Attention by pairs, with a table where there are buckets; asked by as many rows as they have, or by others.
struct ByPairs {
    pairs: Pairs,
    rows: [usize; 2],
    width: usize,
    buckets: Option<Buckets>,
}

impl ByPairs {
    fn parts<B: Kernels>(&self, l: &[Tensor<B, 1>]) -> (Tensor<B, 2>, Tensor<B, 2>, Option<Relative<B>>) {
        let [asking, asked] = self.rows;
        let relative =
            self.buckets.map(|buckets| Relative { table: shaped(&l[2], [buckets.count, HEADS]), buckets });
        (shaped(&l[0], [asking, self.width]), shaped(&l[1], [asked, 2 * self.width]), relative)
    }
}

impl Step for ByPairs {
    fn run<B: Kernels>(&self, leaves: &[Tensor<B, 1>]) -> Tensor<B, 2> {
        let (query, both, relative) = self.parts(leaves);
        B::attend_pairs(query, both, (&self.pairs, HEADS), relative.as_ref())
    }

    fn plain(&self, leaves: &[Tensor<Autodiff<Flex>, 1>]) -> Tensor<Autodiff<Flex>, 2> {
        let (query, both, relative) = self.parts(leaves);
        crate::kernels::relative::attend_pairs(query, both, (&self.pairs, HEADS), relative.as_ref())
    }
}

step!(
    First { texts: Spans, width: usize },
    |l, self| B::first_of_each(shaped(&l[0], [self.texts.rows(), self.width]), &self.texts),
    {
        let x = shaped(&l[0], [self.texts.rows(), self.width]);
        let rows = self.texts.iter().map(|rows| x.clone().slice_dim(0, rows.start..rows.start + 1));
        Tensor::cat(rows.collect(), 0)
    }
);
step!(
    RootMeanSquare { shape: [usize; 2] },
    |l, self| B::rms_rows(&shaped(&l[0], self.shape), &l[1], 0.1),
    plain::rms_norm(&shaped(&l[0], self.shape), &l[1], 0.1)
);
step!(
    Likelihood { shape: [usize; 2] },
    |l, self| B::log_likelihoods(shaped(&l[0], self.shape), &choices(self.shape).into()),
    plain::log_likelihoods(shaped(&l[0], self.shape), &choices(self.shape))
);

fn choices([rows, choices]: [usize; 2]) -> Vec<u32> {
    (0..rows).map(|row| (row * 5 % choices) as u32).collect()
}

/// Whether choices are the most probable ones of rows with many equal values.
struct MostProbable([usize; 2]);

impl MostProbable {
    fn logits(&self) -> Values {
        host(self.0.iter().product(), 1).into_iter().map(|value| (value * 2.0).round()).collect()
    }
}

impl With for MostProbable {
    type Out = Values;

    fn with<B: Differentiable>(self, site: Site<B>) -> Values {
        let run = || {
            let logits = tensor(self.logits(), self.0, &site.device);
            values(B::InnerBackend::most_probable(logits, &choices(self.0).into()), "values")
        };
        B::InnerBackend::on(&site.device, site.precision, run).unwrap()
    }
}

#[test]
fn most_probable_choices_are_the_first_of_the_largest() {
    for sizes @ [_, width] in [[1, 1], [400, 3], [200, 7], [50, 64], [9, 1030]] {
        let logits = MostProbable(sizes).logits();
        let want = logits.chunks_exact(width).zip(choices(sizes)).map(|(row, at)| {
            let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            f32::from(u8::from(row.iter().position(|&v| v == largest) == Some(at as usize)))
        });
        let want: Values = want.collect();
        assert!(width != 3 || (want.contains(&1.0) && want.contains(&0.0)));
        for &device in DEVICES {
            let got = open(device, Precision::F32, MostProbable(sizes)).unwrap();
            assert_eq!(got, want, "{device}: {sizes:?}");
        }
    }
}

#[test]
fn attention_within_texts() {
    for lengths in LENGTHS {
        let texts = Spans::new(lengths.iter().copied());
        for width in [2, 10, 32] {
            for rows in [texts.rows(), texts.count()] {
                let sizes = [rows * width, texts.rows() * 2 * width];
                let step = Within { texts: texts.clone(), rows, width };
                check(&format!("{rows} rows of texts of {lengths:?}, {width} wide"), &step, &sizes);
            }
        }
    }
}

#[test]
fn attention_by_pairs() {
    for lengths in LENGTHS {
        let texts = Spans::new(lengths.iter().copied());
        let others = Spans::new((2..).take(lengths.len()));
        for (pairs, causal) in [
            (Pairs::new(others, texts.clone()), None),
            (Pairs::within(texts.clone()), Some(false)),
            (Pairs::within(texts.clone()), Some(true)),
        ] {
            let width = 12;
            let rows = [pairs.iter().last().map_or(0, |(asking, _)| asking.end), texts.rows()];
            let buckets = causal.map(|causal| Buckets { count: 9, farthest: 20, causal });
            let mut sizes = vec![rows[0] * width, rows[1] * 2 * width];
            sizes.extend(buckets.map(|buckets| buckets.count * HEADS));
            let name = format!("pairs with texts of {lengths:?}, {causal:?}");
            check(&name, &ByPairs { pairs, rows, width, buckets }, &sizes);
        }
    }
}

#[test]
fn rows_of_texts() {
    for lengths in LENGTHS {
        let texts = Spans::new(lengths.iter().copied());
        let all = texts.rows() * 7;
        check(&format!("first of texts of {lengths:?}"), &First { texts, width: 7 }, &[all]);
    }
    for shape @ [rows, width] in ROWS {
        let name = format!("{rows} x {width}");
        check(&format!("root mean square, {name}"), &RootMeanSquare { shape }, &[rows * width, width]);
        check(&format!("likelihood, {name}"), &Likelihood { shape }, &[rows * width]);
    }
}

/// What texts of some lengths come out as among so many rows, and each of them alone; the rows beyond are in nobody's attention.
struct Alone(&'static [usize], usize);

impl With for Alone {
    type Out = Vec<(Values, Values)>;

    fn with<B: Differentiable>(self, site: Site<B>) -> Self::Out {
        let Alone(lengths, rows) = self;
        let (texts, width) = (Spans::new(lengths.iter().copied()).among(rows), 12);
        let done = B::InnerBackend::on(&site.device, site.precision, || {
            let matrix = |seed, width| {
                tensor::<B::InnerBackend, 2>(host(rows * width, seed), [rows, width], &site.device)
            };
            let (query, both) = (matrix(1, width), matrix(2, 2 * width));
            let all = B::InnerBackend::attend_texts(query.clone(), both.clone(), &texts, HEADS);
            assert_eq!(all.dims(), [rows, width]);
            let alone = texts.iter().map(|own| {
                let (query, both) =
                    (query.clone().slice_dim(0, own.clone()), both.clone().slice_dim(0, own.clone()));
                let alone = B::InnerBackend::attend_texts(query, both, &Spans::new([own.len()]), HEADS);
                Ok((values(alone, "v")?, values(all.clone().slice_dim(0, own), "v")?))
            });
            alone.collect()
        });
        done.unwrap()
    }
}

#[test]
fn a_text_comes_out_as_the_same_bits_whatever_is_beside_it() {
    for &device in DEVICES {
        for lengths in LENGTHS {
            for beyond in [0, 9] {
                let rows = lengths.iter().sum::<usize>() + beyond;
                let pairs = open(device, Precision::F32, Alone(lengths, rows)).unwrap();
                for (nth, (alone, among)) in pairs.into_iter().enumerate() {
                    assert_eq!(alone, among, "{device}: text {nth} of {lengths:?}");
                }
            }
        }
    }
}
