//! The keys `users` and `groups` of the rule `files`, and owners that are written as names.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::users::NewPeople;
use super::value::{Collect, image_path};
use crate::accounts::{NewGroup, NewUser, is_field, is_name};
use crate::spec::{Key, Problem, Table, Type};

/// The keys of a user.
pub(super) const USER: &[Key] = &[
    Key::new(
        "uid",
        Type::Integer,
        "",
        "The number. A user of the image below needs none.",
    ),
    Key::new(
        "gid",
        Type::Integer,
        "",
        "The number of the user's own group. By default that of the user; a group of the user's name is made where there is none.",
    ),
    Key::new(
        "home",
        Type::String,
        "",
        "The home folder. By default /home/NAME.",
    ),
    Key::new(
        "create_home",
        Type::Boolean,
        "true",
        "Makes the home folder: 0700, and the user's.",
    ),
    Key::new(
        "shell",
        Type::String,
        "\"/sbin/nologin\"",
        "What a login starts.",
    ),
    Key::new("comment", Type::String, "\"\"", "The user's full name."),
    Key::new(
        "groups",
        Type::Strings,
        "[]",
        "Other groups that the user joins, by name.",
    ),
];

/// The keys of a group.
pub(super) const GROUP: &[Key] = &[Key::new("gid", Type::Integer, "", "The number.")];

/// A user in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserTable {
    uid: Option<Spanned<i64>>,
    gid: Option<Spanned<i64>>,
    home: Option<Spanned<String>>,
    create_home: Option<bool>,
    shell: Option<Spanned<String>>,
    comment: Option<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
}

/// A group in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupTable {
    gid: Spanned<i64>,
}

/// Users, by name.
pub(super) type Users = BTreeMap<Spanned<String>, UserTable>;
/// Groups, by name.
pub(super) type Groups = BTreeMap<Spanned<String>, GroupTable>;

/// Reads who is added.
pub(super) fn people(
    at: &Table,
    users: &Users,
    groups: &Groups,
    collect: &mut Collect,
) -> NewPeople {
    let mut people = NewPeople::default();
    for (name, table) in groups {
        collect.take(check_name(at, name));
        let group = NewGroup {
            name: name.get_ref().clone(),
            gid: collect.take(id(at, &table.gid)),
        };
        people.groups.push((group, at.place(name.span())));
    }
    for (name, table) in users {
        collect.take(check_name(at, name));
        for group in &table.groups {
            collect.take(check_name(at, group));
        }
        if let Some(home) = &table.home {
            collect.take(image_path(at, home.get_ref(), home.span()).map(drop));
        }
        for text in [&table.home, &table.shell, &table.comment]
            .into_iter()
            .flatten()
            .filter(|text| !is_field(text.get_ref()))
        {
            let message = "a field of etc/passwd has no colon and no line feed";
            let (code, label) = ("imgdecl::users::field", "not in one field");
            collect
                .0
                .push(at.problem(code, text.span(), message, label));
        }
        let mut number = |value: &Option<Spanned<i64>>| {
            let value = value.as_ref()?;
            Some(collect.take(id(at, value)))
        };
        let (uid, gid) = (number(&table.uid), number(&table.gid));
        let text = |value: &Option<Spanned<String>>| value.as_ref().map(|it| it.get_ref().clone());
        let user = NewUser {
            name: name.get_ref().clone(),
            uid,
            gid,
            home: text(&table.home),
            shell: text(&table.shell),
            comment: text(&table.comment),
            groups: table.groups.iter().map(|it| it.get_ref().clone()).collect(),
        };
        if table.create_home == Some(false) {
            people.homeless.push(user.name.clone());
        }
        people.users.push((user, at.place(name.span())));
    }
    // Lines come in the order of their numbers, whatever the order of the manifest.
    people.groups.sort_by_key(|(it, _)| it.gid);
    people.users.sort_by_key(|(it, _)| it.uid);
    people
}

/// Reads the number of a user or group. The largest one means `no change` to chown.
fn id(at: &Table, value: &Spanned<i64>) -> Result<u32, Problem> {
    let number = u32::try_from(*value.get_ref()).ok();
    number.filter(|it| *it != u32::MAX).ok_or_else(|| {
        let message = format!("`{}` is no number of a user or group", value.get_ref());
        let label = "expected 0 to 4294967294";
        at.problem("imgdecl::users::number", value.span(), message, label)
    })
}

/// Makes sure that a name can be that of a user or group.
fn check_name(at: &Table, name: &Spanned<String>) -> Result<(), Problem> {
    let text = name.get_ref();
    match is_name(text) {
        true => Ok(()),
        false => {
            let message = format!("`{text}` cannot be the name of a user or group");
            let problem = at.problem("imgdecl::users::name", name.span(), message, "");
            Err(problem.help(
                "names have letters, digits, `_`, `-` and `.`, begin with a letter or `_`, and have at most 32 bytes",
            ))
        }
    }
}
