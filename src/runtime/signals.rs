//! The signals of a run, from the moment on in which they belong to the container: which arrived, and how long who was
//! asked to stop may take.

use std::time::{Duration, Instant};

use rustix::termios::{LocalModes, tcgetattr};

use super::container::Watch;

/// The signals that ask to stop: HUP, INT, QUIT and TERM.
const STOPS: [i32; 4] = [1, 2, 3, 15];
/// Those of them that a terminal sends when someone types: INT and QUIT.
const TYPED: [i32; 2] = [2, 3];
/// A terminal has another size.
const RESIZED: i32 = 28;

/// Tells whether a signal asks to stop.
pub(super) fn stops(number: i32) -> bool {
    STOPS.contains(&number)
}

/// Signals that arrived, and how long who was asked to stop may take.
pub(super) struct Signals<'a> {
    watch: &'a dyn Watch,
    grace: Duration,
    arrived: Vec<i32>,
    /// How many times we were asked to stop.
    count: u32,
    deadline: Option<Instant>,
    /// A runtime has the terminal, too: what is typed it hears itself.
    shares_terminal: bool,
    ignores_typed: bool,
    /// Something was typed that asks to stop.
    is_stop_typed: bool,
}

impl<'a> Signals<'a> {
    /// Nothing was asked yet. Who is asked to stop has `grace` to do it.
    pub(super) fn new(watch: &'a dyn Watch, grace: Duration) -> Self {
        Self {
            watch,
            grace,
            arrived: Vec::new(),
            count: 0,
            deadline: None,
            shares_terminal: false,
            ignores_typed: false,
            is_stop_typed: false,
        }
    }

    /// From now on a runtime has the terminal, too.
    pub(super) fn share_terminal(&mut self) {
        self.shares_terminal = true;
    }

    /// From now on the process runs: the runtime passes on to it what is typed, which asks us for nothing.
    pub(super) fn ignore_typed(&mut self) {
        self.ignores_typed = true;
    }

    /// Hears what was asked meanwhile.
    pub(super) fn listen(&mut self) {
        for number in self.watch.signals() {
            let is_stop_typed = self.shares_terminal && TYPED.contains(&number) && terminal_sends();
            if is_stop_typed && self.ignores_typed {
                continue;
            }
            if stops(number) {
                self.count += 1;
                // No deadline at all, where it lies beyond what can be counted.
                let deadline = || Instant::now().checked_add(self.grace);
                self.deadline = self.deadline.or_else(deadline);
            }
            self.is_stop_typed |= is_stop_typed;
            self.arrived.push(number);
        }
    }

    /// Tells whether we were asked to stop.
    pub(super) fn is_stop_requested(&self) -> bool {
        self.count > 0
    }

    /// Tells whether we were asked to stop by what was typed at the terminal that a runtime has, too.
    pub(super) fn is_stop_typed(&self) -> bool {
        self.is_stop_typed
    }

    /// Tells whether we were asked again: who does that does not want to wait.
    pub(super) fn is_stop_repeated(&self) -> bool {
        self.count > 1
    }

    /// Hears what was asked, and tells whether there is still time for what goes on.
    pub(super) fn have_time(&mut self) -> bool {
        self.listen();
        let is_late = self.deadline.is_some_and(|it| Instant::now() >= it);
        !is_late && !self.is_stop_repeated()
    }

    /// Tells, once, that the time is over.
    pub(super) fn is_late(&mut self) -> bool {
        let is_late = self.deadline.is_some_and(|it| Instant::now() >= it);
        if is_late {
            self.deadline = Some(Instant::now() + Duration::from_secs(3600));
        }
        is_late
    }

    /// Returns the signals that were not passed on yet.
    pub(super) fn take(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.arrived)
    }

    /// Takes the signals that say that the terminal has another size; tells whether there were any.
    pub(super) fn take_resized(&mut self) -> bool {
        let all = self.arrived.len();
        self.arrived.retain(|it| *it != RESIZED);
        self.arrived.len() < all
    }

    /// Says something.
    pub(super) fn note(&self, text: &str) {
        self.watch.note(text);
    }

    /// Says that the time was over.
    pub(super) fn note_late(&self, who: &str) {
        self.note(&format!(
            "{who} did not end within {} s of being asked: killed",
            self.grace.as_secs()
        ));
    }
}

/// Tells whether our terminal makes signals of what is typed: not where it passes everything on (termios(3), `ISIG`).
fn terminal_sends() -> bool {
    tcgetattr(std::io::stdin()).is_ok_and(|it| it.local_modes.contains(LocalModes::ISIG))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Fake(RefCell<Vec<i32>>);

    impl Watch for Fake {
        fn note(&self, _: &str) {}

        fn unpacks(&self) {}

        fn signals(&self) -> Vec<i32> {
            self.0.take()
        }

        fn starts(&self) -> bool {
            true
        }
    }

    #[test]
    fn who_is_asked_has_a_while_and_who_is_asked_again_has_not() {
        let fake = Fake(RefCell::default());
        let mut signals = Signals::new(&fake, Duration::from_secs(60));
        fake.0.replace(vec![10, 28]);
        assert!(signals.have_time() && !signals.is_stop_requested());
        fake.0.replace(vec![15]);
        assert!(signals.have_time() && signals.is_stop_requested() && !signals.is_stop_repeated());
        assert!(signals.take_resized() && !signals.take_resized());
        assert_eq!(signals.take(), [10, 15]);
        fake.0.replace(vec![2]);
        assert!(!signals.have_time() && signals.is_stop_repeated() && !signals.is_late());
    }

    #[test]
    fn the_end_of_the_while_is_told_once() {
        let fake = Fake(RefCell::new(vec![1]));
        let mut signals = Signals::new(&fake, Duration::ZERO);
        assert!(!signals.have_time() && !signals.is_stop_repeated());
        assert!(signals.is_late() && !signals.is_late());
    }
}
