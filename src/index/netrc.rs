//! `.netrc`: users and passwords by host, as ftp, curl and pip read it. Reads no file: the text is given.

use super::login::Login;

/// The entries of a `.netrc`.
#[derive(Clone, Default)]
pub(super) struct Netrc(Vec<Entry>);

#[derive(Clone, Default)]
struct Entry {
    /// `None` for `default`.
    machine: Option<String>,
    user: String,
    password: String,
}

impl Netrc {
    /// Reads the entries. What is no part of one is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut words = words(line).into_iter();
            // The value of a word may stand on the next line.
            let mut value = |words: &mut std::vec::IntoIter<String>| loop {
                if let Some(word) = words.next() {
                    return word;
                }
                match lines.next() {
                    Some(line) => *words = self::words(line).into_iter(),
                    None => return String::new(),
                }
            };
            while let Some(word) = words.next() {
                match word.as_str() {
                    "machine" => entries.push(Entry {
                        machine: Some(value(&mut words)),
                        ..Entry::default()
                    }),
                    "default" => entries.push(Entry::default()),
                    "login" | "user" | "password" | "account" => {
                        let value = value(&mut words);
                        if let Some(entry) = entries.last_mut() {
                            match word.as_str() {
                                "password" => entry.password = value,
                                "account" => {}
                                _ => entry.user = value,
                            }
                        }
                    }
                    // A macro goes on to the next empty line.
                    "macdef" => {
                        while lines.next().is_some_and(|line| !line.trim().is_empty()) {}
                        break;
                    }
                    _ => {}
                }
            }
        }
        Self(entries)
    }

    /// Returns the login for a host; for a user of it, if one is given.
    pub(super) fn of_machine(&self, host: &str, user: Option<&str>) -> Option<Login> {
        let is_it = |it: &&Entry| {
            let machine = it.machine.as_deref();
            machine.is_some_and(|machine| machine.eq_ignore_ascii_case(host))
        };
        find(self.0.iter().filter(is_it), user)
    }

    /// Returns the login for hosts that are not named.
    pub(super) fn of_any(&self, user: Option<&str>) -> Option<Login> {
        find(self.0.iter().filter(|it| it.machine.is_none()), user)
    }
}

fn find<'a>(mut entries: impl Iterator<Item = &'a Entry>, user: Option<&str>) -> Option<Login> {
    let entry = entries.find(|it| user.is_none_or(|user| it.user == user))?;
    Some(Login::new(&entry.user, &entry.password))
}

/// Splits a line into words; one in quotes may hold spaces, and a `#` begins a comment where a word would.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = String::new();
        let quoted = rest.starts_with('"');
        let mut end = rest.len();
        let mut chars = rest.char_indices().skip(usize::from(quoted));
        while let Some((at, char)) = chars.next() {
            match char {
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                '\\' if quoted => word.extend(chars.next().map(|(_, char)| char)),
                char if !quoted && char.is_whitespace() => {
                    end = at;
                    break;
                }
                char => word.push(char),
            }
        }
        words.push(word);
        rest = rest[end..].trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_others_write() {
        let netrc = Netrc::parse(
            "# a comment\nmachine a.example login me password p#w # not me\n\
             machine b.example\n  login\n    you\n\tpassword \"a b\\\"c\"\n\
             macdef init\nmachine c.example login x password y\n\n\
             machine a.example login other password second account z\n\
             default login any password thing\nrubbish",
        );
        let find = |host, user| {
            let login: Option<Login> = netrc.of_machine(host, user);
            login.map(|it| (it.user, it.password.unwrap_or_default()))
        };
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(find("A.example", None), pair("me", "p#w"));
        assert_eq!(find("a.example", Some("other")), pair("other", "second"));
        assert_eq!(find("a.example", Some("nobody")), None);
        assert_eq!(find("b.example", None), pair("you", "a b\"c"));
        assert_eq!(find("c.example", None), None);
        assert_eq!(netrc.of_any(None), Some(Login::new("any", "thing")));
        assert!(Netrc::parse("machine").of_machine("", None).is_some());
        assert!(Netrc::parse("login x password y").of_any(None).is_none());
    }
}
