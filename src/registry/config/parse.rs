//! The text of `config.toml` becomes settings, with a place for each message. Knows nothing of files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::text::{is_host, is_mirror, size};
use super::{ConfigError, HostConfig};
use crate::registry::canonical;
use crate::spec::suggest;

/// How many transfers may go on with one registry.
const MAX_CONCURRENCY: usize = 32;

/// How large a part of a blob may be that is sent at a time, in bytes.
const MAX_CHUNK: u64 = 1 << 30;

/// The keys of a registry's table.
pub(super) const KEYS: [&str; 7] = [
    "mirrors",
    "insecure",
    "ca",
    "client_cert",
    "client_key",
    "concurrency",
    "chunk",
];

/// Returns the settings of each registry, by [`canonical`] name.
pub(super) fn hosts(text: &str, path: &Path) -> Result<BTreeMap<String, HostConfig>, ConfigError> {
    let file = File { text, path };
    let root = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: file.line(&error.span().unwrap_or(0..0)),
        what: error.message().to_owned(),
    })?;
    let mut hosts = BTreeMap::new();
    for (key, value) in root.get_ref() {
        if key.get_ref() != "registry" {
            return Err(file.unknown_key(&key.span(), key.get_ref(), "the file", &["registry"]));
        }
        let DeValue::Table(registries) = value.get_ref() else {
            let place = Place::new(&file, "the file", "registry", value.span());
            return Err(place.wrong(describe(value.get_ref()), "a table for each registry"));
        };
        for (name, value) in registries {
            let table = format!("[registry.\"{}\"]", name.get_ref());
            let place = Place::new(&file, &table, "registry", name.span());
            let found = || format!("`{}`", name.get_ref());
            if !is_host(name.get_ref()) {
                return Err(place.wrong(found(), "a host name, with its port if it has one"));
            }
            let DeValue::Table(settings) = value.get_ref() else {
                return Err(place.wrong(describe(value.get_ref()), "a table"));
            };
            let host = file.host(&table, name.span(), settings)?;
            if hosts.insert(canonical(name.get_ref()), host).is_some() {
                let found = format!("{} is another name of one that is there", found());
                return Err(place.wrong(found, "one table for each registry"));
            }
        }
    }
    Ok(hosts)
}

/// The file that is parsed.
struct File<'a> {
    text: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let end = span.start.min(self.text.len());
        let before = &self.text.as_bytes()[..end];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn unknown_key(
        &self,
        span: &Range<usize>,
        key: &str,
        table: &str,
        known: &[&'static str],
    ) -> ConfigError {
        ConfigError::UnknownKey {
            path: self.path.to_owned(),
            line: self.line(span),
            key: key.to_owned(),
            table: table.to_owned(),
            known: known.to_vec(),
            near: suggest(key, known.iter().copied()),
        }
    }

    fn host(
        &self,
        table: &str,
        span: Range<usize>,
        settings: &DeTable<'_>,
    ) -> Result<HostConfig, ConfigError> {
        let mut host = HostConfig::default();
        for (key, value) in settings {
            let place = Place::new(self, table, key.get_ref(), value.span());
            let value = value.get_ref();
            match key.get_ref().as_ref() {
                "mirrors" => host.mirrors = place.mirrors(value)?,
                "insecure" => host.insecure = place.boolean(value)?,
                "ca" => host.ca = Some(place.path(value)?),
                "client_cert" => host.client_cert = Some(place.path(value)?),
                "client_key" => host.client_key = Some(place.path(value)?),
                "concurrency" => host.concurrency = place.concurrency(value)?,
                "chunk" => host.chunk = Some(place.chunk(value)?),
                other => return Err(self.unknown_key(&key.span(), other, table, &KEYS)),
            }
        }
        let (key, other) = match (&host.client_cert, &host.client_key) {
            (Some(_), None) => ("client_key", "nothing, although there is a `client_cert`"),
            (None, Some(_)) => ("client_cert", "nothing, although there is a `client_key`"),
            _ => return Ok(host),
        };
        let place = Place::new(self, table, key, span);
        Err(place.wrong(other.to_owned(), "the path of a file in PEM"))
    }
}

/// A value's place in the file.
struct Place<'a> {
    file: &'a File<'a>,
    table: &'a str,
    key: &'a str,
    span: Range<usize>,
}

