//! Scaled dot-product attention: every head of every image looks at that image's tokens.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::Kernels;

/// Queries, keys and values by image and head. They are views: nothing is copied.
pub(super) struct Split<B: Backend> {
    /// [batch, heads, asked, width].
    pub(super) query: Tensor<B, 4>,
    /// [batch, heads, tokens, width], as the values.
    pub(super) key: Tensor<B, 4>,
    pub(super) value: Tensor<B, 4>,
}

impl<B: Kernels> Split<B> {
    /// Of what [`Kernels::attend`] gets.
    pub(super) fn new(query: Tensor<B, 2>, key_value: Tensor<B, 2>, [batch, heads]: [usize; 2]) -> Self {
        let ([asked, hidden], [tokens, _]) = (query.dims(), key_value.dims());
        let (asked, tokens, width) = (asked / batch, tokens / batch, hidden / heads);
        let key_value = key_value.reshape([batch, tokens, 2 * heads, width]).swap_dims(1, 2);
        Split {
            query: query.reshape([batch, asked, heads, width]).swap_dims(1, 2),
            key: key_value.clone().slice([0..batch, 0..heads]),
            value: key_value.slice([0..batch, heads..2 * heads]),
        }
    }

    /// What products of a query and a key are multiplied by.
    pub(super) fn scale(&self) -> f32 {
        let [_, _, _, width] = self.query.dims();
        1.0 / (width as f32).sqrt()
    }

    /// How much of every token each query takes: [batch, heads, asked, tokens].
    pub(super) fn shares(&self) -> Tensor<B, 4> {
        B::softmax_scaled(B::matmul(self.query.clone(), self.key.clone().swap_dims(2, 3)), self.scale())
    }

    /// What the queries take: [batch, heads, asked, width].
    pub(super) fn context(self, shares: Tensor<B, 4>) -> Tensor<B, 4> {
        B::matmul(shares, self.value)
    }
}
