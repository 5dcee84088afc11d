//! One requirement: by name, by URL, or by path. Says what to do instead of what cannot be had without a build.

use std::ops::Range;

use pep508_rs::{ExtraName, MarkerTree, VersionOrUrl};

use super::{Asked, AskedFolder, Direct, Names};
use crate::oci::Digest;
use crate::python::place::{InputError, Piece, beside};
use crate::python::{Requirement, WheelName, WheelUrl, pep508};

const CODE: &str = "imgdecl::python::requirement";
const SOURCE: &str = "imgdecl::python::source";

/// What to do where only sources are named.
const BUILD: &str = "build a wheel of it (`pip wheel --no-deps`), ask for it by name, and point `find_links` at its folder";

/// Parses one requirement. Relative paths begin beside `file`.
pub(super) fn parse(
    piece: &Piece,
    mut hashes: Vec<Digest>,
    file: &str,
    overridden: &Names,
) -> Result<Asked, InputError> {
    let place = piece.place();
    if let Some(requirement) = stands_for(&piece.text, overridden) {
        return Ok(Asked {
            requirement,
            hashes,
            place,
            url: None,
        });
    }
    let (mut requirement, link) = match unnamed(&piece.text) {
        Some(end) => {
            let link = check(piece, 0..end, None)?;
            (unnamed_requirement(piece, end, &link)?, Some(link))
        }
        None => named(piece)?,
    };
    let url = match link {
        Some(link) => {
            let direct = direct(piece, &link, file)?;
            if let Some(hex) = link.fragment("sha256") {
                let hash = Digest::from_hex(&hex.to_ascii_lowercase());
                hashes.push(hash.map_err(|error| place.error(CODE, error.to_string(), HASH))?);
            }
            if hashes.is_empty() && !direct.is_local {
                return Err(place.error(
                    "imgdecl::python::hash",
                    "the wheel behind this URL may change at any time: its sha256 is missing",
                    "add `#sha256=…` to the URL, or `--hash=sha256:…` after it",
                ));
            }
            requirement.version_or_url = Some(VersionOrUrl::Url(direct.link.clone()));
            Some(direct)
        }
        None => None,
    };
    Ok(Asked {
        requirement,
        hashes,
        place,
        url,
    })
}

/// Returns the folder of sources that a requirement names. `refused` is what is wrong with it as a requirement of a wheel.
pub(super) fn folder(
    piece: &Piece,
    file: &str,
    refused: InputError,
) -> Result<AskedFolder, InputError> {
    if refused.code != SOURCE {
        return Err(refused);
    }
    let unread = || refused.clone();
    let (address, name, extras, marker) = match unnamed(&piece.text) {
        Some(end) => {
            let (address, extras) = match piece.text[..end].split_once('[') {
                Some((address, extras)) => (address, extras.trim_end_matches(']')),
                None => (&piece.text[..end], ""),
            };
            let rest = piece.text[end..].trim();
            let marker = match rest.strip_prefix(';') {
                None if rest.is_empty() => MarkerTree::TRUE,
                None => return Err(refused),
                Some(marker) => pep508::marker(marker).map_err(|_| unread())?,
            };
            let extras = extras.split(',').map(str::trim).filter(|it| !it.is_empty());
            let extras: Result<Vec<ExtraName>, _> = extras.map(str::parse).collect();
            (
                address.to_owned(),
                None,
                extras.map_err(|_| unread())?,
                marker,
            )
        }
        None => {
            let requirement = pep508::requirement(&piece.text).map_err(|_| unread())?;
            let Some(VersionOrUrl::Url(url)) = requirement.version_or_url else {
                return Err(refused);
            };
            let name = Some(requirement.name);
            (
                url.as_str().to_owned(),
                name,
                requirement.extras,
                requirement.marker,
            )
        }
    };
    let link = WheelUrl::new(&address).map_err(|_| unread())?;
    let path = match link.scheme().as_deref() {
        None => address.clone(),
        Some("file") => {
            let path = address.split_once(':').map_or("", |(_, it)| it);
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path.strip_prefix("localhost").unwrap_or(path);
            super::super::filename::percent_decode(path).ok_or_else(unread)?
        }
        Some(_) => return Err(refused),
    };
    if path.starts_with('~') || is_archive(&path) || path.contains(['#', '?']) {
        return Err(refused);
    }
    Ok(AskedFolder {
        path: Some(beside(file, &path)),
        name,
        extras,
        marker,
        place: piece.place(),
        refused,
    })
}

