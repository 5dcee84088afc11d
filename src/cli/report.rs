//! Tells what went wrong: as text on stderr, as JSON on stdout for those who asked for JSON, and by the exit code. The one
//! place that does.

use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};
use serde_json::{Value, json};

use super::environment::no_color;
use super::excerpt::Excerpts;
use super::exit::Exit;
use crate::daemon::DaemonError;
use crate::graph::{ActionError, Failure, SourceText};
use crate::lock::LockError;
use crate::output::OutputError;
use crate::plan::PlanError;
use crate::source::SourceError;
use crate::spec::{LoadError, Problem};
use crate::ui;
use crate::work::{Blame, Failed, NodeFailure, Told};

/// The version of the JSON document. It is raised where a field goes away or means something else.
const VERSION: u32 = 1;

/// One error, as people and scripts are told of it.
#[derive(Debug)]
struct Fault {
    exit: Exit,
    code: String,
    message: String,
    causes: Vec<String>,
    help: Option<String>,
    /// The places that have their part in it, the first one first.
    places: Vec<Place>,
    /// What text shows of it.
    shown: Option<(Excerpts, Vec<LabeledSpan>)>,
}

/// A place in a file of the user's.
#[derive(Clone, Debug)]
struct Place {
    source: Arc<SourceText>,
    span: Range<usize>,
    label: Option<String>,
}

impl Fault {
    fn new(exit: Exit, code: &str, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            message: message.into(),
            causes: Vec::new(),
            help,
            places: Vec::new(),
            shown: None,
        }
    }

    fn of(exit: Exit, code: &str, error: &dyn std::error::Error, help: Option<String>) -> Self {
        Self {
            causes: ActionError::of("", error).causes,
            ..Self::new(exit, code, error.to_string(), help)
        }
    }

    /// Adds the places that have their part in it.
    fn at(mut self, places: Vec<Place>) -> Self {
        if let Some(first) = places.first() {
            let mut labels: Vec<LabeledSpan> = Vec::new();
            // One report shows one file: places in others are named by the help.
            for place in places.iter().filter(|it| it.source == first.source) {
                let (text, span) = (place.label.clone(), place.span.clone());
                let label = match labels.is_empty() {
                    true => LabeledSpan::new_primary_with_span(text, span),
                    false => LabeledSpan::new_with_span(text, span),
                };
                if labels.iter().all(|it| it.inner() != label.inner()) {
                    labels.push(label);
                }
            }
            let SourceText { name, text } = &*first.source;
            self.shown = Some((Excerpts::new(name, text.clone()), labels));
        }
        self.places = places;
        self
    }

    fn json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "causes": self.causes,
            "help": self.help,
            "exit": self.exit.code(),
            "spans": self.places.iter().map(Place::json).collect::<Vec<_>>(),
        })
    }
}

impl Place {
    fn json(&self) -> Value {
        let text = &self.source.text;
        let before = text.get(..self.span.start).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        json!({
            "file": self.source.name,
            "line": before.matches('\n').count() + 1,
            "column": before[start..].chars().count() + 1,
            "offset": self.span.start,
            "length": self.span.len(),
            "label": self.label,
        })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, "\n{cause}"))
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.shown
            .as_ref()
            .map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.shown.iter().flat_map(|(_, labels)| labels);
        Some(Box::new(labels.cloned()))
    }
}

/// Tells on stderr what went wrong. Returns the exit code: the worst decides.
pub(super) fn text(failed: &Failed) -> Exit {
    let faults = faults(failed);
    faults.iter().for_each(|fault| print(fault));
    count(failed);
    if failed.is_stopped() {
        ui::line("stopped");
        return Exit::Stopped;
    }
    worst(&faults)
}

/// The same as a document for scripts; see docs/json.md.
pub(super) fn json(failed: &Failed) -> Value {
    let mut faults = faults(failed);
    if failed.is_stopped() {
        let code = "imgdecl::stopped";
        faults.push(Fault::new(Exit::Stopped, code, "stopped", None));
    }
    document(&faults)
}

/// The document of an error of the command line, which clap tells on stderr.
pub(super) fn json_of_arguments(message: &str, help: Option<String>) -> Value {
    document(&[Fault::new(
        Exit::Usage,
        "imgdecl::cli::arguments",
        message,
        help,
    )])
}

fn document(faults: &[Fault]) -> Value {
    json!({
        "version": VERSION,
        "exit": worst(faults).code(),
        "errors": faults.iter().map(Fault::json).collect::<Vec<_>>(),
    })
}

/// The errors alone, for documents that show what could be done beside them.
pub(super) fn errors(failed: &[Failed]) -> Vec<Value> {
    let faults = failed.iter().flat_map(faults);
    faults.map(|fault| fault.json()).collect()
}

