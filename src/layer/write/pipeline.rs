//! Makes items in parallel, and gives each of them, in order, to two consumers that work side by side.
//!
//! No thread waits for another's step: whoever ends a step starts what can be done next. So all threads of the pool have
//! work as long as there is any, and what is made and not yet consumed stays within a budget.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::Scope;

/// How items are made.
pub(super) trait Work: Sync {
    type Item: Send + Sync;
    /// What is read of an item before it is made.
    type Early: Send;
    type Error: Send;

    /// Returns how many items there are.
    fn count(&self) -> usize;

    /// Returns how much memory an item takes, in bytes.
    fn weight(&self, index: usize) -> u64;

    /// Returns how much memory all items may take that are being made or consumed, in bytes. One item may take more.
    fn budget(&self) -> u64;

    /// Tells whether something of the item must be read first, in the order of such items.
    fn is_serial(&self, index: usize) -> bool;

    /// Reads what must be read in order. Nothing is read after an error.
    fn read(&self, index: usize) -> Result<Self::Early, Self::Error>;

    /// Makes an item; of what was read first, if it is serial.
    fn make(&self, index: usize, early: Option<Self::Early>) -> Result<Self::Item, Self::Error>;
}

/// Consumes the items in order.
pub(super) type Consumer<'a, W> =
    &'a mut (dyn FnMut(&<W as Work>::Item) -> Result<(), <W as Work>::Error> + Send);

