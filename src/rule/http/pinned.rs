//! What files at URLs are pinned to, and its form in `image.lock`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lock::{Move, Pin};
use crate::oci::Digest;

/// What the file of a target is, for each platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HttpPin {
    /// By platform.
    pub(super) platforms: BTreeMap<String, FilePin>,
}

/// What lies at a URL.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePin {
    /// The URL.
    pub(super) url: String,
    /// The digest of the file.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
}

// The form of the file. Values come before tables, as TOML wants it.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpEntry {
    /// The digest of the entry itself, so that an edit is seen.
    seal: Digest,
    #[serde(default)]
    platform: BTreeMap<String, FilePin>,
}

impl Pin for HttpPin {
    const RULE: &'static str = "http";

    type Entry = HttpEntry;

    fn entry(&self) -> HttpEntry {
        HttpEntry {
            seal: Digest::of(b""),
            platform: self.platforms.clone(),
        }
    }

    fn of_entry(entry: HttpEntry) -> Option<Self> {
        let platforms = entry.platform;
        Some(Self { platforms })
    }

    fn seal(entry: &mut HttpEntry) -> &mut Digest {
        &mut entry.seal
    }

    fn sealed(entry: &HttpEntry) -> Vec<u8> {
        serde_json::to_vec(&entry.platform).expect("entries have string keys only")
    }

    fn changes(moves: &[Move<'_, Self>]) -> Vec<String> {
        let mut lines = Vec::new();
        for Move { target, was, is } in moves.iter().filter(|it| it.was != it.is) {
            let none = BTreeMap::new();
            let before = was.map_or(&none, |it| &it.platforms);
            let Some(is) = is else {
                lines.push(format!("{target}: removed, was {}", urls(before)));
                continue;
            };
            lines.push(match was {
                None => format!("{target}: new, {}", urls(&is.platforms)),
                Some(_) if urls(before) != urls(&is.platforms) => {
                    format!("{target}: {} → {}", urls(before), urls(&is.platforms))
                }
                Some(_) => format!("{target}: {}", urls(&is.platforms)),
            });
            for (platform, pin) in &is.platforms {
                match before.get(platform) {
                    Some(was) if was.digest == pin.digest => {}
                    Some(was) => {
                        lines.push(format!("  {platform}  {} → {}", was.digest, pin.digest))
                    }
                    None => lines.push(format!("  {platform}  {}", pin.digest)),
                }
            }
            let gone = before.keys().filter(|it| !is.platforms.contains_key(*it));
            lines.extend(gone.map(|platform| format!("  {platform}  no longer needed")));
        }
        lines
    }
}

/// Names the URLs of a target, each once.
fn urls(platforms: &BTreeMap<String, FilePin>) -> String {
    let mut urls: Vec<&str> = Vec::new();
    for pin in platforms.values() {
        if !urls.contains(&&*pin.url) {
            urls.push(&pin.url);
        }
    }
    urls.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::{FormOf, Lock, changes};

    fn example(content: &[u8]) -> Lock {
        let pin = FilePin {
            url: "https://example.com/tini".to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
        };
        let platforms = BTreeMap::from([
            ("linux/amd64".to_owned(), pin.clone()),
            ("linux/arm64".to_owned(), pin),
        ]);
        let mut lock = Lock::default();
        lock.put("tini".to_owned(), HttpPin { platforms });
        lock
    }

    #[test]
    fn text_round_trip_and_edits() {
        let lock = example(b"one");
        let text = lock.to_text();
        let parse = |text: &str| Lock::parse(text, &[FormOf::<HttpPin>::FORM]);
        assert_eq!(parse(&text).unwrap(), lock);
        assert_eq!(parse(&text).unwrap().to_text(), text);
        let edited = parse(&text.replace("size = 3", "size = 4")).unwrap_err();
        assert!(
            edited
                .to_string()
                .contains("`tini` in image.lock was edited")
        );
    }

    #[test]
    fn says_what_moved() {
        let (old, new) = (example(b"one"), example(b"two"));
        let moved = changes(&old, &new);
        assert_eq!(moved.len(), 3, "{moved:?}");
        assert_eq!(moved[0], "tini: https://example.com/tini");
        assert!(moved[1].contains(" → "), "{moved:?}");
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        assert_eq!(
            changes(&Lock::default(), &old)[0],
            "tini: new, https://example.com/tini"
        );
        assert_eq!(
            changes(&old, &Lock::default()),
            ["tini: removed, was https://example.com/tini"]
        );
    }
}
