//! A dry run of a new sink: a toy that is named, checked, fed and reported as the true ones are, by the same code.

use std::fs;

use super::build::{Request, build};
use super::testing::session;
use super::{Failed, Session};
use crate::output::{Output, OutputError, Word, metadata};

const MANIFEST: &str = r#"
[image.two]
base = "scratch"
layers = [{ files = { text = { "/two" = "two" } } }]
platforms = ["linux/amd64", "linux/arm64"]
user = "7"

[image.one]
base = "scratch"
layers = [{ files = { text = { "/one" = "one" } } }]
"#;

fn to(session: &Session, words: &[&str]) -> Result<Vec<Output>, Failed> {
    let outputs = words.iter().map(|word| word.parse().unwrap()).collect();
    let request = Request {
        outputs,
        ..Request::default()
    };
    build(session, &request)
}

#[test]
fn a_toy_is_written_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let (session, ear) = session(folder.path());
    fs::write(folder.path().join("image.toml"), MANIFEST).unwrap();
    let images = to(&session, &["toy:list", "oci:out"]).unwrap();
    let digest = |name: usize, at: usize| images[name].images()[at].1.manifest.digest;
    let expected = format!(
        "a list of imgdecl\none linux/amd64 root {}\ntwo linux/amd64 7 {}\ntwo linux/arm64 7 {}\n",
        digest(0, 0),
        digest(1, 0),
        digest(1, 1),
    );
    let list = folder.path().join("list");
    assert_eq!(fs::read_to_string(&list).unwrap(), expected);
    let told = metadata(&images);
    assert_eq!(told[0]["toy"]["lines"], 1);
    assert_eq!(told[1]["toy"]["lines"], 2);
    let note = format!("written toy:{}", list.display());
    assert!(ear.notes().contains(&note));
    // Over one of its own, and over nothing else.
    to(&session, &["toy:list"]).unwrap();
    fs::write(&list, "mine").unwrap();
    let Err(Failed::Output(error)) = to(&session, &["toy:list"]) else {
        panic!("it was written over")
    };
    assert!(matches!(*error, OutputError::NotOurs(path) if path == list));
    assert_eq!(fs::read_to_string(&list).unwrap(), "mine");
}

#[test]
fn its_word_is_one_of_the_words() {
    let error = "toy".parse::<Word>().err().unwrap();
    assert!(error.contains("toy:FILE"), "{error}");
}
