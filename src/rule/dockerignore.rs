//! The grammar of `.dockerignore`, as Docker's own builder reads it: which paths below a folder its lines leave out.
//!
//! A line is a comment if it begins with `#`. Blanks at both ends are none of its own, the path is cleaned of `.`, `..`, `//`
//! and a `/` at either end, and `!` before it takes back what earlier lines left out. A pattern is matched from the folder on,
//! and against each folder above a path, too. `*` and `?` stop at a `/`, `**` does not, `[a-c]` and `[^a-c]` are one
//! character, and `\` takes the next character as it is. The last line that matches decides.

/// How large a file may be.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The lines of a file, parsed.
#[derive(Default, Debug)]
pub(super) struct DockerIgnore {
    patterns: Vec<Pattern>,
}

/// One line.
#[derive(Debug)]
struct Pattern {
    /// The line without blanks, cleaned: what it means.
    text: String,
    /// Whether it takes back what was left out.
    takes_back: bool,
    pieces: Vec<Piece>,
}

/// A piece of a pattern. What matches is decided piece by piece, over all ways at once: no pattern takes long.
#[derive(PartialEq, Debug)]
enum Piece {
    /// This character.
    One(char),
    /// Any character but `/`.
    NoSlash,
    /// Any number of characters but `/`.
    Star,
    /// Any number of characters.
    Rest,
    /// Nothing, or what the next piece is: the beginning of `**/`.
    Perhaps,
    /// Any number of characters, the last of which is a `/`: the end of `**/`.
    Folders,
    /// A character that is in one of the ranges, or in none.
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Which patterns a folder matches: what is below it needs to be compared with the others alone.
pub(super) type Above = Vec<bool>;

impl DockerIgnore {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// The number of the first line that is no pattern, and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line = line.trim();
            let (takes_back, rest) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if rest.is_empty() {
                return Err((number + 1, "there is nothing after `!`".into()));
            }
            let cleaned = clean(rest);
            let path = match cleaned.strip_prefix('/') {
                Some(path) if !path.is_empty() => path,
                _ => &cleaned,
            };
            let pieces = pieces(path).map_err(|why| (number + 1, why))?;
            patterns.push(Pattern {
                text: path.to_owned(),
                takes_back,
                pieces,
            });
        }
        Ok(Self { patterns })
    }

    /// Returns what the lines mean, one text for each.
    pub(super) fn meaning(&self) -> impl Iterator<Item = String> {
        let text = |it: &Pattern| format!("{}{}", if it.takes_back { "!" } else { "" }, it.text);
        self.patterns.iter().map(text)
    }

    /// Tells whether some line takes back what others leave out: then what a left out folder holds has to be looked at.
    pub(super) fn takes_back(&self) -> bool {
        self.patterns.iter().any(|it| it.takes_back)
    }

    /// Tells whether a path is left out, and which patterns it matches. `above` is what its folder matched; empty for what
    /// lies in the first folder.
    pub(super) fn matches(&self, path: &str, above: &Above) -> (bool, Above) {
        let mut is_out = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut hit = above.get(index).copied().unwrap_or_default();
            if !hit {
                // What would change nothing is not compared.
                if pattern.takes_back != is_out {
                    continue;
                }
                hit = is_match(&pattern.pieces, path);
            }
            matched[index] = hit;
            if hit {
                is_out = !pattern.takes_back;
            }
        }
        (is_out, matched)
    }
}

/// Cleans a path of what says nothing, as Go's `filepath.Clean` does.
fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let text = parts.join("/");
    match (is_absolute, text.is_empty()) {
        (true, _) => format!("/{text}"),
        (false, true) => ".".to_owned(),
        (false, false) => text,
    }
}

/// Cuts a pattern into pieces.
fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(next) = rest.next() {
        match next {
            '*' if rest.next_if_eq(&'*').is_some() => {
                let has_slash = rest.next_if_eq(&'/').is_some();
                // `**name` at the beginning ends any path; everywhere else whole folders are passed.
                let is_end_of_any = is_first
                    && !has_slash
                    && !rest
                        .clone()
                        .any(|it| matches!(it, '*' | '?' | '[' | ']' | '\\'));
                if rest.peek().is_none() || is_end_of_any {
                    pieces.push(Piece::Rest);
                } else {
                    pieces.extend([Piece::Perhaps, Piece::Folders]);
                }
            }
            '*' => pieces.push(Piece::Star),
            '?' => pieces.push(Piece::NoSlash),
            '\\' => match rest.next() {
                Some(next) => pieces.push(Piece::One(next)),
                None => return Err("there is nothing after `\\`".into()),
            },
            '[' => pieces.push(class(&mut rest)?),
            other => pieces.push(Piece::One(other)),
        }
        is_first = false;
    }
    Ok(pieces)
}

/// Reads a class of characters, after its `[`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, String> {
    let wrong = || "a `[` is not closed, or what it holds is no list of characters".to_owned();
    let one = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| match rest.next() {
        Some('\\') => rest.next().ok_or_else(wrong),
        None | Some('-' | ']') => Err(wrong()),
        Some(other) => Ok(other),
    };
    let is_negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let low = one(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => one(rest)?,
            None => low,
        };
        ranges.push((low, high));
    }
    Ok(Piece::Class { is_negated, ranges })
}

