//! Whiteouts: names by which a layer hides what lower layers hold (image-spec, layer.md, "Whiteouts").

/// The prefix of a whiteout's file name.
pub(crate) const WHITEOUT: &str = ".wh.";
/// The file name that hides everything that lower layers hold in its folder ("Opaque Whiteout").
pub(crate) const OPAQUE: &str = ".wh..wh..opq";
/// What the names of files begin with that the union file system AUFS alone ever read.
const AUFS: &[u8] = b".wh..wh.";

/// What the name of an entry of a layer says about lower layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whiteout<'a> {
    /// The name is one like any other.
    None,
    /// What has this name in the same folder is hidden.
    Name(&'a [u8]),
    /// All that is in the same folder is hidden.
    Opaque,
    /// It means nothing any more, and is passed over: see Docker's `WhiteoutMetaPrefix`.
    Meaningless,
    /// It would hide the folder that it is in, or the one above. containerd calls such a layer invalid.
    Invalid,
}

impl<'a> Whiteout<'a> {
    /// Reads the last component of a path.
    pub(crate) fn of(name: &'a [u8]) -> Self {
        if name == OPAQUE.as_bytes() {
            return Self::Opaque;
        }
        if name.starts_with(AUFS) {
            return Self::Meaningless;
        }
        match name.strip_prefix(WHITEOUT.as_bytes()) {
            None => Self::None,
            Some(b"" | b"." | b"..") => Self::Invalid,
            Some(hidden) => Self::Name(hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_they_hide() {
        for (name, expected) in [
            ("a", Whiteout::None),
            (".wh", Whiteout::None),
            (".wh.a", Whiteout::Name(b"a")),
            (".wh..a", Whiteout::Name(b".a")),
            (".wh..wh..opq", Whiteout::Opaque),
            (".wh..wh.plnk", Whiteout::Meaningless),
            (".wh.", Whiteout::Invalid),
            (".wh..", Whiteout::Invalid),
            (".wh...", Whiteout::Invalid),
            (".wh....", Whiteout::Name(b"...")),
        ] {
            assert_eq!(Whiteout::of(name.as_bytes()), expected, "{name}");
        }
    }
}
