//! The small files beside the ingredients give tensors their meaning, and have to agree like tensors.

use crate::fixture::Place;

#[test]
fn the_small_pool_makes_no_mistake() {
    let result = Place::with(&["a", "b"]).cook_all(&[]).json();
    assert_eq!((&result["score"]["correct"], &result["score"]["total"]), (&12.into(), &12.into()));
}
