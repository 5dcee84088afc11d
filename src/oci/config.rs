//! Image configs (image-spec, config.md), kept as a JSON tree so that no field of a base is lost.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{DiffId, MAX_DOCUMENT, Platform};

/// An image config. Fields that we do not know survive an edit.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// All fields but `history`; that, too, where it is no list.
    fields: Map<String, Value>,
    history: Option<History>,
}

/// The history of an image, bottom first: a config may hold a hundred thousand entries. Each is kept as its text, which
/// takes a tenth of the memory of a tree.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History(Vec<Box<str>>);

impl History {
    /// Returns the entries.
    pub fn entries(&self) -> impl Iterator<Item = Value> {
        self.0
            .iter()
            .map(|text| serde_json::from_str(text).unwrap_or_default())
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &Value) {
        self.0.push(entry.to_string().into());
    }
}

/// Tells whether an entry of a history stands for a layer.
pub(crate) fn is_of_layer(entry: &Value) -> bool {
    entry.get("empty_layer").and_then(Value::as_bool) != Some(true)
}

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("the image config is not a JSON object: {0}")]
    Json(String),
    /// A field that we need is missing, or has another type than the spec says.
    #[error("the image config has no usable `{0}`")]
    Field(&'static str),
}

impl Config {
    /// Makes the config of an image without layers.
    pub fn scratch(platform: &Platform) -> Self {
        let mut config = Self {
            fields: Map::new(),
            history: None,
        };
        config.set_platform(platform);
        config.set_diff_ids(&[]);
        config
    }

    /// Parses the bytes of a config blob.
    ///
    /// # Errors
    /// When it is no JSON object, or lacks what every image needs (`architecture`, `os`, `rootfs.diff_ids`).
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ConfigError::Json(format!(
                "it is larger than {MAX_DOCUMENT} bytes"
            )));
        }
        let config = Self::read(bytes).map_err(|error| ConfigError::Json(error.to_string()))?;
        config.platform()?;
        config.diff_ids()?;
        Ok(config)
    }

    fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        let raw: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes)?;
        let mut config = Self {
            fields: Map::new(),
            history: None,
        };
        for (key, raw) in raw {
            if key == "history" && raw.get().starts_with('[') {
                let entries: Vec<&RawValue> = serde_json::from_str(raw.get())?;
                let mut history = History(Vec::with_capacity(entries.len()));
                for entry in entries {
                    history.push(&serde_json::from_str(entry.get())?);
                }
                config.history = Some(history);
            } else {
                config.fields.insert(key, serde_json::from_str(raw.get())?);
            }
        }
        Ok(config)
    }

    /// Returns the bytes: no white space, keys sorted.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut fields: BTreeMap<&str, String> = BTreeMap::new();
        for (key, value) in &self.fields {
            fields.insert(key, value.to_string());
        }
        if let Some(History(entries)) = &self.history {
            fields.insert("history", format!("[{}]", entries.join(",")));
        }
        let fields = fields.into_iter();
        let fields = fields.map(|(key, value)| format!("{}:{value}", Value::from(key)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(",")).into_bytes()
    }

    /// Returns the platform that the config names.
    ///
    /// # Errors
    /// When `os` or `architecture` is missing.
    pub fn platform(&self) -> Result<Platform, ConfigError> {
        let text = |field| {
            self.fields
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let (Some(os), Some(architecture)) = (text("os"), text("architecture")) else {
            return Err(ConfigError::Field("os and architecture"));
        };
        let features = self.fields.get("os.features").and_then(Value::as_array);
        Ok(Platform {
            variant: text("variant").map(str::to_owned),
            os_version: text("os.version").map(str::to_owned),
            os_features: features
                .into_iter()
                .flatten()
                .filter_map(|feature| feature.as_str().map(str::to_owned))
                .collect(),
            ..Platform::new(os, architecture)
        })
    }

    /// Names the platform.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.fields.insert("os".into(), platform.os.clone().into());
        self.fields
            .insert("architecture".into(), platform.architecture.clone().into());
        if let Some(variant) = &platform.variant {
            self.fields.insert("variant".into(), variant.clone().into());
        }
    }

    /// Returns the diff_ids, bottom first.
    ///
    /// # Errors
    /// When `rootfs` is missing or holds anything else.
    pub fn diff_ids(&self) -> Result<Vec<DiffId>, ConfigError> {
        let list = self
            .fields
            .get("rootfs")
            .and_then(|rootfs| rootfs.get("diff_ids"));
        let list = match list {
            None => return Err(ConfigError::Field("rootfs.diff_ids")),
            Some(Value::Null) => return Ok(Vec::new()),
            Some(list) => list,
        };
        serde_json::from_value(list.clone()).map_err(|_| ConfigError::Field("rootfs.diff_ids"))
    }

    /// Sets the diff_ids, bottom first.
    pub fn set_diff_ids(&mut self, diff_ids: &[DiffId]) {
        let list: Vec<String> = diff_ids.iter().map(DiffId::to_string).collect();
        self.fields.insert(
            "rootfs".into(),
            serde_json::json!({"type": "layers", "diff_ids": list}),
        );
    }

    /// Sets `created` (RFC 3339).
    pub fn set_created(&mut self, created: &str) {
        self.fields.insert("created".into(), created.into());
    }

    /// Returns the history, bottom first, padded with empty words where it counts fewer layers than there are.
    ///
    /// The spec wants as many entries without `empty_layer` as diff_ids; a base may have no history at all.
    pub fn history(&self) -> History {
        let mut history = self.history.clone().unwrap_or_default();
        let layers = self.diff_ids().map_or(0, |list| list.len());
        let counted = history.entries().filter(is_of_layer).count();
        for _ in counted..layers {
            history.push(
                &serde_json::json!({"comment": "imgdecl: the base has no history of this layer"}),
            );
        }
        let mut surplus = counted.saturating_sub(layers);
        for text in history.0.iter_mut().rev() {
            if surplus == 0 {
                break;
            }
            let mut entry: Value = serde_json::from_str(text).unwrap_or_default();
            if is_of_layer(&entry)
                && let Some(fields) = entry.as_object_mut()
            {
                fields.insert("empty_layer".into(), true.into());
                surplus -= 1;
                *text = entry.to_string().into();
            }
        }
        history
    }

    /// Sets the history, bottom first.
    pub fn set_history(&mut self, history: History) {
        self.fields.remove("history");
        self.history = Some(history);
    }

    /// Returns a text beside the `config` object, as `author`.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }

    /// Returns a field of the `config` object, as `Env`.
    pub fn runtime(&self, field: &str) -> Option<&Value> {
        self.fields
            .get("config")?
            .get(field)
            .filter(|value| !value.is_null())
    }

    /// Sets a field of the `config` object; `None` removes it.
    pub fn set_runtime(&mut self, field: &str, value: Option<Value>) {
        let slot = self
            .fields
            .entry("config")
            .or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        let Value::Object(config) = slot else { return };
        match value {
            Some(value) => config.insert(field.into(), value),
            None => config.remove(field),
        };
    }

    /// Returns `config.Env` as it is written, in order.
    pub fn env(&self) -> Vec<String> {
        let list = self.runtime("Env").and_then(Value::as_array);
        let list = list.into_iter().flatten().filter_map(Value::as_str);
        list.map(str::to_owned).collect()
    }
}

