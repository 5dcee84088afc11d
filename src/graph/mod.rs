//! What a build consists of: actions, what goes into their keys, what they make, and which place in a manifest asked
//! for them.
//!
//! Rules make graphs and `exec` runs them. Knows nothing of TOML, threads or terminals.

mod action;
mod document;
mod key;
mod lazy;
mod listing;
mod origin;
mod packages;
mod part;
mod ports;
mod product;
mod runner;
mod stop;
mod urls;

pub use action::ActionError;
pub(crate) use action::{Action, Context, Failure, Graph, Label, Lane, Node, NodeId};
pub(crate) use document::Document;
pub(crate) use key::{ActionKey, HashKey, KeyWriter, TextKey, compare};
pub(crate) use lazy::Lazy;
pub(crate) use origin::{Origin, SourceText};
pub(crate) use packages::Pick;
pub use packages::{
    ChosenIndex, IndexChoice, PackageError, PackageFile, Packages, WantedWheel, WheelHome,
};
#[cfg(test)]
pub(crate) use part::Forgetful;
pub(crate) use part::{Part, Parts};
pub(crate) use ports::{Ports, Registry, Sources};
pub(crate) use product::{Base, Image, Index, Layer, Product, Stack, TreeProduct};
pub(crate) use runner::{Command, CommandLimits, End, MakeTree, Ran, Runner};
pub(crate) use stop::Stop;
pub(crate) use urls::{OTHER_BYTES, Urls, WantedUrl};
