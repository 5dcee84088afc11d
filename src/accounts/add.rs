//! Adds users and groups to the files of an image: the lines are those that `useradd` and `groupadd` write, but for the day,
//! which stays empty.

use super::{AccountFile, Accounts, FILES, GROUP, GSHADOW, PASSWD, SHADOW};

/// A user to add.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NewUser {
    /// The name.
    pub(crate) name: String,
    /// The number; a user that is there already needs none.
    pub(crate) uid: Option<u32>,
    /// The number of the user's own group: by default that of the user, with a group of the user's name.
    pub(crate) gid: Option<u32>,
    /// The home folder.
    pub(crate) home: Option<String>,
    /// The program that a login starts.
    pub(crate) shell: Option<String>,
    /// The comment field, as a full name.
    pub(crate) comment: Option<String>,
    /// Other groups to join, by name.
    pub(crate) groups: Vec<String>,
}

impl NewUser {
    /// Returns the home folder that is written, or that a new user has.
    pub(crate) fn home(&self) -> Option<String> {
        let new = || Some(format!("{HOMES}/{}", self.name)).filter(|_| self.uid.is_some());
        self.home.clone().or_else(new)
    }
}

/// A group to add.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NewGroup {
    /// The name.
    pub(crate) name: String,
    /// The number.
    pub(crate) gid: u32,
}

/// What all was added, and where its users are at home.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Added {
    /// The files with it.
    pub(crate) accounts: Accounts,
    /// Home folders, with the numbers of the user and of the group: of users that are new, or whose home is written.
    pub(crate) homes: Vec<Home>,
}

/// A user's home folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Home {
    /// The user's name.
    pub(crate) name: String,
    /// The folder.
    pub(crate) path: String,
    /// The user's number.
    pub(crate) uid: u32,
    /// The number of the user's group.
    pub(crate) gid: u32,
}

/// Whom an error is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The user of this number in the list.
    User(usize),
    /// The group of this number in the list.
    Group(usize),
}

/// Something that cannot be added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddError {
    /// Whom it is about.
    pub(crate) who: Who,
    /// What is wrong.
    pub(crate) message: String,
    /// How to mend it.
    pub(crate) help: String,
}

/// Where a user is at home who says nothing else.
const HOMES: &str = "/home";
/// The shell of a user who says nothing else: nobody logs in.
const SHELL: &str = "/sbin/nologin";

/// A line of a file, by its fields.
type Line = Vec<String>;

/// A file, line by line. What is no line of the right form stays as it is.
struct Lines(Vec<Line>);

impl Lines {
    /// Reads a file.
    fn of(text: &str) -> Self {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect();
        Self(text.lines().map(fields).collect())
    }

    /// Writes the file.
    fn text(&self) -> String {
        let lines = self.0.iter().map(|line| line.join(":") + "\n");
        lines.collect()
    }

    /// Finds the line of a name.
    fn named(&mut self, name: &str) -> Option<&mut Line> {
        self.0.iter_mut().find(|line| line[0] == name)
    }

    /// Finds the first line whose third field is a number.
    fn numbered(&mut self, id: u32) -> Option<&mut Line> {
        let is_it = |line: &&mut Line| number(line, 2) == Some(id);
        self.0.iter_mut().find(is_it)
    }

    /// Adds a line.
    fn push(&mut self, fields: &[&str]) {
        self.0
            .push(fields.iter().map(|it| (*it).to_owned()).collect());
    }

    /// Returns all names.
    fn names(&self) -> Vec<&str> {
        let names = self.0.iter().filter(|line| line.len() > 1);
        names.map(|line| line[0].as_str()).collect()
    }
}

/// Returns a field that is a number.
fn number(line: &Line, field: usize) -> Option<u32> {
    line.get(field)?.parse().ok()
}

/// Returns a field, empty where the line is too short.
fn field(line: &Line, field: usize) -> &str {
    line.get(field).map_or("", String::as_str)
}

/// Adds a name to a list with commas, if it is not there.
fn join(list: &mut String, name: &str) {
    if list.split(',').all(|it| it.trim() != name) {
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(name);
    }
}

/// The files while they are added to.
struct Adding {
    passwd: Lines,
    group: Lines,
    /// As far as the image has it.
    shadow: Option<Lines>,
    /// As far as the image has it.
    gshadow: Option<Lines>,
    homes: Vec<Home>,
    errors: Vec<AddError>,
}

