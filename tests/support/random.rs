//! Numbers that look random and are the same each time.

/// A generator (xorshift64*). The seed must not be 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `end`, without `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 8) % end.max(1)
    }

    /// Bytes that compress somewhat.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&(self.next() & 0x1f3f_1f3f_1f3f_1f3f).to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
