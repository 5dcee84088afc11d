//! A wheel becomes a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pep440_rs::Version;
use pep508_rs::PackageName;
use rayon::prelude::*;

use super::archive::{Archive, Member};
use super::info::Info;
use super::{Problem, Scheme, WheelError, record, script};
use crate::layer::{Attrs, Clash, Content, Entry, Kind, LayerPath, Tick, Tree};
use crate::oci::Digest;
use crate::python::without_secrets;

/// How large a script may be whose first line is replaced, in bytes.
const SCRIPT: u64 = 16 << 20;

/// What a wheel must be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The name of the package.
    pub name: PackageName,
    /// Its version.
    pub version: Version,
    /// The wheel's file name, for messages.
    pub file: String,
    /// The digest of the wheel's bytes, which the caller has checked.
    pub digest: Digest,
    /// The wheel's size in bytes, where it is known.
    pub size: Option<u64>,
    /// The URL that the user gave for it, if not an index did.
    pub url: Option<String>,
    /// The digest of the METADATA that it was chosen by, where its own bytes were not at hand then.
    pub metadata: Option<Digest>,
}

/// Reads a wheel in place, checks it, and makes the tree of one part of a layer. Large members stay where they are, as
/// deflated contents. `tick` is called with numbers of bytes that were read.
///
/// # Errors
/// When the wheel cannot be read, is not what is expected, or is not what a wheel may be; when `tick` returns false.
pub fn install(
    wheel: &Path,
    expected: &Expected,
    scheme: &Scheme,
    tick: Tick<'_>,
) -> Result<Tree, WheelError> {
    let tree = || {
        scheme.check()?;
        let found = std::fs::metadata(wheel)?.len();
        if let Some(expected) = expected.size.filter(|size| *size != found) {
            return Err(Problem::Size { expected, found });
        }
        let archive = Archive::open(wheel, &expected.file, expected.digest)?;
        let info = Info::read(&archive, expected)?;
        Install {
            archive: &archive,
            info: &info,
            expected,
            scheme,
        }
        .tree(tick)
    };
    tree().map_err(|problem| WheelError {
        wheel: expected.file.clone(),
        problem,
    })
}

/// A member and where it goes.
struct Placed<'a> {
    member: &'a Member,
    path: LayerPath,
    is_script: bool,
    /// Whether the member lies in the data folder.
    is_data: bool,
}

/// A path, its mode, and what is there.
type File = (LayerPath, u16, Content);

struct Install<'a> {
    archive: &'a Archive,
    info: &'a Info,
    expected: &'a Expected,
    scheme: &'a Scheme,
}

