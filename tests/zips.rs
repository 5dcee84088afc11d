//! Odd zip archives, as imgdecl reads them and as others do: Python's zipfile (and so pip, which unpacks wheels by it), the
//! crate `zip` (and so installers in Rust), and a reader that goes from the front to the end and never looks at the
//! directory, as those do that unpack while they fetch.
//! What imgdecl takes, all of them read alike; what it refuses though zipfile takes it, [`REFUSED`] explains.

mod odd;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use flate2::read::DeflateDecoder;
use imgdecl::parts::oci::Digest;
use imgdecl::parts::python::wheel::{Bytes, Entry, Expected, Problem, Scheme, directory, install};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::support::{Random, peer};

/// How many archives are made.
const COUNT: usize = 6000;
/// Of how many one is laid out as a wheel, too.
const LAID_OUT: usize = 8;

/// What imgdecl refuses though zipfile reads it: words of the refusal, and why one cannot go by zipfile.
const REFUSED: &[(&str, &str)] = &[
    (
        "it has two ends",
        "the last one counts for zipfile, one that fits for others",
    ),
    (
        "bytes follow its end",
        "zipfile passes over them; others find an end in them, or none",
    ),
    (
        "its directory is not where its end says",
        "zipfile moves all offsets by what is missing; others do not",
    ),
    (
        "bytes stand before its first member",
        "who reads from the front reads them",
    ),
    (
        "that belong to no member",
        "who reads from the front finds members in them, or an end",
    ),
    (
        "its comment holds a part of an archive",
        "whoever searches for an end finds one there",
    ),
    (
        "holds a part of an archive",
        "whoever searches for members finds them there",
    ),
    (
        "hold a part of an archive",
        "whoever searches for members finds them there",
    ),
    (
        "holds more than the members that its end counts",
        "zipfile does not count; others stop",
    ),
    (
        "holds fewer members than its end counts",
        "zipfile does not count; others go on",
    ),
    (
        "it is but one part of several",
        "zipfile takes it for a whole one",
    ),
    (
        "its two ends disagree",
        "zipfile takes the long one always, others where a field is full",
    ),
    (
        "its long end is not where it must be",
        "zipfile looks in one place, others where the locator says",
    ),
    (
        "than before its bytes",
        "zipfile believes the directory, who reads from the front the header",
    ),
    (
        "give it another name",
        "newer releases of zipfile and others take that name",
    ),
    ("say one thing twice", "the first or the last counts"),
    (
        "are cut short",
        "a rest of up to three bytes is nothing for zipfile, and damage for others",
    ),
    (
        "are in doubt",
        "numbers that zipfile passes over count for others",
    ),
    (
        "and its size stands behind it",
        "who reads from the front cannot tell where it ends",
    ),
    (
        "two members named",
        "the last one counts for pip, the first one for others",
    ),
    (
        "neither ASCII nor marked as UTF-8",
        "code page 437 for zipfile, UTF-8 for others",
    ),
    (
        "has a name that is not UTF-8",
        "code page 437 for zipfile; no path for a layer",
    ),
    (
        "has `.` or an empty part",
        "pip looks for folders of the wheel by the plain text",
    ),
    (
        "has a `..`",
        "it leads out of the wheel; pip refuses to unpack it",
    ),
    (
        "has an absolute path",
        "it leads out of the wheel; pip refuses to unpack it",
    ),
    ("has a backslash", "a folder on some systems"),
    (
        "has a control character",
        "zipfile cuts names at NUL; others show what is not there",
    ),
    ("would delete a file", "a layer cannot hold such a name"),
    ("is a symlink", "pip writes a file with the link's target"),
    ("device, socket or pipe", "pip writes a file"),
    ("folder without `/`", "pip writes a file"),
    ("file with a `/`", "pip passes it over"),
    ("folder with content", "pip passes it over"),
    (
        "is compressed with",
        "zipfile knows more methods than other readers of wheels",
    ),
    (
        "is damaged",
        "zipfile reads no further than it must, and does not see what follows",
    ),
    (
        "lies in what follows it",
        "zipfile reads one member out of another's bytes",
    ),
    (
        "is encrypted",
        "zipfile does not know the flag for hidden headers",
    ),
    (
        "no real wheel is compressed like that",
        "zipfile does not look whether a member has the size that its directory gives",
    ),
];

