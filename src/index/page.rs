//! The page of a package in an index, as JSON (PEP 691, 700, 714): the files of the package. HTML is read by html.rs.
//! Fetches nothing.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::html;
use crate::graph::PackageFile;
use crate::net::url::Joiner;
use crate::oci::{Digest, null_is_default};
use crate::shown;

/// What a client accepts: JSON first (PEP 691, "Version + Format Selection").
pub(super) const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, \
     application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// Reads the files of a page. `kind` is its content type; `url` is where it came from.
///
/// # Errors
/// When it is no page of an index: says why.
pub(super) fn read(
    kind: &str,
    bytes: &[u8],
    url: &Url,
    index: &str,
) -> Result<Vec<PackageFile>, String> {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    match kind.as_str() {
        "application/vnd.pypi.simple.v1+json"
        | "application/vnd.pypi.simple.latest+json"
        | "application/json" => json(bytes, url, index),
        "application/vnd.pypi.simple.v1+html"
        | "application/vnd.pypi.simple.latest+html"
        | "application/xhtml+xml"
        | "text/html" => html::read(&String::from_utf8_lossy(bytes), url, index),
        "" => Err("it does not say whether it is JSON or HTML".to_owned()),
        _ => Err(format!(
            "it is `{}`, and neither JSON nor HTML",
            clean(&kind)
        )),
    }
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(rename = "api-version")]
    version: Option<String>,
}

/// One file. What may have several forms is kept as its text, and read by hand.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry<'a> {
    #[serde(borrow)]
    filename: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_is_default")]
    hashes: Hashes,
    #[serde(borrow)]
    requires_python: Option<Text<'a>>,
    #[serde(borrow)]
    core_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    dist_info_metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    yanked: Option<&'a RawValue>,
    #[serde(borrow)]
    size: Option<&'a RawValue>,
    #[serde(borrow)]
    upload_time: Option<Text<'a>>,
}

/// A text, copied only where it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Digests of a file, of which one is of interest.
#[derive(Default)]
struct Hashes {
    sha256: Option<Digest>,
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(HashesVisitor)
    }
}

/// Reads the digests of a file.
struct HashesVisitor;

impl<'de> Visitor<'de> for HashesVisitor {
    type Value = Hashes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with digests")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hashes, A::Error> {
        let mut hashes = Hashes::default();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "sha256" => hashes.sha256 = text(map.next_value()?).and_then(|it| digest(&it)),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(hashes)
    }
}

fn json(bytes: &[u8], url: &Url, index: &str) -> Result<Vec<PackageFile>, String> {
    let page = Page {
        urls: Joiner::new(url),
        index: index.into(),
    };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = reader
        .deserialize_map(page)
        .and_then(|page| reader.end().map(|()| page));
    let (version, files) = read.map_err(|error| format!("it is no page of files: {error}"))?;
    check_version(version.as_deref())?;
    Ok(files)
}

/// Reads a page one file at a time: the whole of a large one would take many times its size.
struct Page<'a> {
    urls: Joiner<'a>,
    index: Arc<str>,
}

impl<'de> Visitor<'de> for Page<'_> {
    type Value = (Option<String>, Vec<PackageFile>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `files`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut meta, mut files) = (None::<Meta>, None);
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                "meta" if meta.is_some() => return Err(A::Error::duplicate_field("meta")),
                "files" if files.is_some() => return Err(A::Error::duplicate_field("files")),
                "meta" => meta = Some(map.next_value::<Option<Meta>>()?.unwrap_or_default()),
                "files" => files = Some(map.next_value_seed(Listed(&mut self))?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let files = files.ok_or_else(|| A::Error::missing_field("files"))?;
        Ok((meta.unwrap_or_default().version, files))
    }
}

/// Reads the files of a page.
struct Listed<'a, 'p>(&'a mut Page<'p>);

