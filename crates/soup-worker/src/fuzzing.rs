//! Ways for the fuzz targets in `fuzz/` into what reads foreign bytes and is nobody else's to call.

use soup_core::shard::ShardPlan;
use soup_proto::v1;

use crate::begun::{Begun, Owners};
use crate::messages::{shard_sources, task};

/// What a coordinator may say: of a run, and what is to be done in it, or in the one that the fuzz target knows.
pub fn told(begin: Option<v1::BeginRun>, assigned: Vec<v1::Assign>, placement: Option<v1::Placement>) {
    let Ok(run) = begin.unwrap_or_else(known).try_into() else { return };
    let run: Begun = run;
    assert!(run.files.iter().all(|file| file.range.end <= run.schema.bytes()));
    for work in assigned.into_iter().filter_map(|assign| assign.work) {
        if let v1::assign::Work::Load(load) = &work
            && let Ok(sources) = shard_sources(load.clone(), &run)
        {
            assert!(sources.shard < run.plan.count());
            assert_eq!(sources.ingredients.len(), run.ingredients.len());
        }
        let _ = task(work, &run);
    }
    if let Some(placement) = placement {
        let workers = placement.owners.clone();
        let owners = Owners::from(placement);
        assert_eq!(owners.of(0), workers.first().copied());
    }
}

/// A run of two ingredients.
fn known() -> v1::BeginRun {
    let tensor =
        |name: &str| v1::Tensor { name: name.into(), dtype: "F32".into(), shape: vec![4], taken_from: None };
    v1::BeginRun {
        digest: v1::DigestKind::Sha256.into(),
        run: "uniform-1".into(),
        epoch: 1,
        peer_key: vec![7; soup_trust::ticket::KEY_BYTES],
        tensors: vec![tensor("a"), tensor("b")],
        shard_bytes: ShardPlan::new(32).shard_bytes(),
        ingredients: vec!["m0".into(), "m1".into()],
        ..v1::BeginRun::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_run_is_one() {
        assert_eq!(Begun::try_from(known()).unwrap().ingredients.len(), 2);
    }
}
