//! Names of users and groups become numbers, by an image's own `etc/passwd` and `etc/group`. Knows nothing of the host's.

use std::fmt::Write as _;

/// How many names an error lists.
const LISTED: usize = 20;

/// Who a process runs as.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct User {
    /// The user.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// Other groups, sorted.
    pub groups: Vec<u32>,
}

/// A user or group that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {kind} `{name}`; its etc/{file} has {}", list(have))]
pub(crate) struct UserError {
    kind: &'static str,
    name: String,
    file: &'static str,
    have: Vec<String>,
}

impl UserError {
    /// Returns `user` or `group`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the name that is unknown.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names that there are.
    pub(crate) fn have(&self) -> &[String] {
        &self.have
    }
}

fn list(names: &[String]) -> String {
    let mut text = match names {
        [] => return "none".to_owned(),
        names => names[..names.len().min(LISTED)].join(", "),
    };
    if names.len() > LISTED {
        let _ = write!(text, " and {} more", names.len() - LISTED);
    }
    text
}

/// A line of `etc/passwd`, or of `etc/group`, where `gid` is the group's own number.
struct Line<'a> {
    name: &'a str,
    id: u32,
    gid: u32,
    members: Vec<&'a str>,
}

fn users(passwd: &str) -> impl Iterator<Item = Line<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = self::id(fields.nth(1)?)?;
        let gid = self::id(fields.next()?)?;
        Some(Line {
            name,
            id,
            gid,
            members: Vec::new(),
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Line<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id = self::id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default().split(',');
        Some(Line {
            name,
            id,
            gid: id,
            members: members.map(str::trim).collect(),
        })
    })
}

impl User {
    /// Finds who `user` is: `USER`, `USER:GROUP`, each a name or a number; nobody named is root.
    ///
    /// A user whose group is not named has the groups that the image gives to it (image-spec, config.md, "User").
    ///
    /// # Errors
    /// When a name is unknown. A number need not be known.
    pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Result<Self, UserError> {
        let (user, own_group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = id(user);
        let is_meant = |line: &Line<'_>| line.name == user || Some(line.id) == number;
        // A name that looks like a number is a name first.
        let known = users(passwd).find(|line| line.name == user);
        let known = known.or_else(|| users(passwd).find(is_meant));
        let (uid, gid, name) = match (known, number) {
            (Some(line), _) => (line.id, line.gid, Some(line.name)),
            (None, Some(uid)) => (uid, 0, None),
            (None, None) => {
                return Err(UserError {
                    kind: "user",
                    name: user.to_owned(),
                    file: "passwd",
                    have: users(passwd).map(|line| line.name.to_owned()).collect(),
                });
            }
        };
        let Some(own_group) = own_group else {
            let of_user =
                groups(group).filter(|line| name.is_some_and(|it| line.members.contains(&it)));
            let mut groups: Vec<u32> = of_user
                .map(|line| line.id)
                .filter(|it| *it != gid)
                .collect();
            groups.sort_unstable();
            groups.dedup();
            return Ok(Self { uid, gid, groups });
        };
        let known = groups(group).find(|line| line.name == own_group);
        let gid = known.map(|line| line.gid).or_else(|| id(own_group));
        let gid = gid.ok_or_else(|| UserError {
            kind: "group",
            name: own_group.to_owned(),
            file: "group",
            have: groups(group).map(|line| line.name.to_owned()).collect(),
        })?;
        Ok(Self {
            uid,
            gid,
            groups: Vec::new(),
        })
    }
}

/// Parses a number that the kernel takes: the largest means nobody.
fn id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| text.parse().ok())?
        .filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\n# no line\nbroken:x\napp:x:1000:1001::/app:\n77:x:5:6::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:root,app\nwheel:x:10:app,\napp:x:1001:app\n";

    fn resolve(user: &str) -> (u32, u32, Vec<u32>) {
        let user = User::resolve(user, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve(""), (0, 0, vec![50]));
        assert_eq!(resolve("app"), (1000, 1001, vec![10, 50]));
        assert_eq!(resolve("1000"), (1000, 1001, vec![10, 50]));
        assert_eq!(resolve("app:"), (1000, 1001, vec![10, 50]));
        assert_eq!(resolve("app:staff"), (1000, 50, vec![]));
        assert_eq!(resolve("app:7"), (1000, 7, vec![]));
        assert_eq!(resolve("4711"), (4711, 0, vec![]));
        assert_eq!(resolve("4711:4712"), (4711, 4712, vec![]));
        assert_eq!(resolve("77"), (5, 6, vec![]));
        assert_eq!(
            User::resolve("9", "", ""),
            Ok(User {
                uid: 9,
                ..User::default()
            })
        );
    }

    #[test]
    fn unknown_names_are_errors_that_list_the_known() {
        let error = |user| User::resolve(user, PASSWD, GROUP).unwrap_err().to_string();
        assert_eq!(
            error("nobody"),
            "the image has no user `nobody`; its etc/passwd has root, app, 77"
        );
        assert_eq!(
            error("app:nobody"),
            "the image has no group `nobody`; its etc/group has root, staff, wheel, app"
        );
        // The largest number asks the kernel to leave the user as it is.
        let nobody = User::resolve("x", "x:x:4294967295:0::/:\n", "").unwrap_err();
        assert_eq!(nobody.name, "x");
        for user in ["-1", "+1", "4294967295", "99999999999", "0x1", " 1"] {
            error(user);
        }
    }
}
