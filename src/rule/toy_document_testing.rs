//! A toy, for tests alone: a document that says the digest of an image, and where it belongs.

use super::Lower;
use super::document::Documents;
use crate::graph::{Action, ActionError, Context, Document, KeyWriter, NodeId, Product};
use crate::oci::{Annotations, MediaType};
use crate::spec::{Problems, Target};

/// Words about images.
pub(super) struct Words;

impl Documents for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn lower(
        &self,
        target: &Target,
        image: NodeId,
        lower: &mut Lower<'_>,
    ) -> Result<Vec<NodeId>, Problems> {
        let say = Say(target.id.name.clone());
        let origin = target.table.origin();
        Ok(vec![lower.add(target, say, vec![image], origin)])
    }
}

/// Writes the words about an image that a target makes.
struct Say(String);

impl Action for Say {
    fn name(&self) -> &'static str {
        "words"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.field("target", &self.0);
    }

    fn run(&self, context: &Context<'_>, inputs: &[Product]) -> Result<Product, ActionError> {
        let subject = match inputs {
            [Product::Image(image)] => &image.manifest,
            [Product::Index(index)] => &index.descriptor,
            _ => return Err(ActionError::bug("words are about images")),
        };
        let words = format!("{} is {}\n", self.0, subject.digest);
        let document = Document::keep(
            words.as_bytes(),
            MediaType::Other("text/plain".to_owned()),
            "application/vnd.example.words",
            Some(subject),
            Annotations::from([("com.example.target".to_owned(), self.0.clone())]),
            context.store,
        )?;
        Ok(Product::Document(document.into()))
    }
}
