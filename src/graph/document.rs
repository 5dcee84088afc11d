//! Documents: what is made about images, and attached to them. An SBOM, a provenance, a signature; none is known here.

use serde::{Deserialize, Serialize};

use super::KeyWriter;
use crate::layer::quoted;
use crate::oci::{Annotations, Descriptor, EMPTY, MediaType, Referrer};
use crate::store::{Blob, Blobs, StoreError};

/// The version of the text form in keys.
const FORM: &str = "1";

/// A document. Its bytes lie in the store, and where it is about an image, so does the manifest that attaches it there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Media type, digest and size of the bytes.
    pub descriptor: Descriptor,
    /// What kind of document it is, as tools ask for it: the artifact type of the OCI specs.
    pub kind: String,
    /// The manifest or index that it is about, if it is about one: media type, digest and size.
    pub subject: Option<Descriptor>,
    /// What is said of it, sorted.
    pub annotations: Annotations,
}

impl Document {
    /// Puts a document into the store, with all that attaches it to what it is about.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep(
        bytes: &[u8],
        media_type: MediaType,
        kind: &str,
        subject: Option<&Descriptor>,
        annotations: Annotations,
        store: &dyn Blobs,
    ) -> Result<Self, StoreError> {
        let blob = store.put_blob(bytes)?;
        let document = Self {
            descriptor: Descriptor::new(media_type, blob.digest, blob.size),
            kind: kind.to_owned(),
            subject: subject.map(|it| Descriptor::new(it.media_type.clone(), it.digest, it.size)),
            annotations,
        };
        if let Some(referrer) = document.referrer() {
            store.put_blob(EMPTY)?;
            store.put_blob(&referrer.to_bytes())?;
        }
        Ok(document)
    }

    /// Returns the manifest that attaches the document to what it is about.
    pub(crate) fn referrer(&self) -> Option<Referrer> {
        let subject = self.subject.as_ref()?;
        let (document, annotations) = (self.descriptor.clone(), self.annotations.clone());
        Some(Referrer::new(
            self.kind.clone(),
            document,
            subject,
            annotations,
        ))
    }

    /// Returns all blobs: the bytes, and the manifest that attaches them with its config.
    pub(super) fn blobs(&self) -> Vec<Blob> {
        let mut blobs = vec![Blob::from(&self.descriptor)];
        if let Some(referrer) = self.referrer() {
            blobs.push(Blob::from(&referrer.config));
            blobs.push(Blob::from(&referrer.descriptor(&referrer.to_bytes())));
        }
        blobs
    }

    /// Adds what this is to the key of an action that takes it.
    pub(super) fn write_key(&self, key: &mut dyn KeyWriter) {
        let text = |it: &Descriptor| format!("{} {} {}", it.media_type, it.digest, it.size);
        key.field("document", FORM);
        key.field("  bytes", &text(&self.descriptor));
        key.field("  kind", &self.kind);
        key.field(
            "  about",
            &self.subject.as_ref().map_or("-".to_owned(), text),
        );
        let annotations = self.annotations.iter();
        key.list(
            "  annotation",
            annotations.map(|(name, value)| format!("{}={}", quoted(name), quoted(value))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Product, TextKey};
    use crate::store::{Health, InMemory};

    fn made(store: &dyn Blobs, subject: Option<&Descriptor>) -> Document {
        let annotations = Annotations::from([("made of".to_owned(), "two\nlines".to_owned())]);
        let media_type = MediaType::Other("text/plain".to_owned());
        Document::keep(b"words", media_type, "x/words", subject, annotations, store).unwrap()
    }

    fn key(document: Document) -> String {
        let mut text = Vec::new();
        let mut key = TextKey::new(&mut text);
        Product::Document(document.into()).write_key(&mut key, None);
        key.finish().unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Another text here means that all that is made of documents is made again.
    #[test]
    fn the_text_of_keys() {
        let store = InMemory::default();
        let subject = Descriptor::of(MediaType::OciManifest, b"image");
        let expected = concat!(
            "document: 1\n",
            "  bytes: text/plain sha256:dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e 5\n",
            "  kind: x/words\n",
            "  about: application/vnd.oci.image.manifest.v1+json ",
            "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d 5\n",
            "  annotation: 1\n",
            "    annotation: \"made of\"=\"two\\nlines\"\n",
        );
        assert_eq!(key(made(&store, Some(&subject))), expected);
        let alone = key(made(&store, None));
        assert!(alone.contains("\n  about: -\n"), "{alone}");
    }

    #[test]
    fn a_document_is_known_from_its_record_alone() {
        let store = InMemory::default();
        let subject = Descriptor::of(MediaType::OciManifest, b"image");
        for (subject, count) in [(Some(&subject), 3), (None, 1)] {
            let document = made(&store, subject);
            let product = Product::Document(document.clone().into());
            let record = product.to_record().unwrap();
            let blobs = product.blobs();
            assert_eq!(blobs.len(), count);
            assert_eq!(blobs, product.for_outputs(true));
            assert_eq!(product.for_outputs(false), []);
            assert!(blobs.iter().all(|it| store.check(it) == Health::Whole));
            let Some(Product::Document(read)) = Product::from_value(record.product) else {
                panic!("it is no document")
            };
            assert_eq!(*read, document);
        }
    }
}
