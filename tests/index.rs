//! The client of package indexes against an index of the tests: what is asked of whom and how often, what is believed, and
//! what is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use imgdecl::parts::graph::{ActionError, PackageError, PackageFile, Packages, WantedWheel};
use imgdecl::parts::index::{Credentials, Indexes, Setup, Source};
use imgdecl::parts::net::{Ended, Limits, Monitor, Proxies, Transfer};
use imgdecl::parts::oci::Digest;
use imgdecl::parts::store::{Blob, Blobs as _, Health, Store};

use crate::support::index::{Beside, Index, Shape, Wheel};
use crate::support::registry::{Delivery, Reply};

/// Keeps what a client tells.
#[derive(Default)]
struct Ear {
    notes: Mutex<Vec<String>>,
    started: Mutex<Vec<String>>,
    bytes: AtomicUsize,
    ended: Mutex<Vec<Ended>>,
    is_stopped: AtomicBool,
}

impl Monitor for Ear {
    fn start(&self, transfer: &Transfer<'_>) -> u64 {
        let text = format!(
            "{} of {}, {} bytes",
            transfer.what, transfer.repository, transfer.size
        );
        self.started.lock().unwrap().push(text);
        0
    }

    fn more(&self, _: u64, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, _: u64, outcome: Ended) {
        self.ended.lock().unwrap().push(outcome);
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

/// A cache, and clients of it.
struct Kit {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    ear: Arc<Ear>,
    /// Whether its clients believe no page.
    is_anew: bool,
}

impl Kit {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        Self {
            folder,
            store,
            ear: Arc::default(),
            is_anew: false,
        }
    }

    fn client(&self, sources: Vec<Source>) -> Indexes {
        self.client_with(sources, Credentials::default())
    }

    fn client_with(&self, sources: Vec<Source>, credentials: Credentials) -> Indexes {
        let pinned = sources.iter().filter(|it| it.is_pinned());
        let pinned = pinned.cloned().collect();
        Indexes::new(Setup {
            pinned,
            sources: Box::new(move || Ok(sources.clone())),
            credentials,
            proxies: Proxies::default(),
            monitor: self.ear.clone(),
            limits: Limits {
                connect: Duration::from_secs(5),
                idle: Duration::from_secs(5),
                tries: 3,
                backoff: Duration::from_millis(1),
                retry_after: Duration::from_millis(20),
                total: Duration::from_secs(5),
            },
            cache: self.store.clone(),
            is_anew: self.is_anew,
        })
    }

    fn of(&self, indexes: &[&Index]) -> Indexes {
        let named = |(at, index): (usize, &&Index)| source(&format!("i{at}"), &index.url());
        self.client(indexes.iter().enumerate().map(named).collect())
    }
}

fn source(name: &str, url: &str) -> Source {
    Source::new(Some(name), url).unwrap()
}

fn wanted<'a>(project: &'a str, wheel: &'a Wheel) -> WantedWheel<'a> {
    WantedWheel {
        project,
        file: &wheel.file,
        sha256: wheel.sha256(),
        size: Some(wheel.bytes.len() as u64),
        hint: None,
        home: None,
    }
}

#[track_caller]
fn failed<T: std::fmt::Debug>(result: Result<T, PackageError>) -> ActionError {
    match result {
        Err(PackageError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn small() -> Wheel {
    Wheel::new("a-b", "1.0", 2_000, 2)
}

/// Far larger than the end that is fetched first.
fn large() -> Wheel {
    Wheel::new("a-b", "1.0", 400_000, 2)
}

#[test]
fn json_and_html_say_the_same() {
    let wheel = small();
    for shape in [
        Shape::default(),
        Shape {
            is_json: false,
            ..Shape::default()
        },
    ] {
        let is_json = shape.is_json;
        let index = Index::start(shape, &[("a-b", &wheel)]);
        let kit = Kit::new();
        let client = kit.of(&[&index]);
        // Any spelling of the name asks for the normalised one.
        let files = client.files("A.b").unwrap();
        let expected = PackageFile {
            file: wheel.file.as_str().into(),
            sha256: Some(wheel.sha256()),
            size: is_json.then_some(wheel.bytes.len() as u64),
            requires_python: Some(">=3.8".into()),
            has_metadata: Some(true),
            metadata_sha256: Some(Digest::of(wheel.metadata.as_bytes())),
            url: format!("http://{}/files/{}", index.host(), wheel.file).into(),
            index: "i0".into(),
            ..PackageFile::default()
        };
        assert_eq!(*files, [expected]);
        assert_eq!(index.take(), ["200 /simple/a-b/"]);
        for name in ["", "..", "a/../b", "a%2fb", "a b"] {
            let error = client.files(name).unwrap_err();
            assert!(
                matches!(error, PackageError::Malformed { .. }),
                "{name}: {error}"
            );
        }
        assert_eq!(index.take(), [""; 0]);
    }
}

#[test]
fn a_page_is_asked_for_once() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| client.files("a-b").unwrap());
            client.prefetch_project("a-b", Box::new(|_| Vec::new()));
            scope.spawn(|| client.files("none").unwrap_err());
        }
    });
    let mut log = index.take();
    log.sort();
    assert_eq!(log, ["200 /simple/a-b/", "404 /simple/none/"]);
}

