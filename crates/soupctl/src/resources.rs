//! What this machine offers an embedded cluster or a worker: memory, disk and cores.

use std::path::Path;

/// Share of the available memory that is offered for shards, in percent. Decoded samples may take a quarter of the offer on
/// top; what is left has to do for assembled models, blends and buffers. `plan` says how large those are.
const MEMORY_PERCENT: u64 = 60;
/// Share of the free space in a disk cache's folder, in percent.
const DISK_PERCENT: u64 = 90;
/// Taken where the machine does not say.
const MEMORY_UNKNOWN_BYTES: u64 = 4 << 30;

/// Bytes of shards that each of `workers` workers on this machine may keep.
pub(crate) fn memory_per_worker(workers: u32) -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available_bytes(&meminfo).unwrap_or(MEMORY_UNKNOWN_BYTES);
    let bytes = cgroup_room(Path::new("/sys/fs/cgroup")).map_or(available, |room| room.min(available));
    (bytes / 100 * MEMORY_PERCENT / u64::from(workers.max(1))).max(1)
}

/// Bytes of shards that each of `workers` workers may keep on the disk of `folder`, which need not be there yet.
pub(crate) fn disk_per_worker(folder: &Path, workers: u32) -> u64 {
    let there = folder.ancestors().find(|f| f.exists()).unwrap_or(Path::new("/"));
    // Where the system does not say, nothing is offered; the pool's refusal then names the sizes.
    let free = rustix::fs::statvfs(there).map_or(0, |v| v.f_bavail.saturating_mul(v.f_frsize));
    free / 100 * DISK_PERCENT / u64::from(workers.max(1))
}

/// Threads for each of `workers` workers on this machine.
#[cfg(any(test, feature = "worker"))]
pub(crate) fn threads_per_worker(workers: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores as u32 / workers.max(1)).max(1)
}

/// The most memory that this process has had resident; `None` where the system does not say.
#[cfg(any(test, feature = "worker"))]
pub(crate) fn memory_peak_bytes() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// `MemAvailable` of `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> Option<u64> {
    kilobytes(meminfo, "MemAvailable:")
}

/// The value of a line of that name, which is in kB, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a memory limit of this process's control group leaves (version 2, then version 1); `None` without a limit.
fn cgroup_room(root: &Path) -> Option<u64> {
    let number = |file: &str| std::fs::read_to_string(root.join(file)).ok()?.trim().parse::<u64>().ok();
    let room = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used).unwrap_or(0)));
    room("memory.max", "memory.current")
        .or_else(|| room("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:       24000000 kB\nMemAvailable:   1000 kB\n";
        assert_eq!(available_bytes(meminfo), Some(1_024_000));
        assert_eq!(available_bytes(""), None);
        assert_eq!(available_bytes("MemAvailable: many kB"), None);
    }

    #[test]
    fn free_space_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (disk_per_worker(folder.path(), 1), disk_per_worker(&folder.path().join("x/y"), 2));
        assert!(one > 0 && two > 0 && two < one, "{one} {two}");
    }

    #[test]
    fn a_process_has_used_some_memory() {
        // Where there is no such file, nothing is said.
        assert!(memory_peak_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn control_groups_limit_what_is_available() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(cgroup_room(root.path()), None);
        std::fs::write(root.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_room(root.path()), None);
        std::fs::write(root.path().join("memory.max"), "1000\n").unwrap();
        std::fs::write(root.path().join("memory.current"), "400\n").unwrap();
        assert_eq!(cgroup_room(root.path()), Some(600));
    }

    #[test]
    fn everybody_gets_something() {
        assert!(memory_per_worker(1) >= memory_per_worker(4096).max(1));
        assert!(threads_per_worker(u32::MAX) == 1 && threads_per_worker(0) >= 1);
    }
}
