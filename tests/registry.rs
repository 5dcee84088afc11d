//! The registry client, against fault servers and the real `docker-registry`.
#![allow(dead_code)]

mod server;
