//! Ends what a runtime left running when it was killed: as we adopt processes, it comes to us.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

/// How many times it is looked for children. Each that is killed may leave us its own.
const ROUNDS: u32 = 200;

/// Ends processes that became our children after a moment, which is in ticks since the machine started.
#[derive(Clone, Copy)]
pub(super) struct Reaper(Option<u64>);

impl Reaper {
    /// Takes this moment: what becomes our child from now on is ours to end.
    pub(super) fn new() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split_whitespace().next();
        let seconds: Option<f64> = seconds.and_then(|it| it.parse().ok());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Self(seconds.map(|it| (it * ticks) as u64))
    }

    /// Ends the children that this process has since then, and theirs. Older ones are somebody else's: a shell that
    /// became this process may have left it some.
    pub(super) fn kill_children(self) {
        let Self(Some(reaper)) = self else {
            return;
        };
        for _ in 0..ROUNDS {
            let ours: Vec<Pid> = children(reaper);
            if ours.is_empty() {
                return;
            }
            for pid in ours {
                // Nobody else takes its number before we waited for it.
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns our children that are not older than that.
fn children(reaper: u64) -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |number: &i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat"));
        stat.is_ok_and(|it| parse(&it).is_some_and(|(up, at)| up == own && at >= reaper))
    };
    numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
}

/// Reads the parent and the start of `/proc/PID/stat` (proc(5)). The name before may hold anything.
fn parse(stat: &str) -> Option<(i32, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((parent, start))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn parents_and_starts() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 100\n";
        assert_eq!(parse(stat), Some((3, 4242)));
        assert_eq!(parse("7 (a) S 3"), None);
    }

    #[test]
    fn children_are_known_by_their_start() {
        let reaper = Reaper::new();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let found = children(reaper.0.unwrap());
        let later = children(u64::MAX);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&pid) && later.is_empty());
    }
}
