//! Work for several threads that wait for the network: results by index, and no more at a time than a host bears.
//! Knows nothing of the work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::monitor::Monitor;

/// Does the work for each of `items`, on at most `count` threads at a time. The results have the order of the items.
pub(crate) fn each<T: Sync, R: Send>(
    count: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                break;
            };
            let result = work(item);
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..count.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How many transfers a host bears at a time.
pub(crate) struct Semaphore {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to one transfer, until it is dropped.
pub(crate) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            freed: Condvar::new(),
        }
    }

    /// Waits for a free permit.
    pub(crate) fn acquire(&self, monitor: &dyn Monitor) -> Result<Permit<'_>, Fault> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            if monitor.is_stopped() {
                return Err(Fault::Stopped);
            }
            free = self
                .freed
                .wait_timeout(free, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *free -= 1;
        Ok(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<u64> = (0..50).collect();
        let most = Mutex::new((0, 0));
        let results = each(4, &items, |item| {
            let mut count = most.lock().unwrap();
            count.0 += 1;
            count.1 = count.1.max(count.0);
            drop(count);
            std::thread::sleep(Duration::from_millis(50 - item));
            most.lock().unwrap().0 -= 1;
            item * 2
        });
        assert_eq!(results, items.iter().map(|it| it * 2).collect::<Vec<_>>());
        let most = most.lock().unwrap().1;
        assert!((2..=4).contains(&most), "{most}");
    }
}
