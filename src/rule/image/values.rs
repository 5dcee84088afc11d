//! Values of an image's table: ports, health checks, times.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use crate::rule::Lower;
use crate::rule::value::Collect;
use crate::spec::{Key, Table, Target, Type};

/// A port in a manifest: a number, or a string with a protocol.
pub(super) struct Port(pub(super) String);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, as 8000 or \"53/udp\"")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Port, E> {
                Ok(Port(value.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Port, E> {
                Ok(Port(value.to_owned()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Port {
    /// Returns `PORT/PROTOCOL`, or nothing if it is no port.
    pub(super) fn full(&self) -> Option<String> {
        let (port, protocol) = self.0.split_once('/').unwrap_or((&self.0, "tcp"));
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        matches!(protocol, "tcp" | "udp" | "sctp").then(|| format!("{port}/{protocol}"))
    }
}

/// The keys of a health check.
pub(super) const HEALTHCHECK: &[Key] = &[
    Key::new(
        "test",
        Type::Strings,
        "",
        "The command: [\"CMD\", …], [\"CMD-SHELL\", \"…\"], or [\"NONE\"].",
    ),
    Key::new("interval", Type::String, "", "How often, as \"30s\"."),
    Key::new("timeout", Type::String, "", "How long one run may take."),
    Key::new(
        "start_period",
        Type::String,
        "",
        "How long failures do not count after the start.",
    ),
    Key::new(
        "start_interval",
        Type::String,
        "",
        "How often in that time.",
    ),
    Key::new(
        "retries",
        Type::Integer,
        "",
        "How many failures make it unhealthy.",
    ),
];

/// A health check in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Healthcheck {
    test: Vec<String>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    start_period: Option<Spanned<String>>,
    start_interval: Option<Spanned<String>>,
    retries: Option<u32>,
}

impl Healthcheck {
    /// Returns the form of Docker's config, with times in nanoseconds.
    pub(super) fn to_json(&self, at: &Table, collect: &mut Collect) -> Value {
        let mut out = serde_json::Map::new();
        out.insert("Test".into(), json!(self.test));
        for (field, value) in [
            ("Interval", &self.interval),
            ("Timeout", &self.timeout),
            ("StartPeriod", &self.start_period),
            ("StartInterval", &self.start_interval),
        ] {
            let Some(value) = value else { continue };
            match humantime::parse_duration(value.get_ref()) {
                Ok(duration) => {
                    out.insert(field.into(), json!(duration.as_nanos() as u64));
                }
                Err(error) => {
                    let message = format!("`{}` is no duration: {error}", value.get_ref());
                    collect.0.push(at.problem(
                        "imgdecl::value::duration",
                        value.span(),
                        message,
                        "expected a time, as \"30s\"",
                    ));
                }
            }
        }
        if let Some(retries) = self.retries {
            out.insert("Retries".into(), json!(retries));
        }
        Value::Object(out)
    }
}

/// Returns the time of the image in RFC 3339.
pub(super) fn created_at(
    created: Option<(&Spanned<String>, Table)>,
    target: &Target,
    lower: &Lower<'_>,
    collect: &mut Collect,
) -> String {
    let format = |seconds: u64| {
        let time = std::time::SystemTime::UNIX_EPOCH
            + std::time::Duration::from_secs(seconds.min(253_402_300_799));
        humantime::format_rfc3339_seconds(time).to_string()
    };
    let epoch = lower.host.source_date_epoch();
    let Some((text, at)) = created.filter(|_| epoch.is_none()) else {
        return format(epoch.unwrap_or(0));
    };
    let problem = |message: String| at.problem("imgdecl::image::created", text.span(), message, "");
    let seconds = match text.get_ref().as_str() {
        "git" => lower
            .host
            .git(&target.folder, "time")
            .and_then(|time| time.parse().map_err(|_| "git gave no time".to_owned())),
        text => humantime::parse_rfc3339(text)
            .map_err(|error| match text.starts_with("19") && text < "1970" {
                true => "it is before 1970".to_owned(),
                false => error.to_string(),
            })
            .and_then(|time| {
                time.duration_since(std::time::SystemTime::UNIX_EPOCH)
                    .map_err(|_| "it is before 1970".to_owned())
            })
            .map(|since| since.as_secs()),
    };
    match seconds {
        Ok(seconds) => format(seconds),
        Err(error) => {
            collect.0.push(
                problem(format!("`{}` is no time: {error}", text.get_ref()))
                    .help("write it as \"2026-01-31T12:00:00Z\", or \"git\""),
            );
            String::new()
        }
    }
}
