//! The credentials that this process has read, and striking them out of texts.
//!
//! There is one collection for the process, for one reason: what prints is one for the process as well. Standard output
//! and standard error have no owner to whom a collection could be handed, and a place that forgot to hand one on would
//! print a password. Nothing can be read back from it, and it decides nothing but what is shown.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
const STRUCK: &str = "***";
/// From how many bytes on a secret is struck out where it stands alone: shorter ones are in every text.
const ALONE: usize = 4;
/// From how many bytes on it is struck out wherever it stands.
const ANYWHERE: usize = 8;
/// From how many bytes on a piece of a secret is struck out.
const PIECE: usize = 16;
/// How many places of one form are kept where the same eight bytes are.
const SAME: usize = 4;
/// How many secrets are kept. Tokens come anew every few minutes; the oldest ones are no longer good.
const MOST: usize = 200;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// Takes note of a secret: a password or a token. From now on it is struck out of what is shown, as it is and as texts
/// quote it: in base64 (of any alphabet, and within a longer text), in a URL, in JSON, in HTML, in hexadecimal.
///
/// A secret of 8 bytes and more is struck out wherever it stands, one of 4 to 7 where it stands alone: with neither
/// letter nor digit on either side. A shorter one is not, since it is in every text; a [`keep_login`] is still known by
/// both its parts. Of a longer secret, pieces of 16 bytes are struck out as well.
pub(crate) fn keep(secret: &str) {
    kept(|it| it.add(secret, forms(secret)));
}

/// Takes note of a user's name and password, each way they are sent.
pub(crate) fn keep_login(user: &str, password: &str) {
    let pair = format!("{user}:{password}");
    let mut all = forms(password);
    if !password.is_empty() {
        let whole = [
            STANDARD_NO_PAD.encode(&pair),
            URL_SAFE_NO_PAD.encode(&pair),
            percent(&STANDARD_NO_PAD.encode(&pair), false),
            percent(&pair, false),
            pair.clone(),
        ];
        // No pieces of these: the name is none.
        all.extend(whole.map(|text| Form {
            text,
            has_pieces: false,
        }));
    }
    kept(|it| it.add(&pair, all));
}

/// Which secrets are struck out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// All.
    All,
    /// Those that are struck out wherever they stand.
    Long,
}

/// Strikes out secrets that are kept.
pub(super) fn strike(text: &str, which: Which) -> Cow<'_, str> {
    kept(|it| it.strike(text, which))
}

