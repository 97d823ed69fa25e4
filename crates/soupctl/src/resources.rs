//! What this machine offers an embedded cluster or a worker: memory, disk and cores. Every limit is read here: the smallest one
//! counts, and is said by name.

mod cgroup;

use std::path::Path;

/// Share of the available memory that workers use, in percent. What is left has to do for buffers, and for a soup that is larger than what
/// shards leave. `plan` says how it is cut.
const MEMORY_PERCENT: u64 = 75;
/// Share of the free space in a disk cache's folder, in percent.
const DISK_PERCENT: u64 = 90;
/// Taken where the machine does not say.
const MEMORY_UNKNOWN_BYTES: u64 = 4 << 30;
/// Slurm counts memory in these.
const MIB: u64 = 1 << 20;

/// How much there is of something, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Bytes, or processors.
    pub(crate) amount: u64,
    /// For people: `MemAvailable`, `RLIMIT_AS`, the file of a control group, a variable.
    pub(crate) from: String,
}

/// Where limits are read.
struct System<'a> {
    /// The root of the file system.
    root: &'a Path,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

fn this_system<T>(read: impl Fn(&System<'_>) -> T) -> T {
    read(&System { root: Path::new("/"), variable: &|name| std::env::var(name).ok() })
}

/// The memory that this process may still take.
pub(crate) fn memory() -> Bound {
    this_system(|system| system.memory())
}

/// Bytes that each of `workers` workers on this machine may use.
pub(crate) fn memory_per_worker(workers: u32) -> u64 {
    (memory().amount / 100 * MEMORY_PERCENT / u64::from(workers.max(1))).max(1)
}

/// Which limit the memory that is used by default is a share of, for people.
pub(crate) fn memory_share() -> String {
    let Bound { amount, from } = memory();
    let odd = this_system(|system| system.not_understood());
    let odd = odd.map_or_else(String::new, |what| format!("; {what}"));
    format!("{MEMORY_PERCENT} % of the {} that {from} leaves{odd}", crate::quantity::Bytes(amount))
}

/// Threads for each of `workers` workers, and what bounds them, for people.
pub(crate) fn threads_share(workers: u32) -> String {
    let Bound { amount, from } = this_system(|system| system.processors());
    let each = threads_of(amount, workers);
    format!(
        "{} each, of {} by {from}",
        crate::quantity::count(each.into(), "thread"),
        crate::quantity::count(amount, "processor")
    )
}

fn threads_of(processors: u64, workers: u32) -> u32 {
    u32::try_from(processors / u64::from(workers.max(1))).unwrap_or(u32::MAX).max(1)
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
    threads_of(this_system(|system| system.processors()).amount, workers)
}

/// The most memory that this process has had resident; `None` where the system does not say.
#[cfg(any(test, feature = "worker"))]
fn memory_peak_bytes() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// That for people, and whose it is. `workers` are those that share the process with a coordinator; `judge`: whether there is a judge beside
/// the native one, which has a process of its own.
#[cfg(any(test, feature = "worker"))]
pub(crate) fn memory_peak(workers: Option<u32>, judge: bool) -> Option<String> {
    memory_peak_bytes().map(|peak| peak_text(peak, workers, judge))
}

#[cfg(any(test, feature = "worker"))]
fn peak_text(peak: u64, workers: Option<u32>, judge: bool) -> String {
    let of = match workers {
        None => String::new(),
        Some(1) => ", its coordinator and its one worker together".to_owned(),
        Some(workers) => format!(", its coordinator and its {workers} workers together"),
    };
    let judge = if judge { "; the judge's own process is not in it" } else { "" };
    let peak = crate::quantity::Bytes(peak);
    format!("peak memory  {peak}: the most that this process had at one time{of}{judge}")
}

impl System<'_> {
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// The tightest of all limits.
    fn memory(&self) -> Bound {
        let bound = |amount, from: &str| Bound { amount, from: from.to_owned() };
        let available = kilobytes(&self.read("proc/meminfo"), "MemAvailable:");
        let group = cgroup::memory_room(self.root).map(|(bytes, file)| bound(bytes, &file));
        let all = [available.map(|bytes| bound(bytes, "MemAvailable")), group, self.slurm_memory()];
        let all = all.into_iter().flatten().chain(self.resource_limits());
        let unknown = || bound(MEMORY_UNKNOWN_BYTES, "an assumption, since the machine does not say,");
        all.min_by_key(|b| b.amount).unwrap_or_else(unknown)
    }

    /// What `ulimit -v` and `ulimit -d` leave.
    fn resource_limits(&self) -> Vec<Bound> {
        let (limits, status) = (self.read("proc/self/limits"), self.read("proc/self/status"));
        let kinds = [
            ("Max address space", "VmSize:", "RLIMIT_AS (ulimit -v)"),
            ("Max data size", "VmData:", "RLIMIT_DATA (ulimit -d)"),
        ];
        let one = |(name, used, from): &(&str, &str, &str)| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
            let amount = limit.saturating_sub(kilobytes(&status, used).unwrap_or(0));
            Some(Bound { amount, from: (*from).to_owned() })
        };
        kinds.iter().filter_map(one).collect()
    }

    fn number(&self, variable: &str) -> Option<u64> {
        // Slurm writes 0 where a job may have all there is.
        (self.variable)(variable)?.trim().parse().ok().filter(|n| *n > 0)
    }

    /// What Slurm allotted to this job on this node, whether or not it holds anybody to it.
    fn slurm_memory(&self) -> Option<Bound> {
        let of = |mib: u64, from: &str| Bound { amount: mib.saturating_mul(MIB), from: from.to_owned() };
        let per_node = self.number("SLURM_MEM_PER_NODE").map(|mib| of(mib, "SLURM_MEM_PER_NODE"));
        let per_cpu = || {
            let cpus = self.number("SLURM_CPUS_ON_NODE")?;
            let mib = self.number("SLURM_MEM_PER_CPU")?.saturating_mul(cpus);
            Some(of(mib, "SLURM_MEM_PER_CPU times SLURM_CPUS_ON_NODE"))
        };
        per_node.or_else(per_cpu)
    }

    /// A variable of Slurm that says nothing we know, for people.
    fn not_understood(&self) -> Option<String> {
        let names = ["SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK"];
        let odd = |name: &&str| (self.variable)(name).filter(|text| text.trim().parse::<u64>().is_err());
        names
            .iter()
            .find_map(|name| Some(format!("{name}={:?} is not a number and was not used", odd(name)?)))
    }

    /// Processors that this process may use: affinity and the quota of control groups are seen by the standard library.
    fn processors(&self) -> Bound {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let bound = |amount, from: &str| Bound { amount, from: from.to_owned() };
        let names = ["SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"];
        let slurm = names.iter().find_map(|name| Some(bound(self.number(name)?, name)));
        let all = slurm.into_iter().chain([bound(cores, "the machine")]);
        all.min_by_key(|b| b.amount).unwrap_or_else(|| bound(1, "the machine"))
    }
}

