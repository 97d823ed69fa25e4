//! Limits of the control group that this process is in, version 1 and 2, and of all groups around it: a Slurm step, a systemd unit
//! or a container has its limit there, and the kernel kills who goes beyond any of them.
//!
//! `/proc/self/cgroup` names the group under each hierarchy, `/proc/self/mountinfo` says where the hierarchy is mounted and which
//! group is its root there. In a namespace of its own a process sees its group as `/`, and then the mount's root is its group.

use std::path::{Path, PathBuf};

/// Version 1 writes a number near 2^63 where there is no limit.
const UNLIMITED: u64 = 1 << 60;
/// Groups on the way up.
const DEPTH_MAX: usize = 64;

/// What the tightest group around this process leaves of its memory, in bytes, and the file that says so; `None` without a
/// limit. `root` is the file system's root.
pub(super) fn memory_room(root: &Path) -> Option<(u64, String)> {
    let rooms = groups(root, "memory").into_iter().flat_map(|(group, version)| match version {
        Version::Two => vec![room_two(&group, "memory.max"), room_two(&group, "memory.high")],
        Version::One => vec![room_one(&group, "memory.limit_in_bytes"), hierarchical(&group)],
    });
    let shown = |path: PathBuf| {
        let path = path.strip_prefix(root).map_or(path.clone(), |inside| Path::new("/").join(inside));
        path.display().to_string()
    };
    rooms.flatten().min_by_key(|(bytes, _)| *bytes).map(|(bytes, path)| (bytes, shown(path)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The folders of the group that this process is in and of those around it, in every hierarchy that has `controller`.
fn groups(root: &Path, controller: &str) -> Vec<(PathBuf, Version)> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (own, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let version = match controllers {
            "" => Version::Two,
            list if list.split(',').any(|c| c == controller) => Version::One,
            _ => continue,
        };
        for mount in mounts.lines().filter_map(Mount::parse).filter(|m| m.has(version, controller)) {
            let top = root.join(unescaped(mount.at).trim_start_matches('/'));
            let inside = mount.inside(group);
            let own = top.join(inside.trim_start_matches('/'));
            let up = own.ancestors().take_while(|a| a.starts_with(&top)).take(DEPTH_MAX);
            found.extend(up.map(|group| (group.to_path_buf(), version)));
        }
    }
    found
}

/// A line of `mountinfo`.
struct Mount<'a> {
    /// The group that is mounted.
    group: &'a str,
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (group, at) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        Some(Mount { group, at, kind: after.next()?, options: after.nth(1)? })
    }

    fn has(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::Two => self.kind == "cgroup2",
            Version::One => self.kind == "cgroup" && self.options.split(',').any(|o| o == controller),
        }
    }

    /// Where `group` is below the mount; the mount itself where it lies outside of it.
    fn inside<'g>(&self, group: &'g str) -> &'g str {
        let below = match self.group {
            "/" => Some(group),
            top => group.strip_prefix(top).filter(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        below.filter(|path| !path.split('/').any(|part| part == "..")).unwrap_or("")
    }
}

/// A path of `mountinfo`, which writes spaces, tabs, line ends and backslashes as octal numbers.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, text)| path.replace(code, text))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|n| *n < UNLIMITED)
}

