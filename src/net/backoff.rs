//! How long to wait before the next try, and how often to try. Knows no clock but the one that counts a wait.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::Limits;

/// The tries of one request.
pub(crate) struct Backoff<'a> {
    limits: &'a Limits,
    most: u32,
    /// How often it was tried.
    pub(crate) tries: u32,
    /// How long was waited between tries.
    pub(crate) waited: Duration,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(limits: &'a Limits, most: u32) -> Self {
        Self {
            limits,
            most,
            tries: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts a failed try and returns how long to wait before the next; `None` if it was the last.
    pub(crate) fn again(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= self.most {
            return None;
        }
        let doubled = self.limits.backoff * 2_u32.pow((self.tries - 1).min(10));
        // Between half and all of it, so that many clients do not come back at once.
        let jittered = doubled / 2 + doubled.mul_f64(chance() / 2.0);
        let wait = match asked {
            Some(asked) => asked.min(self.limits.retry_after).max(jittered),
            None => jittered,
        };
        if self.waited + wait > self.limits.total {
            return None;
        }
        self.waited += wait;
        Some(wait)
    }
}

/// Returns a number between 0 and 1. It decides nothing but how long is waited.
fn chance() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// Tells whether the same request may be answered otherwise the next time.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=524
    )
}

/// Returns how long the host asks to wait (RFC 9110, 10.2.3). A date counts from the `Date` of the same answer, so that
/// this machine's clock plays no part.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = date(headers.get(DATE)?.to_str().ok()?)?;
    date(text)?.duration_since(now).ok()
}

/// Parses a date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn date(text: &str) -> Option<std::time::SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            backoff: Duration::from_secs(1),
            retry_after: Duration::from_secs(60),
            total: Duration::from_secs(100),
            ..Limits::default()
        }
    }

    #[test]
    fn waits_double_and_end() {
        let limits = limits();
        let mut backoff = Backoff::new(&limits, 4);
        for seconds in [1.0, 2.0, 4.0] {
            let wait = backoff.again(None).unwrap().as_secs_f64();
            assert!((seconds / 2.0..=seconds).contains(&wait), "{wait}");
        }
        assert_eq!(backoff.again(None), None);
        assert_eq!(backoff.tries, 4);
    }

    #[test]
    fn what_the_host_asks_is_capped() {
        let limits = limits();
        let mut backoff = Backoff::new(&limits, 10);
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(backoff.again(hour), Some(Duration::from_secs(60)));
        // A second minute would exceed the total.
        assert_eq!(backoff.again(hour), None);
        assert_eq!(backoff.waited, Duration::from_secs(60));
    }

    #[test]
    fn reads_seconds_and_dates() {
        let headers = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            headers
        };
        let read = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs));
        assert_eq!(
            read(&[("retry-after", " 7 ")]),
            Some(Duration::from_secs(7))
        );
        assert_eq!(read(&[("retry-after", "soon")]), None);
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(read(&[later]), None);
        let dated = [later, ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(read(&dated), Some(Duration::from_secs(60)));
        let past = [later, ("date", "Mon, 07 Nov 1994 08:49:37 GMT")];
        assert_eq!(read(&past), None);
    }
}
