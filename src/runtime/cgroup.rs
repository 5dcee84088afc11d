//! The control groups of a process, of version 1 and 2 and of hosts that have both: what limits are in force, and
//! whether someone was killed for want of memory (cgroups(7)).

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// Where the control groups of a process are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Cgroups {
    memory: Option<Group>,
    cpu: Option<Group>,
    pids: Option<Group>,
}

/// A folder of a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    folder: PathBuf,
    is_v2: bool,
}

impl Cgroups {
    /// Finds those of a process.
    pub(super) fn of(pid: Pid) -> Self {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
        let mounts = fs::read_to_string("/proc/self/mountinfo");
        Self::parse(&groups.unwrap_or_default(), &mounts.unwrap_or_default())
    }

    /// Reads `/proc/PID/cgroup` and `/proc/self/mountinfo` (proc(5)).
    fn parse(groups: &str, mounts: &str) -> Self {
        let find = |controller: &str| {
            let lines = || groups.lines().filter_map(Line::parse);
            let own = lines().find(|line| line.controllers.split(',').any(|it| it == controller));
            let (line, is_v2) = match own {
                Some(line) => (line, false),
                None => (lines().find(|line| line.controllers.is_empty())?, true),
            };
            let mount = mounts
                .lines()
                .filter_map(Mount::parse)
                .find(|mount| match is_v2 {
                    true => mount.kind == "cgroup2",
                    false => {
                        mount.kind == "cgroup"
                            && mount.options.split(',').any(|it| it == controller)
                    }
                })?;
            // What is mounted may be a part of the whole: a container's own.
            let below = line.path.strip_prefix(mount.root.trim_end_matches('/'))?;
            let folder = Path::new(mount.point).join(below.trim_start_matches('/'));
            Some(Group { folder, is_v2 })
        };
        Self {
            memory: find("memory"),
            cpu: find("cpu"),
            pids: find("pids"),
        }
    }

    /// Returns the most bytes of memory, if there is a limit.
    pub(super) fn memory(&self) -> Option<u64> {
        let text = self
            .memory
            .as_ref()?
            .read("memory.limit_in_bytes", "memory.max")?;
        text.trim().parse().ok()
    }

    /// Returns the most CPU time in thousandths of one CPU, if there is a limit.
    pub(super) fn millicpus(&self) -> Option<u64> {
        let group = self.cpu.as_ref()?;
        let text = group.read("cpu.cfs_quota_us", "cpu.max")?;
        let mut words = text.split_whitespace();
        let quota: u64 = words.next()?.parse().ok()?;
        let period = match words.next() {
            Some(period) => period.to_owned(),
            None => fs::read_to_string(group.folder.join("cpu.cfs_period_us")).ok()?,
        };
        let period: u64 = period.trim().parse().ok()?;
        (quota * 1000).checked_div(period)
    }

    /// Returns the most processes, if there is a limit.
    pub(super) fn pids(&self) -> Option<u64> {
        let text = self.pids.as_ref()?.read("pids.max", "pids.max")?;
        text.trim().parse().ok()
    }

    /// Returns how many processes were killed for want of memory. To be asked before the groups are removed.
    pub(super) fn killed_for_memory(&self) -> u64 {
        let read = |group: &Group| group.read("memory.oom_control", "memory.events");
        let text = self.memory.as_ref().and_then(read).unwrap_or_default();
        let mut counts = text
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill "));
        let count = counts.next().and_then(|it| it.trim().parse().ok());
        count.unwrap_or(0)
    }
}

impl Group {
    fn read(&self, v1: &str, v2: &str) -> Option<String> {
        let name = if self.is_v2 { v2 } else { v1 };
        fs::read_to_string(self.folder.join(name)).ok()
    }
}

/// A line of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`.
struct Line<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1);
        Some(Self {
            controllers: parts.next()?,
            path: parts.next()?,
        })
    }
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let mut back = back.split(' ');
        Some(Self {
            root: front.next()?,
            point: front.next()?,
            kind: back.next()?,
            options: back.nth(1).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
        33 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        36 24 0:32 /docker/x /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
        37 24 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn version_1_with_a_part_mounted() {
        let groups =
            "9:memory:/docker/x/imgdecl/a\n5:cpu,cpuacct:/imgdecl/a\n3:pids:/imgdecl/a\n0::/\n";
        let found = Cgroups::parse(groups, HYBRID);
        let folder = |group: Option<Group>| group.map(|it| it.folder.display().to_string());
        assert_eq!(
            folder(found.memory).as_deref(),
            Some("/sys/fs/cgroup/memory/imgdecl/a")
        );
        assert_eq!(
            folder(found.cpu).as_deref(),
            Some("/sys/fs/cgroup/cpu,cpuacct/imgdecl/a")
        );
        assert_eq!(
            folder(found.pids).as_deref(),
            Some("/sys/fs/cgroup/pids/imgdecl/a")
        );
    }

    #[test]
    fn version_2() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Cgroups::parse("0::/user.slice/imgdecl/a\n", mounts);
        let expected = Group {
            folder: "/sys/fs/cgroup/user.slice/imgdecl/a".into(),
            is_v2: true,
        };
        assert_eq!(found.memory, Some(expected));
    }

    #[test]
    fn limits_and_kills_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let groups = |is_v2| {
            let group = Some(Group {
                folder: folder.path().to_owned(),
                is_v2,
            });
            Cgroups {
                memory: group.clone(),
                cpu: group.clone(),
                pids: group,
            }
        };
        write("memory.max", "104857600\n");
        write("cpu.max", "50000 100000\n");
        write("pids.max", "64\n");
        write("memory.events", "low 0\noom 3\noom_kill 2\n");
        let found = groups(true);
        assert_eq!(found.memory(), Some(104_857_600));
        assert_eq!(found.millicpus(), Some(500));
        assert_eq!(found.pids(), Some(64));
        assert_eq!(found.killed_for_memory(), 2);
        write("memory.limit_in_bytes", "4096\n");
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.cfs_period_us", "100000\n");
        write(
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        );
        write("pids.max", "max\n");
        let found = groups(false);
        assert_eq!(found.memory(), Some(4096));
        assert_eq!(found.millicpus(), None);
        assert_eq!(found.pids(), None);
        assert_eq!(found.killed_for_memory(), 1);
    }
}
