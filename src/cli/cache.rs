//! `cache info`, `gc`, `verify` and `clear`.

use serde_json::json;

use super::args::{Cache, CacheCommand, Format};
use super::exit::Exit;
use super::report;
use super::setup::cache_root;
use crate::runtime;
use crate::store::{Store, StoreError};
use crate::ui::{self, size};

pub(super) fn cache(args: &Cache) -> Result<Exit, Exit> {
    run(args).map_err(|error| match error {
        Error::Exit(exit) => exit,
        Error::Store(error) => {
            report::error(error.code(), &error, None);
            Exit::Failed
        }
    })
}

enum Error {
    Exit(Exit),
    Store(StoreError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Exit> for Error {
    fn from(exit: Exit) -> Self {
        Self::Exit(exit)
    }
}

fn run(args: &Cache) -> Result<Exit, Error> {
    let root = cache_root()?;
    let mut exit = Exit::Done;
    let text = match args.command {
        CacheCommand::Info { format } => {
            let info = Store::open(&root)?.info()?;
            match format {
                Format::Json => {
                    let value = json!({
                        "folder": root.display().to_string(), "blobs": info.blobs, "blob_bytes": info.blob_bytes,
                        "records": info.records, "other_bytes": info.other_bytes, "roots": info.roots,
                    });
                    format!("{value:#}\n")
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
            }
        }
        CacheCommand::Gc { max_size } => {
            let store = Store::open_alone(&root)?;
            let gone = store.gc(max_size)?;
            let mut text = format!(
                "removed {} blobs and {} records, {}\n",
                gone.blobs,
                gone.records,
                size(gone.bytes)
            );
            match tidy(&store)? {
                0 => {}
                roots => text.push_str(&format!("removed {roots} images unpacked to be run\n")),
            }
            text
        }
        CacheCommand::Verify => {
            let verified = Store::open_alone(&root)?.verify(&|_| ())?;
            let mut text = String::new();
            for path in verified.damaged.iter().chain(&verified.records) {
                text.push_str(&format!("damaged, removed: {}\n", path.display()));
                exit = Exit::Cache;
            }
            for (path, why) in &verified.stuck {
                text.push_str(&format!(
                    "damaged, cannot be removed: {} ({why})\n",
                    path.display()
                ));
                exit = Exit::Cache;
            }
            format!("{text}{} blobs are whole\n", verified.whole)
        }
        CacheCommand::Clear => {
            let store = Store::open_alone(&root)?;
            store.clear()?;
            tidy(&store)?;
            String::new()
        }
    };
    ui::data(&text).map_err(|error| {
        report::error("imgdecl::stdout", &error, None);
        Exit::Failed
    })?;
    Ok(exit)
}

/// Removes what `run` left there: it is unpacked again when it is needed.
fn tidy(store: &Store) -> Result<u64, Error> {
    runtime::tidy(store).map_err(|error| {
        report::error("imgdecl::cache", &error, None);
        Error::Exit(Exit::Failed)
    })
}
