//! Lines on a terminal: one for each running action or transfer, with bytes and time; finished ones scroll up.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain;
use crate::exec::Event;
use crate::graph::NodeId;
use crate::shown;

pub(super) struct Fancy {
    all: MultiProgress,
    running: Mutex<BTreeMap<NodeId, ProgressBar>>,
    transfers: Mutex<BTreeMap<u64, ProgressBar>>,
    /// What has no bytes to show.
    step: Mutex<Option<ProgressBar>>,
}

impl Fancy {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            running: Mutex::default(),
            transfers: Mutex::default(),
            step: Mutex::default(),
        }
    }

    pub(super) fn line(&self, text: &str) {
        let _ = self.all.println(shown::text(text));
    }

    fn transfers(&self) -> MutexGuard<'_, BTreeMap<u64, ProgressBar>> {
        self.transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a bar for a blob of `size` bytes.
    pub(super) fn start_transfer(&self, number: u64, name: &str, size: u64) {
        let style = ProgressStyle::with_template(
            "{spinner} {msg}  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}",
        );
        let bar = ProgressBar::new(size)
            .with_style(style.expect("the template is one"))
            .with_message(shown::text(name).into_owned());
        let bar = self.all.add(bar);
        bar.enable_steady_tick(Duration::from_millis(100));
        self.transfers().insert(number, bar);
    }

    pub(super) fn transfer(&self, number: u64, bytes: u64) {
        if let Some(bar) = self.transfers().get(&number) {
            bar.inc(bytes);
        }
    }

    pub(super) fn end_transfer(&self, number: u64, text: Option<&str>) {
        if let Some(bar) = self.transfers().remove(&number) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        text.into_iter().for_each(|text| self.line(text));
    }

    /// Shows how far something has come, in words; `None` when it is over.
    pub(super) fn step(&self, progress: Option<&str>) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = progress else {
            if let Some(bar) = step.take() {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
            return;
        };
        let bar = step.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} resolving  {msg}  {elapsed}");
            let bar = ProgressBar::no_length().with_style(style.expect("the template is one"));
            let bar = self.all.add(bar);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(shown::text(text).into_owned());
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        let mut running = self
            .running
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        match event {
            Event::Start {
                node,
                label,
                action,
            } => {
                let style = ProgressStyle::with_template(
                    "{spinner} {msg}  {decimal_bytes}  {decimal_bytes_per_sec}  {elapsed}",
                );
                let bar = ProgressBar::no_length()
                    .with_style(style.expect("the template is one"))
                    .with_message(shown::text(&format!("{action} {label}")).into_owned());
                let bar = self.all.add(bar);
                bar.enable_steady_tick(Duration::from_millis(100));
                running.insert(*node, bar);
            }
            Event::Progress { node, bytes } => {
                if let Some(bar) = running.get(node) {
                    bar.inc(*bytes);
                }
            }
            Event::Done { node, .. } => {
                if let Some(bar) = running.remove(node) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                if let Some(text) = plain::done(event) {
                    self.line(&text);
                }
            }
            Event::Note(text) => self.line(text),
        }
    }
}