/// The value of a line of that name, which is in kB, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of a machine with these files and variables.
    fn memory_of(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Bound {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        System { root: root.path(), variable: &variable }.memory()
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  24000000 kB\nMemAvailable:   1000000 kB\n");

    #[track_caller]
    fn check(files: &[(&str, &str)], variables: &[(&str, &str)], amount: u64, from: &str) {
        let found = memory_of(files, variables);
        assert_eq!(found.amount, amount);
        assert!(found.from.contains(from), "{}", found.from);
    }

    #[test]
    fn the_smallest_limit_counts_and_is_named() {
        check(&[MEMINFO], &[], 1_024_000_000, "MemAvailable");
        check(&[], &[], MEMORY_UNKNOWN_BYTES, "assumption");
        check(&[("proc/meminfo", "MemAvailable: many kB")], &[], MEMORY_UNKNOWN_BYTES, "assumption");
        let limits = (
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             unlimited            unlimited            bytes     \n\
             Max address space         500000000            500000000            bytes     \n",
        );
        let status = ("proc/self/status", "VmPeak: 99 kB\nVmSize:\t  1000 kB\n");
        check(&[MEMINFO, limits, status], &[], 500_000_000 - 1_024_000, "RLIMIT_AS");
        let group = [
            MEMINFO,
            ("proc/self/cgroup", "0::/job\n"),
            ("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/job/memory.max", "200000000\n"),
        ];
        check(&group, &[], 200_000_000, "/sys/fs/cgroup/job/memory.max");
    }

    #[test]
    fn what_slurm_allotted_counts_even_where_nobody_enforces_it() {
        check(&[MEMINFO], &[("SLURM_MEM_PER_NODE", "512")], 512 << 20, "SLURM_MEM_PER_NODE");
        let per_cpu = [("SLURM_MEM_PER_CPU", "100"), ("SLURM_CPUS_ON_NODE", "3")];
        check(&[MEMINFO], &per_cpu, 300 << 20, "SLURM_MEM_PER_CPU");
        check(&[MEMINFO], &[("SLURM_MEM_PER_NODE", "0")], 1_024_000_000, "MemAvailable");
        check(&[MEMINFO], &[("SLURM_MEM_PER_NODE", "all")], 1_024_000_000, "MemAvailable");
    }

    #[test]
    fn a_variable_that_is_not_understood_is_said() {
        let said = |value: &'static str| {
            let variable = move |name: &str| (name == "SLURM_MEM_PER_NODE").then(|| value.to_owned());
            System { root: Path::new("/nowhere"), variable: &variable }.not_understood()
        };
        assert_eq!(said("512"), None);
        assert!(said("all").unwrap().contains("SLURM_MEM_PER_NODE=\"all\""));
    }

    #[test]
    fn slurm_bounds_processors_too() {
        let processors = |value: &'static str| {
            let variable = move |name: &str| (name == "SLURM_CPUS_PER_TASK").then(|| value.to_owned());
            System { root: Path::new("/nowhere"), variable: &variable }.processors()
        };
        assert_eq!(processors("1"), Bound { amount: 1, from: "SLURM_CPUS_PER_TASK".to_owned() });
        assert_eq!(processors("1000000").from, "the machine");
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
    fn a_peak_says_whose_it_is() {
        let process = "peak memory  1.00 MiB: the most that this process had at one time";
        let of = |workers, judge| peak_text(1 << 20, workers, judge);
        assert_eq!(of(None, false), process);
        assert_eq!(of(Some(1), false), format!("{process}, its coordinator and its one worker together"));
        assert_eq!(of(Some(2), false), format!("{process}, its coordinator and its 2 workers together"));
        assert_eq!(of(None, true), format!("{process}; the judge's own process is not in it"));
    }

    #[test]
    fn everybody_gets_something() {
        assert!(memory_per_worker(1) >= memory_per_worker(4096).max(1));
        assert!(threads_per_worker(u32::MAX) == 1 && threads_per_worker(0) >= 1);
    }
}
