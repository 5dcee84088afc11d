//! The cache when it rots, when it cannot be written, and when others share the machine. Damage here is what a bad disk
//! does: other bytes in the same file, with the same size and the same times.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::crash::{files, length, project, remove, with_mounts};
use crate::support::daemon::{Daemon, Data};
use crate::support::registry::{Image, Server};
use crate::support::wheel::Recipe;
use crate::support::{BINARY, Output, Random, Space, absent, peer, validate};

/// The code of the error, and what it says to do.
const DAMAGED: [&str; 2] = ["imgdecl::cache::damaged", "imgdecl cache verify"];

/// Ways in which bytes rot.
const WAYS: [&str; 6] = ["flip", "tail", "zero", "swap", "garbage", "shift"];

/// Returns other bytes, as many as there were.
fn rotten(bytes: &[u8], way: &str, rng: &mut Random) -> Vec<u8> {
    let mut other = bytes.to_vec();
    let length = bytes.len();
    let at = rng.below(length as u64) as usize;
    match way {
        "flip" => other[at] ^= 1 << rng.below(8),
        "tail" => other[at..].fill(0),
        "zero" => other[at..(at + 512).min(length)].fill(0),
        "swap" => other.rotate_left(length / 2),
        "garbage" => other = rng.bytes(length),
        _ => other.rotate_right(1),
    }
    if other == bytes {
        other[at] ^= 1;
    }
    other
}

/// Puts other bytes into a file; inode, size, mode and modification time stay.
fn overwrite(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).expect("a file of the cache");
    assert_eq!(before.len(), bytes.len() as u64);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let file = File::options().write(true).open(path).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).expect("its bytes");
    file.set_modified(before.modified().expect("a time"))
        .expect("its time");
    file.set_permissions(before.permissions()).expect("a mode");
    let after = fs::metadata(path).expect("a file of the cache");
    let stamp = |it: &fs::Metadata| (it.ino(), it.len(), it.mtime(), it.mtime_nsec(), it.mode());
    assert_eq!(stamp(&after), stamp(&before));
}

fn rot(path: &Path, way: &str, rng: &mut Random) {
    let bytes = fs::read(path).expect("a file of the cache");
    overwrite(path, &rotten(&bytes, way, rng));
}

/// The blobs of a cache that have bytes.
fn blobs(cache: &Path) -> Vec<PathBuf> {
    let mut found = files(&cache.join("blobs-v1"));
    found.retain(|path| length(path) > 0);
    found
}

/// The blob of the cache that a text stands in.
fn blob_with(cache: &Path, text: &str) -> PathBuf {
    let has = |path: &PathBuf| {
        let bytes = fs::read(path).expect("a blob");
        bytes.windows(text.len()).any(|it| it == text.as_bytes())
    };
    let found = blobs(cache).into_iter().find(has);
    found.unwrap_or_else(|| panic!("no blob has {text}"))
}

/// The largest blob of the cache.
fn largest(cache: &Path) -> PathBuf {
    let found = blobs(cache).into_iter().max_by_key(|path| length(path));
    found.expect("a blob")
}

#[track_caller]
fn assert_damaged(output: &Output, what: &str) {
    assert_eq!(output.status, 4, "{what}: {}", output.stderr);
    for part in DAMAGED {
        assert!(output.stderr.contains(part), "{what}: {}", output.stderr);
    }
    for part in ["the base is damaged", "imgdecl::image", "imgdecl::base"] {
        assert!(!output.stderr.contains(part), "{what}: {}", output.stderr);
    }
}

/// A folder on another file system than the cache's, where there is one: blobs are copied there, and not linked.
fn elsewhere(space: &Space) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir_in("/dev/shm").ok()?;
    let device = |path: &Path| fs::metadata(path).expect("a folder").dev();
    match device(folder.path()) == device(space.path()) {
        true => None,
        false => Some(folder),
    }
}

