//! How fast an answer comes: one that trickles for ever is cut. Knows no clock but the one that counts a wait.

use std::time::Duration;

use super::fault::Fault;

/// The least that must come in each second of waiting, in bytes, on average.
const LEAST: u64 = 1 << 10;

/// The speed of one answer, over some time of waiting. What is not waited for does not count: a reader may be slow.
#[derive(Default)]
pub(super) struct LowSpeed {
    waited: Duration,
    bytes: u64,
}

impl LowSpeed {
    /// Counts bytes, and how long was waited for them. The speed is judged each time that `window` is over.
    ///
    /// # Errors
    /// When too little came.
    pub(super) fn count(
        &mut self,
        waited: Duration,
        bytes: usize,
        window: Duration,
    ) -> Result<(), Fault> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < window {
            return Ok(());
        }
        let is_slow = (self.bytes as f64) < LEAST as f64 * self.waited.as_secs_f64();
        *self = Self::default();
        match is_slow {
            true => Err(Fault::Slow),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_ends_and_a_slow_line_does_not() {
        let window = Duration::from_secs(60);
        let mut speed = LowSpeed::default();
        let second =
            |speed: &mut LowSpeed, bytes| speed.count(Duration::from_secs(1), bytes, window);
        for _ in 0..600 {
            second(&mut speed, 1100).unwrap();
        }
        for _ in 0..59 {
            second(&mut speed, 1).unwrap();
        }
        assert!(matches!(second(&mut speed, 1), Err(Fault::Slow)));
        // A long silence, and then all at once.
        speed
            .count(Duration::from_secs(59), 1 << 20, window)
            .unwrap();
        second(&mut speed, 1).unwrap();
    }
}
