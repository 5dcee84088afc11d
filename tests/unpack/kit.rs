//! Images made of raw tars, and what lies in a folder. Shares no code with what reads them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use imgdecl::parts::oci::Digest;
use serde_json::{Value, json};

use crate::support::Space;

/// A tar, written byte by byte.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

/// A header of a tar.
#[derive(Clone)]
pub(super) struct Head<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) mtime: u64,
    pub(super) device: (u32, u32),
}

impl Default for Head<'_> {
    fn default() -> Self {
        Self {
            name: b"",
            kind: b'0',
            size: 0,
            link: b"",
            mode: 0o644,
            uid: 0,
            mtime: 1_000_000,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a header, and a body that need not fit it.
    pub(super) fn raw(mut self, head: &Head<'_>, body: &[u8]) -> Self {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &head.name[..head.name.len().min(100)]);
        put(100, format!("{:07o}", head.mode).as_bytes());
        put(108, format!("{:07o}", head.uid & 0o7777777).as_bytes());
        put(116, format!("{:07o}", head.uid & 0o7777777).as_bytes());
        put(124, format!("{:011o}", head.size).as_bytes());
        put(136, format!("{:011o}", head.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[head.kind]);
        put(157, &head.link[..head.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", head.device.0).as_bytes());
        put(337, format!("{:07o}", head.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn add(self, kind: u8, name: &str, link: &str, mode: u32) -> Self {
        let (name, link) = (name.as_bytes(), link.as_bytes());
        let head = Head {
            name,
            kind,
            link,
            mode,
            ..Head::default()
        };
        self.raw(&head, b"")
    }

    pub(super) fn file(self, name: &str, body: &str) -> Self {
        let head = Head {
            name: name.as_bytes(),
            size: body.len() as u64,
            ..Head::default()
        };
        self.raw(&head, body.as_bytes())
    }

    pub(super) fn folder(self, name: &str) -> Self {
        self.add(b'5', name, "", 0o755)
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        if target.len() > 100 {
            return self
                .records(&[("linkpath", target.as_bytes())])
                .add(b'2', name, "", 0o777);
        }
        self.add(b'2', name, target, 0o777)
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        if target.len() > 100 {
            return self
                .records(&[("linkpath", target.as_bytes())])
                .add(b'1', name, "", 0o644);
        }
        self.add(b'1', name, target, 0o644)
    }

    /// Adds PAX records for the next entry.
    pub(super) fn records(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            body.extend(format!("{length} {key}=").into_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        let head = Head {
            name: b"PaxHeaders",
            kind: b'x',
            size: body.len() as u64,
            ..Head::default()
        };
        self.raw(&head, &body)
    }

    /// Ends the tar.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A layer as it lies in a layout.
pub(super) struct Layer {
    pub(super) blob: Vec<u8>,
    pub(super) diff_id: String,
    pub(super) media_type: &'static str,
}

pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

impl Layer {
    pub(super) fn plain(tar: Vec<u8>) -> Self {
        Self {
            diff_id: Digest::of(&tar).to_string(),
            blob: tar,
            media_type: PLAIN,
        }
    }
}

/// Writes a layout of one image into the folder `img` of the space.
pub(super) fn write_layout(space: &Space, layers: &[Layer], config: Value) {
    let root = space.path().join("img");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("blobs/sha256")).expect("a folder");
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(root.join("blobs/sha256").join(digest.hex()), bytes).expect("a blob");
        (digest.to_string(), bytes.len())
    };
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (config, config_size) = put(config.to_string().as_bytes());
    let layers = layers.iter().map(|layer| {
        let (digest, size) = put(&layer.blob);
        json!({"mediaType": layer.media_type, "digest": digest, "size": size})
    });
    let manifest = json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config, "size": config_size,
        },
        "layers": layers.collect::<Vec<Value>>(),
    });
    let (manifest, manifest_size) = put(manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest, "size": manifest_size,
        "annotations": {"org.opencontainers.image.ref.name": "made"},
    }]});
    fs::write(root.join("index.json"), index.to_string()).expect("an index");
    let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
    fs::write(root.join("oci-layout"), version).expect("a layout");
}

/// The platform of the images here, wherever the tests run.
pub(super) const AMD64: &str = "--platform=linux/amd64";

/// Writes an image of plain layers.
pub(crate) fn write_tars(space: &Space, tars: &[Vec<u8>]) {
    let layers: Vec<Layer> = tars.iter().cloned().map(Layer::plain).collect();
    write_layout(space, &layers, json!({"Cmd": ["x"]}));
}

/// Unpacks an image of one layer: by us into `out`, and by umoci, whose root is returned. Errors are what they say.
pub(crate) fn unpack_layer(
    space: &Space,
    umoci: &Path,
    tar: Vec<u8>,
) -> (Result<(), String>, Result<PathBuf, String>) {
    write_tars(space, &[tar]);
    let own = space.run(&["unpack", "img", "out", AMD64]);
    let own = match own.status {
        0 => Ok(()),
        _ => Err(own.stderr),
    };
    let mut command = Command::new(umoci);
    command.args(["unpack", "--image", "img:made", "theirs"]);
    let theirs = command.current_dir(space.path()).output().expect("umoci");
    let theirs = match theirs.status.success() {
        true => Ok(space.path().join("theirs/rootfs")),
        false => Err(String::from_utf8_lossy(&theirs.stderr).into_owned()),
    };
    (own, theirs)
}

/// All that there is to know of what lies below a folder.
pub(crate) fn list(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let rel = path.strip_prefix(root).expect("below").to_owned();
            found.insert(rel.clone(), describe(&path, &rel, &mut inodes));
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    found
}

fn describe(path: &Path, rel: &Path, inodes: &mut BTreeMap<u64, PathBuf>) -> String {
    let meta = fs::symlink_metadata(path).expect("an entry");
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).expect("a target").display())
    } else if kind.is_file() {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        format!("{} {}", meta.len(), Digest::of(&bytes))
    } else if kind.is_dir() {
        "folder".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        let name = if kind.is_char_device() {
            "char"
        } else {
            "block"
        };
        format!("{name} {}", meta.rdev())
    };
    // Hard links to one file, by the name that comes first; folders have counts of their own.
    let same = match kind.is_dir() || meta.nlink() == 1 {
        true => String::new(),
        false => {
            let first = inodes.entry(meta.ino()).or_insert_with(|| rel.to_owned());
            format!(" = {} ({})", first.display(), meta.nlink())
        }
    };
    format!(
        "{:o} {}:{} {}.{:09} {content}{same} {:?}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        attributes(path)
    )
}

/// The extended attributes of a path itself.
pub(super) fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let Ok(count) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return BTreeMap::new();
    };
    let names = names[..count]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let count = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]);
        value.truncate(count.expect("an attribute"));
        (String::from_utf8_lossy(name).into_owned(), value)
    };
    names.map(value).collect()
}

/// Compares two listings, and shows what differs.
#[track_caller]
pub(super) fn assert_same(a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>) {
    let differs = |path: &&PathBuf| a.get(*path) != b.get(*path);
    let wrong: Vec<String> = a
        .keys()
        .chain(b.keys().filter(|path| !a.contains_key(*path)))
        .filter(differs)
        .map(|path| {
            format!(
                "{}:\n  {:?}\n  {:?}",
                path.display(),
                a.get(path),
                b.get(path)
            )
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
