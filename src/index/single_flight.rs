//! Work that is done once for each key, whoever asks for it and however many do so at a time. Knows nothing of the work.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a wait looks whether the user stopped.
const TICK: Duration = Duration::from_millis(100);

/// The work that was begun.
pub(super) struct SingleFlight<K, T>(Mutex<BTreeMap<K, Arc<Call<T>>>>);

struct Call<T> {
    state: Mutex<State<T>>,
    over: Condvar,
}

enum State<T> {
    Idle,
    Busy,
    Done(T),
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The right to do a piece of work. Dropped before it is done, others may.
struct Turn<'a, T> {
    call: &'a Call<T>,
    result: Option<T>,
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        *self.call.state() = match self.result.take() {
            Some(result) => State::Done(result),
            None => State::Idle,
        };
        self.call.over.notify_all();
    }
}

impl<T> Call<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone, T: Clone> SingleFlight<K, T> {
    /// Returns the result of the work for `key`: does it, waits for whoever does it, or remembers it where `keeps` says
    /// so. `None` when the user stopped meanwhile.
    pub(super) fn get(
        &self,
        key: &K,
        is_stopped: &dyn Fn() -> bool,
        keeps: impl FnOnce(&T) -> bool,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let call = {
            let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                Arc::new(Call {
                    state: Mutex::new(State::Idle),
                    over: Condvar::new(),
                })
            };
            Arc::clone(calls.entry(key.clone()).or_insert_with(new))
        };
        let mut state = call.state();
        loop {
            match &*state {
                State::Done(result) => return Some(result.clone()),
                _ if is_stopped() => return None,
                State::Idle => break,
                State::Busy => {
                    let wait = call.over.wait_timeout(state, TICK);
                    state = wait.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        *state = State::Busy;
        drop(state);
        let mut turn = Turn {
            call: &call,
            result: None,
        };
        let result = work();
        turn.result = keeps(&result).then(|| result.clone());
        Some(result)
    }

    /// Tells whether the work for `key` is under way or done.
    pub(super) fn is_begun(&self, key: &K) -> bool {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call = calls.get(key);
        call.is_some_and(|it| !matches!(*it.state(), State::Idle))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn many_ask_and_one_works() {
        let calls: SingleFlight<u32, usize> = SingleFlight::default();
        let count = AtomicUsize::new(0);
        let work = || {
            std::thread::sleep(Duration::from_millis(50));
            count.fetch_add(1, Ordering::Relaxed)
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(calls.get(&1, &|| false, |_| true, work), Some(0)));
            }
        });
        assert_eq!(calls.get(&2, &|| false, |_| false, work), Some(1));
        assert!(calls.is_begun(&1) && !calls.is_begun(&2));
        assert_eq!(calls.get(&2, &|| false, |_| true, work), Some(2));
    }

    #[test]
    fn a_panic_and_the_user_end_the_wait() {
        let calls: SingleFlight<u32, u32> = SingleFlight::default();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                calls.get(
                    &1,
                    &|| false,
                    |_| true,
                    || {
                        std::thread::sleep(Duration::from_millis(50));
                        panic!("on purpose")
                    },
                )
            });
            while !calls.is_begun(&1) {
                std::thread::yield_now();
            }
            assert_eq!(calls.get(&1, &|| false, |_| true, || 7), Some(7));
            assert!(failing.join().is_err());
            scope.spawn(|| {
                let slow = || {
                    std::thread::sleep(Duration::from_millis(600));
                    8
                };
                assert_eq!(calls.get(&2, &|| false, |_| true, slow), Some(8));
            });
            while !calls.is_begun(&2) {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            let stopped = || stop.load(Ordering::Relaxed);
            assert_eq!(calls.get(&2, &stopped, |_| true, || 9), None);
        });
    }
}
