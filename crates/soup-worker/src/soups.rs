//! The soups in work: what was blended and assembled lately.

use std::sync::Arc;

use bytes::Bytes;
use soup_core::soup::{Soup, Weight};
use tokio::sync::OnceCell;

use crate::judge::Loaded;
use crate::recent::Recent;
use crate::room::{Place, Room};

/// What soups take by which blends are kept, in bytes.
const NAMES_BYTES_MAX: usize = 256 << 20;

/// A soup with its judge, and the room that it takes.
pub(crate) struct InMemory {
    pub(crate) soup: Arc<dyn Loaded>,
    pub(crate) _place: Place,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Soups {
    own: Recent<(Soup, u32), Bytes>,
    /// Bytes of what peers are served, those that are not kept any more but still under way included.
    served: Arc<Room>,
    loaded: Recent<Soup, Arc<InMemory>>,
    /// Soups that are assembled or with the judge, those that are not kept any more but still in use included.
    room: Arc<Room>,
    /// The soup that a step of a learned soup is differentiated at.
    step: Recent<Soup, Arc<InMemory>>,
}

impl Soups {
    /// Those of the same run under its next coordinator: none so far. What is left of the earlier ones, somewhere in work, still
    /// takes the room that it does.
    pub(crate) fn after(earlier: &Soups) -> Soups {
        earlier.forget();
        Soups { served: earlier.served.clone(), room: earlier.room.clone(), ..Soups::default() }
    }

    /// Where the blend of `soup` on one of this worker's shards is kept, of at most `max` blends.
    pub(crate) fn blend(&self, soup: &Soup, shard: u32, max: usize) -> Arc<OnceCell<Bytes>> {
        self.own.cell(&(soup.clone(), shard), max.min(kept_max(soup)))
    }

    /// Room for so many bytes that peers may be served, where there is room for `max`.
    pub(crate) async fn serve(&self, bytes: u64, max: u64) -> Place {
        self.served.take(bytes, max).await
    }

    /// Where `soup` is kept as the judge has it, of at most `max` soups. Whoever scores soups does not learn at the same time.
    pub(crate) fn loaded(&self, soup: &Soup, max: u64) -> Arc<OnceCell<Arc<InMemory>>> {
        self.step.retain(|_| false);
        self.loaded.cell(soup, max as usize)
    }

    /// Room for one more soup where there is room for `max`.
    pub(crate) async fn enter(&self, max: u64) -> Place {
        self.room.enter(max).await
    }

    /// Forgets all of them: some may have wrong blends. What is being assembled goes to whoever waits for it alone.
    pub(crate) fn forget(&self) {
        self.own.retain(|_| false);
        self.loaded.retain(|_| false);
        self.step.retain(|_| false);
    }

    /// Where the soup is kept that a step is differentiated at. What was kept of other soups is forgotten: every step has another one.
    pub(crate) fn step(&self, soup: &Soup) -> Arc<OnceCell<Arc<InMemory>>> {
        self.own.retain(|(of, _)| of == soup);
        self.loaded.retain(|_| false);
        self.step.cell(soup, 1)
    }
}

/// How many blends are kept after one of this soup. Each is kept with its soup, whose weights may be many: peers ask for what they like.
fn kept_max(soup: &Soup) -> usize {
    let rows = soup.rows().map_or(0, <[_]>::len);
    let row_bytes = size_of::<Vec<Weight>>() + soup.members().len() * size_of::<Weight>();
    NAMES_BYTES_MAX / (size_of_val(soup.members()) + rows * row_bytes).max(1)
}

#[cfg(test)]
mod tests {
    use soup_core::soup::Ingredient;

    use super::*;

    #[test]
    fn blends_of_soups_of_many_weights_are_few() {
        let soup = |rows: usize| {
            Soup::weighted(vec![Ingredient(0)], vec![vec![Weight::new(0.5).unwrap()]; rows]).unwrap()
        };
        assert!(kept_max(&Soup::single(Ingredient(0))) > 1 << 20 && kept_max(&soup(1)) > 1 << 20);
        // Of 16 MiB.
        assert_eq!(kept_max(&soup(1 << 19)), 15);
    }
}
