//! Where a wheel's files go in an image, and virtual environments. Knows nothing of what is in wheels.

use crate::layer::{Attrs, Clash, Content, Entry, Kind, LayerPath, Owner, Tree};

/// Where a wheel's files go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheme {
    /// What scripts, headers and data go below: `usr/local`.
    pub prefix: LayerPath,
    /// The site folder: `usr/local/lib/python3.11/site-packages`.
    pub site: LayerPath,
    /// The site folder for wheels of one platform, where it is another one.
    pub platsite: Option<LayerPath>,
    /// The interpreter's absolute path in the image: `/usr/local/bin/python3.11`.
    pub interpreter: String,
    /// The interpreter's version: major, minor.
    pub python: (u32, u32),
    /// Who owns what the wheel brings.
    pub owner: Owner,
}

/// A scheme that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SchemeError {
    /// The interpreter's path cannot stand in a script's first line.
    #[error("`{0}` cannot be the path of an interpreter")]
    Interpreter(String),
}

impl SchemeError {
    /// Says how to mend it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Interpreter(_) => {
                "give an absolute path without quotes, `$`, backslashes and line ends"
            }
        }
    }
}

impl Scheme {
    /// Checks that scripts can name the interpreter.
    ///
    /// # Errors
    /// When its path is not absolute, or has characters that a shell would not take as they are.
    pub fn check(&self) -> Result<(), SchemeError> {
        let path = &self.interpreter;
        let strange = |it: char| it.is_control() || matches!(it, '"' | '\'' | '$' | '`' | '\\');
        match path.starts_with('/') && !path.contains(strange) {
            true => Ok(()),
            false => Err(SchemeError::Interpreter(path.clone())),
        }
    }

    /// The folder of scripts.
    pub(super) fn bin(&self) -> LayerPath {
        below(&self.prefix, "bin")
    }

    /// The site folder of a wheel.
    pub(super) fn site_of(&self, purelib: bool) -> &LayerPath {
        match purelib {
            true => &self.site,
            false => self.platsite.as_ref().unwrap_or(&self.site),
        }
    }

    /// Tells whether a folder above a file is ours to bring, with our owner: one that the interpreter's own layout does not
    /// have.
    pub(super) fn brings(&self, folder: &LayerPath) -> bool {
        let sites = [Some(&self.site), self.platsite.as_ref()];
        let strictly =
            |folder: &LayerPath, above: &LayerPath| folder != above && folder.is_within(above);
        if sites.iter().flatten().any(|site| strictly(folder, site)) {
            return true;
        }
        let above_site = sites.iter().flatten().any(|site| site.is_within(folder));
        let deep = folder
            .parent()
            .is_some_and(|parent| strictly(&parent, &self.prefix));
        deep && !above_site
    }
}

/// Returns a path below one that is a scheme's.
fn below(path: &LayerPath, rest: &str) -> LayerPath {
    path.join(rest).unwrap_or_else(|_| path.clone())
}

/// A virtual environment in an image (PEP 405).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Venv {
    /// Its folder: `app/.venv`.
    pub prefix: LayerPath,
    /// The absolute path of the interpreter that it builds on: `/usr/local/bin/python3.11`.
    pub base: String,
    /// The interpreter's version: major, minor, and the rest if it is known.
    pub python: (u32, u32, Option<u32>),
    /// Who owns it.
    pub owner: Owner,
}

impl Venv {
    /// Returns where wheels go in the environment.
    pub(crate) fn scheme(&self) -> Scheme {
        let (major, minor, _) = self.python;
        let site = format!("lib/python{major}.{minor}/site-packages");
        Scheme {
            prefix: self.prefix.clone(),
            site: below(&self.prefix, &site),
            platsite: None,
            interpreter: format!("/{}/bin/python{major}.{minor}", self.prefix),
            python: (major, minor),
            owner: self.owner,
        }
    }

    /// Makes the environment itself: its folders, `pyvenv.cfg`, and links to the interpreter.
    ///
    /// # Errors
    /// When the interpreter's path cannot be written there.
    pub(crate) fn tree(&self) -> Result<Tree, SchemeError> {
        let wrong = || SchemeError::Interpreter(self.base.clone());
        let base = Scheme {
            interpreter: self.base.clone(),
            ..self.scheme()
        };
        base.check()?;
        self.scheme().check()?;
        let (home, _) = self.base.rsplit_once('/').ok_or_else(wrong)?;
        let home = if home.is_empty() { "/" } else { home };
        self.entries(home).map_err(|_| wrong())
    }

