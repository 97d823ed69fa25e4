//! The kernels under automatic differentiation: the plain ones, which it goes through.

use burn::backend::{Autodiff, Flex};

use super::Kernels;

impl Kernels for Autodiff<Flex> {}
