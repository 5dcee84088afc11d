//! `lock`.

use super::args::{Export, Lock};
use super::exit::Exit;
use super::print;
use crate::lock::FILE;
use crate::work::lock::{self, Locked};
use crate::work::{Exported, Failed, Session};

/// Runs `lock`.
pub(super) fn lock(session: &Session, args: Lock) -> Result<Exit, Failed> {
    if args.check {
        lock::check(session, args.manifest.as_ref(), &args.set)?;
        return print(&format!("{FILE} is up to date\n"));
    }
    let is_on_stdout = args.output.as_deref() == Some("-");
    let request = lock::Request {
        network: args.net.network(&args.index, args.offline),
        manifest: args.manifest,
        set: args.set,
        update: args.update,
        upgrade: args.upgrade_package,
        export: matches!(args.export, Some(Export::Pylock)),
        output: args.output,
    };
    let Locked {
        changes,
        is_empty,
        is_written,
        exported,
        unplanned,
    } = lock::lock(session, &request)?;
    let exported = exported.into_iter().map(|it| match it {
        Exported::Text(text) => text,
        Exported::File(file) => format!("{}: written\n", file.display()),
    });
    let exported: String = exported.collect();
    // A lock on stdout is alone there.
    if is_on_stdout {
        changes.iter().for_each(|line| session.note(line));
        return print(&exported);
    }
    let text: String = match (changes.is_empty(), is_empty) {
        (true, _) if is_written => {
            format!("{FILE} was brought up to date: nothing else was chosen\n")
        }
        (true, true) => {
            "nothing to lock: no base is in a registry, and no packages are asked for\n".to_owned()
        }
        (true, false) => format!("{FILE} is up to date\n"),
        _ => changes.iter().map(|line| format!("{line}\n")).collect(),
    };
    let exit = print(&(text + &exported))?;
    unplanned.map_or(Ok(exit), Err)
}
