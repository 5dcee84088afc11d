//! What a base says about Python: its interpreters, their site folders, and its C library. Found while the files of its
//! layers pass by. Knows nothing of where the layers are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Libc, Python};
use crate::tar::Whiteout;

/// A CPython of a base.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Interpreter {
    /// Its absolute path: `/usr/local/bin/python3.11`.
    pub(crate) path: String,
    /// Its version.
    pub(crate) version: Python,
    /// What scripts go below: `/usr/local`.
    pub(crate) prefix: String,
    /// The folder on its `sys.path` that packages go to.
    pub(crate) site: String,
    /// The folder for packages of one platform, where it is another one.
    pub(crate) platsite: Option<String>,
    /// The folders in the site folder that say which packages are there: `pip-24.0.dist-info`.
    pub(crate) installed: Vec<String>,
}

impl Interpreter {
    /// Returns what interpreters are sorted by: the likeliest comes first.
    fn rank(&self) -> (bool, std::cmp::Reverse<u32>, String) {
        let is_own = OWN.iter().any(|it| self.path.starts_with(it));
        let minor = std::cmp::Reverse(self.version.minor);
        (!is_own, minor, self.path.clone())
    }
}

/// Where images have the interpreter that they are for, beside one of the distribution: Docker's Python images, and those
/// for AWS Lambda.
const OWN: [&str; 2] = ["/usr/local/", "/var/lang/"];

/// What a base says about Python.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pythons {
    /// The interpreters, the likeliest first: those that the image is for, and newer ones.
    pub(crate) interpreters: Vec<Interpreter>,
    /// The C library, where there is one that is known.
    pub(crate) libc: Option<Libc>,
}

impl Pythons {
    /// Puts together what was found once.
    pub(crate) fn new(mut interpreters: Vec<Interpreter>, libc: Option<Libc>) -> Self {
        interpreters.sort_by_key(Interpreter::rank);
        Self { interpreters, libc }
    }
}

/// Looks at the files of a base, layer by layer.
#[derive(Default)]
pub(crate) struct Probe {
    /// The executables `python3.N`: their minor versions and the roots above their `bin`.
    executables: Layered<(u32, String)>,
    /// The folders that say which packages there are.
    infos: Layered<()>,
    /// The last number of versions that were found in files, by minor version and the root that the file belongs to.
    patches: BTreeMap<(u32, String), u32>,
    glibc: Option<u32>,
    has_musl: bool,
    is_debian: bool,
    is_rpm: bool,
    /// What is sought in the present file.
    search: Option<Search>,
}

/// Paths of an image: those that the present layer brings, which its own whiteouts do not hide, and those below.
#[derive(Default)]
struct Layered<T> {
    layer: usize,
    own: BTreeMap<String, T>,
    below: BTreeMap<String, T>,
}

impl<T> Layered<T> {
    fn insert(&mut self, layer: usize, path: String, value: T) {
        self.enter(layer);
        self.own.insert(path, value);
    }

