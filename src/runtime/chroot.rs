//! An image as a process by chroot(2) alone: no namespaces, no limits, the host's network, processes and devices. It shows
//! how little a container needs; it is no wall.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::container::io;
use super::run_folder::RunFolder;
use super::{ApplyError, Ended, Image, Limits, RunError, Watch, apply, bundle};
use crate::layer::Tick;
use crate::store::Store;

/// The first argument of the program when it is to change its root, and become the image's process. Not for people.
pub(crate) const INNER: &str = "--imgdecl-chroot";

/// What the names of the image's variables begin with until the root is changed: the loader of our own program, which
/// still runs on the host, must not obey them. `LD_PRELOAD` and its like would be the image's word on the host.
const MARK: &str = "+";

/// What a terminal sends to all processes that it has.
const OF_TERMINALS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::WINCH];

/// An image to be run in a root of its own.
pub(crate) struct Chroot<'a> {
    /// The image.
    pub image: &'a Image<'a>,
    /// How it differs from what the image says; limits, mounts and networks are not for it.
    pub options: &'a bundle::Options,
    /// This program: called with [`INNER`], it calls [`inner`].
    pub program: &'a Path,
}

impl Chroot<'_> {
    /// Runs it until it ends.
    ///
    /// # Errors
    /// When it cannot be run. What its process did is no error: see [`Ended`].
    pub(crate) fn run(
        &self,
        store: &Store,
        watch: &dyn Watch,
        tick: Tick<'_>,
    ) -> Result<Ended, RunError> {
        if !rustix::process::geteuid().is_root() {
            return Err(RunError::Root);
        }
        let run_folder =
            RunFolder::new(&store.runs()).map_err(io("make a folder for the run in the cache"))?;
        std::fs::create_dir_all(run_folder.root()).map_err(io("make a folder for the root"))?;
        watch.unpacks();
        apply(self.image, &run_folder.root(), &Limits::default(), tick)?;
        let spec = bundle::spec(self.image.config, &run_folder.root(), self.options)?.json;
        let process = &spec["process"];
        super::program::check(&run_folder.root(), process)?;
        let words = |field: &str| {
            let all = process[field].as_array().into_iter().flatten();
            all.filter_map(|it| it.as_str().map(OsString::from))
                .collect::<Vec<_>>()
        };
        let number = |field: &str| process["user"][field].to_string();
        // Root and user are changed in a process of their own, which then becomes the image's.
        let mut command = Command::new(self.program);
        command
            .arg(INNER)
            .arg(run_folder.root())
            .arg(number("uid"))
            .arg(number("gid"));
        command
            .arg(process["cwd"].as_str().unwrap_or("/"))
            .args(words("args"));
        let env = words("env");
        let env = env.iter().filter_map(|entry| split(entry));
        command.env_clear().envs(env.map(|(name, value)| {
            let mut marked = OsString::from(MARK);
            marked.push(name);
            (marked, value.to_owned())
        }));
        // A process group that a terminal does not know may not read from it. In ours, it hears the terminal itself.
        let has_terminal = rustix::termios::isatty(std::io::stdin());
        if !has_terminal {
            command.process_group(0);
        }
        if !watch.starts() {
            return Err(ApplyError::Stopped.into());
        }
        let mut child = command.spawn().map_err(io("start the process"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io("wait for the process"))? {
                break status;
            }
            let signals = watch
                .signals()
                .into_iter()
                .filter_map(Signal::from_named_raw)
                .filter(|it| !(has_terminal && OF_TERMINALS.contains(it)));
            for (pid, signal) in signals.filter_map(|it| Some((pid?, it))) {
                let _ = kill_process(pid, signal);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        Ok(Ended {
            code: code.and_then(|it| u8::try_from(it).ok()).unwrap_or(255),
            out_of_memory: false,
        })
    }
}

/// Changes root and user, and becomes the process: the arguments are those that [`Chroot::run`] gives after [`INNER`].
///
/// `environment` holds the image's variables, as the process has them. Returns only if that fails, and then why.
pub(crate) fn inner(arguments: &[OsString], environment: &[(OsString, OsString)]) -> String {
    let [root, uid, gid, cwd, program, rest @ ..] = arguments else {
        return "too few arguments".to_owned();
    };
    let number = |text: &OsString| text.to_str().and_then(|it| it.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (number(uid), number(gid)) else {
        return "user and group are no numbers".to_owned();
    };
    let entered = std::os::unix::fs::chroot(root);
    if let Err(error) = entered.and_then(|()| Ok(rustix::process::chdir("/")?)) {
        return format!("cannot change the root: {error}");
    }
    if let Err(error) = rustix::process::chdir(cwd) {
        return format!("the image has no folder {}: {error}", cwd.display());
    }
    let own = environment.iter().filter_map(|(name, value)| {
        let name = name.as_bytes().strip_prefix(MARK.as_bytes())?;
        Some((OsStr::from_bytes(name), value))
    });
    // The program is looked for in the image's PATH.
    let mut command = Command::new(program);
    command.args(rest).env_clear().envs(own);
    let error = command.uid(uid).gid(gid).exec();
    format!("cannot run {}: {error}", program.display())
}

/// Splits `NAME=VALUE`.
fn split(entry: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = entry.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
}
