//! How long the pages of an index are believed without asking again: as long as the index itself says (RFC 9111). Knows no
//! page.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// How long a page is believed at most, in seconds, whatever its index says.
const LONGEST: u64 = 24 * 60 * 60;

/// Whether pages may be believed without asking.
#[derive(Default)]
pub(super) struct Freshness {
    /// Whether every index is asked, whatever it said before.
    is_anew: AtomicBool,
    /// Whether an index was not asked since it had said that it need not be.
    is_spared: AtomicBool,
}

impl Freshness {
    pub(super) fn new(is_anew: bool) -> Self {
        Self {
            is_anew: AtomicBool::new(is_anew),
            is_spared: AtomicBool::default(),
        }
    }

    /// Tells whether every index is asked.
    pub(super) fn is_anew(&self) -> bool {
        self.is_anew.load(Ordering::Relaxed)
    }

    /// Has every index asked from now on; tells whether one was not asked so far.
    pub(super) fn ask_anew(&self) -> bool {
        self.is_anew.store(true, Ordering::Relaxed);
        self.is_spared.load(Ordering::Relaxed)
    }

    /// Tells whether a page need not be asked for, and remembers that it was not.
    pub(super) fn spares(&self, span: Option<&Span>) -> bool {
        let spares = !self.is_anew() && span.is_some_and(|it| it.holds(now()));
        if spares {
            self.is_spared.store(true, Ordering::Relaxed);
        }
        spares
    }
}

/// For how long an index says that a page is fresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Span {
    /// When it said so, in seconds since 1970.
    from: u64,
    /// For how many seconds.
    seconds: u64,
}

impl Span {
    /// Reads what an answer says of itself; `None` where it says nothing, or that it is to be asked for each time.
    pub(super) fn said(cache_control: Option<&str>, age: Option<&str>) -> Option<Self> {
        let seconds = max_age(cache_control?)?;
        let age = age.map_or(Some(0), |it| it.trim().parse().ok())?;
        let seconds = seconds.min(LONGEST).checked_sub(age)?;
        let from = now();
        (seconds > 0).then_some(Self { from, seconds })
    }

    /// Tells whether a time lies in it. A clock that was set back ends it.
    fn holds(&self, now: u64) -> bool {
        let past = now.checked_sub(self.from);
        past.is_some_and(|it| it < self.seconds)
    }
}

/// Returns `max-age` of `Cache-Control`; `None` without one, or where something else forbids to go by it.
fn max_age(text: &str) -> Option<u64> {
    let mut found = None;
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return None,
            // Of two the shorter.
            "max-age" => {
                let seconds: u64 = value.parse().ok()?;
                found = Some(found.map_or(seconds, |it: u64| it.min(seconds)));
            }
            _ => {}
        }
    }
    found
}

/// Returns the time in seconds since 1970.
fn now() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long an index calls its page fresh decides whether it is asked again"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH);
    since.map_or(0, |it| it.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_how_long_its_page_is_fresh() {
        let seconds =
            |text: &str, age: Option<&str>| Span::said(Some(text), age).map(|it| it.seconds);
        for (text, age, expected) in [
            ("max-age=600", None, Some(600)),
            ("Public, Max-Age=\"600\", must-revalidate", None, Some(600)),
            ("max-age=600", Some("599"), Some(1)),
            ("max-age=600", Some("600"), None),
            ("max-age=600", Some("601"), None),
            ("max-age=600", Some("x"), None),
            ("max-age=600, max-age=5", None, Some(5)),
            ("max-age=99999999", None, Some(LONGEST)),
            ("max-age=0", None, None),
            ("max-age=x", None, None),
            ("max-age", None, None),
            ("max-age=600, no-cache", None, None),
            ("no-store, max-age=600", None, None),
            ("s-maxage=600", None, None),
            ("", None, None),
        ] {
            assert_eq!(seconds(text, age), expected, "{text} {age:?}");
        }
        assert_eq!(Span::said(None, None), None);
    }

    #[test]
    fn freshness_ends() {
        let span = Span {
            from: 100,
            seconds: 10,
        };
        let holds = [99, 100, 109, 110].map(|now| span.holds(now));
        assert_eq!(holds, [false, true, true, false]);
        let fresh = Freshness::new(false);
        assert!(!fresh.spares(None) && !fresh.spares(Some(&span)));
        let own = Span::said(Some("max-age=600"), None);
        assert!(!Freshness::new(true).spares(own.as_ref()));
        assert!(fresh.spares(own.as_ref()) && fresh.ask_anew());
        assert!(!fresh.spares(own.as_ref()) && fresh.is_anew());
        assert!(!Freshness::new(false).ask_anew());
    }
}
