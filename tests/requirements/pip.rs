//! Generated requirements files, against pip and uv: which versions, from where, and whether there is an answer at all.
//!
//! `IMGDECL_REQUIREMENTS=500` makes 500 of them in place of a few.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::kit::Kit;
use crate::support::index::{Index, Shape, Wheel};
use crate::support::registry::{Delivery, Reply};
use crate::support::wheel::Recipe;
use crate::support::{Output, Random, Space, peer, pip_and_uv};

/// How many files are made where nothing else is said.
const CASES: u64 = 40;
/// How many of them uv is asked about, too, where nothing else is said.
const UV_CASES: u64 = 25;

/// What a place has: names, versions, and what each needs.
type Stock = &'static [(&'static str, &'static str, &'static [&'static str])];

const DEFAULT: Stock = &[
    ("pa", "1.0", &["pb"]),
    ("pa", "1.5", &["pb<2", "pc[x]"]),
    ("pb", "1.0", &[]),
    ("pb", "1.2", &[]),
    ("pc", "1.0", &["pd ; extra == 'x'"]),
    ("pd", "0.1", &[]),
    ("pd", "0.2rc1", &[]),
];
const FIRST: Stock = &[
    ("pa", "1.2", &["pb>=1.1"]),
    ("pb", "2.0", &["priv"]),
    ("priv", "1.0", &[]),
    ("pd", "0.3a1", &[]),
];
const SECOND: Stock = &[
    ("pb", "1.2+cpu", &[]),
    ("pc", "0.9", &[]),
    ("pe", "1.0b1", &[]),
    ("pa", "1.7", &["missing-one"]),
];
const FOLDER: Stock = &[
    ("pc", "1.3", &[]),
    ("pe", "0.5", &["pa"]),
    ("pd", "0.0.1", &[]),
];
const LINKED: Stock = &[("pd", "0.15", &[]), ("pf", "1.0", &["pc"])];

fn made(stock: Stock) -> Vec<(&'static str, Wheel)> {
    let one = |(name, version, requires): &(&'static str, &str, &[&str])| {
        let recipe = Recipe::new(name, version);
        let recipe = requires.iter().fold(recipe, |it, text| it.requires(text));
        let has_extra = requires.iter().any(|it| it.contains("extra =="));
        let recipe = if has_extra { recipe.extra("x") } else { recipe };
        (*name, recipe.make())
    };
    stock.iter().map(one).collect()
}

fn start(stock: Stock) -> Index {
    let made = made(stock);
    let listed: Vec<(&str, &Wheel)> = made.iter().map(|(name, wheel)| (*name, wheel)).collect();
    Index::start(Shape::default(), &listed)
}

/// The indexes.
struct World {
    first: Index,
    second: Index,
    page: Index,
    /// The digests of wheels, by name and version.
    digests: BTreeMap<(String, String), String>,
}

impl World {
    fn new() -> Self {
        let page = start(LINKED);
        let mut text = String::new();
        for (_, wheel) in made(LINKED) {
            let _ = writeln!(
                text,
                "<a href=\"/files/{0}#{1}\">{0}</a>",
                wheel.file,
                wheel.sha256().to_string().replace(':', "=")
            );
        }
        page.fail(move |request, _| {
            let is_page = request.path() == "/links.html";
            is_page.then(|| {
                (
                    Reply::new(200).text("text/html", text.clone()),
                    Delivery::default(),
                )
            })
        });
        let mut digests = BTreeMap::new();
        for stock in [DEFAULT, FIRST, SECOND, FOLDER, LINKED] {
            for ((name, version, _), (_, wheel)) in stock.iter().zip(made(stock)) {
                digests.insert(
                    ((*name).to_owned(), (*version).to_owned()),
                    wheel.sha256().to_string(),
                );
            }
        }
        Self {
            first: start(FIRST),
            second: start(SECOND),
            page,
            digests,
        }
    }
}

/// A requirements file, and the files that it names.
fn generate(random: &mut Random, world: &World) -> BTreeMap<&'static str, String> {
    let mut files: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut one = |of: u64| random.below(of) == 0;
    let mut options: Vec<String> = Vec::new();
    // That of an index comes first: behind others it would make pip forget them, and here none is forgotten.
    if one(3) {
        options.push(format!("-i {}", world.first.url()));
    }
    if one(3) {
        options.push(format!("--extra-index-url={}", world.second.url()));
    }
    if one(4) {
        options.push(format!("--extra-index-url \\\n  {}", world.first.url()));
    }
    if one(4) {
        options.push("--find-links ../w".to_owned());
    }
    if one(4) {
        options.push(format!(
            "-f http://{}/links.html  # a page",
            world.page.host()
        ));
    }
    if one(14) {
        options.push("--no-index".to_owned());
    }
    for (option, of) in [
        ("--pre", 5),
        ("--prefer-binary", 6),
        ("--only-binary pa,pb", 6),
        ("--only-binary=:all:", 6),
    ] {
        if one(of) {
            options.push(option.to_owned());
        }
    }
    let is_nested = one(4);
    if one(3) {
        let lines = ["pb<2", "pc==1.0", "pd<0.2", "pa!=1.5"];
        let lines: Vec<&str> = lines.into_iter().filter(|_| one(3)).collect();
        files.insert("app/c.txt", format!("# narrows\n{}\n", lines.join("\n")));
        options.push("-c c.txt".to_owned());
    }
    let mut lines: Vec<String> = Vec::new();
    if one(7) {
        // With hashes: each with its version, and perhaps not all that is needed.
        let mut versions: Vec<&(String, String)> = world.digests.keys().collect();
        versions.retain(|it| it.0 != "pe" && one(2));
        let mut seen = BTreeSet::new();
        for (name, version) in versions {
            if seen.insert(name) {
                let digest = &world.digests[&(name.clone(), version.clone())];
                lines.push(format!("{name}=={version} \\\n    --hash={digest}"));
            }
        }
        if lines.is_empty() || one(6) {
            lines.push("--require-hashes".to_owned());
        }
    } else {
        for text in [
            "pa",
            "pa>=1.1",
            "pb ; python_version >= '3'",
            "pb==1.2",
            "pc[x]",
            "pd",
            "pd>=0.2rc1",
            "pe",
            "pf",
            "priv",
            "six ; os_name == 'nt'",
            "P_A<1.6",
            "pe>=1.0b1",
        ] {
            let is_rare = ["pe", "pf", "priv"].iter().any(|it| text.starts_with(it));
            if one(if is_rare { 12 } else { 5 }) {
                lines.push(text.to_owned());
            }
        }
    }
    if lines.is_empty() {
        lines.push("pb".to_owned());
    }
    let (inner, outer) = match is_nested {
        true => {
            files.insert("app/n.txt", format!("{}\n", lines.join("\n")));
            (vec!["-r n.txt".to_owned()], options)
        }
        false => (lines, options),
    };
    files.insert(
        "app/r.txt",
        format!("{}\n{}\n", outer.join("\n"), inner.join("\n")),
    );
    files
}

