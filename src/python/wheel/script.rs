//! The scripts that a wheel gets: launchers of entry points, and first lines that name the image's interpreter.

use super::entry_points::Callee;

/// How long a first line may be for every kernel, in bytes, with its `#!` (Linux before 5.1: 127).
const SHEBANG: usize = 127;

/// Returns what a script begins with so that `interpreter` runs it: a first line, or what a shell runs where that cannot be.
pub(super) fn shebang(interpreter: &str) -> String {
    match !interpreter.contains(' ') && interpreter.len() + 2 <= SHEBANG {
        true => format!("#!{interpreter}\n"),
        // A shell runs the second line; Python reads it and the third as one string.
        false => format!("#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\"\n' '''\n"),
    }
}

/// Returns the script that calls an entry point.
pub(super) fn launcher(interpreter: &str, callee: &Callee) -> Vec<u8> {
    let Callee { module, attribute } = callee;
    let name = attribute.split('.').next().unwrap_or(attribute);
    format!(
        "{}import sys\nfrom {module} import {name}\nif __name__ == '__main__':\n    sys.exit({attribute}())\n",
        shebang(interpreter)
    )
    .into_bytes()
}

/// How a script begins whose first line is to name the interpreter.
pub(super) const PLACEHOLDER: &[u8] = b"#!python";

/// Returns a script that begins with the placeholder, with the interpreter in its place.
pub(super) fn rewritten(interpreter: &str, script: &[u8]) -> Vec<u8> {
    let end = script.iter().position(|it| *it == b'\n');
    let rest = end.map_or(&[][..], |end| &script[end + 1..]);
    let mut out = shebang(interpreter).into_bytes();
    out.extend_from_slice(rest);
    out
}

/// Tells whether a name in the folder of scripts is an interpreter's: `python`, `python3`, `python3.11`, `pythonw`.
pub(super) fn is_reserved(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("python") else {
        return false;
    };
    let rest = rest.strip_prefix('w').unwrap_or(rest);
    let rest = rest.strip_suffix('t').unwrap_or(rest);
    rest.bytes().all(|it| it.is_ascii_digit() || it == b'.')
}

/// Returns the names of the scripts of pip for an interpreter, which its wheel cannot know.
pub(super) fn pip_names((major, minor): (u32, u32)) -> [String; 3] {
    [
        "pip".to_owned(),
        format!("pip{major}"),
        format!("pip{major}.{minor}"),
    ]
}

/// Tells whether a name is one of pip's scripts for some interpreter.
pub(super) fn is_pip(name: &str) -> bool {
    name.strip_prefix("pip")
        .is_some_and(|rest| rest.bytes().all(|it| it.is_ascii_digit() || it == b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_constant() {
        let callee = Callee {
            module: "a.b".to_owned(),
            attribute: "C.d".to_owned(),
        };
        let text = launcher("/usr/local/bin/python3.11", &callee);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "#!/usr/local/bin/python3.11\nimport sys\nfrom a.b import C\nif __name__ == '__main__':\n    sys.exit(C.d())\n"
        );
    }

    #[test]
    fn long_and_spaced_paths_go_through_a_shell() {
        assert!(shebang(&format!("/{}", "x".repeat(124))).starts_with("#!/xxx"));
        assert!(shebang(&format!("/{}", "x".repeat(125))).starts_with("#!/bin/sh\n"));
        assert_eq!(
            shebang("/a b/python3"),
            "#!/bin/sh\n'''exec' \"/a b/python3\" \"$0\" \"$@\"\n' '''\n"
        );
    }

    #[test]
    fn only_the_first_line_is_replaced() {
        let with = |script: &[u8]| rewritten("/p", script);
        assert_eq!(with(b"#!python\nx\n#!python\n"), b"#!/p\nx\n#!python\n");
        assert_eq!(with(b"#!pythonw -E\r\nx"), b"#!/p\nx");
        assert_eq!(with(b"#!python"), b"#!/p\n");
    }

    #[test]
    fn reserved_names() {
        for name in ["python", "python3", "python3.11", "pythonw", "python3.13t"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["python-argcomplete-check", "pythonic", "ipython", "pytho"] {
            assert!(!is_reserved(name), "{name}");
        }
        assert!(is_pip("pip3.9") && !is_pip("pipx") && !is_pip("pip-audit"));
    }
}
