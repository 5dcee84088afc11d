//! The registry client, against fault servers and the real `docker-registry`.

mod archives;
mod auth;
mod chaos;
mod economy;
mod fronts;
mod kit;
mod lost;
mod pull;
mod quirks;
mod real;
mod referrers;
mod server;
