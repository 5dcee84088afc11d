//! How fast an answer comes: one that trickles for ever is cut. Knows no clock but the one that counts a wait.

use std::time::Duration;

use super::fault::Fault;

/// The least that must come in each second of waiting, in bytes, on average.
const LEAST: u64 = 1 << 10;

/// The pace of one answer, over some time of waiting. What is not waited for does not count: a reader may be slow.
#[derive(Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts bytes, and how long was waited for them. The pace is judged each time that `window` is over.
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
        let mut pace = Pace::default();
        let second = |pace: &mut Pace, bytes| pace.count(Duration::from_secs(1), bytes, window);
        for _ in 0..600 {
            second(&mut pace, 1100).unwrap();
        }
        for _ in 0..59 {
            second(&mut pace, 1).unwrap();
        }
        assert!(matches!(second(&mut pace, 1), Err(Fault::Slow)));
        // A long silence, and then all at once.
        pace.count(Duration::from_secs(59), 1 << 20, window)
            .unwrap();
        second(&mut pace, 1).unwrap();
    }
}