fn worst(faults: &[Fault]) -> Exit {
    let exits = faults.iter().map(|fault| fault.exit);
    exits.max().unwrap_or(Exit::Failed)
}

/// Tells of something that is no reason to fail.
pub(super) fn warn(code: &str, message: &str) {
    print(&Fault::new(Exit::Done, code, message, None));
}

/// Counts problems, where there are several.
fn count(failed: &Failed) {
    match failed {
        Failed::Problems(problems, _) => count_problems(problems.clone().into_sorted().len()),
        Failed::Load { error, .. } => {
            if let LoadError::Problems(problems) = &**error {
                count_problems(problems.clone().into_sorted().len());
            }
        }
        Failed::Plan { error, .. } => {
            if let PlanError::Problems(problems) = &**error {
                count_problems(problems.clone().into_sorted().len());
            }
        }
        Failed::Many(all) => all.iter().for_each(count),
        _ => {}
    }
}

fn count_problems(count: usize) {
    if count > 1 {
        ui::line(&format!("{count} errors"));
    }
}

/// Returns all that went wrong, one by one.
fn faults(failed: &Failed) -> Vec<Fault> {
    let of_problems = |problems: &crate::spec::Problems, blame: Blame| {
        let problems = problems.clone().into_sorted().into_iter();
        problems
            .map(|it| problem(it, blame.into()))
            .collect::<Vec<_>>()
    };
    match failed {
        Failed::Stopped => Vec::new(),
        Failed::Problems(problems, blame) => of_problems(problems, *blame),
        Failed::Lock(error) => vec![lock(error)],
        Failed::Load { error, manifest } => match &**error {
            LoadError::Problems(problems) => of_problems(problems, Blame::Usage),
            LoadError::Io { path, source } => {
                let help = (path != manifest).then(|| format!("needed by {}", manifest.display()));
                let message = format!("cannot read {}: {source}", path.display());
                vec![Fault::new(
                    Exit::Usage,
                    "imgdecl::cli::manifest",
                    message,
                    help,
                )]
            }
            LoadError::Set { name, near } => {
                let help = near
                    .as_ref()
                    .map_or("variables are declared under [vars]".to_owned(), |near| {
                        format!("did you mean `{near}`?")
                    });
                let message = format!("no manifest has a variable `{name}`");
                vec![Fault::new(
                    Exit::Usage,
                    "imgdecl::cli::set",
                    message,
                    Some(help),
                )]
            }
        },
        Failed::Plan { error, manifest } => match &**error {
            PlanError::Problems(problems) => of_problems(problems, Blame::Usage),
            PlanError::NotAnImage { id, rule } => vec![Fault::new(
                Exit::Usage,
                "imgdecl::cli::target",
                format!("`{id}` is no image, but a target of rule {rule}"),
                Some("name an image or a group".into()),
            )],
            PlanError::NoImages => vec![Fault::new(
                Exit::Usage,
                "imgdecl::cli::no_images",
                format!("{} has no image", manifest.display()),
                Some("add one: [image.NAME]".into()),
            )],
            PlanError::NoneLeft => vec![Fault::new(
                Exit::Usage,
                "imgdecl::cli::no_images",
                "nothing is left to build: all that was chosen is left out again",
                Some("name what is to be built, without a `!`".into()),
            )],
            PlanError::Platform { wanted, have } => vec![Fault::new(
                Exit::Usage,
                "imgdecl::cli::platform",
                format!("no image is for {wanted}"),
                Some(format!("they have: {}", have.join(", "))),
            )],
        },
        Failed::Run(failures) => failures.iter().map(node).collect(),
        Failed::Action(error) => vec![action(error)],
        Failed::Output(error) => vec![output(error)],
        Failed::Daemon(error) => vec![daemon(error)],
        Failed::Source(error, blame) => vec![source(error, (*blame).into())],
        Failed::Told(told) => {
            let Told {
                blame,
                code,
                message,
                causes,
                help,
            } = &**told;
            vec![Fault {
                causes: causes.clone(),
                ..Fault::new((*blame).into(), code, message, help.clone())
            }]
        }
        Failed::Many(all) => all.iter().flat_map(faults).collect(),
    }
}

fn problem(problem: Problem, exit: Exit) -> Fault {
    let source = &problem.source;
    let places = problem.labels.into_iter().map(|(span, label)| Place {
        source: source.clone(),
        span,
        label,
    });
    let places = places.collect();
    Fault::new(exit, problem.code, problem.message, problem.help).at(places)
}

/// What is wrong with image.lock.
fn lock(error: &LockError) -> Fault {
    let (message, help) = (&error.message, Some(error.help.clone()));
    Fault::new(Exit::Usage, "imgdecl::lock::file", message, help).at(vec![Place {
        source: error.source_text.clone(),
        span: error.span.clone(),
        label: Some(error.label.clone()),
    }])
}