/// Returns the bare requirement of a package that something else takes the place of, where a URL or path says what it would
/// have been: as `NAME @ URL`, or as a URL with `#egg=NAME`.
fn stands_for(text: &str, overridden: &Names) -> Option<Requirement> {
    let (address, marker) = match text.split_once(" ;") {
        Some((address, marker)) => (address, pep508::marker(marker).ok()?),
        None => (text, MarkerTree::TRUE),
    };
    let (name, extras) = match address.split_once('@').map(|(name, _)| name.trim()) {
        Some(name) if !name.contains(['/', ':']) => match name.split_once('[') {
            Some((name, extras)) => (name.trim(), extras.trim_end_matches(']')),
            None => (name, ""),
        },
        _ => (egg(address)?, ""),
    };
    let name = name.parse().ok().filter(|it| overridden.contains(it))?;
    let extras = extras.split(',').map(str::trim).filter(|it| !it.is_empty());
    Some(Requirement {
        name,
        extras: extras.map(str::parse).collect::<Result<_, _>>().ok()?,
        version_or_url: None,
        marker,
        origin: None,
    })
}

/// Returns the name that a URL says its package has, behind `#egg=`.
fn egg(url: &str) -> Option<&str> {
    let (_, fragment) = url.split_once('#')?;
    let egg = fragment.split('&').find_map(|it| it.strip_prefix("egg="))?;
    Some(egg.split(['[', ' ']).next()?.trim())
}

/// How to write a digest.
pub(super) const HASH: &str = "write `sha256:` and 64 hex digits";

/// Returns where the URL or path ends that the text begins with, if it begins with one.
fn unnamed(text: &str) -> Option<usize> {
    // A space may only stand before a marker, as in `./x.whl ; python_version > "3"`.
    let end = text
        .find(|it: char| it.is_whitespace())
        .unwrap_or(text.len());
    let word = &text[..end];
    let is_url = WheelUrl::new(word).is_ok_and(|it| it.scheme().is_some());
    let name = word
        .split(['@', ';', '[', '<', '>', '=', '!', '~'])
        .next()?;
    let is_path = name.contains('/') || name.contains('\\') || name.starts_with('.');
    let is_home = word.starts_with("~/");
    (is_url || is_path || is_home || is_archive(name)).then_some(end)
}

fn is_archive(name: &str) -> bool {
    let ends = [
        ".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar",
    ];
    let name = name.to_ascii_lowercase();
    ends.iter().any(|end| name.ends_with(end))
}

/// Parses `NAME @ URL` or `NAME SPECIFIERS`.
fn named(piece: &Piece) -> Result<(Requirement, Option<WheelUrl>), InputError> {
    if piece.text.trim_start().starts_with('-') {
        return Err(piece.place_of(0..piece.text.len()).error(
            CODE,
            "options stand in requirements files, and not in a list of packages",
            "write it into a file, and name that in `requirements`; of sources build a wheel, and point `find_links` at its folder",
        ));
    }
    let requirement = pep508::requirement(&piece.text).map_err(|error| {
        piece.place_of(error.span).error(
            CODE,
            error.message,
            "write it as `name`, `name>=1.2,<2`, `name[extra]==1.2` or `name @ URL`, perhaps with `; MARKER`",
        )
    })?;
    let link = match &requirement.version_or_url {
        Some(VersionOrUrl::Url(link)) => {
            let start = piece.text.find(link.as_str()).unwrap_or_default();
            Some(check(
                piece,
                start..start + link.as_str().len(),
                Some(&requirement),
            )?)
        }
        _ => None,
    };
    Ok((requirement, link))
}

