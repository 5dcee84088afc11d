//! What each reader sees in an archive, in one form.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use imgdecl::parts::tar::{Entries, Kind};

/// What a reader sees of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// All entries: the letter of `ls`, the path, the size.
    All(Vec<(char, String, u64)>),
    /// It says that the archive is wrong.
    Refused,
}

/// Brings a path into one form.
fn path(text: &str) -> String {
    text.trim_end_matches('/').to_owned()
}

pub(super) fn ours(bytes: &[u8]) -> Seen {
    let mut tar = Entries::new(bytes);
    let mut seen = Vec::new();
    loop {
        match tar.next_entry() {
            Ok(None) => return Seen::All(seen),
            Ok(Some(entry)) => {
                let mut content = Vec::new();
                if entry.kind == Kind::File && tar.read_to_end(&mut content).is_err() {
                    return Seen::Refused;
                }
                let text = String::from_utf8_lossy(&entry.path);
                seen.push((entry.kind.letter(), path(&text), content.len() as u64));
            }
            Err(_) => return Seen::Refused,
        }
    }
}

pub(super) fn core(bytes: &[u8]) -> Seen {
    use tar_core::EntryType;
    use tar_core::parse::{ParseEvent, Parser};
    let mut parser = Parser::with_defaults();
    let (mut at, mut seen) = (0usize, Vec::new());
    loop {
        let Some(rest) = bytes.get(at..) else {
            return Seen::Refused;
        };
        let (consumed, entry, size) = match parser.parse(rest) {
            Ok(ParseEvent::End { .. }) => return Seen::All(seen),
            Ok(ParseEvent::NeedData { .. }) if rest.is_empty() => return Seen::All(seen),
            Err(_) | Ok(ParseEvent::NeedData { .. }) => return Seen::Refused,
            Ok(ParseEvent::GlobalExtensions { consumed, .. }) => {
                at += consumed;
                continue;
            }
            Ok(ParseEvent::Entry { consumed, entry }) => {
                let size = entry.size;
                (consumed, entry, size)
            }
            Ok(ParseEvent::SparseEntry {
                consumed,
                entry,
                real_size,
                ..
            }) => (consumed, entry, real_size),
        };
        let (letter, size) = match entry.entry_type {
            EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => ('-', size),
            EntryType::Directory => ('d', 0),
            EntryType::Symlink => ('l', 0),
            EntryType::Link => ('h', 0),
            EntryType::Char => ('c', 0),
            EntryType::Block => ('b', 0),
            EntryType::Fifo => ('p', 0),
            _ => ('?', 0),
        };
        seen.push((letter, path(&entry.path_lossy()), size));
        let left = (bytes.len() - at).saturating_sub(consumed) as u64;
        if entry.size > left {
            return Seen::Refused;
        }
        at += consumed + usize::try_from(entry.padded_size()).unwrap_or(usize::MAX / 2);
        if at > bytes.len() {
            at = bytes.len();
        }
    }
}

/// Lists archives with GNU tar: one process each, all started by one shell.
pub(super) fn gnu(tar: &Path, folder: &Path, count: usize) -> Vec<Seen> {
    let script = r#"
        for number in $(seq -f %05g 0 "$2"); do
            "$1" --list --verbose --numeric-owner --utc --quoting-style=literal --file "$number.tar" \
                > "$number.gnu" 2> /dev/null || echo failed >> "$number.gnu"
        done"#;
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(tar)
        .arg((count - 1).to_string())
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("a shell").success());
    let read = |number: usize| {
        let text = fs::read(folder.join(format!("{number:05}.gnu"))).expect("a list");
        gnu_list(&String::from_utf8_lossy(&text))
    };
    (0..count).map(read).collect()
}

fn gnu_list(text: &str) -> Seen {
    let mut seen = Vec::new();
    for line in text.lines() {
        if line == "failed" {
            return Seen::Refused;
        }
        // Mode, owner, size or numbers of a device, date, time, name.
        let mut words = line.split_whitespace();
        let mode = words.next().unwrap_or_default();
        let size = words.nth(1).unwrap_or_default();
        let rest = words.skip(2).collect::<Vec<&str>>().join(" ");
        let letter = mode.chars().next().unwrap_or('?');
        let (name, size) = match letter {
            'l' => (rest.split(" -> ").next().unwrap_or_default(), 0),
            'h' => (rest.split(" link to ").next().unwrap_or_default(), 0),
            '-' => (&rest[..], size.parse().unwrap_or(u64::MAX)),
            _ => (&rest[..], 0),
        };
        seen.push((letter, path(name), size));
    }
    Seen::All(seen)
}

/// Reads archives with Python's tarfile: one process for all.
pub(super) fn python(interpreter: &Path, folder: &Path, count: usize) -> Vec<Seen> {
    let script = r#"
import sys, tarfile
letters = {tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.LNKTYPE: "h", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
for number in range(int(sys.argv[1])):
    out = []
    try:
        with tarfile.open("%05d.tar" % number, "r:", errors="surrogateescape") as tar:
            for member in tar:
                letter = letters.get(member.type, "-")
                size = 0
                if letter == "-":
                    size = len(tar.extractfile(member).read())
                    if size != member.size:
                        raise tarfile.ReadError("cut short")
                out.append("%s %d %s\n" % (letter, size, member.name))
        text = "".join(out)
    except Exception:
        text = "failed\n"
    with open("%05d.py" % number, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
"#;
    let status = Command::new(interpreter)
        .args(["-c", script, &count.to_string()])
        .current_dir(folder)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("python").success());
    let read = |number: usize| {
        let text = fs::read(folder.join(format!("{number:05}.py"))).expect("a list");
        let text = String::from_utf8_lossy(&text);
        let mut seen = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(3, ' ').collect();
            let [letter, size, name] = words[..] else {
                return Seen::Refused;
            };
            let letter = letter.chars().next().unwrap_or('?');
            seen.push((letter, path(name), size.parse().unwrap_or(u64::MAX)));
        }
        Seen::All(seen)
    };
    (0..count).map(read).collect()
}