    /// Forgets a path of the layers below, and all below it; nothing is looked at twice, however many whiteouts there are.
    fn hide(&mut self, layer: usize, hidden: &str) {
        self.enter(layer);
        self.below.remove(hidden);
        let prefix = match hidden {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let gone = self.below.range::<str, _>(from).map(|(path, _)| path);
        let gone: Vec<String> = gone
            .take_while(|path| path.starts_with(&prefix))
            .cloned()
            .collect();
        gone.iter().for_each(|path| {
            self.below.remove(path);
        });
    }

    fn enter(&mut self, layer: usize) {
        if layer != self.layer {
            self.below.extend(std::mem::take(&mut self.own));
            self.layer = layer;
        }
    }

    fn finish(mut self) -> BTreeMap<String, T> {
        self.below.extend(self.own);
        self.below
    }
}

/// How many interpreters of a base are looked at: more than any real one has.
const MAX_INTERPRETERS: usize = 64;

/// How much of a file is kept while its bytes are searched: longer than what is looked for.
const OVERLAP: usize = 32;

impl Probe {
    /// Looks at a regular file of a layer, which may be a whiteout: the layer's number, and the file's path without a leading
    /// `/`. Tells whether its content is wanted: all of it then goes to [`Probe::read`], and its end to [`Probe::end`].
    pub(crate) fn look(&mut self, layer: usize, path: &str) -> bool {
        self.search = None;
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match Whiteout::of(name.as_bytes()) {
            Whiteout::None => {}
            whiteout => {
                self.hide(layer, folder, whiteout);
                return false;
            }
        }
        // Roots that were made small may lack the list of packages.
        self.is_debian |= path == "var/lib/dpkg/status"
            || folder == "var/lib/dpkg/status.d"
            || path == "etc/debian_version";
        // Chiselled images have neither. What counts is where Debian's Python looks.
        if name == "site.py" && folder.starts_with("usr/lib/python3.") {
            self.search = Some(Search::new("dist-packages", Sought::Debian));
        }
        self.is_rpm |= folder == "var/lib/rpm" || folder == "usr/lib/sysimage/rpm";
        if name.starts_with("ld-musl-") && name.contains(".so") {
            self.has_musl = true;
        }
        if name == "libc.so.6" || (name.starts_with("libc-2.") && name.ends_with(".so")) {
            self.search = Some(Search::new("GLIBC_2.", Sought::Glibc));
        }
        if matches!(name, "METADATA" | "PKG-INFO")
            && (folder.ends_with(".dist-info") || folder.ends_with(".egg-info"))
        {
            self.infos.insert(layer, folder.to_owned(), ());
        }
        let minor = name
            .strip_prefix("python3.")
            .and_then(|rest| rest.parse::<u32>().ok());
        if let (Some(minor), Some(root)) = (minor, folder.strip_suffix("/bin")) {
            let found = (minor, root.to_owned());
            self.executables.insert(layer, path.to_owned(), found);
        }
        let library = name
            .strip_prefix("libpython3.")
            .and_then(|rest| rest.split(".so").next()?.parse::<u32>().ok());
        if let Some(minor) = minor.or(library) {
            let root = folder.split("/bin").next().unwrap_or_default();
            let root = root.split("/lib").next().unwrap_or_default().to_owned();
            let sought = Sought::Patch {
                of: (minor, root),
                is_found: false,
            };
            self.search = Some(Search::new(&format!("3.{minor}."), sought));
        }
        self.search.is_some()
    }

