//! One image beside an index: the image for the same platform is what it can be compared with.

use super::{Difference, Level, Place, Sink, image};
use crate::work::Failed;
use crate::work::image::{Opened, Opener, Single};

/// An image that stands beside an index.
pub(super) struct Alone<'a> {
    /// The platform of the image.
    platform: String,
    /// What holds the image, and the image.
    one: (&'a Opened, &'a Single),
    /// The index, and its image for the platform, if it has one.
    index: (&'a Opened, Option<&'a Single>),
    /// Whether the index is the first of the two.
    is_first: bool,
}

/// Finds out whether one of two is an index, and the other one image.
pub(super) fn alone<'a>(a: &'a Opened, b: &'a Opened) -> Option<Alone<'a>> {
    let (index, one) = match (is_index(a), is_index(b)) {
        (true, false) => (a, b),
        (false, true) => (b, a),
        _ => return None,
    };
    let [image] = &one.images[..] else {
        return None;
    };
    let platform = image.platform.as_ref().filter(|_| image.is_image())?;
    let fits = |it: &&Single| {
        let other = it.platform.as_ref().filter(|_| it.is_image());
        other.is_some_and(|other| other.matches(platform))
    };
    Some(Alone {
        platform: platform.to_string(),
        one: (one, image),
        index: (index, index.images.iter().find(fits)),
        is_first: std::ptr::eq(index, a),
    })
}

fn is_index(opened: &Opened) -> bool {
    let root = opened.root.as_ref();
    root.is_some_and(|root| root.descriptor.media_type.is_index())
}

impl Alone<'_> {
    /// Compares the two images, up to as many differences as are wanted.
    pub(super) fn compare(
        &self,
        opener: &Opener<'_>,
        most: usize,
    ) -> Result<Vec<Difference>, Failed> {
        let mut sink = Sink {
            found: Vec::new(),
            most,
        };
        let place = Place {
            platform: Some(self.platform.clone()),
            ..Place::default()
        };
        let (index, found) = self.index;
        match (found, self.is_first) {
            (Some(it), true) => image(opener, (index, it), self.one, &place, &mut sink)?,
            (Some(it), false) => image(opener, self.one, (index, it), &place, &mut sink)?,
            (None, is_first) => {
                let images = index.images.iter().filter(|it| it.is_image());
                let has: Vec<String> = images.map(Single::platform_name).collect();
                let lacks = match has.is_empty() {
                    true => "has no image at all".to_owned(),
                    false => format!("lacks it, and has {}", has.join(", ")),
                };
                let has = "has it".to_owned();
                let (a, b) = if is_first { (lacks, has) } else { (has, lacks) };
                sink.push(Level::Platform, place, a, b);
            }
        }
        Ok(sink.found)
    }

    /// Says what was compared.
    pub(super) fn told(&self) -> super::Alone {
        let manifest = self.one.1.manifest.as_ref();
        let is_whole = self.index.1.is_some_and(|it| it.manifest.is_some());
        super::Alone {
            index: self.index.0.name.clone(),
            platform: self.index.1.map(|_| self.platform.clone()),
            digest: manifest.filter(|_| is_whole).map(|it| it.descriptor.digest),
        }
    }
}
