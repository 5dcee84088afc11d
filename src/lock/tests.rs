//! Tests of the lock, with a pin of their own.

use super::*;
use crate::oci::Digest;
use serde::{Deserialize, Serialize};

/// A pin of one word.
#[derive(PartialEq, Debug)]
struct Word(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordEntry {
    word: String,
    seal: Digest,
    more: BTreeMap<String, u8>,
}

impl Pin for Word {
    const RULE: &'static str = "word";

    type Entry = WordEntry;

    fn entry(&self) -> WordEntry {
        WordEntry {
            word: self.0.clone(),
            seal: Digest::of(b""),
            more: BTreeMap::from([("length".to_owned(), self.0.len() as u8)]),
        }
    }

    fn of_entry(entry: WordEntry) -> Option<Self> {
        (entry.more["length"] as usize == entry.word.len()).then_some(Self(entry.word))
    }

    fn seal(entry: &mut WordEntry) -> &mut Digest {
        &mut entry.seal
    }

    fn sealed(entry: &WordEntry) -> Vec<u8> {
        entry.word.clone().into_bytes()
    }

    fn changes(moves: &[Move<'_, Self>]) -> Vec<String> {
        let text = |pin: Option<&Self>| pin.map_or("-", |it| &it.0).to_owned();
        let moves = moves.iter().filter(|it| it.was != it.is);
        let line = |it: &Move<'_, Self>| format!("{} {} {}", it.target, text(it.was), text(it.is));
        moves.map(line).collect()
    }
}

/// The same, of another rule.
#[derive(PartialEq, Debug)]
struct Another(Word);

impl Pin for Another {
    const RULE: &'static str = "another";

    type Entry = WordEntry;

    fn entry(&self) -> WordEntry {
        self.0.entry()
    }

    fn of_entry(entry: WordEntry) -> Option<Self> {
        Word::of_entry(entry).map(Self)
    }

    fn seal(entry: &mut WordEntry) -> &mut Digest {
        Word::seal(entry)
    }

    fn sealed(entry: &WordEntry) -> Vec<u8> {
        Word::sealed(entry)
    }

    fn changes(_: &[Move<'_, Self>]) -> Vec<String> {
        vec!["another".to_owned()]
    }
}

const FORMS: [&dyn Form; 2] = [FormOf::<Word>::FORM, FormOf::<Another>::FORM];

fn word(word: &str) -> Word {
    Word(word.to_owned())
}

fn example() -> Lock {
    let mut lock = Lock::default();
    lock.put("m:b".to_owned(), word("two"));
    lock.put("a".to_owned(), word("one"));
    lock.put("z".to_owned(), Another(word("three")));
    lock
}

#[test]
fn text_round_trip() {
    let text = example().to_text();
    let heads: Vec<&str> = text.lines().filter(|it| it.starts_with('[')).collect();
    let expected = [
        "[another.z]",
        "[another.z.more]",
        "[word.a]",
        "[word.a.more]",
        "[word.\"m:b\"]",
        "[word.\"m:b\".more]",
    ];
    assert_eq!(heads, expected);
    assert!(text.contains("version = 1\n\n[another.z]\n"), "{text}");
    assert!(text.contains("length = 5\n\n[word.a]\n"), "{text}");
    let parsed = Lock::parse(&text, &FORMS).unwrap();
    assert_eq!(parsed, example());
    assert_eq!(parsed.to_text(), text);
    let none = Lock::default();
    assert_eq!(Lock::parse(&none.to_text(), &FORMS).unwrap(), none);
    assert_ne!(parsed, none);
}

#[test]
fn pins_are_found_by_kind_and_target() {
    let mut lock = example();
    assert_eq!(lock.get::<Word>("a"), Some(&word("one")));
    assert_eq!(lock.get::<Another>("a"), None);
    assert!(lock.has("another", "z") && !lock.has("word", "z"));
    let all: Vec<&str> = lock.all::<Word>().map(|(_, it)| &*it.0).collect();
    assert_eq!(all, ["one", "two"]);
    lock.retain(&["z".to_owned()].into_iter().collect());
    assert!(lock.get::<Word>("a").is_none() && !lock.is_empty());
    lock.retain(&BTreeSet::new());
    assert!(lock.is_empty());
    assert_eq!(lock, Lock::default());
}

#[test]
fn edits_conflicts_and_other_versions_are_told() {
    let text = example().to_text();
    let error = |text: &str| Lock::parse(text, &FORMS).unwrap_err();
    let edited = text.replace("\"two\"", "\"owt\"");
    let told = error(&edited);
    assert_eq!(
        told.to_string(),
        "the entry of `m:b` in image.lock was edited"
    );
    assert_eq!(&edited[told.span], "[word.\"m:b\"]");
    // It is sealed, but makes no sense.
    let senseless = text.replacen("length = 3", "length = 9", 1);
    assert!(
        error(&senseless)
            .to_string()
            .contains("`a` in image.lock was edited")
    );
    let torn = text.replace("[word.a]", "<<<<<<< ours\n[word.a]\n=======");
    assert!(error(&torn).to_string().contains("merge conflict"));
    let newer = error(&text.replace("version = 1", "version = 2"));
    assert!(newer.to_string().contains("version 2"));
    let unknown = "version = 1\n[words.x]\n";
    let told = error(unknown);
    assert_eq!(
        told.to_string(),
        "image.lock cannot be read: unknown field `words`, expected one of `version`, `word`, `another`"
    );
    assert_eq!(&unknown[told.span], "words");
    assert!(
        error("version = 1\nword = 3")
            .to_string()
            .contains("invalid type")
    );
    let missing = error("version = 1\n[word.x]\nword = \"y\"").to_string();
    assert!(missing.ends_with("missing field `seal`"), "{missing}");
    assert!(
        error("[word]\n")
            .to_string()
            .ends_with("missing field `version`")
    );

    let left = Lock::parse_without_edited(&edited, &FORMS).unwrap();
    assert_eq!(left.all::<Word>().count(), 1);
    assert!(left.has("another", "z"));
    assert!(Lock::parse_without_edited(&torn, &FORMS).is_err());
}

#[test]
fn says_what_moved_by_rule() {
    let old = example();
    let mut new = old.clone();
    new.put("a".to_owned(), word("won"));
    new.retain(&["a", "m:b"].map(str::to_owned).into_iter().collect());
    assert_eq!(changes(&old, &new), ["another", "a one won"]);
    let all = changes(&Lock::default(), &old);
    assert_eq!(all, ["another", "a - one", "m:b - two"]);
}
