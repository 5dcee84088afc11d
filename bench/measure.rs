//! Runs one script and says what it took.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From the start to the end.
    pub(crate) time: Duration,
    /// Of all CPUs, in user and system mode.
    pub(crate) cpu: Duration,
    /// The peak resident memory of the largest process, in bytes.
    pub(crate) peak: u64,
}

/// A script of bash, with what it may refer to.
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    /// The contender's own folder, where the script runs: `$WORK`.
    pub(crate) work: &'a Path,
    /// What is worked on: `$CORPUS`. Shared, and not to be changed.
    pub(crate) corpus: &'a Path,
    /// A port on loopback that nobody used a moment ago: `$PORT`.
    pub(crate) port: u16,
}

impl Script<'_> {
    /// Runs it. Its output goes to `log` in its folder.
    ///
    /// # Errors
    /// When it fails: with the end of its log.
    pub(crate) fn run(&self) -> io::Result<Cost> {
        let log = self.work.join("log");
        let out = std::fs::File::create(&log)?;
        let start = Instant::now();
        let child = Command::new("bash")
            .args(["-euo", "pipefail", "-c", self.text])
            .current_dir(self.work)
            .env("IMGDECL", env!("CARGO_BIN_EXE_imgdecl"))
            .env("IMGDECL_CACHE_DIR", self.work.join("cache"))
            .env("WORK", self.work)
            .env("CORPUS", self.corpus)
            .env("PORT", self.port.to_string())
            .env_remove("CI")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn();
        let used = child?.wait4()?;
        let time = start.elapsed();
        if !used.status.success() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(15).collect();
            let end: Vec<&str> = lines.into_iter().rev().collect();
            let message = format!("{}\n{}\n{}", used.status, self.text.trim(), end.join("\n"));
            return Err(io::Error::other(message));
        }
        Ok(Cost {
            time,
            cpu: used.rusage.utime + used.rusage.stime,
            peak: used.rusage.maxrss,
        })
    }
}

/// Returns `count` ports on loopback that nobody listens on.
pub(crate) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let listener = |_| std::net::TcpListener::bind("127.0.0.1:0");
    // All are taken before one is given back: no two are alike.
    let listeners = (0..count).map(listener).collect::<io::Result<Vec<_>>>()?;
    let ports = listeners.iter().map(|it| Ok(it.local_addr()?.port()));
    ports.collect()
}

/// Returns a program that is not there, if any.
pub(crate) fn missing(needs: &[String]) -> Option<&String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &String| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    needs.iter().find(|name| !has(name))
}
