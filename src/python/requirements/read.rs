//! Reads requirements files and the files that they name.

use std::sync::Arc;

use super::line::{self, Lookup};
use super::option::{self, Given, Name};
use super::{Asked, AskedFolder, Names, Requested, Spoken, address, entry};
use crate::oci::Digest;
use crate::python::place::{Files, InputError, Piece, Place, Source, beside};

const OPTION: &str = "imgdecl::python::option";
const FILE: &str = "imgdecl::python::file";
const HASH: &str = "imgdecl::python::hash";

/// How many files one set may be made of: far more than anybody has, and less than a loop makes.
const MOST_FILES: usize = 500;

/// Reads requirements files and constraints files, with all that they name by `-r` and `-c`.
///
/// `place` is where the manifest names them. `lookup` gives the values of variables of the environment.
///
/// # Errors
/// All that is wrong: what cannot be read, parsed or installed.
pub fn read(
    requirements: &[(String, Place)],
    constraints: &[(String, Place)],
    files: &dyn Files,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Requested, Vec<InputError>> {
    read_unless(requirements, constraints, files, lookup, &Names::new())
}

/// Does so; of the packages that something else takes the place of, only the names are looked at.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_unless(
    requirements: &[(String, Place)],
    constraints: &[(String, Place)],
    files: &dyn Files,
    lookup: &dyn Fn(&str) -> Option<String>,
    overridden: &Names,
) -> Result<Requested, Vec<InputError>> {
    let mut reader = Reader {
        files,
        lookup,
        overridden,
        requested: Requested::default(),
        errors: Vec::new(),
        open: Vec::new(),
        count: 0,
    };
    for (path, place) in requirements {
        reader.file(&beside("", path), place, false);
    }
    for (path, place) in constraints {
        reader.file(&beside("", path), place, true);
    }
    reader.check_hashes();
    if reader.errors.is_empty() {
        Ok(reader.requested)
    } else {
        Err(reader.errors)
    }
}

