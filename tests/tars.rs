//! The reader of tar beside others: GNU tar, Python's `tarfile`, the crate `tar-core`, and umoci, which reads with Go's
//! `archive/tar`. They read generated archives, most of them odd. Where another one sees other entries, the oddity that
//! explains it stands in a table; what no table explains fails.

mod built;
mod generate;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use self::generate::{Odd, generate};
use self::readers::{Seen, core, gnu, ours, python};
use crate::support::{Random, Space, peer};
use crate::unpack::{list, unpack_layer};

/// How many archives are read.
const ARCHIVES: usize = 10_000;
/// How many of them umoci unpacks, too: it takes a process and an image for each.
const UNPACKED: usize = 250;

/// Who reads an oddity in another way, and why that is no fault of ours.
struct Known {
    reader: &'static str,
    odd: Odd,
    why: &'static str,
}

const fn known(reader: &'static str, odd: Odd, why: &'static str) -> Known {
    Known { reader, odd, why }
}

/// What is left of differences.
const KNOWN: &[Known] = &[
    known("python", Odd::Label, "takes labels for files"),
    known(
        "umoci",
        Odd::OldSparse,
        "reads it, and then does not know its type",
    ),
    known("umoci", Odd::SlashOfFile, "does not know the type `7`"),
    known(
        "python",
        Odd::BadNumber,
        "takes `+7` and `0o7`, and ends without a word at what it cannot read",
    ),
    known("python", Odd::BadChecksum, "ends without a word"),
    known(
        "python",
        Odd::BadRecord,
        "ends without a word, or passes over the record",
    ),
    known(
        "python",
        Odd::RepeatedHeader,
        "the first long name counts, and records of two headers are merged",
    ),
    known("python", Odd::HeaderAtEnd, "wants an entry behind it"),
    known("python", Odd::GlobalRecords, "applies them to all entries"),
    known("python", Odd::TwoNames, "the header that stands first wins"),
    known(
        "python",
        Odd::OtherType,
        "takes all types that it does not know for files",
    ),
    known("python", Odd::LoneZeros, "ends there"),
    known(
        "python",
        Odd::SlashOfFile,
        "knows folders of V7 by the type NUL alone",
    ),
    known(
        "python",
        Odd::CutShort,
        "ends without a word within a header",
    ),
    known(
        "python",
        Odd::Prefix,
        "reads the prefix field of any header",
    ),
    known("python", Odd::BadSparse, "does not check its map"),
    known(
        "python",
        Odd::Sized,
        "takes the size of a PAX record for entries without content, too",
    ),
    known(
        "python",
        Odd::PrefixOfGnu,
        "puts the prefix before the name",
    ),
    known(
        "gnu",
        Odd::PrefixOfGnu,
        "keeps times there, and does not look at them here",
    ),
    known("gnu", Odd::CutShort, "wants a whole last block"),
    known("core", Odd::PrefixOfGnu, "does not look at it"),
    known("core", Odd::V7Folder, "leaves it a file"),
    known("core", Odd::EarlyTime, "refuses it"),
    known("gnu", Odd::BadNumber, "warns and guesses"),
    known("gnu", Odd::BadRecord, "warns and passes over the record"),
    known("gnu", Odd::GlobalRecords, "applies them to all entries"),
    known("gnu", Odd::TwoNames, "the name of PAX wins"),
    known(
        "gnu",
        Odd::OtherType,
        "lists all types that it does not know as files",
    ),
    known("gnu", Odd::LoneZeros, "ends there, with a warning"),
    known("gnu", Odd::Label, "lists labels"),
    known(
        "gnu",
        Odd::BadChecksum,
        "passes on to the next header that is sound",
    ),
    known("gnu", Odd::RepeatedSize, "the last header counts alone"),
    known(
        "gnu",
        Odd::SlashOfFile,
        "passes over content of a file whose name ends in a slash",
    ),
    known("gnu", Odd::BadSparse, "does not check all of its map"),
    known(
        "gnu",
        Odd::Sized,
        "passes over so many bytes behind symlinks, folders and devices",
    ),
    known("core", Odd::BadNumber, "takes less for a number"),
    known("core", Odd::RepeatedHeader, "refuses it"),
    known("core", Odd::HeaderAtEnd, "refuses it"),
    known(
        "core",
        Odd::BadRecord,
        "reads records one by one, and some never",
    ),
    known("core", Odd::TwoNames, "the name of PAX wins"),
    known("core", Odd::OtherType, "hands out all types"),
    known("core", Odd::LoneZeros, "passes over it"),
    known("core", Odd::Label, "hands them out"),
    known("core", Odd::SlashOfFile, "leaves it a file"),
    known(
        "core",
        Odd::Sized,
        "passes over so many bytes behind any entry",
    ),
    known("core", Odd::Prefix, "wants the version of ustar"),
    known("core", Odd::BadSparse, "does not check its map"),
    known("core", Odd::EmptyName, "refuses it"),
    known("core", Odd::CutShort, "wants a whole last block"),
    known(
        "umoci",
        Odd::GlobalComment,
        "unpacks no global records; containerd passes over them",
    ),
    known(
        "umoci",
        Odd::GlobalRecords,
        "unpacks no global records; containerd passes over them",
    ),
    known("umoci", Odd::Label, "unpacks no label"),
    known("umoci", Odd::CutShort, "wants a whole last block"),
    known(
        "umoci",
        Odd::EmptyName,
        "unpacks no file for the root; containerd passes over it",
    ),
];

