//! The numbers of users and groups inside a user namespace, and outside.

/// Numbers that follow each other, inside and outside (user_namespaces(7), `/proc/PID/uid_map`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first one inside.
    pub inside: u32,
    /// The first one outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// What users and groups of the host are inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids {
    /// The users.
    pub users: Vec<Span>,
    /// The groups.
    pub groups: Vec<Span>,
}

impl Ids {
    /// Everyone is who they are: there is no namespace.
    pub fn host() -> Self {
        let all = vec![Span {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        }];
        Self {
            users: all.clone(),
            groups: all,
        }
    }

    /// Returns what a user of the host is inside; `None` for nobody.
    pub fn user(&self, outside: u32) -> Option<u32> {
        inside(&self.users, outside)
    }

    /// Returns what a group of the host is inside; `None` for none.
    pub fn group(&self, outside: u32) -> Option<u32> {
        inside(&self.groups, outside)
    }
}

fn inside(spans: &[Span], outside: u32) -> Option<u32> {
    spans.iter().find_map(|span| {
        let at = outside.checked_sub(span.outside)?;
        (at < span.count).then(|| span.inside.checked_add(at))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shifted_back() {
        let ids = Ids {
            users: vec![
                Span {
                    inside: 0,
                    outside: 1000,
                    count: 1,
                },
                Span {
                    inside: 1,
                    outside: 100_000,
                    count: 65_536,
                },
            ],
            groups: vec![],
        };
        let users = [1000, 1001, 99_999, 100_000, 165_535, 165_536, 0];
        let expected = [Some(0), None, None, Some(1), Some(65_536), None, None];
        assert_eq!(users.map(|it| ids.user(it)), expected);
        assert_eq!(ids.group(0), None);
        assert_eq!(Ids::host().user(u32::MAX - 1), Some(u32::MAX - 1));
        assert_eq!(Ids::host().group(0), Some(0));
    }
}
