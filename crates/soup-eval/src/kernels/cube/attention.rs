//! Attention of some rows to others, pair by pair, without padding: within texts, to what was read, by relative position.
//!
//! For every row it is known whom it asks, and for every row that is asked by whom ([`Lists`]). Shares are kept for the gradient.

mod programs;

use burn::tensor::DType;
use burn_cubecl::CubeRuntime;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::steps::{Rows, u32s};
use crate::kernels::relative::{Buckets, Pairs};

/// Numbers for each row: the first of those on the other side, how many they are, its own place on its side; and of a row that asks,
/// where its shares begin, those of one head after the other.
const ROW: usize = 4;
/// In place of a bucket: that token is not looked at.
const NOBODY: u32 = u32::MAX;
/// Units that share a query. The same for all lengths: the order of sums must not follow from other texts.
const UNITS: usize = 64;

/// What queries, keys and values become shares by.
pub(super) struct Attention<'a, R: CubeRuntime> {
    pub(super) query: CubeTensor<R>,
    pub(super) key_value: CubeTensor<R>,
    pub(super) pairs: &'a Pairs,
    pub(super) heads: usize,
    /// What products are multiplied by.
    pub(super) scale: f32,
    /// What is added to them: `[buckets, heads]`.
    pub(super) relative: Option<(CubeTensor<R>, Buckets)>,
}

/// The pairs as a device reads them.
struct Lists {
    asking: Vec<u32>,
    asked: Vec<u32>,
    /// How many shares there are.
    shares: usize,
    /// Most rows of a side.
    longest: [usize; 2],
}

impl Lists {
    /// Of so many rows that ask and that are asked; those beyond all pairs ask nobody.
    fn new(pairs: &Pairs, [asking_rows, asked_rows]: [usize; 2], heads: usize) -> Lists {
        let mut lists = Lists {
            asking: vec![0; asking_rows * ROW],
            asked: vec![0; asked_rows * ROW],
            shares: 0,
            longest: [0; 2],
        };
        for (asking, asked) in pairs.iter() {
            for (own, row) in asking.clone().enumerate() {
                let numbers = [asked.start, asked.len(), own, lists.shares];
                lists.asking[row * ROW..][..ROW].copy_from_slice(&numbers.map(|n| n as u32));
                lists.shares += heads * asked.len();
            }
            for (own, row) in asked.clone().enumerate() {
                let numbers = [asking.start, asking.len(), own, 0];
                lists.asked[row * ROW..][..ROW].copy_from_slice(&numbers.map(|n| n as u32));
            }
            lists.longest = [lists.longest[0].max(asking.len()), lists.longest[1].max(asked.len())];
        }
        // It is caught where work is handed to a device, as a product is that cannot be. Rows are far fewer.
        let shares = lists.shares;
        assert!(
            u32::try_from(shares).is_ok(),
            "{shares} shares of attention at a time: take a smaller --batch-size"
        );
        lists
    }

    /// The bucket of every place between the longest of both sides, and how many of them are before a row's own.
    fn places(&self, buckets: Buckets) -> (Vec<u32>, usize) {
        let [asking, asked] = self.longest;
        let of = |bucket: Option<usize>| bucket.map_or(NOBODY, |bucket| bucket as u32);
        (buckets.places(asking, asked).map(of).collect(), asking.saturating_sub(1))
    }
}

/// Values of shares or of their gradients, not yet written.
fn of_shares<R: CubeRuntime>(like: &CubeTensor<R>, count: usize) -> CubeTensor<R> {
    let shape = [count.max(1)].into();
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, DType::F32)
}

