//! What kind of document a registry gives: its media type, as header, body and shape agree on it. Knows no request.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::{RegistryError, clean};
use super::reply::Reply;
use crate::oci::MediaType;

/// Docker's schema 1, plain and signed.
pub(super) const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Returns the media type of a `Content-Type`, without its parameters.
pub(super) fn media_type(content_type: Option<&str>) -> MediaType {
    let text = content_type.unwrap_or_default();
    let text = text.split(';').next().unwrap_or_default().trim();
    text.to_ascii_lowercase()
        .parse()
        .unwrap_or_else(|never| match never {})
}

/// Returns the media type of a manifest or index: what the registry says, what the body says and what it looks like must
/// agree, or one document could be read as two (CVE-2021-41190).
pub(super) fn document_type(reply: &Reply<'_>, bytes: &[u8]) -> Result<MediaType, RegistryError> {
    check_type(reply.header("content-type"), bytes).map_err(|wrong| match wrong {
        Wrong::Schema1 => RegistryError::Schema1(Box::new(reply.asked.clone())),
        Wrong::Why(why) => reply.wrong(why),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Schema1,
    Why(String),
}

fn check_type(content_type: Option<&str>, bytes: &[u8]) -> Result<MediaType, Wrong> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: Option<u32>,
        media_type: Option<MediaType>,
        manifests: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
    }
    let why = |text: String| Err(Wrong::Why(text));
    let header = media_type(content_type);
    if SCHEMA_1.contains(&header.as_str()) {
        return Err(Wrong::Schema1);
    }
    let Ok(shape) = serde_json::from_slice::<Shape>(bytes) else {
        return why("it is no manifest in JSON".to_owned());
    };
    match shape.schema_version {
        Some(2) => {}
        Some(1) => return Err(Wrong::Schema1),
        other => return why(format!("its schema version is {other:?} instead of 2")),
    }
    let (is_index, is_manifest) = (
        shape.manifests.is_some(),
        shape.layers.is_some() || shape.config.is_some(),
    );
    if is_index && is_manifest {
        return why("it is a manifest and an index at once".to_owned());
    }
    let is_kind = |it: &MediaType| it.is_manifest() || it.is_index();
    let found = match (shape.media_type, is_kind(&header)) {
        (Some(body), true) if body != header => {
            let (body, header) = (clean(body.as_str()), clean(header.as_str()));
            return why(format!("it says {body}, and the registry says {header}"));
        }
        (Some(body), _) if is_kind(&body) => body,
        (None, true) => header,
        (None, false) if is_index => MediaType::OciIndex,
        (None, false) if is_manifest => MediaType::OciManifest,
        (other, _) => {
            let other = other.unwrap_or(header);
            let other = clean(other.as_str());
            return why(format!("{other} is no manifest or index"));
        }
    };
    if found.is_index() && is_manifest || found.is_manifest() && is_index {
        return why(format!("it does not look like {found}"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_must_agree() {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        let check = |header: Option<&str>, body: &str| check_type(header, body.as_bytes());
        let plain = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let list = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(check(Some(manifest), plain), Ok(MediaType::OciManifest));
        let with_charset = format!("{}; charset=utf-8", manifest.to_uppercase());
        assert_eq!(
            check(Some(&with_charset), plain),
            Ok(MediaType::OciManifest)
        );
        assert_eq!(check(Some("text/plain"), plain), Ok(MediaType::OciManifest));
        assert_eq!(check(None, list), Ok(MediaType::OciIndex));
        let said = format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[]}}"#);
        assert_eq!(
            check(Some("application/json"), &said),
            Ok(MediaType::OciIndex)
        );
        for (header, body) in [
            (Some(manifest), list),
            (Some(index), plain),
            (Some(manifest), said.as_str()),
            (None, r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#),
            (None, r#"{"schemaVersion":2}"#),
            (None, r#"{"schemaVersion":3,"layers":[]}"#),
            (None, "[]"),
            (
                None,
                r#"{"schemaVersion":2,"mediaType":"text/html","layers":[]}"#,
            ),
        ] {
            assert!(matches!(check(header, body), Err(Wrong::Why(_))), "{body}");
        }
        let long = format!(
            r#"{{"schemaVersion":2,"mediaType":"\u001b{}"}}"#,
            "x".repeat(10_000)
        );
        assert!(
            matches!(check(None, &long), Err(Wrong::Why(why)) if why.len() < 500 && !why.contains('\u{1b}'))
        );
        assert_eq!(check(None, r#"{"schemaVersion":1}"#), Err(Wrong::Schema1));
        assert_eq!(check(Some(SCHEMA_1[1]), plain), Err(Wrong::Schema1));
    }

    #[test]
    fn null_is_absent() {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {}, "layers": [], "annotations": {}, "manifests": null,
        });
        crate::oci::assert_null_is_absent(&manifest, |bytes| check_type(None, bytes));
    }
}
