//! Results, for people and as JSON.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::measure::Cost;
use crate::workload::{Goal, Workload};

/// What was measured on.
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    has_sha: bool,
    kernel: String,
    version: String,
}

impl Machine {
    /// Reads what the system says of itself.
    pub(crate) fn read() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kernel = Command::new("uname").arg("-sr").output();
        let own = Command::new(env!("CARGO_BIN_EXE_imgdecl"))
            .arg("--version")
            .output();
        let text = |output: std::io::Result<std::process::Output>| {
            let text = output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
            text.unwrap_or_default()
        };
        Self {
            cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            has_sha: field("flags").is_some_and(|it| it.split(' ').any(|it| it == "sha_ni")),
            kernel: text(kernel),
            version: text(own),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cpu,
            cores,
            kernel,
            version,
            ..
        } = self;
        let sha = match self.has_sha {
            true => "with",
            false => "without",
        };
        write!(
            f,
            "{version} on {cores} x {cpu}, {sha} SHA extensions, {kernel}"
        )
    }
}

/// What a contender took: medians, for the work done once.
pub(crate) struct Done {
    name: String,
    version: Option<String>,
    time: Duration,
    /// The fastest and the slowest run.
    range: (Duration, Duration),
    cpu: Duration,
    peak: u64,
    size: Option<u64>,
}

impl Done {
    pub(crate) fn new(
        name: &str,
        version: Option<String>,
        costs: &[Cost],
        repeat: u32,
        size: Option<u64>,
    ) -> Self {
        let sorted = |value: fn(&Cost) -> Duration| {
            let mut all: Vec<Duration> = costs.iter().map(|it| value(it) / repeat).collect();
            all.sort();
            all
        };
        let times = sorted(|it| it.time);
        Self {
            name: name.to_owned(),
            version,
            time: times[times.len() / 2],
            range: (times[0], times[times.len() - 1]),
            cpu: sorted(|it| it.cpu)[times.len() / 2],
            peak: costs.iter().map(|it| it.peak).max().unwrap_or_default(),
            size,
        }
    }
}

/// What a workload showed.
pub(crate) struct Outcome<'a> {
    workload: &'a Workload,
    done: Vec<Done>,
    /// Who did not run, or not to the end, and why.
    out: Vec<(String, String)>,
    has_failed: bool,
}

impl<'a> Outcome<'a> {
    pub(crate) fn new(workload: &'a Workload) -> Self {
        Self {
            workload,
            done: Vec::new(),
            out: Vec::new(),
            has_failed: false,
        }
    }

    pub(crate) fn skip(&mut self, name: &str, why: String) {
        self.out.push((name.to_owned(), why));
    }

    pub(crate) fn fail(&mut self, name: &str, why: String) {
        self.skip(name, format!("failed: {why}"));
        self.has_failed = true;
    }

    /// Tells whether a contender failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub(crate) fn add(&mut self, done: Done) {
        self.done.push(done);
    }

    fn find(&self, name: &str) -> Option<&Done> {
        self.done.iter().find(|it| it.name == name)
    }

    /// Says what a goal is, what was found, and whether it is met.
    fn judge(&self, goal: &Goal) -> Option<(String, bool)> {
        let that = self.find(&goal.that)?;
        let own = that.time.as_secs_f64();
        let name = &goal.that;
        if let Some(seconds) = goal.seconds {
            let text = format!("{name} takes less than {seconds} s: {own:.4} s");
            return Some((text, own < seconds));
        }
        if let Some(peak) = goal.peak {
            let found = that.peak as f64 / f64::from(1 << 20);
            let text = format!("{name} takes less than {peak} MiB: {found:.1} MiB");
            return Some((text, found < peak));
        }
        let other = self.find(goal.than.as_ref()?)?;
        let (time, than) = (other.time.as_secs_f64(), &other.name);
        if let Some(faster) = goal.faster {
            let found = time / own;
            let text = format!("{name} is at least {faster}x faster than {than}: {found:.2}x");
            return Some((text, found >= faster));
        }
        if let Some(within) = goal.within {
            let found = own / time;
            let text = format!("{name} takes at most {within}x the time of {than}: {found:.2}x");
            return Some((text, found <= within));
        }
        let size = goal.size?;
        let found = that.size? as f64 / other.size? as f64;
        let text = format!("{name} makes at most {size}x the size of {than}: {found:.3}x");
        Some((text, found <= size))
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload {
            name, about, limit, ..
        } = self.workload;
        writeln!(f, "{name}: {about}\n  Its limit: {limit}")?;
        let width = self
            .done
            .iter()
            .map(|it| it.name.len())
            .max()
            .unwrap_or(0)
            .max(9);
        writeln!(
            f,
            "  {:<width$} {:>10} {:>21} {:>8} {:>10} {:>10} {:>10}",
            "contender", "median", "fastest - slowest", "ratio", "CPU", "peak", "size"
        )?;
        let first = self.done.first().map_or(0.0, |it| it.time.as_secs_f64());
        for done in &self.done {
            let range = format!("{} - {}", time(done.range.0), time(done.range.1));
            let ratio = format!("{:.2}x", done.time.as_secs_f64() / first);
            let size = done.size.map(bytes).unwrap_or_default();
            writeln!(
                f,
                "  {:<width$} {:>10} {range:>21} {ratio:>8} {:>10} {:>10} {size:>10}",
                done.name,
                time(done.time),
                time(done.cpu),
                bytes(done.peak),
            )?;
        }
        let versions = self.done.iter().filter_map(|it| it.version.as_deref());
        let versions: Vec<&str> = versions.collect();
        if !versions.is_empty() {
            writeln!(f, "  peers: {}", versions.join("; "))?;
        }
        for (name, why) in &self.out {
            writeln!(f, "  {name:<width$} {}", why.replace('\n', "\n    "))?;
        }
        for (text, is_met) in self.workload.goals.iter().filter_map(|it| self.judge(it)) {
            writeln!(f, "  {} {text}", if is_met { "met:   " } else { "missed:" })?;
        }
        Ok(())
    }
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        it if it < 1.0 => format!("{:.2} ms", it * 1e3),
        it => format!("{it:.2} s"),
    }
}

fn bytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Returns all results: times in seconds, sizes and peaks in bytes.
pub(crate) fn json(machine: &Machine, outcomes: &[Outcome<'_>]) -> Value {
    let done = |it: &Done| {
        json!({
            "contender": it.name,
            "version": it.version,
            "median": it.time.as_secs_f64(),
            "fastest": it.range.0.as_secs_f64(),
            "slowest": it.range.1.as_secs_f64(),
            "cpu": it.cpu.as_secs_f64(),
            "peak": it.peak,
            "size": it.size,
        })
    };
    let outcome = |it: &Outcome<'_>| {
        let goals = it.workload.goals.iter().filter_map(|goal| it.judge(goal));
        let goals: Vec<Value> = goals
            .map(|(text, is_met)| json!({"goal": text, "met": is_met}))
            .collect();
        json!({
            "workload": it.workload.name,
            "results": it.done.iter().map(done).collect::<Vec<_>>(),
            "out": it.out,
            "goals": goals,
        })
    };
    json!({
        "machine": machine.to_string(),
        "workloads": outcomes.iter().map(outcome).collect::<Vec<_>>(),
    })
}
