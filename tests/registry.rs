//! The registry client, against fault servers and the real `docker-registry`.

mod archives;
mod auth;
mod chaos;
mod economy;
mod kit;
mod pull;
mod quirks;
mod real;
mod referrers;
mod server;
