//! Errors of resolving, of indexes and of the user's files, as errors of a run: with the places in these files.

use std::sync::Arc;

use pep508_rs::PackageName;

use crate::graph::{ActionError, Failure, Origin, SourceText};
use crate::python::resolve::{Conflict, IndexError, ResolveError};
use crate::python::{InputError, Place, without_secrets};

/// How many requirements a message names.
const PLACES: usize = 12;

/// Says from which index a lock has a package, and what to write so that it is asked.
pub(super) fn says_index(name: &PackageName, url: &str) -> String {
    let url = without_secrets(url);
    format!(
        "the lock has it from {url}: name that index in `[index]`, as `packages = {{ {name} = \"{url}\" }}`"
    )
}

/// Makes one error of those of several packages.
pub(super) fn joined(errors: Vec<ActionError>) -> Option<ActionError> {
    let mut errors = errors.into_iter();
    let mut first = errors.next()?;
    for error in errors.by_ref().take(PLACES - 1) {
        first.causes.push(error.message);
        first.origins.extend(error.origins);
        let known = first.help.clone().unwrap_or_default();
        let lines = error.help.unwrap_or_default();
        let new: Vec<&str> = lines
            .lines()
            .filter(|it| !known.lines().any(|own| own == *it))
            .collect();
        let new = [&[known.as_str()][..], &new].concat();
        first.help = Some(new.join("\n"));
    }
    let more = errors.count();
    if more > 0 {
        first
            .causes
            .push(format!("and so are {more} more packages"));
    }
    Some(first)
}

/// Makes the error of an index that cannot give what is asked for.
pub(super) fn of_index(error: IndexError, what: String) -> ActionError {
    let message = format!("{what}: {error}");
    let found = ActionError::new("imgdecl::pip::index", message);
    match error {
        IndexError::Failed { help, .. } => ActionError {
            help,
            ..remote(found)
        },
        IndexError::Malformed(wheel) => found.help(wheel.help),
        IndexError::NotFound { .. } => remote(found),
    }
}

/// Returns a place in a file as one that errors of a run have.
pub(super) fn origin(place: &Place) -> Origin {
    Origin {
        source: Arc::new(SourceText {
            name: place.source.name.clone(),
            text: place.source.text.clone(),
        }),
        span: place.span.clone(),
    }
}

/// Blames a host for an error.
pub(super) fn remote(error: ActionError) -> ActionError {
    ActionError {
        failure: Failure::Remote,
        ..error
    }
}

/// Makes the error of a file that cannot be read.
pub(super) fn of_input(error: &InputError) -> ActionError {
    ActionError::new(error.code, error.message.clone())
        .help(error.help.clone())
        .at(&origin(&error.place))
}

/// Names the requirements that take part in a conflict, and says what to do about them.
fn help(conflict: &Conflict) -> String {
    let mut lines = Vec::new();
    if conflict.places.len() > 1 {
        lines.push("these requirements take part:".to_owned());
        let places = conflict.places.iter().take(PLACES);
        lines.extend(places.map(|(place, text)| format!("  {place}: {text}")));
        let more = conflict.places.len().saturating_sub(PLACES);
        lines.extend((more > 0).then(|| format!("  and {more} more")));
    }
    lines.push(conflict.help());
    lines.join("\n")
}

/// Makes the error of requirements that cannot be resolved.
pub(super) fn of_resolve(error: &ResolveError) -> ActionError {
    match error {
        ResolveError::Conflict(conflict) => {
            let mut lines = conflict.explanation.lines();
            let first = lines
                .next()
                .unwrap_or("the requirements exclude each other");
            let mut found = ActionError::new("imgdecl::pip::conflict", first);
            found.causes = lines.map(str::to_owned).collect();
            found.help = Some(help(conflict));
            let places = conflict.places.iter().take(PLACES);
            found.at_all(places.map(|(place, _)| origin(place)))
        }
        ResolveError::Unreadable {
            wheel, conflict, ..
        } => {
            let mut found = ActionError::new(wheel.code, wheel.why.clone()).help(error.help());
            let lines = conflict.explanation.lines();
            // One line only says again what was said.
            if lines.clone().count() > 1 {
                found.causes = lines.map(str::to_owned).collect();
            }
            let places = conflict.places.iter().take(PLACES);
            found.at_all(places.map(|(place, _)| origin(place)))
        }
        ResolveError::Unknown(unknown) => {
            let places = unknown.iter().flat_map(|it| &it.places).take(PLACES);
            ActionError::of("imgdecl::pip::conflict", error)
                .help(error.help())
                .at_all(places.map(origin))
        }
        ResolveError::Missing(missing) => ActionError::of("imgdecl::pip::conflict", error)
            .help(error.help())
            .at_all(missing.places().take(PLACES).map(origin)),
        ResolveError::Index { place, .. } => {
            let found = ActionError::of("imgdecl::pip::index", error).help(error.help());
            let found = remote(found);
            match place {
                Some(place) => found.at(&origin(place)),
                None => found,
            }
        }
        ResolveError::Hard { .. } => ActionError::of("imgdecl::pip::hard", error)
            .help("resolve them with another tool, and name its lock as `lock`"),
    }
}
