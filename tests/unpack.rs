//! `unpack`: what images become, and what hostile ones must not do.

mod attacks;
mod bundles;
mod kit;
mod parity;
mod rules;
mod stops;
