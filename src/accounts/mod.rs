//! Users and groups of an image, as its own files name them: `etc/passwd`, `etc/group`, and the two with passwords. Plain
//! data: knows nothing of the host's users, of layers or of manifests.

mod add;
mod lookup;

pub(crate) use add::{AddError, Added, NewGroup, NewUser, Who};
pub(crate) use lookup::{User, UserError};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The files that name users and groups, by their paths in an image without a leading `/`.
pub(crate) const FILES: [&str; 4] = [PASSWD, GROUP, SHADOW, GSHADOW];

/// The file of users.
pub(crate) const PASSWD: &str = "etc/passwd";
/// The file of groups.
pub(crate) const GROUP: &str = "etc/group";
/// The file of users' passwords.
pub(crate) const SHADOW: &str = "etc/shadow";
/// The file of groups' passwords.
pub(crate) const GSHADOW: &str = "etc/gshadow";

/// How large such a file may be, in bytes.
pub(crate) const MOST: u64 = 1 << 20;

/// One of the files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct AccountFile {
    /// Its permission bits.
    pub(crate) mode: u16,
    /// The user that it belongs to.
    pub(crate) uid: u32,
    /// The group that it belongs to.
    pub(crate) gid: u32,
    /// Its content.
    pub(crate) text: String,
}

/// The files of an image that name users and groups, as far as it has them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Accounts(BTreeMap<String, AccountFile>);

impl Accounts {
    /// Returns one of the files.
    pub(crate) fn file(&self, path: &str) -> Option<&AccountFile> {
        self.0.get(path)
    }

    /// Returns the content of one of the files; empty where there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.file(path).map_or("", |file| &file.text)
    }

    /// Puts one of the files in its place.
    pub(crate) fn put(&mut self, path: &str, file: AccountFile) {
        self.0.insert(path.to_owned(), file);
    }

    /// Takes one of the files away.
    pub(crate) fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// Returns all files, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &AccountFile)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Finds who `user` is: `USER` or `USER:GROUP`, each a name or a number.
    ///
    /// # Errors
    /// When a name is unknown.
    pub(crate) fn resolve(&self, user: &str) -> Result<User, UserError> {
        User::resolve(user, self.text(PASSWD), self.text(GROUP))
    }

    /// Returns the names of users that `after` no longer has, in the order of the file.
    pub(crate) fn lost(&self, after: &Self) -> Vec<String> {
        let kept: Vec<&str> = names(after.text(PASSWD)).collect();
        let lost = names(self.text(PASSWD)).filter(|name| !kept.contains(name));
        lost.map(str::to_owned).collect()
    }
}

/// Returns the names that the lines of a file begin with.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|line| line.split(':').next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#'))
}

/// Tells whether a user or group is named by a number, and needs no file.
pub(crate) fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Tells whether `USER`, `USER:GROUP` or nothing names somebody whom a file of the image must know.
pub(crate) fn has_name(user: &str) -> bool {
    let mut parts = user.splitn(2, ':').filter(|part| !part.is_empty());
    parts.any(|part| !is_number(part))
}

/// Tells whether a name can be that of a user or group, as `useradd` of all distributions has it.
pub(crate) fn is_name(name: &str) -> bool {
    let body = name.strip_suffix('$').unwrap_or(name);
    let is_head = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_tail = |byte: u8| is_head(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    name.len() <= 32 && body.bytes().next().is_some_and(is_head) && body.bytes().all(is_tail)
}

/// Tells whether a text can stand in a field of such a file.
pub(crate) fn is_field(text: &str) -> bool {
    !text.contains(|char: char| char == ':' || char.is_control())
}