/// Splits an entry of `Env`. One without `=` has an empty value.
pub(crate) fn variable(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}

/// Drops the entries of an `Env` that say nothing, since a later one has the same name: runc and the others give a process
/// the last one, in its place.
pub(crate) fn last_of_each(env: Vec<String>) -> Vec<String> {
    let names: Vec<&str> = env.iter().map(|entry| variable(entry).0).collect();
    let last: BTreeMap<&str, usize> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (*name, at))
        .collect();
    let counts: Vec<bool> = names
        .iter()
        .enumerate()
        .map(|(at, name)| last[name] == at)
        .collect();
    let entries = env.into_iter().zip(counts);
    entries
        .filter_map(|(entry, counts)| counts.then_some(entry))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn unknown_fields_survive() {
        let text = r#"{"architecture":"amd64","config":{"OnBuild":["x"],"StartInterval":1.5},"os":"linux","rootfs":{"diff_ids":[],"type":"layers"},"x-unknown":{"a":[null]}}"#;
        let mut config = parse(text);
        assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), text);
        config.set_runtime("User", Some("1000".into()));
        assert!(
            String::from_utf8(config.to_bytes())
                .unwrap()
                .contains(r#""OnBuild":["x"]"#)
        );
    }

    #[test]
    fn history_counts_the_layers() {
        let digest = super::super::Digest::of(b"");
        let base = |history: &str| {
            parse(&format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{digest}","{digest}"]}}{history}}}"#
            ))
            .history()
            .entries()
            .filter(|entry| entry.get("empty_layer").is_none())
            .count()
        };
        assert_eq!(base(""), 2);
        assert_eq!(base(r#","history":null"#), 2);
        assert_eq!(
            base(r#","history":[{"created_by":"a"},{"empty_layer":true}]"#),
            2
        );
        assert_eq!(base(r#","history":[{},{},{}]"#), 2);
    }

    #[test]
    fn refuses_what_is_no_config() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"os":"linux","architecture":"amd64"}"#,
            r#"{"os":"","architecture":"x","rootfs":{"diff_ids":[]}}"#,
        ] {
            assert!(Config::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_variable_of_a_name_counts() {
        let env = |list: &[&str]| last_of_each(list.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(env(&["A=1", "B=2", "A=3", "C"]), ["B=2", "A=3", "C"]);
        assert_eq!(env(&["A", "A=", "A=x=y", "B"]), ["A=x=y", "B"]);
        assert_eq!(env(&["a=1", "A=1"]), ["a=1", "A=1"]);
        assert_eq!(env(&[]), [""; 0]);
    }

    #[test]
    fn a_history_is_written_as_it_was_read() {
        for history in [
            r#"[{"comment":"b \u001b","created_by":"a\"","x":[1.5,-1,{"y":null}]},7,{"empty_layer":true}]"#,
            "[]",
            "null",
            r#"{"a":1}"#,
        ] {
            let text = format!(
                r#"{{"architecture":"amd64","history":{history},"os":"linux","rootfs":{{"diff_ids":[]}}}}"#
            );
            let config = parse(&text);
            assert_eq!(String::from_utf8(config.to_bytes()).unwrap(), text);
            // Keys come sorted, and white space goes.
            let odd = text.replace(
                "{\"comment\":\"b \\u001b\",",
                "{ \"comment\" : \"b \\u001b\",",
            );
            assert_eq!(config, parse(&odd));
        }
        assert!(
            Config::parse(
                br#"{"os":"a","architecture":"b","rootfs":{"diff_ids":[]},"history":[1e999]}"#
            )
            .is_err()
        );
    }
}
