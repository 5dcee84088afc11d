//! What people and scripts see: progress on stderr while work is done, as lines on a terminal, plain lines elsewhere, or
//! JSON events; and the texts and JSON of what came of it.
//!
//! Takes events and values, and knows nothing of how they come about.

mod diff;
mod explain;
mod fancy;
mod inspect;
mod inspect_json;
mod plain;
mod plan;
mod profile;
mod transfer;

pub(crate) use diff::{json as diff_json, text as diff_text};
pub(crate) use diff::{verified as verify_text, verified_json as verify_json};
pub(crate) use inspect::text as inspect_text;
pub(crate) use inspect_json::{Shown, json as inspect_json};
pub(crate) use plan::{json as plan_json, text as plan_text};
pub(crate) use profile::Profile;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::exec::{Event, Outcome, Watch};
use crate::graph::{NodeId, Stop};
use crate::lock;
use crate::shown;
use crate::work::{Events, News};

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Lines that move on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One line for each action that ran.
    Plain,
    /// One JSON object for each event.
    Json,
    /// Nothing but errors.
    None,
}

/// Shows a build, and counts what happened.
pub(crate) struct Progress {
    show: Show,
    start: Instant,
    counts: Mutex<Counts>,
    /// The actions that were counted as recorded: one whose bytes turn out to be gone runs after all.
    hits: Mutex<BTreeSet<NodeId>>,
    transfers: transfer::Transfers,
    stop: Stop,
    /// Whether the keys of actions are shown.
    explains: bool,
    /// What is measured besides.
    profile: Option<Arc<Profile>>,
}

enum Show {
    Fancy(fancy::Fancy),
    Plain,
    Json,
    None,
}

/// What happened in a build.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    /// Actions that ran.
    pub(crate) built: u64,
    /// Actions whose product was recorded.
    pub(crate) hit: u64,
    /// Actions that failed.
    pub(crate) failed: u64,
    /// Actions that did not run because of a failure.
    pub(crate) skipped: u64,
    /// Bytes of files, archives and layers that were read or written.
    pub(crate) bytes: u64,
    /// Bytes that came from registries.
    pub(crate) pulled: u64,
    /// Bytes that went to registries.
    pub(crate) pushed: u64,
    /// Bytes that registries took from other repositories of theirs.
    pub(crate) mounted: u64,
    /// Bytes that were to be pushed, and were there already.
    pub(crate) there: u64,
}

impl Progress {
    /// Starts to show a build.
    pub(crate) fn new(mode: Mode, stop: Stop) -> Self {
        let show = match mode {
            Mode::Auto if io::stderr().is_terminal() => Show::Fancy(fancy::Fancy::new()),
            Mode::Auto | Mode::Plain => Show::Plain,
            Mode::Json => Show::Json,
            Mode::None => Show::None,
        };
        Self {
            show,
            start: Instant::now(),
            counts: Mutex::default(),
            hits: Mutex::default(),
            transfers: transfer::Transfers::default(),
            stop,
            explains: false,
            profile: None,
        }
    }

    /// Shows the key of each action, and how it differs from the last one, if that is wanted.
    #[must_use]
    pub(crate) fn explaining(self, explains: bool) -> Self {
        Self { explains, ..self }
    }

    /// Measures as well, if that is wanted.
    #[must_use]
    pub(crate) fn measured_by(self, profile: Option<Arc<Profile>>) -> Self {
        Self { profile, ..self }
    }

    /// Returns what happened so far.
    fn counts(&self) -> Counts {
        let counts = self
            .counts
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let (pulled, pushed) = self.transfers.bytes();
        Counts {
            pulled,
            pushed,
            ..*counts
        }
    }

    /// Tells whether an action is counted as recorded, and notes whether it is from now on.
    fn is_counted_as_hit(&self, node: NodeId, from_now: bool) -> bool {
        let hits = self.hits.lock();
        let mut hits = hits.unwrap_or_else(|poison| poison.into_inner());
        match from_now {
            true => !hits.insert(node),
            false => hits.remove(&node),
        }
    }

    /// Counts bytes that a push did not send: those that were mounted, and those that were there already.
    fn unsent(&self, mounted: u64, there: u64) {
        let counts = self.counts.lock();
        let mut counts = counts.unwrap_or_else(|poison| poison.into_inner());
        counts.mounted += mounted;
        counts.there += there;
    }

