//! What can be wrong with a wheel.

use std::io;

use super::{HeaderError, SchemeError};
use crate::layer::{Clash, ContentError, LayerPath, PathError};
use crate::oci::Digest;

/// A wheel that cannot be made into a tree.
#[derive(Debug, thiserror::Error)]
#[error("{wheel}: {problem}")]
pub struct WheelError {
    /// The wheel's file name.
    pub wheel: String,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// Why a wheel cannot be made into a tree.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("the wheel cannot be read")]
    Io(#[from] io::Error),
    /// The tick said so.
    #[error("stopped")]
    Stopped,
    /// The scheme is none.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
    /// The file has another size than expected.
    #[error("the wheel has {found} bytes, and {expected} are expected")]
    Size {
        /// The size that the lock gives, in bytes.
        expected: u64,
        /// The size of the file, in bytes.
        found: u64,
    },
    /// The file is no zip archive, or not a sound one.
    #[error("the wheel is not a sound zip archive: {0}")]
    Zip(String),
    /// The archive's directory is larger than that of any real wheel.
    #[error("the wheel's directory of members has {0} bytes: no real wheel has so many")]
    Directory(u64),
    /// A member's name is no path below the site folder.
    #[error("the member {member:?} {reason}")]
    Name {
        /// The member's name.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two members have one name.
    #[error("the wheel has two members named `{0}`")]
    Twice(String),
    /// A member is neither file nor folder.
    #[error("the member `{member}` is a {kind}; wheels hold files and folders only")]
    Kind {
        /// The member's name.
        member: String,
        /// What it is.
        kind: &'static str,
    },
    /// A member is encrypted.
    #[error("the member `{0}` is encrypted")]
    Encrypted(String),
    /// A member is compressed in a way that wheels are not.
    #[error("the member `{member}` is compressed with {method}; wheels are deflated")]
    Method {
        /// The member's name.
        member: String,
        /// The method.
        method: String,
    },
    /// The wheel would inflate to more than any real wheel does.
    #[error(
        "the wheel's {archive} bytes would become {size}: no real wheel is compressed like that"
    )]
    Bomb {
        /// The size of the wheel in bytes.
        archive: u64,
        /// The size of its members in bytes.
        size: u64,
    },
    /// A member is not what the archive says.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// There is no dist-info folder.
    #[error("the wheel has no folder `NAME-VERSION.dist-info`")]
    NoDistInfo,
    /// There are several dist-info folders.
    #[error("the wheel has several dist-info folders: {}", .0.join(", "))]
    DistInfos(Vec<String>),
    /// A member that every wheel must have is not there.
    #[error("the wheel has no `{0}`")]
    Missing(String),
    /// A text is larger than any real one.
    #[error("`{member}` has {size} bytes, and {limit} are the most")]
    Large {
        /// The member's name.
        member: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// METADATA or WHEEL cannot be parsed.
    #[error("`{member}`: {error}")]
    Headers {
        /// The member's name.
        member: String,
        /// Why.
        error: HeaderError,
    },
    /// The wheel holds another package, or another version, than expected.
    #[error("{place} gives the {what} `{found}`, and `{expected}` is expected")]
    Other {
        /// Where it says so.
        place: String,
        /// `name` or `version`.
        what: &'static str,
        /// What is expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The wheel's METADATA is not the one that its index gives for it.
    #[error(
        "its METADATA has the digest {found}, and its index gives another one for it, {expected}: the two may need other \
         packages"
    )]
    Metadata {
        /// The digest of the wheel's own.
        found: Digest,
        /// The digest of the index's.
        expected: Digest,
    },
    /// The wheel is of a format that is not known.
    #[error("the wheel says `Wheel-Version: {0}`, and only versions 1.x are known")]
    WheelVersion(String),
    /// A line of RECORD cannot be parsed.
    #[error("RECORD, line {line}: {reason}")]
    Record {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A member has another hash than RECORD says.
    #[error("`{member}` has the hash {found}, and RECORD says {expected}")]
    Hash {
        /// The member's name.
        member: String,
        /// What RECORD says.
        expected: String,
        /// The hash that it has.
        found: String,
    },
    /// A member of the data folder that has no place.
    #[error(
        "the member `{0}` has no place: a data folder holds purelib, platlib, scripts, headers and data"
    )]
    Data(String),
    /// A data folder that belongs to another package.
    #[error("the folder `{found}` is not the wheel's data folder, which is `{expected}`")]
    ForeignData {
        /// The folder's name.
        found: String,
        /// The name that it must have.
        expected: String,
    },
    /// A line of entry_points.txt cannot be parsed.
    #[error("entry_points.txt, line {line}: {reason}")]
    EntryPoints {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file would take the interpreter's place.
    #[error("/{0} is the interpreter's name, and no wheel may take it")]
    Reserved(LayerPath),
    /// Two members with different bytes would be one file in the image.
    #[error("`{first}` and `{second}` would both be /{path}, and their bytes differ")]
    Claimed {
        /// The path in the image.
        path: LayerPath,
        /// The name of a member.
        first: String,
        /// The name of another one.
        second: String,
    },
    /// What was compiled cannot be loaded in the image.
    #[error("it was compiled for something else than {target}: {}", .unfit.join(", "))]
    Compiled {
        /// Files, each with what it needs.
        unfit: Vec<String>,
        /// The name of the target.
        target: String,
    },
    /// Two members would be one file in the image, or a file and a folder.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// A member's path is too long, or no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl WheelError {
    /// Returns the code for messages.
    pub fn code(&self) -> &'static str {
        match self.problem {
            Problem::Io(_) => "imgdecl::wheel::unreadable",
            Problem::Stopped => "imgdecl::stopped",
            Problem::Scheme(_) => "imgdecl::wheel::scheme",
            Problem::Size { .. } | Problem::Other { .. } => "imgdecl::wheel::other",
            Problem::Hash { .. } | Problem::Record { .. } => "imgdecl::wheel::record",
            Problem::Metadata { .. } => "imgdecl::wheel::metadata",
            Problem::Compiled { .. } => "imgdecl::wheel::compiled",
            Problem::EntryPoints { .. } | Problem::Reserved(_) => "imgdecl::wheel::script",
            Problem::Bomb { .. }
            | Problem::Directory(_)
            | Problem::Name { .. }
            | Problem::Kind { .. }
            | Problem::Path(_) => "imgdecl::wheel::unsafe",
            _ => "imgdecl::wheel::malformed",
        }
    }

    /// Says how to mend it.
    pub fn help(&self) -> String {
        match &self.problem {
            Problem::Io(_) => "check the file's permissions, or fetch the wheel again",
            Problem::Stopped => "run the command again",
            Problem::Scheme(error) => error.help(),
            Problem::Content(_) | Problem::Size { .. } | Problem::Zip(_) => {
                "fetch the wheel again; if it stays so, take another version of the package, or tell its makers"
            }
            Problem::Other { .. } => {
                "the file's name does not say what is in it: take it from another place, or give it its right name"
            }
            Problem::Metadata { .. } => {
                "packages were chosen by what the index says of the wheel, and the wheel says another thing: tell who runs the \
                 index. Once it is mended, `imgdecl lock --update`; or download the wheel, and name its folder in `find_links`"
            }
            Problem::Compiled { .. } => {
                "build the wheel in what the image builds on, or in something older with the same C library; `auditwheel repair` \
                 then gives it a tag that says what it needs"
            }
            Problem::Record { .. } => {
                "a line of RECORD has a path, a hash and a size: take another version of the package, or have its makers build \
                 the wheel anew"
            }
            Problem::Claimed { .. } => {
                "installers differ in which of them stays: take another version of the package, or tell its makers"
            }
            Problem::Hash { .. } => {
                "somebody changed the wheel after it was made: take it from where its makers publish it"
            }
            Problem::Reserved(_) => {
                "use `layout = \"venv\"` or another `prefix` only if the wheel is meant to bring an interpreter of its own; \
                 else take another version of the package"
            }
            Problem::Method { .. } | Problem::Encrypted(_) => {
                "make the wheel again: `wheel unpack`, then `wheel pack`"
            }
            Problem::WheelVersion(_) => "take an older version of the package",
            _ => "take another version of the package, or tell its makers",
        }
        .to_owned()
    }
}
