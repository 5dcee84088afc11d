//! What tests share: work folders, an independent checker of images, and other programs to compare with.

pub(crate) mod daemon;
mod debian;
mod files;
pub(crate) mod index;
mod peers;
mod random;
pub(crate) mod registry;
mod space;
mod validate;
pub(crate) mod wheel;

pub(crate) use debian::{debian, debian_root};
pub(crate) use files::{File, files};
pub(crate) use peers::{absent, peer, pip_and_uv, pip_with_index, temporary};
pub(crate) use random::Random;
pub(crate) use space::{BINARY, Output, Space, copy};
pub(crate) use validate::{Entry, Layer, Layout, PlatformImage, check_runtime_config, validate};
