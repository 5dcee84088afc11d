//! Pages that an index calls fresh: how often they are asked for, and that nobody misses what came meanwhile.

use std::fs;

use super::kit::{Kit, index};
use crate::support::index::{Index, Shape};
use crate::support::wheel::Recipe;

/// An index whose pages are fresh for ten minutes, and a folder that asks it.
fn start(requirements: &str) -> (Index, Kit) {
    let shape = Shape {
        cache_control: Some("max-age=600"),
        ..Shape::default()
    };
    let own = index(shape, &[("six", "1.0", &["other"]), ("other", "1.0", &[])]);
    let kit = Kit::new(&format!("-i {}\n{requirements}\n", own.url()));
    (own, kit)
}

/// What an index was asked for, of pages alone.
fn pages(index: &Index) -> Vec<String> {
    let mut asked = index.take();
    asked.retain(|it| it.contains("/simple/"));
    asked.sort();
    asked
}

#[test]
fn a_lock_asks_for_no_page_that_is_fresh() {
    let (own, kit) = start("six");
    kit.ok(&["lock"]);
    assert_eq!(pages(&own), ["200 /simple/other/", "200 /simple/six/"]);
    fs::remove_file(kit.space.path().join("image.lock")).unwrap();
    kit.ok(&["lock"]);
    // Nothing at all: the metadata is remembered anyway.
    assert_eq!(own.take(), [""; 0]);
    own.add("six", &Recipe::new("six", "2.0").make());
    // What is newest is asked for now.
    kit.ok(&["lock", "--update"]);
    assert!(kit.lock().contains("six-2.0-"), "{}", kit.lock());
    // What six 2.0 does not need was not asked for.
    assert_eq!(pages(&own), ["200 /simple/six/"]);
    own.add("six", &Recipe::new("six", "3.0").make());
    kit.ok(&["lock", "--upgrade-package", "six"]);
    assert!(kit.lock().contains("six-3.0-"), "{}", kit.lock());
}

#[test]
fn what_came_meanwhile_is_found_where_it_is_asked_for() {
    let (own, kit) = start("six");
    kit.ok(&["lock"]);
    own.add("six", &Recipe::new("six", "2.0").make());
    let wheel = Recipe::new("six", "2.0").make();
    for requirement in [
        "six==2.0".to_owned(),
        format!("six==2.0 --hash=sha256:{}", wheel.sha256().hex()),
    ] {
        kit.space
            .write("r.txt", format!("-i {}\n{requirement}\n", own.url()));
        own.take();
        kit.ok(&["lock"]);
        assert!(kit.lock().contains("six-2.0-"), "{}", kit.lock());
    }
    // What is not there is told of what there is now.
    kit.space
        .write("r.txt", format!("-i {}\nsix==9.0\n", own.url()));
    own.take();
    let said = kit.fails("imgdecl::pip::conflict");
    assert!(said.contains("six"), "{said}");
    assert_eq!(pages(&own), ["304 /simple/six/"]);
}
