//! The program that an image is to run, looked at before anything is started: what is wrong with it is said in words, and
//! not by a runtime, for which a lost interpreter is a lost file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use super::root::Root;
use crate::program::{HEAD, loader, shebang};

/// Where the kernel's own files are, which no image holds.
const KERNELS: [&str; 3] = ["/proc/", "/sys/", "/dev/"];

/// A program that cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    /// No folder of PATH has it.
    #[error("the image has no such program in its PATH, {path}: {name}")]
    NotInPath {
        /// What it is called.
        name: String,
        /// The value of PATH.
        path: String,
    },
    /// There is no file of this path.
    #[error("the image has no such program: {0}")]
    Absent(String),
    /// There is something else, or a file that may not be run.
    #[error("the image cannot run {path}: {why}")]
    NoProgram {
        /// Its path.
        path: String,
        /// What it is.
        why: String,
    },
    /// What the program is run by is not there.
    #[error("the image cannot run {path}: it needs {interpreter}, which the image does not have")]
    Interpreter {
        /// Its path.
        path: String,
        /// What is missing.
        interpreter: String,
        /// Whether it is a script, and not a program that is linked dynamically.
        is_script: bool,
    },
}

impl ProgramError {
    /// Returns what mends it.
    /// Tells whether there is no program of that name at all.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::NotInPath { .. } | Self::Absent(_))
    }

    pub(crate) fn help(&self) -> String {
        match self {
            Self::NotInPath { .. } | Self::Absent(_) => {
                "name another with `--entrypoint`, or words after `--`"
            }
            Self::NoProgram { .. } => "`mode` of the rule `files` makes a file a program",
            Self::Interpreter {
                is_script: true, ..
            } => "build on a base that has it, or bring it in a layer",
            Self::Interpreter { .. } => {
                "link the program statically, or build on a base that has it"
            }
        }
        .to_owned()
    }
}

/// Checks that a root has the program of a process, as a bundle describes it, and what that is run by. What cannot be told
/// is left to the kernel.
pub(super) fn check(root: &Path, process: &Value) -> Result<(), ProgramError> {
    let Ok(root) = Root::open(root) else {
        return Ok(());
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, cwd) = (text(&process["args"][0]), text(&process["cwd"]));
    let env = process["env"].as_array().into_iter().flatten();
    let mut env = env.filter_map(Value::as_str);
    let path = env.find_map(|it| it.strip_prefix("PATH=")).unwrap_or("");
    if name.contains('/') {
        return match look(&root, &within(&cwd, &name)) {
            Looked::Absent => Err(ProgramError::Absent(name)),
            Looked::Program(file, path) => interpreter(&root, &file, path),
            Looked::Other(path, why) => Err(ProgramError::NoProgram { path, why }),
            Looked::Unknown => Ok(()),
        };
    }
    let mut refused = None;
    for folder in path.split(':') {
        match look(&root, &within(&cwd, &format!("{folder}/{name}"))) {
            Looked::Absent => {}
            Looked::Program(file, path) => return interpreter(&root, &file, path),
            // The next folder may have a better one.
            Looked::Other(path, why) => {
                refused.get_or_insert(ProgramError::NoProgram { path, why });
            }
            Looked::Unknown => return Ok(()),
        }
    }
    let path = path.to_owned();
    Err(refused.unwrap_or(ProgramError::NotInPath { name, path }))
}

/// What is at a path.
enum Looked {
    Absent,
    Program(File, String),
    Other(String, String),
    Unknown,
}

