//! What a base's own files say of it, seen as its layers pass by once: its users and groups, and its programs. It is
//! remembered by the layers. Of a base in a registry, `image.lock` holds the users, where somebody asks for them.

use std::io;

use serde::{Deserialize, Serialize};

use crate::accounts::{AccountFile, Accounts, FILES, MOST};
use crate::graph::{ActionError, Base, Context, KeyWriter, Layer, Part};
use crate::layer::{self, Gathered, Gatherer, LayerPath, Programs};
use crate::oci::DiffId;
use crate::store::{Blob, Health};

/// What was seen in the layers of a base.
struct Seen<'a>(&'a [DiffId]);

impl Part for Seen<'_> {
    fn name(&self) -> &'static str {
        "base files"
    }

    fn parameters(&self, key: &mut dyn KeyWriter) {
        key.list("layers", self.0.iter().map(DiffId::to_string));
    }
}

/// What is remembered of it.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The users and groups; `None` where they cannot be read.
    accounts: Option<Accounts>,
    /// The blob that lists the programs; `None` where there are too many.
    programs: Option<Blob>,
}

/// Begins to look.
pub(super) fn builder() -> Gatherer {
    Gatherer::keeping(&FILES, MOST)
}

/// Remembers what was seen in the layers of a base.
pub(super) fn remember(
    context: &Context<'_>,
    diff_ids: &[DiffId],
    gathered: &Gathered,
) -> Result<(), ActionError> {
    let programs = gathered.programs.as_ref();
    let programs = programs.map(|it| context.store.put_blob(it.to_text().as_bytes()));
    let remembered = Remembered {
        accounts: accounts_of(gathered),
        programs: programs.transpose()?,
    };
    let blobs = remembered.programs.into_iter().collect();
    let seen = Seen(diff_ids);
    context.parts.keep(&seen, &remembered, blobs)
}

/// Takes users and groups out of what was gathered; `None` where a file of them is no text of a fair size.
fn accounts_of(gathered: &Gathered) -> Option<Accounts> {
    let mut accounts = Accounts::default();
    for name in FILES {
        let path = LayerPath::parse(name).ok()?;
        // Where a symlink leads is not followed: whoever replaces the link would leave the file as it is.
        if gathered.facts.get(&path).is_some() {
            return None;
        }
        if let Some(file) = gathered.kept.get(&path) {
            let text = String::from_utf8(file.content.clone()?).ok()?;
            let attrs = file.attrs;
            let file = AccountFile {
                mode: attrs.mode,
                uid: attrs.owner.uid,
                gid: attrs.owner.gid,
                text,
            };
            accounts.put(name, file);
        }
    }
    Some(accounts)
}

fn diff_ids(base: &Base) -> Vec<DiffId> {
    base.layers.iter().map(|it| it.diff_id).collect()
}

/// Returns the users and groups of a base whose layers were here once; `None` where nobody knows them, `Some(None)` where
/// they cannot be read.
pub(super) fn known(
    context: &Context<'_>,
    diff_ids: &[DiffId],
) -> Result<Option<Option<Accounts>>, ActionError> {
    let known: Option<Remembered> = context.parts.known(&Seen(diff_ids))?;
    Ok(known.map(|it| it.accounts))
}

/// Returns the users and groups of a base. `None` where they are not known, or no text. The layers of a base on disk are
/// read for them where they `must` be known.
pub(in crate::rule) fn accounts(
    context: &Context<'_>,
    base: &Base,
    must: bool,
) -> Result<Option<Accounts>, ActionError> {
    let diff_ids = diff_ids(base);
    if let Some(known) = known(context, &diff_ids)? {
        return Ok(known);
    }
    if base.remote.is_some() || !must {
        return Ok(None);
    }
    let gathered = gather(context, &base.layers)?;
    remember(context, &diff_ids, &gathered)?;
    Ok(accounts_of(&gathered))
}

/// Returns the blob that lists the programs of a base, if they are known here.
pub(in crate::rule) fn programs(
    context: &Context<'_>,
    base: &Base,
) -> Result<Option<Blob>, ActionError> {
    let known: Option<Remembered> = context.parts.known(&Seen(&diff_ids(base)))?;
    Ok(known.and_then(|it| it.programs))
}

/// Returns the programs that a blob lists; `None` where it is of no use.
pub(in crate::rule) fn listed_programs(
    context: &Context<'_>,
    blob: &Blob,
) -> Result<Option<Programs>, ActionError> {
    let bytes = context.store.read_blob(blob).ok();
    let text = bytes.and_then(|it| String::from_utf8(it).ok());
    Ok(text.and_then(|text| Programs::parse(&text)))
}

/// Reads layers that are in the store.
fn gather(context: &Context<'_>, layers: &[Layer]) -> Result<Gathered, ActionError> {
    let mut builder = builder();
    for layer in layers {
        let blob = layer.blob();
        match context.store.check(&blob) {
            Health::Whole => {}
            health => return Err(context.lost(&blob, health)),
        }
        let unreadable = |error: &dyn std::error::Error| match (context.tick)(0) {
            true => context.lost(&blob, Health::Damaged).because(error),
            false => ActionError::stopped(),
        };
        let (compression, peeked) =
            layer::detect(context.store.open_blob(&blob)?).map_err(|error| unreadable(&error))?;
        let mut reader = layer::decoder(compression, peeked).map_err(|error| unreadable(&error))?;
        let applied = builder.apply(&mut reader, context.tick);
        applied.map_err(|error| unreadable(&error))?;
        io::copy(&mut reader, &mut io::sink()).map_err(|error| unreadable(&error))?;
    }
    Ok(builder.finish())
}