    /// Says something between the lines.
    fn say(&self, text: &str) {
        match &self.show {
            Show::Fancy(fancy) => fancy.line(text),
            Show::Plain => line(text),
            Show::Json => event(&json!({"event": "note", "text": text})),
            Show::None => {}
        }
    }

    /// Ends the show, with a summary only if there was something to do: for commands that are after something else.
    fn close(&self) {
        let counts = self.counts();
        let did = counts.built + counts.failed + counts.skipped > 0 || counts.pulled > 0;
        if did || matches!(self.show, Show::Json) {
            self.finish();
        }
    }

    /// Ends the show with a summary.
    fn finish(&self) {
        let Counts {
            built,
            hit,
            failed,
            skipped,
            bytes,
            pulled,
            pushed,
            mounted,
            there,
        } = self.counts();
        let elapsed = self.start.elapsed();
        match &self.show {
            Show::None => {}
            Show::Json => event(&json!({
                "event": "summary", "built": built, "hit": hit, "failed": failed, "skipped": skipped,
                "bytes": bytes, "pulled": pulled, "pushed": pushed, "mounted": mounted, "there": there,
                "millis": elapsed.as_millis() as u64,
            })),
            Show::Fancy(_) | Show::Plain => {
                let mut parts = Vec::new();
                let did_build = built + hit + failed + skipped > 0;
                if did_build {
                    parts.push(format!("{built} built, {hit} hit"));
                }
                for (count, word) in [(failed, "failed"), (skipped, "skipped")] {
                    if count > 0 {
                        parts.push(format!("{count} {word}"));
                    }
                }
                if did_build {
                    parts.push(format!("{} read or written", size(bytes)));
                }
                for (count, word) in [
                    (pulled, "pulled"),
                    (pushed, "pushed"),
                    (mounted, "mounted"),
                    (there, "there already"),
                ] {
                    if count > 0 {
                        let mut part = format!("{} {word}", size(count));
                        // On a terminal, they were not told one by one.
                        let wheels = self.transfers.wheels();
                        let is_fancy = matches!(self.show, Show::Fancy(_));
                        if is_fancy && word == "pulled" && wheels > 0 {
                            part.push_str(&format!(" ({wheels} wheels)"));
                        }
                        parts.push(part);
                    }
                }
                if !parts.is_empty() {
                    line(&format!("{}, in {}", parts.join(", "), seconds(elapsed)));
                }
            }
        }
    }
}

impl Events for Progress {
    fn news(&self, news: &News<'_>) {
        match news {
            News::Phase(name) => self.profile.iter().for_each(|it| it.phase(name)),
            News::LockIsTaken => {
                self.say(&format!("another imgdecl is at {}; waiting", lock::FILE));
            }
            News::Resolves(need) => match need.is_reference {
                true => self.say(&format!("resolving {}", need.wanted)),
                false => self.say(&format!("resolving {}", need.target)),
            },
            News::Locked(changes) => {
                self.say(&match changes.is_empty() {
                    true => format!(
                        "{} was brought up to date: nothing else was chosen",
                        lock::FILE
                    ),
                    false => format!("{} was brought up to date:", lock::FILE),
                });
                changes.iter().for_each(|it| self.say(&format!("  {it}")));
            }
            News::Lacks(needs) => explain::lacks(needs).iter().for_each(|it| line(it)),
            News::Ran {
                graph,
                results,
                store,
                workspace,
            } => {
                if self.explains {
                    let lines = explain::keys(graph, results, store, workspace);
                    lines.iter().for_each(|it| line(it));
                }
            }
            News::Unsent { mounted, there } => self.unsent(*mounted, *there),
            News::Unpacks(name) => self.say(&format!("unpacking {name}")),
            News::Over {
                only_if_busy: false,
            } => self.finish(),
            News::Over { only_if_busy: true } => self.close(),
        }
    }
}