impl<'a> Place<'a> {
    fn new(file: &'a File<'a>, table: &'a str, key: &'a str, span: Range<usize>) -> Self {
        Self {
            file,
            table,
            key,
            span,
        }
    }

    fn wrong(&self, found: String, expected: &'static str) -> ConfigError {
        ConfigError::Value {
            path: self.file.path.to_owned(),
            line: self.file.line(&self.span),
            key: self.key.to_owned(),
            table: self.table.to_owned(),
            found,
            expected,
        }
    }

    fn boolean(&self, value: &DeValue<'_>) -> Result<bool, ConfigError> {
        value
            .as_bool()
            .ok_or_else(|| self.wrong(describe(value), "true or false"))
    }

    fn path(&self, value: &DeValue<'_>) -> Result<PathBuf, ConfigError> {
        let expected = "the path of a file in PEM";
        match value.as_str() {
            Some(text) if text == "~" || text.starts_with("~/") => {
                let found = format!("`{text}`, whose `~` nobody expands");
                Err(self.wrong(found, expected))
            }
            Some(text) if !text.is_empty() && !text.contains('\0') => {
                let folder = self.file.path.parent().unwrap_or(Path::new(""));
                Ok(folder.join(text))
            }
            Some(text) => Err(self.wrong(format!("{text:?}"), expected)),
            None => Err(self.wrong(describe(value), expected)),
        }
    }