/// Checks that a URL or path is that of a wheel.
fn check(
    piece: &Piece,
    span: Range<usize>,
    named: Option<&Requirement>,
) -> Result<WheelUrl, InputError> {
    let place = piece.place_of(span.clone());
    let link = WheelUrl::new(&piece.text[span])
        .map_err(|error| place.error(CODE, error.to_string(), "name a wheel"))?;
    let scheme = link.scheme().unwrap_or_default();
    let what = match scheme.as_str() {
        it if it.contains('+') || it == "git" || it == "ssh" => "a checkout of version control",
        "" | "http" | "https" | "file" => {
            let file = link.file().unwrap_or_default();
            // Extras of a path: `./x.whl[fast]`.
            let file = file
                .split('[')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            if file.ends_with(".whl") {
                return Ok(link);
            }
            match is_archive(&file) {
                true => "an archive of sources",
                false => "a folder of sources",
            }
        }
        other => {
            return Err(place.error(
                CODE,
                format!("URLs that begin with `{other}:` cannot be fetched"),
                "use `https:` or `file:`",
            ));
        }
    };
    let name = named.map_or_else(|| "this".to_owned(), |it| format!("`{}`", it.name));
    let message = format!("{name} is {what}, which needs a build: only wheels are installed");
    let known = named.map(|it| it.name.to_string());
    let known = known.or_else(|| egg(&piece.text).map(str::to_owned));
    let help = match known {
        Some(name) => format!(
            "{BUILD}; or leave the file as it is, and write `overrides = [\"{name} @ WHEEL\"]` with the path of that wheel"
        ),
        None => BUILD.to_owned(),
    };
    Err(place.error(SOURCE, message, help))
}

/// Makes the requirement of a URL or path that stands alone.
fn unnamed_requirement(
    piece: &Piece,
    end: usize,
    link: &WheelUrl,
) -> Result<Requirement, InputError> {
    let fail = |span: Range<usize>, message: String| {
        piece
            .place_of(span)
            .error(CODE, message, "write it as `URL ; MARKER`, or `name @ URL`")
    };
    let file = link.file().unwrap_or_default();
    let (file, extras) = match file.split_once('[') {
        Some((file, extras)) => (file, extras.trim_end_matches(']')),
        None => (file.as_str(), ""),
    };
    let wheel = WheelName::parse(file).map_err(|error| fail(0..end, error.to_string()))?;
    let extras: Result<Vec<ExtraName>, _> = extras
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .map(str::parse)
        .collect();
    let rest = piece.text[end..].trim();
    let marker = match rest.strip_prefix(';') {
        None if rest.is_empty() => MarkerTree::TRUE,
        None => {
            let message = format!("`{rest}` cannot follow a URL or path");
            return Err(fail(end..piece.text.len(), message));
        }
        Some(marker) => {
            pep508::marker(marker).map_err(|error| fail(end..piece.text.len(), error.message))?
        }
    };
    Ok(Requirement {
        name: wheel.name,
        extras: extras.map_err(|error| fail(0..end, error.to_string()))?,
        version_or_url: None,
        marker,
        origin: None,
    })
}

