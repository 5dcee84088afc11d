//! A few threads that fetch what will be asked for. They start with the first piece of work and end with the value. Knows
//! nothing of the work.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// How many threads there are at most: they wait for the network most of the time.
const THREADS: usize = 32;

/// A piece of work.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Default)]
pub(super) struct Prefetcher(Arc<Shared>);

/// What gives work to the threads, as long as they are there.
#[derive(Clone)]
pub(super) struct PrefetchQueue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    is_over: bool,
}

impl Prefetcher {
    pub(super) fn queue(&self) -> PrefetchQueue {
        PrefetchQueue(Arc::clone(&self.0))
    }
}

impl PrefetchQueue {
    /// Has a piece of work done, some time. Where no thread can be had it is not done.
    pub(super) fn add(&self, work: Work) {
        let mut state = self.0.state();
        if state.is_over {
            return;
        }
        state.queue.push_back(work);
        if state.queue.len() > state.idle && state.threads.len() < THREADS {
            let shared = Arc::clone(&self.0);
            let name = format!("index-{}", state.threads.len());
            let thread = Builder::new().name(name).spawn(move || shared.run());
            state.threads.extend(thread);
        }
        drop(state);
        self.0.more.notify_one();
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.0.state();
            state.is_over = true;
            state.queue.clear();
            std::mem::take(&mut state.threads)
        };
        self.0.more.notify_all();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        loop {
            if state.is_over {
                return;
            }
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // A panic in one is told by whoever asks for the same, and ends no thread.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = self.state();
                continue;
            }
            state.idle += 1;
            let wait = self.more.wait(state);
            state = wait.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_few_threads_do_much_and_end() {
        let (now, most, done) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let prefetcher = Prefetcher::default();
        let queue = prefetcher.queue();
        for _ in 0..40 {
            let (now, most, done) = (now.clone(), most.clone(), done.clone());
            queue.add(Box::new(move || {
                let count = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(count, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                assert!(done.fetch_add(1, Ordering::SeqCst) != 3, "on purpose");
            }));
        }
        while done.load(Ordering::SeqCst) < 40 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let most = most.load(Ordering::SeqCst);
        assert!((2..=THREADS).contains(&most), "{most}");
        assert!(prefetcher.0.state().threads.len() <= THREADS);
        queue.add(Box::new(|| std::thread::sleep(Duration::from_millis(50))));
        drop(prefetcher);
        assert_eq!(now.load(Ordering::SeqCst), 0);
    }
}