#[test]
fn pages_are_remembered_by_their_tag() {
    let wheel = small();
    for (shape, statuses) in [
        (Shape::default(), ["200", "304"]),
        (
            Shape {
                is_json: false,
                ..Shape::default()
            },
            ["200", "304"],
        ),
        (
            Shape {
                has_etag: false,
                ..Shape::default()
            },
            ["200", "200"],
        ),
    ] {
        let index = Index::start(shape, &[("a-b", &wheel)]);
        let kit = Kit::new();
        let pages: Vec<_> = statuses
            .iter()
            .map(|_| kit.of(&[&index]).files("a-b").unwrap())
            .collect();
        assert_eq!(pages[0], pages[1]);
        let log: Vec<String> = index.log().iter().map(|it| it.1.to_string()).collect();
        assert_eq!(log, statuses);
    }
}

#[test]
fn a_page_is_not_asked_for_while_it_is_fresh() {
    let (old, new) = (small(), Wheel::new("a-b", "2.0", 10, 1));
    for has_etag in [true, false] {
        let fresh = |cache_control| Shape {
            has_etag,
            cache_control,
            ..Shape::default()
        };
        let index = Index::start(fresh(Some("max-age=600, public")), &[("a-b", &old)]);
        let mut kit = Kit::new();
        for _ in 0..3 {
            assert_eq!(kit.of(&[&index]).files("a-b").unwrap().len(), 1);
        }
        assert_eq!(index.take(), ["200 /simple/a-b/"]);
        // Who builds what the page of then does not list has it asked for again.
        index.add("a-b", &new);
        let client = kit.of(&[&index]);
        assert_eq!(client.files("a-b").unwrap().len(), 1);
        assert!(!client.is_anew());
        client.wheel(&wanted("a-b", &new), &*kit.store).unwrap();
        assert_eq!(
            index.take(),
            [
                "200 /simple/a-b/".to_owned(),
                format!("200 /files/{}", new.file)
            ]
        );
        assert!(client.is_anew());
        assert_eq!(client.files("a-b").unwrap().len(), 2);
        index.take();
        // So has who wants what is newest.
        let status = if has_etag { 304 } else { 200 };
        kit.is_anew = true;
        assert_eq!(kit.of(&[&index]).files("a-b").unwrap().len(), 2);
        assert_eq!(index.take(), [format!("{status} /simple/a-b/")]);
        // And that the page has not changed makes it fresh again.
        kit.is_anew = false;
        kit.of(&[&index]).files("a-b").unwrap();
        assert_eq!(index.take(), [""; 0]);
        for text in [None, Some("no-cache, max-age=600"), Some("max-age=0")] {
            let index = Index::start(fresh(text), &[("a-b", &old)]);
            let kit = Kit::new();
            kit.of(&[&index]).files("a-b").unwrap();
            let client = kit.of(&[&index]);
            client.files("a-b").unwrap();
            assert_eq!(index.take().len(), 2, "{text:?}");
            assert!(!client.ask_anew());
        }
    }
}

#[test]
fn what_is_shown_to_those_who_log_in_is_asked_for_each_time() {
    let login = ("u".to_owned(), "p".to_owned());
    let shape = Shape {
        login: Some(login),
        cache_control: Some("private, max-age=600"),
        ..Shape::default()
    };
    let index = Index::start(shape, &[("a-b", &small())]);
    let url = index.url_of("u", "p");
    let kit = Kit::new();
    for _ in 0..2 {
        kit.client(vec![source("own", &url)]).files("a-b").unwrap();
    }
    assert_eq!(index.take(), ["200 /simple/a-b/", "304 /simple/a-b/"]);
}

#[test]
fn a_page_whose_bytes_are_lost_is_fetched_again() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    let kit = Kit::new();
    kit.of(&[&index]).files("a-b").unwrap();
    fs::remove_dir_all(kit.folder.path().join("blobs-v1")).unwrap();
    kit.of(&[&index]).files("a-b").unwrap();
    assert_eq!(index.take(), ["200 /simple/a-b/"; 2]);
}