#[test]
fn what_is_read_from_a_rotten_cache_is_never_wrong() {
    let space = project(4 << 10);
    let other = elsewhere(&space);
    if other.is_none() {
        absent("a second file system at /dev/shm");
    }
    let copied = other.as_ref().map(|it| it.path().join("out"));
    let words = [
        "build",
        "web",
        "--platform",
        "linux/amd64",
        "--progress",
        "none",
    ];
    let mut args = words.map(str::to_owned).to_vec();
    let mut output = |sink: String| args.extend(["--output".to_owned(), sink]);
    output("oci:linked".into());
    output("oci-archive:out.tar".into());
    output("docker-archive:docker.tar".into());
    copied
        .iter()
        .for_each(|it| output(format!("oci:{}", it.display())));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let right = space.ok(&args).stdout;
    let archives = ["out.tar", "docker.tar"].map(|it| space.path().join(it));
    let expected = archives
        .each_ref()
        .map(|it| fs::read(it).expect("an archive"));
    let read = || {
        for (path, expected) in archives.iter().zip(&expected) {
            assert!(fs::read(path).expect("an archive") == *expected);
        }
        copied.iter().for_each(|it| drop(validate(it)));
    };
    let linked = space.path().join("linked");
    let mut rng = Random(13);
    let mut ended = [0; 2];
    for number in 0..200 {
        let mut victims = blobs(space.cache());
        if number % 4 != 0 {
            let at = rng.below(victims.len() as u64) as usize;
            victims = vec![victims.swap_remove(at)];
        }
        let way = WAYS[number % WAYS.len()];
        victims.iter().for_each(|it| rot(it, way, &mut rng));
        // Every third time much is made again of what is in the cache.
        if number % 3 == 0 {
            remove(&space.cache().join("records-v2"));
        }
        if number % 2 == 0 {
            copied.iter().for_each(|it| remove(it));
            archives
                .iter()
                .for_each(|it| fs::remove_file(it).expect("an archive"));
        }
        let what = format!("{number}: {way} in {victims:?}");
        let built = space.run(&args);
        match built.status {
            0 => {
                assert_eq!(built.stdout, right, "{what}");
                read();
            }
            _ => assert_damaged(&built, &what),
        }
        ended[usize::from(built.status != 0)] += 1;
        if victims.len() == 1 && number % 8 == 1 {
            // What was found is made again.
            assert_eq!(space.ok(&args).stdout, right, "again, after {what}");
            read();
        }
        let verified = space.run(&["cache", "verify"]);
        assert!(
            [0, 4].contains(&verified.status),
            "{what}: {}",
            verified.stderr
        );
        assert_eq!(space.ok(&args).stdout, right, "after {what}");
        read();
        validate(&linked);
        if number % 20 == 0 {
            space.ok(&["cache", "verify"]);
        }
    }
    assert!(ended[0] > 20 && ended[1] > 20, "{ended:?}");
}

#[test]
fn layouts_that_share_a_damaged_blob_are_mended() {
    let space = project(4 << 10);
    let other = elsewhere(&space);
    let right = space.ok(&["build", "--output", "oci:one"]).stdout;
    let into_two = ["build", "--output", "oci:two"];
    space.ok(&into_two);
    let mut rng = Random(3);
    for path in blobs(space.cache()) {
        rot(&path, "flip", &mut rng);
    }
    // What is linked is trusted by its stamp, and says so to nobody.
    let verified = space.run(&["cache", "verify"]);
    assert_eq!(verified.status, 4, "{}", verified.stderr);
    assert!(verified.stdout.contains("damaged, removed: "));
    assert_eq!(space.ok(&into_two).stdout, right);
    validate(&space.path().join("two"));
    space.ok(&["build", "--output", "oci:one"]);
    validate(&space.path().join("one"));

    let Some(other) = other else {
        return absent("a second file system at /dev/shm");
    };
    let out = other.path().join("out");
    let copy = ["build", "--output", &format!("oci:{}", out.display())];
    space.ok(&copy);
    let stamps = || -> Vec<(PathBuf, u64, i64, i64)> {
        let stamp = |path: PathBuf| {
            let it = fs::metadata(&path).expect("a blob");
            (path, it.ino(), it.ctime(), it.ctime_nsec())
        };
        files(&out.join("blobs")).into_iter().map(stamp).collect()
    };
    let before = stamps();
    space.ok(&copy);
    assert_eq!(stamps(), before, "a warm build wrote blobs again");
    // A copy that rotted while the cache was cleared is no longer taken for the blob.
    rot(&before[0].0, "flip", &mut rng);
    space.ok(&["cache", "clear"]);
    std::thread::sleep(Duration::from_millis(20));
    space.ok(&copy);
    validate(&out);
}