/// Tells whether pieces match all of a path.
fn is_match(pieces: &[Piece], path: &str) -> bool {
    // Which pieces may come next.
    let mut now = vec![false; pieces.len() + 1];
    let mut next = now.clone();
    reach(pieces, &mut now, 0);
    for found in path.chars() {
        next.fill(false);
        for (index, piece) in pieces.iter().enumerate() {
            if !now[index] {
                continue;
            }
            match piece {
                Piece::One(wanted) if *wanted == found => reach(pieces, &mut next, index + 1),
                Piece::NoSlash if found != '/' => reach(pieces, &mut next, index + 1),
                Piece::Star if found != '/' => reach(pieces, &mut next, index),
                Piece::Rest => reach(pieces, &mut next, index),
                Piece::Folders => {
                    next[index] = true;
                    if found == '/' {
                        reach(pieces, &mut next, index + 1);
                    }
                }
                Piece::Class { is_negated, ranges } => {
                    let is_in = ranges
                        .iter()
                        .any(|(low, high)| (*low..=*high).contains(&found));
                    if is_in != *is_negated {
                        reach(pieces, &mut next, index + 1);
                    }
                }
                _ => {}
            }
        }
        std::mem::swap(&mut now, &mut next);
    }
    now[pieces.len()]
}

/// Marks a piece as one that may come next, and all that may come in its place.
fn reach(pieces: &[Piece], marks: &mut [bool], index: usize) {
    marks[index] = true;
    match pieces.get(index) {
        Some(Piece::Star | Piece::Rest) => reach(pieces, marks, index + 1),
        Some(Piece::Perhaps) => {
            marks[index + 1] = true;
            reach(pieces, marks, index + 2);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells whether the lines leave a path out: its folders are asked first, as a walk does.
    fn leaves_out(lines: &str, path: &str) -> bool {
        let ignore = DockerIgnore::parse(lines).unwrap();
        let mut above = Above::new();
        let mut is_out = false;
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        for end in ends {
            (is_out, above) = ignore.matches(&path[..end], &above);
        }
        is_out
    }

    #[test]
    fn patterns_match_as_docker_matches_them() {
        for (line, path, expected) in [
            ("docs", "docs", true),
            ("docs", "docs/a/b.md", true),
            ("docs", "src/docs", false),
            ("/docs/", "docs/x", true),
            ("./docs//x/../y", "docs/y", true),
            ("*.md", "a.md", true),
            ("*.md", "docs/a.md", false),
            ("*/a.md", "docs/a.md", true),
            ("*/a.md", "docs/x/a.md", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("**", "a/b/c", true),
            ("**/*.md", "a.md", true),
            ("**/*.md", "a/b/c.md", true),
            ("**/*.md", "a/b/c.mdx", false),
            ("**/build", "build", true),
            ("**/build", "x/y/build/z", true),
            ("**/build", "x/rebuild", false),
            ("**build", "x/rebuild", true),
            ("**build*", "x/rebuild", false),
            ("**build*", "x/build1", true),
            ("src/**", "src", false),
            ("src/**", "src/a/b", true),
            ("src/**/x", "src/x", true),
            ("src/**/x", "src/a/b/x", true),
            ("src/**/x", "srcx", false),
            ("s**/*.c", "s/a.c", true),
            ("s**/*.c", "s/t/u.c", true),
            ("a/*.c**", "a/b.c", true),
            ("**/**/*.c", "b.c", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[\\]x]", "]", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a(b)+|.{c}$", "a(b)+|.{c}$", true),
            ("a.b", "axb", false),
            ("h?llo", "hállo", true),
            ("  spaced  ", "spaced", true),
            (" # no comment", "# no comment", true),
            ("# a comment", "# a comment", false),
            (
                "a*a*a*a*a*a*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(leaves_out(line, path), expected, "{line} {path}");
        }
    }

    #[test]
    fn the_last_line_decides_and_takes_back_what_lies_in_folders() {
        for (lines, path, expected) in [
            ("docs\n!docs/README.md", "docs/README.md", false),
            ("docs\n!docs/README.md", "docs/other.md", true),
            ("!docs/README.md\ndocs", "docs/README.md", true),
            ("*\n!src\n", "src/main.py", false),
            ("*\n!src\n", "setup.py", true),
            ("*\n!src\nsrc/*.log", "src/a.log", true),
            ("**\n! web/app \n", "web/app/index.html", false),
            ("**\n!/web/app/\nweb/app/x", "web/app/x", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README.md", false),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                "README-secret.md",
                true,
            ),
            ("*.md\r\n!a.md\r\n", "a.md", false),
            ("\u{feff}a.md", "a.md", true),
        ] {
            assert_eq!(leaves_out(lines, path), expected, "{lines:?} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_with_its_line() {
        for lines in ["a\n[", "\n[]a]", "# x\n[a-", "a\n[x-]", "a\n!", "\na\\"] {
            assert_eq!(DockerIgnore::parse(lines).unwrap_err().0, 2, "{lines:?}");
        }
    }

    #[test]
    fn the_meaning_has_no_comments_and_no_blanks() {
        let ignore = DockerIgnore::parse("# x\n\n  ./a/ \n! /b\n").unwrap();
        assert_eq!(ignore.meaning().collect::<Vec<_>>(), ["a", "!b"]);
        assert!(ignore.takes_back());
    }
}