/// Reads archives from its input, each after its length, and says of each on a line what zipfile makes of it, `|`, and what
/// a reader from the front does: names and hashes, or why there are none.
const SCRIPT: &str = r#"
import hashlib, io, struct, sys, warnings, zipfile, zlib
warnings.simplefilter("ignore")
def shown(pairs):
    return "ok" + "".join(f" {name.encode('utf-8', 'surrogateescape').hex()}={hashlib.sha256(data).hexdigest()}" for name, data in sorted(pairs))
def by_zipfile(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # pip asks by name, and so gets the last one.
        by_name = [(name, archive.read(name)) for name in archive.namelist()]
        by_entry = [(info.filename, archive.read(info)) for info in archive.infolist()]
        if by_name != by_entry:
            return "ok differs"
        return shown(by_entry)
def from_front(data):
    pairs, at = [], 0
    while data[at:at + 4] == b"PK\3\4":
        _, flags, method, _, _, crc, packed, size, name, extra = struct.unpack("<HHHHHLLLHH", data[at + 4:at + 30])
        at += 30
        label = data[at:at + name].decode("utf-8" if flags & 0x800 else "ascii")
        more, at = data[at + name:at + name + extra], at + name + extra
        wide = False
        while len(more) >= 4:
            kind, length = struct.unpack("<HH", more[:4])
            numbers = list(struct.unpack(f"<{length // 8}Q", more[4:4 + length // 8 * 8])) if kind == 1 else []
            wide = wide or kind == 1
            if size == 0xffffffff and numbers: size = numbers.pop(0)
            if packed == 0xffffffff and numbers: packed = numbers.pop(0)
            more = more[4 + length:]
        if method == 8:
            inflate = zlib.decompressobj(-15)
            text = inflate.decompress(data[at:]) + inflate.flush()
            if not inflate.eof: raise ValueError("cut")
            used = len(data) - at - len(inflate.unused_data)
        elif method == 0 and (not flags & 8 or packed == 0):
            text, used = data[at:at + packed], packed
        else:
            raise ValueError("method")
        at += used
        if flags & 8:
            at += 4 if data[at:at + 4] == b"PK\7\x08" else 0
            form = "<LQQ" if wide else "<LLL"
            crc, packed, size = struct.unpack(form, data[at:at + struct.calcsize(form)])
            at += struct.calcsize(form)
        if (zlib.crc32(text), used, len(text)) != (crc, packed, size): raise ValueError("sizes")
        pairs.append((label, text))
    if data[at:at + 4] not in (b"PK\1\2", b"PK\5\6"): raise ValueError("not a directory")
    return shown(pairs)
def said(read, data):
    try:
        return read(data)
    except Exception as error:
        return f"no {type(error).__name__}: {error}".replace("\n", " ").replace("|", " ")
stdin = sys.stdin.buffer
while length := stdin.read(4):
    data = stdin.read(struct.unpack("<L", length)[0])
    print(said(by_zipfile, data) + "|" + said(from_front, data))
"#;

/// An archive in memory.
struct Memory<'a>(&'a [u8]);

impl Bytes for Memory<'_> {
    type Error = Problem;

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, at: u64, count: u64) -> Result<Vec<u8>, Problem> {
        let at = usize::try_from(at).expect("in memory");
        let count = usize::try_from(count).expect("in memory");
        Ok(self.0[at..at + count].to_vec())
    }
}

/// Reads an archive as imgdecl does; says it as the script does.
fn ours(archive: &[u8]) -> Result<String, String> {
    let mut bytes = Memory(archive);
    let read = |entry: &Entry, bytes: &mut Memory<'_>| {
        let end = if entry.is_folder { "/" } else { "" };
        let name = format!("{}{end}", entry.path);
        Ok((name, entry.read(bytes, 1 << 32)?))
    };
    let all = || -> Result<Vec<(String, Vec<u8>)>, Problem> {
        let entries = directory(&mut bytes)?;
        entries.iter().map(|it| read(it, &mut bytes)).collect()
    };
    let all = { all }().map_err(|problem| problem.to_string())?;
    Ok(shown(all))
}

/// Says what was read as the script does: names and hashes, sorted.
fn shown(mut all: Vec<(String, Vec<u8>)>) -> String {
    all.sort();
    let shown = all.iter().map(|(name, data)| {
        let name: String = name.bytes().map(|it| format!("{it:02x}")).collect();
        format!(" {name}={}", Digest::of(data).hex())
    });
    format!("ok{}", shown.collect::<String>())
}

