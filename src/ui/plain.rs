//! Plain lines: one for each action that ran, for logs and for people without a terminal.

use std::time::Duration;

use super::{line, seconds, size};
use crate::exec::{Event, Outcome};

pub(super) fn event(event: &Event<'_>) {
    match event {
        Event::Done { .. } => {
            if let Some(text) = done(event) {
                line(&text);
            }
        }
        Event::Note(text) => line(text),
        Event::Start { .. } | Event::Progress { .. } => {}
    }
}

/// Returns the line about an action that ran; `None` for those of no interest.
pub(super) fn done(event: &Event<'_>) -> Option<String> {
    let Event::Done {
        label,
        action,
        detail,
        outcome,
        bytes,
        millis,
        ..
    } = event
    else {
        return None;
    };
    let is_news = matches!(outcome, Outcome::Built) && detail.is_none();
    if !is_news && *outcome != Outcome::Failed {
        return None;
    }
    let mut text = format!("{:<7} {action:<6} {label}", outcome.word());
    if *bytes > 0 {
        text.push_str(&format!("  {}", size(*bytes)));
    }
    if *millis > 0 {
        text.push_str(&format!("  {}", seconds(Duration::from_millis(*millis))));
    }
    Some(text)
}
