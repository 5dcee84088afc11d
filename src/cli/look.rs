//! `inspect`, `diff`, `verify` and `unpack`: what images are made of.

use super::args::{Diff, Format, Inspect, Unpack, Verify};
use super::exit::Exit;
use super::{print, report, stream};
use crate::ui::{self, Shown};
use crate::work::{Failed, Session, diff, inspect, unpack, verify};

/// Runs `inspect`.
pub(super) fn inspect(session: &Session, args: Inspect) -> Result<Exit, Failed> {
    let shown = Shown {
        layer: args.layer,
        files: args.files,
        waste: args.waste,
    };
    let request = inspect::Request {
        image: args.image,
        open: args.open.request(),
        files: args.files,
        waste: args.waste,
        layer: args.layer,
        config: args.config,
    };
    if args.raw {
        return raw(session, &request);
    }
    let view = inspect::inspect(session, &request)?;
    stream(&|out| match args.format {
        Format::Json => ui::inspect_json(out, &view, &shown, report::errors(&view.unread)),
        Format::Text => ui::inspect_text(out, &view, &shown),
    })?;
    Ok(match Failed::all(view.unread) {
        Ok(()) => Exit::Done,
        Err(failed) => report::text(&failed),
    })
}

fn raw(session: &Session, request: &inspect::Request) -> Result<Exit, Failed> {
    let is_terminal = ui::is_terminal();
    let mut take = |bytes: &[u8]| match is_terminal {
        // A terminal obeys; whoever reads a pipe wants every byte.
        true => ui::data(&format!("{}\n", String::from_utf8_lossy(bytes))).map(|()| true),
        false => ui::bytes(bytes),
    };
    inspect::raw(session, request, is_terminal, &mut take)?;
    Ok(Exit::Done)
}

/// Runs `diff`.
pub(super) fn diff(session: &Session, args: Diff) -> Result<Exit, Failed> {
    let compared = diff::diff(
        session,
        &diff::Request {
            a: args.a,
            b: args.b,
            open: args.open.request(),
            all: args.all,
        },
    )?;
    print(&match args.format {
        Format::Json => ui::diff_json(&compared),
        Format::Text => ui::diff_text(&compared),
    })?;
    Ok(equal(compared.found.is_empty()))
}

/// Runs `verify`.
pub(super) fn verify(session: &Session, args: Verify) -> Result<Exit, Failed> {
    let verified = verify::verify(
        session,
        &verify::Request {
            words: args.words,
            open: args.open.request(),
            against: args.against,
        },
    )?;
    print(&match args.format {
        Format::Json => ui::verify_json(&verified),
        Format::Text => ui::verify_text(&verified),
    })?;
    Ok(equal(verified.is_equal()))
}

fn equal(is_equal: bool) -> Exit {
    match is_equal {
        true => Exit::Done,
        false => Exit::Failed,
    }
}

/// Runs `unpack`.
pub(super) fn unpack(session: &Session, args: Unpack) -> Result<Exit, Failed> {
    let dir = args.dir.display().to_string();
    let unpacked = unpack::unpack(
        session,
        &unpack::Request {
            image: args.image,
            open: args.open.request(),
            dir: args.dir,
            bundle: args.bundle,
            max_size: args.max_size,
            max_entries: args.max_entries,
            max_ratio: args.max_ratio,
        },
    )?;
    let notes = unpacked.notes.iter();
    notes.for_each(|note| ui::line(&format!("note: {note}")));
    let (entries, bytes) = (unpacked.entries, ui::size(unpacked.bytes));
    ui::line(&format!("unpacked {entries} entries, {bytes}, into {dir}"));
    Ok(Exit::Done)
}
