//! Registries for tests: a fault server in this process, and the real `docker-registry`.
//!
//! A [`Server`] keeps the distribution spec 1.1, holds everything in memory and logs every request. [`Quirks`] make it one
//! of the registries of the wild, [`Auth`] says who may do what, and each [`Rule`] is a fault that some requests meet.

mod auth;
mod data;
mod image;
mod message;
mod quirks;
mod real;
mod repositories;
mod rule;
mod server;

pub(crate) use auth::{Auth, Kind};
pub(crate) use data::Data;
pub(crate) use image::{Flavour, Image, Part, layer};
pub(crate) use message::{Connection, Delivery, Reply, Request};
pub(crate) use quirks::{Location, Mount, Patch, Quirks};
pub(crate) use real::{Authority, Mode, PASSWORD, Real, USER};
pub(crate) use rule::Rule;
pub(crate) use server::{Logged, Server, Setup};
