//! Places in a text that name images: `imgdecl://TARGET`, and `REPOSITORY@sha256:…`. What a place stands for, and what a
//! text is otherwise, is not known here: no byte elsewhere is touched.

use std::ops::Range;

/// What a placeholder begins with.
const SCHEME: &str = "imgdecl://";

/// A placeholder of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Placeholder<'a> {
    /// All of it.
    pub(super) span: Range<usize>,
    /// The name of the target; empty where none stands there.
    pub(super) name: &'a str,
}

/// Finds the placeholders of a text, in order.
pub(super) fn placeholders(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(SCHEME) {
        if before(text, start).is_some_and(|char| char.is_ascii_alphanumeric()) {
            continue;
        }
        let rest = &text[start + SCHEME.len()..];
        let is_part = |char: char| char.is_ascii_alphanumeric() || "._:/@-".contains(char);
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        // In prose, a name may end a sentence.
        let name = rest[..end].trim_end_matches(['.', ':', '/', '-', '_']);
        let span = start..start + SCHEME.len() + name.len();
        found.push(Placeholder { span, name });
    }
    found
}

/// Finds the digests behind a repository, also behind `REPOSITORY:TAG`.
pub(super) fn digests(text: &str, repository: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices(repository) {
        // The end of a longer name.
        let is_part = |char: char| char.is_ascii_alphanumeric() || "._:/@-".contains(char);
        if before(text, start).is_some_and(is_part) {
            continue;
        }
        let at = start + repository.len();
        let rest = &text[at..];
        let is_tag = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        let tag = match rest.strip_prefix(':') {
            Some(tag) => 1 + tag.find(|char| !is_tag(char)).unwrap_or(tag.len()),
            None => 0,
        };
        let Some(hex) = rest[tag..].strip_prefix("@sha256:") else {
            continue;
        };
        let length = hex.find(|char: char| !char.is_ascii_alphanumeric());
        let hex = &hex[..length.unwrap_or(hex.len())];
        if hex.len() == 64 && hex.chars().all(|char| char.is_ascii_hexdigit()) {
            let start = at + tag + 1;
            found.push(start..start + "sha256:".len() + hex.len());
        }
    }
    found
}

fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// Replaces parts of a text that do not overlap, and nothing else.
pub(super) fn replace(text: &str, mut parts: Vec<(Range<usize>, String)>) -> String {
    parts.sort_by_key(|(span, _)| span.start);
    let mut done = String::with_capacity(text.len());
    let mut at = 0;
    for (span, new) in parts {
        done.push_str(&text[at..span.start]);
        done.push_str(&new);
        at = span.end;
    }
    done.push_str(&text[at..]);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&str> {
        placeholders(text).into_iter().map(|it| it.name).collect()
    }

    #[test]
    fn placeholders_end_where_names_do() {
        assert_eq!(names(r#"{"image": "imgdecl://qa-api"}"#), ["qa-api"]);
        assert_eq!(
            names("image: imgdecl://qa_api:qa-api\r\n"),
            ["qa_api:qa-api"]
        );
        assert_eq!(
            names("of imgdecl://a, imgdecl://b.c. imgdecl://d:"),
            ["a", "b.c", "d"]
        );
        // What is no name must not be passed over.
        assert_eq!(
            names("imgdecl://${X} imgdecl://a@sha256:0 imgdecl://"),
            ["", "a@sha256:0", ""]
        );
        assert_eq!(names("imgdecl: //a ximgdecl://a imgdecl:/a"), [""; 0]);
        let found = placeholders("ä imgdecl://a b");
        assert_eq!(found[0].span, 3..14);
    }

    #[test]
    fn digests_belong_to_one_repository() {
        let old = format!("sha256:{}", "a".repeat(64));
        let found = |text: &str| digests(text, "r.example/app").len();
        assert_eq!(found(&format!("image: r.example/app@{old}")), 1);
        assert_eq!(found(&format!("\"r.example/app:v1.2@{old}\"")), 1);
        assert_eq!(found(&format!("docker://r.example/app@{old}")), 0);
        assert_eq!(
            found(&format!("r.example/app2@{old} xr.example/app@{old}")),
            0
        );
        assert_eq!(found(&format!("r.example/app/x@{old} r.example/app:v1")), 0);
        assert_eq!(found(&format!("r.example/app@{old}b")), 0);
        let text = format!("r.example/app:v1@{old} r.example/app@{old}");
        for span in digests(&text, "r.example/app") {
            assert_eq!(text[span], old);
        }
    }

    #[test]
    fn nothing_else_changes() {
        let text = "a\r\n\timgdecl://x \u{feff}ß imgdecl://y";
        let spans = placeholders(text).into_iter().rev();
        let parts = spans.map(|it| (it.span, it.name.to_uppercase())).collect();
        assert_eq!(replace(text, parts), "a\r\n\tX \u{feff}ß Y");
        assert_eq!(replace(text, Vec::new()), text);
    }
}
