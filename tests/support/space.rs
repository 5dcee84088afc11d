//! A work folder with a cache and a home of its own, in which the real binary runs. Many run at once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_imgdecl");

/// A work folder, a cache and a home; all go away with it.
pub(crate) struct Space {
    #[expect(dead_code, reason = "removes the folders when it is dropped")]
    folder: TempDir,
    work: PathBuf,
    cache: PathBuf,
    home: PathBuf,
}

/// What a run of the binary left.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// The exit code; 128 and the signal where one ended it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Space {
    /// Makes empty folders.
    pub(crate) fn new() -> Self {
        // Messages are wrapped: their lines are equal each time only where the path is of one length, and has no place
        // to break at.
        let folder = TempDir::with_prefix_in("imgdecl", "/tmp").expect("a temporary folder");
        let root = folder.path().canonicalize().expect("its real path");
        let [work, cache, home] = ["work", "cache", "home"].map(|name| root.join(name));
        fs::create_dir(&work).expect("a work folder");
        fs::create_dir(&home).expect("a home folder");
        Self {
            folder,
            work,
            cache,
            home,
        }
    }

    /// The work folder, in which commands run.
    pub(crate) fn path(&self) -> &Path {
        &self.work
    }

    /// The cache folder; it comes with the first build.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Writes a file of the work folder, and the folders above it.
    pub(crate) fn write(&self, rel: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work.join(rel);
        let folder = path.parent().expect("a path in the work folder");
        fs::create_dir_all(folder).expect("folders");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Copies a folder's content into the work folder.
    pub(crate) fn copy(&self, from: &Path) {
        copy(from, &self.work);
    }

    /// A command that runs the binary in the work folder, with a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(BINARY);
        command.args(args);
        command
    }

    /// A command that runs another program in the same way.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.work)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("IMGDECL_CACHE_DIR", &self.cache);
        command
    }

    /// Runs the binary.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// Runs the binary, which must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status, 0, "{args:?} failed:\n{}", output.stderr);
        output
    }
}

impl Output {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let code = output.status.code();
        Self {
            status: code.unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Copies the content of a folder into another: files with their modes, symlinks, empty folders.
pub(crate) fn copy(from: &Path, to: &Path) {
    let fail = |path: &Path, error| -> ! { panic!("{}: {error}", path.display()) };
    fs::create_dir_all(to).unwrap_or_else(|error| fail(to, error));
    let entries = fs::read_dir(from).unwrap_or_else(|error| fail(from, error));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| fail(from, error)).path();
        let target = to.join(path.file_name().expect("entries have names"));
        let metadata = fs::symlink_metadata(&path).unwrap_or_else(|error| fail(&path, error));
        if metadata.is_symlink() {
            fs::read_link(&path)
                .and_then(|text| symlink(text, &target))
                .unwrap_or_else(|error| fail(&target, error));
        } else if metadata.is_dir() {
            copy(&path, &target);
            let mode = fs::Permissions::from_mode(metadata.permissions().mode());
            fs::set_permissions(&target, mode).unwrap_or_else(|error| fail(&target, error));
        } else if metadata.is_file() {
            fs::copy(&path, &target).unwrap_or_else(|error| fail(&path, error));
        } else {
            panic!(
                "{}: only files, folders and symlinks are copied",
                path.display()
            );
        }
    }
}