/// Reads an archive by the crate `zip`; says it as the script does. The crate finds the members and their bytes; without
/// its features it inflates nothing.
fn by_crate(archive: &[u8]) -> Result<String, ZipError> {
    let mut zip = ZipArchive::new(Cursor::new(archive))?;
    let mut all = Vec::new();
    for number in 0..zip.len() {
        let mut member = zip.by_index_raw(number)?;
        let (name, method) = (member.name()?.into_owned(), member.compression());
        let (size, crc) = (member.size(), member.crc32());
        let mut data = Vec::new();
        match method {
            CompressionMethod::Stored => member.read_to_end(&mut data)?,
            _ => DeflateDecoder::new(member).read_to_end(&mut data)?,
        };
        let mut found = flate2::Crc::new();
        found.update(&data);
        assert_eq!((data.len() as u64, found.sum()), (size, crc), "{name}");
        all.push((name, data));
    }
    Ok(shown(all))
}

/// Has Python read archives; returns a line of each.
fn theirs(archives: &[Vec<u8>]) -> Option<Vec<(String, String)>> {
    let python = peer("python3")?;
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut input = child.stdin.take().expect("a pipe");
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            for archive in archives {
                let length = u32::try_from(archive.len()).expect("small").to_le_bytes();
                let written = input
                    .write_all(&length)
                    .and_then(|()| input.write_all(archive));
                written.expect("python3 reads");
            }
        });
        child.wait_with_output().expect("python3 ends")
    });
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().map(|line| {
        let (zipfile, front) = line.split_once('|').expect("two answers");
        (zipfile.to_owned(), front.to_owned())
    });
    Some(lines.collect())
}

#[test]
fn odd_archives_have_one_reading() {
    let mut random = Random(13);
    let archives: Vec<Vec<u8>> = (0..COUNT).map(|_| odd::archive(&mut random)).collect();
    let Some(theirs) = theirs(&archives) else {
        return;
    };
    assert_eq!(theirs.len(), COUNT);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut taken, mut forms) = (0, BTreeSet::new());
    for (number, (archive, (zipfile, front))) in archives.iter().zip(&theirs).enumerate() {
        match ours(archive) {
            Ok(ours) => {
                assert_eq!(*zipfile, ours, "{number}: zipfile and pip");
                assert_eq!(*front, ours, "{number}: from the front");
                let by_crate = by_crate(archive).map_err(|error| error.to_string());
                assert_eq!(by_crate, Ok(ours), "{number}: the crate zip");
                taken += 1;
                forms.insert(archive.clone());
                if number % LAID_OUT == 0 {
                    lay_out(archive, number);
                }
            }
            Err(why) if zipfile.starts_with("ok") => {
                let row = REFUSED.iter().find(|(words, _)| why.contains(words));
                let (words, _) = row.unwrap_or_else(|| panic!("{number}: refused as `{why}`"));
                *counts.entry(words).or_default() += 1;
            }
            Err(_) => {}
        }
    }
    assert!(
        taken > COUNT / 8 && forms.len() > COUNT / 10,
        "{taken} {}",
        forms.len()
    );
    for (words, why) in REFUSED {
        assert!(
            counts.contains_key(words),
            "nothing was refused as `{words}` ({why})"
        );
    }
}

/// Lays an archive out as the wheel that it is: what is read by headers alone is the same as what is read whole.
fn lay_out(archive: &[u8], number: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wheel");
    std::fs::write(&file, archive).expect("a file");
    let expected = Expected {
        name: "pkg".parse().expect("a name"),
        version: "1.0".parse().expect("a version"),
        file: "pkg-1.0-py3-none-any.whl".to_owned(),
        digest: Digest::of(archive),
        size: Some(archive.len() as u64),
        url: None,
        metadata: None,
    };
    let path = |text: &str| imgdecl::parts::layer::LayerPath::parse(text).expect("a path");
    let scheme = Scheme {
        prefix: path("usr"),
        site: path("usr/lib/python3.11/site-packages"),
        platsite: None,
        interpreter: "/usr/bin/python3.11".to_owned(),
        python: (3, 11),
        owner: imgdecl::parts::layer::Owner::default(),
    };
    if let Err(error) = install(&file, &expected, &scheme, &|_| true) {
        // The archive is sound; only what is in it may not be that of a wheel.
        let is_archive = matches!(error.problem, Problem::Zip(_) | Problem::Content(_));
        assert!(!is_archive, "{number}: {error}");
    }
}
