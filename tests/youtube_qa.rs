//! The example `examples/youtube-qa`, as its team has it: built with one command from an empty cache, changed, pushed, and
//! run, down to an answer in a browser. On Debian's Python, in a real registry on loopback.
//!
//! Needs root, docker-registry, mmdebstrap, pip, skopeo, umoci, runc, chromium, and a network that reaches pip's index.

mod browser;
mod http;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::golden::bless;
use crate::support::registry::{Flavour, Image as BaseImage, Mode, Real};
use crate::support::wheel::Recipe;
use crate::support::{BINARY, Output, Space, copy, debian, peer};
use browser::Browser;
use http::ask;
use service::{Aws, How, Image, Machine, free_port};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a change may take to come about.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nobody's name, whom the second clone belongs to.
const NOBODY: u32 = 65534;
const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64"];

/// The variables that say to pip and uv which index there is.
fn index_variables() -> Vec<(OsString, OsString)> {
    let is_it = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("PIP_") || name.starts_with("UV_")
    };
    std::env::vars_os()
        .filter(|(name, _)| is_it(name))
        .collect()
}

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/youtube-qa")
}

/// Puts an image into a registry that is not ours.
fn put(registry: &str, repository: &str, tag: &str, image: &BaseImage) {
    let octets = "application/octet-stream";
    for (digest, bytes) in image.bytes() {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let open = ask("POST", registry, &path, octets, b"").expect("a session");
        let session = open.header("location").expect("a session").to_owned();
        let path = session.trim_start_matches("http://");
        let path = path.strip_prefix(registry).unwrap_or(path);
        let path = format!("{path}&digest={digest}");
        let reply = ask("PUT", registry, &path, octets, bytes).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    for (number, (kind, bytes)) in image.manifests.iter().enumerate() {
        let name = match number + 1 == image.manifests.len() {
            true => tag.to_owned(),
            false => imgdecl::parts::oci::Digest::of(bytes).to_string(),
        };
        let path = format!("/v2/{repository}/manifests/{name}");
        let reply = ask("PUT", registry, &path, kind, bytes).expect("an answer");
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
}

/// A clone of the example, with a cache of its own.
struct Clone {
    space: Space,
    set: [String; 4],
}

impl Clone {
    fn new(registry: &str) -> Self {
        let space = Space::new();
        space.copy(&example());
        for name in ["imgdecl-out", "out"] {
            let _ = fs::remove_dir_all(space.path().join(name));
        }
        Self {
            space,
            set: settings(registry),
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        let set = self.set.iter().map(String::as_str);
        let all: Vec<&str> = args.iter().copied().chain(set).collect();
        let mut command = self.space.command(&all);
        Output::of(command.envs(index_variables()))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Output {
        let output = self.run(args);
        assert_eq!(output.status, 0, "{args:?} failed:\n{}", output.stderr);
        output
    }

    /// Builds everything, and returns what the metadata says.
    #[track_caller]
    fn build(&self) -> Images {
        let output = self.ok(&["build", ".", "all", "--format", "json"]);
        images(&output.stdout)
    }

    /// Returns what a plan says would be built, as `ACTION TARGET`, with how many platforms there are.
    #[track_caller]
    fn planned(&self) -> BTreeMap<String, usize> {
        let output = self.ok(&["plan", ".", "all", "--format", "json"]);
        let plan: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let nodes = plan["nodes"].as_array().expect("nodes");
        let mut found = BTreeMap::new();
        // A look at a finished image makes nothing.
        let made = nodes.iter().filter(|node| node["action"] != "check");
        for node in made.filter(|node| node["outcome"] == "build") {
            let word = |key: &str| node[key].as_str().expect("a word").to_owned();
            let name = format!("{} {}", word("action"), word("target"));
            *found.entry(name).or_default() += 1;
        }
        found
    }
}

fn settings(registry: &str) -> [String; 4] {
    [
        "--set".to_owned(),
        format!("registry={registry}"),
        "--set".to_owned(),
        format!("base={registry}/library/python:3.11-slim"),
    ]
}

/// The images of a build: by name their digest, and by name and platform their layers, as digest and diff_id.
#[derive(PartialEq, Eq, Debug)]
struct Images {
    digests: BTreeMap<String, String>,
    layers: BTreeMap<(String, String), Vec<(String, String)>>,
}

fn images(text: &str) -> Images {
    let list: Vec<Value> = serde_json::from_str(text).expect("JSON");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let (mut digests, mut layers) = (BTreeMap::new(), BTreeMap::new());
    for image in &list {
        let name = word(&image["name"]);
        digests.insert(name.clone(), word(&image["digest"]));
        for platform in image["platforms"].as_array().expect("platforms") {
            let found = platform["layers"].as_array().expect("layers");
            let pair = |layer: &Value| (word(&layer["digest"]), word(&layer["diff_id"]));
            let found = found.iter().map(pair).collect();
            layers.insert((name.clone(), word(&platform["platform"])), found);
        }
    }
    Images { digests, layers }
}

#[test]
fn from_an_empty_cache_to_an_answer() {
    let (Some(registry), Some(_)) = (Real::start(Mode::Plain), peer("pip")) else {
        return;
    };
    let (Some(amd64), Some(arm64)) = (debian("amd64"), debian("arm64")) else {
        return;
    };
    let begin = Instant::now();
    let base = [(PLATFORMS[0], &amd64), (PLATFORMS[1], &arm64)].map(|(platform, root)| {
        let config = json!({"config": {"Env": [PATH], "Cmd": ["bash"]}});
        (
            platform,
            BaseImage::single(platform, &[root], config, Flavour::Oci),
        )
    });
    let base = BaseImage::index(&base, false, Flavour::Oci);
    put(registry.host(), "library/python", "3.11-slim", &base);
    eprintln!("a base in a registry: {:.1?}", begin.elapsed());

    let clone = Clone::new(registry.host());
    let first = timed("six images, twice", || six_images(&clone));
    the_bytes_are_known(&first, "layers-auto");
    timed("layers by services", || layers_by_services(registry.host()));
    timed("platforms", || {
        layers_are_for_their_platform(&clone, &first)
    });
    timed("another clone", || {
        another_clone_is_the_same(&clone, registry.host(), &first)
    });
    timed("a change of code", || a_change_of_code(&clone, &first));
    timed("a change of a requirement", || {
        a_change_of_a_requirement(&clone, &first)
    });
    timed("a wheel for one platform", || {
        a_wheel_for_one_platform(&clone)
    });
    timed("a push, twice", || pushed(&clone, &first));
    timed("an answer", || an_answer(&clone, &first, registry.host()));
}

/// Says how long a part took: what is slow shows in the log of a run.
fn timed<T>(what: &str, part: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = part();
    eprintln!("{what}: {:.1?}", begin.elapsed());
    done
}

/// A service that comes later gets the versions that the others have, where they fit, so that layers are shared; until all
/// are moved forward.
#[test]
fn services_agree_on_versions() {
    let space = Space::new();
    let add = |version: &str| {
        let wheel = Recipe::new("shared", version).make();
        space.write(&format!("wheels/{}", wheel.file), &wheel.bytes);
    };
    let service = |name: &str, asked: &str| {
        format!(
            "[pip.{name}-deps]\npackages = [\"{asked}\"]\nfind_links = [\"wheels\"]\npython = \"3.11\"\n\n\
             [image.{name}]\nbase = \"scratch\"\nlayers = [\"{name}-deps\"]\n\n"
        )
    };
    let locked = || fs::read_to_string(space.path().join("image.lock")).expect("image.lock");
    let count = |text: &str, file: &str| {
        text.matches(&format!("\"{file}-py3-none-any.whl\""))
            .count()
    };
    add("1.0");
    space.write("image.toml", service("one", "shared"));
    space.ok(&["lock"]);
    add("2.0");
    let more = ["two", "three"].map(|name| service(name, "shared>=1"));
    let newer = service("four", "shared>=2");
    let all = service("one", "shared") + &more.concat();
    space.write("image.toml", &all);
    space.ok(&["lock"]);
    space.write("image.toml", all + &newer);
    space.ok(&["lock"]);
    let text = locked();
    assert_eq!(
        (count(&text, "shared-1.0"), count(&text, "shared-2.0")),
        (3, 1),
        "{text}"
    );
    space.ok(&["lock", "--update"]);
    let text = locked();
    assert_eq!(
        (count(&text, "shared-1.0"), count(&text, "shared-2.0")),
        (0, 4),
        "{text}"
    );
}

/// One command makes everything; a second one does nothing.
fn six_images(clone: &Clone) -> Images {
    let committed = fs::read_to_string(clone.space.path().join("image.lock")).expect("the lock");
    let first = clone.build();
    assert_eq!(first.layers.len(), 6, "{first:?}");
    // The build has locked the base, and changed no wheel.
    let lock = fs::read_to_string(clone.space.path().join("image.lock")).expect("the lock");
    let from = committed.find("[pip.").expect("wheels");
    assert!(lock.ends_with(&committed[from..]), "{lock}");
    assert_eq!(clone.planned(), BTreeMap::new());
    let again = clone.ok(&["build", ".", "all", "--format", "json"]);
    assert_eq!(images(&again.stdout), first);
    assert!(!again.stderr.contains("built "), "{}", again.stderr);
    // What all services share is the same layer in each, above the base.
    let shared: BTreeSet<&(String, String)> = first.layers.values().map(|it| &it[1]).collect();
    assert_eq!(shared.len(), 1, "{first:?}");
    first
}

/// The layers above the base are the same wherever, and whenever, they are made.
fn the_bytes_are_known(images: &Images, name: &str) {
    let mut text = String::new();
    for ((name, platform), layers) in &images.layers {
        for (number, (digest, diff_id)) in layers.iter().enumerate().skip(1) {
            text.push_str(&format!("{name} {platform} {number} {digest} {diff_id}\n"));
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/youtube_qa");
    let path = folder.join(name);
    if bless("youtube-qa") {
        fs::write(&path, &text).expect("a file of layers");
    }
    let expected = fs::read_to_string(&path).expect("a file of layers");
    assert_eq!(
        text, expected,
        "where the example has changed: IMGDECL_BLESS=youtube-qa"
    );
}

/// With packages cut by the services that have them, layers are what they always were.
fn layers_by_services(registry: &str) {
    let clone = Clone::new(registry);
    for service in ["frontend", "qa_api", "ingestor"] {
        let path = clone.space.path().join(service).join("image.toml");
        let text = fs::read_to_string(&path).expect("a manifest");
        let split = text.replace("[pip.deps]", "[pip.deps]\nsplit = \"workspace\"");
        assert_ne!(split, text);
        fs::write(&path, split).expect("a manifest");
    }
    the_bytes_are_known(&clone.build(), "layers");
}

/// `e_machine` of ELF.
fn machine(platform: &str) -> u16 {
    match platform {
        "linux/amd64" => 62,
        _ => 183,
    }
}

/// Every program and library in the layers above the base is for the image's platform.
fn layers_are_for_their_platform(clone: &Clone, images: &Images) {
    let blobs = clone.space.path().join("imgdecl-out/blobs/sha256");
    for ((name, platform), layers) in &images.layers {
        let mut found = 0;
        for (digest, _) in &layers[1..] {
            let hex = digest.strip_prefix("sha256:").expect("sha256");
            let blob = fs::File::open(blobs.join(hex)).expect("a blob");
            let mut archive = tar::Archive::new(MultiGzDecoder::new(blob));
            for entry in archive.entries().expect("a tar") {
                let mut entry = entry.expect("an entry");
                let path = entry.path().expect("a path").display().to_string();
                let mut head = Vec::new();
                let read = entry.by_ref().take(20).read_to_end(&mut head);
                read.expect("its content");
                if head.len() == 20 && head.starts_with(b"\x7fELF") {
                    let number = u16::from_le_bytes([head[18], head[19]]);
                    assert_eq!(number, machine(platform), "{name} {platform}: {path}");
                    found += 1;
                }
            }
        }
        assert!(found > 0, "{name} {platform} has no compiled module");
    }
}

/// A clone in another folder, of another user with another umask and time zone, without a record of what was built, makes
/// the same images.
fn another_clone_is_the_same(clone: &Clone, registry: &str, first: &Images) {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return;
    }
    let folder = tempfile::TempDir::with_prefix("another-place-").expect("a folder");
    let root = folder.path();
    let [work, cache, home] = ["a clone", "cache", "home"].map(|name| root.join(name));
    copy(&example(), &work);
    let _ = fs::remove_dir_all(work.join("imgdecl-out"));
    // The other user has no pip to say where packages are: the wheels are there, and nothing else.
    let lock = fs::read_to_string(work.join("image.lock")).expect("image.lock");
    let wheels = lock
        .lines()
        .filter_map(|line| line.split_once(".whl\" = \"sha256:"));
    let wheels: BTreeSet<&str> = wheels.map(|(_, rest)| &rest[..64]).collect();
    for wheel in wheels {
        let path = format!("blobs-v1/sha256/{}/{wheel}", &wheel[..2]);
        let to = cache.join(&path);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a cache");
        fs::copy(clone.space.cache().join(&path), to).expect("a wheel");
    }
    fs::create_dir(&home).expect("a home");
    let binary = root.join("imgdecl");
    fs::copy(BINARY, &binary).expect("the binary");
    give(root, NOBODY);
    let script = "umask 077; exec \"$0\" \"$@\"";
    let mut command = clone.space.program("sh");
    command
        .args(["-c", script])
        .arg(&binary)
        .args(["build", ".", "all", "--format", "json", "--jobs", "1"])
        .args(settings(registry))
        .current_dir(&work)
        .env("HOME", &home)
        .env("IMGDECL_CACHE_DIR", &cache)
        .env("TZ", "Pacific/Kiritimati")
        .uid(NOBODY)
        .gid(NOBODY);
    let output = Output::of(&mut command);
    assert_eq!(output.status, 0, "{}", output.stderr);
    assert!(output.stderr.contains("built   layer"), "{}", output.stderr);
    assert_eq!(&images(&output.stdout), first);
}

/// Gives a folder with all in it to a user.
fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("root may do that");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}

/// Returns how many layers of an image differ, by platform.
fn differing(one: &Images, other: &Images, name: &str) -> [usize; 2] {
    PLATFORMS.map(|platform| {
        let key = (name.to_owned(), platform.to_owned());
        let pairs = one.layers[&key].iter().zip(&other.layers[&key]);
        assert_eq!(one.layers[&key].len(), other.layers[&key].len());
        pairs.filter(|(one, other)| one != other).count()
    })
}

/// A change in one service makes one layer of one image anew, on each platform. The plan says so before.
fn a_change_of_code(clone: &Clone, first: &Images) {
    let path = clone.space.path().join("qa_api/app.py");
    let was = fs::read_to_string(&path).expect("app.py");
    fs::write(&path, format!("{was}\n# changed\n")).expect("app.py");
    let expected = [
        ("image qa-api", 2),
        ("index qa-api", 1),
        ("layer qa_api:src", 2),
    ];
    let expected = expected.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(clone.planned(), BTreeMap::from(expected));
    let plan = clone.ok(&["plan", ".", "all"]).stdout;
    assert!(plan.contains("\"app/qa_api/app.py\""), "{plan}");
    let changed = clone.build();
    assert_eq!(differing(first, &changed, "qa-api"), [1, 1]);
    for name in ["frontend", "ingestor"] {
        assert_eq!(changed.digests[name], first.digests[name]);
    }
    fs::write(&path, was).expect("app.py");
    assert_eq!(&clone.build(), first);
}

/// Another version of one package makes anew what holds that package, and resolves nothing else.
fn a_change_of_a_requirement(clone: &Clone, first: &Images) {
    let path = clone.space.path().join("frontend/requirements.txt");
    let was = fs::read_to_string(&path).expect("requirements.txt");
    let lock = clone.space.path().join("image.lock");
    let was_locked = fs::read_to_string(&lock).expect("image.lock");
    let older = was.replace("flask>=3,<4", "flask>=3,<3.1.3");
    assert_ne!(older, was);
    fs::write(&path, older).expect("requirements.txt");
    let said = clone.ok(&["lock", "."]).stdout;
    let moved: Vec<&str> = said.lines().filter(|line| line.contains(".whl")).collect();
    assert_eq!(moved.len(), 4, "{said}");
    assert!(moved.iter().all(|line| line.contains("flask-")), "{said}");
    // The new wheel is not fetched yet, so that the plan cannot know all layers that stay; but it knows whose they are.
    let planned = clone.planned();
    assert_eq!(
        planned.get("layer frontend:deps/2"),
        Some(&2),
        "{planned:?}"
    );
    let others = ["qa-api", "ingestor"].map(|name| format!("image {name}"));
    assert!(
        others.iter().all(|name| !planned.contains_key(name)),
        "{planned:?}"
    );
    let changed = clone.build();
    assert_eq!(differing(first, &changed, "frontend"), [1, 1]);
    for name in ["qa-api", "ingestor"] {
        assert_eq!(changed.digests[name], first.digests[name]);
    }
    fs::write(&path, was).expect("requirements.txt");
    fs::write(&lock, was_locked).expect("image.lock");
    assert_eq!(&clone.build(), first);
}

/// A package that has no wheel for one of the platforms is an error that says all that one needs to know.
fn a_wheel_for_one_platform(clone: &Clone) {
    let wheel = Recipe::new("fast-captions", "1.0").tag("cp311-cp311-manylinux_2_17_x86_64");
    let wheel = wheel.make();
    clone
        .space
        .write(&format!("ingestor/wheels/{}", wheel.file), &wheel.bytes);
    let lock = clone.space.path().join("image.lock");
    let was_locked = fs::read_to_string(&lock).expect("image.lock");
    let requirements = clone.space.path().join("ingestor/requirements.txt");
    let manifest = clone.space.path().join("ingestor/image.toml");
    let change = |path: &Path, edit: &dyn Fn(&str) -> String| {
        let was = fs::read_to_string(path).expect("a file");
        fs::write(path, edit(&was)).expect("a file");
        was
    };
    let asked = change(&requirements, &|was| format!("{was}fast-captions\n"));
    let said = change(&manifest, &|was| {
        was.replace("layout ", "find_links = [\"wheels\"]\nlayout ")
    });
    let output = clone.run(&["build", ".", "all"]);
    assert_eq!(output.status, 1, "{}", output.stderr);
    for word in [
        "fast-captions",
        "linux-aarch64-glibc2.28-cp311",
        &wheel.file,
    ] {
        assert!(output.stderr.contains(word), "{word}:\n{}", output.stderr);
    }
    assert_eq!(fs::read_to_string(&lock).expect("image.lock"), was_locked);
    fs::write(&requirements, asked).expect("a file");
    fs::write(&manifest, said).expect("a file");
}

/// What a plan says of a push, image by image.
fn forecast(clone: &Clone) -> Vec<Value> {
    let output = clone.ok(&["plan", ".", "all", "--push", "--format", "json"]);
    let plan: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let found = plan["pushes"].as_array().expect("pushes").clone();
    assert_eq!(found.len(), 3, "{found:?}");
    found
}

/// A push of all sends what the services share once; the next one sends nothing.
fn pushed(clone: &Clone, first: &Images) {
    let push = ["build", ".", "all", "--push", "--format", "json"];
    let forecast = forecast(clone);
    let output = clone.ok(&push);
    assert_eq!(&images(&output.stdout), first);
    let shared = &first.layers[&("frontend".to_owned(), PLATFORMS[0].to_owned())][1].0;
    let short = &shared[..19];
    let mut words = BTreeMap::new();
    for line in output.stderr.lines().filter(|line| line.contains(short)) {
        let word = line.split_whitespace().next().unwrap_or_default();
        *words.entry(word).or_insert(0) += 1;
    }
    assert_eq!(words, BTreeMap::from([("pushed", 1), ("mounted", 2)]));
    // The plan said how many bytes that would be, but for manifests, and now says that it is nothing.
    let list: Vec<Value> = serde_json::from_str(&output.stdout).expect("JSON");
    let sum =
        |list: &[Value], key: &str| -> u64 { list.iter().filter_map(|it| it[key].as_u64()).sum() };
    let sent: u64 = list
        .iter()
        .filter_map(|it| it["push"]["sent"].as_u64())
        .sum();
    let expected = sum(&forecast, "send");
    assert!(
        expected <= sent && sent - expected < 20_000,
        "{sent}: {forecast:?}"
    );
    let forecast = self::forecast(clone);
    assert_eq!(
        (sum(&forecast, "send"), sum(&forecast, "unbuilt")),
        (0, 0),
        "{forecast:?}"
    );
    let again = clone.ok(&push);
    let list: Vec<Value> = serde_json::from_str(&again.stdout).expect("JSON");
    for image in list {
        assert_eq!(image["push"]["sent"], 0, "{image}");
        assert_eq!(image["push"]["mounted"], 0, "{image}");
    }
}

const VIDEO: &str = "nAi1s_4nd-W";
const TRANSCRIPT: &str = "[0] Welcome to the workshop.\n\
    [4] Today we hang a heavy mirror on a plaster wall.\n\
    [12] First find the studs with a magnet.\n\
    [75] A screw in a stud carries forty kilograms.\n\
    [81] A nail in plaster carries almost nothing.\n\
    [88] So never trust a nail with a mirror.\n\
    [140] Thank you for watching.\n";

/// The images run as the deployment files say, and do what they are for.
fn an_answer(clone: &Clone, first: &Images, registry: &str) {
    let Some(machine) = Machine::find() else {
        return;
    };
    let (Some(browser), Some(aws)) = (
        Browser::start(),
        Aws::start(&clone.space, &index_variables()),
    ) else {
        return;
    };
    // What is run is what a deployment file names.
    let file = "deploy/compose.yaml";
    let resolved = clone.ok(&["resolve", file]).stdout;
    let fetch = |name: &str| -> Image {
        let reference = format!("{registry}/youtube-qa/{name}@{}", first.digests[name]);
        let line = format!("image: {reference}\n");
        assert!(resolved.contains(&line), "{line}:\n{resolved}");
        machine.fetch(&clone.space, &reference, name)
    };
    clone
        .space
        .write(&format!("transcripts/{VIDEO}.txt"), TRANSCRIPT);
    let folder = clone.space.path().join("transcripts");
    let queue = format!("{}/123456789012/videos", aws.url);
    let (api, page) = (free_port().to_string(), free_port().to_string());
    let url = format!("http://127.0.0.1:{api}");
    let env = [
        ("AWS_ENDPOINT_URL", aws.url.as_str()),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("BUCKET", "transcripts"),
        ("QUEUE_URL", &queue),
        ("QA_API_URL", &url),
        ("TRANSCRIPTS_DIR", "/transcripts"),
    ];
    let with_cmd = |cmd| How {
        env: &env,
        cmd: Some(cmd),
        mount: None,
    };
    let cmd = ["--host", "127.0.0.1", "--port", &api];
    let mut qa_api = fetch("qa-api").start(&with_cmd(&cmd));
    qa_api.is_healthy_at(&api);
    qa_api.exec(&[
        "python",
        "-c",
        "import boto3; boto3.client('sqs').create_queue(QueueName='videos'); \
         boto3.client('s3').create_bucket(Bucket='transcripts')",
    ]);
    let mut ingestor = fetch("ingestor").start(&How {
        env: &env,
        cmd: None,
        mount: Some((&folder, "/transcripts")),
    });
    ingestor.is_healthy();
    let bind = format!("127.0.0.1:{page}");
    let cmd = [
        "--bind",
        &bind,
        "--threads",
        "4",
        "--worker-tmp-dir",
        "/dev/shm",
    ];
    let mut frontend = fetch("frontend").start(&with_cmd(&cmd));
    frontend.is_healthy_at(&page);

    // Commands of packages are plain commands.
    let version = qa_api.exec(&["uvicorn", "--version"]);
    assert!(version.contains("Running uvicorn"), "{version}");
    let version = frontend.exec(&["flask", "--version"]);
    assert!(version.contains("Flask 3."), "{version}");
    assert_eq!(frontend.exec(&["id", "-u"]).trim(), "10001");

    browser.visit(&format!("http://{bind}/"));
    let nothing = ask_page(&browser, "How much does a nail carry in plaster?");
    assert_eq!(
        nothing,
        Some("Nothing in the videos answers that.".to_owned())
    );
    browser.write("input[name=address]", "no address");
    browser.click("#submit");
    let error = browser.text(".error");
    assert_eq!(
        error,
        Some("That is no address of a YouTube video.".to_owned())
    );
    let address = format!("https://www.youtube.com/watch?v={VIDEO}&t=3");
    browser.write("input[name=address]", &address);
    browser.click("#submit");
    let queued = browser.text("#queued").expect("it is queued");
    assert!(queued.contains(VIDEO), "{queued}");

    let begin = Instant::now();
    loop {
        let answer = ask_page(&browser, "How much does a nail carry in plaster?");
        let answer = answer.unwrap_or_else(|| panic!("no answer:\n{}", frontend.log()));
        if answer.contains("A nail in plaster carries almost nothing.") {
            break;
        }
        let logs = || format!("{}\n{}", ingestor.log(), qa_api.log());
        assert!(begin.elapsed() < PATIENCE, "{answer}\n{}", logs());
        std::thread::sleep(Duration::from_millis(200));
    }
    let link = browser
        .attribute("#sources li a", "href")
        .expect("a source");
    assert!(
        link.starts_with(&format!("https://youtu.be/{VIDEO}?t=")),
        "{link}"
    );
    let source = browser.text("#sources li").expect("a source");
    assert!(source.contains("carries almost nothing"), "{source}");
    assert!(
        ingestor.log().contains("stored the transcript"),
        "{}",
        ingestor.log()
    );
    for service in [frontend, qa_api, ingestor] {
        service.stop();
    }
}

/// Asks a question on the page, and returns what it shows.
fn ask_page(browser: &Browser, question: &str) -> Option<String> {
    browser.write("input[name=question]", question);
    browser.click("#ask");
    browser.text("#answer")
}
