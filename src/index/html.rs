//! The page of a package in an index, as HTML (PEP 503, 592, 629, 658, 714), read as tolerantly as browsers do. Fetches
//! nothing.

use std::sync::Arc;

use reqwest::Url;

use super::page;
use crate::graph::PackageFile;
use crate::net::url;
use crate::oci::Digest;

/// A tag: its name in lower case, and its attributes. Of two of one name the first counts.
struct Tag<'a> {
    name: String,
    attributes: Vec<(String, &'a str)>,
}

impl Tag<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let found = self.attributes.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| unescape(value))
    }
}

/// Reads the files of a page: its anchors.
///
/// # Errors
/// When the page says that it is of an API that is not known.
pub(super) fn read(text: &str, url: &Url, index: &str) -> Result<Vec<PackageFile>, String> {
    let mut base: Option<Url> = None;
    let mut files: Vec<PackageFile> = Vec::new();
    let index: Arc<str> = index.into();
    let tags = Tags { rest: text };
    for tag in tags {
        match tag.name.as_str() {
            "base" if base.is_none() => {
                base = tag.value("href").and_then(|it| url::join(url, &it));
            }
            "meta" if tag.value("name").as_deref() == Some("pypi:repository-version") => {
                page::check_version(tag.value("content").as_deref())?;
            }
            "a" => {
                let base = base.as_ref().unwrap_or(url);
                let file = file(&tag, base, &index, files.last());
                files.extend(file);
            }
            _ => {}
        }
    }
    files.shrink_to_fit();
    Ok(files)
}

/// Returns the names that a list of packages leads to: the last parts of the paths of its anchors.
pub(super) fn names(text: &str, url: &Url) -> Vec<String> {
    let anchors = Tags { rest: text }.filter(|it| it.name == "a");
    let paths = anchors.filter_map(|tag| url::join(url, &tag.value("href")?));
    let names = paths.filter_map(|url| {
        let path = url.path().trim_end_matches('/');
        path.rsplit('/').next().map(percent_decode)
    });
    names.collect()
}

/// Makes a file of an anchor; `None` if it leads to none. What the file before says, too, is shared.
fn file(
    tag: &Tag<'_>,
    base: &Url,
    index: &Arc<str>,
    before: Option<&PackageFile>,
) -> Option<PackageFile> {
    let href = tag.value("href")?;
    let url = url::join(base, &href)?;
    let name = url.path().rsplit('/').next().unwrap_or_default();
    let name = percent_decode(name);
    if !page::is_file(&name) {
        return None;
    }
    let fragment = href.split_once('#').map_or("", |(_, fragment)| fragment);
    let mut parts = fragment.split('&');
    let metadata = tag.value("data-core-metadata");
    let metadata = metadata.or_else(|| tag.value("data-dist-info-metadata"));
    Some(PackageFile {
        file: name.into(),
        sha256: parts.find_map(sha256),
        size: None,
        requires_python: tag
            .value("data-requires-python")
            .filter(|it| !it.is_empty())
            .map(|it| page::shared(&it, before)),
        yanked: tag.value("data-yanked"),
        uploaded: tag.value("data-upload-time").filter(|it| !it.is_empty()),
        has_metadata: metadata.as_deref().map(|it| it.trim() != "false"),
        metadata_sha256: metadata.as_deref().and_then(sha256),
        url: url.as_str().into(),
        index: index.clone(),
    })
}

/// Reads `sha256=HEX`.
fn sha256(text: &str) -> Option<Digest> {
    let hex = text.trim().strip_prefix("sha256=")?;
    Digest::from_hex(&hex.to_ascii_lowercase()).ok()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).filter(|_| *first == b'%');
        let pair = pair.filter(|it| it.iter().all(u8::is_ascii_hexdigit));
        let byte = pair.and_then(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The opening tags of a text, one after the other.
struct Tags<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        loop {
            let (_, rest) = self.rest.split_once('<')?;
            self.rest = rest;
            if let Some(comment) = rest.strip_prefix("!--") {
                self.rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
                continue;
            }
            let end = rest
                .find(|it: char| !it.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            // A closing tag, a declaration, or a `<` in a text.
            if name.is_empty() {
                continue;
            }
            let (attributes, rest) = attributes(&rest[end..]);
            self.rest = rest;
            // What stands in these is no markup.
            if matches!(name.as_str(), "script" | "style") {
                let is_close = |at: &usize| {
                    let after = self.rest.get(at + 2..at + 2 + name.len());
                    after.is_some_and(|it| it.eq_ignore_ascii_case(&name))
                };
                let mut ends = self.rest.match_indices("</").map(|(at, _)| at);
                self.rest = ends.find(is_close).map_or("", |at| &self.rest[at..]);
            }
            return Some(Tag { name, attributes });
        }
    }
}