impl Accounts {
    /// Adds groups and users, in this order. What is there already, and says the same, is no error. `near` suggests one of
    /// several names for one that is unknown.
    ///
    /// # Errors
    /// All that clashes with what is there.
    pub(crate) fn add(
        &self,
        groups: &[NewGroup],
        users: &[NewUser],
        near: &dyn Fn(&str, &[&str]) -> Option<String>,
    ) -> Result<Added, Vec<AddError>> {
        let lines = |path: &str| self.file(path).map(|it| Lines::of(&it.text));
        let root = |fields: &[&str]| {
            let mut lines = Lines(Vec::new());
            lines.push(fields);
            lines
        };
        let mut adding = Adding {
            passwd: lines(PASSWD)
                .unwrap_or_else(|| root(&["root", "x", "0", "0", "root", "/root", SHELL])),
            group: lines(GROUP).unwrap_or_else(|| root(&["root", "x", "0", ""])),
            shadow: lines(SHADOW),
            gshadow: lines(GSHADOW),
            homes: Vec::new(),
            errors: Vec::new(),
        };
        for (number, group) in groups.iter().enumerate() {
            adding.group(group, &Who::Group(number));
        }
        for (number, user) in users.iter().enumerate() {
            adding.user(user, &Who::User(number), near);
        }
        if !adding.errors.is_empty() {
            return Err(adding.errors);
        }
        let mut accounts = Self::default();
        let texts = [
            Some(adding.passwd),
            Some(adding.group),
            adding.shadow,
            adding.gshadow,
        ];
        for (path, lines) in FILES.into_iter().zip(texts) {
            let Some(lines) = lines else { continue };
            let (mode, uid, gid) = self
                .file(path)
                .map_or((0o644, 0, 0), |it| (it.mode, it.uid, it.gid));
            let text = lines.text();
            let file = AccountFile {
                mode,
                uid,
                gid,
                text,
            };
            accounts.put(path, file);
        }
        Ok(Added {
            accounts,
            homes: adding.homes,
        })
    }
}

impl Adding {
    /// Notes that something clashes.
    fn refuse(&mut self, who: &Who, message: String, help: impl Into<String>) {
        self.errors.push(AddError {
            who: who.clone(),
            message,
            help: help.into(),
        });
    }

    /// Adds a group, unless it is there.
    fn group(&mut self, new: &NewGroup, who: &Who) {
        let NewGroup { name, gid } = new;
        if let Some(line) = self.group.named(name) {
            let known = field(line, 2).to_owned();
            if known != gid.to_string() {
                let message = format!("the group `{name}` is there with the gid {known}");
                self.refuse(
                    who,
                    message,
                    format!("write gid = {known}, or another name"),
                );
            }
            return;
        }
        if let Some(line) = self.group.numbered(*gid) {
            let taken = line[0].clone();
            let message = format!("the gid {gid} of `{name}` is that of the group `{taken}`");
            self.refuse(
                who,
                message,
                "write another gid, or use the group that is there",
            );
            return;
        }
        self.group.push(&[name, "x", &gid.to_string(), ""]);
        if let Some(gshadow) = &mut self.gshadow {
            gshadow.push(&[name, "!", "", ""]);
        }
    }

    /// Adds a user, unless the user is there.
    fn user(&mut self, new: &NewUser, who: &Who, near: &dyn Fn(&str, &[&str]) -> Option<String>) {
        let known = self.passwd.named(&new.name).map(|line| line.clone());
        match known {
            Some(line) => self.same(new, &line, who),
            None => self.new_user(new, who),
        }
        for group in &new.groups {
            let Some(line) = self.group.named(group) else {
                let message = format!("there is no group `{group}` for `{}`", new.name);
                let near = near(group, &self.group.names());
                let help = near.map(|it| format!("did you mean `{it}`?"));
                let help = help.unwrap_or_else(|| {
                    format!("add it: groups = {{ {group} = {{ gid = 2000 }} }}")
                });
                self.refuse(who, message, help);
                continue;
            };
            line.resize(line.len().max(4), String::new());
            join(&mut line[3], &new.name);
            if let Some(line) = self.gshadow.as_mut().and_then(|it| it.named(group)) {
                line.resize(line.len().max(4), String::new());
                join(&mut line[3], &new.name);
            }
        }
    }

    /// Makes sure that a user who is there is the one that is written.
    fn same(&mut self, new: &NewUser, line: &Line, who: &Who) {
        let id = |id: Option<u32>| id.map(|id| id.to_string());
        let written = [
            ("uid", 2, id(new.uid)),
            ("gid", 3, id(new.gid)),
            ("comment", 4, new.comment.clone()),
            ("home", 5, new.home.clone()),
            ("shell", 6, new.shell.clone()),
        ];
        for (key, number, written) in written {
            let known = field(line, number);
            if written.is_none_or(|written| written == known) {
                continue;
            }
            let name = &new.name;
            let (message, value) = match key {
                "uid" | "gid" => (
                    format!("the user `{name}` is there with the {key} {known}"),
                    known.to_owned(),
                ),
                _ => (
                    format!("the user `{name}` is there with the {key} `{known}`"),
                    format!("\"{known}\""),
                ),
            };
            self.refuse(
                who,
                message,
                format!("write {key} = {value}, or leave it out, or choose another name"),
            );
        }
        if let (Some(path), Some(uid), Some(gid)) = (&new.home, number(line, 2), number(line, 3)) {
            self.homes.push(Home {
                name: new.name.clone(),
                path: path.clone(),
                uid,
                gid,
            });
        }
    }

