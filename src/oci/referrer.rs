//! Manifests about others: documents attached to an image (image-spec, manifest.md, "Guidelines for Artifact Usage").

use serde::{Deserialize, Serialize};

use super::{Annotations, Descriptor, MediaType};

/// The empty JSON object: the config of a manifest that needs none.
pub(crate) const EMPTY: &[u8] = b"{}";

/// A manifest with a subject. The only place that decides the bytes of ours: the document alone does, and no time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    /// Always 2.
    pub(crate) schema_version: u32,
    /// That of an image manifest.
    pub(crate) media_type: MediaType,
    /// What kind of document it is; where it is missing, the config's media type says that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    /// The config blob, which is the empty object in ours.
    pub(crate) config: Descriptor,
    /// The document, in one or several blobs.
    #[serde(default, deserialize_with = "super::null_is_default")]
    pub(crate) layers: Vec<Descriptor>,
    /// What it is about: a manifest or an index.
    pub(crate) subject: Descriptor,
    /// Annotations, sorted.
    #[serde(
        default,
        deserialize_with = "super::without_nulls",
        skip_serializing_if = "Annotations::is_empty"
    )]
    pub(crate) annotations: Annotations,
}

impl Referrer {
    /// Makes the manifest of a document of one blob about a manifest or index. What else is known of the subject, as its
    /// platform, is left out: the same is known of it wherever it lies.
    pub(crate) fn new(
        artifact_type: String,
        document: Descriptor,
        subject: &Descriptor,
        annotations: Annotations,
    ) -> Self {
        Self {
            schema_version: 2,
            media_type: MediaType::OciManifest,
            artifact_type: Some(artifact_type),
            config: Descriptor::of(MediaType::OciEmpty, EMPTY),
            layers: vec![document],
            subject: Descriptor::new(subject.media_type.clone(), subject.digest, subject.size),
            annotations,
        }
    }

    /// Returns what kind of document it is.
    pub(crate) fn kind(&self) -> &str {
        let config = self.config.media_type.as_str();
        self.artifact_type.as_deref().unwrap_or(config)
    }

    /// Returns the bytes: no white space, fields in the order of the struct. Of one that others made, these are not its own.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }

    /// Returns the entry of its bytes in a list of referrers (distribution-spec, "Listing Referrers").
    pub(crate) fn descriptor(&self, bytes: &[u8]) -> Descriptor {
        Descriptor {
            artifact_type: Some(self.kind().to_owned()),
            annotations: self.annotations.clone(),
            ..Descriptor::of(self.media_type.clone(), bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Platform;

    /// The byte contract of documents: whoever attached one before finds it again.
    #[test]
    fn the_bytes_are_those_of_the_document_alone() {
        let document = Descriptor::of(MediaType::Other("text/plain".to_owned()), b"words");
        let subject = Descriptor {
            platform: Some(Platform::new("linux", "amd64")),
            annotations: Annotations::from([("name".to_owned(), "app".to_owned())]),
            ..Descriptor::of(MediaType::OciManifest, b"image")
        };
        let annotations = Annotations::from([("a".to_owned(), "b".to_owned())]);
        let made = Referrer::new("x/y".to_owned(), document, &subject, annotations);
        let bytes = made.to_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/y","#,
                r#""config":{"mediaType":"application/vnd.oci.empty.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"#,
                r#""layers":[{"mediaType":"text/plain","#,
                r#""digest":"sha256:dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e","size":5}],"#,
                r#""subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""digest":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","size":5},"#,
                r#""annotations":{"a":"b"}}"#,
            )
        );
        assert_eq!(serde_json::from_str::<Referrer>(&text).unwrap(), made);
        let entry = made.descriptor(&bytes);
        assert_eq!(entry.artifact_type.as_deref(), Some("x/y"));
        assert_eq!(entry.annotations["a"], "b");
        assert_eq!(entry.size, bytes.len() as u64);
    }

    #[test]
    fn null_is_absent() {
        let part = serde_json::json!({"mediaType": "x/y", "digest": Descriptor::of(MediaType::OciEmpty, EMPTY).digest, "size": 2});
        let sound = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::OciManifest, "artifactType": "x/y", "subject": part,
            "config": part, "layers": [part], "annotations": {"a": "b"},
        });
        crate::oci::assert_null_is_absent(&sound, |bytes| {
            serde_json::from_slice::<Referrer>(bytes)
        });
    }
}