/// What we refuse although Go reads it: GNU tar sees something else there.
const REFUSED: &[Odd] = &[
    Odd::BadNumber,
    Odd::TwoNames,
    Odd::RepeatedSize,
    Odd::SlashOfFile,
    Odd::PrefixOfGnu,
];

/// Tells whether one of the archive's oddities explains that a reader sees something else.
fn explains(reader: &str, odds: &BTreeSet<Odd>) -> Option<Odd> {
    let known = KNOWN.iter().filter(|it| it.reader == reader);
    known.map(|it| it.odd).find(|odd| odds.contains(odd))
}

#[test]
fn generated_archives_are_read_as_other_readers_do() {
    let (Some(tar), Some(interpreter)) = (peer("tar"), peer("python3")) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Random(0x7a72);
    let archives: Vec<(Vec<u8>, BTreeSet<Odd>)> =
        (0..ARCHIVES).map(|_| generate(&mut random)).collect();
    for (number, (bytes, _)) in archives.iter().enumerate() {
        fs::write(folder.path().join(format!("{number:05}.tar")), bytes).expect("an archive");
    }
    let seen_by_gnu = gnu(&tar, folder.path(), ARCHIVES);
    let seen_by_python = python(&interpreter, folder.path(), ARCHIVES);
    let mut unexplained = Vec::new();
    let mut used: BTreeMap<(&str, Odd), usize> = BTreeMap::new();
    let mut equal: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, (bytes, odds)) in archives.iter().enumerate() {
        let own = ours(bytes);
        for (reader, seen) in [
            ("gnu", &seen_by_gnu[number]),
            ("python", &seen_by_python[number]),
            ("core", &core(bytes)),
        ] {
            if *seen == own {
                *equal.entry(reader).or_default() += 1;
                continue;
            }
            match explains(reader, odds) {
                Some(odd) => *used.entry((reader, odd)).or_default() += 1,
                None => unexplained.push(format!(
                    "{number:05} {reader}: {odds:?}\n  ours:  {own:?}\n  there: {seen:?}"
                )),
            }
        }
    }
    for Known { reader, odd, why } in KNOWN {
        let count = used.get(&(*reader, *odd)).copied().unwrap_or(0);
        eprintln!("{reader:>6} {odd:?}: {why} ({count} times the first reason)");
    }
    eprintln!("equal: {equal:?} of {ARCHIVES}");
    assert!(
        unexplained.is_empty(),
        "{} of {ARCHIVES} archives:\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(12)].join("\n")
    );
    // Most archives are read alike, odd or not.
    for reader in ["gnu", "python", "core"] {
        assert!(equal[reader] > ARCHIVES / 2, "{reader}: {equal:?}");
    }
}

#[test]
fn sound_archives_are_never_refused() {
    let mut random = Random(0x1234);
    let mut sound = 0;
    for _ in 0..ARCHIVES {
        let (bytes, odds) = generate(&mut random);
        if odds.is_empty() {
            sound += 1;
            assert!(matches!(ours(&bytes), Seen::All(_)));
        }
    }
    assert!(sound > ARCHIVES / 10, "{sound}");
}

/// What umoci unpacks is unpacked to the same.
#[test]
fn generated_layers_are_unpacked_as_umoci_does() {
    let Some(umoci) = peer("umoci") else { return };
    let mut random = Random(0x600d);
    let mut wrong = Vec::new();
    let (mut both, mut none) = (0, 0);
    for number in 0..UNPACKED {
        let (bytes, odds) = generate(&mut random);
        let space = Space::new();
        let (own, theirs) = unpack_layer(&space, &umoci, bytes);
        match (own, theirs) {
            (Ok(()), Ok(root)) => {
                both += 1;
                let (a, b) = (list(&space.path().join("out")), list(&root));
                let names =
                    |list: &BTreeMap<_, String>| -> Vec<_> { list.keys().cloned().collect() };
                if names(&a) != names(&b) {
                    wrong.push(format!("{number} {odds:?}:\n  {a:#?}\n  {b:#?}"));
                }
            }
            (Err(_), Err(_)) => none += 1,
            (Ok(()), Err(_)) if explains("umoci", &odds).is_some() => {}
            (Ok(()), Err(error)) => {
                wrong.push(format!("{number} {odds:?}: umoci refuses it: {error}"))
            }
            (Err(_), Ok(_)) if REFUSED.iter().any(|odd| odds.contains(odd)) => {}
            (Err(error), Ok(_)) => wrong.push(format!("{number} {odds:?}: we refuse it: {error}")),
        }
    }
    eprintln!("unpacked by both: {both}, by none: {none}, of {UNPACKED}");
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(8)].join("\n")
    );
    assert!(both > UNPACKED / 3, "{both}");
}