#[test]
fn a_damaged_blob_is_not_pushed_and_not_loaded() {
    let server = Server::plain();
    let space = Space::new();
    let text = format!(
        "[image.app]\nbase = \"scratch\"\nrepository = \"{}/app\"\ncompression = \"none\"\n\
         layers = [{{ files = {{ src = \"data\", dest = \"/data\" }} }}]\n",
        server.host()
    );
    space.write("image.toml", text);
    space.write("data/file", Random(5).bytes(300_000));
    space.ok(&["build", "--output", "none"]);
    let layer = largest(space.cache());
    let good = fs::read(&layer).expect("a layer");
    let mut rng = Random(6);
    let push = ["build", "--push", "--progress", "none"];

    let socket = tempfile::tempdir_in("/tmp").expect("a folder");
    let daemon = Daemon::start(Data::default(), socket.path());
    let load = || {
        let mut command = space.command(&["build", "--load", "--progress", "none"]);
        Output::of(command.env("DOCKER_HOST", daemon.host()))
    };
    rot(&layer, "flip", &mut rng);
    assert_damaged(&load(), "load");
    assert_eq!(daemon.loaded(), None);
    let loaded = load();
    assert_eq!(loaded.status, 0, "{}", loaded.stderr);
    assert!(daemon.loaded().is_some());

    for size in [0, 4096] {
        // What was found damaged is made again, and only then damaged unseen again.
        space.ok(&["build", "--output", "oci:out"]);
        rot(&layer, "flip", &mut rng);
        let mut command = space.command(&push);
        if size > 0 {
            let config = format!("[registry.\"{}\"]\nchunk = {size}\n", server.host());
            command.env("IMGDECL_CONFIG", space.write("config.toml", config));
        }
        assert_damaged(&Output::of(&mut command), "push");
        assert!(server.pushed().is_empty());
        assert!(server.seen("PUT /v2/app/manifests/*").is_empty());
    }
    for what in [["inspect", "app", "--files"], ["unpack", "app", "root"]] {
        space.ok(&["build", "--output", "oci:out"]);
        assert!(fs::read(&layer).expect("a layer") == good);
        rot(&layer, "garbage", &mut rng);
        assert_damaged(&space.run(&what), what[0]);
        assert!(!space.path().join("root").exists());
    }
    space.ok(&push);
    assert_eq!(server.pushed().len(), 1);
    // Where the registry has all, nothing is read.
    rot(&layer, "flip", &mut rng);
    space.ok(&push);
}

#[test]
fn a_rotten_copy_of_a_base_is_the_cache_s_fault_and_heals() {
    let server = Server::plain();
    let layer =
        crate::support::registry::layer(&[("etc/base".to_owned(), "x".repeat(9000))].into());
    server.load("team/base", "1", &Image::of(&[&layer]));
    let space = Space::new();
    let text = format!(
        "[base.there]\nimage = \"{}/team/base:1\"\n\n[image.app]\nbase = \"there\"\n\
         layers = [{{ files = {{ text = {{ \"/motd\" = \"hello\\n\" }} }} }}]\n",
        server.host()
    );
    space.write("image.toml", text);
    let args = ["build", "--output", "oci-archive:out.tar"];
    let right = space.ok(&args).stdout;
    let archive = space.path().join("out.tar");
    let expected = fs::read(&archive).expect("an archive");
    let mut rng = Random(8);
    let (cache, mut told) = (space.cache(), 0);
    for path in blobs(cache) {
        for way in ["flip", "garbage"] {
            // What is known by records, and what is found out again.
            for forget in [false, true] {
                // Facts that nobody asks for are not made again.
                if !path.exists() {
                    continue;
                }
                rot(&path, way, &mut rng);
                if forget {
                    remove(&cache.join("records-v2"));
                    fs::remove_file(space.path().join("image.lock")).expect("a lock");
                }
                let what = format!("{way} {forget} {}", path.display());
                let built = space.run(&args);
                if built.status != 0 {
                    assert_damaged(&built, &what);
                    told += 1;
                    assert_eq!(space.ok(&args).stdout, right, "{what}");
                }
                assert!(
                    fs::read(&archive).expect("an archive") == expected,
                    "{what}"
                );
                space.run(&["cache", "verify"]);
                space.ok(&args);
            }
        }
    }
    assert!(told > 3, "{told}");
}