impl<'de> DeserializeSeed<'de> for Listed<'_, '_> {
    type Value = Vec<PackageFile>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Listed<'_, '_> {
    type Value = Vec<PackageFile>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut files: Vec<PackageFile> = Vec::new();
        // A file that cannot be read does not hide the others.
        while let Some(raw) = list.next_element::<&RawValue>()? {
            let file = match serde_json::from_str::<Entry<'_>>(raw.get()) {
                Ok(entry) => self.0.file(&entry, files.last()),
                // What is said twice counts as it was said last.
                Err(_) => {
                    let value = serde_json::from_str::<Value>(raw.get());
                    let plain = value.map(|it| it.to_string()).unwrap_or_default();
                    let entry = serde_json::from_str::<Entry<'_>>(&plain).ok();
                    entry.and_then(|it| self.0.file(&it, files.last()))
                }
            };
            files.extend(file);
        }
        files.shrink_to_fit();
        Ok(files)
    }
}

impl Page<'_> {
    /// Makes a file of an entry. What the file before says, too, is shared.
    fn file(&mut self, entry: &Entry<'_>, before: Option<&PackageFile>) -> Option<PackageFile> {
        let url = self.urls.join(&entry.url)?;
        let metadata = entry.core_metadata.or(entry.dist_info_metadata);
        let metadata = metadata.map(RawValue::get);
        let is_said = metadata.filter(|it| it.starts_with('{'));
        let metadata_sha256 = is_said.and_then(|it| serde_json::from_str::<Hashes>(it).ok());
        let requires_python = entry.requires_python.as_ref().map(|Text(it)| it);
        let requires_python = requires_python.filter(|it| !it.is_empty());
        Some(PackageFile {
            file: Some(&*entry.filename).filter(|it| is_file(it))?.into(),
            sha256: entry.hashes.sha256,
            size: entry.size.and_then(|it| it.get().parse().ok()),
            requires_python: requires_python.map(|it| shared(it, before)),
            yanked: match entry.yanked {
                Some(it) if it.get() == "true" => Some(String::new()),
                it => it.and_then(text).map(Cow::into_owned),
            },
            uploaded: entry.upload_time.as_ref().map(|Text(it)| (**it).into()),
            metadata_sha256: metadata_sha256.and_then(|it| it.sha256),
            has_metadata: match metadata {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => is_said.map(|_| true),
            },
            url,
            index: self.index.clone(),
        })
    }
}

/// Returns what is a text.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = Some(raw.get()).filter(|it| it.starts_with('"'));
    text.and_then(|it| serde_json::from_str::<Text<'_>>(it).ok())
        .map(|Text(it)| it)
}

/// Takes `Requires-Python` from the file before where it says the same, as most do.
pub(super) fn shared(text: &str, before: Option<&PackageFile>) -> Arc<str> {
    let before = before.and_then(|it| it.requires_python.clone());
    match before.filter(|it| **it == *text) {
        Some(known) => known,
        None => text.into(),
    }
}

/// Refuses a page of another major version of the API (PEP 629).
pub(super) fn check_version(version: Option<&str>) -> Result<(), String> {
    let major = version.and_then(|it| it.trim().split('.').next());
    match major {
        None | Some("1") => Ok(()),
        Some(major) => Err(format!(
            "it is of version {} of the API, and 1 is known",
            clean(major)
        )),
    }
}

fn digest(hex: &str) -> Option<Digest> {
    match Digest::from_hex(hex) {
        Ok(digest) => Some(digest),
        Err(_) => Digest::from_hex(&hex.to_ascii_lowercase()).ok(),
    }
}

/// Tells whether a text can be the name of a file.
pub(super) fn is_file(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "." | "..")
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