struct Reader<'a> {
    files: &'a dyn Files,
    lookup: Lookup<'a>,
    /// The packages that something else takes the place of.
    overridden: &'a Names,
    requested: Requested,
    errors: Vec<InputError>,
    /// The files that led here.
    open: Vec<String>,
    count: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &str, place: &Place, is_constraint: bool) {
        if self.open.iter().any(|it| it == path) {
            let chain = format!("{} -> {path}", self.open.join(" -> "));
            self.errors.push(place.error(
                FILE,
                format!("`{path}` names itself: {chain}"),
                "take out one of these lines",
            ));
            return;
        }
        self.count += 1;
        if self.count > MOST_FILES {
            if self.count == MOST_FILES + 1 {
                self.errors.push(place.error(
                    FILE,
                    format!("these are more than {MOST_FILES} files"),
                    "name each file once",
                ));
            }
            return;
        }
        let text = match self.files.read(path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("`{path}` cannot be read: {error}");
                let is_lost = error.starts_with("there is no") || error.starts_with("it lies");
                let help = match is_lost {
                    true => "paths begin at the folder of the file that names them",
                    false => "it must be a text file that you may read",
                };
                self.errors.push(place.error(FILE, message, help));
                return;
            }
        };
        self.requested.files.insert(path.to_owned());
        let source = Arc::new(Source {
            name: path.to_owned(),
            text,
        });
        let mut missing = Vec::new();
        let has_variables = std::cell::Cell::new(false);
        let lookup = |name: &str| {
            has_variables.set(true);
            (self.lookup)(name)
        };
        let mut lines = line::lines(&source, &lookup, &mut missing);
        self.requested.has_variables |= has_variables.get();
        let before = self.requested.asked.len() + self.requested.constraints.len();
        for (name, piece) in missing {
            // What else would be wrong with the line comes of this.
            let at = piece.origin(0);
            lines.retain(|line| !line.place().span.contains(&at));
            self.errors.push(piece.place().error(
                "imgdecl::python::variable",
                format!("the environment has no `{name}`"),
                format!("set it: `{name}=… imgdecl …`"),
            ));
        }
        self.open.push(path.to_owned());
        let is_empty = lines.is_empty();
        for line in lines {
            if let Err(error) = self.line(&line, path, is_constraint) {
                self.errors.push(error);
            }
        }
        self.open.pop();
        let after = self.requested.asked.len() + self.requested.constraints.len();
        if before == after && self.errors.is_empty() && (is_empty || self.open.is_empty()) {
            let warning = format!("`{path}` asks for nothing: it has no requirement");
            self.requested.warnings.push(warning);
        }
    }

    fn line(&mut self, line: &Piece, path: &str, is_constraint: bool) -> Result<(), InputError> {
        let (requirement, options) = option::split(line);
        let options = option::parse(&options)?;
        if requirement.text.is_empty() {
            return options.into_iter().try_for_each(|it| self.option(it, path));
        }
        let mut hashes = Vec::new();
        let mut others = Vec::new();
        for given in &options {
            match given.name {
                Name::Hash => match hash(given)? {
                    Some(digest) => hashes.push(digest),
                    None => others.push(given),
                },
                Name::Settings => self.settings(given),
                Name::Build => return Err(builds(given)),
                _ => {
                    let help = "put the option on a line of its own";
                    let message = "this option cannot follow a requirement";
                    return Err(given.piece.place().error(OPTION, message, help));
                }
            }
        }
        if let (true, Some(other)) = (hashes.is_empty(), others.first()) {
            return Err(other.piece.place().error(
                HASH,
                "this requirement has no sha256",
                "add `--hash=sha256:…`: files are known by their sha256 here",
            ));
        }
        let is_bare = hashes.is_empty() && !is_constraint;
        let asked = match entry::parse(&requirement, hashes, path, self.overridden) {
            Ok(asked) => asked,
            Err(refused) if is_bare => {
                return self.folder(entry::folder(&requirement, path, refused)?);
            }
            Err(refused) => return Err(refused),
        };
        // The fragment of a URL is for this wheel alone; an option is for all.
        self.requested.options.is_hashed |= options.iter().any(|it| it.name == Name::Hash);
        if is_constraint {
            if let Some(extra) = asked.requirement.extras.first() {
                return Err(asked.place.error(
                    "imgdecl::python::requirement",
                    format!("a constraint cannot ask for extras, as `{extra}`"),
                    "take the extra out: a constraint only narrows what is asked for elsewhere",
                ));
            }
            self.requested.constraints.push(asked);
        } else {
            self.requested.asked.push(asked);
        }
        Ok(())
    }

    /// Takes the folder of an editable install: images get what it is now.
    fn editable(&mut self, value: &str, place: &Place, path: &str) -> Result<(), InputError> {
        let piece = Piece::at(value, place);
        let mut folder = entry::folder(&piece, path, editable(place))?;
        folder.place = place.clone();
        self.folder(folder)
    }

    /// Takes a folder that holds a project.
    fn folder(&mut self, folder: AskedFolder) -> Result<(), InputError> {
        let path = folder.path.clone().unwrap_or_default();
        let is_there = |name: &str| {
            let file = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            };
            self.files.read(&file).is_ok()
        };
        if !["pyproject.toml", "setup.cfg", "setup.py"]
            .into_iter()
            .any(is_there)
        {
            return Err(folder.refused);
        }
        self.requested.folders.push(folder);
        Ok(())
    }

    fn option(&mut self, given: Given, path: &str) -> Result<(), InputError> {
        let place = given.piece.place();
        let value = given.value.clone();
        let spoken = |value: String| Spoken {
            value,
            place: place.clone(),
        };
        let options = &mut self.requested.options;
        match given.name {
            Name::Requirements | Name::Constraints => {
                if value.contains("://") {
                    return Err(place.error(
                        FILE,
                        "requirements are not fetched: they could be others tomorrow",
                        "keep a copy of the file beside this one",
                    ));
                }
                // As pip has it: `-r` in a constraints file asks for packages.
                let is_constraint = given.name == Name::Constraints;
                self.file(&beside(path, &value), &place, is_constraint);
            }
            // Of what is overridden only the name counts, and a URL may say it.
            Name::Editable if value.contains("egg=") || value.contains('@') => {
                let asked = Asked::parse_unless(&value, &place, path, self.overridden);
                match asked {
                    Ok(asked) if self.overridden.contains(asked.name()) => {
                        self.requested.asked.push(asked);
                    }
                    _ => self.editable(&value, &place, path)?,
                }
            }
            Name::Editable => self.editable(&value, &place, path)?,
            Name::IndexUrl | Name::ExtraIndexUrl => {
                let warning = address::check_index(&value, &place)?;
                self.requested.warnings.extend(warning);
                match given.name {
                    Name::IndexUrl => options.index_url = Some(spoken(value)),
                    _ => options.extra_index_urls.push(spoken(value)),
                }
            }
            Name::NoIndex => options.without_index = Some(place),
            Name::FindLinks => {
                let (value, warning) = address::links(&value, path, &place)?;
                self.requested.warnings.extend(warning);
                options.find_links.push(spoken(value));
            }
            Name::NoBinary if value != ":none:" => {
                return Err(place.error(
                    "imgdecl::python::source",
                    "`--no-binary` asks for builds from sources: only wheels are installed",
                    "take the line out, or build wheels and point `find_links` at their folder",
                ));
            }
            Name::ReleaseControl => {
                return Err(place.error(
                    OPTION,
                    "this option is not supported",
                    "use `--pre` for all packages, or name a pre-release in the requirement, as `name>=2.0rc1`",
                ));
            }
            Name::RequireHashes => options.is_hashed = true,
            Name::Pre => options.is_pre = true,
            Name::TrustedHost => {
                self.requested.warnings.push(format!(
                    "{place}: `--trusted-host`: certificates are checked all the same; one that is your own is trusted by \
                     SSL_CERT_FILE, and `http:` needs no such line"
                ));
                options.trusted_hosts.push(spoken(value));
            }
            Name::PreferBinary => drop(options.only_wheels.insert(":all:".to_owned())),
            Name::OnlyBinary => {
                for name in value.split(',').map(str::trim) {
                    let parsed = name.parse::<pep508_rs::PackageName>();
                    match (name, parsed) {
                        (":none:", _) => options.only_wheels.clear(),
                        (":all:", _) => drop(options.only_wheels.insert(name.to_owned())),
                        (_, Ok(name)) => drop(options.only_wheels.insert(name.to_string())),
                        (_, Err(error)) => {
                            let help = "write names with commas between them, or `:all:`";
                            return Err(place.error(OPTION, error.to_string(), help));
                        }
                    }
                }
            }
            Name::NoRequireHashes => {
                return Err(place.error(
                    OPTION,
                    "this option is not supported: a `--hash` anywhere means hashes everywhere",
                    "take the line out",
                ));
            }
            Name::Settings => self.settings(&given),
            Name::Build => return Err(builds(&given)),
            Name::Hash => {
                return Err(place.error(
                    HASH,
                    "this `--hash` belongs to no requirement",
                    "put a backslash at the end of the line before",
                ));
            }
            // `:none:`; and what is of pip's inside.
            Name::NoBinary | Name::Feature => {}
        }
        Ok(())
    }

    /// Says that settings for a build are of no use, as they are to pip where there is a wheel.
    fn settings(&mut self, given: &Given) {
        let place = given.piece.place();
        self.requested.warnings.push(format!(
            "{place}: `--config-settings` is for a build: wheels are taken as they are"
        ));
    }

    /// Where one requirement has a hash, each needs one, and a version (pip, "Hash-checking Mode").
    fn check_hashes(&mut self) {
        if !self.requested.options.is_hashed {
            return;
        }
        for asked in &self.requested.asked {
            let name = asked.name();
            let on: Vec<&Asked> = self.requested.on(name).collect();
            if on.iter().all(|it| it.hashes.is_empty()) {
                self.errors.push(asked.place.error(
                    HASH,
                    format!("`{name}` has no `--hash`, but others have: then each needs one"),
                    "write the file with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`",
                ));
            } else if on.iter().all(|it| it.url.is_none() && pin(it).is_none()) {
                self.errors.push(asked.place.error(
                    HASH,
                    format!("`{name}` has hashes, but no version that they are for"),
                    format!("write `{name}==VERSION`"),
                ));
            }
        }
    }
}