    fn mirrors(&self, value: &DeValue<'_>) -> Result<Vec<String>, ConfigError> {
        let expected = "a list of HOST[:PORT][/PREFIX], or of such behind http:// or https://,";
        let Some(list) = value.as_array() else {
            return Err(self.wrong(describe(value), expected));
        };
        let mirror = |value: &toml::Spanned<DeValue<'_>>| {
            let place = Place::new(self.file, self.table, self.key, value.span());
            match value.get_ref().as_str() {
                Some(text) if is_mirror(text) => Ok(text.trim_end_matches('/').to_owned()),
                Some(text) => Err(place.wrong(format!("{text:?}"), expected)),
                None => Err(place.wrong(describe(value.get_ref()), expected)),
            }
        };
        list.iter().map(mirror).collect()
    }

    fn concurrency(&self, value: &DeValue<'_>) -> Result<usize, ConfigError> {
        integer(value)
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| (1..=MAX_CONCURRENCY).contains(number))
            .ok_or_else(|| self.wrong(describe(value), "an integer from 1 to 32"))
    }

    fn chunk(&self, value: &DeValue<'_>) -> Result<u64, ConfigError> {
        let number = match value.as_str() {
            Some(text) => size(text),
            None => integer(value),
        };
        number
            .filter(|number| (1..=MAX_CHUNK).contains(number))
            .ok_or_else(|| {
                self.wrong(
                    describe(value),
                    "a number of bytes, or a size as \"4MiB\", up to 1 GiB,",
                )
            })
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Says what a value is: itself where it is short, and else its kind.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
        DeValue::String(_) => "a long string".to_owned(),
        DeValue::Integer(number) if number.radix() == 10 => format!("{number}"),
        DeValue::Integer(_) => "an integer".to_owned(),
        DeValue::Float(_) => "a decimal number".to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/conf/config.toml"))
    }

    fn fails(text: &str) -> (String, Option<String>) {
        let error = parse(text).expect_err(text);
        (error.to_string(), error.help())
    }

    #[test]
    fn has_every_key() {
        let text = r#"
            [registry."registry.example:5000"]
            mirrors = ["mirror.example", "http://127.0.0.1:5000/a/b/"]
            insecure = true
            ca = "ca.pem"
            client_cert = "/etc/cert.pem"
            client_key = "keys/key.pem"
            concurrency = 0x10
            chunk = "4MiB"
            [registry.localhost]
            chunk = 1_000
        "#;
        let config = parse(text).unwrap();
        let expected = HostConfig {
            mirrors: vec!["mirror.example".into(), "http://127.0.0.1:5000/a/b".into()],
            insecure: true,
            ca: Some("/conf/ca.pem".into()),
            client_cert: Some("/etc/cert.pem".into()),
            client_key: Some("/conf/keys/key.pem".into()),
            concurrency: 16,
            chunk: Some(4 << 20),
        };
        assert_eq!(config.host("registry.example:5000"), expected);
        assert_eq!(config.host("Registry.Example:5000"), expected);
        assert_eq!(config.host("registry.example"), HostConfig::default());
        assert_eq!(config.host("localhost").chunk, Some(1000));
        assert_eq!(config.host("localhost").concurrency, 4);
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn errors_name_line_and_key() {
        let (message, help) = fails("\n[registry.\"a.example\"]\nmirorrs = []\n");
        assert_eq!(
            message,
            "/conf/config.toml:3: unknown key `mirorrs` in [registry.\"a.example\"]"
        );
        assert_eq!(help.unwrap(), "did you mean `mirrors`?");
        let (message, help) = fails("[registry.\"a.example\"]\nusername = \"x\"\n");
        assert!(message.contains(":2: unknown key `username`"), "{message}");
        assert!(help.unwrap().contains("insecure, ca, client_cert"));
        let (message, help) = fails("[registrys.\"a.example\"]\n");
        assert!(message.contains(":1: unknown key `registrys`"), "{message}");
        assert_eq!(help.unwrap(), "did you mean `registry`?");
        let (message, _) =
            fails("[registry.\"a.example\"]\n\nmirrors = [\n \"a\",\n \"a b\",\n]\n");
        assert!(
            message.contains(":5: `mirrors` of [registry.\"a.example\"]: \"a b\","),
            "{message}"
        );
        let (message, _) = fails("registry = 1\n");
        assert!(
            message.contains(":1: `registry` of the file: 1, and"),
            "{message}"
        );
        let (message, _) = fails("[registry]\n\"a.example\" = 3\n");
        assert!(message.contains(":2: `registry` of"), "{message}");
        for host in ["", "a/b", "https://a", "u@a"] {
            let (message, _) = fails(&format!("\n[registry.\"{host}\"]\n"));
            let wanted = format!(":2: `registry` of [registry.\"{host}\"]: `{host}`, and a host");
            assert!(message.contains(&wanted), "{message}");
        }
        let (message, _) = fails("[registry\n");
        assert!(message.starts_with("/conf/config.toml:1: "), "{message}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let (message, _) = fails("[registry.\"a.example\"]\nclient_cert = \"x\"\n");
        assert!(
            message.contains("`client_key` of [registry.\"a.example\"]: nothing"),
            "{message}"
        );
        let (message, _) = fails("[registry.\"a.example\"]\nclient_key = \"x\"\n");
        assert!(
            message.contains("`client_cert` of [registry.\"a.example\"]: nothing"),
            "{message}"
        );
    }

    #[test]
    fn values_are_checked() {
        for (line, wanted) in [
            ("insecure = 1", "true or false"),
            ("insecure = \"yes\"", "true or false"),
            ("mirrors = \"a\"", "a list of"),
            ("mirrors = [1]", "a list of"),
            ("ca = \"\"", "the path"),
            ("ca = \"~/ca.pem\"", "nobody expands"),
            ("ca = \"\\u0000\"", "the path"),
            ("ca = [\"x\"]", "the path"),
            ("concurrency = 0", "from 1 to 32"),
            ("concurrency = 33", "from 1 to 32"),
            ("concurrency = -1", "from 1 to 32"),
            ("concurrency = 1.5", "from 1 to 32"),
            ("concurrency = \"4\"", "from 1 to 32"),
            ("chunk = 0", "a number of bytes"),
            ("chunk = -5", "a number of bytes"),
            ("chunk = \"4 mib\"", "a number of bytes"),
            ("chunk = \"MiB\"", "a number of bytes"),
            ("chunk = \"\"", "a number of bytes"),
            ("chunk = \"2GiB\"", "a number of bytes"),
            ("chunk = \"99999999999999999999GiB\"", "a number of bytes"),
            ("chunk = \"18446744073709551615GiB\"", "a number of bytes"),
        ] {
            let text = format!("[registry.\"a.example\"]\n{line}\n");
            let error = parse(&text).expect_err(line);
            let help = error.help().expect(line);
            let key = line.split(' ').next().unwrap();
            assert!(help.contains(key) || help.contains("relative"), "{help}");
            let said = error.to_string();
            assert!(
                said.contains(wanted) && said.contains(":2: "),
                "{line}: {said}"
            );
        }
    }
}
