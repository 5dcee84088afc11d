//! SHA-256 (FIPS 180-4), by whichever of two implementations is faster on this CPU: `sha2` where the CPU has instructions
//! for it, `ring` where it has not. There, the assembly of `ring` is about twice as fast. Chosen once, at the first hash.

use std::sync::OnceLock;

use ring::digest::{Context, SHA256};
use sha2::{Digest as _, Sha256};

/// A hash that is being made.
#[derive(Clone)]
pub(super) enum State {
    /// By `sha2`.
    Native(Sha256),
    /// By `ring`.
    Ring(Context),
    /// By both, which must agree: in builds for development, so that every input of the tests tests both.
    Both(Sha256, Context),
}

impl State {
    /// Begins a hash.
    pub(super) fn new() -> Self {
        static HAS_INSTRUCTIONS: OnceLock<bool> = OnceLock::new();
        let ring = || Context::new(&SHA256);
        match HAS_INSTRUCTIONS.get_or_init(has_instructions) {
            _ if cfg!(debug_assertions) => Self::Both(Sha256::new(), ring()),
            true => Self::Native(Sha256::new()),
            false => Self::Ring(ring()),
        }
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Native(native) => native.update(bytes),
            Self::Ring(ring) => ring.update(bytes),
            Self::Both(native, ring) => {
                native.update(bytes);
                ring.update(bytes);
            }
        }
    }

    /// Returns the 32 bytes of the hash.
    pub(super) fn finish(self) -> [u8; 32] {
        let of_ring = |ring: Context| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(ring.finish().as_ref());
            bytes
        };
        match self {
            Self::Native(native) => native.finalize().into(),
            Self::Ring(ring) => of_ring(ring),
            Self::Both(native, ring) => {
                let bytes: [u8; 32] = native.finalize().into();
                assert_eq!(bytes, of_ring(ring), "two SHA-256 of one input");
                bytes
            }
        }
    }
}

/// Tells whether the CPU has instructions for SHA-256, and `sha2` uses them.
fn has_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("sha")
        && std::is_x86_feature_detected!("sse2")
        && std::is_x86_feature_detected!("ssse3")
        && std::is_x86_feature_detected!("sse4.1");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_make_the_same_of_every_length_in_every_cut() {
        let bytes: Vec<u8> = (0..700u32).map(|n| (n * 7) as u8).collect();
        for length in 0..bytes.len() {
            let all = &bytes[..length];
            let (first, second) = all.split_at(length / 3);
            let made = [
                State::Native(Sha256::new()),
                State::Ring(Context::new(&SHA256)),
                State::new(),
            ];
            let [a, b, c] = made.map(|mut state| {
                state.update(first);
                state.update(second);
                state.finish()
            });
            assert!(a == b && b == c, "{length}");
        }
    }
}
