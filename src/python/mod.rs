//! Python packages: what wheels hold, and where it goes in an image.
//!
//! Knows nothing of rules, HTTP or the graph.

pub mod wheel;