    /// Adds a user who is not there, and a group of that name where nothing says another one.
    fn new_user(&mut self, new: &NewUser, who: &Who) {
        let name = &new.name;
        let Some(uid) = new.uid else {
            let message = format!("the user `{name}` is new, and has no uid");
            self.refuse(who, message, "write a `uid`, as uid = 1000");
            return;
        };
        if let Some(line) = self.passwd.numbered(uid) {
            let taken = line[0].clone();
            let message = format!("the uid {uid} of `{name}` is that of the user `{taken}`");
            let help = format!("write another uid, or use `{taken}`, who is there");
            self.refuse(who, message, help);
            return;
        }
        let gid = new.gid.unwrap_or(uid);
        match self.group.numbered(gid).map(|line| line[0].clone()) {
            Some(taken) if new.gid.is_none() && taken != *name => {
                let message = format!("the gid {gid} of `{name}` is that of the group `{taken}`");
                let help =
                    format!("write gid = {gid} to belong to it, or the gid of another group");
                self.refuse(who, message, help);
                return;
            }
            Some(_) => {}
            None => {
                let group = NewGroup {
                    name: name.clone(),
                    gid,
                };
                let before = self.errors.len();
                self.group(&group, who);
                if self.errors.len() > before {
                    return;
                }
            }
        }
        let home = new.home.clone();
        let home = home.unwrap_or_else(|| format!("{HOMES}/{name}"));
        self.passwd.push(&[
            name,
            "x",
            &uid.to_string(),
            &gid.to_string(),
            new.comment.as_deref().unwrap_or_default(),
            &home,
            new.shell.as_deref().unwrap_or(SHELL),
        ]);
        if let Some(shadow) = &mut self.shadow {
            // What is left of somebody who went is not for somebody else.
            shadow.0.retain(|line| line[0] != *name);
            shadow.push(&[name, "!", "", "0", "99999", "7", "", "", ""]);
        }
        self.homes.push(Home {
            name: name.clone(),
            path: home,
            uid,
            gid,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a small Debian.
    fn debian() -> Accounts {
        let mut accounts = Accounts::default();
        let file = |mode, gid, text: &str| AccountFile {
            mode,
            uid: 0,
            gid,
            text: text.to_owned(),
        };
        // The last line has no end.
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin";
        accounts.put(PASSWD, file(0o644, 0, passwd));
        accounts.put(
            GROUP,
            file(0o644, 0, "root:x:0:\nwww-data:x:33:\nusers:x:100:a\n"),
        );
        accounts.put(
            SHADOW,
            file(
                0o640,
                42,
                "root:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\n",
            ),
        );
        accounts.put(
            GSHADOW,
            file(0o640, 42, "root:*::\nwww-data:!::\nusers:!::a\n"),
        );
        accounts
    }

    fn user(name: &str, uid: u32) -> NewUser {
        NewUser {
            name: name.to_owned(),
            uid: Some(uid),
            ..NewUser::default()
        }
    }

    fn add(groups: &[(&str, u32)], users: &[NewUser]) -> Result<Added, Vec<String>> {
        let group = |(name, gid): &(&str, u32)| NewGroup {
            name: (*name).to_owned(),
            gid: *gid,
        };
        let groups: Vec<NewGroup> = groups.iter().map(group).collect();
        let near = |_: &str, names: &[&str]| names.first().map(|it| (*it).to_owned());
        let said = |errors: Vec<AddError>| errors.into_iter().map(|it| it.message).collect();
        debian().add(&groups, users, &near).map_err(said)
    }

    #[test]
    fn lines_are_those_of_useradd() {
        let app = NewUser {
            groups: vec!["www-data".to_owned(), "users".to_owned(), "data".to_owned()],
            ..user("app", 1000)
        };
        let added = add(&[("data", 2000)], &[app]).unwrap();
        let text = |path: &str| added.accounts.text(path).to_owned();
        assert!(
            text(PASSWD).ends_with("/usr/sbin/nologin\napp:x:1000:1000::/home/app:/sbin/nologin\n")
        );
        assert_eq!(
            text(GROUP),
            "root:x:0:\nwww-data:x:33:app\nusers:x:100:a,app\ndata:x:2000:app\napp:x:1000:\n"
        );
        assert!(text(SHADOW).ends_with("\napp:!::0:99999:7:::\n"));
        assert_eq!(
            text(GSHADOW),
            "root:*::\nwww-data:!::app\nusers:!::a,app\ndata:!::app\napp:!::\n"
        );
        let shadow = added.accounts.file(SHADOW).unwrap();
        assert_eq!((shadow.mode, shadow.gid), (0o640, 42));
        let home = &added.homes[0];
        assert_eq!((&*home.path, home.uid, home.gid), ("/home/app", 1000, 1000));
        // The same once more changes nothing.
        let near = |_: &str, _: &[&str]| None;
        let again = added.accounts.add(&[], &[user("app", 1000)], &near);
        assert_eq!(again.unwrap().accounts, added.accounts);
    }

    #[test]
    fn nothing_below_means_root_and_the_users() {
        let near = |_: &str, _: &[&str]| None;
        let added = Accounts::default()
            .add(&[], &[user("app", 7)], &near)
            .unwrap();
        let files: Vec<(&str, &str)> = (added.accounts.iter())
            .map(|(path, it)| (path, it.text.as_str()))
            .collect();
        assert_eq!(
            files,
            [
                (GROUP, "root:x:0:\napp:x:7:\n"),
                (
                    PASSWD,
                    "root:x:0:0:root:/root:/sbin/nologin\napp:x:7:7::/home/app:/sbin/nologin\n"
                ),
            ]
        );
    }

    #[test]
    fn what_is_there_is_kept_or_refused() {
        let said = |groups: &[(&str, u32)], user: NewUser| add(groups, &[user]).unwrap_err();
        assert_eq!(
            said(&[], user("app", 33)),
            ["the uid 33 of `app` is that of the user `www-data`"]
        );
        assert_eq!(
            said(&[], user("www-data", 34)),
            ["the user `www-data` is there with the uid 33"]
        );
        assert_eq!(
            said(&[("users", 101), ("other", 100)], user("app", 1)),
            [
                "the group `users` is there with the gid 100",
                "the gid 100 of `other` is that of the group `users`"
            ]
        );
        // A number of a group that nobody asked for is no choice.
        assert_eq!(
            said(&[], user("app", 100)),
            ["the gid 100 of `app` is that of the group `users`"]
        );
        assert_eq!(
            said(&[], user("users", 7)),
            ["the group `users` is there with the gid 100"]
        );
        let of_users = NewUser {
            gid: Some(100),
            ..user("app", 1000)
        };
        let added = add(&[], &[of_users]).unwrap();
        assert!(added.accounts.text(PASSWD).contains("app:x:1000:100:"));
        assert!(!added.accounts.text(GROUP).contains("app"));
        let other_home = NewUser {
            home: Some("/srv".to_owned()),
            ..user("www-data", 33)
        };
        assert_eq!(
            said(&[], other_home),
            ["the user `www-data` is there with the home `/var/www`"]
        );
        let nobody = NewUser {
            name: "nobody".to_owned(),
            ..NewUser::default()
        };
        assert_eq!(
            said(&[], nobody),
            ["the user `nobody` is new, and has no uid"]
        );
        let lost = NewUser {
            groups: vec!["wheel".to_owned()],
            ..user("app", 1000)
        };
        assert_eq!(said(&[], lost), ["there is no group `wheel` for `app`"]);
    }

    #[test]
    fn a_user_who_is_there_can_join_a_group() {
        let member = NewUser {
            name: "www-data".to_owned(),
            groups: vec!["users".to_owned(), "users".to_owned()],
            ..NewUser::default()
        };
        let added = add(&[], &[member]).unwrap();
        assert!(
            added
                .accounts
                .text(GROUP)
                .contains("users:x:100:a,www-data\n")
        );
        assert_eq!(
            added.accounts.text(PASSWD).trim_end(),
            debian().text(PASSWD)
        );
        assert!(added.homes.is_empty());
    }

    #[test]
    fn names_that_can_be() {
        for name in ["app", "_apt", "www-data", "a.b", "samba$", "A1"] {
            assert!(super::super::is_name(name), "{name}");
        }
        for name in [
            "",
            "1a",
            "-a",
            "a:b",
            "a b",
            "ä",
            "a$b",
            "$",
            &"a".repeat(33),
        ] {
            assert!(!super::super::is_name(name), "{name}");
        }
        for (user, has_name) in [
            ("app", true),
            ("1000", false),
            ("1000:1000", false),
            ("1000:app", true),
            ("app:1", true),
            ("", false),
            ("7:", false),
        ] {
            assert_eq!(super::super::has_name(user), has_name, "{user}");
        }
    }
}
