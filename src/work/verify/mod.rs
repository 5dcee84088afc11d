//! `verify`: builds again with all changed that must not matter, and compares; or compares with what is somewhere else.

mod again;
mod copy;

use super::diff::{self, Difference};
use super::image::{Open, Opened, Opener};
use super::workspace::{Choice, Workspace};
use super::{Failed, News, Session};

/// What is to be verified.
#[derive(Default)]
pub(crate) struct Request {
    /// The manifest, and which of its images.
    pub(crate) words: Vec<String>,
    /// How images are found; the variables and platforms are those of the manifest, too.
    pub(crate) open: Open,
    /// An image to compare with in place of one that is built again.
    pub(crate) against: Option<String>,
}

/// What was verified.
pub(crate) struct Verified {
    /// The images.
    pub(crate) checked: Vec<Checked>,
    /// What was different in the second build; nothing where there was none.
    pub(crate) varied: Vec<String>,
}

/// An image, and how it differs from another one.
pub(crate) struct Checked {
    /// The image.
    pub(crate) image: Opened,
    /// What it was compared with.
    pub(crate) other: Opened,
    /// The first difference, if there is any.
    pub(crate) found: Vec<Difference>,
}

impl Verified {
    /// Tells whether all images are equal.
    pub(crate) fn is_equal(&self) -> bool {
        self.checked.iter().all(|it| it.found.is_empty())
    }
}

/// Builds again with all changed that must not matter, and compares; or compares with what is somewhere else.
///
/// # Errors
/// When something cannot be built or read. A difference is no error.
pub(crate) fn verify(session: &Session, request: &Request) -> Result<Verified, Failed> {
    let opener = Opener::new(session, &request.open)?;
    let choice = Choice {
        words: request.words.clone(),
        set: request.open.set.clone(),
        platforms: request.open.platforms.clone(),
    };
    let workspace = Workspace::new(session, &choice, Vec::new())?;
    let (mut pairs, mut varied) = (Vec::new(), Vec::new());
    match &request.against {
        Some(against) => {
            let images = opener.open_targets(workspace)?;
            let holds_all = holds_all(against);
            if images.len() > 1 && !holds_all {
                return Err(several(against, images.len()));
            }
            for image in images {
                let word = match holds_all {
                    true => format!("{against}:{}", image.name),
                    false => against.clone(),
                };
                let other = opener.open(&word)?;
                pairs.push(checked(&opener, image, other)?);
            }
        }
        None => {
            let again = again::Again::new(session, &workspace, request)?;
            let images = opener.open_targets(workspace)?;
            again.lend(&opener)?;
            varied = again.run(&images)?;
            for image in images {
                let word = format!("{}, built again", image.name);
                let other = opener.open_layout(&word, again.out(), Some(&image.name))?;
                pairs.push(checked(&opener, image, other)?);
            }
        }
    }
    session.news(&News::Over {
        only_if_busy: false,
    });
    Ok(Verified {
        checked: pairs,
        varied,
    })
}

fn checked(opener: &Opener<'_>, image: Opened, other: Opened) -> Result<Checked, Failed> {
    let found = diff::compare(opener, &image, &other, 1)?;
    Ok(Checked {
        image,
        other,
        found,
    })
}

/// Tells whether a place is a layout or archive as a whole, in which images have the names of their targets.
fn holds_all(against: &str) -> bool {
    let rest = ["oci:", "oci-archive:"].iter();
    let mut rest = rest.filter_map(|prefix| against.strip_prefix(prefix));
    rest.next().is_some_and(|path| !path.contains(':'))
}

/// Says that one place cannot stand for several images.
fn several(against: &str, count: usize) -> Failed {
    let message = format!("{against} is one image, and there are {count} to compare with it");
    let help = "name one target, or a layout that has all under their names: oci:DIR";
    Failed::usage("imgdecl::verify::several", &message, Some(help.into()))
}