#[test]
fn a_rotten_wheel_is_fetched_again() {
    let space = Space::new();
    let wheel = Recipe::new("hello", "1.0")
        .file("hello/data.bin", Random(4).bytes(200_000))
        .make();
    space.write(&format!("wheels/{}", wheel.file), &wheel.bytes);
    let manifest = |layout: &str| {
        format!(
            "[pip.deps]\npackages = [\"hello\"]\nfind_links = [\"wheels\"]\npython = \"3.11\"\nprefix = \"{layout}\"\n\n\
             [image.app]\nbase = \"scratch\"\nlayers = [\"deps\"]\n"
        )
    };
    let args = ["build", "--output", "oci-archive:out.tar"];
    let mut rng = Random(9);
    for way in WAYS {
        remove(space.cache());
        space.write("image.toml", manifest("/usr"));
        let right = space.ok(&args).stdout;
        let kept = blob_with(space.cache(), "hello-1.0.dist-info/RECORD");
        assert!(fs::read(&kept).expect("a wheel") == wheel.bytes);
        // The tree is known, and its bytes are wanted again in another layer.
        space.write("image.toml", manifest("/opt"));
        let other = space.ok(&args).stdout;
        for (text, expected) in [("/usr", &right), ("/opt", &other)] {
            for bucket in ["records-v2", "segments-v1"] {
                remove(&space.cache().join(bucket));
            }
            rot(&kept, way, &mut rng);
            space.write("image.toml", manifest(text));
            let built = space.run(&args);
            if built.status != 0 {
                assert_damaged(&built, way);
                assert_eq!(space.ok(&args).stdout, *expected, "{way}");
            }
            assert_eq!(space.ok(&args).stdout, *expected, "{way}");
            validate(&space.path().join("out.tar"));
        }
    }
}

/// What a build in a cache that cannot be written does: hits are served, `cache verify` reports, and what must be written
/// is an error that says so.
fn assert_read_only(run: &dyn Fn(&[&str]) -> Output, space: &Space, cache: &Path, right: &str) {
    for sink in ["oci:ro", "oci:ro", "oci-archive:ro.tar"] {
        let built = run(&["build", "--progress", "none", "--output", sink]);
        assert_eq!(built.status, 0, "{}", built.stderr);
        assert_eq!(built.stdout, right);
        assert_eq!(built.stderr, "");
    }
    validate(&space.path().join("ro"));
    validate(&space.path().join("ro.tar"));
    let verified = run(&["cache", "verify"]);
    assert_eq!(verified.status, 0, "{}", verified.stderr);
    assert_eq!(run(&["cache", "info"]).status, 0);
    let built = run(&["build", "--set", "version=old", "--output", "none"]);
    assert_eq!(built.status, 1, "{}", built.stderr);
    for part in ["imgdecl::cache", "cannot write", "IMGDECL_CACHE_DIR"] {
        assert!(built.stderr.contains(part), "{}", built.stderr);
    }
    let layer = largest(cache);
    rot(&layer, "flip", &mut Random(2));
    let verified = run(&["cache", "verify"]);
    assert_eq!(verified.status, 4, "{}", verified.stderr);
    let name = layer.file_name().expect("a name").to_str().expect("a name");
    let line = verified.stdout.lines().find(|it| it.contains(name));
    let line = line.unwrap_or_else(|| panic!("{}", verified.stdout));
    assert!(line.starts_with("damaged, cannot be removed: "), "{line}");
    let built = run(&[
        "build",
        "--progress",
        "none",
        "--output",
        "oci-archive:other.tar",
    ]);
    assert!([1, 4].contains(&built.status), "{}", built.stderr);
    assert!(built.stderr.contains("imgdecl::cache"), "{}", built.stderr);
    assert!(!space.path().join("other.tar").exists());
}

