//! Addresses in options: indexes, pages of links and folders. Asks nobody whether they are there.

use crate::python::filename::percent_decode;
use crate::python::place::{InputError, Place, beside};
use crate::shown;

const OPTION: &str = "imgdecl::python::option";

/// Where a password may stand instead.
const ELSEWHERE: &str =
    "it may stand in .netrc, or in a variable of the environment that the URL names as `${NAME}`";

/// Checks the URL of an index, and has its password struck out of all that is shown. Returns what the user should know.
///
/// # Errors
/// When it is no http or https URL, or has a query.
pub(in crate::python) fn check_index(
    value: &str,
    place: &Place,
) -> Result<Option<String>, InputError> {
    let Some((scheme, rest)) = value.split_once("://").filter(|(scheme, _)| is_web(scheme)) else {
        return Err(place.error(
            OPTION,
            "this is no http or https URL of a package index",
            "write the URL below which the index has a page for each package; a folder of wheels is named by `--find-links`",
        ));
    };
    let warning = secret(value, place);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        let help = "write it as `https://HOST/simple`";
        return Err(place.error(OPTION, format!("this {scheme} URL has no host"), help));
    }
    if rest.contains('?') {
        return Err(place.error(
            OPTION,
            "the URL of an index has no query: the names of packages follow it",
            format!("take out what follows `?`; if that is a password, {ELSEWHERE}"),
        ));
    }
    Ok(warning)
}

/// Reads the value of `--find-links` in a file: a page of links by its URL, or a folder, from where the paths of the set
/// begin. Returns what the user should know, too.
///
/// # Errors
/// When it is neither.
pub(in crate::python) fn links(
    value: &str,
    file: &str,
    place: &Place,
) -> Result<(String, Option<String>), InputError> {
    match value.split_once(':') {
        Some((scheme, _)) if is_web(scheme) => Ok((value.to_owned(), secret(value, place))),
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path.strip_prefix("localhost").unwrap_or(path);
            let path = percent_decode(path).ok_or_else(|| {
                let help = "write two hexadecimal digits after each `%`";
                place.error(OPTION, "the percent encoding of this URL is broken", help)
            })?;
            Ok((beside(file, &path), None))
        }
        Some((scheme, rest)) if rest.starts_with("//") => Err(place.error(
            OPTION,
            format!("pages that begin with `{scheme}:` cannot be fetched"),
            "name a folder, or a page by `https:`",
        )),
        _ => Ok((beside(file, value), None)),
    }
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Has the credentials of a URL struck out of all that is shown. Returns a warning where the file itself holds them.
pub(in crate::python) fn secret(url: &str, place: &Place) -> Option<String> {
    let login = login(url)?;
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let decoded = |text: &str| percent_decode(text).unwrap_or_else(|| text.to_owned());
    match password.is_empty() {
        true => shown::keep(&decoded(user)),
        false => {
            shown::keep(password);
            shown::keep_login(&decoded(user), &decoded(password));
        }
    }
    // What a variable gave stands in no file.
    let is_written = place.text().contains(login);
    is_written.then(|| {
        format!("{place}: a password stands in this file; it goes to its host only, and not into image.lock: {ELSEWHERE}")
    })
}

/// Returns the user and the password of a URL, as they stand there.
fn login(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, _) = host.rsplit_once('@')?;
    (!login.is_empty()).then_some(login)
}

/// Takes a user and a password out of a URL.
pub(crate) fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Takes a user, a password and a fragment out of a URL.
pub(crate) fn without_secrets(url: &str) -> String {
    without_login(url.split('#').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::python::place::Source;

    fn place(text: &str) -> Place {
        let source = Source::shared("r.txt", text);
        Place::new(&source, 0..text.len())
    }

    #[test]
    fn indexes_are_of_the_web() {
        let check = |text: &str| check_index(text, &place(text));
        assert_eq!(check("https://h.example/simple"), Ok(None));
        for (text, message) in [
            ("/srv/index", "no http or https"),
            ("file:///srv/index", "no http or https"),
            ("https:///simple", "no host"),
            ("https://h/simple?token=x", "no query"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(!error.help.is_empty());
        }
    }

    #[test]
    fn passwords_are_told_and_struck_out() {
        let url = "https://me:of%2Dthe-index@h.example/simple";
        let warning = check_index(url, &place(url)).unwrap().unwrap();
        assert!(warning.contains("${NAME}"), "{warning}");
        for secret in ["of%2Dthe-index", "of-the-index"] {
            assert!(!shown::text(secret).contains("index"), "{secret}");
        }
        let named = place("https://me:${WORD}@h.example/simple");
        assert_eq!(
            check_index("https://me:wordwordword@h.example/simple", &named),
            Ok(None)
        );
        assert_eq!(without_login(url), "https://h.example/simple");
        assert_eq!(
            without_login("https://h.example/a@b.whl"),
            "https://h.example/a@b.whl"
        );
    }

    #[test]
    fn urls_lose_their_secrets() {
        for (url, expected) in [
            ("https://h/a.whl", "https://h/a.whl"),
            (
                "https://me:p@ss@h:1/a@b.whl#sha256=0",
                "https://h:1/a@b.whl",
            ),
            ("https://me@h?x=1", "https://h?x=1"),
            ("https://u:p@h:1/a.whl#sha256=0", "https://h:1/a.whl"),
            ("https://u@h/a@b.whl", "https://h/a@b.whl"),
            ("https://u:p@w@h", "https://h"),
            ("file:///a/b.whl", "file:///a/b.whl"),
        ] {
            assert_eq!(without_secrets(url), expected);
        }
    }

    #[test]
    fn links_are_folders_or_pages() {
        let read = |text: &str| links(text, "app/r.txt", &place(text)).map(|it| it.0);
        assert_eq!(read("../w").unwrap(), "w");
        assert_eq!(read("file:///srv/w%201").unwrap(), "/srv/w 1");
        assert_eq!(read("http://h/w.html").unwrap(), "http://h/w.html");
        assert!(read("ftp://h/w").unwrap_err().message.contains("`ftp:`"));
        assert!(read("file:///a%2").is_err());
    }
}