    /// Takes bytes of the file that was looked at last.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        if let Some(mut search) = self.search.take() {
            let Search { text, sought } = &mut search;
            text.read(bytes, &mut |rest| self.note(sought, rest));
            self.search = Some(search);
        }
    }

    /// Takes the end of the file that was looked at last.
    pub(crate) fn end(&mut self) {
        if let Some(Search { text, mut sought }) = self.search.take() {
            text.end(&mut |rest| self.note(&mut sought, rest));
        }
    }

    /// Notes what follows an occurrence of what is sought.
    fn note(&mut self, sought: &mut Sought, rest: &[u8]) {
        match sought {
            Sought::Debian => self.is_debian = true,
            Sought::Glibc => self.glibc = self.glibc.max(number(rest).map(|(minor, _)| minor)),
            Sought::Patch { is_found: true, .. } => {}
            Sought::Patch { of, is_found } => {
                // A version ends there: it is no part of a longer number, as in an address.
                if let Some((patch, after)) = number(rest)
                    && matches!(after, Some(0 | b'+' | b' ' | b'\n'))
                {
                    *is_found = true;
                    self.patches.insert(of.clone(), patch);
                }
            }
        }
    }

    /// Forgets what a whiteout hides: what layers below have at its path.
    fn hide(&mut self, layer: usize, folder: &str, whiteout: Whiteout<'_>) {
        let hidden = match whiteout {
            // The folder itself stays, without what was in it.
            Whiteout::Opaque => folder.to_owned(),
            Whiteout::Name(name) => {
                let name = String::from_utf8_lossy(name);
                match folder {
                    "" => name.into_owned(),
                    folder => format!("{folder}/{name}"),
                }
            }
            Whiteout::None | Whiteout::Meaningless | Whiteout::Invalid => return,
        };
        self.executables.hide(layer, &hidden);
        self.infos.hide(layer, &hidden);
    }

    /// Returns what was found. `env` are the variables of the base's config, as `NAME=VALUE`: Docker's Python images say
    /// their version there.
    pub(crate) fn finish(mut self, env: &[String]) -> Pythons {
        let said = env.iter().find_map(|it| it.strip_prefix("PYTHON_VERSION="));
        let said: Option<Python> = said.and_then(|it| it.parse().ok());
        let libc = match (self.glibc, self.has_musl) {
            (Some(minor), _) => Some(Libc::Glibc { minor }),
            // All of musl 1.2 is alike; no wheel asks for more.
            (None, true) => Some(Libc::Musl { minor: 2 }),
            (None, false) => None,
        };
        let task = env
            .iter()
            .find_map(|it| it.strip_prefix("LAMBDA_TASK_ROOT="));
        let task = task.filter(|it| it.len() > 1 && it.starts_with('/'));
        let executables = std::mem::take(&mut self.executables).finish();
        let infos = std::mem::take(&mut self.infos).finish();
        let executables: BTreeSet<(u32, String)> = executables.into_values().collect();
        let mut interpreters: Vec<Interpreter> = executables
            .iter()
            .map(|(minor, root)| self.interpreter(*minor, root, said, task))
            .collect();
        interpreters.sort_by_key(Interpreter::rank);
        interpreters.truncate(MAX_INTERPRETERS);
        for interpreter in &mut interpreters {
            let prefix = format!("{}/", interpreter.site.trim_start_matches('/'));
            let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
            let names = infos.range::<str, _>(from).map(|(path, ())| path);
            let names = names.map_while(|path| path.strip_prefix(&prefix));
            let names = names.filter(|name| !name.contains('/'));
            interpreter.installed = names.map(str::to_owned).collect();
        }
        Pythons { interpreters, libc }
    }

    fn interpreter(
        &self,
        minor: u32,
        root: &str,
        said: Option<Python>,
        task: Option<&str>,
    ) -> Interpreter {
        let found = self.patches.get(&(minor, root.to_owned())).copied();
        let said = said.filter(|it| it.minor == minor).and_then(|it| it.patch);
        let version = Python {
            major: 3,
            minor,
            patch: said.filter(|_| root == "usr/local").or(found).or(said),
        };
        let lib = format!("lib/python3.{minor}");
        // Distributions keep their own packages and those of the user apart; Alpine does not.
        let (prefix, site, platsite) = match (root, task) {
            // AWS Lambda puts the folder of the function first on `sys.path`; what the runtime brings stays as it is.
            ("var/lang", Some(task)) => (task.to_owned(), task.to_owned(), None),
            ("usr", _) if self.is_debian => (
                "/usr/local".to_owned(),
                format!("/usr/local/{lib}/dist-packages"),
                None,
            ),
            ("usr", _) if self.is_rpm => (
                "/usr/local".to_owned(),
                format!("/usr/local/{lib}/site-packages"),
                Some(format!("/usr/local/lib64/python3.{minor}/site-packages")),
            ),
            (root, _) => (
                format!("/{root}"),
                format!("/{root}/{lib}/site-packages"),
                None,
            ),
        };
        Interpreter {
            path: format!("/{root}/bin/python3.{minor}"),
            version,
            prefix,
            installed: Vec::new(),
            site,
            platsite,
        }
    }
}

/// Reads a number; returns it and the byte after it.
fn number(bytes: &[u8]) -> Option<(u32, Option<u8>)> {
    let digits = bytes.iter().take_while(|it| it.is_ascii_digit()).count();
    let text = std::str::from_utf8(&bytes[..digits]).ok()?;
    Some((text.parse().ok()?, bytes.get(digits).copied()))
}

/// What is searched in a file.
struct Search {
    text: Text,
    sought: Sought,
}

/// What an occurrence says.
enum Sought {
    /// Python looks where Debian keeps packages.
    Debian,
    /// A version of glibc.
    Glibc,
    /// The last number of a version of Python, if it is the first one.
    Patch {
        /// The minor version, and the root that the file belongs to.
        of: (u32, String),
        is_found: bool,
    },
}

impl Search {
    fn new(needle: &str, sought: Sought) -> Self {
        let text = Text {
            needle: needle.as_bytes().to_vec(),
            kept: Vec::new(),
        };
        Self { text, sought }
    }
}

