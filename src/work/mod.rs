//! The work behind the commands, as functions: each takes a [`Session`] and a plain request, returns a value or a [`Failed`],
//! and tells what happens as events. They print nothing, exit nowhere, read nothing of the environment, and know no command
//! line: `cli` makes the requests, and `ui` shows what comes of them.

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod dry_run_tests;
mod export;
mod failure;
mod file;
mod host;
mod indexes;
mod net;
mod push_preview;
mod session;
#[cfg(test)]
mod sink_tests;
#[cfg(test)]
mod testing;
mod workspace;

pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod diff;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod plan;
pub(crate) mod push;
pub(crate) mod resolve;
#[cfg(target_os = "linux")]
pub(crate) mod run;
#[cfg(target_os = "linux")]
mod runner;
pub(crate) mod unpack;
pub(crate) mod verify;

pub(crate) use export::Exported;
pub(crate) use failure::{Blame, Failed, NodeFailure, Told};
pub(crate) use file::write_file;
pub(crate) use lock::needs_registry;
pub(crate) use net::Network;
pub(crate) use push_preview::PushPreview;
pub(crate) use session::{Environment, Events, IndexEnvironment, News, Session};
pub(crate) use workspace::Choice;
