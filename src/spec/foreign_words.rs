//! Words that Dockerfiles and compose files have, and what stands here for them.

/// A word of theirs, the keys of which a table must have one for the advice to make sense there, and the advice. An empty
/// list stands for any table.
const WORDS: &[(&[&str], &[&str], &str)] = &[
    (
        &["from"],
        &["base"],
        "it is `base`, the name of a base or of an image",
    ),
    (
        &["image"],
        &["base"],
        "it is `base`, which names a `[base.NAME]` with `image`",
    ),
    (&["expose"], &["ports"], "it is `ports`: ports = [8000]"),
    (
        &["environment"],
        &["env"],
        "it is `env`: env = { NAME = \"value\" }",
    ),
    (
        &["command"],
        &["cmd"],
        "it is `cmd`, or `entrypoint` for what always runs",
    ),
    (
        &["working_dir", "work_dir", "cwd"],
        &["workdir"],
        "it is `workdir`",
    ),
    (&["stopsignal"], &["stop_signal"], "it is `stop_signal`"),
    (
        &["name", "container_name"],
        &["base"],
        "an image is called as its table is, as in `[image.NAME]`; `repository` says where it is pushed to",
    ),
    (
        &["copy"],
        &["layers"],
        "files come as a layer: layers = [{ files = { src = \"app\", dest = \"/app\" } }]; with `from`, they come out of \
         another image",
    ),
    (
        &["add"],
        &["layers"],
        "files come as a layer: layers = [{ files = { src = \"app\", dest = \"/app\" } }]; what lies at a URL does, too: \
         { http = { url = \"https://…\", dest = \"/app/\" } }",
    ),
    (
        &["url", "download", "http", "https"],
        &["layers", "src"],
        "what lies at a URL is a layer of the rule `http`: [http.NAME] with `url` and `dest`",
    ),
    (
        &["checksum", "digest", "sha", "hash"],
        &["sha256"],
        "it is `sha256`",
    ),
    (&["src", "source"], &["sha256"], "it is `url`"),
    (
        &["files"],
        &["layers"],
        "it is one of `layers`: layers = [{ files = { src = \"app\", dest = \"/app\" } }]",
    ),
    (
        &["run"],
        &["layers"],
        "no shell builds an image: files, archives and packages are its layers, and what a command makes is a layer of a \
         `[command.NAME]`",
    ),
    (
        &["arg", "args", "build_args"],
        &["base"],
        "variables stand in `[vars]`, and `--set NAME=VALUE` overrides them",
    ),
    (
        &["maintainer"],
        &["labels"],
        "it is a label: labels = { \"org.opencontainers.image.authors\" = \"…\" }",
    ),
    (
        &["dockerfile", "build", "context"],
        &["base"],
        "no Dockerfile is read: an image is its `base` and its `layers`",
    ),
    (
        &[
            "restart",
            "networks",
            "network",
            "depends_on",
            "deploy",
            "secrets",
            "container",
            "links",
        ],
        &["base"],
        "it is of how containers run, and not of an image: it stays in your compose file or deployment",
    ),
    (&["source", "path", "from", "copy"], &["src"], "it is `src`"),
    (
        &["target", "destination", "to", "workdir"],
        &["dest"],
        "it is `dest`",
    ),
    (
        &["chown", "user"],
        &["owner"],
        "it is `owner`, in numbers: owner = \"1000:1000\"",
    ),
    (
        &["chmod", "permissions"],
        &["mode"],
        "it is `mode`: mode = \"0755\"",
    ),
    (
        &["ignores", "dockerignore"],
        &["ignore"],
        "it is `ignore`: ignore = [\".dockerignore\"]",
    ),
    (
        &["name", "tag", "from", "ref"],
        &["image", "layout"],
        "it is `image`: image = \"python:3.11-slim\"",
    ),
    (
        &["requirement", "requires"],
        &["requirements"],
        "it is `requirements`: requirements = [\"requirements.txt\"]",
    ),
];

/// Names of rules that people look for.
const RULES: &[(&[&str], &str)] = &[
    (
        &["apt", "deb", "apk", "dnf", "yum", "rpm"],
        "packages of a distribution come with a base that has them; a single archive can be a layer of `tar`",
    ),
    (
        &[
            "run", "build", "script", "step", "genrule", "npm", "node", "yarn", "pnpm", "go",
            "cargo", "make",
        ],
        "a command that makes a layer is a `[command.NAME]`, with `image`, `run` and `outputs`",
    ),
    (
        &["copy", "src", "file", "dir", "folder"],
        "it is `[files.NAME]`, with `src` and `dest`",
    ),
    (
        &["add"],
        "it is `[files.NAME]`, with `src` and `dest`; for what lies at a URL, `[http.NAME]`",
    ),
    (
        &[
            "download", "url", "https", "curl", "wget", "fetch", "remote",
        ],
        "it is `[http.NAME]`, with `url` and `dest`",
    ),
    (
        &["from", "stage"],
        "it is `[base.NAME]`, with `image`; `from` of `[files.NAME]` takes files out of one",
    ),
    (
        &["python", "requirements", "poetry", "uv", "packages", "pypi"],
        "it is `[pip.NAME]`",
    ),
    (
        &["services", "service", "app", "container"],
        "it is `[image.NAME]`",
    ),
    (
        &["args", "arg", "env", "variables"],
        "variables stand in `[vars]`; those of a container in `env` of its image",
    ),
    (
        &["project", "package", "tool"],
        "that is of another file: this one has images, and what they are made of",
    ),
];

/// Says what stands here for a word that is no key of a table with the keys `keys`.
pub(super) fn key<'a>(
    word: &str,
    keys: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let fits = |own: &[&str]| keys.clone().any(|key| own.contains(&key));
    let found = WORDS
        .iter()
        .find(|(words, own, _)| words.contains(&word.as_str()) && fits(own));
    found.map(|(_, _, advice)| *advice)
}

/// Says what stands here for a word that is no rule.
pub(crate) fn rule(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let found = RULES
        .iter()
        .find(|(words, _)| words.contains(&word.as_str()));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_to_keys_of_the_table_alone() {
        let image = [
            "base",
            "layers",
            "cmd",
            "env",
            "ports",
            "workdir",
            "labels",
            "stop_signal",
        ];
        let files = ["src", "dest", "owner", "mode", "ignore"];
        let of = |word: &str, keys: &[&'static str]| key(word, keys.iter().copied());
        assert!(of("from", &image).unwrap().contains("`base`"));
        assert!(of("FROM", &image).unwrap().contains("`base`"));
        assert!(of("from", &files).unwrap().contains("`src`"));
        assert!(of("chown", &files).unwrap().contains("`owner`"));
        assert_eq!(of("expose", &files), None);
        assert_eq!(of("colour", &image), None);
        assert!(of("ADD", &image).unwrap().contains("http"));
        assert!(of("url", &files).unwrap().contains("`http`"));
        assert!(rule("download").unwrap().contains("[http.NAME]"));
        assert!(rule("apt").is_some() && rule("colour").is_none());
    }
}
