//! Registries: what the user says about them, and the credentials for them. Knows no rule and no terminal, and reads no
//! environment: whoever calls says where to look.

mod config;
mod credentials;
mod small;

pub use config::{Config, ConfigError, HostConfig};
pub use credentials::{Credentials, Login, Looked, Places};

/// Returns the name by which a registry is known here: in lower case, and Docker Hub's names as one.
fn canonical(registry: &str) -> String {
    let lower = registry.to_ascii_lowercase();
    match lower.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => lower,
    }
}
