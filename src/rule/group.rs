//! A name for several images, to build or push them together.
//!
//! ```toml
//! [group.all]
//! images = ["frontend", "qa-api"]
//! ```
//!
//! Groups may hold groups.

use serde::Deserialize;
use toml::Spanned;

use super::value::fields;
use super::{Below, Lower, Lowered, RULES, Role, Rule};
use crate::spec::{Key, Problems, Target, Type};

const KEYS: &[Key] = &[Key::new(
    "images",
    Type::Strings,
    "",
    "The names of images, or of other groups.",
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
        let mut images = Vec::new();
        for name in &table.images {
            let fits = |role| matches!(role, Role::Image | Role::Group);
            let id = match lower.resolve(target, name.get_ref(), name.span(), fits) {
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
                            format!("`{}` is no image", name.get_ref()),
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
        match problems.is_empty() {
            true => Ok(Lowered::Group(images)),
            false => Err(problems),
        }
    }
}
