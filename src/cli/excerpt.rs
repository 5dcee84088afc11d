//! Excerpts of files in error messages: the lines that have their part in an error, and not what stands between them.

use miette::{MietteError, MietteSpanContents, NamedSource, SourceCode, SourceSpan, SpanContents};

/// Lines between two places that are still shown, so that these stand in one excerpt.
const GAP: usize = 6;

/// A file of the user's, as miette takes excerpts of it.
///
/// miette shows two places as one excerpt where they overlap. It takes the lines of an excerpt for as many as stand before
/// its end, from the start of the file on; so places that are thousands of lines apart overlap, and all lines between
/// them are shown. Here an excerpt has the lines that it has.
#[derive(Debug)]
pub(super) struct Excerpts(NamedSource<String>);

impl Excerpts {
    /// Takes the name and the text of a file.
    pub(super) fn new(name: &str, text: String) -> Self {
        Self(NamedSource::new(name, text).with_language("toml"))
    }
}

impl SourceCode for Excerpts {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.0.read_span(span, lines_before, lines_after)?;
        let lines = found.data().iter().filter(|it| **it == b'\n').count();
        let mut contents = MietteSpanContents::new_named(
            self.0.name().to_owned(),
            found.data(),
            *found.span(),
            found.line(),
            found.column(),
            lines + GAP,
        );
        if let Some(language) = found.language() {
            contents = contents.with_language(language);
        }
        Ok(Box::new(contents))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic};

    use super::*;

    /// Shows places of a file of 4000 lines, which are given by their lines.
    fn shown(lines: &[usize]) -> String {
        let mut text = String::new();
        let mut starts = Vec::new();
        for line in 1..=4000 {
            starts.push(text.len());
            writeln!(text, "line {line}").unwrap();
        }
        let labels = lines.iter().map(|line| {
            let start = starts[line - 1];
            LabeledSpan::new_with_span(None, start..start + 4)
        });
        let error = MietteDiagnostic::new("it is wrong").with_labels(labels);
        let mut shown = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .render_report(
                &mut shown,
                miette::Report::new(error)
                    .with_source_code(Excerpts::new("a.lock", text))
                    .as_ref(),
            )
            .unwrap();
        shown
    }

    #[test]
    fn what_stands_between_distant_places_is_not_shown() {
        let text = shown(&[1000, 1010, 3000]);
        for line in ["999", "1000", "1011", "2999", "3001"] {
            assert!(text.contains(&format!("line {line}\n")), "{line}: {text}");
        }
        for line in ["1003", "1100", "2000", "3003"] {
            assert!(!text.contains(&format!("line {line}\n")), "{line}: {text}");
        }
        assert_eq!(text.matches("[a.lock:").count(), 3, "{text}");
    }

    #[test]
    fn near_places_are_one_excerpt() {
        let text = shown(&[1000, 1007]);
        assert!(text.contains("line 1004\n"), "{text}");
        assert_eq!(text.matches("[a.lock:").count(), 1, "{text}");
    }

    #[test]
    fn the_end_of_a_file_is_shown() {
        let text = shown(&[3, 4000]);
        assert!(text.contains("line 4000\n"), "{text}");
        assert!(!text.contains("line 2000\n"), "{text}");
    }
}
