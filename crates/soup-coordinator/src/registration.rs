//! A worker introduces itself: what it says is kept for as long as it is there, and told to others, so it is checked before.

use std::collections::HashSet;

use soup_core::machine::{Space, Tier};
use soup_core::shard::{SHARDS_MAX, Shard};
use soup_core::{Error, Result};
use soup_proto::v1;

use crate::exchange::Newcomer;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest address and longest name of a run, in bytes. Every placement has the addresses of all workers.
const ADDRESS_BYTES_MAX: usize = 1 << 10;
const RUN_BYTES_MAX: usize = 256;
/// Longest version, in bytes.
const VERSION_BYTES_MAX: usize = 128;
/// Most tasks that a worker runs at the same time.
const SLOTS_MAX: u32 = 4096;
/// Most judges of one worker, and what is kept of all of them, in bytes: a text takes memory of its own, however short it is.
const JUDGES_MAX: usize = 64;
const JUDGES_BYTES_MAX: usize = 1 << 20;
const TEXT_BYTES: usize = 48;
/// Most runs that one worker has shards of: it works on one.
const HELD_RUNS_MAX: usize = 16;
/// Most shards of all of them: that one, and what is left of others.
const HELD_SHARDS_MAX: usize = 2 * SHARDS_MAX as usize;

/// A worker that introduces itself.
///
/// # Errors
/// [`Usage`](soup_core::ErrorKind::Usage) for what cannot be, or is too long to be kept.
pub(crate) fn newcomer(register: v1::Register) -> Result<Newcomer> {
    check(&register)?;
    let v1::Register { name, address, slots, device_bytes, capacity_bytes, disk_bytes, held, judges, .. } =
        register;
    let space = Space { device: device_bytes, memory: capacity_bytes, disk: disk_bytes };
    let judges = judges.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    let held = held.into_iter().map(|held| (held.run.clone(), shards(&held))).collect();
    let address = address.into();
    Ok(Newcomer { name, certificate: None, address, slots, space, judges, held })
}

fn shards(held: &v1::Held) -> Vec<(Shard, Tier)> {
    // Whoever registers says how many these are: a list would be gone through for each of the others.
    let set = |shards: &[u32]| shards.iter().copied().collect::<HashSet<u32>>();
    let (on_device, on_disk) = (set(&held.on_device), set(&held.on_disk));
    let tier = |shard| match (on_device.contains(&shard), on_disk.contains(&shard)) {
        (true, _) => Tier::Device,
        (false, true) => Tier::Disk,
        (false, false) => Tier::Memory,
    };
    held.shards.iter().map(|&shard| (Shard(shard), tier(shard))).collect()
}

fn check(register: &v1::Register) -> Result<()> {
    let v1::Register { name, address, slots, version, held, judges, .. } = register;
    at_most("bytes in its name", name.len(), NAME_BYTES_MAX)?;
    at_most("bytes in its address", address.len(), ADDRESS_BYTES_MAX)?;
    at_most("bytes in its version", version.len(), VERSION_BYTES_MAX)?;
    at_most("slots", *slots as usize, SLOTS_MAX as usize)?;
    at_most("judges", judges.len(), JUDGES_MAX)?;
    at_most("bytes in what it says of its judges", judges.iter().map(judge_bytes).sum(), JUDGES_BYTES_MAX)?;
    at_most("runs of which it has shards", held.len(), HELD_RUNS_MAX)?;
    for v1::Held { run, shards, on_disk, on_device } in held {
        at_most("bytes in the name of a run", run.len(), RUN_BYTES_MAX)?;
        at_most(
            "shards of a run",
            shards.len().max(on_disk.len()).max(on_device.len()),
            SHARDS_MAX as usize,
        )?;
    }
    at_most("shards", held.iter().map(|held| held.shards.len()).sum(), HELD_SHARDS_MAX)
}

/// About what is kept of a judge.
fn judge_bytes(offered: &v1::OfferedJudge) -> usize {
    let v1::OfferedJudge { judge, abilities, datasets } = offered;
    let id = judge.iter().flat_map(|judge| [&judge.name, &judge.version, &judge.digest, &judge.numerics]);
    id.chain(abilities).chain(datasets).map(|text| text.len() + TEXT_BYTES).sum()
}

fn at_most(what: &str, count: usize, max: usize) -> Result<()> {
    match count <= max {
        true => Ok(()),
        false => Err(Error::usage(format!("a worker has {count} {what}, and at most {max} are possible"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(register: v1::Register, text: &str) {
        let error = newcomer(register).unwrap_err();
        assert_eq!(error.kind(), soup_core::ErrorKind::Usage);
        assert_eq!(error.chain(), format!("a worker has {text} are possible"));
    }

    #[test]
    fn what_is_kept_of_a_worker_is_bounded() {
        let default = v1::Register::default;
        let held = |run: &str, shards: usize| v1::Held {
            run: run.to_owned(),
            shards: (0..shards as u32).collect(),
            on_disk: vec![1],
            on_device: vec![],
        };
        refused(
            v1::Register { name: "n".repeat(30 << 20), ..default() },
            "31457280 bytes in its name, and at most 256",
        );
        refused(
            v1::Register { address: "a".repeat(1025), ..default() },
            "1025 bytes in its address, and at most 1024",
        );
        refused(v1::Register { slots: u32::MAX, ..default() }, "4294967295 slots, and at most 4096");
        // Datasets of one letter each, in as few bytes as a message of a worker's may have.
        let many = v1::OfferedJudge { datasets: vec!["d".to_owned(); 1000], ..v1::OfferedJudge::default() };
        refused(
            v1::Register { judges: vec![many; 64], ..default() },
            "3136000 bytes in what it says of its judges, and at most 1048576",
        );
        refused(
            v1::Register { held: vec![held("r", 1); 17], ..default() },
            "17 runs of which it has shards, and at most 16",
        );
        refused(
            v1::Register { held: vec![held("r", 4097)], ..default() },
            "4097 shards of a run, and at most 4096",
        );
        refused(
            v1::Register { held: ["a", "b", "c"].map(|run| held(run, 4096)).into(), ..default() },
            "12288 shards, and at most 8192",
        );
        let good = newcomer(v1::Register { held: vec![held("r", 4096)], ..default() }).unwrap();
        let shards = &good.held["r"];
        assert_eq!((shards.len(), shards[0].1, shards[1].1), (4096, Tier::Memory, Tier::Disk));
    }
}
