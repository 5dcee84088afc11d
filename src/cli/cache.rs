//! `cache info`, `gc`, `verify` and `clear`.

use serde_json::json;

use super::args::{Cache, CacheCommand, Format};
use super::exit::Exit;
use super::print;
use crate::ui::{self, size};
use crate::work::{Failed, Session, cache};

/// Runs `cache`.
pub(super) fn cache(session: &Session, args: &Cache) -> Result<Exit, Failed> {
    match args.command {
        CacheCommand::Info { format } => {
            let (root, info) = cache::info(session)?;
            print(&match format {
                Format::Json => {
                    let value = json!({
                        "folder": root.display().to_string(), "blobs": info.blobs, "blob_bytes": info.blob_bytes,
                        "records": info.records, "other_bytes": info.other_bytes, "roots": info.roots,
                    });
                    ui::json(value)
                }
                Format::Text => format!(
                    "{}\n{} blobs, {}\n{} records and more, {}\n{} images unpacked to be run\n",
                    root.display(),
                    info.blobs,
                    size(info.blob_bytes),
                    info.records,
                    size(info.other_bytes),
                    info.roots,
                ),
            })
        }
        CacheCommand::Gc { max_size } => {
            let (gone, roots) = cache::gc(session, max_size)?;
            let mut text = format!(
                "removed {} blobs and {} records, {}\n",
                gone.blobs,
                gone.records,
                size(gone.bytes)
            );
            if roots > 0 {
                text.push_str(&format!("removed {roots} images unpacked to be run\n"));
            }
            print(&text)
        }
        CacheCommand::Verify => {
            let verified = cache::verify(session)?;
            let damaged = verified.damaged.iter().chain(&verified.records);
            let text = damaged.map(|path| format!("damaged, removed: {}\n", path.display()));
            let stuck = verified.stuck.iter().map(|(path, why)| {
                format!("damaged, cannot be removed: {} ({why})\n", path.display())
            });
            let text: String = text.chain(stuck).collect();
            print(&format!("{text}{} blobs are whole\n", verified.whole))?;
            Ok(match text.is_empty() {
                true => Exit::Done,
                false => Exit::Cache,
            })
        }
        CacheCommand::Clear => {
            cache::clear(session)?;
            Ok(Exit::Done)
        }
    }
}
