//! JSON as others write it: where a field may be missing, `null` means that it is missing. Go writes a nil slice or map so,
//! and readers of the OCI specs take it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Reads a field that may be missing: `null` gives the default, too. Goes with `#[serde(default)]`.
///
/// # Errors
/// When it is neither `null` nor of the type.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a map that may be missing, as annotations: an entry whose value is `null` is not there. Goes with
/// `#[serde(default)]`.
///
/// # Errors
/// When it is neither `null` nor a map of the types.
pub(crate) fn without_nulls<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Ord + Deserialize<'de>,
    V: Deserialize<'de>,
{
    let map: BTreeMap<K, Option<V>> = null_is_default(deserializer)?;
    let entries = map.into_iter();
    Ok(entries
        .filter_map(|(key, value)| Some((key, value?)))
        .collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fmt::Debug;

    use serde_json::{Value, json};

    use crate::oci::{Config, ConfigError, Digest, Index, Manifest};

    /// Sets each key of a sound document to `null`, at every depth, and leaves it out. What can be left out must read the
    /// same with `null`; what cannot must be an error with `null` as well. Returns how many keys could be left out.
    ///
    /// `read` gives what the program sees of the document, or why it is refused.
    #[track_caller]
    pub(crate) fn assert_null_is_absent<T: PartialEq + Debug, E: Debug>(
        sound: &Value,
        read: impl Fn(&[u8]) -> Result<T, E>,
    ) -> usize {
        let read = |value: &Value| read(value.to_string().as_bytes());
        read(sound).expect("a sound document");
        let mut paths = Vec::new();
        keys(sound, &mut String::new(), &mut paths);
        let mut optional = 0;
        for (above, key) in &paths {
            let edited = |value: Option<Value>| {
                let mut all = sound.clone();
                let map = all.pointer_mut(above).and_then(Value::as_object_mut);
                let map = map.expect("an object");
                match value {
                    Some(value) => map.insert(key.clone(), value),
                    None => map.remove(key),
                };
                read(&all)
            };
            match (edited(None), edited(Some(Value::Null))) {
                (Ok(without), Ok(with_null)) => {
                    assert_eq!(without, with_null, "{above}/{key}");
                    optional += 1;
                }
                (Err(_), Err(_)) => {}
                (without, with_null) => {
                    panic!("{above}/{key}: without it {without:?}, null {with_null:?}")
                }
            }
        }
        optional
    }

    /// Gathers the keys of all objects: the pointer of the object (RFC 6901), and the key.
    fn keys(value: &Value, at: &mut String, found: &mut Vec<(String, String)>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(map) => {
                found.extend(map.keys().map(|key| (at.clone(), key.clone())));
                map.iter().map(|(key, it)| (key.clone(), it)).collect()
            }
            Value::Array(list) => {
                let entries = list.iter().enumerate();
                entries.map(|(at, it)| (at.to_string(), it)).collect()
            }
            _ => Vec::new(),
        };
        for (key, child) in children {
            let length = at.len();
            at.push('/');
            at.push_str(&key.replace('~', "~0").replace('/', "~1"));
            keys(child, at, found);
            at.truncate(length);
        }
    }

    /// A descriptor with all that it can have.
    fn descriptor(media_type: &str) -> Value {
        json!({
            "mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": 1,
            "urls": ["https://a.example/x"], "annotations": {"a": "b", "c": "d"}, "data": "eA==",
            "artifactType": "x/y",
            "platform": {
                "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1",
                "os.features": ["x"], "features": ["y"],
            },
        })
    }

    #[test]
    fn documents_of_the_specs() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "x/y", "config": descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer, layer], "annotations": {"a": "b"},
            "subject": descriptor("application/vnd.oci.image.manifest.v1+json"),
        });
        let count = assert_null_is_absent(&manifest, |it| serde_json::from_slice::<Manifest>(it));
        assert!(count > 30, "{count}");
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json")],
            "annotations": {"a": "b"}, "subject": layer, "artifactType": "x/y",
        });
        assert_null_is_absent(&index, |it| serde_json::from_slice::<Index>(it));
        let error = serde_json::from_str::<Index>(r#"{"schemaVersion":2,"manifests":null}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("invalid type: null"), "{error}");
    }

    #[test]
    fn configs() {
        let digest = Digest::of(b"x").to_string();
        let config = json!({
            "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1", "os.features": ["x"],
            "author": "a", "created": "2026-01-01T00:00:00Z",
            "config": {
                "Env": ["A=1", "PATH=/bin"], "Cmd": ["x"], "Entrypoint": ["y"], "User": "u", "WorkingDir": "/w",
                "Labels": {}, "ExposedPorts": {}, "Volumes": {}, "StopSignal": "TERM", "Shell": ["/bin/sh"],
                "Healthcheck": {}, "ArgsEscaped": true,
            },
            "rootfs": {"type": "layers"},
            "history": [{"created": "x", "created_by": "y", "author": "z", "comment": "c", "empty_layer": true}],
        });
        // Where there are no layers, some write no list of them, and some write `null`.
        let list = |mut all: Value, list: Option<Value>| {
            all["rootfs"] = list.map_or(json!({}), |list| json!({ "diff_ids": list }));
            Config::parse(all.to_string().as_bytes()).map(|it| it.diff_ids().unwrap())
        };
        assert_eq!(list(config.clone(), Some(Value::Null)).unwrap(), []);
        assert!(list(config.clone(), None).is_err());
        assert_null_is_absent(&config, |bytes| {
            let mut all: Value = serde_json::from_slice(bytes).unwrap();
            if !all["rootfs"].is_null() {
                all["rootfs"]["diff_ids"] = json!([digest]);
            }
            let config = Config::parse(all.to_string().as_bytes())?;
            let fields = [
                "Env",
                "Cmd",
                "Entrypoint",
                "User",
                "WorkingDir",
                "Labels",
                "ExposedPorts",
                "Volumes",
                "StopSignal",
                "Shell",
                "Healthcheck",
                "ArgsEscaped",
            ];
            let fields = fields.map(|it| config.runtime(it).cloned());
            let empty = config
                .history()
                .entries()
                .filter(|it| it["empty_layer"] == true)
                .count();
            let texts = ["author", "created"].map(|it| config.text(it).map(str::to_owned));
            Ok::<_, ConfigError>((config.platform()?, config.env(), fields, texts, empty))
        });
    }
}