#[test]
fn a_cache_that_cannot_be_written_serves_hits() {
    let space = project(4 << 10);
    let right = space.ok(&["build", "--output", "oci:out"]).stdout;
    let Some(setpriv) = peer("setpriv") else {
        return;
    };
    let folders = |folder: &Path, mode: u32| {
        let list = Output::of(Command::new("find").arg(folder).args(["-type", "d"]));
        for path in list.stdout.lines() {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
    };
    folders(space.cache(), 0o555);
    let is_root = rustix::process::geteuid().is_root();
    let run = |args: &[&str]| {
        let mut command = space.program(&setpriv);
        if is_root {
            // Root writes everywhere, until it gives up the right to.
            let without = "-dac_override,-dac_read_search";
            command.args(["--inh-caps", without, "--bounding-set", without]);
        }
        Output::of(command.arg(BINARY).args(args))
    };
    assert_read_only(&run, &space, space.cache(), &right);
    folders(space.cache(), 0o755);
}

#[test]
fn a_cache_on_a_read_only_mount_serves_hits() {
    let space = project(4 << 10);
    let right = space.ok(&["build", "--output", "oci:out"]).stdout;
    let run = |args: &[&str]| {
        let script = format!(
            r#"mount --bind "$IMGDECL_CACHE_DIR" mnt
               mount -o remount,bind,ro mnt
               code=0; IMGDECL_CACHE_DIR="$PWD/mnt" "$IMGDECL" {} 2> errors || code=$?
               echo "exit $code""#,
            args.join(" ")
        );
        let output = with_mounts(&space, &script)?;
        let (stdout, code) = output.stdout.rsplit_once("exit ").expect("a code");
        Some(Output {
            status: code.trim().parse().expect("a code"),
            stdout: stdout.to_owned(),
            stderr: fs::read_to_string(space.path().join("errors")).expect("errors"),
        })
    };
    if run(&["cache", "info"]).is_none() {
        return;
    }
    let run = |args: &[&str]| run(args).expect("it ran before");
    assert_read_only(&run, &space, space.cache(), &right);
}

#[test]
fn a_cache_is_private_to_its_user() {
    let space = project(1 << 10);
    let mode = |path: &Path| fs::metadata(path).expect("a path").mode() & 0o777;
    let set = |mode| {
        fs::set_permissions(space.cache(), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    space.ok(&["build", "--output", "oci:out"]);
    for name in ["", "blobs-v1", "records-v2", "tmp-v1"] {
        assert_eq!(mode(&space.cache().join(name)), 0o700, "{name}");
    }
    // Blobs of a layout are read by whoever may read the layout.
    let blob = files(&space.path().join("out/blobs")).swap_remove(0);
    assert_eq!(mode(&blob), 0o444);
    // Whoever opens it to others means to.
    set(0o755);
    space.ok(&["build", "--output", "oci:out"]);
    assert_eq!(mode(space.cache()), 0o755);
    // A folder that was there, or that an older version made, is closed once.
    fs::remove_file(space.cache().join("private-v1")).expect("a mark");
    space.ok(&["build", "--output", "oci:out"]);
    assert_eq!(mode(space.cache()), 0o700);
    remove(space.cache());
    fs::create_dir(space.cache()).expect("a folder");
    set(0o2775);
    space.ok(&["build", "--output", "oci:out"]);
    assert_eq!(mode(space.cache()), 0o700);
}

#[test]
fn a_kill_while_an_archive_is_written_leaves_nothing() {
    let space = Space::new();
    space.write(
        "image.toml",
        "[image.app]\nbase = \"scratch\"\ncompression = \"none\"\nlayers = [{ files = { src = \"data\", dest = \"/\" } }]\n",
    );
    space.write("data/file", Random(5).bytes(32 << 20));
    let args = [
        "build",
        "--progress",
        "none",
        "--output",
        "oci-archive:out/app.tar",
    ];
    let start = Instant::now();
    space.ok(&["build", "--output", "none"]);
    space.ok(&args);
    let full = start.elapsed();
    let out = space.path().join("out");
    let right = fs::read(out.join("app.tar")).expect("an archive");
    // What an older version left, or one that wrote to a file system without nameless files.
    space.write("out/.app.tar.partial", "left");
    space.ok(&args);
    assert_eq!(files(&out), [out.join("app.tar")]);
    if !has_nameless(&out) {
        return absent("a file system with files that have no name");
    }
    let mut rng = Random(11);
    for _ in 0..12 {
        let mut command = space.command(&args);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        std::thread::sleep(full.mul_f64(rng.below(1000) as f64 / 1000.0));
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(files(&out), [out.join("app.tar")]);
        assert!(fs::read(out.join("app.tar")).expect("an archive") == right);
    }
}

fn has_nameless(folder: &Path) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    open(folder, OFlags::TMPFILE | OFlags::WRONLY, Mode::empty()).is_ok()
}

/// A sink and the file of it to damage, and how.
type Case = (&'static str, fn(&Path));

#[test]
fn an_output_that_is_damaged_is_told_as_that_and_kept() {
    let space = project(1 << 10);
    let sinks = [
        "oci:out",
        "oci-archive:out.tar",
        "docker-archive:docker.tar",
    ];
    let build = |sink: &str| space.run(&["build", "api", "--progress", "none", "--output", sink]);
    let cases: [Case; 7] = [
        ("oci:out index.json", |path| cut(path, 100)),
        ("oci:out index.json", |path| cut(path, 0)),
        ("oci:out oci-layout", |path| {
            fs::write(path, "garbage").expect("a file")
        }),
        ("oci:out oci-layout", |path| {
            fs::write(path, r#"{"imageLayoutVersion":"9"}"#).expect("a file");
        }),
        ("oci:out oci-layout", |path| {
            fs::write(path, "{}").expect("a file")
        }),
        ("oci-archive:out.tar", |path| cut(path, 1600)),
        ("docker-archive:docker.tar", |path| cut(path, 1100)),
    ];
    for (number, (what, damage)) in cases.iter().enumerate() {
        remove(&space.path().join("out"));
        sinks
            .iter()
            .for_each(|sink| assert_eq!(build(sink).status, 0));
        let (sink, name) = what.split_once(' ').unwrap_or((what, ""));
        let (_, place) = sink.split_once(':').expect("a sink");
        let path = match name {
            "" => space.path().join(place),
            name => space.path().join(place).join(name),
        };
        damage(&path);
        let kept = fs::read(&path).expect("a file");
        let built = build(sink);
        assert_eq!(built.status, 1, "{number}: {}", built.stderr);
        for part in [
            "imgdecl::output::damaged",
            "is damaged",
            "remove the output yourself",
        ] {
            assert!(built.stderr.contains(part), "{number}: {}", built.stderr);
        }
        assert!(
            !built.stderr.contains("not written by imgdecl"),
            "{}",
            built.stderr
        );
        assert!(fs::read(&path).expect("a file") == kept, "{number}");
        if name.is_empty() {
            fs::remove_file(&path).expect("an archive");
        }
    }
    // What begins as nothing of ours does is somebody's.
    for text in ["", "somebody's", "PK\u{3}\u{4}"] {
        space.write("mine.tar", text);
        let built = build("oci-archive:mine.tar");
        assert_eq!(built.status, 2, "{}", built.stderr);
        assert!(built.stderr.contains("was not written by imgdecl"));
    }
}

fn cut(path: &Path, length: u64) {
    let file = File::options().write(true).open(path).expect("a file");
    file.set_len(length).expect("a length");
}
