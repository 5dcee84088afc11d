//! `unpack`: what images become, and what hostile ones must not do.

mod attacks;
mod breakouts;
mod bundles;
mod changed;
mod kit;
mod parity;
mod rules;
mod stops;

pub(crate) use kit::{list, unpack_layer, write_tars};