/// Makes the error of an editable install.
fn editable(place: &Place) -> InputError {
    place.error(
        "imgdecl::python::source",
        "an editable install points into a checkout, which no image has",
        "put your own code into the image as a `[files]` layer, or build a wheel of it and point \
         `find_links` at its folder",
    )
}

/// Makes the error of an option that asks for a build.
fn builds(given: &Given) -> InputError {
    given.piece.place().error(
        "imgdecl::python::source",
        "this option asks for a build from sources: only wheels are installed",
        "take it out, or build a wheel so (`pip wheel --no-deps`), and point `find_links` at its folder",
    )
}

/// Returns the version that a requirement pins.
pub(in crate::python) fn pin(asked: &Asked) -> Option<&pep440_rs::Version> {
    let Some(pep508_rs::VersionOrUrl::VersionSpecifier(specifiers)) =
        &asked.requirement.version_or_url
    else {
        return asked.url.as_ref().map(|it| &it.wheel.version);
    };
    specifiers
        .iter()
        .find(|it| {
            matches!(
                it.operator(),
                pep440_rs::Operator::Equal | pep440_rs::Operator::ExactEqual
            )
        })
        .map(|it| it.version())
}

/// Parses the value of `--hash`; `None` for an algorithm other than sha256.
fn hash(given: &Given) -> Result<Option<Digest>, InputError> {
    let fail = |message: String| given.piece.place().error(HASH, message, entry::HASH);
    let Some((algorithm, hex)) = given.value.split_once(':') else {
        return Err(fail(format!("`{}` is no hash", given.value)));
    };
    match algorithm {
        "sha256" => Digest::from_hex(&hex.to_ascii_lowercase())
            .map(Some)
            .map_err(|error| fail(error.to_string())),
        "sha384" | "sha512" => Ok(None),
        other => Err(fail(format!("`{other}` is no algorithm that is safe"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Memory(BTreeMap<&'static str, String>);

    impl Files for Memory {
        fn read(&self, path: &str) -> Result<String, String> {
            let text = self.0.get(path).cloned();
            text.ok_or_else(|| "there is no such file".to_owned())
        }
    }

    fn read_all(files: &[(&'static str, &str)]) -> Result<Requested, Vec<InputError>> {
        let manifest = Source::shared("image.toml", "requirements");
        let memory = Memory(
            files
                .iter()
                .map(|(name, text)| (*name, (*text).to_owned()))
                .collect(),
        );
        let place = Place::new(&manifest, 0..12);
        let lookup = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        read(&[(files[0].0.to_owned(), place)], &[], &memory, &lookup)
    }

    const A: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn follows_files_and_gathers_options() {
        let requested = read_all(&[
            (
                "app/r.txt",
                "# all\n-r sub/more.txt\n-c ../c.txt\nflask[async]>=2 ; os_name=='posix'\n\
                 --index-url https://u:${TOKEN}@h/simple\n--extra-index-url=https://x --pre\n\
                 -f ./wheels\n-f https://h/wheels\n--only-binary :all:\n--trusted-host h\n",
            ),
            ("app/sub/more.txt", "requests --config-settings a=b\n"),
            ("c.txt", "urllib3<2\n-r d.txt\n"),
            ("d.txt", "idna\n"),
        ])
        .unwrap();
        let names = |all: &[Asked]| -> Vec<String> {
            all.iter().map(|it| it.requirement.to_string()).collect()
        };
        assert_eq!(
            names(&requested.asked),
            ["requests", "idna", "flask[async]>=2 ; os_name == 'posix'"]
        );
        assert_eq!(names(&requested.constraints), ["urllib3<2"]);
        let place = &requested.asked[2].place;
        assert_eq!(
            (place.to_string().as_str(), place.text()),
            ("app/r.txt:4", "flask[async]>=2 ; os_name=='posix'")
        );
        assert_eq!(requested.files.len(), 4);
        let options = &requested.options;
        assert_eq!(
            options.index_url.as_ref().unwrap().value,
            "https://u:s3cret@h/simple"
        );
        assert!(!format!("{options:?}").contains("s3cret"));
        assert!(options.is_pre && !options.is_hashed && options.without_index.is_none());
        let links: Vec<&str> = options
            .find_links
            .iter()
            .map(|it| it.value.as_str())
            .collect();
        assert_eq!(links, ["app/wheels", "https://h/wheels"]);
        assert_eq!(options.trusted_hosts.len(), 1);
    }

    #[test]
    fn a_hash_anywhere_means_hashes_everywhere() {
        let good = format!(
            "a==1 \\\n    --hash=sha256:{A} \\\n    --hash=sha512:00\nb @ https://h/b-1-py3-none-any.whl#sha256={A}\n"
        );
        let requested = read_all(&[("r.txt", &good)]).unwrap();
        assert!(requested.options.is_hashed);
        assert_eq!(requested.asked[0].hashes.len(), 1);
        let bad = format!("a==1 --hash sha256:{A}\nb==2\nc>=1 --hash=sha256:{A}\n");
        let errors = read_all(&[("r.txt", &bad)]).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(
            errors[0]
                .to_string()
                .starts_with("r.txt:2: `b` has no `--hash`")
        );
        assert!(errors[1].message.contains("no version"));
        // A URL's own digest asks nothing of the others; a constraint may bring the hashes.
        let url = format!("b @ https://h/b-1-py3-none-any.whl#sha256={A}\nc\n");
        assert!(!read_all(&[("r.txt", &url)]).unwrap().options.is_hashed);
        let constrained = format!("a --hash=sha256:{A}\n-c c.txt");
        assert!(read_all(&[("r.txt", &constrained), ("c.txt", "a==1")]).is_ok());
    }

    #[test]
    fn folders_are_taken_as_such() {
        let asked = |text: &str| {
            read_all(&[
                ("sub/r.txt", text),
                ("sub/pyproject.toml", ""),
                ("sub/lib/setup.cfg", ""),
                ("name/setup.py", ""),
            ])
        };
        let all = "./lib[x] ; os_name == 'posix'\n-e .\nname @ file:../name";
        let requested = asked(all).unwrap();
        let folders = requested.folders.iter().map(|it| {
            let name = it.name.as_ref().map(ToString::to_string);
            (it.path.clone().unwrap(), name, it.extras.len())
        });
        assert_eq!(
            folders.collect::<Vec<_>>(),
            [
                ("sub/lib".to_owned(), None, 1),
                ("sub".to_owned(), None, 0),
                ("name".to_owned(), Some("name".to_owned()), 0),
            ]
        );
        assert!(!requested.folders[0].marker.is_true() && requested.asked.is_empty());
        for text in [
            "./lib --hash=sha256:00",
            "-e git+https://h/x",
            "~/lib",
            "./none",
            "./lib x",
        ] {
            assert!(asked(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_with_advice() {
        for (text, code, message, underlined) in [
            (
                "--editable=git+https://h/x",
                "imgdecl::python::source",
                "editable",
                "",
            ),
            ("-r r.txt", FILE, "names itself: r.txt -> r.txt", "-r r.txt"),
            (
                "-c ./../x/y.txt",
                FILE,
                "`../x/y.txt` cannot be read: there is no such file",
                "",
            ),
            ("-r https://h/r.txt", FILE, "not fetched", ""),
            (
                "--no-binary :all:",
                "imgdecl::python::source",
                "builds from sources",
                "",
            ),
            ("a --pre", OPTION, "cannot follow", "--pre"),
            ("--hash=sha256:00", HASH, "belongs to no requirement", ""),
            ("a==1 --hash=md5:00", HASH, "`md5`", "--hash=md5:00"),
            ("a==1 --hash=sha256:00", HASH, "64", ""),
            ("a==1 --hash=sha512:00", HASH, "no sha256", ""),
            ("--all-releases=a", OPTION, "not supported", ""),
            (
                "--index-url ${NONE}",
                "imgdecl::python::variable",
                "`NONE`",
                "${NONE}",
            ),
            ("--user", OPTION, "no option", "--user"),
            ("a b", "imgdecl::python::requirement", "found `b`", "b"),
        ] {
            let errors = read_all(&[("r.txt", text)]).unwrap_err();
            let error = &errors[0];
            assert_eq!(error.code, code, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
            if !underlined.is_empty() {
                assert_eq!(error.place.text(), underlined, "{text}");
            }
        }
        let errors = read_all(&[("r.txt", "-c c.txt"), ("c.txt", "a[x]==1")]).unwrap_err();
        assert!(errors[0].message.contains("extras"));
        let errors = read_all(&[("a.txt", "-r b.txt"), ("b.txt", "-r a.txt")]).unwrap_err();
        assert!(
            errors[0].message.contains("a.txt -> b.txt -> a.txt"),
            "{errors:?}"
        );
    }

    /// Files that name each other twice would otherwise be read 2^20 times.
    #[test]
    fn many_files_are_bounded() {
        let names: Vec<String> = (0..20).map(|it| format!("{it}.txt")).collect();
        let names: Vec<&'static str> = names.into_iter().map(|it| &*it.leak()).collect();
        let texts: Vec<String> = (1..21)
            .map(|it| format!("-r {it}.txt\n-r {it}.txt"))
            .collect();
        let mut files: Vec<(&str, &str)> = names
            .iter()
            .copied()
            .zip(texts.iter().map(String::as_str))
            .collect();
        files[19].1 = "a";
        let errors = read_all(&files).unwrap_err();
        assert!(errors.iter().any(|it| it.message.contains("more than")));
    }
}