impl Watch for Progress {
    fn event(&self, event: &Event<'_>) {
        if let Some(profile) = &self.profile {
            profile.event(event);
        }
        {
            let mut counts = self
                .counts
                .lock()
                .unwrap_or_else(|poison| poison.into_inner());
            match event {
                Event::Progress { bytes, .. } => counts.bytes += bytes,
                // What is but a piece of a target's work is no news.
                Event::Done {
                    detail: Some(_),
                    outcome: Outcome::Built | Outcome::Hit,
                    ..
                } => {}
                Event::Done { node, outcome, .. } => match outcome {
                    Outcome::Built => {
                        counts.built += 1;
                        counts.hit -= u64::from(self.is_counted_as_hit(*node, false));
                    }
                    Outcome::Hit => {
                        counts.hit += u64::from(!self.is_counted_as_hit(*node, true));
                    }
                    Outcome::Failed => counts.failed += 1,
                    Outcome::Skipped => counts.skipped += 1,
                    Outcome::Seen | Outcome::Would => {}
                },
                _ => {}
            }
        }
        match &self.show {
            Show::Fancy(fancy) => fancy.event(event),
            Show::Plain => plain::event(event),
            Show::Json => json_event(event),
            Show::None => {}
        }
    }
}

fn json_event(told: &Event<'_>) {
    let node = |label: &crate::graph::Label, action: &str, number: u32| {
        json!({
            "node": number, "action": action, "rule": label.rule, "target": label.target,
            "platform": label.platform.as_ref().map(ToString::to_string),
        })
    };
    let mut value = match told {
        Event::Start {
            node: id,
            label,
            action,
        } => node(label, action, id.0),
        Event::Done {
            node: id,
            label,
            action,
            detail,
            outcome,
            bytes,
            millis,
        } => {
            let mut value = node(label, action, id.0);
            if let Some(detail) = detail {
                value["detail"] = (*detail).into();
            }
            value["outcome"] = outcome.word().into();
            value["bytes"] = (*bytes).into();
            value["millis"] = (*millis).into();
            value
        }
        Event::Progress { node, bytes } => json!({"node": node.0, "bytes": bytes}),
        Event::Note(text) => json!({"text": text}),
    };
    value["event"] = match told {
        Event::Start { .. } => "start",
        Event::Progress { .. } => "progress",
        Event::Done { .. } => "done",
        Event::Note(_) => "note",
    }
    .into();
    event(&value);
}

/// Writes a line to stderr, as it may be shown. A closed stderr is no reason to fail.
pub(crate) fn line(text: &str) {
    say(&shown::text(text));
}

/// Writes a line to stderr that may have colours of our own: `make` makes it with them, and without. It is written
/// without where something in it looks like more than a text.
pub(crate) fn coloured(has_colours: bool, make: impl Fn(bool) -> String) {
    let plain = make(false);
    match shown::text(&plain) {
        Cow::Borrowed(_) if has_colours => say(&make(true)),
        text => say(&text),
    }
}

/// Writes an event for scripts to stderr.
fn event(value: &serde_json::Value) {
    say(&shown::json(value));
}

fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes data to stdout, as they may be shown.
///
/// # Errors
/// When stdout cannot be written. A reader that went away is no error.
pub(crate) fn data(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(shown::data(text).as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes to stdout what `write` writes: it sees to it that it may be shown.
///
/// # Errors
/// When stdout cannot be written. A reader that went away is no error.
pub(crate) fn stream(write: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes bytes to stdout as they are. Returns whether anyone is there to take more.
///
/// # Errors
/// When stdout cannot be written. A reader that went away is no error.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Opens stdout for bytes as they are.
///
/// # Errors
/// When it is closed.
pub(crate) fn stdout() -> io::Result<File> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(File::from(stdout))
}

/// Tells whether stdout is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Formats data as JSON so that they pass [`data`] unchanged: what a terminal would obey is escaped.
pub(crate) fn json(value: serde_json::Value) -> String {
    shown::json_data(value)
}

/// Formats a text so that everything odd in it can be seen: on one line, with escapes.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match shown::is_obeyed(char) || matches!(char, '\n' | '\t' | '\\') {
            true => out.extend(char.escape_default()),
            false => out.push(char),
        }
    }
    out
}

/// Formats a number of bytes.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Formats a time.
fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_texts_can_be_seen() {
        assert_eq!(visible("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\\nb\\u{202e}");
        let value = json!({"a": "\u{9b}\u{202e}\u{1b}\n"});
        let text = super::json(value.clone());
        assert_eq!(shown::data(&text), text);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1500), "1.5 kB");
        assert_eq!(size(2_000_000_000_000), "2.0 TB");
    }
}