impl Install<'_> {
    fn tree(&self, tick: Tick<'_>) -> Result<Tree, Problem> {
        let launchers = self.launchers();
        let mut placed = Vec::new();
        for member in &self.archive.members {
            match self.place(member, &launchers)? {
                Some(it) => placed.push(it),
                // Where its bytes end must be sure all the same: who reads from the front goes on there.
                None => drop(self.archive.digest(member, tick)?),
            }
        }
        // What the data folder brings comes last, as installers have it.
        placed.sort_by_key(|it| it.is_data);
        let contents = self.contents(&placed, tick)?;
        let mut files = once(&placed, contents)?;
        for (name, text) in launchers {
            let path = self.scheme.bin().join(&name)?;
            files.push((path, 0o755, Content::bytes(text)));
        }
        for (name, text) in self.texts() {
            files.push((self.dist_info(name)?, 0o644, Content::bytes(text)));
        }
        for (path, _, _) in &files {
            let in_bin = path.parent().as_ref() == Some(&self.scheme.bin());
            let is_interpreter = self.scheme.interpreter[1..] == *path.as_str();
            if is_interpreter || (in_bin && script::is_reserved(path.name())) {
                return Err(Problem::Reserved(path.clone()));
            }
        }
        let rows = files
            .iter()
            .map(|(path, _, content)| (self.relative(path), content.digest, content.size))
            .collect();
        let path = self.dist_info("RECORD")?;
        let text = record::write(rows, self.relative(&path));
        files.push((path, 0o644, Content::bytes(text.into_bytes())));
        self.assemble(files)
    }

    /// Returns the launchers of the entry points.
    fn launchers(&self) -> BTreeMap<String, Vec<u8>> {
        let mut callees = self.info.scripts.clone();
        if self.expected.name.to_string() == "pip"
            && let Some(callee) = callees.get("pip").cloned()
        {
            callees.retain(|name, _| !script::is_pip(name));
            let names = script::pip_names(self.scheme.python);
            callees.extend(names.map(|name| (name, callee.clone())));
        }
        let launcher = |callee| script::launcher(&self.scheme.interpreter, callee);
        callees
            .iter()
            .map(|(name, callee)| (name.clone(), launcher(callee)))
            .collect()
    }

    /// Says where a member goes; `None` if it is left out.
    fn place<'a>(
        &self,
        member: &'a Member,
        launchers: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Option<Placed<'a>>, Problem> {
        let name = member.path.as_str();
        if name.split('/').any(|it| it == "__pycache__") {
            return Ok(None);
        }
        let top = name.split_once('/');
        let stem = top.and_then(|(top, _)| top.strip_suffix(".data"));
        let placed = |folder: &LayerPath, rest: &str, is_script| {
            Ok(Some(Placed {
                member,
                path: folder.join(rest)?,
                is_script,
                is_data: stem.is_some(),
            }))
        };
        let site = self.scheme.site_of(self.info.purelib);
        let Some((top, rest)) = top else {
            return placed(site, name, false);
        };
        if top.strip_suffix(".dist-info") == Some(&self.info.stem) {
            let is_ours = matches!(
                rest,
                "RECORD"
                    | "RECORD.jws"
                    | "RECORD.p7s"
                    | "INSTALLER"
                    | "REQUESTED"
                    | "direct_url.json"
            );
            return match is_ours {
                true => Ok(None),
                false => placed(site, name, false),
            };
        }
        let Some(stem) = stem else {
            return placed(site, name, false);
        };
        if stem != self.info.stem {
            return Err(Problem::ForeignData {
                found: top.to_owned(),
                expected: format!("{}.data", self.info.stem),
            });
        }
        let Some((key, rest)) = rest.split_once('/') else {
            return Err(Problem::Data(name.to_owned()));
        };
        match key {
            "purelib" => placed(&self.scheme.site, rest, false),
            "platlib" => placed(self.scheme.site_of(false), rest, false),
            "data" => placed(&self.scheme.prefix, rest, false),
            "headers" => {
                let (major, minor) = self.scheme.python;
                let rest = format!(
                    "include/python{major}.{minor}/{}/{rest}",
                    self.expected.name
                );
                placed(&self.scheme.prefix, &rest, false)
            }
            // What Windows needs beside a launcher, or instead of it.
            "scripts" => {
                let names = [
                    Some(rest),
                    rest.strip_suffix(".exe"),
                    rest.strip_suffix("-script.py"),
                    rest.strip_suffix(".pya"),
                ];
                let replaced = names.iter().flatten().any(|it| launchers.contains_key(*it));
                match replaced {
                    true => Ok(None),
                    false => placed(&self.scheme.bin(), rest, true),
                }
            }
            _ => Err(Problem::Data(name.to_owned())),
        }
    }

    /// Takes the digests of all members, and checks them against RECORD. Where several fail, the first by path is told.
    fn contents(&self, placed: &[Placed<'_>], tick: Tick<'_>) -> Result<Vec<File>, Problem> {
        let failed = AtomicBool::new(false);
        let tick = |bytes| tick(bytes) && !failed.load(Ordering::Relaxed);
        let content = |placed: &Placed<'_>| {
            let content = self.content(placed, &tick);
            if matches!(content, Err(Problem::Stopped)) {
                failed.store(true, Ordering::Relaxed);
            }
            content
        };
        let contents: Vec<_> = placed.par_iter().map(content).collect();
        let file = |(placed, content): (&Placed<'_>, Result<Content, Problem>)| {
            let mode = match placed.is_script || placed.member.executable {
                true => 0o755,
                false => 0o644,
            };
            Ok((placed.path.clone(), mode, content?))
        };
        placed.iter().zip(contents).map(file).collect()
    }

    fn content(&self, placed: &Placed<'_>, tick: Tick<'_>) -> Result<Content, Problem> {
        let member = placed.member;
        let digest = self.archive.digest(member, tick)?;
        self.info.record.check(&member.path, &digest)?;
        let placeholder = script::PLACEHOLDER;
        if placed.is_script && self.archive.start(member, placeholder.len())? == placeholder {
            let text = self.archive.read(member, SCRIPT)?;
            let text = script::rewritten(&self.scheme.interpreter, &text);
            return Ok(Content::bytes(text));
        }
        Ok(match member.size {
            0 => Content::bytes([]),
            size => Content {
                size,
                digest,
                source: member.source.clone(),
            },
        })
    }

    /// The texts that an installer adds to the dist-info folder, but for RECORD.
    fn texts(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut texts = vec![("INSTALLER", b"imgdecl\n".to_vec())];
        if let Some(url) = &self.expected.url {
            let hash = self.expected.digest.hex();
            let value = serde_json::json!({
                "archive_info": { "hash": format!("sha256={hash}"), "hashes": { "sha256": hash } },
                "url": without_secrets(url),
            });
            texts.push(("direct_url.json", value.to_string().into_bytes()));
        }
        texts
    }

    fn dist_info(&self, name: &str) -> Result<LayerPath, Problem> {
        let site = self.scheme.site_of(self.info.purelib);
        Ok(site.join(&format!("{}.dist-info/{name}", self.info.stem))?)
    }

    /// Returns a path as RECORD has it: from the site folder of the wheel.
    fn relative(&self, path: &LayerPath) -> String {
        let site = self.scheme.site_of(self.info.purelib);
        let from: Vec<&str> = site
            .as_str()
            .split('/')
            .filter(|it| !it.is_empty())
            .collect();
        let to: Vec<&str> = path.as_str().split('/').collect();
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let up = from[common..].iter().map(|_| "..");
        let parts: Vec<&str> = up.chain(to[common..].iter().copied()).collect();
        parts.join("/")
    }

    fn assemble(&self, files: Vec<File>) -> Result<Tree, Problem> {
        let owner = self.scheme.owner;
        let mut tree = Tree::default();
        let mut folders = BTreeSet::new();
        for (path, mode, content) in files {
            let mut above = path.parent();
            while let Some(folder) = above.filter(|it| !folders.contains(it)) {
                above = folder.parent();
                folders.insert(folder);
            }
            let attrs = Attrs { mode, owner };
            tree.insert(path, Entry::new(Kind::File { attrs, content }))?;
        }
        for path in folders {
            if tree.entries().contains_key(&path) {
                return Err(Problem::Clash(Clash::Twice {
                    path,
                    first: "file",
                    second: "folder",
                }));
            }
            if self.scheme.brings(&path) {
                let attrs = Attrs { mode: 0o755, owner };
                tree.insert(path, Entry::new(Kind::Folder { attrs, firm: false }))?;
            }
        }
        Ok(tree)
    }
}

/// Makes one file of members that have one place and the same bytes: the last one's mode counts.
fn once(placed: &[Placed<'_>], contents: Vec<File>) -> Result<Vec<File>, Problem> {
    let mut files: Vec<File> = Vec::with_capacity(contents.len());
    let mut known: BTreeMap<LayerPath, (usize, &Member)> = BTreeMap::new();
    for (placed, file) in placed.iter().zip(contents) {
        match known.get(&file.0) {
            None => {
                known.insert(file.0.clone(), (files.len(), placed.member));
                files.push(file);
            }
            Some((at, _)) if files[*at].2.digest == file.2.digest => files[*at].1 = file.1,
            Some((_, first)) => {
                return Err(Problem::Claimed {
                    path: file.0,
                    first: first.path.to_string(),
                    second: placed.member.path.to_string(),
                });
            }
        }
    }
    Ok(files)
}