/// A value in a file of names and values.
fn value(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// What is taken and cannot be given back: pages of files that nobody uses can.
fn left(limit: u64, used: Option<u64>, cache: Option<u64>) -> u64 {
    limit.saturating_sub(used.unwrap_or(0).saturating_sub(cache.unwrap_or(0)))
}

fn room_two(group: &Path, limit: &str) -> Option<(u64, PathBuf)> {
    let path = group.join(limit);
    let (used, cache) =
        (number(&group.join("memory.current")), value(&group.join("memory.stat"), "inactive_file"));
    Some((left(number(&path)?, used, cache), path))
}

fn room_one(group: &Path, limit: &str) -> Option<(u64, PathBuf)> {
    let path = group.join(limit);
    Some((left(number(&path)?, used_one(group), cache_one(group)), path))
}

/// The tightest limit above a group, where the groups above cannot be seen.
fn hierarchical(group: &Path) -> Option<(u64, PathBuf)> {
    let path = group.join("memory.stat");
    let limit = value(&path, "hierarchical_memory_limit").filter(|l| *l < UNLIMITED)?;
    Some((left(limit, used_one(group), cache_one(group)), path))
}

fn used_one(group: &Path) -> Option<u64> {
    number(&group.join("memory.usage_in_bytes"))
}

fn cache_one(group: &Path) -> Option<u64> {
    value(&group.join("memory.stat"), "total_inactive_file")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const TWO: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const ONE: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                       36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";

    #[track_caller]
    fn check(files: &[(&str, &str)], expect: Option<(u64, &str)>) {
        let root = system(files);
        let found = memory_room(root.path());
        assert_eq!(found.as_ref().map(|(bytes, path)| (*bytes, path.as_str())), expect);
    }

    #[test]
    fn without_a_limit_nothing_is_said() {
        check(&[], None);
        check(&[("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", TWO)], None);
        let max = ("sys/fs/cgroup/a/memory.max", "max\n");
        check(&[("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", TWO), max], None);
        let none = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[("proc/self/cgroup", "4:memory:/a\n"), ("proc/self/mountinfo", ONE), none], None);
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts() {
        let own = ("proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0\n");
        check(
            &[
                own,
                ("proc/self/mountinfo", TWO),
                ("sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max", "1000\n"),
                ("sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.current", "700\n"),
                (
                    "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.stat",
                    "anon 5\ninactive_file 500\n",
                ),
                ("sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/memory.max", "900\n"),
                ("sys/fs/cgroup/memory.max", "max\n"),
            ],
            Some((800, "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max")),
        );
        let high = ("sys/fs/cgroup/system.slice/memory.high", "300\n");
        check(
            &[own, ("proc/self/mountinfo", TWO), high],
            Some((300, "/sys/fs/cgroup/system.slice/memory.high")),
        );
    }

    #[test]
    fn version_one_has_a_group_for_each_controller() {
        let own =
            ("proc/self/cgroup", "9:name=systemd:/\n4:memory:/slurm/uid_0/job_3\n1:cpu,cpuacct:/\n0::/\n");
        let limit = ("sys/fs/cgroup/memory/slurm/uid_0/job_3/memory.limit_in_bytes", "4096\n");
        let used = ("sys/fs/cgroup/memory/slurm/uid_0/job_3/memory.usage_in_bytes", "96\n");
        check(
            &[own, ("proc/self/mountinfo", ONE), limit, used],
            Some((4000, "/sys/fs/cgroup/memory/slurm/uid_0/job_3/memory.limit_in_bytes")),
        );
        // Groups above that cannot be seen have their say in the own group's statistics.
        let above = (
            "sys/fs/cgroup/memory/slurm/uid_0/job_3/memory.stat",
            "cache 0\nhierarchical_memory_limit 2048\n",
        );
        check(
            &[own, ("proc/self/mountinfo", ONE), limit, above],
            Some((2048, "/sys/fs/cgroup/memory/slurm/uid_0/job_3/memory.stat")),
        );
    }

    #[test]
    fn in_a_container_the_mount_may_be_the_own_group() {
        // Without a namespace: the host's path, and the group itself mounted.
        let mount = "31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        let limit = ("sys/fs/cgroup/memory.max", "512\n");
        let expect = Some((512, "/sys/fs/cgroup/memory.max"));
        check(&[("proc/self/cgroup", "0::/docker/abc\n"), ("proc/self/mountinfo", mount), limit], expect);
        // With one: the own group is the root.
        check(&[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", TWO), limit], expect);
        // In a group outside of the namespace's root.
        check(&[("proc/self/cgroup", "0::/../../other\n"), ("proc/self/mountinfo", TWO), limit], expect);
    }

    #[test]
    fn what_is_not_understood_is_no_limit() {
        let odd = [("proc/self/cgroup", "nonsense\n0:\n"), ("proc/self/mountinfo", "31 23\n- - -\n")];
        check(&odd, None);
    }
}
