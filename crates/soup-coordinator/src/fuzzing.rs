//! Ways for the fuzz targets in `fuzz/` into what reads foreign bytes and is nobody else's to call.

use soup_proto::v1;

use crate::identity::PlanDocument;
use crate::messages;

/// What a state may hold as the plan of a run: what is understood of it is understood again when it is written.
///
/// # Panics
/// Where it is not.
pub fn plan(bytes: &[u8]) {
    let Ok(plan) = PlanDocument::read("run", bytes) else { return };
    let write = |plan: &PlanDocument| serde_json::to_vec(plan).expect("a plan can be written");
    let written = write(&plan);
    let again = PlanDocument::read("run", &written).expect("what was written can be read");
    assert_eq!(write(&again), written);
}

/// What a worker may say when it registers.
pub fn register(message: v1::Register) {
    let shards: usize = message.held.iter().map(|held| held.shards.len()).sum();
    if let Ok(newcomer) = crate::registration::newcomer(message) {
        assert!(newcomer.held.values().map(Vec::len).sum::<usize>() <= shards);
    }
}

/// What a worker may say after that.
pub fn said(message: v1::WorkerMessage) {
    let _ = messages::said(message);
}
