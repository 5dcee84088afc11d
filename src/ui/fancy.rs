//! Lines on a terminal: one for each running action, with bytes and time; finished ones scroll up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plain;
use crate::exec::Event;
use crate::graph::NodeId;

pub(super) struct Fancy {
    all: MultiProgress,
    running: Mutex<BTreeMap<NodeId, ProgressBar>>,
}

impl Fancy {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            running: Mutex::default(),
        }
    }

    pub(super) fn line(&self, text: &str) {
        let _ = self.all.println(text);
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
                    .with_message(format!("{action} {label}"));
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