/// Why a node failed, with the place that asked for it.
fn node(failure: &NodeFailure) -> Fault {
    let NodeFailure {
        label,
        origin,
        error,
    } = failure;
    let place = |origin: &crate::graph::Origin, label| Place {
        source: origin.source.clone(),
        span: origin.span.clone(),
        label,
    };
    let places = match &error.origins[..] {
        [] => vec![place(origin, Some(format!("{label} needs it")))],
        origins => origins.iter().map(|it| place(it, None)).collect(),
    };
    action(error).at(places)
}

fn action(error: &ActionError) -> Fault {
    let exit = match error.failure {
        Failure::Stopped => Exit::Stopped,
        failure => Blame::from(failure).into(),
    };
    Fault {
        causes: error.causes.clone(),
        ..Fault::new(exit, error.code, &error.message, error.help.clone())
    }
}

fn output(error: &OutputError) -> Fault {
    let code = match error {
        OutputError::Damaged { .. } => "imgdecl::output::damaged",
        OutputError::Store(error) => error.code(),
        OutputError::Zstd { .. } => "imgdecl::daemon::zstd",
        OutputError::Lost { .. } => "imgdecl::daemon::lost",
        OutputError::NoRepository(_) | OutputError::Repository(_) => "imgdecl::image::repository",
        _ => "imgdecl::output",
    };
    let help = match error {
        OutputError::NotOurs(_) => "name another output with `--output`, or remove it yourself",
        OutputError::Io { .. } => "free space, or name another output with `--output`",
        OutputError::Closed(_) => "its own messages say why",
        OutputError::Terminal(_) => {
            "send it to a file or into a pipe, as in `imgdecl build -o docker-archive:- | docker load`"
        }
        OutputError::Flat { .. } => "the base may be damaged: get it again from where it came",
        OutputError::Several { .. } => "name one of them: imgdecl build NAME",
        OutputError::Platform { .. } => "choose one of them with `--platform`",
        OutputError::Name { .. } => {
            "write `repository` into the image's table, or give the target another name"
        }
        OutputError::Twice { .. } => {
            "give each a `repository` or `tags` of its own, or build one of them alone"
        }
        OutputError::Damaged { .. } => {
            "remove the output yourself, and build again; or name another one with `--output`"
        }
        OutputError::Store(error) => error.help(),
        OutputError::NoCache => "build them, and write them at once",
        OutputError::NoRepository(_) | OutputError::Repository(_) => {
            "write `repository` into the image's table"
        }
        OutputError::Zstd { .. } => "write compression = \"gzip\", or take Docker 23 or newer",
        OutputError::Lost { .. } => "its log says more",
        OutputError::Stopped | OutputError::Push(_) | OutputError::Daemon(_) => "",
    };
    let exit = match error {
        OutputError::NotOurs(_)
        | OutputError::Terminal(_)
        | OutputError::Several { .. }
        | OutputError::Platform { .. }
        | OutputError::Name { .. }
        | OutputError::Twice { .. }
        | OutputError::NoCache
        | OutputError::NoRepository(_)
        | OutputError::Repository(_) => Exit::Usage,
        OutputError::Io { .. }
        | OutputError::Closed(_)
        | OutputError::Flat { .. }
        | OutputError::Damaged { .. }
        | OutputError::Zstd { .. }
        | OutputError::Lost { .. } => Exit::Failed,
        OutputError::Store(_) => Exit::Cache,
        // These have failures of their own.
        OutputError::Stopped => Exit::Stopped,
        OutputError::Push(_) => Exit::Remote,
        OutputError::Daemon(_) => Exit::Failed,
    };
    let help = Some(help.to_owned()).filter(|it| !it.is_empty());
    Fault::of(exit, code, error, help)
}

fn daemon(error: &DaemonError) -> Fault {
    let code = match error {
        DaemonError::Differs { .. } => "imgdecl::daemon::differs",
        _ => "imgdecl::daemon",
    };
    let exit = match error {
        DaemonError::Address { .. } | DaemonError::Context { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Fault::of(exit, code, error, error.help())
}

/// What is wrong with an image on disk or in a registry.
fn source(error: &SourceError, exit: Exit) -> Fault {
    let (code, help) = match error {
        SourceError::Reference { .. } => (
            "imgdecl::image::name",
            "name one of these: oci:DIR:NAME, oci-archive:FILE:NAME or docker-archive:FILE:REF",
        ),
        SourceError::NoLayout { .. } => (
            "imgdecl::image::layout",
            "expected an OCI image layout, or a tar of one or of `docker save`",
        ),
        SourceError::Io { .. } => (
            "imgdecl::image::unreadable",
            "check that the image is whole and readable",
        ),
        _ => (
            "imgdecl::image::damaged",
            "the image is damaged: get it again from where it came",
        ),
    };
    Fault::of(exit, code, error, Some(help.to_owned()))
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
