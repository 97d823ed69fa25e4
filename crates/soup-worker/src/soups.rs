//! The soups in work: what was blended and assembled lately.

use std::sync::Arc;

use bytes::Bytes;
use soup_core::soup::Soup;
use tokio::sync::OnceCell;

use crate::judge::Loaded;
use crate::recent::Recent;

/// Soups that are kept, as blends and with the judge: the one in work, the next one, and the one that may be written.
const KEPT: usize = 3;

/// See the module.
#[derive(Default)]
pub(crate) struct Soups {
    own: Recent<(Soup, u32), Bytes>,
    loaded: Recent<Soup, Arc<dyn Loaded>>,
    /// The parameters that a step of a learned soup is differentiated at.
    step: Recent<Soup, Arc<Vec<u8>>>,
}

impl Soups {
    /// Where the blend of `soup` on one of this worker's `shards` shards is kept.
    pub(crate) fn blend(&self, soup: &Soup, shard: u32, shards: usize) -> Arc<OnceCell<Bytes>> {
        self.own.cell(&(soup.clone(), shard), KEPT * shards)
    }

    /// Where `soup` is kept as the judge has it. Whoever scores soups does not learn at the same time.
    pub(crate) fn loaded(&self, soup: &Soup) -> Arc<OnceCell<Arc<dyn Loaded>>> {
        self.step.retain(|_| false);
        self.loaded.cell(soup, KEPT)
    }

    /// Where the parameters of the soup are kept that a step is differentiated at. What was kept of other soups is forgotten:
    /// every step has another one.
    pub(crate) fn step(&self, soup: &Soup) -> Arc<OnceCell<Arc<Vec<u8>>>> {
        self.own.retain(|(of, _)| of == soup);
        self.loaded.retain(|_| false);
        self.step.cell(soup, 1)
    }
}
