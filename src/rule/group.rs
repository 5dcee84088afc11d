//! A name for several images, to build or push them together.
//!
//! ```toml
//! [group.all]
//! images = ["frontend", "qa-api"]
//! ```
//!
//! Groups may hold groups. `*` stands for a part of a name, `MEMBER:NAME` names images of members, and `!` leaves some out:
//! `images = ["services/*:*", "!services/*:*-test"]`.

use serde::Deserialize;
use toml::Spanned;

use super::value::fields;
use super::{Below, Lower, Lowered, RULES, Role, Rule};
use crate::spec::{Key, Problems, Target, Type};

const KEYS: &[Key] = &[Key::new(
    "images",
    Type::Strings,
    "",
    "The names of images, or of other groups; patterns, as \"web-*\"; and `!` before what is left out.",
)];

#[derive(Deserialize)]
struct GroupTable {
    images: Vec<Spanned<String>>,
}

pub(super) struct Group;

impl Rule for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn role(&self) -> Role {
        Role::Group
    }

    fn summary(&self) -> &'static str {
        "a name for several images"
    }

    fn source(&self) -> &'static str {
        include_str!("group.rs")
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn fields(&self) -> Vec<&'static str> {
        fields::<GroupTable>().to_vec()
    }

    fn lower(&self, target: &Target, lower: &mut Lower<'_>) -> Result<Lowered, Problems> {
        let table: GroupTable = lower.read(target, KEYS)?;
        let mut problems = Problems::default();
        let (mut images, mut except) = (Vec::new(), Vec::new());
        for name in &table.images {
            let (word, images) = match name.get_ref().strip_prefix('!') {
                Some(word) => (word, &mut except),
                None => (name.get_ref().as_str(), &mut images),
            };
            let is_image = |it: &Target| Role::of(it) == Role::Image;
            match lower.spec.matching(&target.id.member, word, is_image) {
                Ok(Some(found)) => {
                    images.extend(found);
                    continue;
                }
                Ok(None) => {}
                Err((message, help)) => {
                    let (code, label) = ("imgdecl::spec::unknown_target", "no such images");
                    let problem = target.table.problem(code, name.span(), message, label);
                    problems.push(help.into_iter().fold(problem, |it, help| it.help(help)));
                    continue;
                }
            }
            let fits = |role| matches!(role, Role::Image | Role::Group);
            let id = match lower.resolve(target, word, name.span(), fits) {
                Ok(id) => id,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let Some(found) = lower.spec.target(&id) else {
                continue;
            };
            match Role::of(found) {
                Role::Image => images.push(id),
                Role::Group => match lower.target(&id, target, name.span(), &Below::Unasked) {
                    Ok(Some(Lowered::Group(more))) => images.extend(more),
                    Ok(_) => {}
                    Err(problem) => problems.push(problem),
                },
                Role::Base | Role::Layer => problems.push(
                    target
                        .table
                        .problem(
                            "imgdecl::group::not_an_image",
                            name.span(),
                            format!("`{word}` is no image"),
                            format!("a target of rule {}", RULES[found.rule].name()),
                        )
                        .help("groups hold images and other groups"),
                ),
            }
        }
        if table.images.is_empty() {
            let span = target.table.span.clone();
            let message = format!("the group `{}` has no images", target.id.name);
            problems.push(target.table.problem(
                "imgdecl::group::empty",
                span,
                message,
                "name some with `images`",
            ));
        }
        let before = images.len();
        images.retain(|id| !except.contains(id));
        if images.is_empty() && before + except.len() > 0 && problems.is_empty() {
            let span = target.table.span.clone();
            let message = format!("the group `{}` leaves all images out", target.id.name);
            let label = "nothing is left";
            let problem = target
                .table
                .problem("imgdecl::group::empty", span, message, label);
            problems.push(problem.help("name some without a `!`"));
        }
        match problems.is_empty() {
            true => Ok(Lowered::Group(images)),
            false => Err(problems),
        }
    }
}
