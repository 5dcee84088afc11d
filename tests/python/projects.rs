//! The wheels of projects, against those that pip has their back ends make.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgdecl::parts::python::project::{Folder, Kind, Listed, Part, wheel};

use crate::support::{Space, copy, pip_with_index};

/// The projects of the golden case, one of each back end.
const PROJECTS: &[&str] = &[
    "app",
    "libs/basics",
    "libs/labels",
    "libs/parcels",
    "libs/tariffs",
];

/// A folder as it lies there.
struct Plain(PathBuf);

impl Folder for Plain {
    fn name(&self) -> &str {
        "."
    }

    fn list(&self, path: &str) -> Result<Vec<Listed>, String> {
        let Ok(entries) = fs::read_dir(self.0.join(path)) else {
            return Ok(Vec::new());
        };
        let listed = entries.map(|entry| {
            let entry = entry.unwrap();
            let metadata = fs::metadata(entry.path()).unwrap();
            let kind = match metadata.is_dir() {
                true => Kind::Folder,
                false => Kind::File(metadata.permissions().mode() & 0o100 != 0),
            };
            let name = entry.file_name().into_string().unwrap();
            Listed { name, kind }
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(fs::read(self.0.join(path)).ok())
    }

    fn nearest(&self, name: &str, _: &str) -> Result<Option<Vec<u8>>, String> {
        self.read(name)
    }
}

/// The files of a wheel but for RECORD: their bytes, and whether they may be executed.
type Files = BTreeMap<String, (Vec<u8>, bool)>;

/// Returns what we would put into the wheel.
fn ours(project: &Path) -> (String, Files) {
    let folder = Plain(project.to_path_buf());
    let wheel = wheel(&folder, "pyproject.toml").unwrap();
    let files = wheel.parts.into_iter().map(|(path, part)| {
        let part = match part {
            Part::Text(text) => (text, false),
            Part::File(from, executable) => (folder.read(&from).unwrap().unwrap(), executable),
        };
        (path, part)
    });
    (wheel.file, files.collect())
}

/// Returns what is in the wheel of a back end.
fn theirs(wheel: &Path) -> Files {
    let mut archive = zip::ZipArchive::new(fs::File::open(wheel).unwrap()).unwrap();
    let mut files = Files::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index_raw(index).unwrap();
        let name = member.name().unwrap().into_owned();
        if member.is_dir() || name.ends_with(".dist-info/RECORD") {
            continue;
        }
        let executable = member.unix_mode().unwrap_or_default() & 0o100 != 0;
        let is_stored = member.compression() == zip::CompressionMethod::Stored;
        let (mut packed, mut bytes) = (Vec::new(), Vec::new());
        member.read_to_end(&mut packed).unwrap();
        match is_stored {
            true => bytes = packed,
            false => {
                let mut inflated = flate2::read::DeflateDecoder::new(&packed[..]);
                inflated.read_to_end(&mut bytes).unwrap();
            }
        }
        files.insert(name, (bytes, executable));
    }
    files
}

#[test]
fn wheels_are_those_of_the_back_ends() {
    let Some(pip) = pip_with_index() else {
        return;
    };
    let space = Space::new();
    for name in PROJECTS {
        let from = Path::new("golden/pip/project").join(name);
        let place = space.path().join(name);
        copy(&from, &place);
        let (file, ours) = ours(&place);
        let out = space.path().join("wheels").join(name);
        let mut command = Command::new(&pip);
        command.args(["wheel", "--quiet", "--no-deps", "--wheel-dir"]);
        let output = command.arg(&out).arg(&place).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        let theirs = theirs(&out.join(&file));
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{name}");
        for (path, (bytes, executable)) in &theirs {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (own, is_own) = &ours[path];
            assert_eq!(text(own), text(bytes), "{name}: {path}");
            assert_eq!(is_own, executable, "{name}: {path}");
        }
    }
}
