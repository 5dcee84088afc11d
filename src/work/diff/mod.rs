//! `diff`: walks two images down to where they differ. What follows from a deeper difference, as the digest of a manifest
//! follows from its layers, is no difference of its own; nor is an index around the image that is compared.

mod alone;
mod document;
mod layer;

use std::collections::BTreeMap;

use serde_json::Value;

use super::image::{Document, Open, Opened, Opener, Single};
use super::{Failed, News, Session};

/// How many differences are shown at most.
pub(crate) const MOST: usize = 1000;

/// A place where two images differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Difference {
    /// How deep it lies.
    pub(crate) level: Level,
    /// Where it is.
    pub(crate) place: Place,
    /// What is on the first side.
    pub(crate) a: String,
    /// What is on the second side.
    pub(crate) b: String,
}

/// How deep a difference lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Index,
    Platform,
    Manifest,
    Config,
    Layer,
    Compression,
    Entry,
    Header,
    Content,
    Tar,
}

/// Where a difference is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    pub(crate) platform: Option<String>,
    /// Counted from 1.
    pub(crate) layer: Option<usize>,
    /// How that layer came about, as the first image says.
    pub(crate) made_by: Option<String>,
    pub(crate) entry: Option<String>,
    pub(crate) field: Option<String>,
    /// In bytes, from the start of a document, of a content or of a tar.
    pub(crate) offset: Option<u64>,
}

/// Gathers differences, up to as many as are wanted.
struct Sink {
    found: Vec<Difference>,
    most: usize,
}

impl Sink {
    fn is_full(&self) -> bool {
        self.found.len() >= self.most
    }

    fn push(&mut self, level: Level, place: Place, a: impl Into<String>, b: impl Into<String>) {
        if !self.is_full() {
            let (a, b) = (a.into(), b.into());
            self.found.push(Difference { level, place, a, b });
        }
    }
}

/// What is to be compared.
#[derive(Default)]
pub(crate) struct Request {
    /// An image.
    pub(crate) a: String,
    /// The image to compare it with.
    pub(crate) b: String,
    /// How they are found.
    pub(crate) open: Open,
    /// All differences are wanted, and not the first one alone.
    pub(crate) all: bool,
}

/// Two images, and how they differ.
pub(crate) struct Compared {
    /// An image.
    pub(crate) a: Opened,
    /// The image that it was compared with.
    pub(crate) b: Opened,
    /// Where one image was compared with one of an index: how that came about.
    pub(crate) alone: Option<Alone>,
    /// The differences.
    pub(crate) found: Vec<Difference>,
}

/// One image beside an index.
pub(crate) struct Alone {
    /// The name of the index.
    pub(crate) index: String,
    /// The platform whose images were compared; nothing where the index has no such image.
    pub(crate) platform: Option<String>,
    /// The digest of the one image's manifest, if both have one.
    pub(crate) digest: Option<crate::oci::Digest>,
}

/// Compares two images.
///
/// # Errors
/// When one of them cannot be read.
pub(crate) fn diff(session: &Session, request: &Request) -> Result<Compared, Failed> {
    let opener = Opener::new(session, &request.open)?;
    let (a, b) = (opener.open(&request.a)?, opener.open(&request.b)?);
    let most = if request.all { MOST } else { 1 };
    // Who picks a platform of both has said what is compared.
    let alone = alone::alone(&a, &b).filter(|_| request.open.platforms.is_empty());
    let found = match &alone {
        Some(alone) => alone.compare(&opener, most),
        None => compare(&opener, &a, &b, most),
    };
    session.news(&News::Over { only_if_busy: true });
    let found = found?;
    let alone = alone.map(|it| it.told());
    Ok(Compared { a, b, alone, found })
}