#[test]
fn pages_may_be_packed() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    index.fail(|request, _| {
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
        let mut bytes = Vec::new();
        let page = b"<a href='/files/a_b-1.0-py3-none-any.whl'>x</a>";
        let mut gzip = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::default());
        std::io::Write::write_all(&mut gzip, page).unwrap();
        gzip.finish().unwrap();
        let reply = Reply::new(200)
            .text("text/html", bytes)
            .with("Content-Encoding", "gzip");
        Some((reply, Delivery::default()))
    });
    let kit = Kit::new();
    assert_eq!(kit.of(&[&index]).files("a-b").unwrap().len(), 1);
    index.fail(|_, _| {
        let reply = Reply::new(200)
            .text("text/html", "no")
            .with("Content-Encoding", "gzip");
        Some((reply, Delivery::default()))
    });
    let error = failed(kit.of(&[&index]).files("a-b"));
    assert!(error.message.contains("damaged"), "{error}");
}

#[test]
fn what_refuses_is_not_passed_over() {
    let (own, other) = (small(), Wheel::new("a-b", "9.0", 10, 1));
    let first = Index::start(Shape::default(), &[("own", &own)]);
    let second = Index::start(Shape::default(), &[("a-b", &other), ("own", &other)]);
    let kit = Kit::new();
    let client = kit.of(&[&first, &second]);
    // The first that has it.
    assert_eq!(&*client.files("own").unwrap()[0].index, "i0");
    assert_eq!(second.take(), [""; 0]);
    // One that does not have it gives way.
    assert_eq!(&*client.files("a-b").unwrap()[0].index, "i1");
    assert!(matches!(
        client.files("none"),
        Err(PackageError::NotFound { .. })
    ));
    first.take();
    second.take();
    // Of an index that forbids, its list of packages is asked for, too: it is none here.
    for (status, tries) in [(401, 1), (403, 2), (500, 3), (503, 3), (418, 1)] {
        first.refuse(status);
        let client = kit.of(&[&first, &second]);
        let error = failed(client.files("a-b"));
        for word in ["i0", "a-b", &status.to_string()] {
            assert!(error.message.contains(word), "{word}: {error}");
        }
        assert!(error.help.is_some());
        // It is told again, and not asked again.
        assert_eq!(failed(client.files("a-b")).message, error.message);
        let wheel = client
            .wheel(&wanted("a-b", &other), &*kit.store)
            .unwrap_err();
        assert_eq!(wheel.message, error.message);
        assert_eq!(first.take().len(), tries, "{status}");
        assert_eq!(second.take(), [""; 0]);
    }
}

#[test]
fn packages_are_pinned_to_indexes() {
    let wheel = small();
    let first = Index::start(Shape::default(), &[("acme-x", &wheel), ("a-b", &wheel)]);
    let second = Index::start(Shape::default(), &[("acme-x", &wheel), ("a-b", &wheel)]);
    let kit = Kit::new();
    let pinned = source("own", &second.url());
    let pinned = pinned.for_packages(&["acme-*", "other"]).unwrap();
    let client = kit.client(vec![source("all", &first.url()), pinned]);
    assert_eq!(&*client.files("acme-x").unwrap()[0].index, "own");
    assert_eq!(&*client.files("a-b").unwrap()[0].index, "all");
    // Not even where its own index does not have it.
    assert!(matches!(
        client.files("other"),
        Err(PackageError::NotFound { .. })
    ));
    assert!(matches!(
        client.files("none"),
        Err(PackageError::NotFound { .. })
    ));
    assert_eq!(
        first.take(),
        ["200 /simple/a-b/", "404 /simple/none/"],
        "the first"
    );
    assert_eq!(
        second.take(),
        ["200 /simple/acme-x/", "404 /simple/other/"],
        "the second"
    );
}

/// Fails if any file of a folder holds a text.
#[track_caller]
fn assert_nowhere(folder: &Path, text: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, text);
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(text.len()).any(|it| it == text.as_bytes());
            assert!(!found, "{} holds it", path.display());
        }
    }
}

