//! The text forms by which entries and facts go into keys. They are made by hand: what Rust prints for debugging may
//! change with a name, a field or a release of the compiler, and with it every key.

use super::{Attrs, Fact, Kind, LayerPath, Owner};

/// The version of all text forms of this module: the listing of a tree, and those below. It is part of every key; a
/// change of a form raises it.
pub(crate) const TEXTS: u32 = 1;

/// Writes a text between quotation marks. `"`, `\` and control characters are escaped, so that it ends where it ends.
pub(crate) fn quote(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    // Nearly all paths are like that, and a tree may have many.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if char.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// Returns a text between quotation marks, as [`quote`] writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text, &mut out);
    out
}

impl Owner {
    /// Returns the form for keys, as `0:0`.
    pub fn key_text(&self) -> String {
        format!("{}:{}", self.uid, self.gid)
    }
}

impl Attrs {
    /// Returns the form for keys, as `0755 0:0`.
    pub fn key_text(&self) -> String {
        format!("{:04o} {}", self.mode, self.owner.key_text())
    }
}

impl Fact {
    /// Returns the form for keys of the fact about `path`: `folder 0700 0:0 "/data"`, `link "/lib" to "usr/lib"`, and with
    /// `maybe link` where it is not known to lead to a folder.
    pub fn key_text(&self, path: &LayerPath) -> String {
        let path = quoted(&format!("/{path}"));
        match self {
            Self::Folder(attrs) => format!("folder {} {path}", attrs.key_text()),
            Self::Link { target, folder } => {
                let word = if *folder { "link" } else { "maybe link" };
                format!("{word} {path} to {}", quoted(target))
            }
        }
    }
}

impl Kind {
    /// Returns the form for keys: the word, what it has of attributes, and a content's digest or a link's target.
    pub fn key_text(&self) -> String {
        match self {
            Self::Folder { attrs, firm } => {
                let word = if *firm { "firm folder" } else { "folder" };
                format!("{word} {}", attrs.key_text())
            }
            Self::File { attrs, content } => {
                format!("file {} {}", attrs.key_text(), content.digest)
            }
            Self::Symlink { target, owner } => {
                format!("symlink {} to {}", owner.key_text(), quoted(target))
            }
            Self::Hardlink { target, attrs } => {
                let target = quoted(&format!("/{target}"));
                format!("hard link {} to {target}", attrs.key_text())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Content;

    #[test]
    fn a_quoted_text_ends_where_it_ends() {
        assert_eq!(quoted("a b"), "\"a b\"");
        assert_eq!(quoted("é\u{202e}"), "\"é\u{202e}\"");
        assert_eq!(quoted("\" \\ \n\t\r\u{7f}"), r#""\" \\ \n\t\r\u{7f}""#);
    }

    /// These texts are what keys are made of: where one changes, `TEXTS` is raised.
    #[test]
    fn the_forms_of_version_1() {
        assert_eq!(TEXTS, 1);
        let path = LayerPath::parse("srv/a b").unwrap();
        let owner = Owner { uid: 1, gid: 2 };
        let attrs = Attrs { mode: 0o700, owner };
        let link = |folder| Fact::Link {
            target: "usr/lib".into(),
            folder,
        };
        let content = Content::bytes(*b"x");
        let digest = content.digest;
        let target = LayerPath::parse("a").unwrap();
        let kinds = [
            Kind::Folder { attrs, firm: true },
            Kind::Folder { attrs, firm: false },
            Kind::File { attrs, content },
            Kind::Symlink {
                target: "../a".into(),
                owner,
            },
            Kind::Hardlink { target, attrs },
        ];
        let texts: Vec<String> = [Fact::Folder(attrs), link(true), link(false)]
            .iter()
            .map(|fact| fact.key_text(&path))
            .chain(kinds.iter().map(Kind::key_text))
            .collect();
        let file = format!("file 0700 1:2 {digest}");
        assert_eq!(
            texts,
            [
                "folder 0700 1:2 \"/srv/a b\"",
                "link \"/srv/a b\" to \"usr/lib\"",
                "maybe link \"/srv/a b\" to \"usr/lib\"",
                "firm folder 0700 1:2",
                "folder 0700 1:2",
                &file,
                "symlink 1:2 to \"../a\"",
                "hard link 0700 1:2 to \"/a\"",
            ]
        );
    }
}