/// Compares two images, up to as many differences as are wanted.
pub(super) fn compare(
    opener: &Opener<'_>,
    a: &Opened,
    b: &Opened,
    most: usize,
) -> Result<Vec<Difference>, Failed> {
    let mut sink = Sink {
        found: Vec::new(),
        most,
    };
    let is_whole = opener.open.platforms.is_empty();
    let digest = |opened: &Opened| opened.root.as_ref().map(|it| it.descriptor.digest);
    if digest(a).is_some() && digest(a) == digest(b) {
        return Ok(sink.found);
    }
    // Platforms that were picked are compared by themselves, whatever holds them.
    let roots = a.root.as_ref().zip(b.root.as_ref());
    if let Some((root_a, root_b)) = roots.filter(|_| is_whole) {
        document::index(&mut sink, root_a, root_b);
    }
    for (platform, of_a, of_b) in pairs(a, b) {
        if sink.is_full() {
            break;
        }
        let place = Place {
            platform: Some(platform),
            ..Place::default()
        };
        match (of_a, of_b) {
            (Some(of_a), Some(of_b)) => {
                image(opener, (a, of_a), (b, of_b), &place, &mut sink)?;
            }
            (of_a, of_b) => {
                let word = |image: Option<&Single>| match image {
                    Some(_) => "has it",
                    None => "lacks it",
                };
                sink.push(Level::Platform, place, word(of_a), word(of_b));
            }
        }
    }
    // Nothing in the index but the bytes themselves.
    if let Some((a, b)) = roots.filter(|_| sink.found.is_empty() && is_whole) {
        document::bytes(&mut sink, Level::Index, &Place::default(), a, b);
    }
    Ok(sink.found)
}

/// The images of a platform, on either side.
type Pair<'a> = (String, Option<&'a Single>, Option<&'a Single>);

/// Brings together the images of the same platform, in the order of the first image.
fn pairs<'a>(a: &'a Opened, b: &'a Opened) -> Vec<Pair<'a>> {
    // Attestations share a platform that is none: the first belongs to the first.
    let keyed = |opened: &'a Opened| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let images = opened.images.iter().map(move |image| {
            let name = image.platform_name();
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            ((name, *count), image)
        });
        images.collect::<Vec<_>>()
    };
    let (of_a, of_b) = (keyed(a), keyed(b));
    let find = |all: &[((String, usize), &'a Single)], key: &(String, usize)| {
        all.iter()
            .find(|(it, _)| it == key)
            .map(|(_, image)| *image)
    };
    let mut pairs: Vec<Pair<'a>> = of_a
        .iter()
        .map(|(key, image)| (key.0.clone(), Some(*image), find(&of_b, key)))
        .collect();
    let only_b = of_b.iter().filter(|(key, _)| find(&of_a, key).is_none());
    pairs.extend(only_b.map(|(key, image)| (key.0.clone(), None, Some(*image))));
    pairs
}

/// Compares two images of one platform.
fn image(
    opener: &Opener<'_>,
    (a, of_a): (&Opened, &Single),
    (b, of_b): (&Opened, &Single),
    place: &Place,
    sink: &mut Sink,
) -> Result<(), Failed> {
    let same = |a: &Option<Document>, b: &Option<Document>| {
        let digests = a.as_ref().zip(b.as_ref());
        digests.is_some_and(|(a, b)| a.descriptor.digest == b.descriptor.digest)
    };
    if same(&of_a.manifest, &of_b.manifest) {
        return Ok(());
    }
    let before = sink.found.len();
    if let Some((a, b)) = of_a.manifest.as_ref().zip(of_b.manifest.as_ref()) {
        document::manifest(sink, place, a, b);
    }
    let configs = of_a.config.as_ref().zip(of_b.config.as_ref());
    if let Some((a, b)) = configs.filter(|_| !same(&of_a.config, &of_b.config)) {
        document::config(sink, place, a, b);
    }
    if !sink.is_full() {
        layer::layers(opener, (a, of_a), (b, of_b), place, sink)?;
    }
    // Equal in all that they say: then they say it in other bytes.
    if sink.found.len() == before {
        if let Some((a, b)) = configs {
            document::bytes(sink, Level::Config, place, a, b);
        }
        if let Some((a, b)) = of_a.manifest.as_ref().zip(of_b.manifest.as_ref()) {
            document::bytes(sink, Level::Manifest, place, a, b);
        }
    }
    Ok(())
}

/// Returns the words of a value.
fn words(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}