fn kept<T>(use_: impl FnOnce(&mut Kept) -> T) -> T {
    use_(&mut KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How a secret may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    text: String,
    /// A long piece of it is secret, too.
    has_pieces: bool,
}

/// Where eight bytes are: in which form, and at which byte of it.
type Blocks = BTreeMap<[u8; 8], Vec<(usize, usize)>>;

/// What is kept.
struct Kept {
    /// The secrets, each with its forms, oldest first.
    secrets: VecDeque<(String, Vec<Form>)>,
    /// The eight bytes at every eighth place of each form. `None` when something was added since.
    blocks: Option<Blocks>,
    /// All forms.
    forms: Vec<Form>,
}

impl Kept {
    const fn new() -> Self {
        Self {
            secrets: VecDeque::new(),
            blocks: None,
            forms: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, forms: Vec<Form>) {
        if forms.is_empty() || self.secrets.iter().any(|(it, _)| it == name) {
            return;
        }
        if self.secrets.len() == MOST {
            self.secrets.pop_front();
        }
        self.secrets.push_back((name.to_owned(), forms));
        self.blocks = None;
    }

    fn index(&mut self) -> &Blocks {
        let forms = &mut self.forms;
        let secrets = &self.secrets;
        self.blocks.get_or_insert_with(|| {
            *forms = secrets
                .iter()
                .flat_map(|(_, forms)| forms.clone())
                .collect();
            let mut blocks: Blocks = Blocks::new();
            for (number, form) in forms.iter().enumerate() {
                let (chunks, _) = form.text.as_bytes().as_chunks::<8>();
                for (at, chunk) in chunks.iter().enumerate() {
                    let places = blocks.entry(*chunk).or_default();
                    // One that repeats itself is found by its first places.
                    let same = places.iter().rev().take_while(|(it, _)| *it == number);
                    if same.count() < SAME {
                        places.push((number, at * 8));
                    }
                }
            }
            blocks
        })
    }

    fn strike<'a>(&mut self, text: &'a str, which: Which) -> Cow<'a, str> {
        if self.secrets.is_empty() {
            return Cow::Borrowed(text);
        }
        self.index();
        let mut found: Vec<Range<usize>> = Vec::new();
        let blocks = self.blocks.iter();
        let all = text.as_bytes();
        for (at, window) in all.array_windows::<8>().enumerate() {
            for (number, offset) in blocks.clone().filter_map(|it| it.get(window)).flatten() {
                let form = &self.forms[*number];
                let text = form.text.as_bytes();
                // A longer one is found by each of its blocks.
                let (least, most) = match form.has_pieces {
                    true => (text.len().min(PIECE), PIECE),
                    false => (text.len(), text.len()),
                };
                let range = around(all, at, text, *offset, most);
                if range.len() >= least {
                    found.push(range);
                }
            }
        }
        for form in self.forms.iter().filter(|_| which == Which::All) {
            if (ALONE..ANYWHERE).contains(&form.text.len()) {
                let places = text.match_indices(&form.text);
                let ranges = places.map(|(at, it)| at..at + it.len());
                found.extend(ranges.filter(|it| stands_alone(text, it)));
            }
        }
        match found.is_empty() {
            true => Cow::Borrowed(text),
            false => Cow::Owned(without(text, found)),
        }
    }
}

/// Returns how far a text and a form are the same around a place where they are, up to `most` bytes before and after it.
fn around(text: &[u8], at: usize, form: &[u8], offset: usize, most: usize) -> Range<usize> {
    let before = text[..at].iter().rev().zip(form[..offset].iter().rev());
    let before = before.take(most).take_while(|(a, b)| a == b).count();
    let after = text[at..].iter().zip(&form[offset..]);
    let after = after.take(most + 8).take_while(|(a, b)| a == b).count();
    at - before..at + after
}

fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    ![before, after]
        .into_iter()
        .flatten()
        .any(char::is_alphanumeric)
}

/// Leaves ranges out of a text.
fn without(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for range in ranges {
        // A piece may begin or end within a character.
        let start = text.floor_char_boundary(range.start);
        if start >= end {
            out.push_str(&text[end..start]);
            if end == 0 || start > end || !out.ends_with(STRUCK) {
                out.push_str(STRUCK);
            }
        }
        end = end.max(text.ceil_char_boundary(range.end));
    }
    out.push_str(&text[end..]);
    out
}

/// Returns how a secret may be written.
fn forms(secret: &str) -> Vec<Form> {
    if secret.is_empty() {
        return Vec::new();
    }
    let json = serde_json::Value::from(secret).to_string();
    let json = json.trim_matches('"');
    let html = secret
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    let hex: String = secret.bytes().map(|it| format!("{it:02x}")).collect();
    let mut texts = vec![
        secret.to_owned(),
        percent(secret, false),
        percent(secret, true),
        percent(secret, false).replace("%20", "+"),
        json.to_owned(),
        json.replace('/', "\\/"),
        html.replace('\'', "&#x27;"),
        html.replace('\'', "&#39;"),
        hex.to_uppercase(),
        hex,
    ];
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret.as_bytes());
        let first = [0, 2, 3][before];
        // The last digit stands for what follows, too, unless it ends with the secret.
        let last = usize::from(bytes.len() % 3 != 0);
        for mut text in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            text.truncate(text.len() - last);
            let text = text.split_off(first.min(text.len()));
            if text.len() >= ANYWHERE {
                texts.push(percent(&text, false));
                texts.push(percent(&text, true));
                texts.push(text);
            }
        }
    }
    texts.sort();
    texts.dedup();
    let long = texts.into_iter().filter(|it| it.len() >= ALONE);
    let form = |text| Form {
        text,
        has_pieces: true,
    };
    long.map(form).collect()
}