#[test]
fn credentials_are_for_the_index_alone() {
    let wheel = small();
    let files = Index::start(
        Shape {
            beside: Beside::None,
            ..Shape::default()
        },
        &[("a-b", &wheel)],
    );
    let shape = Shape {
        login: Some(("me".to_owned(), "hunter2".to_owned())),
        files: Some(format!("http://{}", files.host())),
        beside: Beside::Silent,
        ..Shape::default()
    };
    let index = Index::start(shape, &[("a-b", &wheel)]);
    let kit = Kit::new();
    let url = index.url_of("me", "hunter2");
    let client = kit.client(vec![Source::new(None, &url).unwrap()]);
    let page = client.files("a-b").unwrap();
    assert!(!format!("{page:?}").contains("hunter2"));
    assert_eq!(*client.metadata(&page[0]).unwrap(), wheel.metadata);
    client.wheel(&wanted("a-b", &wheel), &*kit.store).unwrap();
    assert!(index.log().iter().all(|(_, status)| *status == 200));
    let log = files.log();
    assert_eq!(log.len(), 3, "{:?}", files.take());
    assert!(
        log.iter()
            .all(|(it, _)| it.header("authorization").is_none())
    );
    // A redirect takes nothing along either, and there is no way back.
    let (there, here) = (files.host().to_owned(), index.host().to_owned());
    index.fail(move |request, _| {
        let to = format!("http://{there}{}", request.path());
        let is_first = request.path() == "/simple/moved/";
        is_first.then(|| (Reply::new(302).with("Location", to), Delivery::default()))
    });
    files.fail(move |request, _| {
        let to = format!("http://{here}/simple/a-b/");
        let is_it = request.path() == "/simple/moved/";
        is_it.then(|| (Reply::new(302).with("Location", to), Delivery::default()))
    });
    let error = failed(client.files("moved"));
    assert_eq!(error.code, "imgdecl::index::unauthorised");
    assert!(
        files
            .log()
            .iter()
            .all(|(it, _)| it.header("authorization").is_none())
    );
    assert!(
        index
            .log()
            .last()
            .unwrap()
            .0
            .header("authorization")
            .is_none()
    );
    // Nowhere is the password told or kept.
    let wrong = kit.client(vec![
        Source::new(None, &index.url_of("me", "hunter3")).unwrap(),
    ]);
    let error = failed(wrong.files("a-b"));
    assert!(
        error.help.as_ref().unwrap().contains("check the user"),
        "{error:?}"
    );
    let told = format!("{error:?} {:?} {:?}", kit.ear.notes, kit.ear.started);
    assert!(!told.contains("hunter"), "{told}");
    assert_nowhere(kit.folder.path(), "hunter");
}

#[test]
fn credentials_come_from_netrc_and_variables() {
    let wheel = small();
    let shape = Shape {
        login: Some(("me".to_owned(), "hunter2".to_owned())),
        ..Shape::default()
    };
    let index = Index::start(shape, &[("a-b", &wheel)]);
    let netrc = "machine 127.0.0.1 login me password hunter2";
    let variables = BTreeMap::from([
        ("UV_INDEX_MY_OWN_USERNAME".to_owned(), "me".to_owned()),
        ("UV_INDEX_MY_OWN_PASSWORD".to_owned(), "hunter2".to_owned()),
    ]);
    let asked = |netrc: Option<&str>, variables: BTreeMap<String, String>| {
        let kit = Kit::new();
        let source = source("my-own", &index.url());
        let client = kit.client_with(vec![source], Credentials::new(netrc, variables));
        let files = client.files("a-b")?;
        client.metadata(&files[0])?;
        let blob = client.wheel(&wanted("a-b", &wheel), &*kit.store);
        blob.map_err(PackageError::Failed)
    };
    asked(Some(netrc), BTreeMap::new()).unwrap();
    asked(None, variables).unwrap();
    let error = failed(asked(None, BTreeMap::new()));
    assert!(error.help.unwrap().contains("give credentials"));
}

/// The METADATA of one wheel, by two clients of one cache; and what the first had to ask for besides the page.
fn metadata(shape: Shape, wheel: &Wheel) -> Vec<String> {
    let index = Index::start(shape, &[("a-b", wheel)]);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    let files = client.files("a-b").unwrap();
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
    let log = index.take();
    let again = kit.of(&[&index]).metadata(&files[0]).unwrap();
    assert_eq!(*again, wheel.metadata);
    assert_eq!(index.take(), [""; 0]);
    log[1..].to_vec()
}

