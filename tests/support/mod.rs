//! What tests share: work folders, an independent checker of images, and other programs to compare with.

mod debian;
pub(crate) mod index;
mod peers;
mod random;
pub(crate) mod registry;
mod space;
mod validate;
pub(crate) mod wheel;

pub(crate) use debian::debian;
pub(crate) use peers::{absent, peer};
pub(crate) use random::Random;
pub(crate) use space::{BINARY, Output, Space, copy};
pub(crate) use validate::{Entry, Layer, Layout, validate};
