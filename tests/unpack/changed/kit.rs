//! Images whose folders are changed and read back, by the library itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use imgdecl::parts::layer::{Anew, Facts, FactsBuilder, LayerPath, Tree, resolve, write};
use imgdecl::parts::oci::Compression;
use imgdecl::parts::runtime::Limits;
use imgdecl::parts::runtime::changed::{Before, Changed, ChangedError, Changes, Ids, Snapshot};
use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::super::kit::{AMD64, list, write_tars};
use crate::peers::is_root;
use crate::support::{Output, Space};

/// The image below.
const BASE: &str = r#"
mkdir -p etc/deep/er bin tmp srv opaque/a keep/me link-to kinds/folder usr/lib gone/x/y
echo 1 > etc/conf; echo old > etc/old; echo deep > etc/deep/er/file; echo same > keep/me/file
echo a > opaque/a/b; echo c > opaque/c; echo f > kinds/file; echo f > kinds/folder/file; echo y > gone/x/y/z
ln -s conf etc/link; ln -s ../etc kinds/link; ln -s usr/lib lib; echo so > usr/lib/so
echo one > srv/one; ln srv/one srv/two; echo run > bin/run; chmod 4755 bin/run; chmod 1777 tmp; chmod 2750 srv
chown 12:34 srv; setfattr -n user.note -v old etc/old; echo three > srv/three; ln srv/three srv/four
mkfifo kinds/fifo
"#;

/// Runs a script in a folder.
pub(super) fn shell(folder: &Path, script: &str) {
    let mut command = Command::new("sh");
    let output = Output::of(command.arg("-ec").arg(script).current_dir(folder));
    assert_eq!(output.status, 0, "{}", output.stderr);
}

pub(super) fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
}

/// Layers hold whole seconds: takes the rest off what was changed.
pub(super) fn whole_seconds(root: &Path) {
    for path in list(root).into_keys().rev() {
        let path = root.join(path);
        let meta = fs::symlink_metadata(&path).expect("an entry");
        if meta.mtime_nsec() != 0 {
            let time = Timespec {
                tv_sec: meta.mtime(),
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let set = utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
            set.expect("a time");
        }
    }
}

/// Makes a tar of a folder, as layers are.
pub(super) fn tar(folder: &Path) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--xattrs", "--xattrs-include=*"]);
    command.args([
        "--format=pax",
        "--pax-option=delete=atime,delete=ctime,delete=mtime",
    ]);
    let output = command.arg("-cC").arg(folder).arg(".").output();
    let output = output.expect("tar");
    assert!(output.status.success());
    output.stdout
}

/// An image of one layer, and what it is in a folder.
pub(super) struct Image {
    pub(super) space: Space,
    pub(super) base: Vec<u8>,
    facts: Facts,
}

impl Image {
    pub(super) fn new() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: needs root, to give files away");
            return None;
        }
        let space = Space::new();
        let folder = space.path().join("base");
        fs::create_dir(&folder).expect("a folder");
        shell(&folder, BASE);
        Some(Self::of(space, &folder))
    }

    /// Makes an image of what lies in a folder.
    pub(super) fn of(space: Space, folder: &Path) -> Self {
        let base = tar(folder);
        let mut builder = FactsBuilder::default();
        builder.apply(&mut &base[..], &|_| true).expect("a layer");
        Self {
            space,
            base,
            facts: builder.finish(),
        }
    }

    /// Unpacks the image with layers on top into the folder `name`.
    pub(super) fn unpack(&self, above: &[Vec<u8>], name: &str) -> PathBuf {
        let layers = [&[self.base.clone()][..], above].concat();
        write_tars(&self.space, &layers);
        self.space.ok(&["unpack", "img", name, AMD64]);
        self.space.path().join(name)
    }

    /// Makes a layer of changes.
    pub(super) fn layer(&self, changes: Changes, contents: &[u8]) -> Vec<u8> {
        let tree = tree(&self.space, changes, contents);
        let changes = resolve(&[Arc::new(tree)], &self.facts).expect("a layer");
        let mut layer = Vec::new();
        write(&changes, Compression::None, &Anew, &mut layer, &|_| true).expect("a layer");
        layer
    }
}

/// Makes a tree of changes.
pub(super) fn tree(space: &Space, changes: Changes, contents: &[u8]) -> Tree {
    let path = space.write("contents", contents);
    changes.tree(&path.into()).expect("a tree")
}

/// How folders are read here.
pub(super) struct Reader {
    pub(super) ids: Ids,
    pub(super) except: BTreeSet<LayerPath>,
    pub(super) skip_special: bool,
    pub(super) limits: Limits,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            ids: Ids::host(),
            except: BTreeSet::new(),
            skip_special: false,
            limits: Limits::default(),
        }
    }

    pub(super) fn with<T>(&self, root: &Path, go: impl FnOnce(&Changed<'_>) -> T) -> T {
        go(&Changed {
            only: None,
            root,
            ids: &self.ids,
            except: &self.except,
            keep_mtime: true,
            skip_special: self.skip_special,
            limits: &self.limits,
            tick: &|_| true,
        })
    }

    pub(super) fn snapshot(&self, root: &Path) -> Snapshot {
        self.with(root, |it| it.snapshot().expect("a snapshot"))
    }

    pub(super) fn read(
        &self,
        root: &Path,
        before: Before<'_>,
    ) -> Result<(Changes, Vec<u8>), ChangedError> {
        let mut contents = Vec::new();
        let changes = self.with(root, |it| it.read(before, &mut contents))?;
        Ok((changes, contents))
    }
}

/// An overlay, mounted as long as this lives.
pub(super) struct Overlay {
    folder: PathBuf,
}

impl Overlay {
    pub(super) fn new(folder: &Path, lower: &Path, options: &str) -> Option<Self> {
        for name in ["upper", "work", "merged"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let mode = fs::metadata(lower).expect("a folder").permissions();
        fs::set_permissions(folder.join("upper"), mode).expect("a mode");
        let data = format!(
            "lowerdir={},upperdir={},workdir={}{options}",
            lower.display(),
            folder.join("upper").display(),
            folder.join("work").display()
        );
        let data = std::ffi::CString::new(data).expect("no NUL");
        let merged = folder.join("merged");
        let flags = MountFlags::empty();
        let mounted = mount(c"overlay", &merged, c"overlay", flags, data.as_c_str());
        match mounted {
            Ok(()) => Some(Self {
                folder: folder.to_owned(),
            }),
            Err(error) => {
                eprintln!("skipped: no overlay can be mounted here{options}: {error}");
                None
            }
        }
    }

    pub(super) fn merged(&self) -> PathBuf {
        self.folder.join("merged")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.folder.join("upper")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(self.merged(), UnmountFlags::DETACH);
    }
}

pub(super) const PLAIN: &str = ",redirect_dir=off,metacopy=off,index=off";