/// Makes all items, and gives each to both consumers. Runs in the current rayon pool.
///
/// # Errors
/// When an item cannot be made or consumed. Where several fail, the first of them tells, and of those that have to do with
/// one item, the one that makes it, then the first consumer.
pub(super) fn run<W: Work>(
    work: &W,
    first: Consumer<'_, W>,
    second: Consumer<'_, W>,
) -> Result<(), W::Error> {
    let line = Line {
        work,
        consumers: [Mutex::new(first), Mutex::new(second)],
        state: Mutex::new(State::new()),
    };
    rayon::scope(|scope| line.go_on(scope));
    let state = line.state.into_inner();
    match state.expect("a panic has ended the scope").error {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

struct Line<'a, W: Work> {
    work: &'a W,
    consumers: [Mutex<Consumer<'a, W>>; 2],
    state: Mutex<State<W>>,
}

/// A place in the order of errors: the item, and 0 for making it, 1 and 2 for the consumers.
type Place = (usize, usize);

struct State<W: Work> {
    /// The items from `first` on, as far as they were begun; `None` while one is being made.
    items: VecDeque<Option<Arc<W::Item>>>,
    first: usize,
    /// What the items weigh.
    weight: u64,
    /// How many are being made.
    making: usize,
    /// Whether a serial item is being read, or could not be.
    is_reading: bool,
    /// How many items each consumer has had, and whether it is at work.
    consumed: [usize; 2],
    is_consuming: [bool; 2],
    error: Option<(Place, W::Error)>,
}

impl<W: Work> State<W> {
    fn new() -> Self {
        Self {
            items: VecDeque::new(),
            first: 0,
            weight: 0,
            making: 0,
            is_reading: false,
            consumed: [0; 2],
            is_consuming: [false; 2],
            error: None,
        }
    }

    fn fail(&mut self, place: Place, error: W::Error) {
        if self.error.as_ref().is_none_or(|(first, _)| place < *first) {
            self.error = Some((place, error));
        }
    }

    /// Returns what a consumer takes next, if it is made and nothing failed before it.
    fn next(&self, consumer: usize) -> Option<Arc<W::Item>> {
        let index = self.consumed[consumer];
        let place = (index, 1 + consumer);
        if self.error.as_ref().is_some_and(|(first, _)| *first < place) {
            return None;
        }
        self.items.get(index - self.first)?.clone()
    }
}

impl<'a, W: Work> Line<'a, W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect("a panic ends the scope")
    }

    /// Starts all that can be done now.
    fn go_on<'s>(&'s self, scope: &Scope<'s>) {
        let mut state = self.lock();
        while state.error.is_none() && state.making < rayon::current_num_threads() {
            let index = state.first + state.items.len();
            if index == self.work.count() {
                break;
            }
            let weight = self.work.weight(index);
            let is_serial = self.work.is_serial(index);
            // One item alone may weigh more than the budget: it must be made all the same.
            let is_full = state.weight > 0 && state.weight + weight > self.work.budget();
            if is_full || (is_serial && state.is_reading) {
                break;
            }
            state.items.push_back(None);
            state.weight += weight;
            state.making += 1;
            state.is_reading |= is_serial;
            scope.spawn(move |scope| self.make(index, is_serial, scope));
        }
        // Started last, a thread of rayon begins with them: what is consumed makes room.
        for consumer in 0..2 {
            if !state.is_consuming[consumer] && state.next(consumer).is_some() {
                state.is_consuming[consumer] = true;
                scope.spawn(move |scope| self.consume(consumer, scope));
            }
        }
    }

    fn make<'s>(&'s self, index: usize, is_serial: bool, scope: &Scope<'s>) {
        let early = is_serial.then(|| {
            let early = self.work.read(index)?;
            // The next one may be read while this one is compressed. After an error nothing is read any more, so the mark
            // stays.
            self.lock().is_reading = false;
            self.go_on(scope);
            Ok(early)
        });
        let made = early
            .transpose()
            .and_then(|early| self.work.make(index, early));
        let mut state = self.lock();
        state.making -= 1;
        match made {
            Ok(item) => {
                let place = index - state.first;
                state.items[place] = Some(Arc::new(item));
            }
            Err(error) => state.fail((index, 0), error),
        }
        drop(state);
        self.go_on(scope);
    }

    fn consume<'s>(&'s self, consumer: usize, scope: &Scope<'s>) {
        // The one before may be about to return; nobody holds it for longer.
        let mut consume = self.consumers[consumer]
            .lock()
            .expect("a panic ends the scope");
        loop {
            let mut state = self.lock();
            let Some(item) = state.next(consumer) else {
                state.is_consuming[consumer] = false;
                return;
            };
            drop(state);
            let consumed = consume(&item);
            drop(item);
            let mut state = self.lock();
            if let Err(error) = consumed {
                // The mark of being at work stays: nothing more is consumed.
                let place = (state.consumed[consumer], 1 + consumer);
                state.fail(place, error);
                return;
            }
            state.consumed[consumer] += 1;
            // What both have had goes, in order: a consumer that is behind keeps the memory of all that it waits for.
            let both = state.consumed[0].min(state.consumed[1]);
            while state.first < both {
                state.weight -= self.work.weight(state.first);
                state.first += 1;
                state.items.pop_front();
            }
            drop(state);
            self.go_on(scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    /// Items that are their own numbers; some fail, some are serial.
    struct Numbers {
        count: usize,
        weight: u64,
        fails: &'static [usize],
        is_serial: fn(usize) -> bool,
        made: AtomicU64,
        peak: AtomicU64,
        read: AtomicUsize,
    }

    impl Numbers {
        fn new(count: usize) -> Self {
            Self {
                count,
                weight: 1,
                fails: &[],
                is_serial: |_| false,
                made: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                read: AtomicUsize::new(0),
            }
        }
    }

    impl Work for Numbers {
        type Item = usize;
        type Early = usize;
        type Error = String;

        fn count(&self) -> usize {
            self.count
        }

        fn weight(&self, _: usize) -> u64 {
            self.weight
        }

        fn budget(&self) -> u64 {
            10
        }

        fn is_serial(&self, index: usize) -> bool {
            (self.is_serial)(index)
        }

        fn read(&self, index: usize) -> Result<usize, String> {
            let before = self.read.swap(index, Ordering::SeqCst);
            assert!(before <= index, "{before} before {index}");
            Ok(index)
        }

        fn make(&self, index: usize, early: Option<usize>) -> Result<usize, String> {
            assert_eq!(early, (self.is_serial)(index).then_some(index));
            let now = self.made.fetch_add(1, Ordering::SeqCst) + 1;
            self.peak.fetch_max(now, Ordering::SeqCst);
            // Items are not ready in the order in which they were begun.
            let spin = (index * 7919) % 13 * 200;
            for it in 0..spin {
                std::hint::black_box(it);
            }
            match self.fails.contains(&index) {
                true => Err(format!("make {index}")),
                false => Ok(index),
            }
        }
    }

    fn threads<T: Send>(count: usize, run: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        pool.unwrap().install(run)
    }

    #[test]
    fn both_consumers_get_all_in_order_within_the_budget() {
        for count in [1, 2, 7] {
            for weight in [0, 1, 3, 100] {
                for is_serial in [|_| false, |index: usize| !index.is_multiple_of(3), |_| true] {
                    let work = Numbers {
                        weight,
                        is_serial,
                        ..Numbers::new(500)
                    };
                    let (mut one, mut other) = (Vec::new(), Vec::new());
                    let result = threads(count, || {
                        let mut second = |item: &usize| {
                            other.push(*item);
                            work.made.fetch_sub(1, Ordering::SeqCst);
                            Ok(())
                        };
                        let mut first = |item: &usize| {
                            one.push(*item);
                            Ok(())
                        };
                        run(&work, &mut first, &mut second)
                    });
                    assert_eq!(result, Ok(()));
                    assert!(one.iter().copied().eq(0..500) && one == other);
                    if let Some(most) = 10_u64.checked_div(weight) {
                        // One that was consumed by the second may wait for the first.
                        let peak = work.peak.load(Ordering::SeqCst);
                        assert!(peak <= most.max(1), "{peak} of {most}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let cases: [(&[usize], usize, usize, &str); 6] = [
            (&[40, 41, 300], 500, 500, "make 40"),
            (&[40], 39, 500, "first 39"),
            (&[40], 500, 39, "second 39"),
            (&[40], 40, 40, "make 40"),
            (&[], 40, 40, "first 40"),
            (&[], 41, 40, "second 40"),
        ];
        for (fails, first, second, expected) in cases {
            for round in 0..20 {
                let work = Numbers {
                    fails,
                    ..Numbers::new(500)
                };
                let fail = |name: &'static str, at: usize| {
                    move |item: &usize| match *item == at {
                        true => Err(format!("{name} {item}")),
                        false => Ok(()),
                    }
                };
                let result = threads(1 + round % 4, || {
                    run(
                        &work,
                        &mut fail("first", first),
                        &mut fail("second", second),
                    )
                });
                assert_eq!(result, Err(expected.to_owned()));
            }
        }
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        let work = Numbers::new(0);
        let mut never = |_: &usize| Err("taken".to_owned());
        assert_eq!(run(&work, &mut never, &mut |_| Ok(())), Ok(()));
    }
}
