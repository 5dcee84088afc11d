//! Extended attributes of what changed: those that layers keep, and those that an overlay writes for itself.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

use super::{ChangedError, Ids, Marks};
use crate::tar::shown;

/// The most bytes that the kernel lets a value, or all names of a file, have (xattr(7)).
const MAX: usize = 64 << 10;

/// The attributes of a file or folder.
#[derive(Default)]
pub(super) struct Attributes {
    /// Those that layers keep.
    pub(super) kept: BTreeMap<String, Vec<u8>>,
    /// It is a folder of an overlay's upper folder that hides all below it.
    pub(super) is_opaque: bool,
    /// It has access rights for single users or groups, which no layer holds.
    pub(super) has_acl: bool,
}

/// Reads attributes.
pub(super) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; MAX],
            value: vec![0; MAX],
        }
    }

    /// Reads the attributes of what is open, and has this path. `marks` are those of the overlay that it is of, if any.
    pub(super) fn read(
        &mut self,
        fd: impl AsFd,
        path: &[u8],
        marks: Option<Marks>,
        ids: &Ids,
    ) -> Result<Attributes, ChangedError> {
        let mut found = Attributes::default();
        let count = match flistxattr(&fd, &mut self.names[..]) {
            Ok(count) => count,
            // The file system has none.
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(ChangedError::io(path, error)),
        };
        for name in self.names[..count].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let kind = Name::of(name.to_bytes(), marks);
            if kind == Name::OfHost {
                continue;
            }
            let value = match fgetxattr(&fd, name, &mut self.value[..]) {
                Ok(count) => &self.value[..count],
                Err(Errno::NODATA) => return Err(ChangedError::Moved(shown(path))),
                Err(error) => return Err(ChangedError::io(path, error)),
            };
            let refused = |why: &str, help| {
                let why = format!("has the attribute `{}`, {why}", shown(name.to_bytes()));
                Err(ChangedError::entry(path, why, help))
            };
            match kind {
                Name::OfHost => {}
                Name::Acl => found.has_acl = true,
                Name::Opaque if value == b"y" => found.is_opaque = true,
                Name::Opaque | Name::Refused => {
                    return refused(
                        "so that an overlay shows something else there",
                        "mount the overlay with `redirect_dir=off,metacopy=off`, and let nothing in it set attributes of overlays",
                    );
                }
                Name::Kept => {
                    // In a layer, an equals sign ends the name.
                    let text = name.to_str().ok().filter(|it| !it.contains('='));
                    let Some(text) = text else {
                        return refused(
                            "whose name no layer can hold",
                            "names of attributes are UTF-8 without `=` there",
                        );
                    };
                    found.kept.insert(text.to_owned(), value.to_vec());
                }
                Name::Capability => match capability(value, ids) {
                    Some(value) => {
                        found.kept.insert("security.capability".to_owned(), value);
                    }
                    None => {
                        return refused(
                            "which is for another user namespace",
                            "set it again where the process runs",
                        );
                    }
                },
            }
        }
        Ok(found)
    }
}

/// What an attribute is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Kept,
    Capability,
    Acl,
    /// An overlay's folder may hide what is below.
    Opaque,
    /// An overlay, ours or another one, would show something else in the file's place.
    Refused,
    /// The host's, or of no meaning once the overlay is not mounted.
    OfHost,
}

impl Name {
    fn of(name: &[u8], marks: Option<Marks>) -> Self {
        let of_overlay = [
            (&b"trusted.overlay."[..], Marks::Trusted),
            (b"user.overlay.", Marks::User),
        ];
        for (prefix, written) in of_overlay {
            let Some(rest) = name.strip_prefix(prefix) else {
                continue;
            };
            if marks != Some(written) {
                return Self::Refused;
            }
            return match rest {
                b"opaque" => Self::Opaque,
                b"origin" | b"impure" | b"nlink" | b"upper" | b"uuid" | b"protattr" => Self::OfHost,
                _ => Self::Refused,
            };
        }
        match name {
            b"security.capability" => Self::Capability,
            b"system.posix_acl_access" | b"system.posix_acl_default" => Self::Acl,
            _ if name.starts_with(b"user.") => Self::Kept,
            _ => Self::OfHost,
        }
    }
}

/// Returns the capabilities as they are inside (kernel, include/uapi/linux/capability.h: `vfs_ns_cap_data`). Those that a
/// user namespace gave have the number of its root outside at their end. `None` where that is not our root.
fn capability(value: &[u8], ids: &Ids) -> Option<Vec<u8>> {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    match value {
        [flags, 0, 0, REVISION_3, masks @ ..] if masks.len() == 20 => {
            let (masks, root) = masks.split_at(16);
            let root = u32::from_le_bytes(root.try_into().ok()?);
            (ids.user(root)? == 0).then(|| [&[*flags, 0, 0, REVISION_2][..], masks].concat())
        }
        other => Some(other.to_vec()),
    }
}

/// Tells whether we see attributes that begin with `trusted.`: they hide from all but root of the host.
pub(super) fn sees_trusted() -> bool {
    // The number of the first user namespace (kernel, include/uapi/linux/nsfs.h: USER_NS_INIT_INO), and of the right
    // (capabilities(7): CAP_SYS_ADMIN).
    const FIRST: &str = "user:[4026531837]";
    const ADMIN: u32 = 21;
    let is_first = std::fs::read_link("/proc/self/ns/user")
        .is_ok_and(|it| it.as_os_str().as_encoded_bytes() == FIRST.as_bytes());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|it| it.strip_prefix("CapEff:"));
    let rights = rights.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    is_first && rights.is_some_and(|it| it >> ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn attributes_by_name() {
        for (name, marks, expected) in [
            ("user.note", None, Name::Kept),
            ("security.capability", None, Name::Capability),
            ("security.selinux", None, Name::OfHost),
            ("trusted.other", None, Name::OfHost),
            ("system.posix_acl_access", None, Name::Acl),
            ("trusted.overlay.opaque", Some(Marks::Trusted), Name::Opaque),
            ("trusted.overlay.origin", Some(Marks::Trusted), Name::OfHost),
            (
                "trusted.overlay.redirect",
                Some(Marks::Trusted),
                Name::Refused,
            ),
            (
                "trusted.overlay.metacopy",
                Some(Marks::Trusted),
                Name::Refused,
            ),
            (
                "trusted.overlay.whiteout",
                Some(Marks::Trusted),
                Name::Refused,
            ),
            ("user.overlay.opaque", Some(Marks::Trusted), Name::Refused),
            ("user.overlay.opaque", Some(Marks::User), Name::Opaque),
            ("user.overlay.opaque", None, Name::Refused),
            ("trusted.overlay.opaque", None, Name::Refused),
        ] {
            let found = Name::of(name.as_bytes(), marks);
            assert_eq!(found, expected, "{name} {marks:?}");
        }
    }

    #[test]
    fn capabilities_of_a_namespace_become_those_of_everyone() {
        let plain = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
        let mut own = plain.to_vec();
        own[3] = 3;
        own.extend(1000_u32.to_le_bytes());
        let mapped = |outside| Ids {
            users: vec![Span {
                inside: 0,
                outside,
                count: 1,
            }],
            groups: vec![],
        };
        assert_eq!(capability(&plain, &mapped(1000)).unwrap(), plain);
        assert_eq!(capability(&own, &mapped(1000)).unwrap(), plain);
        assert_eq!(capability(&own, &mapped(2000)), None);
        assert_eq!(capability(&own, &Ids::host()), None);
    }
}
