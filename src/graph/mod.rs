//! What a build consists of: actions, what goes into their keys, what they make, and which place in a manifest asked
//! for them.
//!
//! Rules make graphs and `exec` runs them. Knows nothing of TOML, threads or terminals.

mod action;
mod key;
mod lazy;
mod listing;
mod origin;
mod part;
mod ports;
mod product;
mod stop;

pub use action::{Action, ActionError, Context, Failure, Graph, Label, Lane, Node, NodeId};
pub use key::{ActionKey, HashKey, KeyWriter, TextKey, compare};
pub use lazy::Lazy;
pub use origin::{Origin, SourceText};
#[cfg(test)]
pub use part::Forgetful;
pub use part::{Part, Parts};
pub use ports::{PackageError, PackageFile, Packages, Pick, Ports, Registry, WantedWheel};
pub use product::{Base, Image, Index, Layer, Product, Stack, TreeProduct};
pub use stop::Stop;