/// Writes a text as a URL holds it (RFC 3986, "Percent-Encoding").
fn percent(text: &str, is_lower: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            _ if is_lower => out.push_str(&format!("%{byte:02x}")),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    fn struck(secrets: &[&str], text: &str) -> String {
        let mut kept = Kept::new();
        secrets.iter().for_each(|it| kept.add(it, forms(it)));
        kept.strike(text, Which::All).into_owned()
    }

    #[test]
    fn secrets_are_struck_out_however_they_are_written() {
        let secret = "p\"ä /+?=&'<\\Zq81";
        let json = serde_json::Value::from(secret).to_string();
        for (text, expected) in [
            (secret.to_owned(), "***"),
            (json, "\"***\""),
            (percent(secret, false), "***"),
            (percent(secret, true), "***"),
            (percent(secret, false).replace("%20", "+"), "***"),
            (format!("x{secret}y{secret}"), "x***y***"),
            (format!("{secret}{secret}"), "***"),
        ] {
            assert_eq!(struck(&[secret], &text), expected, "{text}");
        }
        // Within the base64 of more, a few characters beside it are left.
        for before in ["", "a", "ab", "abc", "abcd"] {
            let text = format!("{before}{secret}xyz");
            for text in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
                let found = struck(&[secret], &format!("Basic {text}."));
                assert!(found.contains("***") && found.len() < 22, "{found}");
            }
        }
    }

    #[test]
    fn short_secrets_do_not_eat_texts() {
        assert_eq!(struck(&["a"], "a banana"), "a banana");
        assert_eq!(
            struck(&["pass"], "pass:pass, password"),
            "***:***, password"
        );
        assert_eq!(struck(&["password"], "my passwords"), "my ***s");
        assert_eq!(struck(&[""], "a banana"), "a banana");
    }

    #[test]
    fn long_pieces_are_struck_out() {
        let secret = "0123456789abcdefghijklmnopqrstuvwxyz";
        for start in 0..secret.len() - 15 {
            let text = format!("<{}>", &secret[start..start + 16]);
            assert_eq!(struck(&[secret], &text), "<***>", "{text}");
            let text = format!("<{}>", &secret[start..start + 7]);
            assert_eq!(struck(&[secret], &text), text);
        }
        let secret = "ääääääääääää0123456";
        let many = "a".repeat(5000);
        assert_eq!(struck(&[&many], &format!("<{many}{many}>")), "<***>");
        assert_eq!(struck(&[secret], &format!("ö{}ö", &secret[2..])), "ö***ö");
    }

    #[test]
    fn a_login_is_known_by_both_its_parts() {
        let mut kept = Kept::new();
        let (user, password) = ("a-robot-with-a-long-name", "pw");
        let pair = format!("{user}:{password}");
        let whole = Form {
            text: STANDARD_NO_PAD.encode(&pair),
            has_pieces: false,
        };
        kept.add(&pair, vec![whole]);
        let text = format!("{} is {user}", STANDARD.encode(&pair));
        let expected = format!("*** is {user}");
        assert_eq!(
            kept.strike(&text, Which::All).trim_end_matches('='),
            expected
        );
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut kept = Kept::new();
        let name = |number: usize| format!("secret-{number:05}");
        for number in 0..MOST + 10 {
            kept.add(&name(number), forms(&name(number)));
        }
        assert_eq!(kept.secrets.len(), MOST);
        assert_eq!(kept.strike(&name(MOST), Which::All), "***");
        assert_eq!(kept.strike(&name(3), Which::All), name(3));
    }
}