fn look(root: &Root, path: &str) -> Looked {
    if KERNELS.iter().any(|it| path.starts_with(it)) {
        return Looked::Unknown;
    }
    let other = |why: String| Looked::Other(path.to_owned(), why);
    match root.file(path.as_bytes()) {
        Ok(None) => Looked::Absent,
        Ok(Some(file)) => match file.metadata() {
            Ok(it) if it.mode() & 0o111 == 0 => {
                other(format!("it has the mode {:04o}", it.mode() & 0o7777))
            }
            _ => Looked::Program(file, path.to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::Other => other(error.to_string()),
        Err(_) => Looked::Unknown,
    }
}

/// Returns the path of what a process in `cwd` calls `name`.
fn within(cwd: &str, name: &str) -> String {
    match name.starts_with('/') {
        true => name.to_owned(),
        false => format!("{}/{name}", cwd.trim_end_matches('/')),
    }
}

/// Checks that what runs a program is there.
fn interpreter(root: &Root, file: &File, path: String) -> Result<(), ProgramError> {
    let mut head = Vec::new();
    if file.take(HEAD as u64).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    let is_script = head.starts_with(b"#!");
    let interpreter = match is_script {
        true => shebang(&head),
        false => loader(&head, &mut |part, at| file.read_exact_at(part, at).ok()),
    };
    // One that is named relatively depends on more than the image.
    match interpreter.filter(|it| it.starts_with('/')) {
        Some(interpreter) if matches!(look(root, &interpreter), Looked::Absent) => {
            Err(ProgramError::Interpreter {
                path,
                interpreter,
                is_script,
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;

    use super::*;

    /// A program of 64 bits with one segment, which names a loader.
    fn elf(loader: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = 3;
        bytes[72] = 120;
        bytes[96] = loader.len() as u8 + 1;
        bytes.extend(loader.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn programs_are_looked_for_as_the_kernel_and_path_do() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |path: &str, bytes: &[u8], mode: u32| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("usr/bin/static", b"\x7fELF\x02\x01", 0o755);
        put("usr/bin/linked", &elf("/lib64/ld.so"), 0o755);
        put("usr/bin/lost", &elf("/lib/ld-musl.so"), 0o755);
        put("usr/bin/plain", b"", 0o644);
        put("usr/bin/script", b"#! /bin/static -x\n", 0o755);
        put("usr/bin/windows", b"#!/bin/static\r\n", 0o755);
        put("usr/lib64/ld.so", b"", 0o755);
        put("opt/plain", b"", 0o755);
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/usr/lib64", root.join("lib64")).unwrap();
        let said = |name: &str| {
            let process =
                json!({"args": [name, "x"], "cwd": "/usr", "env": ["PATH=/nowhere:/bin:/opt"]});
            check(root, &process).err().map(|it| it.to_string())
        };
        for name in [
            "static",
            "linked",
            "script",
            "/bin/static",
            "bin/static",
            "plain",
            "/proc/self/exe",
        ] {
            assert_eq!(said(name), None, "{name}");
        }
        for (name, expected) in [
            (
                "nothing",
                "the image has no such program in its PATH, /nowhere:/bin:/opt: nothing",
            ),
            ("/nothing", "the image has no such program: /nothing"),
            ("./static", "the image has no such program: ./static"),
            (
                "/bin/plain",
                "the image cannot run /bin/plain: it has the mode 0644",
            ),
            (
                "/usr/bin",
                "the image cannot run /usr/bin: it is no regular file",
            ),
            (
                "lost",
                "the image cannot run /bin/lost: it needs /lib/ld-musl.so, which the image does not have",
            ),
            (
                "windows",
                "the image cannot run /bin/windows: it needs /bin/static\\r, which the image does not have",
            ),
        ] {
            assert_eq!(said(name).as_deref(), Some(expected));
        }
    }

    /// Returns the loader that a file names.
    fn named(head: &[u8], path: &Path) -> Option<String> {
        let file = File::open(path).unwrap();
        loader(head, &mut |part, at| file.read_exact_at(part, at).ok())
    }

    #[test]
    fn damaged_programs_are_left_to_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let whole = elf("/lib/ld.so");
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(named(&whole[..len], &path), None);
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(named(&whole, &path).as_deref(), Some("/lib/ld.so"));
        // Numbers that lead nowhere.
        for at in 32..whole.len() - 12 {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            fs::write(&path, &bytes).unwrap();
            let _ = named(&bytes, &path);
        }
    }
}