#[test]
fn metadata_costs_little() {
    let (small, large) = (small(), large());
    let shape = |beside, has_ranges| Shape {
        beside,
        has_ranges,
        ..Shape::default()
    };
    let file = format!("/files/{}", small.file);
    let beside = [format!("200 {file}.metadata")];
    let none = format!("404 {file}.metadata");
    assert_eq!(metadata(shape(Beside::Said, true), &large), beside);
    assert_eq!(metadata(shape(Beside::Silent, true), &large), beside);
    // One range, if the wheel is small.
    let tail = format!("206 {file} -65557");
    let log = metadata(shape(Beside::None, true), &small);
    assert_eq!(log, [none.clone(), tail.clone()]);
    // The member is far from the end of a larger one.
    let log = metadata(shape(Beside::None, true), &large);
    assert_eq!(log[..2], [none.clone(), tail.clone()]);
    assert!(log[2].starts_with(&format!("206 {file} 0-")), "{log:?}");
    assert_eq!(log.len(), 3);
    // The directory of this one does not fit into the first range.
    let many = Wheel::new("a-b", "1.0", 600_000, 1_500);
    let log = metadata(shape(Beside::None, true), &many);
    assert_eq!(log.len(), 4, "{log:?}");
    assert!(log[1..].iter().all(|it| it.starts_with("206 ")), "{log:?}");
    // A server without ranges gives the whole wheel.
    let log = metadata(shape(Beside::None, false), &large);
    let whole = format!("200 {file}");
    assert_eq!(log, [none, format!("{whole} -65557"), whole]);
    let log = metadata(
        Shape {
            has_hashes: false,
            ..shape(Beside::None, false)
        },
        &large,
    );
    assert_eq!(log.len(), 3);
}

#[test]
fn sizes_cost_a_byte_each() {
    let wheels: Vec<Wheel> = (0..12)
        .map(|number| Wheel::new("a-b", &format!("{number}.0"), 400_000, 2))
        .collect();
    let all: Vec<(&str, &Wheel)> = wheels.iter().map(|wheel| ("a-b", wheel)).collect();
    let sought = |index: &Index| -> (Vec<Option<u64>>, Vec<String>) {
        let kit = Kit::new();
        let wanted: Vec<WantedWheel<'_>> = wheels
            .iter()
            .map(|wheel| WantedWheel {
                size: None,
                ..wanted("a-b", wheel)
            })
            .collect();
        let sizes = kit.of(&[index]).sizes(&wanted);
        assert_eq!(
            kit.ear.bytes.load(Ordering::Relaxed),
            0,
            "nothing is fetched"
        );
        let mut log = index.take();
        log.sort();
        (sizes, log)
    };
    let true_sizes: Vec<Option<u64>> = wheels
        .iter()
        .map(|wheel| Some(wheel.bytes.len() as u64))
        .collect();
    let html = |has_ranges| Shape {
        is_json: false,
        has_ranges,
        ..Shape::default()
    };
    for (has_ranges, status) in [(true, 206), (false, 200)] {
        let index = Index::start(html(has_ranges), &all);
        let (sizes, log) = sought(&index);
        assert_eq!(sizes, true_sizes);
        let mut expected = vec!["200 /simple/a-b/".to_owned()];
        let one = |wheel: &Wheel| format!("{status} /files/{} 0-0", wheel.file);
        expected.extend(wheels.iter().map(one));
        expected.sort();
        assert_eq!(log, expected);
    }
    // An index that says the sizes is believed.
    let index = Index::start(Shape::default(), &all);
    let (sizes, log) = sought(&index);
    assert_eq!((sizes, log.len()), (true_sizes, 1));
    // What nobody says is not known.
    index.refuse(503);
    let (sizes, _) = sought(&index);
    assert!(sizes.iter().all(Option::is_none), "{sizes:?}");
}

#[test]
fn a_server_is_asked_for_ranges_once_if_it_has_none() {
    let (one, two) = (large(), Wheel::new("a-b", "2.0", 400_000, 2));
    let shape = Shape {
        beside: Beside::None,
        has_ranges: false,
        ..Shape::default()
    };
    let index = Index::start(shape, &[("a-b", &one), ("a-b", &two)]);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    for file in client.files("a-b").unwrap().iter() {
        client.metadata(file).unwrap();
    }
    let ranges = index
        .take()
        .into_iter()
        .filter(|it| it.ends_with(" -65557"));
    assert_eq!(ranges.count(), 1);
}

#[test]
fn metadata_of_a_wheel_that_is_there_is_not_asked_for() {
    let wheel = large();
    let index = Index::start(
        Shape {
            beside: Beside::None,
            ..Shape::default()
        },
        &[("a-b", &wheel)],
    );
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    client.wheel(&wanted("a-b", &wheel), &*kit.store).unwrap();
    let files = client.files("a-b").unwrap();
    index.take();
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
    assert_eq!(index.take(), [""; 0]);
}