/// Finds a text in bytes that come piece by piece.
struct Text {
    needle: Vec<u8>,
    /// Bytes that may be the beginning of something.
    kept: Vec<u8>,
}

impl Text {
    /// Takes bytes. Calls `found` with what follows each occurrence: a few bytes.
    fn read(&mut self, bytes: &[u8], found: &mut dyn FnMut(&[u8])) {
        self.kept.extend_from_slice(bytes);
        // What may be cut off at the end is looked at with the next bytes.
        let usable = self.kept.len().saturating_sub(OVERLAP);
        let at = self.find(usable, found);
        self.kept.drain(..usable.max(at).min(self.kept.len()));
    }

    /// Takes the end.
    fn end(&self, found: &mut dyn FnMut(&[u8])) {
        self.find(self.kept.len(), found);
    }

    /// Finds what begins before `usable`; returns where the last occurrence ends.
    fn find(&self, usable: usize, found: &mut dyn FnMut(&[u8])) -> usize {
        let (kept, needle) = (&self.kept, &self.needle);
        let mut at = 0;
        while let Some(next) = kept[at..]
            .windows(needle.len())
            .position(|it| it == &needle[..])
        {
            let start = at + next;
            if start >= usable {
                break;
            }
            let after = start + needle.len();
            found(&kept[after..kept.len().min(after + OVERLAP)]);
            at = after;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(files: &[(&str, &[u8])], env: &[&str]) -> Pythons {
        let mut probe = Probe::default();
        for (path, content) in files {
            if probe.look(0, path) {
                // However the bytes are cut.
                content.chunks(7).for_each(|bytes| probe.read(bytes));
                probe.end();
            }
        }
        let env: Vec<String> = env.iter().map(|it| (*it).to_owned()).collect();
        probe.finish(&env)
    }

    #[test]
    fn debian_keeps_user_packages_apart() {
        let libc = [&vec![0; 65_530][..], b"GLIBC_2.17\0GLIBC_2.36\0GLIBC_2.4\0"].concat();
        let found = probe(
            &[
                ("usr/bin/python3.11", b"\x7fELF 3.11.a 3.11.2\0"),
                ("usr/lib/x86_64-linux-gnu/libc.so.6", &libc),
                ("var/lib/dpkg/status", b""),
            ],
            &[],
        );
        assert_eq!(found.libc, Some(Libc::Glibc { minor: 36 }));
        let [python] = &found.interpreters[..] else {
            panic!("{found:?}")
        };
        assert_eq!(python.path, "/usr/bin/python3.11");
        assert_eq!(python.version.patch, Some(2));
        assert_eq!(python.prefix, "/usr/local");
        assert_eq!(python.site, "/usr/local/lib/python3.11/dist-packages");
    }

    #[test]
    fn dockers_python_image_and_its_debian() {
        let found = probe(
            &[
                ("usr/bin/python3.13", b"3.13.5\0"),
                ("usr/local/bin/python3.11", b"small"),
                ("usr/local/lib/libpython3.11.so.1.0", b"x3.11.9\0"),
                ("var/lib/dpkg/status", b""),
            ],
            &["PATH=/bin", "PYTHON_VERSION=3.11.14"],
        );
        let first = &found.interpreters[0];
        assert_eq!(first.path, "/usr/local/bin/python3.11");
        assert_eq!(first.version.patch, Some(14));
        assert_eq!(first.site, "/usr/local/lib/python3.11/site-packages");
        assert_eq!(found.interpreters[1].version.minor, 13);
        assert_eq!(found.libc, None);
    }

    #[test]
    fn lambda_has_a_folder_for_the_function() {
        let files: [(&str, &[u8]); 3] = [
            ("usr/bin/python3.13", b"3.13.1\0"),
            ("var/lang/bin/python3.12", b"small"),
            ("var/lang/lib/libpython3.12.so.1.0", b"x3.12.9\0"),
        ];
        let found = probe(&files, &["LAMBDA_TASK_ROOT=/var/task"]);
        let first = &found.interpreters[0];
        assert_eq!(first.path, "/var/lang/bin/python3.12");
        assert_eq!(first.version.patch, Some(9));
        assert_eq!(
            (first.prefix.as_str(), first.site.as_str()),
            ("/var/task", "/var/task")
        );
        for odd in [
            "LAMBDA_TASK_ROOT=",
            "LAMBDA_TASK_ROOT=/",
            "LAMBDA_TASK_ROOT=x",
        ] {
            let found = probe(&files, &[odd]);
            let site = &found.interpreters[0].site;
            assert_eq!(site, "/var/lang/lib/python3.12/site-packages");
        }
    }

    #[test]
    fn packages_of_the_base_are_known() {
        let site = "usr/local/lib/python3.11/site-packages";
        let mut probe = Probe::default();
        let mut look = |layer, path: &str| probe.look(layer, path);
        look(0, "usr/local/bin/python3.11");
        for file in [
            "pip-23.0.dist-info/METADATA",
            "wheel-0.1.dist-info/METADATA",
            "old-1.egg-info/PKG-INFO",
            "pip/_vendor/x-1.dist-info/METADATA",
            "more-2.dist-info/top_level.txt",
        ] {
            look(0, &format!("{site}/{file}"));
        }
        look(1, &format!("{site}/.wh.pip-23.0.dist-info"));
        look(1, &format!("{site}/pip-24.0.dist-info/METADATA"));
        look(1, "usr/lib/python3/dist-packages/apt-1.dist-info/METADATA");
        let found = probe.finish(&[]).interpreters;
        assert_eq!(
            found[0].installed,
            [
                "old-1.egg-info",
                "pip-24.0.dist-info",
                "wheel-0.1.dist-info"
            ]
        );
    }

    #[test]
    fn many_packages_and_whiteouts_are_looked_at_in_time() {
        let mut probe = Probe::default();
        let mut look = |layer, path: String| probe.look(layer, &path);
        let site = "usr/lib/python3.11/site-packages";
        for number in 0..30_000 {
            look(0, format!("{site}/a{number}.dist-info/METADATA"));
            look(0, format!("opt/{number}/bin/python3.11"));
        }
        let start = std::time::Instant::now();
        for number in 0..30_000 {
            look(1, format!("{site}/.wh.b{number}"));
        }
        look(1, "usr/bin/python3.11".to_owned());
        let found = probe.finish(&[]).interpreters;
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
        assert_eq!(found.len(), MAX_INTERPRETERS);
    }

    #[test]
    fn whiteouts_hide_what_lies_below() {
        let left = |whiteout: &str| {
            let mut probe = Probe::default();
            let mut look = |layer, path| probe.look(layer, path);
            look(0, "usr/bin/python3.11");
            look(0, "opt/a/bin/python3.12");
            look(1, whiteout);
            look(1, "usr/local/bin/python3.13");
            look(1, ".wh.none");
            let found = probe.finish(&[]).interpreters;
            let minors = found.iter().map(|it| it.version.minor);
            minors.collect::<Vec<u32>>()
        };
        assert_eq!(left("usr/bin/.wh.python3.11"), [13, 12]);
        assert_eq!(left(".wh.usr"), [13, 12]);
        assert_eq!(left("opt/.wh..wh..opq"), [13, 11]);
        assert_eq!(left(".wh..wh..opq"), [13]);
        // What only begins alike stays, and so does what the same layer has.
        assert_eq!(left("usr/bin/.wh.python3.1"), [13, 12, 11]);
        assert_eq!(left(".wh.us"), [13, 12, 11]);
        assert_eq!(left("usr/local/bin/.wh.python3.13"), [13, 12, 11]);
    }

    #[test]
    fn alpine_and_rpm() {
        let alpine = probe(
            &[
                ("lib/ld-musl-x86_64.so.1", b"musl"),
                ("usr/bin/python3.12", b""),
                ("usr/lib/libpython3.12.so.1.0", b"3.12.11\0"),
            ],
            &[],
        );
        assert_eq!(alpine.libc, Some(Libc::Musl { minor: 2 }));
        assert_eq!(
            alpine.interpreters[0].site,
            "/usr/lib/python3.12/site-packages"
        );
        assert_eq!(alpine.interpreters[0].version.patch, Some(11));
        let rpm = probe(
            &[
                ("usr/bin/python3.9", b"3.9.18\0"),
                ("var/lib/rpm/rpmdb.sqlite", b""),
            ],
            &[],
        );
        assert!(rpm.interpreters[0].platsite.is_some());
    }
}
