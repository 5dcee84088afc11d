//! Why a command did not do what it was asked for: one type for all commands. Knows neither exit codes nor how an error is
//! shown.

use std::path::PathBuf;

use crate::daemon::DaemonError;
use crate::graph::{ActionError, Failure, Label, Origin};
use crate::lock::LockError;
use crate::output::OutputError;
use crate::plan::PlanError;
use crate::registry::RegistryError;
use crate::source::SourceError;
use crate::spec::{LoadError, Problem, Problems};
use crate::store::{Damage, StoreError};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The user stopped it.
    Stopped,
    /// Documents of the user's are wrong, each problem with its place: manifests, or deployment files.
    Problems(Problems, Blame),
    /// `image.lock` cannot be read.
    Lock(Box<LockError>),
    /// Manifests cannot be read.
    Load {
        /// Why.
        error: Box<LoadError>,
        /// The manifest that was asked for: what failed may be another one that it needs.
        manifest: PathBuf,
    },
    /// What the manifests say cannot be planned.
    Plan {
        /// Why.
        error: Box<PlanError>,
        /// The manifest.
        manifest: PathBuf,
    },
    /// Actions failed, or what image.lock lacks cannot be resolved. Never empty.
    Run(Vec<NodeFailure>),
    /// Something failed that nothing in a manifest asked for, such as a push.
    Action(Box<ActionError>),
    /// An output cannot be written.
    Output(Box<OutputError>),
    /// Docker or podman did not do what they were asked for.
    Daemon(Box<DaemonError>),
    /// An image on disk or in a registry cannot be read.
    Source(Box<SourceError>, Blame),
    /// Anything else, in words.
    Told(Box<Told>),
    /// Several of these at once.
    Many(Vec<Failed>),
}

/// A node that failed, and why.
#[derive(Debug)]
pub(crate) struct NodeFailure {
    /// Its name for people.
    pub(crate) label: Label,
    /// The place in the manifest that asked for it.
    pub(crate) origin: Origin,
    /// Why.
    pub(crate) error: ActionError,
}

/// A failure in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// Whose fault it is.
    pub(crate) blame: Blame,
    /// The name of the kind of error, as `imgdecl::cli::target`.
    pub(crate) code: &'static str,
    /// What is wrong and where.
    pub(crate) message: String,
    /// What lies behind it, outermost first.
    pub(crate) causes: Vec<String>,
    /// How to mend it.
    pub(crate) help: Option<String>,
}

/// What kind of failure it was: it decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blame {
    /// Something that was to be done could not be done.
    Build,
    /// What the user wrote is wrong: the command line, or a manifest.
    Usage,
    /// A registry failed, or cannot be asked.
    Remote,
    /// The cache is damaged.
    Cache,
    /// It is a bug of ours.
    Bug,
    /// A program of an image could not be run, which shells say by a code of their own.
    Program(u8),
}

impl Failed {
    /// Says in words what went wrong.
    pub(crate) fn told(
        blame: Blame,
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        Self::Told(Box::new(Told {
            blame,
            code,
            message: message.into(),
            causes: Vec::new(),
            help,
        }))
    }

    /// Says in words what could not be done.
    pub(crate) fn build(
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        Self::told(Blame::Build, code, message, help)
    }

    /// Says in words what is wrong with what the user wrote.
    pub(crate) fn usage(
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        Self::told(Blame::Usage, code, message, help)
    }

    /// Makes a failure of an error and what lies behind it.
    pub(crate) fn error(
        blame: Blame,
        code: &'static str,
        error: &dyn std::error::Error,
        help: Option<String>,
    ) -> Self {
        Self::Told(Box::new(Told {
            blame,
            code,
            message: error.to_string(),
            causes: ActionError::of(code, error).causes,
            help,
        }))
    }

    /// Says that something happened that cannot happen.
    pub(crate) fn bug(what: &str) -> Self {
        let message = format!("this is a bug in imgdecl: {what}");
        Self::told(Blame::Bug, "imgdecl::bug", message, None)
    }

    /// Tells whether all that happened is that the user stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::Action(error) => error.failure == Failure::Stopped,
            Self::Many(all) => all.iter().any(Self::is_stopped),
            _ => false,
        }
    }

    /// Makes one failure of those of nodes, and of whether the user stopped it; `Ok` of neither.
    ///
    /// # Errors
    /// When there is any.
    pub(crate) fn of_nodes(failures: Vec<NodeFailure>, is_stopped: bool) -> Result<(), Self> {
        match (is_stopped, failures.is_empty()) {
            (false, true) => Ok(()),
            (false, false) => Err(Self::Run(failures)),
            (true, true) => Err(Self::Stopped),
            (true, false) => Err(Self::Many(vec![Self::Run(failures), Self::Stopped])),
        }
    }

    /// Makes one failure of several; `Ok` of none.
    ///
    /// # Errors
    /// When there is any.
    pub(crate) fn all(mut failures: Vec<Self>) -> Result<(), Self> {
        match failures.len() {
            0 => Ok(()),
            1 => failures.pop().map_or(Ok(()), Err),
            _ => Err(Self::Many(failures)),
        }
    }
}

impl From<ActionError> for Failed {
    fn from(error: ActionError) -> Self {
        match error.failure {
            Failure::Stopped => Self::Stopped,
            _ => Self::Action(Box::new(error)),
        }
    }
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        ActionError::from(error).into()
    }
}

impl From<OutputError> for Failed {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Stopped | OutputError::Daemon(DaemonError::Stopped) => Self::Stopped,
            OutputError::Daemon(DaemonError::Local(source)) if Damage::of(&source).is_some() => {
                match Damage::of(&source) {
                    Some(damage) => damage.clone().into(),
                    None => Self::Daemon(Box::new(DaemonError::Local(source))),
                }
            }
            OutputError::Daemon(error) => Self::Daemon(Box::new(error)),
            OutputError::Push(errors) => Self::Many(errors.into_iter().map(Self::from).collect()),
            OutputError::NoRepository(images) => {
                let mut problems = Problems::default();
                for (name, origin) in &images {
                    let message = format!("`{name}` has no repository to push to");
                    let (code, label) =
                        ("imgdecl::image::repository", "this image is to be pushed");
                    let help = "write `repository` here, or under [defaults] for all images";
                    problems.push(Problem::at(code, origin, message, label).help(help));
                }
                problems.into()
            }
            error => Self::Output(Box::new(error)),
        }
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Cache(damage) => damage.into(),
            error => Self::Source(Box::new(error), Blame::Build),
        }
    }
}

impl From<&StoreError> for Failed {
    fn from(error: &StoreError) -> Self {
        ActionError::from(error).into()
    }
}

impl From<Damage> for Failed {
    fn from(damage: Damage) -> Self {
        Self::from(&StoreError::from(damage))
    }
}

impl From<Problems> for Failed {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems, Blame::Usage)
    }
}

impl From<LockError> for Failed {
    fn from(error: LockError) -> Self {
        Self::Lock(Box::new(error))
    }
}

impl From<Failure> for Blame {
    fn from(failure: Failure) -> Self {
        match failure {
            // Who stopped it is asked first, and gets a variant of its own.
            Failure::Build | Failure::Stopped => Self::Build,
            Failure::Remote => Self::Remote,
            Failure::Cache => Self::Cache,
            Failure::Bug => Self::Bug,
        }
    }
}
