//! `verify`: builds again with all changed that must not matter, and compares; or compares with what is somewhere else.

mod again;
mod copy;

use serde_json::{Value, json};

use super::args::{self, Format};
use super::build::print;
use super::diff::{self, Difference};
use super::exit::Exit;
use super::image::{Opened, Opener};
use super::setup::{Choice, Setup, usage};
use crate::ui;

pub(super) fn verify(args: &args::Verify) -> Result<Exit, Exit> {
    let opener = Opener::new(&args.open)?;
    let choice = Choice {
        words: &args.words,
        set: &args.open.set,
        platforms: &args.open.platform,
    };
    let setup = Setup::new(&choice, Vec::new())?;
    let mut checked = Vec::new();
    let mut varied = Vec::new();
    match &args.against {
        Some(against) => {
            let images = opener.open_targets(setup)?;
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
                checked.push(Checked::new(&opener, args, image, other)?);
            }
        }
        None => {
            let again = again::Again::new(&setup, args)?;
            let images = opener.open_targets(setup)?;
            again.lend(&opener)?;
            varied = again.run(&images)?;
            for image in images {
                let word = format!("{}, built again", image.name);
                let other = opener.open_layout(&word, again.out(), Some(&image.name))?;
                checked.push(Checked::new(&opener, args, image, other)?);
            }
        }
    }
    opener.progress.finish();
    let is_equal = checked.iter().all(|it| it.found.is_empty());
    print(&match args.format {
        Format::Json => {
            let images: Vec<Value> = checked.iter().map(Checked::json).collect();
            ui::json(json!({"equal": is_equal, "varied": varied, "images": images}))
        }
        Format::Text => {
            let mut text: String = checked.iter().map(Checked::text).collect();
            if !varied.is_empty() {
                text.push_str(&format!("varied: {}\n", varied.join(", ")));
            }
            text
        }
    })?;
    Ok(match is_equal {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

/// Tells whether a place is a layout or archive as a whole, in which images have the names of their targets.
fn holds_all(against: &str) -> bool {
    let rest = ["oci:", "oci-archive:"].iter();
    let mut rest = rest.filter_map(|prefix| against.strip_prefix(prefix));
    rest.next().is_some_and(|path| !path.contains(':'))
}

/// An image, and how it differs from another one.
struct Checked {
    image: Opened,
    other: Opened,
    found: Vec<Difference>,
}

impl Checked {
    fn new(
        opener: &Opener<'_>,
        args: &args::Verify,
        image: Opened,
        other: Opened,
    ) -> Result<Self, Exit> {
        let found = diff::compare(opener, &image, &other, &args.open, 1)?;
        Ok(Self {
            image,
            other,
            found,
        })
    }

    fn text(&self) -> String {
        if !self.found.is_empty() {
            return diff::text(&self.image, &self.other, &self.found);
        }
        let digest = self.image.root.as_ref();
        let digest = digest.map_or(String::new(), |it| format!(" {}", it.descriptor.digest));
        format!("{} equal{digest}\n", ui::visible(&self.image.name))
    }

    fn json(&self) -> Value {
        let digest = |it: &Opened| it.root.as_ref().map(|root| root.descriptor.digest);
        json!({
            "name": self.image.name,
            "equal": self.found.is_empty(),
            "digest": digest(&self.image),
            "other": self.other.name,
            "other_digest": digest(&self.other),
            "difference": self.found.first().map(diff::one),
        })
    }
}

/// Says that one place cannot stand for several images.
fn several(against: &str, count: usize) -> Exit {
    let message = format!("{against} is one image, and there are {count} to compare with it");
    let help = "name one target, or a layout that has all under their names: oci:DIR";
    usage("imgdecl::verify::several", &message, Some(help.into()))
}