#[test]
fn metadata_is_what_the_index_says_it_is() {
    let wheel = large();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    let forged = |text: &'static str| {
        move |request: &crate::support::registry::Request, _| {
            let is_it = request.path().ends_with(".metadata");
            is_it.then(|| (Reply::new(200).text("text/html", text), Delivery::default()))
        }
    };
    index.fail(forged(
        "Metadata-Version: 2.1\nName: a-b\nVersion: 1.0\nRequires-Dist: evil\n",
    ));
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    let files = client.files("a-b").unwrap();
    let error = failed(client.metadata(&files[0]));
    assert!(error.message.contains("has the digest"), "{error}");
    // Without a digest, a page of a server that knows everything is no metadata.
    let silent = Index::start(
        Shape {
            beside: Beside::Silent,
            ..Shape::default()
        },
        &[("a-b", &wheel)],
    );
    silent.fail(forged("<html>\nName: nobody</html>"));
    let client = kit.of(&[&silent]);
    let files = client.files("a-b").unwrap();
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
    // What one server says of a file is not believed of another's.
    let liar = Index::start(
        Shape {
            beside: Beside::Silent,
            ..Shape::default()
        },
        &[("a-b", &wheel)],
    );
    liar.fail(forged(
        "Metadata-Version: 2.1\nName: a-b\nVersion: 1.0\nRequires-Dist: evil\n",
    ));
    let kit = Kit::new();
    let client = kit.of(&[&liar]);
    let files = client.files("a-b").unwrap();
    assert!(client.metadata(&files[0]).unwrap().contains("evil"));
    let client = kit.of(&[&index]);
    index.fail(|_, _| None);
    let files = client.files("a-b").unwrap();
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
}

#[test]
fn a_server_that_fails_at_a_guess_is_asked_otherwise() {
    let wheel = large();
    let index = Index::start(
        Shape {
            beside: Beside::Silent,
            ..Shape::default()
        },
        &[("a-b", &wheel)],
    );
    index.fail(|request, _| {
        let is_it = request.path().ends_with(".metadata");
        is_it.then(|| (Reply::new(500), Delivery::default()))
    });
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    let files = client.files("a-b").unwrap();
    assert_eq!(*client.metadata(&files[0]).unwrap(), wheel.metadata);
    let guesses = index.take().into_iter().filter(|it| it.starts_with("500"));
    assert_eq!(guesses.count(), 1);
}

#[test]
fn wheels_that_are_none_are_told_apart() {
    let mut wheel = large();
    let shape = Shape {
        beside: Beside::None,
        ..Shape::default()
    };
    // Its digest is right, and it ends too early.
    wheel.bytes.truncate(300_000);
    let index = Index::start(shape.clone(), &[("a-b", &wheel)]);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    let files = client.files("a-b").unwrap();
    let error = client.metadata(&files[0]).unwrap_err();
    assert!(
        matches!(&error, PackageError::Malformed { why, .. } if why.contains("zip")),
        "{error}"
    );
    // It is another package's: who asks sees that in the text.
    let mut wheel = large();
    wheel.file = "c-1.0-py3-none-any.whl".to_owned();
    let index = Index::start(shape, &[("c", &wheel)]);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    let files = client.files("c").unwrap();
    let text = client.metadata(&files[0]).unwrap();
    assert!(text.contains("Name: a-b\n"), "{text}");
    let mut file = files[0].clone();
    file.file = "c-1.0.tar.gz".into();
    file.sha256 = None;
    let error = client.metadata(&file).unwrap_err();
    assert!(
        matches!(&error, PackageError::Malformed { why, .. } if why.contains("name of a wheel"))
    );
}

#[test]
fn what_was_fetched_before_is_there() {
    let (wheels, names): (Vec<Wheel>, Vec<String>) = (0..12)
        .map(|it| {
            let name = format!("p{it}");
            (Wheel::new(&name, "1.0", 10, 1), name)
        })
        .collect();
    let pairs: Vec<(&str, &Wheel)> = names.iter().map(String::as_str).zip(&wheels).collect();
    let index = Index::start(Shape::default(), &pairs);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    for name in &names {
        client.prefetch_project(name, Box::new(<[PackageFile]>::to_vec));
    }
    let begin = Instant::now();
    while index.log().len() < 24 && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for name in &names {
        let files = client.files(name).unwrap();
        client.prefetch_metadata(files.to_vec());
        assert!(client.metadata(&files[0]).unwrap().contains(name));
    }
    assert_eq!(index.take().len(), 24);
    // One that fails is told when it is asked for.
    client.prefetch_project("none", Box::new(|_| panic!("there are no files")));
    assert!(matches!(
        client.files("none"),
        Err(PackageError::NotFound { .. })
    ));
}

