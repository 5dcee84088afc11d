//! The options of a line of a requirements file, as a shell and pip's option parser would take them apart.

use std::ops::Range;

use crate::python::place::{InputError, Piece};

/// What an option says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Requirements,
    Constraints,
    Editable,
    IndexUrl,
    ExtraIndexUrl,
    NoIndex,
    FindLinks,
    NoBinary,
    OnlyBinary,
    PreferBinary,
    RequireHashes,
    NoRequireHashes,
    Pre,
    ReleaseControl,
    TrustedHost,
    Feature,
    Hash,
    /// For the build of a package, where it has one.
    Settings,
    /// For builds, which it asks for.
    Build,
}

/// Each spelling: the name, and whether a value follows.
const OPTIONS: [(&str, Name, bool); 31] = [
    ("-r", Name::Requirements, true),
    ("--requirement", Name::Requirements, true),
    ("--requirements", Name::Requirements, true),
    ("-c", Name::Constraints, true),
    ("--constraint", Name::Constraints, true),
    ("--constraints", Name::Constraints, true),
    ("-e", Name::Editable, true),
    ("--editable", Name::Editable, true),
    ("-i", Name::IndexUrl, true),
    ("--index-url", Name::IndexUrl, true),
    ("--extra-index-url", Name::ExtraIndexUrl, true),
    ("--no-index", Name::NoIndex, false),
    ("-f", Name::FindLinks, true),
    ("--find-links", Name::FindLinks, true),
    ("--no-binary", Name::NoBinary, true),
    ("--only-binary", Name::OnlyBinary, true),
    ("--prefer-binary", Name::PreferBinary, false),
    ("--require-hashes", Name::RequireHashes, false),
    ("--no-require-hashes", Name::NoRequireHashes, false),
    ("--pre", Name::Pre, false),
    ("--all-releases", Name::ReleaseControl, true),
    ("--only-final", Name::ReleaseControl, true),
    ("--trusted-host", Name::TrustedHost, true),
    ("--use-feature", Name::Feature, true),
    ("--hash", Name::Hash, true),
    ("-C", Name::Settings, true),
    ("--config-setting", Name::Settings, true),
    ("--config-settings", Name::Settings, true),
    ("--global-option", Name::Build, true),
    ("--install-option", Name::Build, true),
    ("--build-option", Name::Build, true),
];

/// One option of a line.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) name: Name,
    /// The option as it stands, with its value.
    pub(super) piece: Piece,
    pub(super) value: String,
}

/// Splits a line into its requirement and its options: the first word that begins with `-` begins the options.
pub(super) fn split(line: &Piece) -> (Piece, Piece) {
    let mut before = ' ';
    for (at, char) in line.text.char_indices() {
        if char == '-' && before.is_whitespace() {
            return (line.cut(0..at), line.cut(at..line.text.len()));
        }
        before = char;
    }
    (line.cut(0..line.text.len()), line.cut(0..0))
}

/// Takes options apart.
pub(super) fn parse(options: &Piece) -> Result<Vec<Given>, InputError> {
    const CODE: &str = "imgdecl::python::option";
    let words = words(&options.text).map_err(|at| {
        options.place_of(at..options.text.len()).error(
            CODE,
            "this quote is never closed",
            "close it, or put a backslash before it",
        )
    })?;
    let mut words = words.into_iter();
    let mut given = Vec::new();
    while let Some((word, mut span)) = words.next() {
        let place = options.place_of(span.clone());
        let (spelling, mut value) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value.to_owned())),
            _ if !word.starts_with("--") && word.starts_with('-') && word.len() > 2 => {
                // `-rFILE`, as pip takes it.
                let (name, value) = word.split_at(word.ceil_char_boundary(2));
                (name, Some(value.to_owned()))
            }
            _ => (word.as_str(), None),
        };
        let Some(&(_, name, takes)) = OPTIONS.iter().find(|it| it.0 == spelling) else {
            let (message, help) = if word.starts_with('-') {
                (
                    format!("there is no option `{spelling}` in requirements files"),
                    suggestion(spelling),
                )
            } else {
                (
                    "this word belongs to no option".to_owned(),
                    "a requirement stands on a line of its own, before its options".to_owned(),
                )
            };
            return Err(place.error(CODE, message, help));
        };
        if takes && value.is_none() {
            let next = words.next();
            if let Some((_, next)) = &next {
                span.end = next.end;
            }
            value = next.map(|(word, _)| word);
        }
        if value.is_some() != takes || value.as_deref() == Some("") {
            let (message, help) = match takes {
                true => ("needs a value", format!("write `{spelling} VALUE`")),
                false => ("takes no value", format!("write `{spelling}` alone")),
            };
            return Err(place.error(CODE, format!("`{spelling}` {message}"), help));
        }
        given.push(Given {
            name,
            piece: options.cut(span),
            value: value.unwrap_or_default(),
        });
    }
    Ok(given)
}

