//! `resolve`.

use std::io::{self, Read};

use super::args::Resolve;
use super::exit::Exit;
use super::print;
use crate::oci::MAX_DOCUMENT;
use crate::ui;
use crate::work::resolve::{self, Request, Resolved};
use crate::work::{Blame, Failed, Session};

/// Runs `resolve`.
pub(super) fn resolve(session: &Session, args: Resolve) -> Result<Exit, Failed> {
    let request = Request {
        network: args.net.registries(args.offline),
        files: args.files,
        manifest: args.manifest,
        metadata: args.metadata,
        platforms: args.platform,
        set: args.set,
        output: args.output,
        in_place: args.in_place,
        check: args.check,
    };
    match resolve::resolve(session, &request, &stdin)? {
        Resolved::UpToDate => Ok(Exit::Done),
        Resolved::Text(text) => match ui::bytes(text.as_bytes()) {
            Ok(_) => Ok(Exit::Done),
            Err(error) => {
                let code = "imgdecl::stdout";
                Err(Failed::error(Blame::Build, code, &error, None))
            }
        },
        Resolved::Written(images) => {
            let line = |(name, reference): &(String, String)| format!("{name} {reference}\n");
            print(&images.iter().map(line).collect::<String>())
        }
    }
}

/// Reads stdin to its end.
fn stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = io::stdin().lock().take(MAX_DOCUMENT + 1);
    limited.read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_DOCUMENT {
        true => Err(io::Error::other(format!(
            "it is larger than {MAX_DOCUMENT} bytes"
        ))),
        false => Ok(bytes),
    }
}
