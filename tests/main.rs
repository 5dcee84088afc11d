//! All integration tests, in one binary: linking is the slow part.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stderr,
    reason = "tests make files, read the environment and print"
)]

mod cache;
mod codes;
mod crash;
mod dependencies;
mod determinism;
mod docker;
mod docs;
mod documents;
mod failures;
mod floors;
mod from;
mod fuzz;
mod golden;
mod http;
mod index;
mod large;
mod look;
mod nulls;
mod peers;
mod pipes;
mod profile;
mod python;
mod python_images;
mod records;
mod registry;
mod remote;
mod requirements;
mod run;
mod secrets;
mod stops;
mod support;
mod tars;
mod unpack;
mod youtube_qa;
mod zips;
