//! The one reader of tar: layers, archives of files, archives of images (POSIX.1-2001 pax, ustar, GNU, star and V7).
//!
//! Whoever reads a tar reads it with [`Entries`], so that all of imgdecl sees the same files in the same bytes. The crate
//! `tar` reads single header blocks (block.rs); what headers mean together is decided here, and nowhere else. Knows
//! nothing of folders, compression, images or rules.
//!
//! # What odd headers mean
//!
//! The measure is Go's `archive/tar`, since containerd, Docker, podman and umoci unpack by it, and GNU tar. What these two
//! take for the same is taken so. Where they would see other names, sizes or contents, the entry is refused: else a file
//! could be shown to one reader and hidden from another. `tests/tars.rs` compares this reader with GNU tar, Python's
//! `tarfile`, umoci and the crate `tar-core`, and lists what is left of differences.
//!
//! | header | what it means here | why |
//! |---|---|---|
//! | a number field that is empty | 0 | all agree |
//! | octal with blanks before it, or a blank or NUL behind it | the number | all agree |
//! | base-256, also below 0 for times | the number | all agree; a negative size, mode or owner is refused |
//! | any other text in a number field | refused | GNU tar guesses, Go fails, Python stops without a word |
//! | a checksum of signed bytes | right | old tars of Sun wrote it; all agree |
//! | a wrong checksum | damaged | all agree |
//! | type NUL or `0` or `7`, with a path that ends in `/` | a folder; with content it is refused | V7 had no type for folders; readers disagree on where its content ends |
//! | type `7` | a file | all agree |
//! | type `1` to `6` with a size | the size means nothing, no content follows | Go, GNU tar for links, and Python |
//! | type `S`, or PAX records `GNU.sparse.*` (0.0, 0.1, 1.0) | a file, with its holes filled | all agree; [`Entry::holes`] says how many bytes they are, so that a caller can set a limit |
//! | a sparse map that is unsorted, overlaps, or does not fit its sizes | refused | all agree |
//! | type `L` or `K`, also several | the last one before the entry counts, up to its first NUL | Go and GNU tar; Python takes the first |
//! | type `x`, also several | the records of the last one count; where only one of them gives a size, refused | Go and GNU tar; Python merges them |
//! | `L` and a PAX `path`, `K` and a PAX `linkpath`, that differ | refused | GNU tar takes that of PAX, Go that of GNU |
//! | headers that speak of an entry, and then the end | passed over | Go and GNU tar; they name nothing |
//! | a PAX record that stands twice | the last one counts | POSIX, and all agree |
//! | a PAX record with an empty value | as if it were not there; an extended attribute may be empty | POSIX |
//! | a PAX value with line feeds | is kept: records have lengths | all agree |
//! | a NUL in a PAX path or link | refused | Go refuses it, C readers cut it |
//! | a damaged PAX record | refused | Go refuses it, GNU tar warns and guesses |
//! | type `g` | passed over; [`Entries::globals`] names the records that another reader would heed | runtimes pass over it, GNU tar and Python do not |
//! | type `V`, a volume label | passed over | it holds nothing; GNU tar and Python pass over it |
//! | type `X`, `M`, `N` or `D` | refused | records of Solaris, a part of a file, and lists of GNU tar: no reader takes another's |
//! | any other type | [`Kind::Other`], with its content | all agree on where it ends; the caller decides |
//! | the prefix field of V7 headers | is not read | V7 had none |
//! | the prefix field of GNU headers | is not read; where it holds no times, the entry is refused | GNU tar keeps times there; Go takes anything else for a prefix |
//! | star's `tar\0` at the end of a header | the prefix is 131 bytes long | Go; times follow it |
//! | one block of zeros, and then another header | damaged | GNU tar and Python end there, Go fails |
//! | two blocks of zeros | the end, whatever follows | all agree |
//! | the end of the stream between entries, or in the padding of the last one | the end | all agree |
//! | the end of the stream anywhere else | damaged | all agree |
//! | no bytes at all | an empty archive; [`Entries::is_blank`] tells | GNU tar takes it; a download that failed leaves one |
//! | a header that speaks of another, of more than 1 MiB | damaged | it would be held in memory |
//! | more than 8,000,000 entries, or 512 MiB of names and records | refused | they are held in memory |

mod block;
mod entries;
mod entry_path;
mod records;
mod sparse;
#[cfg(test)]
pub(crate) mod testing;
mod whiteout;

pub(crate) use block::BLOCK;
pub(crate) use entries::Stream;
pub use entries::{Entries, Entry, Input, Kind, TarError};
pub(crate) use entry_path::{EntryPath, entry_path};
pub(crate) use whiteout::{OPAQUE, WHITEOUT, Whiteout};

/// Makes a name of an archive fit for a message: control characters are escaped, and it is cut after 200 characters.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).escape_debug().to_string();
    if let Some((at, _)) = text.char_indices().nth(200) {
        text.truncate(at);
        text.push('…');
    }
    text
}