/// Makes a text of an index fit for a message.
fn clean(text: &str) -> String {
    shown::one_line(text, 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/vnd.pypi.simple.v1+json; charset=utf-8";

    fn files(text: &str) -> Result<Vec<PackageFile>, String> {
        let url = "https://i.example/simple/a/".parse().unwrap();
        read(JSON, text.as_bytes(), &url, "own")
    }

    #[test]
    fn reads_what_an_index_says_of_files() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        let text = format!(
            r#"{{"meta":{{"api-version":"1.4","x":1}},"name":"a","versions":["1"],"files":[
            {{"filename":"a-1-py3-none-any.whl","url":"../../f/a-1-py3-none-any.whl#x","hashes":{{"sha256":"{hex}","md5":"1"}},
              "requires-python":">=3.8","yanked":"broken","size":7,"upload-time":"2026-01-02T03:04:05.6Z",
              "core-metadata":{{"sha256":"{hex}"}},"dist-info-metadata":false}},
            {{"filename":"a-2-py3-none-any.whl","url":"https://u:p@f.example/a-2-py3-none-any.whl?sig=1","hashes":{{}},
              "yanked":false,"requires-python":null,"dist-info-metadata":true}},
            {{"filename":"a-3-py3-none-any.whl","url":"v2/a-3.whl","yanked":true,"core-metadata":false}},
            {{"filename":"../x","url":"x"}}, {{"filename":"x"}}, 7, {{"filename":"y.whl","url":"file:///y.whl"}}
            ]}}"#
        );
        let files = files(&text).unwrap();
        assert_eq!(files.len(), 3);
        let expected = PackageFile {
            file: "a-1-py3-none-any.whl".into(),
            sha256: Some(digest),
            size: Some(7),
            requires_python: Some(">=3.8".into()),
            yanked: Some("broken".to_owned()),
            uploaded: Some("2026-01-02T03:04:05.6Z".to_owned()),
            has_metadata: Some(true),
            metadata_sha256: Some(digest),
            url: "https://i.example/f/a-1-py3-none-any.whl".into(),
            index: "own".into(),
        };
        assert_eq!(files[0], expected);
        assert_eq!(
            &*files[1].url,
            "https://f.example/a-2-py3-none-any.whl?sig=1"
        );
        assert_eq!(
            (files[1].has_metadata, &files[1].yanked),
            (Some(true), &None)
        );
        assert_eq!(files[1].requires_python, None);
        assert_eq!(&*files[2].url, "https://i.example/simple/a/v2/a-3.whl");
        assert_eq!(files[2].has_metadata, Some(false));
        assert_eq!(files[2].yanked.as_deref(), Some(""));
    }

    #[test]
    fn refuses_what_is_no_page() {
        for text in ["", "[]", "{}", r#"{"files":7}"#, r#"{"files":[]"#] {
            assert!(files(text).unwrap_err().contains("no page"), "{text}");
        }
        let version = files(r#"{"meta":{"api-version":"2.0"},"files":[]}"#).unwrap_err();
        assert!(version.contains("version 2"), "{version}");
        assert_eq!(files(r#"{"files":[]}"#).unwrap(), []);
        let url: Url = "https://i.example/".parse().unwrap();
        let refused = |kind: &str| read(kind, b"", &url, "own").unwrap_err();
        assert!(refused("image/png").contains("image/png"));
        assert!(refused("").contains("neither") || refused("").contains("does not say"));
    }

    #[test]
    fn null_is_absent() {
        let hex = Digest::of(b"x").hex();
        let page = serde_json::json!({
            "meta": {"api-version": "1.1", "_last-serial": 1}, "name": "a", "versions": ["1"],
            "files": [{
                "filename": "a-1-py3-none-any.whl", "url": "https://f.example/a-1-py3-none-any.whl",
                "hashes": {"sha256": hex, "md5": "1"}, "requires-python": ">=3", "size": 1,
                "upload-time": "2026-01-02T03:04:05Z", "yanked": "why", "gpg-sig": true,
                "core-metadata": {"sha256": hex}, "dist-info-metadata": {"sha256": hex}, "provenance": "x",
            }],
        });
        let read = |bytes: &[u8]| files(std::str::from_utf8(bytes).unwrap());
        // A file without a name is no file, however that is written.
        crate::oci::assert_null_is_absent(&page, read);
        assert!(files(r#"{"files":null}"#).unwrap_err().contains("null"));
    }
}
