//! The second build: by a process of its own, in a copy of the workspace, with an empty cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Request;
use super::copy::{self, CopyError};
use crate::exec::Memory;
use crate::graph::ActionError;
use crate::rule;
use crate::store::Store;
use crate::work::image::{Opened, Opener};
use crate::work::workspace::Workspace;
use crate::work::{Blame, Failed, Session, lock};

/// How often it is looked whether the build has ended.
const WAIT: Duration = Duration::from_millis(20);

/// What must not matter, as the second build has it.
const VARIABLES: [(&str, &str); 3] = [
    ("TZ", "Asia/Kathmandu"),
    ("LANG", "tr_TR.UTF-8"),
    ("LC_ALL", "tr_TR.UTF-8"),
];

/// A build that is to be repeated. All of it lies in a temporary folder, and goes away with it.
pub(super) struct Again<'a> {
    session: &'a Session,
    request: &'a Request,
    folder: TempDir,
    root: PathBuf,
    manifest: PathBuf,
    never: BTreeSet<PathBuf>,
    out: PathBuf,
    cache: std::cell::OnceCell<TempDir>,
}

impl<'a> Again<'a> {
    /// Makes ready to build what was chosen once more.
    pub(super) fn new(
        session: &'a Session,
        workspace: &Workspace,
        request: &'a Request,
    ) -> Result<Self, Failed> {
        let root = workspace.spec.root.clone();
        let manifest = workspace.manifest.canonicalize();
        let manifest = manifest.unwrap_or_else(|_| workspace.manifest.clone());
        let mut never = workspace.never();
        // It is no input of a layer, but one of the build.
        never.remove(&root.join(crate::lock::FILE));
        let folder = tempfile::Builder::new()
            .prefix("imgdecl-verify-")
            .tempdir()
            .map_err(|error| unwritable(&error))?;
        Ok(Self {
            session,
            request,
            out: folder.path().join("out"),
            folder,
            root,
            manifest,
            never,
            cache: std::cell::OnceCell::new(),
        })
    }

    /// Returns the layout that the second build writes.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// Gives the second build's cache the bytes that the lock names, so that nothing is fetched twice.
    pub(super) fn lend(&self, opener: &Opener<'_>) -> Result<(), Failed> {
        // Beside the real one: on the same file system, nothing need be copied.
        let made = TempDir::with_prefix_in("verify-", opener.store.tmp());
        let made = made.map_err(|error| unwritable(&error))?;
        let lock = lock::load(&self.root)?;
        let lent = Store::open(made.path()).map_err(ActionError::from);
        let lent = lent.and_then(|to| {
            let from = &*opener.store;
            let (known, parts) = (Memory::new(from, from), Memory::new(&to, &to));
            rule::lend(&lock, (from, &known), (&to, &parts))
        });
        self.session.go_on()?;
        lent.map_err(|error| {
            let help = error.help.clone();
            Failed::error(Blame::Cache, error.code, &error, help)
        })?;
        let _ = self.cache.set(made);
        Ok(())
    }

    /// Builds. Returns what was different.
    pub(super) fn run(&self, images: &[Opened]) -> Result<Vec<String>, Failed> {
        // The name is longer, and has what paths seldom have.
        let to = self.folder.path().join("another folder/with a longer näme");
        let copied = copy::workspace(&self.root, &self.never, &to, &self.session.stop)
            .map_err(|error| told(self.session, &error))?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = if cpus > 1 { 1 } else { 4 };
        let mut command = self.command(&copied.root, jobs)?;
        command.args(images.iter().map(|image| &image.name));
        let status = under_umask(|| self.wait(&mut command))?;
        self.session.go_on()?;
        if !status.success() {
            let message = "the second build failed, although the first one did not";
            let help = match copied.unread {
                0 => "what is said above, in a copy of the workspace, says why: it reads something outside of it".to_owned(),
                unread => format!("{unread} files or folders cannot be read, and were not copied"),
            };
            return Err(Failed::build("imgdecl::verify::again", message, Some(help)));
        }
        let mut varied = vec![
            "the folder".to_owned(),
            "the order in which files were made".to_owned(),
            "times and modes of files".to_owned(),
            "umask 077".to_owned(),
        ];
        varied.extend(VARIABLES.map(|(name, value)| format!("{name}={value}")));
        varied.push("HOME".to_owned());
        varied.push(format!("--jobs {jobs} instead of {cpus}"));
        varied.push("an empty cache".to_owned());
        Ok(varied)
    }

    fn command(&self, root: &Path, jobs: usize) -> Result<Command, Failed> {
        let environment = &self.session.environment;
        let program = environment.executable.as_ref().map_err(|error| {
            let message = format!("cannot find the program itself: {error}");
            Failed::build("imgdecl::verify::program", &message, None)
        })?;
        let Some(cache) = self.cache.get() else {
            return Err(Failed::bug("the second build has no cache"));
        };
        let home = self.folder.path().join("home");
        std::fs::create_dir(&home).map_err(|error| unwritable(&error))?;
        let manifest = self.manifest.strip_prefix(&self.root);
        let manifest = root.join(manifest.unwrap_or(&self.manifest));
        let open = &self.request.open;
        let mut command = Command::new(program);
        command
            .current_dir(root)
            .envs(environment.settings_of_home.iter().cloned())
            .envs(VARIABLES)
            .env("HOME", home)
            .env("IMGDECL_CACHE_DIR", cache.path())
            // A look at the work tree must not write to the repository.
            .env("GIT_OPTIONAL_LOCKS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .args(["build", "--locked", "--progress", "none", "--output"])
            .arg(format!("oci:{}", self.out.display()))
            .args(["--jobs", &jobs.to_string()]);
        if open.network.offline {
            command.arg("--offline");
        }
        if let Some(file) = &open.network.authfile {
            command
                .arg("--authfile")
                .arg(self.session.here()?.join(file));
        }
        if let Some(url) = &open.network.index_url {
            command.args(["--index-url", url]);
        }
        for platform in &open.platforms {
            command.args(["--platform", &platform.to_string()]);
        }
        for (name, value) in &open.set {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.arg(manifest);
        Ok(command)
    }

    /// Runs the build to its end, or until the user stops it.
    fn wait(&self, command: &mut Command) -> Result<ExitStatus, Failed> {
        let failed = |error: std::io::Error| {
            let message = format!("cannot run the second build: {error}");
            Failed::build("imgdecl::verify::program", &message, None)
        };
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return Err(failed(error)),
        };
        let mut is_told = false;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => std::thread::sleep(WAIT),
                Err(error) => return Err(failed(error)),
            }
            if self.session.stop.is_asked() && !std::mem::replace(&mut is_told, true) {
                let _ = child.kill();
            }
        }
    }
}

/// Runs something that starts a process, under another umask. No other thread makes files meanwhile.
fn under_umask<T>(run: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let done = run();
    rustix::process::umask(before);
    done
}

fn unwritable(error: &std::io::Error) -> Failed {
    let help = "free space, or name another folder with TMPDIR";
    let message = format!("cannot make a temporary folder: {error}");
    Failed::build("imgdecl::verify::folder", &message, Some(help.into()))
}

fn told(session: &Session, error: &CopyError) -> Failed {
    if session.stop.is_asked() {
        return Failed::Stopped;
    }
    let help = "the second build takes place in a copy of the workspace";
    Failed::error(
        Blame::Build,
        "imgdecl::verify::copy",
        error,
        Some(help.into()),
    )
}
