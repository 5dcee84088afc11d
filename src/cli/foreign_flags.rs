//! Tips for those who know other tools: what stands here for a flag of theirs.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What other tools have: a command of ours, their flags, and what to do here.
const TIPS: &[(&str, &[&str], &str)] = &[
    ("run", &["--rm"], "leave it out: nothing of a run stays"),
    (
        "run",
        &["-p", "--publish", "-P"],
        "leave it out: with `--net host`, the default, a port of the container is one of the host",
    ),
    (
        "run",
        &["-d", "--detach"],
        "leave it out: a run lasts as long as its process, which `&` of a shell puts into the background",
    ),
    ("run", &["--network"], "it is `--net host` or `--net none`"),
    (
        "build",
        &["-t"],
        "it is `--tag TAG`; the names of images are those of targets, and `repository`",
    ),
    (
        "build",
        &["-f", "--file"],
        "name the manifest alone: `imgdecl build FILE`",
    ),
    (
        "build",
        &["--no-cache"],
        "nothing stale is ever used; to build all again, set IMGDECL_CACHE_DIR to a new folder, or run `imgdecl verify`",
    ),
    (
        "build",
        &["--target"],
        "name targets alone, after the manifest if there is one: `imgdecl build NAME`",
    ),
    (
        "build",
        &["--build-arg"],
        "it is `--set NAME=VALUE`, for what stands in `[vars]`",
    ),
    (
        "build",
        &["--dry-run"],
        "it is another command: `imgdecl plan`",
    ),
    ("build", &["-q", "--quiet"], "it is `--progress none`"),
    (
        "build",
        &["-v", "--verbose"],
        "it is `--progress plain`; `--explain` says why something is built",
    ),
    (
        "build",
        &["--pull"],
        "it is another command: `imgdecl lock --update` takes what names in registries stand for now",
    ),
    (
        "build",
        &["--secret", "--ssh"],
        "leave it out: nothing is run to build, and credentials are those of docker, podman and .netrc",
    ),
    (
        "build",
        &["--cache-from", "--cache-to"],
        "leave it out: keep the folder that IMGDECL_CACHE_DIR names",
    ),
];

/// Adds a tip to an error of the command line of `command`, where there is one.
pub(super) fn add(error: &mut clap::Error, command: &str) {
    if error.kind() != ErrorKind::UnknownArgument {
        return;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    let known = TIPS
        .iter()
        .find(|(of, flags, _)| *of == command && flags.contains(&&**flag));
    let tip = match known {
        Some((_, _, tip)) => (*tip).to_owned(),
        None if command == "run" && !flag.starts_with('-') => {
            format!("what is for the program follows `--`: imgdecl run IMAGE -- {flag}")
        }
        None => return,
    };
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::Args;

    #[test]
    fn tips_are_shown_for_flags_that_are_not_ours() {
        let said = |words: &[&str]| {
            let words = ["imgdecl"].iter().chain(words);
            let mut error = Args::try_parse_from(words.copied().collect::<Vec<_>>()).err()?;
            add(&mut error, "run");
            Some(error.to_string())
        };
        let text = said(&["run", "--rm", "image"]).unwrap();
        assert!(text.contains("tip: leave it out"), "{text}");
        assert!(!text.contains("as a value"), "{text}");
        assert_eq!(said(&["run", "image", "-it"]), None);
        let text = said(&["run", "image", "Bob"]).unwrap();
        assert!(text.contains("imgdecl run IMAGE -- Bob"), "{text}");
        assert_eq!(said(&["run", "image", "--", "Bob"]), None);
        for (command, flags, _) in TIPS.iter().copied() {
            let mut args = Args::command();
            let of = args.find_subcommand_mut(command).unwrap();
            for flag in flags {
                let ours = of.get_arguments().any(|it| match flag.strip_prefix("--") {
                    Some(long) => it.get_long() == Some(long),
                    None => it.get_short() == flag.chars().nth(1),
                });
                assert!(!ours, "{command} {flag} is there");
            }
        }
    }
}