fn suggestion(spelling: &str) -> String {
    let near = OPTIONS
        .iter()
        .map(|it| it.0)
        .filter(|it| it.starts_with("--"))
        .min_by_key(|it| strsim::damerau_levenshtein(it, spelling));
    match near {
        Some(near) if strsim::damerau_levenshtein(near, spelling) <= 1 + near.len() / 5 => {
            format!("did you mean `{near}`?")
        }
        _ => "options of `pip install` that are no options of requirements files have no meaning here".to_owned(),
    }
}

/// Splits a text into words as a POSIX shell does, each with the bytes it takes; fails with the place of a quote that is
/// never closed.
fn words(text: &str) -> Result<Vec<(String, Range<usize>)>, usize> {
    let mut words: Vec<(String, Range<usize>)> = Vec::new();
    let mut word: Option<(String, usize)> = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char.is_whitespace() {
            words.extend(word.take().map(|(word, start)| (word, start..at)));
            continue;
        }
        let (own, _) = word.get_or_insert_with(|| (String::new(), at));
        match char {
            '\\' => own.extend(chars.next().map(|(_, next)| next)),
            '\'' | '"' => loop {
                match chars.next() {
                    None => return Err(at),
                    Some((_, end)) if end == char => break,
                    Some((_, '\\')) if char == '"' => match chars.next() {
                        Some((_, next @ ('"' | '\\'))) => own.push(next),
                        Some((_, next)) => own.extend(['\\', next]),
                        None => return Err(at),
                    },
                    Some((_, inner)) => own.push(inner),
                }
            },
            char => own.push(char),
        }
    }
    words.extend(word.map(|(word, start)| (word, start..text.len())));
    Ok(words)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::python::place::Source;

    fn piece(text: &str) -> Piece {
        let source = Source::shared("r.txt", text);
        let mut piece = Piece::new(&source, 1);
        piece.push(0..text.len());
        piece
    }

    #[test]
    fn splits_and_parses() {
        let line = piece("a-b >=1 ; x == 'y'  --hash=sha256:00 -r 'x y' -cz --pre");
        let (requirement, options) = split(&line);
        assert_eq!(requirement.text, "a-b >=1 ; x == 'y'");
        let given = parse(&options).unwrap();
        let all: Vec<(Name, &str, &str)> = given
            .iter()
            .map(|it| (it.name, it.value.as_str(), it.piece.text.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                (Name::Hash, "sha256:00", "--hash=sha256:00"),
                (Name::Requirements, "x y", "-r 'x y'"),
                (Name::Constraints, "z", "-cz"),
                (Name::Pre, "", "--pre"),
            ]
        );
        assert_eq!(given[1].piece.place().text(), "-r 'x y'");
    }

    #[test]
    fn refuses_with_advice() {
        for (text, message, help) in [
            ("--index-uri x", "no option", "`--index-url`"),
            ("--user", "no option", "no meaning"),
            ("-r", "needs a value", "-r VALUE"),
            ("--hash=", "needs a value", "--hash VALUE"),
            ("--pre=1", "takes no value", "alone"),
            ("-r 'x", "never closed", "close it"),
            ("--pre x", "no option", "line of its own"),
            ("-é", "no option", "no meaning"),
        ] {
            let error = parse(&piece(text)).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(error.help.contains(help), "{text}: {}", error.help);
        }
    }

    #[test]
    fn words_as_a_shell_splits_them() {
        let split = |text: &str| -> Vec<String> {
            let words = words(text).unwrap();
            words.into_iter().map(|it| it.0).collect()
        };
        assert_eq!(
            split(r#" a 'b c'd "e\"f\g" h\ i '' "#),
            ["a", "b cd", r#"e"f\g"#, "h i", ""]
        );
    }
}
