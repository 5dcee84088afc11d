//! What the manifest says of a URL and of a digest: for all platforms or for each, and whether it can be fetched and pinned.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::oci::{Digest, Platform};
use crate::shown;
use crate::spec::{Problem, Table};

/// One string for all platforms, or one for each.
pub(super) enum PerPlatform {
    /// One.
    All(String),
    /// By platform, as it is written.
    Each(BTreeMap<Spanned<String>, Spanned<String>>),
}

impl<'de> Deserialize<'de> for PerPlatform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = PerPlatform;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a table of strings by platform")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PerPlatform, E> {
                Ok(PerPlatform::All(text.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<PerPlatform, A::Error> {
                let mut each = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    each.insert(key, value);
                }
                Ok(PerPlatform::Each(each))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl PerPlatform {
    /// Returns the value for a platform, and where it stands.
    ///
    /// # Errors
    /// When it says nothing for that platform, or something that is none.
    pub(super) fn of<'a>(
        value: &'a Spanned<Self>,
        key: &str,
        platform: &Platform,
        at: &Table,
    ) -> Result<(&'a str, Range<usize>), Problem> {
        let each = match value.get_ref() {
            Self::All(text) => return Ok((text, value.span())),
            Self::Each(each) => each,
        };
        let code = "imgdecl::http::platform";
        let mut found = None;
        for (name, text) in each {
            let known: Platform = name.get_ref().parse().map_err(|_| {
                let message = format!("`{}` is no platform", name.get_ref());
                at.problem(
                    code,
                    name.span(),
                    message,
                    "a platform is as \"linux/amd64\"",
                )
            })?;
            if known == *platform {
                found = Some((text.get_ref().as_str(), text.span()));
            }
        }
        found.ok_or_else(|| {
            let message = format!("`{key}` says nothing for {platform}");
            let problem = at.problem(code, value.span(), message, "an image is built for it");
            problem.help(format!(
                "add \"{platform}\" = \"…\", or leave it out of `platforms`"
            ))
        })
    }
}

/// Refuses what is no URL that can be fetched, and pinned in earnest.
pub(super) fn check_url(
    at: &Table,
    url: &str,
    span: Range<usize>,
    is_fixed: bool,
) -> Result<(), Problem> {
    let problem = |message: String, label: &str| {
        at.problem("imgdecl::http::url", span.clone(), message, label)
    };
    let (is_open, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => {
            let message = format!("`{url}` is no URL that can be fetched");
            return Err(problem(message, "it begins with `https://`"));
        }
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || url.chars().any(|it| it.is_whitespace() || it.is_control()) {
        let message = format!("`{url}` is no URL");
        return Err(problem(message, "no host, or a blank in it"));
    }
    if let Some((login, _)) = host.rsplit_once('@') {
        // It is not repeated, not even as the line that it stands in.
        match login.split_once(':') {
            Some((user, password)) => shown::keep_login(user, password),
            None => shown::keep(login),
        }
        let message = "credentials do not belong in a manifest".to_owned();
        let problem = problem(message, "a user or a password");
        return Err(problem.help("write them into .netrc, by the name of the host"));
    }
    if is_open && !is_fixed && !is_here(host) {
        let message =
            format!("`{url}` is not encrypted: whoever is on the way could choose what is pinned");
        let problem = problem(message, "plain http");
        return Err(problem.help("write https, or say the digest with `sha256`"));
    }
    Ok(())
}

/// Tells whether a host, with an optional port, is this machine.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let ip: Option<IpAddr> = name.parse().ok();
    name == "localhost" || ip.is_some_and(|it| it.is_loopback())
}

/// Reads a digest, with or without `sha256:`.
pub(super) fn digest(at: &Table, text: &str, span: Range<usize>) -> Result<Digest, Problem> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(hex).map_err(|_| {
        let message = format!("`{text}` is no SHA-256 digest");
        let label = "64 digits, of 0 to 9 and a to f";
        at.problem("imgdecl::http::sha256", span, message, label)
    })
}