#[test]
fn the_crew_ends_with_the_client() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    index.refuse(0);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    for number in 0..50 {
        client.prefetch_project(&format!("p{number}"), Box::new(|_| Vec::new()));
    }
    let begin = Instant::now();
    while index.log().len() < 32 && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(index.log().len(), 32);
    let begin = Instant::now();
    drop(client);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(index.log().len(), 32);
}

#[test]
fn the_user_ends_every_wait() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    index.refuse(0);
    let kit = Kit::new();
    let client = kit.of(&[&index]);
    std::thread::scope(|scope| {
        // One asks, and one waits for what that gets.
        let asking = [0, 1].map(|_| scope.spawn(|| failed(client.files("a-b"))));
        std::thread::sleep(Duration::from_millis(200));
        assert!(asking.iter().all(|it| !it.is_finished()));
        let begin = Instant::now();
        kit.ear.is_stopped.store(true, Ordering::Relaxed);
        for thread in asking {
            assert_eq!(thread.join().unwrap().code, "imgdecl::stopped");
        }
        assert!(begin.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn wheels_come_from_the_nearest_place() {
    let wheel = large();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    let other = Index::start(Shape::default(), &[("x", &wheel)]);
    let hint = format!(
        "http://u:hunter2@{}/files/{}#sha256=x",
        other.host(),
        wheel.file
    );
    let fetch = |kit: &Kit, hint: Option<&str>| {
        let wanted = WantedWheel {
            hint,
            ..wanted("a-b", &wheel)
        };
        kit.of(&[&index]).wheel(&wanted, &*kit.store)
    };
    let blob = Blob {
        digest: wheel.sha256(),
        size: wheel.bytes.len() as u64,
    };
    let (page, file) = (
        "200 /simple/a-b/".to_owned(),
        format!("200 /files/{}", wheel.file),
    );
    let kit = Kit::new();
    assert_eq!(fetch(&kit, Some(&hint)).unwrap(), blob);
    assert_eq!(kit.store.check(&blob), Health::Whole);
    assert_eq!((index.take(), other.log().len()), (vec![], 1));
    let said = other.log()[0].0.header("authorization").map(str::to_owned);
    assert_eq!(said.as_deref(), Some("Basic dTpodW50ZXIy"));
    assert_eq!(other.take(), std::slice::from_ref(&file));
    // Now it is there, whatever the size is called.
    let mut known = wanted("a-b", &wheel);
    known.size = None;
    assert_eq!(kit.of(&[&index]).wheel(&known, &*kit.store).unwrap(), blob);
    assert_eq!(fetch(&kit, None).unwrap(), blob);
    assert_eq!((index.take(), other.take()), (vec![], vec![]));
    let told = kit.ear.started.lock().unwrap().clone();
    assert_eq!(
        told,
        [format!("{} of its URL, {} bytes", wheel.file, blob.size)]
    );
    assert_eq!(kit.ear.bytes.load(Ordering::Relaxed) as u64, blob.size);
    assert_eq!(*kit.ear.ended.lock().unwrap(), [Ended::Done]);
    // A place that is no more, is no place, or holds something else gives way.
    let gone = format!("http://{}/files/gone.whl", other.host());
    let wrong = format!("http://{}/simple/x/", other.host());
    for hint in [
        None,
        Some(gone.as_str()),
        Some(&wrong),
        Some("wheels/x.whl"),
        Some("file:///x"),
    ] {
        let kit = Kit::new();
        assert_eq!(fetch(&kit, hint).unwrap(), blob, "{hint:?}");
        assert_eq!(index.take(), [page.clone(), file.clone()]);
    }
    // What no index has can only have been there.
    let kit = Kit::new();
    let mut alone = wanted("nowhere", &wheel);
    alone.hint = Some(&gone);
    let error = kit.of(&[&index]).wheel(&alone, &*kit.store).unwrap_err();
    assert!(
        error.message.contains("404") && error.message.contains(other.host()),
        "{error}"
    );
}

#[test]
fn other_bytes_are_refused() {
    let (wheel, other) = (large(), Wheel::new("a-b", "1.0", 400_000, 4));
    let index = Index::start(
        Shape {
            has_hashes: false,
            ..Shape::default()
        },
        &[("a-b", &other)],
    );
    let kit = Kit::new();
    let mut known = wanted("a-b", &wheel);
    known.size = None;
    let error = kit.of(&[&index]).wheel(&known, &*kit.store).unwrap_err();
    assert_eq!(error.code, "imgdecl::index::content");
    assert!(
        error.message.contains(&wheel.sha256().to_string()),
        "{error}"
    );
    // It may have been a cache on the way: it is tried twice.
    assert_eq!(index.take().len(), 3);
    let blob = Blob {
        digest: other.sha256(),
        size: other.bytes.len() as u64,
    };
    assert_eq!(kit.store.check(&blob), Health::Missing);
    assert_eq!(*kit.ear.ended.lock().unwrap(), [Ended::Failed; 2]);
    // A wrong size needs no download.
    let error = kit
        .of(&[&index])
        .wheel(&wanted("a-b", &wheel), &*kit.store)
        .unwrap_err();
    assert!(error.message.contains("bytes instead of"), "{error}");
    // Nor does a digest that the index says.
    let honest = Index::start(Shape::default(), &[("a-b", &other)]);
    let error = kit.of(&[&honest]).wheel(&known, &*kit.store).unwrap_err();
    for digest in [wheel.sha256(), other.sha256()] {
        assert!(error.message.contains(&digest.to_string()), "{error}");
    }
    assert_eq!(honest.take(), ["200 /simple/a-b/"]);
    let mut gone = wanted("a-b", &wheel);
    gone.file = "a_b-2.0-py3-none-any.whl";
    let error = kit.of(&[&honest]).wheel(&gone, &*kit.store).unwrap_err();
    assert_eq!(error.code, "imgdecl::index::not_found");
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let wheel = large();
    for has_ranges in [true, false] {
        let index = Index::start(
            Shape {
                has_ranges,
                ..Shape::default()
            },
            &[("a-b", &wheel)],
        );
        let bytes = wheel.bytes.clone();
        index.fail(move |request, before| {
            let is_it = request.path().ends_with(".whl") && before == 0;
            let delivery = Delivery {
                cut: Some(100_000),
                ..Delivery::default()
            };
            is_it.then(|| {
                (
                    Reply::new(200).text("application/zip", bytes.clone()),
                    delivery,
                )
            })
        });
        let kit = Kit::new();
        let blob = kit
            .of(&[&index])
            .wheel(&wanted("a-b", &wheel), &*kit.store)
            .unwrap();
        assert_eq!(kit.store.read_blob(&blob).unwrap(), wheel.bytes);
        let status = if has_ranges { 206 } else { 200 };
        let rest = format!("{status} /files/{} 100000-", wheel.file);
        assert_eq!(index.take().last(), Some(&rest));
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    index.fail(|_, _| {
        let delivery = Delivery {
            length: Some((64 << 20) + 1),
            ..Delivery::default()
        };
        Some((Reply::new(200).text("text/html", "x"), delivery))
    });
    let error = failed(Kit::new().of(&[&index]).files("a-b"));
    assert!(error.message.contains("are the most"), "{error}");
}

#[test]
fn odd_pages_are_told() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    for (kind, text, word) in [
        ("image/png", "x", "image/png"),
        (
            "application/vnd.pypi.simple.v1+json",
            "<html>",
            "no page of files",
        ),
        (
            "application/vnd.pypi.simple.v1+json",
            r#"{"meta":{"api-version":"2.0"},"files":[]}"#,
            "version 2",
        ),
    ] {
        index.fail(move |_, _| Some((Reply::new(200).text(kind, text), Delivery::default())));
        let error = failed(Kit::new().of(&[&index]).files("a-b"));
        assert_eq!(error.code, "imgdecl::index::content");
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn a_page_may_be_elsewhere() {
    let wheel = small();
    let index = Index::start(Shape::default(), &[("a-b", &wheel)]);
    index.fail(|request, _| {
        let is_it = request.path() == "/simple/old/";
        let reply = Reply::new(301).with("Location", "../a-b/");
        is_it.then(|| (reply, Delivery::default()))
    });
    let kit = Kit::new();
    for _ in 0..2 {
        let files = kit.of(&[&index]).files("old").unwrap();
        let url = format!("http://{}/files/{}", index.host(), wheel.file);
        assert_eq!(*files[0].url, *url);
    }
    assert_eq!(
        index.take(),
        [
            "301 /simple/old/",
            "200 /simple/a-b/",
            "301 /simple/old/",
            "304 /simple/a-b/"
        ]
    );
    index.fail(|request, _| {
        let to = format!("{}x/", request.path());
        Some((Reply::new(302).with("Location", to), Delivery::default()))
    });
    let error = failed(kit.of(&[&index]).files("loop"));
    assert_eq!(error.code, "imgdecl::index::unsafe");
    assert!(index.take().len() < 20);
}