/// Splits what follows the name of a tag into its attributes, and what follows the tag.
fn attributes(text: &str) -> (Vec<(String, &str)>, &str) {
    let mut attributes = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(|it: char| it.is_ascii_whitespace() || it == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return (attributes, after);
        }
        if rest.is_empty() {
            return (attributes, rest);
        }
        let is_end = |it: char| it.is_ascii_whitespace() || matches!(it, '=' | '>' | '/');
        // A name may begin with `=`: browsers have it so, and the loop must go on.
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let end = rest[first..]
            .find(is_end)
            .map_or(rest.len(), |at| at + first);
        let name = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start();
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            let quote = after.chars().next().filter(|it| matches!(it, '"' | '\''));
            (value, rest) = match quote {
                Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                None => {
                    let is_end = |it: char| it.is_ascii_whitespace() || it == '>';
                    after.split_at(after.find(is_end).unwrap_or(after.len()))
                }
            };
        }
        attributes.push((name, value));
    }
}

/// Puts characters in the place of `&amp;`, `&#39;` and the like; what is not known stays.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let end = after
            .find(|it: char| !it.is_ascii_alphanumeric() && it != '#')
            .unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        match entity(name).filter(|_| tail.starts_with(';')) {
            Some(char) => {
                out.push(char);
                rest = &tail[1..];
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn entity(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let number = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        return char::from_u32(number.ok()?);
    }
    Some(match name {
        "amp" | "AMP" => '&',
        "lt" | "LT" => '<',
        "gt" | "GT" => '>',
        "quot" | "QUOT" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        "num" => '#',
        "equals" => '=',
        "comma" => ',',
        "excl" => '!',
        "period" => '.',
        "plus" => '+',
        "lowbar" => '_',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<PackageFile> {
        let url = "https://i.example/simple/a/".parse().unwrap();
        read(text, &url, "own").unwrap()
    }

    #[test]
    fn reads_anchors() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        let files = files(&format!(
            "<!DOCTYPE html><HTML><head><meta name=\"pypi:repository-version\" content=\"1.0\"></head><body>\n\
             <!-- <a href='no.whl'>no</a> --><script>if (a<b) \"<a href='no.whl'>\"</script>\n\
             <h1>Links for a</h1> 1 < 2\n\
             <A class=x HREF=\"../../f/a-1%2Bcu-py3-none-any.whl#egg=a&amp;sha256={hex}\" data-requires-python=\"&gt;=3.8&#44;&#x3c;4\"\n\
             data-yanked data-upload-time='2026-01-01T00:00:00Z'>a-1.whl</A><br/>\n\
             <a href='https://u:p@f.example/a-2-py3-none-any.whl?x=1&y=2#md5=1' data-yanked=\"it &quot;broke&quot;\"\
             data-dist-info-metadata=true data-core-metadata=\"sha256={hex}\">two</a>\n\
             <a href=a-3.tar.gz data-core-metadata=false>three</a><a name=x>none</a><a href=\"/simple/\">up</a>\
             <a href=\"mailto:x@y\">mail</a><a href='a-4.whl"
        ));
        let names: Vec<&str> = files.iter().map(|it| &*it.file).collect();
        let expected = [
            "a-1+cu-py3-none-any.whl",
            "a-2-py3-none-any.whl",
            "a-3.tar.gz",
            "a-4.whl",
        ];
        assert_eq!(names, expected);
        let first = PackageFile {
            file: expected[0].into(),
            sha256: Some(digest),
            requires_python: Some(">=3.8,<4".into()),
            yanked: Some(String::new()),
            uploaded: Some("2026-01-01T00:00:00Z".to_owned()),
            url: "https://i.example/f/a-1%2Bcu-py3-none-any.whl".into(),
            index: "own".into(),
            ..PackageFile::default()
        };
        assert_eq!(files[0], first);
        assert_eq!(
            &*files[1].url,
            "https://f.example/a-2-py3-none-any.whl?x=1&y=2"
        );
        assert_eq!(files[1].yanked.as_deref(), Some("it \"broke\""));
        assert_eq!(files[1].sha256, None);
        assert_eq!(files[1].has_metadata, Some(true));
        assert_eq!(files[1].metadata_sha256, Some(digest));
        assert_eq!(files[2].has_metadata, Some(false));
        assert_eq!(&*files[2].url, "https://i.example/simple/a/a-3.tar.gz");
    }

    #[test]
    fn the_base_moves_links() {
        let text = "<base href=\"/f/\"><base href=\"/g/\"><a href=\"a.whl\">";
        assert_eq!(&*files(text)[0].url, "https://i.example/f/a.whl");
        let text = "<base href=\"ftp://x/\"><a href=\"a.whl\">";
        assert_eq!(&*files(text)[0].url, "https://i.example/simple/a/a.whl");
    }

    #[test]
    fn refuses_versions_that_are_not_known() {
        let url: Url = "https://i.example/".parse().unwrap();
        let text = "<meta content=2.0 name=\"pypi:repository-version\">";
        assert!(read(text, &url, "own").unwrap_err().contains("version 2"));
    }

    #[test]
    fn nothing_hangs_or_panics() {
        let pieces = [
            "<", "a", " ", "href", "=", "'", "\"", ">", "&", ";", "#", "%", "é", "<!--", "x/",
        ];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            files(&text);
        }
    }
}
