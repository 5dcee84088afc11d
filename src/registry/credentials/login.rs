//! Logins: what a registry is shown. Secrets are never in what `Debug` writes.

use std::fmt;

use crate::shown;

/// What stands for a secret.
pub(super) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user's name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// An identity token, which the token server takes for an access token (OAuth 2, `refresh_token`).
    Identity(String),
    /// An access token, which the registry itself takes.
    Bearer(String),
}

impl Login {
    /// Has its secret struck out of all that is shown.
    pub(super) fn keep(&self) {
        match self {
            Self::Password { user, password } => shown::keep_login(user, password),
            Self::Identity(token) => shown::keep_login("<token>", token),
            Self::Bearer(token) => shown::keep(token),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => f
                .debug_struct("Password")
                .field("user", user)
                .field("password", &Hidden)
                .finish(),
            Self::Identity(_) => f.debug_tuple("Identity").field(&Hidden).finish(),
            Self::Bearer(_) => f.debug_tuple("Bearer").field(&Hidden).finish(),
        }
    }
}