/// What was taken: names and versions, each with the place it is from.
type Taken = BTreeSet<(String, String, String)>;

fn split(file: &str) -> (String, String) {
    let mut parts = file.split('-');
    let name = parts.next().unwrap_or_default().to_owned();
    (name, parts.next().unwrap_or_default().replace("%2B", "+"))
}

fn ours(kit: &Kit, world: &World) -> Result<Taken, String> {
    let _ = std::fs::remove_file(kit.space.path().join("image.lock"));
    let output = kit.run(&["lock"]);
    if output.status != 0 {
        return Err(output.stderr);
    }
    let mut taken = Taken::new();
    for line in kit.wheels() {
        let (file, pin) = line.split_once('=').expect("a pin");
        let (name, version) = split(file.trim().trim_matches('"'));
        let place = match pin {
            it if it.contains(&format!("index={}", world.first.url())) => "first",
            it if it.contains(&format!("index={}", world.second.url())) => "second",
            it if it.contains("page=") => "page",
            it if it.contains(" w/") => "folder",
            it => {
                assert!(!it.contains("index="), "{it}");
                "default"
            }
        };
        taken.insert((name, version, place.to_owned()));
    }
    Ok(taken)
}

fn theirs(kit: &Kit, world: &World, python: &Path) -> Result<Taken, String> {
    let mut command = kit.space.program(python);
    command
        .args([
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--no-cache-dir",
            "--report",
            "report.json",
        ])
        .args(["--retries", "0", "-r", "app/r.txt"])
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_INDEX_URL", kit.default.url());
    let output = Output::of(&mut command);
    if output.status != 0 {
        return Err(output.stderr);
    }
    let report = std::fs::read(kit.space.path().join("report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let mut taken = Taken::new();
    for install in report["install"].as_array().expect("a list") {
        let url = install["download_info"]["url"].as_str().expect("a URL");
        let (name, version) = split(url.rsplit('/').next().expect("a file"));
        let hosts = [
            (kit.default.host(), "default"),
            (world.first.host(), "first"),
            (world.second.host(), "second"),
            (world.page.host(), "page"),
        ];
        let place = hosts
            .iter()
            .find(|it| url.contains(it.0))
            .map_or("folder", |it| it.1);
        taken.insert((name, version, place.to_owned()));
    }
    Ok(taken)
}

/// What uv makes of the same files, of all indexes at once, as pip has it. `None` where they say what uv reads otherwise:
/// its `pip compile` compares no hashes.
fn of_uv(
    kit: &Kit,
    world: &World,
    files: &BTreeMap<&'static str, String>,
    uv: &Path,
    python: &str,
) -> Option<Result<Taken, String>> {
    if files.values().any(|it| it.contains("hash")) {
        return None;
    }
    for name in ["uv/c.txt", "uv/n.txt"] {
        let _ = std::fs::remove_file(kit.space.path().join(name));
    }
    for (name, text) in files {
        // uv reads no option whose value is on the next line, no list of names, and neither of these two. What is here is
        // in wheels alone, so that only one of them means anything.
        let text = text
            .replace("\\\n", " ")
            .replace("--only-binary pa,pb\n", "")
            .replace("--prefer-binary\n", "")
            .replace("--pre\n", "");
        kit.space.write(&name.replace("app/", "uv/"), text);
    }
    let has = |option: &str| files.values().any(|it| it.lines().any(|it| it == option));
    let mut command = kit.space.program(uv);
    command
        .args(["pip", "compile", "uv/r.txt", "--quiet", "--no-header"])
        .args(["--no-annotate", "--emit-index-annotation", "--no-cache"])
        .args(["--index-strategy", "unsafe-best-match"])
        .args(["--python-version", python]);
    if has("--pre") {
        command.args(["--prerelease", "allow"]);
    }
    command.env("UV_NO_CONFIG", "1");
    // For uv, a variable is stronger than the file.
    let names_one = files.values().any(|it| it.contains("-i http"));
    if !names_one {
        command.env("UV_DEFAULT_INDEX", kit.default.url());
    }
    let output = Output::of(&mut command);
    if output.status != 0 {
        return Some(Err(output.stderr));
    }
    let hosts = [
        (kit.default.host(), "default"),
        (world.first.host(), "first"),
        (world.second.host(), "second"),
        (world.page.host(), "page"),
        ("file://", "folder"),
    ];
    let mut taken = Taken::new();
    let mut last = None;
    for line in output.stdout.lines() {
        if let Some(from) = line.trim_start().strip_prefix("# from ") {
            let (name, version) = last.take().expect("a package");
            let place = hosts
                .iter()
                .find(|it| from.contains(it.0))
                .expect("a place");
            taken.insert((name, version, place.1.to_owned()));
        } else if let Some((name, version)) = line.split_once("==") {
            assert_eq!(last, None, "without a place: {}", output.stdout);
            last = Some((name.replace('-', "_"), version.to_owned()));
        }
    }
    assert_eq!(last, None, "without a place: {}", output.stdout);
    Some(Ok(taken))
}

/// Makes sure that we take what pip takes, or refuse what it refuses, for its reason. Tells whether there is an answer.
fn as_pip(
    case: u64,
    files: &BTreeMap<&'static str, String>,
    ours: &Result<Taken, String>,
    theirs: &Result<Taken, String>,
) -> bool {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => true,
        (Err(said), Err(why)) => {
            let of_hashes = [
                "imgdecl::pip::closed",
                "imgdecl::pip::hash",
                "imgdecl::python::hash",
            ];
            let of_hashes = of_hashes.iter().any(|it| said.contains(it));
            let of_others = ["imgdecl::pip::conflict", "imgdecl::pip::index"];
            let of_others = of_others.iter().any(|it| said.contains(it));
            // pip says so where a hash lacks or another file has it; ours may be the first of several mistakes, too.
            let is_fit = match why.contains("hash") {
                true => of_hashes || of_others && why.contains("No matching"),
                false => of_others || of_hashes && files.values().any(|it| it.contains("hash")),
            };
            assert!(is_fit, "case {case}: {files:#?}\nours: {said}\npip: {why}");
            false
        }
        _ => panic!("case {case}: {files:#?}\nours: {ours:#?}\npip: {theirs:#?}"),
    }
}

/// Makes sure that uv is of the same mind.
fn agrees(
    case: u64,
    files: &BTreeMap<&'static str, String>,
    ours: &Result<Taken, String>,
    uv: &Result<Taken, String>,
) {
    let is_equal = match (ours, uv) {
        (Ok(ours), Ok(uv)) => ours == uv,
        (Err(_), Err(_)) => true,
        _ => false,
    };
    assert!(
        is_equal,
        "case {case}: {files:#?}\nours: {ours:#?}\nuv: {uv:#?}"
    );
}

#[test]
fn generated_files_mean_what_they_mean_to_pip_and_uv() {
    let Some(python) = peer("python3") else {
        return;
    };
    let version = Output::of(Space::new().program(&python).args([
        "-c",
        "import pip, sys; print('%d.%d' % sys.version_info[:2])",
    ]));
    if version.status != 0 {
        crate::support::absent("pip");
        return;
    }
    let count = std::env::var("IMGDECL_REQUIREMENTS")
        .ok()
        .and_then(|it| it.parse().ok());
    let (count, of_uv_too) = match count {
        Some(count) => (count, count),
        None => (CASES, UV_CASES),
    };
    let uv = pip_and_uv().map(|(_, uv)| uv);
    let world = World::new();
    let mut kit = Kit::new("");
    kit.default = start(DEFAULT);
    for (_, wheel) in made(FOLDER) {
        kit.space.write(&format!("w/{}", wheel.file), &wheel.bytes);
    }
    kit.manifest("", "requirements = [\"app/r.txt\"]");
    let manifest =
        std::fs::read_to_string(kit.space.path().join("image.toml")).expect("a manifest");
    kit.space.write(
        "image.toml",
        manifest.replace("\"3.12\"", &format!("\"{}\"", version.stdout.trim())),
    );
    let (mut solved, mut failed, mut compared) = (0, 0, 0);
    for case in 1..=count {
        let mut random = Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let files = generate(&mut random, &world);
        for name in ["app/c.txt", "app/n.txt"] {
            let _ = std::fs::remove_file(kit.space.path().join(name));
        }
        for (name, text) in &files {
            kit.space.write(name, text);
        }
        let (ours, theirs) = (ours(&kit, &world), theirs(&kit, &world, &python));
        let uv = uv.as_deref().filter(|_| case <= of_uv_too);
        let uv = uv.and_then(|uv| of_uv(&kit, &world, &files, uv, version.stdout.trim()));
        if let Some(uv) = &uv {
            agrees(case, &files, &ours, uv);
            compared += 1;
        }
        match as_pip(case, &files, &ours, &theirs) {
            true => solved += 1,
            false => failed += 1,
        }
    }
    eprintln!("{solved} solved and {failed} refused, by both; {compared} compared with uv");
    assert!(uv.is_none() || compared > 0, "uv was never asked");
    assert!(
        solved * 4 > count && failed > 0,
        "{solved} solved, {failed} refused of {count}"
    );
}
