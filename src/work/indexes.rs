//! How the commands reach package indexes: which there are is found out when the first is needed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use crate::graph::{ActionError, Stop};
use crate::index::discover::{ConfigFile, Places, discover};
use crate::index::{Credentials, Indexes, Setup, Source};
use crate::net::{Limits, Monitor};
use crate::store::Store;

/// How large a configuration file may be, in bytes.
const CONFIG: u64 = 1 << 20;
/// How long the host's own tools may take to say their default, together.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of what they say is read, in bytes.
const SPOKEN: u64 = 256 << 10;

/// Which indexes the user chose.
#[derive(Clone, Default)]
pub(super) struct Chosen {
    /// Those of the manifest.
    pub(super) manifest: Option<Vec<Source>>,
    /// The URL of the command line.
    pub(super) flag: Option<String>,
    /// Whether every page is asked for, however fresh its index called it.
    pub(super) is_anew: bool,
}

/// Makes the client. Nothing is read or asked yet but `.netrc` and variables.
pub(super) fn indexes(session: &Session, chosen: Chosen, store: &Arc<Store>) -> Indexes {
    let environment = session.environment.indexes.clone();
    let (netrc, warning) = match environment.netrc.as_deref().map(read) {
        None | Some(Ok(None)) => (None, None),
        Some(Ok(Some(file))) => (Some(file.text), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let credentials = Credentials::new(netrc.as_deref(), environment.variables.clone());
    let (ear, stop) = (Arc::clone(&session.events), session.stop.clone());
    let pinned = chosen.manifest.clone().unwrap_or_default();
    let is_anew = chosen.is_anew;
    let find = move || {
        let mut warnings: Vec<String> = warning.clone().into_iter().collect();
        let mut files = |paths: &[PathBuf]| {
            let mut files = Vec::new();
            for path in paths {
                match read(path) {
                    Ok(file) => files.extend(file),
                    Err(why) => warnings.push(why),
                }
            }
            files
        };
        let places = Places {
            manifest: chosen.manifest.clone(),
            flag: chosen.flag.clone(),
            variables: environment.variables.clone(),
            uv: files(&environment.uv),
            pip: files(&environment.pip),
        };
        let found = discover(&places, &|| ask(&stop)).map_err(|error| *error)?;
        for warning in warnings.iter().chain(&found.warnings) {
            Monitor::note(&*ear, warning);
        }
        match stop.is_asked() {
            true => Err(ActionError::stopped()),
            false => Ok(found.sources),
        }
    };
    let pinned = pinned.into_iter().filter(Source::is_pinned).collect();
    Indexes::new(Setup {
        sources: Box::new(find),
        pinned,
        credentials,
        proxies: session.environment.proxies.clone(),
        monitor: session.events.clone(),
        limits: Limits::default(),
        cache: Arc::clone(store),
        is_anew,
    })
}

/// Reads a configuration file; `None` if it is not there.
fn read(path: &Path) -> Result<Option<ConfigFile>, String> {
    let fail = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    match std::fs::metadata(path) {
        // Before it is opened: a fifo would block.
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(metadata) if metadata.len() > CONFIG => return Err(fail(&"it is too large")),
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(fail(&error)),
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
    Ok(Some(ConfigFile {
        name: path.display().to_string(),
        text,
    }))
}

/// Asks the tools of this machine which index they would ask.
fn ask(stop: &Stop) -> Option<String> {
    let script = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";
    let deadline = Instant::now() + PATIENCE;
    let ways: [(&str, &[&str]); 4] = [
        ("python3", &["-c", script]),
        ("python", &["-c", script]),
        // Their help says the default.
        ("pip", &["install", "--help"]),
        ("uv", &["pip", "install", "--help"]),
    ];
    let mut ways = ways.into_iter();
    ways.find_map(|(program, arguments)| said(&run(program, arguments, deadline, stop)?))
}

/// Finds the URL in what a tool says: all of it, or what follows the word "default".
fn said(text: &str) -> Option<String> {
    let is_url = |it: &str| it.starts_with("https://") || it.starts_with("http://");
    let whole = text.trim();
    if is_url(whole) && !whole.contains(char::is_whitespace) {
        return Some(whole.to_owned());
    }
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let is_default = matches!(word.trim_matches(['(', '[', ':']), "default");
        let next = words.peek().copied().unwrap_or_default();
        let next = next.trim_matches(['(', ')', '<', '>', '[', ']', '.', ',']);
        if is_default && is_url(next) {
            return Some(next.to_owned());
        }
    }
    None
}

/// Runs a program until the deadline at most; returns what it says if it ends well.
fn run(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    deadline: Instant,
    stop: &Stop,
) -> Option<String> {
    // A file takes whatever it says without anybody reading.
    let mut out: File = tempfile::tempfile().ok()?;
    let mut child = Command::new(program)
        .args(arguments)
        // Python looks for modules in the working folder, which may be a stranger's.
        .current_dir("/")
        .env("PYTHONSAFEPATH", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(out.try_clone().ok()?)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline && !stop.is_asked() => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => break None,
        }
    };
    let Some(status) = status else {
        // All that it started too.
        if let Some(group) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
        return None;
    };
    let mut text = Vec::new();
    out.rewind().ok()?;
    out.take(SPOKEN).read_to_end(&mut text).ok()?;
    status
        .success()
        .then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_default_in_what_tools_say() {
        for (text, url) in [
            (
                "https://i.example/simple\n",
                Some("https://i.example/simple"),
            ),
            (
                "  -i, --index-url <url>  Base URL of the Python Package Index (default\n      https://i.example/simple). This should",
                Some("https://i.example/simple"),
            ),
            (
                "The URL of the default package index (by default: <https://i.example/simple>)",
                Some("https://i.example/simple"),
            ),
            ("see https://docs.example for the default cache", None),
            ("", None),
        ] {
            assert_eq!(said(text).as_deref(), url, "{text}");
        }
    }

    #[test]
    fn no_program_is_waited_for_too_long() {
        let soon = || Instant::now() + Duration::from_millis(300);
        let late = || Instant::now() + Duration::from_secs(30);
        assert_eq!(
            run("sh", &["-c", "pwd"], late(), &Stop::default()).as_deref(),
            Some("/\n")
        );
        assert_eq!(
            run("sh", &["-c", "echo x; exit 1"], late(), &Stop::default()),
            None
        );
        assert_eq!(run("no-such-program", &[], late(), &Stop::default()), None);
        let start = Instant::now();
        assert_eq!(
            run("sh", &["-c", "sleep 20 & wait"], soon(), &Stop::default()),
            None
        );
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn reads_files_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pip.conf");
        assert!(read(&path).unwrap().is_none());
        assert!(read(folder.path()).unwrap().is_none());
        std::fs::write(&path, "x").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().text, "x");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read(&path).err().unwrap().contains("pip.conf"));
    }
}
