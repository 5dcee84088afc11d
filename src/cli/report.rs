//! Prints errors. The one place that does.

use std::io::IsTerminal;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

use super::environment::no_color;
use super::exit::Exit;
use crate::graph::{ActionError, Failure, Label, Origin};
use crate::lock::LockError;
use crate::registry::RegistryError;
use crate::spec::Problems;
use crate::store::StoreError;
use crate::ui;

/// An error with nothing but words, or with the place of a node.
#[derive(Debug)]
struct Plain {
    code: String,
    message: String,
    causes: Vec<String>,
    help: Option<String>,
    source: Option<Arc<NamedSource<String>>>,
    labels: Vec<LabeledSpan>,
}

impl std::fmt::Display for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, "\n{cause}"))
    }
}

impl std::error::Error for Plain {}

impl Diagnostic for Plain {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source
            .as_ref()
            .map(|source| &**source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// Prints an error that has no place in a manifest.
pub(super) fn plain(code: &str, message: &str, help: Option<String>) {
    print(&Plain {
        code: code.to_owned(),
        message: message.to_owned(),
        causes: Vec::new(),
        help,
        source: None,
        labels: Vec::new(),
    });
}

/// Prints an error and what lies behind it.
pub(super) fn error(code: &str, error: &dyn std::error::Error, help: Option<String>) {
    let causes = ActionError::of("", error).causes;
    print(&Plain {
        code: code.to_owned(),
        message: error.to_string(),
        causes,
        help,
        source: None,
        labels: Vec::new(),
    });
}

/// Prints what is wrong with the cache.
pub(super) fn cache(error: &StoreError) -> Exit {
    action(&ActionError::from(error))
}

/// Prints what went wrong with a registry.
pub(super) fn registry(error: RegistryError) -> Exit {
    action(&ActionError::from(error))
}

/// Prints what went wrong with an action that nothing in a manifest asked for.
pub(super) fn action(error: &ActionError) -> Exit {
    if error.failure == Failure::Stopped {
        ui::line("stopped");
        return Exit::Stopped;
    }
    print(&Plain {
        code: error.code.to_owned(),
        message: error.message.clone(),
        causes: error.causes.clone(),
        help: error.help.clone(),
        source: None,
        labels: Vec::new(),
    });
    exit(error.failure)
}

/// Prints what is wrong with image.lock.
pub(super) fn lock(error: &LockError) {
    let text = &error.source_text;
    print(&Plain {
        code: "imgdecl::lock::file".to_owned(),
        message: error.message.clone(),
        causes: Vec::new(),
        help: Some(error.help.clone()),
        source: Some(Arc::new(
            NamedSource::new(text.name.clone(), text.text.clone()).with_language("toml"),
        )),
        labels: vec![LabeledSpan::new_primary_with_span(
            Some(error.label.clone()),
            error.span.clone(),
        )],
    });
}

/// Prints all that is wrong with the manifests.
pub(super) fn problems(problems: Problems) -> Exit {
    let problems = problems.into_sorted();
    problems.iter().for_each(|problem| print(problem));
    if problems.len() > 1 {
        ui::line(&format!("{} errors", problems.len()));
    }
    Exit::Usage
}

/// Prints why a node failed, with the place that asked for it.
pub(super) fn failure(label: &Label, origin: &Origin, error: &ActionError) -> Exit {
    let place = error.origins.first().unwrap_or(origin);
    let label_text = match error.origins.is_empty() {
        false => None,
        true => Some(format!("{label} needs it")),
    };
    let first = LabeledSpan::new_primary_with_span(label_text, place.span.clone());
    let mut labels = vec![first];
    // One report shows one file: places in others are named by the help.
    let also = error.origins.iter().skip(1);
    for other in also.filter(|it| it.source == place.source) {
        let label = LabeledSpan::new_with_span(None, other.span.clone());
        if labels.iter().all(|it| it.inner() != label.inner()) {
            labels.push(label);
        }
    }
    print(&Plain {
        code: error.code.to_owned(),
        message: error.message.clone(),
        causes: error.causes.clone(),
        help: error.help.clone(),
        source: Some(Arc::new(
            NamedSource::new(place.source.name.clone(), place.source.text.clone())
                .with_language("toml"),
        )),
        labels,
    });
    exit(error.failure)
}

fn exit(failure: Failure) -> Exit {
    match failure {
        Failure::Build => Exit::Failed,
        Failure::Remote => Exit::Remote,
        Failure::Cache => Exit::Cache,
        Failure::Stopped => Exit::Stopped,
        Failure::Bug => Exit::Bug,
    }
}

/// Prints what is wrong with the arguments.
pub(super) fn arguments(error: &clap::Error) {
    let text = error.render();
    let terminal = std::io::stderr().is_terminal();
    ui::coloured(terminal && !no_color(), |has_colours| {
        let text = match has_colours {
            true => text.ansi().to_string(),
            false => text.to_string(),
        };
        text.trim_end().to_owned()
    });
}

fn print(diagnostic: &dyn Diagnostic) {
    let terminal = std::io::stderr().is_terminal();
    ui::coloured(terminal && !no_color(), |has_colours| {
        let theme = match has_colours {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_links(false)
            // Paths must come out whole: no line is broken but by the terminal itself.
            .with_wrap_lines(false);
        let mut text = String::new();
        match handler.render_report(&mut text, diagnostic) {
            // Trailing spaces come from empty lines of the frame.
            Ok(()) => {
                let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
                lines.join("\n")
            }
            Err(_) => format!("error: {diagnostic}"),
        }
    });
}