    fn entries(&self, home: &str) -> Result<Tree, Clash> {
        let (major, minor, patch) = self.python;
        let mut tree = Tree::default();
        let mut folder = self.scheme().site;
        while folder.is_within(&self.prefix) && !folder.is_root() {
            tree.insert(folder.clone(), self.folder())?;
            folder = folder.parent().unwrap_or_default();
        }
        tree.insert(self.prefix.join("bin")?, self.folder())?;
        let patch = patch.map_or(String::new(), |patch| format!(".{patch}"));
        let config = format!(
            "home = {home}\ninclude-system-site-packages = false\nversion = {major}.{minor}{patch}\n"
        );
        let attrs = Attrs {
            mode: 0o644,
            owner: self.owner,
        };
        let content = Content::bytes(config.into_bytes());
        let config = Entry::new(Kind::File { attrs, content });
        tree.insert(self.prefix.join("pyvenv.cfg")?, config)?;
        let versioned = format!("python{major}.{minor}");
        let links = [
            (format!("bin/{versioned}"), self.base.clone()),
            ("bin/python".to_owned(), versioned.clone()),
            (format!("bin/python{major}"), versioned),
            ("lib64".to_owned(), "lib".to_owned()),
        ];
        for (path, target) in links {
            let owner = self.owner;
            tree.insert(
                self.prefix.join(&path)?,
                Entry::new(Kind::Symlink { target, owner }),
            )?;
        }
        Ok(tree)
    }

    fn folder(&self) -> Entry {
        let attrs = Attrs {
            mode: 0o755,
            owner: self.owner,
        };
        Entry::new(Kind::Folder { attrs, firm: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text).unwrap()
    }

    #[test]
    fn folders_of_the_interpreter_are_not_ours() {
        let scheme = Scheme {
            prefix: path("usr/local"),
            site: path("usr/local/lib/python3.11/site-packages"),
            platsite: Some(path("usr/local/lib64/python3.11/site-packages")),
            interpreter: "/usr/local/bin/python3.11".to_owned(),
            python: (3, 11),
            owner: Owner::default(),
        };
        for (folder, ours) in [
            ("", false),
            ("usr", false),
            ("usr/local", false),
            ("usr/local/bin", false),
            ("usr/local/share", false),
            ("usr/local/lib/python3.11", false),
            ("usr/local/lib64/python3.11/site-packages", false),
            ("usr/local/lib64/python3.11/site-packages/a", true),
            ("usr/local/share/jupyter", true),
            ("usr/local/lib/python3.11/site-packages/a/b", true),
        ] {
            assert_eq!(scheme.brings(&path(folder)), ours, "{folder}");
        }
    }

    #[test]
    fn a_venv_links_to_its_interpreter() {
        let venv = Venv {
            prefix: path("app/.venv"),
            base: "/usr/local/bin/python3.11".to_owned(),
            python: (3, 11, Some(9)),
            owner: Owner { uid: 7, gid: 8 },
        };
        let tree = venv.tree().unwrap();
        let mut lines = Vec::new();
        tree.listing(|line| lines.push(line.to_owned()));
        let config =
            "home = /usr/local/bin\ninclude-system-site-packages = false\nversion = 3.11.9\n";
        let hash = Digest::of(config.as_bytes()).hex();
        let size = config.len();
        assert_eq!(
            lines,
            [
                r#""app/.venv" folder 0755 7:8 0"#,
                r#""app/.venv/bin" folder 0755 7:8 0"#,
                r#""app/.venv/bin/python" symlink 0777 7:8 0 "python3.11""#,
                r#""app/.venv/bin/python3" symlink 0777 7:8 0 "python3.11""#,
                r#""app/.venv/bin/python3.11" symlink 0777 7:8 0 "/usr/local/bin/python3.11""#,
                r#""app/.venv/lib" folder 0755 7:8 0"#,
                r#""app/.venv/lib/python3.11" folder 0755 7:8 0"#,
                r#""app/.venv/lib/python3.11/site-packages" folder 0755 7:8 0"#,
                r#""app/.venv/lib64" symlink 0777 7:8 0 "lib""#,
                &format!(r#""app/.venv/pyvenv.cfg" file 0644 7:8 0 {size} {hash}"#),
            ]
        );
        for base in ["bin/python", "/usr/bin/py\"thon", "/bin/$x"] {
            let base = base.to_owned();
            assert!(
                Venv {
                    base,
                    ..venv.clone()
                }
                .tree()
                .is_err()
            );
        }
    }
}
