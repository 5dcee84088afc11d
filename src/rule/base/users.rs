//! Where the users and groups of a base are known from.

use std::fmt;
use std::sync::Arc;

use crate::accounts::Accounts;
use crate::graph::Origin;
use crate::rule::{Lower, Need};

/// Where the users and groups of a base are known from.
#[derive(Clone, Debug)]
pub enum BaseUsers {
    /// From its layers, which the build reads anyway.
    InLayers,
    /// From `image.lock`, as far as it holds them.
    Locked(Arc<LockedUsers>),
}

/// The users and groups of a base that `image.lock` holds, and how they come there.
pub struct LockedUsers {
    /// What the lock holds; `None` if nobody asked for it when the base was locked.
    accounts: Option<Arc<Accounts>>,
    /// What the base itself needs of the lock.
    need: Need,
}

impl fmt::Debug for LockedUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.need.target)
    }
}

/// What a need carries that wants the users and groups of a base in the lock, too.
pub(super) struct UsersWanted {
    /// Whether something cannot do without.
    pub(super) is_needed: bool,
}

impl BaseUsers {
    /// The users that the lock holds of a base, which needs `need` of it.
    pub(super) fn locked(accounts: Option<Arc<Accounts>>, need: Need) -> Self {
        Self::Locked(Arc::new(LockedUsers { accounts, need }))
    }

    /// Returns what the lock holds.
    pub(in crate::rule) fn known(&self) -> Option<Arc<Accounts>> {
        match self {
            Self::InLayers => None,
            Self::Locked(locked) => locked.accounts.clone(),
        }
    }

    /// Returns the name of the base, where the lock should hold its users and does not.
    pub(in crate::rule) fn lacking(&self) -> Option<String> {
        match self {
            Self::Locked(locked) if locked.accounts.is_none() => {
                Some(locked.need.target.to_string())
            }
            _ => None,
        }
    }

    /// Notes that somebody wants them: what is at `origin` cannot do without, if there is such a place; else they come into
    /// the lock when the base is locked anew.
    pub(in crate::rule) fn want(&self, origin: Option<&Origin>, lower: &mut Lower<'_>) {
        let Self::Locked(locked) = self else {
            return;
        };
        let need = &locked.need;
        let lacks = need.is_pinned && locked.accounts.is_none() && origin.is_some();
        let was = lacks.then(|| "a look at it that passed over its users".to_owned());
        lower.need(Need {
            is_pinned: need.is_pinned && !lacks,
            was: was.or_else(|| need.was.clone()),
            origin: origin.filter(|_| lacks).unwrap_or(&need.origin).clone(),
            payload: Some(Arc::new(UsersWanted {
                is_needed: origin.is_some(),
            })),
            ..need.clone()
        });
    }
}
