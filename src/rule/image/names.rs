//! Where an image is kept, for which platforms it is built, and whose media types it has.

use serde::Deserialize;
use toml::Spanned;

use super::KEYS;
use crate::oci::{Flavour, Platform, Reference, check_tag};
use crate::rule::value::fields;
use crate::rule::{Lower, Lowered, RULES, Role};
use crate::spec::{Defaults, Problem, Problems, Table, Target, TargetId};

/// The keys that say where images go, and in which form: they are the same for all platforms, and read before there is one.
#[derive(Deserialize)]
pub(super) struct Where {
    platforms: Option<Vec<Spanned<String>>>,
    tags: Option<Vec<Spanned<String>>>,
    repository: Option<Spanned<String>>,
    media_types: Option<Spanned<String>>,
    push: Option<bool>,
}

impl Where {
    fn read(target: &Target, lower: &Lower<'_>) -> Result<Self, Problems> {
        let wants = |key: &str| fields::<Self>().contains(&key);
        target.table.read_part(KEYS, wants, &lower.vars(target))
    }
}

/// Where an image is kept.
#[derive(Clone, Debug)]
pub struct Names {
    /// Registry and repository, if the manifest says.
    pub repository: Option<String>,
    /// The image tags.
    pub tags: Vec<String>,
    /// Whether it goes there with the others: images of tests and tools stay here.
    pub is_pushed: bool,
}

impl Names {
    /// Returns the repository with the first image tag.
    pub(super) fn reference(&self) -> Option<String> {
        let repository = self.repository.as_ref()?;
        Some(match self.tags.first() {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.clone(),
        })
    }
}

/// Returns where an image is kept.
///
/// # Errors
/// What is wrong with its repository or image tags.
pub(crate) fn names(target: &Target, lower: &Lower<'_>) -> Result<Names, Problems> {
    let at = &target.table;
    let table = Where::read(target, lower)?;
    let (defaults, from) = lower.defaults(target)?;
    let mut problems = Problems::default();
    let mut tags = Vec::new();
    for tag in table.tags.iter().flatten() {
        match check_tag(tag.get_ref()) {
            Ok(()) => tags.push(tag.get_ref().clone()),
            Err(error) => problems.push(at.problem(
                "imgdecl::image::tag",
                tag.span(),
                error.to_string(),
                "not an image tag",
            )),
        }
    }
    if table.tags.is_none() {
        tags.push("latest".to_owned());
    }
    let written = defaults_text(&from, &defaults);
    let (text, place) = match (&table.repository, &defaults.repository, &from) {
        (Some(own), _, _) => (Some(own.get_ref().clone()), at.place(own.span())),
        (None, Some(prefix), Some(from)) => {
            let text = prefix.get_ref().trim_end_matches('/');
            let full = if written {
                text.to_owned()
            } else {
                format!("{text}/{}", target.id.name)
            };
            (Some(full), from.place(prefix.span()))
        }
        _ => (None, at.origin()),
    };
    if let Some(text) = &text {
        match text.parse::<Reference>() {
            Ok(reference) if reference.tag.is_none() && reference.digest.is_none() => {}
            Ok(_) => problems.push(
                Problem::at(
                    "imgdecl::image::repository",
                    &place,
                    format!("`{text}` is more than a repository"),
                    "without image tag and digest",
                )
                .help("image tags go into `tags`"),
            ),
            Err(error) => problems.push(Problem::at(
                "imgdecl::image::repository",
                &place,
                error.to_string(),
                "not a repository",
            )),
        }
    }
    match problems.is_empty() {
        true => Ok(Names {
            repository: text,
            tags,
            is_pushed: table.push.unwrap_or(true),
        }),
        false => Err(problems),
    }
}

/// Tells whether the default repository says itself where the name of the target goes.
fn defaults_text(from: &Option<Table>, defaults: &Defaults) -> bool {
    let (Some(from), Some(prefix)) = (from, &defaults.repository) else {
        return false;
    };
    from.source
        .text
        .get(prefix.span())
        .is_some_and(|text| text.contains("${target}"))
}

/// Returns whose media types an image has.
///
/// # Errors
/// What is wrong with its table.
pub(super) fn flavour(target: &Target, lower: &Lower<'_>) -> Result<Flavour, Problems> {
    let table = Where::read(target, lower)?;
    let (defaults, _) = lower.defaults(target)?;
    let name = table.media_types.or(defaults.media_types);
    let flavour = name.and_then(|name| Flavour::from_name(name.get_ref()));
    Ok(flavour.unwrap_or_default())
}

/// Returns the platforms of an image.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn platforms(target: &Target, lower: &Lower<'_>) -> Result<Vec<Platform>, Problems> {
    let table = Where::read(target, lower)?;
    let (defaults, from) = lower.defaults(target)?;
    let (list, at) = match (&table.platforms, &defaults.platforms, &from) {
        (Some(own), _, _) => (own, &target.table),
        (None, Some(list), Some(from)) => (list, from),
        _ => return Ok(vec![Platform::new("linux", "amd64")]),
    };
    let mut platforms: Vec<Platform> = Vec::new();
    let mut problems = Problems::default();
    for text in list {
        match text.get_ref().parse::<Platform>() {
            Ok(platform) if platforms.iter().any(|it| it.matches(&platform)) => {
                problems.push(at.problem(
                    "imgdecl::image::platform",
                    text.span(),
                    format!("`{platform}` is named twice"),
                    "second",
                ));
            }
            Ok(platform) => {
                if let Err((name, near)) = platform.check_names() {
                    let message = format!("`{name}` is no name for a system or architecture");
                    let code = "imgdecl::image::platform";
                    let problem = at.problem(code, text.span(), message, "unknown to runtimes");
                    problems.push(problem.did_you_mean(near));
                }
                platforms.push(platform);
            }
            Err(error) => problems.push(at.problem(
                "imgdecl::image::platform",
                text.span(),
                error.to_string(),
                "not a platform",
            )),
        }
    }
    if platforms.is_empty() && problems.is_empty() {
        problems.push(at.problem(
            "imgdecl::image::platform",
            at.span.clone(),
            "`platforms` is empty",
            "no platform",
        ));
    }
    if problems.is_empty() {
        Ok(platforms)
    } else {
        Err(problems)
    }
}

/// The names of the images that a target stands for.
///
/// # Errors
/// When it stands for none.
pub(crate) fn images(id: &TargetId, lower: &mut Lower<'_>) -> Result<Vec<TargetId>, &'static str> {
    let Some(target) = lower.spec.target(id) else {
        return Err("");
    };
    match Role::of(target) {
        Role::Image => Ok(vec![id.clone()]),
        Role::Group => match lower.lower(id) {
            Some(Lowered::Group(images)) => Ok(images),
            _ => Ok(Vec::new()),
        },
        Role::Base | Role::Layer => Err(RULES[target.rule].name()),
    }
}
