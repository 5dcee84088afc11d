//! PAX records (POSIX.1-2017, pax, "pax Extended Header"): `LENGTH KEY=VALUE\n`, where the length counts itself and the
//! line feed, so that a value may hold any byte.

use std::collections::BTreeMap;

/// What the key of an extended attribute begins with.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one header.
#[derive(Default)]
pub(super) struct Records {
    /// The path of the entry.
    pub(super) path: Option<Vec<u8>>,
    /// The target of a link.
    pub(super) link: Option<Vec<u8>>,
    /// The size of what follows, in bytes.
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) user: Option<Vec<u8>>,
    pub(super) group: Option<Vec<u8>>,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: Option<(i64, u32)>,
    /// All but `path`, `linkpath`, `size` and `GNU.sparse.*`, as they are written.
    pub(super) all: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What GNU tar says of a sparse file, but for its map: by the end of the key.
    pub(super) sparse: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The map of a sparse file, where records hold it: numbers, offset and length in turn (forms 0.0 and 0.1).
    pub(super) map: Option<Vec<u64>>,
}

impl Records {
    /// Parses the records of a header.
    ///
    /// # Errors
    /// Says what is wrong, to follow upon the name of the entry.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut records = Self::default();
        for record in each(bytes) {
            let (key, value) = record?;
            records.add(key, value)?;
        }
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let bad = || format!("whose PAX record `{}` is damaged", key.escape_ascii());
        let number = || digits(value).ok_or_else(bad);
        let text = || {
            (!value.contains(&0))
                .then(|| value.to_vec())
                .ok_or_else(bad)
        };
        if key.contains(&0) {
            return Err(bad());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.add_sparse(name, value).ok_or_else(bad);
        }
        let is_attribute = key.starts_with(XATTR);
        if key == XATTR {
            return Err(bad());
        }
        if value.is_empty() && !is_attribute {
            self.forget(key);
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(text()?),
            b"linkpath" => self.link = Some(text()?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"uname" => self.user = Some(text()?),
            b"gname" => self.group = Some(text()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            _ => {}
        }
        if !matches!(key, b"path" | b"linkpath" | b"size") {
            self.all.insert(key.to_vec(), value.to_vec());
        }
        Ok(())
    }

    /// Takes an earlier record back: an empty value stands for none.
    fn forget(&mut self, key: &[u8]) {
        match key {
            b"path" => self.path = None,
            b"linkpath" => self.link = None,
            b"size" => self.size = None,
            b"uid" => self.uid = None,
            b"gid" => self.gid = None,
            b"uname" => self.user = None,
            b"gname" => self.group = None,
            b"mtime" => self.mtime = None,
            _ => {}
        }
        self.all.remove(key);
    }

    /// Adds a record of a sparse file.
    fn add_sparse(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(digits);
                self.map = Some(match value {
                    b"" => Vec::new(),
                    _ => numbers.collect::<Option<_>>()?,
                });
            }
            // Form 0.0 has a pair of records for each piece of data.
            b"offset" | b"numbytes" => {
                let map = self.map.get_or_insert_default();
                let is_offset = map.len().is_multiple_of(2);
                if (name == b"offset") != is_offset {
                    return None;
                }
                map.push(digits(value)?);
            }
            _ if value.contains(&0) => return None,
            _ => {
                self.sparse.insert(name.to_vec(), value.to_vec());
            }
        }
        Some(())
    }
}

/// Returns the keys of records that change what an entry is: a reader that heeds them for all entries sees other ones.
pub(super) fn telling_keys(bytes: &[u8]) -> Vec<Vec<u8>> {
    const TELLING: [&[u8]; 8] = [
        b"path",
        b"linkpath",
        b"size",
        b"uid",
        b"gid",
        b"uname",
        b"gname",
        b"mtime",
    ];
    let keys = each(bytes).map_while(Result::ok).map(|(key, _)| key);
    let telling = keys.filter(|key| {
        TELLING.contains(key) || key.starts_with(XATTR) || key.starts_with(b"GNU.sparse.")
    });
    telling.map(<[u8]>::to_vec).collect()
}

/// Takes records apart: keys and values.
fn each(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), String>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let next = split(bytes);
        bytes = next.map_or(&b""[..], |(_, _, rest)| rest);
        let broken = || "whose PAX records are damaged".to_owned();
        Some(next.map(|(key, value, _)| (key, value)).ok_or_else(broken))
    })
}

/// Takes the first record off: its key, its value, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    match equals {
        0 => None,
        _ => Some((&record[..equals], &record[equals + 1..], &bytes[length..])),
    }
}

/// Reads a decimal number of digits alone.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value = is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?;
    // Other readers hold it in a signed number.
    value.filter(|value| i64::try_from(*value).is_ok())
}

/// Parses seconds with a fraction, as `-1.5`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(digits(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| u32::from(fraction.get(at).map_or(0, |byte| byte - b'0'));
    let nanos = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    Some(match (negative, nanos) {
        (false, nanos) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, nanos) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::record;
    use super::*;

    fn parse(records: &[(&str, &[u8])]) -> Result<Records, String> {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key.as_bytes(), value))
            .collect();
        Records::parse(&bytes)
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_an_empty_one_takes_it_back() {
        let records = parse(&[
            ("size", b"1"),
            ("size", b"2"),
            ("path", b"a"),
            ("path", b""),
        ]);
        let records = records.unwrap();
        assert_eq!((records.size, records.path), (Some(2), None));
    }

    #[test]
    fn values_may_hold_any_byte() {
        let value = b"a\n20 path=elsewhere\n\0\xff";
        let records = parse(&[("SCHILY.xattr.user.x", value), ("comment", b"\n")]).unwrap();
        assert_eq!(records.all[&b"SCHILY.xattr.user.x"[..]], value);
        assert_eq!(records.path, None);
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in [
            &b"7 path=a\n"[..],
            b"99 path=a\n",
            b"9 path=a ",
            b"5 =a\n",
            b"6 pat\n",
            b"x path=a\n",
            b"18446744073709551616 path=a\n",
            b"0 path=a\n",
        ] {
            assert!(Records::parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        for (key, value) in [
            ("path", &b"a\0b"[..]),
            ("size", b"-1"),
            ("size", b" 1"),
            ("size", b"+1"),
            ("size", b"9223372036854775808"),
            ("mtime", b"1e3"),
            ("uid", b"x"),
            ("SCHILY.xattr.", b"x"),
            ("GNU.sparse.map", b"1,x"),
            ("GNU.sparse.numbytes", b"1"),
        ] {
            assert!(parse(&[(key, value)]).is_err(), "{key}");
        }
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-100"), Some((-100, 0)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-"), None);
    }

    #[test]
    fn keys_that_tell_what_an_entry_is() {
        let bytes = [
            record(b"comment", b"x"),
            record(b"mtime", b"1"),
            record(b"SCHILY.xattr.user.a", b""),
        ];
        let keys = telling_keys(&bytes.concat());
        assert_eq!(keys, [&b"mtime"[..], b"SCHILY.xattr.user.a"]);
    }
}