/// Takes apart where a wheel is.
fn direct(piece: &Piece, link: &WheelUrl, file: &str) -> Result<Direct, InputError> {
    let place = piece.place();
    let fail = |error: String| place.error(CODE, error, "name a wheel by its full file name");
    let name = link.file().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    let wheel = WheelName::parse(name).map_err(|error| fail(error.to_string()))?;
    let scheme = link.scheme();
    let address = link.address().split('[').next().unwrap_or_default();
    let (address, is_local) = match scheme.as_deref() {
        Some("file") => {
            let path = address.split_once(':').map_or("", |(_, it)| it);
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path.strip_prefix("localhost").unwrap_or(path);
            let path = super::super::filename::percent_decode(path)
                .ok_or_else(|| fail("the percent encoding of this URL is broken".to_owned()))?;
            (beside(file, &path), true)
        }
        Some(_) => (address.to_owned(), false),
        None => (beside(file, address), true),
    };
    let named = piece.text.split(['@', '[', ' ']).next().unwrap_or_default();
    if let Ok(named) = named.parse::<pep508_rs::PackageName>()
        && piece.text.contains('@')
        && unnamed(&piece.text).is_none()
        && named != wheel.name
    {
        return Err(fail(format!(
            "the requirement is for `{named}`, but its wheel is one of `{}`",
            wheel.name
        )));
    }
    Ok(Direct {
        wheel,
        link: WheelUrl::new(&address).map_err(|error| fail(error.to_string()))?,
        is_local,
    })
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::python::place::{Place, Source};

    fn ask(text: &str) -> Result<Asked, InputError> {
        let source = Source::shared("reqs/r.txt", text);
        Asked::parse(text, &Place::new(&source, 0..text.len()), "reqs/r.txt")
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_with_what_may_follow() {
        let asked = ask("Uvicorn [standard] >=0.30,<1 ; python_version < '3.12'").unwrap();
        assert_eq!(asked.name().as_ref(), "uvicorn");
        assert_eq!(
            asked.requirement.to_string(),
            "uvicorn[standard]>=0.30,<1 ; python_full_version < '3.12'"
        );
        assert!(asked.url.is_none());
        assert!(ask("a-b_c.d (==1.*)").is_ok());
    }

    #[test]
    fn wheels_by_url_and_path() {
        for (text, link, is_local) in [
            (
                format!("a @ https://h/x/a-1-py3-none-any.whl#sha256={HEX}"),
                "https://h/x/a-1-py3-none-any.whl",
                false,
            ),
            (
                format!(
                    "https://h/a-1-py3-none-any.whl?t=1#egg=a&sha256={HEX} ; os_name == 'posix'"
                ),
                "https://h/a-1-py3-none-any.whl?t=1",
                false,
            ),
            (
                "./w/a-1-py3-none-any.whl[x,y]".to_owned(),
                "reqs/w/a-1-py3-none-any.whl",
                true,
            ),
            (
                "a-1-py3-none-any.whl".to_owned(),
                "reqs/a-1-py3-none-any.whl",
                true,
            ),
            (
                "a[x] @ ../a-1%2B2-py3-none-any.whl".to_owned(),
                "a-1%2B2-py3-none-any.whl",
                true,
            ),
            (
                "file:///w/a-1%2B2-py3-none-any.whl".to_owned(),
                "/w/a-1+2-py3-none-any.whl",
                true,
            ),
        ] {
            let asked = ask(&text).unwrap();
            let direct = asked.url.unwrap();
            assert_eq!((direct.link.as_str(), direct.is_local), (link, is_local));
            assert_eq!(direct.wheel.name.as_ref(), "a");
            assert_eq!(asked.requirement.name.as_ref(), "a");
            assert_eq!(asked.hashes.len(), usize::from(!is_local));
        }
        let asked = ask("./w/a-1-py3-none-any.whl[x,y]").unwrap();
        assert_eq!(asked.requirement.extras.len(), 2);
    }

    #[test]
    fn refuses_with_advice() {
        for (text, code, message, underlined) in [
            (
                "git+https://h/x.git@main",
                SOURCE,
                "version control",
                "git+https://h/x.git@main",
            ),
            (
                "x @ git+ssh://git@h/x",
                SOURCE,
                "`x` is a checkout",
                "git+ssh://git@h/x",
            ),
            (".", SOURCE, "folder of sources", "."),
            ("./lib[extra]", SOURCE, "folder of sources", "./lib[extra]"),
            ("~/lib", SOURCE, "folder of sources", "~/lib"),
            (
                "x @ file:///srv/x",
                SOURCE,
                "folder of sources",
                "file:///srv/x",
            ),
            ("x-1.0.tar.gz", SOURCE, "archive of sources", "x-1.0.tar.gz"),
            (
                "x @ https://h/x.zip#sha256=0",
                SOURCE,
                "archive",
                "https://h/x.zip#sha256=0",
            ),
            ("x @ ftp://h/x.whl", CODE, "`ftp:`", "ftp://h/x.whl"),
            (
                "a @ https://h/a-1-py3-none-any.whl",
                "imgdecl::python::hash",
                "sha256 is missing",
                "",
            ),
            ("b @ ./a-1-py3-none-any.whl", CODE, "for `b`", ""),
            ("a @ ./a.whl", CODE, "not the name of a wheel", ""),
            ("a-1-py3-none-any.whl x", CODE, "cannot follow", " x"),
            ("requests >= 2 <3", CODE, "", ""),
            ("requests=>2", CODE, "", ""),
            ("foo bar", CODE, "found `b`", "b"),
            ("foo[a-]", CODE, "`a-` is no name", "foo[a-]"),
            ("foo_", CODE, "`foo_` is no name", "foo_"),
            ("foo[", CODE, "Missing closing bracket", "["),
            ("é", CODE, "no ASCII character", "é"),
            ("a ; os_name == 'é'", CODE, "no ASCII character", "é"),
            ("a ; python_version <", CODE, "", ""),
        ] {
            let error = ask(text).unwrap_err();
            assert_eq!(error.code, code, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(!error.help.is_empty());
            if !underlined.is_empty() {
                assert_eq!(error.place.text(), underlined, "{text}");
            }
        }
    }
}