impl<R: CubeRuntime> Attention<'_, R> {
    fn rows(&self) -> (Rows<R>, Rows<R>) {
        (Rows::of(self.query.clone()), Rows::of(self.key_value.clone()))
    }

    /// What the queries take, and their shares.
    pub(super) fn forward(&self) -> (CubeTensor<R>, CubeTensor<R>) {
        let (query, key_value) = self.rows();
        let lists = Lists::new(self.pairs, [query.rows, key_value.rows], self.heads);
        let asking = u32s(&self.query, &lists.asking);
        let shares = of_shares(&self.query, lists.shares);
        let (width, cubes) = (query.width / self.heads, query.rows * self.heads);
        let (table, places, before) = match &self.relative {
            Some((table, buckets)) => {
                let (places, before) = lists.places(*buckets);
                (Rows::of(table.clone()), u32s(&self.query, &places), before)
            }
            // Nobody looks at them.
            None => (Rows::of(self.query.clone()), asking.clone(), 0),
        };
        let (count, dim) = query.by_cube(cubes, UNITS);
        programs::shares::launch(
            &self.query.client,
            count,
            dim,
            query.arg(),
            key_value.arg(),
            asking.clone().into_tensor_arg(),
            table.arg(),
            places.into_tensor_arg(),
            shares.clone().into_tensor_arg(),
            cubes,
            self.heads,
            width,
            query.pitch,
            key_value.pitch,
            table.pitch,
            before,
            self.scale,
            UNITS,
            self.relative.is_some(),
            self.query.dtype.into(),
        );
        let all = query.width;
        (self.taken(&shares, &asking, &query, &key_value, all), shares)
    }

    /// What the queries take by `weights`, of the columns of `key_value` from `first_column` on.
    fn taken(
        &self,
        weights: &CubeTensor<R>,
        asking: &CubeTensor<R>,
        query: &Rows<R>,
        key_value: &Rows<R>,
        first_column: usize,
    ) -> CubeTensor<R> {
        let out = query.like(query.width);
        let (count, dim) = query.by_element(query.elements());
        programs::taken::launch(
            &self.query.client,
            count,
            dim,
            weights.clone().into_tensor_arg(),
            key_value.arg(),
            asking.clone().into_tensor_arg(),
            out.arg(),
            query.elements(),
            query.width,
            query.width / self.heads,
            first_column,
            key_value.pitch,
            out.pitch,
            self.query.dtype.into(),
        );
        out.tensor
    }

    /// From the gradient of what came out, and the shares, those of queries, of keys and values, and of the table where there is one.
    pub(super) fn backward(
        &self,
        gradient: CubeTensor<R>,
        shares: &CubeTensor<R>,
    ) -> (CubeTensor<R>, CubeTensor<R>, Option<CubeTensor<R>>) {
        let (query, key_value) = self.rows();
        let lists = Lists::new(self.pairs, [query.rows, key_value.rows], self.heads);
        let (asking, asked) = (u32s(&self.query, &lists.asking), u32s(&self.query, &lists.asked));
        let gradient = Rows::of(gradient);
        let of_products = self.of_products(&gradient, &key_value, shares, &asking);
        let of_query = self.taken(&of_products, &asking, &query, &key_value, 0);
        let of_key_value = key_value.like(key_value.width);
        let (count, dim) = key_value.by_element(key_value.elements());
        programs::key_value_gradients::launch(
            &self.query.client,
            count,
            dim,
            query.arg(),
            gradient.arg(),
            of_products.clone().into_tensor_arg(),
            shares.clone().into_tensor_arg(),
            asking.clone().into_tensor_arg(),
            asked.into_tensor_arg(),
            of_key_value.arg(),
            key_value.elements(),
            query.width,
            query.width / self.heads,
            query.pitch,
            gradient.pitch,
            of_key_value.pitch,
            self.query.dtype.into(),
        );
        let of_table = self.relative.as_ref().map(|(table, buckets)| {
            let places = lists.places(*buckets);
            self.of_table(Rows::of(table.clone()), &places, &of_products, (&asking, query.rows))
        });
        (of_query, of_key_value.tensor, of_table)
    }

    /// The gradient of the products of queries and keys.
    fn of_products(
        &self,
        gradient: &Rows<R>,
        key_value: &Rows<R>,
        shares: &CubeTensor<R>,
        asking: &CubeTensor<R>,
    ) -> CubeTensor<R> {
        let out = of_shares(&self.query, shares.meta.shape().iter().product());
        let cubes = gradient.rows * self.heads;
        let (count, dim) = gradient.by_cube(cubes, UNITS);
        programs::product_gradients::launch(
            &self.query.client,
            count,
            dim,
            gradient.arg(),
            key_value.arg(),
            shares.clone().into_tensor_arg(),
            asking.clone().into_tensor_arg(),
            out.clone().into_tensor_arg(),
            cubes,
            self.heads,
            gradient.width / self.heads,
            gradient.pitch,
            key_value.pitch,
            self.scale,
            UNITS,
            self.query.dtype.into(),
        );
        out
    }

    /// The gradient of the table, by those of the products that its rows were added to.
    fn of_table(
        &self,
        table: Rows<R>,
        (places, before): &(Vec<u32>, usize),
        of_products: &CubeTensor<R>,
        (asking, rows): (&CubeTensor<R>, usize),
    ) -> CubeTensor<R> {
        let of_places = of_shares(&self.query, places.len() * self.heads);
        let (count, dim) = table.by_element(places.len() * self.heads);
        programs::by_place::launch(
            &self.query.client,
            count,
            dim,
            of_products.clone().into_tensor_arg(),
            asking.clone().into_tensor_arg(),
            of_places.clone().into_tensor_arg(),
            places.len() * self.heads,
            rows,
            self.heads,
            *before,
        );
        let out = table.like(table.width);
        let (count, dim) = table.by_element(table.elements());
        programs::by_bucket::launch(
            &self.query.client,
            count,
            dim,
            of_places.into_tensor_arg(),
            u32s(&self.query, places).into_tensor_arg(),
            out.arg(),
            table.elements(),
            places.len(),
            self.heads,
            out.pitch,
            self.query.dtype.into(),
        );
        out.tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::texts::Spans;

    #[test]
    fn rows_know_whom_they_ask_and_who_asks_them() {
        let pairs = Pairs::new(Spans::new([2, 1]), Spans::new([1, 3]));
        let lists = Lists::new(&pairs, [4, 4], 2);
        assert_eq!(lists.asking, [0, 1, 0, 0, 0, 1, 1, 2, 1, 3, 0, 4, 0, 0, 0, 0]);
        assert_eq!(lists.asked, [0, 2, 0, 0, 2, 1, 0, 0, 2, 1, 1, 0, 2, 1, 2, 0]);
        assert_eq!((lists.shares, lists.longest), (pairs.shares_len(2), [2, 3]));
        let (places, before) = lists.places(Buckets { count: 8, farthest: 20, causal: true });
        assert_eq!((places, before), (vec![1, 0, NOBODY, NOBODY], 1));
    }
}
